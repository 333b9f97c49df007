"""The task that turns one text into another: arguments, batches, streams, saving, bad input."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

import bestiary as bt
from bestiary.core.errors import ConfigError, DataError, HubError

pytest.importorskip("tokenizers")
DATA = Path(__file__).parents[1] / "references" / "data"


@pytest.fixture(scope="module")
def model(tmp_path_factory: Any) -> Any:
    """A tiny T5 with a tokenizer of words."""
    folder = tmp_path_factory.mktemp("t5") / "model"
    shutil.copytree(DATA / "t5-transformers", folder)
    words = {"<pad>": 0, "</s>": 1, "<unk>": 2} | {f"w{i}": i for i in range(3, 101)}
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    made = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", 1)]
    )
    made.add_special_tokens(["<pad>", "</s>", "<unk>"])
    made.save(str(folder / "tokenizer.json"))
    said = {"eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(said))
    return bt.load(folder)


def test_texts_and_batches(model: Any) -> None:
    texts = ["w5 w6 w7", "w9", "w10 w20 w30 w40 w50"]
    alone = [model(text, max_new_tokens=8) for text in texts]
    assert all(isinstance(text, str) and text for text in alone)
    assert model(texts, max_new_tokens=8) == alone
    assert model(texts, max_new_tokens=8, batch_size=2) == alone
    assert "".join(model.stream(texts[2], max_new_tokens=8)) == alone[2]
    found = model(texts[0], max_new_tokens=8, details=True)
    assert found.text == alone[0] and len(found.logprobs) == len(found.ids) <= 8
    assert found.finish in ("end", "length")


def test_beams_find_what_is_more_probable(model: Any) -> None:
    one = model("w5 w6 w7", max_new_tokens=6, min_new_tokens=6, details=True)
    more = {"num_beams": 5, "num_return_sequences": 2}
    best, second = model("w5 w6 w7", max_new_tokens=6, min_new_tokens=6, details=True, **more)
    assert best.score >= second.score
    assert sum(best.logprobs) >= sum(one.logprobs) - 1e-4


def test_seeds_repeat(model: Any) -> None:
    how = {"temperature": 1.5, "seed": 3, "max_new_tokens": 12}
    assert model("w5", **how) == model("w5", **how) != model("w5", **{**how, "seed": 4})


def test_saved_and_loaded_again(model: Any, tmp_path: Path) -> None:
    again = bt.load(model.save(tmp_path / "saved"))
    assert again("w5 w6", max_new_tokens=9) == model("w5 w6", max_new_tokens=9)
    said = json.loads((tmp_path / "saved" / "generation_config.json").read_text())
    assert said["decoder_start_token_id"] == 0


def test_mistakes(model: Any) -> None:
    for empty in ("", "  "):
        with pytest.raises(DataError, match="empty"):
            model(empty)
    with pytest.raises(DataError, match="a text"):
        model([3])
    with pytest.raises(ConfigError, match="streamed"):
        model.stream("w5", num_beams=3)
    with pytest.raises(ConfigError, match="batch_size"):
        model("w5", batch_size=0)
    with pytest.raises(ConfigError, match="num_beams"):
        model("w5", beams=3)
    with pytest.raises(HubError, match=r"tokenizer\.json"):
        bt.load(DATA / "t5-transformers")("w5")
