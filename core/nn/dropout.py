"""Layers that drop values in training."""

from __future__ import annotations

from ..callers import user_frame, user_line
from ..errors import ConfigError
from ..mistakes import PREDICTION
from ..notice import was_given
from ..state import state
from ..tensor import Tensor
from . import functional as F
from .module import Module


def note_unrecorded(layer: str) -> None:
    """Remember that a layer in training mode computes without gradients.

    That may be on purpose: a generator that makes data for its critic, a teacher, statistics of
    batch norm. It is a prediction, and warned of, when a result is read (`Tensor.item`, `tolist`,
    `numpy`) before the next backward pass.
    """
    if state.noisy is None and not was_given(PREDICTION):
        frame = user_frame()
        state.noisy = layer, user_line(frame.f_code, frame.f_lasti)


class _Dropout(Module):
    def __init__(self, p: float = 0.5, inplace: bool = False) -> None:
        """`inplace` is taken for torch's sake: results are the same without."""
        if not 0 <= p <= 1:
            raise ConfigError(f"{type(self).__name__}: p lies between 0 and 1, got {p}", got=p)
        self.p = p

    def _active(self) -> bool:
        if not self.training or self.p == 0:
            return False
        if not state.grad_enabled:
            note_unrecorded(type(self).__name__)
        return True

    def extra_repr(self) -> str:
        return f"p={self.p}"


class Dropout(_Dropout):
    """In training, sets values to zero with probability `p` and scales the others up.

    Source: Srivastava et al. 2014, "Dropout".
    """

    def forward(self, input: Tensor) -> Tensor:
        return F.dropout(input, self.p) if self._active() else input


class Dropout1d(_Dropout):
    """Drops whole channels. Shape: (B, C, L), kept."""

    def forward(self, input: Tensor) -> Tensor:
        return F.dropout1d(input, self.p) if self._active() else input


class Dropout2d(_Dropout):
    """Drops whole channels. Shape: (B, C, H, W), kept."""

    def forward(self, input: Tensor) -> Tensor:
        return F.dropout2d(input, self.p) if self._active() else input


class DropPath(Module):
    """In training, drops whole samples (of a residual branch) with probability `drop_prob`.

    Args:
        drop_prob: the probability.
        scale_by_keep: scale the others up, so that the expectation is kept.

    Source: Huang et al. 2016, "Deep networks with stochastic depth".
    """

    def __init__(self, drop_prob: float = 0.0, scale_by_keep: bool = True) -> None:
        if not 0 <= drop_prob <= 1:
            raise ConfigError(f"DropPath: drop_prob lies between 0 and 1, got {drop_prob}")
        self.drop_prob, self.scale_by_keep = drop_prob, scale_by_keep

    def forward(self, input: Tensor) -> Tensor:
        if not self.training or self.drop_prob == 0:
            return input
        if not state.grad_enabled:
            note_unrecorded("DropPath")
        out = F.drop_path(input, self.drop_prob)
        return out if self.scale_by_keep else out * (1 - self.drop_prob)

    def extra_repr(self) -> str:
        return f"drop_prob={self.drop_prob}"
