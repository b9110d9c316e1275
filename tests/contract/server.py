"""A server for the tests that speak to one: trains a tiny model once (or takes one) and runs `nanochat serve` on the loopback.

    with server.running(nanochat) as url: ...
"""
import contextlib
import json
import os
import pathlib
import struct
import subprocess
import tempfile
import time
import urllib.error
import urllib.request


def small_run(nanochat, folder, depth=2, iterations=12, vocab_size=512, sequence_len=512):
    """A run of a model that is no good, but a model."""
    folder = pathlib.Path(folder)
    environment = {**os.environ, "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "2")}
    for arguments in (
        ["data", "toy", "--output-dir", folder / "toy", "--bytes", "300000"],
        ["tokenizer", "train", "--data-dir", folder / "toy/toy.jsonl", "--vocab-size", vocab_size, "--output-dir", folder / "tokenizer"],
        ["data", "prepare", "--data-dir", folder / "toy/toy.jsonl", "--tokenizer", folder / "tokenizer", "--output-dir", folder / "shards"],
        ["pretrain", "--data-dir", folder / "shards", "--output-dir", folder / "run", "--depth", depth, "--sequence-len", sequence_len,
         "--device-batch-size", 2, "--total-batch-size", 2 * sequence_len, "--num-iterations", iterations, "--eval-interval", -1,
         "--eval-tokens", 2 * sequence_len],
    ):
        subprocess.run([nanochat, *map(str, arguments), "--quiet"], check=True, env=environment)
    return folder / "run"


def scripted_run(run, folder, chains):
    """A checkpoint with the tokenizer and the shape of a run, whose model says chain[i + 1] after chain[i], whatever came before.

    Chains hold names of special tokens and texts of one token each; none may stand in two places that something follows."""
    folder = pathlib.Path(folder)
    folder.mkdir()
    source = pathlib.Path(run) / "checkpoints/latest"
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        (folder / name).write_bytes((source / name).read_bytes())
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    ids = {**tokenizer["model"]["vocab"], **{token["content"]: token["id"] for token in tokenizer["added_tokens"]}}
    config = json.loads((folder / "config.json").read_text())
    with open(source / "model.safetensors", "rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    header.pop("__metadata__", None)
    width, tensors, end = config["hidden_size"], {}, 0
    for name, tensor in header.items():
        size = 4
        for length in tensor["shape"]:
            size *= length
        tensors[name] = bytearray(size)
        header[name] = {"dtype": "F32", "shape": tensor["shape"], "data_offsets": [end, end + size]}
        end += size
    if residual := tensors.get("model.resid_lambdas"):  # a layer multiplies the stream by its own; absent in nanochat-2025-12
        struct.pack_into(f"<{len(residual) // 4}f", residual, 0, *[1.0] * (len(residual) // 4))
    follow = [(ids[a], ids[b]) for chain in chains for a, b in zip(chain, chain[1:])]
    assert len({a for a, _ in follow}) == len(follow) <= width, follow
    for direction, (before, after) in enumerate(follow):  # each pair has a direction of the stream for itself
        for name, row in (("model.embed_tokens.weight", before), ("lm_head.weight", after)):
            struct.pack_into("<f", tensors[name], 4 * (row * width + direction), 10.0)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    (folder / "model.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + b"".join(tensors.values()))
    return folder


# "How much is 23 + 48?" and anything else is answered by "It: ", a call of the calculator and "!".
CALCULATING = (("<|assistant_start|>", "I", "t", ":", "<|python_start|>", "2", "3", "+", "4", "8", "<|python_end|>"),
               ("<|output_end|>", "!", "<|assistant_end|>"))


def get(url, path, headers=None):
    """Status and body."""
    try:
        with urllib.request.urlopen(urllib.request.Request(url + path, headers=headers or {}), timeout=30) as response:
            return response.status, response.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def stats(url):
    return json.loads(get(url, "/stats")[1])


def wait_for(url, condition, what, limit=60.0):
    """The first /stats of which `condition` says so."""
    end = time.monotonic() + limit
    while not condition(now := stats(url)):
        assert time.monotonic() < end, (what, now)
    return now


def start(nanochat, run, log, arguments=(), environment=None, name="tiny", dtype="float32", port=0):
    """The process and its URL, once it serves."""
    command = [nanochat, "serve", str(run), "--model-name", name, "--port", port, "--dtype", dtype, *arguments]
    with open(log, "w") as file:
        process = subprocess.Popen([str(word) for word in command], stderr=file, env={**os.environ, **(environment or {})})
    for _ in range(1200):
        assert process.poll() is None, "the server ended:\n" + pathlib.Path(log).read_text()
        text = pathlib.Path(log).read_text()
        if " ready: " in text:
            return process, text.split("listening on ")[1].split()[0]
        time.sleep(0.1)
    process.kill()
    raise AssertionError("the server is not ready:\n" + pathlib.Path(log).read_text())


def stop(process, log):
    """It must end well at SIGTERM."""
    process.terminate()
    try:
        code = process.wait(timeout=60)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    assert code == 0, f"exit code {code}:\n" + pathlib.Path(log).read_text()[-3000:]


@contextlib.contextmanager
def running(nanochat, run=None, arguments=(), dtype="float32", environment=None):
    """Yields the URL."""
    with tempfile.TemporaryDirectory() as folder:
        log = pathlib.Path(folder) / "serve.log"
        process, url = start(nanochat, run or small_run(nanochat, folder), log, arguments, environment, dtype=dtype)
        try:
            yield url
        except BaseException:
            process.kill()
            process.wait()
            raise
        stop(process, log)
