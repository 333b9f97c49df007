"""A training that diverges: the error names where it began (ERRORS 22)."""

from __future__ import annotations

import numpy as np
import pytest

import bestiary as bt
from bestiary import nn, optim
from bestiary.core import random
from bestiary.core.errors import GradError
from bestiary.core.nn import functional as F
from bestiary.core.training import Trainer


class Body(nn.Module):
    def __init__(self, head: nn.Module) -> None:
        self.body = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU())
        self.drop = nn.Dropout(0.5)
        self.head = head

    def forward(self, x: bt.Tensor) -> bt.Tensor:
        return self.head(self.drop(self.body(x)))


class Head(nn.Module):
    def __init__(self, function) -> None:
        self.fc = nn.Linear(8, 3)
        self.function = function

    def forward(self, x: bt.Tensor) -> bt.Tensor:
        return self.function(self.fc(x))


def batches(n: int = 6):
    rng = np.random.default_rng(0)
    return [
        (rng.normal(size=(5, 4)).astype(np.float32), bt.Tensor(rng.integers(0, 3, 5)))
        for _ in range(n)
    ]


def loss(module, batch):
    return F.cross_entropy(module(bt.asarray(batch[0])), batch[1])


def diverging(head: nn.Module, data=None, lr: float = 0.1, **settings):
    bt.manual_seed(0)
    net = Body(head)
    sgd = optim.SGD(net.parameters(), lr=lr)
    trainer = Trainer(net, sgd, loss, data or batches(), epochs=3, quiet=True, **settings)
    with pytest.raises(GradError) as caught:
        trainer.fit()
    return caught.value, trainer


def test_the_first_operation_of_the_forward_pass():
    error, trainer = diverging(Head(bt.log))
    assert (error.direction, error.op, error.module) == ("forward", "log", "head")
    assert (error.step, error.lr, error.value != error.value) == (1, 0.1, True)
    assert "test_tracing.py" in error.line and "x (5, 3) from " in str(error)
    assert "Keep log away" in str(error)
    assert int(trainer.module.body[1].num_batches_tracked.item()) == 1  # once, not twice


def test_the_first_operation_of_the_backward_pass_before_it_reaches_the_parameters():
    error, trainer = diverging(Head(lambda x: bt.sqrt(x * 0)))
    assert (error.direction, error.op, error.module) == ("backward", "divide", "head")
    assert error.backward_of == "sqrt" and "gradients became" in str(error)
    assert all(np.isfinite(p.numpy()).all() for p in trainer.module.state_dict().values())


@pytest.mark.parametrize("clip_norm", [None, 1.0])
def test_gradients_are_watched_after_the_first_steps_too(clip_norm, monkeypatch):
    monkeypatch.setattr("bestiary.core.training.tracing._SHARE", 0.0)
    calls = []

    def function(x):
        calls.append(None)
        return bt.sqrt(x * 0) if len(calls) > 9 else x

    error, _ = diverging(Head(function), clip_norm=clip_norm)
    assert (error.step, error.direction) == (10, "backward")
    assert len(error.losses) == 5 and len(error.gradient_norms) == 5
    assert error.gradient_norms[-1][0] == (9 if clip_norm else 5)


def test_a_rate_that_is_too_high():
    error, _ = diverging(nn.Linear(8, 3), lr=1e30)
    assert error.direction == "forward" and error.step == 2
    assert error.module in ("body.1", "head")
    assert len(error.losses) == 1 and len(error.gradient_norms) == 1
    for part in ("learning rate 1e+30", "Losses before: ", "gradient norms: ", "clip_norm"):
        assert part in str(error)


def test_a_sample_that_is_not_finite():
    data = batches()
    data[3][0][2, 1] = np.nan
    error, _ = diverging(nn.Linear(8, 3), data)
    assert (error.direction, error.step) == ("data", 4)
    assert "1 of 20 values of batch[0], the first at batch[0][2, 1]" in str(error)
    assert "repair such samples" in str(error)


def test_weights_that_are_not_finite():
    head = nn.Linear(8, 3)
    head.weight.array[1] = np.inf
    error, _ = diverging(head)
    assert error.direction == "parameters"
    assert "parameter head.weight: 8 of 24 values are infinity" in str(error)


def test_running_means_that_are_not_finite():
    bt.manual_seed(0)
    net = Body(nn.Linear(8, 3))
    net.body[1].running_var.array[2] = np.nan
    batch_norm = net.body[1]

    def evaluating(module, batch):
        batch_norm.eval()
        return loss(module, batch)

    sgd = optim.SGD(net.parameters(), lr=0.1)
    with pytest.raises(GradError, match=r"buffer body\.1\.running_var: 1 of 8") as caught:
        Trainer(net, sgd, evaluating, batches(), epochs=1, quiet=True).fit()
    assert caught.value.direction == "buffers"


def test_dropout_drops_the_same_again():
    """Only the samples and the numbers that were drawn make it: the trace must repeat them."""
    bt.manual_seed(3)
    masks = []

    def function(x):
        masks.append(random.uniform(x.shape).numpy())
        return x * (bt.Tensor(masks[-1]) * float("inf"))

    net = Body(Head(function))
    trainer = Trainer(
        net, optim.SGD(net.parameters(), lr=0.1), loss, batches(), epochs=1, quiet=True
    )
    with pytest.raises(GradError):
        trainer.fit()
    np.testing.assert_array_equal(masks[0], masks[1])
    after = random.get_state()
    bt.manual_seed(3)
    random.uniform((5, 8)), random.uniform((5, 3))  # what one pass draws
    assert random.get_state()["generators"] == after["generators"]


def test_what_cannot_be_repeated_is_said():
    calls = []

    def function(x):
        calls.append(None)
        return x * float("nan") if len(calls) == 2 else x

    error, _ = diverging(Head(function))
    assert error.direction == "unknown" and error.op is None
    assert "Run again, the batch's loss was finite" in str(error)
    assert "detect_anomaly" in str(error)


def test_accumulated_gradients_point_at_the_batches_before():
    calls = []

    def function(x):
        calls.append(None)
        return bt.sqrt(x * 0) if len(calls) == 1 else x

    error, _ = diverging(Head(function), accumulate=2)
    assert error.direction == "unknown" and "look at the 1 before it" in str(error)


def test_large_finite_gradients_are_no_error():
    net = nn.Linear(4, 1, bias=False)
    data = [(bt.full((1, 4), 1e15), None)]
    trainer = Trainer(
        net, optim.SGD(net.parameters(), lr=0.0), lambda m, b: m(b[0]).sum() * 1e10, data,
        epochs=2, quiet=True,
    )  # fmt: skip
    trainer.fit()
    assert trainer.step == 2 and list(trainer.watch.norms)[-1][1] == np.inf


def test_snapshots_of_the_random_streams():
    bt.manual_seed(1)
    taken = random.snapshot()
    first = random.uniform((3,)).numpy(), random.numpy_rng().normal(size=2)
    random.restore(taken)
    again = random.uniform((3,)).numpy(), random.numpy_rng().normal(size=2)
    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a, b)


def test_messages_are_short():
    error, _ = diverging(Head(lambda x: bt.exp(x * 1e4) * 0))
    assert len(str(error).splitlines()) <= 12


@pytest.mark.filterwarnings("ignore:precision=:UserWarning")
def test_scaled_gradients_that_are_never_finite_are_traced():
    error, _ = diverging(Head(lambda x: bt.sqrt(x * 0)), batches(60), precision="float16")
    assert (error.direction, error.backward_of, error.module) == ("backward", "sqrt", "head")
    assert "although the loss scale" in str(error) and len(str(error).splitlines()) <= 12
