#!/usr/bin/env python3
"""Runs parity_newest_reference_test on models of other shapes, window patterns and schedules than the stored fixture's.

    newest_fixtures.py --test build/release/tests/parity_newest_reference_test [--shared ../shared] [--keep FOLDER]

The figures come from parity/check_head.py of the shared folder: the model, its gradients and its optimizer in plain
operations, here in float64. This script draws the weights and the batches, computes the schedules by their formulas, trains,
and writes what the stored fixture has, except for the reference's initial weights.

Needs torch and safetensors. Exits with 1 when the test fails, with 77 when a package or the shared folder is absent.
"""
import argparse
import json
import math
import os
import pathlib
import subprocess
import sys
import tempfile

try:
    import torch
    from safetensors.torch import save_file
except ImportError as error:
    print(f"skipped: {error}", file=sys.stderr)
    sys.exit(77)

# Name; layers, query heads, key/value heads, head size; vocabulary, context, pattern; steps, warmup, warmdown, last rate.
# The gates of the last have more rows than columns.
FIXTURES = [
    ("head_l3_made", 3, 3, 1, 32, 290, 384, "SL", 20, 3, 0.5, 0.1),
    ("head_l5_made", 5, 4, 4, 32, 256, 192, "SSSL", 12, 0, 1.0, 0.0),
    ("head_l2_made", 2, 14, 14, 8, 300, 160, "L", 12, 6, 0.25, 0.05),
]
ROWS = 3
RATES = {"unembedding_lr": 0.008, "embedding_lr": 0.3, "matrix_lr": 0.02, "weight_decay": 0.28, "scalar_lr": 0.5}
SMEAR_RATE, EPS = 0.2, 1e-10
MINIMUM_GAP = 2e-3  # between the two largest logits of a greedy token: far more than rounding


def make_config(layers, heads, kv_heads, head_dim, vocabulary, context, pattern):
    short = math.ceil(math.ceil(context / 4) / 128) * 128
    windows = [context if pattern[i % len(pattern)] == "L" else short for i in range(layers)]
    windows[-1] = context
    return {
        "sequence_len": context, "vocab_size": vocabulary, "padded_vocab_size": (vocabulary + 63) // 64 * 64,
        "n_layer": layers, "n_head": heads, "n_kv_head": kv_heads, "n_embd": heads * head_dim, "head_dim": head_dim,
        "intermediate_size": 4 * heads * head_dim, "window_pattern": pattern, "left_windows": windows,
        "value_embedding_layers": [i for i in range(layers) if i % 2 == (layers - 1) % 2], "backout_layer": layers // 2,
        "qk_scale": 1.2, "rope_theta": 100000.0, "rms_norm_eps": 2.0**-23, "final_logit_softcapping": 15.0,
    }


def draw_weights(c, generator):
    layers, width, hidden, table = c["n_layer"], c["n_embd"], c["intermediate_size"], c["padded_vocab_size"]
    kv_width = c["n_kv_head"] * c["head_dim"]

    def normal(*shape, std=1.0, mean=0.0):
        return mean + std * torch.randn(*shape, generator=generator)

    def uniform(*shape, bound):
        return bound * (2.0 * torch.rand(*shape, generator=generator) - 1.0)

    bound = math.sqrt(3.0 / width)
    last = max(layers - 1, 1)
    p = {
        "resid_lambdas": normal(layers, std=0.1) + torch.tensor([1.15 - 0.10 * i / last for i in range(layers)]),
        "x0_lambdas": normal(layers, std=0.1) + torch.tensor([0.20 - 0.15 * i / last for i in range(layers)]),
        "smear_lambda": torch.tensor([0.4]),
        "backout_lambda": torch.tensor([0.3]),
        "transformer.wte.weight": normal(table, width, std=0.8),
        "lm_head.weight": normal(table, width, std=0.03),
        "smear_gate.weight": normal(1, 24, std=0.3),
    }
    for i in range(layers):
        block = f"transformer.h.{i}."
        p[block + "attn.c_q.weight"] = uniform(width, width, bound=bound)
        p[block + "attn.c_k.weight"] = uniform(kv_width, width, bound=bound)
        p[block + "attn.c_v.weight"] = uniform(kv_width, width, bound=bound)
        p[block + "attn.c_proj.weight"] = normal(width, width, std=0.5 / math.sqrt(width))
        p[block + "mlp.c_fc.weight"] = uniform(hidden, width, bound=0.4 * bound)
        p[block + "mlp.c_proj.weight"] = normal(width, hidden, std=0.5 / math.sqrt(hidden))
        if i in c["value_embedding_layers"]:
            p[block + "attn.ve_gate.weight"] = normal(c["n_kv_head"], 12, std=0.3)
            p[f"value_embeds.{i}.weight"] = uniform(table, kv_width, bound=bound)
    return {name: tensor.float().contiguous() for name, tensor in p.items()}


def make_groups(c, names):
    scale = (c["n_embd"] / 768) ** -0.5

    def adamw(params, rate, betas, decay):
        return {"kind": "adamw", "params": params, "initial_lr": rate, "betas": betas, "eps": EPS, "weight_decay": decay}

    values = [name for name in names if name.startswith("value_embeds")]
    groups = [
        adamw(["lm_head.weight"], RATES["unembedding_lr"] * scale, [0.8, 0.96], 0.01),
        adamw(["transformer.wte.weight"], RATES["embedding_lr"] * scale, [0.8, 0.995], 0.001),
        adamw(values, RATES["embedding_lr"] * scale * 0.5, [0.8, 0.995], 0.01),
        adamw(["resid_lambdas"], RATES["scalar_lr"] * 0.01, [0.8, 0.95], 0.05),
        adamw(["x0_lambdas"], RATES["scalar_lr"], [0.96, 0.95], 0.0),
        adamw(["smear_gate.weight", "smear_lambda", "backout_lambda"], SMEAR_RATE, [0.8, 0.95], 0.0),
    ]
    matrices = [name for name in names if name.startswith("transformer.h.")]
    return groups + [{"kind": "muon", "params": matrices, "initial_lr": RATES["matrix_lr"], "beta2": 0.9}]


def make_steps(count, warmup, warmdown_ratio, final_lr_frac, groups):
    warmdown = round(warmdown_ratio * count)
    steps = []
    for it in range(count):
        multiplier = 1.0
        if it < warmup:
            multiplier = (it + 1) / warmup
        elif it > count - warmdown:
            left = (count - it) / warmdown
            multiplier = left + (1.0 - left) * final_lr_frac
        steps.append({
            "step": it, "lr_multiplier": multiplier,
            "muon_momentum": 0.85 + (0.97 - 0.85) * it / 400,  # fewer than 400 steps
            "muon_weight_decay": RATES["weight_decay"] * 0.5 * (1.0 + math.cos(math.pi * it / count)),
            "lrs": [group["initial_lr"] * multiplier for group in groups],
        })
    return steps


def load_oracle(path, folder):
    """The functions of check_head.py; what it does with a stored fixture begins where it reads the batches."""
    source = path.read_text(encoding="utf-8")
    functions = source[:source.index("\nbatches = load_file(") + 1]
    arguments, sys.argv = sys.argv, [str(path), str(folder), "float64"]
    oracle = {"__name__": "check_head"}
    exec(compile(functions, str(path), "exec"), oracle)  # noqa: S102
    sys.argv = arguments
    return oracle


def write_json(path, value):
    path.write_text(json.dumps(value), encoding="utf-8")


def make_greedy(oracle, c, p, generator):
    greedy = []
    for length in (c["sequence_len"] // 2 + 40, c["sequence_len"] - 8):  # past the short window; past the context at its end
        prompt = torch.randint(c["vocab_size"], (length,), generator=generator).tolist()
        ids, completion, tops = list(prompt), [], []
        while len(completion) < 16:
            top = oracle["forward"](p, torch.tensor([ids]))[0, -1].topk(2)
            if top.values[0] - top.values[1] < MINIMUM_GAP:
                break
            completion.append(int(top.indices[0]))
            tops.append(float(top.values[0]))
            ids.append(completion[-1])
        if completion:
            greedy.append({"prompt": prompt, "completion": completion, "top_logit": tops})
    assert greedy, "no greedy token is far enough from the second"
    return greedy


def make_fixture(shared, folder, shape, steps, warmup, warmdown_ratio, final_lr_frac, seed):
    folder.mkdir(parents=True)
    generator = torch.Generator().manual_seed(seed)
    c = make_config(*shape)
    init = draw_weights(c, generator)
    # Some tokens are frequent and some absent, as in text.
    share = torch.rand(steps, ROWS, c["sequence_len"] + 1, generator=generator)
    batches = (share**3 * c["vocab_size"]).int().contiguous()
    groups = make_groups(c, init)
    expected = {
        "hyperparameters": RATES, "groups": groups,
        "schedule": {"num_iterations": steps, "warmup_steps": warmup, "warmdown_ratio": warmdown_ratio,
                     "final_lr_frac": final_lr_frac},
        "steps": make_steps(steps, warmup, warmdown_ratio, final_lr_frac, groups),
    }
    write_json(folder / "config.json", c)
    write_json(folder / "expected.json", expected)
    save_file(init, folder / "init.safetensors")
    save_file({"batches": batches}, folder / "batches.safetensors")
    oracle = load_oracle(shared / "parity/check_head.py", folder)

    def loss_and_grads(p, step):
        ids, targets = batches[step, :, :-1].long(), batches[step, :, 1:].long()
        oracle["IDS"][0] = ids.reshape(-1)
        return oracle["loss_and_grads"](p, ids, targets)

    p = {name: tensor.double() for name, tensor in init.items()}
    state = {name: {} for name in p}
    for step in expected["steps"]:
        loss, grads = loss_and_grads(p, step["step"])
        step["loss"] = float(loss)
        step["grad_norm"] = math.sqrt(sum(float(grad.square().sum()) for grad in grads.values()))
        before = {name: tensor.clone() for name, tensor in p.items()}
        for group, rate in zip(groups, step["lrs"]):
            for name in group["params"]:
                if group["kind"] == "muon":
                    oracle["muon"](p[name], grads[name], state[name], rate, step["muon_momentum"],
                                   step["muon_weight_decay"], group["beta2"])
                else:
                    oracle["adamw"](p[name], grads[name], state[name], rate, group["betas"], EPS, group["weight_decay"],
                                    step["step"] + 1)
        if step["step"] == 0:
            expected["step0_grad_norms"] = {name: float(grad.norm()) for name, grad in grads.items()}
            expected["step0_update_norms"] = {name: float((p[name] - before[name]).norm()) for name in p}
        for name in ("resid_lambdas", "x0_lambdas"):
            step[name] = p[name].tolist()
        for name in ("smear_lambda", "backout_lambda"):
            step[name] = float(p[name])
    final = {name: tensor.float().contiguous() for name, tensor in p.items()}
    torch.save(final, folder / f"model_{steps:06d}.pt")
    stored = {name: tensor.double() for name, tensor in final.items()}
    loss, grads = loss_and_grads(stored, 0)
    expected["final_loss_batch0"] = float(loss)
    save_file({name: grad.float().contiguous() for name, grad in grads.items()}, folder / "final_grads.safetensors")
    ids = batches[0, :2, :-1].contiguous()
    logits = oracle["forward"](stored, ids.long()).float().contiguous()
    save_file({"ids": ids, "logits": logits}, folder / "final_logits.safetensors")
    expected["greedy"] = make_greedy(oracle, c, stored, generator)
    write_json(folder / "expected.json", expected)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    root = pathlib.Path(__file__).resolve().parents[2]
    shared = pathlib.Path(os.environ.get("NANOCHAT_SHARED_DIR", root.parent / "shared"))
    parser.add_argument("--test", type=pathlib.Path, required=True, help="the program parity_newest_reference_test")
    parser.add_argument("--shared", type=pathlib.Path, default=shared, help="folder with parity/check_head.py")
    parser.add_argument("--keep", type=pathlib.Path, help="write the fixtures here, and leave them")
    arguments = parser.parse_args()
    if not (arguments.shared / "parity/check_head.py").exists():
        print(f"skipped: {arguments.shared / 'parity/check_head.py'} is absent", file=sys.stderr)
        sys.exit(77)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        made = arguments.keep or pathlib.Path(temporary)
        for seed, (name, *shape_and_schedule) in enumerate(FIXTURES):
            make_fixture(arguments.shared, made / "parity" / name, shape_and_schedule[:7], *shape_and_schedule[7:], seed + 1)
        environment = {**os.environ, "NANOCHAT_SHARED_DIR": str(made), "OMP_NUM_THREADS": "1"}
        result = subprocess.run([arguments.test, "--gtest_brief=0"], env=environment, check=False)
    sys.exit(1 if result.returncode else 0)


if __name__ == "__main__":
    main()
