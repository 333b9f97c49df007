"""Values that are not finite: where they began, through modules, masks and the backward pass."""

from __future__ import annotations

import numpy as np
import pytest

import bestiary as bt
from bestiary import nn
from bestiary.core.anomaly import Tracer, not_finite
from bestiary.core.errors import GradError
from bestiary.core.nn import functional as F
from bestiary.core.state import observing, state


class Inner(nn.Module):
    def __init__(self) -> None:
        self.fc = nn.Linear(3, 3)

    def forward(self, x: bt.Tensor) -> bt.Tensor:
        return bt.sqrt(self.fc(x) * 0)


class Outer(nn.Module):
    def __init__(self) -> None:
        self.layers = [nn.Linear(3, 3), Inner()]

    def forward(self, x: bt.Tensor) -> bt.Tensor:
        for layer in self.layers:
            x = layer(x)
        return x


X = bt.Tensor(np.linspace(-1, 1, 6, dtype=np.float32).reshape(2, 3))


def test_the_backward_pass_names_module_operation_and_line():
    net = Outer()
    with bt.detect_anomaly():
        loss = net(X).sum()
        with pytest.raises(GradError, match=r"backward pass of sqrt.*layers\.1") as caught:
            loss.backward()
    error = caught.value
    assert (error.op, error.value, error.direction) == ("divide", "infinity", "backward")
    assert error.module == "layers.1" and "test_anomaly.py" in error.line
    assert state.node is None and not state.observers


def test_the_forward_pass_names_the_module_and_what_it_was_given():
    net = Outer()
    net.layers[0].weight.array[...] = 3e38
    with bt.detect_anomaly(), pytest.raises(GradError) as caught:
        net(X)
    error = caught.value
    assert (error.op, error.direction, error.module_path) == ("linear", "forward", "layers.0")
    assert "weight (3, 3) all 3e+38" in str(error)


def test_infinities_that_are_written_may_pass_and_nan_from_them_may_not():
    scores = bt.Tensor(np.zeros((2, 3), np.float32))
    mask = np.ones((2, 3), bool)
    mask[1] = False
    with bt.detect_anomaly():
        kept = F.softmax(bt.where(bt.Tensor(mask[:1]), scores[:1], float("-inf")), axis=-1)
        assert not_finite(kept) is None
        masked = bt.where(bt.Tensor(mask), scores, float("-inf"))
        with pytest.raises(GradError, match="subtract made NaN from what it was given"):
            masked - masked
        with pytest.raises(GradError, match="multiply made NaN"):
            scores * float("nan")


def test_a_mask_that_is_written_in_place_may_pass():
    mask = bt.full((3, 3), float("-inf"))
    with bt.detect_anomaly():
        mask[0, 0] = 0.0
        mask = mask + 1.0
    assert not_finite(mask) == ("infinity", 8)


def test_a_written_operand_is_looked_at():
    x = bt.zeros((3,))
    with bt.detect_anomaly(), pytest.raises(GradError, match="made infinity"):
        x[1] = bt.Tensor(np.float32(3e38)) * 10


def test_the_tracer_follows_what_is_not_finite_to_its_beginning():
    tracer = Tracer()
    x = bt.Tensor(np.array([100.0, 1.0], np.float32))
    with observing(tracer):
        unrelated = bt.log(x - 1)  # an infinity that nobody uses
        large = bt.exp(x)
        out = (bt.reshape(large, (2, 1)) - large).sum()
    origin = tracer.origin(out)
    assert origin is not None and (origin.value, origin.op) == ("NaN", "subtract")
    assert (origin.first.value, origin.first.op) == ("infinity", "exp")
    assert tracer.origin(unrelated).op == "log"
    assert "from 1 to 100" in origin.first.operands[0]


def test_values_that_are_dropped_are_forgotten():
    tracer = Tracer()
    with observing(tracer):
        for _ in range(5):
            bt.log(bt.Tensor(np.zeros(3, np.float32)))
    assert len(tracer.origins) == 5 and not tracer._known


@pytest.mark.parametrize(
    "values, found",
    [
        ([1.0, 2.0], None),
        ([1.0, np.nan], ("NaN", 1)),
        ([np.inf, -np.inf], ("infinity", 2)),
    ],
)
@pytest.mark.parametrize("dtype", [bt.float32, bt.float16, bt.bfloat16, bt.float64])
def test_not_finite(values, found, dtype):
    assert not_finite(bt.tensor(values).astype(dtype)) == found
    assert not_finite(bt.tensor([1, 2])) is None
