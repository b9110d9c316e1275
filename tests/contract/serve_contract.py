"""What `nanochat serve` promises beside the protocol, with the standard library alone: python serve_contract.py NANOCHAT [RUN]

TLS with a certificate of its own, keys from a file and from the environment, and an end that waits for what runs."""
import http.client
import json
import pathlib
import ssl
import subprocess
import sys
import tempfile
import threading
import urllib.error
import urllib.parse
import urllib.request
import warnings

import server

TOKENS = 400


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


def keys(nanochat, run, folder):
    (folder / "keys").write_text("of-a-file\r\nanother\n\n")
    log = folder / "keys.log"
    process, url = server.start(nanochat, run, log, ["--api-key-file", folder / "keys"], {"NANOCHAT_API_KEY": "of-the-environment,second"})
    try:
        for key in ("of-a-file", "another", "of-the-environment", "second"):
            assert server.get(url, "/v1/models", {"Authorization": f"Bearer {key}"})[0] == 200, key
            assert server.get(url, "/v1/models", {"X-Api-Key": key})[0] == 200, key
        for key in ("", "of-a-fil", "of-a-file\r", "of-the-environment,second"):
            assert server.get(url, "/v1/models", {"X-Api-Key": key.strip()} if key.strip() != "of-a-file" else {})[0] == 401, key
        assert server.get(url, "/health")[0] == 200
    finally:
        server.stop(process, log)
    text = log.read_text()
    assert not any(key in text for key in ("of-a-file", "another", "of-the-environment")), "a key is in the log"
    print("keys: of a file and of the environment, and never in the log")


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


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        run = sys.argv[2] if len(sys.argv) > 2 else server.small_run(sys.argv[1], folder / "small")
        for check in (tls, keys, end):
            check(sys.argv[1], run, folder)
