"""Normalisation layers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..devices import as_device, backend_for
from ..dtypes import as_dtype, default_float
from ..errors import ConfigError, ShapeError
from ..op import op
from ..state import state
from ..tensor import Tensor
from . import functional as F
from . import init
from .dropout import note_unrecorded
from .module import Module
from .parameter import Buffer, Parameter


@op(raw=True, writes=("counter",), differentiable=False)
def count_up(xp: Any, counter: Tensor) -> None:
    """Add one to a counter in place."""
    counter[...] += 1


def _weight_and_bias(
    *shape: int, weight: bool, bias: bool, device: Any, dtype: Any
) -> tuple[Parameter | None, Parameter | None]:
    """Either is None where it is not wanted; `_reset` fills them."""
    return (
        init.parameter(*shape, device=device, dtype=dtype) if weight else None,
        init.parameter(*shape, device=device, dtype=dtype) if bias else None,
    )


def _reset(weight: Parameter | None, bias: Parameter | None) -> None:
    if weight is not None:
        init.ones_(weight)
    if bias is not None:
        init.zeros_(bias)


class _ByChannel(Module):
    """Weight, bias and running statistics for each channel."""

    # Numbers of axes that the input may have, and what they are.
    axes: tuple[int, ...] = ()
    layout = ""

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        *,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        self.num_features = num_features
        self.eps = eps
        self.momentum = momentum
        self.affine = affine
        self.track_running_stats = track_running_stats
        self.weight, self.bias = _weight_and_bias(
            num_features, weight=affine, bias=affine, device=device, dtype=dtype
        )
        self.running_mean: Buffer | None = None
        self.running_var: Buffer | None = None
        self.num_batches_tracked: Buffer | None = None
        if track_running_stats:
            xp = backend_for(as_device(device)).xp
            kind = default_float if dtype is None else as_dtype(dtype)
            self.running_mean = Buffer(xp.zeros(num_features, kind))
            self.running_var = Buffer(xp.ones(num_features, kind))
            self.num_batches_tracked = Buffer(xp.zeros((), np.int64))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Weight one, bias zero; running statistics as at the start."""
        self.reset_running_stats()
        _reset(self.weight, self.bias)

    def reset_running_stats(self) -> None:
        """Forget the statistics of the batches seen."""
        if self.running_mean is not None and self.running_var is not None:
            init.zeros_(self.running_mean)
            init.ones_(self.running_var)
        if self.num_batches_tracked is not None:
            init.zeros_(self.num_batches_tracked)

    def _check(self, input: Tensor) -> None:
        if input.ndim in self.axes:
            return
        hint = "\nOne sample without the batch axis? x[None]" if input.ndim + 1 in self.axes else ""
        raise ShapeError(
            f"{type(self).__name__} takes {self.layout}, got shape {tuple(input.shape)}.{hint}",
            expected=self.axes,
            got=tuple(input.shape),
        )

    def extra_repr(self) -> str:
        return (
            f"{self.num_features}, eps={self.eps}, momentum={self.momentum}, "
            f"affine={self.affine}, track_running_stats={self.track_running_stats}"
        )


class _BatchNorm(_ByChannel):
    def forward(self, input: Tensor) -> Tensor:
        self._check(input)
        if self.training:
            if not state.grad_enabled:
                note_unrecorded(type(self).__name__)
            if self.num_batches_tracked is not None:
                count_up(self.num_batches_tracked)
        return F.batch_norm(
            input,
            self.running_mean,
            self.running_var,
            self.weight,
            self.bias,
            self.training or self.running_mean is None,
            self.momentum,
            self.eps,
            num_batches=self.num_batches_tracked,
        )


class BatchNorm1d(_BatchNorm):
    """Normalises each channel over the batch; arguments as for `BatchNorm2d`.

    Shape: (B, C) or (B, C, L), kept.
    """

    axes = (2, 3)
    layout = "(B, C) or (B, C, L)"


class BatchNorm2d(_BatchNorm):
    """Normalises each channel over the batch in training, with running statistics after.

    Args:
        num_features: number of channels C.
        eps: added to the variance.
        momentum: how far running statistics move to a batch's; None averages all batches.
        affine: whether channels have a weight and a bias.
        track_running_stats: whether to keep running statistics.

    Shape: (B, C, H, W), kept.
    Source: Ioffe and Szegedy 2015, "Batch normalization".
    """

    axes = (4,)
    layout = "(B, C, H, W)"


class _InstanceNorm(_ByChannel):
    """Without weights and running statistics unless they are asked for."""

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float = 0.1,
        affine: bool = False,
        track_running_stats: bool = False,
        *,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(
            num_features, eps, momentum, affine, track_running_stats, device=device, dtype=dtype
        )

    def forward(self, input: Tensor) -> Tensor:
        self._check(input)
        return F.instance_norm(
            input,
            self.running_mean,
            self.running_var,
            self.weight,
            self.bias,
            self.training or self.running_mean is None,
            0.0 if self.momentum is None else self.momentum,
            self.eps,
        )


class InstanceNorm1d(_InstanceNorm):
    """Normalises each channel of each sample. Shape: (B, C, L), kept."""

    axes = (3,)
    layout = "(B, C, L)"


class InstanceNorm2d(_InstanceNorm):
    """Normalises each channel of each sample. Shape: (B, C, H, W), kept."""

    axes = (4,)
    layout = "(B, C, H, W)"


class LayerNorm(Module):
    """Normalises the last axes.

    Args:
        normalized_shape: their sizes.
        eps: added to the variance.
        elementwise_affine: whether there is a weight (and a bias).
        bias: whether there is a bias.

    Shape: (..., *normalized_shape), kept.
    Source: Ba et al. 2016, "Layer normalization".
    """

    def __init__(
        self,
        normalized_shape: int | Sequence[int],
        eps: float = 1e-5,
        elementwise_affine: bool = True,
        bias: bool = True,
        *,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        shape = (normalized_shape,) if isinstance(normalized_shape, int) else normalized_shape
        self.normalized_shape = tuple(shape)
        self.eps = eps
        self.elementwise_affine = elementwise_affine
        affine = elementwise_affine
        self.weight, self.bias = _weight_and_bias(
            *self.normalized_shape, weight=affine, bias=affine and bias, device=device, dtype=dtype
        )
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Weight one, bias zero."""
        _reset(self.weight, self.bias)

    def forward(self, input: Tensor) -> Tensor:
        return F.layer_norm(input, self.normalized_shape, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        affine = self.elementwise_affine
        return f"{self.normalized_shape}, eps={self.eps}, elementwise_affine={affine}"


class RMSNorm(Module):
    """Divides the last axes by their root mean square.

    Args:
        normalized_shape: their sizes.
        eps: added to the mean square; None takes the dtype's epsilon.
        elementwise_affine: whether there is a weight.

    Shape: (..., *normalized_shape), kept.
    Source: Zhang and Sennrich 2019, "Root mean square layer normalization".
    """

    def __init__(
        self,
        normalized_shape: int | Sequence[int],
        eps: float | None = None,
        elementwise_affine: bool = True,
        *,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        shape = (normalized_shape,) if isinstance(normalized_shape, int) else normalized_shape
        self.normalized_shape = tuple(shape)
        self.eps = eps
        self.elementwise_affine = elementwise_affine
        self.weight: Parameter | None = None
        if elementwise_affine:
            self.weight = init.parameter(*self.normalized_shape, device=device, dtype=dtype)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Weight one."""
        _reset(self.weight, None)

    def forward(self, input: Tensor) -> Tensor:
        return F.rms_norm(input, self.normalized_shape, self.weight, self.eps)

    def extra_repr(self) -> str:
        affine = self.elementwise_affine
        return f"{self.normalized_shape}, eps={self.eps}, elementwise_affine={affine}"


class GroupNorm(Module):
    """Normalises groups of channels of each sample.

    Args:
        num_groups: into how many groups the channels are split.
        num_channels: number of channels C.
        eps: added to the variance.
        affine: whether channels have a weight and a bias.

    Shape: (B, C, ...), kept.
    Source: Wu and He 2018, "Group normalization".
    """

    def __init__(
        self,
        num_groups: int,
        num_channels: int,
        eps: float = 1e-5,
        affine: bool = True,
        *,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        if num_channels % num_groups:
            raise ConfigError(
                f"GroupNorm: {num_channels} channels cannot be split into {num_groups} groups.\n"
                f"One that can: GroupNorm({math.gcd(num_groups, num_channels)}, {num_channels})"
            )
        self.num_groups, self.num_channels = num_groups, num_channels
        self.eps = eps
        self.affine = affine
        self.weight, self.bias = _weight_and_bias(
            num_channels, weight=affine, bias=affine, device=device, dtype=dtype
        )
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Weight one, bias zero."""
        _reset(self.weight, self.bias)

    def forward(self, input: Tensor) -> Tensor:
        return F.group_norm(input, self.num_groups, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        return f"{self.num_groups}, {self.num_channels}, eps={self.eps}, affine={self.affine}"
