"""Passes that find attention, norms and linear maps where they are written out."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import bestiary as bt
from bestiary.core.graph.passes import (
    drop_reshapes,
    find_attention,
    find_gelus,
    find_linears,
    find_row_norms,
)
from bestiary.core.graph.record import Graph, record
from bestiary.core.graph.replay import replay
from bestiary.core.nn import functional as F
from bestiary.core.op import REGISTRY


def random(*shape: int, seed: int = 0) -> bt.Tensor:
    return bt.Tensor(np.random.default_rng([seed, *shape]).standard_normal(shape, np.float32))


def passed(
    apply: Callable[[Graph], int], function: Callable[..., Any], *inputs: bt.Tensor
) -> tuple[int, list[str]]:
    """How many a pass found, and what is left; the graph must give the same, for other inputs."""
    with bt.inference_mode():
        graph, _ = record(function, *inputs)
        count = apply(graph)
        others = [x * 0.5 + 0.1 for x in inputs]
        want = function(*others)
        for got, wanted in zip(
            replay(graph, *others), want if isinstance(want, tuple) else (want,), strict=True
        ):
            np.testing.assert_allclose(got.numpy(), wanted.numpy(), rtol=1e-4, atol=1e-5)
    return count, [call.op.name for call in graph.calls]


Q, K, V = random(2, 3, 9, 8), random(2, 3, 11, 8, seed=1), random(2, 3, 11, 5, seed=2)
MASK = bt.Tensor(np.where(np.arange(11) < 7, 0, -math.inf).astype(np.float32))
WIDE = random(2, 1, 9, 11)
SCALE = bt.Tensor(np.float32(0.25))


def turned(x: bt.Tensor) -> bt.Tensor:
    return bt.matrix_transpose(x)


ATTENTION: dict[str, Callable[..., Any]] = {
    "plain": lambda q, k, v: F.softmax(q @ turned(k), -1) @ v,
    "scaled": lambda q, k, v: F.softmax((q @ turned(k)) * 0.3, 3) @ v,
    "divided, by a tensor": lambda q, k, v: F.softmax((q @ turned(k)) / SCALE, -1) @ v,
    "scaled before": lambda q, k, v: F.softmax((0.5 * q) @ (turned(k) * 0.5), -1) @ v,
    "mask of keys": lambda q, k, v: F.softmax(q @ turned(k) * 0.3 + MASK, -1) @ v,
    "mask first": lambda q, k, v: F.softmax(WIDE + q @ turned(k), -1) @ v,
    "keys that lie the other way": lambda q, k, v: (
        F.softmax(bt.permute_dims(q, (0, 2, 1, 3)) @ bt.permute_dims(k, (0, 2, 3, 1))[:, :9], -1)
        @ bt.permute_dims(v, (0, 2, 1, 3))[:, :9]
    ),
    "without samples": lambda q, k, v: F.softmax(q[0] @ turned(k[0]), -1) @ v[0],
}
NO_ATTENTION: dict[str, Callable[..., Any]] = {
    "probabilities are wanted": lambda q, k, v: (
        (p := F.softmax(q @ turned(k), -1)) @ v,
        p,
    ),
    "softmax along queries": lambda q, k, v: F.softmax(q @ turned(k), -2) @ v,
    "scores are used twice": lambda q, k, v: F.softmax((s := q @ turned(k)) + s * 0.1, -1) @ v,
    "shared keys": lambda q, k, v: F.softmax(q @ turned(k[:, :1]), -1) @ v,
    "a mask that is scaled too": lambda q, k, v: F.softmax((q @ turned(k) + WIDE) * 0.3, -1) @ v,
    "no product": lambda q, k, v: F.softmax(q @ turned(k) * (q @ turned(k)), -1) @ v,
}


@pytest.mark.parametrize("name", ATTENTION)
def test_attention_is_found(name: str) -> None:
    count, left = passed(find_attention, ATTENTION[name], Q, K, V)
    assert count == 1
    assert "attention" in left and "softmax" not in left and "matmul" not in left


@pytest.mark.parametrize("name", NO_ATTENTION)
def test_what_is_no_attention_stays(name: str) -> None:
    count, left = passed(find_attention, NO_ATTENTION[name], Q, K, V)
    assert count == 0 and "softmax" in left


W, B = random(8, seed=3), random(8, seed=4)


def centred(x: bt.Tensor) -> bt.Tensor:
    return x - bt.mean(x, axis=-1, keepdims=True)


def spread(d: bt.Tensor) -> bt.Tensor:
    return bt.sqrt(bt.mean(d * d, axis=-1, keepdims=True) + 1e-3)


NORMS: dict[str, tuple[str, Callable[..., Any]]] = {
    "layer norm": ("layer_norm", lambda x: (d := centred(x)) / spread(d) * W + B),
    "without a weight": ("layer_norm", lambda x: (d := centred(x)) / spread(d)),
    "without a bias": ("layer_norm", lambda x: W * ((d := centred(x)) / spread(d))),
    "by its inverse": ("layer_norm", lambda x: B + (d := centred(x)) * (1 / spread(d)) * W),
    "by powers": (
        "layer_norm",
        lambda x: (d := centred(x)) * (1e-3 + bt.mean(d**2, axis=(-1,), keepdims=True)) ** -0.5 * W,
    ),
    "square": (
        "layer_norm",
        lambda x: (
            (d := centred(x)) / (bt.mean(bt.square(d), axis=2, keepdims=True) + 1e-3) ** 0.5 + 1.0
        ),
    ),
    "root mean square": ("rms_norm", lambda x: x / spread(x) * W),
    "its inverse": ("rms_norm", lambda x: W * (bt.reciprocal(spread(x)) * x)),
    "without a weight either": ("rms_norm", lambda x: x * (1 / spread(x))),
}
NO_NORMS: dict[str, Callable[..., Any]] = {
    "of other values": lambda x: x / spread(x * 2),
    "along rows": lambda x: x / bt.sqrt(bt.mean(x * x, axis=1, keepdims=True) + 1e-3),
    "a spread that is wanted": lambda x: (x / (s := spread(x)), s),
    "the other way": lambda x: spread(x) / x,
    "2 over it": lambda x: x * (2 / spread(x)),
    "cubes": lambda x: x / bt.sqrt(bt.mean(x**4, axis=-1, keepdims=True) + 1e-3),
}


@pytest.mark.parametrize("name", NORMS)
def test_norms_are_found(name: str) -> None:
    kind, function = NORMS[name]
    count, left = passed(find_row_norms, function, random(2, 5, 8))
    assert count == 1
    assert kind in left
    assert not {"mean", "sqrt", "divide", "reciprocal", "multiply", "subtract"} & set(left)


@pytest.mark.parametrize("name", NO_NORMS)
def test_what_is_no_norm_stays(name: str) -> None:
    assert passed(find_row_norms, NO_NORMS[name], random(2, 5, 8) + 3.0)[0] == 0


def test_what_is_centred_and_wanted_besides_is_a_norm_of_it() -> None:
    """The centred values are there anyway; their root mean square is the deviation."""
    count, left = passed(
        find_row_norms, lambda x: ((d := centred(x)) / spread(d), d * 2.0), random(2, 5, 8)
    )
    assert count == 1 and "rms_norm" in left and "subtract" in left


def test_products_by_constants_are_linear_maps() -> None:
    matrix = random(8, 6)
    count, left = passed(find_linears, lambda x: (x @ matrix + x[..., :6], x @ matrix), Q)
    assert count == 2 and left.count("linear") == 2 and "matmul" not in left


def test_other_products_stay() -> None:
    table, stack = random(9, 8), random(2, 3, 8, 4)
    assert passed(find_linears, lambda x: (table @ turned(x), x @ stack), Q)[0] == 0


ROOT, ERF = math.sqrt(0.5), REGISTRY["erf"]
ONE = bt.Tensor(np.float32(1))
GELUS: dict[str, Callable[..., Any]] = {
    "halved first": lambda x: (x * 0.5) * (ERF(x * ROOT) + 1.0),
    "halved last": lambda x: 0.5 * (x * (ONE + ERF(x / math.sqrt(2)))),
    "divided": lambda x: x * (1.0 + ERF(x * ROOT)) / 2,
}
NO_GELUS: dict[str, Callable[..., Any]] = {
    "not halved": lambda x: x * (1.0 + ERF(x * ROOT)),
    "of another number": lambda x: 0.5 * (x * (1.0 + ERF(x * 0.7))),
    "2 more": lambda x: 0.5 * (x * (2.0 + ERF(x * ROOT))),
    "of other values": lambda x: 0.5 * (x * (1.0 + ERF((x + 1.0) * ROOT))),
    "a part is wanted": lambda x: (0.5 * (x * (e := 1.0 + ERF(x * ROOT))), e),
}


@pytest.mark.parametrize("name", GELUS)
def test_gelus_are_found(name: str) -> None:
    assert passed(find_gelus, GELUS[name], random(3, 5)) == (1, ["gelu"])


@pytest.mark.parametrize("name", NO_GELUS)
def test_what_is_no_gelu_stays(name: str) -> None:
    assert passed(find_gelus, NO_GELUS[name], random(3, 5))[0] == 0


def test_reshapes_that_change_nothing_are_left_out() -> None:
    def function(x: bt.Tensor) -> Any:
        y = F.linear(bt.reshape(x, (-1, 8)), random(6, 8), random(6))
        z = bt.reshape(y, (2, 3, 9, 6))
        return bt.reshape(z, (2, 3, 9, 6)) + 1.0, bt.reshape(x, x.shape), bt.reshape(x, (6, 9, 8))

    with bt.inference_mode():
        assert len(record(lambda x: bt.reshape(x, x.shape), Q)[0].calls) <= 1
    _, left = passed(drop_reshapes, function, Q)
    assert left == ["linear", "add", "reshape"]


def test_other_reshapes_around_linear_maps_stay() -> None:
    weight = random(6, 8)
    for function in (
        lambda x: bt.reshape(F.linear(bt.reshape(x, (-1, 8)), weight), (3, 2, 9, 6)),
        lambda x: bt.reshape(F.linear(bt.reshape(x, (-1, 8)), weight), (2, 3, 6, 9)),
        lambda x: bt.reshape(F.linear(bt.reshape(x, (2, 3, -1, 8)), weight), (54, 6)),
    ):
        _, left = passed(drop_reshapes, function, Q)
        assert "reshape" in left


def test_compiled_functions_use_them() -> None:
    """And say so."""
    matrix = random(8, 8)

    @bt.compile
    def block(x: bt.Tensor) -> bt.Tensor:
        h = (d := centred(x)) / spread(d) * W + B
        q, k = h @ matrix, h @ matrix * 2.0
        return F.softmax(q @ turned(k) * 0.3, -1) @ h

    with bt.inference_mode():
        x = random(2, 12, 8)
        for y in (x, x, x * 2.0):
            np.testing.assert_allclose(
                block(y).numpy(), block.function(y).numpy(), rtol=1e-4, atol=1e-5
            )
    told = str(block.explain()[0])
    for what in ("1 products that are attention", "1 norms of rows", "linear maps"):
        assert what in told
