#!/usr/bin/env python3
"""Speed of this project's byte-level BPE and its peers on the same text, in one run on one machine.

Training: rustbpe and Hugging Face tokenizers, the reference's split pattern, --vocab-size tokens. Encoding: tiktoken,
with the ranks that this project's training gave, on one thread and on --threads. The median of --runs each; reading the
text is not timed for the peers, and is for this program, which does it in the same pass. Prints a table and, as the last
line, JSON. Needs the PyPI packages rustbpe, tokenizers and tiktoken.

  benchmarks/compare_tokenizers.py --nanochat build/release/bin/nanochat books/*.txt code/*.py
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time

PATTERN = (r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,2}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+")
DOCUMENT_CHARACTERS = 10_000  # as the reference cuts documents


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nanochat", default="build/release/bin/nanochat", help="program of this project")
    parser.add_argument("--vocab-size", type=int, default=32768)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("text", nargs="+", help="UTF-8 files")
    return parser.parse_args()


def timed(runs, work):
    seconds = []
    for _ in range(runs):
        begin = time.perf_counter()
        result = work()
        seconds.append(time.perf_counter() - begin)
    return statistics.median(seconds), result


def train_rustbpe(documents, vocab_size):
    import rustbpe

    tokenizer = rustbpe.Tokenizer()
    tokenizer.train_from_iterator(iter(documents), vocab_size - 9, pattern=PATTERN)
    return tokenizer.get_mergeable_ranks()


def train_tokenizers(documents, vocab_size):
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(pattern=Regex(PATTERN), behavior="isolated", invert=False),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=vocab_size - 9, show_progress=False, min_frequency=0,
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    tokenizer.train_from_iterator(iter(documents), trainer)
    return tokenizer.get_vocab_size()


def nanochat(program, *arguments):
    result = subprocess.run([program, *map(str, arguments), "--json", "--quiet"], stdout=subprocess.PIPE, text=True)
    if result.returncode != 0:
        sys.exit(f"compare_tokenizers: {program} {arguments[0]} {arguments[1]} ended with exit code {result.returncode}")
    return json.loads(result.stdout.splitlines()[-1])


def main():
    args = parse_arguments()
    documents = []
    for path in args.text:
        with open(path, encoding="utf-8", errors="ignore") as file:
            text = file.read()
        documents += [text[i:i + DOCUMENT_CHARACTERS] for i in range(0, len(text), DOCUMENT_CHARACTERS)]
    megabytes = sum(len(document.encode()) for document in documents) / 1e6
    print(f"{megabytes:.1f} MB in {len(documents)} documents, vocabulary {args.vocab_size}, {args.threads} threads")

    with tempfile.TemporaryDirectory() as folder:
        corpus = os.path.join(folder, "corpus.jsonl")
        with open(corpus, "w", encoding="utf-8") as file:
            for document in documents:
                file.write(json.dumps({"text": document}) + "\n")
        trained = os.path.join(folder, "tokenizer")
        train = lambda: nanochat(args.nanochat, "tokenizer", "train", "--type", "bpe", "--data-dir", corpus, "--vocab-size",
                                 args.vocab_size, "--output-dir", trained, "--threads", args.threads,
                                 "--validation-every", 0)["seconds"]
        results = {"train": {"nanochat": statistics.median(train() for _ in range(args.runs))}}
        results["train"]["rustbpe"], ranks = timed(args.runs, lambda: train_rustbpe(documents, args.vocab_size))
        results["train"]["tokenizers"], _ = timed(args.runs, lambda: train_tokenizers(documents, args.vocab_size))

        import tiktoken
        encoding = tiktoken.Encoding("rustbpe", pat_str=PATTERN, mergeable_ranks={bytes(k): v for k, v in ranks},
                                     special_tokens={})
        results["encode_mb_per_second"] = {}
        for threads in sorted({1, args.threads}):
            report = nanochat(args.nanochat, "tokenizer", "eval", "--tokenizer", trained, "--data-dir", corpus,
                              "--threads", threads, "--repeats", args.runs)["tokenizers"][0]
            seconds, ids = timed(args.runs, lambda: encoding.encode_ordinary_batch(documents, num_threads=threads))
            tokens, ours = sum(map(len, ids)), report["texts"][0]["tokens"]
            if tokens != ours:
                sys.exit(f"compare_tokenizers: nanochat encodes {ours} tokens, tiktoken with rustbpe's ranks {tokens}")
            results["encode_mb_per_second"][str(threads)] = {"nanochat": report["bytes_per_second"] / 1e6,
                                                             "tiktoken": megabytes / seconds}

    ours = results["train"]["nanochat"]
    for peer, seconds in results["train"].items():
        print(f"train   {peer:<12} {seconds:>8.2f} s   {seconds / ours:>6.2f} x nanochat's time")
    for threads, speeds in results["encode_mb_per_second"].items():
        for peer, speed in speeds.items():
            print(f"encode  {peer:<12} {speed:>8.1f} MB/s on {threads} thread{'s' if threads != '1' else ''}")
        print(f"        nanochat is {speeds['nanochat'] / speeds['tiktoken']:.2f} x as fast")
    print(json.dumps({"megabytes": megabytes, "vocab_size": args.vocab_size, "threads": args.threads, **results}))


if __name__ == "__main__":
    main()
