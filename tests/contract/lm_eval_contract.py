"""lm-eval over local files, by both of its API models. Its summed log-likelihoods must be those that `nanochat eval` finds for the
same ids: python lm_eval_contract.py NANOCHAT [RUN]

Where lm-eval is not installed, as on a machine with a GPU that has little else, --requests sends the requests itself that lm-eval's
local-completions sends, and reads the answers as it does."""
import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import urllib.request

import server

os.environ.update(HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1", HF_DATASETS_DISABLE_PROGRESS_BARS="1", TOKENIZERS_PARALLELISM="false")

CHOICES = """task: local_choices
dataset_path: json
dataset_kwargs: {{data_files: {{test: {folder}/choices.jsonl}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{question}}}}"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: "{{{{answer}}}}"
target_delimiter: " "
metric_list: [{{metric: acc}}]
"""
# The same task for `nanochat eval`.
CUSTOM = {"name": "choices", "form": "multiple_choice", "data": "choices.jsonl", "query": "{question}", "choices": "choices",
          "gold": "answer", "delimiter": " "}
GENERATE = """task: local_generate
dataset_path: json
dataset_kwargs: {{data_files: {{test: {folder}/generate.jsonl}}}}
test_split: test
output_type: generate_until
doc_to_text: "{{{{question}}}}"
doc_to_target: "{{{{answer}}}}"
generation_kwargs: {{until: ["."], max_gen_toks: 16, temperature: 0}}
metric_list: [{{metric: exact_match}}]
"""


QUESTIONS = [("The cat sat on", ["the mat", "a green idea"]), ("Once upon a", ["time", "banana tree"]),
             ("One and one are", ["two", "seven", "eleven hundred"]), ("The capital of France is", ["Paris", "London", "a big city"]),
             ("Water is", ["wet", "made of small stones and of a good deal of sand"]), ("If it rains, then", ["we get wet", "nobody does"])]
TOLERANCE = 1e-3  # of the sum over a continuation, in nats


def post(url, path, body):
    request = urllib.request.Request(url + path, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as response:
        return json.load(response)


def scores_of_eval(nanochat, run, folder):
    """By token ids: where the continuation begins, and its summed log-likelihood."""
    (folder / "custom.json").write_text(json.dumps(CUSTOM))
    subprocess.run([nanochat, "eval", run, "--benchmarks", "", "--custom-task", folder / "custom.json", "--output-dir", folder / "eval",
                    "--save-samples", "--dtype", "float32", "--quiet"], check=True, stdout=subprocess.DEVNULL)
    scores = {}
    for line in (folder / "eval/examples.jsonl").read_text().splitlines()[1:]:
        example = json.loads(line)
        for loss, option in zip(example["losses"], example["sample"]):
            scores[tuple(option["tokens"])] = (option["start"], -loss * (option["end"] - option["start"]))
    return scores


def compare(scored, samples, expected):
    """`scored`: context, continuation of every request of lm-eval in order; `samples`: what it made of the answers."""
    responses = [response[0] for sample in samples for response in sample["resps"]]
    assert len(scored) == len(responses) == len(expected) == sum(len(choices) for _, choices in QUESTIONS)
    worst = 0.0
    for (context, continuation), response in zip(scored, responses):
        start, log_likelihood = expected[tuple(context + continuation)]  # the ids are identical, or this fails
        assert start == len(context), (start, context, continuation)
        worst = max(worst, abs(float(response[0]) - log_likelihood))
    assert worst < TOLERANCE, worst
    return worst


def write_choices(folder):
    (folder / "choices.jsonl").write_text("".join(json.dumps({"question": q, "choices": c, "answer": 0}) + "\n" for q, c in QUESTIONS))


def check_requests(nanochat, run, url, folder):
    write_choices(folder)
    worst, expected = 0.0, scores_of_eval(nanochat, run, folder)
    assert len(expected) == sum(len(choices) for _, choices in QUESTIONS)
    for tokens, (start, log_likelihood) in expected.items():
        answer = post(url, "/v1/completions", {"model": "tiny", "prompt": [list(tokens)], "temperature": 0, "max_tokens": 1, "logprobs": 1,
                                               "seed": 1234, "echo": True})
        # The last one is of the token that was generated.
        worst = max(worst, abs(sum(answer["choices"][0]["logprobs"]["token_logprobs"][start:-1]) - log_likelihood))
    assert worst < TOLERANCE, worst
    print(len(expected), "log-likelihoods by lm-eval's requests are those of nanochat eval, the worst off by", f"{worst:.1e}")


def check(nanochat, run, url, folder):
    import lm_eval
    from lm_eval.models.api_models import TemplateAPI
    from lm_eval.tasks import TaskManager
    from lm_eval.utils import RemoteTokenizer

    # lm-eval's remote tokenizer asks for ids without <|bos|>, whatever add_bos_token says; the model wants one in front.
    bare = RemoteTokenizer.encode
    bos = json.loads(server.get(url, "/tokenizer_info")[1])["bos_token_id"]
    RemoteTokenizer.encode = lambda self, text: bare(self, text) if text.startswith("<|") else [bos, *bare(self, text)]

    scored = []
    send = TemplateAPI._loglikelihood_tokens
    TemplateAPI._loglikelihood_tokens = lambda self, requests, **options: (
        scored.extend((context, continuation) for _, context, continuation in requests), send(self, requests, **options))[1]

    write_choices(folder)
    (folder / "generate.jsonl").write_text("".join(json.dumps({"question": q, "answer": c[0]}) + "\n" for q, c in QUESTIONS))
    (folder / "choices.yaml").write_text(CHOICES.format(folder=folder))
    (folder / "generate.yaml").write_text(GENERATE.format(folder=folder))
    tasks = TaskManager(include_path=str(folder), include_defaults=False)
    common = f"model=tiny,max_length=512,num_concurrent=2,max_retries=1"
    results = lm_eval.simple_evaluate("local-completions", tasks=["local_choices", "local_generate"], task_manager=tasks, log_samples=True,
                                      bootstrap_iters=0, model_args=f"base_url={url}/v1/completions,{common},tokenizer_backend=remote")
    assert set(results["results"]) == {"local_choices", "local_generate"}
    worst = compare(scored, results["samples"]["local_choices"], scores_of_eval(nanochat, run, folder))
    chat = lm_eval.simple_evaluate("local-chat-completions", tasks=["local_generate"], task_manager=tasks, apply_chat_template=True, bootstrap_iters=0,
                                   log_samples=True, model_args=f"base_url={url}/v1/chat/completions,{common},tokenizer_backend=None")
    for sample in chat["samples"]["local_generate"]:
        answer = post(url, "/v1/chat/completions", {"messages": [{"role": "user", "content": sample["doc"]["question"]}], "max_tokens": 16,
                                                    "temperature": 0, "stop": ["."]})
        assert sample["resps"][0][0] == answer["choices"][0]["message"]["content"], sample["resps"]
    assert len(chat["samples"]["local_generate"]) == len(QUESTIONS)
    print("lm-eval", lm_eval.__version__, "passed;", len(scored), "log-likelihoods are those of nanochat eval, the worst off by", f"{worst:.1e}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("nanochat")
    parser.add_argument("run", nargs="?", help="made when not given")
    parser.add_argument("--requests", action="store_true", help="without lm-eval")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        run = args.run or server.small_run(args.nanochat, folder / "small")
        with server.running(args.nanochat, run) as url:
            (check_requests if args.requests else check)(args.nanochat, run, url, folder)
