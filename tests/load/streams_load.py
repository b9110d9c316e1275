"""Ten thousand streams at a time, and minutes of mixed load: python streams_load.py NANOCHAT [--streams 10000] [--minutes 10] [--run RUN]

Streams: none may be wrong or lost, each may take 16 kB of the server's memory, and /health must answer within 50 ms (99 of 100 times)
while all of them are open. The clients run on the cores of the server, so they are programs in C++ that use little of the processor
(stream_client, chat_client).

Mixed load: chats with two models, several answers to one prompt, long prompts, answers under a schema, clients that leave, wrong requests and sessions; the memory of the
server must not grow. --no-timing: no bound on what takes how long."""
import argparse
import json
import pathlib
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent / "contract"))
import server  # noqa: E402
from serving_load import CONTEXT, connect, exchange, request_bytes, start, text_of  # noqa: E402

CHATS = 10
TOKENS = 32
HEALTH_SECONDS = 0.05
BYTES_A_STREAM = 16_000
GROWTH = 0.02  # of the resident memory, from the second sixth of the time to the last


def resident(process):
    """Bytes of memory."""
    for line in pathlib.Path(f"/proc/{process.pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no VmRSS")


class Health:
    """The times of /health, asked 20 times a second on one connection."""

    def __init__(self, url):
        self.url, self.times, self.ended = url, [], threading.Event()
        self.thread = threading.Thread(target=self.ask)
        self.thread.start()

    def ask(self):
        with connect(self.url) as client:
            while not self.ended.wait(0.05):
                begin = time.perf_counter()
                client.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
                assert client.recv(4096).startswith(b"HTTP/1.1 200 ")
                self.times.append(time.perf_counter() - begin)

    def end(self):
        """Median, 99th percentile and maximum in seconds."""
        self.ended.set()
        self.thread.join()
        times = sorted(self.times)
        return statistics.median(times), times[int(0.99 * len(times))], times[-1]


def chat_request(number, **extra):
    """Even chats are greedy, odd ones drawn from a seed."""
    body = {"messages": [{"role": "user", "content": f"Tell story number {number}, please."}], "max_tokens": TOKENS, "stream": True,
            "temperature": number % 2, "seed": number, "ignore_eos": True, **extra}
    return request_bytes("/v1/chat/completions", json.dumps(body).encode(), ["Connection: close"])


def streams(nanochat, client, run, folder, count, timing):
    files = []
    for number in range(CHATS):
        files.append(folder / f"stream-{number}")
        files[-1].write_bytes(chat_request(number))
    log = folder / "streams.log"
    process, url = server.start(nanochat, run, log, ["--max-connections", count + 100, "--max-queued", count], dtype="auto")
    command = [client, str(urllib.parse.urlsplit(url).port)]

    def answers(text):
        rows = [line.rstrip("\n").split(" ", 2) for line in text]
        return [(int(number), done == "1", said) for number, done, said in rows]

    try:
        alone = {}
        for number in range(CHATS):
            (_, done, said), = answers(subprocess.run([*command, "1", files[number]], check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()[2:])
            assert done and said, (number, said)
            alone[number] = said
        assert len(set(alone.values())) > 1, "all answers are alike: they could be mixed up unseen"
        subprocess.run([*command, "200", *files], check=True, stdout=subprocess.DEVNULL)  # what is allocated once
        before = resident(process)
        health, begin = Health(url), time.monotonic()
        with subprocess.Popen([*command, str(count), *files], stdout=subprocess.PIPE, text=True) as load:
            assert load.stdout.readline() == "open\n"
            opened, peak, now = time.monotonic() - begin, before, 0
            ended = threading.Event()

            def watch():
                nonlocal peak, now
                while not ended.wait(0.5):
                    peak = max(peak, resident(process))
                    stats = server.stats(url)
                    now = max(now, stats["queue"] + stats["running"])

            watcher = threading.Thread(target=watch)
            watcher.start()
            text = load.stdout.readlines()
            ended.set()
            watcher.join()
        seconds = time.monotonic() - begin
        assert text[0] == "begun\n" and load.returncode == 0, text[:1]
        got = answers(text[1:])
        wrong = [(number, said) for number, done, said in got if done and said != alone[number]]
        lost = [number for number, done, _ in got if not done]
        assert len(got) == count and not wrong and not lost, (len(got), len(wrong), len(lost), wrong[:2])
        each = (peak - before) / count
        median, high, worst = health.end()
        print(f"{count} streams of {TOKENS} tokens, one in twenty read a byte at a time, {now} open at once: none wrong or lost; opened in {opened:.1f} s, "
              f"all answered after {seconds:.0f} s; {each / 1e3:.1f} kB of memory a stream; /health: median {1e3 * median:.1f} ms, 99 % within "
              f"{1e3 * high:.1f} ms, at most {1e3 * worst:.1f} ms")
        assert not timing or (each < BYTES_A_STREAM and high < HEALTH_SECONDS), (each, high)
        assert server.wait_for(url, lambda stats: stats["running"] == stats["queue"] == 0, "streams go on")["requests_failed"] == 0
    except BaseException:
        process.kill()
        raise
    server.stop(process, log)


# -------------------------------------------------------------------------------------------------------------- mixed load


SCHEMA = {"type": "object", "properties": {"name": {"type": "string", "maxLength": 12}, "age": {"type": "integer", "minimum": 0, "maximum": 150},
                                           "tags": {"type": "array", "items": {"enum": ["a", "b", "c"]}, "maxItems": 3}}, "required": ["name", "age", "tags"]}


class Mixed:
    """Threads that ask until the end; each kind counts what it has done."""

    def __init__(self, url, client, folder):
        self.url, self.client, self.folder = url, client, folder
        self.counts, self.errors, self.ended = {}, [], threading.Event()
        self.kinds = (self.chats, self.several, self.long_prompts, self.constrained, self.leaving, self.wrong, self.sessions)

    def post(self, path, body):
        with connect(self.url) as client:
            status, answer = exchange(client, request_bytes(path, json.dumps(body).encode()))
        return status, json.loads(answer)

    def chats(self):
        """Of both models, four of each at a time."""
        files = []
        for number in range(8):
            files.append(self.folder / f"mixed-{number}")
            files[-1].write_bytes(chat_request(number, model=("large", "small")[number % 2], stream_options={"include_usage": True}, max_tokens=64))
        output = subprocess.run([self.client, str(urllib.parse.urlsplit(self.url).port), "10", *files], check=True, stdout=subprocess.PIPE, text=True).stdout
        for line in output.splitlines():
            number, _, answer = line.split(" ", 2)
            said = text_of(json.loads(answer))
            assert self.said.setdefault(int(number), said) == said, number
        return len(output.splitlines())

    said = {}

    def several(self):
        """Answers to one prompt."""
        status, answer = self.post("/v1/completions", {"prompt": "Once upon a time", "max_tokens": 16, "n": 3, "ignore_eos": True, "model": "large"})
        assert status == 200 and [choice["index"] for choice in answer["choices"]] == [0, 1, 2] and answer["usage"]["completion_tokens"] == 48, (status, answer)

    def long_prompts(self):
        prompt = f"{random.random()} " + "word " * 400
        status, answer = self.post("/v1/completions", {"prompt": prompt, "max_tokens": 8, "ignore_eos": True, "model": random.choice(("large", "small"))})
        assert status == 200 and answer["usage"]["prompt_tokens"] > 400, (status, answer)

    def constrained(self):
        status, answer = self.post("/v1/chat/completions", {"messages": [{"role": "user", "content": "Who?"}], "guided_json": SCHEMA, "max_tokens": 200})
        made = json.loads(answer["choices"][0]["message"]["content"]) if status == 200 else {}
        assert set(made) == {"name", "age", "tags"} and 0 <= made["age"] <= 150, (status, answer)

    def leaving(self):
        client = start(self.url, random.choice((3, 300)), CONTEXT)
        if random.random() < 0.5:
            client.recv(1)
        client.close()
        time.sleep(0.05)

    def wrong(self):
        body = random.choice(({"messages": "x"}, {"messages": []}, {"messages": [{"role": "user", "content": "Hi"}], "model": "none"},
                              {"messages": [{"role": "user", "content": "word " * 5000}]}, {"messages": [{"role": "user", "content": "Hi"}], "stop": ["x"] * 100}))
        status, answer = self.post("/v1/chat/completions", body)
        assert status in (400, 404) and answer["error"]["message"], (status, answer)
        time.sleep(0.02)

    def sessions(self):
        status, answer = self.post("/v1/chat/completions", {"messages": [{"role": "user", "content": "Hi"}], "session_id": f"s{random.randrange(10**6)}",
                                                            "max_tokens": 8, "nanochat_tools": False})
        assert status == 200, answer

    def go_on(self, kind):
        try:
            while not self.ended.is_set():
                done = kind()
                self.counts[kind.__name__] = self.counts.get(kind.__name__, 0) + (1 if done is None else done)
        except BaseException as error:  # noqa: BLE001: told at the end
            self.errors.append((kind.__name__, error))
            self.ended.set()

    def run(self, process, seconds):
        """Resident memory, about every half second."""
        threads = [threading.Thread(target=self.go_on, args=(kind,)) for kind in self.kinds]
        for thread in threads:
            thread.start()
        begin, sizes = time.monotonic(), []
        while time.monotonic() - begin < seconds and not self.ended.wait(0.5):
            sizes.append(resident(process))
        self.ended.set()
        for thread in threads:
            thread.join()
        return sizes


def mixed(nanochat, client, run, folder, seconds, timing):
    small = server.small_run(nanochat, folder / "small", sequence_len=CONTEXT)
    log = folder / "mixed.log"
    process, url = server.start(nanochat, run, log, [small, "--max-running", "32", "--max-sessions", "100",
                                                     "--kv-blocks", "2000"], name="large,small", dtype="auto")
    try:
        health, load = Health(url), Mixed(url, client, folder)
        sizes = load.run(process, seconds)
        median, high, worst = health.end()
        if load.errors:
            raise load.errors[0][1]
        sixth = max(1, len(sizes) // 6)  # the first sixth fills caches, sessions and arenas
        early, late = statistics.median(sizes[sixth:2 * sixth]), statistics.median(sizes[-sixth:])
        stats = server.wait_for(url, lambda now: now["running"] == now["queue"] == 0, "requests go on")
        counts = ", ".join(f"{kind.replace('_', ' ')} {count}" for kind, count in sorted(load.counts.items()))
        print(f"mixed load for {seconds:.0f} s ({counts}): none wrong or lost; {stats['requests_cancelled']} cancelled; resident memory "
              f"{early / 1e6:.1f} MB in the second sixth, {late / 1e6:.1f} MB in the last; /health: median {1e3 * median:.1f} ms, 99 % within {1e3 * high:.1f} ms, "
              f"at most {1e3 * worst:.1f} ms")
        print("resident memory in MB, medians of twelfths: " + " ".join(f"{statistics.median(sizes[i * len(sizes) // 12:(i + 1) * len(sizes) // 12]) / 1e6:.1f}"
                                                                    for i in range(12)))
        assert late < (1 + GROWTH) * early or seconds < 120, (early, late)
        assert stats["requests_failed"] == 0, stats
    except BaseException:
        process.kill()
        raise
    server.stop(process, log)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("nanochat")
    parser.add_argument("--streams", type=int, default=10000)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--no-timing", action="store_true")
    parser.add_argument("--run", help="made when not given: depth 4, width 256")
    args = parser.parse_args()
    programs = pathlib.Path(args.nanochat).resolve().parent.parent / "tests"
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        run = args.run or server.small_run(args.nanochat, folder / "made", depth=4, iterations=4, vocab_size=1024, sequence_len=CONTEXT)
        if args.streams:
            streams(args.nanochat, programs / "stream_client", run, folder, args.streams, not args.no_timing)
        if args.minutes:
            mixed(args.nanochat, programs / "chat_client", run, folder, 60 * args.minutes, not args.no_timing)
    print("streams passed")


if __name__ == "__main__":
    main()
