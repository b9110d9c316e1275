#!/usr/bin/env python3
"""Compares `nanochat import` and `nanochat export` with the programs whose files they read and write.

    convert_parity.py --nanochat build/bin/nanochat [--logits build/tests/parity_logits] [--reference FOLDER]

With tiny random models: what transformers saves (one file, several, bfloat16) is imported and continued greedily with
the same 64 tokens; what torch.save writes of the reference's model is imported with the same weights; what is exported
comes back unchanged and loads with torch.load(weights_only=True) and transformers; a tokenizer.pkl that tiktoken
pickles gives the same ids, and so do the pickle and the rank file that are exported. With --reference, a checkout of
karpathy/nanochat at d314e96, its own GPT class makes the .pt and loads ours, and the logits are compared.

Needs torch, transformers, safetensors, regex and tiktoken. Exits with 1 when something differs, with 77 when a package is not
installed.
"""
import argparse
import base64
import importlib
import json
import pathlib
import pickle
import subprocess
import sys
import tempfile
import types

try:
    import regex
    import tiktoken
    import torch
    from safetensors.torch import load_file, save_file
    from transformers import NanoChatForCausalLM
    from transformers.utils import logging as transformers_logging

    from random_model import random_model
except ImportError as error:
    print(f"skipped: {error}", file=sys.stderr)
    sys.exit(77)

CIRCLE_TOLERANCE = 1e-6     # absolute, of logits soft-capped at 15
REFERENCE_TOLERANCE = 2e-4  # the same between two implementations in float32
SPLIT_PATTERN = (r"""'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,2}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]"""
                 r"""|\s+(?!\S)|\s+""")
SPECIAL_TOKENS = ["<|bos|>", "<|user_start|>", "<|user_end|>", "<|assistant_start|>", "<|assistant_end|>",
                  "<|python_start|>", "<|python_end|>", "<|output_start|>", "<|output_end|>"]
TEXTS = [
    "The capital of France is Paris. In 1789, 3.14 and 1,000,000!",
    "  two spaces\n\n\ttab, na\u00efve caf\u00e9, \u4f60\u597d\uff0c\u4e16\u754c, \U0001f600 e\u0301, \u0416\u0451\u043b\u0442\u044b\u0439",
    "def f(x):\n    return x ** 2  # square\r\n\r\n\r\n    x+=1;;;!!!???",
    "it's we'll THEY'RE I'D don't <|bos|> is text here",
    "\u00a0\u2003\u3000 spaces of other kinds \u0660\u0661\u0662 \u00bd \u2168 a\u0000b",
    "x" * 300 + " " * 70 + "\n" * 9,
    "",
]
PROMPT = [3, 1, 4, 1, 5, 9, 2, 6]


class Report:
    def __init__(self):
        self.failed = False

    def check(self, ok, what):
        print(("ok    " if ok else "FAIL  ") + what)
        self.failed = self.failed or not ok


def run(*command):
    command = [str(word) for word in command]
    result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode != 0:
        sys.exit(f"{' '.join(command)}: exit code {result.returncode}: {result.stderr.strip()}")
    return result.stdout


class Program:
    def __init__(self, nanochat, logits):
        self.nanochat, self.tool = nanochat, logits

    def command(self, *words):
        return json.loads(run(self.nanochat, *words, "--json"))

    def logits(self, folder, ids):
        with tempfile.TemporaryDirectory() as scratch:
            scratch = pathlib.Path(scratch)
            save_file({"ids": ids.to(torch.int32).contiguous()}, scratch / "ids.safetensors")
            run(self.tool, folder, scratch / "ids.safetensors", scratch / "logits.safetensors")
            return load_file(scratch / "logits.safetensors")["logits"]

    def greedy(self, folder, tokens):
        return self.command("infer", folder, "--prompt-ids", ",".join(map(str, PROMPT)), "--temperature", 0,
                            "--max-tokens", tokens, "--ignore-eos", "--dtype", "float32")["ids"]


def some_ids(vocab, length, rows=2):
    return torch.randint(0, vocab, (rows, length), generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def greedy_of(model, tokens):
    """Without a cache: transformers' own numbers for every prefix."""
    ids = torch.tensor([PROMPT])
    for _ in range(tokens):
        logits = model(input_ids=ids, use_cache=False).logits[0, -1]
        ids = torch.cat([ids, logits.argmax().view(1, 1)], 1)
    return ids[0, len(PROMPT):].tolist()


def compare_hugging_face(report, program, scratch):
    print("== folders of transformers")
    model = random_model(positions=128)
    forms = {"one file": (torch.float32, {}), "several files": (torch.float32, {"max_shard_size": "100KB"}),
             "bfloat16": (torch.bfloat16, {}), "float16, several files": (torch.float16, {"max_shard_size": "100KB"})}
    for number, (what, (dtype, options)) in enumerate(forms.items()):
        source, imported = scratch / f"hf{number}", scratch / f"hf{number}-imported"
        model.to(dtype).save_pretrained(source, **options)
        rounded = NanoChatForCausalLM.from_pretrained(source, dtype=torch.float32).eval()
        shards = len(list(source.glob("*.safetensors")))
        report.check((shards > 1) == bool(options), f"{what}: transformers wrote {shards} files")
        program.command("import", source, "--output-dir", imported)
        ours, theirs = program.greedy(imported, 64), greedy_of(rounded, 64)
        report.check(ours == theirs, f"{what}: 64 greedy tokens are the same ({len(set(ours))} different ones)")
        direct = program.greedy(source, 64)
        report.check(direct == theirs, f"{what}: also without importing it")


def state_dict(config, dtype):
    """What the reference saves, by its own naming."""
    generator = torch.Generator().manual_seed(5)
    rows = (config["vocab_size"] + 63) // 64 * 64
    width, heads = config["n_embd"], config["n_embd"] // config["n_head"]
    shapes = {"transformer.wte.weight": (rows, width)}
    for i in range(config["n_layer"]):
        shapes |= {f"transformer.h.{i}.attn.c_q.weight": (width, width),
                   f"transformer.h.{i}.attn.c_k.weight": (config["n_kv_head"] * heads, width),
                   f"transformer.h.{i}.attn.c_v.weight": (config["n_kv_head"] * heads, width),
                   f"transformer.h.{i}.attn.c_proj.weight": (width, width),
                   f"transformer.h.{i}.mlp.c_fc.weight": (4 * width, width),
                   f"transformer.h.{i}.mlp.c_proj.weight": (width, 4 * width)}
    shapes["lm_head.weight"] = (rows, width)
    tensors = {name: torch.randn(shape, generator=generator) * 0.15 for name, shape in shapes.items()}
    tensors["transformer.wte.weight"] = tensors["transformer.wte.weight"].to(dtype)
    return tensors


def hf_name(name):
    for ours, theirs in [("transformer.wte", "model.embed_tokens"), ("transformer.h.", "model.layers."),
                         ("attn.c_q", "self_attn.q_proj"), ("attn.c_k", "self_attn.k_proj"),
                         ("attn.c_v", "self_attn.v_proj"), ("attn.c_proj", "self_attn.o_proj"),
                         ("mlp.c_fc", "mlp.fc1"), ("mlp.c_proj", "mlp.fc2")]:
        name = name.replace(ours, theirs)
    return name


def load_reference(folder):
    """The GPT class and loading code of the reference, with stand-ins for what only training needs."""
    sys.path.insert(0, str(folder))
    for module, names in {"rustbpe": ["Tokenizer"]}.items():
        try:
            importlib.import_module(module)
        except ImportError:
            stub = types.ModuleType(module)
            for name in names:
                setattr(stub, name, None)
            sys.modules[module] = stub
    return importlib.import_module("nanochat.gpt"), importlib.import_module("nanochat.checkpoint_manager")


def compare_reference(report, program, scratch, encoding, reference):
    print("== checkpoints of the reference")
    config = {"sequence_len": 64, "vocab_size": encoding.n_vocab, "n_layer": 3, "n_head": 4, "n_kv_head": 2, "n_embd": 64}
    for number, (what, dtype, prefix) in enumerate([("saved on a CPU", torch.float32, ""),
                                                    ("compiled, embedding in bfloat16", torch.bfloat16, "_orig_mod.")]):
        tensors = state_dict(config, dtype)
        base = scratch / f"base{number}"
        source = base / "base_checkpoints" / "d3"
        source.mkdir(parents=True)
        (base / "tokenizer").mkdir()
        torch.save({prefix + name: tensor for name, tensor in tensors.items()}, source / "model_000123.pt")
        meta = {"step": 123, "val_bpb": float("nan"), "model_config": config, "loop_state": {"min_val_bpb": float("inf")}}
        (source / "meta_000123.json").write_text(json.dumps(meta, indent=2))
        with open(base / "tokenizer" / "tokenizer.pkl", "wb") as file:
            pickle.dump(encoding, file)

        imported = scratch / f"pt{number}-imported"
        answer = program.command("import", source, "--output-dir", imported)
        report.check(answer["step"] == 123 and answer["tokenizer"]["vocab_size"] == encoding.n_vocab,
                     f"{what}: imported with its step and the tokenizer beside it")
        weights = load_file(imported / "model.safetensors")
        same = all(torch.equal(weights[hf_name(name)], tensor.float()) for name, tensor in tensors.items())
        report.check(same and len(weights) == len(tensors), f"{what}: {len(weights)} tensors are the same")

        exported = scratch / f"exported{number}" / "d3"
        program.command("export", imported, "--output", exported, "--format", "reference",
                        "--dtype", "bfloat16" if dtype == torch.bfloat16 else "float32")
        back = torch.load(exported / "model_000123.pt", weights_only=True)
        torch.load(exported / "model_000123.pt", weights_only=True, mmap=True)
        same = list(back) == list(tensors) and all(
            back[name].dtype == tensor.dtype and torch.equal(back[name], tensor) for name, tensor in tensors.items())
        report.check(same, f"{what}: torch.load(weights_only=True) gives the same names, types and values")
        again = scratch / f"pt{number}-again"
        program.command("import", exported, "--output-dir", again)
        ids = some_ids(config["vocab_size"], 64)
        difference = (program.logits(again, ids) - program.logits(imported, ids)).abs().max().item()
        report.check(difference <= CIRCLE_TOLERANCE, f"{what}: logits after the circle differ by {difference:.1e}")

        if reference is None:
            continue
        gpt, manager = reference
        manager.get_tokenizer = lambda: types.SimpleNamespace(get_vocab_size=lambda: encoding.n_vocab)
        for folder, whose in [(source, "its own"), (exported, "our")]:
            model, _, _ = manager.build_model(str(folder), 123, torch.device("cpu"), "eval")
            with torch.no_grad():
                theirs = model(ids)
            ours = program.logits(again, ids)
            difference = (ours - theirs).abs().max().item()
            report.check(difference <= REFERENCE_TOLERANCE and theirs.std() > 0.1,
                         f"{what}: the reference loads {whose} .pt, logits differ by at most {difference:.1e}")


@torch.no_grad()
def compare_exports(report, program, scratch):
    print("== folders for transformers")
    source, imported = scratch / "e-hf", scratch / "e-imported"
    model = random_model(positions=128)
    model.save_pretrained(source)
    program.command("import", source, "--output-dir", imported)
    ids = some_ids(333, 100)
    expected = program.logits(imported, ids)
    for number, (what, options) in enumerate({"one file": [], "several files": ["--max-shard-size", "100kB"],
                                              "bfloat16": ["--dtype", "bfloat16"],
                                              "bfloat16, several files": ["--dtype", "bfloat16", "--max-shard-size",
                                                                          "50kB"]}.items()):
        exported, again = scratch / f"e{number}", scratch / f"e{number}-again"
        program.command("export", imported, "--output", exported, *options)
        loaded, info = NanoChatForCausalLM.from_pretrained(exported, dtype="auto", output_loading_info=True)
        problems = {key: value for key, value in info.items() if value}
        dtype = torch.bfloat16 if "--dtype" in options else torch.float32
        # Tables are padded to a multiple of 64 rows; the rows that are no tokens hold zeros here.
        same = all(torch.equal(a[:len(b)], b.to(dtype)) and not a[len(b):].any()
                   for a, b in zip(loaded.parameters(), model.parameters(), strict=True))
        report.check(not problems and same and loaded.dtype == dtype,
                     f"{what}: transformers loads the same weights {problems or ''}")
        program.command("import", exported, "--output-dir", again)
        if dtype == torch.float32:
            difference = (program.logits(again, ids) - expected).abs().max().item()
            report.check(difference <= CIRCLE_TOLERANCE, f"{what}: logits after the circle differ by {difference:.1e}")
        else:
            a, b = load_file(imported / "model.safetensors"), load_file(again / "model.safetensors")
            report.check(all(torch.equal(a[name].bfloat16().float(), b[name]) for name in a),
                         f"{what}: weights after the circle are the rounded ones")
    theirs = model(input_ids=ids, use_cache=False).logits
    difference = (theirs - expected).abs().max().item()
    report.check(difference <= REFERENCE_TOLERANCE, f"imported: logits differ from transformers' by {difference:.1e}")


def make_encoding():
    """A small vocabulary, trained on the texts: the most frequent pair within a piece becomes the next token."""
    ranks = {bytes([i]): i for i in range(256)}
    pieces = [piece.encode() for text in TEXTS for piece in regex.findall(SPLIT_PATTERN, text)]
    while len(ranks) < 400:
        encoding = tiktoken.Encoding(name="rustbpe", pat_str=SPLIT_PATTERN, mergeable_ranks=ranks, special_tokens={})
        pairs = {}
        for piece in pieces:
            tokens = [encoding.decode_single_token_bytes(token) for token in encoding._encode_single_piece(piece)]
            for pair in zip(tokens, tokens[1:]):
                pairs[pair] = pairs.get(pair, 0) + 1
        if not pairs:
            break
        ranks[b"".join(max(pairs, key=lambda pair: (pairs[pair], pair)))] = len(ranks)
    special = {name: len(ranks) + i for i, name in enumerate(SPECIAL_TOKENS)}
    return tiktoken.Encoding(name="rustbpe", pat_str=SPLIT_PATTERN, mergeable_ranks=ranks, special_tokens=special)


def encode_all(program, tokenizer, scratch):
    rows = scratch / "rows.jsonl"
    rows.write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))
    lines = run(program.nanochat, "tokenizer", "encode", "--tokenizer", tokenizer, "--jsonl", rows).splitlines()
    return [json.loads(line)["ids"] for line in lines]


def compare_tokenizers(report, program, scratch, encoding):
    print("== tokenizer.pkl and rank files")
    theirs = [encoding.encode_ordinary(text) for text in TEXTS]
    for protocol in (4, 5):
        path = scratch / f"p{protocol}.pkl"
        with open(path, "wb") as file:
            pickle.dump(encoding, file, protocol=protocol)
        report.check(encode_all(program, path, scratch) == theirs,
                     f"protocol {protocol}: {len(TEXTS)} texts, {sum(map(len, theirs))} ids are tiktoken's")
    program.command("export", scratch / "p4.pkl", "--output", scratch / "ranks.tiktoken", "--format", "tiktoken")
    lines = (scratch / "ranks.tiktoken").read_text().split("\n")
    ranks = {base64.b64decode(line.split()[0]): int(line.split()[1]) for line in lines if line}
    report.check(ranks == encoding._mergeable_ranks, "exported ranks are those of the pickle")
    exported = scratch / "exported0" / "d3" / "tokenizer.pkl"
    with open(exported, "rb") as file:
        back = pickle.load(file)
    report.check([back.encode_ordinary(text) for text in TEXTS] == theirs and back.n_vocab == encoding.n_vocab and
                 back._special_tokens == encoding._special_tokens, "an exported tokenizer.pkl is tiktoken's Encoding again")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nanochat", required=True, type=pathlib.Path)
    parser.add_argument("--logits", type=pathlib.Path)
    parser.add_argument("--reference", type=pathlib.Path)
    arguments = parser.parse_args()
    program = Program(arguments.nanochat,
                      arguments.logits or arguments.nanochat.resolve().parent.parent / "tests" / "parity_logits")
    transformers_logging.disable_progress_bar()
    reference = load_reference(arguments.reference) if arguments.reference else None
    report = Report()
    with tempfile.TemporaryDirectory() as scratch:
        scratch = pathlib.Path(scratch)
        encoding = make_encoding()
        compare_hugging_face(report, program, scratch)
        compare_exports(report, program, scratch)
        compare_reference(report, program, scratch, encoding, reference)
        compare_tokenizers(report, program, scratch, encoding)
    return 1 if report.failed else 0


if __name__ == "__main__":
    sys.exit(main())
