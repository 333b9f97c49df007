"""FCOS. Tian et al. 2019, "FCOS: Fully Convolutional One-Stage Object Detection".

Every place of the feature maps says of each class whether it lies inside an object of it, how far
the edges of that object are, and how near to its middle it is. No anchors, and small enough to be
trained from nothing on one core.
Weights: fcos-shapes is bundled, and knows coloured shapes; none are published for these sizes.
Deviations from the paper: a small ResNet, two or three maps instead of five; distances are
trained with generalised IoU, and places outside the middle of an object belong to nobody (as the
authors' later versions do); boxes are ranked by the root of class times centre.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from ..core import nn
from ..core.errors import ConfigError
from ..core.nn import functional as F
from ..core.ops.elementwise import exp
from ..core.ops.reduction import sum as total
from ..core.ops.shape import concat, permute_dims, reshape, stack
from ..core.tensor import Tensor
from ..hub.configuration import positive, real
from ..hub.registry import Bundled, Entry, Metric, register
from . import resnet
from .boxes import Array, Boxes, batched_nms, paired_giou
from .feature_pyramid import top_down
from .inputs import check_images

Size = tuple[int, int]
NAME = "FCOS"
MOST = 100  # boxes of a picture


@dataclass(frozen=True)
class Config:
    """The defaults are FCOS-tiny.

    Args:
        depths, hidden_sizes, layer_type, embedding_size: of the ResNet; see `resnet.Config`.
        levels: how many of its last maps are looked at.
        width: channels of the maps that the heads see.
        head_depth: convolutions of each head.
        radius: how far from the middle of an object a place may be, in steps of its map.
        iou_threshold: boxes of one class that overlap a better one by more are left out.
        in_channels, num_classes: of the pictures and of the head.
    """

    depths: tuple[int, ...] = (1, 1, 1, 1)
    hidden_sizes: tuple[int, ...] = (16, 32, 64, 96)
    layer_type: str = "basic"
    embedding_size: int = 16
    levels: int = 3
    width: int = 48
    head_depth: int = 1
    radius: float = 1.5
    iou_threshold: float = 0.6
    in_channels: int = 3
    num_classes: int = 80

    def __post_init__(self) -> None:
        sizes = ("levels", "width", "head_depth", "in_channels", "num_classes")
        positive(NAME, **{key: getattr(self, key) for key in sizes})
        real(NAME, 0.1, 100, radius=self.radius)
        real(NAME, iou_threshold=self.iou_threshold)
        if self.levels > len(self.backbone.depths):
            raise ConfigError(f"{NAME}: {self.levels} levels of {len(self.depths)} stages")

    @property
    def backbone(self) -> resnet.Config:
        """Of the ResNet."""
        return resnet.trunk_of(self)

    @property
    def strides(self) -> tuple[int, ...]:
        """Pixels between the places of each map."""
        stages = len(self.depths)
        return tuple(4 * 2**i for i in range(stages - self.levels, stages))


class Output(NamedTuple):
    """What every place says, those of all maps one after the other.

    Attributes:
        logits: of every class, (B, P, N).
        distances: to the left, upper, right and lower edge, in pixels, (B, P, 4).
        centre: logit of how near the middle of the object is, (B, P).
        places: horizontal, vertical, in pixels, and the pixels between them, (P, 3).
    """

    logits: Tensor
    distances: Tensor
    centre: Tensor
    places: Array


class Pyramid(nn.Module):
    """Maps of several resolutions, each told what the coarser ones see.

    Source: Lin et al. 2017, "Feature pyramid networks for object detection".
    """

    def __init__(self, inputs: Sequence[int], width: int) -> None:
        self.inner = [nn.Conv2d(n, width, 1) for n in inputs]
        self.outer = [nn.Conv2d(width, width, 3, padding=1) for _ in inputs]

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Shape: (B, C_i, H_i, W_i) for each -> (B, width, H_i, W_i), the finest first."""
        return top_down(self.inner, self.outer, maps)


def _tower(config: Config) -> nn.Sequential:
    parts: list[nn.Module] = []
    for _ in range(config.head_depth):
        conv = nn.Conv2d(config.width, config.width, 3, padding=1, bias=False)
        parts += [conv, nn.GroupNorm(math.gcd(8, config.width), config.width), nn.ReLU()]
    return nn.Sequential(*parts)


class ClassHead(nn.Conv2d):
    """The convolution that names classes; at first every place says "nothing is here"."""

    def __init__(self, width: int, classes: int) -> None:
        super().__init__(width, classes, 3, padding=1)

    def reset_parameters(self) -> None:
        """Draw new initial values; the bias says a probability of 1 %.

        Source: Lin et al. 2017, "Focal loss for dense object detection", section 4.1.
        """
        nn.init.normal_(self.weight, std=0.01)
        if self.bias is not None:
            nn.init.constant_(self.bias, -math.log(99))


class FCOS(nn.Module):
    """A ResNet, a feature pyramid, and two heads that every map shares."""

    takes_mask = False

    def __init__(self, config: Config) -> None:
        self.config = config
        self.backbone = resnet.ResNet(config.backbone)
        del self.backbone.fc
        self.pyramid = Pyramid(config.hidden_sizes[-config.levels :], config.width)
        self.class_tower = _tower(config)
        self.box_tower = _tower(config)
        self.classifier = ClassHead(config.width, config.num_classes)
        self.box_predictor = nn.Conv2d(config.width, 5, 3, padding=1)

    def forward(self, pixel_values: Tensor, pixel_mask: Tensor | None = None) -> Output:
        """What every place says.

        Args:
            pixel_mask: not used.
        Shape:
            (B, in_channels, H, W) -> (B, P, N), (B, P, 4), (B, P), (P, 3)
        """
        check_images(pixel_values, self.config.in_channels)
        maps = self.backbone.feature_maps(pixel_values)[-self.config.levels :]
        logits, boxes, places = [], [], []
        for x, stride in zip(self.pyramid(maps), self.config.strides, strict=True):
            logits.append(_flat(self.classifier(self.class_tower(x))))
            raw = _flat(self.box_predictor(self.box_tower(x)))
            # At first an edge is two steps away; no further than e**4 times that.
            scaled = exp(F.hardtanh(raw[..., :4], -4.0, 4.0)) * (2.0 * stride)
            boxes.append(concat([scaled, raw[..., 4:]], axis=-1))
            places.append(_places(x.shape[2:], stride))
        said = concat(boxes, axis=1)
        return Output(concat(logits, axis=1), said[..., :4], said[..., 4], np.concatenate(places))

    def found(self, output: Output, sizes: Sequence[Size]) -> list[Boxes]:
        """The best boxes of each picture, in pixels.

        Args:
            sizes: height and width of each picture, without padding.
        """
        scores, centre = (_sigmoid(_array(x)) for x in (output.logits, output.centre))
        distances = _array(output.distances)
        result = []
        for score, near, distance in zip(scores, centre, distances, strict=True):
            rank = np.sqrt(score * near[:, None])
            best = np.argsort(-rank.reshape(-1), kind="stable")[:1000]
            best = best[rank.reshape(-1)[best] > 0.01]
            place, label = np.divmod(best, rank.shape[1])
            boxes = _edges(output.places[place], distance[place])
            kept = batched_nms(boxes, rank[place, label], label, self.config.iou_threshold)[:MOST]
            place, label = place[kept], label[kept]
            result.append(Boxes(boxes[kept], label, scores=rank[place, label]))
        return result

    def loss(
        self,
        pixel_values: Tensor,
        pixel_mask: Tensor | None,
        targets: Sequence[Boxes],
        sizes: Sequence[Size],
    ) -> tuple[Tensor, dict[str, float]]:
        """The loss of a batch, and what it is made of.

        Args:
            targets: what is there, in pixels.
        """
        output = self(pixel_values)
        owners = [owner_of(output.places, boxes, self.config) for boxes in targets]
        owned = np.stack([owner >= 0 for owner in owners])
        count = max(int(owned.sum()), 1)
        wanted = np.zeros(output.logits.shape, np.float32)
        for i, (owner, boxes) in enumerate(zip(owners, targets, strict=True)):
            places = np.flatnonzero(owner >= 0)
            wanted[i, places, boxes.labels[owner[places]]] = 1
        classes = F.sigmoid_focal_loss(output.logits, _like(wanted, output.logits))
        loss_class = total(classes) / count
        image, place = np.nonzero(owned)
        if not len(image):
            return loss_class, {"class": loss_class.item(), "giou": 0.0, "centre": 0.0}
        aims = np.concatenate(
            [t.boxes[owner[owner >= 0]] for t, owner in zip(targets, owners, strict=True)]
        )
        here = output.places[place]
        rows, columns = (Tensor(x).to(pixel_values.device) for x in (image, place))
        said = _edges(_like(here, output.distances), output.distances[rows, columns])
        far = np.stack([here[:, 0] - aims[:, 0], here[:, 1] - aims[:, 1]], axis=1)
        back = np.stack([aims[:, 2] - here[:, 0], aims[:, 3] - here[:, 1]], axis=1)
        low, high = np.minimum(far, back).clip(0), np.maximum(far, back)
        near = np.sqrt((low / high).prod(axis=1)).astype(np.float32)
        weight = _like(near / near.sum(), output.centre)
        overlap = paired_giou(said, _like(aims, output.distances))
        loss_box = total((1 - overlap) * weight)
        loss_centre = F.binary_cross_entropy_with_logits(
            output.centre[rows, columns], _like(near, output.centre)
        )
        loss = loss_class + loss_box + loss_centre
        parts = {"class": loss_class, "giou": loss_box, "centre": loss_centre}
        return loss, {name: part.item() for name, part in parts.items()}


def owner_of(places: Array, boxes: Boxes, config: Config) -> Array:
    """For each place, the object that it answers for; -1 for none.

    It lies inside the object and near its middle, the object is of the size that its map is for,
    and it is the smallest of those.
    """
    if not len(boxes):
        return np.full(len(places), -1)
    edges = boxes.boxes[None]
    x, y, stride = (places[:, i : i + 1] for i in range(3))
    sides = np.stack([x - edges[..., 0], y - edges[..., 1], edges[..., 2] - x, edges[..., 3] - y])
    reach = config.radius * stride
    middle = np.abs(x - (edges[..., 0] + edges[..., 2]) / 2) <= reach
    middle &= np.abs(y - (edges[..., 1] + edges[..., 3]) / 2) <= reach
    # Maps take turns at longest sides of 4 to 8 steps; the first and the last take the rest.
    furthest = sides.max(axis=0)
    low = np.where(stride == config.strides[0], 0, 4 * stride)
    high = np.where(stride == config.strides[-1], np.inf, 8 * stride)
    fits = (sides.min(axis=0) > 0) & middle & (furthest >= low) & (furthest < high)
    area = (edges[..., 2] - edges[..., 0]) * (edges[..., 3] - edges[..., 1])
    size = np.where(fits, area, np.inf)
    owner = size.argmin(axis=1)
    return np.where(np.isfinite(size.min(axis=1)), owner, -1)


def _edges(places: Any, distances: Any) -> Any:
    """Boxes of places and distances to edges."""
    x, y = places[..., 0], places[..., 1]
    left, upper, right, lower = (distances[..., i] for i in range(4))
    parts = [x - left, y - upper, x + right, y + lower]
    return stack(parts, axis=-1) if isinstance(left, Tensor) else np.stack(parts, axis=-1)


def _places(size: tuple[int, ...], stride: int) -> Array:
    rows, columns = np.divmod(np.arange(size[0] * size[1]), size[1])
    middle = stride / 2
    steps = np.full(len(rows), stride)
    return np.stack([columns * stride + middle, rows * stride + middle, steps], axis=1)


def _flat(x: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, H * W, C)."""
    b, c, h, w = x.shape
    return permute_dims(reshape(x, (b, c, h * w)), (0, 2, 1))


def _array(x: Tensor) -> Array:
    return np.asarray(x.detach().cpu().array, np.float32)


def _like(array: Array, tensor: Tensor) -> Tensor:
    return Tensor(np.asarray(array, np.float32)).to(device=tensor.device, dtype=tensor.dtype)


def _sigmoid(x: Array) -> Array:
    return np.asarray(1 / (1 + np.exp(-np.clip(x, -60, 60))))


@register(
    "fcos",
    config=Config,
    task="object-detection",
    head=("classifier",),
    stem="backbone.conv1.weight",
    entries=[
        Entry(
            name="fcos-tiny",
            sources=(),
            config={},
            license="Apache-2.0",
            commercial=True,
            parameters=374_453,
            preprocess={"shortest": 128, "longest": 160, "multiple": 32},
            paper="https://arxiv.org/abs/1904.01355",
            note="untrained: bt.load('fcos-tiny', weights=False), then finetune",
        ),
        Entry(
            name="fcos-shapes",
            sources=(Bundled("vision/assets/fcos-shapes"),),
            config={"num_classes": 3},
            license="Apache-2.0",
            commercial=True,
            parameters=341_112,
            preprocess={"shortest": 128, "longest": 160, "multiple": 32},
            metric=Metric("box AP", 78.7, "write_shapes(100, seed=99)", 128, "docs/detection.md"),
            paper="https://arxiv.org/abs/1904.01355",
            note="circles, squares and triangles; trained by this library, see docs/detection.md",
        ),
    ],
)
def fcos(config: Config) -> FCOS:
    """FCOS for object detection."""
    return FCOS(config)
