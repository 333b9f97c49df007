"""Rotary positions: pairs of features turned by angles that grow with the place.

Source: Su et al. 2021, "RoFormer". Halves of a head are paired, as published files have it.
Scalings of the angles for longer texts are those of published configurations: linear (Chen et al.
2023), dynamic, yarn (Peng et al. 2023), llama3 (Llama 3.1's code); and factors, one for each pair,
as GGUF files of Llama 3.1 keep them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from ..core.errors import ConfigError
from ..core.tensor import Tensor

KINDS = ("default", "linear", "dynamic", "llama3", "yarn", "factors")


def frequencies(
    width: int, theta: float, scaling: Mapping[str, Any] | None, longest: int
) -> tuple[Any, float]:
    """Turns per token of each pair, (W / 2,), and a factor of cosines and sines.

    Args:
        scaling: `rope_scaling` of a published configuration.
        longest: `max_position_embeddings` of it.

    Raises:
        ConfigError: a kind that is not known, or a number that is missing.
    """
    plain = theta ** -(np.arange(0, width, 2, dtype=np.float64) / width)
    if scaling is None:
        return plain, 1.0
    kind = scaling.get("rope_type", scaling.get("type", "default"))
    if kind not in KINDS:
        raise ConfigError(
            f"rope_scaling: the type {kind!r} is not supported.\nSupported: {', '.join(KINDS)}",
            got=kind,
        )
    try:
        return _scaled(str(kind), plain, width, theta, scaling, longest)
    except (KeyError, TypeError, ZeroDivisionError) as error:
        raise ConfigError(f"rope_scaling={dict(scaling)} lacks a number: {error}") from error


def _scaled(
    kind: str, plain: Any, width: int, theta: float, scaling: Mapping[str, Any], longest: int
) -> tuple[Any, float]:
    if kind in ("default", "dynamic"):  # dynamic changes only texts longer than those trained on
        return plain, 1.0
    if kind == "factors":
        return plain / _factors(scaling["factors"], width), 1.0
    factor = float(scaling["factor"])
    if kind == "linear":
        return plain / factor, 1.0
    if kind == "llama3":
        trained = float(scaling["original_max_position_embeddings"])
        low, high = float(scaling["low_freq_factor"]), float(scaling["high_freq_factor"])
        turns = trained * plain / (2 * math.pi)  # over the texts that it was trained on
        smooth = np.clip((turns - low) / (high - low), 0, 1)
        return plain / factor * (1 - smooth) + plain * smooth, 1.0
    trained = float(scaling.get("original_max_position_embeddings") or longest)
    fast, slow = float(scaling.get("beta_fast") or 32), float(scaling.get("beta_slow") or 1)

    def pair(turns: float) -> float:
        """The pair that turns so often over the texts trained on."""
        return width * math.log(trained / (turns * 2 * math.pi)) / (2 * math.log(theta))

    first, last = pair(fast), pair(slow)
    if scaling.get("truncate", True):
        first, last = math.floor(first), math.ceil(last)
    first, last = max(first, 0), min(last, width - 1)
    ramp = np.clip((np.arange(width // 2) - first) / max(last - first, 1e-3), 0, 1)
    given = scaling.get("attention_factor")
    return plain / factor * ramp + plain * (1 - ramp), _magnitude(given, factor, scaling)


def _factors(given: Any, width: int) -> Any:
    found = np.asarray(given, np.float64)
    if found.shape != (width // 2,) or not (np.isfinite(found) & (found > 0)).all():
        raise ConfigError(
            f"rope_scaling: {width // 2} factors above 0 are wanted, one for each pair of a head's "
            f"{width} features, got {np.array2string(found, threshold=6)} of shape {found.shape}",
            expected=(width // 2,),
            got=found.shape,
        )
    return found


def _magnitude(given: Any, factor: float, scaling: Mapping[str, Any]) -> float:
    def of(scale: float, weight: float) -> float:
        return 1.0 if scale <= 1 else 0.1 * weight * math.log(scale) + 1.0

    if given is not None:
        return float(given)
    weight, every = scaling.get("mscale"), scaling.get("mscale_all_dim")
    if weight and every:
        return of(factor, weight) / of(factor, every)
    return of(factor, 1.0)


class Rotary:
    """Cosines and sines of all places so far, made once and grown when a text is longer."""

    def __init__(
        self, width: int, theta: float, scaling: Mapping[str, Any] | None, longest: int
    ) -> None:
        self._turns, self._magnitude = frequencies(width, theta, scaling, longest)
        self._dynamic = None
        if scaling is not None and scaling.get("rope_type", scaling.get("type")) == "dynamic":
            self._dynamic = width, theta, float(scaling.get("factor") or 1.0), longest
        self._table: Any = None
        self._longest = longest

    def at(self, places: Any, like: Tensor) -> tuple[Tensor, Tensor]:
        """Cosines and sines at places (T,) or (B, T), for heads (B, N, T, W).

        Shape:
            (T, W / 2), or (B, 1, T, W / 2)
        """
        needed = int(places.max(initial=0)) + 1
        if self._dynamic is not None and needed > self._dynamic[3]:
            table = self._made(needed, self._longer(needed))
        else:
            if self._table is None or needed > len(self._table[0]):
                self._table = self._made(max(needed, min(2 * needed, self._longest)), self._turns)
            table = self._table
        first, count = int(places.flat[0]), places.shape[-1]
        if places.ndim == 1 and int(places[-1]) - first == count - 1:
            cos, sin = (t[first : first + count] for t in table)
        else:
            cos, sin = (t[places] for t in table)
            if places.ndim == 2:
                cos, sin = cos[:, None], sin[:, None]
        place: dict[str, Any] = {"device": like.device, "dtype": like.dtype}
        return Tensor(cos).to(**place), Tensor(sin).to(**place)

    def _made(self, count: int, turns: Any) -> tuple[Any, Any]:
        angles = np.arange(count, dtype=np.float64)[:, None] * turns
        return tuple(
            np.ascontiguousarray(f(angles) * self._magnitude, np.float32) for f in (np.cos, np.sin)
        )  # type: ignore[return-value]

    def _longer(self, length: int) -> Any:
        assert self._dynamic is not None
        width, theta, factor, longest = self._dynamic
        base = theta * (factor * length / longest - (factor - 1)) ** (width / (width - 2))
        return base ** -(np.arange(0, width, 2, dtype=np.float64) / width)
