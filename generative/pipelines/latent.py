"""Latent diffusion: the walk of latents under guidance, from noise or from a picture.

Source: Rombach et al. 2022; guidance without a classifier of Ho and Salimans 2022; its rescaling of
Lin et al. 2024, "Common diffusion noise schedules and sample steps are flawed".
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...core.errors import ConfigError
from ...core.ops.reduction import std
from ...core.ops.shape import concat
from ...core.random import Generator
from ...core.state import inference_mode
from ...core.tensor import Tensor
from ..embeddings import Timesteps
from ..schedulers import Scheduler

#: What a network is told beside the latents, of each sample (B, ...).
Condition = tuple[Tensor, ...]
#: What the network says of latents, at a timestep, under a condition.
Network = Callable[[Tensor, float, Condition], Tensor]


@dataclass(frozen=True)
class Guidance:
    """How closely the condition is followed.

    Attributes:
        scale: 1 takes the network at its word; above, away from what it says of `against`.
        rescale: from 0 to 1: keeps the contrast from growing with the scale.
    """

    scale: float
    rescale: float = 0.0

    def __post_init__(self) -> None:
        if not _number(self.scale) or not 0 <= self.scale <= 1000:
            raise ConfigError(
                f"guidance={self.scale!r}: a number from 0 is wanted, such as 7.5", got=self.scale
            )
        if not _number(self.rescale) or not 0 <= self.rescale <= 1:
            raise ConfigError(
                f"rescale={self.rescale!r}: a number from 0 to 1 is wanted", got=self.rescale
            )


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def guided(
    network: Network,
    x: Tensor,
    t: float,
    wanted: Condition,
    against: Condition | None,
    guidance: Guidance,
    *,
    slicing: bool = False,
) -> Tensor:
    """The network's word under guidance: eq. 6 of Ho and Salimans, away from `against`.

    Args:
        wanted, against: conditions: tensors (B, ...); without `against` there is no guidance.
        slicing: one sample and one condition at a time, which takes the least memory.
    """
    if against is None or guidance.scale == 1:
        return _sliced(network, x, t, wanted) if slicing else network(x, t, wanted)
    if slicing:
        away, towards = _sliced(network, x, t, against), _sliced(network, x, t, wanted)
    else:
        pairs = zip(against, wanted, strict=True)
        both = tuple(concat([first, second], axis=0) for first, second in pairs)
        said = network(concat([x, x], axis=0), t, both)
        away, towards = said[: x.shape[0]], said[x.shape[0] :]
    said = away + guidance.scale * (towards - away)
    if guidance.rescale:
        of: dict[str, Any] = {"axis": (1, 2, 3), "keepdims": True, "correction": 1}
        ratio: Tensor = std(towards, **of) / std(said, **of)
        said = said * (guidance.rescale * ratio + (1 - guidance.rescale))
    return said


def _sliced(network: Network, x: Tensor, t: float, condition: Condition) -> Tensor:
    parts = [
        network(x[i : i + 1], t, tuple(part[i : i + 1] for part in condition))
        for i in range(x.shape[0])
    ]
    return concat(parts, axis=0)


def begin_of(scheduler: Scheduler, steps: int, strength: float) -> int:
    """Where in its timesteps a walk begins that keeps something of a picture.

    Raises:
        ConfigError: nothing is left to do.
    """
    if not _number(strength) or not 0 < strength <= 1:
        raise ConfigError(
            f"strength={strength!r}: a number above 0 (keeps the picture) to 1 is wanted",
            got=strength,
        )
    taken = min(int(steps * strength), steps)
    if taken < 1:
        raise ConfigError(
            f"strength={strength:g} of {steps} steps leaves none to take.\n"
            f"At least {1 / steps:.2g}, or more steps.",
            got=strength,
        )
    return (steps - taken) * scheduler.order


def guidance_waves(scale: float, width: int, like: Tensor) -> Tensor:
    """The guidance as an input of distilled networks. Shape: (B, width).

    Source: Luo et al. 2023, "Latent consistency models".
    """
    waves = Timesteps(width, False, 1)
    values = Tensor(np.full(like.shape[0], (scale - 1) * 1000.0, np.float32))
    out: Tensor = waves(values.to(device=like.device)).astype(like.dtype)
    return out


@dataclass(frozen=True)
class Painting:
    """What is kept of a picture, and where it is made anew.

    Attributes:
        kept: latents of the picture; None where the network sees the masked picture instead.
        mask: 1 where it is made anew, in places of latents.
        noise: what the walk began with.
        masked: for networks that were trained for it: the mask and the latents of the picture
            without what is masked, which they see beside the sample.
    """

    kept: Tensor | None
    mask: Tensor
    noise: Tensor
    masked: Tensor | None = None

    def mixed(self, x: Tensor, scheduler: Scheduler, timestep: Any) -> Tensor:
        """A sample that is the picture, as noisy as it should be, where there is no mask."""
        if self.kept is None:
            return x
        known = self.kept
        if timestep is not None:
            known = scheduler.add_noise(known, self.noise, timestep)
        return (1 - self.mask) * known + self.mask * x


def latent_size(mask: np.ndarray[Any, Any], factor: int) -> np.ndarray[Any, Any]:
    """A mask in places of latents: of each, the pixel in its corner."""
    return np.ascontiguousarray(mask[:, :, ::factor, ::factor])


def picture_latents(
    vae: Any, picture: Tensor, generators: Sequence[Generator] | None, scale: Callable[..., Tensor]
) -> Tensor:
    """The latents of pictures, drawn from what the encoder says, as they are diffused."""
    with inference_mode():
        found: Any = vae.encode(picture)
        drawn = found.sample(generators) if hasattr(found, "deviation") else found
        return scale(vae, drawn)
