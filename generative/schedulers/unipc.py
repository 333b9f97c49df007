"""UniPC: a predictor and a corrector of any order, the corrector without further evaluations.

Source: Zhao et al. 2023, "UniPC: a unified predictor-corrector framework for fast sampling of
diffusion models".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ...core.errors import ConfigError
from ...core.tensor import Tensor
from ...hub.configuration import flags
from .base import Step
from .multistep import Multistep, MultistepScheduler, check_solver, shifted
from .predictions import Generators, epsilon, original, thresholded
from .spacing import RESPACED, Array, between, respaced, times_of, timesteps

_NEARLY_NOISE = 1e-6  # a flow's sigma of 1 leaves no signal to divide by


class UniPCMultistepScheduler(MultistepScheduler):
    """Good from 5 to 20 evaluations of the model."""

    @dataclass(frozen=True)
    class Config(Multistep):
        """See `multistep.Multistep`.

        Args:
            predict_x0: solve for the clean sample; False for the noise.
            solver_type: "bh2" or "bh1", for fewer than ten steps unguided.
            disable_corrector: steps after which nothing is corrected.
            sigma_min, sigma_max: ends of the Karras or exponential sigmas.
            shift_terminal: stretch the sigmas of a flow so that the last is this.
        """

        predict_x0: bool = True
        solver_type: str = "bh2"
        disable_corrector: tuple[int, ...] = ()
        solver_p: None = None
        sigma_min: float | None = None
        sigma_max: float | None = None
        shift_terminal: float | None = None

        def __post_init__(self) -> None:
            super().__post_init__()
            check_solver(self, solver_type=("bh1", "bh2"), solver_p=(None,))
            flags(type(self).__qualname__, predict_x0=self.predict_x0)
            if self.shift_terminal is not None and not self.use_flow_sigmas:
                raise ConfigError("UniPC: shift_terminal belongs to use_flow_sigmas=True")

    def _prepare(self) -> None:
        super()._prepare()
        self._forget()

    def _forget(self) -> None:
        self._before: Tensor | None = None  # the corrected sample of the last step
        self._order = 0  # of the last step

    @classmethod
    def from_config(cls, config: Any, **changes: Any) -> UniPCMultistepScheduler:
        """As `Scheduler.from_config`; solvers of similar schedulers become "bh2"."""
        given = dict(config) if not hasattr(config, "to_config") else config.to_config()
        given |= changes
        if given.get("solver_type") in ("midpoint", "heun", "logrho"):
            given["solver_type"] = "bh2"
        return super().from_config(given)

    def set_timesteps(
        self, count: int | None = None, *, sigmas: Any = None, mu: float | None = None
    ) -> None:
        """Choose the steps of a walk.

        Args:
            sigmas: of a flow, unshifted, falling, in place of a number of steps.
            mu: how much to shift the sigmas of a flow, for `use_dynamic_shifting`.
        """
        c = self.config
        given = None if sigmas is None else self._listed("sigmas", sigmas)
        other = any(getattr(c, name) for name in RESPACED) or not c.use_flow_sigmas
        if given is not None and (other or given[-1] <= 0 or given[0] > 1):
            raise ConfigError(
                "UniPCMultistepScheduler: sigmas are those of a flow (use_flow_sigmas=True), above "
                "0 and at most 1."
            )
        count = self._count(count, given)
        shift, train = self._shift(mu), c.num_train_timesteps
        times = timesteps(c.timestep_spacing, train, count, c.steps_offset, beyond=1).round()
        chosen = respaced(c, float(self.table[-1]), float(self.table[0]), count)
        if chosen is not None:
            sigmas, times = chosen, times_of(chosen, self.table)
            if c.use_karras_sigmas:
                times = times.round()
                if c.use_flow_sigmas:
                    sigmas = sigmas / (sigmas + 1)
                    times = sigmas * train
            least = sigmas[-1]
        elif c.use_flow_sigmas:
            sigmas = self._flow(count, shift, given)
            times, least = sigmas * train, sigmas[-1]
        else:
            sigmas, least = between(times, self.table), self.table[0]
        self._walk_along(sigmas, times, 0.0 if c.final_sigmas_type == "zero" else float(least))
        self._forget()

    def _flow(self, count: int, shift: float, given: Array | None) -> Array:
        train, terminal = self.config.num_train_timesteps, self.config.shift_terminal
        even = np.linspace(1, 1 / train, count + 1)[:-1] if given is None else given
        sigmas = shifted(np.asarray(even, np.float64), shift)
        if terminal:
            clean = 1 - sigmas
            sigmas = 1 - clean * (1 - terminal) / clean[-1]
        if abs(sigmas[0] - 1) < _NEARLY_NOISE:
            sigmas[0] -= _NEARLY_NOISE
        return sigmas

    def step(
        self,
        model_output: Tensor,
        timestep: Any,
        sample: Tensor,
        *,
        generator: Generators = None,
        noise: Tensor | None = None,
    ) -> Step:
        """Correct the last step with this output, then predict the next; no noise is drawn."""
        self.check_samples(model_output, sample)
        c, place = self.config, self._place(timestep)
        output, clean = self._converted(model_output, sample, place)
        if self._before is not None and place - 1 not in c.disable_corrector:
            sample = self._moved(self._before, place - 1, self._order, output)
        self._keep(output)
        order = min(c.solver_order, len(self._outputs))
        if c.lower_order_final:
            order = min(order, len(self.timesteps) - place)
        self._order, self._before = order, sample
        self.index = place + 1
        return Step(self._moved(sample, place, order), clean)

    def _converted(self, output: Tensor, sample: Tensor, place: int) -> tuple[Tensor, Tensor]:
        """The clean sample or the noise, as is solved for; and the clean sample."""
        kind = self.config.prediction_type
        signal, sigma = self._angles(place)
        clean = original(kind, output, sample, signal, sigma)
        if not self.config.predict_x0:
            return epsilon(kind, output, sample, signal, sigma), clean
        if self.config.thresholding:
            ratio, most = self.config.dynamic_thresholding_ratio, self.config.sample_max_value
            clean = thresholded(clean, ratio, most)
        return clean, clean

    def _moved(
        self, sample: Tensor, place: int, order: int, output: Tensor | None = None
    ) -> Tensor:
        """The sample of `timesteps[place]` one step on; corrected, with the output from there.

        Outputs of earlier steps give derivatives; their weights solve a small linear system.
        """
        outputs, x0 = self._outputs, self.config.predict_x0
        (signal_s, sigma_s), (signal_t, sigma_t) = self._angles(place), self._angles(place + 1)
        here = self._log_ratio(place)
        h = self._log_ratio(place + 1) - here
        z = -h if x0 else h
        ratio, scale = (sigma_t / sigma_s, signal_t) if x0 else (signal_t / signal_s, sigma_t)
        newest = outputs[-1]
        grown = float(np.expm1(z))
        out = ratio * sample - scale * grown * newest
        gaps = [(self._log_ratio(place - i) - here) / h for i in range(1, order)]
        pieces = [(outputs[-1 - i] - newest) / gap for i, gap in enumerate(gaps, 1)]
        if output is not None:
            pieces.append(output - newest)
            gaps.append(1.0)
        size = z if self.config.solver_type == "bh1" else grown
        for weight, piece in zip(_weights(gaps, z, size), pieces, strict=True):
            out = out - scale * size * weight * piece
        return out


def _weights(gaps: list[float], z: float, size: float) -> list[float]:
    """How much each derivative counts: eq. 11 of Zhao et al.; one counts a half."""
    if len(gaps) < 2:
        return [0.5] * len(gaps)
    wanted, factorial = [], 1
    phi = np.expm1(z) / z - 1
    for k in range(1, len(gaps) + 1):
        wanted.append(phi * factorial / size)
        factorial *= k + 1
        phi = phi / z - 1 / factorial
    powers = np.array([[gap**k for gap in gaps] for k in range(len(gaps))])
    return [float(w) for w in np.linalg.solve(powers, np.array(wanted))]
