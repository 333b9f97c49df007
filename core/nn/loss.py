"""Losses as modules. `reduction` is "mean", "sum", or "none" for one value for each item."""

from __future__ import annotations

from typing import Any

from ..tensor import Tensor
from . import functional as F
from .module import Module
from .parameter import Buffer


class _Loss(Module):
    def __init__(self, reduction: str = "mean") -> None:
        self.reduction = reduction

    def extra_repr(self) -> str:
        return f"reduction={self.reduction!r}"


def _weights(weight: Any) -> Buffer | None:
    """Fixed weights move with the module and are not saved, as they are no result of training."""
    return None if weight is None else Buffer(weight, persistent=False)


class CrossEntropyLoss(_Loss):
    """Cross-entropy of logits (not probabilities) and class ids, or probabilities of the classes.

    Args:
        weight: a weight for each class.
        ignore_index: targets of this value do not count.
        reduction: see above.
        label_smoothing: share of the target that is spread over all classes.

    Shape: logits (B, C, ...), targets (B, ...) of whole numbers, or (B, C, ...).
    """

    def __init__(
        self,
        weight: Tensor | None = None,
        ignore_index: int = -100,
        reduction: str = "mean",
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__(reduction)
        self.weight = _weights(weight)
        self.ignore_index = ignore_index
        self.label_smoothing = label_smoothing

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return F.cross_entropy(
            input,
            target,
            self.weight,
            ignore_index=self.ignore_index,
            reduction=self.reduction,
            label_smoothing=self.label_smoothing,
        )


class NLLLoss(_Loss):
    """Negative log-likelihood of log-probabilities and class ids.

    Shape: log-probabilities (B, C, ...), targets (B, ...).
    """

    def __init__(
        self, weight: Tensor | None = None, ignore_index: int = -100, reduction: str = "mean"
    ) -> None:
        super().__init__(reduction)
        self.weight = _weights(weight)
        self.ignore_index = ignore_index

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return F.nll_loss(
            input, target, self.weight, ignore_index=self.ignore_index, reduction=self.reduction
        )


class BCELoss(_Loss):
    """Binary cross-entropy of probabilities; for logits, BCEWithLogitsLoss is exact and faster."""

    def __init__(self, weight: Tensor | None = None, reduction: str = "mean") -> None:
        super().__init__(reduction)
        self.weight = _weights(weight)

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return F.binary_cross_entropy(input, target, self.weight, reduction=self.reduction)


class BCEWithLogitsLoss(_Loss):
    """Binary cross-entropy of logits.

    Args:
        weight: multiplies the loss, broadcast.
        reduction: see above.
        pos_weight: multiplies the positive part, one for each class.
    """

    def __init__(
        self,
        weight: Tensor | None = None,
        reduction: str = "mean",
        pos_weight: Tensor | None = None,
    ) -> None:
        super().__init__(reduction)
        self.weight = _weights(weight)
        self.pos_weight = _weights(pos_weight)

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return F.binary_cross_entropy_with_logits(
            input, target, self.weight, reduction=self.reduction, pos_weight=self.pos_weight
        )


class MSELoss(_Loss):
    """The squared difference."""

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return F.mse_loss(input, target, reduction=self.reduction)


class L1Loss(_Loss):
    """The absolute difference."""

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return F.l1_loss(input, target, reduction=self.reduction)


class HuberLoss(_Loss):
    """Half the squared difference up to `delta`, linear beyond."""

    def __init__(self, reduction: str = "mean", delta: float = 1.0) -> None:
        super().__init__(reduction)
        self.delta = delta

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return F.huber_loss(input, target, reduction=self.reduction, delta=self.delta)


class SmoothL1Loss(_Loss):
    """The Huber loss divided by `beta`, so that the slope beyond it is 1."""

    def __init__(self, reduction: str = "mean", beta: float = 1.0) -> None:
        super().__init__(reduction)
        self.beta = beta

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return F.smooth_l1_loss(input, target, reduction=self.reduction, beta=self.beta)


class KLDivLoss(_Loss):
    """Kullback-Leibler divergence of log-probabilities from target probabilities.

    `reduction="batchmean"` is the mathematical value: the sum over the batch's size.
    """

    def __init__(self, reduction: str = "mean", log_target: bool = False) -> None:
        super().__init__(reduction)
        self.log_target = log_target

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return F.kl_div(input, target, reduction=self.reduction, log_target=self.log_target)


class FocalLoss(_Loss):
    """Binary cross-entropy of logits in which easy answers count less.

    Args:
        alpha: the weight of positive answers, 1 - alpha of negative ones; negative for none.
        gamma: how strongly easy answers are turned down.
        reduction: see above.

    Source: Lin et al. 2017, "Focal loss for dense object detection".
    """

    def __init__(self, alpha: float = 0.25, gamma: float = 2.0, reduction: str = "mean") -> None:
        super().__init__(reduction)
        self.alpha, self.gamma = alpha, gamma

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return F.sigmoid_focal_loss(
            input, target, alpha=self.alpha, gamma=self.gamma, reduction=self.reduction
        )


class CTCLoss(_Loss):
    """Connectionist temporal classification: labels without their alignment to the steps.

    Args:
        blank: the class that stands for no label.
        reduction: "mean" divides each loss by the length of its target first.
        zero_infinity: samples whose target cannot fit count nothing.

    Source: Graves et al. 2006, "Connectionist temporal classification".
    """

    def __init__(
        self, blank: int = 0, reduction: str = "mean", zero_infinity: bool = False
    ) -> None:
        super().__init__(reduction)
        self.blank, self.zero_infinity = blank, zero_infinity

    def forward(
        self, log_probs: Tensor, targets: Tensor, input_lengths: Any, target_lengths: Any
    ) -> Tensor:
        """Shape: log_probs (T, B, C), targets (B, S), lengths (B,)."""
        return F.ctc_loss(
            log_probs,
            targets,
            input_lengths,
            target_lengths,
            blank=self.blank,
            reduction=self.reduction,
            zero_infinity=self.zero_infinity,
        )


class CosineEmbeddingLoss(_Loss):
    """1 - cosine for pairs marked 1; the cosine above `margin` for pairs marked -1."""

    def __init__(self, margin: float = 0.0, reduction: str = "mean") -> None:
        super().__init__(reduction)
        self.margin = margin

    def forward(self, input1: Tensor, input2: Tensor, target: Tensor) -> Tensor:
        return F.cosine_embedding_loss(
            input1, input2, target, margin=self.margin, reduction=self.reduction
        )


class TripletMarginLoss(_Loss):
    """How much less than `margin` the negative is farther from the anchor than the positive.

    Args:
        margin: wanted difference of the distances.
        p: order of the norm.
        eps: added to differences.
        swap: use the positive as anchor where that is harder.
        reduction: see above.

    Source: Schroff et al. 2015, "FaceNet".
    """

    def __init__(
        self,
        margin: float = 1.0,
        p: float = 2.0,
        eps: float = 1e-6,
        swap: bool = False,
        reduction: str = "mean",
    ) -> None:
        super().__init__(reduction)
        self.margin, self.p, self.eps, self.swap = margin, p, eps, swap

    def forward(self, anchor: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
        return F.triplet_margin_loss(
            anchor,
            positive,
            negative,
            margin=self.margin,
            p=self.p,
            eps=self.eps,
            swap=self.swap,
            reduction=self.reduction,
        )


class InfoNCELoss(_Loss):
    """Cross-entropy of picking, for each query, its own key among all of the batch.

    Args:
        temperature: divides the cosines.
        symmetric: also pick, for each key, its own query, as CLIP does.
        reduction: see above.

    Source: van den Oord et al. 2018, "Contrastive predictive coding".
    """

    def __init__(
        self, temperature: float = 0.1, symmetric: bool = False, reduction: str = "mean"
    ) -> None:
        super().__init__(reduction)
        self.temperature, self.symmetric = temperature, symmetric

    def forward(self, query: Tensor, key: Tensor) -> Tensor:
        return F.info_nce(
            query,
            key,
            temperature=self.temperature,
            symmetric=self.symmetric,
            reduction=self.reduction,
        )


class CosineSimilarity(Module):
    """The cosine of the angle between two vectors, along an axis."""

    def __init__(self, axis: int = 1, eps: float = 1e-8) -> None:
        self.axis, self.eps = axis, eps

    def forward(self, x1: Tensor, x2: Tensor) -> Tensor:
        return F.cosine_similarity(x1, x2, axis=self.axis, eps=self.eps)


class PairwiseDistance(Module):
    """The distance between two vectors, along the last axis."""

    def __init__(self, p: float = 2.0, eps: float = 1e-6, keepdims: bool = False) -> None:
        self.p, self.eps, self.keepdims = p, eps, keepdims

    def forward(self, x1: Tensor, x2: Tensor) -> Tensor:
        return F.pairwise_distance(x1, x2, p=self.p, eps=self.eps, keepdims=self.keepdims)
