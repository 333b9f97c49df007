"""SRVGGNetCompact, the small upscaler of Real-ESRGAN: plain convolutions at the small size.

Wang et al. 2021, "Real-ESRGAN: Training real-world blind super-resolution with pure synthetic
data". Names of tensors are that project's (BSD-3).
"""

from __future__ import annotations

from dataclasses import dataclass

from ..core import nn
from ..core.errors import ShapeError
from ..core.nn import functional as F
from ..core.tensor import Tensor
from ..hub.configuration import expect, positive
from ..hub.registry import Entry, Layout, register
from .esrgan import published

_MOST_LAYERS = 64  # that the table of ncnn's names covers


@dataclass(frozen=True)
class Config:
    """Sizes; the defaults are those of realesr-animevideov3.

    Args:
        scale: how many rows and columns each pixel becomes.
        num_feat, num_conv: channels, and convolutions between the first and the last.
        act_type: "prelu", "relu" or "leakyrelu".
    """

    num_in_ch: int = 3
    num_out_ch: int = 3
    scale: int = 4
    num_feat: int = 64
    num_conv: int = 16
    act_type: str = "prelu"

    def __post_init__(self) -> None:
        names = "num_in_ch num_out_ch scale num_feat num_conv"
        positive("SRVGGNetCompact", **{name: getattr(self, name) for name in names.split()})
        kinds = ("prelu", "relu", "leakyrelu")
        expect({"act_type": self.act_type}, "SRVGGNetCompact", act_type=kinds)
        if self.num_in_ch != self.num_out_ch:
            raise ShapeError(
                f"SRVGGNetCompact adds to the picture itself: num_in_ch={self.num_in_ch} and "
                f"num_out_ch={self.num_out_ch} must be equal.",
                expected=self.num_in_ch,
                got=self.num_out_ch,
            )

    @property
    def fold(self) -> int:
        """Rows of pixels that are folded into channels before the network: none."""
        return 1


class SRVGGNetCompact(nn.Module):
    """What is added to each pixel's copies, all of it computed at the small size.

    Shape:
        (B, num_in_ch, H, W) from 0 to 1 -> (B, num_out_ch, scale H, scale W)
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        width, inputs, self.body = config.num_feat, config.num_in_ch, nn.ModuleList()
        for _ in range(config.num_conv + 1):
            self.body.append(nn.Conv2d(inputs, width, 3, padding=1))
            self.body.append(_activation(config))
            inputs = width
        outputs = config.num_out_ch * config.scale**2
        self.body.append(nn.Conv2d(width, outputs, 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        config, shape = self.config, tuple(x.shape)
        if x.ndim != 4 or shape[1] != config.num_in_ch or 0 in shape:
            raise ShapeError(
                f"SRVGGNetCompact: pictures of shape (B, {config.num_in_ch}, H, W) are wanted, "
                f"got {shape}.",
                expected=(None, config.num_in_ch, None, None),
                got=shape,
            )
        y = x
        for layer in self.body:
            y = layer(y)
        out: Tensor = F.pixel_shuffle(y, config.scale)
        if config.scale == 1:
            return out + x
        return out + F.interpolate(x, scale_factor=float(config.scale))


def _activation(config: Config) -> nn.Module:
    if config.act_type == "prelu":
        return nn.PReLU(config.num_feat)
    return nn.ReLU() if config.act_type == "relu" else nn.LeakyReLU(0.1)


# ncnn's names number the layers of each kind.
NCNN: dict[str, str] = {}
for _n in range(_MOST_LAYERS):
    NCNN |= {f"Convolution.{_n}.{part}": f"body.{2 * _n}.{part}" for part in ("weight", "bias")}
    NCNN[f"PReLU.{_n}.weight"] = f"body.{2 * _n + 1}.weight"


@register(
    "srvgg-compact",
    config=Config,
    task="image-upscaling",
    layouts={"ncnn": Layout(rename=NCNN)},
    entries=[
        Entry(
            name="realesr-animevideov3",
            sources=(
                published(
                    "realesr-animevideov3-x4",
                    "548a36f9c3f4ab8da56cd3b13badf23968bee207b396dad14d04b830e5f2ab2d",
                    "850a248e7c14c27e5bd8cf7265113a9441036a7db63963bb8aa5169d788a435e",
                ),
            ),
            layout="ncnn",
            license="BSD-3-Clause",
            commercial=True,
            parameters=621_424,  # counted
            paper="https://arxiv.org/abs/2107.10833",
            note="drawings and films, 4 times larger; small and quick",
        )
    ],
)
def srvgg_compact(config: Config) -> SRVGGNetCompact:
    """Small network that makes pictures larger."""
    return SRVGGNetCompact(config)
