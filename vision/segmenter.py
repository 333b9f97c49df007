"""The segmentation task: what each pixel of a picture shows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Self

from ..core.data.images import read_image
from ..core.errors import ConfigError
from ..core.insight.progress import progress
from ..core.nn import Module
from ..hub.card import Card
from ..hub.filling import Report
from ..hub.loading import Loaded
from .image_task import Array, ImageTask, preprocess_of, read_ahead
from .labels import label_names
from .preprocess import Preprocess
from .segmentation import Segmentation, classes_at
from .transforms import Size

if TYPE_CHECKING:
    from PIL import Image

    from .segmentation_metrics import SegmentationReport

BATCH = 4


class Segmenter(ImageTask):
    """Says what each pixel of a picture shows: `model("street.jpg")`.

    Pictures go through whole: where the published preprocessing cuts out the middle, that is left
    out, since what is cut off would have no class.

    Attributes:
        module: the network; call it for logits of arrays that you prepared yourself.
        preprocess: how pictures are prepared for it.
        labels: names of the classes, in the order of its outputs.
        card: licence, origin, results.
        report: what loading did with each tensor.
    """

    task = "image-segmentation"

    def __init__(
        self,
        module: Module,
        *,
        architecture: str,
        config: Any,
        preprocess: Preprocess,
        labels: Sequence[str],
        card: Card,
        report: Report | None = None,
    ) -> None:
        super().__init__(
            module,
            architecture=architecture,
            config=config,
            preprocess=replace(preprocess, crop=False),
            card=card,
            report=report,
        )
        self.labels = list(labels)
        if len(self.labels) != config.num_classes:
            raise ConfigError(
                f"{len(self.labels)} labels for a model of {config.num_classes} classes",
                expected=config.num_classes,
                got=len(self.labels),
            )

    @classmethod
    def from_loaded(cls, loaded: Loaded) -> Self:
        """The task of what `bt.load` has loaded."""
        return cls(
            loaded.module,
            architecture=loaded.architecture.name,
            config=loaded.config,
            preprocess=preprocess_of(loaded),
            labels=_labels_of(loaded),
            card=loaded.card,
            report=loaded.report,
        )

    # -- answers ---------------------------------------------------------------------------

    def __call__(self, source: Any, *, batch_size: int = BATCH) -> Any:
        """The class of every pixel of a picture: a `Segmentation`, with names and shares of area.

        It is as large as the picture as it is seen: turned as its EXIF data says, not resized.

        A picture is a path, bytes, an open binary file, a Pillow image or an array (H, W, 3).
        Of a list, tuple or array of pictures: a list of such answers. Of a folder: a dict from
        path to answer. Of a generator: an iterator, that reads no more than it needs.

        Args:
            batch_size: how many pictures the network sees at a time.
        Raises:
            DataError: a picture cannot be read; names it.
        """

        def answers(pictures: Iterable[Any], total: int | None, size: int) -> Iterator[Any]:
            return self._answers(pictures, size, total)

        return self._for_each(source, answers, batch_size)

    def draw(
        self,
        source: Any,
        found: Segmentation | None = None,
        *,
        opacity: float = 0.55,
        legend: bool = True,
    ) -> Image.Image:
        """A copy of a picture in the colours of its classes, with their names beside it.

        Args:
            found: what to draw; what the model finds unless given.
            opacity: of the colours, from 0 to 1; the background has none.
            legend: whether the names are written.
        """
        image = read_image(source)
        answer = self(image) if found is None else found
        drawn: Image.Image = answer.draw(image, opacity=opacity, legend=legend)
        return drawn

    def evaluate(
        self, data: Any, *, batch_size: int = BATCH, **settings: Any
    ) -> SegmentationReport:
        """Intersection over union and accuracy on pictures whose classes are known.

        Masks are compared at their own size, not the network's.

        Args:
            data: a folder of pictures and masks, or what `segmentation_data` gives. Where it has a
                held-out part, that part.
            settings: of `segmentation_data`.
        Raises:
            DataError: the data cannot be used, or has classes that the model does not know.
        """
        from .segmentation_metrics import SegmentationReport
        from .segmentation_sets import SegmentationData, segmentation_data

        if not isinstance(data, SegmentationData):
            data = segmentation_data(data, **{"labels": self.labels, **settings})
        measured = data.with_labels(self.labels).measured()
        found = self._answers(measured.paths, batch_size, len(measured.paths))
        pairs = ((answer.classes, measured.mask(i)) for i, answer in enumerate(found))
        return SegmentationReport.of(pairs, self.labels, measured.ignore)

    # -- the model -------------------------------------------------------------------------

    def finetune(self, data: Any, **settings: Any) -> Segmenter:
        """Teach it other classes; returns a new task and leaves this one as it is.

        Args:
            data: a folder of pictures and masks; see `vision.segmentation_sets`.
            settings: `out=` a folder for the result, `epochs=`, `lr=` and the other settings of
                `vision.segmentation_finetune.finetune`.
        """
        from .segmentation_finetune import finetune

        return finetune(self, data, **settings)

    def __repr__(self) -> str:
        height, width = self.preprocess.size
        return (
            f"Segmenter({self.card.name!r}, {len(self.labels)} classes, "
            f"{height} x {width} pixels, on {self.device})"
        )

    # -- inner workings --------------------------------------------------------------------

    def _saved_labels(self) -> Sequence[str]:
        return self.labels

    def _prepare(self, source: Any) -> tuple[Array, Size]:
        """A picture for the network, and the height and width that it had."""
        image = read_image(source)
        return self.preprocess(image), (image.height, image.width)

    def _answers(
        self, pictures: Iterable[Any], batch_size: int, total: int | None
    ) -> Iterator[Segmentation]:
        if batch_size < 1:
            raise ConfigError(f"batch_size={batch_size} must be at least 1", got=batch_size)
        with progress(total=total, what="segmenting", unit="pictures") as bar:
            for prepared in read_ahead(self._prepare, pictures, batch_size):
                maps = self._grouped(self.module, [array for array, _ in prepared])
                for logits, (_, size) in zip(maps, prepared, strict=True):
                    yield Segmentation(classes_at(logits, size), self.labels)
                    bar.update(1)


def _labels_of(loaded: Loaded) -> list[str]:
    count = int(loaded.config.num_classes)
    labels = loaded.labels
    if isinstance(labels, str):
        labels = label_names(labels)
    if labels is None or len(labels) != count:
        return [f"class {i}" for i in range(count)]
    return list(labels)
