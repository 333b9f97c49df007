"""Euler's method along sigmas, each step going further down and back up with fresh noise.

Source: Karras et al. 2022; the ancestral sampling of k-diffusion (Crowson 2022).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ...core.tensor import Tensor
from .base import Step
from .options import Spaced
from .predictions import Generators, drawn, original_of_sigma
from .sigmas import SigmaScheduler
from .spacing import between, timesteps


class EulerAncestralDiscreteScheduler(SigmaScheduler):
    """One evaluation of the model a step, and noise as DDPM has it."""

    stochastic = True

    @dataclass(frozen=True)
    class Config(Spaced):
        """See `options.Spaced`."""

        timestep_spacing: str = "linspace"

    def set_timesteps(self, count: int) -> None:
        """Choose the steps of a walk."""
        c, count = self.config, self._begin_walk(count)
        times = timesteps(c.timestep_spacing, c.num_train_timesteps, count, c.steps_offset)
        self.timesteps = times.astype(np.float32)
        self.sigmas = np.append(between(self.timesteps, self.table), 0.0).astype(np.float32)

    def step(
        self,
        model_output: Tensor,
        timestep: Any,
        sample: Tensor,
        *,
        generator: Generators = None,
        noise: Tensor | None = None,
    ) -> Step:
        """One step towards the clean sample."""
        self.check_samples(model_output, sample)
        place = self._place(timestep)
        sigma, following = float(self.sigmas[place]), float(self.sigmas[place + 1])
        clean = original_of_sigma(self.config.prediction_type, model_output, sample, sigma)
        up = (following**2 * (sigma**2 - following**2) / sigma**2) ** 0.5
        down = max(following**2 - up**2, 0.0) ** 0.5
        slope = (sample - clean) / sigma
        self.index = place + 1
        out = sample + (down - sigma) * slope
        if up:
            out = out + up * drawn(sample, generator, noise)
        return Step(out, clean)
