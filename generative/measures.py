"""How good made pictures are: Fréchet distance, kernel distance, precision and recall.

All of them compare features, (N, D), of real and of made pictures: what some network sees before
its last layer. FID and KID are the first two with Inception's features; with another network they
are the same formulas on another scale, comparable only with themselves.

Sources: Heusel et al. 2017 (FID), Bińkowski et al. 2018 (KID), Kynkäänniemi et al. 2019 (precision
and recall).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..core.errors import DataError, ShapeError
from ..core.nn import Module
from ..core.state import inference_mode
from ..core.tensor import Tensor

Array = np.ndarray[Any, Any]

#: From samples (B, C, H, W) between -1 and 1 to features (B, D).
FeatureNetwork = Callable[[Array], Array]


def features_of(network: FeatureNetwork, samples: Any, batch_size: int = 256) -> Array:
    """The features of samples, (N, D) float64.

    Args:
        network: any function from arrays (B, C, H, W) to arrays (B, D), such as
            `classifier_features` makes of a classifier.

    Raises:
        DataError: no samples, or features that hold NaN.
        ShapeError: the network gives no (B, D).
    """
    values = np.asarray(samples.numpy() if isinstance(samples, Tensor) else samples)
    if not len(values):
        raise DataError("there are no samples to take features of")
    parts = []
    for first in range(0, len(values), batch_size):
        part = values[first : first + batch_size]
        found: Any = network(part)
        found = np.asarray(found.numpy() if isinstance(found, Tensor) else found, np.float64)
        if found.ndim != 2 or len(found) != len(part):
            raise ShapeError(
                f"the feature network gave {found.shape} for {len(part)} samples: (B, D) is "
                "wanted. Take the mean over all places?",
                got=found.shape,
                expected=(len(part), None),
            )
        parts.append(found)
    return _checked("features", np.concatenate(parts))


def classifier_features(classifier: Any) -> FeatureNetwork:
    """What a loaded classifier sees before its head: `classifier_features(bt.load(name))`.

    Samples from -1 to 1 are scaled as the classifier wants its pixels.

    Args:
        classifier: an image classifier of `bt.load`, whose module has `embed`.
    """
    module: Module = classifier.module
    settings = classifier.preprocess
    mean = np.asarray(settings.mean, np.float32)[:, None, None]
    std = np.asarray(settings.std, np.float32)[:, None, None]

    def features(samples: Array) -> Array:
        pixels = np.asarray((samples + 1) / 2, np.float32)
        given = Tensor(np.ascontiguousarray((pixels - mean) / std)).to(module.device)
        with inference_mode():
            return np.asarray(module.embed(given).cpu().numpy())

    return features


def frechet_distance(real: Any, made: Any) -> float:
    """The Fréchet distance of two normal distributions with the means and covariances of features.

    |mean difference|^2 + trace(A + B - 2 (A B)^(1/2)), A and B being the covariances. It is biased:
    few samples make it larger, so only figures of equally many can be compared. The root is
    computed from a symmetric matrix of the same eigenvalues, A^(1/2) B A^(1/2), so that nothing
    imaginary comes up.

    Raises:
        ShapeError: features of different sizes.
        DataError: fewer than two samples, or NaN.

    Source: Dowson and Landau 1982.
    """
    x, y = _pair(real, made)
    a, b = np.cov(x, rowvar=False).reshape(2 * [x.shape[1]]), np.cov(y, rowvar=False)
    b = b.reshape(a.shape)
    return frechet_of_moments(x.mean(axis=0), a, y.mean(axis=0), b)


def frechet_of_moments(mean1: Array, cov1: Array, mean2: Array, cov2: Array) -> float:
    """The Fréchet distance of two normal distributions. Shape: means (D,), covariances (D, D)"""
    root = _root(cov1)
    inner = np.linalg.eigvalsh(root @ cov2 @ root)
    overlap = np.sqrt(np.maximum(inner, 0)).sum()
    difference = np.asarray(mean1) - np.asarray(mean2)
    distance = difference @ difference + np.trace(cov1) + np.trace(cov2) - 2 * overlap
    return max(float(distance), 0.0)


def _root(matrix: Array) -> Array:
    """The symmetric root of a covariance."""
    values, vectors = np.linalg.eigh(matrix)
    return np.asarray((vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T)


def kernel_distance(
    real: Any, made: Any, *, subsets: int = 50, size: int = 1000, seed: int = 0
) -> tuple[float, float]:
    """The squared maximum mean discrepancy with a cubic kernel, and its deviation over subsets.

    Unbiased: of two samples of the same pictures it is 0 on average.

    Args:
        subsets, size: how many random parts, of how many samples each, are compared.

    Raises:
        ShapeError: features of different sizes.
        DataError: fewer than two samples, or NaN.
    """
    x, y = _pair(real, made)
    count = min(size, len(x), len(y))
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(subsets):
        a = x[rng.choice(len(x), count, replace=False)]
        b = y[rng.choice(len(y), count, replace=False)]
        own = _kernel(a, a), _kernel(b, b)
        pairs = count * (count - 1)
        within = sum((k.sum() - np.trace(k)) / pairs for k in own)
        found.append(within - 2 * _kernel(a, b).mean())
    return float(np.mean(found)), float(np.std(found))


def _kernel(a: Array, b: Array) -> Array:
    return np.asarray((a @ b.T / a.shape[1] + 1) ** 3)


@dataclass(frozen=True)
class PrecisionRecall:
    """How many made pictures lie among real ones, and how many real ones among made ones."""

    precision: float
    recall: float


def precision_recall(real: Any, made: Any, *, neighbours: int = 3) -> PrecisionRecall:
    """Precision and recall of made features.

    A feature lies among others if it is nearer to one of them than that one's own `neighbours`-th
    nearest.

    Raises:
        ShapeError: features of different sizes.
        DataError: no more samples than neighbours, or NaN.
    """
    x, y = _pair(real, made)
    if type(neighbours) is not int or not 1 <= neighbours < min(len(x), len(y)):
        raise DataError(
            f"neighbours={neighbours!r} of {min(len(x), len(y))} samples: from 1 to fewer than "
            "there are samples",
            got=neighbours,
        )
    return PrecisionRecall(_covered(x, y, neighbours), _covered(y, x, neighbours))


def _covered(points: Array, others: Array, neighbours: int) -> float:
    """The part of `others` that lies within the neighbourhood of a point."""
    own = _squares(points, points)
    radii = np.partition(own, neighbours, axis=1)[:, neighbours]  # the 0th is the point itself
    inside = 0
    for first in range(0, len(others), 1024):
        part = _squares(others[first : first + 1024], points)
        inside += int((part <= radii).any(axis=1).sum())
    return inside / len(others)


def _squares(a: Array, b: Array) -> Array:
    distances = (a * a).sum(axis=1)[:, None] + (b * b).sum(axis=1) - 2 * a @ b.T
    return np.asarray(np.maximum(distances, 0))


def _pair(real: Any, made: Any) -> tuple[Array, Array]:
    x, y = _checked("real features", real), _checked("made features", made)
    if x.shape[1] != y.shape[1]:
        raise ShapeError(
            f"real features {x.shape} and made ones {y.shape} must have one size: take both from "
            "the same network.",
            expected=x.shape[1],
            got=y.shape[1],
        )
    if min(len(x), len(y)) < 2:
        raise DataError(f"{len(x)} real and {len(y)} made samples: two of each, at least")
    return x, y


def _checked(what: str, values: Any) -> Array:
    found = np.asarray(values.numpy() if isinstance(values, Tensor) else values, np.float64)
    if found.ndim != 2 or 0 in found.shape:
        raise ShapeError(
            f"{what}: (N, D) is wanted, got {found.shape}", got=found.shape, expected=(None, None)
        )
    bad = ~np.isfinite(found).all(axis=1)
    if bad.any():
        raise DataError(f"{what}: row {int(bad.argmax())} of {len(found)} holds NaN or infinity")
    return found
