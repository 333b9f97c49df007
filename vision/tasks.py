"""Tasks: models that take pictures as they are and answer in words and numbers."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Self, TypeVar

import numpy as np

from ..core.data.images import EXTENSIONS
from ..core.errors import ConfigError, DataError
from ..core.insight.progress import progress
from ..core.nn import Module
from ..core.state import inference_mode
from ..core.tensor import Tensor
from ..hub.card import Card
from ..hub.loading import Loaded, Report
from .labels import label_names
from .metrics import ClassificationReport
from .preprocess import Preprocess

Array = np.ndarray[Any, Any]
T = TypeVar("T")

BATCH = 16
#: One answer: the class's name and its probability.
Prediction = dict[str, Any]


class ImageClassifier:
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
        self.module = module
        self.architecture = architecture
        self.config = config
        self.preprocess = preprocess
        self.labels = list(labels)
        self.card = card
        self.report = report or Report()
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
        if isinstance(source, str | os.PathLike) and Path(source).is_dir():
            files = image_files(source)
            answers = self._answers(files, top, batch_size, total=len(files))
            return dict(zip(map(str, files), answers, strict=True))
        if _is_stream(source):
            return self._answers(source, top, batch_size, total=None)
        pictures = _several(source)
        if pictures is None:
            return next(self._answers([source], top, 1, total=1))
        return list(self._answers(pictures, top, batch_size, total=len(pictures)))

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
        numbers = np.array([self._number(target) for target in targets], np.int64)
        scores = self.probabilities(pictures, batch_size=batch_size)
        return ClassificationReport.of(scores, numbers, self.labels)

    # -- the model -------------------------------------------------------------------------

    @property
    def device(self) -> Any:
        """Where the network is."""
        return self.module.device

    def to(self, device: Any) -> Self:
        """Move the network to a device: `model.to("cuda")`."""
        self.module.to(device=device)
        return self

    def save(self, folder: str | Path, *, dtype: Any = None) -> Path:
        """Write a folder that `bt.load(folder)` opens again.

        Args:
            dtype: of the stored weights, such as "float16"; as they are unless given.
        """
        from ..hub.saving import save_model

        return save_model(
            folder,
            self.module,
            architecture=self.architecture,
            config=self.config,
            card=self.card,
            labels=self.labels,
            processor=self.preprocess.to_config(),
            dtype=dtype,
        )

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

    def _number(self, target: int | str) -> int:
        if not isinstance(target, str):
            return int(target)
        try:
            return self.labels.index(target)
        except ValueError:
            raise DataError(
                f"{target!r} is none of the model's labels.\n"
                f"Labels: {', '.join(self.labels[:8])}{', ...' if len(self.labels) > 8 else ''}",
                label=target,
            ) from None

    def _all(self, sources: Any) -> list[Any]:
        if isinstance(sources, str | os.PathLike) and Path(sources).is_dir():
            return list(image_files(sources))
        pictures = list(sources) if _is_stream(sources) else _several(sources)
        return [sources] if pictures is None else pictures

    def _answers(
        self, pictures: Iterable[Any], top: int, batch_size: int, total: int | None
    ) -> Iterator[list[Prediction]]:
        for logits in self._batches(self.module, pictures, batch_size, total):
            for row in softmax(logits):
                best = np.argsort(-row, kind="stable")[:top]
                yield [{"label": self.labels[i], "score": float(row[i])} for i in best]

    def _batches(
        self,
        function: Callable[[Tensor], Tensor],
        pictures: Iterable[Any],
        batch_size: int,
        total: int | None,
    ) -> Iterator[Array]:
        """What `function` gives for each batch; the next batch is read while it computes."""
        if batch_size < 1:
            raise ConfigError(f"batch_size={batch_size} must be at least 1", got=batch_size)
        with progress(total=total, what="predicting", unit="pictures") as bar:
            for arrays in _read_ahead(self.preprocess, pictures, batch_size):
                with inference_mode():
                    batch = Tensor(np.stack(arrays)).to(device=self.device, dtype=self.module.dtype)
                    result = function(batch)
                yield np.asarray(result.cpu().array, np.float32)
                bar.update(len(arrays))


def image_files(folder: str | os.PathLike[str]) -> list[Path]:
    """The pictures in a folder and in the folders within it, by name.

    Raises:
        DataError: there are none.
    """
    found = sorted(
        path
        for path in Path(folder).rglob("*")
        if path.suffix.lower() in EXTENSIONS and path.is_file() and not path.name.startswith(".")
    )
    if not found:
        raise DataError(
            f"{folder} holds no pictures ({', '.join(sorted(EXTENSIONS)[:6])}, ...).",
            folder=str(folder),
        )
    return found


def softmax(logits: Array) -> Array:
    """Probabilities of the last axis."""
    exponentials = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray(exponentials / exponentials.sum(axis=-1, keepdims=True))


def _is_stream(source: Any) -> bool:
    """Whether it yields pictures; an open file is an iterator too, and is one picture."""
    return isinstance(source, Iterator) and not hasattr(source, "read")


def _several(source: Any) -> list[Any] | None:
    """The pictures of a list, tuple or batch; None for a single picture."""
    if isinstance(source, list | tuple):
        return list(source)
    if isinstance(source, Tensor | np.ndarray) and source.ndim == 4:
        return [source[i] for i in range(source.shape[0])]
    return None


def _read_ahead(work: Callable[[Any], T], items: Iterable[Any], size: int) -> Iterator[list[T]]:
    """Lists of `size` results; threads work on the next list while the last is used."""
    iterator = iter(items)
    workers = min(4, os.cpu_count() or 1)
    with ThreadPoolExecutor(workers, thread_name_prefix="pictures") as pool:
        waiting = [pool.submit(work, item) for item in itertools.islice(iterator, size)]
        try:
            while waiting:
                ready = waiting
                results = [future.result() for future in ready]
                waiting = [pool.submit(work, item) for item in itertools.islice(iterator, size)]
                yield results
        finally:
            for future in waiting:
                future.cancel()


def _preprocess_of(loaded: Loaded) -> Preprocess:
    found = _published_preprocess(loaded)
    channels = loaded.config.in_channels
    # A network for other data (four bands, say) takes prepared arrays; pictures it refuses.
    return found.with_channels(channels) if channels in (1, 3) else found


def _published_preprocess(loaded: Loaded) -> Preprocess:
    """What the model's own files say; then the registry; then the ImageNet habit."""
    if loaded.processor is not None:
        return Preprocess.from_config(loaded.processor, "preprocessor_config.json")
    if loaded.preprocess is not None:
        return Preprocess(**dict(loaded.preprocess))
    if isinstance(loaded.published.get("pretrained_cfg"), Mapping):
        return Preprocess.from_config(loaded.published, "config.json")
    return Preprocess()


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
