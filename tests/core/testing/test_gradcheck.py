"""gradcheck and assert_close find what is wrong, and say where."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import bestiary as bt
from bestiary.core.op import REGISTRY
from bestiary.errors import ConfigError
from bestiary.testing import assert_close, gradcheck

RNG = np.random.default_rng(0)
X = bt.tensor(RNG.standard_normal((2, 3)))


@pytest.fixture
def own_op() -> Any:
    """Makes operations whose names are forgotten afterwards."""
    made = []

    def make(name: str, body: Any, rule: Any) -> Any:
        result: Any = bt.op(name=name)(body)
        result.backward(rule)
        made.append(name)
        return result

    yield make
    for name in made:
        del REGISTRY[name]


def test_right_gradients_pass() -> None:
    gradcheck(lambda x: bt.exp(x) * x, X)
    gradcheck(lambda x, y: (x @ y.mT, bt.sum(x)), [X, X * 2])
    gradcheck(lambda x, n: x * n, [X, 3])  # what is no tensor is passed through
    gradcheck(lambda x: bt.abs(x) * 1j, bt.tensor([1 + 2j, -0.5j], dtype=bt.complex128))
    gradcheck(lambda x: bt.floor(x), X)  # no gradient at all


def test_a_wrong_rule_is_found(own_op: Any) -> None:
    wrong = own_op("test_wrong", lambda xp, x: xp.sin(x), lambda g, x: g * bt.sin(x))
    with pytest.raises(AssertionError, match=r"gradient of input 0, shape \(2, 3\), is wrong at 6"):
        gradcheck(wrong, X)
    swapped = own_op("test_swapped", lambda xp, x: xp.exp(x), lambda g, out: g * -out)
    with pytest.raises(AssertionError, match=r"at \(.*by differences"):
        gradcheck(swapped, X, order=1)


def test_a_wrong_second_gradient_is_found(own_op: Any) -> None:
    def rule(g: Any, x: Any) -> Any:
        cut = x.detach() if isinstance(x, bt.Tensor) else x
        return g * cut * 2

    cut = own_op("test_cut", lambda xp, x: x * x, rule)
    gradcheck(cut, X, order=1)
    with pytest.raises(AssertionError, match="second gradient of input 0"):
        gradcheck(cut, X)


def test_only_inputs_that_require_a_gradient_are_checked() -> None:
    a, b = X.clone().requires_grad_(), X * 2
    gradcheck(lambda x, y: x * bt.floor(y) + bt.round(y), [a, b])


def test_a_function_that_changes_is_refused() -> None:
    calls = []

    def drifting(x: bt.Tensor) -> bt.Tensor:
        calls.append(1)
        return x * len(calls)

    with pytest.raises(AssertionError, match="two results"):
        gradcheck(drifting, X)


def test_coarse_inputs_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"float32.*astype\(bt.float64\)|bt.float64"):
        gradcheck(bt.exp, X.astype(bt.float32))
    with pytest.raises(ConfigError, match="none of the inputs"):
        gradcheck(bt.abs, bt.asarray([1]))


def test_at_most_so_many_elements_are_perturbed() -> None:
    calls = []

    def counted(x: bt.Tensor) -> bt.Tensor:
        calls.append(1)
        return x * 2

    gradcheck(counted, bt.tensor(RNG.standard_normal(1000)), order=1, elements=5)
    assert len(calls) == 2 + 1 + 2 * 5


def test_assert_close() -> None:
    assert_close(bt.ones(3), np.ones(3, np.float32))
    assert_close(bt.ones(3) + 1e-7, bt.ones(3))
    assert_close([bt.ones(2), {"a": 1.0}], [bt.ones(2), {"a": 1.0}])
    assert_close(float("nan"), float("nan"))
    assert_close(bt.asarray([bt.inf, -bt.inf]), bt.asarray([bt.inf, -bt.inf]))
    assert_close(bt.ones(2, dtype=bt.float64), bt.ones(2), check_dtype=False)
    assert_close(bt.ones(2) * 1.1, bt.ones(2), rtol=0.2)


@pytest.mark.parametrize(
    "actual, expected, message",
    [
        (bt.ones(3), bt.ones(2), r"shape is \(3,\), expected \(2,\)"),
        (bt.ones(2), bt.ones(2, dtype=bt.float64), "dtype is float32, expected float64"),
        (bt.asarray([1.0, 2.0]), bt.asarray([1.0, 2.1]), r"1 of 2 values .*\n  at \(1,\): 2"),
        (bt.asarray([1.0, bt.nan]), bt.asarray([1.0, 2.0]), r"at \(1,\): nan"),
        (bt.asarray([bt.inf]), bt.asarray([-bt.inf]), "1 of 1"),
        ({"a": 1}, {"b": 1}, "keys"),
        ([bt.ones(1)], [bt.ones(1), bt.ones(1)], "1 values, expected 2"),
        ([bt.ones(1), bt.ones(1) * 2], [bt.ones(1), bt.ones(1)], r"^\[1\]: 1 of 1"),
        (bt.asarray([1, 2]), bt.asarray([1, 3]), "1 of 2"),
    ],
)
def test_assert_close_says_what_differs(actual: Any, expected: Any, message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        assert_close(actual, expected)


def test_nan_can_be_refused() -> None:
    with pytest.raises(AssertionError, match="1 of 1"):
        assert_close(bt.asarray(bt.nan), bt.asarray(bt.nan), equal_nan=False)
