"""DDPM: the reverse of the training's noise, step by step, with fresh noise in every step.

Source: Ho, Jain and Abbeel 2020, "Denoising diffusion probabilistic models"; learned variances of
Nichol and Dhariwal 2021.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from ...core.ops.elementwise import exp
from ...core.ops.manipulation import split
from ...core.tensor import Tensor
from ...hub.configuration import expect
from .base import Scheduler, Step
from .options import Bounded
from .predictions import Generators, bounded, drawn, original
from .spacing import timesteps as evenly

VARIANCES = ("fixed_small", "fixed_small_log", "fixed_large", "learned", "learned_range")
_LEAST = 1e-20  # of a variance, before its logarithm


class DDPMScheduler(Scheduler):
    """The reverse process of DDPM, with any number of steps."""

    stochastic = True

    @dataclass(frozen=True)
    class Config(Bounded):
        """See `options.Bounded`.

        Args:
            variance_type: of the noise added by a step: that of the posterior ("fixed_small"), of
                the step forward ("fixed_large"), or the model's further channels ("learned_...").
        """

        variance_type: str = "fixed_small"

        def __post_init__(self) -> None:
            super().__post_init__()
            what = type(self).__qualname__
            expect({"variance_type": self.variance_type}, what, variance_type=VARIANCES)

    def set_timesteps(self, count: int | None = None, *, timesteps: Any = None) -> None:
        """Choose the steps of a walk.

        Args:
            timesteps: one by one, falling, in place of a number of steps.
        """
        c = self.config
        listed = None if timesteps is None else self._listed("timesteps", timesteps)
        count = self._count(count, listed)
        if listed is not None:
            self.timesteps = listed.astype("int64")
            return
        spaced = evenly(c.timestep_spacing, c.num_train_timesteps, count, c.steps_offset)
        self.timesteps = spaced.round().astype("int64")

    def _before(self, t: int) -> int:
        """The timestep that a step leads to; -1 for the clean sample."""
        if self.steps is None:
            return t - 1
        place = self.index_of(t)
        return int(self.timesteps[place + 1]) if place + 1 < len(self.timesteps) else -1

    def step(
        self,
        model_output: Tensor,
        timestep: Any,
        sample: Tensor,
        *,
        generator: Generators = None,
        noise: Tensor | None = None,
    ) -> Step:
        """One step towards the clean sample.

        Args:
            model_output: what the model says of `sample`; with the variance's channels behind it,
                for learned variances.
            noise: in place of numbers drawn with `generator`.
        """
        t = self.check_timestep(timestep)
        before = self._before(t)
        learned = None
        if self.config.variance_type.startswith("learned"):
            model_output, learned = split(model_output, 2, axis=1)
        self.check_samples(model_output, sample)
        left = float(self.signal[t])
        left_before = float(self.signal[before]) if before >= 0 else 1.0
        kept = left / left_before  # of the signal's power, by the step forward from `before` to t
        clean = original(
            self.config.prediction_type, model_output, sample, left**0.5, (1 - left) ** 0.5
        )
        clean = bounded(clean, self.config)
        # Mean of the posterior: eq. 7 of Ho et al.
        of_clean = left_before**0.5 * (1 - kept) / (1 - left)
        of_sample = kept**0.5 * (1 - left_before) / (1 - left)
        mean = of_clean * clean + of_sample * sample
        if t == 0:
            return Step(mean, clean)
        deviation = self._deviation(kept, left, left_before, learned)
        return Step(mean + deviation * drawn(sample, generator, noise), clean)

    def _deviation(
        self, kept: float, left: float, left_before: float, learned: Tensor | None
    ) -> float | Tensor:
        """Standard deviation of the noise of a step."""
        added = 1 - kept
        variance = max((1 - left_before) / (1 - left) * added, _LEAST)
        kind = self.config.variance_type
        if learned is not None and kind == "learned":
            return learned**0.5
        if learned is not None:
            share = (learned + 1) / 2
            return exp(0.5 * (share * math.log(added) + (1 - share) * math.log(variance)))
        return math.sqrt(added if kind == "fixed_large" else variance)
