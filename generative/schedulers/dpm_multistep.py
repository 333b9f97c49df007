"""DPM-Solver and DPM-Solver++ with the outputs of earlier steps, as an ODE or an SDE.

Source: Lu et al. 2022, "DPM-Solver++: fast solver for guided sampling of diffusion probabilistic
models". The step from s to t with h = lambda_t - lambda_s, lambda being half the logarithm of
signal to noise, in one form for all four kinds:

    x_t = ratio * x_s - scale * (expm1(z) D0 + (expm1(z) / z - 1) D1 + ...) + deviation * noise

where D0 is the model's output, D1 and D2 its derivatives in units of h, and z, ratio, scale and
deviation stand in `_coefficients`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from ...core.errors import ConfigError
from ...core.tensor import Tensor
from .base import Step
from .multistep import Multistep, MultistepScheduler, check_solver, shifted
from .predictions import Generators, drawn, epsilon, original, thresholded
from .spacing import between, respaced, times_of
from .spacing import timesteps as evenly

_FEW = 15  # steps, below which the last ones are of lower order


class DPMSolverMultistepScheduler(MultistepScheduler):
    """Second order with about 20 evaluations of the model; "sde-" kinds draw noise."""

    @dataclass(frozen=True)
    class Config(Multistep):
        """See `multistep.Multistep`.

        Args:
            algorithm_type: "dpmsolver++" (of the clean sample) or "dpmsolver" (of the noise), with
                "sde-" before it to draw noise in every step.
            solver_type: "midpoint" or "heun", of the second order.
            euler_at_final: a first-order step at the end.
            use_lu_lambdas: steps even in lambda (Lu et al. 2022).
            lambda_min_clipped: leave out timesteps of less lambda, for cosine schedules.
            variance_type: "learned" or "learned_range", where the model's output has channels for
                the variance: they are not used.
        """

        algorithm_type: str = "dpmsolver++"
        solver_type: str = "midpoint"
        euler_at_final: bool = False
        use_lu_lambdas: bool | None = False
        lambda_min_clipped: float = -math.inf
        variance_type: str | None = None

        def __post_init__(self) -> None:
            super().__post_init__()
            check_solver(
                self,
                algorithm_type=("dpmsolver++", "dpmsolver", "sde-dpmsolver++", "sde-dpmsolver"),
                solver_type=("midpoint", "heun"),
                variance_type=(None, "learned", "learned_range"),
            )
            if type(self.lambda_min_clipped) not in (int, float):
                raise ConfigError(f"lambda_min_clipped={self.lambda_min_clipped!r} is no number")
            if self.algorithm_type.startswith("sde") and self.solver_order == 3:
                raise ConfigError("DPM-Solver: the sde kinds are of order 1 or 2, got 3", got=3)
            if not self.algorithm_type.endswith("++") and self.final_sigmas_type == "zero":
                raise ConfigError(
                    f"DPM-Solver: algorithm_type={self.algorithm_type!r} divides by the last "
                    "sigma: it needs final_sigmas_type='sigma_min'."
                )

    def _prepare(self) -> None:
        super()._prepare()
        self.stochastic = self.config.algorithm_type.startswith("sde")

    @classmethod
    def from_config(cls, config: Any, **changes: Any) -> DPMSolverMultistepScheduler:
        """As `Scheduler.from_config`; solvers of similar schedulers become the nearest."""
        given = dict(config) if not hasattr(config, "to_config") else config.to_config()
        given |= changes
        if given.get("solver_type") in ("bh1", "bh2", "logrho"):
            given["solver_type"] = "midpoint"
        if str(given.get("variance_type")).startswith("fixed"):  # of DDPM's noise
            given["variance_type"] = None
        if given.get("algorithm_type") == "deis":
            given["algorithm_type"] = "dpmsolver++"
        return super().from_config(given)

    def set_timesteps(
        self, count: int | None = None, *, timesteps: Any = None, mu: float | None = None
    ) -> None:
        """Choose the steps of a walk.

        Args:
            timesteps: one by one, falling, in place of a number of steps.
            mu: how much to shift the sigmas of a flow, for `use_dynamic_shifting`.
        """
        c = self.config
        times = None if timesteps is None else np.floor(self._listed("timesteps", timesteps))
        if times is not None and (c.use_lu_lambdas or c.use_flow_sigmas):
            raise ConfigError(
                "DPMSolverMultistepScheduler: use_lu_lambdas and use_flow_sigmas choose the steps, "
                "so no timesteps can be given."
            )
        count = self._count(count, times)
        shift, train = self._shift(mu), c.num_train_timesteps
        growing = -np.log(self.table.astype(np.float64))[::-1]
        last = train - int(np.searchsorted(growing, c.lambda_min_clipped))
        if times is None:
            spacing = c.timestep_spacing
            times = evenly(spacing, train, count, c.steps_offset, beyond=1, last=last).round()
        high, low = float(self.table[-1]), float(self.table[0])
        chosen = respaced(c, high, low, count)
        if chosen is None and c.use_lu_lambdas:
            chosen = np.exp(np.linspace(math.log(high), math.log(low), count))
        if chosen is not None:
            sigmas, times = chosen, times_of(chosen, self.table)
            exact = c.use_exponential_sigmas or c.use_beta_sigmas
            if not exact and c.beta_schedule != "squaredcos_cap_v2":
                times = times.round()
        elif c.use_flow_sigmas:
            even = 1 - np.linspace(1, 1 / train, count + 1)
            sigmas = shifted(even, shift)[::-1][:-1]
            times = sigmas * train
        else:
            sigmas = between(times, self.table)
        self._walk_along(sigmas, times, 0.0 if c.final_sigmas_type == "zero" else low)
        self._taken = 0

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
        c = self.config
        if c.variance_type is not None:
            model_output = model_output[:, : sample.shape[1]]
        self.check_samples(model_output, sample)
        place = self._place(timestep)
        output, clean = self._converted(model_output, sample, place)
        self._keep(output)
        left = len(self.timesteps) - place
        few = c.lower_order_final and len(self.timesteps) < _FEW
        plain = c.euler_at_final or few or c.final_sigmas_type == "zero"
        order = min(c.solver_order, self._taken + 1, 2 if left == 2 and few else 3)
        order = 1 if left == 1 and plain else order
        out = self._moved(sample, place, order)
        if self.stochastic:
            out = out + self._deviation(place) * drawn(sample, generator, noise)
        self._taken += 1
        self.index = place + 1
        return Step(out, clean)

    def _converted(self, output: Tensor, sample: Tensor, place: int) -> tuple[Tensor, Tensor]:
        """The clean sample or the noise, as the algorithm has it; and the clean sample."""
        kind = self.config.prediction_type
        signal, sigma = self._angles(place)
        clean = original(kind, output, sample, signal, sigma)
        if self.config.thresholding:
            ratio, most = self.config.dynamic_thresholding_ratio, self.config.sample_max_value
            clean = thresholded(clean, ratio, most)
            kind, output = "sample", clean
        if self.config.algorithm_type.endswith("++"):
            return clean, clean
        return epsilon(kind, output, sample, signal, sigma), clean

    def _coefficients(self, place: int) -> tuple[float, float, float]:
        """Factor of the sample, scale of the outputs, and z."""
        kind = self.config.algorithm_type
        (signal_s, sigma_s), (signal_t, sigma_t) = self._angles(place), self._angles(place + 1)
        h = self._log_ratio(place + 1) - self._log_ratio(place)
        if kind == "dpmsolver++":
            return sigma_t / sigma_s, signal_t, -h
        if kind == "sde-dpmsolver++":
            return sigma_t / sigma_s * math.exp(-h), signal_t, -2 * h
        return signal_t / signal_s, sigma_t * (2 if kind == "sde-dpmsolver" else 1), h

    def _deviation(self, place: int) -> float:
        """Standard deviation of the noise of a step."""
        sigma_t = self._angles(place + 1)[1]
        h = self._log_ratio(place + 1) - self._log_ratio(place)
        if self.config.algorithm_type == "sde-dpmsolver++":
            return sigma_t * math.sqrt(-math.expm1(-2 * h))
        return sigma_t * math.sqrt(math.expm1(2 * h))

    def _moved(self, sample: Tensor, place: int, order: int) -> Tensor:
        """The deterministic part of a step of this order."""
        ratio, scale, z = self._coefficients(place)
        newest = self._outputs[-1]
        out = ratio * sample - scale * math.expm1(z) * newest
        if order == 1:
            return out
        times = [self._log_ratio(place + 1 - i) for i in range(order + 1)]
        gaps = [a - b for a, b in pairwise(times)]
        first = (newest - self._outputs[-2]) * (gaps[0] / gaps[1])
        if order == 2:
            midpoint = self.config.solver_type == "midpoint"
            factor = 0.5 * math.expm1(z) if midpoint else math.expm1(z) / z - 1
            return out - scale * factor * first
        earlier = (self._outputs[-2] - self._outputs[-3]) * (gaps[0] / gaps[2])
        near, far = gaps[1] / gaps[0], gaps[2] / gaps[0]
        bend = (first - earlier) / (near + far)
        first = first + near * bend
        out = out - scale * (math.expm1(z) / z - 1) * first
        return out - scale * ((math.expm1(z) - z) / z**2 - 0.5) * bend
