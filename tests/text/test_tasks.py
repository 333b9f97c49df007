"""Tasks of encoders, with tiny networks and a vocabulary of words: what they say of raw texts."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bestiary as bt
from bestiary.core.errors import ConfigError, DataError, HubError, IndexRangeError, ShapeError
from bestiary.text.search import Index, passages
from bestiary.text.tasks.pooling import Pooling, pooled, read_pooling

DATA = Path(__file__).parent.parent / "references" / "data"
WORDS = "paris is the capital of france ada lived in london and wrote a cat sat on mat dog".split()
VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS, "##s", "##ed", "."]


def model_of(tmp_path: Path, head: str = "", **changes: Any) -> Any:
    """A tiny BERT of a head, with a WordPiece vocabulary."""
    folder = tmp_path / f"model{head}"
    shutil.copytree(DATA / f"bert-transformers{head}", folder)
    words = [*VOCABULARY, *(f"[unused{i}]" for i in range(101 - len(VOCABULARY)))]
    (folder / "vocab.txt").write_text("\n".join(words) + "\n")
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "BertTokenizer"}')
    if changes:
        said = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**said, **changes}))
    return bt.load(folder)


def scores_of(model: Any, text: str, pair: str | None = None) -> Any:
    """The network on one text, by hand."""
    ids, mask, types = model.tokenizer([text], None if pair is None else [pair])
    with bt.inference_mode():
        found = model.module(bt.asarray(ids), bt.asarray(mask), bt.asarray(types))
    return found


# -- classification --------------------------------------------------------------------------------


def test_classifier(tmp_path: Path) -> None:
    model = model_of(tmp_path, "-classes")
    text = "a cat sat on the mat ."
    logits = scores_of(model, text).numpy()[0]
    want = np.exp(logits - logits.max())
    want /= want.sum()
    found = model(text, top=5)
    assert [f["label"] for f in found] == [f"LABEL_{i}" for i in np.argsort(-want)]
    assert np.allclose(sorted((f["score"] for f in found), reverse=True), sorted(want)[::-1])
    many = [text, "dog", "paris is the capital of france and of the cat"] * 3
    rows = model.probabilities(many, batch_size=2)
    assert np.allclose(rows[0], want, atol=1e-6)
    assert np.allclose(rows[:3], rows[3:6], atol=1e-6)
    assert [len(a) for a in model(many, top=2)] == [2] * 9
    assert model.probabilities([]).shape == (0, 5)


def test_single_texts_run_compiled(tmp_path: Path) -> None:
    """With few programs for all lengths, which say what the network says."""
    model = model_of(tmp_path, "-classes")
    texts = ["a cat", "a cat sat on the mat .", "dog " * 9, "dog " * 12]
    for text in texts * 2:
        logits = scores_of(model, text).numpy()[0]
        assert np.allclose(model.scores([text])[0], logits, atol=1e-5)
    assert model._program is not None
    assert len(model._program[1].explain()) == 1  # all are read as 16 tokens
    long = "cat " * 30
    assert np.allclose(model.scores([long])[0], scores_of(model, long).numpy()[0], atol=1e-5)
    model.compile = False
    assert np.allclose(model.scores([long])[0], scores_of(model, long).numpy()[0], atol=1e-6)


def test_pairs_and_one_output(tmp_path: Path) -> None:
    model = bt.load(tmp_path_of(model_of(tmp_path, "-classes"), tmp_path), num_classes=1)
    documents = ["a cat", "a dog sat", "paris"]
    logits = [scores_of(model, "a mat", d).numpy()[0, 0] for d in documents]
    ranked = model.rank("a mat", documents)
    assert [r["index"] for r in ranked] == np.argsort(-np.array(logits)).tolist()
    assert ranked[0]["text"] == documents[ranked[0]["index"]]
    assert 0 < ranked[0]["score"] < 1
    with pytest.raises(DataError, match="3 texts and 1 pairs"):
        model.scores(documents, ["one"])


def tmp_path_of(model: Any, tmp_path: Path) -> Path:
    assert model.labels
    return tmp_path / "model-classes"


def test_several_labels(tmp_path: Path) -> None:
    model = model_of(tmp_path, "-classes", problem_type="multi_label_classification")
    logits = scores_of(model, "dog").numpy()[0]
    assert np.allclose(model.probabilities(["dog"])[0], 1 / (1 + np.exp(-logits)), atol=1e-6)


def test_saved_and_loaded(tmp_path: Path) -> None:
    model = model_of(tmp_path, "-classes")
    model.save(tmp_path / "saved")
    again = bt.load(tmp_path / "saved")
    assert again("a cat") == model("a cat")
    assert again.labels == model.labels


# -- gaps, names, answers --------------------------------------------------------------------------


def test_fill_mask(tmp_path: Path) -> None:
    model = model_of(tmp_path, "-mask")
    text = "paris is the [MASK] of france"
    logits = scores_of(model, text).numpy()[0]
    place = 4
    want = np.exp(logits[place] - logits[place].max())
    want /= want.sum()
    found = model(text, top=3)
    assert [f["id"] for f in found] == np.argsort(-want)[:3].tolist()
    assert np.allclose([f["score"] for f in found], np.sort(want)[::-1][:3], atol=1e-6)
    assert "[MASK]" not in found[0]["text"]
    assert [len(gap) for gap in model("a [MASK] and a [MASK]", top=2)] == [2, 2]
    assert len(model([text, "a [MASK]"], top=1)) == 2
    with pytest.raises(DataError, match=r"text 0 has no gap.*\n.*\[MASK\]"):
        model("paris")


@pytest.mark.parametrize("grouping", ["none", "simple", "first", "average", "max"])
def test_token_classifier(tmp_path: Path, grouping: Any) -> None:
    names = {"0": "O", "1": "B-PER", "2": "I-PER", "3": "B-LOC", "4": "I-LOC"}
    model = model_of(tmp_path, "-tokens", id2label=names)
    text = "ada lived in cats and london ."
    found = model(text, grouping=grouping, ignore=())
    assert all(text[f["start"] : f["end"]] == f["text"] for f in found)
    assert [f["start"] for f in found] == sorted(f["start"] for f in found)
    covered = "".join(f["text"] for f in found).replace(" ", "")
    assert covered == text.replace(" ", "")
    if grouping == "none":
        assert "s" in [f["text"] for f in found]  # the token after "cat"
        logits = scores_of(model, text).numpy()[0, 1:-1]
        assert [f["label"] for f in found] == [names[str(i)] for i in logits.argmax(axis=1)]
    else:
        assert {f["label"] for f in found} <= {"O", "PER", "LOC"}
    assert isinstance(model([text, "dog"]), list)
    with pytest.raises(ConfigError, match="grouping"):
        model(text, grouping="all")


def test_question_answerer(tmp_path: Path) -> None:
    model = model_of(tmp_path, "-spans")
    question, context = "ada lived in", "ada lived in london and wrote a cat ."
    best = model(question, context, max_answer=3)
    assert context[best["start"] : best["end"]] == best["answer"]
    spans = scores_of(model, question, context)
    start, end = spans.start_logits.numpy()[0], spans.end_logits.numpy()[0]
    # [CLS] question [SEP] context [SEP]: the context begins after five tokens.
    allowed = [0, *range(5, len(start) - 1)]
    p, q = (np.exp(x[allowed]) / np.exp(x[allowed]).sum() for x in (start, end))
    grid = np.triu(np.outer(p, q)[1:, 1:])
    grid -= np.triu(grid, 3)
    assert np.isclose(best["score"], grid.max(), atol=1e-6)
    several = model(question, context, top=3)
    assert [a["score"] for a in several] == sorted((a["score"] for a in several), reverse=True)
    assert any(a["answer"] == "" for a in model(question, context, top=99, no_answer=True))


def test_long_contexts_are_read_in_windows(tmp_path: Path) -> None:
    model = model_of(tmp_path, "-spans")
    context = " ".join(["a cat sat on the mat and"] * 20)
    best = model("paris", context, stride=8)
    assert context[best["start"] : best["end"]] == best["answer"]
    with pytest.raises(ConfigError, match="no room"):
        model("paris", context, stride=60)
    for question, text in (("", context), ("paris", "  "), ("paris", None)):
        with pytest.raises(DataError, match="empty"):
            model(question, text)


# -- embeddings ------------------------------------------------------------------------------------


def embedder(tmp_path: Path, steps: list[tuple[str, str]], **files: Any) -> Any:
    model_of(tmp_path)
    folder = tmp_path / "model"
    modules = [{"path": path, "type": f"sentence_transformers.models.{t}"} for path, t in steps]
    (folder / "modules.json").write_text(json.dumps(modules))
    for name, said in files.items():
        path = folder / name.replace("__", "/")
        path.parent.mkdir(exist_ok=True)
        path.with_suffix(".json").write_text(json.dumps(said))
    return bt.load(folder)


def test_embedder_follows_its_folder(tmp_path: Path) -> None:
    model = embedder(
        tmp_path,
        [("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize")],
        **{"1_Pooling__config": {"pooling_mode_cls_token": True}},
        sentence_bert_config={"max_seq_length": 6},
        config_sentence_transformers={"prompts": {"query": "paris "}, "default_prompt_name": None},
    )
    assert model.max_length == 6
    vector = model.encode("a cat sat on the mat and a dog")
    hidden = scores_of(model, "a cat sat on").last_hidden_state.numpy()[0, 0]
    assert np.allclose(vector, hidden / np.linalg.norm(hidden), atol=1e-5)
    asked = model.encode("cat", prompt_name="query")
    assert np.allclose(asked, model.encode("paris cat"), atol=1e-6)
    assert np.allclose(asked, model.encode("cat", prompt="paris "), atol=1e-6)
    with pytest.raises(ConfigError, match="Its prompts: query"):
        model.encode("cat", prompt_name="passage")
    model.save(tmp_path / "saved")
    assert np.allclose(bt.load(tmp_path / "saved").encode("a cat"), model.encode("a cat"))


def test_order_and_padding_change_nothing(tmp_path: Path) -> None:
    model = model_of(tmp_path)
    texts = ["dog", "a cat sat on the mat", "paris is", "the capital of france ."] * 3
    alone = np.stack([model.encode(text) for text in texts])
    assert np.allclose(model.encode(texts, batch_size=5), alone, atol=1e-5)
    assert model.encode([]).shape == (0, 24)
    assert model.dimensions == 24
    likeness = model.similarity(texts[:2], alone[:3])
    assert likeness.shape == (2, 3)
    assert np.isclose(likeness[0, 0], 1, atol=1e-5)
    assert np.ndim(model.similarity("dog", "dog")) == 0


@pytest.mark.parametrize("mode", ["mean", "cls", "max", "last", "mean-sqrt", "weighted-mean"])
def test_pooling_leaves_padding_out(mode: str) -> None:
    rng = np.random.default_rng(0)
    tokens = rng.standard_normal((1, 5, 3)).astype(np.float32)
    padded = np.concatenate([tokens, np.full((1, 2, 3), 99, np.float32)], axis=1)
    mask = np.array([[True] * 5 + [False] * 2])
    got, want = pooled(mode, padded, mask), pooled(mode, tokens, mask[:, :5])
    assert np.allclose(got, want, atol=1e-6)
    if mode == "mean-sqrt":
        assert np.allclose(want, tokens.sum(1) / np.sqrt(5), atol=1e-6)


def test_pooling_that_is_not_known(tmp_path: Path) -> None:
    (tmp_path / "modules.json").write_text('[{"path": "../x", "type": "a.Pooling"}]')
    with pytest.raises(ConfigError, match="leaves"):
        read_pooling(tmp_path)
    (tmp_path / "modules.json").write_text('[{"path": "1", "type": "a.Mystery"}]')
    with pytest.raises(ConfigError, match="Mystery"):
        read_pooling(tmp_path)
    assert read_pooling(None) == Pooling()


# -- search ----------------------------------------------------------------------------------------


def test_search(tmp_path: Path) -> None:
    model = model_of(tmp_path)
    texts = ["a cat sat", "paris is the capital", "a dog and a cat"]
    found = model.search("a cat sat", texts, top=2)
    assert (found[0]["index"], found[0]["text"]) == (0, "a cat sat")
    assert np.isclose(found[0]["score"], 1, atol=1e-5)
    index = model.index(texts)
    index.save(tmp_path / "index")
    again = Index.load(tmp_path / "index")
    assert len(again) == 3
    assert model.search("a cat sat", again, top=9)[0]["text"] == "a cat sat"
    with pytest.raises(ShapeError, match="another model"):
        again.nearest(np.ones(3, np.float32))
    with pytest.raises(ConfigError, match="top=0"):
        model.search("a", again, top=0)
    with pytest.raises(DataError, match="holds no index"):
        Index.load(tmp_path)


def test_passages(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one\n\ntwo words\n")
    assert passages(tmp_path / "a.txt") == (["one", "two words"], ["a.txt:1", "a.txt:3"])
    (tmp_path / "a.csv").write_text("id,text\n1,hello\n2,there\n")
    assert passages(tmp_path / "a.csv")[0] == ["hello", "there"]
    with pytest.raises(DataError, match="has no 'body'; it has id, text"):
        passages(tmp_path / "a.csv", "body")
    (tmp_path / "a.jsonl").write_text('{"text": "x"}\n"y"\n')
    assert passages(tmp_path / "a.jsonl")[0] == ["x", "y"]
    (tmp_path / "b.jsonl").write_text('{"text": "x"}\n{broken\n')
    with pytest.raises(DataError, match=r"b\.jsonl:2"):
        passages(tmp_path / "b.jsonl")
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "c.md").write_text("first\nline\n\n" + "word " * 250)
    texts, places = passages(tmp_path / "docs")
    assert texts[0] == "first line"
    assert [len(t.split()) for t in texts] == [2, 120, 120, 10]
    assert places == ["c.md:1", "c.md:4", "c.md:4", "c.md:4"]
    (tmp_path / "empty.txt").write_text("\n")
    with pytest.raises(DataError, match="no texts"):
        passages(tmp_path / "empty.txt")


# -- mistakes --------------------------------------------------------------------------------------


def test_long_texts_are_cut_or_refused(tmp_path: Path) -> None:
    model = model_of(tmp_path, "-classes")
    long = "a cat sat on the mat " * 30
    cut = " ".join(long.split()[:38])
    assert np.allclose(model.probabilities([long]), model.probabilities([cut]), atol=1e-6)
    with pytest.raises(ShapeError, match="182 > 40") as caught:
        model(long, truncate=False)
    assert "chunks" in str(caught.value)


def test_what_is_no_text(tmp_path: Path) -> None:
    model = model_of(tmp_path)
    with pytest.raises(DataError, match="text 1 is no text but int"):
        model.encode(["a", 3])
    with pytest.raises(DataError, match="not bytes"):
        model.encode(b"a")
    assert model.encode("").shape == (24,)  # nothing but the tokens around it
    with pytest.raises(ConfigError, match="batch_size"):
        model.encode(["a"], batch_size=0)


def test_without_a_tokenizer(tmp_path: Path) -> None:
    model = bt.load(DATA / "bert-transformers")
    with pytest.raises(HubError, match=r"tokenizer\.json"):
        model.encode("a cat")


def test_a_tokenizer_of_another_model(tmp_path: Path) -> None:
    model = model_of(tmp_path)
    words = [*VOCABULARY, *(f"[unused{i}]" for i in range(200))]
    (tmp_path / "model" / "vocab.txt").write_text("\n".join(words) + "\n")
    other = bt.load(tmp_path / "model")
    with pytest.raises(IndexRangeError, match="101"):
        other.encode("a cat")
    assert model.encode("a cat").shape == (24,)
