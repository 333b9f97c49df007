"""Texts as the tokens that a network is conditioned on."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...core.errors import DataError, HubError
from ...core.nn import Module
from ...core.notice import LengthWarning, warn_once
from ...core.state import inference_mode
from ...core.tensor import Tensor
from ...hub.repository import read_json
from ...text.tokens.clip import FILES, ClipTokenizer

FOLDER = "tokenizer"
REPOSITORY = "openai/clip-vit-large-patch14"
_PAIR = ("vocab.json", "merges.txt")
_SHOWN = 40  # characters of what does not fit


def tokenizer_of(folder: Path | None, length: int) -> tuple[ClipTokenizer, int] | None:
    """The tokenizer in a folder, and the token that it pads with; None if there is none."""
    if folder is None or not any((folder / name).is_file() for name in FILES):
        return None
    tokenizer = ClipTokenizer.from_folder(folder, length=length)
    return tokenizer, _padding(folder, tokenizer.end)


def published_tokenizer(length: int, *, fetch: bool = False) -> ClipTokenizer | None:
    """CLIP's own tokenizer, which all these models share, if it is on this machine.

    Args:
        fetch: get it from the hub otherwise.
    """
    from ...hub import download

    found = download.cached(REPOSITORY, filenames=_PAIR)
    if found is None and fetch:
        found = download.fetch(REPOSITORY, _PAIR, quiet=True)
    return None if found is None else ClipTokenizer.from_folder(found.folder, length=length)


def _padding(folder: Path, default: int) -> int:
    """The number of the token that the settings name; Stable Diffusion 2 pads with "!"."""
    token: Any = None
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        path = folder / name
        token = token or (read_json(path).get("pad_token") if path.is_file() else None)
    if isinstance(token, dict):
        token = token.get("content")
    number = _vocabulary(folder).get(token) if isinstance(token, str) else None
    return default if number is None else int(number)


def _vocabulary(folder: Path) -> dict[str, Any]:
    """Every token as it is spelt in the files, and its number."""
    if (folder / "vocab.json").is_file():
        return read_json(folder / "vocab.json")
    whole = read_json(folder / "tokenizer.json")
    found = dict(whole.get("model", {}).get("vocab", {}))
    for added in whole.get("added_tokens", ()):
        found[added["content"]] = added["id"]
    return found


class Prompts:
    """A tokenizer and a text encoder; what was encoded last is kept.

    Attributes:
        tokenizer: None where the folder had none.
        pad: the token that texts are filled up with.
    """

    def __init__(
        self, encoder: Module, tokenizer: ClipTokenizer | None = None, pad: int = 0
    ) -> None:
        self.encoder, self.tokenizer, self.pad = encoder, tokenizer, pad

    @property
    def length(self) -> int:
        """Tokens that the encoder takes."""
        return int(self.encoder.config.max_position_embeddings)

    def ids(self, texts: Sequence[str], *, truncate: bool = False) -> Tensor:
        """The tokens of texts, filled up to the length of the encoder. Shape: (B, T).

        Raises:
            HubError: there is no tokenizer.
            DataError: a text is longer than the encoder; says what does not fit.
        """
        if self.tokenizer is None:
            raise HubError(
                "the model was loaded without a tokenizer, so it cannot read a prompt.\n"
                f"Its folder needs {FOLDER}/ with tokenizer.json, or vocab.json and merges.txt.\n"
                "Or give it one: model.use_tokenizer('folder/of/a/clip/model'), or without a "
                "folder, to fetch CLIP's."
            )
        length = self.length
        rows = np.full((len(texts), length), self.pad, np.int64)
        for row, text in zip(rows, texts, strict=True):
            tokens = self.tokenizer.encode(text)
            if len(tokens) > length - 2:
                self._too_long(text, len(tokens), length - 2, truncate)
            kept = [self.tokenizer.start, *tokens[: length - 2], self.tokenizer.end]
            row[: len(kept)] = kept
        return Tensor(rows)

    def _too_long(self, text: str, count: int, room: int, truncate: bool) -> None:
        assert self.tokenizer is not None
        words = text.split()
        fit = 0
        while fit < len(words) and len(self.tokenizer.encode(" ".join(words[: fit + 1]))) <= room:
            fit += 1
        rest = " ".join(words[fit:])
        shown = rest if len(rest) <= _SHOWN else rest[:_SHOWN] + " ..."
        if truncate:
            warn_once(
                f"long prompt {text}",
                f"the prompt has {count} tokens and the encoder takes {room}; left out: {shown!r}",
                LengthWarning,
            )
            return
        raise DataError(
            f"the prompt has {count} tokens and the text encoder takes {room}.\n"
            f"What does not fit begins with {shown!r}.\n"
            "Shorten it, or leave the rest out: truncate=True (--truncate).",
            expected=room,
            got=count,
        )

    def encode(self, texts: Sequence[str], *, skip: int = 0, truncate: bool = False) -> Tensor:
        """What the network sees of texts.

        Args:
            skip: layers at the end of the encoder that are left out.

        Shape: (B, T, D)
        """
        ids = self.ids(texts, truncate=truncate).to(device=self.encoder.device)
        with inference_mode():
            if not skip:
                found: Tensor = self.encoder(ids).last_hidden_state
                return found
            states = self.encoder.states(ids)
            if not 0 <= skip < len(states) - 1:
                raise DataError(
                    f"clip_skip={skip}: the encoder has {len(states) - 1} layers", got=skip
                )
            normed: Tensor = self.encoder.final_layer_norm(states[-1 - skip])
            return normed


def checked_texts(prompt: Any, what: str) -> list[str]:
    """One text or several.

    Raises:
        DataError: something else, or none.
    """
    texts = [prompt] if isinstance(prompt, str) else prompt
    if not isinstance(texts, (list, tuple)) or not texts:
        raise DataError(f"{what}: a text or a list of texts is wanted, not {prompt!r:.80}")
    for text in texts:
        if not isinstance(text, str):
            raise DataError(f"{what}: a text is wanted, not {type(text).__name__}: {text!r:.60}")
    return list(texts)


def as_json(value: Any) -> str:
    """Settings in one line."""
    return json.dumps(value, ensure_ascii=False, sort_keys=True)
