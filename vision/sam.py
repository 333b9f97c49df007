"""SAM, the Segment Anything Model. Kirillov et al. 2023, "Segment Anything".

A vision transformer sees a picture once (most of its layers within windows, with a trained number
for each distance: Li et al. 2021, "MViTv2"); a small decoder then answers any number of points,
boxes and masks. Weights: facebook/sam-vit-base, -large and -huge (Apache-2.0). Deviation from the
paper: texts as prompts were not published.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from ..core import nn
from ..core.errors import ConfigError, ShapeError
from ..core.nn import functional as F
from ..core.ops.indexing import take
from ..core.ops.linalg import matmul
from ..core.ops.manipulation import unstack
from ..core.ops.padding import pad
from ..core.ops.shape import broadcast_to, concat, permute_dims, reshape
from ..core.tensor import Tensor
from ..hub.configuration import (
    TRANSFORMERS_COMMON,
    TRANSFORMERS_DUMPED,
    as_tuple,
    expect,
    flags,
    positive,
    real,
    refuse_unknown,
)
from ..hub.registry import Bundled, Entry, Hub, Layout, Metric, register
from .convnext import LayerNorm2d
from .inputs import check_images
from .sam_decoder import FourierPositions, MaskDecoder, PromptEncoder

NAME = "SAM"


@dataclass(frozen=True)
class Config:
    """The defaults are the base size.

    Args:
        hidden_size, num_hidden_layers, num_attention_heads, mlp_dim: of the image encoder.
        input_size: height and width of the pictures, which are padded to it.
        patch_size: height and width of a patch.
        layer_norm_eps, qkv_bias: of its blocks.
        use_abs_pos, use_rel_pos: whether places and distances have trained numbers.
        window_size: patches in a row of a window.
        global_attn_indexes: blocks whose attention is not within windows.
        num_pos_feats: random waves that encode the places of prompts.
        output_channels: of the picture's map, and the width of the decoder.
        mask_input_channels, prompt_layer_norm_eps: of masks as prompts.
        decoder_hidden_layers, decoder_attention_heads, decoder_mlp_dim, decoder_layer_norm_eps,
        attention_downsample_rate: of the decoder's blocks.
        num_multimask_outputs: masks for a prompt that could mean several things.
        iou_head_depth, iou_head_hidden_dim: of the network that says how good a mask is.
        in_channels: of the pictures.
    """

    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    mlp_dim: int = 3072
    input_size: int = 1024
    patch_size: int = 16
    layer_norm_eps: float = 1e-6
    qkv_bias: bool = True
    use_abs_pos: bool = True
    use_rel_pos: bool = True
    window_size: int = 14
    global_attn_indexes: tuple[int, ...] = (2, 5, 8, 11)
    num_pos_feats: int = 128
    output_channels: int = 256
    mask_input_channels: int = 16
    prompt_layer_norm_eps: float = 1e-6
    decoder_hidden_layers: int = 2
    decoder_attention_heads: int = 8
    decoder_mlp_dim: int = 2048
    decoder_layer_norm_eps: float = 1e-6
    attention_downsample_rate: int = 2
    num_multimask_outputs: int = 3
    iou_head_depth: int = 3
    iou_head_hidden_dim: int = 256
    in_channels: int = 3

    def __post_init__(self) -> None:
        real(NAME, **{k: v for k, v in vars(self).items() if k.endswith("_eps")})
        switches = ("qkv_bias", "use_abs_pos", "use_rel_pos")
        flags(NAME, **{key: getattr(self, key) for key in switches})
        numbers = {k: v for k, v in vars(self).items() if not k.endswith("_eps")}
        positive(NAME, **{k: v for k, v in numbers.items() if k not in (*switches, _GLOBAL)})
        inside = all(type(i) is int and i >= 0 for i in self.global_attn_indexes)
        inner = self.output_channels // self.attention_downsample_rate
        if (
            not inside
            or self.hidden_size % self.num_attention_heads
            or self.input_size % self.patch_size
            or self.output_channels != 2 * self.num_pos_feats
            or self.output_channels % 8
            or self.output_channels % self.decoder_attention_heads
            or inner % self.decoder_attention_heads
            or self.mask_input_channels % 4
            or self.iou_head_depth < 2
        ):
            raise ConfigError(
                f"{NAME}: heads must divide their widths ({self.num_attention_heads}: "
                f"{self.hidden_size}; {self.decoder_attention_heads}: {self.output_channels} and "
                f"{inner}), the patch the picture ({self.patch_size}: {self.input_size}), 4 the "
                f"{self.mask_input_channels} channels of masks, and 8 output_channels, which are "
                f"2 num_pos_feats ({self.output_channels}, {self.num_pos_feats}); "
                f"global_attn_indexes={self.global_attn_indexes} are numbers of blocks, and "
                f"iou_head_depth={self.iou_head_depth} at least 2"
            )

    @property
    def grid(self) -> int:
        """Rows, and columns, of patches."""
        return self.input_size // self.patch_size


_GLOBAL = "global_attn_indexes"


# -- the image encoder ----------------------------------------------------------------------------


@lru_cache(maxsize=8)
def _distances(n: int) -> Any:
    """The row of a table for the distance of each query from each key, (n * n,)."""
    place = np.arange(n)
    return (place[:, None] - place[None] + n - 1).reshape(-1)


@lru_cache(maxsize=8)
def _crossing(n: int) -> Any:
    """The row and the column of each place of a square, as ones, (n * n, 2 n)."""
    rows, columns = np.divmod(np.arange(n * n), n)
    return np.concatenate([np.eye(n)[rows], np.eye(n)[columns]], axis=1).astype(np.float32)


class Attention(nn.Module):
    """Self-attention in a square, with what a query says to distances in rows and in columns."""

    def __init__(self, config: Config, side: int) -> None:
        width = config.hidden_size
        self.heads = config.num_attention_heads
        self.qkv = nn.Linear(width, 3 * width, bias=config.qkv_bias)
        self.proj = nn.Linear(width, width)
        self.rel_pos_h = self.rel_pos_w = None
        if config.use_rel_pos:
            self.rel_pos_h = nn.init.parameter(2 * side - 1, width // self.heads)
            self.rel_pos_w = nn.init.parameter(2 * side - 1, width // self.heads)
            for table in (self.rel_pos_h, self.rel_pos_w):
                nn.init.zeros_(table)

    def forward(self, x: Tensor) -> Tensor:
        """Shape: (B, S, S, D), kept."""
        b, s, _, d = x.shape
        parts = reshape(self.qkv(x), (b, s * s, 3, self.heads, d // self.heads))
        q, k, v = unstack(permute_dims(parts, (2, 0, 3, 1, 4)))  # (B, N, S * S, D / N) each
        if self.rel_pos_h is not None and self.rel_pos_w is not None:
            # A query's numbers for rows and columns go beside it, and ones for its row and column
            # beside each key: their product adds these numbers, and no score is ever held.
            ones = Tensor(_crossing(s)).to(device=k.device, dtype=k.dtype)
            said = self._said(q, s)
            q = concat([q * (1 / math.sqrt(d // self.heads)), said], axis=-1)
            k = concat([k, broadcast_to(ones, (b, self.heads, *ones.shape))], axis=-1)
            y = F.scaled_dot_product_attention(q, k, v, scale=1.0)
        else:
            y = F.scaled_dot_product_attention(q, k, v)
        out: Tensor = self.proj(reshape(permute_dims(y, (0, 2, 1, 3)), (b, s, s, d)))
        return out

    def _said(self, q: Tensor, s: int) -> Tensor:
        """What is added to the scores of each query with each row, then each column.

        Shape:
            (B, N, S * S, D) -> (B, N, S * S, 2 S)
        """
        b, n, t, d = q.shape
        index = Tensor(_distances(s)).to(device=q.device)
        tables = [
            permute_dims(reshape(take(table, index, axis=0), (s, s, d)), (0, 2, 1))
            for table in (self.rel_pos_h, self.rel_pos_w)
            if table is not None
        ]
        square = reshape(q, (b, n, s, s, d))
        down = matmul(square, tables[0])
        across = matmul(permute_dims(square, (0, 1, 3, 2, 4)), tables[1])
        both = [down, permute_dims(across, (0, 1, 3, 2, 4))]
        return reshape(concat(both, axis=-1), (b, n, t, 2 * s))


class Mlp(nn.Module):
    """Two linear maps with GELU between them."""

    def __init__(self, width: int, hidden: int) -> None:
        self.lin1 = nn.Linear(width, hidden)
        self.lin2 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.lin2(F.gelu(self.lin1(x)))
        return y


class Block(nn.Module):
    """Attention, within windows or not, and an MLP, each after a layer norm.

    Shape:
        (B, H, H, D), kept
    """

    def __init__(self, config: Config, window: int) -> None:
        width, eps = config.hidden_size, config.layer_norm_eps
        self.window = window  # 0: none
        self.layer_norm1 = nn.LayerNorm(width, eps=eps)
        self.attn = Attention(config, window or config.grid)
        self.layer_norm2 = nn.LayerNorm(width, eps=eps)
        self.mlp = Mlp(width, config.mlp_dim)

    def forward(self, x: Tensor) -> Tensor:
        y = self.layer_norm1(x)
        x = x + (self._within(y) if self.window else self.attn(y))
        x = x + self.mlp(self.layer_norm2(x))
        return x

    def _within(self, x: Tensor) -> Tensor:
        """Attention in windows; the last ones are filled with zeros, which take part in it."""
        b, height, _, d = x.shape
        n = self.window
        more = -height % n
        if more:
            x = pad(x, ((0, 0), (0, more), (0, more), (0, 0)))
        count = (height + more) // n
        x = permute_dims(reshape(x, (b, count, n, count, n, d)), (0, 1, 3, 2, 4, 5))
        x = self.attn(reshape(x, (b * count * count, n, n, d)))
        x = permute_dims(reshape(x, (b, count, count, n, n, d)), (0, 1, 3, 2, 4, 5))
        return reshape(x, (b, count * n, count * n, d))[:, :height, :height]


class PatchEmbed(nn.Module):
    """Each patch of a picture as a vector. Shape: (B, C, H, W) -> (B, rows, columns, D)."""

    def __init__(self, config: Config) -> None:
        size = config.patch_size
        self.projection = nn.Conv2d(config.in_channels, config.hidden_size, size, stride=size)

    def forward(self, pixel_values: Tensor) -> Tensor:
        return permute_dims(self.projection(pixel_values), (0, 2, 3, 1))


class Neck(nn.Module):
    """Two convolutions, each before a norm of the channels."""

    def __init__(self, config: Config) -> None:
        width = config.output_channels
        self.conv1 = nn.Conv2d(config.hidden_size, width, 1, bias=False)
        self.layer_norm1 = LayerNorm2d(width, eps=1e-6)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.layer_norm2 = LayerNorm2d(width, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        x = self.layer_norm1(self.conv1(permute_dims(x, (0, 3, 1, 2))))
        y: Tensor = self.layer_norm2(self.conv2(x))
        return y


class ImageEncoder(nn.Module):
    """Shape: (B, in_channels, input_size, input_size) -> (B, output_channels, grid, grid)."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.patch_embed = PatchEmbed(config)
        self.pos_embed = None
        if config.use_abs_pos:
            self.pos_embed = nn.init.parameter(1, config.grid, config.grid, config.hidden_size)
            nn.init.trunc_normal_(self.pos_embed, std=0.02)
        whole = config.global_attn_indexes
        self.layers = nn.ModuleList(
            [
                Block(config, 0 if i in whole else config.window_size)
                for i in range(config.num_hidden_layers)
            ]
        )
        self.neck = Neck(config)

    def forward(self, pixel_values: Tensor) -> Tensor:
        config = self.config
        check_images(pixel_values, config.in_channels)
        if pixel_values.shape[2:] != (config.input_size, config.input_size):
            raise ShapeError(
                f"{NAME} takes pictures of {config.input_size} x {config.input_size}, padded to "
                f"it, got {tuple(pixel_values.shape[2:])}.\n"
                "model.preprocess(picture), of what bt.load gave, prepares one.",
                expected=(config.input_size, config.input_size),
                got=tuple(pixel_values.shape[2:]),
            )
        x = self.patch_embed(pixel_values)
        if self.pos_embed is not None:
            x = x + self.pos_embed
        for layer in self.layers:
            x = layer(x)
        y: Tensor = self.neck(x)
        return y


class SamOutput(NamedTuple):
    """What is said to P prompts for each picture.

    Attributes:
        iou_scores: the expected overlap of each mask with the truth, (B, P, K).
        pred_masks: logits, above 0 inside, (B, P, K, 4 grid, 4 grid).
    """

    iou_scores: Tensor
    pred_masks: Tensor


class SAM(nn.Module):
    """Masks of whatever is pointed at."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.shared_image_embedding = FourierPositions(config)
        self.vision_encoder = ImageEncoder(config)
        self.prompt_encoder = PromptEncoder(config, self.shared_image_embedding)
        self.mask_decoder = MaskDecoder(config)

    def embed_image(self, pixel_values: Tensor) -> Tensor:
        """What the decoder sees of pictures: once for any number of prompts.

        Shape:
            (B, in_channels, input_size, input_size) -> (B, output_channels, grid, grid)
        """
        y: Tensor = self.vision_encoder(pixel_values)
        return y

    def forward(
        self,
        pixel_values: Tensor | None = None,
        input_points: Tensor | None = None,
        input_labels: Tensor | None = None,
        input_boxes: Tensor | None = None,
        input_masks: Tensor | None = None,
        image_embeddings: Tensor | None = None,
        multimask_output: bool = True,
    ) -> SamOutput:
        """Masks for P prompts of each picture; coordinates are pixels of the prepared picture.

        Args:
            pixel_values: (B, in_channels, input_size, input_size).
            input_points: x and y of N points for each prompt, (B, P, N, 2).
            input_labels: 1 inside, 0 outside, -10 no point, (B, P, N); all inside unless given.
            input_boxes: left, upper, right and lower edge, (B, P, 4).
            input_masks: logits of an earlier answer, (B, 1, 4 grid, 4 grid).
            image_embeddings: of `embed_image`, in place of the pictures.
            multimask_output: several masks for a prompt, of what it could mean, else one.
        Raises:
            ShapeError: the prompts do not fit together.
        """
        if (pixel_values is None) == (image_embeddings is None):
            raise ConfigError(f"{NAME}: either pixel_values or image_embeddings are wanted")
        if image_embeddings is None:
            assert pixel_values is not None
            image_embeddings = self.embed_image(pixel_values)
        batch = image_embeddings.shape[0]
        _check(batch, points=(input_points, 4), labels=(input_labels, 3), boxes=(input_boxes, 3))
        if input_points is not None and input_labels is None:
            input_labels = Tensor(np.ones(input_points.shape[:3], np.int64)).to(
                device=input_points.device
            )
        sparse, dense = self.prompt_encoder(input_points, input_labels, input_boxes, input_masks)
        masks, scores = self.mask_decoder(
            image_embeddings, self._places(image_embeddings), sparse, dense, multimask_output
        )
        return SamOutput(scores, masks)

    def _places(self, like: Tensor) -> Tensor:
        """Where each place of the picture's map is, (1, C, H, W)."""
        n = self.config.grid
        middle = (np.arange(n, dtype=np.float32) + 0.5) / n
        places = np.stack(np.meshgrid(middle, middle), axis=-1)
        found = self.shared_image_embedding(Tensor(places).to(device=like.device, dtype=like.dtype))
        return permute_dims(found, (2, 0, 1))[None]


def _check(batch: int, **given: tuple[Tensor | None, int]) -> None:
    shapes = {name: tuple(x.shape) for name, (x, _) in given.items() if x is not None}
    ranks = {name: rank for name, (_, rank) in given.items()}
    wrong = any(len(shape) != ranks[name] for name, shape in shapes.items())
    starts = {shape[:2] for shape in shapes.values()}  # B and P, the same of all
    wrong = wrong or len(starts) > 1 or any(start[0] != batch for start in starts)
    if not wrong and "points" in shapes and "labels" in shapes:
        wrong = shapes["points"][:3] != shapes["labels"]
    if wrong:
        listed = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
        raise ShapeError(
            f"{NAME}: prompts for {batch} pictures do not fit together: {listed}.\n"
            "Wanted: points (B, P, N, 2), labels (B, P, N), boxes (B, P, 4), for P prompts each.",
            got=shapes,
        )


# -- published layouts ----------------------------------------------------------------------------

_VISION = {
    "hidden_size", "num_hidden_layers", "num_attention_heads", "layer_norm_eps", "qkv_bias",
    "use_abs_pos", "use_rel_pos", "window_size", "num_pos_feats", "output_channels", "patch_size",
}  # fmt: skip
_DECODER = {
    "num_hidden_layers": "decoder_hidden_layers",
    "num_attention_heads": "decoder_attention_heads",
    "mlp_dim": "decoder_mlp_dim",
    "layer_norm_eps": "decoder_layer_norm_eps",
    "attention_downsample_rate": "attention_downsample_rate",
    "num_multimask_outputs": "num_multimask_outputs",
    "iou_head_depth": "iou_head_depth",
    "iou_head_hidden_dim": "iou_head_hidden_dim",
}
_COMMON = TRANSFORMERS_COMMON | TRANSFORMERS_DUMPED


def from_transformers(published: dict[str, Any]) -> Config:
    """The configuration that a config.json of transformers says."""
    parts = ("vision_config", "prompt_encoder_config", "mask_decoder_config")
    refuse_unknown(published, _COMMON | set(parts), NAME)
    vision, prompt, decoder = (_part(published, name) for name in parts)
    own = {"image_size", "mlp_dim", "mlp_ratio", "global_attn_indexes", "num_channels"}
    refuse_unknown(
        vision, _COMMON | _VISION | own | {"attention_dropout", "hidden_act", "scale"}, NAME
    )
    expect(vision, NAME, hidden_act=("gelu",), attention_dropout=(0, 0.0))
    given = {key: vision[key] for key in _VISION & set(vision)}
    if "image_size" in vision:
        given["input_size"] = vision["image_size"]
    if "num_channels" in vision:
        given["in_channels"] = vision["num_channels"]
    if _GLOBAL in vision:
        given[_GLOBAL] = as_tuple(NAME, _GLOBAL, vision[_GLOBAL])
    width = vision.get("hidden_size", Config.hidden_size)
    given["mlp_dim"] = vision.get("mlp_dim") or int(width * vision.get("mlp_ratio", 4.0))
    refuse_unknown(decoder, _COMMON | set(_DECODER) | {"hidden_size", "hidden_act"}, NAME)
    expect(decoder, NAME, hidden_act=("relu",))
    given |= {new: decoder[old] for old, new in _DECODER.items() if old in decoder}
    same = {"hidden_size", "image_size", "patch_size", "image_embedding_size"}
    more = {"hidden_act", "layer_norm_eps", "mask_input_channels", "num_point_embeddings"}
    refuse_unknown(prompt, _COMMON | same | more, NAME)
    expect(prompt, NAME, hidden_act=("gelu",), num_point_embeddings=(4,))
    if "layer_norm_eps" in prompt:
        given["prompt_layer_norm_eps"] = prompt["layer_norm_eps"]
    if "mask_input_channels" in prompt:
        given["mask_input_channels"] = prompt["mask_input_channels"]
    config = Config(**given)
    width = config.output_channels
    expect(decoder, NAME, hidden_size=(width,))
    expect(prompt, NAME, hidden_size=(width,), image_size=(config.input_size,))
    expect(prompt, NAME, patch_size=(config.patch_size,), image_embedding_size=(config.grid,))
    return config


def _part(published: dict[str, Any], name: str) -> dict[str, Any]:
    part = published.get(name) or {}
    if not isinstance(part, dict):
        raise ConfigError(f"{NAME}: {name}={part!r} is no configuration", name=name, got=part)
    return part


def _entry(name: str, width: int, depth: int, heads: int, whole: tuple[int, ...], n: int) -> Entry:
    return Entry(
        name=name,
        sources=(Hub(f"facebook/{name}"),),
        layout="transformers",
        config={
            "hidden_size": width,
            "num_hidden_layers": depth,
            "num_attention_heads": heads,
            "mlp_dim": 4 * width,
            "global_attn_indexes": whole,
        },
        license="Apache-2.0",
        commercial=True,
        parameters=n,
        paper="https://arxiv.org/abs/2304.02643",
        note="masks of what points and boxes point at, or of everything in a picture",
    )


_SHAPES = Entry(
    name="sam-shapes",
    sources=(Bundled("vision/assets/sam-shapes"),),
    config=None,  # as saved
    license="Apache-2.0",
    commercial=True,
    parameters=280_858,
    metric=Metric("mean overlap, asked by a point", 0.935, "shape_scenes", 128, "docs/masks.md"),
    paper="https://arxiv.org/abs/2304.02643",
    note="circles, squares and triangles; trained by this library, see docs/examples/sam.py",
)


@register(
    "sam",
    config=Config,
    task="mask-generation",
    layouts={"transformers": Layout(config=from_transformers)},
    model_types=("sam",),
    stem="vision_encoder.patch_embed.projection.weight",
    entries=(
        _entry("sam-vit-base", 768, 12, 12, (2, 5, 8, 11), 93_735_728),
        _entry("sam-vit-large", 1024, 24, 16, (5, 11, 17, 23), 312_343_088),
        _entry("sam-vit-huge", 1280, 32, 16, (7, 15, 23, 31), 641_090_864),
        _SHAPES,
    ),
)
def sam(config: Config) -> SAM:
    """Segment Anything, for masks of whatever is pointed at."""
    return SAM(config)
