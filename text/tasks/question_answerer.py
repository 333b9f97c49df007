"""Answers that stand in a text."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...core.errors import ConfigError, DataError
from ...core.insight.answers import Answers
from ...core.state import inference_mode
from ...core.tensor import Tensor
from .encoder_task import Array, EncoderTask, as_array, softmax


class QuestionAnswerer(EncoderTask):
    """Finds the answer in a text: `model("Who wrote it?", "Hamlet is a play by Shakespeare.")`."""

    task = "question-answering"

    def __call__(
        self,
        question: str,
        context: str,
        *,
        top: int = 1,
        max_answer: int = 15,
        stride: int = 128,
        no_answer: bool = False,
    ) -> Any:
        """The best answer, `{"answer", "score", "start", "end"}`; of `top` above 1, a list of them.

        Args:
            context: where the answer stands; read in overlapping windows if it is long.
            max_answer: the most tokens of an answer.
            stride: tokens by which windows overlap.
            no_answer: whether "" may be the answer: that none stands there.
        Raises:
            DataError: something that is no text, or nothing to read.
            ConfigError: settings that make no sense, or a question that leaves no room.
        """
        _check_text("question", question)
        _check_text("context", context)
        if min(top, max_answer) < 1 or stride < 0:
            raise ConfigError(f"top={top}, max_answer={max_answer}, stride={stride} make no sense")
        tokenizer = self._need_tokenizer()
        whole = tokenizer.spans(question, context)
        second = [i for i, part in enumerate(whole.sequences) if part == 1]
        if not second:
            raise DataError("the context has no tokens", got=context)
        first, last = second[0], second[-1] + 1
        before, after = whole.ids[:first], whole.ids[last:]
        room = self.max_length - len(before) - len(after)
        if room < 1 or (len(second) > room and room <= stride):
            raise ConfigError(
                f"the question takes {len(before)} of {self.max_length} tokens, which leaves no "
                f"room for windows that overlap by {stride}."
            )
        types = tokenizer([question], [context], max_length=None, truncate=False).types[0]
        found: dict[tuple[int, int], float] = {}
        nothing = 1.0
        step = max(room - stride, 1)
        for start in range(0, max(len(second) - stride, 1), step):
            inside = slice(first + start, min(first + start + room, last))
            ids = [*before, *whole.ids[inside], *after]
            kinds = [*types[:first], *types[inside], *types[last:]]
            starts, ends = self._scores(ids, kinds)
            places = np.arange(len(before), len(ids) - len(after))
            p, q, none = _probabilities(starts, ends, places)
            nothing = min(nothing, none)
            for i, j, score in _best(p, q, top + 1, max_answer):
                left, right = inside.start + i, inside.start + j
                span = whole.offsets[left][0], whole.offsets[right][1]
                found[span] = max(found.get(span, 0.0), score)
        answers: list[dict[str, Any]] = [
            {"answer": context[a:b], "score": float(score), "start": a, "end": b}
            for (a, b), score in sorted(found.items(), key=lambda item: -item[1])
        ]
        if no_answer:
            answers.append({"answer": "", "score": float(nothing), "start": 0, "end": 0})
            answers.sort(key=lambda answer: -answer["score"])
        return answers[0] if top == 1 else Answers(answers[:top])

    def _scores(self, ids: list[int], kinds: list[int]) -> tuple[Array, Array]:
        with inference_mode():
            rows = Tensor(np.array([ids], np.int64)).to(device=self.device)
            segments = Tensor(np.array([kinds], np.int64)).to(device=self.device)
            found = self.module(rows, token_type_ids=segments)
        return as_array(found.start_logits)[0], as_array(found.end_logits)[0]

    def __repr__(self) -> str:
        return f"QuestionAnswerer({self.card.name!r}, on {self.device})"


def _check_text(what: str, text: Any) -> None:
    if not isinstance(text, str) or not text.strip():
        raise DataError(f"the {what} is empty, or no text: {text!r:.60}", got=text)


def _probabilities(starts: Array, ends: Array, places: Array) -> tuple[Array, Array, float]:
    """Of each place of the context, among these and the first token, which stands for no answer."""
    allowed = np.concatenate([[0], places])
    p, q = softmax(starts[allowed]), softmax(ends[allowed])
    return p[1:], q[1:], float(p[0] * q[0])


def _best(p: Array, q: Array, count: int, longest: int) -> list[tuple[int, int, float]]:
    """The best spans (first, last, score) of at most `longest` tokens."""
    scores = np.triu(np.outer(p, q))
    scores -= np.triu(scores, longest)
    flat = scores.ravel()
    order = np.argsort(-flat, kind="stable")[:count]
    return [(int(i // len(p)), int(i % len(p)), float(flat[i])) for i in order if flat[i] > 0]
