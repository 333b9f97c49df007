"""ResNet. He et al. 2015, "Deep Residual Learning for Image Recognition".

Weights: timm/resnet18.a1_in1k, ..., timm/resnet152.a1_in1k (Apache-2.0); any repository in the
layout of timm, torchvision or transformers (microsoft/resnet-50) loads by its id.
Deviation from the paper, as in all of these: bottlenecks stride in their 3x3 convolution
("v1.5"), unless the configuration says otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..core import nn
from ..core.errors import ConfigError
from ..core.tensor import Tensor
from ..hub.configuration import (
    TIMM_COMMON,
    TRANSFORMERS_COMMON,
    as_tuple,
    expect,
    flags,
    number_of_labels,
    positive,
    refuse_unknown,
)
from ..hub.registry import Entry, Hub, Layout, Metric, register
from .inputs import check_images


@dataclass(frozen=True)
class Config:
    """Field names as in transformers' config.json; the defaults are ResNet-50.

    Args:
        depths: blocks in each stage.
        hidden_sizes: channels that each stage gives.
        layer_type: "basic" (two 3x3 convolutions) or "bottleneck" (1x1, 3x3, 1x1).
        embedding_size: channels of the stem.
        downsample_in_first_stage: whether the first stage halves the resolution as well.
        downsample_in_bottleneck: whether the first 1x1 convolution strides, not the 3x3.
        in_channels, num_classes: of the pictures and of the head.
    """

    depths: tuple[int, ...] = (3, 4, 6, 3)
    hidden_sizes: tuple[int, ...] = (256, 512, 1024, 2048)
    layer_type: str = "bottleneck"
    embedding_size: int = 64
    downsample_in_first_stage: bool = False
    downsample_in_bottleneck: bool = False
    in_channels: int = 3
    num_classes: int = 1000

    def __post_init__(self) -> None:
        positive(
            "ResNet",
            depths=self.depths,
            hidden_sizes=self.hidden_sizes,
            embedding_size=self.embedding_size,
            in_channels=self.in_channels,
            num_classes=self.num_classes,
        )
        flags(
            "ResNet",
            downsample_in_first_stage=self.downsample_in_first_stage,
            downsample_in_bottleneck=self.downsample_in_bottleneck,
        )
        if len(self.depths) != len(self.hidden_sizes) or len(self.depths) > MAX_STAGES:
            raise ConfigError(
                f"ResNet: depths {self.depths} and hidden_sizes {self.hidden_sizes} have one "
                f"number for each stage, of which there are at most {MAX_STAGES}."
            )
        if self.layer_type not in BLOCKS:
            raise ConfigError(
                f"ResNet: layer_type is 'basic' or 'bottleneck', not {self.layer_type!r}",
                got=self.layer_type,
            )


MAX_STAGES = 8


def conv(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    """A convolution without bias that keeps the size (but for its stride)."""
    return nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False)


def trunk_of(config: Any) -> Config:
    """The ResNet below a detector, whose configuration holds its sizes under the same names."""
    names = ("depths", "hidden_sizes", "layer_type", "embedding_size", "in_channels")
    return Config(**{name: getattr(config, name) for name in names}, num_classes=1)


class Block(nn.Module):
    """What both kinds of block share: convolutions, then the input added back."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        self.relu = nn.ReLU()
        # The input needs a convolution of its own where the shape changes.
        self.downsample: nn.Sequential | None = None
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(
                conv(inputs, outputs, 1, stride), nn.BatchNorm2d(outputs)
            )

    def residual(self, x: Tensor) -> Tensor:
        """The identity, or its projection to the new shape."""
        if self.downsample is None:
            return x
        projected: Tensor = self.downsample(x)
        return projected


class BasicBlock(Block):
    """Two 3x3 convolutions."""

    def __init__(self, inputs: int, outputs: int, stride: int, config: Config) -> None:
        self.conv1 = conv(inputs, outputs, 3, stride)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = conv(outputs, outputs, 3)
        self.bn2 = nn.BatchNorm2d(outputs)
        super().__init__(inputs, outputs, stride)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        y = self.relu(y + self.residual(x))
        return y


class Bottleneck(Block):
    """1x1 to a quarter of the channels, 3x3, 1x1 back."""

    def __init__(self, inputs: int, outputs: int, stride: int, config: Config) -> None:
        width = outputs // 4
        first, second = (stride, 1) if config.downsample_in_bottleneck else (1, stride)
        self.conv1 = conv(inputs, width, 1, first)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = conv(width, width, 3, second)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = conv(width, outputs, 1)
        self.bn3 = nn.BatchNorm2d(outputs)
        super().__init__(inputs, outputs, stride)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.relu(self.bn1(self.conv1(x)))
        y = self.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        y = self.relu(y + self.residual(x))
        return y


BLOCKS: dict[str, type[BasicBlock] | type[Bottleneck]] = {
    "basic": BasicBlock,
    "bottleneck": Bottleneck,
}


class ResNet(nn.Module):
    """A stem, stages `layer1`, `layer2`, ... of residual blocks, a linear head `fc`."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.conv1 = nn.Conv2d(
            config.in_channels, config.embedding_size, 7, 2, padding=3, bias=False
        )
        self.bn1 = nn.BatchNorm2d(config.embedding_size)
        self.relu = nn.ReLU()
        self.maxpool = nn.MaxPool2d(3, 2, padding=1)
        block = BLOCKS[config.layer_type]
        inputs = config.embedding_size
        for i, (depth, outputs) in enumerate(zip(config.depths, config.hidden_sizes, strict=True)):
            stride = 1 if i == 0 and not config.downsample_in_first_stage else 2
            blocks = [block(inputs, outputs, stride, config)]
            blocks += [block(outputs, outputs, 1, config) for _ in range(depth - 1)]
            setattr(self, f"layer{i + 1}", nn.Sequential(*blocks))
            inputs = outputs
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(inputs, config.num_classes)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initialise for training from scratch: He's for convolutions, blocks start as identity.

        Source: Goyal et al. 2017, "Accurate, Large Minibatch SGD", section 5.1.
        """
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            elif isinstance(module, (BasicBlock, Bottleneck)):
                last = module.bn3 if isinstance(module, Bottleneck) else module.bn2
                if last.weight is not None:
                    nn.init.zeros_(last.weight)

    def forward_features(self, pixel_values: Tensor) -> Tensor:
        """The last feature map.

        Shape:
            (B, in_channels, H, W) -> (B, hidden_sizes[-1], H / 32, W / 32)
        """
        return self.feature_maps(pixel_values)[-1]

    def feature_maps(self, pixel_values: Tensor) -> tuple[Tensor, ...]:
        """What each stage gives, the finest first.

        Shape:
            (B, in_channels, H, W) -> (B, hidden_sizes[i], H / (4 * 2**i), W / (4 * 2**i)) for each
        """
        check_images(pixel_values, self.config.in_channels)
        x: Tensor = self.maxpool(self.relu(self.bn1(self.conv1(pixel_values))))
        maps = []
        for i in range(len(self.config.depths)):
            x = getattr(self, f"layer{i + 1}")(x)
            maps.append(x)
        return tuple(maps)

    def embed(self, pixel_values: Tensor) -> Tensor:
        """What the head sees: the mean over all places.

        Shape:
            (B, in_channels, H, W) -> (B, hidden_sizes[-1])
        """
        x: Tensor = self.avgpool(self.forward_features(pixel_values))
        return x.reshape(x.shape[:2])

    def forward(self, pixel_values: Tensor) -> Tensor:
        """Logits of every class.

        Shape:
            (B, in_channels, H, W) -> (B, num_classes)
        """
        logits: Tensor = self.fc(self.embed(pixel_values))
        return logits


# -- published layouts --------------------------------------------------------------------------

SIZES: dict[int, dict[str, Any]] = {
    18: {"depths": (2, 2, 2, 2), "layer_type": "basic", "hidden_sizes": (64, 128, 256, 512)},
    34: {"depths": (3, 4, 6, 3), "layer_type": "basic", "hidden_sizes": (64, 128, 256, 512)},
    50: {"depths": (3, 4, 6, 3)},
    101: {"depths": (3, 4, 23, 3)},
    152: {"depths": (3, 8, 36, 3)},
}

# transformers counts stages from 0, timm and torchvision from 1.
TRANSFORMERS: dict[str, str] = {
    "resnet.embedder.embedder.convolution.{rest}": "conv1.{rest}",
    "resnet.embedder.embedder.normalization.{rest}": "bn1.{rest}",
    "classifier.1.{rest}": "fc.{rest}",
}
for _i in range(MAX_STAGES):
    _old, _new = f"resnet.encoder.stages.{_i}.layers.{{}}.", f"layer{_i + 1}.{{}}."
    TRANSFORMERS[_old + "shortcut.convolution.{rest}"] = _new + "downsample.0.{rest}"
    TRANSFORMERS[_old + "shortcut.normalization.{rest}"] = _new + "downsample.1.{rest}"
    for _j in range(3):
        TRANSFORMERS[_old + f"layer.{_j}.convolution.{{rest}}"] = _new + f"conv{_j + 1}.{{rest}}"
        TRANSFORMERS[_old + f"layer.{_j}.normalization.{{rest}}"] = _new + f"bn{_j + 1}.{{rest}}"


def from_transformers(published: dict[str, Any]) -> Config:
    """The configuration that a config.json of transformers says."""
    same = {"depths", "hidden_sizes", "layer_type", "embedding_size"}
    same |= {"downsample_in_first_stage", "downsample_in_bottleneck"}
    known = same | TRANSFORMERS_COMMON | {"hidden_act", "num_channels"}
    refuse_unknown(published, known, "ResNet")
    expect(published, "ResNet", hidden_act=("relu",))
    given: dict[str, Any] = {key: published[key] for key in same & set(published)}
    for key in ("depths", "hidden_sizes"):
        if key in given:
            given[key] = as_tuple("ResNet", key, given[key])
    channels = published.get("num_channels", 3)
    return Config(**given, in_channels=channels, num_classes=number_of_labels(published))


def to_transformers(config: Config) -> dict[str, Any]:
    """The config.json of transformers for a configuration: what `from_transformers` reads."""
    same = ["depths", "hidden_sizes", "layer_type", "embedding_size"]
    same += ["downsample_in_first_stage", "downsample_in_bottleneck"]
    values = {key: getattr(config, key) for key in same}
    lists = {k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}
    return {
        "architectures": ["ResNetForImageClassification"],
        "model_type": "resnet",
        **lists,
        "hidden_act": "relu",
        "num_channels": config.in_channels,
        "id2label": {str(i): f"class {i}" for i in range(config.num_classes)},
    }


def from_timm(published: dict[str, Any]) -> Config:
    """The configuration that a config.json of timm says: a size by name, with changes to it."""
    args = published.get("model_args") or {}
    refuse_unknown(published, TIMM_COMMON, "ResNet")
    known = {"layers", "channels", "in_chans", "num_classes", "global_pool"}
    refuse_unknown(args, known, "ResNet (model_args)")
    expect({**args, **published}, "ResNet", global_pool=("avg",))
    size = SIZES[int(str(published["architecture"]).removeprefix("resnet"))]
    expansion = 1 if size.get("layer_type") == "basic" else 4
    values = dict(size)
    if "layers" in args:
        values["depths"] = as_tuple("ResNet", "layers", args["layers"])
    if "channels" in args:
        channels = as_tuple("ResNet", "channels", args["channels"])
        positive("ResNet", channels=channels)
        values["hidden_sizes"] = tuple(expansion * width for width in channels)
    first = published.get("pretrained_cfg", {}).get("input_size") or (3,)
    return Config(
        **values,
        in_channels=args.get("in_chans", first[0]),
        num_classes=published.get("num_classes", 1000),
    )


_PAPER = "https://arxiv.org/abs/1512.03385"
_RESULTS = (
    "https://github.com/huggingface/pytorch-image-models/blob/"
    "aa4b5850c1543fa488abf260f18390eda46cf85d/results/results-imagenet.csv"
)
# Depth, parameters (counted), top-1 at 224 pixels (results-imagenet.csv).
_PUBLISHED = (
    (18, 11_689_512, 71.504),
    (34, 21_797_672, 76.420),
    (50, 25_557_032, 80.382),
    (101, 44_549_160, 81.494),
    (152, 60_192_808, 81.998),
)


def _entry(depth: int, parameters: int, top1: float) -> Entry:
    return Entry(
        name=f"resnet{depth}",
        aliases=(f"resnet-{depth}", f"resnet{depth}.a1_in1k"),
        sources=(Hub(f"timm/resnet{depth}.a1_in1k"),),
        config=SIZES[depth],
        layout="timm",
        license="Apache-2.0",
        commercial=True,
        parameters=parameters,
        metric=Metric("% top-1", top1, "ImageNet-1k validation", 224, _RESULTS),
        # timm 1.0.31, default configuration of these weights
        preprocess={"size": (224, 224), "resize": 235, "resample": "bicubic"},
        labels="imagenet-1k",
        paper=_PAPER,
        note="trained by the recipe A1 of https://arxiv.org/abs/2110.00476",
    )


@register(
    "resnet",
    config=Config,
    task="image-classification",
    layouts={
        "timm": Layout(config=from_timm),
        "transformers": Layout(
            rename=TRANSFORMERS, config=from_transformers, publish=to_transformers
        ),
    },
    model_types=("resnet",),
    architectures=(r"resnet(18|34|50|101|152)",),
    head=("fc",),
    stem="conv1.weight",
    entries=[_entry(*row) for row in _PUBLISHED],
)
def resnet(config: Config) -> ResNet:
    """ResNet for image classification."""
    return ResNet(config)
