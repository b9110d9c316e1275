"""benchmarks/compare_serving.py without llama.cpp: python compare_serving_contract.py NANOCHAT

  - programs of a wheel, which has no links, find their libraries
  - an engine is measured as its program reports it, also where it fails or takes too long, beside those of `nanochat bench infer`
"""
import contextlib
import io
import os
import pathlib
import subprocess
import sys
import tempfile
import time
from unittest import mock

sys.path.insert(0, str(pathlib.Path(__file__).parents[2] / "benchmarks"))
import compare_serving  # noqa: E402

# Lines of llama-batched-bench --output-format jsonl, some of their fields left out; others stand between them.
BATCHED_BENCH = """#!/bin/sh
echo "$@" > {arguments}
echo
for run in "1, 900.5" "1, 1000.25" "1, 1200.5" "2, 1500.0" "2, 2000.5" "2, 2400.5"; do
  echo '{{"n_kv_max": 512, "flash_attn": 1, "pp": 16, "tg": 8, "pl": '${{run%,*}}', "speed_pp": 42000.0, "speed_tg":'${{run#*,}}'}}'
done
{end}
"""


def build(folder):
    """A program and its library as llama.cpp builds them: the program asks for libone.so.0, the file is libone.so.0.1.2."""
    (folder / "one.c").write_text("int one(void) { return 1; }\n")
    (folder / "program.c").write_text("int one(void);\nint main(void) { return one() - 1; }\n")
    programs = folder / "bin"
    programs.mkdir()
    compiler = os.environ.get("CC", "cc")
    subprocess.run([compiler, "-shared", "-fPIC", "-Wl,-soname,libone.so.0", "-o", programs / "libone.so.0.1.2", folder / "one.c"], check=True)
    subprocess.run([compiler, "-o", programs / "program", folder / "program.c", programs / "libone.so.0.1.2", "-Wl,-rpath,$ORIGIN"], check=True)
    return programs


def check_libraries(folder):
    programs = build(folder)
    before = sorted(programs.iterdir())
    assert subprocess.run([programs / "program"], stderr=subprocess.DEVNULL).returncode != 0, "it needs no link"
    environment = compare_serving.llama_environment(programs, folder / "links")
    subprocess.run([programs / "program"], env=environment, check=True)
    assert sorted(link.name for link in (folder / "links").iterdir()) == ["libone.so", "libone.so.0", "libone.so.0.1"]
    assert sorted(programs.iterdir()) == before, "the package was changed"
    (programs / "libone.so.0").symlink_to("libone.so.0.1.2")  # an installation that has its links keeps them
    compare_serving.llama_environment(programs, folder / "more")
    assert not (folder / "more" / "libone.so.0").exists()
    print("compare_serving: programs of a wheel find their libraries")


def compare(nanochat, folder, end, *options, seconds=60):
    """What --engines gives, and what it prints, with a llama-batched-bench that ends so."""
    programs = folder / "fake"
    programs.mkdir(exist_ok=True)
    program = programs / "llama-batched-bench"
    program.write_text(BATCHED_BENCH.format(arguments=folder / "arguments", end=end))
    program.chmod(0o755)
    words = ["compare_serving", "--nanochat", nanochat, "--llama-bin", str(programs), "--engines", "llama", "--depth", "2", "--vocab-size", "512",
             "--prompt-tokens", "16", "--max-tokens", "8", "--streams", "1,2", "--repetitions", "2", "--threads", "1", *options]
    printed = io.StringIO()
    with mock.patch.object(sys, "argv", words), mock.patch.object(compare_serving, "write_llama"):
        args = compare_serving.parse_arguments()
        found = compare_serving.compare_engines(args, time.monotonic() + seconds)
    with contextlib.redirect_stdout(printed):
        compare_serving.print_engines(found, args)
    return found, printed.getvalue()


def check_engines(nanochat, folder):
    found, printed = compare(nanochat, folder, "exit 0")
    ours = found["nanochat"]
    assert set(ours) == {"1", "2"} and min(ours.values()) > 0, found
    assert found["llama"] == {"1": 1100.375, "2": 2200.5}, "the first run of each number of rows warms up"
    assert f"({ours['2'] / 2200.5:.2f}x)" in printed, printed
    arguments = (folder / "arguments").read_text()
    assert "-c 512 " in arguments and "-npl 1,1,1,2,2,2 " in arguments and "-ngl" not in arguments, arguments

    found, printed = compare(nanochat, folder, "echo 'out of memory' >&2; exit 3")
    assert found["llama"] == {"1": 1100.375, "2": 2200.5, "error": "out of memory"} and "llama: out of memory" in printed, found
    with mock.patch.object(compare_serving, "LEAST_SECONDS", 1):
        found, _ = compare(nanochat, folder, "sleep 60 & wait", seconds=1)
    assert found["llama"]["2"] == 2200.5 and found["llama"]["error"] == "not done in time", found
    found, printed = compare(nanochat, folder, "exit 0", "--streams", "1,2,4")
    assert "left out" in found["llama"]["error"] and found["nanochat"]["4"] > 0, found
    found, printed = compare("/nowhere", folder, "exit 0", "--device", "cuda")
    assert "/nowhere" in found["nanochat"]["error"] and found["llama"]["1"] == 1100.375, found
    assert "-ngl 99 -fa on" in (folder / "arguments").read_text()

    python = folder / "python"  # of the engines of PyTorch, each in a process of its own
    python.write_text("#!/bin/sh\necho '[\"1\", 12.5]'\necho 'no memory for 2 rows' >&2\nexit 1\n")
    python.chmod(0o755)
    with mock.patch.object(sys, "executable", str(python)):
        found, _ = compare(nanochat, folder, "exit 0", "--engines", "transformers")
    assert found["transformers"] == {"1": 12.5, "error": "no memory for 2 rows"} and "llama" not in found, found
    print("compare_serving: engines are measured as their programs report")


if __name__ == "__main__":
    for check in (check_libraries, lambda folder: check_engines(sys.argv[1], folder)):
        with tempfile.TemporaryDirectory() as name:
            check(pathlib.Path(name))
