"""EfficientNet and EfficientNetV2. Tan and Le 2019 and 2021.

Weights: timm/efficientnet_b0.ra_in1k, ..., timm/tf_efficientnetv2_s.in21k_ft_in1k (Apache-2.0);
any repository in timm's layout loads by its id, those of EfficientNet-Lite as well. Names are
timm's; where they begin with `tf_`, padding and batch norm are TensorFlow's. Deviation from the
papers: none.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..hub.configuration import expect
from ..hub.registry import Layout, register
from . import timm
from .mobile_blocks import Row, Style
from .mobile_network import MobileConfig, MobileNetwork, Table, scaled

NAME = "EfficientNet"


def _first(squeeze: float) -> Table:
    """The stages of EfficientNet: kind, repeats, kernel, stride, expansion, channels."""
    return (
        (Row("separable", 1, 3, 1, 1, 16, squeeze),),
        (Row("inverted", 2, 3, 2, 6, 24, squeeze),),
        (Row("inverted", 2, 5, 2, 6, 40, squeeze),),
        (Row("inverted", 3, 3, 2, 6, 80, squeeze),),
        (Row("inverted", 3, 5, 1, 6, 112, squeeze),),
        (Row("inverted", 4, 5, 2, 6, 192, squeeze),),
        (Row("inverted", 1, 3, 1, 6, 320, squeeze),),
    )


def _second(fused: tuple[tuple[int, int], ...], *inverted: tuple[int, int]) -> Table:
    """The stages of EfficientNetV2, of which only repeats and channels differ.

    Args:
        fused: of the first stage, which does not expand, and of the next two.
        inverted: of the others, which alternate between strides 2 and 1; the first expands less.
    """
    first, *others = fused
    table: list[tuple[Row, ...]] = [(Row("conv", first[0], 3, 1, 1, first[1]),)]
    table += [(Row("fused", repeats, 3, 2, 4, channels),) for repeats, channels in others]
    for i, (repeats, channels) in enumerate(inverted):
        row = Row("inverted", repeats, 3, 1 if i % 2 else 2, 6 if i else 4, channels, 0.25)
        table.append((row,))
    return tuple(table)


@dataclass(frozen=True)
class Variant:
    """What is fixed of a variant, before scaling.

    Args:
        stem, features: channels of the stem and of the last convolution.
        fixed_ends: whether they and the depth of the outer stages do not scale.
        round_limit: see `mobile_blocks.round_channels`.
    """

    table: Table
    stem: int = 32
    features: int = 1280
    activation: str = "silu"
    fixed_ends: bool = False
    round_limit: float = 0.9


_S = _second(((2, 24), (4, 48), (4, 64)), (6, 128), (9, 160), (15, 256))
# the variant of timm's author, made before the paper's was published
_RW = ((Row("fused", 2, 3, 1, 1, 24),), *_S[1:-1], (Row("inverted", 15, 3, 2, 6, 272, 0.25),))
VARIANTS = {
    "b": Variant(_first(0.25)),
    "lite": Variant(_first(0.0), activation="relu6", fixed_ends=True),
    "v2-b": Variant(
        _second(((1, 16), (2, 32), (2, 48)), (3, 96), (5, 112), (8, 192)), round_limit=0.0
    ),
    "v2-s": Variant(_S, stem=24),
    "v2-rw": Variant(_RW, stem=24, features=1792),
    "v2-m": Variant(
        _second(((3, 24), (5, 48), (5, 80)), (7, 160), (14, 176), (18, 304), (5, 512)), stem=24
    ),
    "v2-l": Variant(
        _second(((4, 32), (7, 64), (7, 96)), (10, 192), (19, 224), (25, 384), (7, 640))
    ),
    "v2-xl": Variant(
        _second(((4, 32), (8, 64), (8, 96)), (16, 192), (24, 256), (32, 512), (8, 640))
    ),
}


@dataclass(frozen=True)
class Config(MobileConfig):
    """The scaling of one size; the defaults are B0.

    Args:
        variant: what is scaled, a key of `VARIANTS`: "b" for EfficientNet B0 to L2, "v2-s", ...
    """

    variant: str = "b"

    def __post_init__(self) -> None:
        super().__post_init__()
        expect({"variant": self.variant}, NAME, variant=tuple(VARIANTS))


class EfficientNet(MobileNetwork):
    """Inverted residuals with squeeze-and-excite; in V2, the early ones are fused."""

    def __init__(self, config: Config) -> None:
        variant = VARIANTS[config.variant]
        style = Style(
            variant.activation,
            config.same_padding,
            config.eps,
            config.width,
            variant.round_limit,
        )
        fixed = variant.fixed_ends
        super().__init__(
            config,
            scaled(variant.table, config.depth, fixed),
            style,
            stem=variant.stem if fixed else style.channels(variant.stem),
            features=variant.features if fixed else style.channels(variant.features),
        )


# -- published layouts --------------------------------------------------------------------------

# Width and depth; the paper's sizes, which Lite and the small V2 use as well.
_SCALES = {
    "0": (1.0, 1.0),
    "1": (1.0, 1.1),
    "2": (1.1, 1.2),
    "3": (1.2, 1.4),
    "4": (1.4, 1.8),
    "5": (1.6, 2.2),
    "6": (1.8, 2.6),
    "7": (2.0, 3.1),
    "8": (2.2, 3.6),
    "l2": (4.3, 5.3),
}
SIZES: dict[str, dict[str, Any]] = {
    **{f"efficientnetv2_{size}": {"variant": f"v2-{size}"} for size in ("s", "m", "l", "xl")},
    "efficientnetv2_rw_t": {"variant": "v2-s", "width": 0.8, "depth": 0.9},
    "efficientnetv2_rw_s": {"variant": "v2-rw"},
    "efficientnetv2_rw_m": {"variant": "v2-rw", "width": 1.2, "depth": (1.2,) * 4 + (1.6,) * 2},
}
for _size, (_width, _depth) in _SCALES.items():
    _scale = {"width": _width, "depth": _depth}
    SIZES[f"efficientnet_{'' if _size == 'l2' else 'b'}{_size}"] = {"variant": "b", **_scale}
    SIZES[f"efficientnet_lite{_size}"] = {"variant": "lite", **_scale}
    SIZES[f"efficientnetv2_b{_size}"] = {"variant": "v2-b", **_scale}


def from_timm(published: dict[str, Any]) -> Config:
    """The configuration that a config.json of timm says: a size by name, with changes to it."""
    return Config(**timm.mobile_arguments(published, NAME, SIZES))


_PAPERS = {
    "efficientnet": "https://arxiv.org/abs/1905.11946",
    "efficientnetv2": "https://arxiv.org/abs/2104.00298",
}
# Architecture, weights, parameters (counted), top-1; pixels.
_PUBLISHED = (
    ("efficientnet_b0", "ra_in1k", 5_288_548, 77.698, 224),
    ("efficientnet_b1", "ft_in1k", 7_794_184, 77.592, 224),
    ("efficientnet_b2", "ra_in1k", 9_109_994, 79.324, 256),
    ("efficientnet_b3", "ra2_in1k", 12_233_232, 81.472, 288),
    ("efficientnet_b4", "ra2_in1k", 19_341_616, 82.658, 320),
)
_V2_S = timm.entry(
    "tf_efficientnetv2_s",
    "in21k_ft_in1k",
    21_458_488,
    83.348,
    size=300,
    crop=1.0,
    half=True,
    config={"variant": "v2-s", "same_padding": True, "eps": timm.TF_EPS},
    paper=_PAPERS["efficientnetv2"],
    name="efficientnetv2-s",
    aliases=("tf_efficientnetv2_s",),
    note="TensorFlow's weights, trained on ImageNet-21k first",
)


@register(
    "efficientnet",
    config=Config,
    task="image-classification",
    layouts={"timm": Layout(config=from_timm)},
    architectures=(
        r"(tf_)?efficientnet_(b[0-8]|l2|lite[0-4])",
        r"(tf_)?efficientnetv2_(s|m|l|xl|b[0-3])",
        r"efficientnetv2_rw_[tsm]",
    ),
    head=("classifier",),
    stem="conv_stem.weight",
    entries=[
        *(
            timm.entry(*row[:4], size=row[4], config=SIZES[row[0]], paper=_PAPERS["efficientnet"])
            for row in _PUBLISHED
        ),
        _V2_S,
    ],
)
def efficientnet(config: Config) -> EfficientNet:
    """EfficientNet and EfficientNetV2 for image classification."""
    return EfficientNet(config)
