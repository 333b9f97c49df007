"""Byte-level byte pairs against the tokens of transformers, and damaged files."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from bestiary.core.errors import DataError
from bestiary.text.tokens.bpe import (
    ByteLevelBPE,
    byte_alphabet,
    clip_words,
    gpt2_words,
    read_merges,
    read_vocab,
)

DATA = Path(__file__).parent.parent.parent / "references" / "data" / "bpe-gpt2"
END = "<|endoftext|>"
ROWS = json.loads((DATA / "tokens.json").read_text())["rows"]


@pytest.fixture(scope="module")
def gpt2() -> ByteLevelBPE:
    return ByteLevelBPE.from_files(DATA / "vocab.json", DATA / "merges.txt", special=(END,))


@pytest.mark.parametrize("row", ROWS, ids=lambda row: ascii(row["text"])[:30])
def test_tokens_equal_those_of_transformers(gpt2: ByteLevelBPE, row: dict[str, object]) -> None:
    assert gpt2.encode(str(row["text"])) == row["ids"]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: ascii(row["text"])[:30])
def test_nothing_is_lost(gpt2: ByteLevelBPE, row: dict[str, object]) -> None:
    text = str(row["text"])
    assert gpt2.decode(gpt2.encode(text)) == text
    assert "".join(gpt2_words(text)) == text


def test_every_byte_has_a_character_of_its_own() -> None:
    alphabet = byte_alphabet()
    assert len(set(alphabet)) == 256
    assert alphabet[ord("a")] == "a"
    assert alphabet[0x20] == "Ġ"
    assert not any(c.isspace() for c in alphabet)


def test_words() -> None:
    assert gpt2_words("I've  two ½x") == ["I", "'ve", " ", " two", " ½", "x"]
    assert gpt2_words("end  \n") == ["end", "  \n"]
    assert clip_words("it's 25 big_cats!") == ["it", "'s", "2", "5", "big", "_", "cats", "!"]
    assert clip_words("\x1c\u2003") == ["\x1c"]  # a separator that Unicode calls no space
    assert clip_words("") == []


def small(merges: list[tuple[str, str]], tokens: str) -> ByteLevelBPE:
    vocab = {token: i for i, token in enumerate(tokens.split())}
    return ByteLevelBPE(vocab, merges)


def test_the_earliest_learned_pair_is_joined_first() -> None:
    tokens = "a b c ab bc abc"
    first = small([("a", "b"), ("b", "c"), ("ab", "c")], tokens)
    second = small([("b", "c"), ("a", "b"), ("ab", "c")], tokens)
    assert first.encode("abc") == [5]
    assert second.encode("abc") == [0, 4]


def test_of_equal_pairs_the_leftmost_is_joined() -> None:
    bpe = small([("a", "a"), ("aa", "aa")], "a aa aaaa")
    assert bpe.encode("aaa") == [1, 0]
    assert bpe.encode("aaaaaaa") == [2, 1, 0]


def test_a_merge_that_is_listed_twice_counts_where_it_stands_first() -> None:
    bpe = small([("a", "b"), ("b", "c"), ("a", "b")], "a b c ab bc")
    assert bpe.encode("abc") == [3, 2]


def test_a_very_long_word_takes_no_ages(gpt2: ByteLevelBPE) -> None:
    start = time.process_time()
    tokens = gpt2.encode("thetensor" * 20_000)
    assert time.process_time() - start < 20
    assert gpt2.decode(tokens) == "thetensor" * 20_000


def test_what_the_vocabulary_lacks() -> None:
    with pytest.raises(DataError, match="'b'"):
        small([], "a").encode("ab")
    known = ByteLevelBPE({"a": 0, "?": 1}, [], unknown="?")
    assert known.encode("ab") == [0, 1]
    with pytest.raises(DataError, match="number 9"):
        known.decode([0, 9])
    with pytest.raises(DataError, match="missing"):
        ByteLevelBPE({"a": 0}, [], unknown="missing")
    with pytest.raises(DataError, match="<end>"):
        ByteLevelBPE({"a": 0}, [], special=("<end>",))


def test_bytes_that_are_no_text(gpt2: ByteLevelBPE) -> None:
    number = gpt2.vocab[byte_alphabet()[0xFF]]
    assert gpt2.decode([number]) == "\ufffd"
    assert gpt2.decode(gpt2.encode("a\ud800b")) == "a\ufffdb"


@pytest.mark.parametrize(
    "content",
    ["", "[]", "{}", '{"a": "b"}', '{"a": -1}', '{"a": true}', "{", '{"a": 0, "b": 0}', "[" * 9999],
)
def test_damaged_vocabularies(tmp_path: Path, content: str) -> None:
    path = tmp_path / "vocab.json"
    path.write_text(content)
    with pytest.raises(DataError, match=r"vocab\.json"):
        read_vocab(path)


def test_damaged_merges(tmp_path: Path) -> None:
    path = tmp_path / "merges.txt"
    path.write_text("#version: 0.2\na b\nc\n")
    with pytest.raises(DataError, match="line 3") as caught:
        read_merges(path)
    assert caught.value.line == 3
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(DataError, match=r"merges\.txt"):
        read_merges(path)
    path.write_bytes(b"a b\r\n# c\r\n\r\n")
    assert read_merges(path) == [("a", "b"), ("#", "c")]
