#!/usr/bin/env python3
"""Training speed of this project and its peers, one after the other on the same machine.

Peers, each in a process of its own:
  nanochat        `nanochat bench train` of this project
  transformers    NanoChatForCausalLM of Hugging Face transformers under torch.compile, torch's Muon and AdamW
  reference       karpathy/nanochat, from a checkout given by --reference, with its own optimizers, under torch.compile
  reference-eager the same without torch.compile

--recipe says which architecture, and so which commit --reference has to be: nanochat-2025-12 is d314e96, nanochat-2026-07 is
92d63d4. Where FlashAttention-3 is not installed, the newer reference masks its windows instead of skipping what is outside;
here it gets PyTorch's FlashAttention-2 with windows, which is a quarter faster. --fp8 needs nanochat-2026-07.

Every peer trains the same shape from random weights on random tokens: forward, backward, clipping and optimizer, the
median of --steps steps after --warmup. With --processes N, nanochat and the reference train on N GPUs of this machine;
tokens/s is then the sum over all of them. Prints a table and, as the last line, JSON. Needs torch 2.11 or newer, and
transformers for that peer.

  benchmarks/compare_training.py --nanochat build/release/bin/nanochat --depth 6 --sequence-len 512 \
    --device-batch-size 8 --vocab-size 32768
"""

import argparse
import json
import os
import platform
import resource
import signal
import statistics
import subprocess
import sys
import time


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nanochat", default="build/release/bin/nanochat", help="program of this project")
    parser.add_argument("--peers", default="nanochat,transformers", help="comma-separated, in the order to run")
    parser.add_argument("--reference", help="checkout of karpathy/nanochat for the peers of that name")
    parser.add_argument("--recipe", default="nanochat-2025-12", choices=["nanochat-2025-12", "nanochat-2026-07"])
    parser.add_argument("--fp8", action="store_true", help="products in fp8, with scales for each tensor")
    parser.add_argument("--depth", type=int, default=6)
    parser.add_argument("--sequence-len", type=int, default=512)
    parser.add_argument("--device-batch-size", type=int, default=8)
    parser.add_argument("--micro-batches", type=int, default=1, help="micro-batches a step")
    parser.add_argument("--vocab-size", type=int, default=32768)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--dtype", default="bfloat16", choices=["bfloat16", "float32"])
    parser.add_argument("--processes", type=int, default=1, help="processes, each with its own GPU and its own batches")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads; 0: every core")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--warmup", type=int, default=3)
    parser.add_argument("--peer-seconds", type=float, help="what a peer may take; one that takes longer is left out of the comparison")
    parser.add_argument("--output", help="file for the JSON")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    return parser.parse_args()


def run_limited(args, command, stderr=None):
    """Its output. Ends it, and all processes that it has started, after --peer-seconds."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr, text=True, start_new_session=True) as process:
        try:
            output, errors = process.communicate(timeout=args.peer_seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            raise
    return subprocess.CompletedProcess(command, process.returncode, output, errors)


def run_nanochat(args):
    command = [args.nanochat]
    if args.processes > 1:
        command += ["launch", "--nproc", str(args.processes), "--"]
    command += ["bench", "train", "--json", "--quiet"]
    for name in ("recipe", "depth", "sequence_len", "device_batch_size", "micro_batches", "vocab_size", "device", "dtype", "threads",
                 "steps", "warmup"):
        command += ["--" + name.replace("_", "-"), str(getattr(args, name))]
    command += ["--fp8"] if args.fp8 else []
    result = run_limited(args, command)
    if result.returncode != 0:
        return {"error": f"exit code {result.returncode}"}
    figures = json.loads(result.stdout.splitlines()[-1])
    return {key: figures[key] for key in ("tokens_per_second", "step_ms", "optimizer_ms", "memory_bytes", "parameters")}


def transformers_model(args, torch, device):
    from transformers import NanoChatConfig, NanoChatForCausalLM

    width = 64 * args.depth
    heads = max(1, -(-width // 128))
    config = NanoChatConfig(vocab_size=args.vocab_size, hidden_size=width, intermediate_size=4 * width,
                            num_hidden_layers=args.depth, num_attention_heads=heads, num_key_value_heads=heads,
                            max_position_embeddings=args.sequence_len, use_cache=False)
    with torch.device(device):
        model = NanoChatForCausalLM(config)
    matrices = [p for p in model.model.layers.parameters()]
    tables = [model.model.embed_tokens.weight, model.lm_head.weight]
    optimizers = [torch.optim.AdamW(tables, lr=1e-3, betas=(0.8, 0.95), eps=1e-10, weight_decay=0.0,
                                    fused=True),
                  torch.optim.Muon(matrices, lr=1e-3, momentum=0.95, weight_decay=0.0)]
    compiled = torch.compile(model, dynamic=False)
    # logits_to_keep keeps all; the loss is transformers' own, over shifted labels.
    return compiled, model, optimizers, lambda x, y: compiled(input_ids=x, labels=y).loss


def attention_with_windows(torch):
    """The reference's attention in training, by PyTorch's FlashAttention-2."""
    def forward(q, k, v, causal=False, window_size=(-1, -1)):
        left = -1 if window_size[0] < 0 or window_size[0] >= q.size(1) else window_size[0]
        return torch.ops.aten._flash_attention_forward(q, k, v, None, None, q.size(1), k.size(1), 0.0, causal, False,
                                                       window_size_left=left, window_size_right=-1 if left < 0 else 0)[0]
    return forward


def newest_reference_model(args, torch, device):
    os.environ["NANOCHAT_DTYPE"] = args.dtype
    sys.path.insert(0, args.reference)
    from nanochat import flash_attention, gpt

    if args.device == "cuda" and args.dtype == "bfloat16" and not flash_attention.HAS_FA3:
        flash_attention.flash_attn.flash_attn_func = attention_with_windows(torch)
    width = -(-64 * args.depth // 128) * 128
    with torch.device("meta"):
        model = gpt.GPT(gpt.GPTConfig(sequence_len=args.sequence_len, vocab_size=args.vocab_size, n_layer=args.depth,
                                      n_head=width // 128, n_kv_head=width // 128, n_embd=width))
    model.to_empty(device=device)
    model.init_weights()
    if args.fp8:
        from nanochat.fp8 import Float8LinearConfig, convert_to_float8_training

        # Which layers it converts: scripts/base_train.py of the reference.
        convert_to_float8_training(
            model, config=Float8LinearConfig.from_recipe_name("tensorwise"),
            module_filter_fn=lambda module, name: isinstance(module, torch.nn.Linear) and module.in_features % 16 == 0
            and module.out_features % 16 == 0 and min(module.in_features, module.out_features) >= 128)
    compiled = model if args.worker.endswith("eager") else torch.compile(model, dynamic=False)
    return compiled, model, [model.setup_optimizer()], lambda x, y: compiled(x, y)


def reference_model(args, torch, device):
    if args.recipe == "nanochat-2026-07":
        return newest_reference_model(args, torch, device)
    sys.path.insert(0, args.reference)
    from nanochat.gpt import GPT, GPTConfig

    width = 64 * args.depth
    heads = max(1, -(-width // 128))
    with torch.device("meta"):
        model = GPT(GPTConfig(sequence_len=args.sequence_len, vocab_size=args.vocab_size, n_layer=args.depth,
                              n_head=heads, n_kv_head=heads, n_embd=width))
    model.to_empty(device=device)
    model.init_weights()
    compiled = model if args.worker.endswith("eager") else torch.compile(model, dynamic=False)
    return compiled, model, model.setup_optimizers(), lambda x, y: compiled(x, y)


def work(args):
    """One PyTorch peer in this process; the last line printed is its JSON."""
    import torch

    if args.threads > 0:
        torch.set_num_threads(args.threads)
    torch.manual_seed(42)
    device, rank, processes = torch.device(args.device), 0, int(os.environ.get("WORLD_SIZE", "1"))
    if processes > 1:
        rank, device = int(os.environ["RANK"]), torch.device(args.device, int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
        torch.distributed.init_process_group("nccl", device_id=device)
        torch.manual_seed(42 + rank)
    build = transformers_model if args.worker == "transformers" else reference_model
    compiled, model, optimizers, loss_of = build(args, torch, device)
    tokens = args.device_batch_size * args.sequence_len * args.micro_batches * processes
    batches = [tuple(torch.randint(args.vocab_size, (args.device_batch_size, args.sequence_len), device=device)
                     for _ in range(2)) for _ in range(args.micro_batches)]
    dtype, newest = getattr(torch, args.dtype), args.recipe == "nanochat-2026-07" and args.worker != "transformers"
    synchronize = torch.cuda.synchronize if args.device == "cuda" else lambda: None
    steps, updates = [], []
    for step in range(args.warmup + args.steps):
        synchronize()
        begin = time.perf_counter()
        for inputs, targets in batches:
            with torch.autocast(args.device, dtype=dtype, enabled=args.dtype != "float32" and not newest):
                loss = loss_of(inputs, targets)
            (loss / args.micro_batches).backward()
        synchronize()
        middle = time.perf_counter()
        if not newest:  # which neither clips nor casts by itself
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0).item()
        for optimizer in optimizers:
            optimizer.step()
        model.zero_grad(set_to_none=True)
        synchronize()
        end = time.perf_counter()
        if step >= args.warmup:
            steps.append(end - begin)
            updates.append(end - middle)
    if args.device == "cuda":
        memory = torch.cuda.max_memory_reserved()
    else:
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    if processes > 1:
        torch.distributed.destroy_process_group()
    if rank != 0:
        return
    print(json.dumps({
        "tokens_per_second": tokens / statistics.median(steps),
        "step_ms": 1e3 * statistics.median(steps),
        "optimizer_ms": 1e3 * statistics.median(updates),
        "memory_bytes": memory,
        "parameters": sum(p.numel() for p in model.parameters()),
        "loss": loss.item(),
        "torch": torch.__version__,
    }))


def run_worker(args, peer):
    command = [sys.executable]
    if args.processes > 1:
        command += ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(args.processes)]
    command += [os.path.abspath(__file__), *sys.argv[1:], "--worker", peer]
    result = run_limited(args, command, stderr=subprocess.PIPE)
    if result.returncode != 0:
        lines = [line for line in result.stderr.splitlines() if line.strip()] or [f"exit code {result.returncode}"]
        return {"error": lines[-1]}
    return json.loads(result.stdout.splitlines()[-1])


def machine(args):
    name = platform.processor()
    try:
        with open("/proc/cpuinfo") as cpuinfo:
            name = next(line.split(":")[1].strip() for line in cpuinfo if line.startswith("model name"))
    except (OSError, StopIteration):
        pass
    facts = {"cpu": name, "cores": len(os.sched_getaffinity(0))}
    if args.device == "cuda":
        query = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
        facts["gpu"] = subprocess.run(query, stdout=subprocess.PIPE, text=True).stdout.splitlines()[0]
    return facts


def main():
    args = parse_arguments()
    if args.worker:
        return work(args)
    peers = args.peers.split(",")
    unknown = [peer for peer in peers if peer not in ("nanochat", "transformers", "reference", "reference-eager")]
    if unknown:
        sys.exit(f"compare_training: unknown peer {unknown[0]}")
    if any(peer.startswith("reference") for peer in peers) and not args.reference:
        sys.exit("compare_training: the reference needs --reference, a checkout of karpathy/nanochat")
    if args.fp8 and args.recipe != "nanochat-2026-07":
        sys.exit("compare_training: --fp8 needs --recipe nanochat-2026-07")
    if args.processes > 1 and (args.device != "cuda" or "transformers" in peers):
        sys.exit("compare_training: --processes needs --device cuda, and --peers without transformers")
    results = {}
    for peer in peers:
        try:
            results[peer] = run_nanochat(args) if peer == "nanochat" else run_worker(args, peer)
        except subprocess.TimeoutExpired:
            results[peer] = {"error": f"not done after {args.peer_seconds:g} s"}
        print(f"{peer}: {results[peer].get('error') or '%.0f tokens/s' % results[peer]['tokens_per_second']}", file=sys.stderr)
    ours = results.get("nanochat", {}).get("tokens_per_second")
    print(f"{'peer':<16} {'tokens/s':>10} {'step ms':>10} {'optimizer ms':>13} {'memory GiB':>11} {'nanochat is':>12}")
    for peer, figures in results.items():
        if "error" in figures:
            print(f"{peer:<16} {figures['error']}")
            continue
        ratio = f"{ours / figures['tokens_per_second']:.2f}x" if ours else "-"
        print(f"{peer:<16} {figures['tokens_per_second']:>10,.0f} {figures['step_ms']:>10.1f} "
              f"{figures['optimizer_ms']:>13.1f} {figures['memory_bytes'] / 2**30:>11.2f} {ratio:>12}")
    shape = {key: getattr(args, key) for key in ("recipe", "fp8", "depth", "sequence_len", "device_batch_size", "micro_batches",
                                                 "vocab_size", "device", "dtype", "processes")}
    report = json.dumps({"shape": shape, "machine": machine(args), "peers": results})
    if args.output:
        with open(args.output, "w") as file:
            file.write(report + "\n")
    print(report)
    return 0 if not any("error" in figures for figures in results.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
