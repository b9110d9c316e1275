#!/usr/bin/env python3
"""Which models a GPU of so much memory trains, and with how many rows in a micro-batch, by the estimate of `pretrain --plan`.

  memory_table.py --nanochat build/release/bin/nanochat --memory 8 12 16 24 --depths 4 8 12 16 20 24

Prints a Markdown table for each recipe: "8 / 32" is 8 rows, or 32 rows with --recompute; "-" is not even one row. The last line
is the largest depth of which one row fits. Needs no GPU and no data.
"""

import argparse
import json
import subprocess

RECIPES = ["nanochat-2025-12", "nanochat-2026-07"]
GIB = 2**30 / 1e9  # of --memory-limit


def rows(args, recipe, depth, memory, recompute):
    """Rows of the largest micro-batch; 0 if not even one fits."""
    command = [args.nanochat, "pretrain", "--plan", "--json", "--recipe", recipe, "--depth", str(depth), "--sequence-len",
               str(args.sequence_len), "--device", "cuda", "--device-batch-size", "auto", "--memory-limit", str(memory * GIB)]
    plan = subprocess.run(command + ["--recompute"] * recompute, capture_output=True, text=True)
    if plan.returncode != 0:
        if "one row takes" not in plan.stderr:
            raise SystemExit(plan.stderr)
        return 0
    return json.loads(plan.stdout)["device_batch_size"]


def largest_depth(args, recipe, memory, recompute):
    low, high = 0, 256
    while low < high:
        middle = (low + high + 1) // 2
        if rows(args, recipe, middle, memory, recompute) > 0:
            low = middle
        else:
            high = middle - 1
    return low


def table(args, recipe):
    print(f"\n{recipe}:\n\n| model | " + " | ".join(f"{memory:g} GiB" for memory in args.memory) + " |")
    print("|---|" + "---:|" * len(args.memory))
    for depth in args.depths:
        cells = [[rows(args, recipe, depth, memory, recompute) or "-" for recompute in (False, True)] for memory in args.memory]
        print(f"| d{depth} | " + " | ".join(f"{plain} / {again}" for plain, again in cells) + " |", flush=True)
    cells = [[largest_depth(args, recipe, memory, recompute) for recompute in (False, True)] for memory in args.memory]
    print("| deepest | " + " | ".join(f"d{plain} / d{again}" for plain, again in cells) + " |", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nanochat", default="build/release/bin/nanochat")
    parser.add_argument("--memory", type=float, nargs="+", default=[8, 12, 16, 24], help="of the cards, in GiB")
    parser.add_argument("--depths", type=int, nargs="+", default=[4, 8, 12, 16, 20, 24])
    parser.add_argument("--sequence-len", type=int, default=2048)
    args = parser.parse_args()
    for recipe in RECIPES:
        table(args, recipe)


if __name__ == "__main__":
    main()
