"""A bare vocabulary, read by ours: which files, which tokens around a text."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from pathlib import Path

from ...core.errors import DataError
from .bpe import CUTTERS, ByteLevelBPE, read_merges, read_vocab
from .checks import check_vocab
from .own import BytePairs, Own
from .parts import Added, Engine, Settings, Template
from .roles import KINDS, fill_roles
from .sentencepiece import SentencePiece
from .sentencepiece_file import read_piece_model
from .settings import read_bytes
from .wordpiece import WordPiece, read_vocab_txt

PIECES = ("tokenizer.model", "spiece.model", "sentencepiece.bpe.model", "spm.model")
Bare = tuple[Engine, Template, dict[str, bytes]]


def read_bare(root: Path, settings: Settings) -> Bare | None:
    """The engine, the template and the files of the first vocabulary that the folder holds.

    Raises:
        DataError: a file is damaged; names it.
    """
    if (root / "vocab.txt").is_file():
        return _wordpiece(root, settings)
    if (root / "vocab.json").is_file() and (root / "merges.txt").is_file():
        return _byte_pairs(root, settings)
    for name in PIECES:
        if (root / name).is_file():
            return _sentencepiece(root / name, settings)
    return None


def byte_level(
    tokens: list[str],
    merges: list[tuple[str, str]],
    *,
    cutter: str = "gpt-2",
    added: list[Added] | None = None,
    prefix_space: bool = False,
) -> Own:
    """An engine of byte pairs from its parts, such as those in a GGUF file's metadata.

    Args:
        tokens: the token of each id.
        merges: pairs, the first learned first.
        cutter: how texts are cut into words: a name in `CUTTERS`.
        added: tokens that are one wherever a text holds them.
        prefix_space: texts begin with a blank even where they do not.
    Raises:
        DataError: an unknown cutter, or a token that stands twice.
    """
    if cutter not in CUTTERS:
        raise DataError(
            f"texts cannot be cut as {cutter!r} says; known are {', '.join(CUTTERS)}", got=cutter
        )
    vocab = {token: number for number, token in enumerate(tokens)}
    if len(vocab) != len(tokens):
        raise DataError("a token stands twice in the vocabulary", size=len(tokens))
    bpe = ByteLevelBPE(vocab, merges, words=CUTTERS[cutter])
    return Own(BytePairs(bpe, prefix_space=prefix_space), added or [])


def _wordpiece(root: Path, settings: Settings) -> Bare:
    path = root / "vocab.txt"
    vocab, content = read_vocab_txt(path)
    fill_roles(settings, vocab.get, "Bert")
    values = settings.values
    for token in values.get("never_split") or ():
        settings.added.setdefault(token, Added(token, vocab.get(token), special=False))
    try:
        model = WordPiece(
            vocab,
            lower=bool(values.get("do_lower_case", True)),
            strip_accents=values.get("strip_accents"),
            chinese=bool(values.get("tokenize_chinese_chars", True)),
            unknown=settings.roles.get("unk", "[UNK]"),
        )
    except DataError as error:
        raise DataError(f"{path}: {error.message}", path=str(path)) from None
    engine = Own(model, list(settings.added.values()))
    return engine, _around(path, settings, engine, doubled=False, second=1), {path.name: content}


def _byte_pairs(root: Path, settings: Settings) -> Bare:
    paths = root / "vocab.json", root / "merges.txt"
    files = {path.name: read_bytes(path) for path in paths}
    vocab, merges = read_vocab(paths[0]), read_merges(paths[1])
    check_vocab(paths[0], vocab)
    roberta = settings.kind in ("Roberta", "XLMRoberta", "Longformer") or (
        not settings.kind and "<s>" in vocab and "<mask>" in vocab
    )
    fill_roles(settings, vocab.get, "Roberta" if roberta else "GPT2")
    bpe = ByteLevelBPE(vocab, merges, unknown=_known(settings.roles.get("unk"), vocab))
    prefix = bool(settings.values.get("add_prefix_space", False))
    model = BytePairs(bpe, prefix_space=prefix, trim=roberta)
    engine = Own(model, list(settings.added.values()))
    if roberta:
        return engine, _around(paths[0], settings, engine, doubled=True, second=0), files
    bos, eos = (engine.number(settings.roles.get(role, "")) for role in ("bos", "eos"))
    return engine, settings.ends(bos, eos), files


def _known(token: str | None, vocab: dict[str, int]) -> str | None:
    return token if token in vocab else None


def _around(path: Path, settings: Settings, engine: Own, *, doubled: bool, second: int) -> Template:
    """Begin, A, end, B, end: with one or two of them between."""
    cls, sep = (engine.number(settings.roles.get(role, "")) for role in ("cls", "sep"))
    if cls is None or sep is None:
        raise DataError(
            f"{path} has no tokens for the beginning and the end of a text", path=str(path)
        )
    middle = ((sep, 0), (sep, 0)) if doubled else ((sep, 0),)
    return Template(
        ((cls, 0), ("A", 0), (sep, 0)),
        ((cls, 0), ("A", 0), *middle, ("B", second), (sep, second)),
    )


# What a SentencePiece file is where the folder does not say.
_USUAL = {
    "tokenizer.model": "Llama",
    "spiece.model": "T5",
    "sentencepiece.bpe.model": "XLMRoberta",
    "spm.model": "DebertaV2",
}
# XLM-R's ids: four of its own, then the model's without its first three.
_FAIRSEQ = ("<s>", "<pad>", "</s>", "<unk>")


def _sentencepiece(path: Path, settings: Settings) -> Bare:
    content = read_bytes(path)
    pieces = read_piece_model(path, content)
    files = {path.name: content}
    kind = settings.kind if settings.kind in KINDS else _USUAL[path.name]
    count = len(pieces.pieces)
    values = settings.values
    if kind == "XLMRoberta":
        if count < 3 or pieces.pieces[:3] != ["<unk>", "<s>", "</s>"]:
            raise DataError(f"{path} is no model of XLM-R: it begins {pieces.pieces[:3]}")
        model = SentencePiece(pieces, number=lambda i: (3, 0, 2)[i] if i < 3 else i + 1)
        vocab = {**model.vocab, "<pad>": 1, "<mask>": count + 1}
        for token in ("<pad>", "<mask>"):
            settings.added.setdefault(token, Added(token, vocab[token], left=token == "<mask>"))
    else:
        lower = kind == "Albert" and bool(values.get("do_lower_case", True))
        accents = kind != "Albert" or bool(values.get("keep_accents", False))
        prepare = None if accents and not lower else _plain(lower, accents)
        model = SentencePiece(pieces, prepare=prepare)
        vocab = dict(model.vocab)
    if kind == "T5":
        extra = int(values.get("extra_ids", 100))
        for i in range(extra):
            token = f"<extra_id_{i}>"
            settings.added.setdefault(token, Added(token, count + extra - 1 - i))
    if kind == "DebertaV2":
        settings.added.setdefault("[MASK]", Added("[MASK]", vocab.get("[MASK]", count)))
        vocab.setdefault("[MASK]", count)
    fill_roles(settings, vocab.get, kind)
    engine = Own(model, list(settings.added.values()))
    if kind in ("XLMRoberta", "Albert", "DebertaV2"):
        doubled = kind == "XLMRoberta"
        around = _around(path, settings, engine, doubled=doubled, second=int(not doubled))
        return engine, around, files
    if kind == "T5":
        eos = engine.number(settings.roles.get("eos", "</s>"))
        end: tuple[tuple[int, int], ...] = () if eos is None else ((eos, 0),)
        template = Template((("A", 0), *end), (("A", 0), *end, ("B", 0), *end))
        return engine, template, files
    if not settings.chosen_ends:
        settings.add_bos = kind in ("Llama", "Gemma")
    bos, eos = (engine.number(settings.roles.get(role, "")) for role in ("bos", "eos"))
    return engine, settings.ends(bos, eos), files


def _plain(lower: bool, accents: bool) -> Callable[[str], str]:
    """ALBERT's way to write a text: quotes of one kind, small letters, no accents."""

    def prepare(text: str) -> str:
        text = text.replace("``", '"').replace("''", '"')
        if not accents:
            text = unicodedata.normalize("NFKD", text)
            text = "".join(c for c in text if not unicodedata.combining(c))
        return text.lower() if lower else text

    return prepare
