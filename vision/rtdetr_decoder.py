"""The decoder of RT-DETR: queries that look at a few places of each map, near their boxes."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from ..core import nn
from ..core.nn import functional as F
from ..core.ops.elementwise import clip, log
from ..core.ops.reduction import sum as total
from ..core.ops.shape import concat, permute_dims, reshape
from ..core.ops.update import assign
from ..core.tensor import Tensor
from .rtdetr_encoder import Layer
from .set_detection import BoxHead, Detections

if TYPE_CHECKING:
    from .rtdetr import Config

Size = tuple[int, int]
PRIOR = 0.01  # how probable an untrained network finds each class


_OUTSIDE = 1e4  # the logit of a box as large as the picture, for places too near to its edge


def anchors_of(sizes: list[Size]) -> tuple[Any, Any]:
    """A box at each place as logits, a twentieth of the picture large on the finest map.

    Returns:
        (1, S, 4); and 1 where centre and size lie well inside the picture, else 0, (1, S, 1).
    """
    parts = []
    for level, (h, w) in enumerate(sizes):
        rows, columns = np.divmod(np.arange(h * w), w)
        side = np.full(h * w, 0.05 * 2.0**level)
        parts.append(np.stack([(columns + 0.5) / w, (rows + 0.5) / h, side, side], axis=1))
    boxes = np.concatenate(parts).astype(np.float32)
    inside: Any = ((boxes > 0.01) & (boxes < 0.99)).all(axis=1, keepdims=True)
    boxes = np.where(inside, boxes, 0.5)
    logits = np.where(inside, np.log(boxes / (1 - boxes)), _OUTSIDE)
    return logits[None].astype(np.float32), inside[None].astype(np.float32)


def inverse_sigmoid(x: Tensor, eps: float = 1e-5) -> Tensor:
    """The logit of a number from 0 to 1; of the ends, that of `eps` and of 1 - `eps`."""
    x = clip(x, 0, 1)
    y: Tensor = log(clip(x, eps) / clip(1 - x, eps))
    return y


class ClassHead(nn.Linear):
    """Logits of classes, each of which is improbable at first."""

    def reset_parameters(self) -> None:
        """Draw new initial values."""
        nn.init.xavier_uniform_(self.weight)
        if self.bias is not None:
            nn.init.constant_(self.bias, -math.log((1 - PRIOR) / PRIOR))


class StillBoxHead(BoxHead):
    """Linear maps whose last one is zero at first: boxes stay where they are."""

    def __init__(self, width: int) -> None:
        super().__init__(width, 4)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw new initial values."""
        super().reset_parameters()
        last = self.layers[-1]
        for part in (last.weight, last.bias):
            if part is not None:
                nn.init.zeros_(part)


class DeformableAttention(nn.Module):
    """Each head of a query looks at `points` places of each map, which the query chooses.

    The places are given relative to the box of the query, and read between pixels.

    Source: Zhu et al. 2021, "Deformable DETR", section 4.1.
    """

    def __init__(self, width: int, heads: int, levels: int, points: int, scale: float) -> None:
        self.heads, self.levels, self.points, self.scale = heads, levels, points, scale
        self.sampling_offsets = nn.Linear(width, heads * levels * points * 2)
        self.attention_weights = nn.Linear(width, heads * levels * points)
        self.value_proj = nn.Linear(width, width)
        self.output_proj = nn.Linear(width, width)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw new initial values: every head looks another way, each point one step further."""
        still, mixed = (
            (self.sampling_offsets, self.attention_weights),
            (self.value_proj, self.output_proj),
        )
        for linear in still:
            nn.init.zeros_(linear.weight)
        for linear in mixed:
            nn.init.xavier_uniform_(linear.weight)
        for linear in (*still, *mixed):
            if linear.bias is not None:
                nn.init.zeros_(linear.bias)
        angle = np.arange(self.heads) * (2 * math.pi / self.heads)
        way = np.stack([np.cos(angle), np.sin(angle)], axis=1)
        way /= np.abs(way).max(axis=1, keepdims=True)
        steps = way[:, None, None] * np.arange(1, self.points + 1)[:, None]
        steps = np.broadcast_to(steps, (self.heads, self.levels, self.points, 2))
        if not nn.init.is_empty():
            assign(self.sampling_offsets.bias, steps.reshape(-1).astype(np.float32))

    def forward(self, x: Tensor, boxes: Tensor, memory: Tensor, sizes: list[Size]) -> Tensor:
        """What the queries see.

        Args:
            boxes: centre, width and height of each query, as parts of the picture.
            memory: all places of all maps, one map after the other.
            sizes: height and width of each map.
        Shape:
            (B, Q, D), (B, Q, 4), (B, S, D) -> (B, Q, D)
        """
        b, q, d = x.shape
        heads, levels, points = self.heads, self.levels, self.points
        several = b * heads
        offsets = reshape(self.sampling_offsets(x), (b, q, heads, levels, points, 2))
        near = boxes[:, :, None, None, None]
        places = near[..., :2] + offsets / points * near[..., 2:] * self.scale
        grid = permute_dims(places * 2 - 1, (0, 2, 3, 1, 4, 5))
        grid = reshape(grid, (several, levels, q, points, 2))
        value = permute_dims(
            reshape(self.value_proj(memory), (b, -1, heads, d // heads)), (0, 2, 3, 1)
        )
        value = reshape(value, (several, d // heads, -1))
        seen, start = [], 0
        for level, (h, w) in enumerate(sizes):
            pixels = reshape(value[..., start : start + h * w], (several, d // heads, h, w))
            seen.append(F.grid_sample(pixels, grid[:, level]))
            start += h * w
        weights = reshape(self.attention_weights(x), (b, q, heads, levels * points))
        weights = permute_dims(F.softmax(weights, axis=-1), (0, 2, 1, 3))
        weights = reshape(weights, (several, 1, q, levels * points))
        y = reshape(total(concat(seen, axis=-1) * weights, axis=-1), (b, d, q))
        out: Tensor = self.output_proj(permute_dims(y, (0, 2, 1)))
        return out


class DecoderLayer(Layer):
    """Every query looks at the other queries, then at the picture.

    Shape:
        (B, Q, D), kept
    """

    def __init__(self, config: Config) -> None:
        width, heads = config.d_model, config.decoder_attention_heads
        hidden, act = config.decoder_ffn_dim, config.decoder_activation_function
        super().__init__(config, width, heads, hidden, act, config.attention_dropout)
        self.encoder_attn = DeformableAttention(
            width, heads, config.levels, config.decoder_n_points, config.decoder_offset_scale
        )
        self.encoder_attn_layer_norm = nn.LayerNorm(width, eps=config.layer_norm_eps)

    def forward(
        self,
        x: Tensor,
        places: Tensor,
        boxes: Tensor,
        memory: Tensor,
        sizes: list[Size],
        mask: Tensor | None,
    ) -> Tensor:
        x = self.attend(x, places, mask)
        y = self.drop(self.encoder_attn(x + places, boxes, memory, sizes))
        return self.mlp(self.encoder_attn_layer_norm(x + y))


class Decoder(nn.Module):
    """Layers that each move the boxes of the one before."""

    def __init__(self, config: Config) -> None:
        width = config.d_model
        self.layers = [DecoderLayer(config) for _ in range(config.decoder_layers)]
        self.query_pos_head = PlaceHead(width)
        self.class_embed = nn.ModuleList(
            [ClassHead(width, config.num_classes) for _ in self.layers]
        )
        self.bbox_embed = nn.ModuleList([StillBoxHead(width) for _ in self.layers])

    def forward(
        self,
        x: Tensor,
        boxes: Tensor,
        memory: Tensor,
        sizes: list[Size],
        mask: Tensor | None = None,
        *,
        last: bool = False,
    ) -> list[Detections]:
        """What every layer says, or only the last one.

        Args:
            boxes: where the queries begin, as logits.
            mask: which query sees which, (1, 1, Q, Q).
        """
        boxes = F.sigmoid(boxes)
        found = []
        heads = zip(self.class_embed, self.bbox_embed, strict=True)
        for i, (layer, (classes, move)) in enumerate(zip(self.layers, heads, strict=True)):
            x = layer(x, self.query_pos_head(boxes), boxes, memory, sizes, mask)
            moved = F.sigmoid(move(x) + inverse_sigmoid(boxes))
            boxes = moved.detach()
            if not last or i == len(self.layers) - 1:
                found.append(Detections(classes(x), moved))
        return found


class PlaceHead(nn.Module):
    """What a query is told of its box.

    Shape:
        (..., 4) -> (..., width)
    """

    def __init__(self, width: int) -> None:
        self.layers = [nn.Linear(4, 2 * width), nn.Linear(2 * width, width)]

    def forward(self, boxes: Tensor) -> Tensor:
        out: Tensor = self.layers[1](F.relu(self.layers[0](boxes)))
        return out
