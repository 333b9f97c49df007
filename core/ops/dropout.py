"""Dropout: values left out at random while training."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..errors import ConfigError
from ..op import op

if TYPE_CHECKING:
    from ..random import Generator
    from ..tensor import Tensor


@op
def keep(xp: Any, x: Tensor, kept: Tensor, *, scale: float) -> Tensor:
    """x where `kept`, times `scale`; 0 elsewhere."""
    out = xp.empty_like(x)  # in the layout of x; that of `kept` may differ
    xp.multiply(x, kept, out=out)
    out *= scale
    return out


@keep.backward
def _(g, kept, scale):
    return keep(g, kept, scale=scale), None


def _check(where: str, p: float) -> None:
    if not 0 <= p <= 1:
        raise ConfigError(f"{where}: p is a probability, from 0 to 1, got {p}", got=p)


def _dropped(x: Tensor, p: float, shape: tuple[int, ...], generator: Generator | None) -> Tensor:
    from ..random import bernoulli

    kept = bernoulli(1 - p, shape, device=x.device, generator=generator)
    return keep(x, kept, scale=1 / (1 - p) if p < 1 else 0.0)


def dropout(
    x: Tensor, p: float = 0.5, training: bool = True, *, generator: Generator | None = None
) -> Tensor:
    """Set each value to 0 with probability p, and scale the others so that the mean stays.

    Source: Srivastava et al. 2014, "Dropout".
    """
    _check("dropout", p)
    return x if not training or p == 0 else _dropped(x, p, x.shape, generator)


def dropout1d(
    x: Tensor, p: float = 0.5, training: bool = True, *, generator: Generator | None = None
) -> Tensor:
    """Leave out whole channels of (B, C, L)."""
    return dropout2d(x, p, training, generator=generator)


def dropout2d(
    x: Tensor, p: float = 0.5, training: bool = True, *, generator: Generator | None = None
) -> Tensor:
    """Leave out whole channels of (B, C, H, W)."""
    _check("dropout2d", p)
    if not training or p == 0:
        return x
    return _dropped(x, p, x.shape[:2] + (1,) * (x.ndim - 2), generator)


def drop_path(
    x: Tensor, p: float = 0.0, training: bool = True, *, generator: Generator | None = None
) -> Tensor:
    """Leave out whole samples of a residual branch, also called stochastic depth.

    Source: Huang et al. 2016, "Deep networks with stochastic depth".
    """
    _check("drop_path", p)
    if not training or p == 0:
        return x
    return _dropped(x, p, x.shape[:1] + (1,) * (x.ndim - 1), generator)
