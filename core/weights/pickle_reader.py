"""An interpreter of pickle programs that imports nothing and calls nothing.

A pickle is a program for a small stack machine whose dangerous instructions import a global
and call it. Here a global is looked up in a table of the caller; what is not in the table is
refused by name, and what is in it is an inert value, or a `Call` whose rule is a function of
ours. Instructions with other side effects (extension codes, instances of old classes, buffers
outside the stream) are refused too.

Longer than other files because the table of instructions belongs in one place.

Source: the comments of Python's Lib/pickletools.py, and PEP 3154 and 574.
"""

from __future__ import annotations

import codecs
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import WeightsError
from .source import quoted

# A checkpoint takes about 35 instructions a tensor. The caps bound what a hostile file costs
# (an empty set is 216 bytes of memory for one byte of file).
MAX_PICKLE_BYTES = 64_000_000
MAX_INSTRUCTIONS = 5_000_000
_MAX_DIGITS = 1_000

Globals = Mapping[tuple[str, str], Any]


@dataclass(frozen=True)
class Call:
    """A global that the program may call; `rule` gets its arguments and returns an inert value."""

    name: str
    rule: Callable[..., Any]


class Truncated(Exception):
    """The data ends before the program does."""


class Malformed(Exception):
    """An argument or a value that no torch checkpoint has; becomes a WeightsError."""


class _Mark:
    """Where a variable number of arguments begins on the stack."""


_MARK = _Mark()


def import_refused(where: str, name: str) -> WeightsError:
    """The error for a program that asks for a global that is not in the table."""
    return WeightsError(
        f"{where}: refused. It asks to import {quoted(name)}, which no weights need.\n"
        "Torch checkpoints are programs; bestiary reads them without running them, so nothing "
        "was imported or executed.\n"
        "Read are tensors, numbers, text and containers of them. If a whole model or training "
        "state was saved and you trust its origin, write the weights alone where it was made:\n"
        "    safetensors.torch.save_file(model.state_dict(), 'model.safetensors')",
        path=where,
        got=name,
    )


def interpret(
    data: bytes | memoryview,
    table: Globals,
    persistent: Callable[[Any], Any],
    where: str,
    start: int = 0,
) -> tuple[Any, int]:
    """Run one pickle program to its end; the value it leaves, and the position after it.

    Args:
        data: the bytes.
        table: (module, name) to inert value or `Call`.
        persistent: what a persistent id (an inert value) stands for.
        where: the name of the file, for messages.
        start: where the program begins.

    Raises:
        WeightsError: it is damaged, or asks for anything that is not in the table.
        Truncated: the data ends before the program does.
    """
    machine = _Machine(data, table, persistent, where, start)
    try:
        return machine.run(), machine.position
    except (WeightsError, Truncated):
        raise
    except Malformed as error:
        problem = str(error)
    except (IndexError, KeyError, TypeError, ValueError, OverflowError, RecursionError) as error:
        problem = f"The instruction does not fit what came before it ({type(error).__name__})."
    raise WeightsError(
        f"{where}: not a valid torch checkpoint, at byte {machine.position:,} of its program.\n"
        f"{problem}\n"
        "The file is damaged, or was made to mislead. Fetch it again.",
        path=where,
        position=machine.position,
    )


class _Machine:
    def __init__(
        self,
        data: bytes | memoryview,
        table: Globals,
        persistent: Callable[[Any], Any],
        where: str,
        start: int,
    ) -> None:
        self.data = data
        self.table = table
        self.persistent = persistent
        self.where = where
        self.position = start
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def run(self) -> Any:
        operations, data, end = _OPERATIONS, self.data, len(self.data)
        for _ in range(MAX_INSTRUCTIONS):
            if self.position >= end:
                raise Truncated
            code = data[self.position]
            self.position += 1
            operation = operations[code]
            if operation is None:
                if code == 0x2E:  # STOP
                    return self._result()
                raise Malformed(f"The instruction 0x{code:02x} is not used by torch.save.")
            operation(self)
        raise Malformed(f"The program has more than {MAX_INSTRUCTIONS:,} instructions.")

    def _result(self) -> Any:
        if len(self.stack) != 1 or self.stack[0] is _MARK:
            raise Malformed(f"The program leaves {len(self.stack)} values, not one.")
        return self.stack[0]

    # Reading

    def take(self, count: int) -> bytes | memoryview:
        end = self.position + count
        if end > len(self.data):
            raise Truncated
        piece = self.data[self.position : end]
        self.position = end
        return piece

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "little")

    def sized(self, size: int) -> bytes:
        return bytes(self.take(self.number(size)))

    def line(self) -> str:
        return self.line_bytes().decode("utf-8")

    def line_bytes(self) -> bytes:
        """An argument of the text protocol, which ends with a newline."""
        window = bytes(self.data[self.position : self.position + _MAX_DIGITS + 1])
        length = window.find(b"\n")
        if length < 0:
            if len(window) <= _MAX_DIGITS:
                raise Truncated
            raise Malformed(f"A line of more than {_MAX_DIGITS:,} characters.")
        self.position += length + 1
        return window[:length]

    # The stack

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def pop(self) -> Any:
        value = self.stack.pop()
        if value is _MARK:
            raise Malformed("A value is missing on the stack.")
        return value

    def pop_marked(self) -> list[Any]:
        """The values above the last mark."""
        stack = self.stack
        at = len(stack) - 1
        while stack[at] is not _MARK:
            at -= 1
            if at < 0:
                raise Malformed("A mark is missing on the stack.")
        values = stack[at + 1 :]
        del stack[at:]
        return values

    def top(self, kind: type) -> Any:
        value = self.stack[-1]
        if type(value) is not kind:
            raise Malformed(f"{_kind(value)} stands where a {kind.__name__} is needed.")
        return value

    # What could do harm

    def find(self, module: Any, name: Any) -> None:
        if type(module) is not str or type(name) is not str:
            raise Malformed("The name of a global is not text.")
        if (module, name) not in self.table:
            raise import_refused(self.where, f"{module}.{name}")
        self.push(self.table[module, name])

    def call(self, callee: Any, arguments: Any) -> None:
        if not isinstance(callee, Call):
            raise Malformed(f"The program calls {_kind(callee)}.")
        if type(arguments) is not tuple:
            raise Malformed(f"{callee.name} is called without arguments.")
        self.push(callee.rule(*arguments))


def _kind(value: Any) -> str:
    return f"a {type(value).__name__}"


def key(value: Any) -> Any:
    """A dictionary key or a member of a set, of a kind whose hashes nobody can make collide."""
    kind = type(value)
    if kind in (str, bytes, bool, float, type(None)):
        return value
    if kind is int and -(2**63) <= value < 2**64:
        return value
    if kind is tuple and all(type(item) is str for item in value):
        return value
    raise Malformed(f"{_kind(value)} is used as a key or member of a set.")


def _update(target: dict[Any, Any], items: list[Any]) -> None:
    if len(items) % 2:
        raise Malformed("A key without a value.")
    for index in range(0, len(items), 2):
        target[key(items[index])] = items[index + 1]


_OPERATIONS: list[Callable[[_Machine], None] | None] = [None] * 256

_Operation = Callable[[_Machine], None]


def _code(*codes: int) -> Callable[[_Operation], _Operation]:
    def register(operation: _Operation) -> _Operation:
        for code in codes:
            _OPERATIONS[code] = operation
        return operation

    return register


def _constant(code: bytes, value: Any) -> None:
    _OPERATIONS[code[0]] = lambda m: m.push(value)


_constant(b"N", None)
_constant(b"\x88", True)
_constant(b"\x89", False)
_constant(b")", ())
_constant(b"(", _MARK)

_OPERATIONS[ord("]")] = lambda m: m.push([])
_OPERATIONS[ord("}")] = lambda m: m.push({})
_OPERATIONS[0x8F] = lambda m: m.push(set())
_OPERATIONS[ord("J")] = lambda m: m.push(int.from_bytes(m.take(4), "little", signed=True))
_OPERATIONS[ord("K")] = lambda m: m.push(m.number(1))
_OPERATIONS[ord("M")] = lambda m: m.push(m.number(2))
_OPERATIONS[ord("G")] = lambda m: m.push(struct.unpack(">d", m.take(8))[0])
_OPERATIONS[ord("F")] = lambda m: m.push(float(m.line()))
# Text: BINUNICODE, SHORT_BINUNICODE, BINUNICODE8, UNICODE; of Python 2: BINSTRING, SHORT_BINSTRING.
_OPERATIONS[ord("X")] = lambda m: m.push(m.sized(4).decode("utf-8", "surrogatepass"))
_OPERATIONS[0x8C] = lambda m: m.push(m.sized(1).decode("utf-8", "surrogatepass"))
_OPERATIONS[0x8D] = lambda m: m.push(m.sized(8).decode("utf-8", "surrogatepass"))
# (The function, because bytes.decode would import the codec.)
_OPERATIONS[ord("V")] = lambda m: m.push(codecs.raw_unicode_escape_decode(m.line_bytes())[0])
_OPERATIONS[ord("T")] = lambda m: m.push(m.sized(4).decode("utf-8"))
_OPERATIONS[ord("U")] = lambda m: m.push(m.sized(1).decode("utf-8"))
# Bytes: BINBYTES, SHORT_BINBYTES, BINBYTES8, BYTEARRAY8.
_OPERATIONS[ord("B")] = lambda m: m.push(m.sized(4))
_OPERATIONS[ord("C")] = lambda m: m.push(m.sized(1))
_OPERATIONS[0x8E] = lambda m: m.push(m.sized(8))
_OPERATIONS[0x96] = lambda m: m.push(m.sized(8))
# Tuples and containers of what stands above the mark.
_OPERATIONS[ord("t")] = lambda m: m.push(tuple(m.pop_marked()))
_OPERATIONS[ord("l")] = lambda m: m.push(m.pop_marked())
_OPERATIONS[0x91] = lambda m: m.push(frozenset(map(key, m.pop_marked())))
_OPERATIONS[ord("c")] = lambda m: m.find(m.line(), m.line())
_OPERATIONS[ord("Q")] = lambda m: m.push(m.persistent(m.pop()))
_OPERATIONS[ord("P")] = lambda m: m.push(m.persistent(m.line()))


@_code(0x80)
def _protocol(m: _Machine) -> None:
    version = m.number(1)
    if version > 5:
        raise Malformed(f"Pickle protocol {version} is not known; the last one is 5.")


@_code(0x95)
def _frame(m: _Machine) -> None:
    m.take(8)  # frames only help to read ahead


@_code(ord("I"))
def _int_line(m: _Machine) -> None:
    text = m.line()
    m.push({"00": False, "01": True}[text] if text in ("00", "01") else int(text))


@_code(ord("L"))
def _long_line(m: _Machine) -> None:
    m.push(int(m.line().removesuffix("L")))


@_code(0x8A, 0x8B)
def _long(m: _Machine) -> None:
    length = m.number(1 if m.data[m.position - 1] == 0x8A else 4)
    if length > _MAX_DIGITS:
        raise Malformed(f"A number of {length:,} bytes.")
    m.push(int.from_bytes(m.take(length), "little", signed=True))


@_code(ord("S"))
def _string_line(m: _Machine) -> None:
    text = m.line()
    if len(text) < 2 or text[0] not in "'\"" or text[-1] != text[0] or "\\" in text:
        raise Malformed("A text of the oldest protocol that is not a plain one.")
    m.push(text[1:-1])


@_code(0x85, 0x86, 0x87)
def _short_tuple(m: _Machine) -> None:
    count = m.data[m.position - 1] - 0x84
    values = [m.pop() for _ in range(count)]
    m.push(tuple(reversed(values)))


@_code(ord("d"))
def _dict(m: _Machine) -> None:
    items = m.pop_marked()
    target: dict[Any, Any] = {}
    _update(target, items)
    m.push(target)


@_code(ord("a"))
def _append(m: _Machine) -> None:
    value = m.pop()
    m.top(list).append(value)


@_code(ord("e"))
def _extend(m: _Machine) -> None:
    values = m.pop_marked()
    m.top(list).extend(values)


@_code(0x90)
def _add_items(m: _Machine) -> None:
    values = m.pop_marked()
    m.top(set).update(map(key, values))


@_code(ord("s"))
def _set_item(m: _Machine) -> None:
    value, name = m.pop(), m.pop()
    m.top(dict)[key(name)] = value


@_code(ord("u"))
def _set_items(m: _Machine) -> None:
    items = m.pop_marked()
    _update(m.top(dict), items)


@_code(ord("0"))
def _pop(m: _Machine) -> None:
    m.stack.pop()


@_code(ord("1"))
def _pop_mark(m: _Machine) -> None:
    m.pop_marked()


@_code(ord("2"))
def _duplicate(m: _Machine) -> None:
    value = m.pop()
    m.push(value)
    m.push(value)


@_code(ord("p"), ord("q"), ord("r"), 0x94)
def _put(m: _Machine) -> None:
    value = m.pop()
    m.push(value)
    m.memo[_memo_index(m)] = value


@_code(ord("g"), ord("h"), ord("j"))
def _get(m: _Machine) -> None:
    m.push(m.memo[_memo_index(m)])


def _memo_index(m: _Machine) -> int:
    code = m.data[m.position - 1]
    if code == 0x94:  # MEMOIZE
        return len(m.memo)
    if code in b"pg":
        return int(m.line())
    return m.number(1 if code in b"qh" else 4)


@_code(0x93)
def _stack_global(m: _Machine) -> None:
    name, module = m.pop(), m.pop()
    m.find(module, name)


@_code(ord("R"), 0x81)
def _reduce(m: _Machine) -> None:
    arguments, callee = m.pop(), m.pop()
    m.call(callee, arguments)


@_code(0x92)
def _new_object(m: _Machine) -> None:
    keywords, arguments, callee = m.pop(), m.pop(), m.pop()
    if keywords != {}:
        raise Malformed("An object is made with keyword arguments.")
    m.call(callee, arguments)


@_code(ord("b"))
def _build(m: _Machine) -> None:
    """The state of an object: kept by the few values that know what to do with it."""
    state = m.pop()
    target = m.stack[-1]
    if type(target) is dict:  # the _metadata of an OrderedDict, and the like
        return
    receive = getattr(target, "receive_state", None)
    if receive is None or isinstance(target, type):
        raise Malformed(f"The program sets the state of {_kind(target)}.")
    receive(state)
