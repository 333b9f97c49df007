"""What RT-DETR is trained on: pairs of boxes and objects, and objects that were disturbed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..core.nn import functional as F
from ..core.ops.elementwise import abs as absolute
from ..core.ops.reduction import sum as total
from ..core.tensor import Tensor
from .boxes import Array, Boxes, box_giou, convert_boxes, paired_giou, paired_iou
from .matching import assign
from .set_detection import Detections, Figures, as_array, as_tensor

if TYPE_CHECKING:
    from .rtdetr import Config

Pairs = list[tuple[Array, Array]]
_WORST = 1e9  # the cost of a pair whose cost is not finite
_TINY = 1e-8


def sigmoid(x: Array) -> Array:
    """Of an array, without overflow."""
    return np.asarray(1 / (1 + np.exp(-np.clip(x, -80, 80))))


def match(output: Detections, targets: Sequence[Boxes], config: Config) -> Pairs:
    """For each picture, which of its answers belongs to which of its objects.

    Args:
        targets: boxes as parts of the picture, centre, width and height.
    """
    scores, boxes = sigmoid(as_array(output.logits)), as_array(output.pred_boxes)
    alpha, gamma = config.matcher_alpha, config.matcher_gamma
    pairs = []
    for score, box, target in zip(scores, boxes, targets, strict=True):
        chance = score[:, target.labels]
        cost = alpha * (1 - chance) ** gamma * -np.log(chance + _TINY)
        cost -= (1 - alpha) * chance**gamma * -np.log(1 - chance + _TINY)
        distance = np.abs(box[:, None] - target.boxes[None]).sum(axis=2)
        corners = (convert_boxes(b, "cxcywh", "xyxy") for b in (box, target.boxes))
        cost = config.matcher_class_cost * cost + config.matcher_bbox_cost * distance
        cost = cost - config.matcher_giou_cost * box_giou(*corners)
        pairs.append(assign(np.nan_to_num(cost, nan=_WORST, posinf=_WORST, neginf=_WORST)))
    return pairs


def layer_loss(
    output: Detections, targets: Sequence[Boxes], pairs: Pairs, count: float, config: Config
) -> tuple[Tensor, Figures]:
    """The loss of one layer's answers, and what it is made of.

    Classes have the varifocal loss: the answer wanted of a pair is how well its boxes overlap, and
    of everything else zero.

    Args:
        targets: boxes as parts of the picture, centre, width and height.
        pairs: of answers and objects.
        count: how many objects there are, which the sums are divided by.
    Source: Zhang et al. 2021, "VarifocalNet"; Zhao et al. 2024, "DETRs Beat YOLOs on Real-time
        Object Detection", section 4.3.
    """
    logits, boxes = output
    image = np.concatenate([np.full(len(rows), i) for i, (rows, _) in enumerate(pairs)])
    query = np.concatenate([rows for rows, _ in pairs])
    chosen = [(t.boxes[columns], t.labels[columns]) for t, (_, columns) in _both(targets, pairs)]
    there = np.concatenate([box for box, _ in chosen]).astype(np.float32)
    labels = np.concatenate([label for _, label in chosen])

    own = boxes[as_tensor(image, boxes), as_tensor(query, boxes)]
    aim = as_tensor(there, boxes)
    corners = [convert_boxes(b, "cxcywh", "xyxy") for b in (own, aim)]
    loss_l1 = total(absolute(own - aim)) / count
    loss_giou = total(1 - paired_giou(*corners)) / count

    wanted = np.zeros(logits.shape, np.float32)
    hit = np.zeros(logits.shape, np.float32)
    wanted[image, query, labels] = paired_iou(*(as_array(c) for c in corners))
    hit[image, query, labels] = 1
    chance = sigmoid(as_array(logits)) ** config.focal_loss_gamma
    weight = config.focal_loss_alpha * chance * (1 - hit) + wanted
    answer, heavy = as_tensor(wanted, logits), as_tensor(weight.astype(np.float32), logits)
    loss_class = F.binary_cross_entropy_with_logits(logits, answer, heavy, reduction="sum") / count
    loss = (
        loss_class * config.weight_loss_vfl
        + loss_l1 * config.weight_loss_bbox
        + loss_giou * config.weight_loss_giou
    )
    figures = {"class": loss_class.item(), "box": loss_l1.item(), "giou": loss_giou.item()}
    return loss, figures


def _both(targets: Sequence[Boxes], pairs: Pairs) -> Any:
    return zip(targets, pairs, strict=True)


# -- disturbed objects -------------------------------------------------------------------------


class Disturbed(NamedTuple):
    """Objects whose boxes and classes were changed, as queries beside the others.

    In each group come all objects, changed a little, then the same changed much: of the former the
    object is to be found again, of the latter nothing.

    Attributes:
        labels: a class, or the number of classes where a picture has fewer objects, (B, G).
        boxes: logits of centre, width and height, (B, G, 4).
        sees: which query sees which, first these and then the others, (G + Q, G + Q).
        pairs: of queries and objects, for each picture.
        groups: how often every object is there.
    """

    labels: Array
    boxes: Array
    sees: Array
    pairs: Pairs
    groups: int


def disturbed(targets: Sequence[Boxes], config: Config, rng: Any) -> Disturbed | None:
    """Queries made of the objects themselves; None if there are no objects.

    Args:
        targets: boxes as parts of the picture, centre, width and height.
        rng: NumPy's generator.
    Source: Zhang et al. 2023, "DINO: DETR with Improved DeNoising Anchor Boxes", section 3.3.
    """
    most = max(len(t) for t in targets)
    if not most or not config.num_denoising:
        return None
    batch, groups = len(targets), max(config.num_denoising // most, 1)
    shape = (batch, groups, 2, most)
    labels = np.full(shape, config.num_classes, np.int64)
    boxes = np.zeros((*shape, 4))
    real = np.zeros(shape, bool)
    for i, target in enumerate(targets):
        labels[i, ..., : len(target)] = target.labels
        boxes[i, ..., : len(target), :] = target.boxes
        real[i, ..., : len(target)] = True
    change = real & (rng.random(shape) < config.label_noise_ratio / 2)
    labels = np.where(change, rng.integers(0, config.num_classes, shape), labels)
    corners = convert_boxes(boxes, "cxcywh", "xyxy")
    half = np.concatenate([boxes[..., 2:], boxes[..., 2:]], axis=-1) / 2
    far = rng.random(boxes.shape) + np.array([0, 1])[:, None, None]
    sign = rng.integers(0, 2, boxes.shape) * 2 - 1
    corners = np.clip(corners + far * sign * half * config.box_noise_scale, 0, 1)
    near = np.clip(convert_boxes(corners, "xyxy", "cxcywh"), 0, 1)
    logits = np.log(np.maximum(near, 1e-5) / np.maximum(1 - near, 1e-5))

    each = 2 * most
    number = groups * each
    group = np.concatenate([np.arange(number) // each, np.full(config.num_queries, -1)])
    # A disturbed query sees its own group and the ordinary queries, and these only one another.
    sees = (group[:, None] == group[None]) | (group[None] == -1)
    starts = np.arange(groups)[:, None] * each
    pairs = [
        ((starts + np.arange(len(t))).reshape(-1), np.tile(np.arange(len(t)), groups))
        for t in targets
    ]
    flat = (batch, number)
    queries = logits.reshape(*flat, 4).astype(np.float32)
    return Disturbed(labels.reshape(flat), queries, sees, pairs, groups)
