"""What networks with an encoder and a decoder share: their cache, and what a forward gives."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from ..core.ops.indexing import take
from ..core.tensor import Tensor
from .cache import KVCache


class EncoderDecoderFeatures(NamedTuple):
    """What a network without a head gives.

    Attributes:
        last_hidden_state: of the decoder, or of the encoder where the decoder was given nothing.
        pooler_output: always None; there is no pooler.
        encoder_last_hidden_state: of the encoder.
    """

    last_hidden_state: Tensor
    pooler_output: None
    encoder_last_hidden_state: Tensor


class DecoderCache(KVCache):
    """Keys and values of the decoder's tokens, and of what the encoder gave, computed once."""

    def __init__(self, layers: int, *shape: int, dtype: Any = None, device: Any = "cpu") -> None:
        super().__init__(layers, *shape, dtype=dtype, device=device)
        self._cross: list[tuple[Tensor, Tensor] | None] = [None] * layers

    def cross(
        self, layer: int, compute: Callable[[], tuple[Tensor, Tensor]]
    ) -> tuple[Tensor, Tensor]:
        """The keys and values (B, N, S, W) of the encoder's states in a layer."""
        found = self._cross[layer]
        if found is None:
            found = self._cross[layer] = compute()
        return found

    def select(self, rows: Any) -> None:
        """See `KVCache`; the encoder's states go with their texts."""
        super().select(rows)
        chosen = Tensor(np.asarray(rows, np.int64)).to(device=self._keys[0].device)
        for i, found in enumerate(self._cross):
            if found is not None:
                keys, values = (take(x, chosen, axis=0) for x in found)
                self._cross[i] = keys, values
