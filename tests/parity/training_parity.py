#!/usr/bin/env python3
"""Trains nanochat-2026-07 by the Python nanochat and by this project, from the same weights on the same batches.

  training_parity.py --reference ../nanochat --shards 'shards/*.tok' --bos-id 32759 --work /tmp/parity \\
      --tool build/cuda/tests/parity_training --depth 12 --steps 300

--reference is a checkout of karpathy/nanochat at 92d63d4. Rows are cut from the shards' documents, each behind its <|bos|>; the
last --validation-rows of them are held out. Learning rates and decay are the reference's defaults, scaled to the batch as its
scripts/base_train.py does. Both programs compute in --dtype.

Writes training.json, config.json, init.safetensors and batches.safetensors to --work, then reference.json and ours.json. Prints
the losses and bits per byte of both, the mean and largest difference of a step's loss, and the difference of the validation loss
(and so of bits per byte, on the same rows) in percent. Exits with 1 if the mean is over --mean-within or the validation loss over
--validation-within.

--noise also trains the Python nanochat a second time, without torch.compile (reference_eager.json). The two runs of one program
differ in rounding alone; their difference is what rounding makes of these steps, and no other program can be expected nearer.

--fp8 also trains with both programs in 8 bits (reference_fp8.json, ours_fp8.json), and compares each with its own run in bfloat16.
The reference needs a GPU for it.

Needs torch, numpy and safetensors.
"""

import argparse
import glob
import importlib.machinery
import importlib.util
import json
import math
import os
import pathlib
import subprocess
import sys
import types

import numpy
import torch
from safetensors.torch import save_file

HEADER = 128  # of a token shard, docs/formats/token-shards.md


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reference", required=True, help="checkout of karpathy/nanochat at 92d63d4")
    parser.add_argument("--shards", nargs="+", required=True, help="token shards or globs of them")
    parser.add_argument("--bos-id", type=int, required=True, help="id of <|bos|> in the shards' tokenizer")
    parser.add_argument("--work", required=True, type=pathlib.Path)
    parser.add_argument("--tool", default="build/release/tests/parity_training")
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--dtype", default="bfloat16", choices=["bfloat16", "float32"])
    parser.add_argument("--depth", type=int, default=12)
    parser.add_argument("--width", type=int, default=0, help="0: 64 times the depth, rounded up to whole heads")
    parser.add_argument("--head-dim", type=int, default=128)
    parser.add_argument("--window-pattern", default="SSSL")
    parser.add_argument("--sequence-len", type=int, default=2048)
    parser.add_argument("--rows", type=int, default=32)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--warmup-steps", type=int, default=40)
    parser.add_argument("--validation-rows", type=int, default=64)
    parser.add_argument("--eager", action="store_true", help="the reference without torch.compile")
    parser.add_argument("--noise", action="store_true", help="also compare the reference with itself, compiled and not")
    parser.add_argument("--fp8", action="store_true", help="also compare 8 bits with bfloat16, in both programs")
    parser.add_argument("--mean-within", type=float, default=0.3)
    parser.add_argument("--validation-within", type=float, default=0.3)
    return parser.parse_args()


def read_documents(patterns):
    """(vocabulary, bytes of text per token, documents as arrays of ids) of the shards."""
    vocabulary, documents, all_tokens, all_bytes = None, [], 0, 0
    for path in sorted(path for pattern in patterns for path in glob.glob(pattern)):
        data = numpy.memmap(path, dtype=numpy.uint8, mode="r")
        words = data[:HEADER].view("<u4")
        numbers = data[16:88].view("<u8")  # documents, tokens, text_bytes, vocab_size, ..., offsets_position
        count, tokens, offsets_at = int(numbers[0]), int(numbers[1]), int(numbers[8])
        vocabulary = int(numbers[3])
        all_tokens, all_bytes = all_tokens + tokens, all_bytes + int(numbers[2])
        ids = data[HEADER:HEADER + tokens * int(words[3])].view("<u2" if words[3] == 2 else "<u4")
        offsets = data[offsets_at:offsets_at + 8 * (count + 1)].view("<u8").astype(numpy.int64)
        documents += [ids[a:b] for a, b in zip(offsets[:-1], offsets[1:])]
    if vocabulary is None:
        sys.exit(f"no shards match {patterns}")
    return vocabulary, all_bytes / all_tokens, documents


def make_rows(documents, bos, length, count):
    wanted, pieces, have = length * count, [], 0
    for document in documents:
        pieces += [numpy.array([bos], dtype=numpy.int32), document.astype(numpy.int32)]
        have += 1 + len(document)
        if have >= wanted:
            return torch.from_numpy(numpy.concatenate(pieces)[:wanted].reshape(count, length).copy())
    sys.exit(f"the shards have {have} tokens, but {count} rows need {wanted}")


def import_reference(folder):
    """Its modules; filelock, which only its downloads use, may be absent."""
    if importlib.util.find_spec("filelock") is None:
        module = types.ModuleType("filelock")
        module.__spec__ = importlib.machinery.ModuleSpec("filelock", None)
        module.FileLock = object
        sys.modules["filelock"] = module
    sys.path.insert(0, folder)
    from nanochat.gpt import GPT, GPTConfig
    return GPT, GPTConfig


def make_model(args, vocabulary):
    GPT, GPTConfig = import_reference(args.reference)
    width = args.width or -(-64 * args.depth // args.head_dim) * args.head_dim
    heads = width // args.head_dim
    config = GPTConfig(sequence_len=args.sequence_len, vocab_size=vocabulary, n_layer=args.depth, n_head=heads, n_kv_head=heads,
                       n_embd=width, window_pattern=args.window_pattern)
    with torch.device("meta"):
        model = GPT(config)
    model.to_empty(device=args.device)
    torch.manual_seed(42)
    model.init_weights()
    fields = {"sequence_len": args.sequence_len, "vocab_size": vocabulary, "n_layer": args.depth, "n_head": heads,
              "n_kv_head": heads, "n_embd": width, "intermediate_size": 4 * width, "window_pattern": args.window_pattern,
              "qk_scale": 1.2, "rope_theta": 100000.0, "rms_norm_eps": 2.0**-23, "final_logit_softcapping": 15.0}
    return model, fields


def training_plan(args):
    batch = args.rows * args.sequence_len
    factor = math.sqrt(batch / 2**19)
    hyper = {"unembedding_lr": 0.008 * factor, "embedding_lr": 0.3 * factor, "matrix_lr": 0.02 * factor,
             "scalar_lr": 0.5 * factor, "weight_decay": 0.28 * factor}
    schedule = {"num_iterations": args.steps, "warmup_steps": args.warmup_steps, "warmdown_ratio": 0.65, "final_lr_frac": 0.05}
    return {"hyperparameters": hyper, "schedule": schedule}


def schedules(plan, step):
    """Multiplier of the rates, momentum and decay of Muon, as in the reference's scripts/base_train.py."""
    schedule = plan["schedule"]
    total, warmup = schedule["num_iterations"], schedule["warmup_steps"]
    warmdown, last = round(schedule["warmdown_ratio"] * total), schedule["final_lr_frac"]
    if step < warmup:
        rate = (step + 1) / warmup
    elif step <= total - warmdown:
        rate = 1.0
    else:
        progress = (total - step) / warmdown
        rate = progress + (1 - progress) * last
    if step < 400:
        momentum = 0.85 + (0.97 - 0.85) * step / 400
    elif step >= total - warmdown:
        momentum = 0.97 + (0.90 - 0.97) * (step - (total - warmdown)) / warmdown
    else:
        momentum = 0.97
    return rate, momentum, plan["hyperparameters"]["weight_decay"] * 0.5 * (1 + math.cos(math.pi * step / total))


def to_fp8(model):
    from nanochat.fp8 import Float8LinearConfig, convert_to_float8_training

    # Which layers it converts: scripts/base_train.py of the reference.
    convert_to_float8_training(
        model, config=Float8LinearConfig.from_recipe_name("tensorwise"),
        module_filter_fn=lambda module, name: isinstance(module, torch.nn.Linear) and module.in_features % 16 == 0
        and module.out_features % 16 == 0 and min(module.in_features, module.out_features) >= 128)


def to_linear(model):
    """Back to bfloat16, as the reference evaluates."""
    for module in model.modules():
        if type(module).__name__ == "Float8Linear":
            module.__class__ = type(model.smear_gate)


def train_reference(args, eager, vocabulary, plan, batches, validation, fp8=False):
    model, _ = make_model(args, vocabulary)  # always the same weights
    if fp8:
        to_fp8(model)
    compiled = model if eager else torch.compile(model, dynamic=False)
    optimizer = model.setup_optimizer(**plan["hyperparameters"])
    losses = []

    def split(rows):
        rows = rows.to(args.device, dtype=torch.long)
        return rows[:, :-1].contiguous(), rows[:, 1:].contiguous()

    for step, rows in enumerate(batches):
        loss = compiled(*split(rows))
        loss.backward()
        rate, momentum, decay = schedules(plan, step)
        for group in optimizer.param_groups:
            group["lr"] = group["initial_lr"] * rate
            if group["kind"] == "muon":
                group["momentum"], group["weight_decay"] = momentum, decay
        optimizer.step()
        model.zero_grad(set_to_none=True)
        losses.append(loss.item())
    if fp8:
        to_linear(model)
        compiled = model if eager else torch.compile(model, dynamic=False)
    with torch.no_grad():
        held_out = [compiled(*split(rows)).item() for rows in validation]
    del compiled, model, optimizer
    if args.device == "cuda":
        torch.cuda.empty_cache()
    return {"losses": losses, "validation_loss": sum(held_out) / len(held_out)}


def difference(result, reference):
    """Mean and largest difference of a step's loss, and difference of the validation loss, in percent."""
    steps = [abs(a - b) / b * 100 for a, b in zip(result["losses"], reference["losses"], strict=True)]
    held_out = abs(result["validation_loss"] - reference["validation_loss"]) / reference["validation_loss"] * 100
    return sum(steps) / len(steps), max(steps), held_out


def train_ours(args, dtype, name):
    file = args.work / name
    subprocess.run([args.tool, str(args.work), args.device, dtype, str(file)], check=True)
    return json.loads(file.read_text())


def describe(mean, largest, held_out):
    return f"difference of a step's loss: mean {mean:.4f} %, largest {largest:.4f} %; validation {held_out:.4f} %"


def main():
    args = parse_arguments()
    os.environ["NANOCHAT_DTYPE"] = args.dtype
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    if args.validation_rows % args.rows != 0:
        sys.exit("--validation-rows must be a multiple of --rows")
    args.work.mkdir(parents=True, exist_ok=True)
    if args.device == "cuda":
        # In bfloat16 as the reference's base_train.py. float32 is for comparing without rounding in the way: no TF32 there.
        torch.set_float32_matmul_precision("high" if args.dtype == "bfloat16" else "highest")
    vocabulary, bytes_per_token, documents = read_documents(args.shards)
    rows = make_rows(documents, args.bos_id, args.sequence_len + 1, args.rows * args.steps + args.validation_rows)
    rows = rows.view(-1, args.rows, args.sequence_len + 1)
    batches, validation = rows[:args.steps], rows[args.steps:]
    model, fields = make_model(args, vocabulary)
    plan = training_plan(args)
    (args.work / "config.json").write_text(json.dumps(fields, indent=1))
    (args.work / "training.json").write_text(json.dumps(plan, indent=1))
    save_file({name: value.detach().float().cpu().contiguous() for name, value in model.state_dict().items()},
              args.work / "init.safetensors")
    save_file({"batches": batches.contiguous(), "validation": validation.contiguous()}, args.work / "batches.safetensors")

    del model
    reference = train_reference(args, args.eager, vocabulary, plan, batches, validation)
    (args.work / "reference.json").write_text(json.dumps(reference))
    results = {"reference": reference}
    if args.noise:
        results["reference, eager"] = train_reference(args, True, vocabulary, plan, batches, validation)
        (args.work / "reference_eager.json").write_text(json.dumps(results["reference, eager"]))
    results["ours"] = train_ours(args, args.dtype, "ours.json")
    if args.fp8:
        results["reference, fp8"] = train_reference(args, args.eager, vocabulary, plan, batches, validation, fp8=True)
        (args.work / "reference_fp8.json").write_text(json.dumps(results["reference, fp8"]))
        results["ours, fp8"] = train_ours(args, "fp8", "ours_fp8.json")

    for name, result in results.items():
        bpb = result["validation_loss"] / math.log(2) / bytes_per_token  # at the shards' mean bytes of a token
        print(f"{name}: loss {result['losses'][0]:.4f} to {result['losses'][-1]:.4f} in {args.steps} steps, "
              f"validation {result['validation_loss']:.4f}, bpb {bpb:.4f}")
    if args.noise:
        print("reference with itself: " + describe(*difference(results["reference, eager"], reference)))
    if args.fp8:
        for name in ("reference", "ours"):
            print(f"{name}, fp8 with bfloat16: " + describe(*difference(results[name + ", fp8"], results[name])))
    mean, largest, held_out = difference(results["ours"], reference)
    print(describe(mean, largest, held_out))
    return 0 if mean <= args.mean_within and held_out <= args.validation_within else 1


if __name__ == "__main__":
    sys.exit(main())
