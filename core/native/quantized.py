"""Products with weights of few bits, in the formats of core/quantization.py.

A product reads every weight once and widens it in registers, so that with few rows it runs as fast
as memory gives the weights. Sums are in float32; weights are taken exactly.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import ShapeError
from .runtime import Float32, check, get_num_threads, output, run

Bytes = NDArray[np.uint8]

_UINT8 = np.dtype(np.uint8)
GROUP = 32
_WORK = 1 << 16  # bytes of weights in a block that is read more than once, or widened
_LEAST = 1 << 14  # bytes of weights that are worth another thread


def product(
    form: str,
    weight: Bytes,
    x: Float32,
    bias: Float32 | None = None,
    out: Float32 | None = None,
) -> Float32:
    """x times the transposed weight: for few rows, since each four of them widen it anew.

    Args:
        form: the name of a format.

    Shape: weight (N, bytes), x (M, K), K a multiple of 32, bias (N,) -> (M, N).
    """
    check("product", "x", x, (None, None))
    groups = stored_groups("product", form, weight, x.shape[1])
    rows, outs = len(x), len(weight)
    if bias is not None:
        check("product", "bias", bias, (outs,))
    out = output("product", out, (rows, outs))
    stride = weight.shape[1]
    # Each four rows read a block anew: of more of them it stays in the cache.
    grain = share(outs, stride) if rows <= 4 else max(4, _WORK // max(stride, 1) & -4)
    arrays, ints = (weight, x, bias, out, None, None), (groups, stride, rows, outs, 0, 0)
    run(f"product_{form}", arrays, ints, (), outs, grain)
    return out


def numbers(form: str, weight: Bytes, features: int, out: Float32 | None = None) -> Float32:
    """The rows of a weight in float32, exactly.

    Shape: weight (N, bytes) -> (N, features), features a multiple of 32.
    """
    groups = stored_groups("numbers", form, weight, features)
    out = output("numbers", out, (len(weight), features))
    stride = weight.shape[1]
    grain = max(1, _WORK // max(stride, 1))
    run(f"numbers_{form}", (weight, out), (groups, stride), (), len(weight), grain)
    return out


def share(rows: int, stride: int) -> int:
    """Rows of a weight in a block: long runs of memory, and two of them for each thread."""
    least = _LEAST // max(stride, 1)
    return max(4, least, -(-rows // (2 * get_num_threads()))) + 3 & -4


def stored_groups(where: str, form: str, weight: Any, features: int) -> int:
    """Groups in a row, once the rows are known to hold them.

    Raises: ShapeError, DtypeError.
    """
    from ..quantization import as_format

    check(where, "weight", weight, (None, None), _UINT8)
    layout = as_format(form)
    if features % layout.block or weight.shape[1] != layout.stored(features):
        raise ShapeError(
            f"native.{where}: rows of {features} numbers in {form}, which are whole blocks of "
            f"{layout.block}, have {layout.stored(features)} bytes; got {weight.shape[1]}",
            expected=layout.stored(features),
            got=weight.shape[1],
        )
    return features // GROUP
