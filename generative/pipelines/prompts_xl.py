"""Texts as Stable Diffusion XL is conditioned on them: by two encoders, and as a whole.

Source: Podell et al. 2023, "SDXL: Improving latent diffusion models for high-resolution image
synthesis".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ...core.errors import DataError
from ...core.ops.shape import concat
from ...core.state import inference_mode
from ...core.tensor import Tensor
from .prompts import Prompts


class Told(NamedTuple):
    """What the network sees of texts: every token, and a vector of the whole."""

    tokens: Tensor
    whole: Tensor


class DoublePrompts:
    """Two tokenizers and text encoders, the second of which has a vector of the whole text.

    Args:
        first, second: each with its tokenizer; they take equally many tokens.

    Raises:
        DataError: they do not.
    """

    def __init__(self, first: Prompts, second: Prompts) -> None:
        if first.length != second.length:
            raise DataError(
                f"the two text encoders take {first.length} and {second.length} tokens, and what "
                "they say of each is put together.",
                expected=first.length,
                got=second.length,
            )
        self.first, self.second = first, second

    @property
    def length(self) -> int:
        """Tokens that the encoders take."""
        return self.first.length

    def encode(self, texts: Sequence[str], *, skip: int = 0, truncate: bool = False) -> Told:
        """What goes into the last layer of each encoder, side by side, and the whole.

        Args:
            skip: more layers at the end that are left out.

        Shape: (B, T, D1 + D2) and (B, projection_dim)
        """
        found = []
        for prompts in (self.first, self.second):
            encoder = prompts.encoder
            ids = prompts.ids(texts, truncate=truncate).to(device=encoder.device)
            with inference_mode():
                states = encoder.states(ids)
                if not 0 <= skip < len(states) - 1:
                    raise DataError(
                        f"clip_skip={skip}: an encoder has {len(states) - 1} layers, the last of "
                        "which is left out already",
                        got=skip,
                    )
                found.append(states[-2 - skip])
                if prompts is self.second:
                    whole = encoder.whole(states[-1], ids)
        with inference_mode():
            return Told(concat(found, axis=2), whole)
