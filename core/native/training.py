"""The loss of a classifier and Adam. Arrays are float32 and C-contiguous, class ids int64."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .runtime import GRAIN, Float32, check, grain_for, run

_INT64, _FLOAT64 = np.dtype(np.int64), np.dtype(np.float64)


def cross_entropy(x: Float32, ids: NDArray[np.int64]) -> tuple[Float32, NDArray[np.float64]]:
    """The loss of each row, and its logsumexp; NaN for an id that is no class.

    Shape: x (M, C), ids (M,) -> (M,), (M,).
    """
    check("cross_entropy", "x", x, (None, None))
    check("cross_entropy", "ids", ids, x.shape[:1], _INT64)
    rows, classes = x.shape
    loss, lse = np.empty(rows, np.float32), np.empty(rows, np.float64)
    run("cross_entropy", (x, ids, loss, lse), (classes,), (), rows, grain_for(classes))
    return loss, lse


def cross_entropy_backward(
    x: Float32, ids: NDArray[np.int64], lse: NDArray[np.float64], scale: float
) -> Float32:
    """`scale` times the softmax of each row, less 1 at its class.

    Shape: x (M, C), ids and lse (M,) -> (M, C).
    """
    check("cross_entropy_backward", "x", x, (None, None))
    check("cross_entropy_backward", "ids", ids, x.shape[:1], _INT64)
    check("cross_entropy_backward", "lse", lse, x.shape[:1], _FLOAT64)
    rows, classes = x.shape
    out = np.empty(x.shape, np.float32)
    arrays = (x, ids, lse, out)
    run("cross_entropy_backward", arrays, (classes,), (scale,), rows, grain_for(classes))
    return out


def adam(
    g: Float32,
    p: Float32,
    exp_avg: Float32,
    exp_avg_sq: Float32,
    largest: Float32 | None,
    factors: tuple[float, ...],
) -> None:
    """One step of Adam, in place; all are flat and of one length.

    Args:
        largest: of the averages of squares so far, for amsgrad.
        factors: the rate, the shifted epsilon, 1 - beta1, beta2, 1 - beta2, what parameters are
            multiplied by, how much of them is added to the gradient, and the gradient's sign.
    """
    arrays = (g, p, exp_avg, exp_avg_sq, largest)
    for name, array in zip(("g", "p", "exp_avg", "exp_avg_sq", "largest"), arrays, strict=True):
        if array is not None:
            check("adam", name, array, (g.size,))
    run("adam", arrays, (), factors, g.size, GRAIN)
