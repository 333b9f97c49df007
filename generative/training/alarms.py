"""What trainings of generators watch for: pictures all alike."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np

from ...core.notice import TrainingWarning

Array = np.ndarray[Any, Any]
COLLAPSE = 0.3  # of the variety of real pictures
IDLE = 0.1  # of a codebook's entries, in use
_PATIENCE = 500  # steps: untrained generators make one picture only


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
        advice: what may help.
    """

    def __init__(
        self,
        real: Array,
        advice: str = "A lower learning rate, or `wgan-gp` or `sngan`, may help.",
    ) -> None:
        self.real = nearest_distance(real) if len(real) > 1 else 0.0
        self.advice = advice

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
                f"ones do. {self.advice}",
                TrainingWarning,
                stacklevel=2,
            )
        return found


def alarm_of(pictures: Any, count: int, rng: np.random.Generator, *advice: str) -> CollapseAlarm:
    """The alarm that compares so many made pictures with as many real ones."""
    chosen = rng.choice(len(pictures), min(count, len(pictures)), replace=False)
    return CollapseAlarm(pictures.scaled(chosen), *advice)


def codebook_use(codes: Array, entries: int) -> tuple[float, float]:
    """The share of a codebook that codes use, and how many entries would do if used alike.

    Args:
        codes: whole numbers below `entries`, of any shape.

    Returns:
        The share, of all entries or of as many as there are codes; the perplexity, from 1 to
        `entries`.
    """
    counts = np.bincount(np.asarray(codes).ravel(), minlength=entries)
    shares = counts[counts > 0] / counts.sum()
    perplexity = math.exp(-float((shares * np.log(shares)).sum()))
    return len(shares) / min(entries, int(counts.sum())), perplexity


def check_codebook(share: float, step: int) -> None:
    """Warn if few entries of a codebook are in use, after the first few hundred steps."""
    if share < IDLE and step >= _PATIENCE:
        warnings.warn(
            f"codebook collapse at step {step}: only {share:.1%} of the entries are in use. Try "
            "restart=0.1, which moves idle entries, fewer entries, or a lower learning rate.",
            TrainingWarning,
            stacklevel=2,
        )
