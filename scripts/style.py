#!/usr/bin/env python3
"""Checks of style that take seconds, over the files that git tracks. The test style.tree runs it.

  - clang-format 16 leaves every C++ file as it is (.clang-format)
  - no trailing space, no tab, one newline at the end, Unix line ends (.editorconfig)
  - a header in internal/ is included by its own library alone; {fmt} is included by its path within spdlog
  - links within the repository lead to a file and a heading that exist, and so do the source files that documents name
  - shellcheck finds nothing in the scripts

A tool that is not installed is named and passed over; the exit code is then 77, which ctest shows as skipped. With --fix,
clang-format rewrites the files.
"""
import argparse
import concurrent.futures
import os
import pathlib
import re
import shutil
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
CXX = {".h", ".cpp", ".inc", ".cu", ".cuh"}
BINARY_OR_FOREIGN = {".svg", ".gz", ".png"}
MAY_HOLD_TABS = {".supp"}
SKIPPED = 77  # ctest's SKIP_RETURN_CODE


def tracked_files():
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode != 0:
        return None
    return [path for path in listed.stdout.split("\0") if path and (ROOT / path).is_file()]


def format_problems(paths, fix):
    """What clang-format would change; None where it is not installed."""
    tool = shutil.which("clang-format-16")
    if tool is None:
        return None
    mode = ["-i"] if fix else ["--dry-run", "--Werror"]
    chunks = [paths[i : i + 40] for i in range(0, len(paths), 40)]

    def run(chunk):
        return subprocess.run([tool, *mode, *chunk], cwd=ROOT, capture_output=True, text=True, check=False)

    found = set()
    with concurrent.futures.ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        for result in pool.map(run, chunks):
            lines = re.findall(r"^(\S+?:\d+):\d+: error:", result.stderr, re.MULTILINE)
            found.update(lines)
            if result.returncode != 0 and not lines:
                found.add(result.stderr.strip())
    return [f"{where}: clang-format would change this line" for where in sorted(found)]


def text_problems(path, data):
    """The rules of .editorconfig."""
    if b"\r" in data:
        yield f"{path}: has a carriage return"
    if data and not data.endswith(b"\n"):
        yield f"{path}: has no newline at its end"
    if data.endswith(b"\n\n"):
        yield f"{path}: ends in an empty line"
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        yield f"{path}: is not UTF-8"
        return
    may_hold_tabs = pathlib.PurePath(path).suffix in MAY_HOLD_TABS
    for number, line in enumerate(text.split("\n"), 1):
        if line != line.rstrip():
            yield f"{path}:{number}: trailing space"
        if "\t" in line and not may_hold_tabs:
            yield f"{path}:{number}: a tab"


def include_problems(path, text):
    for number, line in enumerate(text.split("\n"), 1):
        included = re.match(r'\s*#include ["<](.*?)[">]', line)
        if not included:
            continue
        header = included.group(1)
        internal = re.match(r"(.*)/internal/", header)
        if internal and not path.startswith(f"libs/{internal.group(1)}/"):
            yield f"{path}:{number}: {header} is for libs/{internal.group(1)} alone"
        if header.startswith("fmt/"):
            yield f"{path}:{number}: include <spdlog/{header if header.endswith('ranges.h') else 'fmt/fmt.h'}> instead"


def heading_anchors(text):
    """The anchors that a page has, as GitHub and GitLab make them of its headings."""
    anchors, fenced = set(), False
    for line in text.split("\n"):
        if line.startswith("```"):
            fenced = not fenced
        heading = re.match(r"#{1,6} +(.*?) *#*$", line)
        if heading and not fenced:
            words = re.sub(r"\[(.*?)\]\(.*?\)", r"\1", heading.group(1).replace("`", "").lower())
            anchor = re.sub(r"[^\w\- ]", "", words).replace(" ", "-")
            while anchor in anchors:
                anchor += "-1"
            anchors.add(anchor)
    return anchors


def document_problems(path, text, files):
    """Links to nowhere, and names of source files that are not there, such as `ops/linear.h` or `cuda/backend.h`."""
    folder = (ROOT / path).parent
    fenced = False
    for number, line in enumerate(text.split("\n"), 1):
        if line.startswith("```"):
            fenced = not fenced
        if fenced:
            continue
        for target in re.findall(r"\]\(<?([^)\s>]+)>?\)", re.sub(r"`[^`]*`", "", line)):
            if re.match(r"[a-z]+:", target):
                continue
            name, _, anchor = target.partition("#")
            there = (folder / name) if name else ROOT / path
            if not there.exists():
                yield f"{path}:{number}: the link to {target} leads nowhere"
            elif anchor and there.suffix == ".md" and anchor not in heading_anchors(there.read_text(encoding="utf-8")):
                yield f"{path}:{number}: {name or 'this page'} has no heading #{anchor}"
        for name in re.findall(r"`([\w./-]+/[\w.-]+\.(?:h|cpp|inc|cu|cuh|cmake|sh|py))`", line):
            of_others = name.startswith("nanochat/") or "NAME" in name  # the reference's files, and placeholders
            if not of_others and not any(f"/{file}".endswith(f"/{name}") for file in files):
                yield f"{path}:{number}: there is no {name}"


def shell_problems(paths):
    """shellcheck's warnings; None where it is not installed."""
    tool = shutil.which("shellcheck")
    if tool is None:
        return None
    result = subprocess.run(
        [tool, "--external-sources", "--severity=warning", "--format=gcc", *paths],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )
    return result.stdout.strip().split("\n") if result.returncode != 0 else []


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fix", action="store_true", help="let clang-format rewrite the files")
    arguments = parser.parse_args()
    files = tracked_files()
    if files is None:
        print("style: this is no git checkout, so nothing says which files are the project's")
        return SKIPPED

    problems, absent = [], []
    formatted = format_problems([path for path in files if pathlib.PurePath(path).suffix in CXX], arguments.fix)
    if formatted is None:
        absent.append("clang-format-16")
    else:
        problems += formatted
    shell = shell_problems([path for path in files if path.endswith(".sh") or path == ".ci/run"])
    if shell is None:
        absent.append("shellcheck")
    else:
        problems += shell
    for path in files:
        suffix = pathlib.PurePath(path).suffix
        if suffix in BINARY_OR_FOREIGN:
            continue
        data = (ROOT / path).read_bytes()
        problems += text_problems(path, data)
        text = data.decode("utf-8", errors="replace")
        if suffix in CXX:
            problems += include_problems(path, text)
        if suffix == ".md":
            problems += document_problems(path, text, files)

    for problem in problems:
        print(problem)
    for tool in absent:
        print(f"style: {tool} is not installed; what it checks was passed over")
    if problems:
        print(f"style: {len(problems)} problems")
        return 1
    return SKIPPED if absent else 0


if __name__ == "__main__":
    sys.exit(main())
