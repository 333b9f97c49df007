"""Encoding with a SentencePiece model: the likeliest pieces (unigram), or byte pairs of characters.

Sources: Kudo 2018, "Subword regularization"; Kudo and Richardson 2018, "SentencePiece".
"""

from __future__ import annotations

import heapq
import re
import struct
from collections.abc import Callable, Iterable, Sequence

from .parts import Pieces
from .sentencepiece_file import BPE, BYTE, CONTROL, UNKNOWN, UNUSED, USER, CharsMap, PieceModel

BLANK = "\u2581"
_UNKNOWN_COST = 10.0
_BYTE = re.compile("<0x([0-9A-F]{2})>")
_float = struct.Struct("f")


class SentencePiece:
    """A way to cut texts, for `Own`.

    Args:
        model: what a file holds.
        number: the id of a piece in the model's own order -> the id that is used.
        prepare: what is done to a text first.
    """

    byte_pairs = True

    def __init__(
        self,
        model: PieceModel,
        *,
        number: Callable[[int], int] = int,
        prepare: Callable[[str], str] | None = None,
    ) -> None:
        self.model, self.prepare = model, prepare
        self._map = CharsMap(model.charsmap)
        self._number = number
        self.vocab = {piece: number(i) for i, piece in enumerate(model.pieces)}
        plain = [i for i, t in enumerate(model.types) if t not in (UNKNOWN, CONTROL, BYTE)]
        self._ids = {model.pieces[i]: i for i in plain}
        self._longest = max((len(piece) for piece in self._ids), default=1)
        scores = [model.scores[i] for i in plain if model.types[i] != USER] or [0.0]
        self._least, self._most = min(scores), max(scores)
        user = [p for p, i in self._ids.items() if model.types[i] == USER]
        self._whole = re.compile("|".join(map(re.escape, sorted(user, key=len, reverse=True))))
        self._has_whole = bool(user)
        self._unknown = model.types.index(UNKNOWN) if UNKNOWN in model.types else 0
        order = {piece: i for i, piece in enumerate(model.pieces)}
        found = [order.get(f"<0x{n:02X}>", -1) for n in range(256)]
        self._bytes = found if model.byte_fallback and min(found) >= 0 else []

    # -- the text before it is cut ---------------------------------------------------------------

    def normalized(self, text: str) -> tuple[str, list[int]]:
        """The text as the pieces write it, and where each character comes from."""
        written, places = self._replaced(text)
        model = self.model
        if model.one_space:
            kept = [
                i for i, c in enumerate(written) if c != " " or (i > 0 and written[i - 1] != " ")
            ]
            while kept and written[kept[-1]] == " ":
                kept.pop()
            written = [written[i] for i in kept]
            places = [places[i] for i in kept]
        if not written:
            return "", []
        if model.dummy_prefix:
            written, places = [" ", *written], [places[0], *places]
        whole = "".join(written)
        return (whole.replace(" ", BLANK) if model.escape else whole), places

    def _replaced(self, text: str) -> tuple[list[str], list[int]]:
        valid = text.encode("utf-8", "replace") if not text.isascii() else text.encode()
        written: list[str] = []
        places: list[int] = []
        byte = place = 0
        while place < len(text):
            user = self._whole.match(text, place) if self._has_whole else None
            found = None if user else self._map.longest(valid, byte)
            if user:
                new, count = user[0], len(user[0])
            elif found:
                new = found[1]
                count = len(valid[byte : byte + found[0]].decode("utf-8", "replace"))
            else:
                new, count = text[place], 1
            written += new
            places += [place] * len(new)
            byte += len(text[place : place + count].encode("utf-8", "replace"))
            place += count
        return written, places

    # -- cutting -----------------------------------------------------------------------------------

    def pieces(self, text: str) -> Pieces:
        """Its tokens; offsets and words from 0."""
        valid = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        prepared = self.prepare(valid) if self.prepare else valid
        whole, places = self.normalized(prepared)
        ends = [*places[1:], len(prepared)]
        cut = self._pairs(whole) if self.model.kind == BPE else self._likeliest(whole)
        pieces = Pieces([], [], [])
        word, place, unknown = -1, 0, False
        for size, i in cut:
            piece = whole[place : place + size]
            blanks = min(len(piece) - len(piece.lstrip(BLANK)), size - 1)
            word += int(piece.startswith(BLANK) or word < 0)
            span = (places[place + blanks], max(ends[place : place + size]))
            numbers = [i]
            if i == self._unknown and self._bytes:
                numbers = [self._bytes[value] for value in piece.encode()]
            elif i == self._unknown and unknown:
                # One token for a run of what is not known.
                pieces.offsets[-1] = (pieces.offsets[-1][0], span[1])
                numbers = []
            unknown = i == self._unknown
            pieces.ids.extend(map(self._number, numbers))
            pieces.offsets.extend([span] * len(numbers))
            pieces.words.extend([word] * len(numbers))
            place += size
        return pieces

    def _likeliest(self, text: str) -> list[tuple[int, int]]:
        """(length, id) of the pieces with the largest sum of scores, in single precision."""
        unknown = self._least - _UNKNOWN_COST
        best: list[tuple[float, int, int] | None] = [None] * (len(text) + 1)
        best[0] = (0.0, 0, 0)
        for start in range(len(text)):
            here = best[start]
            assert here is not None
            single = False
            for end in range(start + 1, min(start + self._longest, len(text)) + 1):
                i = self._ids.get(text[start:end])
                if i is None or self.model.types[i] == UNUSED:
                    continue
                single |= end == start + 1
                score = self._score(i, end - start, text[start:end])
                self._better(best, here[0] + score, start, end, i)
            if not single:
                self._better(best, here[0] + unknown, start, start + 1, self._unknown)
        found, end = [], len(text)
        while end:
            step = best[end]
            assert step is not None
            found.append((end - step[1], step[2]))
            end = step[1]
        return found[::-1]

    def _score(self, i: int, size: int, piece: str) -> float:
        if self.model.types[i] == USER:
            return float(len(piece.encode()) * self._most - 0.1)
        return self.model.scores[i]

    @staticmethod
    def _better(
        best: list[tuple[float, int, int] | None], score: float, start: int, end: int, i: int
    ) -> None:
        (score,) = _float.unpack(_float.pack(score))
        old = best[end]
        if old is None or score > old[0]:
            best[end] = (score, start, i)

    def _pairs(self, text: str) -> list[tuple[int, int]]:
        """(length, id): neighbours are joined, the best score first, of equals the leftmost."""
        symbols, whole = [], []
        place = 0
        while place < len(text):
            user = self._whole.match(text, place) if self._has_whole else None
            symbols.append(user[0] if user else text[place])
            whole.append(user is not None)
            place += len(symbols[-1])
        count = len(symbols)
        after, before = list(range(1, count + 1)), list(range(-1, count - 1))
        queue: list[tuple[float, int, str, str]] = []
        scores, types = self.model.scores, self.model.types

        def add(left: int, right: int) -> None:
            if left < 0 or right >= count or whole[left] or whole[right]:
                return
            i = self._ids.get(symbols[left] + symbols[right])
            if i is not None and types[i] != UNUSED:
                heapq.heappush(queue, (-scores[i], left, symbols[left], symbols[right]))

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
        return [(len(s), self._ids.get(s, self._unknown)) for s in symbols if s]

    # -- joining -----------------------------------------------------------------------------------

    def decode(self, tokens: Sequence[str], added: Iterable[str]) -> str:
        """The text of tokens, some of which were added; a run of bytes is text as a whole."""
        known = set(added)
        text, run = "", b""
        for token in tokens:
            byte = _BYTE.fullmatch(token) if self._bytes else None
            if byte:
                run += bytes([int(byte[1], 16)])
                continue
            text, run = text + _text_of(run), b""
            text += token if token in known else token.replace(BLANK, " ")
        text += _text_of(run)
        blank = self.model.dummy_prefix and tokens and tokens[0].startswith(BLANK)
        return text[1:] if blank else text

    def held(self, token: str) -> bool:
        """Whether this is one of several bytes that may become a character."""
        return bool(self._bytes) and _BYTE.fullmatch(token) is not None


def _text_of(run: bytes) -> str:
    try:
        return run.decode("utf-8")
    except UnicodeDecodeError:
        return "\ufffd" * len(run)
