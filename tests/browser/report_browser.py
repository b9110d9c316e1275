#!/usr/bin/env python3
"""Opens a report in headless Chromium: every chart has its points and labels, nothing is fetched, and it fits a phone.

  tests/browser/report_browser.py build/release/bin/nanochat OUT

Writes two small runs by hand below OUT, makes their report with the program, and leaves screenshots at desktop and phone
widths, light and dark, in OUT to be looked at. Needs chromium; standard library only.
"""

import html.parser
import json
import math
import pathlib
import re
import subprocess
import sys

STEPS = 300


def write_run(folder, stage, loss):
    (folder / "eval" / "step-000300").mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"depth": 2, "text": "<b>&\"quotes\""}))
    lines = []
    for step in range(STEPS):
        lines.append({"step": step, "loss": loss * math.exp(-step / 80) + 1, "bpb": 0.4 * loss * math.exp(-step / 80) + 0.5,
                      "grad_norm": 1 / (1 + step / 50), "lr_multiplier": min(1, (STEPS - step) / 60), "step_ms": 20,
                      "tokens_per_second": 9000 + step % 7, "mfu": 0.4, "tokens": 2048 * (step + 1)})
        if step % 50 == 0:
            lines.append({"step": step, "validation_bpb": 0.4 * loss * math.exp(-step / 80) + 0.52})
    lines.append({"step": STEPS, "samples": "Once upon a time <script>alert(1)</script>\nThe end"})
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    result = {"benchmark": "core", "task": "copa", "metric": "accuracy", "value": 0.6, "correct": 60, "total": 100,
              "random_baseline": 0.5, "seconds": 1}
    (folder / "eval" / "step-000300" / "eval.json").write_text(
        json.dumps({"format_version": 1, "model": {}, "settings": {}, "results": [result]}))


class Page(html.parser.HTMLParser):
    """The charts of a page as the browser has built it: lines with their points, texts, and what would be fetched."""

    def __init__(self, text):
        super().__init__()
        self.charts, self.fetched, self.scripts, self.tables = [], [], 0, []
        self.where, self.cells = None, 0
        self.feed(text)

    def handle_starttag(self, tag, pairs):
        attributes = dict(pairs)
        if tag == "svg":
            self.charts.append({"title": attributes["aria-label"], "lines": [], "texts": [], "dots": 0})
        elif tag == "polyline":
            self.charts[-1]["lines"].append((attributes["data-name"], int(attributes["data-points"]), attributes["points"].split()))
        elif tag == "circle":
            self.charts[-1]["dots"] += 1
        elif tag == "script":
            self.scripts += 1
        elif tag == "td":
            self.cells += 1
        self.fetched += [value for key, value in pairs if key in ("src", "href", "srcset")]
        self.where = tag

    def handle_endtag(self, tag):
        self.where = None

    def handle_data(self, data):
        if self.where == "text" and data.strip():
            self.charts[-1]["texts"].append(data)


def chromium(out, *arguments):
    command = ["chromium", "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
               f"--user-data-dir={out}/chromium", *arguments]
    return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=True, timeout=300).stdout


def check(condition, what):
    print(("ok   " if condition else "FAIL ") + what)
    return bool(condition)


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    program, out = pathlib.Path(sys.argv[1]).resolve(), pathlib.Path(sys.argv[2]).resolve()
    runs = [out / "first", out / "second"]
    for run, loss in zip(runs, (4, 5)):
        write_run(run, "pretrain", loss)
    subprocess.run([program, "report", *runs, "--output-dir", out, "--quiet"], check=True, stdout=subprocess.DEVNULL)
    url = (out / "report.html").as_uri()

    page = Page(chromium(out, "--dump-dom", url))
    good = check(not page.fetched and page.scripts == 0, "nothing is fetched, and there is no script")
    titles = [chart["title"] for chart in page.charts]
    expected = [f"{name} over {axis}" for name in ("Loss", "Bits per byte") for axis in ("steps", "tokens", "time, minutes")]
    expected += [f"{name} over steps" for name in ("Learning rate", "Gradient norm", "Throughput", "MFU")]
    good &= check(sorted(titles) == sorted(expected), f"charts: {', '.join(titles)}")
    for chart in page.charts:
        whole = 4 if chart["title"].startswith("Bits") else 2
        lines = chart["lines"]
        good &= check(len(lines) == whole and all(name.startswith(("first", "second")) for name, _, _ in lines),
                      f"{chart['title']}: {len(lines)} lines with names")
        good &= check(all(count == (6 if "validation" in name else STEPS) for name, count, _ in lines),
                      f"{chart['title']}: every figure stands behind a line")
        points = [tuple(map(float, point.split(","))) for _, _, drawn in lines for point in drawn]
        good &= check(all(0 <= x <= 640 and 0 <= y <= 300 for x, y in points) and len({x for x, _ in points}) > 5,
                      f"{chart['title']}: {len(points)} points inside the drawing")
        numbers = [text for text in chart["texts"] if re.fullmatch(r"-?[\d.]+(e[+-]?\d+)?[kMGT]?", text)]
        good &= check(len(numbers) >= 6 and len(chart["texts"]) - len(numbers) == 2, f"{chart['title']}: ticks and two labels")
    good &= check(page.cells > 60, f"tables: {page.cells} cells")

    for name, size, flags in [("desktop", "1200,2400", []), ("phone", "400,3600", []),
                              ("dark", "1200,2400", ["--blink-settings=preferredColorScheme=0"])]:
        shot = out / f"{name}.png"
        chromium(out, f"--window-size={size}", f"--screenshot={shot}", *flags, url)
        good &= check(shot.stat().st_size > 20_000, f"screenshot {shot}")
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
