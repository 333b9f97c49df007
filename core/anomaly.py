"""Values that are not finite: stop at the first operation that makes one, or trace it back.

`detect_anomaly` stops at the first; `Tracer` follows such values through a computation, so that
a loss that became NaN is traced to where it began, past infinities that are meant (masks).
"""

from __future__ import annotations

import sys
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .callers import user_frame, user_line
from .devices import backend_of
from .dtypes import float16
from .errors import GradError
from .mistakes import label
from .op import Op
from .state import observing, state
from .tensor import Tensor

_MOST = 1 << 18  # operations of which the module is remembered


@contextmanager
def detect_anomaly() -> Iterator[None]:
    """Inside, every result is checked, in the forward and in the backward pass.

    Infinities that are written as numbers, as masks are, may pass; NaN may not.

    Raises:
        GradError: names the operation that made the first NaN or infinity, the module, the line
            that called it, and whether it was in the forward or the backward pass.
    """
    with observing(Tracer(stop=True)):
        yield


@dataclass(frozen=True)
class Origin:
    """The operation that made a value that is not finite.

    Attributes:
        value: "NaN" or "infinity".
        op: the operation.
        backward_of: the operation whose gradient was computed; None in the forward pass.
        line: of the user's code, where the operation (or `backward_of`) was called.
        modules: those that were being called, the outermost first.
        operands: names, shapes and ranges of what it was given, a line each.
        cause: where an infinity among them came from, if one was.
    """

    value: str
    op: str
    backward_of: str | None
    line: str
    modules: tuple[Any, ...] = field(repr=False)
    operands: tuple[str, ...]
    cause: Origin | None = None

    @property
    def direction(self) -> str:
        """ "forward" or "backward"."""
        return "forward" if self.backward_of is None else "backward"

    @property
    def first(self) -> Origin:
        """The cause of the cause, and so on: where it began."""
        return self if self.cause is None else self.cause.first

    def module(self, root: Any = None) -> str | None:
        """The path of the innermost module, from `root` on if it is within; None outside of any."""
        if not self.modules:
            return None
        inner = self.modules[-1]
        for outer in (root, *self.modules):
            if outer is None:
                continue
            for name, module in outer.named_modules():
                if module is inner:
                    return name or type(inner).__name__
        return type(inner).__name__

    def told(self, root: Any = None) -> str:
        """One line: the operation, the pass, the module and the line."""
        path = self.module(root)
        inside = f", module {path!r}" if path is not None else ""
        what = f"the backward pass of {self.backward_of}" if self.backward_of else "forward pass"
        return f"{self.op} ({what}{inside}, called at {self.line})"


class Tracer:
    """An observer that knows where values that are not finite came from.

    Args:
        stop: raise at the first; else it only remembers, and `origin` tells.
    """

    def __init__(self, stop: bool = False) -> None:
        self.stop = stop
        self.origins: list[Origin] = []  # in the order in which they were made
        # By the identity of an array: a reference, and where its NaN or infinities began.
        self._known: dict[int, tuple[Any, Origin]] = {}
        self._called: dict[int, tuple[Any, ...]] = {}  # modules of a node, by its order

    def origin(self, x: Tensor | None) -> Origin | None:
        """Where what is not finite in a tensor began, as far as it was followed."""
        found = self._known.get(id(x.array)) if x is not None else None
        return found[1] if found is not None else None

    def __call__(
        self,
        op: Op[..., Any],
        operands: tuple[Any, ...],
        constants: dict[str, Any],
        run: Callable[[], Any],
    ) -> Any:
        written = [operands[i] for i in op.writes]
        before = {id(getattr(x, "array", x)) for x in written if any(_bad(x))}
        with np.errstate(all="ignore"):  # the error below says more than NumPy's warning
            out = run()
        results = out if isinstance(out, tuple) else (out,)
        if not state.backward:
            self._remember(results)
        read = tuple(x for i, x in enumerate(operands) if i not in op.writes)
        for x in (*results, *written):
            if isinstance(x, Tensor) and id(x.array) not in before:
                self._look(op, x, operands, (*read, *constants.values()))
        return out

    def _remember(self, results: tuple[Any, ...]) -> None:
        for x in results:
            node = getattr(x, "_node", None)
            order = getattr(node, "order", -1)
            if order >= 0:
                self._called[order] = _modules()
                if len(self._called) > _MOST:
                    for old in list(self._called)[: _MOST // 2]:
                        del self._called[old]
                return

    def _look(
        self, op: Op[..., Any], x: Tensor, operands: tuple[Any, ...], read: tuple[Any, ...]
    ) -> None:
        nan, infinite = _bad(x.array)
        if not (nan or infinite):
            return
        given = [(o, *_bad(o)) for o in read]
        handed = [o for o, has_nan, has_inf in given if has_nan or (has_inf and not nan)]
        if handed:  # not made here
            known = [found for o in handed if (found := self._of(o)) is not None]
            if known:
                self._mark(x, known[0])
            elif nan and any(isinstance(o, float) for o in handed):
                self._begin(op, x, operands, "NaN", None)
            return
        infinities = [o for o, _, has_inf in given if has_inf]
        if state.loss_scaled and state.backward and (infinities or x.dtype == float16):
            return  # the loss scale was too large, which GradScaler notices
        causes = [found for o in infinities if (found := self._of(o)) is not None]
        self._begin(op, x, operands, "NaN" if nan else "infinity", causes[0] if causes else None)

    def _of(self, operand: Any) -> Origin | None:
        found = self._known.get(id(getattr(operand, "array", operand)))
        return None if found is None else found[1]

    def _begin(
        self,
        op: Op[..., Any],
        x: Tensor,
        operands: tuple[Any, ...],
        value: str,
        cause: Origin | None,
    ) -> None:
        node = state.node if state.backward else None
        if node is not None:
            line, modules = user_line(node.code, node.lasti), self._called.get(node.order, ())
        else:
            frame = user_frame(1)
            line, modules = user_line(frame.f_code, frame.f_lasti), _modules()
        listed = tuple(
            f"{label(op, i)} {_told(o)}"
            for i, o in enumerate(operands)
            if isinstance(o, (Tensor, float, int)) and not isinstance(o, bool)
        )
        before = node.op.name if node is not None else "a gradient" if state.backward else None
        origin = Origin(value, op.name, before, line, modules, listed, cause)
        self.origins.append(origin)
        self._mark(x, origin)
        if self.stop:
            raise _anomaly(origin, x)

    def _mark(self, x: Tensor, origin: Origin) -> None:
        key = id(x.array)
        self._known[key] = (weakref.ref(x.array, lambda _: self._known.pop(key, None)), origin)


def _anomaly(origin: Origin, x: Tensor) -> GradError:
    finite = not any("infinit" in told or "NaN" in told for told in origin.operands)
    given = "from finite operands" if finite else "from what it was given"
    where = f"called at {origin.line}"
    if origin.backward_of is not None:
        path = origin.module()
        where = f"in the backward pass of {origin.backward_of}, {where}"
        where += f", module {path!r}" if path is not None else ""
    return GradError(
        f"anomaly: {origin.op} made {origin.value} {given}, {where}.\n"
        + "".join(f"  {told}\n" for told in origin.operands[:4])
        + f"  result {x.shape}\n"
        "Look at the values there: division by zero, log or sqrt of 0, overflow, or a "
        "learning rate that is too high.",
        op=origin.op,
        line=origin.line,
        value=origin.value,
        module=origin.module(),
        direction=origin.direction,
    )


def _modules() -> tuple[Any, ...]:
    """The modules that are being called, the outermost first."""
    from .nn.module import Module

    code = Module.__call__.__code__
    found = []
    frame: Any = sys._getframe(1)
    while frame is not None:
        if frame.f_code is code:
            found.append(frame.f_locals["self"])
        frame = frame.f_back
    return tuple(reversed(found))


def _bad(x: Any) -> tuple[bool, bool]:
    """Whether there are NaN, and infinities, in a tensor, an array or a number."""
    if isinstance(x, float):
        return x != x, x in (float("inf"), float("-inf"))
    array = _floats(x)
    if array is None:
        return False, False
    xp, array = array
    if bool(xp.isfinite(array).all()):
        return False, False
    return bool(xp.isnan(array).any()), bool(xp.isinf(array).any())


def not_finite(x: Any) -> tuple[str, int] | None:
    """ "NaN" or "infinity" and how many values of a tensor or an array are it; None if none is."""
    nan, infinite = _bad(x)
    if not (nan or infinite):
        return None
    found = _floats(x)
    assert found is not None
    xp, array = found
    return ("NaN", int(xp.isnan(array).sum())) if nan else ("infinity", int(xp.isinf(array).sum()))


def _floats(x: Any) -> Any:
    """The array library and the array of something that holds floats; None of other things."""
    array = getattr(x, "array", x)
    backend = backend_of(array)
    if backend is None or array.dtype.kind not in "fcV":
        return None
    return backend.xp, array.astype(np.float32) if array.dtype.kind == "V" else array


def _told(x: Any) -> str:
    """The shape of an operand, and the range of its values."""
    if not isinstance(x, Tensor):
        return f"= {x:g}"
    found = _floats(x)
    if found is None or not x.size or x.dtype.kind == "c":
        return f"{x.shape}"
    xp, array = found
    finite = array[xp.isfinite(array)]
    nan, infinite = _bad(x)
    more = " and NaN" if nan else " and infinities" if infinite else ""
    if not finite.size:
        return f"{x.shape}, no finite values"
    low, high = float(finite.min()), float(finite.max())
    values = f"all {low:.4g}" if low == high else f"from {low:.4g} to {high:.4g}"
    return f"{x.shape} {values}{more}"
