"""A network, one token after the other: what decoding needs of it.

`Step` is all that the loops know: `CausalStep` and `Seq2SeqStep` are it for the two kinds of
networks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from ...core.errors import ShapeError
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


class CausalStep:
    """A causal network: `start` reads prompts, padded on the left.

    Args:
        module: forward(input_ids, attention_mask, cache=, last=) and cache(batch, capacity).
        room: the most tokens that follow the prompts.
        pad: the token that fills shorter prompts; it is masked.
    """

    def __init__(self, module: Any, room: int, pad: int = 0) -> None:
        self.module, self.room, self.pad = module, room, pad
        self.cache: Any = None
        self._mask: Array | None = None  # (B, capacity), only where there is padding

    def start(self, rows: Sequence[Sequence[int]]) -> Array:
        """See `Step`."""
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
