#!/usr/bin/env python3
"""How many greedy answers are the same alone and amid others.

    compare_batches.py [--device cuda] [--model RUN] [--prompts 200] [--max-tokens 64] build/cuda/bin/nanochat

Completes prompts of 1 to 300 random tokens one by one and 32 at a time, in float32, in bfloat16 and in bfloat16 with
--deterministic, and prints the share of equal answers of each. Without --model, a small model is trained first. Exits with 1 if
float32 or --deterministic do not reach 100 %.
"""
import argparse
import json
import pathlib
import random
import subprocess
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "tests/contract"))
import server  # noqa: E402

MODES = (("float32", ["--dtype", "float32"], True), ("bfloat16", ["--dtype", "bfloat16"], False),
         ("bfloat16, --deterministic", ["--dtype", "bfloat16", "--deterministic"], True))
TOGETHER = 32


def answers(arguments, model, prompts, options, at_a_time):
    command = [arguments.program, "infer", str(model), "--prompts-file", str(prompts), "--temperature", "0", "--ignore-eos",
               "--max-tokens", str(arguments.max_tokens), "--device-batch-size", str(at_a_time), "--device", arguments.device,
               "--json", "--quiet", *options]
    result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode != 0:
        sys.exit(f"{' '.join(command)}\n{result.stderr}")
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert len(lines) == arguments.prompts, len(lines)
    return [line["ids"] for line in lines]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program")
    parser.add_argument("--model", help="a run or a checkpoint")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--prompts", type=int, default=200)
    parser.add_argument("--max-tokens", type=int, default=64)
    arguments = parser.parse_args()
    failed = False
    with tempfile.TemporaryDirectory() as folder:
        model = arguments.model or server.small_run(arguments.program, folder, depth=4, iterations=50)
        prompts = pathlib.Path(folder) / "prompts.jsonl"
        rng = random.Random(1)
        lengths = [rng.randint(1, 300) for _ in range(arguments.prompts)]
        prompts.write_text("".join(json.dumps({"prompt_ids": [rng.randrange(256) for _ in range(n)]}) + "\n" for n in lengths))
        for name, options, must_be_equal in MODES:
            alone, together = (answers(arguments, model, prompts, options, n) for n in (1, TOGETHER))
            equal = sum(a == b for a, b in zip(alone, together))
            different = [next(i for i, pair in enumerate(zip(a, b)) if pair[0] != pair[1]) for a, b in zip(alone, together) if a != b]
            where = f", the others differ from token {sum(different) / len(different):.0f} on, on average" if different else ""
            print(f"{name}: {equal} of {len(alone)} answers of {arguments.max_tokens} tokens are equal alone and "
                  f"{TOGETHER} at a time ({equal / len(alone):.1%}){where}", flush=True)
            failed |= must_be_equal and equal < len(alone)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
