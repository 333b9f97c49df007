"""Weights in several files; TESTPLAN row 35: an index that leads astray."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import bestiary as bt
from bestiary.core.errors import DtypeError, WeightsError
from bestiary.core.weights import (
    ShardedWeights,
    load,
    load_file,
    read_index,
    save_file,
    save_sharded,
    sharded,
)

DATA = Path(__file__).parents[2] / "references" / "data" / "torch_checkpoints"
TENSORS = {f"h.{i}.weight": np.full((5, 10), i, np.float32) for i in range(10)}  # 200 bytes each
INDEX = "model.safetensors.index.json"


def equal(got, want):
    return got.keys() == want.keys() and all((got[n] == want[n]).all() for n in want)


@pytest.mark.parametrize(
    "limit, shards", [(1, 10), (199, 10), (200, 10), (399, 10), (400, 5), (1000, 2), (1999, 2)]
)
@pytest.mark.parametrize("mapped", [False, True])
def test_save_and_load(tmp_path, limit, shards, mapped):
    written = save_sharded(TENSORS, tmp_path / "new" / "folder", max_shard_bytes=limit)
    assert len(written) == shards + 1
    assert written[-1].name == INDEX
    assert written[0].name == f"model-00001-of-{shards:05}.safetensors"
    assert all(path.exists() for path in written)
    for path in (written[-1], written[-1].parent):
        got = load(path, mapped=mapped)
        assert equal(got, TENSORS)
        assert list(got) == list(TENSORS)
    assert json.loads(written[-1].read_text())["metadata"] == {"total_size": 2000}
    assert read_index(written[-1]).files == [path.name for path in written[:-1]]


def test_small_weights_are_one_file(tmp_path):
    assert save_sharded(TENSORS, tmp_path, max_shard_bytes=2000, metadata={"format": "np"}) == [
        tmp_path / "model.safetensors"
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["model.safetensors"]
    assert equal(load(tmp_path), TENSORS)
    assert save_sharded({}, tmp_path / "empty") == [tmp_path / "empty" / "model.safetensors"]


def test_tensors_are_saved_too(tmp_path):
    tensors = {name: bt.tensor(array, requires_grad=True) for name, array in TENSORS.items()}
    assert len(save_sharded(tensors, tmp_path, max_shard_bytes=1000)) == 3
    assert equal(load(tmp_path), TENSORS)


def test_what_cannot_be_saved_is_refused_before_anything_is_written(tmp_path):
    save_sharded(TENSORS, tmp_path, max_shard_bytes=1000)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    for bad in ([1.0], np.zeros(2, "c16")):
        with pytest.raises(DtypeError, match="'z'"):
            save_sharded(TENSORS | {"z": bad}, tmp_path, max_shard_bytes=1000)
    with pytest.raises(WeightsError, match="texts only"):
        save_sharded(TENSORS, tmp_path, max_shard_bytes=1000, metadata={"a": 1})
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize("first, second", [(400, 10**6), (10**6, 400), (400, 1000), (1000, 400)])
def test_files_of_an_earlier_save_are_removed(tmp_path, first, second):
    keep = tmp_path / "config.json"
    other = tmp_path / "model-of-mine.safetensors"
    for path in (keep, other):
        path.write_text("{}")
    save_sharded(TENSORS, tmp_path, max_shard_bytes=first)
    changed = {name: array + 1 for name, array in TENSORS.items()}
    written = save_sharded(changed, tmp_path, max_shard_bytes=second)
    assert set(tmp_path.iterdir()) == {keep, other, *written}
    assert equal(load(written[-1]), changed)


def test_a_failed_save_over_shards_leaves_no_mixture(tmp_path, monkeypatch):
    save_sharded(TENSORS, tmp_path, max_shard_bytes=1000)
    real = sharded.save_file

    def fail_second(tensors, path, metadata):
        if "00002" in path.name:
            raise OSError(28, "No space left on device")
        real(tensors, path, metadata)

    monkeypatch.setattr(sharded, "save_file", fail_second)
    with pytest.raises(OSError, match="No space"):
        save_sharded({n: a + 1 for n, a in TENSORS.items()}, tmp_path, max_shard_bytes=1000)
    with pytest.raises(WeightsError):
        load(tmp_path)


def test_lazy_reading(tmp_path):
    save_sharded(TENSORS, tmp_path, max_shard_bytes=400)
    with ShardedWeights(tmp_path / INDEX) as file:
        assert len(file) == 10
        assert list(file) == list(TENSORS)
        assert "h.3.weight" in file
        assert "h.33.weight" not in file
        assert file.info("h.3.weight") == (np.dtype(np.float32), (5, 10))
        assert (file["h.3.weight"] == 3).all()
        assert file.metadata == {"total_size": 2000}
        with pytest.raises(KeyError):
            file["x"]


def test_an_index_by_a_relative_path(tmp_path, monkeypatch):
    save_sharded(TENSORS, tmp_path, max_shard_bytes=400)
    monkeypatch.chdir(tmp_path)
    assert equal(load(INDEX), TENSORS)


def test_torch_shards(tmp_path):
    (tmp_path / "pytorch_model-00001-of-00002.bin").write_bytes(
        (DATA / "zip_module.pt").read_bytes()
    )
    (tmp_path / "pytorch_model-00002-of-00002.bin").write_bytes((DATA / "tar.pt").read_bytes())
    first, second = load(DATA / "zip_module.pt"), load(DATA / "tar.pt")
    weight_map = dict.fromkeys(first, "pytorch_model-00001-of-00002.bin")
    weight_map |= dict.fromkeys(second, "pytorch_model-00002-of-00002.bin")
    (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": weight_map}))
    assert equal(load(tmp_path), first | second)


# Row 35


@pytest.fixture
def index(tmp_path):
    """Write an index beside two shards."""
    save_file({"a": np.ones(1)}, tmp_path / "one.safetensors")
    save_file({"b": np.ones(2)}, tmp_path / "two.safetensors")

    def write(weight_map):
        path = tmp_path / INDEX
        found = (
            weight_map if isinstance(weight_map, str) else json.dumps({"weight_map": weight_map})
        )
        path.write_text(found)
        return path

    return write


GOOD = {"a": "one.safetensors", "b": "two.safetensors"}


def refused(path, *words, reader=load):
    with pytest.raises(WeightsError) as caught:
        reader(path)
    message = str(caught.value)
    assert str(path) in message
    for word in words:
        assert word in message
    assert len(message.splitlines()) <= 12
    return caught.value


@pytest.mark.parametrize(
    "name",
    [
        "../one.safetensors",
        "..",
        ".",
        "",
        "/etc/passwd",
        "/tmp/one.safetensors",
        "sub/one.safetensors",
        "sub\\one.safetensors",
        "..\\one.safetensors",
        "C:one.safetensors",
        "C:\\one.safetensors",
        "one.safetensors\0",
        "\0.safetensors",
        "one.safetensors\n",
        ".hidden.safetensors",
        "one.json",
        "one",
        "x" * 300 + ".safetensors",
        "http://host/one.safetensors",
        3,
        None,
        ["one.safetensors"],
        {"a": 1},
    ],
)
def test_row_35_names_that_lead_elsewhere(index, name):
    path = index(GOOD | {"a": name})
    for reader in (load, read_index):
        caught = refused(path, "plain name", "no file that it names was opened", reader=reader)
        assert caught.tensor == "a"


def test_row_35_a_missing_shard(index, tmp_path):
    path = index(GOOD | {"c": "three.safetensors"})
    assert refused(path, "1 of its 3", "'three.safetensors'").missing == ["three.safetensors"]
    with pytest.raises(WeightsError, match="missing"):
        sharded.parse_index(path.read_bytes(), "x", available=["one.safetensors"])
    assert sharded.parse_index(path.read_bytes()).files == [
        "one.safetensors",
        "three.safetensors",
        "two.safetensors",
    ]


def test_row_35_a_tensor_in_two_shards(index, tmp_path):
    refused(
        index('{"weight_map": {"a": "one.safetensors", "a": "two.safetensors"}}'),
        "'a' is listed twice",
        "one.safetensors",
        "two.safetensors",
    )
    save_file({"a": np.zeros(1), "b": np.ones(2)}, tmp_path / "two.safetensors")
    refused(index(GOOD), "'two.safetensors' holds the tensor 'a'", "belongs in 'one.safetensors'")


def test_row_35_index_and_shards_contradict_each_other(index):
    refused(index({"a": "one.safetensors", "b": "one.safetensors"}), "'b' is not in")
    refused(index({"a": "one.safetensors", "x": "two.safetensors"}), "'x' is not in")
    path = index(GOOD)
    save_file({"b": np.ones(1), "extra": np.ones(1)}, path.parent / "two.safetensors")
    refused(path, "'extra'", "is not in the index")


@pytest.mark.parametrize(
    "text",
    [
        '{"weight_map": {}}',
        '{"weight_map": []}',
        '{"weight_map": null}',
        '{"weight_map"',
        '{"metadata": {}, "x": "weight_map"}',
        '{"weight_map": {"a": "one.safetensors"}, "weight_map": {}}',
        '{"weight_map": ' + "[" * 5000 + "]" * 5000 + "}",
    ],
    ids=lambda text: text[:30],
)
def test_row_35_not_an_index(index, text):
    refused(index(text), "index")


def test_row_35_a_long_index_is_refused_before_it_is_read(tmp_path):
    path = tmp_path / INDEX
    with open(path, "wb") as file:
        file.write(b'{"weight_map"')
        file.truncate(sharded.MAX_INDEX_BYTES + 1)
    refused(path, "limit of 50,000,000", reader=read_index)


def test_a_damaged_shard_is_named(index, tmp_path):
    path = index(GOOD)
    assert load(path).keys() == {"a", "b"}
    shard = tmp_path / "two.safetensors"
    shard.write_bytes(shard.read_bytes()[:-1])
    with pytest.raises(WeightsError, match=r"two\.safetensors"):
        load(path)
    assert load_file(tmp_path / "one.safetensors")
