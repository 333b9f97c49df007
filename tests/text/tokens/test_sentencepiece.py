"""SentencePiece models: ids of their own library, layouts of transformers, damaged files."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from bestiary.core.errors import DataError
from bestiary.text.tokens.own import Own
from bestiary.text.tokens.sentencepiece import SentencePiece
from bestiary.text.tokens.sentencepiece_file import CharsMap, read_piece_model
from bestiary.text.tokens.tokenizer import Tokenizer

DATA = Path(__file__).parent.parent.parent / "references" / "data" / "sentencepiece"
FOUND: dict[str, Any] = json.loads((DATA / "tokens.json").read_text())
NAMES = ("unigram-nfkc", "unigram-bytes", "pairs-bytes")
KINDS = ("T5", "XLMRoberta", "Llama")


def content(name: str) -> bytes:
    return gzip.decompress((DATA / f"{name}.model.gz").read_bytes())


def engine(name: str) -> Own:
    return Own(SentencePiece(read_piece_model(Path(name), content(name))))


def folder_of(kind: str, tmp_path: Path) -> Path:
    (tmp_path / FOUND[kind]["file"]).write_bytes(content(FOUND[kind]["model"]))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(FOUND[kind]["config"]))
    return tmp_path


@pytest.mark.parametrize("name", NAMES)
def test_ids_equal_the_librarys(name: str, lines: list[str]) -> None:
    ours, wanted = engine(name), FOUND[name]
    usable = [line for line in lines if "\0" not in line]
    assert len(usable) == wanted["lines"]
    for line, ids, text in zip(usable, wanted["ids"], wanted["texts"], strict=False):
        assert ours.pieces(line).ids == ids, ascii(line)
        if 0 not in ids:  # the library writes a sign for what it does not know
            assert ours.decode(ids) == text
    every = json.dumps(ours.ids(usable)).encode()
    assert hashlib.sha256(every).hexdigest() == wanted["sha256"]


@pytest.mark.parametrize("kind", KINDS)
def test_layouts_equal_those_of_transformers(kind: str, tmp_path: Path) -> None:
    tokenizer, wanted = Tokenizer.from_folder(folder_of(kind, tmp_path)), FOUND[kind]
    assert tokenizer.size == wanted["size"]
    assert tokenizer.eos == wanted["eos"]
    for text, ids in zip(wanted["texts"], wanted["ids"], strict=True):
        assert tokenizer.encode(text) == ids, text
    assert tokenizer.encode("the Fox", "dogs") == wanted["pair"]
    assert tokenizer.decode(wanted["ids"][0]) == wanted["texts"][0]


@pytest.mark.parametrize("kind", KINDS)
def test_a_stream_gives_the_whole_text(kind: str, tmp_path: Path, lines: list[str]) -> None:
    tokenizer = Tokenizer.from_folder(folder_of(kind, tmp_path))
    for line in lines[:300]:
        ids = tokenizer.encode(line)
        stream = tokenizer.stream()
        assert "".join(map(stream.push, ids)) + stream.finish() == tokenizer.decode(ids)


def test_bytes_are_given_as_whole_characters(tmp_path: Path) -> None:
    tokenizer = Tokenizer.from_folder(folder_of("Llama", tmp_path))
    ids = tokenizer.encode("a𓀀b")
    stream = tokenizer.stream()
    parts = [part for number in ids if (part := stream.push(number))]
    assert any("𓀀" in part for part in parts) and "".join(parts) + stream.finish() == "a𓀀b"
    broken = [number for number in ids if tokenizer.token(number) != "<0x93>"]
    assert "\ufffd" in tokenizer.decode(broken)


def test_spans_are_places_in_the_text(tmp_path: Path) -> None:
    text = "the  ﬁ Fox, don't"
    for kind in ("T5", "Llama"):
        spans = Tokenizer.from_folder(folder_of(kind, tmp_path)).spans(text)
        assert len(spans.ids) == len(spans.offsets) == len(spans.words) == len(spans.sequences)
        for (start, end), sequence in zip(spans.offsets, spans.sequences, strict=True):
            assert 0 <= start <= end <= len(text)
            assert (start, end) == (0, 0) or sequence == 0
        assert {c for s, e in spans.offsets for c in text[s:e]} >= set("theFoxdn")
        words = [word for word in spans.words if word is not None]
        assert words == sorted(words)


def test_extra_tokens_of_t5(tmp_path: Path) -> None:
    tokenizer = Tokenizer.from_folder(folder_of("T5", tmp_path))
    assert tokenizer.number("<extra_id_0>") == tokenizer.size - 1
    ids = tokenizer.encode("the <extra_id_1> Fox")
    assert tokenizer.size - 2 in ids
    assert tokenizer.decode(ids) == "the  Fox" or "the Fox" in tokenizer.decode(ids)


def test_empty_texts() -> None:
    for name in NAMES:
        assert engine(name).ids([""]) == [[]]
        assert engine(name).decode([]) == ""
    assert engine("unigram-nfkc").ids(["   "]) == [[]]


@pytest.mark.parametrize(
    "damaged",
    [
        b"",
        b"\x0a",
        b"\x0a\xff",
        b"\x0a\x03\x0a\x01\xff",
        b"\xff" * 12,
        b"\x0f\x00",
        b"\x0a\x03\x0a\x01a\x0a\x03\x0a\x01a",
        b"\x0a\x03\x0a\x01a\x12\x02\x18\x04",
        b"not a model at all",
    ],
)
def test_damaged_files(damaged: bytes, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.model").write_bytes(damaged)
    with pytest.raises(DataError, match=r"tokenizer\.model"):
        Tokenizer.from_folder(tmp_path)


def test_cut_and_flipped_files_end_well(tmp_path: Path) -> None:
    whole = content("unigram-bytes")
    for size in range(0, len(whole), 997):
        with contextlib.suppress(DataError):
            SentencePiece(read_piece_model(tmp_path, whole[:size])).pieces("the Fox")
    for place in range(0, len(whole), 1009):
        flipped = bytearray(whole)
        flipped[place] ^= 0x15
        with contextlib.suppress(DataError):
            SentencePiece(read_piece_model(tmp_path, bytes(flipped))).pieces("the Fox")


def test_damaged_tables_of_characters() -> None:
    with pytest.raises(DataError, match="damaged"):
        CharsMap(b"\xff\xff\xff\xff")
    assert CharsMap(b"").longest(b"a", 0) is None
    assert CharsMap(b"\x04\0\0\0\xff\xff\xff\xff").longest(b"a", 0) is None
