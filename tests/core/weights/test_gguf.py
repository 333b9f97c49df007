"""GGUF files: what is read, and that nothing in a header is taken on trust (TESTPLAN 35a)."""

from __future__ import annotations

import struct
import time
import tracemalloc

import numpy as np
import pytest

import bestiary as bt
from bestiary.core.errors import WeightsError
from bestiary.core.quantization import FORMATS, pack
from bestiary.core.weights import GgufFile

KINDS = {"q4_0": 2, "q4_1": 3, "q8_0": 8}


@pytest.fixture
def refused(write):
    """The message with which a file is refused, in no time and next to no memory."""

    def refused(data: bytes, **options) -> str:
        path = write(data, "model.gguf")
        tracemalloc.start()
        start = time.perf_counter()
        with pytest.raises(WeightsError) as caught:
            GgufFile(path, **options)
        seconds, peak = time.perf_counter() - start, tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert seconds < 0.2 and peak < 2_000_000 + 4 * len(data)
        assert str(path) in str(caught.value)
        return str(caught.value)

    return refused


def test_metadata_of_every_type(write, gguf_bytes) -> None:
    values = [
        ("u8", 0, 255),
        ("i8", 1, -1),
        ("u16", 2, 65535),
        ("i16", 3, -2),
        ("u32", 4, 2**32 - 1),
        ("i32", 5, -3),
        ("f32", 6, 0.5),
        ("bool", 7, True),
        ("text", 8, "Grüße"),
        ("u64", 10, 2**64 - 1),
        ("i64", 11, -(2**63)),
        ("f64", 12, 0.1),
        ("numbers", 9, (5, [1, -2, 3])),
        ("texts", 9, (8, ["a", "", "ü"])),
        ("truths", 9, (7, [True, False])),
        ("nested", 9, (9, [(8, ["x"]), (8, [])])),
        ("none", 9, (8, [])),
    ]
    for version in (2, 3):
        with GgufFile(write(gguf_bytes(values, version=version))) as file:
            found = file.metadata
        assert list(found) == [key for key, _, _ in values]
        for key, kind, value in values:
            if kind != 9:
                assert found[key] == value and type(found[key]) is type(value)
        assert found["numbers"].tolist() == [1, -2, 3] and found["numbers"].dtype == np.int32
        assert found["texts"] == ["a", "", "ü"] and found["none"] == []
        assert found["truths"].tolist() == [True, False] and found["nested"] == [["x"], []]


@pytest.mark.parametrize("mapped", [False, True])
def test_tensors_of_plain_numbers_and_of_blocks(write, gguf_bytes, mapped) -> None:
    rng = np.random.default_rng(0)
    wide = rng.normal(size=(3, 64)).astype(np.float32)
    plain = [(0, wide), (1, wide.astype(np.float16)), (30, wide.astype(bt.bfloat16))]
    plain += [(24, np.arange(5, dtype=np.int8)), (27, np.arange(3)), (28, np.float64(0.5))]
    tensors, data, want = [], b"", {}
    for kind, array in plain:
        array = np.asarray(array)
        tensors.append((f"p{kind}", array.shape[::-1], kind, len(data)))
        data += array.tobytes()
        data += bytes(-len(data) % 32)
        want[f"p{kind}"] = array
    for name, kind in KINDS.items():
        tensors.append((name, (64, 3), kind, len(data)))
        data += pack(wide, name).tobytes()
        data += bytes(-len(data) % 32)
    with GgufFile(write(gguf_bytes((), tensors, data)), mapped) as file:
        assert sorted(file) == sorted(name for name, *_ in tensors)
        for name, array in want.items():
            assert file[name].dtype == array.dtype and file[name].shape == array.shape
            assert file[name].tobytes() == array.tobytes()
            assert file.info(name) == (array.dtype, array.shape)
        for name in KINDS:
            assert file.info(name) == (np.float32, (3, 64)) and file.format(name) == name
            form, rows = file.packed(name)
            assert form == name and rows.tobytes() == pack(wide, name).tobytes()
            assert np.abs(file[name] - wide).max() < 0.5
        assert file.packed("p0") is None and file.packed("p1")[0] == "float16"
    assert bt.weights.load(file.path)["q8_0"].shape == (3, 64)


def test_another_alignment(write, gguf_bytes) -> None:
    file = gguf_bytes(
        [("general.alignment", 4, 64)],
        [("a", (2,), 0, 0), ("b", (2,), 0, 64)],
        struct.pack("<2f", 1, 2) + bytes(56) + struct.pack("<2f", 3, 4),
        alignment=64,
    )
    with GgufFile(write(file)) as opened:
        assert opened["b"].tolist() == [3, 4]


def test_every_cut_of_a_file_is_refused(refused, gguf_bytes) -> None:
    whole = gguf_bytes(
        [("k", 8, "text"), ("l", 9, (8, ["a", "b"]))], [("w", (2, 2), 0, 0)], bytes(16)
    )
    for size in range(len(whole)):
        refused(whole[:size])


@pytest.mark.parametrize(
    "data, says",
    [
        (b"GGML" + bytes(40), "begin with GGUF"),
        (b"GGUF" + struct.pack("<IQQ", 1, 0, 0), "version 1"),
        (b"GGUF" + struct.pack(">IQQ", 3, 0, 0), "big-endian"),
        (b"GGUF" + struct.pack("<IQQ", 3, 2**64 - 1, 0), "tensors"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 2**63), "metadata"),
    ],
)
def test_the_beginning(refused, data, says) -> None:
    assert says in refused(data)


def test_metadata_that_lies(refused, gguf_bytes) -> None:
    head = b"GGUF" + struct.pack("<IQQ", 3, 0, 1)
    key = struct.pack("<Q", 1) + b"k"
    rest = bytes(64)
    assert "promises" in refused(head + struct.pack("<Q", 2**64 - 1) + rest)
    assert "promises" in refused(head + key + struct.pack("<IQ", 8, 2**62) + rest)
    for inner in (0, 7, 8, 9, 12):
        raw = head + key + struct.pack("<IIQ", 9, inner, 2**61) + rest
        assert "promises" in refused(raw), inner
    assert "type 13" in refused(head + key + struct.pack("<I", 13) + rest)
    assert "type 99" in refused(head + key + struct.pack("<IIQ", 9, 99, 1) + rest)
    assert "truth value" in refused(head + key + struct.pack("<IB", 7, 2) + rest)
    deep = b"".join(struct.pack("<IQ", 9, 1) for _ in range(5000))
    assert "lists" in refused(head + key + struct.pack("<I", 9) + deep + rest)
    assert "UTF-8" in refused(gguf_bytes([(b"\xff", 4, 1)]))
    assert "UTF-8" in refused(gguf_bytes([("k", 8, b"\xff")]))
    assert "twice" in refused(gguf_bytes([("k", 4, 1), ("k", 4, 1)]))
    assert "more than 65,535" in refused(gguf_bytes([("k" * 65536, 4, 1)]))


@pytest.mark.parametrize("value", [(4, 0), (4, 24), (4, 2**21), (8, "32"), (6, 32.0), (5, -32)])
def test_alignments_that_are_none(refused, gguf_bytes, value) -> None:
    kind, number = value
    assert "power of 2" in refused(gguf_bytes([("general.alignment", kind, number)]))


def test_tensors_that_lie(refused, gguf_bytes) -> None:
    def of(*tensors, data: bytes = bytes(64)) -> str:
        return refused(gguf_bytes((), tensors, data))

    assert "two tensors" in of(("a", (8,), 0, 0), ("a", (8,), 0, 32))
    assert "axes" in of(("a", (1,) * 5, 0, 0))
    assert "axes" in refused(
        gguf_bytes((), [("a", (), 0, 0)], bytes(4)).replace(
            b"a" + struct.pack("<I", 0), b"a" + struct.pack("<I", 2**32 - 1)
        )
    )
    assert "type 4" in of(("a", (8,), 4, 0))  # formats that were given up
    assert "Q2_K" in of(("a", (256,), 10, 0)) and "Q4_1" in of(("a", (256,), 10, 0))
    assert "blocks of 32" in of(("a", (8,), 8, 0)) and "blocks of 256" in of(("a", (32,), 14, 0))
    assert "blocks" in of(("a", (), 8, 0))
    assert "no array" in of(("a", (2**62,), 0, 0)) and "no array" in of(("a", (2**62, 0), 0, 0))
    assert "no array" in of(("a", (2**32, 2**32), 0, 0))
    assert "take" in of(("a", (2**40,), 0, 0))
    assert "take" in of(("a", (17,), 0, 0))  # data short of one number
    assert "take" in of(("a", (1,), 0, 0))  # more than padding behind it
    assert "overlaps" in of(("a", (8,), 0, 0), ("b", (8,), 0, 0))
    assert "gap" in of(("a", (8,), 0, 32)) and "gap" in of(("a", (8,), 0, 2**64 - 1))
    assert "overlaps" in of(("a", (9,), 0, 0), ("b", (7,), 0, 36))  # not aligned
    assert "take" in refused(gguf_bytes() + bytes(100))


def test_a_header_over_the_cap(refused, gguf_bytes) -> None:
    data = gguf_bytes([("k", 8, "x" * 5000)])
    assert "limit" in refused(data, max_header_bytes=4096)


def test_many_tensors(write, gguf_bytes) -> None:
    count = 50_000
    one = gguf_bytes((), [("x" * 8, (1,), 0, 0)])[24:60]
    raw = [b"GGUF" + struct.pack("<IQQ", 3, count, 0)]
    for i in range(count):
        raw.append(one[:8] + f"{i:08}".encode() + one[16:28] + struct.pack("<IQ", 0, 32 * i))
    head = b"".join(raw)
    path = write(head + bytes(-len(head) % 32) + bytes(32 * count))
    start = time.perf_counter()
    with GgufFile(path) as file:
        assert len(file) == count
    assert time.perf_counter() - start < 2


def test_names_are_no_paths(write, gguf_bytes) -> None:
    path = write(gguf_bytes((), [("../x", (1,), 0, 0), ("", (1,), 0, 32)], bytes(64)))
    with GgufFile(path) as file:
        assert sorted(file) == ["", "../x"]


def test_a_file_that_changes_is_noticed(write, gguf_bytes) -> None:
    data = gguf_bytes((), [("a", (8,), 0, 0)], bytes(32))
    path = write(data)
    with GgufFile(path) as file:
        path.write_bytes(data + data)
        with pytest.raises(WeightsError, match="changed"):
            file["a"]


def test_formats_have_whole_blocks() -> None:
    assert {form.name: round(form.bits, 3) for form in FORMATS.values()} == {
        "q8_0": 8.5,
        "q4_0": 4.5,
        "q4_1": 5.0,
        "q5_0": 5.5,
        "q5_1": 6.0,
        "q4_k": 4.5,
        "q5_k": 5.5,
        "q6_k": 6.562,
        "int8": 8.0,
        "bfloat16": 16.0,
        "float16": 16.0,
    }
