"""Distances and similarities of vectors, and the losses made of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..autocast import in_float32
from ..errors import ConfigError, ShapeError
from ..spelling import spelled
from .activation import relu
from .classes import check_reduction, reduced
from .classification import cross_entropy
from .elementwise import maximum, minimum, sqrt, square, where
from .linalg import matmul
from .norms import vector_norm
from .reduction import sum as sum_over
from .shape import matrix_transpose

if TYPE_CHECKING:
    from ..tensor import Tensor


@spelled
@in_float32
def normalize(x: Tensor, p: float = 2.0, axis: int = 1, eps: float = 1e-12) -> Tensor:
    """Vectors along an axis divided by their norm, or by `eps` where that is larger."""
    return x / maximum(vector_norm(x, axis=axis, keepdims=True, ord=p), eps)


@spelled
@in_float32
def cosine_similarity(x1: Tensor, x2: Tensor, axis: int = 1, eps: float = 1e-8) -> Tensor:
    """The cosine of the angle between vectors along an axis; 0 for a vector of zeros."""
    first = maximum(vector_norm(x1, axis=axis), eps)
    second = maximum(vector_norm(x2, axis=axis), eps)
    return sum_over(x1 * x2, axis=axis) / (first * second)


@in_float32
def pairwise_distance(
    x1: Tensor, x2: Tensor, p: float = 2.0, eps: float = 1e-6, keepdims: bool = False
) -> Tensor:
    """The p-norm of the difference along the last axis; `eps` is added to each element."""
    return vector_norm(x1 - x2 + eps, axis=-1, keepdims=keepdims, ord=p)


@in_float32
def cosine_embedding_loss(
    x1: Tensor, x2: Tensor, target: Tensor, margin: float = 0.0, reduction: str = "mean"
) -> Tensor:
    """1 - cosine where the target is 1; the cosine above `margin` where it is -1.

    Shape: x1, x2 (B, D) or (D,), target (B,) or ().
    """
    check_reduction(reduction)
    product = sum_over(x1 * x2, axis=-1)
    sizes = (sum_over(square(x), axis=-1) + 1e-12 for x in (x1, x2))
    first, second = sizes
    cosine = product / sqrt(first * second)
    return reduced(where(target == 1, 1 - cosine, relu(cosine - margin)), reduction)


@in_float32
def triplet_margin_loss(
    anchor: Tensor,
    positive: Tensor,
    negative: Tensor,
    margin: float = 1.0,
    p: float = 2.0,
    eps: float = 1e-6,
    swap: bool = False,
    reduction: str = "mean",
) -> Tensor:
    """How much closer than `margin` the negative is to the anchor, compared with the positive.

    Args:
        swap: take the negative's distance to the positive instead where that is smaller.

    Source: Schroff et al. 2015, "FaceNet"; swap: Balntas et al. 2016.
    """
    check_reduction(reduction)
    near = pairwise_distance(anchor, positive, p, eps)
    far = pairwise_distance(anchor, negative, p, eps)
    if swap:
        far = minimum(far, pairwise_distance(positive, negative, p, eps))
    return reduced(relu(near - far + margin), reduction)


@in_float32
def info_nce(
    query: Tensor,
    key: Tensor,
    temperature: float | Tensor = 0.1,
    symmetric: bool = False,
    reduction: str = "mean",
) -> Tensor:
    """The contrastive loss: each query has to find its own key among those of the batch.

    Args:
        temperature: divides the cosines; a number or a tensor that is trained.
        symmetric: also let each key find its query, and take the mean of both (CLIP).

    Shape: query, key (B, D).
    Source: van den Oord et al. 2018, "Representation learning with contrastive predictive coding".
    """
    if query.ndim != 2 or query.shape != key.shape:
        raise ShapeError(
            f"info_nce: query and key are (B, D) both, got {tuple(query.shape)} and "
            f"{tuple(key.shape)}.",
            expected=tuple(query.shape),
            got=tuple(key.shape),
        )
    if isinstance(temperature, (int, float)) and temperature <= 0:
        raise ConfigError(f"info_nce: the temperature is positive, got {temperature}")
    from ..creation import arange

    own: Any = arange(query.shape[0], device=query.device)
    cosines = matmul(normalize(query), matrix_transpose(normalize(key))) / temperature
    loss = cross_entropy(cosines, own, reduction=reduction)
    if symmetric:
        loss = (loss + cross_entropy(matrix_transpose(cosines), own, reduction=reduction)) * 0.5
    return loss
