"""Texts, or pairs of them, and what they are: sentiment, topic, whether a passage answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import numpy as np

from ...core.errors import ConfigError, DataError
from ...core.insight.answers import Answers
from ...core.tensor import Tensor
from ...hub.loading import Loaded
from .encoder_task import BATCH, Array, EncoderTask, as_array, as_texts, sigmoid, softmax


class TextClassifier(EncoderTask):
    """Says what a text is: `model("What a film!")` gives `[{"label": "POSITIVE", "score": 0.99}]`.

    A network with one output, such as a cross-encoder, gives one score of its label; `rank` orders
    documents by it.

    Attributes:
        labels: names of the classes, in the order of the network's outputs.
        several: whether a text may have several labels: each score then stands on its own.
    """

    task = "text-classification"

    def __init__(
        self, module: Any, *, labels: Sequence[str], several: bool = False, **facts: Any
    ) -> None:
        super().__init__(module, **facts)
        self.labels = list(labels)
        self.several = several or len(self.labels) == 1
        if len(self.labels) != self.config.num_classes:
            raise ConfigError(
                f"{len(self.labels)} labels for a model of {self.config.num_classes} classes",
                expected=self.config.num_classes,
                got=len(self.labels),
            )

    @classmethod
    def from_loaded(cls, loaded: Loaded) -> Self:
        """The task of what `bt.load` has loaded."""
        several = loaded.published.get("problem_type") == "multi_label_classification"
        return cls._of(loaded, labels=labels_of(loaded), several=several)

    def __call__(
        self,
        texts: Any,
        pairs: Any = None,
        *,
        top: int = 5,
        batch_size: int = BATCH,
        truncate: bool = True,
    ) -> Any:
        """The most probable labels, best first: `[{"label": ..., "score": ...}]`; lists for lists.

        Args:
            texts: a text or a list of texts; longer ones than the network reads are cut.
            pairs: the second text of each, for networks that compare.
            top: how many labels.
            truncate: False raises where a text would be cut.
        Raises:
            DataError: something that is no text.
            ShapeError: a text is too long and `truncate` is False.
        """
        if top < 1:
            raise ConfigError(f"top={top}: at least one label is wanted", got=top)
        rows, single = as_texts(texts)
        others = None if pairs is None else as_texts(pairs)[0]
        scores = self.probabilities(rows, others, batch_size=batch_size, truncate=truncate)
        answers = Answers(self._best(row, top) for row in scores)
        return answers[0] if single else answers

    def probabilities(
        self, texts: Any, pairs: Any = None, *, batch_size: int = BATCH, truncate: bool = True
    ) -> Array:
        """The probability of every label.

        Shape:
            (B, N), float32
        """
        scores = self.scores(texts, pairs, batch_size=batch_size, truncate=truncate)
        return sigmoid(scores) if self.several else softmax(scores)

    def scores(
        self, texts: Any, pairs: Any = None, *, batch_size: int = BATCH, truncate: bool = True
    ) -> Array:
        """What the network gives for every label: logits.

        Shape:
            (B, N), float32
        """
        rows, _ = as_texts(texts)
        others = None if pairs is None else as_texts(pairs)[0]
        if others is not None and len(others) != len(rows):
            raise DataError(f"{len(rows)} texts and {len(others)} pairs: one for each is wanted")

        def run(inputs: dict[str, Tensor], mask: Array) -> Array:
            return as_array(self._network(inputs))

        found = self._run(run, rows, others, batch_size=batch_size, truncate=truncate)
        return np.stack(found) if found else np.zeros((0, len(self.labels)), np.float32)

    def rank(
        self, query: str, documents: Sequence[str], *, top: int | None = None
    ) -> list[dict[str, Any]]:
        """Documents by how well they answer a query, best first: `{"index", "score", "text"}`.

        For cross-encoders, whose one score says so; of other networks the last label counts.
        """
        texts, _ = as_texts(documents)
        scores = self.probabilities([query] * len(texts), texts)[:, -1]
        order = np.argsort(-scores, kind="stable")[:top]
        return Answers(
            {"index": int(i), "score": float(scores[i]), "text": texts[i]} for i in order
        )

    def evaluate(self, data: Any, *, text: str = "text", label: str = "label") -> dict[str, Any]:
        """How often it is right on labelled texts: `{"accuracy", "texts", "labels"}`.

        Args:
            data: a CSV or JSONL file, as for `finetune`; its labels must be the model's.
            text, label: names of the columns or fields.
        Raises:
            DataError: the texts cannot be used, or have a label that the model does not know.
        """
        from ..finetuning.labels import labelled_texts

        found = labelled_texts(data, text, label)
        unknown = [name for name in found.labels if name not in self.labels]
        if unknown:
            raise DataError(
                f"{data} has labels that the model does not know: {', '.join(unknown[:5])}.\n"
                f"The model's: {', '.join(self.labels[:8])}",
                labels=unknown,
            )
        wanted = [self.labels.index(found.labels[i]) for i in found.targets]
        right = self.scores(found.texts).argmax(axis=1) == np.array(wanted)
        names = np.array([found.labels[i] for i in found.targets])
        return {
            "accuracy": float(right.mean()),
            "texts": len(found.texts),
            "labels": {name: float(right[names == name].mean()) for name in found.labels},
        }

    def _best(self, row: Array, top: int) -> list[dict[str, Any]]:
        order = np.argsort(-row, kind="stable")[:top]
        return Answers({"label": self.labels[i], "score": float(row[i])} for i in order)

    def _saved_labels(self) -> Sequence[str]:
        return self.labels

    def __repr__(self) -> str:
        return f"TextClassifier({self.card.name!r}, {len(self.labels)} labels, on {self.device})"


def labels_of(loaded: Loaded) -> list[str]:
    """The names of the classes, or numbers where nothing names them."""
    count = int(loaded.config.num_classes)
    if isinstance(loaded.labels, list) and len(loaded.labels) == count:
        return list(loaded.labels)
    return [f"LABEL_{i}" for i in range(count)]
