"""DETR. Carion et al. 2020, "End-to-End Object Detection with Transformers".

Weights: facebook/detr-resnet-50, detr-resnet-101 and their -dc5 (Apache-2.0); any repository in the
layout of transformers whose backbone is a ResNet, of timm or of transformers, loads by its id.
Deviation from the paper: none. Classes are COCO's 91 numbers, of which 80 are used.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..core import nn
from ..core.errors import ConfigError, ShapeError
from ..core.nn import functional as F
from ..core.ops.shape import broadcast_to, concat, permute_dims, reshape
from ..core.tensor import Tensor
from ..hub.configuration import expect, flags, positive, real
from ..hub.registry import Entry, Hub, Layout, Metric, register
from . import resnet
from .detr_layouts import NAME, RENAME, SIZES, WEIGHTS, from_transformers
from .frozen_norm import freeze_batch_norms
from .inputs import check_images
from .set_detection import BoxHead, Detections, SetDetector


@dataclass(frozen=True)
class Config:
    """Field names as in transformers' config.json; the defaults are DETR-R50.

    Args:
        depths, hidden_sizes, layer_type, embedding_size: of the ResNet; see `resnet.Config`.
        dilation: the last stage of the ResNet keeps the resolution ("DC5").
        d_model: features of the transformer.
        num_queries: boxes that are found in each picture.
        position_embedding_type: "sine", or "learned" for at most 50 x 50 places.
        auxiliary_loss: whether every layer of the decoder is trained to find the boxes.
        class_cost, bbox_cost, giou_cost: of pairing a box with an object.
        bbox_loss_coefficient, giou_loss_coefficient: weights in the loss, beside 1 for the class.
        eos_coefficient: weight of "no object" in it.
        in_channels, num_classes: of the pictures and of the head.
    """

    depths: tuple[int, ...] = (3, 4, 6, 3)
    hidden_sizes: tuple[int, ...] = (256, 512, 1024, 2048)
    layer_type: str = "bottleneck"
    embedding_size: int = 64
    dilation: bool = False
    d_model: int = 256
    num_queries: int = 100
    encoder_layers: int = 6
    encoder_attention_heads: int = 8
    encoder_ffn_dim: int = 2048
    decoder_layers: int = 6
    decoder_attention_heads: int = 8
    decoder_ffn_dim: int = 2048
    activation_function: str = "relu"
    position_embedding_type: str = "sine"
    dropout: float = 0.1
    attention_dropout: float = 0.0
    activation_dropout: float = 0.0
    auxiliary_loss: bool = False
    class_cost: float = 1
    bbox_cost: float = 5
    giou_cost: float = 2
    bbox_loss_coefficient: float = 5
    giou_loss_coefficient: float = 2
    eos_coefficient: float = 0.1
    in_channels: int = 3
    num_classes: int = 91

    def __post_init__(self) -> None:
        sizes = (*SIZES, "in_channels", "num_classes")
        positive(NAME, **{key: getattr(self, key) for key in sizes})
        rates = ("dropout", "attention_dropout", "activation_dropout")
        real(NAME, **{key: getattr(self, key) for key in rates})
        real(NAME, 0, 1e6, **{key: getattr(self, key) for key in WEIGHTS})
        flags(NAME, dilation=self.dilation, auxiliary_loss=self.auxiliary_loss)
        self.backbone  # noqa: B018  (checks what it is made of)
        for key, wanted in _CHOICES.items():
            expect({key: getattr(self, key)}, NAME, **{key: wanted})
        heads = (self.encoder_attention_heads, self.decoder_attention_heads)
        if self.d_model % 4 or any(self.d_model % n for n in heads):
            raise ConfigError(
                f"{NAME}: d_model={self.d_model} must be a multiple of 4 and of the heads {heads}."
            )

    @property
    def backbone(self) -> resnet.Config:
        """Of the ResNet."""
        return resnet.trunk_of(self)


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "gelu": F.gelu,
    "silu": F.silu,
}
_CHOICES = {
    "activation_function": tuple(ACTIVATIONS),
    "position_embedding_type": ("sine", "learned"),
}


# -- places ------------------------------------------------------------------------------------


def sine_positions(mask: Any, features: int) -> Any:
    """Sines and cosines of the place in the picture, from 0 to 2 pi along each axis.

    Args:
        mask: 1 in the picture and 0 in the padding, (B, H, W).
        features: an even number for each axis.
    Shape:
        (B, H, W) -> (B, 2 * features, H, W), rows before columns
    """
    steps = np.arange(features) // 2 * 2 / features
    waves = 10_000.0**steps
    parts = []
    for axis in (1, 2):
        place = np.cumsum(mask, axis=axis, dtype=np.float64)
        last = place[:, -1:] if axis == 1 else place[:, :, -1:]
        angle = (place / (last + 1e-6) * 2 * math.pi)[..., None] / waves
        pair = np.stack([np.sin(angle[..., 0::2]), np.cos(angle[..., 1::2])], axis=-1)
        parts.append(pair.reshape(*mask.shape, features))
    return np.concatenate(parts, axis=3).transpose(0, 3, 1, 2).astype(np.float32)


class LearnedPositions(nn.Module):
    """A trained vector for each row and column.

    Shape:
        (H, W) -> (1, H * W, 2 * features), columns before rows
    """

    def __init__(self, features: int) -> None:
        self.row_embeddings = nn.Embedding(50, features)
        self.column_embeddings = nn.Embedding(50, features)

    def forward(self, height: int, width: int) -> Tensor:
        if max(height, width) > 50:
            raise ShapeError(
                f"{NAME}: the map has {height} x {width} places, and positions were learned for 50 "
                "x 50.\nUse smaller pictures.",
                expected=(50, 50),
                got=(height, width),
            )
        rows, columns = np.divmod(np.arange(height * width), width)
        device = self.row_embeddings.weight.device
        across = self.column_embeddings(Tensor(columns).to(device))
        down = self.row_embeddings(Tensor(rows).to(device))
        return concat([across, down], axis=-1)[None]


# -- layers ------------------------------------------------------------------------------------


class Attention(nn.Module):
    """Attention in which places are added to queries and keys, and not to values."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        self.heads = heads
        self.dropout = dropout
        self.q_proj = nn.Linear(width, width)
        self.k_proj = nn.Linear(width, width)
        self.v_proj = nn.Linear(width, width)
        self.out_proj = nn.Linear(width, width)

    def _split(self, x: Tensor) -> Tensor:
        b, t, d = x.shape
        return permute_dims(reshape(x, (b, t, self.heads, d // self.heads)), (0, 2, 1, 3))

    def forward(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        """Shape: (B, TQ, D), (B, TK, D), (B, TK, D), (B, 1, 1, TK) -> (B, TQ, D)."""
        q, k, v = self.q_proj(query), self.k_proj(key), self.v_proj(value)
        dropout = self.dropout if self.training else 0.0
        split = self._split
        y = F.scaled_dot_product_attention(split(q), split(k), split(v), mask, dropout_p=dropout)
        out: Tensor = self.out_proj(reshape(permute_dims(y, (0, 2, 1, 3)), query.shape))
        return out


class Layer(nn.Module):
    """What the layers of encoder and decoder share: self-attention and an MLP."""

    def __init__(self, config: Config, heads: int, hidden: int) -> None:
        width = config.d_model
        self.self_attn = Attention(width, heads, config.attention_dropout)
        self.self_attn_layer_norm = nn.LayerNorm(width)
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)
        self.final_layer_norm = nn.LayerNorm(width)
        self.act = ACTIVATIONS[config.activation_function]
        self.drop = nn.Dropout(config.dropout)
        self.drop_inner = nn.Dropout(config.activation_dropout)

    def attend(self, x: Tensor, places: Tensor, mask: Tensor | None) -> Tensor:
        placed = x + places
        y: Tensor = x + self.drop(self.self_attn(placed, placed, x, mask))
        y = self.self_attn_layer_norm(y)
        return y

    def mlp(self, x: Tensor) -> Tensor:
        y = self.fc2(self.drop_inner(self.act(self.fc1(x))))
        out: Tensor = self.final_layer_norm(x + self.drop(y))
        return out


class EncoderLayer(Layer):
    """Every place of the picture looks at every other.

    Shape:
        (B, T, D), kept
    """

    def forward(self, x: Tensor, places: Tensor, mask: Tensor | None) -> Tensor:
        return self.mlp(self.attend(x, places, mask))


class DecoderLayer(Layer):
    """Every query looks at the other queries, then at the picture.

    Shape:
        (B, Q, D), kept
    """

    def __init__(self, config: Config, heads: int, hidden: int) -> None:
        super().__init__(config, heads, hidden)
        self.encoder_attn = Attention(config.d_model, heads, config.attention_dropout)
        self.encoder_attn_layer_norm = nn.LayerNorm(config.d_model)

    def forward(
        self, x: Tensor, queries: Tensor, seen: Tensor, keys: Tensor, mask: Tensor | None
    ) -> Tensor:
        x = self.attend(x, queries, None)
        y = self.drop(self.encoder_attn(x + queries, keys, seen, mask))
        return self.mlp(self.encoder_attn_layer_norm(x + y))


class Encoder(nn.Module):
    def __init__(self, config: Config) -> None:
        heads, hidden = config.encoder_attention_heads, config.encoder_ffn_dim
        self.layers = [EncoderLayer(config, heads, hidden) for _ in range(config.encoder_layers)]


class Decoder(nn.Module):
    def __init__(self, config: Config) -> None:
        heads, hidden = config.decoder_attention_heads, config.decoder_ffn_dim
        self.layers = [DecoderLayer(config, heads, hidden) for _ in range(config.decoder_layers)]
        self.layernorm = nn.LayerNorm(config.d_model)


class DETR(SetDetector):
    """A ResNet, a transformer over its last map, and for each query a class and a box."""

    takes_mask = True

    def __init__(self, config: Config) -> None:
        self.config = config
        width = config.d_model
        self.backbone = resnet.ResNet(config.backbone)
        del self.backbone.fc
        freeze_batch_norms(self.backbone)
        if config.dilation:
            _dilate(getattr(self.backbone, f"layer{len(config.depths)}"))
        learned = config.position_embedding_type == "learned"
        self.position_embedding = LearnedPositions(width // 2) if learned else None
        self.query_position_embeddings = nn.Embedding(config.num_queries, width)
        self.input_projection = nn.Conv2d(config.hidden_sizes[-1], width, 1)
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)
        self.class_labels_classifier = nn.Linear(width, config.num_classes + 1)
        self.bbox_predictor = BoxHead(width, 4)
        self.drop = nn.Dropout(config.dropout)
        for part in (*self.encoder.modules(), *self.decoder.modules()):
            if isinstance(part, nn.Linear):
                nn.init.xavier_uniform_(part.weight)

    def forward(self, pixel_values: Tensor, pixel_mask: Tensor | None = None) -> Detections:
        """Logits and boxes of every query.

        Args:
            pixel_mask: 1 in the picture, 0 in the padding at its right and below, (B, H, W).
        Shape:
            (B, in_channels, H, W) -> (B, Q, num_classes + 1), (B, Q, 4)
        """
        return self._say(self._decoded(pixel_values, pixel_mask)[-1])

    def layers_say(self, pixel_values: Tensor, pixel_mask: Tensor | None) -> list[Detections]:
        """What every layer of the decoder says."""
        return [self._say(x) for x in self._decoded(pixel_values, pixel_mask)]

    def _say(self, x: Tensor) -> Detections:
        boxes = F.sigmoid(self.bbox_predictor(x))
        return Detections(self.class_labels_classifier(x), boxes)

    def _decoded(self, pixel_values: Tensor, pixel_mask: Tensor | None) -> list[Tensor]:
        """The queries after each layer of the decoder, normalised."""
        check_images(pixel_values, self.config.in_channels)
        maps = self.backbone.forward_features(pixel_values)
        b, _, h, w = maps.shape
        mask = self._mask(pixel_mask, pixel_values, (h, w))
        inside = np.ones((1, h, w)) if mask is None else mask.cpu().array
        places = self._places(inside, pixel_values)
        attend = None if mask is None else reshape(mask, (b, 1, 1, h * w))
        x = permute_dims(reshape(self.input_projection(maps), (b, -1, h * w)), (0, 2, 1))
        x = self.drop(x)
        for layer in self.encoder.layers:
            x = layer(x, places, attend)
        table = self.query_position_embeddings.weight
        queries = broadcast_to(table[None], (b, *table.shape))
        y, keys, results = queries * 0, x + places, []
        for decoder_layer in self.decoder.layers:
            y = decoder_layer(y, queries, x, keys, attend)
            results.append(self.decoder.layernorm(y))
        return results

    def _mask(self, pixel_mask: Tensor | None, x: Tensor, size: tuple[int, int]) -> Tensor | None:
        """Which places of the map are in the picture, (B, H, W); None if all are."""
        if pixel_mask is None:
            return None
        if pixel_mask.shape != (x.shape[0], *x.shape[2:]):
            raise ShapeError(
                f"{NAME}: pixel_mask has shape {tuple(pixel_mask.shape)} and the pictures "
                f"{tuple(x.shape)}; (B, H, W) is wanted.",
                expected=(x.shape[0], *x.shape[2:]),
                got=tuple(pixel_mask.shape),
            )
        small = F.interpolate(pixel_mask[:, None].astype(np.float32), size=size)
        return small[:, 0] > 0.5

    def _places(self, inside: Any, like: Tensor) -> Tensor:
        """A vector for each place of the map, (B, H * W, D)."""
        h, w = inside.shape[1:]
        if self.position_embedding is not None:
            learned: Tensor = self.position_embedding(h, w)
            return learned
        waves = sine_positions(inside, self.config.d_model // 2)
        rows = waves.reshape(*waves.shape[:2], h * w).transpose(0, 2, 1)
        return Tensor(np.ascontiguousarray(rows)).to(device=like.device, dtype=like.dtype)


def _dilate(stage: nn.Sequential) -> None:
    """Let a stage keep the resolution: convolutions after its first look twice as far."""
    for i, block in enumerate(stage):
        for conv in block.modules():
            if isinstance(conv, nn.Conv2d):
                conv.stride = (1, 1)
                first = i == 0 and conv is getattr(block, FIRST[type(block)])
                if conv.kernel_size == (3, 3) and not first:
                    conv.dilation = conv.padding = (2, 2)


# The convolution that strides, and does not look further in the first block.
FIRST: dict[Any, str] = {resnet.Bottleneck: "conv2", resnet.BasicBlock: "conv1"}

# -- published models --------------------------------------------------------------------------

_RESULTS = (
    "https://github.com/facebookresearch/detr/blob/"
    "007893f393815ebe947b846d5495b772d13c2060/README.md"
)
# Name, ResNet, dilation, parameters (counted), box AP on COCO 2017 val (README.md).
_PUBLISHED = (
    ("detr-resnet-50", 50, False, 41_524_768, 42.0),
    ("detr-resnet-50-dc5", 50, True, 41_524_768, 43.3),
    ("detr-resnet-101", 101, False, 60_464_672, 43.5),
    ("detr-resnet-101-dc5", 101, True, 60_464_672, 44.9),
)


def _entry(name: str, depth: int, dilation: bool, parameters: int, ap: float) -> Entry:
    return Entry(
        name=name,
        aliases=(name.replace("resnet-", "r"),),
        sources=(Hub(f"facebook/{name}"),),
        config={**resnet.SIZES[depth], "dilation": dilation},
        layout="transformers",
        license="Apache-2.0",
        commercial=True,
        parameters=parameters,
        metric=Metric("box AP", ap, "COCO 2017 validation", 800, _RESULTS),
        # transformers 5.23, defaults of DetrImageProcessor
        preprocess={"shortest": 800, "longest": 1333},
        labels="coco-91",
        paper="https://arxiv.org/abs/2005.12872",
    )


@register(
    "detr",
    config=Config,
    task="object-detection",
    layouts={
        "transformers": Layout(rename=RENAME, config=lambda p: Config(**from_transformers(p)))
    },
    model_types=("detr",),
    head=("class_labels_classifier",),
    stem="backbone.conv1.weight",
    entries=[_entry(*row) for row in _PUBLISHED],
)
def detr(config: Config) -> DETR:
    """DETR for object detection."""
    return DETR(config)
