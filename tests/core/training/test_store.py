"""Checkpoint folders: whole or absent, checked before use (TESTPLAN 43, 45, 46, 47)."""

from __future__ import annotations

import builtins
import errno
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import bestiary as bt
from bestiary.core.errors import ConfigError, WeightsError
from bestiary.core.training.state import packed, unpacked
from bestiary.core.training.store import CheckpointStore


def tensors(step: int) -> dict[str, np.ndarray]:
    return {"w": np.full((50, 50), step, np.float32), "n": np.array(step)}


def filled(folder: Path, *steps: int, keep: int = 9) -> CheckpointStore:
    store = CheckpointStore(folder, keep)
    for step in steps:
        store.save(step, tensors(step), {"step": step})
    return store


def test_what_is_saved_is_loaded(tmp_path):
    store = filled(tmp_path, 1, 20)
    found = store.newest()
    assert (found.step, found.state) == (20, {"step": 20})
    np.testing.assert_array_equal(found.tensors["w"], tensors(20)["w"])
    names = {p.name for p in found.folder.iterdir()}
    assert names == {"tensors.safetensors", "state.json", "manifest.json"}  # 47


def test_old_ones_are_dropped_but_not_the_best(tmp_path):
    store = filled(tmp_path, 1, 2, keep=2)
    store.mark(1, "best")
    for step in (3, 4, 5):
        store.save(step, tensors(step), {})
    assert store.steps() == [1, 4, 5]
    store.mark(5, "best")
    assert store.steps() == [4, 5]


def test_saving_a_step_again_replaces_it(tmp_path):
    store = filled(tmp_path, 3)
    store.save(3, tensors(7), {"again": True})
    assert store.load(3).state == {"again": True}


@pytest.mark.parametrize("name", ["tensors.safetensors", "state.json", "manifest.json"])
def test_any_flipped_byte_is_refused_and_the_previous_one_taken(tmp_path, name):  # 46
    store = filled(tmp_path, 1, 2)
    path = store.path(2) / name
    data = path.read_bytes()
    rng = random.Random(0)
    for position in {0, len(data) - 1, *(rng.randrange(len(data)) for _ in range(20))}:
        broken = bytearray(data)
        broken[position] ^= 1 << rng.randrange(8)
        path.write_bytes(bytes(broken))
        if name == "manifest.json":
            try:
                before = json.loads(data)
                if json.loads(bytes(broken)) == before:
                    continue  # white space
            except ValueError:
                pass
        with pytest.raises(WeightsError):
            store.load(2)
    with pytest.warns(UserWarning, match="step-00000002 is damaged"):
        assert store.newest().step == 1


@pytest.mark.parametrize("name", ["tensors.safetensors", "state.json", "manifest.json"])
def test_a_missing_file_is_refused(tmp_path, name):
    store = filled(tmp_path, 1, 2)
    (store.path(2) / name).unlink()
    with pytest.raises(WeightsError):
        store.load(2)
    with pytest.warns(UserWarning, match="passed over"):
        assert store.newest().step == 1


def test_a_manifest_cannot_point_outside(tmp_path):
    store = filled(tmp_path, 1)
    path = store.path(1) / "manifest.json"
    manifest = json.loads(path.read_text())
    (tmp_path / "outside").write_text("x")
    manifest["files"]["../outside"] = {"size": 1, "sha256": "00"}
    path.write_text(json.dumps(manifest))
    with pytest.raises(WeightsError, match="is missing"):
        store.load(1)


def test_a_full_disk_is_a_warning_and_leaves_the_earlier_ones(tmp_path, monkeypatch):  # 45
    store = filled(tmp_path, 1)
    real = builtins.open

    def full(path, mode="r", *args, **kwargs):
        if str(path).endswith("state.json") and "w" in mode:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(path, mode, *args, **kwargs)

    monkeypatch.setattr(builtins, "open", full)
    with pytest.warns(UserWarning, match="disk is full"):
        assert store.save(2, tensors(2), {}) is None
    monkeypatch.undo()
    assert store.steps() == [1] and store.newest().step == 1
    assert not list(tmp_path.glob("*.part"))


def test_other_failures_are_errors(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(FileExistsError):
        CheckpointStore(tmp_path / "file").save(1, tensors(1), {})
    with pytest.raises(ConfigError):
        CheckpointStore(tmp_path, keep=0)


_SAVER = """
import sys, numpy as np
from bestiary.core.training.store import CheckpointStore
store = CheckpointStore(sys.argv[1], keep=3)
step = store.steps()[-1] if store.steps() else 0
print("ready", flush=True)
while True:
    step += 1
    store.save(step, {"w": np.full(200_000, step, np.float32)}, {"step": step})
"""


def kill_at_random_moments(folder: Path, kills: int) -> None:
    rng = random.Random(1)
    last = 0
    for _ in range(kills):
        process = subprocess.Popen(
            [sys.executable, "-c", _SAVER, str(folder)], stdout=subprocess.PIPE
        )
        process.stdout.readline()
        time.sleep(rng.uniform(0.0, 0.06))
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()
        store = CheckpointStore(folder, keep=3)
        for step in store.steps():  # none is corrupt
            found = store.load(step)
            assert found.state == {"step": step} and (found.tensors["w"] == step).all()
        newest = store.steps()[-1] if store.steps() else 0
        assert newest >= last  # no complete checkpoint is lost
        last = newest
    assert last > 0


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs POSIX signals")
def test_killed_at_any_moment_none_is_corrupt(tmp_path):  # 43
    kill_at_random_moments(tmp_path, kills=20)


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs POSIX signals")
def test_killed_200_times_none_is_corrupt(tmp_path):  # 43
    kill_at_random_moments(tmp_path, kills=200)


def test_nested_state_survives():
    state = {
        "a": [1, 2.5, None, True, "x"],
        "b": {0: {"m": np.arange(3)}, 1: bt.tensor([1.0])},
        "c": np.float64(2.0),
        "d": (bt.tensor([[2.0]]), {"e": 2**100}),
    }
    layout, arrays = packed(state)
    back = unpacked(json.loads(json.dumps(layout)), arrays)
    assert back["a"] == [1, 2.5, None, True, "x"] and back["c"] == 2.0
    assert sorted(back["b"]) == [0, 1] and back["b"][0]["m"].tolist() == [0, 1, 2]
    assert back["d"][0].tolist() == [[2.0]] and back["d"][1] == {"e": 2**100}


def test_state_that_cannot_be_saved_is_named():
    with pytest.raises(WeightsError, match="/x/1 is a object"):
        packed({"x": [1, object()]})
