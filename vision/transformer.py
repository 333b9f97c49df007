"""What the vision transformers share: patches, attention, MLPs, blocks, tables of positions.

Attributes are named as timm names them (`qkv`, `proj`, `fc1`, `ls1.gamma`, ...).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np

from ..core import nn
from ..core.nn import functional as F
from ..core.ops.linalg import matmul
from ..core.ops.manipulation import split, unstack
from ..core.ops.shape import concat, permute_dims, reshape
from ..core.tensor import Tensor

Size = tuple[int, int]

#: Activations by the names of `hidden_act` in published configurations.
ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "gelu": nn.GELU,
    "gelu_new": lambda: nn.GELU("tanh"),
    "gelu_pytorch_tanh": lambda: nn.GELU("tanh"),
    "quick_gelu": nn.QuickGELU,
    "relu": nn.ReLU,
    "silu": nn.SiLU,
}


class PatchEmbed(nn.Module):
    """Each patch of a picture as a vector; rows and columns that fill no patch are left out."""

    def __init__(self, channels: int, width: int, patch: Size, *, bias: bool = True) -> None:
        self.proj = nn.Conv2d(channels, width, patch, stride=patch, bias=bias)

    def forward(self, pixel_values: Tensor) -> tuple[Tensor, Size]:
        """The vectors, row by row, and how many rows and columns of them there are.

        Shape:
            (B, C, H, W) -> (B, T, D), with T = (H // patch) * (W // patch)
        """
        x: Tensor = self.proj(pixel_values)
        b, d, h, w = x.shape
        return permute_dims(reshape(x, (b, d, h * w)), (0, 2, 1)), (h, w)


class Attention(nn.Module):
    """Self-attention; queries, keys and values come from one linear map.

    Shape:
        (B, T, D), kept
    """

    def __init__(self, width: int, heads: int, *, bias: bool = True, dropout: float = 0.0) -> None:
        self.heads = heads
        self.dropout = dropout
        self.qkv = nn.Linear(width, 3 * width, bias=bias)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        b, t, d = x.shape
        parts = reshape(self.qkv(x), (b, t, 3, self.heads, d // self.heads))
        q, k, v = unstack(permute_dims(parts, (2, 0, 3, 1, 4)))  # (B, N, T, D / N) each
        dropout = self.dropout if self.training else 0.0
        y = F.scaled_dot_product_attention(q, k, v, dropout_p=dropout)
        out: Tensor = self.proj(reshape(permute_dims(y, (0, 2, 1, 3)), (b, t, d)))
        return out


class Mlp(nn.Module):
    """Two linear maps with an activation between them."""

    def __init__(self, width: int, hidden: int, act: str = "gelu", dropout: float = 0.0) -> None:
        self.fc1 = nn.Linear(width, hidden)
        self.act = ACTIVATIONS[act]()
        self.drop = nn.Dropout(dropout)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.fc2(self.drop(self.act(self.fc1(x))))
        return out


class SwiGLU(nn.Module):
    """A gated MLP; gate and values come from one linear map.

    Source: Shazeer 2020, "GLU variants improve transformer".
    """

    def __init__(self, width: int, hidden: int) -> None:
        self.fc1 = nn.Linear(width, 2 * hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        gate, values = split(self.fc1(x), 2, axis=-1)
        out: Tensor = self.fc2(F.silu(gate) * values)
        return out


class LayerScale(nn.Module):
    """A trained factor for each feature. Source: Touvron et al. 2021, "Going deeper"."""

    def __init__(self, width: int, initial: float = 1e-5) -> None:
        self.gamma = nn.init.constant_(nn.init.parameter(width), initial)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gamma


class Block(nn.Module):
    """Attention and an MLP, each after a layer norm and added to what comes in.

    Shape:
        (B, T, D), kept
    """

    def __init__(
        self,
        width: int,
        attention: nn.Module,
        mlp: nn.Module,
        *,
        eps: float,
        layer_scale: bool = False,
        dropout: float = 0.0,
        drop_path: float = 0.0,
    ) -> None:
        self.norm1 = nn.LayerNorm(width, eps=eps)
        self.attn = attention
        self.ls1 = LayerScale(width) if layer_scale else None
        self.norm2 = nn.LayerNorm(width, eps=eps)
        self.mlp = mlp
        self.ls2 = LayerScale(width) if layer_scale else None
        self.drop = nn.Dropout(dropout)
        self.drop_path = nn.DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.drop(self.attn(self.norm1(x)))
        x = x + self.drop_path(y if self.ls1 is None else self.ls1(y))
        y = self.drop(self.mlp(self.norm2(x)))
        x = x + self.drop_path(y if self.ls2 is None else self.ls2(y))
        return x


def initialise(module: nn.Module) -> None:
    """Initial values for training from scratch: normal with deviation 0.02, biases zero.

    Source: Touvron et al. 2021, "Training data-efficient image transformers".
    """
    for part in module.modules():
        if isinstance(part, nn.Linear):
            nn.init.trunc_normal_(part.weight, std=0.02)
            if part.bias is not None:
                nn.init.zeros_(part.bias)


# -- tables of positions ---------------------------------------------------------------------


def resized_positions(
    table: Tensor, old: Size, new: Size, *, prefix: int, antialias: bool
) -> Tensor:
    """A table of positions for another number of patches, interpolated bicubically.

    Args:
        table: positions of the `prefix` tokens before the patches, then of each patch.
        old, new: rows and columns of patches.
        antialias: as timm does it (smooths where it shrinks); otherwise as transformers does.

    Shape:
        (1, prefix + old[0] * old[1], D) -> (1, prefix + new[0] * new[1], D)
    """
    if old == new:
        return table
    dtype, width = table.dtype, table.shape[-1]
    patches = reshape(table[:, prefix:].astype(np.float32), (*old, width))
    if antialias:
        rows, columns = (_weights(a, b) for a, b in zip(old, new, strict=True))
        tall = matmul(_like(rows, table), reshape(patches, (old[0], old[1] * width)))
        patches = matmul(_like(columns, table), reshape(tall, (new[0], old[1], width)))
    else:
        image = permute_dims(patches, (2, 0, 1))[None]
        image = F.interpolate(image, size=new, mode="bicubic", align_corners=False)
        patches = permute_dims(image[0], (1, 2, 0))
    flat = reshape(patches, (1, new[0] * new[1], width)).astype(dtype)
    return concat([table[:, :prefix], flat], axis=1) if prefix else flat


def resize_entry(state: dict[str, Any], name: str, *sizes: Size, **how: Any) -> tuple[str, ...]:
    """`resized_positions` of an array of a weight file, in place; names what was changed."""
    old, new = sizes
    if name not in state or old == new:
        return ()
    state[name] = resized_positions(Tensor(state[name]), old, new, **how).array
    return (name,)


def _like(matrix: Any, tensor: Tensor) -> Tensor:
    return Tensor(matrix).to(device=tensor.device)


@lru_cache(maxsize=64)
def _weights(n: int, out: int) -> Any:
    """The matrix (out, n) that resizes an axis bicubically (a = -0.5), as Pillow does.

    Where the axis shrinks, the kernel is widened by as much.
    """
    ratio = n / out
    stretch = max(ratio, 1.0)
    matrix = np.zeros((out, n))
    for i in range(out):
        center = ratio * (i + 0.5)
        first = max(math.floor(center - 2 * stretch + 0.5), 0)
        last = min(math.floor(center + 2 * stretch + 0.5), n)
        places = np.arange(first, last)
        weights = _cubic(np.abs(places - center + 0.5) / stretch)
        matrix[i, first:last] = weights / weights.sum()
    return matrix.astype(np.float32)


def _cubic(x: Any) -> Any:
    """The cubic convolution kernel with a = -0.5. Source: Keys 1981."""
    near = (1.5 * x - 2.5) * x * x + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))
