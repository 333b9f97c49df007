"""Euler's method for flow matching: straight paths from noise to data.

Source: Lipman et al. 2023, "Flow matching for generative modeling"; the shift of Esser et al. 2024,
"Scaling rectified flow transformers".
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...core.errors import ConfigError
from ...core.tensor import Tensor
from ...hub.configuration import expect, flags, positive, real
from .base import Scheduler, Step
from .predictions import Generators, drawn
from .spacing import Array, check_respacing, respaced


class FlowMatchEulerDiscreteScheduler(Scheduler):
    """The model predicts noise minus data; sample = (1 - sigma) data + sigma noise."""

    @dataclass(frozen=True)
    class Config:
        """The schedule of sigmas.

        Args:
            shift: above 1, more steps are taken where there is much noise, for large pictures.
            use_dynamic_shifting: by `mu` of `set_timesteps` instead, which pipelines derive from
                the size of a picture with the four numbers that follow.
            time_shift_type: "exponential" or "linear" in mu.
            shift_terminal: stretch the sigmas so that the last is this.
            invert_sigmas: count from data to noise.
            stochastic_sampling: draw new noise in every step.
            use_karras_sigmas, use_exponential_sigmas, use_beta_sigmas: see `spacing.respaced`.
        """

        num_train_timesteps: int = 1000
        shift: float = 1.0
        use_dynamic_shifting: bool = False
        base_shift: float | None = 0.5
        max_shift: float | None = 1.15
        base_image_seq_len: int | None = 256
        max_image_seq_len: int | None = 4096
        time_shift_type: str = "exponential"
        shift_terminal: float | None = None
        invert_sigmas: bool = False
        stochastic_sampling: bool = False
        use_karras_sigmas: bool | None = False
        use_exponential_sigmas: bool | None = False
        use_beta_sigmas: bool | None = False

        def __post_init__(self) -> None:
            what = type(self).__qualname__
            positive(what, num_train_timesteps=self.num_train_timesteps)
            real(what, 1e-3, 1e3, shift=self.shift)
            names = ("use_dynamic_shifting", "invert_sigmas", "stochastic_sampling")
            flags(what, **{key: getattr(self, key) for key in names})
            kinds = ("exponential", "linear")
            expect({"time_shift_type": self.time_shift_type}, what, time_shift_type=kinds)
            check_respacing(self)

    def _prepare(self) -> None:
        c = self.config
        self.stochastic = c.stochastic_sampling
        train = c.num_train_timesteps
        sigmas = np.arange(train, 0, -1, dtype=np.float32) / np.float32(train)
        if not c.use_dynamic_shifting:
            sigmas = (c.shift * sigmas / (1 + (c.shift - 1) * sigmas)).astype(np.float32)
        self._ends = float(sigmas[0]), float(sigmas[-1])
        self.sigmas: Array = sigmas
        self.timesteps = sigmas * np.float32(train)

    def set_timesteps(
        self,
        count: int | None = None,
        *,
        sigmas: Any = None,
        timesteps: Any = None,
        mu: float | None = None,
    ) -> None:
        """Choose the steps of a walk.

        Args:
            sigmas: the unshifted sigmas, in place of a number of steps.
            timesteps: what the model is told; the sigmas follow from them unless they are given.
            mu: how much to shift, for `use_dynamic_shifting`.
        """
        c = self.config
        told = None if timesteps is None else self._listed("timesteps", timesteps, falling=False)
        if told is not None:
            if sigmas is None:
                sigmas = told / np.float32(c.num_train_timesteps)
            if len(told) != np.size(sigmas):
                raise ConfigError(f"{len(told)} timesteps and {np.size(sigmas)} sigmas")
        if sigmas is not None:
            given = np.array(sigmas, np.float32)
            if given.ndim != 1 or not ((given > 0) & (given <= 1)).all():
                raise ConfigError(
                    "FlowMatchEulerDiscreteScheduler: sigmas lie above 0, at most at 1"
                )
            if count not in (None, len(given)):
                raise ConfigError(f"{count} steps and {len(given)} sigmas: give one of them")
            count = len(given)
        if (mu is None) is c.use_dynamic_shifting:
            raise ConfigError(
                "FlowMatchEulerDiscreteScheduler: mu belongs to use_dynamic_shifting=True, and "
                f"there it must be given; got mu={mu}"
            )
        count = self._begin_walk(count)
        train = c.num_train_timesteps
        if sigmas is None:
            high, low = (end * train for end in self._ends)
            given = np.linspace(high, low, count) / train
        given = self._shifted(given, mu)
        if c.shift_terminal:
            clean = 1 - given
            given = 1 - clean * (1 - c.shift_terminal) / clean[-1]
        chosen = respaced(c, float(given[0]), float(given[-1]), count)
        given = (given if chosen is None else chosen).astype(np.float32)
        if c.invert_sigmas:
            given = np.float32(1) - given
        self.timesteps = given * np.float32(train)
        if told is not None and not c.invert_sigmas:
            self.timesteps = told
        self.sigmas = np.append(given, np.float32(1 if c.invert_sigmas else 0))

    def _shifted(self, sigmas: Array, mu: float | None) -> Array:
        c = self.config
        if mu is None:
            return np.asarray(c.shift * sigmas / (1 + (c.shift - 1) * sigmas))
        factor = math.exp(mu) if c.time_shift_type == "exponential" else mu
        return np.asarray(factor / (factor + (1 / sigmas - 1)))

    def scales(self, timestep: Any) -> tuple[float, float]:
        """Factors of the data and of the noise at a timestep of the walk."""
        sigma = float(self.sigmas[self.index_of(timestep)])
        return 1 - sigma, sigma

    def step(
        self,
        model_output: Tensor,
        timestep: Any,
        sample: Tensor,
        *,
        generator: Generators = None,
        noise: Tensor | None = None,
    ) -> Step:
        """One step along the model's direction."""
        self.check_samples(model_output, sample)
        place = self._place(timestep)
        sigma, following = float(self.sigmas[place]), float(self.sigmas[place + 1])
        clean = sample - sigma * model_output
        self.index = place + 1
        if self.config.stochastic_sampling:
            out = (1 - following) * clean + following * drawn(sample, generator, noise)
        else:
            out = sample + (following - sigma) * model_output
        return Step(out, clean)
