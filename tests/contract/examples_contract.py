"""The examples of docs/serving.md as they are written, but for the port and the model's name: python examples_contract.py NANOCHAT [RUN]"""
import pathlib
import re
import subprocess
import sys
import tempfile

import server

PAGE = pathlib.Path(__file__).parents[2] / "docs/serving.md"


def examples():
    """(language, code) of every block between "## Examples" and the next heading."""
    text = PAGE.read_text().split("\n## Examples\n")[1].split("\n## ")[0]
    return re.findall(r"```(\w+)\n(.*?)```", text, re.DOTALL)


def check(url):
    ran = []
    for language, code in examples():
        if "lm_eval" in code:
            continue  # lm_eval_contract.py
        code = code.replace("http://127.0.0.1:8000", url).replace('model="first"', 'model="tiny"')
        command = [sys.executable, "-c", code] if language == "python" else ["bash", "-ec", code.replace("curl ", "curl -fsS ")]
        result = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=300)
        assert result.returncode == 0 and result.stdout.strip(), (code, result.stdout)
        if language == "bash":
            assert '"object":"chat.completion"' in result.stdout and result.stdout.rstrip().endswith("data: [DONE]"), result.stdout
        ran.append(language)
    assert ran == ["bash", "python", "python", "python"], ran
    print("examples of docs/serving.md passed: curl, openai, anthropic, LangChain")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        run = sys.argv[2] if len(sys.argv) > 2 else server.small_run(sys.argv[1], folder)
        with server.running(sys.argv[1], run) as url:
            check(url)
