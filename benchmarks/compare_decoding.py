#!/usr/bin/env python3
"""Compares how fast models of nanochat-2026-07 and nanochat-2025-12 of the same depth and width decode.

    compare_decoding.py [--depth 12] [--rounds 5] build/release/bin/nanochat [-- options of bench infer]

Runs `nanochat bench infer` of both in turn, so that what else the machine does concerns both, and prints the median time of a
decode step of each. Exits with 1 if the newer one takes more than 10 % longer.
"""
import argparse
import json
import statistics
import subprocess
import sys

RECIPES = ("nanochat-2025-12", "nanochat-2026-07")
ALLOWED = 1.10


def measure(program, recipe, options):
    command = [program, "bench", "infer", "--json", "--recipe", recipe, *options]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(result.stdout.splitlines()[-1])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program")
    parser.add_argument("--depth", default="12")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("options", nargs="*", help="further options of bench infer, after --")
    arguments = parser.parse_args()
    options = ["--device", "cpu", "--depth", arguments.depth, "--sequence-len", "2048", "--vocab-size", "32768",
               "--device-batch-size", "1", "--prompt-tokens", "256", "--max-tokens", "128", "--steps", "1",
               *arguments.options]
    reports = {recipe: [] for recipe in RECIPES}
    for _ in range(arguments.rounds):
        for recipe in RECIPES:
            reports[recipe].append(measure(arguments.program, recipe, options))
    medians = {}
    for recipe, of_recipe in reports.items():
        times = [report["decode_step_ms"] for report in of_recipe]
        medians[recipe] = statistics.median(times)
        print(f"{recipe}: decode step {medians[recipe]:.2f} ms (from {min(times):.2f} to {max(times):.2f}), "
              f"{of_recipe[0]['parameters']:,} parameters, {of_recipe[0]['dtype']}, {of_recipe[0]['device']}")
    ratio = medians[RECIPES[1]] / medians[RECIPES[0]]
    print(f"{RECIPES[1]} takes {ratio:.3f} times as long (at most {ALLOWED:.2f})")
    sys.exit(0 if ratio <= ALLOWED else 1)


if __name__ == "__main__":
    main()
