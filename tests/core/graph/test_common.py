"""The pass that computes nothing twice."""

from __future__ import annotations

from typing import Any

import bestiary as bt
from bestiary.core.graph import record, replay
from bestiary.core.graph.passes import share_common


def shared(function: Any, x: bt.Tensor) -> tuple[int, Any]:
    with bt.no_grad():
        graph, _ = record(function, x)
        saved = share_common(graph)
        found = replay(graph, x * 3)[0]
    assert bt.allclose(found, function(x * 3)) or saved == 0
    return saved, graph


def test_equal_calls_are_one() -> None:
    saved, graph = shared(
        lambda x: bt.exp(x[:, 1:]) + bt.exp(x[:, 1:]) * x.sum() + x.sum(),
        bt.ones((3, 4)),
    )
    assert saved == 3  # the slice, its exponential, the sum
    assert sum(call.op.name == "exp" for call in graph.calls) == 1


def test_an_output_may_be_the_other_one() -> None:
    graph, _ = record(lambda x: (bt.exp(x), bt.exp(x)), bt.ones((2,)))
    assert share_common(graph) == 1 and graph.outputs[0] == graph.outputs[1]


def test_numbers_of_other_types_are_others() -> None:
    saved, _ = shared(lambda x: x.astype(bt.int64) * 1 + (x * 1.0).astype(bt.int64), bt.ones((2,)))
    assert saved == 0


def test_random_numbers_and_what_is_written_between_are_not_shared() -> None:
    total = bt.ones((2,))

    def function(x: bt.Tensor) -> bt.Tensor:
        before = total * 2
        bt.assign(total, total + 1)
        return before + total * 2 + bt.random.uniform((2,)) - bt.random.uniform((2,))

    assert shared(function, bt.ones((2,)))[0] == 0
