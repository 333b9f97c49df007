"""Blocks that UNets and autoencoders of diffusion models are built of.

Attributes are named as diffusers stores them. Source: Ho et al. 2020, "Denoising diffusion
probabilistic models"; Dhariwal and Nichol 2021 (`scale_shift`); Rombach et al. 2022 (context).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ..core import nn
from ..core.errors import ConfigError
from ..core.nn import functional as F
from ..core.ops.manipulation import split
from ..core.ops.padding import pad
from ..core.ops.shape import concat, expand_dims, permute_dims, reshape
from ..core.tensor import Tensor

#: Activations by the names of `act_fn` in published configurations.
ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "gelu": nn.GELU,
    "mish": nn.Mish,
    "relu": nn.ReLU,
    "silu": nn.SiLU,
    "swish": nn.SiLU,
}


@dataclass(frozen=True)
class Resnet:
    """What all ResNet blocks of a network have in common.

    Args:
        time: width of the vector of the time; None if there is none.
        groups, eps: of the group norms.
        act_fn: a name of `ACTIVATIONS`.
        time_norm: "default" adds the projected time before the second norm; "scale_shift" scales
            and shifts what comes out of it.
        scale: the sum of a block and its shortcut is divided by it.
    """

    time: int | None
    groups: int = 32
    eps: float = 1e-6
    act_fn: str = "silu"
    dropout: float = 0.0
    time_norm: str = "default"
    scale: float = 1.0


class Downsample2D(nn.Module):
    """Half as many rows and columns: a convolution of stride 2, or means of 2 x 2.

    Args:
        padding: 0 pads below and to the right only.
    """

    def __init__(self, channels: int, *, padding: int = 1, use_conv: bool = True) -> None:
        self.padding = padding
        self.conv = (
            nn.Conv2d(channels, channels, 3, stride=2, padding=padding) if use_conv else None
        )

    def forward(self, x: Tensor, temb: Tensor | None = None) -> Tensor:
        if self.conv is None:
            return F.avg_pool2d(x, 2, 2)
        if not self.padding:
            x = pad(x, ((0, 0), (0, 0), (0, 1), (0, 1)))
        out: Tensor = self.conv(x)
        return out


class Upsample2D(nn.Module):
    """Every pixel twice in both directions, then a convolution unless `use_conv` is False."""

    def __init__(self, channels: int, *, use_conv: bool = True) -> None:
        self.conv = nn.Conv2d(channels, channels, 3, padding=1) if use_conv else None

    def forward(
        self, x: Tensor, temb: Tensor | None = None, size: tuple[int, int] | None = None
    ) -> Tensor:
        """Shape: (B, C, H, W) -> (B, C, 2 H, 2 W), or rows and columns of `size`."""
        if size is None:
            x = F.interpolate(x, scale_factor=2.0)
        else:
            x = F.interpolate(x, size=size)
        return x if self.conv is None else self.conv(x)


class ResnetBlock2D(nn.Module):
    """Norm, activation, convolution; the time; the same again; plus the input.

    Args:
        resize: "down" or "up" halves or doubles rows and columns on the way.

    Shape:
        (B, in_channels, H, W), temb (B, time) -> (B, out_channels, H, W)
    """

    def __init__(
        self, in_channels: int, out_channels: int, common: Resnet, resize: str | None = None
    ) -> None:
        self.scale = common.scale
        self.scale_shift = common.time_norm == "scale_shift"
        self.norm1 = nn.GroupNorm(common.groups, in_channels, eps=common.eps)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.time_emb_proj = None
        if common.time is not None:
            width = out_channels * (2 if self.scale_shift else 1)
            self.time_emb_proj = nn.Linear(common.time, width)
        self.norm2 = nn.GroupNorm(common.groups, out_channels, eps=common.eps)
        self.dropout = nn.Dropout(common.dropout)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.nonlinearity = ACTIVATIONS[common.act_fn]()
        self.resize: nn.Module | None = None
        if resize is not None:
            kind = {"down": Downsample2D, "up": Upsample2D}[resize]
            self.resize = kind(in_channels, use_conv=False)
        self.conv_shortcut = (
            nn.Conv2d(in_channels, out_channels, 1) if in_channels != out_channels else None
        )

    def forward(self, x: Tensor, temb: Tensor | None = None) -> Tensor:
        h: Tensor = self.nonlinearity(self.norm1(x))
        if self.resize is not None:
            x, h = self.resize(x), self.resize(h)
        h = self.conv1(h)
        if self.time_emb_proj is None or temb is None:
            h = self.norm2(h)
        else:
            time = expand_dims(self.time_emb_proj(self.nonlinearity(temb)), axis=(2, 3))
            if self.scale_shift:
                factor, shift = split(time, 2, axis=1)
                h = self.norm2(h) * (1 + factor) + shift
            else:
                h = self.norm2(h + time)
        h = self.conv2(self.dropout(self.nonlinearity(h)))
        if self.conv_shortcut is not None:
            x = self.conv_shortcut(x)
        h = x + h
        return h if self.scale == 1 else h / self.scale


class Attention(nn.Module):
    """Attention of tokens, or of all places of a picture, to each other or to a context.

    Args:
        width: features of the tokens.
        heads, head_width: number of heads and features of each.
        context: features of what is attended to; None for the tokens themselves.
        groups: of a group norm before; None for none.
        bias: whether the maps to queries, keys and values have one.
        residual: whether the input is added to the result.
        scale: which is then divided by this.

    Shape:
        (B, T, width) or (B, width, H, W), kept; encoder_hidden_states (B, S, context);
        mask (B or 1, heads or 1, T or 1, S): True where to look, or numbers added to the scores
    """

    def __init__(
        self,
        width: int,
        heads: int,
        head_width: int,
        *,
        context: int | None = None,
        groups: int | None = None,
        eps: float = 1e-5,
        bias: bool = False,
        residual: bool = False,
        scale: float = 1.0,
        dropout: float = 0.0,
    ) -> None:
        self.heads, self.residual, self.scale = heads, residual, scale
        inner = heads * head_width
        source = width if context is None else context
        self.group_norm = None if groups is None else nn.GroupNorm(groups, width, eps=eps)
        self.to_q = nn.Linear(width, inner, bias=bias)
        self.to_k = nn.Linear(source, inner, bias=bias)
        self.to_v = nn.Linear(source, inner, bias=bias)
        self.to_out = nn.ModuleList([nn.Linear(inner, width), nn.Dropout(dropout)])

    def forward(
        self,
        x: Tensor,
        encoder_hidden_states: Tensor | None = None,
        mask: Tensor | None = None,
    ) -> Tensor:
        h: Tensor = x if self.group_norm is None else self.group_norm(x)
        picture = x.ndim == 4
        if picture:
            h = as_tokens(h)
        source = h if encoder_hidden_states is None else encoder_hidden_states
        q = self._by_head(self.to_q(h))
        k, v = self._by_head(self.to_k(source)), self._by_head(self.to_v(source))
        seen = F.scaled_dot_product_attention(q, k, v, mask)
        b, _, t, _ = seen.shape
        h = self.to_out[1](self.to_out[0](reshape(permute_dims(seen, (0, 2, 1, 3)), (b, t, -1))))
        if picture:
            h = as_picture(h, x.shape[2], x.shape[3])
        if self.residual:
            h = h + x
        return h if self.scale == 1 else h / self.scale

    def _by_head(self, x: Tensor) -> Tensor:
        """Shape: (B, T, N D) -> (B, N, T, D)."""
        b, t, inner = x.shape
        return permute_dims(reshape(x, (b, t, self.heads, inner // self.heads)), (0, 2, 1, 3))


def as_tokens(x: Tensor) -> Tensor:
    """Every place of a picture as a token. Shape: (B, C, H, W) -> (B, H W, C)."""
    b, c, h, w = x.shape
    return reshape(permute_dims(x, (0, 2, 3, 1)), (b, h * w, c))


def as_picture(x: Tensor, h: int, w: int) -> Tensor:
    """The reverse of `as_tokens`. Shape: (B, H W, C) -> (B, C, H, W)."""
    b, _, c = x.shape
    return permute_dims(reshape(x, (b, h, w, c)), (0, 3, 1, 2))


def picture_attention(
    channels: int, head_width: int | None, common: Resnet, groups: int | None
) -> Attention:
    """Self-attention of all places, as it stands between ResNet blocks.

    Raises:
        ConfigError: heads do not share the channels equally.
    """
    width = channels if head_width is None else head_width
    if channels % width:
        raise ConfigError(
            f"attention_head_dim={width} does not divide {channels} channels into whole heads.",
            expected=channels,
            got=width,
        )
    return Attention(
        channels,
        channels // width,
        width,
        groups=groups,
        eps=common.eps,
        bias=True,
        residual=True,
        scale=common.scale,
    )


#: Makes what stands behind each ResNet block, given the channels and the number of the layer.
MakeAttention = Callable[[int, int], nn.Module]


class DownBlock2D(nn.Module):
    """ResNet blocks, each with attention behind it if there is any, then half the size.

    Args:
        attention: makes the attention of each layer; None for none.
        downsample: "conv", "resnet" or None.
        padding: of the "conv", see `Downsample2D`.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        layers: int,
        common: Resnet,
        *,
        attention: MakeAttention | None = None,
        downsample: str | None = "conv",
        padding: int = 1,
    ) -> None:
        widths = [in_channels, *[out_channels] * (layers - 1)]
        self.attentions = _attentions(attention, out_channels, layers)
        self.resnets = nn.ModuleList(ResnetBlock2D(w, out_channels, common) for w in widths)
        self.downsamplers = None
        if downsample == "conv":
            self.downsamplers = nn.ModuleList([Downsample2D(out_channels, padding=padding)])
        elif downsample == "resnet":
            block = ResnetBlock2D(out_channels, out_channels, common, resize="down")
            self.downsamplers = nn.ModuleList([block])

    def forward(
        self,
        x: Tensor,
        temb: Tensor | None = None,
        encoder_hidden_states: Tensor | None = None,
        mask: Tensor | None = None,
    ) -> tuple[Tensor, list[Tensor]]:
        """What comes out, and what each layer gave, for the way up."""
        outputs = []
        for i, resnet in enumerate(self.resnets):
            x = resnet(x, temb)
            if self.attentions is not None:
                x = self.attentions[i](x, encoder_hidden_states, mask)
            outputs.append(x)
        if self.downsamplers is not None:
            x = self.downsamplers[0](x, temb)
            outputs.append(x)
        return x, outputs


class MidBlock2D(nn.Module):
    """A ResNet block, then pairs of attention and ResNet block.

    Args:
        attention: makes the attention of each layer; None leaves it out.
    """

    def __init__(
        self, channels: int, common: Resnet, attention: MakeAttention | None, layers: int = 1
    ) -> None:
        self.attentions = _attentions(attention, channels, layers)
        self.resnets = nn.ModuleList(
            ResnetBlock2D(channels, channels, common) for _ in range(layers + 1)
        )

    def forward(
        self,
        x: Tensor,
        temb: Tensor | None = None,
        encoder_hidden_states: Tensor | None = None,
        mask: Tensor | None = None,
    ) -> Tensor:
        x = self.resnets[0](x, temb)
        for i, resnet in enumerate(list(self.resnets)[1:]):
            if self.attentions is not None:
                x = self.attentions[i](x, encoder_hidden_states, mask)
            x = resnet(x, temb)
        return x


class UpBlock2D(nn.Module):
    """ResNet blocks on the way up; each sees what a layer on the way down gave, beside its input.

    Args:
        in_channels: what the first block gets from below.
        out_channels: of every block.
        skip_channels: of the last skip; the others have `out_channels`.
        upsample: "conv", "resnet" or None.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        skip_channels: int,
        layers: int,
        common: Resnet,
        *,
        attention: MakeAttention | None = None,
        upsample: str | None = "conv",
    ) -> None:
        inputs = [in_channels, *[out_channels] * (layers - 1)]
        skips = [*[out_channels] * (layers - 1), skip_channels]
        self.attentions = _attentions(attention, out_channels, layers)
        self.resnets = nn.ModuleList(
            ResnetBlock2D(width + skip, out_channels, common)
            for width, skip in zip(inputs, skips, strict=True)
        )
        self.upsamplers = None
        if upsample == "conv":
            self.upsamplers = nn.ModuleList([Upsample2D(out_channels)])
        elif upsample == "resnet":
            block = ResnetBlock2D(out_channels, out_channels, common, resize="up")
            self.upsamplers = nn.ModuleList([block])

    def forward(
        self,
        x: Tensor,
        skips: list[Tensor],
        temb: Tensor | None = None,
        encoder_hidden_states: Tensor | None = None,
        mask: Tensor | None = None,
        size: tuple[int, int] | None = None,
    ) -> Tensor:
        """The outputs of the way down are taken off the end of `skips`.

        Args:
            size: rows and columns that the next block needs, where they are not twice as many.
        """
        for i, resnet in enumerate(self.resnets):
            x = resnet(concat([x, skips.pop()], axis=1), temb)
            if self.attentions is not None:
                x = self.attentions[i](x, encoder_hidden_states, mask)
        if self.upsamplers is not None:
            last = self.upsamplers[0]
            x = last(x, temb) if size is None else last(x, temb, size)
        return x


def _attentions(make: MakeAttention | None, channels: int, layers: int) -> nn.ModuleList | None:
    return None if make is None else nn.ModuleList(make(channels, i) for i in range(layers))
