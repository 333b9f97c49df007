"""Whether tensors are equal up to rounding, and where not."""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import dtypes
from ..tensor import Tensor

# dtype -> relative and absolute tolerance, for values of ordinary size.
_TOLERANCES = {
    dtypes.bfloat16: (1.6e-2, 1e-5),
    dtypes.float16: (1e-3, 1e-5),
    dtypes.float32: (1.3e-6, 1e-5),
    dtypes.complex64: (1.3e-6, 1e-5),
    dtypes.float64: (1e-7, 1e-7),
    dtypes.complex128: (1e-7, 1e-7),
}


def assert_close(
    actual: Any,
    expected: Any,
    *,
    rtol: float | None = None,
    atol: float | None = None,
    equal_nan: bool = True,
    check_dtype: bool = True,
    label: str = "",
) -> None:
    """Fail with the first differences unless `abs(actual - expected) <= atol + rtol * expected`.

    Args:
        actual, expected: tensors, arrays, numbers, or lists, tuples and dicts of these.
        rtol, atol: tolerances; by default those of the less precise dtype of the two.
        equal_nan: NaN equals NaN.
        check_dtype: dtypes must be the same (numbers and lists have none).
        label: put before the message.

    Raises:
        AssertionError: the message names the places, both values and the largest differences.
    """
    where = f"{label}: " if label else ""
    if isinstance(expected, dict):
        if not isinstance(actual, dict) or actual.keys() != expected.keys():
            names = sorted(actual) if isinstance(actual, dict) else type(actual).__name__
            raise AssertionError(f"{where}keys are {names}, expected {sorted(expected)}")
        pairs = [(f"{label}[{key!r}]", actual[key], expected[key]) for key in expected]
    elif isinstance(expected, (list, tuple)) and _holds_arrays(expected):
        if not isinstance(actual, (list, tuple)) or len(actual) != len(expected):
            count = len(actual) if isinstance(actual, (list, tuple)) else type(actual).__name__
            raise AssertionError(f"{where}{count} values, expected {len(expected)}")
        pairs = [
            (f"{label}[{i}]", a, e) for i, (a, e) in enumerate(zip(actual, expected, strict=True))
        ]
    else:
        _compare(where, actual, expected, rtol, atol, equal_nan, check_dtype)
        return
    for name, a, e in pairs:
        assert_close(
            a,
            e,
            rtol=rtol,
            atol=atol,
            equal_nan=equal_nan,
            check_dtype=check_dtype,
            label=name,
        )


def _holds_arrays(values: Any) -> bool:
    return any(hasattr(v, "dtype") or isinstance(v, (dict, list, tuple)) for v in values)


def _array(value: Any) -> np.ndarray[Any, Any]:
    if isinstance(value, Tensor):
        value = value.detach().cpu().array
    elif hasattr(value, "get") and not isinstance(value, np.ndarray):
        value = value.get()
    return np.asarray(value)


def _compare(
    where: str,
    actual: Any,
    expected: Any,
    rtol: float | None,
    atol: float | None,
    equal_nan: bool,
    check_dtype: bool,
) -> None:
    a, e = _array(actual), _array(expected)
    if a.shape != e.shape:
        raise AssertionError(f"{where}the shape is {a.shape}, expected {e.shape}")
    typed = hasattr(actual, "dtype") and hasattr(expected, "dtype")
    if check_dtype and typed and a.dtype != e.dtype:
        raise AssertionError(f"{where}the dtype is {a.dtype}, expected {e.dtype}")
    tolerances = [_TOLERANCES[x.dtype] for x in (a, e) if x.dtype in _TOLERANCES]
    relative, absolute = max(tolerances, default=(0.0, 0.0))
    relative = relative if rtol is None else rtol
    absolute = absolute if atol is None else atol
    wide: Any = np.complex128 if "c" in (a.dtype.kind, e.dtype.kind) else np.float64
    if not (a.dtype.kind in "biu" and e.dtype.kind in "biu"):
        a, e = a.astype(wide), e.astype(wide)
    # Equal infinities have no difference; NaN is dealt with below.
    with np.errstate(invalid="ignore", over="ignore"):
        distance = np.abs(a.astype(wide) - e.astype(wide))
        near = distance <= absolute + relative * np.abs(e.astype(wide))
        good = (a == e) | (near & np.isfinite(distance))
    if equal_nan:
        good |= (a != a) & (e != e)
    if good.all():
        return
    wrong = np.argwhere(~good)
    lines = [
        f"{where}{len(wrong)} of {a.size} values differ (rtol={relative:g}, atol={absolute:g}); "
        f"shape {a.shape}"
    ]
    for place in wrong[:3]:
        at = tuple(int(i) for i in place)
        lines.append(f"  at {at}: {a[at]}, expected {e[at]}")
    with np.errstate(all="ignore"):
        finite = np.where(np.isfinite(distance) & ~good, distance, 0)
        worst = tuple(int(i) for i in np.unravel_index(np.argmax(finite), finite.shape))
        ratio = finite / np.where(e == 0, np.inf, np.abs(e.astype(wide)))
    lines.append(
        f"  largest difference {finite[worst]:g} at {worst}, largest relative {ratio.max():g}"
    )
    raise AssertionError("\n".join(lines))
