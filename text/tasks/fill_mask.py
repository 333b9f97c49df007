"""What stands in a gap of a text."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...core.errors import ConfigError, DataError
from ...core.insight.answers import Answers
from ...core.tensor import Tensor
from .encoder_task import BATCH, Array, EncoderTask, as_array, as_texts, softmax


class FillMask(EncoderTask):
    """Fills gaps: `model("Paris is the [MASK] of France.")`."""

    task = "fill-mask"

    @property
    def mask_token(self) -> str:
        """What stands for a gap in a text.

        Raises:
            ConfigError: the tokenizer has none.
        """
        tokenizer = self._need_tokenizer()
        if tokenizer.mask is None:
            raise ConfigError(f"the tokenizer of {self.card.name} has no token for a gap")
        return tokenizer.token(tokenizer.mask)

    def __call__(self, texts: Any, *, top: int = 5, batch_size: int = BATCH) -> Any:
        """The most probable tokens of a gap, best first; a list for a list of texts.

        An answer is `{"token": ..., "id": ..., "score": ..., "text": ...}`, the last the whole text
        with the gap filled. Of a text with several gaps, a list of such lists.

        Raises:
            DataError: a text has no gap.
        """
        if top < 1:
            raise ConfigError(f"top={top}: at least one token is wanted", got=top)
        rows, single = as_texts(texts)
        tokenizer, mask = self._need_tokenizer(), self.mask_token
        for i, text in enumerate(rows):
            if mask not in text:
                raise DataError(
                    f"text {i} has no gap: {text!r:.60}\nWrite {mask} where it is.", index=i
                )

        def run(inputs: dict[str, Tensor], real: Array) -> list[Any]:
            ids = inputs["input_ids"].cpu().array
            scores = as_array(self._network(inputs))
            places = [np.flatnonzero(row == tokenizer.mask) for row in ids]
            # Only the gaps' rows are turned into probabilities: vocabularies are large.
            return [
                (row[keep].tolist(), where.tolist(), softmax(values[where]))
                for row, keep, where, values in zip(ids, real, places, scores, strict=True)
            ]

        answers = []
        for ids, places, rows_of in self._run(run, rows, batch_size=batch_size):
            gaps = [self._best(ids, at, row, top) for at, row in zip(places, rows_of, strict=True)]
            if not gaps:
                raise DataError(
                    f"the gap lies beyond the {self.max_length} tokens that {self.card.name} reads"
                )
            answers.append(gaps[0] if len(gaps) == 1 else Answers(gaps))
        return answers[0] if single else Answers(answers)

    def _best(self, ids: list[int], place: int, row: Array, top: int) -> list[dict[str, Any]]:
        tokenizer = self._need_tokenizer()
        some = np.argpartition(-row, min(top, len(row) - 1))[:top]
        best = some[np.argsort(-row[some], kind="stable")]
        found = []
        for number in best.tolist():
            filled = [*ids[:place], number, *ids[place + 1 :]]
            found.append(
                {
                    "token": tokenizer.decode([number]),
                    "id": number,
                    "score": float(row[number]),
                    "text": tokenizer.decode(filled),
                }
            )
        return Answers(found)

    def __repr__(self) -> str:
        return f"FillMask({self.card.name!r}, on {self.device})"
