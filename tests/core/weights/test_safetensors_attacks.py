"""TESTPLAN A, rows 1 to 7: headers that are damaged or made to mislead."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import time
import tracemalloc

import numpy as np
import pytest

from bestiary.core.errors import WeightsError
from bestiary.core.weights import SafetensorsFile, load_bytes, load_file, save_sharded
from bestiary.core.weights import header as header_module


def refused(path, *words, **facts):
    """Both ways of reading refuse the file, with the same facts and these words."""
    for read in (load_file, lambda p: load_bytes(p.read_bytes())):
        with pytest.raises(WeightsError) as caught:
            read(path)
        message = str(caught.value)
        for word in words:
            assert word in message
        assert len(message.splitlines()) <= 12
        assert len(message) < 2000
        for name, value in facts.items():
            assert getattr(caught.value, name) == value
    assert str(path) in _message(path)


def _message(path):
    with pytest.raises(WeightsError) as caught:
        SafetensorsFile(path)["a"]
    return str(caught.value)


LENGTHS = [0, 1, 3, 2**31, 2**63, 2**64 - 1]


@pytest.mark.parametrize("length", LENGTHS)
def test_row_1_header_length(write, length):
    path = write(struct.pack("<Q", length) + b"{}")
    refused(path)
    times = []
    for _ in range(3):
        tracemalloc.start()
        start = time.perf_counter()
        with pytest.raises(WeightsError):
            load_file(path)
        times.append(time.perf_counter() - start)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 200_000
    assert min(times) < 0.010


@pytest.mark.parametrize("size", range(8))
def test_row_1_tiny_files(write, size):
    refused(write(b"\x02\0\0\0\0\0\0"[:size]), str(size), got=size, expected=8)


def test_row_2_header_over_the_cap_is_not_read(tmp_path, monkeypatch):
    path = tmp_path / "model.safetensors"
    size = header_module.MAX_HEADER_BYTES + 1
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", size) + b"{")
        file.truncate(8 + size)
    tracemalloc.start()
    with pytest.raises(WeightsError, match="25,000,001"):
        load_file(path)
    assert tracemalloc.get_traced_memory()[1] < 200_000
    tracemalloc.stop()


def test_row_2_the_cap_is_an_argument(write, safetensors_bytes, entry):
    path = write(safetensors_bytes({"a": entry()}, b"abcd"))
    with pytest.raises(WeightsError, match=r"max_header_bytes=\d+") as caught:
        SafetensorsFile(path, max_header_bytes=20)
    assert caught.value.expected == 20
    SafetensorsFile(path, max_header_bytes=caught.value.got).close()


@pytest.mark.parametrize(
    "raw, word",
    [
        (b'{"\xff":1}', "UTF-8"),
        (b"[]", "begins with"),
        (b"nul", "begins with"),
        (b'"ab"', "begins with"),
        (b" {}", "begins with"),
        (b"\xef\xbb\xbf{}", "begins with"),
        (b'{"a":' + b"[" * 5000 + b"]" * 5000 + b"}", "nested"),
        (b'{"a":' * 5000 + b"1" + b"}" * 5000, "nested"),
        (b"{}}", "not JSON"),
        (b"{} {}", "not JSON"),
        (b"{}\0", "not JSON"),
        (b'{"a":NaN}', "NaN"),
        (b'{"a":1.5}', "whole number"),
        (b'{"__metadata__":{"a":1}}', "__metadata__"),
        (b'{"__metadata__":[]}', "__metadata__"),
        (b'{"\\ud800":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}', "surrogate"),
        (b'{"dtype":"F32","shape":[0],"data_offsets":[0,0]}', "without a name"),
        (b'{"a":{"shape":[' + b"9" * 5000 + b"]}}", "not JSON"),
    ],
)
def test_row_3_not_a_header(write, safetensors_bytes, raw, word):
    refused(write(safetensors_bytes(raw)), word)


ONE = '{"dtype":"F32","shape":[1],"data_offsets":[0,4]}'


@pytest.mark.parametrize(
    "raw, name",
    [
        (f'{{"a":{ONE},"a":{ONE}}}', "a"),
        (f'{{"a":{ONE},"\\u0061":{ONE}}}', "a"),
        (f'{{"__metadata__":{{"k":"1","k":"2"}},"a":{ONE}}}', "k"),
        (f'{{"__metadata__":{{}},"a":{ONE},"__metadata__":{{}}}}', "__metadata__"),
        ('{"a":{"dtype":"F32","dtype":"F32","shape":[1],"data_offsets":[0,4]}}', "dtype"),
    ],
)
def test_row_4_duplicate_keys(write, safetensors_bytes, raw, name):
    refused(write(safetensors_bytes(raw, b"abcd")), "twice", repr(name), name=name)


@pytest.mark.parametrize(
    "tensors, data, words",
    [
        ({"a": (0, 4), "b": (2, 6)}, 6, ["'b'", "overlaps", "byte 2", "byte 4"]),
        ({"a": (0, 4), "b": (8, 12)}, 12, ["'b'", "gap", "byte 8"]),
        ({"a": (4, 8)}, 8, ["'a'", "gap", "byte 4"]),
        ({"a": (4, 0)}, 4, ["'a'", "before it begins"]),
        ({"a": (0, 4), "b": (0, 4)}, 4, ["'b'", "overlaps"]),
        ({"a": (-4, 0)}, 4, ["negative"]),
        ({"a": (0, 4.0)}, 4, ["whole number"]),
        ({"a": (0, True)}, 4, ["'a'", "whole numbers"]),
        ({"a": (0, "4")}, 4, ["'a'", "whole numbers"]),
        ({"a": (0, None)}, 4, ["'a'", "whole numbers"]),
        ({"a": (0, [4])}, 4, ["'a'", "whole numbers"]),
        ({"a": (0, 8)}, 8, ["'a'", "needs 4 bytes", "give it 8"]),
        ({"a": (0, 10**400)}, 8, ["'a'", "more than 2**80"]),
        ({"a": (0, 4, 4)}, 4, ["'a'"]),
        ({"a": (0,)}, 4, ["'a'"]),
        ({"a": 4}, 4, ["'a'"]),
    ],
)
def test_row_5_offsets(write, safetensors_bytes, entry, tensors, data, words):
    header = {name: entry(offsets=offsets) for name, offsets in tensors.items()}
    refused(write(safetensors_bytes(header, bytes(data))), *words)


@pytest.mark.parametrize("change", [-1, 1, 5])
def test_row_5_data_too_short_or_long(write, safetensors_bytes, entry, change):
    data = safetensors_bytes({"a": entry(shape=[10], offsets=[0, 40])}, bytes(40 + change))
    full = len(data) - change
    word = "truncated: 1 bytes" if change < 0 else f"{change} bytes follow"
    refused(write(data), word, str(full), str(len(data)), expected=full, got=len(data))


@pytest.mark.parametrize(
    "shape",
    [
        [2**32, 2**32],
        [2**62, 4],
        [2**64],
        [10**30],
        [10**4000] * 64,
        [0, 2**62],
        [2**62, 0],
        [0, 2**64],
        [1] * 65,
        [0] * 65,
        [10**4000] * 100,
        [-1, -1],
        [1.0],
        [True],
        ["1"],
        [[1]],
        [None],
        1,
        None,
        "1",
        {},
    ],
    ids=lambda shape: str(shape)[:30],
)
def test_row_6_shapes(write, safetensors_bytes, entry, shape):
    for offsets, size in ([0, 4], 4), ([0, 0], 0):
        header = {"a": entry(shape=shape, offsets=offsets)}
        refused(write(safetensors_bytes(header, bytes(size))))


@pytest.mark.parametrize(
    "value",
    [
        None,
        4,
        [],
        ["F32", [1], [0, 4]],
        {},
        {"dtype": "F32", "shape": [1]},
        {"dtype": "F32", "shape": [1], "data_offsets": [0, 4], "more": 1},
        {"dtype": {"F32": None}, "shape": [1], "data_offsets": [0, 4]},
        {"dtype": ["F32"], "shape": [1], "data_offsets": [0, 4]},
        {"dtype": 4, "shape": [1], "data_offsets": [0, 4]},
        {"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}},
    ],
)
def test_row_6_descriptions_of_another_form(write, safetensors_bytes, value):
    refused(write(safetensors_bytes({"a": value}, bytes(4))), "'a'")


MEASURE = """
import re, sys, time
from bestiary.core.weights import load_file

def peak():  # not getrusage, whose figure a child inherits
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())[1]) * 1024

before = peak()
times = []
for _ in range(3):  # the processor's time: other processes may be busy
    start = time.process_time()
    tensors = load_file(sys.argv[1])
    times.append(time.process_time() - start)
    assert len(tensors) == 200_000
    del tensors
print(min(times), peak() - before)
"""


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="needs Linux")
def test_row_7_many_empty_tensors(tmp_path, safetensors_bytes, entry):
    names = (f"layers.{i}.weight" for i in range(200_000))
    path = tmp_path / "model.safetensors"
    empty = entry(shape=[0], offsets=[0, 0])
    path.write_bytes(safetensors_bytes(dict.fromkeys(names, empty)))
    command = [sys.executable, "-c", MEASURE, path]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    seconds, grown = map(float, output.split())
    print(f"200,000 empty tensors: {seconds:.2f} s, {grown / 1e6:.0f} MB")
    assert seconds < 1.0
    assert grown < 200e6


@pytest.mark.parametrize("value", [2, 128, 255])
def test_row_7_bool_bytes(write, safetensors_bytes, entry, value):
    header = {"a": entry("BOOL", [3], [0, 3])}
    path = write(safetensors_bytes(header, bytes([0, 1, value])))
    refused(path, "'a'", str(value), got=value)
    with SafetensorsFile(path, mapped=True) as file, pytest.raises(WeightsError):
        file["a"]
    path = write(safetensors_bytes(header, bytes([0, 1, 1])))
    assert load_file(path)["a"].tolist() == [False, True, True]


@pytest.mark.parametrize("name", ["", "\0", "../x", "/etc/passwd", "a\nb", "x" * 5000, "é☕"])
def test_row_7_names_are_never_paths(tmp_path, safetensors_bytes, entry, name):
    path = tmp_path / "in" / "model.safetensors"
    path.parent.mkdir()
    path.write_bytes(safetensors_bytes({name: entry()}, b"abcd"))
    tensors = load_file(path)
    assert list(tensors) == [name]
    save_sharded({name: tensors[name], "b": tensors[name]}, tmp_path / "out", max_shard_bytes=4)
    made = {p.relative_to(tmp_path).parts[0] for p in tmp_path.rglob("*")}
    assert made == {"in", "out"}
    assert len(list((tmp_path / "out").iterdir())) == 3


def test_names_in_messages_are_escaped_and_cut(write, safetensors_bytes, entry):
    name = "\x1b[31m" + "x" * 10_000
    path = write(safetensors_bytes({name: entry(offsets=[1, 5])}, b"abcde"))
    with pytest.raises(WeightsError) as caught:
        load_file(path)
    assert "\x1b" not in str(caught.value)
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize("dtype", ["F8_E8M0", "F4", "F6_E2M3", "F8_E4M3FNUZ", "C128", "f32", ""])
def test_row_8_other_dtypes_are_named(write, safetensors_bytes, entry, dtype):
    path = write(safetensors_bytes({"a": entry(dtype, [0], [0, 0])}))
    refused(path, "'a'", repr(dtype), "BF16", tensor="a", got=dtype)


def test_a_header_without_tensors(write, safetensors_bytes):
    assert load_file(write(safetensors_bytes("{}"))) == {}
    assert load_file(write(safetensors_bytes('{"__metadata__":null}  \n'))) == {}


def test_offsets_may_be_in_another_order_than_names(write, safetensors_bytes, entry):
    header = {"b": entry(offsets=[4, 8]), "e": entry(shape=[0], offsets=[8, 8]), "a": entry()}
    tensors = load_file(write(safetensors_bytes(header, np.float32([1, 2]).tobytes())))
    assert list(tensors) == ["b", "e", "a"]
    assert tensors["a"] == 1
    assert tensors["b"] == 2
