#!/usr/bin/env python3
"""Compares two builds of nanochat bit for bit: same_results.py OLD NEW WORK [--core BUNDLE]

Trains tiny models with every stage in float32 and bfloat16, with and without packed documents, with grouped heads, and
compares figures of metrics.jsonl (times left out) and checkpoints; then resumes, generates, evaluates and serves the
checkpoints of OLD with both. Kept while a redesign has to leave results as they are.
"""
import argparse, hashlib, json, os, pathlib, subprocess, sys, time, urllib.request

parser = argparse.ArgumentParser()
parser.add_argument("old"), parser.add_argument("new"), parser.add_argument("work", type=pathlib.Path)
parser.add_argument("--core", type=os.path.abspath, help="evaluation bundle of CORE")
arguments = parser.parse_args()
work, programs = arguments.work.resolve(), {"old": os.path.abspath(arguments.old), "new": os.path.abspath(arguments.new)}
work.mkdir(parents=True, exist_ok=True)
failures = 0
TIMES = ("seconds", "_ms", "per_second", "mfu", "time", "memory")


def run(which, *words, text=None, check=True):
    result = subprocess.run([programs[which], *map(str, words)], capture_output=True, text=True, input=text, cwd=work,
                            env={**os.environ, "OMP_NUM_THREADS": "2"})
    if check and result.returncode != 0:
        raise SystemExit(f"{which}: {' '.join(map(str, words))}: exit {result.returncode}\n{result.stderr[-2000:]}")
    return result.stdout


def say(name, same, detail=""):
    global failures
    failures += not same
    print(f"{'same  ' if same else 'DIFFER'}  {name} {detail}", flush=True)


def figures(folder):
    rows = [json.loads(line) for line in open(folder / "metrics.jsonl")]
    return [{k: v for k, v in row.items() if not any(t in k for t in TIMES)} for row in rows]


def weights(folder):
    files = sorted((folder / "checkpoints").glob("step-*"))[-1]
    return {f.name: hashlib.sha256(f.read_bytes()).hexdigest() for f in sorted(files.glob("*.safetensors"))}


def both(name, *words):
    folders = {}
    for which in programs:
        folders[which] = work / which / name
        run(which, *words, "--output-dir", folders[which], "--threads", "2", "--device", "cpu", "--quiet")
    old, new = figures(folders["old"]), figures(folders["new"])
    detail = f"({len(new)} rows)"
    if old != new:
        detail = next((f"first: {a} | {b}" for a, b in zip(old, new) if a != b), f"{len(old)} and {len(new)} rows")
    say(f"{name}: metrics", old == new, detail)
    say(f"{name}: checkpoint", weights(folders["old"]) == weights(folders["new"]), " ".join(weights(folders["new"])))
    return folders["old"]


if not (work / "shards").exists():
    run("old", "data", "toy", "--output-dir", "toy", "--bytes", "400000", "--quiet")
    run("old", "tokenizer", "train", "--data-dir", "toy/toy.jsonl", "--vocab-size", "512", "--type", "bpe", "--output-dir", "tokenizer", "--quiet")
    run("old", "data", "prepare", "--data-dir", "toy/toy.jsonl", "--tokenizer", "tokenizer", "--output-dir", "shards", "--quiet")

shape = ["--sequence-len", 128, "--device-batch-size", 4, "--total-batch-size", 1024]
steps = ["--num-iterations", 20, "--eval-interval", 10, "--eval-tokens", 2048, "--skip-bad-steps", 0]
for dtype in ("float32", "bfloat16"):
    for heads in ([], ["--n-embd", 128, "--n-head", 4, "--n-kv-head", 2]):
        tag = f"{dtype}{'-grouped' if heads else ''}"
        pre = both(f"pretrain-{tag}", "pretrain", "--data-dir", "shards", "--depth", 2, *heads, *shape, *steps, "--dtype", dtype,
                   "--sample-interval", -1)
        task = '[{"task": "toy-facts"}, {"task": "toy-arithmetic"}]'
        tune = ["--mixture", task, "--validation-mixture", '[{"task": "toy-facts", "stop": 40}]', "--num-iterations", 20, "--dtype", dtype,
                "--eval-interval", 10]
        mid = both(f"midtrain-{tag}", "midtrain", "--base-model", pre, *tune, "--total-batch-size", 1024, "--device-batch-size", 4)
        sft = both(f"sft-{tag}", "sft", "--base-model", mid, *tune, "--examples-per-step", 8, "--device-batch-size", 4)
        if not heads:
            both(f"sft-padding-{tag}", "sft", "--base-model", mid, *tune, "--examples-per-step", 8, "--device-batch-size", 4, "--packing", "padding")
        # The checkpoint of OLD, resumed by both.
        for which in programs:
            copy = work / which / f"resumed-{tag}"
            subprocess.run(["rm", "-rf", copy], check=True)
            subprocess.run(["cp", "-r", pre, copy], check=True)
            run(which, "pretrain", "--data-dir", "shards", "--depth", 2, *heads, *shape, *steps, "--dtype", dtype, "--sample-interval", -1,
                "--output-dir", copy, "--resume", "latest", "--threads", "2", "--device", "cpu", "--quiet")
        say(f"resume at the end-{tag}", weights(work / "old" / f"resumed-{tag}") == weights(work / "new" / f"resumed-{tag}"))
        prompts = "The capital of France is\nOnce upon a time\nA\n"
        (work / "prompts.txt").write_text(prompts)
        said = {w: run(w, "infer", sft, "--prompts-file", "prompts.txt", "--temperature", 0, "--max-tokens", 40, "--dtype", dtype, "--json",
                       "--device", "cpu") for w in programs}
        ids = {w: [r.get("ids") or r.get("generated_ids") or r.get("text") for r in map(json.loads, said[w].strip().splitlines())] if said[w].strip().startswith("{")
               and len(said[w].strip().splitlines()) > 1 else said[w] for w in programs}
        strip = lambda s: "\n".join(l for l in str(s).splitlines() if not any(t in l for t in TIMES))
        say(f"infer greedy-{tag}", strip(ids["old"]) == strip(ids["new"]))
        if arguments.core:
            scored = {}
            for w in programs:
                out = work / w / f"eval-{tag}"
                run(w, "eval", pre, "--benchmarks", "core", "--data-dir", arguments.core, "--max-per-task", 16, "--dtype", dtype, "--output-dir", out,
                    "--device", "cpu", "--quiet")
                result = json.loads((out / "eval.json").read_text())
                scored[w] = json.dumps({k: v for k, v in result.items() if "core" in k.lower() or k == "benchmarks"}, sort_keys=True)
                scored[w] = "\n".join(x for x in scored[w].split(",") if not any(t in x for t in TIMES))
            say(f"eval core-{tag}", scored["old"] == scored["new"])


def answers(which, port, model, dtype):
    server = subprocess.Popen([programs[which], "serve", model, "--port", str(port), "--dtype", dtype, "--device", "cpu", "--quiet"], cwd=work,
                              stderr=subprocess.DEVNULL)
    try:
        for _ in range(200):
            try:
                if urllib.request.urlopen(f"http://127.0.0.1:{port}/health").status == 200:
                    break
            except OSError:
                time.sleep(0.1)
        said = []
        for temperature, seed in ((0, 1), (0.9, 7), (1.3, 8)):
            body = {"prompt": "The capital of", "max_tokens": 30, "temperature": temperature, "seed": seed, "n": 3, "logprobs": 2}
            request = urllib.request.Request(f"http://127.0.0.1:{port}/v1/completions", json.dumps(body).encode(), {"Content-Type": "application/json"})
            answer = json.loads(urllib.request.urlopen(request).read())
            said.append([(c["text"], c["logprobs"]) for c in answer["choices"]])
        return said
    finally:
        server.terminate()
        server.wait()


for dtype in ("float32", "bfloat16"):
    model = work / "old" / f"sft-{dtype}-grouped"
    said = {w: answers(w, 18411 + i, model, dtype) for i, w in enumerate(programs)}
    say(f"engine answers-{dtype}", said["old"] == said["new"])
print("all the same" if failures == 0 else f"{failures} differ")
sys.exit(failures > 0)
