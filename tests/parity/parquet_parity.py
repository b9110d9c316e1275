#!/usr/bin/env python3
"""Compares text read from parquet files with what the PyPI package `pyarrow` reads.

    parquet_parity.py --documents build/release/tests/parity_documents FILE [FILE ...] [--written] [--damage N]

Every column of strings or binary values of every file, inside nested columns too (those by their full path), without
nulls and empty values. A binary column that is not UTF-8 must be refused, and so must a file without such a column.
--written also compares files that pyarrow writes here with every codec, page version and encoding of strings.
--damage N cuts each small file at N random places and flips N random bytes in copies of it: an error (exit code 3), the
same text, or other text where the file has no checksums to tell by; never a crash. Exits with 1 when something differs,
with 77 when `pyarrow` is not installed.
"""
import argparse
import json
import os
import random
import subprocess
import sys
import tempfile


def leaves(array):
    """The values of a column without nulls, however nested."""
    import pyarrow as pa

    if pa.types.is_dictionary(array.type):
        array = array.cast(array.type.value_type)
    for value in array.to_pylist():
        if value is not None:
            yield value


def flatten(value, path):
    """Values at a leaf path of the file's schema inside a value of pyarrow's."""
    if value is None:
        return
    if not path:
        yield value
    elif path[0] in ("list", "bag", "array", "key_value") and isinstance(value, list):
        for item in value:
            if path[0] == "key_value":
                yield from flatten(item[0] if path[1] == "key" else item[1], path[2:])
            else:
                yield from flatten(item, path[2:])
    else:
        yield from flatten(value.get(path[0]), path[1:])


def text_columns(file):
    schema = file.metadata.schema
    for i in range(len(schema.names)):
        column = schema.column(i)
        if column.physical_type == "BYTE_ARRAY" and str(column.logical_type) in ("None", "String", "JSON", "Enum"):
            yield column.path


def expected(file, path):
    """Values in order, or None when one is not UTF-8."""
    parts = path.split(".")
    values = []
    for group in range(file.metadata.num_row_groups):
        for value in leaves(file.read_row_group(group, columns=[path]).column(0)):
            values.extend(flatten(value, parts[1:]))
    try:
        values = [value.decode() if isinstance(value, bytes) else value for value in values]
    except UnicodeDecodeError:
        return None
    return [value for value in values if value]


def read_here(program, column, path):
    done = subprocess.run([program, column, path], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    if done.returncode not in (0, 3):
        sys.exit(f"{path}: the reader ended with {done.returncode}: {done.stderr.decode()[-2000:]}")
    if done.returncode == 3:
        return None, done.stderr.decode().strip()
    return [json.loads(line) for line in done.stdout.split(b"\n") if line], ""


def compare(program, path, limit):
    import pyarrow.parquet as pq

    file = pq.ParquetFile(path)
    columns = list(text_columns(file))
    failed = 0
    if not columns:
        found, error = read_here(program, "", path)
        names = file.metadata.schema.names
        good = found is None and all(name in error for name in names[:5])
        print(f"{os.path.basename(path)}: no column of text: {'refused, naming the columns' if good else 'NOT REFUSED'}")
        return 0 if good else 1
    for column in columns:
        size = sum(
            file.metadata.row_group(g).column(i).total_uncompressed_size
            for g in range(file.metadata.num_row_groups)
            for i in range(file.metadata.num_columns)
            if file.metadata.row_group(g).column(i).path_in_schema == column
        )
        if size > limit:
            print(f"{os.path.basename(path)} {column}: {size} bytes, over --limit: not compared")
            continue
        want = expected(file, column)
        found, error = read_here(program, column, path)
        # A column of empty values and nulls alone is an error that says so.
        same = found == want or (want is None and "invalid UTF-8" in error) or (want == [] and "no text" in error)
        failed += not same
        count = "not UTF-8, refused" if want is None else f"{len(want)} values"
        print(f"{os.path.basename(path)} {column}: {'same' if same else 'DIFFERENT'} ({count}) {'' if same else error}")
    return failed


def write_samples(folder):
    """Files in every form that pyarrow writes."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rng = random.Random(5)
    words = ["", "a", "na\u00efve", "\u4f60\u597d", "\U0001f600", "x" * 3000, "line\nbreak", "the", "of", "and"]
    texts = [None if rng.random() < 0.1 else " ".join(rng.choices(words, k=rng.randrange(12))) for _ in range(5000)]
    table = pa.table({"id": range(len(texts)), "text": texts, "parts": [[t, "b"] if t else [] for t in texts]})
    for codec in ("NONE", "SNAPPY", "GZIP", "BROTLI", "ZSTD", "LZ4"):
        for version in ("1.0", "2.0"):
            path = os.path.join(folder, f"{codec}-{version}.parquet")
            pq.write_table(table, path, compression=codec, data_page_version=version, row_group_size=1700,
                           data_page_size=4096, write_page_checksum=version == "2.0")
            yield path
    for encoding in ("PLAIN", "DELTA_LENGTH_BYTE_ARRAY", "DELTA_BYTE_ARRAY"):
        path = os.path.join(folder, f"{encoding}.parquet")
        pq.write_table(table.select(["id", "text"]), path, use_dictionary=False, column_encoding={"text": encoding})
        yield path
    for kind in (pa.large_string(), pa.binary(), pa.dictionary(pa.int32(), pa.string()), pa.string_view()):
        path = os.path.join(folder, f"{str(kind).split('<')[0]}.parquet")
        pq.write_table(pa.table({"text": pa.array(texts, pa.string()).cast(kind)}), path)
        yield path


def damage(program, path, count, folder):
    import pyarrow.parquet as pq

    data = open(path, "rb").read()
    column = next(text_columns(pq.ParquetFile(path)), "")
    whole, _ = read_here(program, column, path)
    rng = random.Random(os.path.basename(path))
    target = os.path.join(folder, "damaged.parquet")
    results = {"error": 0, "same": 0, "other": 0}
    for kind in ("cut", "flip"):
        for _ in range(count):
            at = rng.randrange(len(data))
            changed = data[:at] if kind == "cut" else data[:at] + bytes([data[at] ^ rng.randrange(1, 256)]) + data[at + 1 :]
            with open(target, "wb") as file:
                file.write(changed)
            found, error = read_here(program, column, target)
            if found is None:
                results["error"] += 1
                if "damaged.parquet" not in error or "\n" in error:
                    sys.exit(f"{path}: not a clear error: {error}")
            else:
                results["same" if found == whole else "other"] += 1
    print(f"{os.path.basename(path)}: {2 * count} damaged: {results}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+")
    parser.add_argument("--documents", required=True, help="the program parity_documents")
    parser.add_argument("--written", action="store_true")
    parser.add_argument("--damage", type=int, default=0)
    parser.add_argument("--limit", type=int, default=1 << 28, help="columns of more bytes are not compared")
    arguments = parser.parse_args()
    try:
        import pyarrow
    except ImportError:
        print("pyarrow is not installed")
        sys.exit(77)
    print("pyarrow", pyarrow.__version__)
    failed = 0
    with tempfile.TemporaryDirectory() as folder:
        for path in arguments.files + (list(write_samples(folder)) if arguments.written else []):
            failed += compare(arguments.documents, path, arguments.limit)
            if arguments.damage and os.path.getsize(path) < 100_000 and "large_string_map" not in path:
                damage(arguments.documents, path, arguments.damage, folder)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
