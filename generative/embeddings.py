"""Times as vectors: what tells a network how noisy its input is."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..core import nn
from ..core.creation import asarray
from ..core.errors import ShapeError
from ..core.ops.shape import broadcast_to, concat, expand_dims, reshape
from ..core.ops.trigonometry import cos, sin
from ..core.tensor import Tensor

_LONGEST = 10_000.0  # the slowest wave turns once in 2 pi times as many timesteps


class Timesteps(nn.Module):
    """Sines and cosines of a time at D / 2 frequencies.

    Args:
        channels: D.
        flip_sin_to_cos: cosines come first.
        freq_shift: 1 lets the slowest wave have exactly the longest period, 0 almost.

    Shape: (B,) -> (B, D).
    Source: Vaswani et al. 2017; Ho et al. 2020, "Denoising diffusion probabilistic models".
    """

    def __init__(self, channels: int, flip_sin_to_cos: bool, freq_shift: float) -> None:
        self.channels = channels
        self.flip_sin_to_cos = flip_sin_to_cos
        half = channels // 2
        exponent = np.arange(half, dtype=np.float32) * np.float32(-math.log(_LONGEST))
        self.frequencies = np.exp(exponent / np.float32(half - freq_shift)).astype(np.float32)

    def forward(self, timesteps: Tensor) -> Tensor:
        frequencies = asarray(self.frequencies, device=timesteps.device)
        angles = expand_dims(timesteps.astype(np.float32), axis=1) * frequencies
        waves = [sin(angles), cos(angles)]
        if self.flip_sin_to_cos:
            waves.reverse()
        if self.channels % 2:
            waves.append(angles[:, :1] * 0.0)
        return concat(waves, axis=1)


class TimestepEmbedding(nn.Module):
    """Two linear maps with SiLU between them. Shape: (B, in_channels) -> (B, D).

    Args:
        condition: width of a second input, such as the guidance of distilled models, added to
            the first.
    """

    def __init__(self, in_channels: int, width: int, condition: int | None = None) -> None:
        self.linear_1 = nn.Linear(in_channels, width)
        self.cond_proj = (
            None if condition is None else nn.Linear(condition, in_channels, bias=False)
        )
        self.act = nn.SiLU()
        self.linear_2 = nn.Linear(width, width)

    def forward(self, sample: Tensor, condition: Tensor | None = None) -> Tensor:
        if condition is not None and self.cond_proj is not None:
            sample = sample + self.cond_proj(condition)
        out: Tensor = self.linear_2(self.act(self.linear_1(sample)))
        return out


def batch_of_times(what: str, timestep: Any, sample: Tensor) -> Tensor:
    """One time for each sample, (B,), of one number or B of them.

    Raises:
        ShapeError: another number of them.
    """
    count = sample.shape[0]
    times = timestep if isinstance(timestep, Tensor) else asarray(timestep, device=sample.device)
    if times.ndim > 1 or times.size not in (1, count):
        raise ShapeError(
            f"{what}: one timestep, or one for each of the {count} samples, is wanted; got "
            f"{tuple(times.shape)}.",
            expected=(count,),
            got=tuple(times.shape),
        )
    return broadcast_to(reshape(times, (-1,)), (count,))
