"""TESTPLAN A, row 15 and ERRORS 28: which file is loaded, and what is said of what is none."""

from __future__ import annotations

import errno
import gzip
import pickle
import random
from pathlib import Path

import numpy as np
import pytest

from bestiary.core.errors import WeightsError
from bestiary.core.weights import (
    choose_weight_file,
    detect,
    load,
    load_file,
    open_weights,
    save_bytes,
    save_file,
)

DATA = Path(__file__).parents[2] / "references" / "data" / "torch_checkpoints"
GOOD_BIN = (DATA / "zip_module.pt").read_bytes()


def refused(path, *words, **facts):
    with pytest.raises(WeightsError) as caught:
        load(path)
    message = str(caught.value)
    assert str(path) in message
    for word in words:
        assert word in message
    for name, value in facts.items():
        assert getattr(caught.value, name) == value
    assert len(message.splitlines()) <= 12
    return message


# Row 15


BAD = {
    "empty": b"",
    "cut": save_bytes({"a": np.ones(100)})[:-1],
    "header": save_bytes({"a": np.ones(100)})[:50],
    "garbage": bytes(range(200)),
    "pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n",
    "page": b"<!DOCTYPE html><html></html>",
}


@pytest.mark.parametrize("kind", BAD)
def test_row_15_a_bad_safetensors_never_falls_back(tmp_path, kind):
    (tmp_path / "model.safetensors").write_bytes(BAD[kind])
    (tmp_path / "pytorch_model.bin").write_bytes(GOOD_BIN)
    assert load(tmp_path / "pytorch_model.bin").keys() == load(DATA / "zip_module.pt").keys()
    refused(tmp_path, "model.safetensors")
    refused(tmp_path / "model.safetensors")


def test_row_15_a_bad_index_or_shard_never_falls_back(tmp_path):
    index = tmp_path / "model.safetensors.index.json"
    index.write_text('{"weight_map": {"a": "model-00001-of-00001.safetensors"}}')
    (tmp_path / "pytorch_model.bin").write_bytes(GOOD_BIN)
    with pytest.raises(WeightsError, match="missing"):
        load(tmp_path)
    (tmp_path / "model-00001-of-00001.safetensors").write_bytes(BAD["cut"])
    with pytest.raises(WeightsError, match="truncated"):
        load(tmp_path)
    index.write_text("{")
    with pytest.raises(WeightsError, match="index"):
        load(tmp_path)


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin", "weights", "x.html"])
def test_the_content_decides_and_never_the_name(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(GOOD_BIN)
    assert len(load(path)) == 9
    path.write_bytes(save_bytes({"a": np.ones(3)}))
    assert load(path)["a"].sum() == 3
    path.write_bytes((DATA / "legacy_module.pt").read_bytes())
    assert len(load(path)) == 9
    path.write_bytes((DATA / "tar.pt").read_bytes())
    assert len(load(path)) == 3


def test_open_weights(tmp_path):
    save_file({"a": np.ones(3)}, tmp_path / "model.safetensors")
    for path in (tmp_path, str(tmp_path), tmp_path / "model.safetensors"):
        with open_weights(path, mapped=True) as file:
            assert file.infos() == {"a": (np.dtype(np.float64), (3,))}
    with pytest.raises(WeightsError, match="Leave key out"):
        open_weights(tmp_path, key="model")
    with pytest.raises(FileNotFoundError):
        load(tmp_path / "absent")


def test_a_folder_without_weights(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    refused(tmp_path, "no weights in this folder", "'config.json'", names=["config.json"])


# ERRORS 28


def test_errors_28_git_lfs_pointer(write):
    text = b"version https://git-lfs.github.com/spec/v1\noid sha256:%s\nsize 438007537\n" % (
        b"0" * 64
    )
    path = write(text)
    message = refused(
        path, "Git-LFS pointer", "438,007,537", f"{len(text)} bytes", "git lfs pull",
        got="git-lfs pointer", size=len(text), expected=438007537,
    )  # fmt: skip
    assert str(path.parent) in message
    refused(write(text[:50]), "Git-LFS pointer", "unknown size", expected=None)


@pytest.mark.parametrize(
    "page",
    [
        b"<!DOCTYPE html>\n<html><head><title>Sign in \xc2\xb7 Hub</title></head></html>",
        b"\xef\xbb\xbf\n  <HTML><body>no</body></HTML>",
        b"<html>" + b"x" * 10_000,
        b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>',
        b"<!-- served by --><html></html>",
    ],
)
def test_errors_28_html_page(write, page):
    words = ["titled 'Sign in · Hub'"] if b"title" in page else []
    refused(
        write(page), "an HTML page", f"{len(page):,} bytes", "/resolve/", *words, got="html page"
    )


@pytest.mark.parametrize("size", [1, 7, 8, 20, 60, 500, 900])
def test_errors_28_truncated_safetensors(write, size):
    data = save_bytes({"a": np.ones(100, np.float32), "b": np.ones(100, np.float32)})
    message = refused(write(data[:size]))
    if size > 300:
        assert "truncated" in message
        assert f"{len(data):,} bytes" in message
        assert f"{size:,}" in message
    assert str(size) in message or str(size - 8) in message


def test_errors_28_truncated_torch_files(write):
    for size in (30, 500, len(GOOD_BIN) - 1):
        refused(write(GOOD_BIN[:size], "x.bin"), "truncated", f"{size:,} bytes")
    legacy = (DATA / "legacy_module.pt").read_bytes()
    for size in (40, 1000, len(legacy) - 1):
        refused(write(legacy[:size], "x.bin"), "truncated", f"{size:,} bytes")


@pytest.mark.parametrize(
    "data, word",
    [
        (b"", "an empty file"),
        (b"abc", "cut off"),
        (bytes(5000), "nothing but zeros"),
        (b'{"error": "Repository not found"}', "JSON: '{"),
        (b"Entry not found, sorry about that", "begins with b'Entry not fo'"),
        (b"\x89HDF\r\n\x1a\n" + bytes(100), "HDF5"),
        (b"\x93NUMPY\x01\0" + bytes(100), "numpy.load"),
        (gzip.compress(b"x" * 1000), "gzip"),
        (b"\xff" * 100, "not known"),
        (b"\x89PNG\r\n\x1a\n" + bytes(100), "safetensors"),
    ],
)
def test_errors_28_other_files(write, data, word):
    for name in ("x.bin", "model.pth"):
        refused(write(data, name), word)


def test_errors_28_a_plain_pickle(write):
    refused(write(pickle.dumps({"a": [1, 2]}), "x.bin"), "not one that torch.save wrote")
    refused(write(pickle.dumps(np.ones(3)), "x.bin"), "numpy._core.multiarray._reconstruct")


def test_any_bytes_give_our_error(write):
    rng = random.Random(0)
    starts = [b"", b"PK\x03\x04", b"PK\x05\x06", b"\x80\x02", b"\x80\x04\x95", b"{", b" {", b"<",
              b"\x08\0\0\0\0\0\0\0{", GOOD_BIN[:100], save_bytes({})]  # fmt: skip
    for _ in range(500):
        start = rng.choice(starts)
        data = start + rng.randbytes(rng.choice((0, 1, 8, 50, 600)))
        if rng.random() < 0.2:
            data = data[:257] + b"ustar" + data[262:]
        if data == save_bytes({}):
            continue
        with pytest.raises(WeightsError):
            load(write(data, "x"))


# Choosing


@pytest.mark.parametrize(
    "names, want",
    [
        (["model.safetensors"], "model.safetensors"),
        (
            ["pytorch_model.bin", "model.safetensors.index.json", "model.safetensors", "a.pth"],
            "model.safetensors",
        ),
        (
            [
                "model-00001-of-00002.safetensors",
                "model-00002-of-00002.safetensors",
                "model.safetensors.index.json",
                "other.safetensors",
                "pytorch_model.bin",
            ],
            "model.safetensors.index.json",
        ),
        (["pytorch_model.bin", "diffusion_pytorch_model.safetensors"],
         "diffusion_pytorch_model.safetensors"),
        (["x.safetensors", "pytorch_model.bin"], "x.safetensors"),
        (["x.safetensors.index.json", "pytorch_model.bin"], "x.safetensors.index.json"),
        (["pytorch_model.bin", "pytorch_model.bin.index.json"], "pytorch_model.bin"),
        (["pytorch_model-00001-of-00002.bin", "pytorch_model.bin.index.json"],
         "pytorch_model.bin.index.json"),
        (["resnet.pth", "config.json", "README.md"], "resnet.pth"),
        (["model.safetensors", "model.fp16.safetensors"], "model.safetensors"),
        (["model.fp16.safetensors"], "model.fp16.safetensors"),
        (["x.safetensors", "x.fp16.safetensors", "x.non_ema.safetensors"], "x.safetensors"),
        (["diffusion_pytorch_model.fp16.bin", "diffusion_pytorch_model.bin"],
         "diffusion_pytorch_model.bin"),
        (["adapter_model.safetensors", "pytorch_model.bin"], "pytorch_model.bin"),
        (["optimizer.bin", "scheduler.bin", "training_args.bin", "rng_state.pth", "a.pt"], "a.pt"),
        (["onnx/model.safetensors", "pytorch_model.bin"], "pytorch_model.bin"),
        (["unet/model.safetensors"], None),
        (["config.json", "model.onnx", "model.gguf", "tf_model.h5"], None),
        ([], None),
    ],
)  # fmt: skip
def test_choosing_a_file(names, want):
    for seed in range(3):
        shuffled = list(names)
        random.Random(seed).shuffle(shuffled)
        assert choose_weight_file(shuffled) == want


@pytest.mark.parametrize(
    "names",
    [
        ["v1-5-pruned.safetensors", "v1-5-pruned-emaonly.safetensors"],
        ["a.pth", "b.pt"],
        ["a.fp16.safetensors", "a.fp32.safetensors"],
    ],
)
def test_ambiguous_choices_are_refused(tmp_path, names):
    with pytest.raises(WeightsError) as caught:
        choose_weight_file(names)
    assert all(name in str(caught.value) for name in names)
    assert sorted(caught.value.names) == sorted(names)
    for name in names:
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(WeightsError, match="none of which"):
        load(tmp_path)


def test_detect(tmp_path):
    save_file({}, tmp_path / "x")
    assert detect(tmp_path / "x") == "safetensors"
    assert {detect(path) for path in DATA.glob("*.pt")} == {"torch"}
    (tmp_path / "i").write_text(' {"metadata": {}, "weight_map": {"a": "b.safetensors"}}')
    assert detect(tmp_path / "i") == "index"


def test_a_missing_file_is_answered_with_what_is_there(tmp_path):
    for name in ("model.safetensors", "other.bin", "notes.txt"):
        (tmp_path / name).write_bytes(b"")
    missing = tmp_path / "mdel.safetensors"
    for read in (load, load_file):
        with pytest.raises(
            FileNotFoundError, match=r"'model\.safetensors', 'other\.bin'"
        ) as caught:
            read(missing)
        assert (caught.value.errno, caught.value.filename) == (errno.ENOENT, str(missing))
        assert "notes.txt" not in str(caught.value)
    with pytest.raises(FileNotFoundError, match=r"a folder '.*nowhere'"):
        load(tmp_path / "nowhere" / "model.safetensors")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="its folder has no weights"):
        load(tmp_path / "empty" / "model.safetensors")


@pytest.mark.parametrize("length", [640, 896, 1152, 1408])
def test_a_header_whose_length_begins_like_a_pickle(length, tmp_path):
    """640 is 80 02 in bytes, with which a pickle of protocol 2 begins."""
    path = tmp_path / "model.safetensors"
    for extra in range(length):
        save_file({"x": np.ones(2, np.float32)}, path, metadata={"a": "b" * extra})
        if int.from_bytes(path.read_bytes()[:8], "little") == length:
            break
    assert path.read_bytes()[:2] == length.to_bytes(2, "little")
    assert detect(path) == "safetensors"
    np.testing.assert_array_equal(load(path)["x"], np.ones(2))
