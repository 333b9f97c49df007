"""What tasks of encoders share: texts in batches of like length, and answers in their order."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ...core.errors import ConfigError, DataError, ShapeError
from ...core.insight.progress import progress
from ...core.state import inference_mode
from ...core.tensor import Tensor
from ..tokens.checks import check_joined
from ..tokens.parts import Encoded
from .base import TextTask

if TYPE_CHECKING:
    from ...core.graph.compiled import Compiled

Array = np.ndarray[Any, Any]
BATCH = 32
_STEP = 16  # tokens: a single text is padded to a multiple, so that few lengths are compiled
_LONGEST = 256  # tokens of a text that is compiled: longer ones gain nothing
_EAGER_CALLS = 1  # with texts of one length, before it pays to compile


class EncoderTask(TextTask):
    """A network that reads whole texts, or pairs of them."""

    _program: tuple[Any, Compiled] | None = None  # of which network

    @property
    def max_length(self) -> int:
        """The most tokens of a text: what the network and its tokenizer have room for."""
        room = int(self.config.context)
        told = None if self.tokenizer is None else self.tokenizer.max_length
        return room if told is None else min(room, told)

    def _run(
        self,
        function: Callable[[dict[str, Tensor], Array], Any],
        texts: Sequence[str],
        pairs: Sequence[str] | None = None,
        *,
        batch_size: int = BATCH,
        truncate: bool = True,
        what: str = "reading",
    ) -> list[Any]:
        """What `function` gives for each text, in their order; texts of like length go together.

        Args:
            function: of the inputs of the network, and of the mask (B, T); gives one answer a row.
            truncate: cut texts to `max_length`; else they raise.
        Raises:
            DataError: something that is no text.
            ShapeError: a text is too long and `truncate` is False.
        """
        if batch_size < 1:
            raise ConfigError(f"batch_size={batch_size} must be at least 1", got=batch_size)
        tokenizer = self._need_tokenizer()
        check_joined(tokenizer, self.config.vocab_size, model=self.card.name)
        lengths = [len(text) for text in texts]
        if pairs is not None:
            lengths = [n + len(pair) for n, pair in zip(lengths, pairs, strict=True)]
        order = np.argsort(lengths, kind="stable")[::-1]  # the longest first: memory shows at once
        found: list[Any] = [None] * len(texts)
        with progress(total=len(texts), what=what, unit="texts") as bar:
            for start in range(0, len(order), batch_size):
                rows = order[start : start + batch_size]
                chosen = [texts[i] for i in rows]
                others = None if pairs is None else [pairs[i] for i in rows]
                encoded = tokenizer(
                    chosen,
                    others,
                    max_length=self.max_length if truncate else None,
                    truncate=truncate,
                )
                if encoded.ids.shape[1] > self.max_length:
                    raise too_long(self.card.name, encoded.ids.shape[1], self.max_length)
                single = self._compiles(encoded.ids.shape)
                if single:
                    encoded = _rounded_up(encoded, self.max_length, tokenizer.pad)
                with inference_mode():
                    answers = function(self._inputs(encoded, masked=single), encoded.mask)
                for row, answer in zip(rows, answers, strict=True):
                    found[row] = answer
                bar.update(len(rows))
        return found

    def finetune(self, data: Any, **settings: Any) -> Any:
        """Teach it labels of yours; returns a `TextClassifier` and leaves this task as it is.

        Args:
            data: a CSV or JSONL file with texts and labels.
            settings: `out=` a folder for the result, `epochs=`, `lr=`, `freeze="trunk"`, `lora=8`
                and the other settings of `text.finetuning.labels.finetune`.
        """
        from ..finetuning.labels import finetune

        return finetune(self, data, **settings)

    def _inputs(self, encoded: Any, *, masked: bool = False) -> dict[str, Tensor]:
        """The arguments of the network; masks and segments that say nothing are left out.

        Args:
            masked: give the mask in any case, so that one program serves texts with and without.
        """
        inputs = {"input_ids": Tensor(encoded.ids)}
        if masked or not encoded.mask.all():
            inputs["attention_mask"] = Tensor(encoded.mask)
        if encoded.types.any():
            inputs["token_type_ids"] = Tensor(encoded.types)
        return {name: x.to(device=self.device) for name, x in inputs.items()}

    def _compiles(self, shape: tuple[int, ...]) -> bool:
        """Whether the network runs compiled: for a single short text, where it is much faster."""
        rows, length = shape
        return self.compile and rows == 1 and length <= _LONGEST and self.device.type == "cpu"

    def _network(self, inputs: dict[str, Tensor]) -> Any:
        """The outputs of the network, from a program where there is one for this length."""
        if not self._compiles(inputs["input_ids"].shape):
            return self.module(**inputs)
        if self._program is None or self._program[0] is not self.module:
            from ...core.graph.compiled import Compiled

            lengths = _LONGEST // _STEP
            fast = Compiled(self.module, after=_EAGER_CALLS, quiet=True, most=lengths)
            self._program = self.module, fast
        return self._program[1](**inputs)


def _rounded_up(encoded: Encoded, room: int, filler: int | None) -> Encoded:
    """A batch with more padding on the right, to a multiple of `_STEP` tokens."""
    length = encoded.ids.shape[1]
    more = min(-length % _STEP, room - length)
    sides = ((0, 0), (0, more))
    return Encoded(
        np.pad(encoded.ids, sides, constant_values=filler or 0),
        np.pad(encoded.mask, sides, constant_values=False),
        np.pad(encoded.types, sides, constant_values=0),
    )


def too_long(name: str, got: int, room: int) -> ShapeError:
    """The error of a text that may not be cut."""
    return ShapeError(
        f"{name}: a text of {got} tokens is longer than the network reads ({got} > {room}).\n"
        "Leave truncate=True, which cuts it, or split it into chunks and join their answers.",
        expected=room,
        got=got,
    )


def as_texts(source: Any) -> tuple[list[str], bool]:
    """A text or several, as a list, and whether it was one.

    Raises:
        DataError: something else.
    """
    if isinstance(source, str):
        return [source], True
    if isinstance(source, Tensor | np.ndarray | bytes | dict | os.PathLike) or source is None:
        raise DataError(f"a text, or a list of texts, is wanted, not {type(source).__name__}")
    texts = list(source)
    for i, text in enumerate(texts):
        if not isinstance(text, str):
            raise DataError(f"text {i} is no text but {type(text).__name__}: {text!r:.60}", index=i)
    return texts, False


def as_array(x: Tensor) -> Array:
    """float32, on the CPU."""
    return np.asarray(x.cpu().array, np.float32)


def chunks(count: int, size: int) -> Iterator[slice]:
    """Slices of at most `size`."""
    for start in range(0, count, size):
        yield slice(start, start + size)


def softmax(scores: Array) -> Array:
    """Probabilities of the last axis."""
    exponentials = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return np.asarray(exponentials / exponentials.sum(axis=-1, keepdims=True))


def sigmoid(scores: Array) -> Array:
    """1 / (1 + exp(-x)), where exp does not overflow."""
    half = np.exp(-np.abs(scores))
    return np.asarray(np.where(scores >= 0, 1.0, half) / (1 + half))
