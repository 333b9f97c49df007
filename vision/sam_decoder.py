"""The part of SAM that is asked: points, boxes and masks become tokens, and tokens become masks."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from ..core import nn
from ..core.nn import functional as F
from ..core.ops.elementwise import where
from ..core.ops.linalg import matmul
from ..core.ops.manipulation import repeat
from ..core.ops.shape import broadcast_to, concat, permute_dims, reshape, stack
from ..core.ops.trigonometry import cos, sin
from ..core.tensor import Tensor
from .convnext import LayerNorm2d

if TYPE_CHECKING:
    from .sam import Config

NOT_A_POINT, PADDING = -1, -10  # labels beside 0, outside, and 1, inside


class FourierPositions(nn.Module):
    """Places as sines and cosines of random waves, which are published with the weights."""

    def __init__(self, config: Config) -> None:
        self.positional_embedding = nn.init.parameter(2, config.num_pos_feats)
        nn.init.normal_(self.positional_embedding, std=config.hidden_size // 2)

    def forward(self, places: Tensor) -> Tensor:
        """Shape: (..., 2), x and y from 0 to 1 -> (..., 2 num_pos_feats)."""
        waves = matmul(2 * places - 1, self.positional_embedding) * (2 * math.pi)
        return concat([sin(waves), cos(waves)], axis=-1)


class MaskEmbedding(nn.Module):
    """A mask as a map for the decoder. Shape: (B, 1, 4 H, 4 W) -> (B, C, H, W)."""

    def __init__(self, config: Config) -> None:
        few, many = config.mask_input_channels // 4, config.mask_input_channels
        self.conv1 = nn.Conv2d(1, few, 2, stride=2)
        self.conv2 = nn.Conv2d(few, many, 2, stride=2)
        self.conv3 = nn.Conv2d(many, config.output_channels, 1)
        self.layer_norm1 = LayerNorm2d(few, eps=config.prompt_layer_norm_eps)
        self.layer_norm2 = LayerNorm2d(many, eps=config.prompt_layer_norm_eps)

    def forward(self, masks: Tensor) -> Tensor:
        x = F.gelu(self.layer_norm1(self.conv1(masks)))
        x = F.gelu(self.layer_norm2(self.conv2(x)))
        y: Tensor = self.conv3(x)
        return y


class PromptEncoder(nn.Module):
    """Points and boxes as tokens, masks as a map."""

    def __init__(self, config: Config, positions: FourierPositions) -> None:
        width = config.output_channels
        self.side = config.input_size
        self.shared_embedding = positions
        self.mask_embed = MaskEmbedding(config)
        self.no_mask_embed = nn.Embedding(1, width)
        # Of a point outside, a point inside, and the two corners of a box.
        self.point_embed = nn.ModuleList([nn.Embedding(1, width) for _ in range(4)])
        self.not_a_point_embed = nn.Embedding(1, width)

    def points(self, points: Tensor, labels: Tensor, pad: bool) -> Tensor:
        """Shape: (B, P, N, 2), (B, P, N) -> (B, P, N, C), one more if `pad`."""
        points = (points + 0.5) / self.side
        if pad:  # no box follows: a point that is none takes its place
            b, p, _, _ = points.shape
            points = concat([points, broadcast_to(points[:1, :1, :1] * 0, (b, p, 1, 2))], axis=2)
            nothing = broadcast_to(labels[:1, :1, :1] * 0 + NOT_A_POINT, (b, p, 1))
            labels = concat([labels, nothing], axis=2)
        x, kind = self.shared_embedding(points), labels[..., None]
        x = where(kind == NOT_A_POINT, self.not_a_point_embed.weight, x)
        x = where(kind == PADDING, 0.0, x)
        for number in (0, 1):
            x = where(kind == number, x + self.point_embed[number].weight, x)
        return x

    def boxes(self, boxes: Tensor) -> Tensor:
        """Shape: (B, P, 4), left, upper, right and lower edge -> (B, P, 2, C)."""
        b, p, _ = boxes.shape
        corners = (reshape(boxes, (b, p, 2, 2)) + 0.5) / self.side
        kinds = stack([self.point_embed[number].weight[0] for number in (2, 3)])
        x: Tensor = self.shared_embedding(corners) + kinds
        return x

    def forward(
        self,
        input_points: Tensor | None,
        input_labels: Tensor | None,
        input_boxes: Tensor | None,
        input_masks: Tensor | None,
    ) -> tuple[Tensor | None, Tensor]:
        """Tokens (B, P, N, C), or None without points and boxes, and a map that is broadcast."""
        parts = []
        if input_points is not None and input_labels is not None:
            parts.append(self.points(input_points, input_labels, pad=input_boxes is None))
        if input_boxes is not None:
            parts.append(self.boxes(input_boxes))
        if input_masks is not None:
            dense = self.mask_embed(input_masks)
        else:
            dense = self.no_mask_embed.weight[:, :, None, None]
        return (concat(parts, axis=2) if parts else None), dense


class CrossAttention(nn.Module):
    """Attention whose heads are narrower than the tokens, by `downsample`."""

    def __init__(self, config: Config, downsample: int) -> None:
        width = config.output_channels
        inner = width // downsample
        self.heads = config.decoder_attention_heads
        self.q_proj = nn.Linear(width, inner)
        self.k_proj = nn.Linear(width, inner)
        self.v_proj = nn.Linear(width, inner)
        self.out_proj = nn.Linear(inner, width)

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Shape: (B, TQ, C), (B, TK, C), (B, TK, C) -> (B, TQ, C)."""
        q, k, v = self.q_proj(query), self.k_proj(key), self.v_proj(value)
        y = F.scaled_dot_product_attention(self._heads(q), self._heads(k), self._heads(v))
        b, _, t, _ = y.shape
        out: Tensor = self.out_proj(reshape(permute_dims(y, (0, 2, 1, 3)), (b, t, -1)))
        return out

    def _heads(self, x: Tensor) -> Tensor:
        b, t, d = x.shape
        return permute_dims(reshape(x, (b, t, self.heads, d // self.heads)), (0, 2, 1, 3))


class TwoLayers(nn.Module):
    """Two linear maps with ReLU between them."""

    def __init__(self, width: int, hidden: int) -> None:
        self.lin1 = nn.Linear(width, hidden)
        self.lin2 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.lin2(F.relu(self.lin1(x)))
        return y


class TwoWayBlock(nn.Module):
    """Tokens attend to themselves and to the picture, and the picture to the tokens."""

    def __init__(self, config: Config, first: bool) -> None:
        width, eps = config.output_channels, config.decoder_layer_norm_eps
        narrow = config.attention_downsample_rate
        self.first = first
        self.self_attn = CrossAttention(config, 1)
        self.layer_norm1 = nn.LayerNorm(width, eps=eps)
        self.cross_attn_token_to_image = CrossAttention(config, narrow)
        self.layer_norm2 = nn.LayerNorm(width, eps=eps)
        self.mlp = TwoLayers(width, config.decoder_mlp_dim)
        self.layer_norm3 = nn.LayerNorm(width, eps=eps)
        self.layer_norm4 = nn.LayerNorm(width, eps=eps)
        self.cross_attn_image_to_token = CrossAttention(config, narrow)

    def forward(
        self, tokens: Tensor, image: Tensor, prompts: Tensor, places: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Shape: (B, N, C), (B, H W, C), and what is added to each as queries and keys."""
        if self.first:  # the tokens are the prompts themselves, without a residual
            tokens = self.self_attn(tokens, tokens, tokens)
        else:
            asked = tokens + prompts
            tokens = tokens + self.self_attn(asked, asked, tokens)
        tokens = self.layer_norm1(tokens)
        seen = image + places
        tokens = tokens + self.cross_attn_token_to_image(tokens + prompts, seen, image)
        tokens = self.layer_norm2(tokens)
        tokens = self.layer_norm3(tokens + self.mlp(tokens))
        image = image + self.cross_attn_image_to_token(seen, tokens + prompts, tokens)
        return tokens, self.layer_norm4(image)


class TwoWayTransformer(nn.Module):
    """Blocks in which tokens and picture see each other, and a last look of the tokens."""

    def __init__(self, config: Config) -> None:
        count = config.decoder_hidden_layers
        self.layers = nn.ModuleList([TwoWayBlock(config, first=i == 0) for i in range(count)])
        self.final_attn_token_to_image = CrossAttention(config, config.attention_downsample_rate)
        self.layer_norm_final_attn = nn.LayerNorm(config.output_channels)

    def forward(self, prompts: Tensor, image: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
        tokens = prompts
        for layer in self.layers:
            tokens, image = layer(tokens, image, prompts, places)
        last = self.final_attn_token_to_image(tokens + prompts, image + places, image)
        return self.layer_norm_final_attn(tokens + last), image


class FeedForward(nn.Module):
    """Linear maps with ReLU between them."""

    def __init__(self, inputs: int, hidden: int, outputs: int, depth: int) -> None:
        self.proj_in = nn.Linear(inputs, hidden)
        self.proj_out = nn.Linear(hidden, outputs)
        self.layers = nn.ModuleList([nn.Linear(hidden, hidden) for _ in range(depth - 2)])

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.proj_in(x))
        for layer in self.layers:
            x = F.relu(layer(x))
        y: Tensor = self.proj_out(x)
        return y


class MaskDecoder(nn.Module):
    """Masks of what the prompts point at, and how good each will be."""

    def __init__(self, config: Config) -> None:
        width, count = config.output_channels, config.num_multimask_outputs + 1
        self.iou_token = nn.Embedding(1, width)
        self.mask_tokens = nn.Embedding(count, width)
        self.transformer = TwoWayTransformer(config)
        self.upscale_conv1 = nn.ConvTranspose2d(width, width // 4, 2, stride=2)
        self.upscale_conv2 = nn.ConvTranspose2d(width // 4, width // 8, 2, stride=2)
        self.upscale_layer_norm = LayerNorm2d(width // 4, eps=1e-6)
        self.output_hypernetworks_mlps = nn.ModuleList(
            [FeedForward(width, width, width // 8, 3) for _ in range(count)]
        )
        self.iou_prediction_head = FeedForward(
            width, config.iou_head_hidden_dim, count, config.iou_head_depth
        )

    def forward(
        self,
        image: Tensor,
        places: Tensor,
        sparse: Tensor | None,
        dense: Tensor,
        several: bool,
    ) -> tuple[Tensor, Tensor]:
        """Masks of each prompt as logits, and their expected overlap with the truth.

        Args:
            image, places: (B, C, H, W), and the places in it, (1, C, H, W).
            sparse, dense: what the prompt encoder gives, for P prompts of each picture.
            several: the masks for a prompt that could mean several things, else the one.
        Shape:
            (B, P, K, 4 H, 4 W), (B, P, K)
        """
        b, c, h, w = image.shape
        count = 1 if sparse is None else sparse.shape[1]
        tokens = concat([self.iou_token.weight, self.mask_tokens.weight], axis=0)
        tokens = broadcast_to(tokens, (b, count, *tokens.shape))
        if sparse is not None:
            tokens = concat([tokens, sparse], axis=2)
        tokens = reshape(tokens, (b * count, tokens.shape[2], c))
        seen = permute_dims(reshape(image + dense, (b, c, h * w)), (0, 2, 1))
        if count > 1:
            seen = repeat(seen, count, axis=0)
        where_ = permute_dims(reshape(places, (1, c, h * w)), (0, 2, 1))
        tokens, seen = self.transformer(tokens, seen, where_)
        x = reshape(permute_dims(seen, (0, 2, 1)), (b * count, c, h, w))
        x = F.gelu(self.upscale_layer_norm(self.upscale_conv1(x)))
        x = F.gelu(self.upscale_conv2(x))
        _, channels, height, width = x.shape
        chosen = range(1, len(self.output_hypernetworks_mlps)) if several else range(1)
        weights = [self.output_hypernetworks_mlps[k](tokens[:, 1 + k]) for k in chosen]
        flat = reshape(x, (b * count, channels, height * width))
        masks = reshape(matmul(stack(weights, axis=1), flat), (b, count, -1, height, width))
        scores = reshape(self.iou_prediction_head(tokens[:, 0]), (b, count, -1))
        return masks, scores[:, :, chosen.start : chosen.stop]
