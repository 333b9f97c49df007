"""`with bt.profile() as p:`: where the time and the memory of a computation go.

While it runs, every operation is observed and every module that is called is noted; nothing is
measured, and nothing costs anything, at other times. The backward pass runs on tensors when it is
observed, which makes small operations somewhat slower than they are otherwise.
"""

from __future__ import annotations

import json
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import ConfigError
from ..nn import Module
from ..op import Op
from ..paths import atomic
from ..state import observing, state
from ..tensor import Tensor

BACKWARD = "(backward)"
OUTSIDE = "(outside)"  # of modules
_patching = threading.Lock()


@dataclass(frozen=True)
class OpCall:
    """One operation.

    Attributes:
        name: of the operation.
        path: of the module that called it, from the outermost on, such as "ResNet/layers/0".
        start, seconds: when it began after the profile did, and how long it took.
        bytes: of its results, without views of other memory.
        shapes: of its operands.
    """

    name: str
    path: str
    start: float
    seconds: float
    bytes: int
    shapes: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class ModuleCall:
    """One call of a module; `path` ends with its own name."""

    path: str
    kind: str
    start: float
    seconds: float


@dataclass
class Profile:
    """What was measured.

    Attributes:
        ops: every operation, in the order in which they ended.
        modules: every call of a module.
        seconds: from the first line of the block to the last.
        peak_bytes: most memory of results at one time.
    """

    ops: list[OpCall] = field(default_factory=list)
    modules: list[ModuleCall] = field(default_factory=list)
    seconds: float = 0.0
    peak_bytes: int = 0

    def by_op(self) -> list[dict[str, Any]]:
        """Calls, seconds, share of the time and bytes of each operation, the slowest first."""
        return self._grouped([(op.name, op) for op in self.ops])

    def by_module(self) -> list[dict[str, Any]]:
        """The same of each module with all that is within it; the backward pass is one row."""
        rows: list[tuple[str, OpCall]] = []
        for op in self.ops:
            parts = op.path.split("/")
            rows += [("/".join(parts[:i]), op) for i in range(1, len(parts) + 1)]
        return self._grouped(rows)

    def _grouped(self, rows: list[tuple[str, OpCall]]) -> list[dict[str, Any]]:
        total = sum(op.seconds for op in self.ops) or 1.0
        found: dict[str, dict[str, Any]] = {}
        for name, op in rows:
            row = found.setdefault(name, {"name": name, "calls": 0, "seconds": 0.0, "bytes": 0})
            row["calls"] += 1
            row["seconds"] += op.seconds
            row["bytes"] += op.bytes
        for row in found.values():
            row["share"] = row["seconds"] / total
        return sorted(found.values(), key=lambda row: -row["seconds"])

    def table(self, by: str = "op", top: int = 15) -> str:
        """The slowest operations or modules as text.

        Raises:
            ConfigError: `by` is neither "op" nor "module".
        """
        if by not in ("op", "module"):
            raise ConfigError(f"by={by!r} is neither 'op' nor 'module'", got=by)
        rows = self.by_op() if by == "op" else self.by_module()
        width = max([len(row["name"]) for row in rows[:top]] + [9])
        lines = [f"{by:<{width}}  {'calls':>7}  {'time':>9}  {'share':>6}  {'memory':>9}"]
        lines += [
            f"{row['name']:<{width}}  {row['calls']:>7,}  {_time(row['seconds']):>9}  "
            f"{row['share']:>6.1%}  {_size(row['bytes']):>9}"
            for row in rows[:top]
        ]
        if len(rows) > top:
            lines.append(f"... and {len(rows) - top} more")
        busy = sum(op.seconds for op in self.ops)
        lines.append(
            f"{len(self.ops):,} operations, {_time(busy)} of {_time(self.seconds)}; results of at "
            f"most {_size(self.peak_bytes)} at a time"
        )
        return "\n".join(lines)

    def __str__(self) -> str:
        return self.table()

    def _repr_html_(self) -> str:
        from .tables import html_block, html_table

        parts = []
        for by, rows in (("operation", self.by_op()), ("module", self.by_module())):
            cells = [
                (row["name"], f"{row['calls']:,}", _time(row["seconds"]), f"{row['share']:.1%}",
                 _size(row["bytes"]))
                for row in rows[:15]
            ]  # fmt: skip
            parts.append(html_table((by, "calls", "time", "share", "memory"), cells))
        return html_block(self.table().splitlines()[-1], *parts)

    def to_dict(self) -> dict[str, Any]:
        """Everything, for JSON."""
        return {
            "seconds": self.seconds,
            "peak_bytes": self.peak_bytes,
            "ops": [
                [op.name, op.path, op.start, op.seconds, op.bytes, [list(s) for s in op.shapes]]
                for op in self.ops
            ],
            "modules": [[m.path, m.kind, m.start, m.seconds] for m in self.modules],
        }

    def save_trace(self, path: str | Path) -> Path:
        """Write a trace for Perfetto (ui.perfetto.dev) or chrome://tracing.

        Source: Google, "Trace Event Format": complete events, in microseconds.
        """
        events: list[dict[str, Any]] = [
            _trace(op.name, op.start, op.seconds, 2, path=op.path, bytes=op.bytes,
                   shapes=" ".join(str(s) for s in op.shapes))
            for op in self.ops
        ]  # fmt: skip
        events += [_trace(m.path.rpartition("/")[2], m.start, m.seconds, 1, path=m.path,
                          kind=m.kind) for m in self.modules]  # fmt: skip
        names = [
            {"ph": "M", "pid": 1, "tid": tid, "name": "thread_name", "args": {"name": name}}
            for tid, name in ((1, "modules"), (2, "operations"))
        ]
        target = Path(path)
        with atomic(target) as part:
            content = {"traceEvents": [*names, *events], "displayTimeUnit": "ms"}
            part.write_text(json.dumps(content), encoding="utf-8")
        return target


def _trace(name: str, start: float, seconds: float, thread: int, **told: Any) -> dict[str, Any]:
    return {
        "ph": "X", "pid": 1, "tid": thread, "name": name, "ts": start * 1e6, "dur": seconds * 1e6,
        "args": told,
    }  # fmt: skip


def _time(seconds: float) -> str:
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds * 1e6:.3g} µs"


def _size(count: float) -> str:
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} GB"


def _owner(tensor: Tensor) -> Any:
    """The array whose memory a tensor shows: its own, or what it is a view of."""
    array = tensor.array
    while isinstance(array.base, type(array)):
        array = array.base
    return array


class _Observer:
    """Times operations, and knows in which module they run."""

    def __init__(self, found: Profile) -> None:
        self.found = found
        self.start = time.perf_counter()
        self.stack: list[tuple[Module, str]] = []
        self.thread = threading.get_ident()
        self._live = 0
        self._counted: set[int] = set()  # arrays that own memory, by id, while they live
        self._within = 0  # operations that other operations are made of are part of these

    def __call__(
        self,
        op: Op[..., Any],
        operands: tuple[Any, ...],
        constants: dict[str, Any],
        run: Callable[[], Any],
    ) -> Any:
        if self._within:
            return run()
        self._within += 1
        begin = time.perf_counter()
        try:
            out = run()
        finally:
            self._within -= 1
        seconds = time.perf_counter() - begin
        given = {id(_owner(x)) for x in operands if isinstance(x, Tensor)}
        results = out if isinstance(out, tuple) else (out,)
        made = sum(self._made(result, given) for result in results)
        shapes = tuple(x.shape for x in operands if isinstance(x, Tensor))
        path = BACKWARD if state.backward else self.stack[-1][1] if self.stack else OUTSIDE
        self.found.ops.append(OpCall(op.name, path, begin - self.start, seconds, made, shapes))
        return out

    def _made(self, result: Any, given: set[int]) -> int:
        """Bytes of memory that came with a result, which are counted until it is gone.

        Kernels often return a view of what they wrote, such as an image whose axes are in another
        order: what counts is who owns the memory, and that it is no operand and not counted yet.
        """
        owner = _owner(result) if isinstance(result, Tensor) else None
        if owner is None or id(owner) in given or id(owner) in self._counted:
            return 0
        size = int(owner.nbytes)
        self._live += size
        self._counted.add(id(owner))
        self.found.peak_bytes = max(self.found.peak_bytes, self._live)
        weakref.finalize(owner, self._gone, id(owner), size).atexit = False
        return size

    def _gone(self, key: int, size: int) -> None:
        self._counted.discard(key)
        self._live -= size

    def call(self, module: Module, args: Any, kwargs: Any) -> Any:
        """A module's `__call__`, noted."""
        if threading.get_ident() != self.thread:
            return _plain_call(module, *args, **kwargs)
        path = self._path(module)
        self.stack.append((module, path))
        begin = time.perf_counter()
        try:
            return _plain_call(module, *args, **kwargs)
        finally:
            self.stack.pop()
            seconds = time.perf_counter() - begin
            self.found.modules.append(
                ModuleCall(path, type(module).__name__, begin - self.start, seconds)
            )

    def _path(self, module: Module) -> str:
        if not self.stack:
            return type(module).__name__
        parent, path = self.stack[-1]
        for name, child in parent.named_modules():
            if child is module and name:
                return f"{path}/{name.replace('.', '/')}"
        return f"{path}/{type(module).__name__}"


_plain_call = Module.__call__


def busy() -> bool:
    """Whether a profile is being taken."""
    return _patching.locked()


@contextmanager
def profile() -> Iterator[Profile]:
    """Measure what this thread computes inside: `with bt.profile() as p: ...; print(p)`.

    Raises:
        ConfigError: a profile is being taken already.
    """
    if not _patching.acquire(blocking=False):
        raise ConfigError("a profile is being taken already: one at a time")
    found = Profile()
    observer = _Observer(found)

    def call(self: Module, *args: Any, **kwargs: Any) -> Any:
        return observer.call(self, args, kwargs)

    try:
        Module.__call__ = call  # type: ignore[method-assign]
        with observing(observer):
            yield found
    finally:
        Module.__call__ = _plain_call  # type: ignore[method-assign]
        _patching.release()
        found.seconds = time.perf_counter() - observer.start
