"""Elementwise operations that follow one another become one call: a chain.

A chain touches memory once, and is run at the place of its last operation. Calls join the open
chain that makes one of their operands if their results have its shape. What another call uses
closes a chain, and so does writing in place.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from ...dtypes import float32
from ...native.chain import MOST_INPUTS, MOST_NUMBERS, MOST_OUTPUTS, OPERATIONS
from ..fused import chain
from ..record import Call, Graph, Ref

_MOST_STEPS = 16
_SMALL = 16384  # elements below which a chain is worth it only for several operations
_FEWEST, _FEWEST_OF_SMALL = 2, 4
_BINARY_FROM = 32


@dataclass(eq=False)
class _Group:
    shape: tuple[int, ...]
    places: list[int] = field(default_factory=list)  # of the calls
    steps: list[tuple[str, tuple[Any, ...]]] = field(default_factory=list)
    made: dict[int, int] = field(default_factory=dict)  # value -> step
    inputs: list[int] = field(default_factory=list)
    numbers: set[float] = field(default_factory=set)


def fuse_chains(graph: Graph) -> int:
    """Join them; returns how many calls became part of a chain."""
    open_: dict[int, _Group] = {}  # value -> the group that makes it
    done: list[_Group] = []

    def close(group: _Group) -> None:
        for value in group.made:
            open_.pop(value, None)
        if group not in done:
            done.append(group)

    for place, call in enumerate(graph.calls):
        if call.op.writes:
            for group in list(open_.values()):
                close(group)
            continue
        parts = _steps_of(graph, call)
        used = [x.index for x in call.operands if isinstance(x, Ref)]
        groups = list(dict.fromkeys(open_[i] for i in used if i in open_))
        if parts is None:
            for group in groups:
                close(group)
            continue
        result = call.results[0]
        assert result is not None
        shape = graph.kinds[result.index][0]
        fitting = [g for g in groups if g.shape == shape]
        for group in groups:
            if group not in fitting:
                close(group)
        group = fitting[0] if fitting else _Group(shape)
        for other in fitting[1:]:
            if _fits(group, other):
                _merge(group, other)
                for value in other.made:
                    open_[value] = group
            else:
                close(other)
        if not _takes(group, parts, used):
            close(group)
            group = _Group(shape)
        _append(group, place, parts, result.index)
        open_[result.index] = group
    for group in list(open_.values()):
        close(group)
    return _replace(graph, done)


def _steps_of(graph: Graph, call: Call) -> list[tuple[str, tuple[Any, ...]]] | None:
    """A call in the terms of the kernel: operands are `Ref`s, numbers or "before"; or None."""
    result = call.results[0] if len(call.results) == 1 else None
    if result is None or graph.kinds[result.index][1] != float32:
        return None
    shape = graph.kinds[result.index][0]
    for x in call.operands:
        if isinstance(x, Ref):
            if graph.kinds[x.index][1] != float32:
                return None
        elif type(x) not in (int, float):
            return None
    if not math.prod(shape) or not any(isinstance(x, Ref) for x in call.operands):
        return None
    name, constants = call.op.name, call.constants
    operands = tuple(float(x) if type(x) is int else x for x in call.operands)
    if name in ("gelu", "gelu_backward"):
        kind = name if constants["approximate"] == "none" else name.replace("gelu", "gelu_tanh", 1)
        return [(kind, operands)]
    if name == "hardtanh":
        return [
            ("maximum", (operands[0], float(constants["low"]))),
            ("minimum", ("before", float(constants["high"]))),
        ]
    if name == "pow":
        return [("square", operands[:1])] if operands[1] == 2.0 else None
    if name not in OPERATIONS or constants:
        return None
    if len(operands) != (2 if OPERATIONS[name] >= _BINARY_FROM else 1):
        return None
    return [(name, operands)]


def _numbers(parts: list[tuple[str, tuple[Any, ...]]]) -> set[float]:
    return {x for _, operands in parts for x in operands if isinstance(x, float)}


def _takes(group: _Group, parts: list[tuple[str, tuple[Any, ...]]], used: list[int]) -> bool:
    inputs = {*group.inputs, *(i for i in used if i not in group.made)}
    return (
        len(inputs) <= MOST_INPUTS
        and len(group.steps) + len(parts) <= _MOST_STEPS
        and len(group.numbers | _numbers(parts)) <= MOST_NUMBERS
    )


def _fits(group: _Group, other: _Group) -> bool:
    return (
        len({*group.inputs, *other.inputs}) <= MOST_INPUTS
        and len(group.steps) + len(other.steps) <= _MOST_STEPS
        and len(group.numbers | other.numbers) <= MOST_NUMBERS
    )


def _append(
    group: _Group, place: int, parts: list[tuple[str, tuple[Any, ...]]], value: int
) -> None:
    for name, operands in parts:
        found: list[tuple[str, Any]] = []
        for x in operands:
            if isinstance(x, Ref):
                if x.index in group.made:
                    found.append(("step", group.made[x.index]))
                    continue
                if x.index not in group.inputs:
                    group.inputs.append(x.index)
                found.append(("input", group.inputs.index(x.index)))
            elif x == "before":
                found.append(("step", len(group.steps) - 1))
            else:
                group.numbers.add(x)
                found.append(("number", x))
        group.steps.append((name, tuple(found)))
    group.made[value] = len(group.steps) - 1
    group.places.append(place)


def _merge(group: _Group, other: _Group) -> None:
    """Put the steps of another group behind those of this one; neither uses what the other made."""
    offset = len(group.steps)
    for name, operands in other.steps:
        found: list[tuple[str, Any]] = []
        for kind, value in operands:
            if kind == "step":
                found.append((kind, value + offset))
            elif kind == "number":
                found.append((kind, value))
            else:
                index = other.inputs[value]
                if index not in group.inputs:
                    group.inputs.append(index)
                found.append((kind, group.inputs.index(index)))
        group.steps.append((name, tuple(found)))
    group.made.update({value: step + offset for value, step in other.made.items()})
    group.places += other.places
    group.numbers |= other.numbers


def _replace(graph: Graph, groups: list[_Group]) -> int:
    """Put chains in the places of the last calls of their groups."""
    outside = {ref.index for ref in graph.outputs}
    owner = {place: group for group in groups for place in group.places}
    for place, call in enumerate(graph.calls):
        own = owner.get(place)
        made = () if own is None else own.made
        outside.update(x.index for x in call.operands if isinstance(x, Ref) and x.index not in made)
    at: dict[int, Call] = {}
    gone: set[int] = set()
    for group in groups:
        fewest = _FEWEST if math.prod(group.shape) >= _SMALL else _FEWEST_OF_SMALL
        wanted = [value for value in group.made if value in outside]
        if len(group.places) < fewest or not 0 < len(wanted) <= MOST_OUTPUTS:
            continue
        constants = {
            "steps": tuple(group.steps),
            "wanted": tuple(group.made[value] for value in wanted),
            "shape": group.shape,
        }
        operands = tuple(Ref(i) for i in group.inputs)
        last = max(group.places)
        at[last] = Call(chain, operands, constants, tuple(Ref(v) for v in wanted))
        gone.update(group.places)
    graph.calls[:] = [
        at.get(place, call)
        for place, call in enumerate(graph.calls)
        if place in at or place not in gone
    ]
    return len(gone)
