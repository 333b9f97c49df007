"""Pictures and captions as a frozen autoencoder and text encoder see them, computed once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...core.insight.progress import progress
from ...core.nn import Module
from ...core.state import inference_mode
from ...core.tensor import Tensor
from ..pipelines.decoding import scaled
from ..pipelines.pictures import opened, picture_array
from ..tasks.text_to_image import TextToImage
from .captions import Captioned
from .pictures import Batches

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Cached:
    """What the frozen networks make of the pictures and captions.

    Attributes:
        means, deviations: of each picture's latents, (V, N, C, H, W); V is 2 where the pictures
            are there mirrored as well.
        contexts: of the captions that differ, (K, T, D), the empty one first.
        captions: the number of each picture's, (N,).
    """

    means: Array
    deviations: Array
    contexts: Array
    captions: Array

    def __len__(self) -> int:
        return len(self.captions)


class CachedBatches(Batches):
    """Batches of means and deviations of latents, and of the numbers of captions."""

    def _batch(self, chosen: Array, mirrored: Array) -> Any:
        found: Cached = self.pictures
        version = mirrored.astype(np.int64)
        parts = found.means[version, chosen], found.deviations[version, chosen]
        return tuple(Tensor(part) for part in (*parts, found.captions[chosen]))


def cache(
    model: TextToImage,
    pictures: Captioned,
    size: tuple[int, int],
    *,
    flip: bool = False,
    truncate: bool = False,
    quiet: bool = False,
) -> Cached:
    """The latents of pictures and the contexts of their captions.

    Args:
        size: rows and columns that the pictures are brought to.
        flip: mirrored as well.
        truncate: leave out what is too long for the text encoder, in place of an error.
    """
    texts = ["", *dict.fromkeys(text for text in pictures.captions if text)]
    number = {text: i for i, text in enumerate(texts)}
    contexts = [model.prompts.encode([text], truncate=truncate).cpu().numpy() for text in texts]
    means, deviations = [], []
    shown = False if quiet else None
    for file in progress(
        pictures.files, what="pictures to latents", unit="pictures", enabled=shown
    ):
        pixels = picture_array(_middle(file, size))
        for version in [pixels, pixels[..., ::-1]] if flip else [pixels]:
            mean, deviation = _latents(model.module.vae, np.ascontiguousarray(version))
            means.append(mean)
            deviations.append(deviation)
    shape = (len(pictures), 2 if flip else 1, *means[0].shape)
    first, second = (np.stack(part).reshape(shape).swapaxes(0, 1) for part in (means, deviations))
    captions = np.array([number[text] for text in pictures.captions])
    return Cached(first, second, np.concatenate(contexts).astype(np.float32), captions)


def _latents(vae: Module, pixels: Array) -> tuple[Array, Array]:
    """Mean and deviation of a picture's latents, as they are diffused."""
    with inference_mode():
        found: Any = vae.encode(Tensor(pixels).to(device=vae.device, dtype=vae.dtype))
        distribution = hasattr(found, "deviation")
        mean = scaled(vae, found.mean if distribution else found)
        # What is scaled and shifted is a sample; the deviation is scaled alone.
        other = scaled(vae, found.mean + found.deviation) - mean if distribution else 0 * mean
    first, second = (np.asarray(part.cpu().numpy(), np.float32)[0] for part in (mean, other))
    return first, second


def _middle(file: Path, size: Sequence[int]) -> Any:
    """A picture of this size: scaled until it covers it, and its middle."""
    from PIL import Image, ImageOps

    rows, columns = size
    return ImageOps.fit(opened(file), (columns, rows), Image.Resampling.LANCZOS)
