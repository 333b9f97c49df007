"""CLIP's tokenizer: ours and the library's give the tokens of transformers."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from bestiary.core.errors import ConfigError, DataError, HubError, MissingExtra
from bestiary.text.tokens.clip import ClipTokenizer

DATA = Path(__file__).parent.parent.parent / "references" / "data" / "clip-transformers"
ROWS = json.loads((DATA / "tokens.json").read_text())["rows"]
PAIR = ("vocab.json", "merges.txt")


def folder_of(tmp_path: Path, *names: str) -> Path:
    for name in names:
        shutil.copy(DATA / name, tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> ClipTokenizer:
    folder = folder_of(tmp_path_factory.mktemp("ours"), *PAIR)
    return ClipTokenizer.from_folder(folder, length=1000)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: ascii(row["text"])[:30])
def test_ours_equals_transformers(ours: ClipTokenizer, row: dict[str, object]) -> None:
    ids, mask = ours([str(row["text"])])
    assert ids[0].tolist() == row["ids"]
    assert mask.all()


def test_the_library_equals_transformers(tmp_path: Path) -> None:
    pytest.importorskip("tokenizers")
    tokenizer = ClipTokenizer.from_folder(folder_of(tmp_path, "tokenizer.json"), length=1000)
    assert set(tokenizer.files) == {"tokenizer.json"}
    for row in ROWS:
        assert tokenizer([row["text"]])[0][0].tolist() == row["ids"]


def test_texts_are_padded_and_cut(tmp_path: Path) -> None:
    tokenizer = ClipTokenizer.from_folder(folder_of(tmp_path, *PAIR), length=8)
    ids, mask = tokenizer(["a cat", "", "one two three four five six"])
    assert ids.dtype == np.int64
    assert ids.shape == mask.shape == (3, 8)
    assert (ids[:, 0] == tokenizer.start).all()
    assert (ids[:, -1] == tokenizer.end).all()
    assert ids[1].tolist() == [tokenizer.start] + 7 * [tokenizer.end]
    assert mask[1].tolist() == [True, True] + 6 * [False]
    assert mask[2].all()
    assert tokenizer([])[0].shape == (0, 0)
    with pytest.raises(ConfigError):
        ClipTokenizer(list, 0, 1, length=1)


def test_what_is_no_list_of_texts(ours: ClipTokenizer) -> None:
    for wrong in ("a cat", [1, 2], [None]):
        with pytest.raises(DataError, match="list of texts"):
            ours(wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("names", [PAIR, ("tokenizer.json",)])
def test_saved_it_is_the_same(names: tuple[str, ...], tmp_path: Path) -> None:
    if names != PAIR:
        pytest.importorskip("tokenizers")
    (tmp_path / "a").mkdir()
    tokenizer = ClipTokenizer.from_folder(folder_of(tmp_path / "a", *names))
    tokenizer.save(tmp_path / "b")
    assert sorted(p.name for p in (tmp_path / "b").iterdir()) == sorted(names)
    again = ClipTokenizer.from_folder(tmp_path / "b")
    assert again(["A cat!"])[0].tolist() == tokenizer(["A cat!"])[0].tolist()


def test_folders_without_what_is_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(HubError, match=r"vocab\.json"):
        ClipTokenizer.from_folder(tmp_path)
    folder_of(tmp_path, "vocab.json")
    with pytest.raises(HubError, match=r"merges\.txt"):
        ClipTokenizer.from_folder(tmp_path)
    folder_of(tmp_path, "tokenizer.json")
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(MissingExtra, match=r"bestiary\[text\]"):
        ClipTokenizer.from_folder(tmp_path)
    folder_of(tmp_path, "merges.txt")
    assert set(ClipTokenizer.from_folder(tmp_path).files) == set(PAIR)


def test_damaged_files(tmp_path: Path) -> None:
    folder_of(tmp_path, "merges.txt")
    (tmp_path / "vocab.json").write_text('{"a": 0}')
    with pytest.raises(DataError, match="startoftext"):
        ClipTokenizer.from_folder(tmp_path)
    pytest.importorskip("tokenizers")
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(DataError, match=r"tokenizer\.json"):
        ClipTokenizer.from_folder(tmp_path)
