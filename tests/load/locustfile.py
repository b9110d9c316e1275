"""Load by locust: python locustfile.py NANOCHAT [--users 10] [--seconds 60] [--run RUN], with the packages of scripts/requirements/locust.txt

Makes a model of 3.7 million parameters unless one is given, serves it, and prints a table in Markdown. No request may fail. Against a
server of your own: locust -f tests/load/locustfile.py --host URL."""
import argparse
import csv
import pathlib
import random
import subprocess
import sys
import tempfile
import time

CONTEXT = 2048
TOKENS = 64


if __name__ != "__main__":  # locust reads this file
    from locust import HttpUser, between, events, task

    class Chatter(HttpUser):
        """Reads an answer, and asks the next question soon."""
        wait_time = between(0.0, 0.2)

        def ask(self, name, **extra):
            body = {"messages": [{"role": "user", "content": f"Tell story number {random.randrange(10**6)}, please."}],
                    "max_tokens": TOKENS, "ignore_eos": True, **extra}
            return self.client.post("/v1/chat/completions", json=body, name=name, stream=body.get("stream", False), catch_response=True)

        @task(1)
        def whole(self):
            with self.ask("whole answer") as response:
                if response.status_code != 200 or response.json()["usage"]["completion_tokens"] != TOKENS:
                    response.failure(f"status {response.status_code}: {response.text[:300]}")

        @task(4)
        def stream(self):
            begin, times, end = time.perf_counter(), [], b""
            with self.ask("streamed answer", stream=True) as response:
                if response.status_code != 200:
                    response.failure(f"status {response.status_code}: {response.text[:300]}")
                    return
                for data in response.iter_content(chunk_size=None):
                    if b'"delta":{"content"' in data:  # nothing is streamed of a calculation, which untrained models begin at times
                        times.append(time.perf_counter())
                    end = (end + data)[-300:]
                response.request_meta["response_time"] = 1e3 * (time.perf_counter() - begin)
                if not end.endswith(b"data: [DONE]\n\n") or b'"error"' in end:
                    response.failure(f"the stream ended with {end!r}")
                    return
            for first in times[:1]:
                measured("time to first token", first - begin)
            for earlier, later in zip(times, times[1:]):
                measured("time between tokens", later - earlier)

    def measured(name, seconds):
        events.request.fire(request_type="SSE", name=name, response_time=1e3 * seconds, response_length=0, exception=None, context={})


def table(path):
    """The rows of locust's statistics, and the number of requests that failed."""
    rows = [row for row in csv.DictReader(path.open()) if row["Name"] != "Aggregated"]
    columns = {"count": "Request Count", "mean": "Average Response Time", "50 %": "50%", "95 %": "95%", "99 %": "99%", "max": "Max Response Time"}
    print("| in ms | " + " | ".join(columns) + " |\n|" + "---|" * (1 + len(columns)))
    for row in rows:
        values = [float(row[column]) for column in columns.values()]
        print(f"| {row['Name']} | {values[0]:.0f} | " + " | ".join(f"{value:.1f}" for value in values[1:]) + " |")
    streams = next(float(row["Requests/s"]) for row in rows if row["Name"] == "streamed answer")
    whole = next(float(row["Requests/s"]) for row in rows if row["Name"] == "whole answer")
    print(f"{streams + whole:.1f} answers of {TOKENS} tokens a second")
    return sum(int(row["Failure Count"]) for row in rows)


def main():
    sys.path.insert(0, str(pathlib.Path(__file__).parent.parent / "contract"))
    import server

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("nanochat")
    parser.add_argument("--users", type=int, default=10)
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--run", help="made when not given: depth 4, width 256")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        run = args.run or server.small_run(args.nanochat, folder / "made", depth=4, iterations=4, vocab_size=1024, sequence_len=CONTEXT)
        with server.running(args.nanochat, run, dtype="auto") as url:
            subprocess.run([sys.executable, "-m", "locust", "-f", __file__, "--headless", "--only-summary", "--loglevel", "WARNING", "--host", url,
                            "--users", str(args.users), "--spawn-rate", str(args.users), "--run-time", f"{args.seconds}s", "--stop-timeout", "60",
                            "--csv", folder / "locust", "--exit-code-on-error", "0"], check=True, stdout=subprocess.DEVNULL)
            failed = table(folder / "locust_stats.csv")
            if failed:
                raise AssertionError(f"{failed} requests failed:\n" + (folder / "locust_failures.csv").read_text())
            assert server.wait_for(url, lambda now: now["running"] == now["queue"] == 0, "requests go on")["requests_failed"] == 0
    print("locust passed")


if __name__ == "__main__":
    main()
