"""Hostile tokenizer.json files (TESTPLAN 19)."""

from __future__ import annotations

import json
import time
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from bestiary.core.errors import DataError
from bestiary.text.tokens.checks import KNOWN, check_expressions, check_tokenizer_json
from bestiary.text.tokens.tokenizer import Tokenizer

pytest.importorskip("tokenizers")


def write(folder: Path, vocab: dict[str, Any], **more: Any) -> Path:
    model = {"type": "WordPiece", "unk_token": "a", "continuing_subword_prefix": "##"}
    model |= {"max_input_chars_per_word": 100, "vocab": vocab}
    whole = {"version": "1.0", "added_tokens": [], "model": model, **more}
    (folder / "tokenizer.json").write_text(json.dumps(whole))
    return folder


def split(expression: str) -> dict[str, Any]:
    pattern = {"type": "Split", "pattern": {"Regex": expression}}
    return {"pre_tokenizer": {**pattern, "behavior": "Isolated", "invert": False}}


@pytest.mark.parametrize(
    "vocab, word",
    [
        ({"a": 0, "b": 2**31 - 1}, "2147483647"),
        ({"a": 0, "b": 2**32 - 1}, "4294967295"),
        ({"a": 0, "b": -1}, "damaged"),
        ({"a": 0, "b": 2**70}, "damaged"),
        ({"a": 0, "b": 1.5}, "damaged"),
        ({"a": 0, "b": 0}, "both"),
        ({}, "empty|damaged"),
    ],
)
def test_ids_that_are_refused(tmp_path: Path, vocab: dict[str, Any], word: str) -> None:
    start = time.process_time()
    with pytest.raises(DataError, match=word) as caught:
        Tokenizer.from_folder(write(tmp_path, vocab))
    assert "tokenizer.json" in str(caught.value)
    assert time.process_time() - start < 2


@pytest.mark.parametrize("content", [b"", b"[]", b"[" * 100_000, b'{"a": ', b"\xff\xfe", b"null"])
def test_damaged_files(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "tokenizer.json").write_bytes(content)
    with pytest.raises(DataError, match=r"tokenizer\.json"):
        Tokenizer.from_folder(tmp_path)


def test_expressions_that_never_end(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="refused") as caught:
        Tokenizer.from_folder(write(tmp_path, {"a": 0}, **split("(a|a|aa)+$")))
    assert caught.value.expressions == ["(a|a|aa)+$"]
    with pytest.raises(DataError, match="regular expressions"):
        Tokenizer.from_folder(write(tmp_path, {"a": 0}, **split("(")))


def test_expressions_that_are_fine(tmp_path: Path) -> None:
    tokenizer = Tokenizer.from_folder(write(tmp_path, {"a": 0}, **split(r"[a-f]+\d?")))
    assert tokenizer.encode("a") == [0]
    for expression in sorted(KNOWN):
        Tokenizer.from_folder(write(tmp_path, {"a": 0}, **split(expression)))


def test_the_known_expressions_pass_the_trial(tmp_path: Path) -> None:
    check_expressions(tmp_path, sorted(KNOWN))


def test_words_that_are_hidden() -> None:
    path = Path("tokenizer.json")
    with pytest.raises(DataError, match="escapes"):
        check_tokenizer_json(path, rb'{"pattern": {"\u0052egex": "(a+)+$"}}')
    check_tokenizer_json(path, rb'{"vocab": {"\\u0052": 1, "\u0120the": 2}}')


def test_the_check_takes_no_more_memory_than_the_file(tmp_path: Path) -> None:
    content = json.dumps({f"token{i}": i for i in range(100_000)}).encode()
    tracemalloc.start()
    check_tokenizer_json(tmp_path, content)
    assert tracemalloc.get_traced_memory()[1] < len(content)
    tracemalloc.stop()
