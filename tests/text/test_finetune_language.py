"""Fine-tuning language models on texts and conversations, whole and by adapters."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bestiary as bt
from bestiary.core.errors import ConfigError, DataError
from bestiary.core.nn.lora import adapters
from bestiary.hub.cli import main
from bestiary.text.finetuning.language import read_rows
from bestiary.text.tasks.generator import TextGenerator

DATA = Path(__file__).parent.parent / "references" / "data"
TEMPLATE = (
    "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }};{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


@pytest.fixture(scope="module")
def model() -> TextGenerator:
    """The small language model of plays that comes with the package."""
    return bt.load("shakespeare")


@pytest.fixture(scope="module")
def talker(tmp_path_factory: Any) -> Any:
    """The same with a chat template."""
    folder = bt.load("shakespeare").save(tmp_path_factory.mktemp("talker") / "model")
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    found = bt.load(folder)
    assert found.tokenizer.chat is not None
    return found


@pytest.fixture
def book(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    people, things = ["Ann", "Bob", "Cid"], ["a pear", "a nut", "some bread"]
    lines = [f"{rng.choice(people)} eats {rng.choice(things)} at noon.\n" for _ in range(100)]
    path = tmp_path / "book.txt"
    path.write_text("".join(lines))
    return path


@pytest.fixture
def chats(tmp_path: Path) -> Path:
    path = tmp_path / "chats.jsonl"
    rows = [
        {"messages": [
            {"role": "user", "content": f"What is {i} plus one?"},
            {"role": "assistant", "content": f"It is {i + 1}."},
            {"role": "user", "content": "Thanks!"},
            {"role": "assistant", "content": "Gladly."},
        ]}
        for i in range(30)
    ]  # fmt: skip
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_it_learns_a_text(model: TextGenerator, book: Path, tmp_path: Path) -> None:
    before = {n: p.numpy().copy() for n, p in model.module.state_dict().items()}
    out = tmp_path / "out"
    new = model.finetune(book, out=out, max_length=48, epochs=2, lr=2e-3, quiet=True)
    first, last = float(new.card.training["perplexity before"]), new.card.results[0]["value"]
    assert last < first / 5
    assert "noon" in new("Bob eats a nut at", max_new_tokens=6)
    after = model.module.state_dict()
    assert all(np.array_equal(v, after[n].numpy()) for n, v in before.items())
    again = bt.load(out)
    assert again("Ann eats", max_new_tokens=8) == new("Ann eats", max_new_tokens=8)
    assert (out / "learning_curve.png").is_file()
    log = bt.read_run(out)
    assert log.scalars["evaluation/perplexity"].last == pytest.approx(last, rel=1e-3)
    measured = again.evaluate(book, max_length=48)
    assert measured["perplexity"] < first and measured["tokens"] > 1000


def test_adapters_learn_alone(model: TextGenerator, book: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    new = model.finetune(book, out=out, max_length=48, lora=4, lr=5e-3, quiet=True)
    assert new.card.results[0]["value"] < float(new.card.training["perplexity before"]) / 2
    layers = dict(adapters(new.module))
    assert layers and "lm_head" not in layers and not list(adapters(model.module))
    for name, layer in layers.items():  # the weights are those of the model, not copies
        assert layer.base_layer.weight is model.module.get_submodule(name).weight
    assert all(p.requires_grad for p in model.module.parameters())
    names = {path.name for path in out.iterdir()}
    assert "adapter_model.safetensors" in names and "model.safetensors" not in names
    assert (out / "adapter_model.safetensors").stat().st_size < 500_000
    again = bt.load(out)
    text = new("Bob eats", max_new_tokens=8)
    assert again("Bob eats", max_new_tokens=8) == text
    assert again.merge_adapter()("Bob eats", max_new_tokens=8) == text
    with pytest.raises(ConfigError, match="no adapter that could be merged"):
        again.merge_adapter()
    plain = model("Bob eats", max_new_tokens=8)
    assert bt.load(out).remove_adapter()("Bob eats", max_new_tokens=8) == plain != text


def test_the_same_seed_gives_the_same_model(model: TextGenerator, book: Path) -> None:
    runs = [model.finetune(book, max_length=32, lora=2, quiet=True) for _ in range(2)]
    one, two = (run.module.state_dict() for run in runs)
    assert all(np.array_equal(one[n].numpy(), two[n].numpy()) for n in one)


def test_only_answers_are_learnt(talker: TextGenerator, chats: Path) -> None:
    rows = read_rows(talker, chats, 200)
    assert rows.chats and len(rows.ids) == 30
    ids, learnt = rows.ids[0], rows.learnt[0]
    said = talker.tokenizer.decode(ids[learnt].tolist())
    assert said == "It is 1.;Gladly.;"
    rest = talker.tokenizer.decode(ids[~learnt].tolist())
    assert rest == "<user>What is 0 plus one?;<assistant><user>Thanks!;<assistant>"
    whole = talker.tokenizer.decode(ids.tolist())
    assert whole.startswith("<user>What is 0 plus one?;<assistant>It is 1.;")


def test_it_learns_to_answer(talker: TextGenerator, chats: Path) -> None:
    new = talker.finetune(chats, epochs=4, lr=3e-3, batch_size=4, quiet=True)
    assert new.card.results[0]["value"] < 3
    answer = new.chat("What is 4 plus one?", max_new_tokens=8)
    assert answer.startswith("It is ")


def test_prompts_and_completions(model: TextGenerator, talker: Any, tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    row = {"prompt": "Q: one? A:", "completion": " two"}
    path.write_text((json.dumps(row) + "\n") * 3)
    rows = read_rows(talker, path, 100)
    assert talker.tokenizer.decode(rows.ids[0][rows.learnt[0]].tolist()) == " two;"
    plain = read_rows(model, path, 100)  # without a template: as they are
    end = [model.tokenizer.eos] if model.tokenizer.eos is not None else []
    assert plain.ids[0].tolist() == [*model.tokenizer.encode("Q: one? A: two"), *end]
    assert model.tokenizer.decode(plain.ids[0][plain.learnt[0]].tolist()).startswith(" two")


def test_windows_hold_every_token_once(model: TextGenerator, tmp_path: Path) -> None:
    path = tmp_path / "texts.csv"
    path.write_text("text\n" + "".join(f"line number {i} of it\n" for i in range(40)))
    rows = read_rows(model, path, 16)
    assert {len(r) for r in rows.ids} == {16} and all(one.all() for one in rows.learnt)
    text = model.tokenizer.decode(np.concatenate(rows.ids).tolist())
    assert "line number 3 of it" in text and text.count("number") >= 35


def test_on_the_command_line(book: Path, tmp_path: Path, capsys: Any) -> None:
    def run(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            main(list(arguments))
        said = capsys.readouterr()
        return int(ended.value.code or 0), said.out, said.err

    out = str(tmp_path / "out")
    options = ["--lora", "2", "--max-length", "32", "--lr", "0.003"]
    code, said, err = run("finetune", "shakespeare", str(book), "-o", out, *options)
    assert code == 0 and said.strip() == out, err
    assert "perplexity of the held-out part before" in err
    code, said, _ = run("evaluate", out, str(book), "--json")
    assert json.loads(said)["perplexity"] > 1
    code, said, _ = run("evaluate", out, str(book))
    assert said.startswith("perplexity ")
    whole = str(tmp_path / "whole")
    code, _, err = run("finetune", "shakespeare", str(book), "-o", whole, *options, "--merge")
    assert code == 0, err
    assert bt.load(whole).adapter is None and not (tmp_path / "whole/adapter_config.json").exists()
    code, _, err = run("finetune", "shakespeare", str(book), "--merge")
    assert code == 2 and "--lora" in err
    code, _, err = run("finetune", "unet-shapes", str(tmp_path), "--lora", "2")
    assert code == 2 and "models that read" in err


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.pdf", "x", "texts are .txt, .md, .csv or .jsonl"),
        ("a.txt", "x", "too few to learn from"),
        ("a.csv", "body\nx\n", "line 1: a text 'text' is wanted, and it has body"),
        ("a.jsonl", '{"text": ""}\n', "line 1: a text 'text' is wanted"),
        ("a.jsonl", '{"messages": []}\n', "an assistant says something"),
        ("a.jsonl", '{"messages": [{"role": "user", "content": "x"}]}\n', "an assistant says"),
        ("a.jsonl", '{"prompt": "x"}\n', "prompt and completion are wanted"),
        (
            "a.jsonl",
            '{"prompt": "x", "completion": "y"}\n{"text": "z"}\n',
            "line 2 has no messages",
        ),
    ],
)
def test_files_that_cannot_be_used(
    model: TextGenerator, tmp_path: Path, name: str, content: str, said: str
) -> None:
    path = tmp_path / name
    path.write_text(content)
    with pytest.raises(DataError, match=said):
        model.finetune(path, quiet=True)


def test_mistakes(model: TextGenerator, talker: Any, book: Path, chats: Path) -> None:
    with pytest.raises(ConfigError, match="has no chat template"):
        model.finetune(chats, quiet=True)
    with pytest.raises(ConfigError, match="no setting 'ranks'; there are: epochs"):
        model.finetune(book, ranks=3, quiet=True)
    with pytest.raises(ConfigError, match="for lora= of 1"):
        model.finetune(book, lora_alpha=3, quiet=True)
    with pytest.raises(ConfigError, match="freeze='trunk'"):
        model.finetune(book, freeze="trunk", lora=4, quiet=True)
    with pytest.raises(DataError, match="begins within 4 tokens"):
        talker.finetune(chats, max_length=4, quiet=True)
    adapted = model.finetune(book, max_length=32, lora=2, quiet=True)
    with pytest.raises(ConfigError, match="has adapters already"):
        adapted.finetune(book, max_length=32, lora=2, quiet=True)


def test_a_model_of_few_bits_learns_by_adapters_alone(book: Path, tmp_path: Path) -> None:
    small = bt.load("shakespeare", dtype="int8")
    with pytest.raises(ConfigError, match="few bits"):
        small.finetune(book, quiet=True)
    new = small.finetune(book, out=tmp_path / "q", max_length=48, lora=4, lr=5e-3, quiet=True)
    assert new.card.results[0]["value"] < float(new.card.training["perplexity before"]) / 2
    again = bt.load(tmp_path / "q", dtype="int8")
    assert again("Bob eats", max_new_tokens=8) == new("Bob eats", max_new_tokens=8)


def test_labels_by_adapters(tmp_path: Path) -> None:
    """A classifier's new head is trained whole beside the adapters, and saved with them."""
    folder = tmp_path / "bert"
    shutil.copytree(DATA / "bert-transformers", folder)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "good", "bad", "film", "the", "was"]
    (folder / "vocab.txt").write_text("\n".join(words) + "\n")
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "BertTokenizer"}')
    table = tmp_path / "films.csv"
    rows = [("the film was good", "yes"), ("the film was bad", "no")] * 20
    table.write_text("text,label\n" + "".join(f"{a},{b}\n" for a, b in rows))
    model = bt.load(folder)
    new = model.finetune(table, out=tmp_path / "out", epochs=20, lora=4, lr=1e-2, quiet=True)
    assert new.evaluate(table)["accuracy"] == 1
    again = bt.load(tmp_path / "out")
    assert again.labels == ["no", "yes"] and again("the film was bad") == new("the film was bad")
    with pytest.raises(ConfigError, match="no lora= beside it"):
        model.finetune(table, freeze="trunk", lora=4, quiet=True)
