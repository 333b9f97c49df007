"""Byte-level byte-pair encoding, as GPT-2 and CLIP use it.

A text is cut into words; a word becomes bytes, each written as one visible character; then the
pair of neighbours that was learned first is joined, again and again, until none is left that was
learned. For tokenizers of which `vocab.json` and `merges.txt` were published; a `tokenizer.json`
is read by the library `tokenizers`.

Sources: Sennrich et al. 2016, "Neural machine translation of rare words with subword units";
Radford et al. 2019, "Language models are unsupervised multitask learners".
"""

from __future__ import annotations

import heapq
import json
import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Self

from ...core.errors import DataError

_CACHED_WORDS = 16_384
# Unicode's White_Space; Python's str.isspace counts four control characters more.
_SPACES = frozenset("\t\n\v\f\r\x20\x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000") | {
    chr(n) for n in range(0x2000, 0x200B)
}


# -- bytes as characters ---------------------------------------------------------------------


@lru_cache(maxsize=1)
def byte_alphabet() -> list[str]:
    """A visible character for each of the 256 bytes: itself, or one from 256 on."""
    visible = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = iter(range(256, 512))
    return [chr(n) if n in set(visible) else chr(next(others)) for n in range(256)]


def _spelled(word: str) -> str:
    alphabet = byte_alphabet()
    # What is no character (half of a surrogate pair) is written as the replacement character.
    valid = word.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return "".join(alphabet[byte] for byte in valid.encode("utf-8"))


# -- words -----------------------------------------------------------------------------------


@lru_cache(maxsize=65_536)
def _kind(character: str) -> str:
    """L letters, N numbers, a blank for the blank, R ends of lines, S other spaces, P the rest."""
    if character in _SPACES:
        return {" ": " ", "\n": "R", "\r": "R"}.get(character, "S")
    category = unicodedata.category(character)[0]
    return category if category in "LN" else "P"


def _words(text: str, shortened: re.Pattern[str], runs: re.Pattern[str]) -> list[str]:
    """The parts of a text that fit; `shortened` sees the text, `runs` the kinds of characters."""
    kinds = "".join(map(_kind, text))
    words, place = [], 0
    while place < len(text):
        found = shortened.match(text, place) or runs.match(kinds, place)
        if found is None:
            place += 1
            continue
        words.append(text[place : found.end()])
        place = found.end()
    return words


_SHORTENED = re.compile("'(?:s|t|re|ve|m|ll|d)")
_SHORTENED_ANY_CASE = re.compile(_SHORTENED.pattern, re.I)
_SPACE_RUNS = "[ SR]+(?![LNP])|[ SR]+"
_GPT2_RUNS = re.compile(f" ?L+| ?N+| ?P+|{_SPACE_RUNS}")
_LATER_RUNS = f"[ SP]?L+|N%s| ?P+R*|[ SR]*R+|{_SPACE_RUNS}"
_LLAMA3_RUNS = re.compile(_LATER_RUNS % "{1,3}")
_QWEN2_RUNS = re.compile(_LATER_RUNS % "")
_CLIP_RUNS = re.compile("L+|N|P+")


def gpt2_words(text: str) -> list[str]:
    """Words with the blank before them, numbers, runs of other characters; nothing is lost."""
    return _words(text, _SHORTENED, _GPT2_RUNS)


def smollm_words(text: str) -> list[str]:
    """Every digit first, and what is between them as GPT-2 cuts it."""
    words, place = [], 0
    for i, character in enumerate(text):
        if _kind(character) == "N":
            words += [*gpt2_words(text[place:i]), character]
            place = i + 1
    return words + gpt2_words(text[place:])


def llama3_words(text: str) -> list[str]:
    """Words with one mark or space before them, up to three digits, ends of lines together."""
    return _words(text, _SHORTENED_ANY_CASE, _LLAMA3_RUNS)


def qwen2_words(text: str) -> list[str]:
    """As Llama 3, but every digit by itself."""
    return _words(text, _SHORTENED_ANY_CASE, _QWEN2_RUNS)


def clip_words(text: str) -> list[str]:
    """Words, single digits, runs of other characters; spaces are left out."""
    return _words(text, _SHORTENED, _CLIP_RUNS)


# By the names that GGUF files have for them; all but CLIP's lose nothing.
CUTTERS: dict[str, Callable[[str], list[str]]] = {
    "gpt-2": gpt2_words,
    "smollm": smollm_words,
    "llama-bpe": llama3_words,
    "qwen2": qwen2_words,
}


# -- the encoding ----------------------------------------------------------------------------


class ByteLevelBPE:
    """Texts to numbers of tokens and back.

    Args:
        vocab: token -> number.
        merges: pairs of tokens that are joined, the first learned first.
        words: how a text is cut: `gpt2_words` or `clip_words`.
        end_of_word: what is added to the last character of a word ("</w>" in CLIP).
        unknown: the token in place of one that the vocabulary lacks.
        special: tokens that are one where a text holds them, such as "<|endoftext|>".
        prepare: what is done to the text between those, such as writing it in small letters.

    Raises:
        DataError: the unknown token or a special one is not in the vocabulary.
    """

    def __init__(
        self,
        vocab: Mapping[str, int],
        merges: Sequence[tuple[str, str]],
        *,
        words: Callable[[str], list[str]] = gpt2_words,
        end_of_word: str = "",
        unknown: str | None = None,
        special: Sequence[str] = (),
        prepare: Callable[[str], str] | None = None,
    ) -> None:
        missing = [t for t in (unknown, *special) if t is not None and t not in vocab]
        if missing:
            raise DataError(f"tokens that are not in the vocabulary: {missing}", tokens=missing)
        self.vocab = dict(vocab)
        self.tokens = {number: token for token, number in self.vocab.items()}
        self.ranks = {pair: rank for rank, pair in reversed(list(enumerate(merges)))}
        self.words = words
        self.end_of_word = end_of_word
        self.unknown = unknown
        self.prepare = prepare or str
        self._special = re.compile("|".join(map(re.escape, special)) or "(?!)")
        self.word = lru_cache(maxsize=_CACHED_WORDS)(self._encode_word)

    @classmethod
    def from_files(cls, vocab: str | Path, merges: str | Path, **settings: Any) -> Self:
        """Read a `vocab.json` and a `merges.txt`.

        Args:
            settings: those of the class.
        Raises:
            DataError: one of them is damaged; names the file and what is wrong.
        """
        return cls(read_vocab(vocab), read_merges(merges), **settings)

    def encode(self, text: str) -> list[int]:
        """The numbers of the tokens of a text.

        Raises:
            DataError: a token is missing from the vocabulary and there is none for unknown ones.
        """
        numbers: list[int] = []
        place = 0
        for found in self._special.finditer(text):
            numbers += self._encode_plain(text[place : found.start()])
            numbers.append(self.vocab[found[0]])
            place = found.end()
        return numbers + self._encode_plain(text[place:])

    def _encode_plain(self, text: str) -> list[int]:
        words = self.words(self.prepare(text))
        return [number for word in words for number in self.word(word)]

    def decode(self, numbers: Iterable[int]) -> str:
        """The text of these tokens. Bytes that are no text become replacement characters.

        Raises:
            DataError: there is no such token.
        """
        try:
            joined = "".join(self.tokens[int(number)] for number in numbers)
        except KeyError as error:
            raise DataError(f"there is no token of the number {error}") from None
        values = {character: value for value, character in enumerate(byte_alphabet())}
        if self.end_of_word:
            joined = joined.replace(self.end_of_word, byte_alphabet()[0x20])
        # Tokens that stand for themselves, such as "<|endoftext|>", are of visible characters too.
        return bytes(values[c] for c in joined if c in values).decode("utf-8", "replace")

    def _encode_word(self, word: str) -> tuple[int, ...]:
        symbols = list(_spelled(word))
        symbols[-1] += self.end_of_word
        return tuple(self._number(piece) for piece in self._joined(symbols))

    def _number(self, token: str) -> int:
        number = self.vocab.get(token, self.vocab.get(self.unknown) if self.unknown else None)
        if number is None:
            raise DataError(f"the token {token!r} is not in the vocabulary", token=token)
        return number

    def _joined(self, symbols: list[str]) -> list[str]:
        """Join neighbours until no pair is left that was learned; the earliest learned first.

        A queue of pairs keeps this fast for words of any length: the neighbours of a joined pair
        make new pairs, and old ones that no longer stand there are passed over.
        """
        ranks, count = self.ranks, len(symbols)
        after, before = list(range(1, count + 1)), list(range(-1, count - 1))
        queue: list[tuple[int, int, str, str]] = []

        def add(left: int, right: int) -> None:
            if left >= 0 and right < count:
                pair = symbols[left], symbols[right]
                if pair in ranks:
                    heapq.heappush(queue, (ranks[pair], left, *pair))

        for i in range(count - 1):
            add(i, i + 1)
        while queue:
            _, left, first, second = heapq.heappop(queue)
            right = after[left]
            if symbols[left] != first or right >= count or symbols[right] != second:
                continue
            symbols[left], symbols[right] = first + second, ""
            after[left] = after[right]
            if after[right] < count:
                before[after[right]] = left
            add(before[left], left)
            add(left, after[left])
        return [symbol for symbol in symbols if symbol]


# -- files -----------------------------------------------------------------------------------


def read_vocab(path: str | Path) -> dict[str, int]:
    """The tokens and their numbers of a `vocab.json`.

    Raises:
        DataError: it is no JSON object from text to numbers.
    """
    try:
        vocab = json.loads(Path(path).read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is no vocabulary: {error}", path=str(path)) from None
    if (
        not isinstance(vocab, dict)
        or not vocab
        or not all(type(n) is int and n >= 0 for n in vocab.values())
    ):
        raise DataError(
            f"{path} is no vocabulary: a JSON object from each token to its number is wanted.",
            path=str(path),
        )
    if len(set(vocab.values())) != len(vocab):
        raise DataError(f"{path} gives two tokens one number", path=str(path))
    return vocab


def read_merges(path: str | Path) -> list[tuple[str, str]]:
    """The pairs of a `merges.txt`, in its order.

    Raises:
        DataError: a line is not two tokens with a blank between; names it.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8").split("\n")
    except ValueError as error:
        raise DataError(f"{path} is no list of merges: {error}", path=str(path)) from None
    merges = []
    for number, line in enumerate(lines, start=1):
        if (number == 1 and line.startswith("#version")) or not line.strip():
            continue
        pair = line.rstrip("\r").split(" ")
        if len(pair) != 2 or not all(pair):
            raise DataError(
                f"{path}, line {number}: two tokens with a blank between are wanted, "
                f"not {line[:60]!r}",
                path=str(path),
                line=number,
            )
        merges.append((pair[0], pair[1]))
    return merges
