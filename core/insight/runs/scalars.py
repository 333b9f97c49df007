"""Numbers of an event file, read together: long logs are mostly events of one form."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ... import wire
from ...errors import DataError
from .frames import by_length, gather

_FEW = 8  # events of one form for which reading them together pays


class Numbers(NamedTuple):
    """Numbers of one tag, in the order of the file."""

    tag: str
    times: Any
    steps: Any
    values: Any


class _Form(NamedTuple):
    """Where in an event its parts are."""

    step: int  # the first byte of the step
    step_length: int
    value: int
    tag: str


def read_numbers(data: bytes, firsts: Any, lengths: Any) -> tuple[list[Numbers], list[int]]:
    """The numbers among records, and which records have to be read one by one.

    Args:
        firsts, lengths: first byte and length of each record, (N,).
    """
    rest: list[int] = []
    found: list[Numbers] = []
    if not len(lengths):
        return found, rest
    values = np.frombuffer(data, np.uint8)
    for length, left in by_length(lengths):
        missed = 0
        while len(left) >= _FEW and missed < _FEW:
            block = gather(values, firsts[left], length)
            form = _form(block[0].tobytes())
            if form is None:  # of another kind, as most of this length may be
                rest.append(int(left[0]))
                left, missed = left[1:], missed + 1
                continue
            same = _alike(block, form)
            rows = block[same]
            found.append(
                Numbers(
                    form.tag,
                    _column(rows, 1, 8, "<f8"),
                    _steps(rows[:, form.step : form.step + form.step_length]),
                    _column(rows, form.value, 4, "<f4"),
                )
            )
            left = left[~same]
        rest += left.tolist()
    return found, sorted(rest)


def _form(event: bytes) -> _Form | None:
    """Where the parts are of an event with a time, a step and one number; None for others."""
    try:
        if len(event) < 12 or event[0] != 9 or event[9] != 16:
            return None
        _, end = wire.read_varint(event, 10)
        place = end
        for wanted in (5 << 3 | wire.BYTES, 1 << 3 | wire.BYTES):  # the summary, its only value
            if event[place] != wanted:
                return None
            length, place = wire.read_varint(event, place + 1)
            if place + length != len(event):
                return None
        if event[place] != (1 << 3 | wire.BYTES):
            return None
        length, place = wire.read_varint(event, place + 1)
        tag = event[place : place + length].decode("utf-8", "replace")
        place += length
        if place + 5 != len(event) or event[place] != (2 << 3 | wire.FOUR):
            return None
    except (DataError, IndexError):
        return None
    return _Form(10, end - 10, place + 1, tag)


def _alike(block: Any, form: _Form) -> Any:
    """Which rows are of the form of the first one: all else than its numbers is equal."""
    fixed = np.ones(block.shape[1], bool)
    fixed[1:9] = False
    fixed[form.step : form.step + form.step_length] = False
    fixed[form.value : form.value + 4] = False
    same: Any = (block[:, fixed] == block[0, fixed]).all(axis=1)
    step = block[:, form.step : form.step + form.step_length]
    more = step >= 128  # of a varint, every byte but the last says that more follow
    return same & more[:, :-1].all(axis=1) & ~more[:, -1]


def _column(block: Any, first: int, size: int, dtype: str) -> Any:
    part = np.ascontiguousarray(block[:, first : first + size])
    return part.view(dtype)[:, 0].astype(np.float64)


def _steps(block: Any) -> Any:
    found = np.zeros(len(block), np.uint64)
    for i, column in enumerate(np.ascontiguousarray(block.T)):
        found |= (column & np.uint8(127)).astype(np.uint64) << np.uint64(7 * i)
    return found.astype(np.int64)
