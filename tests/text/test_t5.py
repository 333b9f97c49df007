"""T5, flan-T5 and mT5 against transformers: padded, cached, searched with beams."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bestiary as bt
from bestiary.core.errors import ConfigError, IndexRangeError, ShapeError
from bestiary.core.weights import load_file
from bestiary.hub.filling import Options
from bestiary.hub.loading import from_folder
from bestiary.hub.sources import Request
from bestiary.text import t5
from bestiary.text.generate.loop import decode
from bestiary.text.generate.settings import Settings
from bestiary.text.generate.steps import Seq2SeqStep

DATA = Path(__file__).parent.parent / "references" / "data"
FOLDERS = sorted(p.parent.name for p in DATA.glob("*t5-transformers*/config.json"))
GENERATING = [n for n in FOLDERS if not n.endswith(("-bare", "-encoder"))]


def opened(name: str) -> tuple[Any, dict[str, np.ndarray]]:
    options = Options(True, bt.float32, None, None, None, None, Request())
    module = from_folder(DATA / name, options).module.eval()
    return module, load_file(DATA / name / "reference.safetensors")


def tokens(array: Any) -> bt.Tensor:
    return bt.asarray(np.asarray(array))


def test_references_are_there() -> None:
    assert len(FOLDERS) == 5 and len(GENERATING) == 3


@pytest.mark.parametrize("name", FOLDERS)
def test_equals_transformers(name: str) -> None:
    module, stored = opened(name)
    ids, mask = tokens(stored["input_ids"]), tokens(stored["mask"])
    with bt.inference_mode():
        states = module.encode(ids, mask).numpy()
        assert np.abs((states - stored["states"]) * stored["mask"][..., None]).max() < 1e-4
        found = module(ids, mask)
        if "output" not in stored:
            assert np.array_equal(found.last_hidden_state.numpy(), states)
            with pytest.raises(ConfigError, match="encoder alone"):
                module.decode(ids, found.last_hidden_state)
            return
        found = module(ids, mask, tokens(stored["decoder_input_ids"]))
        found = found if isinstance(found, bt.Tensor) else found.last_hidden_state
    want = stored["output"]
    assert np.abs(found.numpy() - want).max() < 1e-4 * max(1.0, float(np.abs(want).max()))


@pytest.mark.parametrize("name", GENERATING)
def test_a_cache_changes_nothing(name: str) -> None:
    module, stored = opened(name)
    mask, ids = tokens(stored["mask"]), stored["decoder_input_ids"]
    with bt.inference_mode():
        states = module.encode(tokens(stored["input_ids"]), mask)
        cache = module.cache(3, 24)
        for start, stop in ((0, 1), (1, 9), (9, 10), (10, 24)):
            found = module.decode(tokens(ids[:, start:stop]), states, mask, cache=cache).numpy()
            assert np.abs(found - stored["output"][:, start:stop]).max() < 1e-3
        assert cache.length == 24
        last = module.decode(tokens(ids), states, mask, last=1).numpy()
        assert np.abs(last[:, 0] - stored["output"][:, -1]).max() < 1e-3
        cache.select([2, 0])
        cache.keep(23)
        kept = tokens(stored["mask"][[2, 0]])
        two = module.decode(tokens(ids[[2, 0], 23:]), states, kept, cache=cache).numpy()
        assert np.abs(two[:, 0] - stored["output"][[2, 0], -1]).max() < 1e-3


def written(name: str, room: int, **options: Any) -> tuple[Any, dict[str, np.ndarray]]:
    module, stored = opened(name)
    mask = stored["mask"]
    with bt.inference_mode():
        states = module.encode(tokens(stored["input_ids"]), tokens(mask))
    step = Seq2SeqStep(module, states, mask, room)
    return decode(step, [[0]] * 3, Settings(**options), rooms=[room] * 3), stored


@pytest.mark.parametrize("name", GENERATING)
def test_greedy_texts_are_the_same(name: str) -> None:
    answers, stored = written(name, 50)
    assert [answer.ids for answer in answers] == stored["greedy"].tolist()


@pytest.mark.parametrize("name", GENERATING)
def test_beams_are_the_same(name: str) -> None:
    more = {"num_beams": 4, "num_return_sequences": 2, "eos_token_id": (1,)}
    answers, stored = written(name, 12, **more)
    for answer, want, score in zip(answers, stored["beams"], stored["scores"], strict=True):
        assert answer.ids == want.tolist()[: len(answer.ids)]
        assert abs(answer.score - score) < 1e-4


def test_flan_has_a_head_of_its_own() -> None:
    module, _ = opened("t5-transformers-flan")
    assert module.lm_head.weight is not module.shared.weight
    module, _ = opened("t5-transformers")
    assert module.lm_head.weight is module.shared.weight


@pytest.mark.parametrize("name", ["t5-transformers", "t5-transformers-flan"])
def test_gradients_flow_and_training_lowers_the_loss(name: str) -> None:
    module, stored = opened(name)
    module.train()
    ids, mask = tokens(stored["input_ids"]), tokens(stored["mask"])
    target = tokens(stored["decoder_input_ids"])
    optimizer = bt.optim.AdamW(module.parameters(), lr=3e-3)
    losses = []
    for _ in range(8):
        scores = module(ids, mask, target[:, :-1])
        flat = scores.reshape((-1, 101))
        loss = bt.nn.functional.cross_entropy(flat, target[:, 1:].reshape((-1,)))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.3
    assert all(p.grad is not None for p in module.parameters())


@pytest.mark.parametrize(
    ("name", "parameters"), [("t5-small", 60_506_624), ("flan-t5-small", 76_961_152)]
)
def test_parameters_of_the_entries(name: str, parameters: int) -> None:
    from bestiary.hub.registry import find

    _, entry = find(name)
    c = t5.Config(**entry.config)
    inner, gated = c.num_heads * c.d_kv, c.feed_forward_proj.startswith("gated")
    attention, mlp = 4 * c.d_model * inner, (3 if gated else 2) * c.d_model * c.d_ff
    layers = c.num_layers * (3 * attention + 2 * mlp + 5 * c.d_model)
    tables = 2 * c.relative_attention_num_buckets * c.num_heads + 2 * c.d_model
    words = c.vocab_size * c.d_model * (1 if c.tie_word_embeddings else 2)
    assert entry.parameters == parameters == layers + tables + words


def test_buckets() -> None:
    far = np.array([0, -1, -7, -8, -16, -127, -128, -1000, 1, 500])
    both = t5.buckets(far, both=True, count=32, furthest=128)
    assert both.tolist() == [0, 1, 7, 8, 10, 15, 15, 15, 17, 31]
    before = t5.buckets(far, both=False, count=32, furthest=128)
    assert before.tolist() == [0, 1, 7, 8, 16, 31, 31, 31, 0, 0]


def test_mistakes() -> None:
    module, _ = opened("t5-transformers")
    with pytest.raises(IndexRangeError, match="encoder: token id 101"):
        module(tokens([[5, 101]]))
    states = module.encode(tokens([[5, 6]]))
    with pytest.raises(IndexRangeError, match="decoder: token id 200"):
        module.decode(tokens([[200]]), states)
    with pytest.raises(ShapeError):
        module(bt.zeros((1, 0), dtype=bt.int64))
    with pytest.raises(ShapeError, match="mask"):
        module(tokens([[5, 6]]), tokens([[1, 1, 1]]))
    cache = module.cache(1, 1)
    with pytest.raises(ShapeError, match="grow"):
        module.decode(tokens([[0, 5]]), states, cache=cache)


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"num_layers": 0}, "num_layers"),
        ({"vocab_size": 10**12}, "vocab_size"),
        ({"num_decoder_layers": -1}, "num_decoder_layers"),
        ({"relative_attention_num_buckets": 7}, "even"),
        ({"relative_attention_max_distance": 16}, "more than half"),
        ({"feed_forward_proj": "gated-sine"}, "gated-sine"),
        ({"task": "fill-mask"}, "fill-mask"),
        ({"with_decoder": False}, "encoder alone"),
        ({"decoder_start_token_id": 40_000}, "no token"),
        ({"dropout_rate": 1.5}, "dropout_rate"),
    ],
)
def test_configurations_that_make_no_sense(changes: dict[str, Any], word: str) -> None:
    with pytest.raises(ConfigError, match=word):
        t5.Config(**changes)


def test_unknown_keys_are_named() -> None:
    with pytest.raises(ConfigError, match="secret_sauce=3"):
        t5.from_transformers({"model_type": "t5", "secret_sauce": 3})
