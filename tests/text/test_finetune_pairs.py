"""Fine-tuning an embedder on pairs of texts."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bestiary as bt
from bestiary.core.errors import ConfigError, DataError
from bestiary.text.finetuning.pairs import _spearman, _vectors, has_pairs, read_pairs
from bestiary.text.tasks.embedder import Embedder

DATA = Path(__file__).parent.parent / "references" / "data"
WORDS = [f"word{i}" for i in range(40)]


@pytest.fixture
def model(tmp_path: Path) -> Embedder:
    folder = tmp_path / "bert"
    shutil.copytree(DATA / "bert-transformers", folder)
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
    (folder / "vocab.txt").write_text("\n".join(vocabulary) + "\n")
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "BertTokenizer"}')
    return bt.load(folder, task="feature-extraction")


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Words of the first half of the vocabulary, each with a partner of the second half."""
    rng = np.random.default_rng(0)
    path = tmp_path / "pairs.csv"
    lines = []
    for _ in range(150):
        chosen = rng.choice(20, 2, replace=False)
        first, second = ([WORDS[i + shift] for i in chosen] for shift in (0, 20))
        rng.shuffle(second)
        lines.append(f"{' '.join(first)},{' '.join(second)}\n")
    path.write_text("first,second\n" + "".join(lines))
    return path


def test_it_learns_what_belongs_together(model: Embedder, table: Path, tmp_path: Path) -> None:
    before = {n: p.numpy().copy() for n, p in model.module.state_dict().items()}
    new = model.finetune(table, out=tmp_path / "out", epochs=25, lr=5e-3, batch_size=16, quiet=True)
    assert isinstance(new, Embedder)
    before_it = float(new.card.training["accuracy before"])
    assert before_it <= 0.2 and new.card.results[0]["value"] >= before_it + 0.3
    after = model.module.state_dict()
    assert all(np.array_equal(v, after[n].numpy()) for n, v in before.items())
    again = bt.load(tmp_path / "out")
    np.testing.assert_allclose(again.encode("word3 word7"), new.encode("word3 word7"), atol=1e-6)


def test_scores_are_learnt(model: Embedder, tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    path = tmp_path / "scored.jsonl"
    rows = []
    for _ in range(120):
        shared = int(rng.integers(0, 4))
        words = rng.choice(40, 9, replace=False)
        first = [*words[:shared], *words[3 : 6 - shared + 0][: 3 - shared]]
        second = [*words[:shared], *words[6 : 9 - shared]]
        texts = [" ".join(WORDS[i] for i in part) for part in (first, second)]
        rows.append({"a": texts[0], "b": texts[1], "score": 5.0 * shared / 3})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = {"names": ("a", "b"), "epochs": 12, "lr": 3e-3, "lora": 8, "quiet": True}
    new = model.finetune(path, out=tmp_path / "out", **settings)
    assert new.card.results[0]["name"] == "rank correlation"
    assert new.card.results[0]["value"] > 0.6
    again = bt.load(tmp_path / "out")
    np.testing.assert_allclose(again.encode("word3"), new.encode("word3"), atol=1e-5)


@pytest.mark.parametrize("mode", ["mean", "cls", "last", "mean-sqrt"])
def test_vectors_that_learn_are_those_that_are_encoded(model: Embedder, mode: str) -> None:
    from bestiary.text.tasks.pooling import Pooling

    model.pooling = Pooling((mode,))
    texts = ["word1 word2 word3", "word9", "word4 word5"]
    encoded = model.tokenizer(texts)
    with bt.no_grad():
        found = _vectors(model.module, (encoded.ids, encoded.mask), mode, "cpu").numpy()
    np.testing.assert_allclose(found, model.encode(texts), atol=1e-6)


def test_rank_correlation() -> None:
    a = np.array([1.0, 2.0, 3.0, 4.0])
    assert _spearman(a, a**3) == pytest.approx(1) and _spearman(a, -a) == pytest.approx(-1)
    assert _spearman(a, np.array([1.0, 1.0, 2.0, 2.0])) == pytest.approx(0.8944, abs=1e-4)
    assert _spearman(a, np.ones(4)) == 0


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("first,third\na,b\n", "row 1: 'first' and 'second' are wanted, and it has first, third"),
        ("first,second\na,\n", "row 1: a text is empty"),
        ("first,second\na,b\nc,d\n", "three are the least"),
        ("first,second,score\na,b,x\n", "'x' is no number"),
        ("first,second,score\na,b,1\nc,d,1\ne,f,1\n", "all alike"),
        ("first,second,score\na,b,1\nc,d,nan\ne,f,1\n", "not finite"),
    ],
)
def test_tables_that_cannot_be_used(tmp_path: Path, content: str, said: str) -> None:
    path = tmp_path / "a.csv"
    path.write_text(content)
    with pytest.raises(DataError, match=said):
        read_pairs(path)


def test_which_file_has_pairs(table: Path, tmp_path: Path) -> None:
    assert has_pairs(table)
    (tmp_path / "b.csv").write_text("text,label\nx,1\n")
    assert not has_pairs(tmp_path / "b.csv")
    assert has_pairs(tmp_path / "b.csv", ("text", "label"))


def test_mistakes(model: Embedder, table: Path) -> None:
    from bestiary.text.tasks.pooling import Pooling

    for change in ({"temperature": 0}, {"batch_size": 1}, {"epochs": 0}):
        with pytest.raises(ConfigError):
            model.finetune(table, quiet=True, **change)
    model.pooling = Pooling(("max",))
    with pytest.raises(ConfigError, match="pools by max"):
        model.finetune(table, quiet=True)


def test_labels_still_make_a_classifier(model: Embedder, tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    path.write_text("text,label\n" + "word1,a\nword2,b\n" * 6)
    found: Any = model.finetune(path, epochs=1, quiet=True)
    assert found.labels == ["a", "b"]
