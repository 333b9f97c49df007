"""Classes that are given as words: no training, no head."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np

from ..core.errors import ConfigError, HubError
from ..core.insight.answers import Answers
from ..core.nn import Module
from ..core.state import inference_mode
from ..core.tensor import Tensor
from ..hub.card import Card
from ..hub.filling import Report
from ..hub.loading import Loaded
from ..text.tokens.clip import ClipTokenizer
from .image_task import BATCH, Array, ImageTask, preprocess_of, softmax, unit
from .preprocess import Preprocess

TEMPLATE = "a photo of a {}."
_REMEMBERED = 8  # sets of labels whose vectors are kept


class ZeroShotClassifier(ImageTask):
    """Says which of some words fits a picture: `model("pet.jpg", labels=["cat", "dog"])`.

    Attributes:
        module, preprocess, card, report: see `ImageTask`.
        tokenizer: texts to numbers; None if the model's folder has none.
    """

    task = "zero-shot-image-classification"

    def __init__(
        self,
        module: Module,
        *,
        architecture: str,
        config: Any,
        preprocess: Preprocess,
        card: Card,
        tokenizer: ClipTokenizer | None = None,
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
        self.tokenizer = tokenizer
        self._vectors: dict[tuple[Any, ...], Array] = {}
        self._written: list[Any] = []

    @classmethod
    def from_loaded(cls, loaded: Loaded) -> Self:
        """The task of what `bt.load` has loaded."""
        return cls(
            loaded.module,
            architecture=loaded.architecture.name,
            config=loaded.config,
            preprocess=preprocess_of(loaded),
            card=loaded.card,
            tokenizer=_tokenizer_of(loaded),
            report=loaded.report,
        )

    def __call__(
        self,
        source: Any,
        *,
        labels: Sequence[str],
        template: str | Sequence[str] = TEMPLATE,
        top: int | None = None,
        batch_size: int = BATCH,
    ) -> Any:
        """How well each label fits a picture, best first: `[{"label": ..., "score": ...}]`.

        A picture is a path, bytes, an open binary file, a Pillow image or an array (H, W, 3).
        Of a list, tuple or array of pictures: a list of such answers. Of a folder: a dict from
        path to answer. Of a generator: an iterator, that reads no more than it needs.

        Args:
            labels: words or phrases; their scores add up to 1.
            template: the sentence that a label is put into, at `{}`; of several, their vectors'
                mean is taken. "{}" takes labels as they are.
            top: how many labels; all, unless given.
            batch_size: how many pictures the network sees at a time.
        Raises:
            ConfigError: no labels, or a template without `{}`.
            DataError: a picture cannot be read; names it.
            HubError: the model has no tokenizer; names the files that are missing.
        """
        if top is not None and top < 1:
            raise ConfigError(f"top={top}: at least one label is wanted", got=top)
        names = _checked(labels)
        texts = self._label_vectors(names, _templates(template))

        def answers(pictures: Iterable[Any], total: int | None, size: int) -> Iterator[Any]:
            for rows in self._scores(texts, pictures, total, size):
                for row in rows:
                    best = np.argsort(-row, kind="stable")[:top]
                    yield Answers({"label": names[i], "score": float(row[i])} for i in best)

        return self._for_each(source, answers, batch_size)

    def probabilities(
        self,
        sources: Any,
        labels: Sequence[str],
        *,
        template: str | Sequence[str] = TEMPLATE,
        batch_size: int = BATCH,
    ) -> Array:
        """The score of every label, in their order, for a picture, several, or a folder.

        Shape:
            (B, len(labels)), float32
        """
        names, pictures = _checked(labels), self._all(sources)
        texts = self._label_vectors(names, _templates(template))
        rows = list(self._scores(texts, pictures, len(pictures), batch_size))
        return np.concatenate(rows) if rows else np.zeros((0, len(names)), np.float32)

    def encode(self, sources: Any, *, batch_size: int = BATCH) -> Array:
        """The vectors of pictures, at length 1: products with those of texts are their likeness.

        Shape:
            (B, D), float32
        """
        pictures = self._all(sources)
        rows = list(self._batches(self.module.embed, pictures, batch_size, len(pictures)))
        return unit(np.concatenate(rows)) if rows else self._none()

    def encode_text(self, texts: str | Sequence[str], *, batch_size: int = 64) -> Array:
        """The vectors of texts, at length 1.

        Shape:
            (B, D), float32
        Raises:
            HubError: the model has no tokenizer; names the files that are missing.
        """
        if self.tokenizer is None:
            raise HubError(
                f"{self.card.name} was loaded without a tokenizer: its folder needs\n"
                "tokenizer.json, or vocab.json and merges.txt.\n"
                "Without them give the network numbers: model.module.embed_text(ids)"
            )
        if batch_size < 1:
            raise ConfigError(f"batch_size={batch_size} must be at least 1", got=batch_size)
        every = [texts] if isinstance(texts, str) else list(texts)
        rows = []
        for start in range(0, len(every), batch_size):
            ids, mask = self.tokenizer(every[start : start + batch_size])
            with inference_mode():
                numbers = Tensor(ids).to(device=self.device)
                vectors = self.module.embed_text(numbers, Tensor(mask).to(device=self.device))
            rows.append(np.asarray(vectors.cpu().array, np.float32))
        return unit(np.concatenate(rows)) if rows else self._none()

    def save(self, folder: str | Path, *, dtype: Any = None) -> Path:
        """Write a folder that `bt.load(folder)` opens again, with the tokenizer.

        Args:
            dtype: of the stored weights, such as "float16"; as they are unless given.
        """
        target = super().save(folder, dtype=dtype)
        if self.tokenizer is not None:
            self.tokenizer.save(target)
        return target

    def __repr__(self) -> str:
        height, width = self.preprocess.size
        return (
            f"ZeroShotClassifier({self.card.name!r}, {height} x {width} pixels, on {self.device})"
        )

    # -- inner workings --------------------------------------------------------------------

    def _scores(
        self, texts: Array, pictures: Iterable[Any], total: int | None, size: int
    ) -> Iterator[Array]:
        scale = float(np.exp(np.asarray(self.module.logit_scale.cpu().array, np.float32)))
        for vectors in self._batches(self.module.embed, pictures, size, total):
            yield softmax(scale * (unit(vectors) @ texts.T))

    def _label_vectors(self, labels: tuple[str, ...], templates: tuple[str, ...]) -> Array:
        """A vector of length 1 for each label; the last few sets are kept."""
        written = _written(self.module)
        if written != self._written:
            self._vectors.clear()
            self._written = written
        key = labels, templates
        if key not in self._vectors:
            sentences = [t.replace("{}", label) for label in labels for t in templates]
            vectors = self.encode_text(sentences).reshape(len(labels), len(templates), -1)
            if len(self._vectors) >= _REMEMBERED:
                self._vectors.pop(next(iter(self._vectors)))
            self._vectors[key] = unit(vectors.mean(axis=1))
        return self._vectors[key]

    def _none(self) -> Array:
        return np.zeros((0, int(self.config.projection_dim)), np.float32)


def _tokenizer_of(loaded: Loaded) -> ClipTokenizer | None:
    from ..text.tokens.clip import FILES

    folder = loaded.folder
    if folder is None or not any((folder / name).is_file() for name in FILES):
        return None
    length = loaded.config.text.max_position_embeddings
    return ClipTokenizer.from_folder(folder, length=length)


def _checked(labels: Sequence[str]) -> tuple[str, ...]:
    every = [] if isinstance(labels, str) else list(labels)
    if not every or not all(isinstance(label, str) for label in every):
        raise ConfigError(
            f'labels={labels!r:.80}: a list of words is wanted, such as labels=["cat", "dog"]',
            got=labels,
        )
    return tuple(every)


def _templates(template: str | Sequence[str]) -> tuple[str, ...]:
    every = (template,) if isinstance(template, str) else tuple(template)
    if not every or not all("{}" in text for text in every):
        raise ConfigError(
            f"template={template!r:.80}: a sentence with {{}} where the label goes is wanted, "
            f"such as {TEMPLATE!r}",
            got=template,
        )
    return every


def _written(module: Module) -> list[Any]:
    """Changes when the text encoder is trained, moved or loaded anew."""
    parts = (module.text_model, module.text_projection)
    return [(id(p), id(p.array), p._cell[0]) for part in parts for p in part.parameters()]
