"""What a training of generators watches for: losses that are no numbers, pictures all alike."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np

from ...core.errors import GradError
from ...core.notice import TrainingWarning

Array = np.ndarray[Any, Any]
COLLAPSE = 0.3  # of the variety of real pictures
_PATIENCE = 500  # steps: untrained generators make one picture only


def check_figures(figures: Mapping[str, float], step: int, lr: float) -> None:
    """Raise where a player's loss is not finite.

    Raises:
        GradError: names the loss and the step.
    """
    for name, value in figures.items():
        if not math.isfinite(value):
            raise GradError(
                f"the loss of the {name} became {value} at step {step} (learning rate {lr:g}).\n"
                "Lower the learning rate, or go on from an earlier checkpoint with another seed; "
                "to find the operation:\n  with bt.detect_anomaly(): ...",
                step=step,
                value=value,
                lr=lr,
            )


def nearest_distance(samples: Array) -> float:
    """The median distance of a sample from the one nearest to it, for each root of a pixel.

    Pictures that repeat each other bring it towards 0, even if there are several kinds of them.
    """
    flat = np.asarray(samples, np.float64).reshape(len(samples), -1)
    squares = (flat * flat).sum(axis=1)
    distances = squares[:, None] + squares[None] - 2 * flat @ flat.T
    np.fill_diagonal(distances, np.inf)
    return float(
        np.median(np.sqrt(np.maximum(distances.min(axis=1), 0))) / math.sqrt(flat.shape[1])
    )


class CollapseAlarm:
    """Warns when made pictures are much more alike than real ones.

    Args:
        real: some real pictures (N, C, H, W), as many as will be compared.
    """

    def __init__(self, real: Array) -> None:
        self.real = nearest_distance(real)

    def __call__(self, samples: Array, step: int) -> float:
        """The variety of made pictures as a part of that of real ones.

        Warns if it is low after the first few hundred steps.
        """
        if self.real == 0 or len(samples) < 2:
            return 1.0
        found = nearest_distance(samples) / self.real
        if found < COLLAPSE and step >= _PATIENCE:
            warnings.warn(
                f"mode collapse at step {step}: made pictures differ {found:.0%} as much as real "
                "ones do. A lower learning rate, or `wgan-gp` or `sngan`, may help.",
                TrainingWarning,
                stacklevel=2,
            )
        return found
