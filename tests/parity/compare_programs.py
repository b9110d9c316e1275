"""Compares two builds of nanochat bit for bit: training of every stage, resuming, inference, evaluation and serving.

    python3 tests/parity/compare_programs.py OLD/nanochat NEW/nanochat [--core-bundle FOLDER] [--work FOLDER] [--only NAME]

Kept while the model's code is being restructured; a change that may alter numbers is the end of its use. Both programs
read the same data, which the old one prepares. Every number of metrics.jsonl that is no time or rate must be equal, every
byte of the weights and of the optimizer's state, and every token, log-probability and score. Checkpoints of the old
program are also resumed, evaluated and served by the new one.
"""
import argparse
import concurrent.futures
import hashlib
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "contract"))
import server  # noqa: E402

TIMES = ("_ms", "_seconds", "_per_second", "seconds", "mfu", "created", "fingerprint")
STEPS = 20
SPELLING = '[{"task": "toy-spelling", "size": 60}, {"task": "toy-facts", "size": 20}]'
REWARDED = '[{"task": "toy-spelling", "size": 60}]'
VARIANTS = {
    "plain-float32": (["--dtype", "float32"], ["--n-head", 4]),
    "grouped-float32": (["--dtype", "float32"], ["--n-head", 4, "--n-kv-head", 2]),
    "plain-bfloat16": (["--dtype", "bfloat16"], ["--n-head", 4]),
    "grouped-bfloat16": (["--dtype", "bfloat16"], ["--n-head", 4, "--n-kv-head", 1, "--rope-table-dtype", "bfloat16"]),
}

differences = []


def report(what, equal, detail=""):
    print(f"{'equal    ' if equal else 'DIFFERENT'} {what} {'' if equal else detail}", flush=True)
    if not equal:
        differences.append(what)


def run(program, *arguments):
    """Standard output."""
    command = [str(program), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment())
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(command)}\nexit code {done.returncode}\n{done.stderr[-3000:]}")
    return done.stdout


def environment():
    return {**os.environ, "OMP_NUM_THREADS": "1"}


def without_times(value):
    if isinstance(value, dict):
        return {key: without_times(item) for key, item in value.items() if not key.endswith(TIMES)}
    if isinstance(value, list):
        return [without_times(item) for item in value]
    return value


def metrics(folder):
    return [without_times(json.loads(line)) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def tensors(folder):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.glob("*.safetensors"))}


def compare_runs(what, old, new):
    before, after = metrics(old), metrics(new)
    first = next((pair for pair in zip(before, after) if pair[0] != pair[1]), (len(before), len(after)))
    report(f"{what}: {len(before)} rows of metrics.jsonl", before == after, first)
    steps = sorted(path.name for path in (old / "checkpoints").glob("step-*"))
    assert steps, old
    for step in steps:
        one, other = tensors(old / "checkpoints" / step), tensors(new / "checkpoints" / step)
        report(f"{what}: {step}, {len(one)} files of tensors", one == other, (one, other))


def prepare(program, data):
    run(program, "data", "toy", "--output-dir", data / "toy", "--bytes", 300000, "--quiet")
    run(program, "tokenizer", "train", "--data-dir", data / "toy/toy.jsonl", "--vocab-size", 512, "--output-dir", data / "tokenizer",
        "--quiet")
    run(program, "data", "prepare", "--data-dir", data / "toy/toy.jsonl", "--tokenizer", data / "tokenizer", "--output-dir",
        data / "shards", "--quiet")


def stage_arguments(stage, data, folder, variant):
    runtime, shape = VARIANTS[variant]
    common = ["--quiet", "--threads", 1, *runtime, "--num-iterations", STEPS, "--checkpoint-interval", 10, "--eval-interval", 10]
    if stage == "pretrain":
        return [stage, "--data-dir", data / "shards", "--output-dir", folder / stage, "--depth", 2, *shape, "--sequence-len", 128,
                "--device-batch-size", 4, "--total-batch-size", 1024, "--eval-tokens", 2048, "--sample-interval", 10, *common]
    base = {"midtrain": "pretrain", "sft": "midtrain", "rl": "sft"}[stage]
    if stage == "rl":
        return [stage, "--base-model", folder / base, "--mixture", REWARDED, "--validation-mixture", REWARDED, "--output-dir",
                folder / stage, "--examples-per-step", 2, "--num-samples", 4, "--max-new-tokens", 12, "--eval-examples", 6,
                "--eval-samples", 2, "--device-batch-size", 2, "--init-lr-frac", 0.5, *common]
    return [stage, "--base-model", folder / base, "--mixture", SPELLING, "--output-dir", folder / stage, *common]


def train(program, data, folder, variant):
    for stage in ("pretrain", "midtrain", "sft", "rl"):
        run(program, *stage_arguments(stage, data, folder, variant))


def resume(program, data, old, folder, variant):
    """The old program's checkpoints of step 10, continued by `program`."""
    for stage in ("pretrain", "midtrain", "sft", "rl"):
        shutil.copytree(old / stage, folder / stage, symlinks=True)
        checkpoints = folder / stage / "checkpoints"
        shutil.rmtree(checkpoints / f"step-{STEPS:06}")
        for link in ("latest", "best"):
            (checkpoints / link).unlink(missing_ok=True)
        arguments = stage_arguments(stage, data, folder, variant)
        if "--base-model" in arguments:  # part of the configuration that resuming compares
            place = arguments.index("--base-model") + 1
            arguments[place] = old / arguments[place].name
        run(program, *arguments, "--resume", "latest")


def compare_inference(programs, runs, runtime):
    prompts = ["The capital", "Copper is a metal. Iron", "a", "Spell the word"]
    for model in ("pretrain", "sft", "rl"):
        for kind, options in {"greedy": ["--temperature", 0], "seeded": ["--temperature", 1.1, "--top-k", 40, "--top-p", 0.95, "--seed", 7]}.items():
            answers = []
            for program in programs:
                arguments = [word for prompt in prompts for word in ("--prompt", prompt)]
                answers.append(without_times(json.loads(run(program, "infer", runs / model, *arguments, "--max-tokens", 40, "--json",
                                                            "--quiet", "--threads", 1, *runtime, *options))))
            report(f"infer {kind} from {model}", answers[0] == answers[1], answers)


def compare_evaluation(programs, runs, data, folder, runtime, core_bundle):
    benchmarks = {"bpb": ["--data-dir", data / "shards", "--eval-tokens", 4096]}
    if core_bundle:
        squad = core_bundle / "eval_data/reading_comprehension/squad_1000.jsonl.gz"
        benchmarks["core"] = ["--data-dir", core_bundle, "--max-per-task", 3, "--truncate", "context"]
        if squad.exists():
            benchmarks["core"] += ["--task-file", f"squad={squad}"]
    for name, options in benchmarks.items():
        results = []
        for i, program in enumerate(programs):
            output = folder / f"eval-{name}-{i}"
            run(program, "eval", runs / "sft", "--benchmarks", name, "--output-dir", output, "--quiet", "--threads", 1, "--json",
                "--save-samples", *runtime, *options)
            evaluation = without_times(json.loads((output / "eval.json").read_text()))
            samples = sorted(json.dumps(without_times(json.loads(line))) for line in (output / "examples.jsonl").read_text().splitlines()) \
                if (output / "examples.jsonl").exists() else []
            results.append((evaluation.get("results"), samples))
        report(f"eval {name}: {len(results[0][0])} tasks, {len(results[0][1])} examples", results[0] == results[1], results)


def ask(url, path, body):
    import urllib.request
    request = urllib.request.Request(url + path, data=json.dumps(body).encode(), headers={"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=300) as response:
        answer = without_times(json.load(response))
    for key in ("id", "system_fingerprint"):
        answer.pop(key, None)
    return answer


def serve_answers(program, model, log, runtime):
    process, url = server.start(program, model, log, ["--threads", 1], environment(), dtype=runtime[1])
    try:
        bodies = []
        for temperature in (0, 1.0):
            for i, prompt in enumerate(["The capital of", "Copper is", "Iron is a metal. " * 6, "x"]):
                bodies.append(("/v1/completions", {"model": "tiny", "prompt": prompt, "max_tokens": 24, "temperature": temperature,
                                                   "seed": i, "logprobs": 3, "echo": i == 2, "n": 1 + i % 2}))
            bodies.append(("/v1/chat/completions", {"model": "tiny", "temperature": temperature, "seed": 5, "max_tokens": 24,
                                                    "logprobs": True, "messages": [{"role": "user", "content": "Spell apple"}]}))
        alone = [ask(url, path, body) for path, body in bodies]
        with concurrent.futures.ThreadPoolExecutor(len(bodies)) as pool:
            together = list(pool.map(lambda request: ask(url, *request), bodies))
        return alone, together
    except BaseException:
        process.kill()
        process.wait()
        raise
    finally:
        if process.poll() is None:
            server.stop(process, log)


def compare_serving(programs, runs, folder, runtime):
    for model in ("pretrain", "sft"):
        answers = [serve_answers(program, runs / model, folder / f"serve-{model}-{i}.log", runtime) for i, program in enumerate(programs)]
        report(f"serve {model}: {len(answers[0][0])} requests", answers[0][0] == answers[1][0], answers)

        def without_cache(found):  # how much of a prompt was cached depends on who came first
            return [{key: item for key, item in answer.items() if key != "usage"} for answer in found]
        report(f"serve {model}: the same together", without_cache(answers[0][1]) == without_cache(answers[1][1]), answers)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("old", type=pathlib.Path)
    parser.add_argument("new", type=pathlib.Path)
    parser.add_argument("--core-bundle", type=pathlib.Path)
    parser.add_argument("--work", type=pathlib.Path, help="kept; otherwise a temporary folder")
    parser.add_argument("--only", choices=VARIANTS, action="append", help="may be repeated")
    arguments = parser.parse_args()
    programs = (arguments.old.resolve(), arguments.new.resolve())
    begin = time.monotonic()
    with tempfile.TemporaryDirectory() as temporary:
        work = arguments.work or pathlib.Path(temporary)
        data = work / "data"
        if not data.exists():
            prepare(programs[0], data)
        for variant in arguments.only or VARIANTS:
            runtime = VARIANTS[variant][0]
            old, new, resumed, scores = (work / name / variant for name in ("old", "new", "resumed", "scores"))
            if not old.exists():
                train(programs[0], data, old, variant)
            for folder in (new, resumed, scores):
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir(parents=True)
            train(programs[1], data, new, variant)
            for stage in ("pretrain", "midtrain", "sft", "rl"):
                compare_runs(f"{variant}: {stage}", old / stage, new / stage)
            resume(programs[1], data, old, resumed, variant)
            for stage in ("pretrain", "midtrain", "sft", "rl"):
                compare_runs(f"{variant}: {stage} resumed from the old checkpoint", old / stage, resumed / stage)
            compare_inference(programs, old, runtime)
            compare_evaluation(programs, old, data, scores, runtime, arguments.core_bundle)
            compare_serving(programs, old, scores, runtime)
    print(f"{len(differences)} differences, {time.monotonic() - begin:.0f} s")
    return 1 if differences else 0


if __name__ == "__main__":
    raise SystemExit(main())
