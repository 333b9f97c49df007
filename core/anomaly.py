"""Anomaly mode: stop at the first operation whose result is not finite."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from .callers import user_frame, user_line
from .devices import backend_of
from .dtypes import float16
from .errors import GradError
from .op import Op
from .state import observing, state
from .tensor import Tensor


@contextmanager
def detect_anomaly() -> Iterator[None]:
    """Inside, every result is checked, in the forward and in the backward pass.

    Raises:
        GradError: names the operation that made the first NaN or infinity from finite operands,
            and the line that called it.
    """
    with observing(_check):
        yield


def _check(
    op: Op[..., Any],
    operands: tuple[Any, ...],
    constants: dict[str, Any],
    run: Callable[[], Any],
) -> Any:
    with np.errstate(all="ignore"):  # the error below says more than NumPy's warning
        out = run()
    results = out if isinstance(out, tuple) else (out,)
    for x in results:
        if not isinstance(x, Tensor) or _finite(x):
            continue
        if not all(_finite(o) for o in operands if isinstance(o, Tensor)):
            continue  # handed on, not made here
        array = x.array
        bad = "NaN" if _any(array != array) else "infinity"
        if state.loss_scaled and state.backward and bad == "infinity" and x.dtype == float16:
            continue  # the loss scale was too large, which GradScaler notices
        frame = user_frame(1)
        line = user_line(frame.f_code, frame.f_lasti)
        shapes = ", ".join(str(o.shape) for o in operands if isinstance(o, Tensor))
        raise GradError(
            f"anomaly: {op.name} made {bad} from finite operands, called at {line}.\n"
            f"  operands: {shapes}; result: {x.shape}\n"
            "Look at the values there: division by zero, log or sqrt of 0, overflow, or a "
            "learning rate that is too high.",
            op=op.name,
            line=line,
            value=bad,
        )
    return out


def _finite(x: Tensor) -> bool:
    if x.array.dtype.kind not in "fcV":
        return True
    backend = backend_of(x.array)
    xp = backend.xp if backend is not None else np
    array = x.array.astype(np.float32) if x.array.dtype.kind == "V" else x.array
    return bool(xp.isfinite(array).all())


def _any(mask: Any) -> bool:
    return bool(mask.any())
