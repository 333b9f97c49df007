"""Which of the training's timesteps are visited, and with which sigmas.

sigma is the noise's standard deviation in units of the signal's: sqrt((1 - alpha_bar) / alpha_bar).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ...core.errors import ConfigError
from .quantiles import beta_quantiles

Array = np.ndarray[Any, Any]
SPACINGS = ("leading", "linspace", "trailing")
RESPACED = ("use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas")
_RHO = 7.0  # Karras et al. 2022
_BETA = 0.6  # Lee et al. 2024: both parameters of the distribution


def timesteps(
    spacing: str,
    train: int,
    count: int,
    offset: int = 0,
    *,
    beyond: int = 0,
    last: int | None = None,
) -> Array:
    """`count` of the `train` timesteps, the noisiest first. Shape: (count,), float64.

    Args:
        spacing: "linspace" takes both ends; "leading" counts up from 0 in whole steps, plus
            `offset`; "trailing" counts down from the end.
        beyond: 1 spaces one more and leaves the cleanest out, as multistep solvers do.
        last: how many timesteps there are to choose from, where not all.

    Raises:
        ConfigError: the offset leads beyond the last timestep.
    """
    last = train if last is None else last
    chosen: Array
    if spacing == "linspace":
        chosen = np.linspace(0, last - 1, count + beyond)[::-1]
    elif spacing == "leading":
        chosen = np.arange(count + beyond)[::-1] * (last // (count + beyond)) + float(offset)
    else:
        return np.round(np.arange(last, 0, -train / count)) - 1
    chosen = chosen[: len(chosen) - beyond]
    if chosen[0] > train - 1:
        raise ConfigError(
            f"{count} steps with steps_offset={offset} begin at timestep {chosen[0]:g}, beyond the "
            f"last, {train - 1}.\nTake fewer steps, or timestep_spacing='trailing'.",
            got=count,
        )
    return chosen


def sigmas_of(signal: Array) -> Array:
    """Sigma of every training timestep, growing. Shape: (T,), float32."""
    with np.errstate(divide="ignore"):
        return np.sqrt((np.float32(1) - signal) / signal)


def between(times: Array, sigmas: Array) -> Array:
    """Sigmas at timesteps that need not be whole. Shape: (N,), float64."""
    return np.interp(times, np.arange(len(sigmas)), sigmas)


def karras(high: float, low: float, count: int) -> Array:
    """Sigmas evenly spaced in their seventh root. Source: Karras et al. 2022, eq. 5."""
    ramp = np.linspace(0, 1, count)
    top, bottom = high ** (1 / _RHO), low ** (1 / _RHO)
    return np.asarray((top + ramp * (bottom - top)) ** _RHO)


def exponential(high: float, low: float, count: int) -> Array:
    """Sigmas evenly spaced in their logarithm."""
    return np.exp(np.linspace(math.log(high), math.log(low), count))


def beta(high: float, low: float, count: int) -> Array:
    """Sigmas that are dense at both ends: quantiles of a beta distribution.

    Source: Lee et al. 2024, "Beta sampling is all you need".
    """
    return low + (high - low) * beta_quantiles(1 - np.linspace(0, 1, count), _BETA, _BETA)


def check_respacing(config: Any) -> None:
    """Raise if a configuration asks for several kinds of sigmas at once."""
    asked = [name for name in RESPACED if getattr(config, name)]
    if len(asked) > 1:
        raise ConfigError(f"{type(config).__qualname__}: {' and '.join(asked)} exclude each other.")


def respaced(config: Any, high: float, low: float, count: int) -> Array | None:
    """The sigmas that a configuration asks for in place of those of its timesteps, if any.

    Args:
        high, low: the ends, unless the configuration has `sigma_max` and `sigma_min`.
    """
    given_high, given_low = getattr(config, "sigma_max", None), getattr(config, "sigma_min", None)
    high = high if given_high is None else given_high
    low = low if given_low is None else given_low
    if config.use_karras_sigmas:
        return karras(high, low, count)
    if config.use_exponential_sigmas:
        return exponential(high, low, count)
    if config.use_beta_sigmas:
        return beta(high, low, count)
    return None


def times_of(sigmas: Array, table: Array) -> Array:
    """Timesteps of sigmas, interpolated in their logarithm: the reverse of `between`."""
    logs, wanted = np.log(table), np.log(np.maximum(sigmas, 1e-10))
    low = np.clip(np.searchsorted(logs, wanted, side="right") - 1, 0, len(logs) - 2)
    share = np.clip((logs[low] - wanted) / (logs[low] - logs[low + 1]), 0, 1)
    return np.asarray((1 - share) * low + share * (low + 1))
