"""What people do wrong, and what they read: a test for each row that the core answers for.

Each asserts the facts that the message must contain.
"""

from __future__ import annotations

import numpy as np
import pytest

import bestiary as bt
from bestiary import nn, optim
from bestiary.core.errors import (
    BestiaryError,
    ConfigError,
    DtypeError,
    IndexRangeError,
    ShapeError,
    WeightsError,
)
from bestiary.core.nn import functional as F


class Net(nn.Module):
    def __init__(self) -> None:
        self.conv = nn.Conv2d(3, 64, 3)
        self.fc1 = nn.Linear(256, 10)

    def forward(self, x: bt.Tensor) -> bt.Tensor:
        x = self.conv(x)
        return self.fc1(x.reshape(x.shape[0], -1))


def message(error: pytest.ExceptionInfo[BestiaryError], *parts: str) -> str:
    text = str(error.value)
    for part in parts:
        assert part in text, f"{part!r} is not in:\n{text}"
    assert len(text.splitlines()) <= 12
    return text


@pytest.mark.parametrize("mode", [bt.enable_grad, bt.inference_mode])
def test_row_1_linear_after_flatten(mode):
    with mode(), pytest.raises(ShapeError) as caught:
        Net().eval()(bt.zeros((2, 3, 8, 8)))
    message(caught, "fc1", "256", "2304", "64", "6", "Linear(2304, 10)")
    assert (caught.value.expected, caught.value.got) == (256, 2304)
    assert caught.value.module_path == "fc1"


def test_row_3_float_targets():
    with pytest.raises(BestiaryError) as caught:
        F.cross_entropy(bt.zeros((4, 3)), bt.zeros((4,)))
    message(caught, "float32", "integer")


def test_row_4_a_target_out_of_range():
    with pytest.raises(IndexRangeError) as caught:
        F.cross_entropy(bt.zeros((4, 3)), bt.tensor([0, 1, 3, 2]))
    message(caught, "target 3 at index 2", "3 classes")
    with pytest.raises(IndexRangeError) as caught:
        F.cross_entropy(bt.zeros((3, 3)), bt.tensor([1, 2, 3]))
    message(caught, "target 3 at index 2", "3 classes", "1", "target - 1")


def test_row_14_an_optimizer_without_parameters():
    net = Net().requires_grad_(False)
    with pytest.raises(ConfigError) as caught:
        optim.SGD(net.parameters(), lr=0.1)
    message(caught, "frozen", "requires_grad_(True)")
    with pytest.raises(ConfigError) as caught:
        optim.SGD([], lr=0.1)
    message(caught, "0 parameters", "tuple", "closure")


def test_row_15_state_dict_keys_that_differ():
    net = Net()
    state = {f"module.{name}": value for name, value in net.state_dict().items()}
    before = net.fc1.weight.detach().numpy().copy()
    with pytest.raises(WeightsError) as caught:
        net.load_state_dict(state)
    message(caught, "module.", "conv")
    np.testing.assert_array_equal(net.fc1.weight.detach().numpy(), before)


def test_row_17_a_forgotten_zero_grad_is_warned_of_once():
    layer = nn.Linear(2, 2)
    optimizer = optim.SGD(layer.parameters(), lr=0.1)

    def careless_training() -> None:
        for _ in range(3):
            layer(bt.ones((1, 2))).sum().backward()
            optimizer.step()

    with pytest.warns(nn.TrainingWarning, match="zero_grad") as seen:
        careless_training()
    assert len(seen) == 1


def test_row_20_batch_norm_on_one_sample():
    with pytest.raises(ShapeError) as caught:
        nn.BatchNorm1d(3)(bt.ones((1, 3)))
    message(caught, "drop_last=True", "eval()")


def test_row_25_an_id_beyond_the_vocabulary():
    with pytest.raises(IndexRangeError) as caught:
        nn.Embedding(100, 8)(bt.tensor([[5, 100]]))
    message(caught, "100")


def test_row_34_matmul_of_unfitting_shapes():
    with pytest.raises(ShapeError) as caught:
        bt.ones((2, 3)) @ bt.ones((4, 3))
    message(caught, "(2, >3<)", "(>4<, 3)", "x2.mT")


@pytest.mark.parametrize(
    "first, second, axis, marks",
    [
        ((2, 3, 4), (5, 4, 6), -3, ("(>2<, 3, 4)", "(>5<, 4, 6)", "x1[:, None] @ x2[None]")),
        ((7, 3, 1, 3, 4), (2, 5, 4, 6), -4, ("(7, >3<, 1, 3, 4)", "(>2<, 5, 4, 6)")),
    ],
)
def test_matmul_of_stacks_that_do_not_fit(first, second, axis, marks):
    for dtype in ("float32", "bfloat16"):
        with pytest.raises(ShapeError) as caught:
            bt.ones(first, dtype=dtype) @ bt.ones(second, dtype=dtype)
        message(caught, *marks, f"axis {axis},")
        assert caught.value.axis == axis and caught.value.shapes == [first, second]
    x1, x2 = bt.ones((2, 3, 4)), bt.ones((5, 4, 6))
    assert (x1[:, None] @ x2[None]).shape == (2, 5, 3, 6)  # the fix works


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int64"])
@pytest.mark.parametrize(
    "first, second, axis, marks, fix",
    [
        ((3,), (4,), -1, ("(>3<,)", "(>4<,)"), "x2[..., :3]"),
        ((2, 5, 4), (2, 3, 4), -2, ("(2, >5<, 4)", "(2, >3<, 4)"), "x1[..., :3, :]"),
        ((2, 3), (3, 2), -1, ("(2, >3<)", "(3, >2<)"), "x2.mT"),
        ((2, 3, 8, 8), (3,), -1, ("(2, 3, 8, >8<)", "(>3<,)"), "x2[..., None, None]"),
        ((8,), (8, 3), -1, ("(>8<,)", "(8, >3<)"), "x1[..., None]"),
        ((2, 6), (3, 4), -1, ("(2, >6<)", "(3, >4<)"), "x2.reshape(x1.shape)"),
    ],
)
def test_elementwise_operands_of_unfitting_shapes(first, second, axis, marks, fix, dtype):
    x1, x2 = bt.ones(first, dtype=dtype), bt.ones(second, dtype=dtype)
    for function in (bt.add, bt.maximum, bt.equal):
        with pytest.raises(ShapeError) as caught:
            function(x1, x2)
        message(caught, *marks, f"axis {axis},", fix)
        assert caught.value.axis == axis
        assert caught.value.shapes == [first, second]
    function(*eval(f"x1, {fix}" if fix.startswith("x2") else f"{fix}, x2"))  # the fix works


def test_a_mask_of_another_shape():
    with pytest.raises(ShapeError) as caught:
        bt.where(bt.ones((2, 2)) > 0, bt.ones((3,)), 0.0)
    message(caught, "condition: (2, >2<)", "x1: (>3<,)")


def test_row_36_float64_data_into_a_float32_model():
    data = np.random.default_rng(0).normal(size=(2, 256))
    with pytest.raises(DtypeError) as caught:
        Net().fc1(bt.asarray(data))
    message(caught, "float64", "float32", "NumPy", "x.astype(bt.float32)")


@pytest.mark.parametrize(
    "call",
    [
        lambda x: bt.sum(x, dim=0),
        lambda x: bt.concat([x, x], dim=1),
        lambda x: F.softmax(x, dim=-1),
        lambda x: x.sum(dim=0),
    ],
)
def test_row_38_dim_is_answered_with_axis(call):
    with pytest.raises(TypeError, match="axis"):
        call(bt.ones((2, 2)))


def test_errors_travel_between_processes():
    import pickle

    error = ShapeError("text", expected=1, got=2)
    error.module_path = "a.b"
    again = pickle.loads(pickle.dumps(error))
    assert (again.expected, again.got, str(again)) == (1, 2, "in module 'a.b': text")
    with pytest.raises(AttributeError):
        _ = again.nothing


@pytest.mark.parametrize("dtype", ["int64", "uint8"])
@pytest.mark.parametrize(
    "layer, shape",
    [
        (nn.Linear(3, 2), (2, 3)),
        (nn.Conv2d(3, 2, 1), (1, 3, 4, 4)),
        (nn.LayerNorm(3), (2, 3)),
        (nn.BatchNorm1d(3), (2, 3)),
    ],
)
def test_integers_given_to_a_layer(layer, shape, dtype):
    with pytest.raises(DtypeError, match=rf"is {dtype}, the other operands are float32") as caught:
        layer(bt.ones(shape, dtype=dtype))
    assert ".astype(bt.float32) / 255" in str(caught.value)


def test_a_device_is_named_as_in_torch():
    device = bt.device("cpu")
    assert str(device) == "cpu" and repr(device) == "device('cpu')"
    assert bt.ones((2,)).to(device).device == bt.zeros((2,), device=device).device
    assert nn.Linear(2, 2).to(device).device == "cpu"
    with device, device as inner:  # within itself, too
        assert inner == bt.ones((1,)).device
