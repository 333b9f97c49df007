"""Texts to ids and back, with the tokenizer that a model was published with.

A `tokenizer.json` is read by the library `tokenizers` where it is installed (extra `text`); a bare
vocabulary (WordPiece, byte-level byte pairs, SentencePiece) by ours.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np

from ...core.errors import ConfigError, DataError, HubError, MissingExtra
from ...core.paths import atomic
from .library import WHOLE, available, read_library
from .parts import ROLES, Encoded, Engine, Pieces, Settings, Spans, Template, kept
from .settings import read_bytes, read_settings
from .stream import Stream

if TYPE_CHECKING:
    from .chat import ChatTemplate

# A bare vocabulary, one of these.
VOCABULARIES = (
    "vocab.txt",
    "vocab.json and merges.txt",
    "tokenizer.model",
    "spiece.model",
    "sentencepiece.bpe.model",
    "spm.model",
)


class Tokenizer:
    """Texts to ids and back: `ids, mask, types = tokenizer(["Hello!", "A longer text."])`.

    Args:
        engine: what cuts texts and joins tokens.
        template: the tokens around a text or a pair.
        settings: special tokens, lengths, sides.
        name: for messages, such as the folder it was read from.
        files: what it was read from, name -> content, to be saved with a model.
    """

    def __init__(
        self,
        engine: Engine,
        template: Template,
        settings: Settings,
        *,
        name: str = "tokenizer",
        files: Mapping[str, bytes] | None = None,
    ) -> None:
        self.engine, self.template, self.settings, self.name = engine, template, settings, name
        self.files = dict(files or {})
        self.max_length = settings.max_length
        self.side = settings.side
        self.size = engine.size
        self.base = engine.base
        numbers = {
            role: engine.number(settings.roles[role]) if role in settings.roles else None
            for role in ROLES
        }
        self.bos, self.eos, self.unk = numbers["bos"], numbers["eos"], numbers["unk"]
        self.sep, self.pad, self.cls = numbers["sep"], numbers["pad"], numbers["cls"]
        self.mask = numbers["mask"]
        special = [token.content for token in settings.added.values() if token.special]
        found = (engine.number(token) for token in (*special, *settings.extra))
        self.special: frozenset[int] = frozenset(
            n for n in (*found, *numbers.values(), *template.specials()) if n is not None
        )
        self._cleans = settings.clean_up and not engine.byte_pairs
        self.chat: ChatTemplate | None = None
        if settings.templates:
            from .chat import ChatTemplate

            self.chat = ChatTemplate(settings.templates, tokens=settings.roles, name=name)

    # -- reading and writing -------------------------------------------------------------------

    @classmethod
    def from_folder(cls, folder: str | Path) -> Self:
        """The tokenizer of a model's folder.

        Raises:
            HubError: it holds none; names the files that are wanted.
            MissingExtra: it holds only what `tokenizers` reads, which is not installed.
            DataError: a file is damaged; names it.
        """
        root = Path(folder)
        settings = read_settings(root)
        whole = root / WHOLE
        if whole.is_file() and available():
            content = read_bytes(whole)
            engine, template = read_library(whole, content, settings)
            files = {WHOLE: content, **settings.files}
            return cls(engine, template, settings, name=root.name, files=files)
        from .bare import read_bare

        bare = read_bare(root, settings)
        if bare is not None:
            return cls(*bare[:2], settings, name=root.name, files={**bare[2], **settings.files})
        if whole.is_file():
            raise MissingExtra(
                f"{whole} is read by the library tokenizers, which is not installed.\n"
                "pip install 'bestiary[text]'"
            )
        raise HubError(
            f"{root} holds no tokenizer.\nWanted: {WHOLE}, or one of {', '.join(VOCABULARIES)}.",
            folder=str(root),
        )

    @classmethod
    def from_gguf(cls, metadata: Mapping[str, Any], *, name: str = "tokenizer") -> Self:
        """The tokenizer in the metadata of a GGUF file.

        Raises:
            DataError: it is of a kind that is not supported, or damaged.
        """
        from .gguf import read_gguf

        engine, template, settings, files = read_gguf(metadata)
        return cls(engine, template, settings, name=name, files=files)

    def save(self, folder: str | Path) -> None:
        """Write the files that it was read from."""
        for name, content in self.files.items():
            target = Path(folder) / name
            target.parent.mkdir(parents=True, exist_ok=True)
            with atomic(target) as part:
                part.write_bytes(content)

    # -- texts to ids ----------------------------------------------------------------------------

    def __call__(
        self,
        texts: Sequence[str],
        pairs: Sequence[str] | None = None,
        *,
        max_length: int | None = None,
        truncate: bool = True,
        side: Literal["left", "right"] | None = None,
        special: bool = True,
    ) -> Encoded:
        """The tokens of a list of texts, padded to the longest.

        Args:
            texts: what to encode.
            pairs: the second text of each pair.
            max_length: the most tokens of a row, those around it included; None = as configured.
            truncate: cut what is longer, of a pair the longer text first.
            side: where padding goes; None = as configured.
            special: with the tokens around a text.
        Shape:
            ids, mask, types: (B, T)
        Raises:
            DataError: something that is no list of texts, or lists of different lengths.
            ConfigError: `max_length` leaves no room, or an unknown side.
        """
        side = side or ("left" if self.side == "left" else "right")
        if side not in ("left", "right"):
            raise ConfigError(f"padding goes left or right, not {side!r}", got=side)
        firsts = self.engine.ids(_texts(texts, "texts"))
        seconds: Sequence[list[int] | None] = [None] * len(firsts)
        if pairs is not None:
            seconds = self.engine.ids(_texts(pairs, "pairs"))
            if len(seconds) != len(firsts):
                raise DataError(
                    f"{len(firsts)} texts and {len(seconds)} pairs: one for each is wanted.",
                    texts=len(firsts),
                    pairs=len(seconds),
                )
        room = self._room(max_length, pairs is not None, special) if truncate else None
        template = self.template if special else Template()
        rows = [
            template.apply(*self._cut(first, second, room))
            for first, second in zip(firsts, seconds, strict=True)
        ]
        return self._padded(rows, side)

    def encode(self, text: str, pair: str | None = None, *, special: bool = True) -> list[int]:
        """The ids of a text, or of a pair of texts, of any length.

        Args:
            special: with the tokens around it.
        Raises:
            DataError: it is no text.
        """
        second = None if pair is None else self.engine.ids([_text(pair)])[0]
        template = self.template if special else Template()
        return template.apply(self.engine.ids([_text(text)])[0], second)[0]

    def spans(self, text: str, pair: str | None = None) -> Spans:
        """The tokens of a text, or of a pair, with those around them and the place of each.

        Raises:
            DataError: it is no text.
        """
        parts = {"A": self.engine.pieces(_text(text))}
        if pair is not None:
            parts["B"] = self.engine.pieces(_text(pair))
        spans = Spans([], [], [], [])
        for part, _ in self.template.single if pair is None else self.template.pair:
            sequence = None if isinstance(part, int) else "AB".index(part)
            some = Pieces([part], [(0, 0)], [None]) if isinstance(part, int) else parts[part]
            spans.ids.extend(some.ids)
            spans.offsets.extend(some.offsets)
            spans.sequences.extend([sequence] * len(some.ids))
            spans.words.extend(some.words)
        return spans

    def _room(self, max_length: int | None, pair: bool, special: bool) -> int | None:
        limit = self.max_length if max_length is None else max_length
        if limit is None:
            return None
        around = self.template.added(pair) if special else 0
        if limit < max(around, 1):
            raise ConfigError(
                f"max_length={limit} has no room: {around} tokens stand around a text.",
                got=limit,
                least=around,
            )
        return limit - around

    def _cut(
        self, first: list[int], second: list[int] | None, room: int | None
    ) -> tuple[list[int], list[int] | None]:
        if room is None or len(first) + len(second or ()) <= room:
            return first, second
        one, two = kept(len(first), len(second or ()), room)
        if second is None:
            one = room
        if self.settings.cut_side == "left":
            first = first[len(first) - one :]
            return first, None if second is None else second[len(second) - two :]
        return first[:one], None if second is None else second[:two]

    def _padded(self, rows: Sequence[tuple[list[int], list[int]]], side: str) -> Encoded:
        longest = max((len(ids) for ids, _ in rows), default=0)
        # Without a token for it any will do: the mask says which are none.
        filler = next((n for n in (self.pad, self.eos) if n is not None), 0)
        ids = np.full((len(rows), longest), filler, np.int64)
        mask, types = np.zeros(ids.shape, bool), np.zeros(ids.shape, np.int64)
        for i, (row, kinds) in enumerate(rows):
            place = slice(longest - len(row), longest) if side == "left" else slice(0, len(row))
            ids[i, place], mask[i, place], types[i, place] = row, True, kinds
        return Encoded(ids, mask, types)

    # -- ids to texts ----------------------------------------------------------------------------

    def decode(self, ids: Iterable[int], *, special: bool = False) -> str:
        """The text of tokens; ids beyond the vocabulary are passed over.

        Args:
            special: show special tokens too.
        Raises:
            DataError: a negative id, or something that is none.
        """
        numbers = _numbers(ids)
        if not special:
            numbers = [number for number in numbers if number not in self.special]
        return self._decode(numbers)

    def _decode(self, numbers: Sequence[int]) -> str:
        text = self.engine.decode(numbers)
        return cleaned(text) if self._cleans else text

    def stream(self, *, special: bool = False) -> Stream:
        """Decoding token by token: `push(id)` gives complete characters, `finish()` the rest.

        Args:
            special: show special tokens too.
        """
        skipped = frozenset() if special else self.special
        return Stream(self._decode, self.engine.held, skipped=skipped, cleans=self._cleans)

    def token(self, number: int) -> str:
        """The token of an id.

        Raises:
            DataError: there is none.
        """
        token = self.engine.token(int(number)) if number >= 0 else None
        if token is None:
            raise DataError(f"{self.name} has no token of the id {number}", id=int(number))
        return token

    def number(self, token: str) -> int | None:
        """The id of a token, None if there is none."""
        return self.engine.number(token)

    def __repr__(self) -> str:
        return f"Tokenizer({self.name!r}, size={self.size}, max_length={self.max_length})"


def cleaned(text: str) -> str:
    """Without the blanks before marks and contractions that cutting into words left."""
    for spaced in (" .", " ?", " !", " ,", " ' ", " n't", " 'm", " 's", " 've", " 're"):
        text = text.replace(spaced, spaced.strip())
    return text


def _text(text: Any) -> str:
    if not isinstance(text, str):
        raise DataError(f"a text is wanted, not {type(text).__name__}: {text!r:.60}", got=text)
    return text


def _texts(texts: Any, name: str) -> Sequence[str]:
    if isinstance(texts, str):
        raise DataError(
            f"{name} is one text; a list is wanted: tokenizer([{texts!r:.40}])", got=texts
        )
    try:
        found = list(texts)
    except TypeError:
        raise DataError(f"{name}: a list of texts is wanted, not {texts!r:.60}") from None
    for i, text in enumerate(found):
        if not isinstance(text, str):
            raise DataError(
                f"{name}[{i}] is no text but {type(text).__name__}: {text!r:.60}", index=i
            )
    return found


def _numbers(ids: Any) -> list[int]:
    try:
        numbers = [int(number) for number in ids]
    except (TypeError, ValueError):
        raise DataError(f"a list of ids is wanted, not {ids!r:.60}") from None
    wrong = next((n for n in numbers if n < 0 or n >= 1 << 32), None)
    if wrong is not None:
        raise DataError(f"{wrong} is no id of a token", id=wrong)
    return numbers
