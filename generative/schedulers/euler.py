"""Euler's method along sigmas, with optional noise in between.

Source: Karras et al. 2022, "Elucidating the design space of diffusion-based generative models",
algorithm 2 without its second-order correction.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...core.errors import ConfigError
from ...core.tensor import Tensor
from ...hub.configuration import expect
from .base import Step
from .options import Respaced
from .predictions import Generators, drawn, original_of_sigma
from .sigmas import SigmaScheduler
from .spacing import Array, between, exponential, respaced, times_of
from .spacing import timesteps as evenly


class EulerDiscreteScheduler(SigmaScheduler):
    """One evaluation of the model a step."""

    @dataclass(frozen=True)
    class Config(Respaced):
        """See `options.Respaced`.

        Args:
            sigma_min, sigma_max: ends of the Karras or exponential sigmas.
            interpolation_type: "linear", or "log_linear" between the ends.
            timestep_type: "continuous" tells models that predict v a fourth of log sigma.
            final_sigmas_type: "zero", or "sigma_min", the training's least.
        """

        sigma_min: float | None = None
        sigma_max: float | None = None
        interpolation_type: str = "linear"
        timestep_type: str = "discrete"
        final_sigmas_type: str = "zero"

        def __post_init__(self) -> None:
            super().__post_init__()
            expect(
                vars(self),
                type(self).__qualname__,
                interpolation_type=("linear", "log_linear"),
                timestep_type=("discrete", "continuous"),
                final_sigmas_type=("zero", "sigma_min"),
            )

    def set_timesteps(
        self, count: int | None = None, *, timesteps: Any = None, sigmas: Any = None
    ) -> None:
        """Choose the steps of a walk.

        Args:
            timesteps: one by one, falling, in place of a number of steps.
            sigmas: one by one, falling; the last is that of the end, 0 as a rule.

        Raises:
            ConfigError: several of the three, or lists that make no sense.
        """
        c = self.config
        if sigmas is not None:
            if timesteps is not None:
                raise ConfigError("EulerDiscreteScheduler: timesteps and sigmas: give one of them.")
            self._along(count, self._listed("sigmas", sigmas, least=2))
            return
        times = None if timesteps is None else self._listed("timesteps", timesteps)
        if times is not None and self._continuous:
            raise ConfigError(
                "EulerDiscreteScheduler: models that are told a fourth of log sigma have no "
                "timesteps to choose; give sigmas."
            )
        count = self._count(count, times)
        if times is None:
            times = evenly(c.timestep_spacing, c.num_train_timesteps, count, c.steps_offset)
            times = times.astype(np.float32)
        sigmas = between(times, self.table)
        if c.interpolation_type == "log_linear":
            sigmas = exponential(float(self.table[-1]), float(self.table[0]), count + 1)
        chosen = respaced(c, float(sigmas[0]), float(sigmas[-1]), count)
        if chosen is not None:
            sigmas, times = chosen, times_of(chosen, self.table)
        last = 0.0 if c.final_sigmas_type == "zero" else self.table[0]
        self.sigmas = np.append(sigmas, last).astype(np.float32)
        self._tell(times)

    @property
    def _continuous(self) -> bool:
        """Whether the model is told a fourth of log sigma in place of timesteps."""
        c = self.config
        return bool(c.timestep_type == "continuous" and c.prediction_type == "v_prediction")

    def _along(self, count: Any, sigmas: Array) -> None:
        """Walk along these sigmas."""
        if not sigmas[-2] > 0:
            raise ConfigError("EulerDiscreteScheduler: only the last of the sigmas may be 0.")
        self._count(count, sigmas, len(sigmas) - 1)
        self.sigmas = sigmas
        self._tell(times_of(sigmas[:-1], self.table))

    def _tell(self, times: Array) -> None:
        """Take these timesteps, or what stands for them."""
        if self._continuous:
            times = 0.25 * np.log(self.sigmas[:-1])
        self.timesteps = times.astype(np.float32)

    def step(
        self,
        model_output: Tensor,
        timestep: Any,
        sample: Tensor,
        *,
        s_churn: float = 0.0,
        s_tmin: float = 0.0,
        s_tmax: float = math.inf,
        s_noise: float = 1.0,
        generator: Generators = None,
        noise: Tensor | None = None,
    ) -> Step:
        """One step towards the clean sample.

        Args:
            s_churn, s_tmin, s_tmax, s_noise: noise added before a step whose sigma lies between
                `s_tmin` and `s_tmax`.
        """
        self.check_samples(model_output, sample)
        place = self._place(timestep)
        sigma, following = float(self.sigmas[place]), float(self.sigmas[place + 1])
        churned = sigma
        if s_churn and s_tmin <= sigma <= s_tmax:
            churned = sigma * (1 + min(s_churn / (len(self.sigmas) - 1), 2**0.5 - 1))
            more = s_noise * (churned**2 - sigma**2) ** 0.5
            sample = sample + more * drawn(sample, generator, noise)
        kind = self.config.prediction_type
        clean = original_of_sigma(
            kind, model_output, sample, sigma if kind == "v_prediction" else churned
        )
        slope = (sample - clean) / churned
        self.index = place + 1
        return Step(sample + (following - churned) * slope, clean)
