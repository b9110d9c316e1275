"""Load and faults on a server of a model with 3 million parameters: python serving_load.py NANOCHAT [--seconds 60] [--no-timing] [--run RUN]

10 chats at a time, each as it is alone and its tokens at most twice as far apart; 200 idle streams beside /health; clients that leave
while they wait, in their prompt and in their answer; bodies that are too large, too deep, ambiguous or no text. Every part is a check.
--no-timing, for sanitizers and busy machines: no bound on what takes how long, but for what would take for ever."""
import argparse
import contextlib
import json
import pathlib
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.parse

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent / "contract"))
import server  # noqa: E402

CONTEXT = 2048
CHATS = 10
IDLE = 200
TOKENS = 64
HEALTH_SECONDS = 0.05
ATTEMPTS = 3  # other programs of the machine get in the way of some


def request_bytes(path, body, headers=()):
    head = [f"POST {path} HTTP/1.1", "Host: x", "Content-Type: application/json", *headers]
    if not any(line.lower().startswith(("content-length", "transfer-encoding")) for line in head):
        head.append(f"Content-Length: {len(body)}")
    return ("\r\n".join(head) + "\r\n\r\n").encode() + body


def connect(url):
    parts = urllib.parse.urlsplit(url)
    client = socket.create_connection((parts.hostname, parts.port), timeout=120)
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return client


def exchange(client, data):
    """Status and body of the answer to what is sent, of Content-Length bytes. The server may close before it has read it all."""
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        client.sendall(data)
    answer = b""
    with contextlib.suppress(ConnectionResetError):
        while b"\r\n\r\n" not in answer:
            piece = client.recv(65536)
            if not piece:
                break
            answer += piece
        head, _, body = answer.partition(b"\r\n\r\n")
        length = next((int(line.split(b":")[1]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length")), 0)
        while len(body) < length:
            body += client.recv(65536)
        return int(head.split()[1]), body
    return 0, answer


# ------------------------------------------------------------------------------------------------------------------- chats


def chat_request(number):
    """Even chats are greedy, odd ones drawn from a seed."""
    body = {"messages": [{"role": "user", "content": f"Tell story number {number}, please."}], "max_tokens": TOKENS, "stream": True,
            "temperature": number % 2, "seed": number, "ignore_eos": True, "stream_options": {"include_usage": True}}
    return request_bytes("/v1/chat/completions", json.dumps(body).encode())


def text_of(answer):
    """What a stream says, all of it."""
    assert answer.startswith("HTTP/1.1 200 "), answer[:300]
    events = [line[6:] for line in answer.splitlines() if line.startswith("data: ")]
    assert events[-1] == "[DONE]", events[-1]
    chunks = [json.loads(event) for event in events[:-1]]
    assert chunks[-1]["usage"]["completion_tokens"] == TOKENS, chunks[-1]
    return "".join(choice["delta"].get("content") or "" for chunk in chunks for choice in chunk["choices"])


class Client:
    """chat_client, which uses little of the processor, because it shares the cores of the server."""

    def __init__(self, program, url, folder):
        self.command = [program, str(urllib.parse.urlsplit(url).port)]
        self.files = []
        for number in range(CHATS):
            self.files.append(pathlib.Path(folder) / f"chat-{number}")
            self.files[-1].write_bytes(chat_request(number))

    def chats(self, numbers, seconds):
        """Number, milliseconds between tokens and text of each answer to chats that go on at the same time."""
        output = subprocess.run([*self.command, str(seconds), *(self.files[number] for number in numbers)], check=True,
                                stdout=subprocess.PIPE, text=True).stdout
        answers = []
        for line in output.splitlines():
            index, microseconds, answer = line.split(" ", 2)
            answers.append((numbers[int(index)], float(microseconds) / 1e3 / (TOKENS - 1), text_of(json.loads(answer))))
        return answers


def chats(client, url, seconds, timing):
    """None wrong, none lost: what is answered in company is what was answered alone, to every request."""
    alone, gaps_alone = {}, []
    for number in range(CHATS):
        first, *others = client.chats([number], 0.1)
        alone[number] = first[2]
        assert all(text == first[2] for _, _, text in others), number
        gaps_alone += [gap for _, gap, _ in others]
    assert len(set(alone.values())) > 1, "all answers are alike: they could be mixed up unseen"
    idle = lambda now: now["running"] == 0  # the last answer is out a moment before its step ends
    before = server.wait_for(url, idle, "chats go on")
    answers = client.chats(list(range(CHATS)), seconds)
    for number, _, text in answers:
        assert text == alone[number], f"chat {number} differs in company:\n{text!r}\n{alone[number]!r}"
    assert {number for number, _, _ in answers} == set(range(CHATS))
    after = server.wait_for(url, idle, "chats go on")
    assert after["requests_finished"] - before["requests_finished"] == len(answers), (before, after)
    assert after["requests_failed"] == after["requests_refused"] == 0, after
    among = statistics.median(gap for _, gap, _ in answers)
    ratio = among / statistics.median(gaps_alone or [among])
    print(f"{len(answers)} chats, {CHATS} at a time, in {seconds:g} s: none wrong or lost; between tokens "
          f"{statistics.median(gaps_alone or [among]):.3f} ms alone, {among:.3f} ms with {CHATS - 1} others: {ratio:.2f}x")
    assert ratio <= 2 or not timing, ratio


# ------------------------------------------------------------------------------------------------------------------ faults


def served(url):
    """The next request is served."""
    status, body = exchange(connect(url), request_bytes("/v1/completions", b'{"prompt": "a", "max_tokens": 2, "ignore_eos": true}'))
    assert status == 200 and json.loads(body)["usage"]["completion_tokens"] == 2, (status, body)


def faults(url):
    def refused(what, data, status, message):
        found, body = exchange(connect(url), data)
        assert found == status and message in json.loads(body)["error"]["message"], (what, found, body)
        served(url)

    path = "/v1/chat/completions"
    deep = b'{"messages": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    refused("JSON nested 100,000 deep", request_bytes(path, deep), 400, "nested 100001 levels deep")
    refused("invalid UTF-8", request_bytes(path, b'{"messages": [{"role": "user", "content": "\xff\xfe"}]}'), 400, "found text that is not UTF-8")
    refused("no JSON", request_bytes(path, b'{"messages": ['), 400, "expected valid JSON")
    refused("a wrong type", request_bytes(path, b'{"messages": "Hi"}'), 400, "messages: found a string, expected an array")
    both = request_bytes(path, b"0\r\n\r\n", ["Content-Length: 5", "Transfer-Encoding: chunked"])
    refused("Content-Length and Transfer-Encoding", both, 400, "Content-Length and Transfer-Encoding")
    # A client that sends 100 MB without listening may find the connection reset instead of the answer; one that asks first does not.
    status, _ = exchange(connect(url), request_bytes(path, b" " * 100_000_000))
    assert status in (0, 413), status
    served(url)
    refused("100 MB", request_bytes(path, b"", ["Content-Length: 100000000", "Expect: 100-continue"]), 413, "body: found more than")
    chat = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1}
    many = json.dumps({**chat, "stop": [f"stop {i}" for i in range(100_000)]}).encode()
    refused("100,000 stop strings", request_bytes(path, many), 400, "stop: found 100000 strings, expected at most 16")
    twice = b'{"max_tokens": "x", "prompt": "a", "max_tokens": 2, "ignore_eos": true}'  # the last one counts, as in Python's json
    status, body = exchange(connect(url), request_bytes("/v1/completions", twice))
    assert status == 200 and json.loads(body)["usage"]["completion_tokens"] == 2, (status, body)
    # The same for a million headers as for 100 MB.
    status, _ = exchange(connect(url), b"GET /health HTTP/1.1\r\nHost: x\r\n" + b"a: b\r\n" * 1_000_000 + b"\r\n")
    assert status in (0, 431), status
    served(url)
    refused("36 kB of headers", b"GET /health HTTP/1.1\r\nHost: x\r\n" + b"a: b\r\n" * 6_000 + b"\r\n", 431, "headers: found more than 32768 bytes")
    print("faults: refused as they should be, and the next request served")


def whole_answer(client, data):
    """All bytes until the server closes."""
    client.settimeout(30)
    answer = b""
    with contextlib.suppress(BrokenPipeError, ConnectionResetError, socket.timeout):
        client.sendall(data)
    with contextlib.suppress(ConnectionResetError, socket.timeout):
        while piece := client.recv(65536):
            answer += piece
    client.close()
    return answer


def smuggling(url):
    """What two servers in a row could read differently: one answer, an error, and no second request."""
    hidden = b"GET /version HTTP/1.1\r\nHost: hidden\r\n\r\n"
    chunked = b"0\r\n\r\n" + hidden
    for what, lines, body in (
        ("both lengths", ["Content-Length: 5", "Transfer-Encoding: chunked"], chunked),
        ("both lengths, the other way round", ["Transfer-Encoding: chunked", "Content-Length: 5"], chunked),
        ("a space before the colon", ["Transfer-Encoding : chunked", "Content-Length: 5"], chunked),
        ("a folded line", ["Content-Length: 5", "X: y\r\n Transfer-Encoding: chunked", "Transfer-Encoding:\r\n chunked"], chunked),
        ("an unknown coding", ["Transfer-Encoding: xchunked"], chunked),
        ("two codings", ["Transfer-Encoding: gzip, chunked"], chunked),
        ("two lengths", ["Content-Length: 5", "Content-Length: 6"], b"abcde" + hidden),
        ("a list of lengths", ["Content-Length: 5, 6"], b"abcde" + hidden),
        ("a length with a sign", ["Content-Length: +5"], b"abcde" + hidden),
        ("a hexadecimal length", ["Content-Length: 0x5"], b"abcde" + hidden),
        ("a length beyond 64 bits", ["Content-Length: 99999999999999999999999"], b"abcde" + hidden),
        ("a chunk beyond 64 bits", ["Transfer-Encoding: chunked"], b"fffffffffffffffff\r\nabc" + hidden),
        ("a negative chunk", ["Transfer-Encoding: chunked"], b"-1\r\nabc" + hidden),
        ("a chunk with a prefix", ["Transfer-Encoding: chunked"], b"0x5\r\nabcde\r\n0\r\n\r\n" + hidden),
        ("a zero byte in a header", ["Content-Length: 5", "X: a\0b"], b"abcde" + hidden),
        ("two hosts", ["Content-Length: 0", "Host: other"], hidden),
    ):
        answer = whole_answer(connect(url), request_bytes("/v1/completions", body, lines))
        assert answer.count(b"HTTP/1.1 ") == 1 and int(answer.split()[1]) in (400, 413, 501), (what, answer)
    for what, data in (("lines that end with LF", b"GET /health HTTP/1.1\nHost: x\n\n"), ("no version", b"GET /health\r\n\r\n"),
                       ("HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), ("no host", b"GET /health HTTP/1.1\r\n\r\n")):
        answer = whole_answer(connect(url), data)
        assert answer.count(b"HTTP/1.1 ") == 1 and int(answer.split()[1]) in (400, 505), (what, answer)
    served(url)
    for path, statuses in (("/../health", (404,)), ("/v1/../../etc/passwd", (404,)), ("/%2e%2e/%2e%2e/etc/passwd", (404,)), ("//health", (404,)),
                           ("/health%00", (400,)), ("/health%0d%0aX-Other:%20y", (404,)), ("/v1/models/%2e%2e%2fhealth", (404,)), ("/%zz", (400,)),
                           ("/page.js/../../serving", (404,)), ("health", (400,)), ("http://other/health", (200,)), ("/" + "a" * 20_000, (404,)),
                           ("/health?a=%0d%0aX-Other:%20y", (200,)), ("/HEALTH", (404,)), ("/health;a=b", (404,))):
        answer = whole_answer(connect(url), f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        head = answer.split(b"\r\n\r\n")[0].lower()
        assert int(answer.split()[1]) in statuses and b"\r\nx-other" not in head and b"root:" not in answer, (path, answer)
    print("smuggling and tricks with paths: one answer each, an error, and the next request served")


def slow_clients(url, limit):
    """Half a request, and a byte from time to time: each is ended by its limit of time, and the others are served meanwhile."""
    data = request_bytes("/v1/completions", b'{"prompt": "a", "max_tokens": 2, "ignore_eos": true}')
    for half in range(1, len(data), 7):
        with connect(url) as client:
            client.sendall(data[:half])
    served(url)
    silent, slow = [connect(url) for _ in range(200)], [connect(url) for _ in range(50)]
    for client in silent:
        client.sendall(data[:60])  # within the headers
    begin, sent = time.monotonic(), 0
    while time.monotonic() - begin < 9:
        for client in slow:
            client.sendall(b"POST /v1/completions HTTP/1.1\r\nX-Slow: y"[sent:sent + 1] or b"y")
        sent += 1
        served(url)
        time.sleep(0.25)
    for client in silent + slow:
        with contextlib.closing(client):
            answer = client.recv(4096)
        assert answer.startswith(b"HTTP/1.1 408 ") and time.monotonic() - begin < limit, (answer, time.monotonic() - begin)
    served(url)
    print(f"slow clients: {len(silent)} half requests and {len(slow)} of a byte at a time got status 408 after {time.monotonic() - begin:.0f} s")


def killed(nanochat, run, folder):
    """kill -9 while streams run; the next server is there on the same port."""
    log = pathlib.Path(folder) / "killed.log"
    process, url = server.start(nanochat, run, log)
    clients = [start(url, 3, CONTEXT) for _ in range(20)]
    for client in clients:
        client.recv(1)
    process.kill()
    process.wait()
    for client in clients:  # the stream is cut, and not ended
        answer = b"x"
        with contextlib.suppress(ConnectionResetError):
            while piece := client.recv(65536):
                answer += piece
        assert not answer.endswith(b"0\r\n\r\n"), answer[-100:]
    begin = time.monotonic()
    process, again = server.start(nanochat, run, log, port=urllib.parse.urlsplit(url).port)
    assert again == url
    served(url)
    print(f"kill -9 with 20 streams: the next server answers on the same port after {time.monotonic() - begin:.1f} s")
    server.stop(process, log)


# ----------------------------------------------------------------------------------------------------------- clients that leave


def start(url, words, max_tokens):
    """A stream that goes on until it is cut."""
    client = connect(url)
    body = {"prompt": "word " * words, "max_tokens": max_tokens, "ignore_eos": True, "stream": True}
    client.sendall(request_bytes("/v1/completions", json.dumps(body).encode()))
    return client


def leave(url, phase, words, reached, limit):
    """A client leaves in a phase, and its blocks are free once its request counts as cancelled, which the engine does at a step."""
    free = server.stats(url)["kv_blocks_used"]
    cancelled = server.stats(url)["requests_cancelled"]
    client = start(url, words, CONTEXT)
    if phase == "decode":
        client.recv(1)
    before = server.wait_for(url, reached, f"{phase} was not reached")
    client.setblocking(False)
    if phase == "prefill":
        with contextlib.suppress(BlockingIOError):
            raise AssertionError(f"the prompt was done too soon: {client.recv(100)}")
    client.close()
    begin = time.monotonic()
    after = server.wait_for(url, lambda now: now["requests_cancelled"] > cancelled, f"{phase}: the request goes on", limit)
    assert after["kv_blocks_used"] <= free and after["queue"] == 0, (phase, free, after)
    print(f"a client that left in {phase}: {before['kv_blocks_used'] - after['kv_blocks_used']} blocks free again after "
          f"{1e3 * (time.monotonic() - begin):.0f} ms and {after['steps'] - before['steps']} steps")


def leaving(url, limit):
    """For a server that runs one request at a time, in small steps, without prefix cache."""
    leave(url, "prefill", 1500, lambda now: now["running"] == 1 and now["kv_blocks_used"] > 0, limit)
    leave(url, "decode", 3, lambda now: now["running"] == 1, limit)
    busy = start(url, 3, CONTEXT)
    server.wait_for(url, lambda now: now["running"] == 1, "the first request does not run")
    client = start(url, 3, CONTEXT)
    server.wait_for(url, lambda now: now["queue"] == 1, "the second request does not wait")
    cancelled = server.stats(url)["requests_cancelled"]
    client.close()
    after = server.wait_for(url, lambda now: now["requests_cancelled"] > cancelled, "queue: the request goes on waiting", limit)
    assert after["queue"] == 0 and after["running"] == 1, after
    busy.close()
    after = server.wait_for(url, lambda now: now["running"] == 0, "the first request goes on", limit)
    assert after["kv_blocks_used"] == 0 and after["requests_finished"] == 0, after
    print("a client that left in the queue: gone from it, and the one before it was not disturbed")


# ------------------------------------------------------------------------------------------------------------- idle streams


def slowest_health(url, count=100):
    times = []
    with connect(url) as client:
        for _ in range(count):
            begin = time.perf_counter()
            client.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
            assert client.recv(4096).startswith(b"HTTP/1.1 200 ")
            times.append(time.perf_counter() - begin)
            time.sleep(0.005)
    return max(times)


def idle_streams(url, timing):
    """Behind one long answer after the other, all wait; a keep-alive makes each a stream. For a server that runs one at a time."""
    clients = [start(url, 3, CONTEXT) for _ in range(IDLE + 1)]
    for client in clients[1:]:
        head = client.recv(4096)
        assert head.startswith(b"HTTP/1.1 200 ") and b"text/event-stream" in head, head
    assert server.stats(url)["queue"] >= IDLE // 2, server.stats(url)
    worst = min(slowest_health(url) for _ in range(ATTEMPTS))
    queue = server.stats(url)["queue"]
    print(f"/health beside {queue} idle streams and one that is busy: at most {1e3 * worst:.1f} ms")
    assert worst < HEALTH_SECONDS or not timing, worst
    for client in clients:
        client.close()
    server.wait_for(url, lambda now: now["running"] == now["queue"] == 0, "streams outlive their clients")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("nanochat")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--no-timing", action="store_true")
    parser.add_argument("--run", help="made when not given: depth 4, width 256")
    parser.add_argument("--trainer", help="the program that makes it, when not NANOCHAT: training under a sanitizer takes long")
    parser.add_argument("--client", help="the program chat_client; found beside NANOCHAT in a build folder")
    args = parser.parse_args()
    args.client = args.client or pathlib.Path(args.nanochat).resolve().parent.parent / "tests" / "chat_client"
    limit = 60.0 if args.no_timing else 0.5
    with tempfile.TemporaryDirectory() as folder:
        run = args.run or server.small_run(args.trainer or args.nanochat, folder, depth=4, iterations=4, vocab_size=1024, sequence_len=CONTEXT)
        with server.running(args.nanochat, run, dtype="auto") as url:  # as `nanochat serve` would
            faults(url)
            smuggling(url)
            slow_clients(url, 60 if args.no_timing else 20)
            chats(Client(args.client, url, folder), url, args.seconds, not args.no_timing)
        one_at_a_time = ["--max-running", "1", "--max-queued", "1000", "--max-batch-tokens", "16", "--no-prefix-cache"]
        with server.running(args.nanochat, run, one_at_a_time) as url:
            leaving(url, limit)
            idle_streams(url, not args.no_timing)
        killed(args.nanochat, run, folder)
    print("load passed")


if __name__ == "__main__":
    main()
