"""CLIP's tokenizer: texts in small letters, byte pairs, a token before and one after.

Read from a model's folder: `tokenizer.json` by the library `tokenizers` where it is installed, else
`vocab.json` and `merges.txt` by ours.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np

from ...core.errors import ConfigError, DataError, HubError, MissingExtra
from ...core.paths import atomic
from .bpe import ByteLevelBPE, clip_words

START, END = "<|startoftext|>", "<|endoftext|>"
_PAIR = ("vocab.json", "merges.txt")
_WHOLE = "tokenizer.json"
# Beside either of these: settings that the files above hold already.
FILES = (*_PAIR, _WHOLE)

Array = np.ndarray[Any, Any]


class ClipTokenizer:
    """Texts to numbers: `ids, mask = tokenizer(["a photo of a cat", "a dog"])`.

    Args:
        encode: the numbers of a text without the tokens around it.
        start, end: the numbers of these two; texts are padded with `end`.
        length: the most tokens of a text, these two included; longer ones are cut.
        files: what the tokenizer was read from, name -> content, to be saved with a model.
    """

    def __init__(
        self,
        encode: Callable[[str], list[int]],
        start: int,
        end: int,
        *,
        length: int = 77,
        files: Mapping[str, bytes] | None = None,
    ) -> None:
        if length < 2:
            raise ConfigError(f"a text has two tokens or more, not {length}", got=length)
        self._encode = encode
        self.start, self.end, self.length = start, end, length
        self.files = dict(files or {})

    def __call__(self, texts: Sequence[str]) -> tuple[Array, Array]:
        """The tokens of each text, padded to the longest, and which of them are no padding.

        Shape:
            (B, T), int64, and (B, T), bool
        Raises:
            DataError: something that is no text.
        """
        if isinstance(texts, str) or not all(isinstance(text, str) for text in texts):
            raise DataError(f"a list of texts is wanted, not {texts!r:.80}")
        room = self.length - 2
        rows = [[self.start, *self._encode(text)[:room], self.end] for text in texts]
        longest = max(map(len, rows), default=0)
        ids = np.full((len(rows), longest), self.end, np.int64)
        mask = np.zeros(ids.shape, bool)
        for i, row in enumerate(rows):
            ids[i, : len(row)] = row
            mask[i, : len(row)] = True
        return ids, mask

    def encode(self, text: str) -> list[int]:
        """The numbers of a text, however long, without the tokens around it."""
        return self._encode(text)

    def save(self, folder: str | Path) -> None:
        """Write the files that it was read from."""
        for name, content in self.files.items():
            with atomic(Path(folder) / name) as part:
                part.write_bytes(content)

    @classmethod
    def from_folder(cls, folder: str | Path, *, length: int = 77) -> Self:
        """The tokenizer of a model's folder.

        Raises:
            HubError: it holds none; names the files that are wanted.
            MissingExtra: it holds only what `tokenizers` reads, which is not installed.
            DataError: a file is damaged.
        """
        root = Path(folder)
        if (root / _WHOLE).is_file():
            whole = _with_library(root / _WHOLE)
            if whole is not None:
                return cls(*whole, length=length, files=_contents(root, (_WHOLE,)))
        if all((root / name).is_file() for name in _PAIR):
            vocab, merges = (root / name for name in _PAIR)
            bpe = ByteLevelBPE.from_files(
                vocab,
                merges,
                words=clip_words,
                end_of_word="</w>",
                unknown=END,
                special=(START, END),
                prepare=_small,
            )
            numbers = bpe.vocab[START], bpe.vocab[END]
            return cls(bpe.encode, *numbers, length=length, files=_contents(root, _PAIR))
        if (root / _WHOLE).is_file():
            raise MissingExtra(
                f"{root / _WHOLE} is read by the library tokenizers, which is not installed.\n"
                "pip install 'bestiary[text]'"
            )
        raise HubError(
            f"{root} holds no tokenizer: {_WHOLE}, or {_PAIR[0]} and {_PAIR[1]}.",
            folder=str(root),
        )


def _contents(root: Path, names: Sequence[str]) -> dict[str, bytes]:
    return {name: (root / name).read_bytes() for name in names}


def _with_library(path: Path) -> tuple[Callable[[str], list[int]], int, int] | None:
    """What `tokenizers` makes of a tokenizer.json; None where it is not installed."""
    try:
        import tokenizers
    except ImportError:
        return None
    try:
        whole = tokenizers.Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises Exception itself
        raise DataError(f"{path} is no tokenizer: {error}", path=str(path)) from error
    whole.no_truncation()
    whole.no_padding()
    start, end = whole.token_to_id(START), whole.token_to_id(END)
    if start is None or end is None:
        raise DataError(f"{path} is no tokenizer of CLIP: {START!r} or {END!r} is missing")

    def encode(text: str) -> list[int]:
        return list(whole.encode(text, add_special_tokens=False).ids)

    return encode, start, end


def _small(text: str) -> str:
    """In small letters, each by itself: the last sigma of a word is like any other."""
    return "".join(map(str.lower, unicodedata.normalize("NFC", text)))
