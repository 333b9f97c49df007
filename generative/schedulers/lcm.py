"""Latent consistency models: each step leads to a clean sample, which is made noisy again.

Source: Luo et al. 2023, "Latent consistency models".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ...core.errors import ConfigError
from ...core.tensor import Tensor
from ...hub.configuration import flags, positive, real
from .base import Scheduler, Step
from .options import Bounded
from .predictions import Generators, bounded, drawn, original

_SIGMA_DATA = 0.5


class LCMScheduler(Scheduler):
    """One to eight steps, for models distilled to be consistent."""

    stochastic = True

    @dataclass(frozen=True)
    class Config(Bounded):
        """See `options.Bounded`.

        Args:
            original_inference_steps: of the walk that the model was distilled from; steps are
                taken of these.
            timestep_scaling: how fast the model's part grows with the timestep.
            set_alpha_to_one: the step beyond timestep 0 leads to the clean sample.
        """

        beta_start: float = 0.00085
        beta_end: float = 0.012
        beta_schedule: str = "scaled_linear"
        clip_sample: bool = False
        original_inference_steps: int = 50
        timestep_scaling: float = 10.0
        set_alpha_to_one: bool = True

        def __post_init__(self) -> None:
            super().__post_init__()
            what = type(self).__qualname__
            positive(what, original_inference_steps=self.original_inference_steps)
            real(what, 0.0, 1e6, timestep_scaling=self.timestep_scaling)
            flags(what, set_alpha_to_one=self.set_alpha_to_one)

    def set_timesteps(
        self,
        count: int | None = None,
        *,
        timesteps: Any = None,
        original_inference_steps: int | None = None,
        strength: float = 1.0,
    ) -> None:
        """Choose the steps of a walk.

        Args:
            timesteps: one by one, falling, in place of a number of steps.
            original_inference_steps: in place of the configuration's.
            strength: the part of the walk to take, where it begins with a picture.
        """
        listed = None if timesteps is None else self._listed("timesteps", timesteps)
        count = self._count(count, listed)
        if listed is not None:
            self.timesteps = listed.astype(np.int64)[count - min(int(count * strength), count) :]
            return
        steps = original_inference_steps or self.config.original_inference_steps
        taken = int(steps * strength)
        if not count <= taken <= self.config.num_train_timesteps:
            raise ConfigError(
                f"LCMScheduler: {count} steps cannot be chosen of {taken} "
                f"(original_inference_steps={steps}, strength={strength:g}), themselves chosen of "
                f"{self.config.num_train_timesteps}.",
                got=count,
                expected=taken,
            )
        every = self.config.num_train_timesteps // steps
        original_times = (np.arange(1, taken + 1) * every - 1)[::-1]
        places = np.floor(np.linspace(0, taken, count, endpoint=False)).astype(np.int64)
        self.timesteps = original_times[places].astype(np.int64)

    def step(
        self,
        model_output: Tensor,
        timestep: Any,
        sample: Tensor,
        *,
        generator: Generators = None,
        noise: Tensor | None = None,
    ) -> Step:
        """One step; `pred_original_sample` is what it leads to before noise is added again."""
        self.check_samples(model_output, sample)
        place = self._place(timestep)
        t = self.check_timestep(timestep)
        signal, sigma = self.scales(t)
        clean = original(self.config.prediction_type, model_output, sample, signal, sigma)
        clean = bounded(clean, self.config)
        # eq. 9 of Song et al. 2023, "Consistency models": at t = 0 the sample is kept
        scaled = t * self.config.timestep_scaling
        scale = scaled**2 + _SIGMA_DATA**2
        denoised = scaled / scale**0.5 * clean + _SIGMA_DATA**2 / scale * sample
        self.index = place + 1
        if self.index == len(self.timesteps):
            return Step(denoised, denoised)
        signal, sigma = self.scales(self.timesteps[self.index])
        return Step(signal * denoised + sigma * drawn(sample, generator, noise), denoised)
