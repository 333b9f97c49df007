"""A small state machine over bytes: which byte may follow, and the shortest way to the end.

A state is a tuple of frames, the innermost last; a frame is a tuple whose first element is the
number of its part. States are hashable, so that what follows from one is computed once. Parts are
made by `schema.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

Frame = tuple[Any, ...]
State = tuple[Frame, ...]
# The frames that take a frame's place, and whether the byte was used up. None: it does not fit.
Outcome = tuple[State, bool] | None

NO_LIMIT = 1 << 30
_OVER: Outcome = ((), False)  # this frame ended before the byte
_DONE: Outcome = ((), True)


class Part:
    """One rule of a form. `number` is its place in the machine."""

    number: int

    def enter(self) -> Frame:
        """The frame at its beginning."""
        return (self.number, 0)

    def step(self, frame: Frame, byte: int) -> Outcome:
        """What becomes of a frame."""
        raise TypeError(type(self).__name__)

    def may_end(self, frame: Frame) -> bool:
        """Whether nothing more has to come."""
        return False

    def rest(self, frame: Frame) -> bytes:
        """A shortest completion."""
        raise TypeError(type(self).__name__)

    def free(self, frame: Frame) -> int | None:
        """The most characters of free text that may follow; None where the text is not free."""
        return None

    def first(self) -> frozenset[int]:
        """The bytes with which it can begin."""
        raise TypeError(type(self).__name__)


class Machine:
    """Parts that refer to each other, the last of them the whole.

    Args:
        lead: whether one space may come first.
    """

    def __init__(self, parts: Sequence[Part], lead: bool = True) -> None:
        self.parts = (Space(), *parts)
        for number, part in enumerate(self.parts):
            part.number = number
        whole = (self.parts[-1].enter(),)
        self.start: State = (*whole, SPACE) if lead else whole

    def step(self, state: State, byte: int) -> State | None:
        """The state after a byte; None where it does not fit."""
        while state:
            frame = state[-1]
            outcome = self.parts[frame[0]].step(frame, byte)
            if outcome is None:
                return None
            state = state[:-1] + outcome[0]
            if outcome[1]:
                return state
        return None

    def walk(self, state: State, text: bytes) -> State | None:
        """The state after several bytes."""
        now: State | None = state
        for byte in text:
            if now is None:
                return None
            now = self.step(now, byte)
        return now

    def accepts(self, state: State) -> bool:
        """Whether what came so far is whole."""
        return all(self.parts[frame[0]].may_end(frame) for frame in state)

    def rest(self, state: State) -> bytes:
        """A short text that makes it whole."""
        return b"".join(self.parts[f[0]].rest(f) for f in reversed(state))

    def free(self, state: State) -> int | None:
        """The most characters of free text that may follow here; None outside of a string."""
        return self.parts[state[-1][0]].free(state[-1]) if state else None


# -- the parts -------------------------------------------------------------------------------------


class Space(Part):
    """One space, or none. It is the first part of every machine."""

    def step(self, frame: Frame, byte: int) -> Outcome:
        return _DONE if byte == 0x20 else _OVER

    def may_end(self, frame: Frame) -> bool:
        return True

    def rest(self, frame: Frame) -> bytes:
        return b""


SPACE: Frame = (0,)


@dataclass(eq=False)
class Literals(Part):
    """One of several fixed texts. Frame: number, how much came, which are still possible."""

    options: tuple[bytes, ...]

    def enter(self) -> Frame:
        return (self.number, 0, tuple(range(len(self.options))))

    def step(self, frame: Frame, byte: int) -> Outcome:
        _, place, left = frame
        fit = tuple(
            i for i in left if place < len(self.options[i]) and self.options[i][place] == byte
        )
        if not fit:
            return _OVER if self.may_end(frame) else None
        if all(len(self.options[i]) == place + 1 for i in fit):
            return _DONE
        return ((self.number, place + 1, fit),), True

    def may_end(self, frame: Frame) -> bool:
        _, place, left = frame
        return any(len(self.options[i]) == place for i in left)

    def rest(self, frame: Frame) -> bytes:
        _, place, left = frame
        return bytes(min((self.options[i][place:] for i in left), key=len))

    def first(self) -> frozenset[int]:
        return frozenset(option[0] for option in self.options)


# The bytes that may follow the first of a character, and how many: UTF-8 without surrogates.
_LEADS: dict[int, tuple[int, int, int]] = {
    **dict.fromkeys(range(194, 224), (1, 128, 191)),
    **dict.fromkeys(range(225, 240), (2, 128, 191)),
    **dict.fromkeys(range(241, 244), (3, 128, 191)),
    0xE0: (2, 0xA0, 0xBF),
    0xED: (2, 0x80, 0x9F),
    0xF0: (3, 0x90, 0xBF),
    0xF4: (3, 0x80, 0x8F),
}
_HEX = frozenset(b"0123456789abcdefABCDEF")
_ESCAPES = frozenset(b'"\\/bfnrt')


@dataclass(eq=False)
class String(Part):
    """A JSON string. Frame: number, phase, characters so far, and what the phase needs."""

    least: int = 0
    most: int | None = None

    def step(self, frame: Frame, byte: int) -> Outcome:
        phase, n = frame[1], self.number
        if phase == 0:
            return (((n, 1, 0),), True) if byte == 0x22 else None
        count = frame[2]
        if phase == 1:
            return self._inside(count, byte)
        if phase == 2:  # within a character: how many bytes are to come, and their range
            _, _, _, left, low, high = frame
            if not low <= byte <= high:
                return None
            after: Frame = (n, 2, count, left - 1, 0x80, 0xBF) if left > 1 else self._more(count)
            return (after,), True
        if phase == 3:  # behind a backslash
            if byte == 0x75:
                return ((n, 4, count, 0, 0),), True
            return ((self._more(count),), True) if byte in _ESCAPES else None
        _, _, _, place, first = frame  # the digits of \uXXXX, which must name no half character
        if byte not in _HEX or (place == 1 and first and byte not in b"01234567"):
            return None
        if place == 3:
            return (self._more(count),), True
        return ((n, 4, count, place + 1, int(place == 0 and byte in b"dD")),), True

    def _inside(self, count: int, byte: int) -> Outcome:
        if byte == 0x22:
            return _DONE if count >= self.least else None
        if byte < 0x20 or (self.most is not None and count >= self.most):
            return None
        if byte == 0x5C:
            return ((self.number, 3, count),), True
        if byte < 0x80:
            return (self._more(count),), True
        lead = _LEADS.get(byte)
        return None if lead is None else (((self.number, 2, count, *lead),), True)

    def _more(self, count: int) -> Frame:
        """One character more; beyond what limits ask for they need not be told apart."""
        count += 1
        return (self.number, 1, count if self.most is not None else min(count, self.least))

    def rest(self, frame: Frame) -> bytes:
        phase = frame[1]
        count = frame[2] if phase else 0
        begun = b"" if phase in (0, 1) else self._complete(frame)
        missing = self.least - count - bool(begun)
        return (b"" if phase else b'"') + begun + b"_" * max(missing, 0) + b'"'

    def _complete(self, frame: Frame) -> bytes:
        """The end of a character that has begun."""
        if frame[1] == 2:
            _, _, _, left, low, _ = frame
            return bytes([low, *[0x80] * (left - 1)])
        if frame[1] == 3:
            return b"n"
        return bytes(b"0" * (4 - frame[3]))

    def free(self, frame: Frame) -> int | None:
        if frame[1] != 1:
            return None
        return NO_LIMIT if self.most is None else self.most - frame[2]

    def first(self) -> frozenset[int]:
        return frozenset(b'"')


DIGITS = 17  # of a number, in front of the point and behind it: what a float64 needs
_DIGITS = frozenset(b"0123456789")
# phase -> byte -> the next phase. Phases 2, 3, 5 and 8 may end; 3, 5 and 8 count digits.
_ZERO, _NONZERO = b"0", b"123456789"
_NUMBER: dict[int, list[tuple[bytes, int]]] = {
    0: [(b"-", 1), (_ZERO, 2), (_NONZERO, 3)],
    1: [(_ZERO, 2), (_NONZERO, 3)],
    2: [(b".", 4), (b"eE", 6)],
    3: [(_ZERO + _NONZERO, 3), (b".", 4), (b"eE", 6)],
    4: [(_ZERO + _NONZERO, 5)],
    5: [(_ZERO + _NONZERO, 5), (b"eE", 6)],
    6: [(b"+-", 7), (_ZERO + _NONZERO, 8)],
    7: [(_ZERO + _NONZERO, 8)],
    8: [(_ZERO + _NONZERO, 8)],
}
_MOST = {3: DIGITS, 5: DIGITS, 8: 2}


@dataclass(eq=False)
class Number(Part):
    """A JSON number, or a whole one. Frame: number, phase, digits of the phase so far."""

    whole: bool = False

    def enter(self) -> Frame:
        return (self.number, 0, 0)

    def step(self, frame: Frame, byte: int) -> Outcome:
        _, phase, digits = frame
        for accepted, after in _NUMBER[phase]:
            if byte in accepted and not (self.whole and after in (4, 6)):
                if after in _MOST:
                    digits = digits + 1 if after == phase else 1
                    if digits > _MOST[after]:
                        return None
                return ((self.number, after, digits),), True
        return _OVER if self.may_end(frame) else None

    def may_end(self, frame: Frame) -> bool:
        return frame[1] in (2, 3, 5, 8)

    def rest(self, frame: Frame) -> bytes:
        return b"" if self.may_end(frame) else b"0"

    def first(self) -> frozenset[int]:
        return _DIGITS | {0x2D}


@dataclass(eq=False)
class Either(Part):
    """One of several parts, told apart by their first byte."""

    parts: tuple[Part, ...]

    def step(self, frame: Frame, byte: int) -> Outcome:
        for part in self.parts:
            if byte in part.first():
                return (part.enter(),), False
        return None

    def rest(self, frame: Frame) -> bytes:
        return min((part.rest(part.enter()) for part in self.parts), key=len)

    def first(self) -> frozenset[int]:
        return frozenset().union(*(part.first() for part in self.parts))


@dataclass(eq=False)
class List(Part):
    """A JSON array. Frame: number, phase (0 before it, 1 at its beginning, 2 behind an item),
    items so far."""

    items: Part
    least: int = 0
    most: int | None = None

    def step(self, frame: Frame, byte: int) -> Outcome:
        if frame[1] == 0:
            return (((self.number, 1, 0),), True) if byte == 0x5B else None
        count = frame[2]
        if byte == 0x5D:
            return _DONE if count >= self.least else None
        if self.most is not None and count >= self.most:
            return None
        after = (self.number, 2, count + 1 if self.most is not None else min(count + 1, self.least))
        if frame[1] == 1:
            return (after, self.items.enter()), False
        return ((after, self.items.enter(), SPACE), True) if byte == 0x2C else None

    def rest(self, frame: Frame) -> bytes:
        count = frame[2] if frame[1] else 0
        item = self.items.rest(self.items.enter()) if count < self.least else b""
        missing = b",".join([item] * (self.least - count))
        comma = b"," if missing and frame[1] == 2 else b""
        return (b"" if frame[1] else b"[") + comma + missing + b"]"

    def first(self) -> frozenset[int]:
        return frozenset(b"[")


@dataclass(eq=False)
class Object(Part):
    """A JSON object; its properties come in their order, and those not required may be left out.

    Frame: number, phase, and
    1 where a key or the end may come: the next property, whether one came already;
    2 behind a comma: the next property, whether a space came;
    3 within a key: how much of it came, which properties are possible;
    4 behind a key: its property.

    Attributes:
        keys: as JSON writes them, without the first quotation mark.
    """

    keys: tuple[bytes, ...]
    values: tuple[Part, ...]
    required: tuple[bool, ...]

    def step(self, frame: Frame, byte: int) -> Outcome:
        n, phase = self.number, frame[1]
        if phase == 0:
            return (((n, 1, 0, False),), True) if byte == 0x7B else None
        if phase == 4:
            value = self.values[frame[2]].enter()
            return (((n, 1, frame[2] + 1, True), value, SPACE), True) if byte == 0x3A else None
        if phase == 3:
            return self._key(frame, byte)
        _, _, i, flag = frame
        if phase == 1:
            if byte == 0x7D:
                return None if any(self.required[i:]) else _DONE
            if flag:
                return (((n, 2, i, False),), True) if byte == 0x2C and self._next(i) else None
        elif byte == 0x20:
            return None if flag else (((n, 2, i, True),), True)
        return (((n, 3, 0, self._next(i)),), True) if byte == 0x22 and self._next(i) else None

    def _next(self, i: int) -> tuple[int, ...]:
        """The properties that may come next: up to the first that must."""
        found = []
        for j in range(i, len(self.keys)):
            found.append(j)
            if self.required[j]:
                break
        return tuple(found)

    def _key(self, frame: Frame, byte: int) -> Outcome:
        _, _, place, left = frame
        fit = tuple(j for j in left if self.keys[j][place] == byte)
        if not fit:
            return None
        if len(self.keys[fit[0]]) == place + 1:  # the closing mark: no other key goes on from here
            return ((self.number, 4, fit[0]),), True
        return ((self.number, 3, place + 1, fit),), True

    def rest(self, frame: Frame) -> bytes:
        phase = frame[1]
        if phase == 0:
            return b"{" + self._members(0, False) + b"}"
        if phase == 1:
            _, _, i, came = frame
            return self._members(i, bool(came)) + b"}"
        if phase == 2:
            return self._least(b'"', 0, self._next(frame[2]))
        if phase == 3:
            _, _, place, left = frame
            return self._least(b"", place, left)
        return self._value(frame[2])

    def _least(self, mark: bytes, place: int, left: tuple[int, ...]) -> bytes:
        return min((mark + self.keys[j][place:] + self._value(j) for j in left), key=len)

    def _value(self, j: int) -> bytes:
        value = self.values[j]
        return b":" + value.rest(value.enter()) + self._members(j + 1, True) + b"}"

    def _members(self, i: int, came: bool) -> bytes:
        """The properties from `i` on that must come."""
        found = [
            b'"' + self.keys[j] + b":" + self.values[j].rest(self.values[j].enter())
            for j in range(i, len(self.keys))
            if self.required[j]
        ]
        return (b"," if came and found else b"") + b",".join(found)

    def first(self) -> frozenset[int]:
        return frozenset(b"{")
