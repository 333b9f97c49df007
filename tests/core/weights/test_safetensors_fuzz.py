"""TESTPLAN A, row 13: random headers, read by us and by the `safetensors` package.

Headers are made from valid ones by changing their structure, their numbers or their bytes. We
never accept what the package refuses. What we refuse and it accepts is in DIFFERENCES, each with
a test of the file itself, so that nothing else can hide behind them; each must come up.
"""

from __future__ import annotations

import copy
import json
import math
import os
import random
import struct
import time
from collections import Counter

import numpy as np
import pytest
import safetensors

from bestiary.core.errors import WeightsError
from bestiary.core.weights import load_bytes
from bestiary.core.weights.header import DTYPES

ALL_DTYPES = [*DTYPES, "F4", "F6_E2M3", "F6_E3M2", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ"]
FOREIGN = ALL_DTYPES[len(DTYPES) :]
FIELDS = {"dtype", "shape", "data_offsets"}
NUMBERS = [0, 1, 2, 3, 7, 8, 255, 2**31, 2**32, 2**61, 2**62, 2**63 - 1, 2**63, 2**64 - 1, 2**64]
ODD = [-1, 1.0, 1.5, 1e300, True, None, "1", [], {}, [1], "F32", {"F32": None}, 10**30]
NAMES = ["a", "b", "w.0", "", "__metadata__", "é", "\0", "../x", "dtype", "shape"]
ITEM_BITS = {"F4": 4, "F6_E2M3": 6, "F6_E3M2": 6} | dict.fromkeys(FOREIGN[3:], 8)


# What we refuse although the package accepts it. The predicates get (text, pairs, data): the
# header as text, parsed into lists of pairs, and the data.


def leading_space(text, pairs, data):
    return text[:1].isspace()


def duplicate_names(text, pairs, data):
    return any(
        len({n for n, _ in found}) < len(found)
        for found in [pairs, *(v.pairs for _, v in pairs if isinstance(v, Pairs))]
    )


def other_fields(text, pairs, data):
    return any(
        isinstance(v, Pairs) and n != "__metadata__" and {k for k, _ in v.pairs} != FIELDS
        for n, v in pairs
    )


def tensor_as_list(text, pairs, data):
    return any(isinstance(v, list) for _, v in pairs)


def dtype_as_object(text, pairs, data):
    return any(isinstance(v, Pairs) and isinstance(v.get("dtype"), Pairs) for _, v in pairs)


def foreign_dtype(text, pairs, data):
    return any(isinstance(v, Pairs) and v.get("dtype") in FOREIGN for _, v in pairs)


def impossible_shape(text, pairs, data):
    for _, value in pairs:
        shape = value.get("shape") if isinstance(value, Pairs) else None
        if isinstance(shape, list) and all(type(n) is int for n in shape):
            item = DTYPES[value.get("dtype")].itemsize if value.get("dtype") in DTYPES else 1
            if len(shape) > 64 or math.prod(n for n in shape if n) * item >= 2**63:
                return True
    return False


def bool_bytes(text, pairs, data):
    for _, value in pairs:
        if isinstance(value, Pairs) and value.get("dtype") == "BOOL":
            start, end = value.get("data_offsets")
            if any(byte > 1 for byte in data[start:end]):
                return True
    return False


DIFFERENCES = [
    leading_space,
    duplicate_names,
    other_fields,
    tensor_as_list,
    dtype_as_object,
    foreign_dtype,
    impossible_shape,
    bool_bytes,
]


class Pairs:
    """A JSON object with its duplicates."""

    def __init__(self, pairs):
        self.pairs = pairs

    def get(self, name):
        return next((v for n, v in self.pairs if n == name), None)


def explained(raw, data):
    """The differences that a file shows."""
    text = raw.decode()
    pairs = json.loads(text, object_pairs_hook=Pairs).pairs
    return [rule.__name__ for rule in DIFFERENCES if rule(text, pairs, data)]


# Making files


def odd(rng):
    return copy.deepcopy(rng.choice(ODD))


def valid(rng):
    """The pairs of a valid header, and its data."""
    pairs, position = [], 0
    names = rng.sample(NAMES[:4] + NAMES[5:], rng.randint(0, 4))
    for name in names:
        dtype = rng.choice(list(DTYPES) if rng.random() < 0.97 else ALL_DTYPES)
        shape = [rng.choice([0, 1, 1, 2, 3, 4]) for _ in range(rng.choice([0, 1, 1, 2, 3]))]
        bits = DTYPES[dtype].itemsize * 8 if dtype in DTYPES else ITEM_BITS[dtype]
        size = math.prod(shape) * bits // 8
        entry = [["dtype", dtype], ["shape", shape], ["data_offsets", [position, position + size]]]
        pairs.append([name, entry])
        position += size
    rng.shuffle(pairs)
    if rng.random() < 0.2:
        texts = [[rng.choice(NAMES), rng.choice(NAMES)] for _ in range(rng.randint(0, 3))]
        pairs.insert(rng.randint(0, len(pairs)), ["__metadata__", texts])
    return pairs, bytearray(rng.choices((0, 1), k=position))


def tensors_of(pairs):
    """The descriptions of tensors that are still lists of three [name, value] pairs."""
    return [
        entry
        for name, entry in pairs
        if name != "__metadata__"
        and isinstance(entry, list)
        and len(entry) == 3
        and all(isinstance(field, list) and len(field) == 2 for field in entry)
    ]


def change_structure(rng, pairs, data):
    """One change of the header's structure or of the data."""
    tensors = tensors_of(pairs)
    entry = rng.choice(tensors) if tensors else None
    kind = rng.randrange(14)
    if kind == 0:
        pairs.append([rng.choice(NAMES), odd(rng)])
    elif kind == 1 and pairs:
        pairs.append([rng.choice(pairs)[0], rng.choice(pairs)[1]])
    elif kind == 2 and pairs:
        rng.choice(pairs)[0] = rng.choice(NAMES)
    elif kind == 3 and data:
        data[rng.randrange(len(data))] = rng.randrange(256)
    elif kind == 4:
        data.extend(bytes(rng.randint(1, 9)))
    elif kind == 5:
        del data[: rng.randint(1, 9)]
    elif kind == 6 and pairs:
        rng.choice(pairs)[1] = odd(rng)
    elif entry is None:
        return
    elif kind == 7:
        entry[0][1] = rng.choice([*ALL_DTYPES, odd(rng), {"F32": None}])
    elif kind == 8:
        entry[1][1] = [rng.choice(NUMBERS) for _ in range(rng.randint(0, 4))]
        if rng.random() < 0.5:  # empty, but of large sizes
            entry[1][1].insert(rng.randint(0, len(entry[1][1])), 0)
            entry[2][1] = [0, 0]
    elif kind == 9:
        entry[1][1] = [rng.choice((0, 1))] * rng.choice((63, 64, 65, 66))
    elif kind == 10:
        entry[2][1] = [rng.choice(NUMBERS), rng.choice(NUMBERS)]
    elif kind == 11:
        target = rng.choice([e[1] for e in entry[1:] if isinstance(e[1], list)] or [[0]])
        if target:
            target[rng.randrange(len(target))] = rng.choice([odd(rng), *NUMBERS])
    elif kind == 12:
        entry.append(rng.choice([["more", 1], ["dtype", "F32"], ["shape", [1]], ["x", {}]]))
    elif kind == 13:
        rng.shuffle(entry)


def as_list(rng, text, pairs):
    """The package also takes a tensor as the list of its three values."""
    tensors = tensors_of(pairs)
    if not tensors:
        return text
    entry = rng.choice(tensors)
    try:
        return text.replace(dumps(entry), json.dumps([value for _, value in entry]))
    except (TypeError, ValueError):
        return text


def dumps(value):
    """JSON in which a list of [name, value] pairs is an object."""
    if (
        isinstance(value, list)
        and value
        and all(isinstance(v, list) and len(v) == 2 and isinstance(v[0], str) for v in value)
    ):
        return "{" + ",".join(f"{json.dumps(n)}:{dumps(v)}" for n, v in value) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(dumps, value)) + "]"
    return json.dumps(value)


def change_text(rng, text, pairs):
    """One change of the header as text."""
    kind = rng.randrange(8)
    at = rng.randint(0, len(text))
    if kind == 0:
        return rng.choice(" \n\t") + text
    if kind == 1:
        return text + rng.choice([" ", "\n", "\0", "}", "{}", "x"])
    if kind == 2:
        return text[:at] + text[at + 1 :]
    if kind == 3:
        return text[:at] + rng.choice(' {}[],:"0-.eE\\\x01é') + text[at:]
    if kind == 4:
        return as_list(rng, text, pairs)
    if kind == 5:
        return text.replace("0", rng.choice(["-0", "00", "0.0", "0e0", "NaN"]), 1)
    if kind == 6:
        return text.replace(
            '"a"', rng.choice(['"\\u0061"', '"\\ud800"', '"\\ud83d\\ude00"', "'a'"])
        )
    return text.replace(":", rng.choice([" : ", ":\n", "::"]), rng.randint(1, 3))


def make(rng):
    """A random file."""
    pairs, data = valid(rng)
    for _ in range(rng.choice([0, 1, 1, 1, 2])):
        change_structure(rng, pairs, data)
    text = (
        "{}"
        if not pairs
        else "{"
        + ",".join(
            f"{json.dumps(n)}:{dumps(v) if v or n != '__metadata__' else '{}'}" for n, v in pairs
        )
        + "}"
    )
    if rng.random() < 0.3:
        text = change_text(rng, text, pairs)
    raw = text.encode("utf-8", "surrogatepass")
    if raw and rng.random() < 0.03:
        at = rng.randrange(len(raw))
        raw = raw[:at] + bytes([rng.randrange(256)]) + raw[at + 1 :]
    length = len(raw)
    if rng.random() < 0.02:
        length = max(0, length + rng.choice([-8, -1, 1, 8, 2**33, 2**63 - length]))
    return struct.pack("<Q", length) + raw + bytes(data)


def parts(file):
    """The header and the data, where the file says that they are."""
    end = 8 + struct.unpack("<Q", file[:8])[0]
    return file[8:end], file[end:]


# Comparing


def theirs(file):
    try:
        return {
            name: (found["dtype"], found["shape"], bytes(found["data"]))
            for name, found in safetensors.deserialize(file)
        }
    except KeyboardInterrupt:
        raise
    except BaseException:  # a panic of the Rust code is one
        return None


def ours(file):
    try:
        return load_bytes(file)
    except WeightsError:
        return None


def disagreement(file, seen):
    """Read a file both ways; a text when the results differ in an unlisted way."""
    want, got = theirs(file), ours(file)
    if want is None:
        seen["both refuse"] += got is None
        return "we accept what the package refuses" if got is not None else None
    if got is None:
        reasons = explained(*parts(file))
        seen.update(reasons)
        return None if reasons else "we refuse what the package accepts"
    seen["both accept"] += 1
    for name, (dtype, shape, contents) in want.items():
        array = got.get(name)
        if array is None or DTYPES[dtype] != array.dtype or list(array.shape) != shape:
            return f"{name!r} differs"
        if array.tobytes() != contents:
            return f"the values of {name!r} differ"
    return None if len(want) == len(got) else "different names"


def compare(count, seed):
    rng = random.Random(seed)
    seen = Counter()
    for index in range(count):
        file = make(rng)
        problem = disagreement(file, seen)
        assert problem is None, f"seed {seed}, file {index}: {problem}: {file!r}"
    return seen


def check_coverage(seen, count):
    assert seen["both accept"] > 0.2 * count
    assert seen["both refuse"] > 0.2 * count
    assert all(seen[rule.__name__] for rule in DIFFERENCES), seen


def test_row_13_random_headers():
    seed = int(os.environ.get("BESTIARY_FUZZ_SEED", "13"))
    start = time.perf_counter()
    seen = compare(10_000, seed)
    print(f"10,000 headers in {time.perf_counter() - start:.1f} s: {dict(seen)}")
    check_coverage(seen, 10_000)


@pytest.mark.slow
@pytest.mark.timeout(4 * 3600)
def test_row_13_ten_million_random_headers():
    seed = int(os.environ.get("BESTIARY_FUZZ_SEED", time.time_ns()))
    print(f"seed {seed}")
    for part in range(100):
        check_coverage(compare(100_000, seed + part), 100_000)


def test_row_13_random_bytes_are_refused_by_both():
    rng = np.random.default_rng(0)
    for size in list(range(64)) * 20:
        file = rng.bytes(size)
        assert theirs(file) is None
        assert ours(file) is None


@pytest.mark.parametrize("rule", DIFFERENCES, ids=lambda rule: rule.__name__)
def test_the_differences_are_real(rule):
    """Each by hand: the package accepts it, we do not."""
    one = '{"dtype":"F32","shape":[1],"data_offsets":[0,4]}'
    text = {
        "leading_space": f' {{"a":{one}}}',
        "duplicate_names": f'{{"a":{one},"a":{one}}}',
        "other_fields": f'{{"a":{one[:-1]},"more":1}}}}',
        "tensor_as_list": '{"a":["F32",[1],[0,4]]}',
        "dtype_as_object": '{"a":{"dtype":{"F32":null},"shape":[1],"data_offsets":[0,4]}}',
        "foreign_dtype": '{"a":{"dtype":"F8_E8M0","shape":[4],"data_offsets":[0,4]}}',
        "impossible_shape": f'{{"a":{one.replace("[1]", str([1] * 65))}}}',
        "bool_bytes": '{"a":{"dtype":"BOOL","shape":[4],"data_offsets":[0,4]}}',
    }[rule.__name__]
    raw, data = text.encode(), b"abcd"
    file = struct.pack("<Q", len(raw)) + raw + data
    assert theirs(file) is not None
    assert ours(file) is None
    assert explained(raw, data) == [rule.__name__]
