"""A `tokenizer.json`, through the library `tokenizers` (extra `text`)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ...core.errors import DataError, MissingExtra
from .checks import check_ids_of, check_tokenizer_json
from .parts import Pieces, Settings, Template
from .roles import fill_roles

WHOLE = "tokenizer.json"


def available() -> bool:
    """Whether `tokenizers` is installed."""
    try:
        import tokenizers  # noqa: F401
    except ImportError:
        return False
    return True


class Library:
    """An engine around `tokenizers.Tokenizer`.

    Args:
        whole: the library's tokenizer.
    """

    def __init__(self, whole: Any) -> None:
        self.whole = whole
        whole.no_truncation()
        whole.no_padding()
        self.byte_pairs = type(whole.model).__name__ == "BPE"
        self._count_ids()
        # A run of bytes that is no text as a whole is decoded otherwise than its beginning.
        self._bytes: set[int] = set()
        if whole.decoder is not None and "ByteFallback" in repr(whole.decoder):
            found = (whole.token_to_id(f"<0x{value:02X}>") for value in range(256))
            self._bytes = {number for number in found if number is not None}

    def _count_ids(self) -> None:
        added = set(self.whole.get_added_tokens_decoder())
        vocab = self.whole.get_vocab(with_added_tokens=True)
        self.size = 1 + max(vocab.values(), default=-1)
        self.base = 1 + max((n for n in vocab.values() if n not in added), default=-1)

    def ids(self, texts: Sequence[str]) -> list[list[int]]:
        """The tokens of each text, without those around it."""
        plain = [_valid(text) for text in texts]
        if len(plain) == 1:  # threads cost more than they save
            return [self.whole.encode(plain[0], add_special_tokens=False).ids]
        return [e.ids for e in self.whole.encode_batch_fast(plain, add_special_tokens=False)]

    def pieces(self, text: str) -> Pieces:
        """The tokens of a text with their places."""
        found = self.whole.encode(_valid(text), add_special_tokens=False)
        return Pieces(found.ids, found.offsets, found.word_ids)

    def decode(self, ids: Sequence[int]) -> str:
        """The text of these tokens; ids that there are not are passed over."""
        text: str = self.whole.decode(list(ids), skip_special_tokens=False)
        return text

    def token(self, number: int) -> str | None:
        """The token of an id."""
        token: str | None = self.whole.id_to_token(number)
        return token

    def number(self, token: str) -> int | None:
        """The id of a token."""
        number: int | None = self.whole.token_to_id(token)
        return number

    def held(self, number: int) -> bool:
        """Whether this is one of several bytes that may become a character."""
        return number in self._bytes


def read_library(path: Path, content: bytes, settings: Settings) -> tuple[Library, Template]:
    """The engine of a tokenizer.json, and the tokens that it puts around a text.

    Raises:
        MissingExtra: `tokenizers` is not installed.
        DataError: the file is damaged or unsafe; names it.
    """
    try:
        import tokenizers
    except ImportError:
        raise MissingExtra(
            f"{path} is read by the library tokenizers, which is not installed.\n"
            "pip install 'bestiary[text]'"
        ) from None
    check_tokenizer_json(path, content)
    try:
        whole = tokenizers.Tokenizer.from_buffer(content)
    except BaseException as error:  # the library raises Exception itself, and panics are none
        if isinstance(error, KeyboardInterrupt | SystemExit):
            raise
        raise DataError(f"{path} is damaged: {error}", path=str(path)) from None
    check_ids_of(path, whole)
    padding = whole.padding
    if padding and "pad" not in settings.roles:
        settings.roles["pad"] = str(padding["pad_token"])
    fill_roles(settings, whole.token_to_id)
    if settings.chosen_ends:
        template = None
    else:
        template = _template(path, whole)
    _add_tokens(path, whole, settings)
    # What this file calls special is so, even where the small files do not name it.
    added = whole.get_added_tokens_decoder().values()
    settings.extra += [token.content for token in added if token.special]
    if template is None:
        bos, eos = (settings.roles.get(role, "") for role in ("bos", "eos"))
        template = settings.ends(whole.token_to_id(bos), whole.token_to_id(eos))
    return Library(whole), template


def _add_tokens(path: Path, whole: Any, settings: Settings) -> None:
    """Those that the small files name and this one does not, as far as their ids agree."""
    import tokenizers

    known = {token.content for token in whole.get_added_tokens_decoder().values()}
    new = [token for token in settings.added.values() if token.content not in known]
    for token in sorted(new, key=lambda t: (t.number is None, t.number or 0)):
        add = whole.add_special_tokens if token.special else whole.add_tokens
        add(
            [
                tokenizers.AddedToken(
                    token.content,
                    single_word=token.word,
                    lstrip=token.left,
                    rstrip=token.right,
                    normalized=token.normalized,
                    special=token.special,
                )
            ]
        )
        got = whole.token_to_id(token.content)
        if token.number is not None and got != token.number:
            raise DataError(
                f"{path} and the files beside it disagree: the token {token.content!r} has the id "
                f"{got} in one and {token.number} in the other.",
                path=str(path),
                token=token.content,
            )


def _template(path: Path, whole: Any) -> Template:
    """What the file's post-processor puts around a text, found by what it does."""
    processor = whole.post_processor
    if processor is None:
        return Template()
    import json

    state = json.loads(processor.__getstate__())
    steps = state["processors"] if state.get("type") == "Sequence" else [state]
    template = Template()
    for step in steps:
        kind = step.get("type")
        if kind == "TemplateProcessing":
            template = _written(path, step)
        elif kind in ("BertProcessing", "RobertaProcessing"):
            cls, sep = step["cls"][1], step["sep"][1]
            second = 1 if kind == "BertProcessing" else 0
            between = ((sep, 0),) if kind == "BertProcessing" else ((sep, 0), (sep, 0))
            template = Template(
                ((cls, 0), ("A", 0), (sep, 0)),
                ((cls, 0), ("A", 0), *between, ("B", second), (sep, second)),
            )
        elif kind != "ByteLevel":
            raise DataError(f"{path}: the post-processor {kind!r} is not known", path=str(path))
    return template


def _written(path: Path, step: dict[str, Any]) -> Template:
    def parts(name: str) -> tuple[tuple[int | str, int], ...]:
        found: list[tuple[int | str, int]] = []
        for part in step[name]:
            if "Sequence" in part:
                found.append((part["Sequence"]["id"], part["Sequence"]["type_id"]))
            else:
                token = part["SpecialToken"]
                ids = step["special_tokens"][token["id"]]["ids"]
                found += [(number, token["type_id"]) for number in ids]
        return tuple(found)

    return Template(parts("single"), parts("pair"))


def _valid(text: str) -> str:
    """Half of a surrogate pair is no character: the replacement character stands for it."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text
