"""Torch checkpoints of every layout against what torch itself reads from them.

The files and the expected tensors come from tests/references/torch_checkpoints.py.
"""

from __future__ import annotations

import os
import struct
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from bestiary.core.errors import WeightsError
from bestiary.core.weights import TorchCheckpoint, load, load_file, read_checkpoint, save_file

DATA = Path(__file__).parents[2] / "references" / "data" / "torch_checkpoints"
FILES = sorted(DATA.glob("*.pt"))


def flattened(value, prefix=""):
    """The arrays of a nested value, by the path to them."""
    if isinstance(value, np.ndarray):
        return {prefix: value}
    items = value.items() if isinstance(value, dict) else enumerate(value)
    found = {}
    for name, item in items:
        if isinstance(item, (dict, list, tuple, np.ndarray)):
            found.update(flattened(item, f"{prefix}/{name}" if prefix else str(name)))
    return found


def test_there_are_references():
    assert len(FILES) == 16


@pytest.mark.parametrize("mapped", [False, True], ids=["read", "mapped"])
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_equals_torch(path, mapped):
    want = load_file(path.with_suffix(".safetensors"))
    got = flattened(read_checkpoint(path, mapped=mapped))
    assert got.keys() == want.keys()
    for name, array in got.items():
        if array.dtype == np.complex128:
            array = np.stack([array.real, array.imag], -1)
        assert array.dtype == want[name].dtype, name
        assert array.shape == want[name].shape, name
        assert array.tobytes() == want[name].tobytes(), name
        assert array.flags.aligned


@pytest.mark.parametrize("layout", ["zip", "legacy"])
def test_state_dict_of_a_module(layout):
    path = DATA / f"{layout}_module.pt"
    tensors = load(path)
    assert list(tensors)[:3] == ["0.weight", "0.bias", "1.weight"]
    assert tensors["1.num_batches_tracked"].shape == ()
    with TorchCheckpoint(path) as file:
        assert len(file) == 9
        assert "0.weight" in file
        assert "x" not in file
        assert file.info("0.weight") == (np.dtype(np.float32), (3, 2, 3, 3))
        with pytest.raises(KeyError):
            file["x"]


@pytest.mark.parametrize("layout", ["zip", "legacy"])
@pytest.mark.parametrize("mapped", [False, True])
def test_views_share_memory(layout, mapped):
    tensors = load(DATA / f"{layout}_views.pt", mapped=mapped)
    base = tensors["base"]
    assert tensors["transposed"].strides == base.T.strides
    for name in ("transposed", "strided", "tail", "expanded", "tied"):
        assert np.shares_memory(tensors[name], base), name
    if mapped:
        base[0, 0] = 100  # copy on write
        assert tensors["tied"][0, 0] == 100
        assert load(DATA / f"{layout}_views.pt")["base"][0, 0] == 0


@pytest.mark.parametrize("name", ["zip_nested", "zip_protocol4", "legacy_nested"])
def test_everything_in_a_checkpoint(name):
    value = read_checkpoint(DATA / f"{name}.pt")
    assert (value["epoch"], value["big"], value["best"], value["count"]) == (3, 2**70, 0.875, -7)
    assert value["name"] == "café ☕"
    assert value["size"] == (2, 3)
    assert value["dtype"] == ml_dtypes.bfloat16
    assert value["bytes"] == b"\x00\xff"
    assert value["flags"] == {1, 2}
    assert value["mixed"][:3] == [None, True, (1.5, "x")]
    assert type(value["best"]) is float
    assert value["optimizer"]["param_groups"][0]["lr"] == 0.1
    assert value["optimizer"]["state"][0]["exp_avg"].shape == (2, 3)
    assert list(load(DATA / f"{name}.pt")) == ["weight", "bias"]


def test_bfloat16_and_float8():
    tensors = load(DATA / "zip_dtypes.pt")
    assert tensors["bfloat16"].dtype == ml_dtypes.bfloat16
    assert tensors["float8_e4m3fn"].dtype == ml_dtypes.float8_e4m3fn
    assert tensors["float8_e5m2"].astype(np.float32).tolist() == [[0, 1, 2], [3, 4, 5]]


def test_converting_to_safetensors(tmp_path):
    tensors = load(DATA / "zip_views.pt")
    save_file(tensors, tmp_path / "x.safetensors")
    again = load(tmp_path / "x.safetensors")
    assert all((again[name] == tensors[name]).all() for name in tensors)


def test_a_file_that_changes(tmp_path):
    path = tmp_path / "x.pt"
    path.write_bytes((DATA / "zip_module.pt").read_bytes())
    with TorchCheckpoint(path) as file:
        early = file["0.weight"].copy()
        os.truncate(path, 2000)
        with pytest.raises(WeightsError, match="changed"):
            file["2.weight"]
    assert (early == load(DATA / "zip_module.pt")["0.weight"]).all()


# Which state dict


TENSOR = (
    b"ctorch._utils\n_rebuild_tensor_v2\n((X\x07\0\0\0storagectorch\nFloatStorage\n"
    b"X\x01\0\0\x000X\x03\0\0\0cpuK\x02tQK\0K\x02\x85K\x01\x85\x89}tR"
)
STORAGE = {"0": struct.pack("<2f", 1, 2)}


def text(word):
    raw = word.encode()
    return b"X" + struct.pack("<I", len(raw)) + raw


def dictionary(**items):
    return b"}(" + b"".join(text(name) + value for name, value in items.items()) + b"u"


def program(value):
    return b"\x80\x02" + value + b"."


STATE = dictionary(w=TENSOR)


@pytest.mark.parametrize(
    "value, key, want",
    [
        (STATE, None, ["w"]),
        (dictionary(state_dict=STATE, epoch=b"K\x03"), None, ["w"]),
        (dictionary(params=STATE), None, ["w"]),
        (dictionary(anything=STATE, epoch=b"K\x03"), None, ["w"]),
        (dictionary(model=STATE, teacher=dictionary(t=TENSOR)), None, ["w"]),
        (dictionary(model=STATE, model_ema=dictionary(e=TENSOR)), "model_ema", ["e"]),
        (dictionary(model=STATE, model_ema=dictionary(e=TENSOR)), "model", ["w"]),
        (dictionary(model=STATE, model_ema=dictionary(e=TENSOR)), None, None),
        (dictionary(params=STATE, params_ema=dictionary(e=TENSOR)), None, None),
        (dictionary(net=STATE, model=STATE), None, None),
        (dictionary(one=STATE, two=STATE), None, None),
        (dictionary(model=STATE), "other", None),
        (dictionary(epoch=b"K\x03"), None, None),
        (TENSOR, None, None),
        (b"](" + TENSOR + b"e", None, None),
        (b"}", None, None),
        (b"N", None, None),
    ],
)
def test_which_state_dict(write, torch_zip, value, key, want):
    path = write(torch_zip(program(value), STORAGE), "x.pt")
    if want is not None:
        tensors = load(path, key=key)
        assert list(tensors) == want
        assert tensors[want[0]].tolist() == [1, 2]
        return
    with pytest.raises(WeightsError, match="no weights can be chosen") as caught:
        load(path, key=key)
    message = str(caught.value)
    assert str(path) in message
    assert len(message.splitlines()) <= 12
    assert all(repr(choice) in message for choice in caught.value.choices)
    assert "key=" in message or "read_checkpoint" in message


def test_entries_that_are_no_tensors_are_named(write, torch_zip):
    value = dictionary(w=TENSOR, step=b"K\x05", note=text("x"))
    path = write(torch_zip(program(value), STORAGE), "x.pt")
    with pytest.raises(WeightsError, match=r"'step' \(int\), 'note' \(str\)"):
        load(path)
    assert read_checkpoint(path)["step"] == 5


# Older programs


def test_text_protocol_and_python_2(write, torch_zip):
    value = (
        b"(dp0\nS'a'\np1\nI7\nsS'b'\nF1.5\nsS'c'\nL12345678901234567890L\nsS'd'\nI01\nsS'e'\n(lp2\n"
        b"V\\u00e9\xe9\np3\nag3\nasU\x01f(I1\nI2\ntsg1\ng1\ns."
    )
    want = {
        "a": "a",
        "b": 1.5,
        "c": 12345678901234567890,
        "d": True,
        "e": ["éé", "éé"],
        "f": (1, 2),
    }
    assert read_checkpoint(write(torch_zip(value), "x.pt")) == want


@pytest.mark.parametrize("storage", ["torch.cuda\nFloatStorage", "torch.storage\nFloatStorage"])
def test_other_names_of_storages(write, torch_zip, storage):
    value = TENSOR.replace(b"torch\nFloatStorage", storage.encode())
    assert read_checkpoint(write(torch_zip(program(value), STORAGE), "x.pt")).tolist() == [1, 2]


def test_the_first_rebuild_function(write, torch_zip):
    value = TENSOR.replace(b"_v2", b"").replace(b"\x89}tR", b"tR")
    assert read_checkpoint(write(torch_zip(program(value), STORAGE), "x.pt")).tolist() == [1, 2]


LEGACY = (
    b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
    b"\x80\x02M\xe9\x03."
    b"\x80\x02}X\r\0\0\0little_endian\x88s."
)


def legacy(value, keys, data):
    return LEGACY + program(value) + program(b"](" + b"".join(map(text, keys)) + b"e") + data


def test_legacy_views_of_storages(write):
    """Torch 0.2 named parts of a storage: ("0", 1, 2) is two elements from the second on."""
    view = TENSOR.replace(b"K\x02tQ", b"K\x04" + b"(X\x01\0\0\x001K\x01K\x02ttQ")
    value = b"](" + TENSOR.replace(b"K\x02tQ", b"K\x04NtQ") + view + b"e"
    data = struct.pack("<q4f", 4, 1, 2, 3, 4)
    path = write(legacy(value, ["0"], data), "x.pt")
    whole, part = read_checkpoint(path)
    assert (whole.tolist(), part.tolist()) == ([1, 2], [2, 3])
    assert np.shares_memory(whole, part)
    bad = value.replace(b"K\x01K\x02ttQ", b"K\x03K\x02ttQ")
    with pytest.raises(WeightsError, match="elements 3 to 5"):
        read_checkpoint(write(legacy(bad, ["0"], data), "x.pt"))


def test_long_legacy_programs_are_read_in_growing_parts(write):
    value = b"](" + b"K\x01" * 700_000 + b"e"
    assert read_checkpoint(write(legacy(value, [], b""), "x.pt")) == [1] * 700_000
