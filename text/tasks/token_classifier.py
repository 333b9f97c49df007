"""Names of things in a text: persons, places, parts of speech."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, Self

import numpy as np

from ...core.errors import ConfigError
from ...core.insight.answers import Answers
from ...core.state import inference_mode
from ...core.tensor import Tensor
from ...hub.loading import Loaded
from .classifier import labels_of
from .encoder_task import Array, EncoderTask, as_array, as_texts, softmax, too_long

Grouping = Literal["none", "simple", "first", "average", "max"]
GROUPINGS = ("none", "simple", "first", "average", "max")


class TokenClassifier(EncoderTask):
    """Finds names: `model("Ada lived in London.")` gives `[{"label": "PER", "text": "Ada", ...}]`.

    Attributes:
        labels: names of the classes, "B-" and "I-" of beginnings and insides included.
    """

    task = "token-classification"

    def __init__(self, module: Any, *, labels: Sequence[str], **facts: Any) -> None:
        super().__init__(module, **facts)
        self.labels = list(labels)

    @classmethod
    def from_loaded(cls, loaded: Loaded) -> Self:
        """The task of what `bt.load` has loaded."""
        return cls._of(loaded, labels=labels_of(loaded))

    def __call__(
        self,
        texts: Any,
        *,
        grouping: Grouping = "simple",
        ignore: Sequence[str] = ("O",),
        truncate: bool = True,
    ) -> Any:
        """What is named in a text, in its order; a list of such lists for a list of texts.

        An answer is `{"label", "score", "text", "start", "end"}`, the places in characters.

        Args:
            grouping: "none", every token on its own; "simple", neighbours of one label together;
                "first", "average" and "max" give a word the label of its first token, of the mean
                over its tokens, or of its surest one.
            ignore: labels that are left out.
            truncate: leave out what is beyond the tokens that the network reads; else raise.
        Raises:
            DataError: something that is no text.
            ShapeError: a text is too long and `truncate` is False.
        """
        if grouping not in GROUPINGS:
            raise ConfigError(f"grouping is one of {', '.join(GROUPINGS)}, got {grouping!r}")
        rows, single = as_texts(texts)
        answers = [self._of_text(text, grouping, set(ignore), truncate) for text in rows]
        return answers[0] if single else Answers(answers)

    def _of_text(
        self, text: str, grouping: str, ignore: set[str], truncate: bool
    ) -> list[dict[str, Any]]:
        spans = self._need_tokenizer().spans(text)
        count = len(spans.ids)
        if count > self.max_length:
            if not truncate:
                raise too_long(self.card.name, count, self.max_length)
            count = self.max_length
        with inference_mode():
            ids = Tensor(np.array([spans.ids[:count]], np.int64)).to(device=self.device)
            rows = softmax(as_array(self.module(ids))[0])
        tokens = [
            _Token(rows[i], *spans.offsets[i], spans.words[i])
            for i in range(count)
            if spans.sequences[i] is not None
        ]
        if grouping in ("first", "average", "max"):
            tokens = _words(tokens, grouping)
        found: list[dict[str, Any]] = [
            {"label": self.labels[int(t.row.argmax())], "score": float(t.row.max()), "token": t}
            for t in tokens
        ]
        if grouping != "none":
            found = _grouped(found)
        return Answers(
            {
                "label": f["label"],
                "score": f["score"],
                "text": text[f["token"].start : f["token"].end],
                "start": f["token"].start,
                "end": f["token"].end,
            }
            for f in found
            if f["label"] not in ignore
        )

    def _saved_labels(self) -> Sequence[str]:
        return self.labels

    def __repr__(self) -> str:
        return f"TokenClassifier({self.card.name!r}, {len(self.labels)} labels, on {self.device})"


class _Token:
    """Probabilities of a token, or of several, and where they stand."""

    def __init__(self, row: Array, start: int, end: int, word: int | None) -> None:
        self.row, self.start, self.end, self.word = row, start, end, word


def _words(tokens: list[_Token], grouping: str) -> list[_Token]:
    """The tokens of each word as one."""
    words: list[list[_Token]] = []
    for token in tokens:
        if words and token.word is not None and words[-1][-1].word == token.word:
            words[-1].append(token)
        else:
            words.append([token])
    joined = []
    for parts in words:
        rows = np.stack([part.row for part in parts])
        if grouping == "average":
            row = rows.mean(axis=0)
        elif grouping == "max":
            row = rows[rows.max(axis=1).argmax()]
        else:
            row = rows[0]
        joined.append(_Token(row, parts[0].start, parts[-1].end, parts[0].word))
    return joined


def _grouped(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Neighbours of one label together; "B-" begins anew."""
    groups: list[list[dict[str, Any]]] = []
    for entry in found:
        mark, kind = _parts(entry["label"])
        if groups and mark != "B" and _parts(groups[-1][-1]["label"])[1] == kind:
            groups[-1].append(entry)
        else:
            groups.append([entry])
    return [
        {
            "label": _parts(group[0]["label"])[1],
            "score": float(np.mean([entry["score"] for entry in group])),
            "token": _Token(np.empty(0), group[0]["token"].start, group[-1]["token"].end, None),
        }
        for group in groups
    ]


def _parts(label: str) -> tuple[str, str]:
    """ "B" or "I", and the kind of thing."""
    if label[:2] in ("B-", "I-"):
        return label[0], label[2:]
    return "I", label
