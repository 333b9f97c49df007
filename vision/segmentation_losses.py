"""Losses for a class at every pixel, beside `nn.functional.cross_entropy`."""

from __future__ import annotations

from ..core.errors import ShapeError
from ..core.nn import functional as F
from ..core.ops.elementwise import clip, exp, where
from ..core.ops.reduction import sum as total
from ..core.ops.shape import permute_dims
from ..core.tensor import Tensor
from .segmentation_metrics import IGNORE


def dice_loss(
    logits: Tensor, target: Tensor, *, ignore_index: int = IGNORE, smooth: float = 1.0
) -> Tensor:
    """One less the overlap of predicted and true areas, the mean over the classes.

    Small classes count as much as large ones. A class that is neither there nor predicted has no
    loss.

    Args:
        ignore_index: pixels of this class count for nothing.
        smooth: added to both sides of the ratio, in pixels.

    Shape: logits (B, N, H, W), target (B, H, W), whole numbers; the result is a number.
    Source: Milletari et al. 2016, "V-Net", with the sizes of areas not squared.
    """
    valid, classes = _checked("dice_loss", logits, target, ignore_index)
    probabilities = F.softmax(logits, axis=1) * valid[:, None]
    hot = permute_dims(F.one_hot(classes, logits.shape[1]), (0, 3, 1, 2))
    hot = hot.astype(logits.dtype) * valid[:, None]
    both = total(probabilities * hot, axis=(0, 2, 3))
    areas = total(probabilities + hot, axis=(0, 2, 3))
    return (1 - (2 * both + smooth) / (areas + smooth)).mean()


def focal_loss(
    logits: Tensor, target: Tensor, *, gamma: float = 2.0, ignore_index: int = IGNORE
) -> Tensor:
    """Cross-entropy that turns away from pixels which are already right.

    Args:
        gamma: how strongly; 0 gives cross-entropy.
        ignore_index: pixels of this class count for nothing.

    Shape: logits (B, N, H, W), target (B, H, W), whole numbers; the result is a number.
    Source: Lin et al. 2017, "Focal loss for dense object detection", for one class of several.
    """
    valid, _ = _checked("focal_loss", logits, target, ignore_index)
    loss = F.cross_entropy(logits, target, ignore_index=ignore_index, reduction="none")
    return total(loss * (1 - exp(-loss)) ** gamma) / clip(total(valid), 1)


def _checked(what: str, logits: Tensor, target: Tensor, ignore_index: int) -> tuple[Tensor, Tensor]:
    """Which pixels count (as numbers), and their classes, with 0 for those that do not."""
    shape = logits.shape
    if logits.ndim != 4 or target.shape != (shape[0], *shape[2:]):
        raise ShapeError(
            f"{what}: logits (B, N, H, W) and classes (B, H, W) are wanted, got {shape} and "
            f"{target.shape}.\nLogits at a lower resolution are resized first: F.interpolate(logits"
            ', size=target.shape[1:], mode="bilinear")',
            logits=shape,
            target=target.shape,
        )
    counts = target != ignore_index
    return counts.astype(logits.dtype), where(counts, target, 0)
