"""Load on the server: python serving_load.py NANOCHAT [SECONDS]. 10 chats at a time on a model of 3 million parameters, 200 idle
streams, clients that leave. Ends by itself."""
import concurrent.futures
import http.client
import json
import pathlib
import socket
import statistics
import sys
import tempfile
import threading
import time
import urllib.parse

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent / "contract"))
import server  # noqa: E402


def connect(url):
    return http.client.HTTPConnection(urllib.parse.urlsplit(url).netloc, timeout=120)


def chat(url, text, max_tokens, seed):
    """The text and the times between its deltas."""
    connection = connect(url)
    connection.request("POST", "/v1/chat/completions", json.dumps({
        "messages": [{"role": "user", "content": text}], "max_tokens": max_tokens, "seed": seed, "temperature": 1, "stream": True,
        "ignore_eos": True, "stream_options": {"include_usage": True}}), {"Content-Type": "application/json"})
    response = connection.getresponse()
    assert response.status == 200, (response.status, response.read())
    answer, times, usage, done = "", [], None, False
    for line in response:
        if not line.startswith(b"data: "):
            continue
        if line.strip() == b"data: [DONE]":
            done = True
            continue
        chunk = json.loads(line[6:])
        usage = chunk.get("usage") or usage
        for choice in chunk["choices"]:
            if choice["delta"].get("content"):
                answer += choice["delta"]["content"]
                times.append(time.perf_counter())
    connection.close()
    assert done and usage["completion_tokens"] == max_tokens, usage
    return answer, [b - a for a, b in zip(times, times[1:])]


def chats(url, seconds):
    expected = {seed: chat(url, f"Story number {seed}", 64, seed)[0] for seed in range(10)}
    alone = statistics.median(gap for seed in range(3) for gap in chat(url, f"Story number {seed}", 64, seed)[1])
    end = time.monotonic() + seconds
    gaps, count = [], 0

    def worker(seed):
        nonlocal count
        while time.monotonic() < end:
            answer, between = chat(url, f"Story number {seed}", 64, seed)
            assert answer == expected[seed], "an answer differs in company"
            gaps.extend(between)
            count += 1

    with concurrent.futures.ThreadPoolExecutor(10) as pool:
        for future in [pool.submit(worker, seed) for seed in range(10)]:
            future.result()
    together = statistics.median(gaps)
    print(f"{count} chats in {seconds} s, none wrong or lost; between tokens {alone * 1e3:.2f} ms alone, {together * 1e3:.2f} ms with 9 others")


def leave(url, text, wait, max_tokens=400, before_first=False):
    """A client that goes away after `wait` seconds, or once the first token is there."""
    parts = urllib.parse.urlsplit(url)
    body = json.dumps({"prompt": text, "max_tokens": max_tokens, "ignore_eos": True, "stream": True}).encode()
    client = socket.create_connection((parts.hostname, parts.port))
    client.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
    if not before_first:
        client.recv(1)
    time.sleep(wait)
    client.close()


def leaving(url):
    busy = threading.Thread(target=lambda: [leave(url, "word", 0.2) for _ in range(3)])
    busy.start()
    for _ in range(5):
        leave(url, "many words " * 100, 0, before_first=True)      # queued or in prefill
        leave(url, "many words " * 100, 0.02, before_first=True)
        leave(url, "few", 0)                                         # in decode
    busy.join()
    begin = time.monotonic()
    while (now := server.stats(url))["running"] or now["queue"]:
        assert time.monotonic() - begin < 2, now
        time.sleep(0.01)
    assert now["kv_blocks_used"] - now["kv_blocks_cached"] <= 0 or now["kv_blocks_used"] == 0, now
    print(f"clients that left: blocks free again after {(time.monotonic() - begin) * 1e3:.0f} ms")


def idle_streams(url, count=200):
    """Streams that have begun and whose clients do not read; /health meanwhile."""
    parts = urllib.parse.urlsplit(url)
    clients = []
    body = json.dumps({"prompt": "a", "max_tokens": 4, "ignore_eos": True, "stream": True}).encode()
    for _ in range(count):
        client = socket.create_connection((parts.hostname, parts.port))
        client.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        clients.append(client)
    times = []
    connection = connect(url)
    for _ in range(100):
        begin = time.perf_counter()
        connection.request("GET", "/health")
        assert connection.getresponse().read()
        times.append(time.perf_counter() - begin)
        time.sleep(0.01)
    for client in clients:
        client.close()
    worst = max(times)
    print(f"/health beside {count} streams: median {statistics.median(times) * 1e3:.1f} ms, worst {worst * 1e3:.1f} ms")
    assert worst < 0.05, worst


if __name__ == "__main__":
    seconds = float(sys.argv[2]) if len(sys.argv) > 2 else 60
    with tempfile.TemporaryDirectory() as folder:
        # depth 4, width 256: 3.1 million parameters in its layers
        run = server.small_run(sys.argv[1], folder, depth=4, iterations=4, vocab_size=1024)
        with server.running(sys.argv[1], run, ["--max-queued", "1000"]) as url:
            idle_streams(url)
            leaving(url)
            chats(url, seconds)
