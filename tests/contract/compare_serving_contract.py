"""benchmarks/compare_serving.py finds the libraries of a wheel, which has no links: python compare_serving_contract.py NANOCHAT"""
import importlib.util
import os
import pathlib
import subprocess
import tempfile

SCRIPT = pathlib.Path(__file__).parents[2] / "benchmarks/compare_serving.py"


def load():
    specification = importlib.util.spec_from_file_location("compare_serving", SCRIPT)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


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


def check(folder):
    programs = build(folder)
    before = sorted(programs.iterdir())
    assert subprocess.run([programs / "program"], stderr=subprocess.DEVNULL).returncode != 0, "it needs no link"
    environment = load().llama_environment(programs, folder / "links")
    subprocess.run([programs / "program"], env=environment, check=True)
    assert sorted(link.name for link in (folder / "links").iterdir()) == ["libone.so", "libone.so.0", "libone.so.0.1"]
    assert sorted(programs.iterdir()) == before, "the package was changed"
    (programs / "libone.so.0").symlink_to("libone.so.0.1.2")  # an installation that has its links keeps them
    load().llama_environment(programs, folder / "more")
    assert not (folder / "more" / "libone.so.0").exists()
    print("compare_serving: programs of a wheel find their libraries")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        check(pathlib.Path(name))
