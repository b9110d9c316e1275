"""lm-eval over local files, by both of its API models; its summed log-likelihoods are compared with the server's own scores of the
same ids: python lm_eval_contract.py NANOCHAT [RUN]"""
import json
import os
import pathlib
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


def post(url, path, body):
    request = urllib.request.Request(url + path, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as response:
        return json.load(response)


def check(url, folder):
    import lm_eval
    from lm_eval.tasks import TaskManager
    from lm_eval.utils import RemoteTokenizer

    # lm-eval's remote tokenizer asks for ids without <|bos|>, whatever add_bos_token says; the model wants one in front.
    bare = RemoteTokenizer.encode
    bos = json.loads(server.get(url, "/tokenizer_info")[1])["bos_token_id"]
    RemoteTokenizer.encode = lambda self, text: bare(self, text) if text.startswith("<|") else [bos, *bare(self, text)]

    questions = [("The cat sat on", ["the mat", "a green idea"]), ("Once upon a", ["time", "banana tree"]), ("One and one are", ["two", "seven"])]
    (folder / "choices.jsonl").write_text("".join(json.dumps({"question": q, "choices": c, "answer": 0}) + "\n" for q, c in questions))
    (folder / "generate.jsonl").write_text("".join(json.dumps({"question": q, "answer": c[0]}) + "\n" for q, c in questions))
    (folder / "choices.yaml").write_text(CHOICES.format(folder=folder))
    (folder / "generate.yaml").write_text(GENERATE.format(folder=folder))
    tasks = TaskManager(include_path=str(folder), include_defaults=False)
    common = f"model=tiny,max_length=512,num_concurrent=2,max_retries=1"
    results = lm_eval.simple_evaluate("local-completions", tasks=["local_choices", "local_generate"], task_manager=tasks, log_samples=True,
                                      bootstrap_iters=0, model_args=f"base_url={url}/v1/completions,{common},tokenizer_backend=remote")
    assert set(results["results"]) == {"local_choices", "local_generate"}
    ids = lambda text: post(url, "/tokenize", {"prompt": text, "add_special_tokens": True})["tokens"]
    compared = 0
    for sample in results["samples"]["local_choices"]:
        doc = sample["doc"]
        for choice, response in zip(doc["choices"], sample["filtered_resps"]):
            context, whole = ids(doc["question"]), ids(doc["question"] + " " + choice)
            answer = post(url, "/v1/completions", {"prompt": whole, "max_tokens": 1, "echo": True, "logprobs": 1, "temperature": 0})
            expected = sum(answer["choices"][0]["logprobs"]["token_logprobs"][len(context):-1])
            assert abs(float(response[0]) - expected) < 1e-3, (response, expected)
            compared += 1
    assert compared == 6
    chat = lm_eval.simple_evaluate("local-chat-completions", tasks=["local_generate"], task_manager=tasks, apply_chat_template=True, bootstrap_iters=0,
                                   log_samples=True, model_args=f"base_url={url}/v1/chat/completions,{common},tokenizer_backend=None")
    assert len(chat["samples"]["local_generate"]) == 3
    print("lm-eval", lm_eval.__version__, "passed;", compared, "log-likelihoods compared")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder, server.running(sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else None) as url:
        check(url, pathlib.Path(folder))
