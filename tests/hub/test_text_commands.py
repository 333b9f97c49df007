"""`bestiary predict` and `bestiary search` with models that read texts."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from bestiary.hub.cli import main

DATA = Path(__file__).parent.parent / "references" / "data"
WORDS = "paris is the capital of france ada lived in london a cat sat on mat dog .".split()


@pytest.fixture
def folder(tmp_path: Path) -> Any:
    def make(head: str = "", **changes: Any) -> str:
        target = tmp_path / f"model{head}"
        shutil.copytree(DATA / f"bert-transformers{head}", target)
        words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
        (target / "vocab.txt").write_text("\n".join(words) + "\n")
        (target / "tokenizer_config.json").write_text('{"tokenizer_class": "BertTokenizer"}')
        said = json.loads((target / "config.json").read_text())
        (target / "config.json").write_text(json.dumps({**said, **changes}))
        return str(target)

    return make


def run(capsys: Any, *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        main(list(arguments))
    said = capsys.readouterr()
    return int(ended.value.code or 0), said.out, said.err


def test_classes(folder: Any, capsys: Any, tmp_path: Path) -> None:
    (tmp_path / "lines.txt").write_text("paris\n\nada lived\n")
    table = tmp_path / "out.csv"
    code, out, _ = run(
        capsys, "predict", folder("-classes"), "a cat", f"@{tmp_path}/lines.txt", "--top", "2",
        "--json", "--csv", str(table),
    )  # fmt: skip
    answers = json.loads(out)
    assert code == 0
    assert list(answers) == ["a cat", "paris", "ada lived"]
    assert all(len(answer) == 2 for answer in answers.values())
    rows = list(csv.DictReader(table.read_text().splitlines()))
    assert len(rows) == 6
    assert rows[0]["input"] == "a cat"
    assert rows[0]["label"] == answers["a cat"][0]["label"]


def test_lines_for_people(folder: Any, capsys: Any) -> None:
    code, out, _ = run(capsys, "predict", folder("-classes"), "a cat")
    assert code == 0
    assert out.splitlines()[0] == "a cat"
    assert "%  LABEL_" in out.splitlines()[1]


def test_gaps_names_answers_and_vectors(folder: Any, capsys: Any) -> None:
    code, out, err = run(
        capsys, "predict", folder("-mask"), "paris is [MASK] .", "no gap", "--top", "1"
    )
    assert code == 1
    assert "has no gap" in err
    assert out.startswith("paris is [MASK] .\n")
    code, out, _ = run(
        capsys, "predict", folder("-spans"), "a cat", "--context", "ada lived in london", "--json"
    )
    answer = json.loads(out)["a cat"][0]
    assert "ada lived in london"[answer["start"] : answer["end"]] == answer["answer"]
    code, out, _ = run(capsys, "predict", folder("-tokens"), "ada lived", "--json")
    assert code == 0
    code, out, _ = run(capsys, "predict", folder(), "ada lived")
    assert "24 numbers: " in out


def test_options_that_make_no_sense(folder: Any, capsys: Any) -> None:
    name = folder("-classes")
    for option in (["--draw", "x"], ["--labels", "a"], ["--context", "a"]):
        code, _, err = run(capsys, "predict", name, "a cat", *option)
        assert code == 2
        assert option[0] in err
    code, _, err = run(capsys, "predict", folder("-spans"), "a cat")
    assert code == 2
    assert "--context" in err
    code, _, err = run(capsys, "predict", name, "@/nowhere/at/all")
    assert code == 2


def test_search(folder: Any, capsys: Any, tmp_path: Path) -> None:
    texts = tmp_path / "texts.txt"
    texts.write_text("a cat sat on the mat\nparis is the capital\nada lived in london\n")
    model, index = folder(), str(tmp_path / "index")
    asked = ("search", str(texts), "paris is the capital", "--model", model, "--index", index)
    code, out, _ = run(capsys, *asked, "--top", "2", "--json")
    found = json.loads(out)
    assert code == 0
    assert found[0]["text"] == "paris is the capital"
    assert found[0]["place"] == "texts.txt:2"
    assert len(found) == 2
    assert (tmp_path / "index" / "vectors.safetensors").is_file()
    code, again, err = run(capsys, *asked)
    assert code == 0
    assert not err
    assert again.splitlines()[0].endswith("texts.txt:2  paris is the capital")
    texts.write_text("a dog\n")
    code, out, err = run(capsys, *asked)
    assert "made anew" in err
    assert out.strip().endswith("a dog")


def test_search_needs_an_embedder(folder: Any, capsys: Any, tmp_path: Path) -> None:
    texts = tmp_path / "texts.txt"
    texts.write_text("a cat\n")
    code, _, err = run(capsys, "search", str(texts), "cat", "--model", folder("-classes"))
    assert code == 1
    assert "needs an embedder" in err
