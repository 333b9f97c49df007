"""Latents to pictures, whole or by tiles, so that large pictures take no more memory."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...core.errors import ConfigError
from ...core.nn import Module
from ...core.ops.shape import concat
from ...core.state import inference_mode
from ...core.tensor import Tensor

TILE = 64  # places of latents, in each direction
OVERLAP = 16  # of neighbouring tiles, over which one turns into the other

Array = np.ndarray[Any, Any]


def unscaled(vae: Module, latents: Tensor) -> Tensor:
    """Latents as the autoencoder has them, of those that are diffused."""
    factor, shift = _scaling(vae, latents)
    out: Tensor = latents / factor + shift
    return out


def scaled(vae: Module, latents: Tensor) -> Tensor:
    """The reverse of `unscaled`."""
    factor, shift = _scaling(vae, latents)
    out: Tensor = (latents - shift) * factor
    return out


def _scaling(vae: Module, like: Tensor) -> tuple[Any, Any]:
    """What latents are multiplied by, and what is taken off them before: of all, or by channel."""
    config = vae.config
    mean, std = (getattr(config, f"latents_{name}", None) for name in ("mean", "std"))
    if mean is None or std is None:
        return config.scaling_factor, config.shift_factor or 0.0
    columns = (np.asarray(values, np.float32).reshape(1, -1, 1, 1) for values in (mean, std))
    shift, spread = (Tensor(column).to(device=like.device) for column in columns)
    return config.scaling_factor / spread, shift


def decoded(vae: Module, latents: Tensor, *, tile: int | None = None) -> Tensor:
    """The pictures of latents that were diffused, one after the other.

    Args:
        tile: rows and columns of a tile, in places of latents; None decodes pictures whole.

    Shape:
        (B, latent_channels, H, W) -> (B, 3, factor H, factor W)
    """
    with inference_mode():
        values = unscaled(vae, latents).astype(vae.dtype)
        one = [values[i : i + 1] for i in range(values.shape[0])]
        made = [vae.decode(x) if tile is None else _by_tiles(vae, x, tile) for x in one]
        return concat(made, axis=0)


def _by_tiles(vae: Module, latents: Tensor, tile: int) -> Tensor:
    """One picture by overlapping tiles, each fading into the next."""
    if type(tile) is not int or tile < 8:
        raise ConfigError(f"tiles of {tile!r} places: a whole number from 8 is wanted", got=tile)
    rows, columns = latents.shape[2:]
    if rows <= tile and columns <= tile:
        whole: Tensor = vae.decode(latents)
        return whole
    overlap = min(OVERLAP, tile // 2)
    out: Array | None = None
    weights: Array | None = None
    for top in _starts(rows, tile, overlap):
        for left in _starts(columns, tile, overlap):
            part = latents[:, :, top : top + tile, left : left + tile]
            pixels = np.asarray(vae.decode(part).cpu().numpy(), np.float32)
            factor = pixels.shape[2] // part.shape[2]
            if out is None or weights is None:
                out = np.zeros((1, pixels.shape[1], rows * factor, columns * factor), np.float32)
                weights = np.zeros((rows * factor, columns * factor), np.float32)
            y, x = top * factor, left * factor
            h, w = pixels.shape[2:]
            ramp = np.minimum.outer(
                _ramp(h, overlap * factor, top > 0, top + tile < rows),
                _ramp(w, overlap * factor, left > 0, left + tile < columns),
            )
            out[:, :, y : y + h, x : x + w] += pixels * ramp
            weights[y : y + h, x : x + w] += ramp
    assert out is not None and weights is not None
    return Tensor(out / weights).to(device=latents.device)


def _starts(length: int, tile: int, overlap: int) -> list[int]:
    """Where tiles begin; the last ends where the latents do."""
    if length <= tile:
        return [0]
    found = list(range(0, length - tile, tile - overlap))
    return [*found, length - tile]


def _ramp(length: int, overlap: int, before: bool, after: bool) -> Array:
    """Weights of a tile's pixels, small where it meets a neighbour."""
    ramp = np.ones(length, np.float32)
    rise = (np.arange(min(overlap, length), dtype=np.float32) + 1) / (overlap + 1)
    if before:
        ramp[: len(rise)] = np.minimum(ramp[: len(rise)], rise)
    if after:
        ramp[length - len(rise) :] = np.minimum(ramp[length - len(rise) :], rise[::-1])
    return ramp
