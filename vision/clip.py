"""CLIP. Radford et al. 2021, "Learning Transferable Visual Models from Natural Language
Supervision".

An encoder for pictures and one for texts (text/clip_text.py), whose vectors are compared.
Weights: openai/clip-vit-base-patch32, ... (MIT), laion/CLIP-ViT-B-32-laion2B-s34B-b79K, ...; any
repository in the layout of transformers loads by its id. Attributes are named as transformers
names them, the misspelt `pre_layrnorm` too. Deviation from the paper: none; pictures of any size
are taken, the table of positions is resized.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from ..core import nn
from ..core.errors import ConfigError
from ..core.nn import functional as F
from ..core.ops.elementwise import exp
from ..core.ops.linalg import matmul
from ..core.ops.shape import broadcast_to, concat, matrix_transpose, permute_dims, reshape
from ..core.tensor import Tensor
from ..hub.configuration import (
    TRANSFORMERS_COMMON,
    TRANSFORMERS_DUMPED,
    as_pair,
    expect,
    positive,
    refuse_unknown,
)
from ..hub.registry import Entry, Hub, Layout, register
from ..text.clip_text import ClipText, Encoder, TextConfig, check_layers, initialise
from .inputs import check_images
from .transformer import Size, resized_positions
from .vit import ImageFeatures
from .vit_layouts import class_of

NAME = "CLIP"


@dataclass(frozen=True)
class VisionConfig:
    """Field names as in transformers' config.json; the defaults are ViT-B/32's image encoder.

    Args:
        hidden_size, intermediate_size, num_hidden_layers, num_attention_heads: of the layers.
        patch_size: height and width of a patch.
        hidden_act: "quick_gelu" in OpenAI's models, "gelu" in LAION's.
    """

    hidden_size: int = 768
    intermediate_size: int = 3072
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    patch_size: int = 32
    hidden_act: str = "quick_gelu"
    layer_norm_eps: float = 1e-5
    attention_dropout: float = 0.0

    def __post_init__(self) -> None:
        check_layers("CLIP's image encoder", self, self.patch_size)


@dataclass(frozen=True)
class Config:
    """Both encoders; the defaults are ViT-B/32.

    Args:
        text, vision: of the encoders.
        projection_dim: length of the vectors that are compared.
        image_size, in_channels: of the pictures.
    """

    text: TextConfig = field(default_factory=TextConfig)
    vision: VisionConfig = field(default_factory=VisionConfig)
    projection_dim: int = 512
    image_size: Size = (224, 224)
    in_channels: int = 3

    def __post_init__(self) -> None:
        # As it is read from a saved configuration.
        for name, kind in (("text", TextConfig), ("vision", VisionConfig)):
            value = getattr(self, name)
            if isinstance(value, dict):
                object.__setattr__(self, name, kind(**value))
            elif not isinstance(value, kind):
                raise ConfigError(f"{NAME}: {name}={value!r} is no {kind.__name__}")
        positive(NAME, projection_dim=self.projection_dim, in_channels=self.in_channels)
        as_pair(NAME, "image_size", self.image_size)
        if min(self.grid) < 1:
            raise ConfigError(
                f"{NAME}: image_size={self.image_size} must be at least "
                f"patch_size={self.vision.patch_size}."
            )

    @property
    def grid(self) -> Size:
        """Rows and columns of patches that the table of positions is for."""
        patch = self.vision.patch_size
        return self.image_size[0] // patch, self.image_size[1] // patch


class VisionEmbeddings(nn.Module):
    """The class token and the patches, with their positions."""

    def __init__(self, config: Config) -> None:
        self.grid, width, patch = config.grid, config.vision.hidden_size, config.vision.patch_size
        self.class_embedding = nn.init.parameter(width)
        self.patch_embedding = nn.Conv2d(config.in_channels, width, patch, patch, bias=False)
        self.position_embedding = nn.Embedding(1 + self.grid[0] * self.grid[1], width)

    def forward(self, pixel_values: Tensor) -> tuple[Tensor, Size]:
        """The vectors, and rows and columns of patches."""
        x: Tensor = self.patch_embedding(pixel_values)
        b, d, *grid = x.shape
        size = (grid[0], grid[1])
        patches = permute_dims(reshape(x, (b, d, -1)), (0, 2, 1))
        token = broadcast_to(self.class_embedding, (b, 1, d))
        table = self.position_embedding.weight[None]
        table = resized_positions(table, self.grid, size, prefix=1, antialias=False)
        return concat([token, patches], axis=1) + table, size


class ClipVision(nn.Module):
    """Patches and a class token through the layers, which a layer norm comes before and after."""

    def __init__(self, config: Config) -> None:
        width, eps = config.vision.hidden_size, config.vision.layer_norm_eps
        self.in_channels, self.patch = config.in_channels, config.vision.patch_size
        self.embeddings = VisionEmbeddings(config)
        self.pre_layrnorm = nn.LayerNorm(width, eps=eps)
        self.encoder = Encoder(config.vision)
        self.post_layernorm = nn.LayerNorm(width, eps=eps)
        initialise(self)
        nn.init.normal_(self.embeddings.class_embedding, std=width**-0.5)
        nn.init.normal_(self.embeddings.patch_embedding.weight, std=0.02)

    def embedded(self, pixel_values: Tensor) -> tuple[Tensor, Size]:
        """What the first layer sees, and rows and columns of patches."""
        check_images(pixel_values, self.in_channels, self.patch)
        x, size = self.embeddings(pixel_values)
        return self.pre_layrnorm(x), size

    def forward(self, pixel_values: Tensor) -> ImageFeatures:
        """Every token after the last layer, and the class token normalised."""
        x: Tensor = self.encoder(self.embedded(pixel_values)[0])
        return ImageFeatures(x, self.post_layernorm(x[:, 0]))


class ClipOutput(NamedTuple):
    """How alike pictures and texts are, and the vectors (of length 1) that say so."""

    logits_per_image: Tensor
    logits_per_text: Tensor
    text_embeds: Tensor
    image_embeds: Tensor


class Clip(nn.Module):
    """`vision_model` and `text_model`, and maps to vectors of one length."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.logit_scale = nn.init.constant_(nn.init.parameter(), 2.6592)  # log(1 / 0.07)
        self.text_model = ClipText(config.text)
        self.vision_model = ClipVision(config)
        widths, size = (config.vision.hidden_size, config.text.hidden_size), config.projection_dim
        self.visual_projection = nn.Linear(widths[0], size, bias=False)
        self.text_projection = nn.Linear(widths[1], size, bias=False)
        nn.init.normal_(self.visual_projection.weight, std=widths[0] ** -0.5)
        nn.init.normal_(self.text_projection.weight, std=widths[1] ** -0.5)

    def embed(self, pixel_values: Tensor) -> Tensor:
        """The vectors of pictures.

        Shape:
            (B, in_channels, H, W) -> (B, projection_dim)
        """
        vectors: Tensor = self.visual_projection(self.vision_model(pixel_values).pooler_output)
        return vectors

    def embed_text(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """The vectors of texts.

        Shape:
            (B, T), whole numbers -> (B, projection_dim)
        """
        pooled = self.text_model(input_ids, attention_mask).pooler_output
        vectors: Tensor = self.text_projection(pooled)
        return vectors

    def feature_maps(
        self, pixel_values: Tensor, layers: Collection[int] | None = None
    ) -> tuple[Tensor, ...]:
        """Maps of the patches after some of the layers.

        Args:
            layers: numbers of layers from 0; unless given, a quarter, half, three quarters of them
                and the last.
        Shape:
            (B, in_channels, H, W) -> (B, D, H // patch, W // patch) for each
        """
        x, size = self.vision_model.embedded(pixel_values)
        every = list(self.vision_model.encoder.layers)
        wanted = {len(every) * n // 4 - 1 for n in (1, 2, 3, 4)} if layers is None else set(layers)
        maps = []
        for i, layer in enumerate(every):
            x = layer(x, None, False)
            if i in wanted:
                patches = permute_dims(x[:, 1:], (0, 2, 1))
                maps.append(reshape(patches, (*patches.shape[:2], *size)))
        return tuple(maps)

    def forward_features(self, pixel_values: Tensor) -> Tensor:
        """The last feature map. Shape: (B, in_channels, H, W) -> (B, D, H // patch, W // patch)."""
        return self.feature_maps(pixel_values, {len(self.vision_model.encoder.layers) - 1})[0]

    def forward(
        self, input_ids: Tensor, pixel_values: Tensor, attention_mask: Tensor | None = None
    ) -> ClipOutput:
        """Compare every picture with every text.

        Shape:
            (M, T) and (B, in_channels, H, W) -> logits (B, M) and (M, B), vectors
        """
        image = F.normalize(self.embed(pixel_values), axis=-1)
        text = F.normalize(self.embed_text(input_ids, attention_mask), axis=-1)
        logits = matmul(image, matrix_transpose(text)) * exp(self.logit_scale)
        return ClipOutput(logits, matrix_transpose(logits), text, image)


def fit_positions(state: dict[str, Any], old: Config, new: Config) -> tuple[str, ...]:
    """Resize the table of positions of a file for pictures of another size."""
    name = "vision_model.embeddings.position_embedding.weight"
    if name not in state or old.grid == new.grid:
        return ()
    table = Tensor(state[name][None])
    state[name] = resized_positions(table, old.grid, new.grid, prefix=1, antialias=False).array[0]
    return (name,)


# -- published models ------------------------------------------------------------------------

# Buffers of old files.
TRANSFORMERS = {
    "text_model.embeddings.position_ids": None,
    "vision_model.embeddings.position_ids": None,
}
_LAYERS = {
    "attention_dropout", "hidden_act", "hidden_size", "intermediate_size", "layer_norm_eps",
    "num_attention_heads", "num_hidden_layers",
}  # fmt: skip
_TEXT = _LAYERS | {"eos_token_id", "max_position_embeddings", "vocab_size"}
_PARTS = {"text_config", "text_config_dict", "vision_config", "vision_config_dict"}
# Of the training, of the tokenizer, or the same for both encoders and said above them.
_IGNORED = {"bos_token_id", "initializer_factor", "pad_token_id", "projection_dim"}
# What was always written, with these values.
_FIXED: dict[str, tuple[Any, ...]] = {
    "add_cross_attention": (False,),
    "cross_attention_hidden_size": (None,),
    "dropout": (0.0,),
    "is_decoder": (False,),
    "is_encoder_decoder": (False,),
    "pruned_heads": ({},),
}


def _part(published: dict[str, Any], part: str, read: set[str]) -> dict[str, Any]:
    """The settings of one encoder; those of `..._dict` win over the others."""
    found: dict[str, Any] = {}
    for key in (f"{part}_config", f"{part}_config_dict"):
        value = published.get(key) or {}
        if not isinstance(value, dict):
            raise ConfigError(f"{NAME}: {key}={value!r} is no object", got=value)
        found |= value
    known = read | _IGNORED | set(_FIXED) | TRANSFORMERS_COMMON | TRANSFORMERS_DUMPED
    refuse_unknown(found, known, f"{NAME} ({part}_config)")
    expect(found, f"{NAME} ({part}_config)", **_FIXED)
    return {key: found[key] for key in read & set(found)}


def from_transformers(published: dict[str, Any]) -> Config:
    """The configuration that a config.json of transformers says."""
    known = _PARTS | {"initializer_factor", "logit_scale_init_value", "projection_dim"}
    refuse_unknown(published, known | TRANSFORMERS_COMMON | TRANSFORMERS_DUMPED, NAME)
    class_of(published, ("CLIPModel",), "CLIPModel")
    text = _part(published, "text", _TEXT)
    vision = _part(published, "vision", _LAYERS | {"image_size", "num_channels", "patch_size"})
    size, channels = vision.pop("image_size", 224), vision.pop("num_channels", 3)
    return Config(
        text=TextConfig(**text),
        vision=VisionConfig(**vision),
        projection_dim=published.get("projection_dim", 512),
        image_size=as_pair(NAME, "image_size", size),
        in_channels=channels,
    )


_LARGE = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24}
_LARGE |= {"num_attention_heads": 16, "patch_size": 14}
_LARGE_TEXT = {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12}
# Name, repository, vision, text, pixels, parameters (counted). Sizes: open_clip 3.3.0.
_PUBLISHED: tuple[tuple[str, str, dict[str, Any], dict[str, Any], int, int], ...] = (
    ("clip-vit-base-patch32", "openai/", {}, {}, 224, 151_277_313),
    ("clip-vit-base-patch16", "openai/", {"patch_size": 16}, {}, 224, 149_620_737),
    ("clip-vit-large-patch14", "openai/", _LARGE, _LARGE_TEXT, 224, 427_616_513),
    ("clip-vit-large-patch14-336", "openai/", _LARGE, _LARGE_TEXT, 336, 427_944_193),
    (
        "clip-vit-b-32-laion2b-s34b-b79k",
        "laion/CLIP-ViT-B-32-laion2B-s34B-b79K",
        {"hidden_act": "gelu"},
        {"hidden_act": "gelu"},
        224,
        151_277_313,
    ),
)


def _entry(
    name: str,
    repo: str,
    vision: dict[str, Any],
    text: dict[str, Any],
    pixels: int,
    parameters: int,
) -> Entry:
    openai = repo == "openai/"
    return Entry(
        name=name,
        sources=(Hub(repo + name if openai else repo),),
        config={
            "vision": VisionConfig(**vision),
            "text": TextConfig(**text),
            "projection_dim": text.get("hidden_size", 512),
            "image_size": (pixels, pixels),
        },
        layout="transformers",
        # https://github.com/openai/CLIP/blob/b1c4b6be5871f1b94359ba55901627f29ecc9ae9/LICENSE
        license="MIT" if openai else None,
        commercial=True if openai else None,
        parameters=parameters,
        preprocess={  # transformers 5.23.0, CLIPImageProcessor
            "size": (pixels, pixels),
            "resize": pixels,
            "resample": "bicubic",
            "mean": (0.48145466, 0.4578275, 0.40821073),
            "std": (0.26862954, 0.26130258, 0.27577711),
            "rounding": "transformers",
        },
        paper="https://arxiv.org/abs/2103.00020",
    )


@register(
    "clip",
    config=Config,
    task="zero-shot-image-classification",
    layouts={"transformers": Layout(rename=TRANSFORMERS, config=from_transformers)},
    model_types=("clip",),
    stem="vision_model.embeddings.patch_embedding.weight",
    fit=fit_positions,
    entries=[_entry(*row) for row in _PUBLISHED],
)
def clip(config: Config) -> Clip:
    """Pictures and texts as vectors that can be compared."""
    return Clip(config)
