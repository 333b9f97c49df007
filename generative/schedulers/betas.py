"""How much noise each training step adds: the tables that most schedulers start from.

They are computed in float32, operation by operation as publishers compute them, since a model was
trained with the rounded ones.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...core.errors import ConfigError
from ...hub.configuration import expect, positive, real

Array = np.ndarray[Any, Any]

#: Signal left at time t in [0, 1], for the schedules that are given so.
_ALPHA_BAR: dict[str, Callable[[float], float]] = {
    "squaredcos_cap_v2": lambda t: math.cos((t + 0.008) / 1.008 * math.pi / 2) ** 2,
    "exp": lambda t: math.exp(-12.0 * t),
}
SCHEDULES = ("linear", "scaled_linear", "sigmoid", *_ALPHA_BAR)
_LARGEST_BETA = 0.999
#: Signal power at the last step where a schedule would leave none: sigma must stay finite.
LEAST_SIGNAL = 2.0**-24


@dataclass(frozen=True)
class Betas:
    """The noise of training, as published configurations say it.

    Args:
        num_train_timesteps: T, how many steps there are.
        beta_start, beta_end: variance added by the first and the last step.
        beta_schedule: how it grows between them, one of `SCHEDULES`; "scaled_linear" grows linearly
            in its root, "squaredcos_cap_v2" is the cosine of Nichol and Dhariwal 2021.
        trained_betas: all of them, in place of these.
        rescale_betas_zero_snr: shift the table so that nothing of the signal is left at the end
            (Lin et al. 2023, "Common diffusion noise schedules and sample steps are flawed").
    """

    num_train_timesteps: int = 1000
    beta_start: float = 1e-4
    beta_end: float = 0.02
    beta_schedule: str = "linear"
    trained_betas: tuple[float, ...] | None = None
    rescale_betas_zero_snr: bool = False

    def __post_init__(self) -> None:
        what = type(self).__qualname__
        positive(what, num_train_timesteps=self.num_train_timesteps)
        real(what, 0.0, 1.0, beta_start=self.beta_start, beta_end=self.beta_end)
        expect({"beta_schedule": self.beta_schedule}, what, beta_schedule=SCHEDULES)
        if self.trained_betas is not None:
            real(what, 0.0, 1.0, **{f"trained_betas[{i}]": b for i, b in self._listed()})
            if len(self.trained_betas) != self.num_train_timesteps:
                raise ConfigError(
                    f"{what}: {len(self.trained_betas)} trained_betas for "
                    f"num_train_timesteps={self.num_train_timesteps}.",
                    expected=self.num_train_timesteps,
                    got=len(self.trained_betas),
                )

    def _listed(self) -> list[tuple[int, float]]:
        return list(enumerate(self.trained_betas or ()))


def beta_table(config: Betas) -> Array:
    """Variance that each step adds. Shape: (T,), float32."""
    count, low, high = config.num_train_timesteps, config.beta_start, config.beta_end
    betas: Array
    if config.trained_betas is not None:
        betas = np.array(config.trained_betas, np.float32)
    elif config.beta_schedule == "linear":
        betas = even_steps(low, high, count)
    elif config.beta_schedule == "scaled_linear":
        betas = even_steps(low**0.5, high**0.5, count) ** 2
    elif config.beta_schedule == "sigmoid":
        steps = even_steps(-6, 6, count)
        betas = 1 / (1 + np.exp(-steps)) * np.float32(high - low) + np.float32(low)
    else:
        left = _ALPHA_BAR[config.beta_schedule]
        times = [(i / count, (i + 1) / count) for i in range(count)]
        betas = np.array([min(1 - left(b) / left(a), _LARGEST_BETA) for a, b in times], np.float32)
    return without_signal_at_the_end(betas) if config.rescale_betas_zero_snr else betas


def signal_table(config: Betas, least: float = 0.0) -> Array:
    """Share of the signal's power that is left after each step. Shape: (T,), float32.

    alpha_bar[t] = (1 - beta[0]) (1 - beta[1]) ... (1 - beta[t])

    Args:
        least: what the last step leaves where `rescale_betas_zero_snr` would leave nothing.
    """
    left = product(np.float32(1) - beta_table(config))
    if config.rescale_betas_zero_snr and least:
        left[-1] = least
    return left


def even_steps(low: float, high: float, count: int) -> Array:
    """`count` numbers from low to high, counted from the nearer end. Shape: (count,), float32."""
    first, last = np.float32(low), np.float32(high)
    if count == 1:
        return np.array([first])
    step = float((last - first) / np.float32(count - 1))
    places = np.arange(count)
    up = float(first) + step * places  # rounded once, as fused instructions do
    down = float(last) - step * (count - 1 - places)
    return np.where(places < count // 2, up, down).astype(np.float32)


def product(x: Array) -> Array:
    """Cumulative product, rounded to float32 at the end only."""
    return np.cumprod(x.astype(np.float64)).astype(np.float32)


def without_signal_at_the_end(betas: Array) -> Array:
    """Betas whose cumulative signal keeps its first value and ends at zero."""
    root = np.sqrt(product(np.float32(1) - betas))
    first, last = root[0], root[-1]
    left = ((root - last) * (first / (first - last))) ** 2
    return np.float32(1) - np.concatenate([left[:1], left[1:] / left[:-1]])
