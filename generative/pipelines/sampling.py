"""What every way of making pictures shares: seeds, the walk of a scheduler, pixels."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ...core.errors import ConfigError, DataError, ShapeError
from ...core.insight.progress import Progress
from ...core.ops.shape import concat
from ...core.random import Generator, normal, numpy_rng
from ...core.state import inference_mode
from ...core.tensor import Tensor
from ..schedulers import Scheduler

if TYPE_CHECKING:
    from PIL.Image import Image

Array = np.ndarray[Any, Any]
_MODES = {1: "L", 3: "RGB", 4: "RGBA"}


@dataclass(frozen=True)
class SamplingStep:
    """What a callback is told after each step.

    Attributes:
        step, steps: how many are done, and of how many.
        timestep: where the step began.
        sample: as noisy as it is now, (B, C, H, W).
        clean: what the network takes the end to be, as far as the scheduler says.
    """

    step: int
    steps: int
    timestep: float
    sample: Tensor
    clean: Tensor | None

    def pictures(self) -> list[Image]:
        """A preview: what the network takes the end to be, or the sample, as pictures.

        Raises:
            DataError: samples that are no pixels, such as latents.
        """
        return to_pictures(self.sample if self.clean is None else self.clean)


Callback = Callable[[SamplingStep], Any]


def seeds_of(count: int, seed: int | Sequence[int] | None) -> list[int]:
    """The seed of each picture: seed, seed + 1, ...; as given; or drawn.

    Raises:
        ConfigError: seeds are given, and not one for each picture.
    """
    if seed is None:
        return [int(n) for n in numpy_rng().integers(1 << 62, size=count)]
    if isinstance(seed, (int, np.integer)) and not isinstance(seed, bool):
        return [int(seed) + i for i in range(count)]
    if isinstance(seed, (str, bytes)) or not isinstance(seed, Sequence):
        raise ConfigError(f"seed={seed!r} is no whole number, nor a list of them", got=seed)
    if len(seed) != count:
        raise ConfigError(f"{len(seed)} seeds for {count} pictures", expected=count, got=len(seed))
    return [int(s) for s in seed]


def generators_of(seeds: Sequence[int], device: Any) -> list[Generator]:
    """A source of noise for each picture: its noise is the same alone and in a batch."""
    return [Generator(seed, device) for seed in seeds]


def first_noise(shape: tuple[int, ...], generators: Sequence[Generator], like: Tensor) -> Tensor:
    """Normal numbers, each sample's from its own generator. Shape: (B, *shape)."""
    options: dict[str, Any] = {"dtype": like.dtype, "device": like.device}
    return concat([normal((1, *shape), generator=g, **options) for g in generators], axis=0)


def walk(
    predict: Callable[[Tensor, float], Tensor],
    scheduler: Scheduler,
    sample: Tensor,
    *,
    generators: Sequence[Generator] | None = None,
    begin: int = 0,
    callback: Callback | None = None,
    bar: Progress[Any] | None = None,
    adjust: Callable[[Tensor, Any], Tensor] | None = None,
    **settings: Any,
) -> Tensor:
    """The sample at the end of a scheduler's timesteps, which `set_timesteps` has chosen.

    Args:
        predict: what the network says of a scaled sample at a timestep.
        sample: what the walk begins with, already as noisy as its first timestep wants.
        begin: the first of the timesteps to take.
        callback: called after each step with a `SamplingStep`.
        adjust: changes the sample after each step, given the next timestep; None after the last.
        settings: of the scheduler's `step`, such as `eta`.

    Raises:
        DataError: the network gave NaN or infinity.
    """
    if begin:
        scheduler.set_begin_index(begin)
    times = scheduler.timesteps[begin:]
    with inference_mode():
        for i, timestep in enumerate(times, 1):
            t = float(timestep)
            output = predict(scheduler.scale_model_input(sample, timestep), t)
            step = scheduler.step(output, timestep, sample, generator=generators, **settings)
            sample = step.prev_sample
            if adjust is not None:
                sample = adjust(sample, times[i] if i < len(times) else None)
            if callback is not None:
                told = SamplingStep(i, len(times), t, sample, step.pred_original_sample)
                callback(told)
            if bar is not None:
                bar.update(1)
    check_finite(sample)
    return sample


def check_finite(sample: Tensor) -> None:
    """Raise where a walk ended in numbers that are none."""
    if not np.isfinite(sample.cpu().numpy()).all():
        raise DataError(
            "the network gave NaN or infinity, so there is no picture.\nWeights of few bits or "
            "untrained ones do that: load with dtype='float32', or try another scheduler."
        )


def to_pixels(samples: Tensor) -> Array:
    """Samples from -1 to 1 as whole numbers from 0 to 255. Shape: (B, C, H, W) -> (B, H, W, C)."""
    values = np.asarray(samples.cpu().numpy(), np.float32).transpose(0, 2, 3, 1)
    return np.round(np.clip(values / 2 + 0.5, 0, 1) * 255).astype(np.uint8)


def to_pictures(samples: Tensor) -> list[Image]:
    """Samples from -1 to 1 as pictures: grey, RGB or RGBA by their channels.

    Raises:
        DataError: another number of channels.
    """
    from PIL import Image

    channels = samples.shape[1]
    if channels not in _MODES:
        raise DataError(
            f"samples of {channels} channels are no pictures; take them with output='array'.",
            got=channels,
        )
    pixels = to_pixels(samples)
    return [Image.fromarray(p[..., 0] if channels == 1 else p, _MODES[channels]) for p in pixels]


def check_count(count: Any) -> int:
    """A number of pictures.

    Raises:
        ConfigError: it is none.
    """
    if type(count) is not int or count < 1:
        raise ConfigError(f"{count!r} pictures: a whole number from 1 is wanted", got=count)
    return count


def check_noise(noise: Tensor, shape: tuple[int, ...]) -> None:
    """Raise unless given noise has this shape."""
    if tuple(noise.shape) != shape:
        raise ShapeError(
            f"noise of shape {shape} is wanted, got {tuple(noise.shape)}.",
            expected=shape,
            got=tuple(noise.shape),
        )


def check_settings(scheduler: Scheduler, settings: dict[str, Any]) -> None:
    """Raise for arguments that a scheduler's `step` does not have."""
    own = {"self", "model_output", "timestep", "sample", "generator", "noise"}
    known = set(inspect.signature(type(scheduler).step).parameters) - own
    unknown = sorted(set(settings) - known)
    if unknown:
        raise ConfigError(
            f"{type(scheduler).__name__} has no setting {', '.join(unknown)}; "
            f"it has: {', '.join(sorted(known)) or 'none'}",
            keys=unknown,
        )
