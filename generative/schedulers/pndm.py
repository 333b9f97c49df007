"""PNDM: linear multistep along DDIM's path, begun with Runge-Kutta steps or without them.

Source: Liu et al. 2022, "Pseudo numerical methods for diffusion models on manifolds".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ...core.errors import ConfigError
from ...core.tensor import Tensor
from ...hub.configuration import flags
from .base import Scheduler, Step
from .options import Spaced
from .predictions import Generators, epsilon, original
from .spacing import timesteps

# Weights of the newest and of earlier outputs, by how many there are.
_ADAMS_BASHFORTH = {
    1: (1.0,),
    2: (3 / 2, -1 / 2),
    3: (23 / 12, -16 / 12, 5 / 12),
    4: (55 / 24, -59 / 24, 37 / 24, -9 / 24),
}
_RUNGE_KUTTA = (1 / 6, 1 / 3, 1 / 3, 1 / 6)


class PNDMScheduler(Scheduler):
    """Fourth-order multistep; without Runge-Kutta steps the second timestep stands twice."""

    @dataclass(frozen=True)
    class Config(Spaced):
        """See `options.Spaced`.

        Args:
            skip_prk_steps: begin without Runge-Kutta steps, as Stable Diffusion does.
            set_alpha_to_one: the last step leads to the clean sample; False to that of timestep 0.
        """

        skip_prk_steps: bool = False
        set_alpha_to_one: bool = False

        predictions: ClassVar[tuple[str, ...]] = ("epsilon", "v_prediction")

        def __post_init__(self) -> None:
            super().__post_init__()
            what = type(self).__qualname__
            flags(what, skip_prk_steps=self.skip_prk_steps, set_alpha_to_one=self.set_alpha_to_one)

    def set_timesteps(self, count: int) -> None:
        """Choose the steps of a walk."""
        c, count = self.config, self._begin_walk(count)
        train = c.num_train_timesteps
        times = timesteps(c.timestep_spacing, train, count, c.steps_offset).round().astype(np.int64)
        self._outputs: list[Tensor] = []
        self._kutta: list[Tensor] = []
        self._sample: Tensor | None = None
        self._counter = 0
        if c.skip_prk_steps:
            self._kutta_times = times[:0]
            self.timesteps = np.concatenate([times[:1], times[1:2], times[1:]])
            return
        if count < 4:
            raise ConfigError(
                f"PNDMScheduler: {count} steps are fewer than the 4 it begins with: take more, "
                "or skip_prk_steps=True.",
                got=count,
                expected=4,
            )
        half = train // count // 2
        # Four evaluations for each of three steps: at its start, twice between, at its end.
        ends = np.stack([times[:4] + half, times[:4]], axis=1).reshape(-1)[1:]
        self._kutta_times = np.repeat(ends, 2)[1:-1]
        self.timesteps = np.concatenate([self._kutta_times, times[3:]])

    def step(
        self,
        model_output: Tensor,
        timestep: Any,
        sample: Tensor,
        *,
        generator: Generators = None,
        noise: Tensor | None = None,
    ) -> Step:
        """One evaluation's part of a step; no noise is drawn."""
        self.check_samples(model_output, sample)
        if self.steps is None or self._counter >= len(self.timesteps):
            self.index = None if self.steps is None else len(self.timesteps)
            self._place(timestep)  # raises
        t = self.check_timestep(timestep)
        if self._counter < len(self._kutta_times):
            out = self._runge_kutta(model_output, t, sample)
        else:
            out = self._multistep(model_output, t, sample)
        self._counter += 1
        return out

    def _runge_kutta(self, output: Tensor, t: int, sample: Tensor) -> Step:
        stage = self._counter % 4
        every = self.config.num_train_timesteps // (self.steps or 1)
        before = t - (0 if self._counter % 2 else every // 2)
        if stage == 0:
            self._outputs.append(output)
            self._sample, self._kutta = sample, []
        self._kutta.append(output * _RUNGE_KUTTA[stage])
        if stage == 3:
            output = self._kutta[0] + self._kutta[1] + self._kutta[2] + self._kutta[3]
        start = int(self._kutta_times[self._counter // 4 * 4])
        assert self._sample is not None
        return self._moved(self._sample, start, before, output)

    def _multistep(self, output: Tensor, t: int, sample: Tensor) -> Step:
        every = self.config.num_train_timesteps // (self.steps or 1)
        if self._counter == 1 and self._sample is not None:  # the first step again, centred
            output = (output + self._outputs[-1]) / 2
            sample, self._sample = self._sample, None
            return self._moved(sample, t + every, t, output)
        self._outputs = [*self._outputs[-3:], output]
        if self._counter == 0:
            self._sample = sample
        weights = _ADAMS_BASHFORTH[len(self._outputs)]
        total = weights[0] * output
        for weight, earlier in zip(weights[1:], self._outputs[-2::-1], strict=True):
            total = total + weight * earlier
        return self._moved(sample, t, t - every, total)

    def _moved(self, sample: Tensor, t: int, before: int, output: Tensor) -> Step:
        """The sample of timestep `t` at `before`: eq. 11 of Liu et al."""
        left = float(self.signal[t])
        last = 1.0 if self.config.set_alpha_to_one else float(self.signal[0])
        to = float(self.signal[before]) if before >= 0 else last
        signal, sigma = left**0.5, (1 - left) ** 0.5
        kind = self.config.prediction_type
        noisy = epsilon(kind, output, sample, signal, sigma)
        clean = original(kind, output, sample, signal, sigma)
        scale = left * (1 - to) ** 0.5 + (left * (1 - left) * to) ** 0.5
        return Step((to / left) ** 0.5 * sample - (to - left) / scale * noisy, clean)
