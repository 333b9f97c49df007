"""Unconditional and class-conditional pictures: a UNet over pixels and a scheduler.

Source: Ho et al. 2020, "Denoising diffusion probabilistic models"; guidance without a classifier of
Ho and Salimans 2022.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ...core.insight.progress import Progress
from ...core.ops.shape import concat
from ...core.tensor import Tensor
from ..schedulers import Scheduler
from .sampling import Callback, first_noise, generators_of, walk

Network = Callable[..., Tensor]


def sample(
    network: Network,
    scheduler: Scheduler,
    shape: tuple[int, ...],
    seeds: Sequence[int],
    like: Tensor,
    *,
    classes: Sequence[int] | None = None,
    no_class: int | None = None,
    guidance: float = 1.0,
    noise: Tensor | None = None,
    callback: Callback | None = None,
    bar: Progress[Any] | None = None,
    **settings: Any,
) -> Tensor:
    """Samples from -1 to 1, one for each seed. Shape: (B, *shape).

    Args:
        network: called with a sample, timesteps (B,) and, for models of classes, labels (B,).
        scheduler: with its timesteps chosen.
        like: a tensor of the network's type and device.
        classes: of each sample; None for models without classes.
        no_class: the label that stands for any class, for guidance.
        guidance: 1 takes the network at its word; above, away from what it says without a class.
        noise: what to begin with, in place of what the seeds give.
        settings: of the scheduler's `step`.
    """
    generators = generators_of(seeds, like.device)
    wide = Tensor(np.zeros(0, np.float32)).to(device=like.device)  # halves would lose small steps
    start = first_noise(shape, generators, wide) if noise is None else noise.astype(np.float32)
    start = start * scheduler.init_noise_sigma
    guided = guidance != 1.0 and no_class is not None
    labels = None if classes is None else _labels(classes, like)
    none = _labels([no_class or 0] * len(seeds), like) if guided else None

    def predict(x: Tensor, t: float) -> Tensor:
        return asked(x.astype(like.dtype), t).astype(np.float32)

    def asked(x: Tensor, t: float) -> Tensor:
        if labels is None:
            return network(x, _times(t, x))
        if none is None:
            return network(x, _times(t, x), labels)
        both = concat([x, x], axis=0)
        said = network(both, _times(t, both), concat([labels, none], axis=0))
        known, unknown = said[: len(seeds)], said[len(seeds) :]
        return unknown + guidance * (known - unknown)

    return walk(
        predict,
        scheduler,
        start,
        generators=generators,
        callback=callback,
        bar=bar,
        **settings,
    )


def _labels(values: Sequence[int], like: Tensor) -> Tensor:
    return Tensor(np.array(values, np.int64)).to(device=like.device)


def _times(t: float, x: Tensor) -> Tensor:
    return Tensor(np.full(x.shape[0], t, np.float32)).to(device=x.device)
