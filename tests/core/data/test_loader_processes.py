"""DataLoader with worker processes. Starting one takes half a second, so each test asks much."""

import gc
import multiprocessing
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from bestiary.core.data import (
    ArrayDataset,
    DataLoader,
    Dataset,
    IterableDataset,
    MapDataset,
    sample_rng,
)
from bestiary.core.data.transport import pack, unpack
from bestiary.core.errors import ConfigError, DataError, ShapeError

PROGRAM = """
import os, sys
import numpy as np
from bestiary.core.data import DataLoader, Dataset, sample_rng

class Noisy(Dataset):
    def __len__(self): return 30
    def __getitem__(self, index):
        if index == int(os.environ.get("DIE_AT", -1)): os._exit(7)
        if index == int(os.environ.get("KILL_AT", -1)): os.kill(os.getpid(), 9)
        return index + sample_rng().random()
"""
LOOP = """
loader = DataLoader(Noisy(), 4, seed=1, workers=2, processes=True)
print(round(sum(float(b.numpy().sum()) for b in loader), 6))
"""


def program(tmp_path, text, **environment):
    path = tmp_path / "program.py"
    path.write_text(text)
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", str(path)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, **environment},
    )
    return done.returncode, done.stdout, done.stderr


@pytest.fixture(autouse=True)
def nothing_left():
    yield
    gc.collect()
    assert multiprocessing.active_children() == []


class Mixed(Dataset):
    """Noise from our generator, from NumPy's global one and from `random`."""

    def __init__(self, bad=None):
        self.bad = bad

    def __len__(self):
        return 19

    def __getitem__(self, index):
        if index == self.bad:
            return self.fail(index)
        own = index + sample_rng().random()
        return (
            own,
            np.random.random(),
            random.random(),
            os.environ.get("OMP_NUM_THREADS"),
            {"pid": os.getpid(), "big": np.full((64, 64), index, np.float32)},
        )

    def fail(self, index):
        raise ValueError("no such pixel")

    def file_of(self, index):
        return f"/data/{index}.png"


def test_the_same_batches(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    here = DataLoader(Mixed(), 4, shuffle=True, seed=3)
    there = DataLoader(Mixed(), 4, shuffle=True, seed=3, workers=2, processes=True)
    expected = [(b[0].tolist(), b[4]["big"].tolist()) for b in here]
    batches = list(there)
    assert [(b[0].tolist(), b[4]["big"].tolist()) for b in batches] == expected
    assert {threads for b in batches for threads in b[3]} == {"1"}
    assert os.environ["OMP_NUM_THREADS"] == "7"
    pids = {pid for b in batches for pid in b[4]["pid"].tolist()}
    assert os.getpid() not in pids and 1 <= len(pids) <= 2
    # The global generators are seeded for each sample, too.
    globals_ = [(b[1].tolist(), b[2].tolist()) for b in batches]
    other = DataLoader(Mixed(), 4, shuffle=True, seed=3, workers=1, processes=True)
    assert [(b[1].tolist(), b[2].tolist()) for b in other] == globals_
    assert len({x for a, b in globals_ for x in a + b}) == 2 * 19
    batches[0][4]["big"].array[...] = 0  # what arrives can be written to


def test_a_failed_sample_is_named():
    """ERRORS 23, across processes."""
    loader = DataLoader(Mixed(bad=9), 4, workers=2, processes=True)
    batches = iter(loader)
    assert len(next(batches)[0]) == 4
    with pytest.raises(DataError) as caught:
        list(batches)
    error, text = caught.value, str(caught.value)
    assert error.index == 9 and error.file == "/data/9.png" and error.error == "ValueError"
    assert "worker process" in text and "in fail" in text and "no such pixel" in text
    assert "Traceback (most recent call last)" in str(error.__cause__)
    assert "test_loader_processes.py" in str(error.__cause__)
    assert len(text.splitlines()) <= 12


class Unequal(Dataset):
    def __len__(self):
        return 4

    def __getitem__(self, index):
        return np.zeros((3, 8, 8 + index // 3))


def returns_a_lambda(samples):
    return lambda: samples


def test_errors_of_batches():
    with pytest.raises(ShapeError) as caught:
        list(DataLoader(Unequal(), 4, workers=1, processes=True))
    assert caught.value.shapes == ((3, 8, 8), (3, 8, 9)) and caught.value.indices == (0, 3)
    with pytest.raises(DataError, match="could not be sent back"):
        list(DataLoader([1], workers=1, processes=True, collate=returns_a_lambda))


def double(x):
    return 2 * x + sample_rng().random()


class Lines(IterableDataset):
    """A stream with an open file stays here; only the transform travels."""

    def __init__(self):
        self.file = open(__file__)  # noqa: SIM115

    def __iter__(self):
        return iter(range(10))


def test_streams_arrays_and_persistent_workers():
    stream = MapDataset(Lines(), double)
    expected = [b.tolist() for b in DataLoader(stream, 3, seed=0)]
    loader = DataLoader(stream, 3, seed=0, workers=2, processes=True)
    assert [b.tolist() for b in loader] == expected
    stream.dataset.file.close()

    arrays = ArrayDataset(np.random.default_rng(0).random((100, 50)), np.arange(100))
    plain = DataLoader(arrays, 8, shuffle=True, seed=1)
    kept = DataLoader(arrays, 8, shuffle=True, seed=1, workers=2, processes=True, persistent=True)
    with kept:
        for _ in range(3):
            for (a, b), (c, d) in zip(plain, kept, strict=True):
                np.testing.assert_array_equal(a.array, c.array)
                np.testing.assert_array_equal(b.array, d.array)
            assert len(multiprocessing.active_children()) == 2
        children = {child.pid for child in multiprocessing.active_children()}
        for _ in kept:  # broken off: the same processes go on afterwards
            break
        assert {child.pid for child in multiprocessing.active_children()} == children
        for _ in kept:
            assert len(list(kept)) == 13  # a loop in the loop has processes of its own
            break
        assert len(multiprocessing.active_children()) == 2
    assert multiprocessing.active_children() == []


class Sleepy(Dataset):
    def __len__(self):
        return 100

    def __getitem__(self, index):
        time.sleep(0.05)
        return index


def test_break_ends_the_processes_soon():
    batches = [[0], *([range(100)] * 3)]  # the second takes 5 s
    iterator = iter(DataLoader(Sleepy(), batch_sampler=batches, workers=2, processes=True))
    next(iterator)
    assert len(multiprocessing.active_children()) == 2
    start = time.monotonic()
    iterator.close()
    assert time.monotonic() - start < 3  # after the sample, not after the batch
    assert multiprocessing.active_children() == []


def test_before_the_processes_are_ready():
    iterator = iter(DataLoader(Sleepy(), 20, workers=2, processes=True))
    iterator.close()  # not even begun
    loader = DataLoader(Sleepy(), 20, workers=1, processes=True, seed=0)
    state = loader.state_dict()
    assert state["batches"] == 0


class Holds(Dataset):
    def __init__(self, value):
        self.settings = {"transforms": [abs, value]}

    def __len__(self):
        return 1

    def __getitem__(self, index):
        return index


def test_what_cannot_be_sent():
    with pytest.raises(ConfigError) as caught:
        list(DataLoader(Holds(lambda x: x), workers=1, processes=True))
    text = str(caught.value)
    assert "dataset.settings['transforms'][1] cannot be sent" in text
    assert "a lambda" in text and "test_loader_processes.py" in text and "processes=False" in text
    with open(__file__) as file, pytest.raises(ConfigError, match=r"\[1\].*_io\.TextIOWrapper"):
        list(DataLoader(Holds(file), workers=1, processes=True))

    def local(samples):
        return samples

    with pytest.raises(ConfigError, match=r"collate cannot be sent.*a local function local"):
        list(DataLoader([1], workers=1, processes=True, collate=local))


def fail_to_begin(number):
    raise OSError(f"no scratch disk for {number}")


def test_worker_init_that_fails():
    with pytest.raises(DataError, match="could not begin: OSError: no scratch disk for 0"):
        list(DataLoader([1], workers=1, processes=True, worker_init=fail_to_begin))


class Nested(Dataset):
    def __len__(self):
        return 1

    def __getitem__(self, index):
        return next(iter(DataLoader([1], workers=1, processes=True)))


def test_processes_do_not_start_processes():
    with pytest.raises(DataError, match="cannot start worker processes of its own"):
        list(DataLoader(Nested(), workers=1, processes=True))


def test_a_missing_guard(tmp_path):
    status, out, err = program(tmp_path, PROGRAM + LOOP)
    assert status == 1 and out == ""
    assert "if __name__ == '__main__':" in err and "processes=False" in err
    assert err.count("Traceback") == 1  # ours alone, not one for each worker


def test_with_a_guard_from_a_script(tmp_path):
    body = "\nif __name__ == '__main__':\n" + "\n".join("    " + x for x in LOOP.splitlines())
    status, out, err = program(tmp_path, PROGRAM + body)
    assert (status, err) == (0, "")
    status, plain, _ = program(tmp_path, PROGRAM + LOOP.replace(", processes=True", ""))
    assert out == plain
    # A data set that is defined under the guard is not there in the worker.
    inside = "\nif __name__ == '__main__':\n" + "\n".join(
        "    " + x for x in (PROGRAM + LOOP).splitlines()
    )
    status, out, err = program(tmp_path, inside)
    assert status == 1 and "top level of a file" in err


def test_a_worker_that_dies(tmp_path):
    body = "\nif __name__ == '__main__':\n" + "\n".join("    " + x for x in LOOP.splitlines())
    status, _, err = program(tmp_path, PROGRAM + body, DIE_AT="10")
    assert status == 1
    assert "ended with status 7 while it read batch 2" in err and "samples 8, 9, 10, 11" in err
    if sys.platform != "win32":
        status, _, err = program(tmp_path, PROGRAM + body, KILL_AT="10")
        assert status == 1
        assert "signal 9" in err and "memory" in err


def test_transport():
    value = {"a": np.arange(10.0), "b": [np.zeros((0, 3)), np.arange(6).reshape(2, 3).T, "x"]}
    parts = [bytearray(memoryview(part).cast("B")) for part in pack(value)]
    assert len(parts) > 1
    back = unpack(parts)
    np.testing.assert_array_equal(back["a"], value["a"])
    np.testing.assert_array_equal(back["b"][1], value["b"][1])
    assert back["b"][0].shape == (0, 3) and back["a"].flags.writeable


def test_nothing_is_ever_forked():
    folder = Path(sys.modules[DataLoader.__module__].__file__).parent
    text = "".join(path.read_text() for path in folder.glob("*.py"))
    assert 'get_context("spawn")' in text and "os.fork" not in text
    assert 'get_context("fork' not in text and "set_start_method" not in text
