"""The detection task: where things are in a picture, and what they are."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from ..core.errors import ConfigError, DataError
from ..core.insight.answers import Answers
from ..core.insight.progress import progress
from ..core.nn import Module
from ..core.state import inference_mode
from ..core.tensor import Tensor
from ..hub.card import Card
from ..hub.filling import Report
from ..hub.loading import Loaded
from .boxes import Boxes, clip_boxes, scale_boxes
from .detection_metrics import DetectionReport
from .detection_preprocess import DetectionPreprocess, Prepared
from .image_task import Array, ImageTask, read_ahead
from .instance_masks import as_json, pasted
from .labels import label_names
from .transforms import Size

if TYPE_CHECKING:
    from PIL import Image

#: One thing found: its class, how sure the model is, and left, upper, right and lower edge; of
#: models that find masks, also whether each pixel of the picture belongs to it.
Detection = dict[str, Any]

THRESHOLD = 0.5
BATCH = 4


class Detector(ImageTask):
    """Finds things in pictures: `model("street.jpg")`.

    Attributes:
        module: the network; call it with arrays that you prepared yourself.
        preprocess: how pictures are prepared for it.
        labels: names of the classes, in the order of its outputs.
        card: licence, origin, results.
        report: what loading did with each tensor.
    """

    task = "object-detection"

    def __init__(
        self,
        module: Module,
        *,
        architecture: str,
        config: Any,
        preprocess: DetectionPreprocess,
        labels: Sequence[str],
        card: Card,
        report: Report | None = None,
    ) -> None:
        super().__init__(
            module,
            architecture=architecture,
            config=config,
            preprocess=preprocess,
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
            preprocess=_preprocess_of(loaded),
            labels=_labels_of(loaded),
            card=loaded.card,
            report=loaded.report,
        )

    # -- answers ---------------------------------------------------------------------------

    def __call__(
        self, source: Any, *, threshold: float = THRESHOLD, batch_size: int = BATCH
    ) -> Any:
        """What is in a picture: `[{"label": ..., "score": ..., "box": [x0, y0, x1, y1]}]`.

        Boxes are left, upper, right and lower edge in pixels of the picture as it is seen: turned
        as its EXIF data says, and not resized. The surest comes first. Models like Mask R-CNN
        give a "mask" too: whether each pixel of the picture belongs to the thing, (H, W), bool.

        A picture is a path, bytes, an open binary file, a Pillow image or an array (H, W, 3).
        Of a list, tuple or array of pictures: a list of such answers. Of a folder: a dict from
        path to answer. Of a generator: an iterator, that reads no more than it needs.

        Args:
            threshold: what is less probable than this is left out.
            batch_size: how many pictures the network sees at a time.
        Raises:
            DataError: a picture cannot be read; names it.
        """
        if not 0 <= threshold <= 1:
            raise ConfigError(f"threshold={threshold} lies from 0 to 1", got=threshold)

        def answers(pictures: Iterable[Any], total: int | None, size: int) -> Iterator[Any]:
            for boxes, picture in self._found(pictures, size, total):
                yield self._answer(boxes, threshold, picture)

        return self._for_each(source, answers, batch_size)

    def boxes(self, sources: Any, *, batch_size: int = BATCH) -> list[Boxes]:
        """Everything found in pictures, however unsure: as arrays, for metrics of your own."""
        pictures = self._all(sources)
        return [boxes for boxes, _ in self._found(pictures, batch_size, len(pictures))]

    def draw(
        self,
        source: Any,
        found: Sequence[Detection] | None = None,
        *,
        threshold: float = THRESHOLD,
    ) -> Image.Image:
        """A copy of a picture with boxes and names drawn on it, and masks where there are any.

        Args:
            found: what to draw; what the model finds unless given.
        """
        from ..core.data.images import read_image
        from .drawing import draw_boxes

        image = read_image(source)
        if found is None:
            found = self(image, threshold=threshold)
        return draw_boxes(image, found, self.labels)

    def evaluate(self, data: Any, *, batch_size: int = BATCH, **settings: Any) -> DetectionReport:
        """Average precision and recall on pictures whose boxes are known.

        Args:
            data: COCO JSON, a folder of VOC or YOLO, or what `detection_data` gives. Where it has
                a held-out part, that part.
            settings: of `detection_data`.
        Raises:
            DataError: the data cannot be used, or has classes that the model does not know.
        """
        from .detection_sets import DetectionData, detection_data

        found = data if isinstance(data, DetectionData) else detection_data(data, **settings)
        found = found.with_labels(self.labels).measured()
        return DetectionReport.of(
            self.boxes(found.paths, batch_size=batch_size), found.targets, self.labels
        )

    # -- the model -------------------------------------------------------------------------

    def finetune(self, data: Any, **settings: Any) -> Detector:
        """Teach it other classes; returns a new task and leaves this one as it is.

        Args:
            data: COCO JSON, a folder of VOC or YOLO; see `vision.detection_sets.detection_data`.
            settings: `out=` a folder for the result, `epochs=`, `lr=` and the other settings of
                `vision.detection_finetune.finetune`.
        """
        from .detection_finetune import finetune

        new: Detector = finetune(self, data, **settings)
        return new

    def __repr__(self) -> str:
        return f"Detector({self.card.name!r}, {len(self.labels)} classes, on {self.device})"

    # -- inner workings --------------------------------------------------------------------

    def _saved_labels(self) -> Sequence[str]:
        return self.labels

    def _answer(self, boxes: Boxes, threshold: float, picture: Size) -> list[Detection]:
        scores = np.zeros(0) if boxes.scores is None else boxes.scores
        order = np.argsort(-scores, kind="stable")
        answers: Answers[Detection] = Answers(
            {
                "label": self.labels[boxes.labels[i]],
                "score": float(scores[i]),
                "box": [round(float(edge), 2) for edge in boxes.boxes[i]],
            }
            for i in order
            if scores[i] >= threshold
        )
        if boxes.parts is not None:
            for answer, i in zip(answers, order, strict=False):  # those left out come last
                answer["mask"] = pasted(boxes.parts[i], boxes.boxes[i], picture)
        return answers

    def _prepare(self, source: Any) -> tuple[Array, Size]:
        """A picture for the network, and the height and width that it had."""
        image = self.preprocess.picture(source)
        return self.preprocess(image), (image.height, image.width)

    def _found(
        self, pictures: Iterable[Any], batch_size: int, total: int | None
    ) -> Iterator[tuple[Boxes, Size]]:
        """Everything found in each picture, in its own pixels, and its height and width."""
        if batch_size < 1:
            raise ConfigError(f"batch_size={batch_size} must be at least 1", got=batch_size)
        with progress(total=total, what="detecting", unit="pictures") as bar:
            for prepared in read_ahead(self._prepare, pictures, batch_size):
                found: dict[int, Boxes] = {}
                for chosen in self._batches_of([array.shape for array, _ in prepared]):
                    batch = self.preprocess.padded([prepared[i][0] for i in chosen])
                    for i, boxes in zip(chosen, self._see(batch), strict=True):
                        inside = self.preprocess.target(*prepared[i][1])
                        found[i] = _at_original(boxes, inside, prepared[i][1])
                bar.update(len(prepared))
                yield from ((found[i], size) for i, (_, size) in enumerate(prepared))

    def _batches_of(self, shapes: Sequence[tuple[int, ...]]) -> list[list[int]]:
        """Which pictures go through together: all, or those of one size if none may be padded."""
        module: Any = self.module
        if module.takes_mask or self.preprocess.pad is not None:
            return [list(range(len(shapes)))]
        groups: dict[tuple[int, ...], list[int]] = {}
        for i, shape in enumerate(shapes):
            groups.setdefault(shape, []).append(i)
        return list(groups.values())

    def _see(self, batch: Prepared) -> list[Boxes]:
        module: Any = self.module
        with inference_mode():
            pixels = Tensor(batch.pixel_values).to(device=self.device, dtype=module.dtype)
            mask = Tensor(batch.pixel_mask).to(device=self.device)
            whole = not module.takes_mask or bool(batch.pixel_mask.all())
            run = self._fast(module)
            output = run(pixels) if whole else run(pixels, mask)
        found: list[Boxes] = module.found(output, batch.sizes)
        return found


def _at_original(boxes: Boxes, seen: Size, original: Size) -> Boxes:
    """Boxes in the prepared picture as boxes in the original, cut off at its edges."""
    scaled = scale_boxes(boxes.boxes, seen, original)
    return replace(boxes, boxes=clip_boxes(scaled, *original))


def _preprocess_of(loaded: Loaded) -> DetectionPreprocess:
    """What the model's own files say; then the registry; then the habit of DETR."""
    if loaded.processor is not None:
        found = DetectionPreprocess.from_config(loaded.processor, "preprocessor_config.json")
    else:
        found = DetectionPreprocess(**dict(loaded.preprocess or {}))
    if loaded.image_size is not None:
        found = found.with_size(loaded.image_size)
    channels = getattr(loaded.config, "in_channels", 3)
    return found.with_channels(channels) if channels in (1, 3) else found


def _labels_of(loaded: Loaded) -> list[str]:
    count = int(loaded.config.num_classes)
    labels = loaded.labels
    if isinstance(labels, str):
        labels = label_names(labels)
    if labels is None or len(labels) != count:
        return [f"class {i}" for i in range(count)]
    return list(labels)


def coco_json(found: dict[str, list[Detection]], labels: Sequence[str]) -> dict[str, Any]:
    """What was found in a folder, as COCO JSON with scores: readable by annotation tools.

    Masks are run lengths.

    Args:
        found: the answer for each path, as `model(folder)` gives it.
        labels: the model's.
    Raises:
        DataError: a picture cannot be read, or a label is none of the model's.
    """
    from .annotations import picture_size

    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number, (path, answers) in enumerate(found.items(), start=1):
        height, width = picture_size(Path(path))
        images.append({"id": number, "file_name": path, "width": width, "height": height})
        for answer in answers:
            if answer["label"] not in labels:
                raise DataError(f"{path}: {answer['label']!r} is none of the model's labels")
            x0, y0, x1, y1 = answer["box"]
            found_here: dict[str, Any] = {
                "id": len(annotations) + 1,
                "image_id": number,
                "category_id": list(labels).index(answer["label"]) + 1,
                "bbox": [x0, y0, round(x1 - x0, 2), round(y1 - y0, 2)],
                "area": round((x1 - x0) * (y1 - y0), 2),
                "iscrowd": 0,
                "score": answer["score"],
            }
            runs = as_json(answer).get("segmentation")
            if runs is not None:
                found_here["segmentation"] = runs
                found_here["area"] = sum(runs["counts"][1::2])
            annotations.append(found_here)
    categories = [{"id": i, "name": name} for i, name in enumerate(labels, start=1)]
    return {"images": images, "categories": categories, "annotations": annotations}
