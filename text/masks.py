"""Which keys a token may look at, in layers with and without a window."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..core.nn import functional as F
from ..core.ops.elementwise import abs as abs_
from ..core.ops.elementwise import clip
from ..core.ops.shape import concat
from ..core.state import state
from ..core.tensor import Tensor
from .transformer import causal_mask, key_mask

_BLOCK = 4  # queries of a block, in windows to one side: so a block sees half as many more keys
_LEAST = 16  # or so many queries, where the window is small


def distances(tokens: int, past: int = 0) -> Tensor:
    """The place of each key less that of each new token, (T, past + T)."""
    places = np.arange(past + tokens)
    return Tensor(places - places[past:, None])


def looked_up(table: Any, distance: Tensor) -> Tensor:
    """What a table says of distances.

    Args:
        table: for distances from -n to n, (2 n + 1,); farther ones are as these.
        distance: whole numbers.
    """
    farthest = len(table) // 2
    rows = clip(distance, -farthest, farthest) + farthest
    return Tensor(table).to(device=distance.device)[rows]


class Masks:
    """The masks of a call, each made once: of all keys, and of those in a window."""

    def __init__(self, attention_mask: Tensor | None, tokens: int, past: int, device: Any) -> None:
        self._given, self._tokens, self._past, self._device = attention_mask, tokens, past, device
        self._made: dict[int | None, Tensor | None] = {}

    def seen(
        self, window: int | None, k: Tensor, v: Tensor
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Keys, values (B, N, past + T, W) that a layer needs, and where a token may look.

        The mask is (B or 1, 1, T, keys), or None where tokens see all before them. A single token
        needs no mask for a window: keys behind it are left out.
        """
        total = self._past + self._tokens
        if window is None or (window >= total and not state.any_length):
            window = None
        elif self._tokens == 1:
            k, v = k[:, :, total - window :], v[:, :, total - window :]
        if window not in self._made:
            self._made[window] = self._mask(window)
        return k, v, self._made[window]

    def _mask(self, window: int | None) -> Tensor | None:
        given = self._given
        if window is None:
            mask = causal_mask(given, self._tokens, self._past)
        elif self._tokens == 1:
            mask = key_mask(None if given is None else given[:, -window:])
        else:
            mask = self._windowed(window, key_mask(given))
        return mask if mask is None else mask.to(device=self._device)

    def _windowed(self, window: int, keys: Tensor | None) -> Tensor:
        apart = distances(self._tokens, self._past)
        near = ((apart <= 0) & (apart > -window))[None, None]
        return near if keys is None else near.to(device=keys.device) & keys


class Neighbours:
    """Attention of each token to those at most `window` before and behind it.

    Queries come in blocks, each with the keys that its tokens can see: time and memory grow with
    the length of a text and not with its square. What must hold for any length is one block.

    Args:
        mask: of all keys, (B, 1, 1, T); None where nothing is padding.
        window: None for all tokens.
    """

    def __init__(self, mask: Tensor | None, tokens: int, window: int | None, device: Any) -> None:
        self.parts: list[tuple[slice, slice, Tensor | None]] = []
        if window is None:
            self.parts.append((slice(None), slice(None), mask))
            return
        size = max(_BLOCK * window, _LEAST)
        if tokens <= size + 2 * window or state.any_length:
            size = tokens
        for start in range(0, tokens, size):
            stop = min(start + size, tokens)
            low, high = max(start - window, 0), min(stop + window, tokens)
            near = None if mask is None else mask[..., low:high]
            if high - low > window + 1 or state.any_length:
                apart = Tensor(np.arange(start, stop)[:, None] - np.arange(low, high))
                band = (abs_(apart) <= window)[None, None].to(device=device)
                near = band if near is None else band & near
            self.parts.append((slice(start, stop), slice(low, high), near))

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, dropout: float) -> Tensor:
        """Shape: (B, N, T, W) each -> (B, N, T, W)."""
        found = [
            F.scaled_dot_product_attention(
                q[:, :, own], k[:, :, seen], v[:, :, seen], mask, dropout_p=dropout
            )
            for own, seen, mask in self.parts
        ]
        return found[0] if len(found) == 1 else concat(found, axis=2)
