"""Every registered text architecture: small ones build, run, train, save and load again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bestiary as bt
from bestiary.core.nn import functional as F
from bestiary.hub.card import card_of
from bestiary.hub.loading import load
from bestiary.hub.registry import Architecture, entries, get
from bestiary.hub.saving import save_model

_ENCODER: dict[str, Any] = {
    "vocab_size": 61,
    "hidden_size": 12,
    "intermediate_size": 20,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "max_position_embeddings": 24,
}
# A configuration of each architecture that a test can afford.
TINY: dict[str, dict[str, Any]] = {
    "bert": _ENCODER,
    "roberta": _ENCODER,
    "albert": {**_ENCODER, "embedding_size": 6},
    "distilbert": {
        "vocab_size": 61,
        "dim": 12,
        "hidden_dim": 20,
        "n_layers": 2,
        "n_heads": 3,
        "max_position_embeddings": 24,
    },
    "deberta-v2": {**_ENCODER, "position_buckets": 4},
    "mpnet": {**_ENCODER, "relative_attention_num_buckets": 8},
    "modernbert": {**_ENCODER, "local_attention": 4},
    "gpt2": {"vocab_size": 61, "n_positions": 24, "n_embd": 12, "n_layer": 2, "n_head": 3},
    "llama": {**_ENCODER, "num_attention_heads": 2, "num_key_value_heads": 1},
    "gemma3": {
        **_ENCODER,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 6,
        "query_pre_attn_scalar": 6,
        "sliding_window": 3,
    },
}
#: Networks with an encoder and a decoder, whose inputs differ, have tests of their own.
ELSEWHERE = {"t5": "test_t5.py", "whisper": "test_whisper.py"}


def architectures() -> dict[str, Architecture]:
    return {a.name: a for a, _ in entries() if a.build.__module__.startswith("bestiary.text.")}


def ids(rows: int, columns: int, seed: int = 0) -> bt.Tensor:
    return bt.asarray(np.random.default_rng(seed).integers(3, 61, (rows, columns)))


def feeds(names: Any, rows: int, columns: int) -> dict[str, Any]:
    """Inputs of an exported network by name: ids, and a mask where it takes one."""
    found = {"input_ids": ids(rows, columns).numpy()}
    if "attention_mask" in names:
        found["attention_mask"] = np.ones((rows, columns), np.int64)
        found["attention_mask"][0, -1] = 0
    return found


def built(name: str, **changes: Any) -> Any:
    architecture = architectures()[name]
    bt.manual_seed(1)
    return architecture.build(architecture.config(**{**TINY[name], **changes}))


def scores_of(found: Any) -> bt.Tensor:
    return found if isinstance(found, bt.Tensor) else found[0]


def test_every_architecture_has_a_tiny_configuration() -> None:
    assert set(TINY) | set(ELSEWHERE) == set(architectures())
    assert all((Path(__file__).parent / file).is_file() for file in ELSEWHERE.values())


@pytest.mark.parametrize("name", sorted(TINY))
def test_it_trains(name: str) -> None:
    """Its own task, on one batch that it can learn by heart."""
    module = built(name).train()
    x, targets = ids(2, 7), ids(2, 7, seed=1)
    optimizer = bt.optim.AdamW(module.parameters(), lr=1e-2)
    losses = []
    for _ in range(30):
        scores = module(x)
        loss = F.cross_entropy(scores.reshape((14, 61)), targets.reshape((14,)))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]
    assert all(p.grad is not None for p in module.parameters())


@pytest.mark.parametrize("name", sorted(TINY))
def test_features_and_classes(name: str) -> None:
    x = ids(3, 5)
    with bt.inference_mode():
        found = scores_of(built(name, task="feature-extraction").eval()(x))
        assert found.shape == (3, 5, 12)
        module = built(name, task="text-classification", num_classes=4).eval()
        mask = bt.asarray(np.array([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0], [1, 0, 0, 0, 0]]))
        assert module(x, mask).shape == (3, 4)


@pytest.mark.parametrize("name", sorted(TINY))
def test_it_is_saved_and_loaded(name: str, tmp_path: Path) -> None:
    module = built(name).eval()
    architecture = architectures()[name]
    card = card_of(architecture, None, "tiny")
    save_model(tmp_path, module, architecture=name, config=module.config, card=card)
    again = load(tmp_path)
    assert again.module.config == module.config
    with bt.inference_mode():
        assert np.array_equal(again.module(ids(2, 6)).numpy(), module(ids(2, 6)).numpy())
    assert again.task == architecture.task


@pytest.mark.parametrize("name", sorted(TINY))
def test_bfloat16(name: str, tmp_path: Path) -> None:
    module = built(name).eval()
    card = card_of(architectures()[name], None, "tiny")
    save_model(tmp_path, module, architecture=name, config=module.config, card=card)
    half = load(tmp_path, dtype="bfloat16").module
    assert half.dtype == bt.bfloat16
    with bt.inference_mode():
        wide, narrow = module(ids(2, 6)), half(ids(2, 6))
    assert narrow.dtype == bt.bfloat16
    difference = np.abs(narrow.astype(bt.float32).numpy() - wide.numpy()).max()
    assert difference <= 2e-2 * max(1.0, float(np.abs(wide.numpy()).max()))


@pytest.mark.parametrize(
    "name",
    [e.name for a, e in entries() if a.name in TINY and e.config is not None and e.sources],
)
def test_the_parameters_of_the_published_sizes(name: str) -> None:
    """What an entry says of its size is what is built."""
    from bestiary.core.nn import init

    architecture, entry = get(name)
    assert entry.config is not None
    with init.empty():
        module = architecture.build(architecture.config(**entry.config))
    if entry.parameters is not None:
        assert sum(p.size for p in module.parameters()) == entry.parameters
