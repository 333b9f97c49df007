"""Keys and values of the tokens that a language model has seen, in memory set aside ahead."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..core.creation import empty
from ..core.dtypes import float32
from ..core.errors import ConfigError, ShapeError
from ..core.op import op
from ..core.ops.indexing import take
from ..core.tensor import Tensor


@op(raw=True, writes=("keys", "values"), differentiable=False)
def cache_append(xp: Any, keys: Tensor, values: Tensor, k: Tensor, v: Tensor, *, at: int) -> None:
    """Write new keys and values (B, N, T, W) into (B, N, capacity, W), from place `at` on."""
    keys[:, :, at : at + k.shape[2]] = k
    values[:, :, at : at + v.shape[2]] = v


class KVCache:
    """What attention layers keep of earlier tokens, so that each is computed once.

    Args:
        layers, batch, heads: of the model, and of the texts at once.
        capacity: tokens there is room for; `grow` makes more.
        width: numbers of a head.
        value_width: of a head's values, where they are others.

    Attributes:
        length: tokens that are in it.
    """

    def __init__(
        self,
        layers: int,
        batch: int,
        heads: int,
        capacity: int,
        width: int,
        *,
        value_width: int | None = None,
        dtype: Any = None,
        device: Any = "cpu",
    ) -> None:
        counts = (layers, batch, heads, capacity, width)
        if min(counts) < 1:
            raise ConfigError(f"a cache of {counts}: all of these are whole numbers from 1")
        place: dict[str, Any] = {"dtype": dtype, "device": device}
        shape = (batch, heads, capacity)
        self._keys = [empty((*shape, width), **place) for _ in range(layers)]
        self._values = [empty((*shape, value_width or width), **place) for _ in range(layers)]
        self.length = 0

    @property
    def batch(self) -> int:
        """Texts at once."""
        return self._keys[0].shape[0]

    @property
    def capacity(self) -> int:
        """Tokens there is room for."""
        return self._keys[0].shape[2]

    @property
    def nbytes(self) -> int:
        """Memory that it takes, in bytes."""
        return sum(x.nbytes for x in (*self._keys, *self._values))

    def append(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Keep the keys and values of new tokens; gives those of all tokens, as views.

        `advance` after the last layer makes them count.

        Shape:
            (B, N, T, W) each -> (B, N, length + T, W)
        Raises:
            ShapeError: another batch, or no room.
        """
        keys, values = self._keys[layer], self._values[layer]
        stop = self.length + k.shape[2]
        if stop > keys.shape[2] or k.shape[0] != keys.shape[0]:
            raise ShapeError(
                f"the cache is for {keys.shape[0]} texts of {keys.shape[2]} tokens; {k.shape[0]} "
                f"texts of {stop} tokens do not fit.\nMake room with cache.grow({stop}).",
                expected=tuple(keys.shape),
                got=(k.shape[0], k.shape[1], stop, k.shape[3]),
            )
        cache_append(keys, values, k, v, at=self.length)
        return keys[:, :, :stop], values[:, :, :stop]

    def holds_one_text(self) -> bool:
        """Whether it is float32 memory of this side for a single text, with room for a token."""
        keys = self._keys[0].array
        plain = type(keys) is np.ndarray and keys.dtype == float32
        return plain and keys.shape[0] == 1 and self.length < keys.shape[2]

    def of_text(self, layer: int) -> tuple[Any, Any]:
        """Memory of a layer for a single text, to write to: keys and values (N, capacity, W)."""
        return self._keys[layer].array[0], self._values[layer].array[0]

    def advance(self, tokens: int) -> None:
        """Count tokens that every layer has appended."""
        self.length += tokens

    def keep(self, length: int) -> None:
        """Forget what lies behind the first `length` tokens.

        Raises:
            ConfigError: there are fewer.
        """
        if not 0 <= length <= self.length:
            raise ConfigError(f"the cache holds {self.length} tokens and cannot keep {length}")
        self.length = length

    def select(self, rows: Any) -> None:
        """Put texts in another order, or some of them several times or not at all.

        Args:
            rows: numbers of texts, (B',): row i is what row `rows[i]` was.
        """
        chosen = Tensor(np.asarray(rows, np.int64)).to(device=self._keys[0].device)
        for kept in (self._keys, self._values):
            for i, x in enumerate(kept):
                kept[i] = take(x, chosen, axis=0)

    def grow(self, capacity: int) -> None:
        """Make room for more tokens; what is in it stays."""
        for kept in (self._keys, self._values):
            for i, x in enumerate(kept):
                if capacity <= x.shape[2]:
                    continue
                larger = empty((*x.shape[:2], capacity, x.shape[3]), dtype=x.dtype, device=x.device)
                larger[:, :, : self.length] = x[:, :, : self.length]
                kept[i] = larger

    def __repr__(self) -> str:
        return (
            f"KVCache({self.length} of {self.capacity} tokens, {self.batch} texts, "
            f"{len(self._keys)} layers, {self.nbytes / 1e6:.1f} MB)"
        )
