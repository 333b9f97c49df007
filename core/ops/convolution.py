"""Convolution and transposed convolution in one and two dimensions, as users call them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..errors import ConfigError, ShapeError
from .conv import Padding, Pair, _conv2d, conv2d_input_grad, output_length
from .shape import reshape

if TYPE_CHECKING:
    from ..tensor import Tensor

PaddingLike = int | str | tuple[Any, ...]


def pair(value: int | tuple[int, ...], what: str) -> Pair:
    """One number for both axes, or two."""
    if isinstance(value, int):
        return value, value
    if len(value) == 2:
        return int(value[0]), int(value[1])
    raise ConfigError(f"{what} is a number or two (vertical, horizontal), got {value}", got=value)


def _padding(value: PaddingLike, kernel: Pair, stride: Pair, dilation: Pair) -> Padding:
    """(top, bottom, left, right) of a padding in any of its spellings."""
    if isinstance(value, str):
        if value == "valid":
            return 0, 0, 0, 0
        if value != "same":
            raise ConfigError(f"padding is a number, numbers, 'same' or 'valid', got {value!r}")
        if stride != (1, 1):
            raise ConfigError(
                f"padding='same' needs a stride of 1, got {stride}.\n"
                f"For an output of size / stride: padding=({kernel[0] // 2}, {kernel[1] // 2})",
                got=stride,
            )
        vertical, horizontal = ((k - 1) * d for k, d in zip(kernel, dilation, strict=True))
        top, left = vertical // 2, horizontal // 2
        return top, vertical - top, left, horizontal - left
    if isinstance(value, int):
        value = (value, value)
    if len(value) != 2:
        raise ConfigError(
            "padding is a number, (vertical, horizontal), or ((top, bottom), (left, right)), "
            f"got {value}",
            got=value,
        )
    (top, bottom), (left, right) = ((v, v) if isinstance(v, int) else v for v in value)
    if min(top, bottom, left, right) < 0:
        raise ConfigError(f"padding must not be negative, got {value}", got=value)
    return int(top), int(bottom), int(left), int(right)


def conv2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | Pair = 1,
    padding: PaddingLike = 0,
    dilation: int | Pair = 1,
    groups: int = 1,
) -> Tensor:
    """Two-dimensional convolution (cross-correlation).

    Args:
        stride, dilation: a number, or (vertical, horizontal).
        padding: zeros around the image: a number, (vertical, horizontal),
            ((top, bottom), (left, right)), "same" (for stride 1) or "valid".
        groups: input and output channels are split into this many independent groups.

    Shape: x (B, C, H, W), weight (O, C / groups, KH, KW), bias (O,); the result is
        (B, O, OH, OW) with OH = (H + padding - dilation * (KH - 1) - 1) // stride + 1.
    Raises:
        ShapeError: no batch axis, other channels, or an image smaller than the kernel.
    """
    if weight.ndim != 4:
        raise ShapeError(
            f"conv2d: weight is (O, C / groups, KH, KW), got {tuple(weight.shape)}.",
            got=tuple(weight.shape),
        )
    steps, spread = pair(stride, "stride"), pair(dilation, "dilation")
    kernel = weight.shape[2], weight.shape[3]
    border = _padding(padding, kernel, steps, spread)
    if x.ndim != 4 or x.shape[1] != weight.shape[1] * groups:
        raise _unfitting("conv2d", x, weight.shape[1] * groups, 4)
    _check_options("conv2d", steps, spread, weight.shape[0], groups)
    for n, k, before, after, d in zip(
        x.shape[2:], kernel, border[::2], border[1::2], spread, strict=True
    ):
        if output_length(n, k, 1, before + after, d) < 1:
            raise _too_small("conv2d", x, kernel, border, spread)
    _check_bias("conv2d", bias, weight.shape[0])
    return _conv2d(x, weight, bias, stride=steps, padding=border, dilation=spread, groups=groups)


def conv1d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | tuple[int] = 1,
    padding: PaddingLike = 0,
    dilation: int | tuple[int] = 1,
    groups: int = 1,
) -> Tensor:
    """One-dimensional convolution (cross-correlation).

    Args:
        padding: a number, (number,), ((left, right),), "same" (for stride 1) or "valid".

    Shape: x (B, C, L), weight (O, C / groups, K), bias (O,); the result is (B, O, OL).
    """
    if weight.ndim != 3:
        raise ShapeError(
            f"conv1d: weight is (O, C / groups, K), got {tuple(weight.shape)}.",
            got=tuple(weight.shape),
        )
    if x.ndim != 3 or x.shape[1] != weight.shape[1] * groups:
        raise _unfitting("conv1d", x, weight.shape[1] * groups, 3)
    out = conv2d(
        _lifted(x),
        _lifted(weight),
        bias,
        (1, _single(stride)),
        padding if isinstance(padding, str) else (0, _single(padding)),
        (1, _single(dilation)),
        groups,
    )
    return reshape(out, (out.shape[0], out.shape[1], out.shape[3]))


def _lifted(x: Tensor) -> Tensor:
    """(B, C, L) as an image of one row."""
    return reshape(x, (x.shape[0], x.shape[1], 1, x.shape[2]))


def _single(value: Any) -> Any:
    return value[0] if isinstance(value, (tuple, list)) else value


def conv_transpose2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | Pair = 1,
    padding: int | Pair = 0,
    output_padding: int | Pair = 0,
    groups: int = 1,
    dilation: int | Pair = 1,
) -> Tensor:
    """Transposed convolution: the gradient of `conv2d` for its input, used as a layer.

    Args:
        padding: rows and columns that are cut off the result.
        output_padding: rows and columns added at its end, to choose among the sizes that a
            strided convolution brings to the same one.

    Shape: x (B, C, H, W), weight (C, O / groups, KH, KW), bias (O,); the result is
        (B, O, OH, OW) with OH = (H - 1) * stride - 2 * padding + dilation * (KH - 1)
        + output_padding + 1.
    """
    if weight.ndim != 4:
        raise ShapeError(
            f"conv_transpose2d: weight is (C, O / groups, KH, KW), got {tuple(weight.shape)}.",
            got=tuple(weight.shape),
        )
    steps, spread = pair(stride, "stride"), pair(dilation, "dilation")
    cut, extra = pair(padding, "padding"), pair(output_padding, "output_padding")
    if x.ndim != 4 or x.shape[1] != weight.shape[0]:
        raise _unfitting("conv_transpose2d", x, weight.shape[0], 4)
    _check_options("conv_transpose2d", steps, spread, weight.shape[0], groups)
    for e, s, d in zip(extra, steps, spread, strict=True):
        if not 0 <= e < max(s, d):
            raise ConfigError(
                f"conv_transpose2d: output_padding {extra} must be smaller than stride {steps} or "
                f"dilation {spread}.",
                got=extra,
            )
    size = [
        (n - 1) * s - 2 * p + d * (k - 1) + e + 1
        for n, k, s, p, d, e in zip(
            x.shape[2:], weight.shape[2:], steps, cut, spread, extra, strict=True
        )
    ]
    out_channels = weight.shape[1] * groups
    if min(size) < 1:
        raise ShapeError(
            f"conv_transpose2d: padding {cut} leaves nothing of {tuple(x.shape)}.",
            got=tuple(x.shape),
        )
    _check_bias("conv_transpose2d", bias, out_channels)
    return conv2d_input_grad(
        x,
        weight,
        bias,
        shape=(x.shape[0], out_channels, size[0], size[1]),
        stride=steps,
        padding=(cut[0], cut[0], cut[1], cut[1]),
        dilation=spread,
        groups=groups,
    )


def conv_transpose1d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | tuple[int] = 1,
    padding: int | tuple[int] = 0,
    output_padding: int | tuple[int] = 0,
    groups: int = 1,
    dilation: int | tuple[int] = 1,
) -> Tensor:
    """Transposed convolution in one dimension.

    Shape: x (B, C, L), weight (C, O / groups, K), bias (O,); the result is (B, O, OL).
    """
    if weight.ndim != 3 or x.ndim != 3:
        raise ShapeError(
            f"conv_transpose1d: needs x (B, C, L) and weight (C, O / groups, K), got "
            f"{tuple(x.shape)} and {tuple(weight.shape)}.",
            got=tuple(x.shape),
        )
    out = conv_transpose2d(
        _lifted(x),
        _lifted(weight),
        bias,
        (1, _single(stride)),
        (0, _single(padding)),
        (0, _single(output_padding)),
        groups,
        (1, _single(dilation)),
    )
    return reshape(out, (out.shape[0], out.shape[1], out.shape[3]))


# -- mistakes ----------------------------------------------------------------------------------


def _check_options(where: str, stride: Pair, dilation: Pair, channels: int, groups: int) -> None:
    if min(stride) < 1 or min(dilation) < 1 or groups < 1 or channels % groups:
        raise ConfigError(
            f"{where}: stride {stride} and dilation {dilation} must be at least 1, and groups "
            f"({groups}) must divide the {channels} output channels."
        )


def _check_bias(where: str, bias: Tensor | None, channels: int) -> None:
    if bias is not None and bias.shape != (channels,):
        raise ShapeError(
            f"{where}: bias has shape {tuple(bias.shape)}, the result {channels} channels.",
            expected=(channels,),
            got=tuple(bias.shape),
        )


def _too_small(where: str, x: Any, kernel: Pair, padding: Padding, dilation: Pair) -> ShapeError:
    reach = tuple(d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True))
    return ShapeError(
        f"{where}: the kernel covers {reach[0]} x {reach[1]} pixels, the image "
        f"{tuple(x.shape)} has {x.shape[2]} x {x.shape[3]} with padding {padding} (top, bottom, "
        "left, right) around it.\nLarger images, fewer strides before it, or more padding?",
        expected=reach,
        got=tuple(x.shape),
    )


def _unfitting(where: str, x: Any, channels: int, ndim: int) -> ShapeError:
    """The error for an input without a batch axis, or with other channels."""
    shape = tuple(x.shape)
    wanted = "(B, C, H, W)" if ndim == 4 else "(B, C, L)"
    facts = {"expected": channels, "got": shape}
    if x.ndim == ndim - 1:
        if shape[0] == channels:
            hint = "The batch axis is missing: x[None]"
        elif shape[-1] == channels:
            order = "(2, 0, 1)" if ndim == 4 else "(1, 0)"
            hint = (
                "The batch axis is missing and the channels are last: "
                f"bt.permute_dims(x, {order})[None]"
            )
        else:
            hint = f"One image? Add the batch axis: x[None]; it has {shape[0]} channels, though"
        return ShapeError(
            f"{where}: the input has shape {shape}, {wanted} with {channels} channels is wanted."
            f"\n{hint}",
            **facts,
        )
    if x.ndim != ndim:
        return ShapeError(
            f"{where}: the input has shape {shape}, {wanted} with {channels} channels is wanted.",
            **facts,
        )
    got = shape[1]
    hint = f"Make the layer fit: in_channels={got}"
    if shape[-1] == channels:
        order = "(0, 3, 1, 2)" if ndim == 4 else "(0, 2, 1)"
        hint = f"The last axis has {channels}: channels last? x = bt.permute_dims(x, {order})"
    elif got == 1 and channels == 3:
        hint = (
            "Grey images, and a model for colour? Convert them: image.convert('RGB'), or load "
            "the\nmodel for them: bt.load(name, in_channels=1)"
        )
    elif got == 4 and channels == 3:
        hint = "Images with transparency? Convert them: image.convert('RGB')"
    elif got == 3 and channels == 1:
        hint = "Colour images, and a model for grey ones? Convert them: image.convert('L')"
    return ShapeError(
        f"{where}: the layer takes {channels} channels (axis 1), the input {shape} has {got}."
        f"\n{hint}",
        **facts,
    )
