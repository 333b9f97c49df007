"""A network, one token after the other: what decoding needs of it.

`Step` is all that the loops know: `CausalStep` and `Seq2SeqStep` are it for the two kinds of
networks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from ...core.errors import ConfigError, ShapeError
from ...core.state import inference_mode
from ...core.tensor import Tensor

Array = np.ndarray[Any, Any]


class Step(Protocol):
    """A network with the memory of what it read."""

    def start(self, rows: Sequence[Sequence[int]]) -> Array:
        """Read the beginning of each text. Shape: the logits that follow, (B, V), float32."""

    def __call__(self, tokens: Array) -> Array:
        """Read tokens of each text. Shape: (B, T) -> the logits after each, (B, T, V), float32."""

    def select(self, rows: Array) -> None:
        """Go on with these rows of the batch, which may come several times."""

    def keep(self, length: int) -> None:
        """Forget what was read behind so many tokens (padding of the beginning included)."""


class Memory:
    """What a network read of a conversation, so that the next turn reads only what is new.

    Each turn is compared with the tokens of the last one: what it has in common with them from the
    beginning on is not read again. It holds keys and values, which belong to one model and its
    weights as they are: after they were changed, and for another model, make a new one.

    Attributes:
        ids: the tokens that were read.
    """

    __slots__ = ("_cache", "_module", "ids")

    def __init__(self) -> None:
        self.ids: list[int] = []
        self._cache: Any = None
        self._module: Any = None

    @property
    def nbytes(self) -> int:
        """Memory that it takes, in bytes."""
        return 0 if self._cache is None else int(self._cache.nbytes)

    def forget(self) -> None:
        """Give its memory back."""
        self.ids, self._cache, self._module = [], None, None

    def take(self, module: Any, row: Sequence[int], room: int) -> tuple[Any, int]:
        """A cache with room for a text and what follows, and how many of its tokens are in it.

        At least the last token is left to read: its logits are wanted.

        Raises:
            ConfigError: what it holds is another model's.
        """
        if self._cache is None:
            self.ids, self._module = [], module
            self._cache = module.cache(1, len(row) + room)
        elif self._module is not module:
            raise ConfigError(
                "this memory holds what another model read.\n"
                "Give each model its own: model.memory()"
            )
        same = 0
        for old, new in zip(self.ids[: self._cache.length], row[:-1], strict=False):
            if old != new:
                break
            same += 1
        self._cache.keep(same)
        self.ids = list(row[:same])
        if len(row) + room > self._cache.capacity:
            # Half as much again, so that a long conversation is not copied at every turn.
            self._cache.grow(max(len(row) + room, self._cache.capacity * 3 // 2))
        return self._cache, same


class CausalStep:
    """A causal network: `start` reads prompts, padded on the left.

    Args:
        module: forward(input_ids, attention_mask, cache=, last=) and cache(batch, capacity).
        room: the most tokens that follow the prompts.
        pad: the token that fills shorter prompts; it is masked.
        memory: of an earlier turn; for a single prompt.
    """

    def __init__(self, module: Any, room: int, pad: int = 0, memory: Memory | None = None) -> None:
        self.module, self.room, self.pad, self.memory = module, room, pad, memory
        self.cache: Any = None
        self._mask: Array | None = None  # (B, capacity), only where there is padding

    def start(self, rows: Sequence[Sequence[int]]) -> Array:
        """See `Step`."""
        if self.memory is not None:
            (row,) = rows
            self.cache, known = self.memory.take(self.module, row, self.room)
            return self._run(np.array([row[known:]], np.int64), last=1)[:, -1]
        longest = max(map(len, rows))
        ids = np.full((len(rows), longest), self.pad, np.int64)
        for i, row in enumerate(rows):
            ids[i, longest - len(row) :] = row
        lengths = np.array([len(row) for row in rows])
        if (lengths != longest).any():
            self._mask = np.ones((len(rows), longest + self.room), bool)
            self._mask[:, :longest] = np.arange(longest) >= (longest - lengths)[:, None]
        else:
            self._mask = None
        self.cache = self.module.cache(len(rows), longest + self.room)
        return self._run(ids, last=1)[:, -1]

    def __call__(self, tokens: Array) -> Array:
        """See `Step`."""
        return self._run(tokens, last=None)

    def _run(self, ids: Array, last: int | None) -> Array:
        device = self.module.device
        mask = None
        if self._mask is not None:
            mask = Tensor(self._mask[:, : self.cache.length + ids.shape[1]]).to(device=device)
        with inference_mode():
            logits = self.module(
                Tensor(ids).to(device=device), attention_mask=mask, cache=self.cache, last=last
            )
            if self.memory is not None:
                self.memory.ids += ids[0].tolist()
            return as_float(logits)

    def select(self, rows: Array) -> None:
        """See `Step`."""
        self.cache.select(rows)
        if self._mask is not None:
            self._mask = self._mask[rows]

    def keep(self, length: int) -> None:
        """See `Step`."""
        self.cache.keep(length)


class Seq2SeqStep:
    """The decoder of a network that has an encoder: `start` reads the decoder's first tokens.

    Args:
        module: decode(decoder_input_ids, encoder_hidden_states, encoder_attention_mask, cache=,
            last=) and cache(batch, capacity).
        states: what `module.encode` gave, (B, S, D); a row for each text.
        mask: which of the encoder's tokens are no padding, (B, S).
        room: the most tokens that follow the first ones.
    """

    def __init__(self, module: Any, states: Tensor, mask: Array | None, room: int) -> None:
        self.module, self.room = module, room
        self._states = states
        self._mask = None if mask is None else Tensor(np.asarray(mask)).to(device=module.device)
        self.cache: Any = None

    def start(self, rows: Sequence[Sequence[int]]) -> Array:
        """See `Step`.

        Raises:
            ShapeError: beginnings of different lengths.
        """
        if len({len(row) for row in rows}) != 1 or len(rows) != self._states.shape[0]:
            raise ShapeError(
                f"{self._states.shape[0]} beginnings of one length are wanted, not "
                f"{[len(row) for row in rows]}"
            )
        ids = np.array(rows, np.int64)
        self.cache = self.module.cache(len(rows), ids.shape[1] + self.room)
        return self._run(ids, last=1)[:, -1]

    def __call__(self, tokens: Array) -> Array:
        """See `Step`."""
        return self._run(tokens, last=None)

    def _run(self, ids: Array, last: int | None) -> Array:
        with inference_mode():
            logits = self.module.decode(
                Tensor(ids).to(device=self.module.device),
                self._states,
                encoder_attention_mask=self._mask,
                cache=self.cache,
                last=last,
            )
            return as_float(logits)

    def select(self, rows: Array) -> None:
        """See `Step`."""
        self.cache.select(rows)
        self._states = self._states[Tensor(rows).to(device=self._states.device)]
        if self._mask is not None:
            self._mask = self._mask[Tensor(rows).to(device=self._mask.device)]

    def keep(self, length: int) -> None:
        """See `Step`."""
        self.cache.keep(length)


def as_float(logits: Tensor) -> Array:
    """A tensor as a float32 array on this side, without a copy where it is one."""
    return np.asarray(logits.cpu().array, np.float32)
