"""Memory that runs out in training: what took it, and the batch that fits (ERRORS 21)."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

import bestiary as bt
from bestiary import nn, optim
from bestiary.core import random
from bestiary.core.errors import BestiaryError, OutOfMemoryError
from bestiary.core.insight.system import available_memory
from bestiary.core.nn import functional as F
from bestiary.core.training import Trainer, memory

LIMIT = 1 << 20  # bytes of a result


@bt.op
def limited(xp, x):
    """The operand, unless it is larger than there is memory for."""
    if x.nbytes > LIMIT:
        raise MemoryError(f"Unable to allocate {x.nbytes} bytes")
    return x + 0


@limited.backward
def _(g):
    return g


class Wide(nn.Module):
    def __init__(self) -> None:
        self.first = nn.Linear(16, 1024)
        self.norm = nn.BatchNorm1d(1024)
        self.drop = nn.Dropout(0.1)
        self.inner = Limited()
        self.last = nn.Linear(1024, 3)

    def forward(self, x: bt.Tensor) -> bt.Tensor:
        return self.last(self.inner(F.relu(self.drop(self.norm(self.first(x))))))


class Limited(nn.Module):
    def forward(self, x: bt.Tensor) -> bt.Tensor:
        return limited(x)


def loss(module, batch):
    return F.cross_entropy(module(batch["x"]), batch["y"])


def exhausted(size: int, function=loss, **settings):
    bt.manual_seed(0)
    net = Wide()
    adam = optim.Adam(net.parameters(), lr=1e-3)
    rng = np.random.default_rng(0)
    batch = {
        "x": bt.Tensor(rng.normal(size=(size, 16)).astype(np.float32)),
        "y": bt.Tensor(rng.integers(0, 3, size)),
    }
    trainer = Trainer(net, adam, function, [batch], epochs=1, quiet=True, **settings)
    with pytest.raises(OutOfMemoryError) as caught:
        trainer.fit()
    return caught.value, trainer


def test_the_error_says_what_takes_how_much_and_which_batch_fits(monkeypatch):
    monkeypatch.setattr(memory, "available_memory", lambda device: 3_000_000)
    error, trainer = exhausted(512)
    assert isinstance(error, MemoryError) and isinstance(error, BestiaryError)
    trained = sum(p.nbytes for p in trainer.module.parameters())
    buffers = sum(b.nbytes for b in trainer.module.buffers())
    assert (error.parameters, error.gradients) == (trained + buffers, trained)
    assert error.optimizer == 2 * trained  # two moments
    # What stays for the backward pass: a few results of 1024 floats for each sample.
    assert 3 * 512 * 4096 < error.activations < 8 * 512 * 4096
    assert error.batch_size == 512 and 16 < error.fits < 512 and error.fits % 8 == 0
    text = str(error)
    for part in ("limited of module 'inner'", "Unable to allocate 2097152", "optimizer state",
                 "2.9 MiB", f"about {error.fits} fits", "accumulate="):  # fmt: skip
        assert part in text
    assert len(text.splitlines()) <= 12
    assert isinstance(error.__cause__, MemoryError)


def test_the_measurement_leaves_no_trace():
    _, trainer = exhausted(512)
    assert all(p.grad is None for p in trainer.module.parameters())
    after = random.get_state()["generators"]
    bt.manual_seed(0)
    Wide()
    random.bernoulli(0.1, (512, 1024))  # what the batch drew before it failed
    assert after == random.get_state()["generators"]
    assert int(trainer.module.norm.num_batches_tracked.item()) == 1


def test_more_memory_fits_a_larger_batch(monkeypatch):
    found = []
    for free in (2_000_000, 8_000_000, 1 << 40):
        monkeypatch.setattr(memory, "available_memory", lambda device, free=free: free)
        found.append(exhausted(512)[0].fits)
    assert found[0] < found[1] <= found[2] == 511  # the batch itself did not fit


def test_nothing_fits(monkeypatch):
    monkeypatch.setattr(memory, "available_memory", lambda device: 1000)
    error, _ = exhausted(512)
    assert error.fits == 0 and "checkpoint" in str(error)


def test_small_batches_are_not_measured(monkeypatch):
    monkeypatch.setitem(globals(), "LIMIT", 100)
    error, _ = exhausted(2)
    assert error.fits is None and "a batch of 2 cannot be divided" in str(error)
    error, _ = exhausted(64)
    assert error.fits is None and "not even two samples fit" in str(error)


def test_a_loss_that_takes_whole_batches_only():
    def whole(module, batch):
        if len(batch["x"]) != 512:
            raise ValueError("512 only")
        return loss(module, batch)

    error, _ = exhausted(512, whole)
    assert error.fits is None and "not measured: 512 only" in str(error)


def test_the_backward_pass_is_told():
    @bt.op
    def twice(xp, x):
        return x * 2

    @twice.backward
    def _(g):
        if g.shape[0] > 4:
            raise MemoryError("no more")
        return g * 2

    def function(module, batch):
        return F.cross_entropy(twice(module(batch["x"])), batch["y"])

    error, _ = exhausted(64, function)
    assert "in the backward pass of twice: a batch of 64 does not fit.\n  no more" in str(error)


def test_other_errors_stay_what_they_are():
    assert not memory.is_exhaustion(ValueError("x"))
    assert memory.is_exhaustion(RuntimeError("cudaErrorMemoryAllocation: out of memory"))
    assert not memory.is_exhaustion(OutOfMemoryError("told already"))


def test_parts_of_batches():
    x, y = np.zeros((6, 2)), bt.zeros(6)
    words = ["a"] * 6
    assert memory.part((x, y), 6, 2)[0].shape == (2, 2)
    assert memory.part({"x": y, "words": words, "n": 3}, 6, 2)["words"] == ["a", "a"]
    assert memory.part([x, y, np.zeros(3)], 6, 4)[2].shape == (3,)
    assert memory.part([{"boxes": x}] * 6, 6, 2) == [{"boxes": x}] * 2


def test_available_memory_is_less_than_the_machine_has():
    found = available_memory("cpu")
    assert found is None or 1 << 20 < found < 1 << 50


_REAL = """
import resource, sys
import numpy as np
import bestiary as bt
from bestiary import nn, optim
from bestiary.core.nn import functional as F

def train(size):
    net = nn.Sequential(nn.Linear(64, 2048), nn.GELU(), nn.Linear(2048, 2048), nn.GELU(), nn.Linear(2048, 3))
    x, y = np.zeros((size, 64), np.float32), np.zeros(size, np.int64)
    sgd = optim.SGD(net.parameters(), lr=0.1)
    bt.training.Trainer(
        net, sgd, lambda m, b: F.cross_entropy(m(b[0]), b[1]), [(bt.Tensor(x), bt.Tensor(y))],
        epochs=1, quiet=True,
    ).fit()

train(4)
with open("/proc/self/statm") as file:
    used = int(file.read().split()[0]) * resource.getpagesize()
limit = used + (150 << 20)
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
try:
    train(8000)
except bt.errors.OutOfMemoryError as error:
    fits = error.fits
train(fits)
print(fits)
"""  # noqa: E501


@pytest.mark.skipif(sys.platform != "linux", reason="limits of the address space")
def test_the_batch_that_is_named_fits_under_a_real_limit():
    done = subprocess.run(
        [sys.executable, "-c", _REAL], capture_output=True, encoding="utf-8", check=False
    )
    assert done.returncode == 0, done.stderr
    # Four results of 2048 floats are kept: 150 MiB hold no more than those of 4800 samples.
    assert 1000 < int(done.stdout) < 4800
