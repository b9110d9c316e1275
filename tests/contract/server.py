"""A server for the tests that speak to one: trains a tiny model once (or takes one) and runs `nanochat serve` on the loopback.

    with server.running(nanochat) as url: ...
"""
import contextlib
import json
import os
import pathlib
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


def get(url, path, headers=None):
    """Status and body."""
    try:
        with urllib.request.urlopen(urllib.request.Request(url + path, headers=headers or {}), timeout=30) as response:
            return response.status, response.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def stats(url):
    return json.loads(get(url, "/stats")[1])


@contextlib.contextmanager
def running(nanochat, run=None, arguments=()):
    """Yields the URL. The server must end well at SIGTERM."""
    with tempfile.TemporaryDirectory() as folder:
        run = run or small_run(nanochat, folder)
        log = open(pathlib.Path(folder) / "serve.log", "w+")
        server = subprocess.Popen([nanochat, "serve", str(run), "--model-name", "tiny", "--port", "0", "--dtype", "float32", *arguments],
                                  stderr=log)
        try:
            url = None
            for _ in range(600):
                assert server.poll() is None, "the server ended:\n" + pathlib.Path(log.name).read_text()
                text = pathlib.Path(log.name).read_text()
                if "listening on " in text:
                    url = text.split("listening on ")[1].split()[0]
                    if get(url, "/health")[0] == 200:
                        break
                time.sleep(0.1)
            yield url
        finally:
            server.terminate()
            try:
                code = server.wait(timeout=60)
            except subprocess.TimeoutExpired:
                server.kill()
                raise
        assert code == 0, f"exit code {code}:\n" + pathlib.Path(log.name).read_text()[-3000:]
