"""One answer as it grows: its tokens, its text, and why it ended."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from ...core.errors import DataError
from .guide import Guide
from .history import History
from .logits import Rule, log_probability, processed
from .sampling import best, distribution, drawn
from .settings import Settings
from .stopping import Text

Array = np.ndarray[Any, Any]

# By an end token, a stop string, the number of tokens, or the form that was asked for.
Finish = Literal["end", "stop", "length", "complete"]


class Answer:
    """An answer in progress.

    Args:
        prompt: its tokens, without padding.
        room: the most tokens of the answer.
        text: turns tokens into text and looks for stop strings.
        guide: the form that the answer has.
        details: whether log-probabilities are kept.

    Attributes:
        ids: the tokens of the answer, the one that ended it included.
        logprobs: the log-probability of each, as the network gives it: before penalties,
            temperature and what else the settings change.
        finish: why it ended; None while it goes on.
        score: of an answer that beam search found.
        piece: the text that the last token added.
    """

    def __init__(
        self,
        prompt: Sequence[int],
        settings: Settings,
        room: int,
        *,
        random: np.random.Generator | None = None,
        text: Text | None = None,
        guide: Guide | None = None,
        rules: Sequence[Rule] = (),
        details: bool = False,
    ) -> None:
        self.history = History(prompt)
        self.settings, self.room, self.rules = settings, room, rules
        self.random = random if settings.sampling else None
        self._text, self._guide = text, guide
        self._state: Any = None if guide is None else guide.start()
        self.logprobs: list[float] | None = [] if details else None
        self.finish: Finish | None = None
        self.score: float | None = None
        self.piece = ""

    @property
    def ids(self) -> list[int]:
        """The tokens of the answer."""
        return self.history.new

    def over(self) -> bool:
        """Whether it has ended."""
        return self.finish is not None

    @property
    def text(self) -> str | None:
        """What was said; None without a tokenizer."""
        return None if self._text is None else self._text.text

    def choose(self, logits: Array) -> int:
        """The next token. Shape: (V,)."""
        x = processed(logits, self.history, self.settings, self.room, self.rules)
        if self._guide is not None:
            left = self.room - self.history.length
            return self._guide.choose(x, self._state, left, self._pick)
        return self._pick(x)

    def _pick(self, logits: Array) -> int:
        if self.random is None:
            return best(logits)
        return drawn(*distribution(logits, self.settings), self.random.random())

    def chances(self, logits: Array, history: History | None = None) -> Array:
        """The probability with which `choose` would draw each token. Shape: (V,) -> (V,)."""
        x = processed(logits, history or self.history, self.settings, self.room, self.rules)
        chances = np.zeros(len(x))
        tokens, probabilities = distribution(x, self.settings)
        chances[tokens] = probabilities
        return chances

    def take(self, token: int, logits: Array) -> None:
        """Go on with a token that was chosen from these logits."""
        self.piece = ""
        if self.logprobs is not None:
            self.logprobs.append(log_probability(logits, token))
        self.history.append(token)
        if token in self.settings.eos_token_id:
            return self.end("end")
        if self._guide is not None:
            self._state = self._guide.advance(self._state, token)
            if self._text is not None:
                self.piece = self._text.push(token)
            if self._guide.complete(self._state):
                return self.end("complete")
        elif self._text is not None:
            self.piece = self._text.push(token)
            if self._text.stopped:
                return self.end("stop")
        if self.history.length >= self.room:
            self.end("length")

    def adopt(self, history: History, logprobs: list[float] | None, score: float) -> None:
        """Take over what a search found."""
        self.history, self.logprobs, self.score = history, logprobs, score
        if self._text is not None:
            for token in history.new:
                if token not in self.settings.eos_token_id:
                    self._text.push(token)

    def end(self, why: Finish) -> None:
        """Stop here."""
        self.finish = why
        if self._text is not None:
            self.piece += self._text.finish()
            if self._text.stopped:
                self.finish = "stop"


def check_logits(logits: Array) -> None:
    """Raise where the first logits are no numbers: a damaged model would write nonsense.

    Raises:
        DataError: says so.
    """
    if not np.isfinite(logits.max()):
        raise DataError(
            "the model's logits are not finite (NaN or infinite), so that no token can be chosen.\n"
            "Weights of float16 may overflow: bt.load(..., dtype='float32'). Or the file is "
            "damaged: bestiary check FILE"
        )
