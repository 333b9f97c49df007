"""What the multistep solvers DPM++ and UniPC share: their options and their sigmas."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ...core.errors import ConfigError
from ...core.tensor import Tensor
from ...hub.configuration import expect, flags, natural, real
from .options import Respaced, check_thresholding
from .sigmas import SigmaScheduler, angles, log_ratio
from .spacing import Array


@dataclass(frozen=True)
class Multistep(Respaced):
    """Options of multistep solvers.

    Args:
        solver_order: from 1 to 3; 2 for guided sampling.
        lower_order_final: lower orders in the last steps, where there are fewer than 15.
        thresholding, dynamic_thresholding_ratio, sample_max_value: see `options.Bounded`.
        use_flow_sigmas, flow_shift: of models of flow matching, which predict "flow_prediction".
        use_dynamic_shifting: `flow_shift` comes from `mu` of `set_timesteps`.
        final_sigmas_type: "zero", or "sigma_min".
    """

    solver_order: int = 2
    lower_order_final: bool = True
    thresholding: bool = False
    dynamic_thresholding_ratio: float = 0.995
    sample_max_value: float = 1.0
    use_flow_sigmas: bool | None = False
    flow_shift: float = 1.0
    use_dynamic_shifting: bool = False
    time_shift_type: str = "exponential"
    final_sigmas_type: str = "zero"

    predictions: ClassVar[tuple[str, ...]] = (
        "epsilon",
        "sample",
        "v_prediction",
        "flow_prediction",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        what = type(self).__qualname__
        natural(what, solver_order=self.solver_order)
        choices: dict[str, tuple[Any, ...]] = {
            "solver_order": (1, 2, 3),
            "final_sigmas_type": ("zero", "sigma_min"),
            "time_shift_type": ("exponential",),
        }
        expect({key: getattr(self, key) for key in choices}, what, **choices)
        names = ("lower_order_final", "use_dynamic_shifting")
        flags(what, **{key: getattr(self, key) for key in names})
        real(what, 1e-3, 1e3, flow_shift=self.flow_shift)
        check_thresholding(self)


class MultistepScheduler(SigmaScheduler):
    """Steps in half the logarithm of signal to noise, with the outputs of earlier steps."""

    def _prepare(self) -> None:
        super()._prepare()
        self._outputs: list[Tensor] = []  # of earlier steps, the newest last

    @property
    def init_noise_sigma(self) -> float:
        return 1.0

    def scale_model_input(self, sample: Tensor, timestep: Any = None) -> Tensor:
        """The sample itself: its variance is one all the way."""
        return sample

    def scales(self, timestep: Any) -> tuple[float, float]:
        """Factors of the signal and of the noise at a timestep of the walk."""
        return self._angles(self.index_of(timestep))

    def _angles(self, place: int) -> tuple[float, float]:
        return angles(float(self.sigmas[place]), bool(self.config.use_flow_sigmas))

    def _log_ratio(self, place: int) -> float:
        return log_ratio(*self._angles(place))

    def _shift(self, mu: float | None) -> float:
        """The shift of flow sigmas."""
        if (mu is None) is self.config.use_dynamic_shifting:
            raise ConfigError(
                f"{type(self).__name__}: mu belongs to use_dynamic_shifting=True, where it must be "
                f"given; got mu={mu}"
            )
        return float(self.config.flow_shift) if mu is None else math.exp(mu)

    def _walk_along(self, sigmas: Array, times: Array, last: float) -> None:
        """Take these for the walk, and forget the outputs of the last."""
        self.sigmas = np.append(sigmas, last).astype(np.float32)
        # Cut off as diffusers does, although some are whole but for their logarithms' rounding.
        self.timesteps = np.floor(times).astype(np.int64)
        self._outputs = []

    def _keep(self, output: Tensor) -> None:
        """Remember an output, as many as the solver's order."""
        self._outputs = [*self._outputs, output][-self.config.solver_order :]


def shifted(sigmas: Array, shift: float) -> Array:
    """Sigmas of a flow, moved towards noise. Source: Esser et al. 2024, eq. 23."""
    return np.asarray(shift * sigmas / (1 + (shift - 1) * sigmas))


def check_solver(config: Any, **choices: tuple[Any, ...]) -> None:
    """Check the options by which solvers differ."""
    what = type(config).__qualname__
    expect({key: getattr(config, key) for key in choices}, what, **choices)
