"""What `nanochat serve` promises beside the protocol, with the standard library alone: python serve_contract.py NANOCHAT [RUN]

TLS with a certificate of its own, keys from a file and from the environment, origins of pages, encodings of bodies, the calculator,
and an end that waits for what runs."""
import gzip
import http.client
import json
import os
import pathlib
import ssl
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
import warnings
import zlib

import server

TOKENS = 400
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def tls(nanochat, run, folder):
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2", "-subj",
                    "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", folder / "key.pem", "-out", folder / "cert.pem"],
                   check=True, stderr=subprocess.DEVNULL)
    process, url = server.start(nanochat, run, folder / "tls.log", ["--tls-cert", folder / "cert.pem", "--tls-key", folder / "key.pem"])
    try:
        assert url.startswith("https://"), url
        trusted = ssl.create_default_context(cafile=folder / "cert.pem")
        request = urllib.request.Request(url + "/v1/completions", b'{"prompt": "Once", "max_tokens": 8, "stream": true}',
                                         {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, context=trusted, timeout=60) as response:
            assert response.read().endswith(b"data: [DONE]\n\n")
        for context in (ssl.create_default_context(), None):  # nobody vouches for the certificate; no TLS at all
            try:
                urllib.request.urlopen(url if context else url.replace("https", "http") + "/health", context=context, timeout=10)
                raise AssertionError("served without a handshake that both sides accept")
            except (urllib.error.URLError, ConnectionError, http.client.HTTPException):
                pass
        old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        old.load_verify_locations(folder / "cert.pem")
        with warnings.catch_warnings(action="ignore"):  # the very thing that is tested
            old.minimum_version, old.maximum_version = ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1
        old.set_ciphers("ALL:@SECLEVEL=0")
        try:
            urllib.request.urlopen(url + "/health", context=old, timeout=10)
            raise AssertionError("TLS 1.1 was accepted")
        except urllib.error.URLError as error:
            assert "PROTOCOL_VERSION" in str(error), error
        with urllib.request.urlopen(url + "/health", context=trusted, timeout=10) as response:
            assert response.status == 200  # and the next is served
    finally:
        server.stop(process, folder / "tls.log")
    print("TLS: a handshake, a stream, and no other way in")


def refused_start(nanochat, run, arguments=(), environment=None):
    """What `nanochat serve` says when it does not begin."""
    result = subprocess.run([str(word) for word in (nanochat, "serve", run, "--port", "0", *arguments)], stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE, text=True, timeout=60, env={**os.environ, **(environment or {})})
    assert result.returncode == 2 and result.stderr.count("\n") == 1, (result.returncode, result.stderr)
    return result.stderr


def keys(nanochat, run, folder):
    (folder / "keys").write_bytes(b"\xef\xbb\xbf# my keys\r\nof-a-file \r\n\r\n\tanother\n")
    log = folder / "keys.log"
    process, url = server.start(nanochat, run, log, ["--api-key-file", folder / "keys"], {"NANOCHAT_API_KEY": "of-the-environment, second"})
    try:
        for key in ("of-a-file", "another", "of-the-environment", "second"):
            assert server.get(url, "/v1/models", {"Authorization": f"Bearer {key}"})[0] == 200, key
            assert server.get(url, "/v1/models", {"X-Api-Key": key})[0] == 200, key
        for key in ("", "of-a-fil", "# my keys", "#", "of-the-environment, second", "of-the-environment,"):
            assert server.get(url, "/v1/models", {"X-Api-Key": key})[0] == 401, key
        assert server.get(url, "/health")[0] == 200
    finally:
        server.stop(process, log)
    text = log.read_text()
    assert not any(key in text for key in ("of-a-file", "another", "of-the-environment")), "a key is in the log"
    assert "NANOCHAT_API_KEY: found no key" in refused_start(nanochat, run, environment={"NANOCHAT_API_KEY": " , "})
    (folder / "none").write_text("# nothing yet\n")
    assert "none: found no key" in refused_start(nanochat, run, ["--api-key-file", folder / "none"])
    print("keys: of a file and of the environment, and never in the log")


def browsers(nanochat, run, folder):
    """What a page of another origin may do, with the headers of the openai package for JavaScript."""
    stainless = ", ".join("x-stainless-" + name for name in ("arch", "lang", "os", "package-version", "retry-count", "runtime", "runtime-version", "timeout"))
    log = folder / "browsers.log"
    process, url = server.start(nanochat, run, log, ["--cors-origins", "http://LOCALHOST:3000/, https://example.com:443"])

    def preflight(origin):
        request = urllib.request.Request(url + "/v1/chat/completions", method="OPTIONS", headers={
            "Origin": origin, "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization,content-type," + stainless})
        with urllib.request.urlopen(request, timeout=30) as response:
            assert response.status == 204
            return response.headers

    try:
        for origin in ("http://localhost:3000", "https://example.com"):
            headers = preflight(origin)
            assert headers["Access-Control-Allow-Origin"] == origin
            assert headers["Access-Control-Allow-Headers"] == "authorization, content-type, " + stainless, headers["Access-Control-Allow-Headers"]
            assert "POST" in headers["Access-Control-Allow-Methods"]
        for origin in ("http://localhost:3001", "https://localhost:3000", "null"):
            assert preflight(origin)["Access-Control-Allow-Origin"] is None and preflight(origin)["Access-Control-Allow-Headers"] is None
    finally:
        server.stop(process, log)
    for origin, right in (("localhost:3000", "http://localhost:3000"), ("http://localhost:3000/app", '"http://localhost:3000"')):
        assert right in refused_start(nanochat, run, ["--cors-origins", origin])
    print("browsers: a preflight is given the headers that it asks for, and an origin that no browser sends is refused")


def encodings(nanochat, run, folder):
    log = folder / "encodings.log"
    process, url = server.start(nanochat, run, log, ["--host", "::1"])
    assert url.startswith("http://[::1]:"), url
    body = b'{"prompt": "Once", "max_tokens": 2}'
    try:
        for name, packed in (("gzip", gzip.compress(body)), ("deflate", zlib.compress(body))):
            request = urllib.request.Request(url + "/v1/completions", packed, {"Content-Type": "application/json", "Content-Encoding": name})
            try:
                urllib.request.urlopen(request, timeout=30)
                raise AssertionError(name + " was taken")
            except urllib.error.HTTPError as error:
                assert error.code == 415 and error.headers["Accept-Encoding"] == "identity", error.code
                assert f'Content-Encoding: found "{name}"' in json.loads(error.read())["error"]["message"]
    finally:
        server.stop(process, log)
    print("encodings: a compressed body is a 415 that says so; the URL of an IPv6 address has brackets")


def calculator(nanochat, run, folder):
    """On where it can be, as in `infer --chat`."""
    model, log = server.scripted_run(run, folder / "calculating", server.CALCULATING), folder / "calculator.log"
    question = "How much is 23 + 48?"
    chat = subprocess.run([nanochat, "infer", model, "--chat", "--temperature", "0", "--quiet"], input=question + "\n", stdout=subprocess.PIPE,
                          text=True, check=True, timeout=120).stdout
    assert chat == "It:<<23+48=71>>!\n", chat
    process, url = server.start(nanochat, model, log)

    def ask(**extra):
        body = {"messages": [{"role": "user", "content": question}], "temperature": 0, "max_tokens": 40, **extra}
        request = urllib.request.Request(url + "/v1/chat/completions", json.dumps(body).encode(), {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=60) as response:
            return json.loads(response.read())["choices"][0]

    try:
        made = [{"expression": "23+48", "result": "71", "offset": 3}]
        message = ask()["message"]
        assert message["content"] == "It:!" and message["nanochat_calculations"] == made, message
        # Nothing follows the call that was not made, whatever else the model says then.
        assert "nanochat_calculations" not in ask(nanochat_tools=False)["message"]
        stopped = ask(stop=["+", ":!"])  # of the text alone
        assert stopped["message"]["content"] == "It" and "nanochat_calculations" not in stopped["message"], stopped
        scored = ask(logprobs=True)
        assert [token["token"] for token in scored["logprobs"]["content"]] == ["I", "t", ":", "!"], scored
        assert ask(response_format={"type": "json_schema", "json_schema": {"schema": {"const": {"a": 1}}}})["message"]["content"] == '{"a":1}'
        history = [{"role": "user", "content": question}, {**message}, {"role": "user", "content": "Again?"}]
        assert ask(messages=history)["message"]["content"] == "It:!"
    finally:
        server.stop(process, log)
    print("calculator: on in chats, with what it computed in the answer; off by the request and for answers in JSON")


def stream(url, answers, begun):
    connection = http.client.HTTPConnection(urllib.parse.urlsplit(url).netloc, timeout=120)
    body = {"prompt": "Once", "max_tokens": TOKENS, "ignore_eos": True, "stream": True, "stream_options": {"include_usage": True}}
    connection.request("POST", "/v1/completions", json.dumps(body), {"Content-Type": "application/json"})
    response = connection.getresponse()
    first = response.readline()
    begun.release()
    answers.append(first + response.read())


def end(nanochat, run, folder):
    log = folder / "end.log"
    process, url = server.start(nanochat, run, log, ["--max-running", "2"])
    answers, begun = [], threading.Semaphore(0)
    threads = [threading.Thread(target=stream, args=(url, answers, begun)) for _ in range(4)]  # two of them wait
    open_connection = http.client.HTTPConnection(urllib.parse.urlsplit(url).netloc, timeout=60)
    open_connection.request("GET", "/health")
    assert open_connection.getresponse().read()
    for thread in threads:
        thread.start()
    begun.acquire()
    begun.acquire()
    now = server.stats(url)
    assert now["running"] == 2 and now["queue"] == 2, now
    process.terminate()
    while "shutting down" not in log.read_text():
        assert process.poll() is None
    open_connection.request("POST", "/v1/completions", b'{"prompt": "a"}', {"Content-Type": "application/json"})
    refused = open_connection.getresponse()
    assert refused.status == 503 and b"shutting down" in refused.read(), refused.status
    for thread in threads:
        thread.join()
    for answer in answers:
        usage = json.loads(answer.split(b"data: ")[-2])["usage"]
        assert answer.endswith(b"data: [DONE]\n\n") and usage["completion_tokens"] == TOKENS, answer[-300:]
    assert len(answers) == 4 and process.wait(timeout=60) == 0, process.returncode
    assert log.read_text().rstrip().endswith("stopped")
    print("SIGTERM: 4 streams of which 2 waited were finished, the next was refused, exit code 0")


def cut(nanochat, run, folder):
    """What is not finished by --drain-timeout gets an error event, and the server ends well."""
    log = folder / "cut.log"
    process, url = server.start(nanochat, run, log, ["--drain-timeout", "0.3", "--max-running", "16"])
    connections = []
    for _ in range(4):  # two of them wait
        connection = http.client.HTTPConnection(urllib.parse.urlsplit(url).netloc, timeout=120)
        body = {"prompt": "Once", "max_tokens": 100000, "ignore_eos": True, "stream": True, "n": 8, "temperature": 2}
        connection.request("POST", "/v1/completions", json.dumps(body), {"Content-Type": "application/json", "Traceparent": TRACE})
        connections.append(connection)
    server.wait_for(url, lambda now: now["queue"] + now["running"] > 2, "nothing runs")
    process.terminate()
    while "shutting down" not in log.read_text():
        assert process.poll() is None
    assert server.get(url, "/health")[0] == 503  # on a new connection
    finished = 0
    for connection in connections:
        response = connection.getresponse()
        text = response.read()
        assert response.headers["Traceparent"] == TRACE, response.headers
        if response.status == 503:
            assert b"shutting down and has ended this answer" in text, text[-300:]
        else:
            events = [json.loads(event) for event in text.split(b"data: ")[1:] if not event.startswith(b"[DONE]")]
            assert events, text
            finished += "error" not in events[-1]
            assert "error" not in events[-1] or "shutting down" in events[-1]["error"]["message"], events[-1]
    assert finished < 4, "everything was finished in time: nothing was tested"
    assert process.wait(timeout=60) == 0, process.returncode
    text = log.read_text()
    assert "--drain-timeout" in text and text.count("trace_id=" + TRACE.split("-")[1]) == 4, text[-2000:]
    print("--drain-timeout: what was not finished got an error, exit code 0, and the log has the ids of the trace")


def client(nanochat, run, folder):
    """`infer --server` prints what `infer` prints with the model."""
    log = folder / "client.log"
    process, url = server.start(nanochat, run, log, environment={"NANOCHAT_API_KEY": "secret"})
    (folder / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in (
        {"prompt": "Once upon"}, {"messages": [{"role": "user", "content": "Who are you?"}]}, {"prompt_ids": [65, 66, 67]})))

    def infer(*arguments, key="secret", given=None):
        result = subprocess.run([str(word) for word in (nanochat, "infer", *arguments, "--max-tokens", "12", "--quiet")], input=given, text=True,
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=120, env={**os.environ, "NANOCHAT_API_KEY": key})
        assert result.returncode == 0, result.stderr
        return result.stdout

    try:
        local, remote = [run, "--dtype", "float32"], ["--server", url + "/v1"]
        for arguments in (["--prompt", "Once", "--temperature", "0"], ["--prompt", "Once", "--seed", "7", "--top-k", "20"],
                          ["--prompts-file", folder / "prompts.jsonl", "--temperature", "0", "--no-echo"]):
            assert infer(*local, *arguments) == infer(*remote, *arguments), arguments
        for arguments, given in ((["--interactive", "--temperature", "0"], "Once\nTwice\n"), (["--chat", "--temperature", "0"], "Hi\nWho?\n")):
            assert infer(*local, *arguments, given=given) == infer(*remote, *arguments, given=given), arguments
        row = json.loads(infer(*remote, "--prompt", "Once", "--json"))
        assert row["completion_tokens"] > 0 and row["text"], row
        refused = subprocess.run([nanochat, "infer", *remote, "--prompt", "Once"], capture_output=True, text=True, timeout=60,
                                 env={**os.environ, "NANOCHAT_API_KEY": "wrong"})
        assert refused.returncode == 3 and "set NANOCHAT_API_KEY" in refused.stderr, refused
    finally:
        server.stop(process, log)
    gone = subprocess.run([nanochat, "infer", *remote, "--prompt", "Once"], capture_output=True, text=True, timeout=60)
    assert gone.returncode == 1 and url in gone.stderr and gone.stderr.count("\n") == 1, gone
    print("infer --server: what infer prints with the model, for prompts, files, lines and chats")


def post(url, path, body, headers=None):
    """Status, headers and the object of the answer."""
    request = urllib.request.Request(url + path, json.dumps(body).encode(), {"Content-Type": "application/json", **(headers or {})})
    try:
        with urllib.request.urlopen(request, timeout=120) as response:
            return response.status, response.headers, json.loads(response.read())
    except urllib.error.HTTPError as error:
        return error.code, error.headers, json.loads(error.read())


def delete(url, path):
    with urllib.request.urlopen(urllib.request.Request(url + path, method="DELETE"), timeout=30) as response:
        return response.status


def sessions(nanochat, run, folder):
    """The answers of sessions are those of whole conversations, and their blocks come back."""
    log = folder / "sessions.log"

    def start(seconds):
        return server.start(nanochat, run, log, ["--session-mb", "1", "--kv-blocks", "40000", "--session-ttl", seconds])

    def ask(messages, **extra):
        body = {"messages": messages, "temperature": 0, "max_tokens": 4, "nanochat_tools": False, **extra}
        status, headers, answer = post(url, "/v1/chat/completions", body)
        assert status == 200, answer
        return answer["choices"][0]["message"]["content"], answer["usage"], headers

    def fill(count):
        for i in range(count):
            ask([{"role": "user", "content": f"{i} " + "Tell me a story about a cat. " * 15}], session_id=f"s{i}")

    def blocks_return():
        empty = server.wait_for(url, lambda now: now["kv_blocks_cached"] == 0, "blocks are left")
        assert empty["sessions"] == 0 and empty["session_bytes"] == 0 and empty["kv_blocks_used"] == 0, empty

    process, url = start(100000)
    try:
        history, cached = [], 0
        for question in ("Who are you?", "And what do you know about cats?", "Once more?"):
            history.append({"role": "user", "content": question})
            said, usage, headers = ask(history[-1:], session_id="one")
            assert int(headers["X-Session-Messages"]) == len(history) - 1
            assert said == ask(history)[0], question  # as with the whole history
            cached = usage["prompt_tokens_details"]["cached_tokens"]
            history.append({"role": "assistant", "content": said})
        assert cached > 0, "the third turn found nothing in the cache"
        assert json.loads(server.get(url, "/v1/sessions/one")[1])["messages"] == history
        assert delete(url, "/v1/sessions/one") == 200
        post(url, "/cache/invalidate", {})
        assert idle(url)["kv_blocks_cached"] == 0
        fill(1000)
        full = server.stats(url)
        assert 0 < full["session_bytes"] <= 1 << 20 and 0 < full["sessions"] < 1000, full
        each = full["kv_blocks_cached"] / full["sessions"]
        assert each < 20, full  # those of sessions that were evicted came back
        assert server.get(url, "/v1/sessions/s0")[0] == 404 and server.get(url, "/v1/sessions/s999")[0] == 200
        for i in range(1000):
            try:
                delete(url, f"/v1/sessions/s{i}")
            except urllib.error.HTTPError as error:
                assert error.code == 404, error.code
        blocks_return()
    finally:
        server.stop(process, log)
    process, url = start(1)
    try:
        fill(20)
        blocks_return()  # when the sessions have expired
    finally:
        server.stop(process, log)
    print(f"sessions: answers as with the whole history; of 1,000, {full['sessions']} fit into 1 MiB, with {each:.1f} blocks each; every block "
          "of sessions that were evicted, deleted or expired came back")


GREETING = (("<|assistant_start|>", "H", "i", "!", "<|assistant_end|>"),)


def models(nanochat, run, folder):
    """Two models; one of them gets a newer checkpoint while requests are answered."""
    trained = folder / "trained/checkpoints"
    trained.mkdir(parents=True)
    server.scripted_run(run, trained / "step_1", server.CALCULATING)
    server.scripted_run(run, trained / "step_2", GREETING)
    server.scripted_run(run, folder / "greeting", GREETING)
    (trained / "latest").symlink_to("step_1")
    log = folder / "models.log"
    process, url = server.start(nanochat, folder / "trained", log, [folder / "greeting", "--watch", "--watch-interval", "0.2"], name="trained,hello")
    answers, failures, done = [], [], threading.Event()

    def ask(model):
        body = {"model": model, "messages": [{"role": "user", "content": "How much is 23 + 48?"}], "temperature": 0, "max_tokens": 40}
        status, _, answer = post(url, "/v1/chat/completions", body)
        return answer["choices"][0]["message"]["content"] if status == 200 else failures.append(answer)

    def load():
        while not done.is_set():
            answers.append(ask("trained"))

    try:
        assert [model["id"] for model in json.loads(server.get(url, "/v1/models")[1])["data"]] == ["trained", "hello"]
        assert ask("trained") == "It:!" and ask("hello") == "Hi!" and not failures, failures
        assert post(url, "/v1/chat/completions", {"model": "third", "messages": []})[0] in (400, 404)
        assert post(url, "/admin/reload", {})[2] == {"reloaded": []}
        threads = [threading.Thread(target=load) for _ in range(4)]
        for thread in threads:
            thread.start()
        (trained / "next").symlink_to("step_2")
        (trained / "next").rename(trained / "latest")
        end = time.monotonic() + 60
        while ask("trained") != "Hi!":
            assert time.monotonic() < end, "the new checkpoint is not served"
        time.sleep(0.3)
        done.set()
        for thread in threads:
            thread.join()
        assert not failures and set(answers) == {"It:!", "Hi!"}, (failures[:3], set(answers))
        assert answers[-1] == "Hi!"
        (trained / "step_2/model.safetensors").write_bytes(b"broken")  # a checkpoint that cannot be loaded changes nothing
        os.utime(trained / "step_2")
        assert post(url, "/admin/reload", {})[0] == 500 and ask("trained") == "Hi!"
        os.utime(folder / "greeting")  # and does not keep another model from its own
        status, _, answer = post(url, "/admin/reload", {})
        assert status == 500 and "step_2" in answer["error"]["message"] and 'reloaded "hello"' in log.read_text(), answer
    finally:
        done.set()
        server.stop(process, log)
    print(f"models: two by their names; a newer checkpoint was served after {answers.index('Hi!')} of {len(answers)} answers, and none was lost")


def idle(url):
    """/stats when nothing runs: the engine counts an answer after its client has read it."""
    return server.wait_for(url, lambda now: now["running"] == 0, "it runs")


def memory(nanochat, run, folder):
    """Three models, of which some fit into --memory at a time."""
    paths = [folder / f"fits-{word}" for word in ("A", "B", "C")]
    for path, word in zip(paths, "ABC"):
        server.scripted_run(run, path, (("<|assistant_start|>", word, "!", "<|assistant_end|>"),))
    log = folder / "memory.log"

    def start(gigabytes):
        return server.start(nanochat, paths[0], log, [*paths[1:], "--memory", f"{gigabytes:.9f}", "--kv-blocks", "64", "--max-running", "8",
                                                      "--max-queued", "1000"], name="A,B,C")

    def ask(model, **extra):
        body = {"model": model, "messages": [{"role": "user", "content": "Hi"}], "temperature": 0, "max_tokens": 40, **extra}
        status, _, answer = post(url, "/v1/chat/completions", body)
        assert status == 200, answer
        return answer["choices"][0]["message"]["content"]

    def loaded():
        return "".join(model["id"] for model in json.loads(server.get(url, "/v1/models")[1])["data"] if model["loaded"])

    process, url = start(1)
    try:
        assert loaded() == "A" and [ask(model) for model in "BAC"] == ["B!", "A!", "C!"] and loaded() == "ABC"
        one = server.stats(url)["model_bytes"] / 3
    finally:
        server.stop(process, log)
    process, url = start(2.5 * one / 1e9)
    try:
        assert [ask(model) for model in "ABACA"] == ["A!", "B!", "A!", "C!", "A!"] and loaded() == "AC", loaded()  # B was used least recently
        now = idle(url)
        assert (now["model_loads"], now["model_unloads"], now["models_loaded"], now["model_bytes"]) == (3, 1, 2, 2 * one), now
        assert now["requests_finished"] == 5, now  # with that of B
        assert b"nanochat_models_loaded 2\n" in server.get(url, "/metrics")[1]
    finally:
        server.stop(process, log)
    process, url = start(1.5 * one / 1e9)  # one at a time
    try:
        said, begun = [], threading.Semaphore(0)
        long = threading.Thread(target=stream, args=(url, said, begun))  # of A
        long.start()
        begun.acquire()
        assert ask("B") == "B!" and loaded() == "B"  # A has finished its answer first
        long.join()
        assert said[0].endswith(b"data: [DONE]\n\n")
        wrong = []

        def load(number):
            for i in range(10):
                model = "ABC"[(number + i) % 3]
                if (answer := ask(model)) != model + "!":
                    wrong.append((model, answer))

        threads = [threading.Thread(target=load, args=(number,)) for number in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        now = idle(url)
        assert not wrong and now["models_loaded"] == 1 and now["requests_finished"] == 62, (wrong, now)
        (paths[1] / "model.safetensors").write_bytes(b"broken")
        os.utime(paths[1])
        ask("A")
        status, _, answer = post(url, "/v1/chat/completions", {"model": "B", "messages": [{"role": "user", "content": "Hi"}]})
        assert status == 503 and "could not be loaded" in answer["error"]["message"], answer
        assert ask("C") == "C!"
    finally:
        server.stop(process, log)
    command = [nanochat, "serve", paths[0], paths[2], "--port", "0", "--memory", "0.0001"]
    small = subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=60)
    assert small.returncode not in (0, -9) and "--memory: " in small.stderr and "more than the limit of" in small.stderr, small
    print(f"--memory: three models of {one / 1e6:.1f} MB, two or one at a time; {now['model_loads']} loads, none of 62 answers wrong or lost")


def cache(nanochat, run, folder):
    """The response cache: the same bytes for the same request, without the engine."""
    log = folder / "cache.log"
    process, url = server.start(nanochat, run, log, ["--response-cache", "1"])
    try:
        body = {"messages": [{"role": "user", "content": "Tell me a story."}], "temperature": 1, "seed": 5, "max_tokens": 30}
        answers = []
        for expected in ("miss", "hit", "hit"):
            status, headers, answer = post(url, "/v1/chat/completions", body)
            assert status == 200 and headers["X-Response-Cache"] == expected, headers
            answers.append((answer["choices"], answer["usage"]))
        assert answers[0] == answers[1] == answers[2], answers
        now = idle(url)
        assert (now["requests_finished"], now["response_cache_hits"], now["response_cache_misses"]) == (1, 2, 1), now
        request = urllib.request.Request(url + "/v1/chat/completions", json.dumps({**body, "stream": True}).encode(), {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=60) as response:
            assert response.headers["X-Response-Cache"] == "hit"
            chunks = [json.loads(event) for event in response.read().split(b"data: ")[1:-1]]
        assert "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks) == answers[0][0][0]["message"]["content"]
        assert "X-Response-Cache" not in post(url, "/v1/chat/completions", {**body, "seed": None})[1]
    finally:
        server.stop(process, log)
    print("--response-cache: the same answer whole and as a stream, and the engine answered once")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        run = sys.argv[2] if len(sys.argv) > 2 else server.small_run(sys.argv[1], folder / "small")
        for check in (tls, keys, browsers, encodings, calculator, end, cut, client, sessions, models, memory, cache):
            check(sys.argv[1], run, folder)
