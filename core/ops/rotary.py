"""Rotary positions: pairs of features turned by angles."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..op import op

if TYPE_CHECKING:
    from ..tensor import Tensor


@op
def rotate_halves(xp: Any, x: Tensor, cos: Tensor, sin: Tensor, *, back: bool = False) -> Tensor:
    """Turn the pairs of features that are half the last axis apart.

    One operation rather than nine, since a language model turns queries and keys in every layer of
    every step. Angles are constants: their cosines and sines get no gradient.

    Args:
        back: by the opposite angles.

    Shape:
        x (..., W), cos and sin broadcast to (..., W / 2) -> (..., W)
    Source:
        Su et al. 2021, "RoFormer"; the pairing is that of published files.
    """
    half = x.shape[-1] // 2
    out = xp.empty(x.shape, x.dtype)
    a, b = x[..., :half], x[..., half:]
    first, second = out[..., :half], out[..., half:]
    xp.multiply(a, cos, out=first)
    xp.multiply(b, cos, out=second)
    if back:  # the opposite sine: the halves change places in what follows
        a, b, first, second = b, a, second, first
    first -= b * sin
    second += a * sin
    return out


@rotate_halves.backward
def _(g, cos, sin, back):
    return rotate_halves(g, cos, sin, back=not back), None, None
