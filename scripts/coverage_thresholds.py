"""Fails when gcovr's JSON report shows too few lines, or a public function that no test calls.

Public is what other files can name: neither in an anonymous namespace nor a lambda. What only a GPU runs is left to the tests
that skip where there is none.
"""
import argparse
import json
import re
import subprocess
import sys

INTERNAL = re.compile(r"\(anonymous namespace\)|_GLOBAL__N|\{lambda|::\$_|^_GLOBAL__|^std::|^fmt::|^c10::|^at::")

ON_GPU = re.compile(r"nanochat::ops::(profile_gpu\(|on_gpu<)")


def demangled(names):
    """gcov gives mangled names in its JSON; c++filt leaves others as they are."""
    result = subprocess.run(["c++filt"], input="\n".join(names), capture_output=True, text=True, check=True)
    return result.stdout.split("\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("report")
    parser.add_argument("--lines", type=float, required=True, help="least percentage of lines")
    arguments = parser.parse_args()
    with open(arguments.report, encoding="utf-8") as file:
        report = json.load(file)

    lines = covered = 0
    hits = {}  # a template or an inline function has several instances: one call is enough
    for source in report["files"]:
        counted = [line for line in source["lines"] if not line.get("gcovr/noncode") and not line.get("gcovr/excluded")]
        lines += len(counted)
        covered += sum(line["count"] > 0 for line in counted)
        names = [function.get("demangled_name") or function["name"] for function in source["functions"]]
        for function, name in zip(source["functions"], demangled(names)):
            if INTERNAL.search(name) or ON_GPU.search(name):
                continue
            key = (source["file"], function["lineno"])
            known, count = hits.get(key, (name, 0))
            hits[key] = (known, count + function["execution_count"])

    missed = sorted((file, line, name) for (file, line), (name, count) in hits.items() if count == 0)
    for file, line, name in missed:
        print(f"{file}:{line}: no test calls {name}")
    share = 100 * covered / max(lines, 1)
    print(f"lines {share:.1f} % of {lines}; public functions {len(hits) - len(missed)} of {len(hits)}")
    if missed or share < arguments.lines:
        sys.exit(f"coverage: expected at least {arguments.lines:g} % of lines and every public function")


if __name__ == "__main__":
    main()
