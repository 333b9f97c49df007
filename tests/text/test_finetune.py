"""Fine-tuning an encoder on labelled texts."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bestiary as bt
from bestiary.core.errors import ConfigError, DataError
from bestiary.hub.cli import main
from bestiary.text.finetuning.labels import labelled_texts
from bestiary.text.tasks.classifier import TextClassifier

DATA = Path(__file__).parent.parent / "references" / "data"
GOOD, BAD = "good fine great lovely".split(), "bad poor awful dull".split()
OTHER = "the a film was and it of story".split()


def sentences(count: int = 60) -> list[tuple[str, str]]:
    rng = np.random.default_rng(0)
    rows = []
    for i in range(count):
        words = list(rng.choice(OTHER, int(rng.integers(2, 9))))
        words.insert(int(rng.integers(0, len(words))), str(rng.choice(BAD if i % 2 else GOOD)))
        rows.append((" ".join(words), "no" if i % 2 else "yes"))
    return rows


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "films.csv"
    lines = "".join(f"{text},{label}\n" for text, label in sentences())
    path.write_text(f"text,label\n{lines}")
    return path


def folder(tmp_path: Path, name: str = "bert-transformers") -> Path:
    target = tmp_path / name
    shutil.copytree(DATA / name, target)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *GOOD, *BAD, *OTHER]
    (target / "vocab.txt").write_text("\n".join(words) + "\n")
    (target / "tokenizer_config.json").write_text('{"tokenizer_class": "BertTokenizer"}')
    return target


@pytest.mark.parametrize("name", ["bert-transformers", "bert-transformers-mask"])
def test_it_learns(tmp_path: Path, table: Path, name: str) -> None:
    model = bt.load(folder(tmp_path, name))
    before = {n: t.numpy().copy() for n, t in model.module.state_dict().items()}
    new = model.finetune(table, out=tmp_path / "out", epochs=40, lr=3e-3, head_lr=1e-2, quiet=True)
    assert isinstance(new, TextClassifier)
    assert new.labels == ["no", "yes"]
    assert new.evaluate(table)["accuracy"] > 0.9
    assert new("a lovely film")[0]["label"] == "yes"
    after = model.module.state_dict()
    assert all(np.array_equal(value, after[n].numpy()) for n, value in before.items())
    again = bt.load(tmp_path / "out")
    assert again("a dull story") == new("a dull story")
    assert again.card.results[0]["name"] == "accuracy"
    assert (tmp_path / "out" / "learning_curve.png").is_file()
    assert "held out" in new.card.training["texts"]


def test_the_same_seed_gives_the_same_model(tmp_path: Path, table: Path) -> None:
    model = bt.load(folder(tmp_path))
    first, second = (model.finetune(table, epochs=1, quiet=True) for _ in range(2))
    one, two = first.module.state_dict(), second.module.state_dict()
    assert all(np.array_equal(t.numpy(), two[n].numpy()) for n, t in one.items())


def test_a_frozen_trunk_stays(tmp_path: Path, table: Path) -> None:
    model = bt.load(folder(tmp_path))
    new = model.finetune(table, epochs=2, freeze="trunk", quiet=True)
    old, now = model.module.state_dict(), new.module.state_dict()
    same = [n for n in now if n in old and "pooler" not in n]
    assert same
    assert all(np.array_equal(old[n].numpy(), now[n].numpy()) for n in same)
    assert all(p.requires_grad for p in new.module.parameters())


def test_on_the_command_line(tmp_path: Path, table: Path, capsys: Any) -> None:
    model, out = str(folder(tmp_path)), str(tmp_path / "out")

    def run(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            main(list(arguments))
        said = capsys.readouterr()
        return int(ended.value.code or 0), said.out, said.err

    code, said, err = run("finetune", model, str(table), "-o", out, "--epochs", "2")
    assert code == 0, err
    assert said.strip() == out
    assert "60 texts, 2 labels: no 30, yes 30" in err
    code, said, _ = run("evaluate", out, str(table), "--json")
    assert json.loads(said)["texts"] == 60
    code, said, _ = run("evaluate", out, str(table))
    assert said.startswith("accuracy ")
    code, _, err = run("finetune", model, str(table), "--mixup", "0.2")
    assert code == 2
    assert "--mixup" in err


def test_jsonl_and_other_names(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    rows = [{"body": text, "kind": label} for text, label in sentences(8)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = labelled_texts(path, "body", "kind")
    assert (len(found.texts), found.labels) == (8, ["no", "yes"])


@pytest.mark.parametrize(
    ("content", "word"),
    [
        ("body,label\nx,1\n", "row 1: 'text' and 'label' are wanted, and it has body, label"),
        ("text,label\na,1\n ,1\n", "row 2: the text is empty"),
        ("text,label\na,1\nb,\n", "row 2: the label is empty"),
        ("text,label\na,1\nb,1\n", "has 1 labels in 2 texts"),
        ("text,label\na,1\nb,1\nc,2\n", "Fewer have: 2"),
    ],
)
def test_tables_that_cannot_be_used(tmp_path: Path, content: str, word: str) -> None:
    path = tmp_path / "a.csv"
    path.write_text(content)
    with pytest.raises(DataError, match=word):
        labelled_texts(path)


def test_settings_that_make_no_sense(tmp_path: Path, table: Path) -> None:
    model = bt.load(folder(tmp_path))
    for change in ({"epochs": 0}, {"lr": 0.0}, {"held_out": 1.0}, {"freeze": "head"}):
        with pytest.raises(ConfigError):
            model.finetune(table, quiet=True, **change)
