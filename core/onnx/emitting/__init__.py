"""What each operation becomes in a file: one function for each, found by the operation's name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ...graph.record import Call
from ..builder import Builder

Emitter = Callable[[Builder, Call], Any]
EMITTERS: dict[str, Emitter] = {}


def emits(*names: str) -> Callable[[Emitter], Emitter]:
    """Register what these operations become; it returns the name of the result, or a list."""

    def register(function: Emitter) -> Emitter:
        for name in names:
            EMITTERS[name] = function
        return function

    return register


def emit(b: Builder, call: Call) -> None:
    """Write the nodes of a call."""
    emitter = EMITTERS.get(call.op.name)
    if emitter is None:
        raise b.refused(f"the operation {call.op.name!r}")
    out = emitter(b, call)
    for ref, name in zip(call.results, out if isinstance(out, list) else [out], strict=False):
        b.bind(ref, name)


from . import elementwise, indexing, layers, reductions, shape  # noqa: E402, F401
