#!/usr/bin/env python3
"""Compares token ids of this program with those of the PyPI package `tokenizers` reading the same tokenizer.json.

    tokenizers_parity.py --nanochat build/bin/nanochat --tokenizer FOLDER [FOLDER ...] [--text FILE ...]

Texts: every file given, cut into documents, random strings over alphabets that provoke disagreement (white space of
every kind, digits, punctuation runs, scripts, emoji, names of special tokens), and every assigned character beside a
letter. Exits with 1 at the first tokenizer whose ids differ, with 77 when `tokenizers` is not installed.
"""
import argparse
import json
import random
import subprocess
import sys
import unicodedata

ALPHABETS = [
    "ab \n",
    " \t\n\r\u00a0\u0085\u1680\u180e\u2003\u2028\u3000\u200b\x0b\x0c\x1c\x1f",
    "the and of THE I'm you'll we've 's 'S 'LL ",
    "0123456789 .,-",
    "!?;:--''\"\"()[]{}<>|/\\*#&%$@~`^_+= \n",
    "\u00e9\u00e8\u00fc\u00df\u0153\u017f\u212a e\u0301 \u0130\u0131",
    "\u4f60\u597d\u4e16\u754c\uff0c\u3002 \u3053\u3093\u306b\u3061\u306f\uc548\ub155",
    "\u041f\u0440\u0438\u0432\u0435\u0442 \u043c\u0438\u0440 \u05e9\u05dc\u05d5\u05dd \u0645\u0631\u062d\u0628\u0627 \u0928\u092e\u0938\u094d\u0924\u0947 \u0661\u0662\u0663\u00bd\u2163",
    "\U0001f600\U0001f468\u200d\U0001f469\u200d\U0001f467\U0001f1eb\U0001f1f7\ufe0f\u2764 x",
    "<|bos|><|user_start|><unk><0x41>\u2581 ",
    "\x00\x01\x7f\ufffd\ufeff\U0010ffff\ue000 a",
]


def random_texts(count, seed):
    rng = random.Random(seed)
    for i in range(count):
        alphabet = ALPHABETS[i % len(ALPHABETS)]
        if i % 3 == 0:
            alphabet += rng.choice(ALPHABETS)
        yield "".join(rng.choice(alphabet) for _ in range(rng.choice([1, 2, 3, 5, 10, 40, 300])))


def character_texts():
    """Every assigned character of Python's Unicode, alone and after a letter, a space and a digit."""
    points = [c for c in range(0x110000) if unicodedata.category(chr(c)) not in ("Cn", "Cs")]
    for start in range(0, len(points), 64):
        yield "".join(f"a{chr(c)} {chr(c)}b1{chr(c)}\n" for c in points[start : start + 64])


def file_texts(paths, size):
    for path in paths:
        with open(path, encoding="utf-8", newline="") as file:
            text = file.read()
        for start in range(0, len(text), size):
            yield text[start : start + size]


def encode_here(program, tokenizer, texts):
    lines = "".join(json.dumps({"text": text}) + "\n" for text in texts)
    command = [program, "tokenizer", "encode", "--tokenizer", tokenizer, "--jsonl"]
    done = subprocess.run(command, input=lines.encode(), stdout=subprocess.PIPE, check=True)
    return [json.loads(line)["ids"] for line in done.stdout.splitlines()]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nanochat", required=True, help="the program")
    parser.add_argument("--tokenizer", required=True, nargs="+", help="folders with a tokenizer.json")
    parser.add_argument("--text", nargs="*", default=[], help="UTF-8 files")
    parser.add_argument("--random", type=int, default=20000, help="how many random strings")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    try:
        import tokenizers
    except ImportError:
        print("the Python package tokenizers is not installed", file=sys.stderr)
        return 77

    texts = list(random_texts(arguments.random, arguments.seed))
    texts += character_texts()
    texts += file_texts(arguments.text, 20000)
    for folder in arguments.tokenizer:
        theirs = tokenizers.Tokenizer.from_file(folder + "/tokenizer.json")
        theirs.encode_special_tokens = True
        ours = encode_here(arguments.nanochat, folder, texts)
        different = 0
        for text, ids, encoding in zip(texts, ours, theirs.encode_batch(texts, add_special_tokens=False), strict=True):
            if ids != encoding.ids:
                different += 1
                if different <= 5:
                    print(f"{folder}: {text[:200]!r}\n  here   {ids[:60]}\n  theirs {encoding.ids[:60]}")
        print(f"{folder}: {len(texts)} texts, {sum(map(len, ours))} tokens, {different} texts differ")
        if different:
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
