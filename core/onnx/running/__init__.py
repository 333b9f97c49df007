"""ONNX's operators by ours: a table from names to functions, filled by the files of this folder."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

OPERATORS: dict[str, Callable[..., Any]] = {}


def operator(*names: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register a function `(call, *inputs)` for operators of ONNX's own domain."""

    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        for name in names:
            OPERATORS[name] = function
        return function

    return register


from . import (  # noqa: E402
    arithmetic,
    attention,
    control,
    layers,
    losses,
    movement,
    quantised,
    recurrent,
    reducing,
    resizing,
)

__all__ = [
    "OPERATORS", "arithmetic", "attention", "control", "layers", "losses", "movement", "operator",
    "quantised", "recurrent", "reducing", "resizing",
]  # fmt: skip
