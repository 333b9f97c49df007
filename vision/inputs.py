"""What a vision model says about pictures of the wrong shape, before any layer sees them."""

from __future__ import annotations

from typing import Any

from ..core.errors import ShapeError


def check_images(x: Any, channels: int, smallest: int = 1) -> None:
    """Check that `x` is a batch of images (B, channels, H, W).

    Raises:
        ShapeError: it is not; says what it looks like instead and how to mend it.
    """
    shape = tuple(x.shape)
    if len(shape) == 4 and shape[1] == channels and min(shape[2:]) >= smallest:
        return
    raise ShapeError(
        f"images of shape (B, {channels}, H, W) are wanted, got {shape}.\n{_hint(shape, channels)}",
        expected=(None, channels, None, None),
        got=shape,
    )


def _hint(shape: tuple[int, ...], channels: int) -> str:
    if len(shape) == 3:
        if shape[0] == channels:
            return "One image without the batch axis? Add it: x[None]"
        if shape[2] == channels:
            return (
                f"The last axis has {shape[2]} values: channels come last here, and the batch axis "
                "is missing.\nWrite: bt.permute_dims(x, (2, 0, 1))[None]"
            )
    if len(shape) == 2:
        return "One grey image without channel and batch axes? Add them: x[None, None]"
    if len(shape) == 4 and shape[3] == channels:
        return (
            f"The last axis has {shape[3]} values: channels come last here (NHWC).\n"
            "Write: bt.permute_dims(x, (0, 3, 1, 2))"
        )
    if len(shape) in (3, 4) and shape[-3] == 1 and channels == 3:
        return (
            "Grey images and a model for RGB. Load it for one channel:\n"
            "  bt.load(name, in_channels=1)\n"
            'or convert the images: image.convert("RGB"), or x = bt.concat([x, x, x], axis=1)'
        )
    if len(shape) == 4 and shape[1] != channels:
        return (
            f"The images have {shape[1]} channels and the model {channels}. Load it for them:\n"
            f"  bt.load(name, in_channels={shape[1]})"
        )
    if len(shape) == 4:
        return "The images are too small (or empty): resize them."
    return "Axes are batch, channels, height, width."
