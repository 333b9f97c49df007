"""Pictures to latents and back: the task of autoencoders by themselves."""

from __future__ import annotations

from typing import Any, Self

import numpy as np

from ...core.state import inference_mode
from ...core.tensor import Tensor
from ...hub.loading import Loaded
from ..pipelines.pictures import picture_array
from ..pipelines.sampling import to_pictures
from .part import Part

Array = np.ndarray[Any, Any]


class Autoencoder(Part):
    """Encodes pictures and decodes latents: `vae.decode(vae.encode("photo.png"))`.

    Attributes:
        module, card, report: see `Part`.
    """

    task = "image-autoencoding"

    @classmethod
    def from_loaded(cls, loaded: Loaded) -> Self:
        """The task of what `bt.load` has loaded; that of a codebook where it has one."""
        if hasattr(loaded.config, "entries"):
            from .codebook import CodebookAutoencoder

            return CodebookAutoencoder.from_loaded(loaded)  # type: ignore[return-value]
        return super().from_loaded(loaded)

    def encode(self, picture: Any) -> Array:
        """The latents of a picture, as they are diffused; of a distribution, its mean.

        Args:
            picture: a path, a Pillow image or an array (H, W, 3); cut to whole places of latents.

        Shape:
            (1, latent_channels, H / factor, W / factor), float32
        Raises:
            DataError: it cannot be read, or is smaller than a place of the latents.
        """
        x = picture_array(picture, multiple=self.config.factor)
        with inference_mode():
            sample = Tensor(x).to(device=self.device, dtype=self.module.dtype)
            found: Any = self.module.encode(sample)
        mean: Any = found.mean if hasattr(found, "deviation") else found
        latents = np.asarray(mean.cpu().numpy(), np.float32)
        return np.asarray((latents - (self.config.shift_factor or 0)) * self.config.scaling_factor)

    def decode(self, latents: Any) -> list[Any]:
        """The pictures of latents that `encode` or a pipeline gave.

        Shape:
            (B, latent_channels, H, W)
        """
        values = np.asarray(latents, np.float32) / self.config.scaling_factor
        with inference_mode():
            x = Tensor(values + np.float32(self.config.shift_factor or 0))
            out = self.module.decode(x.to(device=self.device, dtype=self.module.dtype))
        return to_pictures(out)

    def __call__(self, picture: Any, **settings: Any) -> Any:
        """The picture through its latents and back: what the autoencoder can keep of it."""
        return self.decode(self.encode(picture))[0]
