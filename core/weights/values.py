"""NaN and infinite values in weights."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ..errors import WeightsError
from .source import Array, quoted

_BLOCK = 1 << 20  # elements; the temporary booleans stay in the cache


def wrong_bool(array: Array) -> int | None:
    """The largest byte of a boolean array, if it is neither 0 nor 1.

    NumPy would compute with such a byte as if it were a number.
    """
    largest = int(array.view(np.uint8).max()) if array.size else 0
    return largest if largest > 1 else None


def nonfinite(tensors: Mapping[str, Array]) -> dict[str, tuple[int, int]]:
    """The tensors that hold NaN or infinite values: {name: (number of NaN, number infinite)}."""
    found = {}
    for name, array in tensors.items():
        if array.dtype.kind not in "fcV":  # V: the types of ml_dtypes
            continue
        counts = _count(array)
        if any(counts):
            found[name] = counts
    return found


@np.errstate(invalid="ignore")  # ml_dtypes warns of signalling NaN
def _count(array: Array) -> tuple[int, int]:
    flat = array.reshape(-1)
    nans = infinite = 0
    for start in range(0, flat.size, _BLOCK):
        block = flat[start : start + _BLOCK]
        if not np.isfinite(block).all():
            bad = int(np.isnan(block).sum())
            nans += bad
            infinite += int((~np.isfinite(block)).sum()) - bad
    return nans, infinite


def require_finite(tensors: Mapping[str, Array], where: str) -> None:
    """Raise WeightsError that names every tensor with NaN or infinite values.

    Raises:
        WeightsError: there are some; `.tensors` has their counts.
    """
    found = nonfinite(tensors)
    if not found:
        return
    lines = [
        f"    {quoted(name)}: {nans:,} NaN, {infinite:,} infinite of {tensors[name].size:,}"
        for name, (nans, infinite) in list(found.items())[:6]
    ]
    if len(found) > 6:
        lines.append(f"    and {len(found) - 6:,} more (error.tensors)")
    raise WeightsError(
        f"{where}: {len(found):,} of {len(tensors):,} tensors hold NaN or infinite values:\n"
        + "\n".join(lines)
        + "\nThe training that made the file diverged, or it was damaged; every prediction would "
        "be NaN.\nUse an earlier checkpoint, or load without check_values=True to look at it.",
        path=where,
        tensors=found,
    )
