"""Pictures to vectors: for search, clustering, duplicates, or a classifier of yours."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from ..core.errors import ConfigError, DataError
from ..core.tensor import Tensor
from ..hub.loading import Loaded
from .image_task import BATCH, Array, ImageTask, preprocess_of, unit

if TYPE_CHECKING:
    from .tasks import ImageClassifier


class Embedder(ImageTask):
    """Says where a picture lies among all pictures: `model.encode(["cat.jpg", "dog.jpg"])`."""

    task = "image-feature-extraction"

    @classmethod
    def from_loaded(cls, loaded: Loaded) -> Self:
        """The task of what `bt.load` has loaded."""
        return cls(
            loaded.module,
            architecture=loaded.architecture.name,
            config=loaded.config,
            preprocess=preprocess_of(loaded),
            card=loaded.card,
            report=loaded.report,
        )

    def __call__(self, source: Any, *, normalize: bool = False, batch_size: int = BATCH) -> Any:
        """The vector of a picture; of several, a list; of a folder, a dict from path to vector.

        Sources and arguments are those of `encode`; of a generator it is an iterator.
        """

        def answers(pictures: Iterable[Any], total: int | None, size: int) -> Iterator[Array]:
            for rows in self._batches(self._embed, pictures, size, total):
                yield from unit(rows) if normalize else rows

        return self._for_each(source, answers, batch_size)

    def encode(self, sources: Any, *, normalize: bool = False, batch_size: int = BATCH) -> Array:
        """One vector for each picture, as one array.

        Args:
            sources: a picture (path, bytes, Pillow image, array), several, or a folder (in the
                order of `image_files`).
            normalize: scale each to length 1: products of two are then their cosine similarity.
            batch_size: how many pictures the network sees at a time.

        Shape:
            (B, D), float32
        Raises:
            DataError: a picture cannot be read, or there is none.
        """
        pictures = self._all(sources)
        rows = list(self._batches(self._embed, pictures, batch_size, len(pictures)))
        if not rows:
            raise DataError("there are no pictures to encode")
        vectors = np.concatenate(rows)
        return unit(vectors) if normalize else vectors

    def features(self, sources: Any, *, batch_size: int = BATCH) -> list[Array]:
        """Feature maps at several depths of the network, the finest first.

        Shape:
            each (B, C, H, W), float32
        Raises:
            DataError: a picture cannot be read, or there is none.
        """
        function: Callable[[Tensor], Any] | None = getattr(self.module, "feature_maps", None)
        if function is None:
            function = self._last_map()
        pictures = self._all(sources)
        batches = list(self._batches(function, pictures, batch_size, len(pictures)))
        if not batches:
            raise DataError("there are no pictures to take features of")
        return [np.concatenate(maps) for maps in zip(*batches, strict=True)]

    def finetune(self, data: str | Path, **settings: Any) -> ImageClassifier:
        """Teach it classes; returns a classifier and leaves this task as it is.

        Args:
            data: a folder with a folder of pictures for each class, or a CSV file.
            settings: `out=` a folder for the result, `epochs=`, `lr=` and the other settings of
                `vision.finetune.finetune`.
        """
        from .finetune import finetune

        return finetune(self, data, **settings)

    def __repr__(self) -> str:
        height, width = self.preprocess.size
        return f"Embedder({self.card.name!r}, {height} x {width} pixels, on {self.device})"

    def _embed(self, batch: Tensor) -> Tensor:
        vectors: Tensor = self.module.embed(batch)
        return vectors

    def _last_map(self) -> Callable[[Tensor], Any]:
        last: Callable[[Tensor], Tensor] | None = getattr(self.module, "forward_features", None)
        if last is None:
            raise ConfigError(f"{self.architecture} has no feature maps")
        return lambda batch: (last(batch),)
