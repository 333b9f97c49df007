"""WordPiece after BERT's cutting into words, for a bare `vocab.txt`.

Source: Devlin et al. 2018, "BERT: Pre-training of Deep Bidirectional Transformers".
"""

from __future__ import annotations

import string
import unicodedata
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path

from ...core.errors import DataError
from .bpe import _SPACES
from .parts import Pieces
from .settings import read_bytes

_LONGEST_WORD = 100
_INNER = "##"
_CHINESE = (
    (0x4E00, 0x9FFF),
    (0x3400, 0x4DBF),
    (0x20000, 0x2A6DF),
    (0x2A700, 0x2B73F),
    (0x2B740, 0x2B81F),
    (0x2B920, 0x2CEAF),
    (0xF900, 0xFAFF),
    (0x2F800, 0x2FA1F),
)


class WordPiece:
    """Words to the longest pieces that the vocabulary has.

    Args:
        vocab: token -> id.
        lower: small letters; accents go too unless `strip_accents` says otherwise.
        strip_accents: None = as `lower`.
        chinese: each Chinese character is a word.
        unknown: the token for a word that has no pieces.
    Raises:
        DataError: the unknown token is not in the vocabulary.
    """

    byte_pairs = False

    def __init__(
        self,
        vocab: dict[str, int],
        *,
        lower: bool = True,
        strip_accents: bool | None = None,
        chinese: bool = True,
        unknown: str = "[UNK]",
    ) -> None:
        if unknown not in vocab:
            raise DataError(f"the unknown token {unknown!r} is not in the vocabulary")
        self.vocab = vocab
        self.unknown = vocab[unknown]
        self.lower, self.chinese = lower, chinese
        self.strip_accents = lower if strip_accents is None else strip_accents
        self._written = lru_cache(maxsize=65_536)(self._write)

    def pieces(self, text: str) -> Pieces:
        """Its tokens; offsets and words from 0."""
        pieces = Pieces([], [], [])
        word: list[str] = []
        places: list[int] = []
        count = 0

        def end() -> None:
            nonlocal count
            if word:
                for number, first, last in self._cut("".join(word)):
                    pieces.ids.append(number)
                    pieces.offsets.append((places[first], places[last - 1] + 1))
                    pieces.words.append(count)
                count += 1
                word.clear()
                places.clear()

        for i, character in enumerate(text):
            for written, alone in self._written(character):
                if alone or written == " ":
                    end()
                if written != " ":
                    word.append(written)
                    places.append(i)
                if alone:
                    end()
        end()
        return pieces

    def _write(self, character: str) -> tuple[tuple[str, bool], ...]:
        """What a character becomes: small ones, each with whether it is a word by itself."""
        code = ord(character)
        if code in (0, 0xFFFD) or (character not in "\t\n\r" and _is_other(character)):
            return (("\ufffd", False),) if 0xD800 <= code < 0xE000 else ()
        if character in _SPACES:
            return ((" ", False),)
        alone = self.chinese and any(low <= code <= high for low, high in _CHINESE)
        plain = character
        if self.strip_accents:
            plain = unicodedata.normalize("NFD", plain)
            plain = "".join(c for c in plain if unicodedata.category(c) != "Mn")
        if self.lower:
            plain = "".join(map(str.lower, plain))
        return tuple((c, alone or _is_mark(c)) for c in plain)

    def _cut(self, word: str) -> list[tuple[int, int, int]]:
        if len(word) > _LONGEST_WORD:
            return [(self.unknown, 0, len(word))]
        found, start = [], 0
        while start < len(word):
            for end in range(len(word), start, -1):
                piece = word[start:end] if start == 0 else _INNER + word[start:end]
                if piece in self.vocab:
                    found.append((self.vocab[piece], start, end))
                    start = end
                    break
            else:
                return [(self.unknown, 0, len(word))]
        return found

    def decode(self, tokens: Sequence[str], added: Iterable[str]) -> str:
        """The text of tokens, with blanks between words but not before marks."""
        text = ""
        for i, token in enumerate(tokens):
            if i == 0:
                text = token
            elif token.startswith(_INNER):
                text += token[len(_INNER) :]
            else:
                text += token if token in _CLOSE else " " + token
        return text

    def held(self, token: str) -> bool:
        """Never."""
        return False


_CLOSE = frozenset((".", "?", "!", ",", "n't", "'m", "'s", "'ve", "'re"))


def _is_other(character: str) -> bool:
    return unicodedata.category(character) in ("Cc", "Cf", "Cs", "Co")


def _is_mark(character: str) -> bool:
    return character in string.punctuation or unicodedata.category(character)[0] == "P"


def read_vocab_txt(path: Path) -> tuple[dict[str, int], bytes]:
    """The tokens of a `vocab.txt`, one a line, and its content.

    Raises:
        DataError: it is no text, or empty.
    """
    content = read_bytes(path)
    try:
        lines = content.decode("utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is no list of tokens: {error}", path=str(path)) from None
    if lines and not lines[-1]:
        lines.pop()
    # Of a token that stands twice the later line counts, as in the reference.
    vocab = {line.rstrip("\r"): number for number, line in enumerate(lines)}
    if not vocab:
        raise DataError(f"{path} is an empty list of tokens", path=str(path))
    return vocab, content
