"""What schedulers that walk along sigmas share: sample = clean + sigma * noise.

Such samples grow with sigma; the model sees them divided by sqrt(sigma**2 + 1). Source: Karras et
al. 2022, "Elucidating the design space of diffusion-based generative models".
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ...core.tensor import Tensor
from .base import Scheduler
from .betas import LEAST_SIGNAL, signal_table
from .spacing import Array, sigmas_of


class SigmaScheduler(Scheduler):
    """Sigmas in place of the shares of signal; `sigmas` has one more than `timesteps`."""

    def _prepare(self) -> None:
        self.signal = signal_table(self.config, LEAST_SIGNAL)
        self.table: Array = sigmas_of(self.signal)  # of every training timestep
        self.sigmas = np.append(self.table[::-1], np.float32(0))
        self.timesteps = np.arange(len(self.table), dtype=np.float32)[::-1].copy()

    @property
    def init_noise_sigma(self) -> float:
        most = float(self.sigmas.max())
        ends = self.config.timestep_spacing in ("linspace", "trailing")
        return most if ends else (most * most + 1) ** 0.5

    def scale_model_input(self, sample: Tensor, timestep: Any = None) -> Tensor:
        """The sample divided by its standard deviation."""
        sigma = float(self.sigmas[self._place(timestep)])
        return sample / math.sqrt(sigma * sigma + 1)

    def scales(self, timestep: Any) -> tuple[float, float]:
        """Factors of the signal and of the noise at a timestep of the walk."""
        return 1.0, float(self.sigmas[self.index_of(timestep)])


def angles(sigma: float, flow: bool = False) -> tuple[float, float]:
    """Factors of the signal and of the noise in a sample of variance one.

    Args:
        flow: the signal fades linearly instead: sample = (1 - sigma) clean + sigma noise.
    """
    if flow:
        return 1 - sigma, sigma
    signal = 1 / (sigma * sigma + 1) ** 0.5
    return signal, sigma * signal


def log_ratio(signal: float, sigma: float) -> float:
    """Half the logarithm of signal to noise, the time of multistep solvers; infinite at the end."""
    with np.errstate(divide="ignore"):
        return float(np.log(signal) - np.log(sigma))
