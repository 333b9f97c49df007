"""DDIM: the same marginals as DDPM's, walked without noise, so in far fewer steps.

Source: Song, Meng and Ermon 2021, "Denoising diffusion implicit models".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ...core.errors import ConfigError
from ...core.tensor import Tensor
from ...hub.configuration import flags, real
from .base import Scheduler, Step
from .options import Bounded
from .predictions import Generators, bounded, drawn, epsilon, original
from .spacing import timesteps


class DDIMScheduler(Scheduler):
    """Deterministic steps; `eta` of `step` mixes noise in, 1 being DDPM's."""

    @dataclass(frozen=True)
    class Config(Bounded):
        """See `options.Bounded`.

        Args:
            set_alpha_to_one: the last step leads to the clean sample; False to that of timestep 0.
        """

        set_alpha_to_one: bool = True

        def __post_init__(self) -> None:
            super().__post_init__()
            flags(type(self).__qualname__, set_alpha_to_one=self.set_alpha_to_one)

    def set_timesteps(self, count: int) -> None:
        """Choose the steps of a walk."""
        c, count = self.config, self._begin_walk(count)
        spaced = timesteps(c.timestep_spacing, c.num_train_timesteps, count, c.steps_offset)
        self.timesteps = spaced.round().astype("int64")

    def step(
        self,
        model_output: Tensor,
        timestep: Any,
        sample: Tensor,
        *,
        eta: float = 0.0,
        generator: Generators = None,
        noise: Tensor | None = None,
    ) -> Step:
        """One step towards the clean sample.

        Args:
            eta: how much of DDPM's noise is added, from 0 to 1.
        """
        self.check_samples(model_output, sample)
        real("DDIMScheduler.step", eta=eta)
        t = self.check_timestep(timestep)
        if self.steps is None:
            raise ConfigError(
                "DDIMScheduler: scheduler.set_timesteps(20) comes before the first step"
            )
        before = t - self.config.num_train_timesteps // self.steps
        left = float(self.signal[t])
        signal, sigma = left**0.5, (1 - left) ** 0.5
        last = 1.0 if self.config.set_alpha_to_one else float(self.signal[0])
        left_before = float(self.signal[before]) if before >= 0 else last
        kind = self.config.prediction_type
        clean = original(kind, model_output, sample, signal, sigma)
        noisy = epsilon(kind, model_output, sample, signal, sigma)
        clean = bounded(clean, self.config)
        # eq. 12 and 16 of Song et al.
        variance = (1 - left_before) / (1 - left) * (1 - left / left_before)
        deviation = eta * variance**0.5
        towards = max(1 - left_before - deviation**2, 0.0) ** 0.5
        out = left_before**0.5 * clean + towards * noisy
        if eta:
            out = out + deviation * drawn(sample, generator, noise)
        return Step(out, clean)
