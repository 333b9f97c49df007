"""Previews: what latents will look like, at a fraction of the cost of decoding them."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...core.nn import Module
from ...core.random import Generator, normal
from ...core.state import inference_mode
from ...core.tensor import Tensor
from .decoding import decoded, unscaled

_PLACES = 12  # rows and columns of the latents that a linear map is fitted to
_SAMPLES = 3

Array = np.ndarray[Any, Any]


class LinearPreview:
    """Latents to small pictures, one pixel for each place, by a linear map.

    The map is the best one, by least squares, for what the autoencoder itself makes of some
    smooth noise.
    """

    def __init__(self, vae: Module) -> None:
        channels = vae.config.latent_channels
        shape = (_SAMPLES, channels, _PLACES, _PLACES)
        noise = normal(shape, generator=Generator(0)).numpy()
        smooth = sum(np.roll(noise, (i, j), (2, 3)) for i in (0, 1) for j in (0, 1)) / 2
        latents = Tensor(np.asarray(smooth, np.float32)).to(device=vae.device)
        pixels = np.asarray(decoded(vae, latents).cpu().numpy(), np.float32)
        factor = pixels.shape[2] // _PLACES
        blocks = pixels.reshape(*pixels.shape[:2], _PLACES, factor, _PLACES, factor)
        colours = np.clip(blocks, -1, 1).mean(axis=(3, 5))
        inputs = np.asarray(smooth).transpose(0, 2, 3, 1).reshape(-1, channels)
        inputs = np.concatenate([inputs, np.ones((len(inputs), 1))], axis=1)
        outputs = colours.transpose(0, 2, 3, 1).reshape(-1, colours.shape[1])
        self.map = np.linalg.lstsq(inputs, outputs, rcond=None)[0].astype(np.float32)

    def __call__(self, latents: Tensor) -> Tensor:
        """Shape: (B, latent_channels, H, W) -> (B, 3, H, W), from about -1 to 1."""
        values = np.asarray(latents.cpu().numpy(), np.float32).transpose(0, 2, 3, 1)
        out = values @ self.map[:-1] + self.map[-1]
        return Tensor(np.ascontiguousarray(out.transpose(0, 3, 1, 2)))


class TinyPreview:
    """Latents to pictures of full size by a small autoencoder, such as taesd."""

    def __init__(self, tiny: Module) -> None:
        self.tiny = tiny

    def __call__(self, latents: Tensor) -> Tensor:
        """Shape: (B, latent_channels, H, W) -> (B, 3, factor H, factor W)."""
        with inference_mode():
            values = unscaled(self.tiny, latents.to(device=self.tiny.device))
            made: Tensor = self.tiny.decode(values.astype(self.tiny.dtype))
            return made
