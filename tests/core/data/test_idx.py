"""idx files: read right, or refused before anything is allocated."""

import gzip
import struct

import numpy as np
import pytest

from bestiary.core.data import read_idx
from bestiary.core.errors import DataError

CODES = {"u1": 8, "i1": 9, "i2": 11, "i4": 12, "f4": 13, "f8": 14}


def idx(array):
    kind = array.dtype.str[1:]
    head = bytes([0, 0, CODES[kind], array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    return head + array.astype(array.dtype.newbyteorder(">")).tobytes()


@pytest.mark.parametrize("kind", CODES)
@pytest.mark.parametrize("shape", [(5,), (2, 3), (2, 3, 4), (0, 4), (1, 1, 1, 1)])
def test_all_kinds(kind, shape, tmp_path):
    array = (np.random.default_rng(0).random(shape) * 100).astype(kind)
    for number, content in enumerate((idx(array), gzip.compress(idx(array)))):
        path = tmp_path / f"{number}"
        path.write_bytes(content)
        for source in (path, str(path), content):
            result = read_idx(source)
            assert result.dtype == np.dtype(kind) and result.dtype.isnative
            assert result.flags.writeable
            np.testing.assert_array_equal(result, array)


GOOD = idx(np.arange(12, dtype=np.uint8).reshape(3, 4))


@pytest.mark.parametrize(
    "content, words",
    [
        (b"", "nothing"),
        (GOOD[:3], "not an idx file"),
        (b"\x89PNG" + GOOD[4:], "89 50 4e 47"),
        (b"\0\1" + GOOD[2:], "not an idx file"),
        (b"\0\0\x07\x02" + GOOD[4:], "not an idx file"),
        (b"\0\0\x08\x00", "0 axes"),
        (b"\0\0\x08\xff" + bytes(2000), "255 axes"),
        (GOOD[:9], "inside its header"),
        (GOOD[:-1], r"\(3, 4\).*needs 24 bytes and the file has 23"),
        (GOOD + b"x", "has 25"),
        (b"\0\0\x0e\x04" + b"\xff" * 16, "needs"),  # 2^128 numbers
        (gzip.compress(GOOD)[:-9], "damaged gzip|cut off"),
        (gzip.compress(GOOD[:-1]), "cut off"),
        (gzip.compress(GOOD + b"x"), "goes on"),
        (gzip.compress(b"\0\0\x08\x01\xff\xff\xff\xff"), "cannot hold that many"),
        (b"\x1f\x8b" + bytes(30), "damaged gzip"),
    ],
)
def test_refused(content, words, tmp_path):
    path = tmp_path / "labels-idx"
    path.write_bytes(content)
    with pytest.raises(DataError, match=words) as caught:
        read_idx(path)
    assert caught.value.file == str(path) and str(path) in str(caught.value)
    with pytest.raises(DataError):
        read_idx(content)


def test_damaged_gzip_checksum(tmp_path):
    packed = bytearray(gzip.compress(GOOD))
    packed[-8] ^= 1
    with pytest.raises(DataError, match="gzip"):
        read_idx(bytes(packed))


def test_no_such_file(tmp_path):
    for path in (tmp_path / "no", tmp_path):
        with pytest.raises(DataError, match="cannot be read"):
            read_idx(path)
