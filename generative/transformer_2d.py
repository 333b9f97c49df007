"""Transformers of latent diffusion: places attend to each other, then to the context of a prompt.

Attributes are named as diffusers stores them. Source: Rombach et al. 2022, "High-resolution image
synthesis with latent diffusion models"; Shazeer 2020, "GLU variants improve transformer".
"""

from __future__ import annotations

from ..core import nn
from ..core.nn import functional as F
from ..core.ops.manipulation import split
from ..core.tensor import Tensor
from .blocks import Attention, as_picture, as_tokens


class GEGLU(nn.Module):
    """One linear map times the GELU of another. Shape: (..., D) -> (..., hidden)."""

    def __init__(self, width: int, hidden: int) -> None:
        self.proj = nn.Linear(width, 2 * hidden)

    def forward(self, x: Tensor) -> Tensor:
        value, gate = split(self.proj(x), 2, axis=-1)
        return value * F.gelu(gate)


class FeedForward(nn.Module):
    """`GEGLU` to four times the width, and a linear map back. Shape: (..., D), kept."""

    def __init__(self, width: int, dropout: float = 0.0) -> None:
        hidden = 4 * width
        self.net = nn.ModuleList(
            [GEGLU(width, hidden), nn.Dropout(dropout), nn.Linear(hidden, width)]
        )

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.net:
            x = layer(x)
        return x


class BasicTransformerBlock(nn.Module):
    """Attention to each other, to a context if there is one, and `FeedForward`, each after a norm.

    Args:
        context: features of the context's tokens; None for no second attention.
        only_cross: the first attention looks at the context, too.

    Shape:
        x (B, T, D), kept; encoder_hidden_states (B, S, context)
    """

    def __init__(
        self,
        width: int,
        heads: int,
        head_width: int,
        context: int | None = None,
        *,
        only_cross: bool = False,
        dropout: float = 0.0,
    ) -> None:
        self.only_cross = only_cross
        self.norm1 = nn.LayerNorm(width)
        first = context if only_cross else None
        self.attn1 = Attention(width, heads, head_width, context=first, dropout=dropout)
        self.norm2 = self.attn2 = None
        if context is not None:
            self.norm2 = nn.LayerNorm(width)
            self.attn2 = Attention(width, heads, head_width, context=context, dropout=dropout)
        self.norm3 = nn.LayerNorm(width)
        self.ff = FeedForward(width, dropout)

    def forward(
        self,
        x: Tensor,
        encoder_hidden_states: Tensor | None = None,
        mask: Tensor | None = None,
    ) -> Tensor:
        seen = (encoder_hidden_states, mask) if self.only_cross else (None, None)
        x = x + self.attn1(self.norm1(x), *seen)
        if self.attn2 is not None and self.norm2 is not None:
            x = x + self.attn2(self.norm2(x), encoder_hidden_states, mask)
        out: Tensor = x + self.ff(self.norm3(x))
        return out


class Transformer2D(nn.Module):
    """`BasicTransformerBlock`s over all places of a picture, between two linear maps.

    Args:
        linear: whether these are linear layers, as since Stable Diffusion 2, or convolutions of one
            pixel, which differ in the shape of their weights.

    Shape:
        (B, C, H, W), kept; encoder_hidden_states (B, S, context); mask see `blocks.Attention`
    """

    def __init__(
        self,
        channels: int,
        heads: int,
        head_width: int,
        *,
        layers: int = 1,
        context: int | None = None,
        groups: int = 32,
        linear: bool = False,
        only_cross: bool = False,
        dropout: float = 0.0,
    ) -> None:
        inner = heads * head_width
        self.linear = linear
        self.norm = nn.GroupNorm(groups, channels, eps=1e-6)
        self.proj_in = nn.Linear(channels, inner) if linear else nn.Conv2d(channels, inner, 1)
        self.transformer_blocks = nn.ModuleList(
            BasicTransformerBlock(
                inner, heads, head_width, context, only_cross=only_cross, dropout=dropout
            )
            for _ in range(layers)
        )
        self.proj_out = nn.Linear(inner, channels) if linear else nn.Conv2d(inner, channels, 1)

    def forward(
        self,
        x: Tensor,
        encoder_hidden_states: Tensor | None = None,
        mask: Tensor | None = None,
    ) -> Tensor:
        h, w = x.shape[2:]
        normed: Tensor = self.norm(x)
        tokens: Tensor
        if self.linear:
            tokens = self.proj_in(as_tokens(normed))
        else:
            tokens = as_tokens(self.proj_in(normed))
        for block in self.transformer_blocks:
            tokens = block(tokens, encoder_hidden_states, mask)
        if self.linear:
            return x + as_picture(self.proj_out(tokens), h, w)
        out: Tensor = x + self.proj_out(as_picture(tokens, h, w))
        return out
