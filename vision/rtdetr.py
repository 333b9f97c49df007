"""RT-DETR. Zhao et al. 2024, "DETRs Beat YOLOs on Real-time Object Detection".

Also RT-DETRv2 (Lv et al. 2024), whose published models differ in how they were trained alone.
Weights: PekingU/rtdetr_r18vd, _r34vd, _r50vd, _r101vd, some with _coco_o365, and rtdetr_v2_* of the
same sizes (Apache-2.0); any repository in the layout of transformers whose backbone is a ResNet
loads by its id.
Deviation from the paper: none; pictures of any size are taken, also where a map is not twice as
large as the next.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..core import nn, random
from ..core.errors import ConfigError, ShapeError
from ..core.nn import functional as F
from ..core.ops.indexing import take_along_axis
from ..core.ops.reduction import max as largest
from ..core.ops.shape import concat, permute_dims, reshape
from ..core.ops.sorting import topk
from ..core.tensor import Tensor
from ..hub.configuration import expect, flags, natural, positive, real
from ..hub.registry import Entry, Hub, Layout, Metric, register
from .boxes import Boxes, convert_boxes
from .inputs import check_images
from .rtdetr_backbone import ResNetD
from .rtdetr_decoder import ClassHead, Decoder, StillBoxHead, anchors_of
from .rtdetr_encoder import LAYERS, HybridEncoder
from .rtdetr_layouts import ACTS, NAME, RATES, RENAME, SIZES, WEIGHTS, from_transformers
from .rtdetr_loss import Pairs, disturbed, layer_loss, match, sigmoid
from .set_detection import (
    Detections,
    Figures,
    SetDetector,
    Size,
    as_array,
    as_tensor,
    relative_boxes,
)


@dataclass(frozen=True)
class Config:
    """Field names as in transformers' config.json; the defaults are RT-DETR-R50.

    Args:
        depths, hidden_sizes, layer_type, embedding_size: of the ResNet; see `resnet.Config`.
        levels: how many of its last maps are looked at.
        freeze_backbone_batch_norms: those of the ResNet never learn.
        encoder_hidden_dim: channels of the maps.
        encode_proj_layers: the maps within which all places look at one another.
        positional_encoding_temperature: the longest wave of their positions.
        hidden_expansion: channels of the convolutions between maps, as a part of the maps'.
        d_model: features of the decoder.
        num_queries: boxes that are found in each picture.
        decoder_n_points: places of each map that a head looks at.
        decoder_offset_scale: how far these are from the middle of a box, in boxes.
        num_denoising: queries made of the objects themselves, in training; 0 for none.
        label_noise_ratio: twice the share of these whose class is changed.
        box_noise_scale: by how much their edges are moved, in halves of the box.
        auxiliary_loss: whether every layer of the decoder is trained to find the boxes.
        matcher_class_cost, matcher_bbox_cost, matcher_giou_cost, matcher_alpha, matcher_gamma: of
            pairing a box with an object.
        weight_loss_vfl, weight_loss_bbox, weight_loss_giou, focal_loss_alpha, focal_loss_gamma: of
            the loss.
        in_channels, num_classes: of the pictures and of the head.
    """

    depths: tuple[int, ...] = (3, 4, 6, 3)
    hidden_sizes: tuple[int, ...] = (256, 512, 1024, 2048)
    layer_type: str = "bottleneck"
    embedding_size: int = 64
    levels: int = 3
    freeze_backbone_batch_norms: bool = True
    encoder_hidden_dim: int = 256
    encoder_layers: int = 1
    encoder_attention_heads: int = 8
    encoder_ffn_dim: int = 1024
    encode_proj_layers: tuple[int, ...] = (2,)
    encoder_activation_function: str = "gelu"
    positional_encoding_temperature: float = 10_000
    hidden_expansion: float = 1.0
    activation_function: str = "silu"
    d_model: int = 256
    num_queries: int = 300
    decoder_layers: int = 6
    decoder_attention_heads: int = 8
    decoder_ffn_dim: int = 1024
    decoder_n_points: int = 4
    decoder_offset_scale: float = 0.5
    decoder_activation_function: str = "relu"
    dropout: float = 0.0
    attention_dropout: float = 0.0
    activation_dropout: float = 0.0
    layer_norm_eps: float = 1e-5
    batch_norm_eps: float = 1e-5
    num_denoising: int = 100
    label_noise_ratio: float = 0.5
    box_noise_scale: float = 1.0
    auxiliary_loss: bool = True
    matcher_class_cost: float = 2
    matcher_bbox_cost: float = 5
    matcher_giou_cost: float = 2
    matcher_alpha: float = 0.25
    matcher_gamma: float = 2
    weight_loss_vfl: float = 1
    weight_loss_bbox: float = 5
    weight_loss_giou: float = 2
    focal_loss_alpha: float = 0.75
    focal_loss_gamma: float = 2
    in_channels: int = 3
    num_classes: int = 80

    def __post_init__(self) -> None:
        trunk = ("depths", "hidden_sizes", "embedding_size", "levels")
        sizes = (*SIZES, *trunk, "in_channels", "num_classes")
        positive(NAME, **{key: getattr(self, key) for key in sizes})
        natural(NAME, encoder_layers=self.encoder_layers, num_denoising=self.num_denoising)
        real(NAME, **{key: getattr(self, key) for key in RATES})
        real(NAME, 0, 1e6, **{key: getattr(self, key) for key in WEIGHTS})
        real(NAME, 1, 1e9, positional_encoding_temperature=self.positional_encoding_temperature)
        real(NAME, 0, 64, hidden_expansion=self.hidden_expansion)
        positive(NAME, hidden_expansion=self.fusion_width)
        flags(NAME, freeze=self.freeze_backbone_batch_norms, auxiliary_loss=self.auxiliary_loss)
        for key in ACTS:
            expect({key: getattr(self, key)}, NAME, **{key: tuple(LAYERS)})
        expect({"layer_type": self.layer_type}, NAME, layer_type=("basic", "bottleneck"))
        self._check_trunk()
        heads, inner = self.encoder_attention_heads, self.encoder_hidden_dim
        if self.d_model % self.decoder_attention_heads or inner % 4 or inner % heads:
            raise ConfigError(
                f"{NAME}: d_model={self.d_model} must be a multiple of decoder_attention_heads="
                f"{self.decoder_attention_heads}, and encoder_hidden_dim={inner} of 4 and of "
                f"encoder_attention_heads={heads}."
            )
        places = self.encode_proj_layers
        if not all(type(i) is int and 0 <= i < self.levels for i in places):
            raise ConfigError(
                f"{NAME}: encode_proj_layers={places} are numbers of the {self.levels} maps."
            )

    def _check_trunk(self) -> None:
        basic = self.layer_type == "basic"
        if len(self.depths) != len(self.hidden_sizes) or self.levels > len(self.depths):
            raise ConfigError(
                f"{NAME}: depths {self.depths} and hidden_sizes {self.hidden_sizes} have one "
                f"number for each stage, and of levels there are no more ({self.levels})."
            )
        if self.embedding_size < 2 or (basic and self.embedding_size != self.hidden_sizes[0]):
            raise ConfigError(
                f"{NAME}: embedding_size={self.embedding_size} is at least 2, and with layer_type="
                f"'basic' that of hidden_sizes={self.hidden_sizes} which comes first."
            )
        if not basic and min(self.hidden_sizes) < 4:
            raise ConfigError(f"{NAME}: hidden_sizes={self.hidden_sizes} are at least 4.")

    @property
    def fusion_width(self) -> int:
        """Channels of the convolutions between maps."""
        return int(self.encoder_hidden_dim * self.hidden_expansion)


class RTDETR(SetDetector):
    """A ResNet, an encoder of its last maps, and queries that begin at the best places of these."""

    config: Config

    def __init__(self, config: Config) -> None:
        self.config = config
        inner, width, classes = config.encoder_hidden_dim, config.d_model, config.num_classes
        self.backbone = ResNetD(
            depths=config.depths,
            hidden_sizes=config.hidden_sizes,
            layer_type=config.layer_type,
            embedding_size=config.embedding_size,
            in_channels=config.in_channels,
            freeze=config.freeze_backbone_batch_norms,
        )
        self.encoder_input_proj = nn.ModuleList(
            [_projection(n, inner) for n in config.hidden_sizes[-config.levels :]]
        )
        self.encoder = HybridEncoder(config)
        self.decoder_input_proj = nn.ModuleList(
            [_projection(inner, width, config.batch_norm_eps) for _ in range(config.levels)]
        )
        self.enc_output = nn.Sequential(
            nn.Linear(width, width), nn.LayerNorm(width, eps=config.layer_norm_eps)
        )
        self.enc_score_head = ClassHead(width, classes)
        self.enc_bbox_head = StillBoxHead(width)
        self.denoising_class_embed: nn.Embedding | None = None
        if config.num_denoising:
            self.denoising_class_embed = nn.Embedding(classes + 1, width, padding_idx=classes)
        self.decoder = Decoder(config)

    # -- answers ---------------------------------------------------------------------------------

    def forward(self, pixel_values: Tensor, pixel_mask: Tensor | None = None) -> Detections:
        """Logits and boxes of every query; there is no class for "nothing".

        Args:
            pixel_mask: not used; the published model does not see it either.
        Shape:
            (B, in_channels, H, W) -> (B, Q, num_classes), (B, Q, 4)
        """
        memory, sizes = self._remember(pixel_values)
        x, boxes, _ = self._chosen(memory, sizes)
        said: list[Detections] = self.decoder(x, boxes, memory, sizes, last=True)
        return said[-1]

    def layers_say(self, pixel_values: Tensor, pixel_mask: Tensor | None) -> list[Detections]:
        """What the encoder says of the places chosen, and then every layer of the decoder."""
        memory, sizes = self._remember(pixel_values)
        x, boxes, first = self._chosen(memory, sizes)
        return [first, *self.decoder(x, boxes, memory, sizes)]

    def found(self, output: Detections, sizes: Sequence[Size]) -> list[Boxes]:
        """The best pairs of box and class of each picture, in pixels, as many as queries.

        Args:
            sizes: height and width of each picture, without padding.
        """
        scores = sigmoid(as_array(output.logits))
        boxes = convert_boxes(as_array(output.pred_boxes), "cxcywh", "xyxy")
        result = []
        for score, box, (height, width) in zip(scores, boxes, sizes, strict=True):
            queries, classes = score.shape
            best = np.argsort(-score.reshape(-1), kind="stable")[:queries]
            edges = box[best // classes] * np.array([width, height, width, height])
            result.append(Boxes(edges, best % classes, scores=score.reshape(-1)[best]))
        return result

    # -- training --------------------------------------------------------------------------------

    def loss(
        self,
        pixel_values: Tensor,
        pixel_mask: Tensor | None,
        targets: Sequence[Boxes],
        sizes: Sequence[Size],
    ) -> tuple[Tensor, Figures]:
        """The loss of a batch, and what that of the last layer is made of.

        In training mode, queries made of the objects are to find them again beside the others.

        Args:
            targets: what is there, in pixels.
            sizes: height and width of each picture, without padding.
        """
        config = self.config
        wanted = [relative_boxes(boxes, size) for boxes, size in zip(targets, sizes, strict=True)]
        count = max(sum(len(t) for t in wanted), 1)
        memory, shapes = self._remember(pixel_values)
        x, boxes, first = self._chosen(memory, shapes)
        embed, extra = self.denoising_class_embed, None
        if self.training and embed is not None:
            extra = disturbed(wanted, config, random.numpy_rng())
        again: list[Detections] = []
        pairs: Pairs = []
        if extra is None or embed is None:
            layers = self.decoder(x, boxes, memory, shapes)
        else:
            x = concat([embed(as_tensor(extra.labels, x)), x], axis=1)
            boxes = concat([as_tensor(extra.boxes, x), boxes], axis=1)
            sees = as_tensor(extra.sees[None, None], x)
            joined = self.decoder(x, boxes, memory, shapes, sees)
            number, pairs = extra.labels.shape[1], extra.pairs
            again = [Detections(*(part[:, :number] for part in layer)) for layer in joined]
            layers = [Detections(*(part[:, number:] for part in layer)) for layer in joined]
        last = layers[-1]
        loss, figures = layer_loss(last, wanted, match(last, wanted, config), count, config)
        if config.auxiliary_loss:
            for layer in (first, *layers[:-1]):
                own = match(layer, wanted, config)
                loss = loss + layer_loss(layer, wanted, own, count, config)[0]
            for layer in again:
                several = count * (extra.groups if extra is not None else 1)
                loss = loss + layer_loss(layer, wanted, pairs, several, config)[0]
        return loss, figures

    # -- inner workings --------------------------------------------------------------------------

    def _remember(self, pixel_values: Tensor) -> tuple[Tensor, list[Size]]:
        """All places of all maps, (B, S, D), and height and width of each map."""
        config = self.config
        check_images(pixel_values, config.in_channels)
        maps = self.backbone(pixel_values)[-config.levels :]
        maps = [project(x) for project, x in zip(self.encoder_input_proj, maps, strict=True)]
        maps = self.encoder(maps)
        maps = [project(x) for project, x in zip(self.decoder_input_proj, maps, strict=True)]
        sizes = [(x.shape[2], x.shape[3]) for x in maps]
        places = sum(h * w for h, w in sizes)
        if places < config.num_queries:
            raise ShapeError(
                f"{NAME}: a picture of {pixel_values.shape[2]} x {pixel_values.shape[3]} has "
                f"{places} places, fewer than the {config.num_queries} queries that begin there.\n"
                "Use larger pictures.",
                expected=config.num_queries,
                got=places,
            )
        rows = [permute_dims(reshape(x, (*x.shape[:2], -1)), (0, 2, 1)) for x in maps]
        return concat(rows, axis=1), sizes

    def _chosen(self, memory: Tensor, sizes: list[Size]) -> tuple[Tensor, Tensor, Detections]:
        """The queries, their boxes as logits, and what the encoder says of these places."""
        anchors, inside = (as_tensor(array, memory) for array in anchors_of(sizes))
        seen = self.enc_output(memory * inside)
        logits = self.enc_score_head(seen)
        boxes = self.enc_bbox_head(seen) + anchors
        best = topk(largest(logits.detach(), axis=-1), self.config.num_queries, axis=1).indices
        best = best[..., None]
        boxes = take_along_axis(boxes, best, axis=1)
        x = take_along_axis(seen, best, axis=1).detach()
        first = Detections(take_along_axis(logits, best, axis=1), F.sigmoid(boxes))
        return x, boxes.detach(), first


def _projection(inputs: int, outputs: int, eps: float = 1e-5) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs, eps=eps)
    )


# -- published models --------------------------------------------------------------------------

_BASIC: dict[str, Any] = {"layer_type": "basic", "hidden_sizes": (64, 128, 256, 512)}
_BASIC |= {"hidden_expansion": 0.5}
_LARGE: dict[str, Any] = {"encoder_hidden_dim": 384, "encoder_ffn_dim": 2048}
SHAPES: dict[int, dict[str, Any]] = {
    18: {**_BASIC, "depths": (2, 2, 2, 2), "decoder_layers": 3},
    34: {**_BASIC, "depths": (3, 4, 6, 3), "decoder_layers": 4},
    50: {},
    101: {**_LARGE, "depths": (3, 4, 23, 3)},
}
PARAMETERS = {18: 20_174_608, 34: 31_424_388, 50: 42_891_372, 101: 76_556_268}  # counted
_AT = "https://github.com/lyuwenyu/RT-DETR/blob/"
_FIRST = f"{_AT}00b5299b73ccc2410338f2d2f999befc99acac29/rtdetr_pytorch/README.md"
_SECOND = f"{_AT}bbdbdb3bf74cd95cbae01046be7690cf6ef4943b/README.md"
_PAPERS = {_FIRST: "https://arxiv.org/abs/2304.08069", _SECOND: "https://arxiv.org/abs/2407.17140"}
# Name, ResNet, box AP on COCO 2017 val, and where that is written.
_PUBLISHED = (
    ("rtdetr-r18vd", 18, 46.4, _FIRST),
    ("rtdetr-r34vd", 34, 48.9, _FIRST),
    ("rtdetr-r50vd", 50, 53.1, _FIRST),
    ("rtdetr-r101vd", 101, 54.3, _FIRST),
    ("rtdetr-r18vd-coco-o365", 18, 49.0, _FIRST),
    ("rtdetr-r50vd-coco-o365", 50, 55.2, _FIRST),
    ("rtdetr-r101vd-coco-o365", 101, 56.2, _FIRST),
    ("rtdetr-v2-r18vd", 18, 48.1, _SECOND),
    ("rtdetr-v2-r34vd", 34, 49.9, _SECOND),
    ("rtdetr-v2-r50vd", 50, 53.4, _SECOND),
    ("rtdetr-v2-r101vd", 101, 54.3, _SECOND),
)


def _entry(name: str, depth: int, ap: float, source: str) -> Entry:
    return Entry(
        name=name,
        sources=(Hub(f"PekingU/{name.replace('-', '_')}"),),
        config=SHAPES[depth],
        layout="transformers",
        license="Apache-2.0",
        commercial=True,
        parameters=PARAMETERS[depth],
        metric=Metric("box AP", ap, "COCO 2017 validation", 640, source),
        # transformers 5.23, defaults of RTDetrImageProcessor
        preprocess={"exact": (640, 640), "mean": (0.0,) * 3, "std": (1.0,) * 3},
        labels="coco-80",
        paper=_PAPERS[source],
    )


@register(
    "rtdetr",
    config=Config,
    task="object-detection",
    layouts={
        "transformers": Layout(rename=RENAME, config=lambda p: Config(**from_transformers(p)))
    },
    model_types=("rt_detr", "rt_detr_v2"),
    head=("enc_score_head", "decoder.class_embed", "denoising_class_embed"),
    stem="backbone.stem.0.conv.weight",
    entries=[_entry(*row) for row in _PUBLISHED],
)
def rtdetr(config: Config) -> RTDETR:
    """RT-DETR for object detection."""
    return RTDETR(config)
