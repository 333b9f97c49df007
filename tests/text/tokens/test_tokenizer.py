"""Tokenizers by folder: ours against the library's, batches, streams, files that are wrong."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from bestiary.core.errors import ConfigError, DataError, HubError, IndexRangeError, MissingExtra
from bestiary.text.tokens.bare import byte_level
from bestiary.text.tokens.checks import check_ids, check_joined
from bestiary.text.tokens.own import Own
from bestiary.text.tokens.parts import kept
from bestiary.text.tokens.tokenizer import Tokenizer

NAMES = ("bert", "bert-cased", "gpt2", "roberta")


@pytest.mark.parametrize("name", NAMES)
def test_ours_equals_the_library(name: str, folders: dict[str, Path], lines: list[str]) -> None:
    library = Tokenizer.from_folder(folders[name])
    ours = Tokenizer.from_folder(folders[f"{name}-bare"])
    assert isinstance(ours.engine, Own) and not isinstance(library.engine, Own)
    assert ours.size == library.size
    assert ours.template == library.template
    theirs = [library.template.apply(ids, None)[0] for ids in library.engine.ids(lines)]
    for line, ids in zip(lines, theirs, strict=True):
        assert ours.encode(line) == ids, ascii(line)
    for line, ids in zip(lines[:300], theirs, strict=False):
        assert ours.spans(line) == library.spans(line), ascii(line)
        assert ours.decode(ids) == library.decode(ids)
        assert ours.decode(ids, special=True) == library.decode(ids, special=True)


@pytest.mark.parametrize("name", NAMES)
def test_pairs_equal_the_librarys(name: str, folders: dict[str, Path]) -> None:
    tokenizers = pytest.importorskip("tokenizers")
    whole = tokenizers.Tokenizer.from_file(str(folders[name] / "tokenizer.json"))
    for suffix in ("", "-bare"):
        tokenizer = Tokenizer.from_folder(folders[name + suffix])
        wanted = whole.encode("the fox", "lazy dogs")
        got = tokenizer(["the fox"], ["lazy dogs"])
        assert got.ids[0].tolist() == wanted.ids
        assert got.types[0].tolist() == wanted.type_ids
        spans = tokenizer.spans("the fox", "lazy dogs")
        assert spans.ids == wanted.ids and spans.sequences == wanted.sequence_ids


@pytest.mark.parametrize("name", [*NAMES, *(f"{name}-bare" for name in NAMES)])
def test_a_stream_gives_the_whole_text(
    name: str, folders: dict[str, Path], lines: list[str]
) -> None:
    tokenizer = Tokenizer.from_folder(folders[name])
    for line in lines[:300]:
        ids = tokenizer.encode(line)
        stream = tokenizer.stream()
        parts = [stream.push(number) for number in ids]
        assert not any("\ufffd" in part for part in parts) or "\ufffd" in line or "[UNK]" in line
        assert "".join(parts) + stream.finish() == tokenizer.decode(ids)


def test_a_stream_waits_for_the_whole_character(folders: dict[str, Path]) -> None:
    tokenizer = Tokenizer.from_folder(folders["gpt2"])
    ids = tokenizer.encode("𠀋")
    stream = tokenizer.stream()
    parts = [stream.push(number) for number in ids]
    assert len(ids) > 1 and parts == [""] * (len(ids) - 1) + ["𠀋"]
    assert stream.finish() == ""
    for number in ids[:-1]:
        stream.push(number)
    assert stream.finish() == tokenizer.decode(ids[:-1]) and "\ufffd" in tokenizer.decode(ids[:-1])


@pytest.mark.parametrize("suffix", ["", "-bare"])
def test_batches(suffix: str, folders: dict[str, Path]) -> None:
    tokenizer = Tokenizer.from_folder(folders[f"bert{suffix}"])
    ids, mask, types = tokenizer(["the fox", "dogs"], ["over", "the lazy dogs jumps"])
    assert ids.shape == mask.shape == types.shape and ids.dtype == np.int64 and mask.dtype == bool
    assert (ids[~mask] == tokenizer.pad).all()
    assert ids[0, 0] == tokenizer.cls and (ids[mask] == tokenizer.sep).sum() == 4
    assert ids[1][mask[1]].tolist() == tokenizer.encode("dogs", "the lazy dogs jumps")
    assert types[0][mask[0]].tolist() == sorted(types[0][mask[0]].tolist()) and types.max() == 1
    left = tokenizer(["a", "the quick fox"], side="left")
    assert left.mask[0].tolist() == sorted(left.mask[0].tolist()) and left.mask[1].all()
    bare = tokenizer(["the fox"], special=False)
    assert tokenizer.cls not in bare.ids
    assert tokenizer([]).ids.shape == (0, 0)
    assert tokenizer([""]).ids.tolist() == [[tokenizer.cls, tokenizer.sep]]


def test_long_texts_are_cut(folders: dict[str, Path]) -> None:
    tokenizer = Tokenizer.from_folder(folders["bert"])
    assert tokenizer.max_length == 64
    long = "the fox " * 100
    assert tokenizer([long]).ids.shape == (1, 64)
    assert tokenizer([long]).ids[0, -1] == tokenizer.sep
    assert tokenizer([long], truncate=False).ids.shape[1] > 200
    assert tokenizer([long], ["dogs"], max_length=10).ids.shape == (1, 10)
    whole = tokenizer.encode(long, special=False)
    tokenizer.settings.cut_side = "left"
    assert tokenizer([long], max_length=6).ids[0, 1:-1].tolist() == whole[-4:]
    with pytest.raises(ConfigError, match="no room"):
        tokenizer([long], max_length=1)
    assert Tokenizer.from_folder(folders["gpt2"]).max_length is None


def test_of_a_pair_the_longer_is_cut_as_the_library_does(folders: dict[str, Path]) -> None:
    tokenizers = pytest.importorskip("tokenizers")
    whole = tokenizers.Tokenizer.from_file(str(folders["bert"] / "tokenizer.json"))
    for first in range(9):
        for second in range(9):
            for room in range(1, 12):
                whole.enable_truncation(room, strategy="longest_first")
                got = whole.encode("." * first, "." * second, add_special_tokens=False)
                sizes = tuple(got.sequence_ids.count(i) for i in (0, 1))
                assert kept(first, second, room) == sizes, (first, second, room)


@pytest.mark.parametrize("name", ["bert", "bert-bare", "gpt2-bare", "roberta"])
def test_saved_it_is_the_same(name: str, folders: dict[str, Path], tmp_path: Path) -> None:
    tokenizer = Tokenizer.from_folder(folders[name])
    tokenizer.save(tmp_path)
    again = Tokenizer.from_folder(tmp_path)
    assert again.encode("the quick fox") == tokenizer.encode("the quick fox")
    assert again.files == tokenizer.files
    assert (again.pad, again.eos, again.side) == (tokenizer.pad, tokenizer.eos, tokenizer.side)


@pytest.mark.parametrize("suffix", ["", "-bare"])
def test_switches_of_the_configuration(
    suffix: str, folders: dict[str, Path], tmp_path: Path
) -> None:
    shutil.copytree(folders[f"gpt2{suffix}"], tmp_path, dirs_exist_ok=True)
    config = {
        "bos_token": "<|endoftext|>",
        "eos_token": {"content": "<end>", "special": True},
        "add_bos_token": True,
        "add_eos_token": True,
        "padding_side": "left",
        "additional_special_tokens": ["<tool>"],
        "added_tokens_decoder": {"900": {"content": "<end>", "special": True}},
    }
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    tokenizer = Tokenizer.from_folder(tmp_path)
    assert tokenizer.eos == 900 and tokenizer.number("<tool>") == 901 and tokenizer.size == 902
    ids = tokenizer.encode("fox<tool>fox")
    assert ids[0] == tokenizer.bos and ids[-1] == tokenizer.eos and 901 in ids
    assert tokenizer.decode(ids) == "foxfox"
    assert tokenizer.decode(ids[1:-1], special=True) == "fox<tool>fox"
    assert tokenizer(["fox", "the quick fox"]).mask[0, 0] is np.False_
    assert tokenizer.token(900) == "<end>"


def test_what_is_no_text(folders: dict[str, Path]) -> None:
    tokenizer = Tokenizer.from_folder(folders["bert"])
    for wrong in ("a text", [1], [None], 5):
        with pytest.raises(DataError, match="text"):
            tokenizer(wrong)  # type: ignore[arg-type]
    with pytest.raises(DataError, match="text"):
        tokenizer.encode(b"bytes")  # type: ignore[arg-type]
    with pytest.raises(DataError, match="one for each"):
        tokenizer(["a"], ["b", "c"])
    with pytest.raises(ConfigError, match="left or right"):
        tokenizer(["a"], side="top")  # type: ignore[arg-type]
    for wrong in ([-1], ["a"], 3):
        with pytest.raises(DataError):
            tokenizer.decode(wrong)  # type: ignore[arg-type]
    with pytest.raises(DataError, match="999999"):
        tokenizer.token(999_999)
    assert tokenizer.decode([999_999]) == ""
    assert tokenizer.encode("a\ud800b")


def test_missing_and_damaged_files(
    folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(HubError, match=r"tokenizer\.json"):
        Tokenizer.from_folder(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(DataError, match=r"tokenizer\.json is damaged"):
        Tokenizer.from_folder(tmp_path)
    for name in ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"):
        (tmp_path / name).write_text("[1]")
        with pytest.raises(DataError, match=name.replace(".", r"\.")):
            Tokenizer.from_folder(tmp_path)
        (tmp_path / name).unlink()
    (tmp_path / "vocab.txt").write_bytes(b"\xff")
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(DataError, match=r"vocab\.txt"):
        Tokenizer.from_folder(tmp_path)
    (tmp_path / "vocab.txt").unlink()
    with pytest.raises(MissingExtra, match=r"bestiary\[text\]"):
        Tokenizer.from_folder(tmp_path)


def test_ids_beyond_the_models_vocabulary(folders: dict[str, Path]) -> None:
    tokenizer = Tokenizer.from_folder(folders["bert"])
    check_joined(tokenizer, tokenizer.size)
    with pytest.raises(IndexRangeError, match="tiny-bert") as caught:
        check_joined(tokenizer, 50, model="tiny-bert")
    assert caught.value.vocab_size == 50 and caught.value.tokenizer == tokenizer.name
    check_ids(np.zeros((0, 0), int), 5)
    check_ids([[0, 4]], 5)
    with pytest.raises(IndexRangeError, match=r"id 7 .*tiny") as caught:
        check_ids([[0, 7]], 5, tokenizer=tokenizer, model="tiny")
    assert caught.value.id == 7 and tokenizer.name in str(caught.value)
    with pytest.raises(IndexRangeError, match="-1"):
        check_ids([[-1]], 5)


def test_byte_pairs_from_parts() -> None:
    tokens = [chr(n) for n in range(0x21, 0x7F)] + ["Ġ", "ab"]
    engine = byte_level(tokens, [("a", "b")], cutter="llama-bpe")
    assert engine.ids(["ab ab"]) == [[95, 94, 95]]
    assert engine.decode([95, 94, 95]) == "ab ab"
    with pytest.raises(DataError, match="klingon"):
        byte_level(tokens, [], cutter="klingon")
    with pytest.raises(DataError, match="twice"):
        byte_level(["a", "a"], [])
