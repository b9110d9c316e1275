#!/usr/bin/env python3
"""Compares checkpoints of this program with the PyPI packages `transformers` and `tokenizers`, both ways.

    transformers_parity.py --nanochat build/bin/nanochat [--logits build/tests/parity_logits] [CHECKPOINT ...]

For each CHECKPOINT (a folder that `nanochat pretrain` wrote): NanoChatForCausalLM loads it without a missing or
unexpected tensor and gives the same logits and the same greedy continuation, in float32; AutoTokenizer loads its
tokenizer and gives the same ids. Then the reverse: folders that transformers saves, of the same model and of a random
one with another shape, give the same logits here. --logits names the test program that writes logits; without it the
one beside the tests of the same build is taken.

Needs torch, transformers, tokenizers and safetensors. Exits with 1 when something differs, with 77 when a package is
not installed.
"""
import argparse
import json
import pathlib
import subprocess
import sys
import tempfile

try:
    import torch
    from safetensors.torch import load_file, save_file
    from transformers import AutoTokenizer, NanoChatForCausalLM
    from transformers.utils import logging as transformers_logging

    from random_model import random_model
except ImportError as error:
    print(f"skipped: {error}", file=sys.stderr)
    sys.exit(77)

LOGIT_TOLERANCE = 1e-4    # absolute, float32, of logits soft-capped at 15
LOGPROB_TOLERANCE = 1e-4  # absolute, nats
TEXTS = [
    "The capital of France is Paris. In 1789, 3.14 and 1,000,000!",
    "  two spaces\n\n\ttab, na\u00efve caf\u00e9, \u4f60\u597d, \U0001f600 e\u0301",
    "def f(x):\n    return x ** 2  # square\n",
    "",
]
CONVERSATION = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "What is 2+3?"},
    {"role": "assistant", "content": [
        {"type": "text", "text": "It is "},
        {"type": "python", "text": "2+3"},
        {"type": "python_output", "text": "5"},
        {"type": "text", "text": "5."},
    ]},
    {"role": "user", "content": "Thanks"},
]
RENDERED = (
    "<|bos|><|user_start|>Be brief.\n\nWhat is 2+3?<|user_end|>"
    "<|assistant_start|>It is <|python_start|>2+3<|python_end|><|output_start|>5<|output_end|>5.<|assistant_end|>"
    "<|user_start|>Thanks<|user_end|><|assistant_start|>"
)


class Report:
    def __init__(self):
        self.failed = False

    def check(self, ok, what):
        print(("ok    " if ok else "FAIL  ") + what)
        self.failed = self.failed or not ok


def run(command, **options):
    result = subprocess.run([str(word) for word in command], capture_output=True, text=True, **options)
    if result.returncode != 0:
        sys.exit(f"{' '.join(map(str, command))}: exit code {result.returncode}: {result.stderr.strip()}")
    return result.stdout


def our_logits(tool, folder, ids):
    """(B, T, unpadded vocabulary) of the program under test."""
    with tempfile.TemporaryDirectory() as scratch:
        scratch = pathlib.Path(scratch)
        save_file({"ids": ids.to(torch.int32).contiguous()}, scratch / "ids.safetensors")
        run([tool, folder, scratch / "ids.safetensors", scratch / "logits.safetensors"])
        return load_file(scratch / "logits.safetensors")["logits"]


def load(folder):
    model, info = NanoChatForCausalLM.from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
    problems = {key: value for key, value in info.items() if value}
    return model.eval(), problems


@torch.no_grad()
def compare_logits(report, tool, folder, model, what):
    generator = torch.Generator().manual_seed(1)
    config = model.config
    vocab = getattr(config, "unpadded_vocab_size", None) or config.vocab_size
    length = min(config.max_position_embeddings, 200)
    ids = torch.randint(0, vocab, (3, length), generator=generator)
    ours = our_logits(tool, folder, ids)
    theirs = model(input_ids=ids, use_cache=False).logits[..., :vocab]
    difference = (ours - theirs).abs().max().item()
    report.check(ours.shape == theirs.shape and difference <= LOGIT_TOLERANCE and theirs.std() > 0,
                 f"{what}: logits differ by at most {difference:.1e} (tolerance {LOGIT_TOLERANCE:.0e})")


@torch.no_grad()
def compare_greedy(report, nanochat, folder, model, steps=24):
    config = model.config
    vocab = getattr(config, "unpadded_vocab_size", None) or config.vocab_size
    generator = torch.Generator().manual_seed(2)
    prompt = torch.randint(0, vocab, (1, 8), generator=generator)
    prompt_ids = ",".join(map(str, prompt[0].tolist()))
    answer = json.loads(run([nanochat, "infer", folder, "--prompt-ids", prompt_ids, "--json", "--temperature", 0,
                             "--max-tokens", steps, "--ignore-eos", "--dtype", "float32"]))
    ids, largest = prompt, 0.0
    expected = []
    for logprob in answer["logprobs"]:
        logprobs = model(input_ids=ids, use_cache=False).logits[0, -1, :vocab].log_softmax(-1)
        expected.append(logprobs.argmax().item())
        largest = max(largest, abs(logprobs[expected[-1]].item() - logprob))
        ids = torch.cat([ids, logprobs.argmax().view(1, 1)], 1)
    report.check(answer["ids"] == expected and largest <= LOGPROB_TOLERANCE,
                 f"greedy: {len(expected)} tokens are the same, log probabilities within {largest:.1e}")


def compare_tokenizer(report, nanochat, folder):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.backend_tokenizer.encode_special_tokens = True
    rows = "".join(json.dumps({"text": text}) + "\n" for text in TEXTS)
    lines = run([nanochat, "tokenizer", "encode", "--tokenizer", folder, "--jsonl"], input=rows).splitlines()
    ours = [json.loads(line)["ids"] for line in lines]
    theirs = [tokenizer.encode(text, add_special_tokens=False) for text in TEXTS]
    report.check(ours == theirs, f"tokenizer: {len(TEXTS)} texts have the same ids")
    if tokenizer.chat_template is not None:
        rendered = tokenizer.apply_chat_template(CONVERSATION, tokenize=False, add_generation_prompt=True)
        report.check(rendered == RENDERED, "chat template: renders system, user, tools and the completion prompt")


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nanochat", required=True, type=pathlib.Path)
    parser.add_argument("--logits", type=pathlib.Path)
    parser.add_argument("checkpoints", nargs="*", type=pathlib.Path, metavar="CHECKPOINT")
    arguments = parser.parse_args()
    tool = arguments.logits or arguments.nanochat.resolve().parent.parent / "tests" / "parity_logits"
    transformers_logging.disable_progress_bar()
    report = Report()
    for folder in arguments.checkpoints:
        print(f"== {folder}")
        model, problems = load(folder)
        report.check(not problems, f"transformers loads every tensor {problems or ''}")
        if getattr(model.config, "rope_table_dtype", "float32") != "float32":
            print("skip  logits: transformers computes rotary tables in float32 only")
        else:
            compare_logits(report, tool, folder, model, "ours in transformers")
            compare_greedy(report, arguments.nanochat, folder, model)
            with tempfile.TemporaryDirectory() as saved:
                model.save_pretrained(saved)
                compare_logits(report, tool, saved, model, "ours, saved again by transformers")
        if (folder / "tokenizer.json").exists():
            compare_tokenizer(report, arguments.nanochat, folder)
    print("== a random model of transformers")
    with tempfile.TemporaryDirectory() as saved:
        model = random_model(positions=64)
        model.save_pretrained(saved)
        compare_logits(report, tool, saved, model, "float32")
        model.to(torch.bfloat16).save_pretrained(saved)
        compare_logits(report, tool, saved, load(saved)[0], "stored in bfloat16")
    return 1 if report.failed else 0


if __name__ == "__main__":
    sys.exit(main())
