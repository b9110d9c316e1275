"""The chat page in headless Chromium: python page_test.py NANOCHAT FOLDER [RUN]. Screenshots go into FOLDER."""
import http.server
import json
import pathlib
import shutil
import subprocess
import sys
import tempfile
import threading
import time

from playwright.sync_api import sync_playwright

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent / "contract"))
import server  # noqa: E402

HOSTILE = 'Text: <script>window.hacked = 1</script> <img src=x onerror="window.hacked = 2"> **bold** &amp; end'


def event(delta, reason=None):
    return "data: " + json.dumps({"choices": [{"index": 0, "delta": delta, "finish_reason": reason}]}) + "\n\n"


def new_page(browser, url, errors, **options):
    page = browser.new_page(**options)
    page.on("console", lambda message: errors.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(url)
    until(page, "document.getElementById('model').textContent === 'tiny'")
    return page


def until(page, condition, seconds=30):
    """wait_for_function would need eval in the page, which its policy forbids."""
    end = time.monotonic() + seconds
    while not page.evaluate(condition):
        assert time.monotonic() < end, condition
        page.wait_for_timeout(20)


def endless(route):
    route.continue_(post_data=json.dumps({**json.loads(route.request.post_data), "ignore_eos": True}))


def calculate(nanochat, url, folder):
    """The calculator is on, and what it computed stands where the model asked for it; the next question tells the model of it."""
    chat = subprocess.run([nanochat, "infer", folder / "calculating", "--chat", "--temperature", "0", "--quiet"], input="How much is 23 + 48?\n",
                          stdout=subprocess.PIPE, text=True, check=True, timeout=120).stdout
    errors, sent = [], []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        for name, scheme in (("calculator", "light"), ("calculator-dark", "dark")):
            page = new_page(browser, url, errors, viewport={"width": 700, "height": 420}, color_scheme=scheme)
            page.on("request", lambda request: sent.append(request.post_data_json) if request.method == "POST" else None)
            for question in ("How much is 23 + 48?", "And once more?"):
                ask(page, question)
                page.wait_for_selector("#send", state="visible")
            for answer in page.locator(".assistant").all():
                assert answer.locator(".calculation").text_content() == "23+48 = 71"
                assert answer.text_content() == "It:23+48 = 71!" and chat == "It:<<23+48=71>>!\n", (answer.text_content(), chat)
            page.screenshot(path=folder / f"{name}.png")
        assert errors == [], errors
        browser.close()
    calculations = [{"expression": "23+48", "result": "71", "offset": 3}]
    assert sent[1]["messages"][1] == {"role": "assistant", "content": "It:!", "nanochat_calculations": calculations}, sent[1]


class Elsewhere(http.server.BaseHTTPRequestHandler):
    """A page of another origin."""

    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(b"<!doctype html><title>elsewhere</title>")

    def log_message(self, *arguments):
        pass


def check_origins(nanochat, run):
    """A page of another origin asks with the headers of the openai package for JavaScript."""
    pages = [http.server.HTTPServer(("127.0.0.1", 0), Elsewhere) for _ in range(2)]
    for one in pages:
        threading.Thread(target=one.serve_forever, daemon=True).start()
    origins = [f"http://127.0.0.1:{one.server_address[1]}" for one in pages]
    with server.running(nanochat, run, ["--cors-origins", origins[0] + "/"]) as url, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        results = []
        for origin in origins:
            page = browser.new_page()
            page.goto(origin)
            results.append(page.evaluate("""(url) => fetch(url + "/v1/chat/completions", {
                method: "POST",
                headers: {"Content-Type": "application/json", Authorization: "Bearer x", "X-Stainless-Lang": "js", "X-Stainless-Retry-Count": "0",
                          "X-Stainless-Package-Version": "6.0.0", "X-Stainless-Runtime": "browser:chrome", "X-Stainless-Timeout": "600"},
                body: JSON.stringify({messages: [{role: "user", content: "Hi"}], max_tokens: 3}),
            }).then((response) => response.json()).then((answer) => answer.object, (error) => "refused")""", url))
        browser.close()
    for one in pages:
        one.shutdown()
    assert results == ["chat.completion", "refused"], results


def ask(page, text):
    page.fill("#text", text)
    page.press("#text", "Enter")


def check(url, folder):
    errors = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        page = new_page(browser, url, errors, viewport={"width": 1200, "height": 800})
        page.screenshot(path=folder / "desktop-empty.png")
        # A chat streams: the text grows before it ends.
        page.evaluate("document.getElementById('max-tokens').value = 1900")
        page.route("**/v1/chat/completions", endless)  # or a model that knows little may end before it is stopped
        ask(page, "Tell me a story about a cat.")
        until(page, "(document.querySelector('.assistant')?.textContent.length ?? 0) > 3")
        first = page.text_content(".assistant")
        assert page.is_visible("#stop") and not page.is_visible("#send")
        until(page, f"document.querySelector('.assistant').textContent.length > {len(first)}")
        # Stop works, and the server stops too.
        page.click("#stop")
        page.wait_for_selector("#send", state="visible")
        assert "Stopped." in page.text_content(".assistant .note")
        page.unroute("**/v1/chat/completions")
        server.wait_for(url, lambda now: now["running"] == 0, "the server goes on", 5)
        # What a model writes is text.
        body = event({"role": "assistant", "content": ""}) + event({"content": HOSTILE}) + event({}, "stop") + "data: [DONE]\n\n"
        page.route("**/v1/chat/completions", lambda route: route.fulfill(status=200, content_type="text/event-stream", body=body))
        ask(page, "<b>Be hostile</b>")
        until(page, "document.querySelectorAll('.assistant').length === 2 && document.querySelectorAll('.assistant')[1].textContent.endsWith('end')")
        assert page.locator(".assistant").nth(1).text_content() == HOSTILE
        assert page.locator(".user").nth(1).text_content() == "<b>Be hostile</b>"
        assert page.evaluate("window.hacked") is None and page.locator("main script, main img, main b").count() == 0
        page.screenshot(path=folder / "desktop.png")
        assert errors == [], errors
        # What the server refuses is said, and can be sent again.
        page.unroute("**/v1/chat/completions")
        page.route("**/v1/chat/completions", lambda route: route.fulfill(status=429, content_type="application/json",
                                                                         body='{"error": {"message": "too many requests are waiting"}}'))
        ask(page, "Again")
        page.wait_for_selector("#notice", state="visible")
        assert "too many" in page.text_content("#notice") and page.input_value("#text") == "Again"
        page.screenshot(path=folder / "desktop-error.png")
        errors.clear()  # the browser notes a 429
        for name, scheme in (("phone", "light"), ("phone-dark", "dark")):
            phone = new_page(browser, url, errors, viewport={"width": 390, "height": 844}, device_scale_factor=2, color_scheme=scheme,
                             is_mobile=True, has_touch=True)
            phone.route("**/v1/chat/completions", lambda route: route.fulfill(
                status=200, content_type="text/event-stream",
                body=event({"role": "assistant", "content": "The capital of France is Paris, a city on the Seine.\n\n" + "averylongword" * 8}) +
                event({}, "length") + "data: [DONE]\n\n"))
            ask(phone, "What is the capital of France, and what lies around it?")
            phone.wait_for_selector(".assistant .note")
            assert phone.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), "the page scrolls sideways"
            phone.screenshot(path=folder / f"{name}.png")
            phone.click("#new")
            phone.click("summary")
            phone.screenshot(path=folder / f"{name}-settings.png")
        assert errors == [], errors
        browser.close()


if __name__ == "__main__":
    target = pathlib.Path(sys.argv[2])
    target.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        # Deep enough that 1,900 tokens take seconds: the page must have the time to stop them.
        run = sys.argv[3] if len(sys.argv) > 3 else server.small_run(sys.argv[1], folder, depth=4, iterations=4, sequence_len=2048)
        with server.running(sys.argv[1], run) as url:
            check(url, target)
        with server.running(sys.argv[1], server.scripted_run(run, target / "calculating", server.CALCULATING)) as url:
            calculate(sys.argv[1], url, target)
        shutil.rmtree(target / "calculating")
        check_origins(sys.argv[1], run)
    print("page passed; screenshots in", target)
