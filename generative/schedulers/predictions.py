"""The arithmetic of a step: what a model's output says of the clean sample and of the noise."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from ...core.errors import ShapeError
from ...core.ops.elementwise import abs as absolute
from ...core.ops.elementwise import clip
from ...core.ops.shape import concat, expand_dims, reshape
from ...core.ops.sorting import sort
from ...core.random import Generator, normal
from ...core.tensor import Tensor

Generators = Generator | Sequence[Generator] | None


def original(kind: str, output: Tensor, sample: Tensor, signal: float, sigma: float) -> Tensor:
    """The clean sample that an output says, where sample = signal * clean + sigma * noise."""
    if kind == "epsilon":
        return (sample - sigma * output) / signal
    if kind == "v_prediction":
        return signal * sample - sigma * output
    if kind == "flow_prediction":
        return sample - sigma * output
    return output


def epsilon(kind: str, output: Tensor, sample: Tensor, signal: float, sigma: float) -> Tensor:
    """The noise that a model's output says."""
    if kind == "sample":
        return (sample - signal * output) / sigma
    if kind == "v_prediction":
        return signal * output + sigma * sample
    return output


def original_of_sigma(kind: str, output: Tensor, sample: Tensor, sigma: float) -> Tensor:
    """The clean sample that an output says, where sample = clean + sigma * noise."""
    if kind == "epsilon":
        return sample - sigma * output
    if kind == "v_prediction":
        scale = sigma * sigma + 1
        return output * (-sigma / math.sqrt(scale)) + sample / scale
    return output


def thresholded(x: Tensor, ratio: float, most: float) -> Tensor:
    """Each sample clipped to, and divided by, a quantile of its absolute values (at least one).

    Source: Saharia et al. 2022, "Photorealistic text-to-image diffusion models", dynamic
    thresholding.
    """
    flat = reshape(x, (x.shape[0], -1))
    ranked = sort(absolute(flat), axis=1)
    place = ratio * (flat.shape[1] - 1)
    low = int(place)
    high = min(low + 1, flat.shape[1] - 1)
    below, above = ranked[:, low], ranked[:, high]
    limit = expand_dims(clip(below + (above - below) * (place - low), 1.0, float(most)), axis=1)
    inside: Tensor = clip(flat, -limit, limit) / limit
    return reshape(inside, tuple(x.shape))


def bounded(x: Tensor, config: Any) -> Tensor:
    """A clean sample kept in its range, as `thresholding` or `clip_sample` of a Config says."""
    if config.thresholding:
        return thresholded(x, config.dynamic_thresholding_ratio, config.sample_max_value)
    if getattr(config, "clip_sample", False):
        return clip(x, -float(config.clip_sample_range), float(config.clip_sample_range))
    return x


def drawn(like: Tensor, generator: Generators, noise: Tensor | None) -> Tensor:
    """Noise of a sample's shape: as given, or normal numbers.

    Args:
        generator: one, or one for each sample of the batch: each sample's noise then does not
            depend on the others.
    """
    if noise is not None:
        if tuple(noise.shape) != tuple(like.shape):
            raise ShapeError(
                f"noise {tuple(noise.shape)} for samples {tuple(like.shape)}",
                expected=tuple(like.shape),
                got=tuple(noise.shape),
            )
        return noise
    options: dict[str, Any] = {"dtype": like.dtype, "device": like.device}
    if generator is None or isinstance(generator, Generator):
        return normal(tuple(like.shape), generator=generator, **options)
    if len(generator) != like.shape[0]:
        raise ShapeError(
            f"{len(generator)} generators for {like.shape[0]} samples",
            expected=like.shape[0],
            got=len(generator),
        )
    one = (1, *like.shape[1:])
    return concat([normal(one, generator=g, **options) for g in generator], axis=0)
