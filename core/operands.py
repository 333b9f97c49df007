"""Operands on their way into a kernel and results on their way out: dtypes, scalars, halves.

What `Op` does for operands that are not simply float32 arrays of the CPU.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from . import dtypes, mistakes
from .conversion import converted
from .devices import Backend, backend_of, device_of
from .errors import DtypeError
from .foreign import no_tensor

if TYPE_CHECKING:
    from .op import Op

SCALARS = (bool, int, float, complex)


def as_operand(a: Any, name: str) -> Any:
    """An array, or a number that adapts to the dtype of the others; `name` is the operation's."""
    if isinstance(a, np.generic):
        return a.item() if a.dtype.kind in "biufc" else np.asarray(a)
    if isinstance(a, np.ndarray):
        return a.view(np.ndarray)
    if backend_of(a) is not None:
        return a
    raise no_tensor(name, a)


def as_array(result: Any) -> Any:
    """NumPy returns scalars for 0-d results; `.array` is always an array."""
    if isinstance(result, np.ndarray):
        return result.view(np.ndarray)
    return result if backend_of(result) is not None else np.asarray(result)


def common_backend(op: Op[..., Any], operands: tuple[Any, ...], arrays: list[Any]) -> Backend:
    """The backend of all arrays.

    Raises:
        DeviceError: they are on different devices.
    """
    found: Backend | None = None
    first: Any = None
    for a in arrays:
        if a is None or type(a) in SCALARS or isinstance(a, np.generic):
            continue
        backend = backend_of(a)
        if backend is None:
            continue
        if found is None:
            found, first = backend, a
        elif backend is not found or (found.type != "cpu" and device_of(a) != device_of(first)):
            raise mistakes.devices_differ(op, operands, arrays)
    if found is None:
        raise DtypeError(f"{op.name} needs at least one tensor")
    return found


def check_same_float(op: Op[..., Any], arrays: list[Any]) -> None:
    """Refuse operands of several floating dtypes, and integers where features are wanted.

    Raises:
        DtypeError: there are two or more, or the first operand holds integers beside floats.
    """
    found: dict[dtypes.DType, int] = {}  # the first operand of each
    for i, a in enumerate(arrays):
        d = getattr(a, "dtype", None)
        if d is not None and d in dtypes.INEXACT:
            found.setdefault(d, i)
    if len(found) > 1:
        raise mistakes.floats_differ(op, {d: mistakes.label(op, i) for d, i in found.items()})
    kind = getattr(arrays[0], "dtype", None)
    if found and kind is not None and kind.kind in "biu":
        raise mistakes.integers_given(op, kind, next(iter(found)))


def promote_together(
    arrays: list[Any], which: bool | tuple[int, ...], to_float: bool, xp: Any
) -> None:
    """Bring operands to one dtype, in place; Python scalars stay as they are, being weak."""
    places = range(len(arrays)) if which is True else which or ()
    chosen = [(i, arrays[i]) for i in places if arrays[i] is not None]
    found = [a.dtype for _, a in chosen if type(a) not in SCALARS]
    if not found:  # where(mask, 1.0, 0.0): scalars alone have their default types
        target = dtypes.bool_
    else:
        target = dtypes.promote_all(found)
    for _, a in chosen:
        if type(a) in SCALARS:
            scalar: Any = type(a)
            target = dtypes.with_scalar(target, scalar)
    if to_float and target not in dtypes.INEXACT:
        target = dtypes.default_float
    for i, a in chosen:
        if type(a) not in SCALARS:
            if a.dtype != target:
                arrays[i] = a.astype(target)
        elif not found:
            arrays[i] = xp.asarray(a, target)


def integers_to_float(arrays: list[Any]) -> None:
    """Bring integer operands to the default float, in place."""
    for i, a in enumerate(arrays):
        if type(a) not in SCALARS and a is not None and a.dtype.kind in "iub":
            arrays[i] = a.astype(dtypes.default_float)


def widen_halves(arrays: list[Any], skip: tuple[int, ...]) -> dtypes.DType | None:
    """Bring half operands to float32, in place, but for the positions in `skip`.

    Returns the dtype to which results are rounded, if any.
    """
    halves = False
    floats = []
    for i, a in enumerate(arrays):
        d = getattr(a, "dtype", None)
        if d is None or d not in dtypes.FLOATS:
            continue
        floats.append(d)
        if d in dtypes.HALVES and i not in skip:
            halves = True
            arrays[i] = converted(a, dtypes.float32)
    if not halves:
        return None
    target = dtypes.promote_all(floats)
    return target if target in dtypes.HALVES else None


def rounded(result: Any, dtype: dtypes.DType) -> Any:
    """Results of widened operands in their half dtype again."""
    if isinstance(result, tuple):
        return tuple(rounded(r, dtype) for r in result)
    if result is None or result.dtype != dtypes.float32:
        return result
    return converted(result, dtype)
