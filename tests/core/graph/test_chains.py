"""The pass that joins elementwise operations to chains."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import bestiary as bt
from bestiary.core.graph import record, replay
from bestiary.core.graph.passes import fuse_chains
from bestiary.core.graph.program import Program
from bestiary.core.nn import functional as F

SHAPE = (130, 140)  # large enough for chains of two


def random(*shape: int, seed: int = 0) -> bt.Tensor:
    return bt.Tensor(np.random.default_rng(seed).standard_normal(shape).astype(np.float32))


def names(graph: Any) -> list[str]:
    return [call.op.name for call in graph.calls]


def fused(function: Any, *inputs: bt.Tensor) -> Any:
    """The graph after the pass, whose program and interpreter give what the function gives."""
    graph, wanted = record(function, *inputs)
    fuse_chains(graph)
    wanted = wanted if isinstance(wanted, tuple) else (wanted,)
    program = Program(graph)([x.array for x in inputs])
    for found in (program, [t.array for t in replay(graph, *inputs)]):
        for a, b in zip(found, wanted, strict=True):
            np.testing.assert_allclose(a, b.array, rtol=2e-5, atol=1e-6)
    return graph


def test_a_chain_with_numbers_and_broadcast_operands() -> None:
    row, column = random(140, seed=1), random(130, 1, seed=2)
    graph = fused(lambda x: bt.tanh(x * 2 + row) * column - 1, random(*SHAPE))
    assert names(graph) == ["chain"] and len(graph.calls[0].operands) == 3


def test_activations_of_several_kinds() -> None:
    def function(x: bt.Tensor) -> bt.Tensor:
        x = F.gelu(x) + F.gelu(x, approximate="tanh") + F.silu(x) + F.hardswish(x)
        return F.relu6(bt.exp(-x) + bt.sqrt(bt.abs(x))) ** 2

    graph = fused(function, random(*SHAPE))
    assert names(graph) == ["chain"]


def test_values_that_others_use_are_results_too() -> None:
    def function(x: bt.Tensor) -> tuple[bt.Tensor, bt.Tensor]:
        y = bt.tanh(x) * 3
        return y.sum(axis=1), bt.exp(y) + 1

    graph = fused(function, random(*SHAPE))
    assert sorted(names(graph)) == ["chain", "chain", "sum"]  # the sum closed the first


def test_two_branches_become_one() -> None:
    def function(x: bt.Tensor, y: bt.Tensor) -> bt.Tensor:
        return bt.tanh(x) * 2 + bt.exp(y) * 3

    graph = fused(function, random(*SHAPE), random(*SHAPE, seed=1))
    assert names(graph) == ["chain"]


def test_small_arrays_are_joined_only_when_it_pays() -> None:
    small = random(4, 5)
    assert names(fused(lambda x: bt.tanh(x) * 2, small)) == ["tanh", "multiply"]
    assert names(fused(lambda x: bt.exp(-bt.tanh(x) * 2) + 1, small)) == ["chain"]


def test_writing_in_place_comes_between() -> None:
    total = bt.zeros(SHAPE)

    def function(x: bt.Tensor) -> bt.Tensor:
        before = total * 2 + x
        bt.assign(total, x)
        return before + total * 3

    with bt.no_grad():
        graph, _ = record(function, random(*SHAPE))
    fuse_chains(graph)
    assert names(graph) == ["chain", "assign", "chain"]
    total.array[...] = 5.0
    x = random(*SHAPE, seed=3)
    (found,) = Program(graph)([x.array])
    np.testing.assert_allclose(found, 10 + 4 * x.array, rtol=1e-5)


def test_other_dtypes_and_conditions_stay() -> None:
    graph = fused(lambda x: bt.where(x > 0, x * 2, x).astype(bt.float64) * 3, random(*SHAPE))
    assert "chain" not in names(graph)


def test_channels_last_memory_stays() -> None:
    x = bt.Tensor(random(2, 9, 30, 31).array.transpose(0, 3, 1, 2))
    bias = random(1, 31, 1, 1, seed=1)
    graph, wanted = record(lambda v: bt.tanh(v + bias) * v, x)
    assert fuse_chains(graph) == 3
    (found,) = Program(graph)([x.array])
    assert found.strides == wanted.array.strides == x.array.strides
    np.testing.assert_allclose(found, wanted.array, rtol=1e-5, atol=1e-6)


@given(st.data())
def test_random_graphs(data: Any) -> None:
    shapes = [(6, 5), (5,), (6, 1), ()]

    def build(*inputs: bt.Tensor) -> tuple[bt.Tensor, ...]:
        values = list(inputs)
        for name, a, b, number in plan:
            x, y = values[a % len(values)], values[b % len(values)]
            if name == "sum":
                values.append(x.sum(axis=0) if x.ndim else x)
            elif name == "number":
                values.append(x * number)
            elif name in ("tanh", "negative"):
                values.append(getattr(bt, name)(x))
            else:
                values.append(getattr(bt, name)(x, y))
        return tuple(values[k] for k in chosen if k < len(values)) or (values[-1],)

    kinds = ["add", "multiply", "subtract", "maximum", "tanh", "negative", "number", "sum"]
    step = st.tuples(
        st.sampled_from(kinds), st.integers(0, 40), st.integers(0, 40), st.sampled_from([0.5, -2.0])
    )
    plan = data.draw(st.lists(step, min_size=4, max_size=30))
    chosen = data.draw(st.lists(st.integers(4, 33), min_size=1, max_size=6, unique=True))
    inputs = [random(*shape, seed=k) * 0.3 for k, shape in enumerate(shapes)]
    graph, wanted = record(build, *inputs)
    fuse_chains(graph)
    found = Program(graph)([x.array for x in inputs])
    for a, b in zip(found, wanted, strict=True):
        limit = np.abs(b.array).max(initial=1.0)
        np.testing.assert_allclose(a / limit, b.array / limit, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("native", ["0", "1"])
def test_without_the_kernels_the_result_is_the_same(
    monkeypatch: pytest.MonkeyPatch, native: str
) -> None:
    if native == "0":
        monkeypatch.setenv("BESTIARY_NATIVE", "0")
    fused(lambda x: (bt.tanh(x) * 2 + 1, bt.exp(x)), random(*SHAPE))
