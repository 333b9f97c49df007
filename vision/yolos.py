"""YOLOS. Fang et al. 2021, "You Only Look at One Sequence".

Weights: hustvl/yolos-tiny, yolos-small, yolos-small-300, yolos-small-dwr, yolos-base (Apache-2.0);
any repository in the layout of transformers loads by its id.
Deviation from the paper: none; pictures of any size are taken, tables of positions are resized.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..core import nn
from ..core.errors import ConfigError
from ..core.nn import functional as F
from ..core.ops.shape import broadcast_to, concat, stack
from ..core.tensor import Tensor
from ..hub.configuration import (
    TRANSFORMERS_COMMON,
    as_pair,
    expect,
    flags,
    number_of_labels,
    positive,
    real,
    refuse_unknown,
)
from ..hub.registry import Entry, Hub, Layout, Metric, register
from .inputs import check_images
from .set_detection import BoxHead, Detections, SetDetector
from .transformer import (
    ACTIVATIONS,
    Attention,
    Block,
    Mlp,
    PatchEmbed,
    Size,
    initialise,
    resized_positions,
)
from .vit_layouts import JOIN
from .vit_layouts import TRANSFORMERS as VIT

NAME = "YOLOS"


@dataclass(frozen=True)
class Config:
    """Field names as in transformers' config.json; the defaults are YOLOS-tiny.

    Args:
        hidden_size, num_hidden_layers, num_attention_heads, intermediate_size: of the blocks.
        patch_size, image_size: of a patch, and of the pictures that positions are stored for.
        hidden_act: a name of `transformer.ACTIVATIONS`.
        num_detection_tokens: boxes that are found in each picture.
        use_mid_position_embeddings: positions are added again after each block but the last.
        class_cost, bbox_cost, giou_cost: of pairing a box with an object.
        bbox_loss_coefficient, giou_loss_coefficient: weights in the loss, beside 1 for the class.
        eos_coefficient: weight of "no object" in it.
        in_channels, num_classes: of the pictures and of the head.
    """

    hidden_size: int = 192
    num_hidden_layers: int = 12
    num_attention_heads: int = 3
    intermediate_size: int = 768
    patch_size: Size = (16, 16)
    image_size: Size = (800, 1333)
    hidden_act: str = "gelu"
    layer_norm_eps: float = 1e-12
    qkv_bias: bool = True
    hidden_dropout_prob: float = 0.0
    attention_probs_dropout_prob: float = 0.0
    num_detection_tokens: int = 100
    use_mid_position_embeddings: bool = False
    class_cost: float = 1
    bbox_cost: float = 5
    giou_cost: float = 2
    bbox_loss_coefficient: float = 5
    giou_loss_coefficient: float = 2
    eos_coefficient: float = 0.1
    in_channels: int = 3
    num_classes: int = 91

    def __post_init__(self) -> None:
        sizes = (*_SIZES, "in_channels", "num_classes")
        positive(NAME, **{key: getattr(self, key) for key in sizes})
        rates = ("hidden_dropout_prob", "attention_probs_dropout_prob", "layer_norm_eps")
        real(NAME, **{key: getattr(self, key) for key in rates})
        real(NAME, 0, 1e6, **{key: getattr(self, key) for key in _WEIGHTS})
        flags(NAME, qkv_bias=self.qkv_bias, mid=self.use_mid_position_embeddings)
        expect({"hidden_act": self.hidden_act}, NAME, hidden_act=tuple(ACTIVATIONS))
        image, patch = (as_pair(NAME, k, getattr(self, k)) for k in ("image_size", "patch_size"))
        small = image[0] < patch[0] or image[1] < patch[1]
        if small or self.hidden_size % self.num_attention_heads:
            raise ConfigError(
                f"{NAME}: hidden_size={self.hidden_size} must be a multiple of "
                f"num_attention_heads={self.num_attention_heads}, and image_size={image} at least "
                f"patch_size={patch}."
            )

    @property
    def grid(self) -> Size:
        """Rows and columns of patches that the table of positions is for."""
        return self.image_size[0] // self.patch_size[0], self.image_size[1] // self.patch_size[1]


_SIZES = (
    "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size",
    "num_detection_tokens",
)  # fmt: skip
_WEIGHTS = (
    "class_cost", "bbox_cost", "giou_cost", "bbox_loss_coefficient", "giou_loss_coefficient",
    "eos_coefficient",
)  # fmt: skip


class YOLOS(SetDetector):
    """A plain vision transformer; tokens after the patches become a class and a box each."""

    def __init__(self, config: Config) -> None:
        self.config = config
        width, tokens = config.hidden_size, config.num_detection_tokens
        places = 1 + config.grid[0] * config.grid[1] + tokens
        depth = config.num_hidden_layers
        self.cls_token = nn.init.parameter(1, 1, width)
        self.det_token = nn.init.parameter(1, tokens, width)
        self.pos_embed = nn.init.parameter(1, places, width)
        mid = config.use_mid_position_embeddings and depth > 1
        self.mid_pos_embed = nn.init.parameter(depth - 1, 1, places, width) if mid else None
        self.patch_embed = PatchEmbed(config.in_channels, width, config.patch_size)
        self.drop = nn.Dropout(config.hidden_dropout_prob)
        self.blocks = nn.Sequential(*(_block(config) for _ in range(depth)))
        self.norm = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.class_labels_classifier = BoxHead(width, config.num_classes + 1)
        self.bbox_predictor = BoxHead(width, 4)
        initialise(self.blocks)
        for table in (self.cls_token, self.det_token, self.pos_embed, self.mid_pos_embed):
            if table is not None:
                nn.init.trunc_normal_(table, std=0.02)

    def forward(self, pixel_values: Tensor, pixel_mask: Tensor | None = None) -> Detections:
        """Logits and boxes of every detection token.

        Args:
            pixel_mask: not used; the published model does not see it either.
        Shape:
            (B, in_channels, H, W) -> (B, Q, num_classes + 1), (B, Q, 4)
        """
        config = self.config
        check_images(pixel_values, config.in_channels, max(config.patch_size))
        x, grid = self.patch_embed(pixel_values)
        first = broadcast_to(self.cls_token, (x.shape[0], *self.cls_token.shape[1:]))
        last = broadcast_to(self.det_token, (x.shape[0], *self.det_token.shape[1:]))
        x = self.drop(concat([first, x, last], axis=1) + self._places(self.pos_embed, grid))
        for i, block in enumerate(self.blocks):
            x = block(x)
            if self.mid_pos_embed is not None and i < len(self.blocks) - 1:
                x = x + self._places(self.mid_pos_embed[i], grid)
        found = self.norm(x)[:, -config.num_detection_tokens :]
        boxes = F.sigmoid(self.bbox_predictor(found))
        return Detections(self.class_labels_classifier(found), boxes)

    def layers_say(self, pixel_values: Tensor, pixel_mask: Tensor | None) -> list[Detections]:
        """What the network says; only its last layer has answers."""
        return [self(pixel_values)]

    def _places(self, table: Tensor, grid: Size) -> Tensor:
        return fitted(table, self.config.grid, grid, self.config.num_detection_tokens)


def _block(config: Config) -> Block:
    width, eps = config.hidden_size, config.layer_norm_eps
    drop, drop_attention = config.hidden_dropout_prob, config.attention_probs_dropout_prob
    heads = config.num_attention_heads
    attention = Attention(width, heads, bias=config.qkv_bias, dropout=drop_attention)
    mlp = Mlp(width, config.intermediate_size, config.hidden_act)
    return Block(width, attention, mlp, eps=eps, dropout=drop)


def fitted(table: Tensor, old: Size, new: Size, tokens: int) -> Tensor:
    """A table of positions for another number of patches; those of the tokens stay.

    Shape:
        (1, 1 + old[0] * old[1] + tokens, D) -> (1, 1 + new[0] * new[1] + tokens, D)
    """
    if old == new:
        return table
    picture = resized_positions(table[:, :-tokens], old, new, prefix=1, antialias=False)
    return concat([picture, table[:, -tokens:]], axis=1)


def fit_positions(state: dict[str, Any], before: Config, after: Config) -> tuple[str, ...]:
    """Resize the tables of positions among the tensors of a file, in place."""
    old, new, tokens = before.grid, after.grid, before.num_detection_tokens
    if old == new:
        return ()
    changed = [name for name in ("pos_embed", "mid_pos_embed") if name in state]
    for name in changed:
        table = Tensor(state[name])
        if name == "pos_embed":
            state[name] = fitted(table, old, new, tokens).array
        else:
            state[name] = stack(
                [fitted(table[i], old, new, tokens) for i in range(len(table))]
            ).array
    return tuple(changed)


# -- published layouts -------------------------------------------------------------------------

RENAME: dict[str, str | None] = {
    "vit.embeddings.detection_tokens": "det_token",
    "vit.encoder.mid_position_embeddings": "mid_pos_embed",
    **{old: new for old, new in VIT.items() if old.startswith("vit.")},
}

_PLAIN = {
    *_SIZES, *_WEIGHTS, "attention_probs_dropout_prob", "hidden_act", "hidden_dropout_prob",
    "image_size", "layer_norm_eps", "patch_size", "qkv_bias", "use_mid_position_embeddings",
}  # fmt: skip
_DEFAULTS = {  # of transformers, where a file does not say
    "hidden_size": 768, "num_attention_heads": 12, "intermediate_size": 3072,
    "image_size": (512, 864), "use_mid_position_embeddings": True,
}  # fmt: skip


def from_transformers(published: dict[str, Any]) -> Config:
    """The configuration that a config.json of transformers says."""
    known = _PLAIN | TRANSFORMERS_COMMON | {"num_channels", "auxiliary_loss"}
    refuse_unknown(published, known, NAME)
    expect(published, NAME, architectures=(None, ["YolosForObjectDetection"]))
    given = {**_DEFAULTS, **{key: published[key] for key in _PLAIN & set(published)}}
    for key in ("image_size", "patch_size"):
        if key in given:
            given[key] = as_pair(NAME, key, given[key])
    channels = published.get("num_channels", 3)
    return Config(**given, in_channels=channels, num_classes=number_of_labels(published))


_RESULTS = "https://github.com/hustvl/YOLOS/blob/04cab88b13c8abec2ae0ff5714e6f750679f4f18/README.md"
_SMALL: dict[str, Any] = {"hidden_size": 384, "num_attention_heads": 6, "intermediate_size": 1536}
_SMALL |= {"image_size": (512, 864), "use_mid_position_embeddings": True}
_BASE: dict[str, Any] = {"hidden_size": 768, "num_attention_heads": 12, "intermediate_size": 3072}
_BASE |= {"image_size": (800, 1344), "use_mid_position_embeddings": True}
_WIDE: dict[str, Any] = {"hidden_size": 330, "num_attention_heads": 6, "intermediate_size": 1320}
_WIDE |= {"num_hidden_layers": 14, "image_size": (512, 864), "use_mid_position_embeddings": True}
# Name, configuration, parameters (counted), shorter side and box AP on COCO 2017 val (README.md).
_PUBLISHED: tuple[tuple[str, dict[str, Any], int, int, float], ...] = (
    ("yolos-tiny", {}, 6_488_736, 512, 28.7),
    ("yolos-small", _SMALL, 30_684_768, 800, 36.1),
    ("yolos-small-300", _SMALL, 30_684_768, 800, 36.1),
    ("yolos-small-dwr", _WIDE, 27_561_696, 800, 37.6),
    ("yolos-base", _BASE, 127_798_368, 800, 42.0),
)


def _entry(name: str, config: dict[str, Any], parameters: int, side: int, ap: float) -> Entry:
    return Entry(
        name=name,
        sources=(Hub(f"hustvl/{name}"),),
        config=config,
        layout="transformers",
        license="Apache-2.0",
        commercial=True,
        parameters=parameters,
        metric=Metric("box AP", ap, "COCO 2017 validation", side, _RESULTS),
        # transformers 5.23, defaults of YolosImageProcessor; `side` as the conversion of these
        # weights asked for it (transformers 4, models/yolos/convert_yolos_to_pytorch.py)
        preprocess={"shortest": side, "longest": 1333, "multiple": 16},
        labels="coco-91",
        paper="https://arxiv.org/abs/2106.00666",
    )


@register(
    "yolos",
    config=Config,
    task="object-detection",
    layouts={"transformers": Layout(rename=RENAME, join=JOIN, config=from_transformers)},
    model_types=("yolos",),
    head=("class_labels_classifier",),
    stem="patch_embed.proj.weight",
    fit=fit_positions,
    entries=[_entry(*row) for row in _PUBLISHED],
)
def yolos(config: Config) -> YOLOS:
    """YOLOS for object detection."""
    return YOLOS(config)
