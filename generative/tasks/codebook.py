"""Pictures to entries of a codebook and back: the task of a VQ-VAE."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ...core.errors import ConfigError, DataError
from ...core.state import inference_mode
from ...core.tensor import Tensor
from ..pipelines.pictures import middle_square, opened
from ..pipelines.sampling import check_count, check_finite, seeds_of, to_pictures
from .part import Part

Array = np.ndarray[Any, Any]
BATCH = 64


class CodebookAutoencoder(Part):
    """Packs pictures into codes and back: `model.decode(model.encode("photo.png"))`.

    It has learnt what entries of the codebook look like beside each other, not which of them go
    together: it makes no new pictures by itself (see `sample`).

    Attributes:
        module, card, report: see `Part`.
    """

    task = "image-autoencoding"

    def encode(self, pictures: Any) -> Array:
        """The codes of a picture, or of each of a list: small whole numbers.

        Args:
            pictures: paths, Pillow images or arrays (H, W), (H, W, C) of bytes or of floats from 0
                to 1. The middle square of each is scaled to the size of the network.

        Shape:
            (B, size / 4, size / 4), int64
        Raises:
            DataError: a picture cannot be read, or the list is empty.
        """
        found = []
        for x in self._batches(pictures):
            with inference_mode():
                found.append(self.module.encode(x).cpu().numpy())
        return np.asarray(np.concatenate(found), np.int64)

    def decode(self, codes: Any, *, output: str = "pictures") -> Any:
        """The pictures of codes.

        Args:
            codes: whole numbers below the number of entries, (B, size / 4, size / 4).
            output: "pictures" (Pillow) or "array" (B, C, size, size) from -1 to 1.

        Raises:
            ShapeError, DtypeError, IndexRangeError: they are no codes of this network.
        """
        if output not in ("pictures", "array"):
            raise ConfigError(f"output={output!r} is neither 'pictures' nor 'array'", got=output)
        given = np.asarray(codes)
        made: list[Any] = []
        for first in range(0, max(len(given), 1) if given.ndim else 1, BATCH):
            part = given[first : first + BATCH] if given.ndim else given
            with inference_mode():
                samples = self.module.decode(Tensor(part).to(device=self.device))
            check_finite(samples)
            made += list(samples.cpu().numpy()) if output == "array" else to_pictures(samples)
        return np.stack(made) if output == "array" else made

    def __call__(self, pictures: Any) -> Any:
        """What codes keep of a picture, or of each of a list: encoded and decoded again."""
        made = self.decode(self.encode(pictures))
        return made if isinstance(pictures, (list, tuple)) else made[0]

    def sample(
        self, count: int = 1, *, seed: int | Sequence[int] | None = None, output: str = "pictures"
    ) -> Any:
        """Pictures of codes that are drawn one by one, each as often as it was used in training.

        They show textures, not things: which codes lie beside which would have to be learnt by a
        second network, a prior, and there is none here.

        Args:
            count: how many.
            seed: of the first; the second has seed + 1, and so on. Or one for each.
            output: see `decode`.
        """
        seeds = seeds_of(check_count(count), seed)
        uses = np.asarray(self.module.codebook.uses.cpu().numpy(), np.float64)
        if not uses.any():  # it was never trained
            uses += 1
        shares = uses / uses.sum()
        shape = (self.config.side, self.config.side)
        drawn = [np.random.default_rng(s).choice(len(shares), shape, p=shares) for s in seeds]
        return self.decode(np.stack(drawn), output=output)

    def _batches(self, pictures: Any) -> list[Tensor]:
        given = list(pictures) if isinstance(pictures, (list, tuple)) else [pictures]
        if not given:
            raise DataError("no pictures are given: the list is empty")
        grey, size = self.config.channels == 1, self.config.size
        rows = []
        for one in given:
            image = middle_square(opened(one), size, grey)
            values = np.asarray(image, np.float32) / np.float32(127.5) - 1
            rows.append(values[None] if grey else values.transpose(2, 0, 1))
        like = next(self.module.parameters())
        parts = (np.stack(rows[i : i + BATCH]) for i in range(0, len(rows), BATCH))
        return [Tensor(part).to(device=like.device, dtype=like.dtype) for part in parts]

    def __repr__(self) -> str:
        size, side = self.config.size, self.config.side
        return (
            f"CodebookAutoencoder({self.card.name!r}, {self.architecture}, {size} x {size} pixels "
            f"as {side} x {side} of {self.config.entries} codes, on {self.device})"
        )
