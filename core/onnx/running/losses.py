"""Losses over classes."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...tensor import Tensor
from . import api as A
from . import operator


@operator("NegativeLogLikelihoodLoss")
def _nll(c: Any, scores: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
    """Scores (B, C, ...) are logarithms, targets (B, ...) whole numbers."""
    ignored = c.get("ignore_index")
    kept = np.ones(target.shape, bool) if ignored is None else target.array != ignored
    places = np.where(kept, target.array, 0).astype(np.int64)
    if places.size and (places.min() < 0 or places.max() >= scores.shape[1]):
        raise c.refused("a target that is no class")
    picked = A.take_along_axis(scores, Tensor(np.expand_dims(places, 1)), axis=1)
    loss = A.negative(A.squeeze(picked, axis=1))
    own = kept.astype(scores.dtype)
    if weight is not None:
        own = own * weight.array[places]
    loss = A.multiply(loss, Tensor(own))
    how = c.get("reduction", "mean")
    if how == "none":
        return loss
    total = A.sum(loss)
    return total if how == "sum" else A.divide(total, Tensor(np.asarray(own.sum())))


@operator("SoftmaxCrossEntropyLoss")
def _cross_entropy(c: Any, scores: Tensor, target: Tensor, weight: Tensor | None = None) -> Any:
    logs = A.F.log_softmax(scores, axis=1)
    return (_nll(c, logs, target, weight), logs)[: c.outputs]
