"""MobileNetV3. Howard et al. 2019, "Searching for MobileNetV3".

Weights: timm/mobilenetv3_small_100.lamb_in1k, timm/mobilenetv3_large_100.ra_in1k and their kin,
with `tf_` those of TensorFlow (Apache-2.0); any repository in timm's layout loads by its id. Names
are timm's. Deviation from the paper: none.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..hub.configuration import expect, flags
from ..hub.registry import Layout, register
from . import timm
from .mobile_blocks import Row, Style, round_channels
from .mobile_network import MobileConfig, MobileNetwork, Table, scaled

NAME = "MobileNetV3"
STEM = 16
FEATURES = {"small": 1024, "large": 1280}


def small(kernel: int, squeeze: float, relu: str | None) -> Table:
    """The stages of MobileNetV3-Small: kind, repeats, kernel, stride, expansion, channels."""
    return (
        (Row("separable", 1, 3, 2, 1, 16, squeeze, relu),),
        (
            Row("inverted", 1, 3, 2, 4.5, 24, activation=relu),
            Row("inverted", 1, 3, 1, 3.67, 24, activation=relu),
        ),
        (
            Row("inverted", 1, kernel, 2, 4, 40, squeeze),
            Row("inverted", 2, kernel, 1, 6, 40, squeeze),
        ),
        (Row("inverted", 2, kernel, 1, 3, 48, squeeze),),
        (Row("inverted", 3, kernel, 2, 6, 96, squeeze),),
        (Row("conv", 1, 1, 1, 1, 576, skip=False),),
    )


def large(kernel: int, squeeze: float, relu: str | None) -> Table:
    """The stages of MobileNetV3-Large."""
    return (
        (Row("separable", 1, 3, 1, 1, 16, activation=relu),),
        (
            Row("inverted", 1, 3, 2, 4, 24, activation=relu),
            Row("inverted", 1, 3, 1, 3, 24, activation=relu),
        ),
        (Row("inverted", 3, kernel, 2, 3, 40, squeeze, relu),),
        (
            Row("inverted", 1, 3, 2, 6, 80),
            Row("inverted", 1, 3, 1, 2.5, 80),
            Row("inverted", 2, 3, 1, 2.3, 80),
        ),
        (Row("inverted", 2, 3, 1, 6, 112, squeeze),),
        (Row("inverted", 3, kernel, 2, 6, 160, squeeze),),
        (Row("conv", 1, 1, 1, 1, 960, skip=False),),
    )


TABLES = {"small": small, "large": large}


@dataclass(frozen=True)
class Config(MobileConfig):
    """The scaling of one size; the defaults are the paper's small network.

    Args:
        size: "small" or "large".
        minimal: without squeeze-and-excite, hard-swish and 5x5 kernels, for simple hardware.
    """

    size: str = "small"
    minimal: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        expect({"size": self.size}, NAME, size=tuple(TABLES))
        flags(NAME, minimal=self.minimal)

    @property
    def table(self) -> Table:
        """The stages."""
        options = (3, 0.0, None) if self.minimal else (5, 0.25, "relu")
        return scaled(TABLES[self.size](*options), self.depth)


class MobileNetV3(MobileNetwork):
    """Inverted residuals, some with squeeze-and-excite, and a last convolution after the mean."""

    def __init__(self, config: Config) -> None:
        super().__init__(
            config,
            config.table,
            Style(
                "relu" if config.minimal else "hardswish",
                config.same_padding,
                config.eps,
                config.width,
                hard_squeeze=True,
            ),
            stem=STEM if config.width < 0.75 else round_channels(STEM * config.width),
            features=FEATURES[config.size],
            late=True,
        )


# -- published layouts --------------------------------------------------------------------------

SIZES: dict[str, dict[str, Any]] = {
    "mobilenetv3_small_050": {"width": 0.5},
    "mobilenetv3_small_075": {"width": 0.75},
    "mobilenetv3_small_100": {},
    "mobilenetv3_small_minimal_100": {"minimal": True},
    "mobilenetv3_large_075": {"size": "large", "width": 0.75},
    "mobilenetv3_large_100": {"size": "large"},
    "mobilenetv3_large_150d": {"size": "large", "width": 1.5, "depth": 1.2},
    "mobilenetv3_large_minimal_100": {"size": "large", "minimal": True},
}


def from_timm(published: dict[str, Any]) -> Config:
    """The configuration that a config.json of timm says: a size by name, with changes to it."""
    return Config(**timm.mobile_arguments(published, NAME, SIZES))


# Architecture, weights, parameters (counted), top-1 at 224 pixels.
_PUBLISHED = (
    ("mobilenetv3_small_050", "lamb_in1k", 1_593_224, 57.918),
    ("mobilenetv3_small_075", "lamb_in1k", 2_041_872, 65.284),
    ("mobilenetv3_small_100", "lamb_in1k", 2_542_856, 67.636),
    ("mobilenetv3_large_100", "ra_in1k", 5_483_032, 75.784),
)


@register(
    "mobilenet-v3",
    config=Config,
    task="image-classification",
    layouts={"timm": Layout(config=from_timm)},
    architectures=(
        r"(tf_)?mobilenetv3_(small|large)_(075|100|minimal_100)",
        r"mobilenetv3_(small_050|large_150d)",
    ),
    head=("classifier",),
    stem="conv_stem.weight",
    entries=[
        timm.entry(*row, config=SIZES[row[0]], paper="https://arxiv.org/abs/1905.02244")
        for row in _PUBLISHED
    ],
)
def mobilenet_v3(config: Config) -> MobileNetV3:
    """MobileNetV3 for image classification."""
    return MobileNetV3(config)
