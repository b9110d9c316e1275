"""Answers of a server under JSON schemas: 50 for each of 20 schemas, 32 at a time, each of which must be valid.

    python constrained_contract.py build/cuda/bin/nanochat [--device cuda] [--model RUN] [--answers FILE]
    python constrained_contract.py --check FILE

Validates with jsonschema. On a machine that lacks it, --answers keeps the answers, and --check validates them elsewhere.
"""
import argparse
import collections
import concurrent.futures
import json
import pathlib
import sys
import urllib.request

import server

EACH = 50


def record(required=None, **properties):
    return {"type": "object", "properties": properties, "required": list(properties) if required is None else required,
            "additionalProperties": False}


TEXT, COUNT, FLAG = {"type": "string", "maxLength": 12}, {"type": "integer"}, {"type": "boolean"}
POINT = record(x={"type": "number"}, y={"type": "number"})
SCHEMAS = (
    COUNT,
    {"type": "integer", "minimum": -3, "maximum": 250},
    {"type": "number", "minimum": 0, "maximum": 1},
    TEXT,
    {"type": "string", "minLength": 2, "maxLength": 5},
    {"type": "string", "pattern": "^[A-Z]{2}[0-9]{3}$"},
    {"type": "string", "format": "date"},
    {"enum": ["red", "green", "blue", 3, None]},
    {"const": {"version": 1}},
    FLAG,
    {"type": "array", "items": COUNT, "minItems": 2, "maxItems": 4},
    {"type": "array", "items": {"enum": ["a", "b"]}, "maxItems": 6},
    {"type": "array", "prefixItems": [TEXT, COUNT], "items": False, "minItems": 2},
    record(name=TEXT, age={"type": "integer", "minimum": 0, "maximum": 150}),
    record(required=["name"], name=TEXT, email=TEXT, adult=FLAG),
    record(a=POINT, b=POINT),
    record(kind={"enum": ["circle", "square"]}, sizes={"type": "array", "items": {"type": "number"}, "maxItems": 3}),
    {"anyOf": [COUNT, record(error=TEXT)]},
    {"type": ["string", "null"], "maxLength": 4},
    {"$defs": {"node": record(required=["value"], value=COUNT, next={"$ref": "#/$defs/node"})}, "$ref": "#/$defs/node"},
)


def ask(url, index, seed):
    body = {"model": "tiny", "messages": [{"role": "user", "content": f"Example {seed}"}], "max_tokens": 200, "seed": seed,
            "temperature": (0.0, 0.7, 1.0, 1.5)[seed % 4], "top_p": (1.0, 0.9)[seed % 2],
            "response_format": {"type": "json_schema", "json_schema": {"name": "answer", "schema": SCHEMAS[index]}}}
    request = urllib.request.Request(url + "/v1/chat/completions", json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=300) as response:
        choice = json.load(response)["choices"][0]
    return {"schema": index, "seed": seed, "text": choice["message"]["content"], "finish_reason": choice["finish_reason"]}


def collect(arguments):
    with server.running(arguments.program, arguments.model, ["--device", arguments.device], dtype=arguments.dtype) as url:
        with concurrent.futures.ThreadPoolExecutor(32) as pool:
            wanted = [(index, seed) for seed in range(EACH) for index in range(len(SCHEMAS))]
            return list(pool.map(lambda one: ask(url, *one), wanted))


def check(answers):
    import jsonschema

    wrong = collections.Counter()
    for answer in answers:
        schema = SCHEMAS[answer["schema"]]
        validator = jsonschema.Draft202012Validator(schema, format_checker=jsonschema.Draft202012Validator.FORMAT_CHECKER)
        try:
            errors = [error.message for error in validator.iter_errors(json.loads(answer["text"]))]
        except json.JSONDecodeError as error:
            errors = [str(error)]
        if answer["finish_reason"] != "stop":
            errors.append(f"finish_reason is {answer['finish_reason']}")
        if errors:
            wrong[answer["schema"]] += 1
            print(f"{json.dumps(schema)}, seed {answer['seed']}: {answer['text']!r}: {errors[0]}")
    texts = len({(answer["schema"], answer["text"]) for answer in answers})
    print(f"{len(answers) - wrong.total()} of {len(answers)} answers over {len(SCHEMAS)} schemas are valid, {texts} are different")
    return not wrong and len(answers) == EACH * len(SCHEMAS)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program", nargs="?")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--model", help="a run or a checkpoint; a small model is trained without it")
    parser.add_argument("--answers", metavar="FILE", help="write the answers instead of validating them")
    parser.add_argument("--check", metavar="FILE", help="validate the answers of another run")
    arguments = parser.parse_args()
    if arguments.check:
        sys.exit(not check(json.loads(pathlib.Path(arguments.check).read_text())))
    answers = collect(arguments)
    if not arguments.answers:
        sys.exit(not check(answers))
    pathlib.Path(arguments.answers).write_text(json.dumps(answers))
    print(f"{len(answers)} answers are in {arguments.answers}")


if __name__ == "__main__":
    main()
