#!/usr/bin/env python3
"""How close `nanochat data prepare` comes to tokenizing alone, and whether kills change what it writes.

Prepares TEXT (gzipped jsonl, say) and encodes the same documents from memory (`nanochat tokenizer eval`), in turns,
--runs times each; compares the medians of bytes of text a second. With --kills N prepares it once more, killed (SIGKILL)
at N random moments and resumed each time, and compares every file with the preparation that was left alone. Prints a
line each and, as the last line, JSON.

  benchmarks/prepare_throughput.py --tokenizer runs/toy/tokenizer --kills 10 corpus.jsonl.gz
"""

import argparse
import json
import os
import pathlib
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nanochat", default="build/release/bin/nanochat", help="program of this project")
    parser.add_argument("--tokenizer", required=True, help="tokenizer folder or file")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--kills", type=int, default=0)
    parser.add_argument("--seed", type=int, default=1, help="of the moments of the kills")
    parser.add_argument("--tokens-per-shard", type=int, default=20_000_000)
    parser.add_argument("text", nargs="+")
    return parser.parse_args()


def prepare_command(args, output, *more):
    return [args.nanochat, "data", "prepare", "--data-dir", *args.text, "--tokenizer", args.tokenizer, "--output-dir",
            str(output), "--workers", str(args.threads), "--tokens-per-shard", str(args.tokens_per_shard), "--quiet", *more]


def prepare(args, output):
    """Seconds, and MiB resident at most."""
    shutil.rmtree(output, ignore_errors=True)
    begin = time.perf_counter()
    process = subprocess.Popen(prepare_command(args, output))
    _, status, usage = os.wait4(process.pid, 0)
    if status != 0:
        sys.exit("prepare_throughput: data prepare failed")
    return time.perf_counter() - begin, usage.ru_maxrss / 1024


def tokenize(args):
    """Bytes of text, and bytes a second."""
    command = [args.nanochat, "tokenizer", "eval", "--tokenizer", args.tokenizer, "--data-dir", *args.text, "--threads",
               str(args.threads), "--repeats", "1", "--json", "--quiet"]
    report = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    return report["bytes"], report["tokenizers"][0]["bytes_per_second"]


def files_of(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def prepare_with_kills(args, output, seconds):
    """How many kills met a preparation under way."""
    moments = random.Random(args.seed)
    kills = 0
    for _ in range(args.kills):
        process = subprocess.Popen(prepare_command(args, output, "--resume"))
        try:
            process.wait(timeout=moments.uniform(0.0, seconds / 2))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            kills += 1
    subprocess.run(prepare_command(args, output, "--resume"), check=True)
    return kills


def main():
    args = parse_arguments()
    with tempfile.TemporaryDirectory() as scratch:
        left_alone = pathlib.Path(scratch) / "alone"
        seconds, rates, resident = [], [], []
        for _ in range(args.runs):
            text_bytes, rate = tokenize(args)
            rates.append(rate)
            elapsed, megabytes = prepare(args, left_alone)
            seconds.append(elapsed)
            resident.append(megabytes)
        alone, prepared = statistics.median(rates), text_bytes / statistics.median(seconds)
        result = {"text_bytes": text_bytes, "threads": args.threads, "tokenizing_mb_per_second": alone / 1e6,
                  "prepare_mb_per_second": prepared / 1e6, "ratio": prepared / alone,
                  "prepare_resident_mib": max(resident)}
        print(f"tokenizing alone {alone / 1e6:.1f} MB/s, data prepare {prepared / 1e6:.1f} MB/s: {100 * prepared / alone:.0f} %"
              f" of it, {max(resident):.0f} MiB resident")
        if args.kills:
            killed = pathlib.Path(scratch) / "killed"
            result["kills"] = prepare_with_kills(args, killed, statistics.median(seconds))
            if files_of(killed) != files_of(left_alone):
                sys.exit(f"prepare_throughput: {result['kills']} kills changed the files")
            print(f"{result['kills']} kills, each resumed: the same {len(files_of(killed))} files")
        print(json.dumps(result))


if __name__ == "__main__":
    main()
