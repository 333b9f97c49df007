"""What the parts of a tokenizer hand each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import numpy as np

Array = np.ndarray[Any, Any]
# A part of a template: the id of a special token, or "A" or "B" for a text, and its type id.
Part = tuple[int | str, int]


class Encoded(NamedTuple):
    """A batch of encoded texts, padded to the longest.

    Shape:
        all (B, T): ids int64, mask bool (True = token), types int64.
    """

    ids: Array
    mask: Array
    types: Array


class Spans(NamedTuple):
    """The tokens of a text (or a pair) and where each stands.

    `offsets` are [start, end) in characters of its text; `sequences` says which text: 0, 1 or None
    for a special token; `words` numbers the words of each text.
    """

    ids: list[int]
    offsets: list[tuple[int, int]]
    sequences: list[int | None]
    words: list[int | None]


class Pieces(NamedTuple):
    """The tokens of one text, without those around it."""

    ids: list[int]
    offsets: list[tuple[int, int]]
    words: list[int | None]


class Engine(Protocol):
    """What cuts a text into tokens and joins them again; special tokens in a text are found."""

    @property
    def size(self) -> int:
        """The ids there are: the largest and one."""

    @property
    def base(self) -> int:
        """The size without added tokens."""

    @property
    def byte_pairs(self) -> bool:
        """Whether clean-up of spaces would spoil a decoded text."""

    def ids(self, texts: Sequence[str]) -> list[list[int]]:
        """The tokens of each text, without those around it."""

    def pieces(self, text: str) -> Pieces:
        """The tokens of a text with their places."""

    def decode(self, ids: Sequence[int]) -> str:
        """The text of these tokens."""

    def token(self, number: int) -> str | None:
        """The token of an id."""

    def number(self, token: str) -> int | None:
        """The id of a token."""

    def held(self, number: int) -> bool:
        """Whether the text of this token depends on the one after it."""


@dataclass(frozen=True)
class Template:
    """Which tokens stand around a text, and around a pair of texts."""

    single: tuple[Part, ...] = (("A", 0),)
    pair: tuple[Part, ...] = (("A", 0), ("B", 1))

    def added(self, pair: bool) -> int:
        """How many tokens are added."""
        return sum(isinstance(part, int) for part, _ in (self.pair if pair else self.single))

    def specials(self) -> set[int]:
        """The ids that are added."""
        return {part for part, _ in (*self.single, *self.pair) if isinstance(part, int)}

    def apply(self, first: list[int], second: list[int] | None) -> tuple[list[int], list[int]]:
        """The ids with those around them, and the type of each."""
        ids: list[int] = []
        types: list[int] = []
        for part, kind in self.single if second is None else self.pair:
            some = [part] if isinstance(part, int) else first if part == "A" else second or []
            ids += some
            types += [kind] * len(some)
        return ids, types


def kept(first: int, second: int, room: int) -> tuple[int, int]:
    """How much of two texts is kept in `room` tokens: the longer one is cut first."""
    if first + second <= room:
        return first, second
    short, long = sorted((first, second))
    long = max(short, room - short) if short <= room else short
    if short + long > room:
        short, long = room // 2, room // 2 + room % 2
    return (short, long) if first <= second else (long, short)


@dataclass(frozen=True)
class Added:
    """A token that is one wherever a text holds it.

    `left` and `right`: the spaces on that side belong to it. `word`: only as a word of its own.
    """

    content: str
    number: int | None = None
    special: bool = True
    left: bool = False
    right: bool = False
    word: bool = False
    normalized: bool = False


ROLES = ("bos", "eos", "unk", "sep", "pad", "cls", "mask")


@dataclass
class Settings:
    """What the small files beside a vocabulary say."""

    roles: dict[str, str] = field(default_factory=dict)  # "bos" -> "<s>"
    added: dict[str, Added] = field(default_factory=dict)
    extra: list[str] = field(default_factory=list)  # further special tokens
    kind: str = ""  # "Bert", "GPT2", ...: tokenizer_class without "Tokenizer" and "Fast"
    max_length: int | None = None
    side: str = "right"
    cut_side: str = "right"
    add_bos: bool | None = None
    add_eos: bool | None = None
    clean_up: bool = False
    templates: Any = None  # text, or name -> text
    values: dict[str, Any] = field(default_factory=dict)  # tokenizer_config.json itself
    files: dict[str, bytes] = field(default_factory=dict)

    @property
    def chosen_ends(self) -> bool:
        """Whether the files say themselves which end gets a token."""
        return self.add_bos is not None or self.add_eos is not None

    def ends(self, bos: int | None, eos: int | None) -> Template:
        """The template of the two switches `add_bos_token` and `add_eos_token`."""
        before: tuple[Part, ...] = ((bos, 0),) if self.add_bos and bos is not None else ()
        after: tuple[Part, ...] = ((eos, 0),) if self.add_eos and eos is not None else ()
        single = (*before, ("A", 0), *after)
        second = tuple((part if part != "A" else "B", 1) for part, _ in single)
        return Template(single, (*single, *second))
