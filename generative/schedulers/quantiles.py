"""Quantiles of the beta distribution, by which some walks choose their sigmas.

Source: Lee et al. 2024, "Beta sampling is all you need"; the continued fraction of the incomplete
beta function is formula 8.17.22 of the NIST Digital Library of Mathematical Functions.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
_TERMS = 60  # of the continued fraction: it has converged long before
_HALVINGS = 60  # of the interval that a quantile lies in: all bits of a double


def beta_distribution(x: Array, a: float, b: float) -> Array:
    """The share of the distribution that lies below each x, from 0 to 1."""
    x = np.asarray(x, np.float64)
    turned = x > (a + 1) / (a + b + 2)  # where the fraction of the other end converges faster
    near = np.where(turned, 1 - x, x)
    first, second = np.where(turned, b, a), np.where(turned, a, b)
    # Backwards, from the last term to the first.
    tail = np.ones_like(near)
    for m in range(_TERMS, 0, -1):
        even = m * (second - m) * near / ((first + 2 * m - 1) * (first + 2 * m))
        odd = -(first + m - 1) * (first + second + m - 1) * near
        odd = odd / ((first + 2 * m - 2) * (first + 2 * m - 1))
        tail = 1 + odd / (1 + even / tail)
    scale = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b)
    with np.errstate(divide="ignore"):
        logs = first * np.log(near) + second * np.log1p(-near)
    below = np.exp(scale + logs) / (first * tail)
    return np.asarray(np.where(turned, 1 - below, below))


def beta_quantiles(shares: Array, a: float, b: float) -> Array:
    """Where these shares of the distribution lie below, each from 0 to 1."""
    shares = np.asarray(shares, np.float64)
    low, high = np.zeros_like(shares), np.ones_like(shares)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        below = beta_distribution(middle, a, b) < shares
        low, high = np.where(below, middle, low), np.where(below, high, middle)
    found = (low + high) / 2
    return np.asarray(np.where(shares <= 0, 0.0, np.where(shares >= 1, 1.0, found)))
