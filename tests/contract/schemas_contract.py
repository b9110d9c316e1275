"""Constrained answers against other implementations: jsonschema, Pydantic and Python's re.

    python schemas_contract.py build/release/tests/constraint_samples JSONSCHEMA_SDIST [NAME...]

The source package of jsonschema has the JSON-Schema-Test-Suite. NAME: suite, regex, models, formats, choices; all without one.
Needs jsonschema and pydantic.
"""

import collections
import datetime
import decimal
import ipaddress
import json
import random
import re
import subprocess
import sys
import tarfile
import urllib.parse
import uuid

import jsonschema
import pydantic

from pydantic_models import LOOSE, MODELS, Color

ANSWERS = 20
REGEXES = 10_000
LEAST_SHARE = 0.70  # of the suite's schemas that hold for some text


class Samples:
    """The program that draws answers."""

    def __init__(self, program, tokens=0):
        self.program = program
        self.process = subprocess.Popen([program, str(tokens)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8")

    def draw(self, form, value, n=ANSWERS, seed=1):
        self.process.stdin.write(json.dumps({"form": form, "value": value, "n": n, "seed": seed}, default=number_text) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        assert line, f"the program ended at {form} {value}"
        return json.loads(line)


def number_text(value):
    return float(value)


def number(text):
    """Numbers as they are written: jsonschema divides floats with their rounding errors."""
    value = decimal.Decimal(text)
    return int(value) if value == value.to_integral_value() and abs(value) < 10**30 else value


def exact(text):
    return json.loads(text, parse_float=number)


def keywords(schema):
    if isinstance(schema, dict):
        for key, value in schema.items():
            yield key
            yield from keywords(value)
    elif isinstance(schema, list):
        for value in schema:
            yield from keywords(value)


def check_suite(samples, archive):
    folder = "json/tests/draft2020-12/"
    groups = []
    with tarfile.open(archive) as tar:
        for member in sorted(tar.getmembers(), key=lambda one: one.name):
            path = member.name.split("/", 1)[-1]
            if path.startswith(folder) and path.endswith(".json") and "/" not in path[len(folder):]:
                text = tar.extractfile(member).read().decode()
                groups += [(path[len(folder):-5], plain, precise) for plain, precise in zip(json.loads(text), exact(text))]
    assert len(groups) > 300, f"the suite has {len(groups)} schemas"
    accepted = satisfiable = 0
    refused = collections.Counter()
    for name, group, precise in groups:
        schema = group["schema"]
        holds = any(test["valid"] for test in group["tests"])
        result = samples.draw("schema", schema)
        if "error" in result:
            message = result["error"]
            named = any(f"'{key}'" in message or f"{key} is" in message for key in keywords(schema))
            if holds:
                satisfiable += 1
                assert named, f"{name}: {group['description']}: {json.dumps(schema)} is refused without a keyword: {message}"
                refused[name] += 1
            continue
        validator = jsonschema.Draft202012Validator(precise["schema"], format_checker=jsonschema.Draft202012Validator.FORMAT_CHECKER)
        for answer in result["answers"]:
            errors = list(validator.iter_errors(exact(answer)))
            assert not errors, f"{name}: {group['description']}: {json.dumps(schema)}\n  {answer}\n  {errors[0].message}"
        accepted += 1
        satisfiable += 1
    print(f"suite: {len(groups)} schemas, {satisfiable} can hold, {accepted} of them accepted ({accepted / satisfiable:.1%}), "
          f"{accepted * ANSWERS} answers valid")
    print("  refused: " + ", ".join(f"{name} {count}" for name, count in refused.items()))
    assert accepted / satisfiable >= LEAST_SHARE


class RandomRegex:
    def __init__(self, seed):
        self.random = random.Random(seed)

    def character(self):
        return self.random.choice(list("abcxyz019 _-,;@é€😀") + ["\\.", "\\+", "\\n", "\\t", "\\x41", "\\u00e9", "\\/", "\\$"])

    def bracket(self):
        parts = []
        for _ in range(self.random.randint(1, 3)):
            parts.append(self.random.choice(["a-f", "0-9", "x", "é", "\\d", "\\w", "\\s", "\\D", "\\W", "\\S", "α-ω", "\\-", "\\]", ".", "_"]))
        return "[" + self.random.choice(["", "", "^"]) + "".join(parts) + "]"

    def atom(self, depth):
        kind = self.random.random()
        if depth > 0 and kind < 0.25:
            return self.random.choice(["(", "(?:"]) + self.expression(depth - 1) + ")"
        if kind < 0.45:
            return self.bracket()
        if kind < 0.60:
            return self.random.choice(["\\d", "\\w", "\\s", "\\D", "\\W", "\\S", "."])
        return self.character()

    def sequence(self, depth):
        out = ""
        for _ in range(self.random.randint(1, 4)):
            if self.random.random() < 0.04:
                out += self.random.choice(["(?=", "(?!"]) + self.expression(0) + ")"
            if self.random.random() < 0.04:
                out += self.random.choice(["\\b", "\\B"])
            out += self.atom(depth)
            if self.random.random() < 0.35:
                low = self.random.randint(0, 3)
                out += self.random.choice(["*", "+", "?", "*?", "+?", f"{{{low}}}", f"{{{low},}}", f"{{{low},{low + 3}}}"])
        return out

    def expression(self, depth):
        return "|".join(self.sequence(depth) for _ in range(self.random.choice([1, 1, 1, 2, 3])))

    def whole(self):
        text = self.expression(self.random.choice([0, 1, 1, 2]))
        return self.random.choice(["", "^"]) + text + self.random.choice(["", "$"])


def check_regex(samples, _):
    source = RandomRegex(7)
    answers = 0
    reasons = ("no finite value fits it", "its automaton has more than 20,000 states", "takes too long to prepare", "more than 1,000,000 symbols")
    refused = dict.fromkeys(reasons, 0)
    for i in range(REGEXES):
        expression = source.whole()
        compiled = re.compile(expression)
        # In turns the whole answer, and a pattern to be found in a string.
        form, value = ("regex", expression) if i % 2 == 0 else ("schema", {"type": "string", "pattern": expression})
        result = samples.draw(form, value, n=3, seed=i)
        if "error" in result:
            reason = next((reason for reason in refused if reason in result["error"]), None)
            assert reason, f"{expression}: {result['error']}"
            if reason == "no finite value fits it":  # such as "a\\bc"
                assert any(part in expression for part in ("(?", "\\b", "\\B", "^", "$")), expression
            refused[reason] += 1
            continue
        for answer in result["answers"]:
            found = compiled.fullmatch(answer) if form == "regex" else compiled.search(json.loads(answer))
            assert found, f"{expression!r} does not match {answer!r} ({form})"
            answers += 1
    print(f"regex: {REGEXES} random expressions, {answers} answers match; refused: " +
          ", ".join(f"{count} with \"{reason}\"" for reason, count in refused.items()))
    assert sum(refused.values()) < REGEXES / 10
    for wrong, word in (("(a)\\1", "back-references"), ("(?<=a)b", "look-behind"), ("(?i)a", "inline flags"), ("\\p{L}", "\\p"), ("a++", "possessive")):
        message = samples.draw("regex", wrong).get("error", "accepted")
        assert word in message, f"{wrong}: {message}"


FORMATS = {
    "date": datetime.date.fromisoformat,
    "time": lambda text: pydantic.TypeAdapter(datetime.time).validate_python(text),
    "date-time": lambda text: pydantic.TypeAdapter(datetime.datetime).validate_python(text),
    "email": lambda text: re.fullmatch(r"[^@\s]{1,64}@[^@\s]+\.[a-z]+", text) or fail(),
    "hostname": lambda text: (len(text) <= 253 and all(re.fullmatch(r"(?!-)[A-Za-z0-9-]{1,63}(?<!-)", one) for one in text.split("."))) or fail(),
    "ipv4": ipaddress.IPv4Address,
    "ipv6": ipaddress.IPv6Address,
    "uuid": uuid.UUID,
    "uuid4": lambda text: uuid.UUID(text).version == 4 or fail(),
    "uri": lambda text: urllib.parse.urlsplit(text).hostname and pydantic.TypeAdapter(pydantic.HttpUrl).validate_python(text),
    "duration": lambda text: re.fullmatch(r"P(?=.)(\d+W|(\d+Y)?(\d+M)?(\d+D)?(T(?=.)(\d+H)?(\d+M)?(\d+S)?)?)", text) or fail(),
}


def fail():
    raise ValueError("does not match")


def check_formats(samples, _):
    for name, reader in FORMATS.items():
        result = samples.draw("schema", {"type": "string", "format": name}, n=300)
        for answer in result["answers"]:
            try:
                reader(json.loads(answer))
            except Exception as error:
                raise AssertionError(f"format {name}: {answer}: {error}") from error
    message = samples.draw("schema", {"type": "string", "format": "color"})["error"]
    assert "keyword 'format' with \"color\" is not supported" in message, message
    print(f"formats: {len(FORMATS)} formats, 300 answers of each are read")


def check_models(samples, _):
    slowest = 0
    for model in MODELS:
        schema = model.model_json_schema()
        result = samples.draw("schema", schema)
        assert "error" not in result, f"{model.__name__}: {result['error']}\n{json.dumps(schema)}"
        slowest = max(slowest, result["milliseconds"])
        validator = jsonschema.Draft202012Validator(exact(json.dumps(schema)))
        for answer in result["answers"]:
            errors = list(validator.iter_errors(exact(answer)))
            assert not errors, f"{model.__name__}: {answer}\n{errors[0].message}"
            if model.__name__ not in LOOSE:
                model.model_validate_json(answer)
    print(f"models: {len(MODELS)} of Pydantic accepted, {len(MODELS) * ANSWERS} answers are valid, slowest first use {slowest:.1f} ms")
    realistic = Samples(samples.program, 65_536)
    large = pydantic.create_model("Large", **{f"field_{i}": ((int, str, Color, float, list[str])[i % 5], ...) for i in range(200)})
    for name, schema in (("required", large.model_json_schema()), ("optional", {**large.model_json_schema(), "required": []})):
        result = realistic.draw("schema", schema, n=30)
        print(f"  200 properties, {name}, 65,536 tokens: first use {result['milliseconds']:.1f} ms, then {result['mask_microseconds']:.1f} us a token")
        assert result["milliseconds"] < 100


def check_choices(samples, _):
    result = samples.draw("choice", ["yes", "no", "no way", "é"], n=200)
    assert set(result["answers"]) == {"yes", "no", "no way", "é"}, set(result["answers"])
    result = samples.draw("grammar", 'root ::= "a" item{1,2} # comment\nitem ::= [0-9]+ | "(" item ")"\n', n=100)
    for answer in result["answers"]:
        assert answer.startswith("a") and answer.count("(") == answer.count(")"), answer
    for wrong, word in (('root ::= root "a" | "b"', "left recursion"), ('root ::= other', "not defined"), ('rot ::= "a"', 'no rule "root"')):
        message = samples.draw("grammar", wrong).get("error", "accepted")
        assert word in message, message
    print("choices: choices and grammars hold")


def main():
    program, archive, *names = sys.argv[1:]
    checks = {"suite": check_suite, "formats": check_formats, "models": check_models, "choices": check_choices, "regex": check_regex}
    samples = Samples(program)
    for name in names or checks:
        checks[name](samples, archive)


if __name__ == "__main__":
    main()
