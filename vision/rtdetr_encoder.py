"""The hybrid encoder of RT-DETR: attention within the coarsest map, convolutions between maps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ..core import nn
from ..core.nn import functional as F
from ..core.ops.shape import concat, permute_dims, reshape
from ..core.tensor import Tensor
from .detr import ACTIVATIONS, Attention
from .rtdetr_backbone import ConvNorm

if TYPE_CHECKING:
    from .rtdetr import Config

LAYERS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "gelu": nn.GELU, "silu": nn.SiLU}


def sine_positions(height: int, width: int, features: int, temperature: float) -> Any:
    """Sines and cosines of the row, then of the column.

    Shape:
        (1, height * width, features), float32
    """
    quarter = features // 4
    waves = 1 / temperature ** (np.arange(quarter) / quarter)
    places = np.divmod(np.arange(height * width), width)
    angles = [place[:, None] * waves for place in places]
    parts = [wave(angle) for angle in angles for wave in (np.sin, np.cos)]
    return np.concatenate(parts, axis=1)[None].astype(np.float32)


class Layer(nn.Module):
    """What the layers of encoder and decoder share: self-attention and an MLP.

    Args:
        dropout: of the attention itself.
    """

    def __init__(
        self, config: Config, width: int, heads: int, hidden: int, act: str, dropout: float
    ) -> None:
        eps = config.layer_norm_eps
        self.self_attn = Attention(width, heads, dropout)
        self.self_attn_layer_norm = nn.LayerNorm(width, eps=eps)
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)
        self.final_layer_norm = nn.LayerNorm(width, eps=eps)
        self.act = ACTIVATIONS[act]
        self.drop = nn.Dropout(config.dropout)
        self.drop_inner = nn.Dropout(config.activation_dropout)

    def attend(self, x: Tensor, places: Tensor, mask: Tensor | None = None) -> Tensor:
        placed = x + places
        y: Tensor = self.self_attn_layer_norm(
            x + self.drop(self.self_attn(placed, placed, x, mask))
        )
        return y

    def mlp(self, x: Tensor) -> Tensor:
        y = self.fc2(self.drop_inner(self.act(self.fc1(x))))
        out: Tensor = self.final_layer_norm(x + self.drop(y))
        return out


class MapAttention(nn.Module):
    """Every place of one map looks at every other.

    Shape:
        (B, D, H, W), kept
    """

    def __init__(self, config: Config) -> None:
        width, heads = config.encoder_hidden_dim, config.encoder_attention_heads
        hidden, act = config.encoder_ffn_dim, config.encoder_activation_function
        self.temperature = config.positional_encoding_temperature
        self.layers = [
            Layer(config, width, heads, hidden, act, config.dropout)
            for _ in range(config.encoder_layers)
        ]

    def forward(self, x: Tensor) -> Tensor:
        b, d, h, w = x.shape
        waves = Tensor(sine_positions(h, w, d, self.temperature))
        places = waves.to(device=x.device, dtype=x.dtype)
        y = permute_dims(reshape(x, (b, d, h * w)), (0, 2, 1))
        for layer in self.layers:
            y = layer.mlp(layer.attend(y, places))
        return reshape(permute_dims(y, (0, 2, 1)), (b, d, h, w))


class RepBlock(nn.Module):
    """A 3x3 and a 1x1 convolution side by side."""

    def __init__(self, width: int, act: nn.Module, eps: float) -> None:
        self.conv1 = ConvNorm(width, width, 3, eps=eps)
        self.conv2 = ConvNorm(width, width, 1, eps=eps)
        self.act = act

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.act(self.conv1(x) + self.conv2(x))
        return out


class Fusion(nn.Module):
    """Two maps become one: a path through blocks, and one around them.

    Shape:
        (B, 2 * D, H, W) -> (B, D, H, W)
    """

    def __init__(self, config: Config) -> None:
        width, eps = config.encoder_hidden_dim, config.batch_norm_eps
        act = LAYERS[config.activation_function]()
        inner = config.fusion_width
        self.conv1 = ConvNorm(2 * width, inner, 1, act=act, eps=eps)
        self.conv2 = ConvNorm(2 * width, inner, 1, act=act, eps=eps)
        self.bottlenecks = nn.Sequential(*(RepBlock(inner, act, eps) for _ in range(3)))
        self.conv3 = ConvNorm(inner, width, 1, act=act, eps=eps) if inner != width else None

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.bottlenecks(self.conv1(x)) + self.conv2(x)
        return y if self.conv3 is None else self.conv3(y)


class HybridEncoder(nn.Module):
    """Coarse maps are fused into finer ones, then these into coarser ones again.

    A map is enlarged to the size of the finer one: twice as large, one less where that is odd.

    Shape:
        (B, D, H[i], W[i]) for each map, kept
    """

    def __init__(self, config: Config) -> None:
        width, eps, steps = config.encoder_hidden_dim, config.batch_norm_eps, config.levels - 1
        act = LAYERS[config.activation_function]()
        self.attended = config.encode_proj_layers if config.encoder_layers else ()
        self.aifi = [MapAttention(config) for _ in config.encode_proj_layers]
        self.lateral_convs = [ConvNorm(width, width, 1, act=act, eps=eps) for _ in range(steps)]
        self.fpn_blocks = [Fusion(config) for _ in range(steps)]
        self.downsample_convs = [
            ConvNorm(width, width, 3, 2, act=act, eps=eps) for _ in range(steps)
        ]
        self.pan_blocks = [Fusion(config) for _ in range(steps)]

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        maps = list(maps)
        for level, attention in zip(self.attended, self.aifi, strict=False):
            maps[level] = attention(maps[level])
        found = [maps[-1]]  # the coarsest first
        for finer, lateral, fuse in zip(
            reversed(maps[:-1]), self.lateral_convs, self.fpn_blocks, strict=True
        ):
            found[-1] = lateral(found[-1])
            large = F.interpolate(found[-1], size=finer.shape[2:])
            found.append(fuse(concat([large, finer], axis=1)))
        found.reverse()
        result = [found[0]]
        for coarser, down, fuse in zip(
            found[1:], self.downsample_convs, self.pan_blocks, strict=True
        ):
            result.append(fuse(concat([down(result[-1]), coarser], axis=1)))
        return result
