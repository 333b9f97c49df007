"""Tasks: models that take pictures as they are and answer in words and numbers."""

from __future__ import annotations

import difflib
import operator
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np

from ..core.errors import ConfigError, DataError
from ..core.insight.answers import Answers
from ..core.insight.progress import progress
from ..core.nn import Module
from ..core.tensor import Tensor
from ..hub.card import Card
from ..hub.filling import Report
from ..hub.loading import Loaded
from .image_task import BATCH, Array, ImageTask, image_files, preprocess_of, softmax
from .labels import label_names
from .metrics import ClassificationReport
from .preprocess import Preprocess

__all__ = ["ImageClassifier", "Prediction", "image_files", "softmax"]

#: One answer: the class's name and its probability.
Prediction = dict[str, Any]


class ImageClassifier(ImageTask):
    """Says what is in a picture: `model("cat.jpg", top=5)`.

    Attributes:
        module: the network; call it for logits of arrays that you prepared yourself.
        preprocess: how pictures are prepared for it.
        labels: names of the classes, in the order of its outputs.
        card: licence, origin, results.
        report: what loading did with each tensor.
    """

    task = "image-classification"

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
            preprocess=preprocess_of(loaded),
            labels=_labels_of(loaded),
            card=loaded.card,
            report=loaded.report,
        )

    # -- answers ---------------------------------------------------------------------------

    def __call__(self, source: Any, *, top: int = 5, batch_size: int = BATCH) -> Any:
        """The most probable classes of a picture, best first: `[{"label": ..., "score": ...}]`.

        A picture is a path, bytes, an open binary file, a Pillow image or an array (H, W, 3).
        Of a list, tuple or array of pictures: a list of such answers. Of a folder: a dict from
        path to answer. Of a generator: an iterator, that reads no more than it needs.

        Args:
            top: how many classes.
            batch_size: how many pictures the network sees at a time.
        Raises:
            DataError: a picture cannot be read; names it.
        """
        if top < 1:
            raise ConfigError(f"top={top}: at least one class is wanted", got=top)

        def answers(pictures: Iterable[Any], total: int | None, size: int) -> Iterator[Any]:
            return self._answers(pictures, top, size, total)

        return self._for_each(source, answers, batch_size)

    def probabilities(self, sources: Any, *, batch_size: int = BATCH) -> Array:
        """The probability of every class, for a picture, several, or a folder.

        Shape:
            (B, N), float32
        """
        pictures = self._all(sources)
        rows = [softmax(x) for x in self._batches(self.module, pictures, batch_size, len(pictures))]
        return np.concatenate(rows) if rows else np.zeros((0, len(self.labels)), np.float32)

    def embed(self, sources: Any, *, batch_size: int = BATCH) -> Array:
        """What the network's head sees of each picture: for search, clustering or a head of yours.

        Shape:
            (B, D), float32
        """
        pictures = self._all(sources)
        embed: Callable[[Tensor], Tensor] = self.module.embed
        rows = list(self._batches(embed, pictures, batch_size, len(pictures)))
        if not rows:
            raise DataError("there are no pictures to embed")
        return np.concatenate(rows)

    def evaluate(
        self, sources: Any, targets: Sequence[int | str], *, batch_size: int = BATCH
    ) -> ClassificationReport:
        """Accuracy, confusion, precision and recall on pictures whose classes are known.

        Args:
            sources: pictures, or a folder of them (then in the order of `image_files`).
            targets: the class of each, by number or name.
        Raises:
            DataError: another number of targets than of pictures, or a name that is no label.
        """
        pictures = self._all(sources)
        if len(targets) != len(pictures):
            raise DataError(
                f"{len(pictures)} pictures and {len(targets)} classes: one for each is wanted",
                pictures=len(pictures),
                targets=len(targets),
            )
        numbers = np.array([self.number_of(target) for target in targets], np.int64)
        scores = self.probabilities(pictures, batch_size=batch_size)
        return ClassificationReport.of(scores, numbers, self.labels)

    def explain(
        self, source: Any, label: int | str | None = None, *, method: str | None = None
    ) -> Any:
        """Where in a picture the network sees a label: `model.explain("cat.jpg").draw()`.

        An `Explanation`: `map` (H, W) from 0 to 1, of the size of the picture, `label`, `score`.
        Of several pictures, a folder or a generator, what `model(source)` would give.

        Args:
            label: a name or number of a class; for each picture the most probable unless given.
            method: "grad-cam", on the last feature map; "attention", for vision transformers,
                through all layers; "rollout", the same without regard to the label. Unless given,
                the one that suits the network.
        Raises:
            ConfigError: the network has nothing that `method` could use.
            DataError: there is no such label, or a picture cannot be read.
        """
        from .explain import explain

        def answers(pictures: Iterable[Any], total: int | None, size: int) -> Iterator[Any]:
            with progress(total=total, what="explaining", unit="pictures") as bar:
                for picture in pictures:
                    yield explain(self, picture, label, method)
                    bar.update(1)

        return self._for_each(source, answers, 1)

    def number_of(self, label: int | str) -> int:
        """The number of a class, by its name or number.

        Raises:
            DataError: there is no such class; the nearest names are listed.
        """
        if isinstance(label, str):
            if label in self.labels:
                return self.labels.index(label)
            near = _nearest(label, self.labels)
            raise DataError(
                f"{label!r} is none of the model's {len(self.labels)} labels.\n"
                f"Nearest: {', '.join(map(repr, near))}.",
                label=label,
                nearest=near,
            )
        try:
            number = operator.index(label)
        except TypeError:
            raise DataError(
                f"a class is given by its name or number, not by {type(label).__name__} {label!r}",
                label=label,
            ) from None
        if not 0 <= number < len(self.labels):
            raise DataError(
                f"there is no class {number}: the model's are 0 to {len(self.labels) - 1}.",
                label=number,
                classes=len(self.labels),
            )
        return number

    # -- the model -------------------------------------------------------------------------

    def finetune(self, data: str | Path, **settings: Any) -> ImageClassifier:
        """Teach it other classes; returns a new task and leaves this one as it is.

        Args:
            data: a folder with a folder of pictures for each class, or a CSV file.
            settings: `out=` a folder for the result, `epochs=`, `lr=` and the other settings of
                `vision.finetune.finetune`.
        """
        from .finetune import finetune

        return finetune(self, data, **settings)

    def __repr__(self) -> str:
        height, width = self.preprocess.size
        return (
            f"ImageClassifier({self.card.name!r}, {len(self.labels)} classes, "
            f"{height} x {width} pixels, on {self.device})"
        )

    # -- inner workings --------------------------------------------------------------------

    def _saved_labels(self) -> Sequence[str]:
        return self.labels

    def _answers(
        self, pictures: Iterable[Any], top: int, batch_size: int, total: int | None
    ) -> Iterator[list[Prediction]]:
        for logits in self._batches(self.module, pictures, batch_size, total):
            for row in softmax(logits):
                best = np.argsort(-row, kind="stable")[:top]
                yield Answers({"label": self.labels[i], "score": float(row[i])} for i in best)


def _nearest(name: str, labels: Sequence[str], count: int = 3) -> list[str]:
    """The labels most like a name: those that hold it as a word, then as a part, first."""
    wanted = name.lower()
    words = {label.lower(): label for label in reversed(labels)}
    holding = (w for w in words if wanted and wanted in w)
    inside = sorted(holding, key=lambda w: (wanted not in re.split(r"\W+", w), len(w)))
    alike = difflib.get_close_matches(wanted, words, n=count, cutoff=0)
    return [words[w] for w in dict.fromkeys((*inside, *alike))][:count]


def _labels_of(loaded: Loaded) -> list[str]:
    count = int(loaded.config.num_classes)
    labels = loaded.labels
    if isinstance(labels, str):
        labels = label_names(labels)
    if labels is None and count == 1000 and "in1k" in str(_tag(loaded)):
        labels = label_names("imagenet-1k")
    if labels is None or len(labels) != count:
        return [f"class {i}" for i in range(count)]
    return list(labels)


def _tag(loaded: Loaded) -> Any:
    published = loaded.published.get("pretrained_cfg")
    return published.get("tag", "") if isinstance(published, Mapping) else ""
