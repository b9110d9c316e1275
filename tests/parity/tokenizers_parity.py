#!/usr/bin/env python3
"""Compares token ids of this program with those of the PyPI package `tokenizers` reading the same tokenizer.json.

    tokenizers_parity.py --nanochat build/bin/nanochat --tokenizer FOLDER [FOLDER ...] [--text FILE ...] [--shapes 200]

Texts: every file given (.txt, .jsonl and .jsonl.gz with "text"), whole and cut into documents, random strings over
alphabets that provoke disagreement (white space of every kind, digits, punctuation runs, scripts, emoji, names of special
tokens), and every assigned character beside a letter.

With --shapes the script also makes tokenizers: random chains of normalizers and pre-tokenizers and random added tokens
around a vocabulary that is trained on the spot. Each one, and each one named whose tokenizer has a token to begin
documents with, is saved again by `data prepare`, and the saved one must give the same ids in both, too.

Exits with 1 when ids differ, with 77 when `tokenizers` is not installed.
"""
import argparse
import gzip
import json
import os
import random
import subprocess
import sys
import tempfile
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


def read_text(path, size):
    """The first `size` bytes of a file's text, less a character that is cut."""
    opened = gzip.open(path, "rb") if path.endswith(".gz") else open(path, "rb")
    with opened as file:
        if ".jsonl" not in path:
            return file.read(size).decode("utf-8", errors="ignore")
        text = "\n".join(json.loads(line)["text"] for line in file)
        return text.encode()[:size].decode("utf-8", errors="ignore")


def file_texts(paths, size, file_bytes):
    for path in paths:
        text = read_text(path, file_bytes)
        yield text
        for start in range(0, len(text), size):
            yield text[start : start + size]


def random_regex(rng, tokenizers):
    return tokenizers.Regex(
        rng.choice(
            [
                r"\p{N}{1,3}",
                r"\p{N}{1,3}+",
                r"[\u4e00-\u9fa5\u3040-\u309f]+",
                r"\s+(?!\S)|\s+",
                r"(?i:'s|'t|'re)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s+(?!\S)|\s+",
                r"(?=(\d{3})+(?!\d))",
                r"[\p{P}\p{S}]+",
                r"\w+|[^\w\s]+",
                r"\b",
                r"\s+$|^\s+",
                r"\p{Han}+|\p{Cyrillic}+|\p{Lu}\p{Ll}*",
                r"[^\S\n]+|\n",
                r"a(?i)b|\h{2}|\d*",
            ]
        )
    )


def random_tokenizer(rng, texts):
    """A tokenizer with a random chain of steps. Special tokens come first, as the package's trainer puts them."""
    import tokenizers
    from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers, trainers

    made = tokenizers.Tokenizer(models.BPE())
    steps = [
        lambda: normalizers.NFC(),
        lambda: normalizers.NFD(),
        lambda: normalizers.NFKC(),
        lambda: normalizers.NFKD(),
        lambda: normalizers.Lowercase(),
        lambda: normalizers.StripAccents(),
        lambda: normalizers.Strip(rng.random() < 0.5, rng.random() < 0.5),
        lambda: normalizers.Prepend(rng.choice([" ", "\u2581", "ab"])),
        lambda: normalizers.Replace(rng.choice([" ", "a", "''"]), rng.choice(["\u2581", "", "bb"])),
        lambda: normalizers.Replace(tokenizers.Regex(rng.choice([r"\s+", r"[0-9]", r"\n$"])), rng.choice([" ", "0", ""])),
    ]
    chosen = [rng.choice(steps)() for _ in range(rng.choice([0, 1, 1, 2, 3]))]
    if chosen:
        made.normalizer = chosen[0] if len(chosen) == 1 and rng.random() < 0.5 else normalizers.Sequence(chosen)
    behaviors = ["removed", "isolated", "isolated", "contiguous", "merged_with_previous", "merged_with_next"]
    cuts = [
        lambda: pre_tokenizers.Split(random_regex(rng, tokenizers), rng.choice(behaviors), invert=rng.random() < 0.3),
        lambda: pre_tokenizers.Split(random_regex(rng, tokenizers), "isolated"),
        lambda: pre_tokenizers.Split(rng.choice(["-", " ", ""]), rng.choice(behaviors), invert=rng.random() < 0.3),
        lambda: pre_tokenizers.Digits(rng.random() < 0.5),
        lambda: pre_tokenizers.Punctuation(rng.choice(behaviors)),
    ]
    chosen = [rng.choice(cuts)() for _ in range(rng.choice([0, 1, 1, 2, 3]))]
    chosen.append(pre_tokenizers.ByteLevel(add_prefix_space=rng.random() < 0.3, use_regex=rng.random() < 0.5))
    chosen += [rng.choice(cuts)() for _ in range(rng.choice([0, 0, 0, 1]))]
    made.pre_tokenizer = chosen[0] if len(chosen) == 1 and rng.random() < 0.5 else pre_tokenizers.Sequence(chosen)
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=rng.choice([300, 400, 600]),
        show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=["<|endoftext|>"] if rng.random() < 0.5 else [],
    )
    made.train_from_iterator(texts, trainer)
    made.add_special_tokens(["<|endoftext|>"])
    contents = ["  ", "    ", "<tool>", "the", "The", "e\u0301", "\u00e9", "12", "\n\n", "<|x|>", "word", "ab", "<", "\u2581"]
    for content in rng.sample(contents, rng.choice([0, 1, 2, 4])):
        flags = {name: rng.random() < 0.3 for name in ("single_word", "lstrip", "rstrip", "normalized")}
        # A special token that merges can make is refused: text would be encoded as one.
        token = AddedToken(content, special=content.startswith("<") and rng.random() < 0.4, **flags)
        (made.add_special_tokens if token.special else made.add_tokens)([token])
    return made


class Refused(Exception):
    """The program does not read a tokenizer; what it says."""


def encode_here(program, tokenizer, texts):
    lines = "".join(json.dumps({"text": text}) + "\n" for text in texts)
    command = [program, "tokenizer", "encode", "--tokenizer", tokenizer, "--jsonl"]
    done = subprocess.run(command, input=lines.encode(), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    if done.returncode != 0:
        raise Refused(done.stderr.decode().strip())
    return [json.loads(line)["ids"] for line in done.stdout.splitlines()]


def compare(name, program, folder, texts):
    """True when both give the same ids for all texts."""
    import tokenizers

    theirs = tokenizers.Tokenizer.from_file(folder + "/tokenizer.json")
    theirs.encode_special_tokens = True
    ours = encode_here(program, folder, texts)
    different = 0
    for text, ids, encoding in zip(texts, ours, theirs.encode_batch(texts, add_special_tokens=False), strict=True):
        if ids != encoding.ids:
            different += 1
            if different <= 5:
                first = next((i for i, (a, b) in enumerate(zip(ids, encoding.ids)) if a != b), 0)
                print(f"{name}: {text[:200]!r}\n  from token {first}: here   {ids[first:first + 30]}\n"
                      f"  theirs {encoding.ids[first:first + 30]}")
    print(f"{name}: {len(texts)} texts, {sum(map(len, ours))} tokens, {different} texts differ")
    return different == 0


def saved_again(program, folder, scratch):
    """The folder of the tokenizer as `data prepare` saves it; None where the program cannot prepare data with it."""
    corpus, output = os.path.join(scratch, "corpus.jsonl"), os.path.join(scratch, "shards")
    with open(corpus, "w", encoding="utf-8") as file:
        for i in range(40):
            file.write(json.dumps({"text": f"Document {i} of a few words."}) + "\n")
    command = [program, "data", "prepare", "--data-dir", corpus, "--tokenizer", folder, "--output-dir", output, "--quiet"]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    if done.returncode != 0:
        print(f"{folder}: not saved again: {done.stderr.decode().strip()}")
        return None
    return next((where for where, _, files in os.walk(output) if "tokenizer.json" in files), None)


def compare_twice(name, program, folder, texts, must_save):
    same = compare(name, program, folder, texts)
    with tempfile.TemporaryDirectory() as scratch:
        again = saved_again(program, folder, scratch)
        if again is None:
            return same and not must_save
        same = compare(name + ", saved again", program, again, texts) and same
        if encode_here(program, folder, texts) != encode_here(program, again, texts):
            print(f"{name}: the ids change when it is saved again")
            return False
    return same


def compare_shapes(program, count, seed, texts):
    import tokenizers

    wrong = refused = 0
    for i in range(count):
        rng = random.Random(seed * 1000003 + i)
        with tempfile.TemporaryDirectory() as folder:
            file = os.path.join(folder, "tokenizer.json")
            try:
                random_tokenizer(rng, [text for text in texts if len(text) < 30000][:400]).save(file)
                tokenizers.Tokenizer.from_file(file)
            except BaseException as error:  # the package panics over some, and cannot load others
                if isinstance(error, KeyboardInterrupt):
                    raise
                refused += 1
                continue
            try:
                same = compare_twice(f"shape {i}", program, folder, texts, must_save=True)
            except Refused as error:
                print(f"shape {i}: refused: {error}")
                same = False
            if not same:
                wrong += 1
                with open(file, encoding="utf-8") as made:
                    shape = json.load(made)
                print(json.dumps({key: shape[key] for key in ("normalizer", "pre_tokenizer", "added_tokens")}))
    print(f"{count - refused} shapes, {wrong} wrong; {refused} that the package itself cannot load")
    return wrong == 0


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nanochat", required=True, help="the program")
    parser.add_argument("--tokenizer", nargs="*", default=[], help="folders with a tokenizer.json")
    parser.add_argument("--text", nargs="*", default=[], help="UTF-8 files")
    parser.add_argument("--text-bytes", type=int, default=1 << 30, help="how much of each file")
    parser.add_argument("--random", type=int, default=20000, help="how many random strings")
    parser.add_argument("--shapes", type=int, default=0, help="how many tokenizers to make and compare")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    try:
        import tokenizers  # noqa: F401
    except ImportError:
        print("the Python package tokenizers is not installed", file=sys.stderr)
        return 77

    texts = list(random_texts(arguments.random, arguments.seed))
    texts += character_texts()
    texts += file_texts(arguments.text, 20000, arguments.text_bytes)
    for folder in arguments.tokenizer:
        if not compare_twice(folder, arguments.nanochat, folder, texts, must_save=False):
            return 1
    if arguments.shapes and not compare_shapes(arguments.nanochat, arguments.shapes, arguments.seed, texts):
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
