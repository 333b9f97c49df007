"""The depth task: how far each pixel of a picture is."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from ..core.data.images import read_image
from ..core.errors import ConfigError, DataError
from ..core.insight.progress import progress
from ..core.nn import functional as F
from ..core.tensor import Tensor
from ..hub.loading import Loaded
from .image_task import Array, ImageTask, preprocess_of, read_ahead
from .transforms import Size

if TYPE_CHECKING:
    from PIL import Image

BATCH = 4


@dataclass(frozen=True, eq=False)
class Depth:
    """How far each pixel of a picture is.

    Attributes:
        values: (H, W), float32: metres if `metric`, otherwise without a unit, larger where nearer.
        metric: whether they are metres.
    """

    values: Array
    metric: bool

    @property
    def nearness(self) -> Array:
        """From 0 for the farthest pixel to 1 for the nearest; zeros where all are alike.

        Shape:
            (H, W), float32
        """
        low, high = float(self.values.min()), float(self.values.max())
        near = (self.values - low) / (high - low) if high > low else np.zeros_like(self.values)
        return np.asarray(1 - near if self.metric and high > low else near, np.float32)

    def image(self) -> Image.Image:
        """A grey picture, brighter where nearer."""
        from PIL import Image

        return Image.fromarray(np.rint(self.nearness * 255).astype(np.uint8))

    def save(self, path: str | Path) -> Path:
        """Write the values as `.npy`, or as a grey PNG of 16 bits, brighter where nearer.

        Raises:
            DataError: another ending.
        """
        from PIL import Image

        path = Path(path)
        if path.suffix.lower() not in (".npy", ".png"):
            raise DataError(f"{path}: depth is written as .npy or .png", path=str(path))
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix.lower() == ".npy":
            np.save(path, self.values)
        else:
            Image.fromarray(np.rint(self.nearness * 65_535).astype(np.uint16)).save(path)
        return path

    def __repr__(self) -> str:
        height, width = self.values.shape
        unit = " m" if self.metric else ", larger is nearer"
        return (
            f"Depth({width} x {height} pixels: {self.values.min():.3g} to "
            f"{self.values.max():.3g}{unit})"
        )


class DepthEstimator(ImageTask):
    """Says how far each pixel of a picture is: `model("street.jpg")`."""

    task = "depth-estimation"

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

    def __call__(self, source: Any, *, batch_size: int = BATCH) -> Any:
        """The depth of every pixel of a picture: a `Depth`, as large as the picture as it is seen.

        A picture is a path, bytes, an open binary file, a Pillow image or an array (H, W, 3).
        Of a list, tuple or array of pictures: a list of such answers. Of a folder: a dict from
        path to answer. Of a generator: an iterator, that reads no more than it needs.

        Args:
            batch_size: how many pictures the network sees at a time, if they are of one shape.
        Raises:
            DataError: a picture cannot be read; names it.
        """

        def answers(pictures: Iterable[Any], total: int | None, size: int) -> Iterator[Any]:
            return self._answers(pictures, size, total)

        return self._for_each(source, answers, batch_size)

    def draw(self, source: Any, found: Depth | None = None) -> Image.Image:
        """A grey picture, brighter where nearer."""
        answer: Depth = self(source) if found is None else found
        return answer.image()

    def __repr__(self) -> str:
        height, width = self.preprocess.size
        return f"DepthEstimator({self.card.name!r}, {height} x {width} pixels, on {self.device})"

    def _prepare(self, source: Any) -> tuple[Array, Size]:
        image = read_image(source)
        return self.preprocess(image), (image.height, image.width)

    def _answers(
        self, pictures: Iterable[Any], batch_size: int, total: int | None
    ) -> Iterator[Depth]:
        if batch_size < 1:
            raise ConfigError(f"batch_size={batch_size} must be at least 1", got=batch_size)
        with progress(total=total, what="measuring", unit="pictures") as bar:
            for prepared in read_ahead(self._prepare, pictures, batch_size):
                maps = self._grouped(self.module, [array for array, _ in prepared])
                for values, (_, size) in zip(maps, prepared, strict=True):
                    # Source: transformers 5.23, `post_process_depth_estimation`
                    full = F.interpolate(
                        Tensor(values[None, None]), size=size, mode="bicubic", align_corners=False
                    )
                    yield Depth(full.array[0, 0], bool(self.config.metric))
                    bar.update(1)
