#!/usr/bin/env python3
"""Compares how conversations become token ids: goldens of the reference, `nanochat data render`, and the Jinja
chat_template that this program writes, through transformers' apply_chat_template.

    chat_template_parity.py --nanochat build/bin/nanochat --tokenizer TOKENIZER --goldens render_conversation.jsonl

Each row of the goldens has {"conversation", "ids", "mask", "completion_prompt"}. `data render --json` has to give ids
and mask of every row. A template can do so only where the text spells no special token, since it is text that it makes;
of those rows it has to give the ids and, for the messages before the answer, the completion prompt.

Needs torch and transformers. Exits with 1 when something differs, with 77 when a package is not installed.
"""
import argparse
import json
import pathlib
import subprocess
import sys
import tempfile

try:
    from transformers import AutoTokenizer, NanoChatConfig, NanoChatForCausalLM
except ImportError as error:
    print(f"skipped: {error}", file=sys.stderr)
    sys.exit(77)

MAX_TOKENS = 2048  # of the goldens


def run(*command, **options):
    return subprocess.run([str(word) for word in command], check=True, capture_output=True, text=True, **options).stdout


def rendered(nanochat, tokenizer, rows):
    lines = "".join(json.dumps(row["conversation"]) + "\n" for row in rows)
    out = run(nanochat, "data", "render", "-", "--tokenizer", tokenizer, "--max-tokens", MAX_TOKENS, "--json", input=lines)
    return [json.loads(line) for line in out.splitlines()]


def template_tokenizer(nanochat, tokenizer, folder):
    """The tokenizer of a checkpoint of this program, as transformers loads it."""
    vocab = json.loads(run(nanochat, "tokenizer", "info", tokenizer, "--json"))["vocab_size"]
    config = NanoChatConfig(vocab_size=vocab, hidden_size=32, intermediate_size=64, num_hidden_layers=1,
                            num_attention_heads=2, num_key_value_heads=2, max_position_embeddings=MAX_TOKENS)
    NanoChatForCausalLM(config).save_pretrained(folder / "model")
    run(nanochat, "import", folder / "model", "--tokenizer", tokenizer, "--output-dir", folder / "checkpoint")
    return AutoTokenizer.from_pretrained(folder / "checkpoint")


def texts(messages):
    for message in messages:
        if isinstance(message["content"], str):
            yield message["content"]
        else:
            yield from (part["text"] for part in message["content"])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nanochat", required=True, type=pathlib.Path)
    parser.add_argument("--tokenizer", required=True, type=pathlib.Path)
    parser.add_argument("--goldens", required=True, type=pathlib.Path)
    arguments = parser.parse_args()
    rows = [json.loads(line) for line in arguments.goldens.open(encoding="utf-8")]
    failures = 0

    def expect(what, same):
        nonlocal failures
        if not same:
            failures += 1
            print(f"FAILED: {what}")

    for number, (row, ours) in enumerate(zip(rows, rendered(arguments.nanochat, arguments.tokenizer, rows), strict=True), 1):
        expect(f"row {number}: ids of data render", ours["ids"] == row["ids"])
        expect(f"row {number}: mask of data render", ours["mask"] == row["mask"])
    with tempfile.TemporaryDirectory() as folder:
        tokenizer = template_tokenizer(arguments.nanochat, arguments.tokenizer, pathlib.Path(folder))
    specials = [token for token in tokenizer.get_added_vocab()]
    compared = prompts = 0
    for number, row in enumerate(rows, 1):
        messages = row["conversation"]["messages"]
        if any(token in text for text in texts(messages) for token in specials):
            continue
        compared += 1
        ids = tokenizer.apply_chat_template(messages, tokenize=True, return_dict=False)[:MAX_TOKENS]
        expect(f"row {number}: ids of apply_chat_template", ids == row["ids"])
        if row.get("completion_prompt") is None or messages[-1]["role"] != "assistant" or len(row["ids"]) == MAX_TOKENS:
            continue
        prompts += 1
        ids = tokenizer.apply_chat_template(messages[:-1], tokenize=True, return_dict=False, add_generation_prompt=True)
        expect(f"row {number}: completion prompt of apply_chat_template", ids == row["completion_prompt"])
    print(f"{len(rows)} rows by data render; {compared} by apply_chat_template, {prompts} of them also as prompts; {failures} differ")
    sys.exit(1 if failures or compared == 0 else 0)


if __name__ == "__main__":
    main()
