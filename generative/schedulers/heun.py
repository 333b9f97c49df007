"""Heun's method along sigmas: Euler's step, then the mean of the slopes at both of its ends.

Source: Karras et al. 2022, "Elucidating the design space of diffusion-based generative models",
algorithm 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ...core.ops.elementwise import clip
from ...core.tensor import Tensor
from ...hub.configuration import flags, real
from .base import Step
from .options import Respaced
from .predictions import Generators, original_of_sigma
from .sigmas import SigmaScheduler
from .spacing import between, respaced, times_of
from .spacing import timesteps as evenly


class HeunDiscreteScheduler(SigmaScheduler):
    """Two evaluations of the model a step, except the last: every other timestep stands twice."""

    order = 2

    @dataclass(frozen=True)
    class Config(Respaced):
        """See `options.Respaced`.

        Args:
            clip_sample, clip_sample_range: clip the clean sample to plus and minus the range.
        """

        beta_start: float = 0.00085
        beta_end: float = 0.012
        clip_sample: bool = False
        clip_sample_range: float = 1.0

        def __post_init__(self) -> None:
            super().__post_init__()
            what = type(self).__qualname__
            flags(what, clip_sample=self.clip_sample)
            real(what, 0.0, 1e6, clip_sample_range=self.clip_sample_range)

    def _prepare(self) -> None:
        super()._prepare()
        self._first: tuple[Tensor, Tensor] | None = None  # sample and slope of Euler's step

    def set_timesteps(self, count: int | None = None, *, timesteps: Any = None) -> None:
        """Choose the steps of a walk.

        Args:
            timesteps: one by one, falling, in place of a number of steps.
        """
        c = self.config
        times = None if timesteps is None else self._listed("timesteps", timesteps)
        count = self._count(count, times)
        if times is None:
            times = evenly(c.timestep_spacing, c.num_train_timesteps, count, c.steps_offset)
            times = times.astype(np.float32)
        sigmas = between(times, self.table)
        chosen = respaced(c, float(sigmas[0]), float(sigmas[-1]), count)
        if chosen is not None:
            sigmas, times = chosen, times_of(chosen, self.table)
        inner = np.repeat(sigmas[1:], 2)
        self.sigmas = np.concatenate([sigmas[:1], inner, [0.0]]).astype(np.float32)
        self.timesteps = np.append(times[:1], np.repeat(times[1:], 2)).astype(np.float32)
        self._first = None

    def step(
        self,
        model_output: Tensor,
        timestep: Any,
        sample: Tensor,
        *,
        generator: Generators = None,
        noise: Tensor | None = None,
    ) -> Step:
        """Euler's step and its correction by turns; no noise is drawn."""
        self.check_samples(model_output, sample)
        place = self._place(timestep)
        correcting = self._first is not None
        before = place - 1 if correcting else place
        sigma, following = float(self.sigmas[before]), float(self.sigmas[before + 1])
        here = following if correcting else sigma
        clean = original_of_sigma(self.config.prediction_type, model_output, sample, here)
        if self.config.clip_sample:
            limit = float(self.config.clip_sample_range)
            clean = clip(clean, -limit, limit)
        slope = (sample - clean) / here
        if self._first is None:
            self._first = sample, slope
        else:
            sample, first_slope = self._first
            slope = (first_slope + slope) / 2
            self._first = None
        self.index = place + 1
        return Step(sample + (following - sigma) * slope, clean)
