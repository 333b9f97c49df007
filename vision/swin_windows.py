"""The blocks of Swin transformers: attention within windows that are shifted by turns.

Where windows do not fill a map it is padded; zeros take part in the attention, as published.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from ..core import nn
from ..core.nn import functional as F
from ..core.ops.indexing import take
from ..core.ops.manipulation import roll, unstack
from ..core.ops.padding import pad
from ..core.ops.shape import broadcast_to, concat, permute_dims, reshape
from ..core.tensor import Tensor
from .transformer import Mlp, Size

if TYPE_CHECKING:
    from .swin import Config


@lru_cache(maxsize=16)
def _relative_index(window: int) -> Any:
    """For each pair of places in a window, the row of the table for their distance."""
    rows, columns = np.divmod(np.arange(window * window), window)
    down = rows[:, None] - rows[None] + window - 1
    right = columns[:, None] - columns[None] + window - 1
    return (down * (2 * window - 1) + right).reshape(-1)


@lru_cache(maxsize=64)
def _apart(height: int, width: int, window: int, shift: Size) -> Any:
    """-100 where two places of a window come from different sides of the map, else 0.

    Shape:
        (windows, window**2, window**2)
    """
    regions = []
    for n, step in zip((height, width), shift, strict=True):
        place = np.arange(n)
        beyond = (place >= n - window).astype(int) + (place >= n - step)
        regions.append(beyond if step else np.zeros(n, int))
    region = regions[0][:, None] * 3 + regions[1][None]
    parts = region.reshape(height // window, window, width // window, window)
    flat = parts.transpose(0, 2, 1, 3).reshape(-1, window * window)
    return np.where(flat[:, None] == flat[:, :, None], 0.0, -100.0).astype(np.float32)


class WindowAttention(nn.Module):
    """Self-attention within windows, with a trained number for each distance in each head."""

    def __init__(self, width: int, heads: int, config: Config) -> None:
        self.heads, self.window = heads, config.window_size
        self.dropout = config.attention_probs_dropout_prob
        self.relative_position_bias_table = nn.init.parameter((2 * self.window - 1) ** 2, heads)
        self.qkv = nn.Linear(width, 3 * width, bias=config.qkv_bias)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor, apart: Any) -> Tensor:
        """Shape: (B, W, window**2, D), kept; `apart` is None or what `_apart` gives."""
        b, w, n, d = x.shape
        parts = reshape(self.qkv(x), (b, w, n, 3, self.heads, d // self.heads))
        # Windows stand beside each other as heads do, so that all are computed at once.
        together = reshape(permute_dims(parts, (3, 0, 1, 4, 2, 5)), (3, b, w * self.heads, n, -1))
        q, k, v = unstack(together)
        dropout = self.dropout if self.training else 0.0
        y = F.scaled_dot_product_attention(q, k, v, self._bias(w, apart), dropout_p=dropout)
        y = permute_dims(reshape(y, (b, w, self.heads, n, d // self.heads)), (0, 1, 3, 2, 4))
        out: Tensor = self.proj(reshape(y, (b, w, n, d)))
        return out

    def _bias(self, windows: int, apart: Any) -> Tensor:
        """What is added to the scores. Shape: (1, windows * heads, window**2, window**2)."""
        n, table = self.window**2, self.relative_position_bias_table
        index = Tensor(_relative_index(self.window)).to(device=table.device)
        bias = permute_dims(reshape(take(table, index, axis=0), (n, n, self.heads)), (2, 0, 1))
        if apart is None:
            bias = broadcast_to(bias, (windows, self.heads, n, n))
        else:
            bias = bias + Tensor(apart).to(device=table.device, dtype=table.dtype)[:, None]
        return reshape(bias, (1, windows * self.heads, n, n))


class Block(nn.Module):
    """Attention within windows, shifted or not, and an MLP, each after a layer norm.

    Shape:
        (B, H, W, D), kept
    """

    def __init__(self, width: int, heads: int, config: Config, shift: int, rate: float) -> None:
        self.window, self.shift, self.roll_first = config.window_size, shift, config.roll_first
        self.norm1 = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.attn = WindowAttention(width, heads, config)
        self.norm2 = nn.LayerNorm(width, eps=config.layer_norm_eps)
        hidden = int(width * config.mlp_ratio)
        self.mlp = Mlp(width, hidden, config.hidden_act, config.hidden_dropout_prob)
        self.drop_path = nn.DropPath(rate)

    def _shift_of(self, height: int, width: int) -> Size:
        """A map that one window covers is not shifted."""
        steps = [self.shift if n > self.window else 0 for n in (height, width)]
        if not self.roll_first and 0 in steps:
            return 0, 0
        return steps[0], steps[1]

    def _attend(self, x: Tensor) -> Tensor:
        _, height, width, _ = x.shape
        shift = self._shift_of(height, width)
        back = (-shift[0], -shift[1])
        tall, wide = -height % self.window, -width % self.window
        if self.roll_first:
            x = _filled(_rolled(x, back), tall, wide)
        else:
            x = _rolled(_filled(x, tall, wide), back)
        x = self._windows(x, shift)
        if self.roll_first:
            return _rolled(x[:, :height, :width], shift)
        return _rolled(x, shift)[:, :height, :width]

    def _windows(self, x: Tensor, shift: Size) -> Tensor:
        b, h, w, d = x.shape
        n = self.window
        apart = _apart(h, w, n, shift) if any(shift) else None
        x = permute_dims(reshape(x, (b, h // n, n, w // n, n, d)), (0, 1, 3, 2, 4, 5))
        x = self.attn(reshape(x, (b, (h // n) * (w // n), n * n, d)), apart)
        x = permute_dims(reshape(x, (b, h // n, w // n, n, n, d)), (0, 1, 3, 2, 4, 5))
        return reshape(x, (b, h, w, d))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.drop_path(self._attend(self.norm1(x)))
        x = x + self.drop_path(self.mlp(self.norm2(x)))
        return x


def _rolled(x: Tensor, shift: Size) -> Tensor:
    return roll(x, shift, axis=(1, 2)) if any(shift) else x


def _filled(x: Tensor, tall: int, wide: int) -> Tensor:
    """Zeros below and to the right."""
    return pad(x, ((0, 0), (0, tall), (0, wide), (0, 0))) if tall or wide else x


class PatchMerging(nn.Module):
    """Four neighbours become one token of twice the width.

    Shape:
        (B, H, W, D) -> (B, H / 2, W / 2, 2 D), rounded up
    """

    def __init__(self, width: int) -> None:
        self.norm = nn.LayerNorm(4 * width)
        self.reduction = nn.Linear(4 * width, 2 * width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = _filled(x, x.shape[1] % 2, x.shape[2] % 2)
        corners = [x[:, row::2, column::2] for column in (0, 1) for row in (0, 1)]
        out: Tensor = self.reduction(self.norm(concat(corners, axis=-1)))
        return out
