#!/usr/bin/env python3
"""Whether runs that should train alike do: the losses of each against those of the first, step by step.

  compare_losses.py --nanochat build/cuda/bin/nanochat --data-dir shards --work DIR --steps 300 \\
    --common "--depth 12 --sequence-len 2048 --device-batch-size 32 --total-batch-size 65536" \\
    --run "kernels: --device cuda" --run "reference: NANOCHAT_CUDA_KERNELS=reference --device cuda"

A --run is a name, variables of the environment and options of `nanochat pretrain`. All have one seed, so they see the same
batches from the same weights. Prints, for each run after the first, the mean and the largest difference of a step's loss and
the difference of the final validation bpb, in percent; --mean-within and --bpb-within make the first and the last a check.
"""

import argparse
import json
import os
import pathlib
import shlex
import shutil
import subprocess
import sys


def train(args, name, words):
    folder = pathlib.Path(args.work) / name.replace(" ", "-")
    shutil.rmtree(folder, ignore_errors=True)
    variables = [word for word in words if "=" in word and not word.startswith("-")]
    command = [args.nanochat, "pretrain", "--data-dir", *args.data_dir, "--output-dir", str(folder), "--num-iterations", str(args.steps),
               "--eval-interval", "-1", "--eval-tokens", str(args.eval_tokens), "--sample-interval", "-1", "--log-interval", "1",
               *shlex.split(args.common), *words[len(variables):]]
    subprocess.run(command, check=True, env={**os.environ, **dict(word.split("=", 1) for word in variables)},
                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL if args.quiet else None)
    losses, bpb = [], None
    for line in (folder / "metrics.jsonl").read_text().splitlines():
        row = json.loads(line)
        if "loss" in row:
            losses.append(row["loss"])
        bpb = row.get("validation_bpb", bpb)
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)
    return losses, bpb


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nanochat", default="build/release/bin/nanochat")
    parser.add_argument("--data-dir", nargs="+", required=True)
    parser.add_argument("--work", required=True, help="folder for the runs")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--eval-tokens", type=int, default=131072)
    parser.add_argument("--common", default="", help="options of all runs")
    parser.add_argument("--run", action="append", required=True, help="NAME: [VARIABLE=VALUE...] [OPTION...]")
    parser.add_argument("--mean-within", type=float, help="largest mean difference of the losses, in percent")
    parser.add_argument("--bpb-within", type=float, help="largest difference of the validation bpb, in percent")
    parser.add_argument("--quiet", action="store_true")
    args = parser.parse_args()
    runs = {}
    for run in args.run:
        name, _, words = run.partition(":")
        runs[name] = train(args, name, shlex.split(words))
    (first, (expected, expected_bpb)), *others = runs.items()
    print(f"{len(expected)} steps of {first}: loss {expected[0]:.4f} to {expected[-1]:.4f}, validation bpb {expected_bpb:.4f}")
    fine = True
    for name, (losses, bpb) in others:
        if len(losses) != len(expected):
            sys.exit(f"compare_losses: {name} has {len(losses)} losses, {first} {len(expected)}")
        differences = [100 * abs(a / b - 1) for a, b in zip(losses, expected)]
        mean, of_bpb = sum(differences) / len(differences), 100 * (bpb / expected_bpb - 1)
        print(f"{name} against {first}: mean {mean:.3f} %, largest {max(differences):.2f} %, validation bpb {of_bpb:+.3f} %")
        fine &= args.mean_within is None or mean <= args.mean_within
        fine &= args.bpb_within is None or abs(of_bpb) <= args.bpb_within
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main())
