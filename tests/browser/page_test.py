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

import axe_playwright_python
from playwright.sync_api import sync_playwright

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent / "contract"))
import server  # noqa: E402

# Text that would do harm if any of it became markup, and Markdown that ends too early.
HOSTILE = ('Text: <script>window.hacked = 1</script> <img src=x onerror="window.hacked = 2"> **bold** &amp; [a](javascript:window.hacked=3) '
           '[b](  jAvAsCrIpT:window.hacked=4) [c](data:text/html,<script>window.hacked=5</script>) ![d](http://192.0.2.1/x.png) '
           '<svg onload=window.hacked=6> `<i>code</i>` end')
SHOWN = ('Text: <script>window.hacked = 1</script> <img src=x onerror="window.hacked = 2"> bold &amp; a b '
         '[c](data:text/html,<script>window.hacked=5</script>) d '
         '<svg onload=window.hacked=6> <i>code</i> end')
BROKEN = ["**", "*a **b", "```", "```js\nlet a", "[a](", "![", "[a](b", "| a |\n|--", "- \n  - \n      - ", "> > > ", "1. a\n\n\n2. b", "`" * 50, "#", "######", "***a*",
          "[" * 3000 + "](", "*a " * 3000, "> " * 300 + "deep", "_" * 1001, "\ue0000\ue001", "~~", "<", "&lt;", "\\"]
MARKDOWN = """# Title

Some *emphasis*, **strong** and `code`, with a [link](https://example.org/a?b=1) and https://example.org/c.

- one
  - inner
- two

3. three
4. four

> A quote.

| name | size |
|---|---|
| a | 1 |

```python
print("<b>hello</b>")
```"""


def event(delta, reason=None):
    return "data: " + json.dumps({"choices": [{"index": 0, "delta": delta, "finish_reason": reason}]}) + "\n\n"


def answer_with(page, text, reason="stop", tokens=12):
    """From now on, every question gets this answer."""
    usage = "data: " + json.dumps({"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": tokens}}) + "\n\n"
    body = event({"role": "assistant", "content": ""}) + event({"content": text}) + event({}, reason) + usage + "data: [DONE]\n\n"
    page.unroute("**/v1/chat/completions")
    page.route("**/v1/chat/completions", lambda route: route.fulfill(status=200, content_type="text/event-stream", body=body))


def new_page(browser, url, errors, **options):
    page = browser.new_page(**options)
    page.on("console", lambda message: errors.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("request", lambda request: errors.append("asks " + request.url) if not request.url.startswith((url, "blob:" + url)) else None)
    page.goto(url)
    until(page, "document.getElementById('model').value === 'tiny'")
    return page


def set_option(page, name, value):
    page.click("#open-settings")
    page.fill(name, value)
    page.click("#close-settings")


def wait_for_end(page):
    page.wait_for_selector("#send", state="visible")
    return page.locator(".assistant .markdown").last.text_content()


def accessible(page, where):
    """axe finds nothing serious; it is no part of the page, so its script goes in by the debugger's way."""
    page.evaluate((pathlib.Path(axe_playwright_python.__file__).parent / "axe.min.js").read_text())
    found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")["violations"]
    serious = [(one["id"], one["impact"], [node["html"][:200] for node in one["nodes"]]) for one in found if one["impact"] in ("serious", "critical")]
    assert serious == [], (where, serious)
    return [one["id"] for one in found]


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
                wait_for_end(page)
            for answer in page.locator(".assistant .markdown").all():
                assert answer.locator(".calculation").text_content() == "23+48 = 71"
                assert answer.text_content() == "It:23+48 = 71!" and chat == "It:<<23+48=71>>!\n", (answer.text_content(), chat)
            page.screenshot(path=folder / f"{name}.png")
        page.reload()
        assert page.locator(".assistant .markdown").first.text_content() == "It:23+48 = 71!"  # kept in the browser
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
    """A chat that streams and stops, and what is refused."""
    errors = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        page = new_page(browser, url, errors, viewport={"width": 1200, "height": 800})
        page.screenshot(path=folder / "desktop-empty.png")
        accessible(page, "empty")
        # A chat streams: the text grows before it ends.
        set_option(page, "#max-tokens", "1900")
        page.route("**/v1/chat/completions", endless)  # or a model that knows little may end before it is stopped
        ask(page, "Tell me a story about a cat.")
        until(page, "(document.querySelector('.assistant .markdown')?.textContent.length ?? 0) > 3")
        first = page.text_content(".assistant .markdown")
        assert page.is_visible("#stop") and not page.is_visible("#send")
        assert page.get_attribute(".assistant", "aria-busy") == "true"
        until(page, f"document.querySelector('.assistant .markdown').textContent.length > {len(first)}")
        # Stop works, by its key too, and the server stops.
        page.keyboard.press("Escape")
        page.wait_for_selector("#send", state="visible")
        assert "Stopped." in page.text_content(".assistant .note")
        assert page.get_attribute(".assistant", "aria-busy") == "false"
        server.wait_for(url, lambda now: now["running"] == 0, "the server goes on", 5)
        set_option(page, "#max-tokens", "20")
        ask(page, "And then?")
        wait_for_end(page)
        until(page, "/[0-9]+ tokens, [0-9.]+ tokens\\/s/.test(document.querySelectorAll('.assistant .foot')[1].textContent)")
        page.unroute("**/v1/chat/completions")
        assert errors == [], errors
        # What the server refuses is said, and can be sent again.
        page.route("**/v1/chat/completions", lambda route: route.fulfill(status=429, content_type="application/json",
                                                                         body='{"error": {"message": "too many requests are waiting"}}'))
        ask(page, "Again")
        page.wait_for_selector("#notice", state="visible")
        assert "too many" in page.text_content("#notice") and page.input_value("#text") == "Again"
        assert page.locator(".exchange").count() == 2
        page.screenshot(path=folder / "desktop-error.png")
        browser.close()


def check_markdown(url, folder):
    """What a model writes becomes text and harmless elements."""
    errors = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        page = new_page(browser, url, errors, viewport={"width": 1200, "height": 900})
        answer_with(page, HOSTILE)
        ask(page, "<b>Be hostile</b> **please**")
        assert wait_for_end(page) == SHOWN, page.locator(".assistant .markdown").last.text_content()
        assert page.text_content(".question") == "<b>Be hostile</b> **please**"
        assert page.locator("main script, main img, main svg, main i, main iframe").count() == 0 and page.locator(".assistant a").count() == 0
        assert page.locator(".assistant strong").text_content() == "bold"
        page.click("#new")
        answer_with(page, MARKDOWN)
        ask(page, "Everything")
        wait_for_end(page)
        shown = page.locator(".assistant .markdown")
        for selector, text in (("h3", "Title"), ("em", "emphasis"), ("strong", "strong"), ("p > code", "code"), ("a >> nth=0", "link"),
                               ("a >> nth=1", "https://example.org/c"), ("ul ul li", "inner"), ("ol li >> nth=1", "four"), ("blockquote", "A quote."),
                               ("th >> nth=1", "size"), ("td >> nth=0", "a"), ("pre code", 'print("<b>hello</b>")'), (".code-head span", "python")):
            assert shown.locator(selector).text_content() == text, (selector, shown.locator(selector).all_text_contents())
        assert shown.locator("ol").get_attribute("start") == "3" and shown.locator("li > p").count() == 0
        link = shown.locator("a").first
        assert link.get_attribute("href") == "https://example.org/a?b=1" and "noopener" in link.get_attribute("rel") and link.get_attribute("target") == "_blank"
        page.screenshot(path=folder / "markdown.png")
        accessible(page, "markdown")
        dark = new_page(browser, url, errors, viewport={"width": 1200, "height": 900}, color_scheme="dark")
        answer_with(dark, MARKDOWN)
        ask(dark, "Everything")
        wait_for_end(dark)
        dark.screenshot(path=folder / "markdown-dark.png")
        accessible(dark, "markdown, dark")
        # Each beginning of a text, as it streams, and Markdown that is not complete.
        begin = time.monotonic()
        for text in BROKEN + [MARKDOWN[:n] for n in range(0, len(MARKDOWN), 7)] + [HOSTILE[:n] for n in range(0, len(HOSTILE), 9)]:
            made = page.evaluate("""(text) => import("./markdown.js").then(({ MarkdownView }) => {
                const parent = document.createElement("div");
                const view = new MarkdownView(parent, (node, piece) => node.append(piece), () => document.createElement("div"));
                view.update(text);
                return [parent.querySelectorAll("script, img, svg, iframe, a[href^=javascript], [onerror], [onload]").length, parent.textContent.length];
            })""", text)
            assert made[0] == 0 and made[1] <= len(text), (text[:100], made)
        assert time.monotonic() - begin < 30, "some text takes too long"
        # Blocks that have not changed keep their nodes while a text grows.
        assert page.evaluate("""(text) => import("./markdown.js").then(({ MarkdownView }) => {
            const parent = document.createElement("div");
            const view = new MarkdownView(parent, (node, piece) => node.append(piece), () => document.createElement("div"));
            view.update(text.slice(0, 200));
            const first = parent.firstChild;
            view.update(text);
            const streamed = parent.innerHTML;
            const whole = document.createElement("div");
            new MarkdownView(whole, (node, piece) => node.append(piece), () => document.createElement("div")).update(text);
            return first === parent.firstChild && streamed === whole.innerHTML;
        })""", MARKDOWN)
        assert page.evaluate("window.hacked") is None
        assert errors == [], errors
        browser.close()


def check_history(url, folder):
    """Conversations: kept, edited, answered again, exported, imported, deleted."""
    errors = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        context = browser.new_context(viewport={"width": 1200, "height": 800}, accept_downloads=True)
        context.grant_permissions(["clipboard-read", "clipboard-write"])
        page = new_page(context, url, errors)
        sent = []
        page.on("request", lambda request: sent.append(request.post_data_json) if request.method == "POST" else None)
        page.click("#open-settings")
        page.fill("#system", "Be brief.")
        page.fill("#temperature", "0.3")
        page.fill("#top-k", "7")
        page.fill("#seed", "5")
        accessible(page, "settings")
        page.screenshot(path=folder / "settings.png")
        page.click("#close-settings")
        answer_with(page, "First answer.")
        ask(page, "First question")
        wait_for_end(page)
        answer_with(page, "Second answer.")
        ask(page, "Second question")
        wait_for_end(page)
        assert sent[1]["messages"] == [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "First question"},
                                       {"role": "assistant", "content": "First answer."}, {"role": "user", "content": "Second question"}], sent[1]
        assert (sent[1]["temperature"], sent[1]["top_k"], sent[1]["seed"], sent[1]["top_p"], sent[1]["model"]) == (0.3, 7, 5, 1, "tiny"), sent[1]
        # It survives a reload, and so do the settings.
        page.reload()
        until(page, "document.getElementById('model').value === 'tiny'")
        assert page.locator(".question").all_text_contents() == ["First question", "Second question"]
        assert page.locator(".assistant .markdown").all_text_contents() == ["First answer.", "Second answer."]
        page.click("#open-settings")
        assert page.input_value("#system") == "Be brief." and page.input_value("#temperature") == "0.3"
        page.click("#close-settings")
        # Copy, answer again, edit.
        page.locator(".assistant button:has-text('Copy')").last.click()
        assert page.evaluate("navigator.clipboard.readText()") == "Second answer."
        answer_with(page, "Another answer.")
        page.click("button:has-text('Regenerate')")
        until(page, "document.querySelectorAll('.assistant .markdown')[1].textContent === 'Another answer.'")
        wait_for_end(page)
        assert sent[-1]["messages"] == sent[1]["messages"]
        page.locator("button:has-text('Edit')").first.click()
        assert page.input_value("#text") == "First question" and page.locator(".exchange").count() == 0
        page.reload()                # an edit that was not sent changes nothing
        until(page, "document.querySelectorAll('.exchange').length === 2")
        page.locator("#text").press("ArrowUp")
        assert page.input_value("#text") == "Second question"
        ask(page, "Second question, edited")
        wait_for_end(page)
        assert page.locator(".question").all_text_contents() == ["First question", "Second question, edited"]
        # A second conversation; the list has both, the newest first.
        page.click("#new")
        ask(page, "Something else")
        wait_for_end(page)
        assert page.locator(".open").all_text_contents() == ["Something else", "First question"]
        page.screenshot(path=folder / "desktop.png")
        accessible(page, "conversations")
        page.locator(".open").last.click()
        assert page.locator(".exchange").count() == 2
        # Export, delete, import.
        with page.expect_download() as download:
            page.click("#export")
        exported = folder / "conversations.json"
        download.value.save_as(exported)
        page.on("dialog", lambda dialog: dialog.accept())
        for _ in range(2):
            page.locator(".remove").first.click()
        assert page.locator(".open").count() == 0 and page.is_disabled("#export")
        page.reload()
        assert page.locator(".open").count() == 0
        page.set_input_files("#import-file", exported)
        until(page, "document.querySelectorAll('.open').length === 2")
        page.locator(".open").last.click()
        assert page.locator(".question").all_text_contents() == ["First question", "Second question, edited"]
        for text in ("{", "[]", '{"format": "nanochat-conversations", "conversations": [{"id": "<b>", "turns": []}]}',
                     '{"format": "nanochat-conversations", "conversations": [{"id": "a", "turns": [{"question": 5, "answers": []}]}]}'):
            (folder / "wrong.json").write_text(text)
            page.set_input_files("#import-file", folder / "wrong.json")
            page.wait_for_selector("#notice", state="visible")
            assert page.locator(".open").count() == 2
            page.evaluate("document.getElementById('notice').hidden = true")
        # A conversation of the storage that makes no sense is not shown, and does no harm.
        page.evaluate("localStorage.setItem('nanochat.conversation.x', '{\"id\": 5}')")
        page.reload()
        until(page, "document.querySelectorAll('.open').length === 2")
        # Another page of the same browser sees what this one does.
        other = new_page(context, url, errors)
        other.on("dialog", lambda dialog: dialog.accept())
        other.locator(".remove").first.click()
        until(page, "document.querySelectorAll('.open').length === 1")
        (folder / "wrong.json").unlink()
        exported.unlink()
        assert errors == [], errors
        browser.close()


def check_two_models(url, folder):
    errors, sent = [], []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        for name, options in (("two-models", {"viewport": {"width": 1200, "height": 700}}),
                              ("two-models-phone", {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True})):
            page = browser.new_page(**options)
            page.on("console", lambda message: errors.append(message.text) if message.type in ("error", "warning") else None)
            page.route("**/v1/models", lambda route: route.fulfill(json={"data": [{"id": "tiny"}, {"id": "large"}]}))
            sent.clear()

            def answered(route):
                body = route.request.post_data_json
                sent.append(body)
                text = event({"content": f"I am {body['model']}, {len(body['messages'])}."}) + event({}, "stop") + "data: [DONE]\n\n"
                route.fulfill(status=200, content_type="text/event-stream", body=text)

            page.route("**/v1/chat/completions", answered)
            page.goto(url)
            until(page, "document.getElementById('model').value === 'tiny'")
            page.click("#compare")
            assert page.input_value("#model-2") == "large"
            for question in ("Who are you?", "And now?"):
                ask(page, question)
                wait_for_end(page)
            assert page.locator(".assistant .markdown").all_text_contents() == ["I am tiny, 1.", "I am large, 1.", "I am tiny, 3.", "I am large, 3."]
            assert page.locator(".by").all_text_contents() == ["tiny", "large"] * 2
            last = {body["model"]: body["messages"][1]["content"] for body in sent[2:]}
            assert last == {"tiny": "I am tiny, 1.", "large": "I am large, 1."}, last  # each sees its own answers
            assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), "the page scrolls sideways"
            page.screenshot(path=folder / f"{name}.png")
            accessible(page, name)
            page.locator("button:has-text('Regenerate')").last.click()
            wait_for_end(page)
            assert len(sent) == 5 and sent[4]["model"] == "large"
            page.close()
        assert errors == [], errors
        browser.close()


def check_phone(url, folder):
    errors = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        for name, scheme in (("phone", "light"), ("phone-dark", "dark")):
            phone = new_page(browser, url, errors, viewport={"width": 390, "height": 844}, device_scale_factor=2, color_scheme=scheme,
                             is_mobile=True, has_touch=True)
            answer_with(phone, "The capital of France is Paris, a city on the Seine.\n\n```\nx = " + "averylongword" * 8 + "\n```\n\n" + "averylongword" * 8,
                        "length")
            ask(phone, "What is the capital of France, and what lies around it?")
            phone.wait_for_selector(".assistant .note")
            assert phone.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), "the page scrolls sideways"
            phone.screenshot(path=folder / f"{name}.png")
            accessible(phone, name)
            phone.click("#menu")
            assert phone.get_attribute("#menu", "aria-expanded") == "true" and phone.is_visible("#side")
            phone.screenshot(path=folder / f"{name}-menu.png")
            phone.keyboard.press("Escape")
            assert not phone.is_visible("#side")
            phone.click("#menu")
            phone.click("#new")
            assert not phone.is_visible("#side") and phone.locator(".exchange").count() == 0
            phone.click("#open-settings")
            phone.screenshot(path=folder / f"{name}-settings.png")
            accessible(phone, name + ", settings")
            phone.select_option("#theme", "light" if scheme == "dark" else "dark")
            phone.click("#close-settings")
            colour = "rgb(255, 255, 255)" if scheme == "dark" else "rgb(20, 23, 28)"
            until(phone, f"getComputedStyle(document.body).backgroundColor === '{colour}'")
        assert errors == [], errors
        browser.close()


def check_key(nanochat, run):
    """A server that asks for a key."""
    errors = []
    with server.running(nanochat, run, environment={"NANOCHAT_API_KEY": "secret"}) as url, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        page = browser.new_page()
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(url)
        page.wait_for_selector("#notice", state="visible")
        assert "API key" in page.text_content("#notice")
        page.click("#open-settings")
        page.fill("#key", "secret")
        page.click("#close-settings")
        until(page, "document.getElementById('model').value === 'tiny'")
        set_option(page, "#max-tokens", "5")
        ask(page, "Hi")
        wait_for_end(page)
        assert page.evaluate("Object.values(localStorage).join()").find("secret") < 0, "the key is in the storage"
        assert errors == [], errors
        browser.close()


if __name__ == "__main__":
    target = pathlib.Path(sys.argv[2])
    target.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        # Deep enough that 1,900 tokens take seconds: the page must have the time to stop them.
        run = sys.argv[3] if len(sys.argv) > 3 else server.small_run(sys.argv[1], folder, depth=4, iterations=4, sequence_len=2048)
        with server.running(sys.argv[1], run) as url:
            for one in (check, check_markdown, check_history, check_two_models, check_phone):
                one(url, target)
        check_key(sys.argv[1], run)
        with server.running(sys.argv[1], server.scripted_run(run, target / "calculating", server.CALCULATING)) as url:
            calculate(sys.argv[1], url, target)
        shutil.rmtree(target / "calculating")
        check_origins(sys.argv[1], run)
    print("page passed; screenshots in", target)
