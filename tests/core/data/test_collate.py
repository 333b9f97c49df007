"""Batches: structure kept, errors that say which sample."""

import dataclasses
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image

import bestiary as bt
from bestiary.core.data import collate
from bestiary.core.data.collate import Mover, map_arrays, to_tensors
from bestiary.core.devices import CPU
from bestiary.core.errors import DataError, ShapeError


class Pair(NamedTuple):
    image: object
    label: object


@dataclasses.dataclass
class Record:
    x: object
    name: str


def test_arrays_keep_their_dtype():
    for dtype in (np.uint8, np.float32, np.float64, np.bool_, np.int16, bt.bfloat16):
        batch = collate([np.zeros((2, 3), dtype)] * 4)
        assert batch.shape == (4, 2, 3) and batch.dtype == dtype
    assert collate([bt.tensor([1.0, 2.0])] * 2).tolist() == [[1, 2], [1, 2]]


def test_numbers():
    assert collate([1, 2]).dtype == np.int64
    assert collate([1.5, 2]).dtype == np.float32
    assert collate([1, 2.5]).dtype == np.float32
    assert collate([True, False]).dtype == np.bool_
    assert collate([1j, 2]).tolist() == [1j, 2]
    assert collate([np.float64(1), np.float64(2)]).dtype == np.float64
    assert collate([np.uint8(1), np.uint8(2)]).dtype == np.uint8
    assert collate([1, np.asarray(2)]).tolist() == [1, 2]
    with pytest.raises(DataError, match="64 bits"):
        collate([2**70, 1])


def test_texts_stay_lists():
    assert collate(["a", "bc"]) == ["a", "bc"]
    assert collate([b"a", b"b"]) == [b"a", b"b"]
    assert collate([Path("a"), Path("b")]) == [Path("a"), Path("b")]


def test_structures():
    batch = collate([(np.zeros(2), {"a": 1, "b": [1.0, "x"]})] * 3)
    assert type(batch) is tuple
    assert batch[0].shape == (3, 2) and batch[1]["a"].tolist() == [1, 1, 1]
    assert batch[1]["b"][1] == ["x"] * 3 and type(batch[1]["b"]) is list
    pair = collate([Pair(np.zeros(2), 1)] * 2)
    assert type(pair) is Pair and pair.label.tolist() == [1, 1]
    record = collate([Record(1, "a"), Record(2, "b")])
    assert record.x.tolist() == [1, 2] and record.name == ["a", "b"]


@pytest.mark.parametrize(
    "samples, error, words",
    [
        ([], DataError, "at least one sample"),
        ([np.zeros(2), np.zeros(3)], ShapeError, r"\(2,\) and \(3,\)"),
        ([(1, np.zeros(2)), (1, np.zeros(3))], ShapeError, r"sample\[1\]"),
        ([{"a": 1}, {"a": 1, "b": 2}], DataError, "Only one of sample 0 and sample 1.*: b"),
        ([(1, 2), (1, 2, 3)], ShapeError, "a tuple with 2 entries and one with 3"),
        ([1, "a"], DataError, "numbers and str"),
        (["a", 1], DataError, "str and int"),
        ([np.zeros(2), "a"], DataError, "arrays and str"),
        ([(1,), 1], DataError, "tuple and int"),
        ([None, None], DataError, "None has no batch.*return"),
        ([{"a": None}], DataError, r"\(sample\['a'\]\)"),
        ([object()], DataError, "builtins.object has no batch"),
        ([Image.new("RGB", (2, 2))], DataError, r"resize.*\n.*collate=list"),
        ([np.array([None])], DataError, "objects"),
    ],
)
def test_refusals(samples, error, words):
    with pytest.raises(error, match=words) as caught:
        collate(samples)
    assert len(str(caught.value).splitlines()) <= 12


def test_the_odd_sample_is_named():
    with pytest.raises(ShapeError) as caught:
        collate([np.zeros(2), np.zeros(2), np.zeros(3)])
    assert caught.value.samples == (0, 2)
    assert caught.value.shapes == ((2,), (3,))


def test_to_tensors_wraps_without_a_copy():
    array = np.zeros((2, 3))
    batch = to_tensors({"x": array, "names": ["a", "b"], "p": Pair(array, bt.tensor(1))})
    assert isinstance(batch["x"], bt.Tensor) and batch["x"].array is array
    assert batch["names"] == ["a", "b"]
    assert isinstance(batch["p"].label, bt.Tensor)
    record = map_arrays(lambda x: x + 1, Record(np.zeros(2), "n"))
    assert record.x.tolist() == [1, 1] and record.name == "n"


def test_mover_on_the_cpu():
    batch = Mover(CPU)((np.zeros(2), "a"))
    assert isinstance(batch[0], bt.Tensor) and batch[1] == "a"


class FakeGpu:
    """The part of CuPy that the mover uses; copies happen when the stream says so."""

    class ndarray:
        def __init__(self, shape, dtype):
            self.shape, self.dtype = shape, dtype
            self.device = type("Device", (), {"id": 0})()
            self.content = None

        def set(self, source, stream):
            stream.copies.append((self, source))

    def __init__(self):
        stream = self.stream = type("Stream", (), {"copies": []})()
        allocated = self.allocated = []

        class Event:
            def record(self):
                self.number = len(stream.copies)
                self.after = list(stream.copies)

            @property
            def done(self):
                return not any(copy in stream.copies for copy in self.after)

        class Device:
            def __init__(self, index):
                assert index == 0

            __enter__ = __exit__ = lambda self, *_: None

        class cuda:
            runtime = type("R", (), {"getDeviceCount": staticmethod(lambda: 1)})
            get_current_stream = staticmethod(lambda: stream)

            @staticmethod
            def alloc_pinned_memory(size):
                allocated.append(size)
                return bytearray(size)

        cuda.Event, cuda.Device = Event, Device
        self.cuda = cuda

    def empty(self, shape, dtype):
        return self.ndarray(shape, dtype)

    def run_copies(self):
        for target, source in self.stream.copies:
            target.content = source.copy()
        self.stream.copies.clear()


def test_mover_to_a_gpu_keeps_buffers_until_they_are_copied():
    from bestiary.core import devices

    gpu = FakeGpu()
    devices.register_backend(devices.Backend("cuda", gpu, FakeGpu.ndarray))
    try:
        move = Mover(devices.Device("cuda"))
        first = np.arange(6, dtype=np.float32).reshape(2, 3)
        half = np.ones(4, bt.bfloat16)
        batch = move({"x": first, "h": half, "names": ["a"]})
        first[...] = -1  # the worker's memory is used again; the pinned copy is not touched
        assert len(move._pending) == 2
        move((np.zeros(3),))
        assert len(move._pending) == 3  # nothing is finished yet
        gpu.run_copies()
        assert batch["x"].array.content.tolist() == [[0, 1, 2], [3, 4, 5]]
        assert batch["h"].array.content.dtype == bt.bfloat16
        assert batch["names"] == ["a"]
        move((np.zeros(5),))
        assert len(move._pending) == 1
    finally:
        devices.unregister_backend("cuda")
