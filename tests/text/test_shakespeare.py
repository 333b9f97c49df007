"""The recipe of the bundled language model, small, and the model that is shipped."""

from __future__ import annotations

import importlib.util
import json
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bestiary as bt

RECIPE = Path(__file__).parent.parent.parent / "docs" / "examples" / "shakespeare.py"
PLAY = """THE PLAY

PERSONS REPRESENTED.

Ada.

ACT I.

SCENE I. A room.

Ada.
Who goes there, by the light of yonder moon?

FIRST GUARD.
A friend, my lady,
and no other.

[Exeunt.]
"""
# The beginning of Twelfth Night, which the model never saw.
UNSEEN = """DUKE:
If music be the food of love, play on,
Give me excess of it; that, surfeiting,
The appetite may sicken and so die.--
That strain again;--it had a dying fall;
O, it came o'er my ear like the sweet south
That breathes upon a bank of violets,
Stealing and giving odour.--Enough; no more;
'Tis not so sweet now as it was before.
"""


@pytest.fixture(scope="module")
def recipe() -> Any:
    spec = importlib.util.spec_from_file_location("shakespeare_recipe", RECIPE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_a_play_in_one_form(recipe: Any) -> None:
    text = recipe.cleaned(PLAY)
    assert text.lstrip().startswith("ACT I.\n")
    assert "\n\nADA:\nWho goes there" in text
    assert "\n\nFIRST GUARD:\nA friend" in text
    assert "SCENE I. A room." in text


def test_only_the_known_archive_is_read(recipe: Any, tmp_path: Path) -> None:
    (tmp_path / "other.tar.gz").write_bytes(b"other")
    with pytest.raises(SystemExit, match="sha256"):
        recipe.plays(tmp_path / "other.tar.gz")


def test_the_model_of_five_characters(recipe: Any) -> None:
    train = "abcabcabc" * 40
    assert recipe.n_gram_nats(train, "abcabc") < 0.5 < recipe.n_gram_nats(train, "cbacba")
    assert recipe.n_gram_nats("", "xy") == pytest.approx(math.log(256))


def test_nats_of_a_long_text(recipe: Any) -> None:
    """In windows of a context as long as the text: what the network gives for it at once."""
    from bestiary.text import gpt2

    bt.manual_seed(0)
    module = gpt2.gpt2(gpt2.Config(vocab_size=20, n_positions=64, n_embd=8, n_layer=1, n_head=2))
    ids = np.random.default_rng(0).integers(0, 20, 33)
    with bt.inference_mode():
        logits = module.eval()(bt.tensor(ids[None, :-1])).numpy()[0]
    logs = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    want = -logs[np.arange(32), ids[1:]].sum() / 100
    assert recipe.nats_per_character(module, ids, 100, 64) == pytest.approx(want, rel=1e-5)
    assert recipe.nats_per_character(module, ids, 100, 16) == pytest.approx(want, rel=0.1)


def test_the_recipe_small(recipe: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = recipe.cleaned(PLAY) * 20
    plays = {"a": text, "b": text, recipe.HELD_OUT: recipe.cleaned(PLAY)}
    monkeypatch.setattr(recipe, "plays", lambda path: dict(plays))
    args = recipe.Args(
        data="x", out=str(tmp_path), vocabulary=300, context=16, width=12, layers=1, heads=2,
        steps=12, batch_size=4, warmup=2, save_every=5, quiet=True,
    )  # fmt: skip
    result = recipe.main(args)
    log = json.loads((tmp_path / "log.json").read_text())
    assert log["result"] == result
    assert result["nats per character"] > 0
    model = bt.load(tmp_path / "model")
    assert model("ADA:", max_new_tokens=3, temperature=0)
    assert model.tokenizer.decode(model.tokenizer.encode("ADA:\nWho")) == "ADA:\nWho"
    again = recipe.main(args)  # nothing is left to do
    assert again["nats per character"] == pytest.approx(result["nats per character"])


# -- the model that is shipped ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def model() -> Any:
    return bt.load("shakespeare")


def test_it_is_small_and_needs_no_network(model: Any) -> None:
    folder = Path(bt.__file__).parent / "text" / "assets" / "shakespeare"
    assert sum(p.stat().st_size for p in folder.iterdir()) <= 6e6
    assert model.task == "text-generation"
    assert model.card.source == "this package"


def test_it_reads_what_it_never_saw(model: Any) -> None:
    """Better than a model of five characters (1.9 nats) on the beginning of another play."""
    nats = -model.score(UNSEEN).total / len(UNSEEN)
    assert 0.8 < nats < 1.8
    backwards = -model.score(UNSEEN[::-1]).total / len(UNSEEN)
    assert backwards > nats + 1


def test_it_writes_plays(model: Any) -> None:
    text = model("ROMEO:", max_new_tokens=120, temperature=0.8, seed=3)
    assert text == model("ROMEO:", max_new_tokens=120, temperature=0.8, seed=3)
    assert text != model("ROMEO:", max_new_tokens=120, temperature=0.8, seed=4)
    assert len(text) > 150
    assert text.startswith("\n")
    common = [w for w in ("the", "and", "to", "my", "of", "i", "you", "is") if w in text.split()]
    assert len(common) >= 3


def test_its_own_tokenizer_needs_no_library(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    assert bt.load("shakespeare").tokenizer.encode(UNSEEN) == model.tokenizer.encode(UNSEEN)
