#!/usr/bin/env python3
"""CORE by this program and by the loop of the reference: examples a second, and whether the verdicts agree.

Both score the same checkpoint on the same examples with the same LibTorch, one after the other, in float32 on the CPU: the
reference one example at a time (nanochat/core_eval.py of a checkout), this program by `nanochat eval`. Prompts longer than
the reference's rotary tables, ten times the model's context, are cut on the left by both. Prints a line a task and, as the
last line, JSON: `speedup` is the time of the reference over that of this program for the examples that both scored. With
--seconds the reference stops within each task when its share of the time is over. Needs torch 2.11, tokenizers and jinja2.

  benchmarks/compare_core_eval.py --reference ../nanochat --bundle data/core --checkpoint runs/base/checkpoints/latest \
    --task-file squad=squad_1000.jsonl.gz --max-per-task 100 --seconds 300
"""

import argparse
import gzip
import json
import math
import pathlib
import random
import subprocess
import sys
import tempfile
import time


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nanochat", default="build/release/bin/nanochat", help="program of this project")
    parser.add_argument("--reference", required=True, help="checkout of karpathy/nanochat")
    parser.add_argument("--bundle", required=True, help="folder with core.yaml, eval_data/ and eval_meta_data.csv")
    parser.add_argument("--checkpoint", required=True, help="checkpoint of this program")
    parser.add_argument("--task-file", action="append", default=[], help="NAME=PATH, as for nanochat eval")
    parser.add_argument("--tasks", default="", help="comma-separated; all when not given")
    parser.add_argument("--max-per-task", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=math.inf, help="time for the reference, all tasks together")
    parser.add_argument("--threads", type=int, default=2)
    return parser.parse_args()


class ReferenceTokenizer:
    """What core_eval.py asks of a tokenizer, over the checkpoint's tokenizer.json."""

    def __init__(self, folder):
        from tokenizers import Tokenizer

        self.inner = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.inner.encode_special_tokens = True
        self.bos = next(i for name in ("<|bos|>", "<|endoftext|>") if (i := self.inner.token_to_id(name)) is not None)

    def get_bos_token_id(self):
        return self.bos

    def __call__(self, texts, prepend):
        return [[prepend] + self.inner.encode(text, add_special_tokens=False).ids for text in texts]


def reference_model(args, folder):
    """The reference's GPT with the weights of a checkpoint, whose names are those of transformers."""
    import torch
    from nanochat.gpt import GPT, GPTConfig
    from safetensors.torch import load_file

    config = json.loads((folder / "config.json").read_text())
    weights = load_file(folder / "model.safetensors")
    with torch.device("meta"):
        model = GPT(GPTConfig(sequence_len=config["max_position_embeddings"], vocab_size=config["vocab_size"],
                              n_layer=config["num_hidden_layers"], n_head=config["num_attention_heads"],
                              n_kv_head=config["num_key_value_heads"], n_embd=config["hidden_size"]))
    model.to_empty(device="cpu")
    model.init_weights()
    for parameter in model.parameters():
        parameter.data = parameter.data.float()  # the buffers, rotary tables, stay as they are
    names = {"transformer.wte.weight": "model.embed_tokens.weight", "lm_head.weight": "lm_head.weight"}
    for layer in range(config["num_hidden_layers"]):
        for theirs, ours in [("attn.c_q", "self_attn.q_proj"), ("attn.c_k", "self_attn.k_proj"), ("attn.c_v", "self_attn.v_proj"),
                             ("attn.c_proj", "self_attn.o_proj"), ("mlp.c_fc", "mlp.fc1"), ("mlp.c_proj", "mlp.fc2")]:
            names[f"transformer.h.{layer}.{theirs}.weight"] = f"model.layers.{layer}.{ours}.weight"
    state = model.state_dict()
    for theirs, ours in names.items():
        rows = min(state[theirs].shape[0], weights[ours].shape[0])
        state[theirs][:rows] = weights[ours][:rows]
    return model.eval()


def with_bfloat16_tables(checkpoint, folder):
    """The checkpoint as the reference computes it, whose rotary tables are always rounded to bfloat16."""
    folder.mkdir()
    for name in ("model.safetensors", "tokenizer.json", "tokenizer.model", "tokenizer_config.json"):
        if (checkpoint / name).exists():
            (folder / name).symlink_to(checkpoint / name)
    config = json.loads((checkpoint / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"rope_table_dtype": "bfloat16"}))
    return folder


def read_tasks(args):
    import yaml

    bundle, files = pathlib.Path(args.bundle), dict(item.split("=", 1) for item in args.task_file)
    tasks = yaml.safe_load((bundle / "core.yaml").read_text())["icl_tasks"]
    wanted = set(filter(None, args.tasks.split(",")))
    for task in tasks:
        if wanted and task["label"] not in wanted:
            continue
        path = pathlib.Path(files.get(task["label"], bundle / "eval_data" / task["dataset_uri"]))
        if not path.exists():
            path = path.with_name(path.name + ".gz")
        with (gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else open(path, encoding="utf-8")) as stream:
            rows = [json.loads(line) for line in stream if line.strip()]
        random.Random(1337).shuffle(rows)
        meta = {"task_type": task["icl_task_type"], "num_fewshot": task["num_fewshot"][0],
                "continuation_delimiter": task.get("continuation_delimiter", " ")}
        yield task["label"], rows[:args.max_per_task] if args.max_per_task > 0 else rows, meta


def main():
    args = parse_arguments()
    sys.path.insert(0, args.reference)
    import torch
    from nanochat.core_eval import evaluate_example

    torch.set_num_threads(args.threads)
    scratch = tempfile.TemporaryDirectory()
    folder = with_bfloat16_tables(pathlib.Path(args.checkpoint).resolve(), pathlib.Path(scratch.name) / "checkpoint")
    model, tokenizer, device = reference_model(args, folder), ReferenceTokenizer(folder), torch.device("cpu")
    model.max_seq_len = model.cos.size(1)

    with tempfile.TemporaryDirectory() as output:
        command = [args.nanochat, "eval", str(folder), "--benchmarks", "core", "--data-dir", args.bundle, "--dtype", "float32",
                   "--device", "cpu", "--threads", str(args.threads), "--max-per-task", str(args.max_per_task), "--output-dir", output,
                   "--quiet", "--json"]
        for item in args.task_file:
            command += ["--task-file", item]
        result = subprocess.run(command, stdout=subprocess.PIPE, text=True)
        if result.returncode != 0:
            sys.exit(f"nanochat eval ended with exit code {result.returncode}")
        ours = {row["task"]: row for row in json.loads(result.stdout.splitlines()[-1])["results"]}
        examples = {}
        with open(f"{output}/examples.jsonl") as stream:
            for row in map(json.loads, stream):
                if "task" in row:
                    examples[row["task"].removeprefix("core/"), row["example"]] = row

    totals = {"tasks": 0, "examples": 0, "reference_seconds": 0.0, "nanochat_seconds": 0.0, "different": 0, "refused": 0}
    tasks, spent = list(read_tasks(args)), 0.0
    for number, (label, rows, meta) in enumerate(tasks):
        share = (args.seconds - spent) / (len(tasks) - number)
        scored = different = refused = 0
        start = time.perf_counter()
        for index in range(len(rows)):
            if index > 0 and time.perf_counter() - start > share:
                break
            try:
                verdict = bool(evaluate_example(index, model, tokenizer, rows, device, meta))
            except AssertionError:  # a tokenizer that joins prompt and continuation, or a span that does not fit
                refused += 1
                continue
            scored += 1
            different += verdict != examples[label, index]["correct"]
        seconds = time.perf_counter() - start
        spent += seconds
        # This program scored every row; of its time, the part of the rows that the reference came to.
        ours_seconds = ours[label]["seconds"] * (scored + refused) / len(rows)
        for key, value in [("tasks", 1), ("examples", scored), ("reference_seconds", seconds), ("nanochat_seconds", ours_seconds),
                           ("different", different), ("refused", refused)]:
            totals[key] += value
        print(f"{label:34} {scored:6} examples  reference {scored / seconds:8.1f}/s  nanochat {scored / ours_seconds:8.1f}/s  "
              f"{seconds / ours_seconds:5.1f} times  {different} verdicts differ{f', {refused} refused by the reference' if refused else ''}", flush=True)
    totals["speedup"] = totals["reference_seconds"] / totals["nanochat_seconds"]
    print(json.dumps(totals))
    sys.exit(1 if totals["different"] else 0)


if __name__ == "__main__":
    main()
