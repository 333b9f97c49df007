"""Detectors that give a fixed number of boxes, each used at most once: DETR and its relatives.

Each box has logits of every class and, but for RT-DETR, of "no object", the last one. Training
pairs boxes with objects so that the total cost is least; boxes without an object learn to say so.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from ..core import nn
from ..core.nn import functional as F
from ..core.ops.elementwise import abs as absolute
from ..core.ops.reduction import sum as total
from ..core.tensor import Tensor
from .boxes import Array, Boxes, box_giou, convert_boxes, paired_giou
from .image_task import softmax
from .matching import assign

Size = tuple[int, int]
Figures = dict[str, float]
_WORST = 1e9  # the cost of a pair whose cost is not finite


class Detections(NamedTuple):
    """What the network says.

    Attributes:
        logits: of every class, and of "no object" last, (B, Q, N + 1); RT-DETR has no such class.
        pred_boxes: centre, width and height, as parts of the picture, (B, Q, 4).
    """

    logits: Tensor
    pred_boxes: Tensor


class BoxHead(nn.Module):
    """Linear maps with ReLU between them.

    Shape:
        (..., width) -> (..., outputs)
    """

    def __init__(self, width: int, outputs: int, depth: int = 3) -> None:
        sizes = [width] * depth + [outputs]
        self.layers = [nn.Linear(a, b) for a, b in pairwise(sizes)]

    def reset_parameters(self) -> None:
        """Draw new initial values."""
        for layer in self.layers:
            layer.reset_parameters()

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers[:-1]:
            x = F.relu(layer(x))
        out: Tensor = self.layers[-1](x)
        return out


class SetDetector(nn.Module):
    """What these detectors share: answers as boxes, and the loss.

    A subclass has a `config` with the weights of costs and losses, and `layers_say`.
    """

    takes_mask = False  # whether pictures of different sizes go into one batch
    config: Any

    def layers_say(self, pixel_values: Tensor, pixel_mask: Tensor | None) -> list[Detections]:
        """What every layer with answers says, the last one last."""
        raise TypeError(f"{type(self).__name__} does not say how it finds boxes")

    def found(self, output: Detections, sizes: Sequence[Size]) -> list[Boxes]:
        """All boxes of each picture with their best class, in pixels.

        Args:
            sizes: height and width of each picture, without padding.
        """
        scores = softmax(as_array(output.logits))[..., :-1]
        boxes = convert_boxes(as_array(output.pred_boxes), "cxcywh", "xyxy")
        result = []
        for score, box, (height, width) in zip(scores, boxes, sizes, strict=True):
            edges = box * np.array([width, height, width, height])
            result.append(Boxes(edges, score.argmax(axis=1), scores=score.max(axis=1)))
        return result

    def loss(
        self,
        pixel_values: Tensor,
        pixel_mask: Tensor | None,
        targets: Sequence[Boxes],
        sizes: Sequence[Size],
    ) -> tuple[Tensor, Figures]:
        """The loss of a batch, and what it is made of.

        Args:
            targets: what is there, in pixels.
            sizes: height and width of each picture, without padding.
        """
        wanted = [relative_boxes(boxes, size) for boxes, size in zip(targets, sizes, strict=True)]
        layers = self.layers_say(pixel_values, pixel_mask)
        if not getattr(self.config, "auxiliary_loss", False):
            layers = layers[-1:]
        losses = [set_loss(output, wanted, self.config) for output in layers]
        loss = losses[-1][0]
        for other, _ in losses[:-1]:
            loss = loss + other
        return loss, losses[-1][1]


def set_loss(output: Detections, targets: Sequence[Boxes], config: Any) -> tuple[Tensor, Figures]:
    """The loss of one layer's answers.

    Args:
        targets: boxes as parts of the picture, centre, width and height.
        config: the weights of costs and losses.
    Source: Carion et al. 2020, "End-to-end object detection with transformers", section 3.1.
    """
    logits, boxes = output
    batch, queries, classes = logits.shape
    pairs = match(output, targets, config)
    image = np.concatenate([np.full(len(rows), i) for i, (rows, _) in enumerate(pairs)])
    query = np.concatenate([rows for rows, _ in pairs])
    ids = np.full((batch, queries), classes - 1, np.int64)
    ids[image, query] = np.concatenate(
        [t.labels[columns] for t, (_, columns) in zip(targets, pairs, strict=True)]
    )
    weight = np.ones(classes, np.float32)
    weight[-1] = config.eos_coefficient
    flat = logits.reshape((batch * queries, classes))
    loss_class = F.cross_entropy(
        flat, as_tensor(ids.reshape(-1), logits), as_tensor(weight, logits)
    )
    count = max(sum(len(t) for t in targets), 1)
    chosen = boxes[as_tensor(image, boxes), as_tensor(query, boxes)]
    there = np.concatenate(
        [t.boxes[columns] for t, (_, columns) in zip(targets, pairs, strict=True)]
    )
    aim = as_tensor(there.astype(np.float32), boxes)
    loss_l1 = total(absolute(chosen - aim)) / count
    corners = (convert_boxes(chosen, "cxcywh", "xyxy"), convert_boxes(aim, "cxcywh", "xyxy"))
    loss_giou = total(1 - paired_giou(*corners)) / count
    loss = (
        loss_class
        + loss_l1 * config.bbox_loss_coefficient
        + loss_giou * config.giou_loss_coefficient
    )
    figures = {"class": loss_class.item(), "box": loss_l1.item(), "giou": loss_giou.item()}
    return loss, figures


def match(output: Detections, targets: Sequence[Boxes], config: Any) -> list[tuple[Array, Array]]:
    """For each picture, which of its answers belongs to which of its objects."""
    scores, boxes = softmax(as_array(output.logits)), as_array(output.pred_boxes)
    pairs = []
    for score, box, target in zip(scores, boxes, targets, strict=True):
        distance = np.abs(box[:, None] - target.boxes[None]).sum(axis=2)
        corners = (convert_boxes(b, "cxcywh", "xyxy") for b in (box, target.boxes))
        cost = config.bbox_cost * distance - config.class_cost * score[:, target.labels]
        cost = cost - config.giou_cost * box_giou(*corners)
        pairs.append(assign(np.nan_to_num(cost, nan=_WORST, posinf=_WORST, neginf=_WORST)))
    return pairs


def relative_boxes(boxes: Boxes, size: Size) -> Boxes:
    """Boxes in pixels as parts of the picture: centre, width, height."""
    height, width = size
    parts = boxes.boxes / np.array([width, height, width, height])
    return Boxes(convert_boxes(parts, "xyxy", "cxcywh"), boxes.labels)


def as_array(x: Tensor) -> Array:
    return np.asarray(x.detach().cpu().array, np.float32)


def as_tensor(array: Array, tensor: Tensor) -> Tensor:
    """An array on the device of a tensor, and floating values in its dtype."""
    kind = tensor.dtype if array.dtype.kind == "f" else None
    return Tensor(array).to(device=tensor.device, dtype=kind)
