"""GPT-2 and the family of Llama against transformers: cached or not, padded on either side."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bestiary as bt
from bestiary.core.errors import ConfigError, IndexRangeError, ShapeError
from bestiary.core.notice import LengthWarning, forget_warnings
from bestiary.core.weights import load_file
from bestiary.hub.filling import Options
from bestiary.hub.loading import from_folder
from bestiary.hub.registry import get
from bestiary.hub.rename import renamed
from bestiary.hub.sources import Request
from bestiary.text import gemma3, gpt2, llama
from bestiary.text.cache import KVCache

DATA = Path(__file__).parent.parent / "references" / "data"
FAMILIES = ("gpt2-", "llama-", "mistral-", "qwen", "gemma3-")
FOLDERS = sorted(p.parent.name for p in DATA.glob("*-transformers*/config.json"))
FOLDERS = [name for name in FOLDERS if name.startswith(FAMILIES)]
GENERATING = [n for n in FOLDERS if not n.endswith(("-bare", "-classes"))]


def opened(name: str) -> tuple[Any, dict[str, np.ndarray]]:
    options = Options(True, bt.float32, None, None, None, None, Request())
    module = from_folder(DATA / name, options).module.eval()
    return module, load_file(DATA / name / "reference.safetensors")


def tokens(array: Any) -> bt.Tensor:
    return bt.asarray(np.asarray(array))


def close(got: bt.Tensor, want: np.ndarray, mask: np.ndarray | None = None) -> None:
    difference = np.abs(got.numpy() - want)
    if mask is not None and difference.ndim == 3:
        difference = difference * mask[..., None]
    assert difference.max() <= 1e-4 * max(1.0, float(np.abs(want).max()))


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("name", FOLDERS)
def test_equals_transformers(name: str, side: str) -> None:
    module, stored = opened(name)
    mask = stored[side]
    ids = np.where(mask, stored["input_ids"], 0)
    with bt.inference_mode():
        found = module(tokens(ids), tokens(mask))
        close(found, stored[f"{side}.output"], mask)
        if mask.all():
            close(module(tokens(ids)), stored[f"{side}.output"])


def greedy(module: Any, ids: np.ndarray, count: int, chunks: tuple[int, ...]) -> list[int]:
    """Continue a text: the prompt in chunks, then token by token."""
    cache, found = module.cache(1, 4), []
    cache.grow(ids.shape[1] + count)
    scores, start = None, 0
    for size in chunks:
        part = ids[:, start : start + size]
        scores, start = module(tokens(part), cache=cache, last=1), start + size
    for _ in range(count):
        found.append(int(np.argmax(scores.numpy()[0, -1])))
        scores = module(tokens([[found[-1]]]), cache=cache, last=1)
    return found


@pytest.mark.parametrize("chunks", [(13,), (1, 5, 7), (12, 1)])
@pytest.mark.parametrize("name", GENERATING)
def test_greedy_text_is_the_same(name: str, chunks: tuple[int, ...]) -> None:
    module, stored = opened(name)
    with bt.inference_mode():
        assert greedy(module, stored["input_ids"][:1], 50, chunks) == stored["greedy"].tolist()


@pytest.mark.parametrize("name", GENERATING)
def test_a_cache_changes_nothing(name: str) -> None:
    module, stored = opened(name)
    ids, mask = stored["input_ids"], stored["left"]
    with bt.inference_mode():
        whole = module(tokens(ids), tokens(mask)).numpy()
        cache = module.cache(3, 13)
        for start, stop in ((0, 6), (6, 7), (7, 13)):
            found = module(tokens(ids[:, start:stop]), tokens(mask[:, :stop]), cache=cache).numpy()
            real = mask[:, start:stop, None]
            assert np.abs((found - whole[:, start:stop]) * real).max() < 1e-4
        assert (cache.length, cache.capacity) == (13, 13)
        with pytest.raises(ShapeError, match=r"cache.grow\(14\)"):
            module(tokens(ids[:, :1]), cache=cache)
        cache.keep(6)
        again = module(tokens(ids[:, 6:8]), tokens(mask[:, :8]), cache=cache, last=1).numpy()
        assert np.abs(again[:, 0] - whole[:, 7]).max() < 1e-4


@pytest.mark.parametrize("name", ["gpt2-transformers", "mistral-transformers"])
def test_gradients_flow_and_training_lowers_the_loss(name: str) -> None:
    module, stored = opened(name)
    module.train()
    ids = tokens(stored["input_ids"])
    optimizer = bt.optim.AdamW(module.parameters(), lr=3e-3)
    losses = []
    for _ in range(8):
        scores = module(ids[:, :-1])
        loss = bt.nn.functional.cross_entropy(scores.reshape((-1, 101)), ids[:, 1:].reshape((-1,)))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.3
    assert all(p.grad is not None for p in module.parameters())


def test_dynamic_rope_is_that_of_longer_texts() -> None:
    forget_warnings()
    plain = llama.Config(
        vocab_size=9,
        hidden_size=8,
        num_attention_heads=2,
        num_key_value_heads=1,
        num_hidden_layers=1,
        intermediate_size=8,
        max_position_embeddings=8,
    )
    dynamic = llama.Config(
        **{**plain.__dict__, "rope_scaling": (("type", "dynamic"), ("factor", 2.0))}
    )
    bt.manual_seed(0)
    first = llama.llama(plain).eval()
    second = llama.llama(dynamic).eval()
    second.load_state_dict(first.state_dict())
    short, long = tokens([[1, 2, 3]]), tokens([[1, 2, 3] * 4])
    with bt.inference_mode():
        assert np.allclose(first(short).numpy(), second(short).numpy())
        stretched = second(long).numpy()
        with pytest.warns(LengthWarning, match="12 tokens are more than the 8"):
            plain_scores = first(long).numpy()
        assert not np.allclose(plain_scores, stretched, atol=1e-7)
        first(long)  # told once


# -- published sizes, and what we save ------------------------------------------------------------

SIZES = json.loads((DATA / "decoder_names.json").read_text())
PUBLISHED = sorted(set(SIZES) - {"made_with"})


@pytest.mark.parametrize("name", PUBLISHED)
def test_names_and_shapes_at_full_size(name: str) -> None:
    listed = SIZES[name]
    entry = {"gpt2": "gpt2", "gemma3_text": "gemma-3-270m"}
    architecture = get(entry.get(listed["config"]["model_type"], "qwen3-0.6b"))[0]
    layout = architecture.layouts["transformers"]
    theirs: dict[str, tuple[int, ...]] = {}
    for key, line in listed["tensors"].items():
        pattern = key.partition(" ")[0]
        theirs |= {pattern.format(n): tuple(line[0]) for n in (line[1] if line[1:] else [0])}
    wanted = {
        new: theirs[old][::-1] if change is not None else theirs[old]
        for old, (new, change) in renamed(list(theirs), layout.rename).items()
    }
    with bt.nn.init.empty():
        module = architecture.build(layout.config(listed["config"]))
    assert {n: tuple(t.shape) for n, t in module.state_dict().items()} == wanted
    assert sum(p.size for p in module.parameters()) == listed["parameters"]


@pytest.mark.reference
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", FOLDERS)
def test_transformers_reads_what_we_save(name: str, tmp_path: Path) -> None:
    import torch
    import transformers

    saved = bt.load(DATA / name).save(tmp_path)
    written = json.loads((saved / "config.json").read_text())
    model_class = getattr(transformers, written["architectures"][0])
    model, info = model_class.from_pretrained(saved, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"], info
    _, stored = opened(name)
    mask = stored["right"]
    with torch.no_grad():
        ids = torch.tensor(np.where(mask, stored["input_ids"], 0))
        out = model.eval()(ids, attention_mask=torch.tensor(mask))[0]
    close(bt.asarray(out.numpy()), stored["right.output"], mask)


# -- mistakes --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["gpt2-transformers", "llama-transformers"])
def test_mistakes_in_ids(name: str) -> None:
    module, _ = opened(name)
    with pytest.raises(IndexRangeError, match="token id 101 is outside its vocabulary of 101"):
        module(tokens([[5, 101]]))
    with pytest.raises(IndexRangeError, match="-1"):
        module(tokens([[5, -1]]))
    with pytest.raises(ShapeError, match=r"ids\[None\]"):
        module(tokens([5, 6]))
    with pytest.raises(ShapeError, match="mask"):
        module(tokens([[5, 6]]), tokens([[1, 1, 1]]))
    with pytest.raises(TypeError, match="whole numbers"):
        module(bt.ones((1, 3)))
    with pytest.raises(ShapeError):
        module(bt.zeros((1, 0), dtype=bt.int64))


def test_texts_longer_than_the_table_of_positions() -> None:
    module, _ = opened("gpt2-transformers")
    with pytest.raises(ShapeError, match="129 > 128") as caught:
        module(bt.ones((1, 129), dtype=bt.int64))
    assert (caught.value.expected, caught.value.got) == (128, 129)
    assert "chunks" in str(caught.value)


@pytest.mark.parametrize(
    ("family", "changes", "word"),
    [
        (gpt2, {"n_head": 7}, "cannot share"),
        (gpt2, {"n_layer": 0}, "n_layer"),
        (gpt2, {"vocab_size": 10**12}, "vocab_size"),
        (gpt2, {"activation_function": "sine"}, "sine"),
        (gpt2, {"task": "fill-mask"}, "fill-mask"),
        (gpt2, {"task": "text-classification"}, "num_classes"),
        (llama, {"num_key_value_heads": 5}, "heads"),
        (llama, {"rope_scaling": (("type", "mystery"),)}, "mystery"),
        (llama, {"rope_scaling": (("type", "linear"),)}, "lacks a number"),
        (llama, {"sliding_window": 0}, "sliding_window"),
        (llama, {"rms_norm_eps": -1.0}, "rms_norm_eps"),
        (gemma3, {"layer_types": ("full_attention",)}, "1 layers of 26"),
        (gemma3, {"layer_types": ("odd",) * 26}, "odd"),
        (gemma3, {"query_pre_attn_scalar": 0.0}, "query_pre_attn_scalar"),
        (gemma3, {"num_key_value_heads": 3}, "heads"),
    ],
)
def test_configurations_that_make_no_sense(family: Any, changes: dict[str, Any], word: str) -> None:
    with pytest.raises(ConfigError, match=word):
        family.Config(**changes)


def test_unknown_keys_are_named() -> None:
    with pytest.raises(ConfigError, match="secret_sauce=3"):
        gpt2.from_transformers({"model_type": "gpt2", "secret_sauce": 3})
    with pytest.raises(ConfigError, match="final_logit_softcapping"):
        gemma3.from_transformers({"model_type": "gemma3_text", "final_logit_softcapping": 30.0})


def test_gemma_as_transformers_4_wrote_it() -> None:
    said = {"num_hidden_layers": 4, "sliding_window_pattern": 2, "rope_theta": 500.0}
    config = gemma3.from_transformers({**said, "rope_local_base_freq": 20.0})
    assert config.layer_types == ("sliding_attention", "full_attention") * 2
    assert (config.rope_theta, config.rope_local_base_freq) == (500.0, 20.0)


# -- the cache -------------------------------------------------------------------------------------


def test_cache() -> None:
    cache = KVCache(2, 2, 1, 3, 4)
    k = bt.asarray(np.arange(16, dtype=np.float32).reshape(2, 1, 2, 4))
    for layer in range(2):
        keys, values = cache.append(layer, k, k + 1)
        assert keys.shape == values.shape == (2, 1, 2, 4)
    cache.advance(2)
    assert cache.length == 2
    cache.select([1, 1, 0])
    assert cache.batch == 3
    keys, _ = cache.append(1, bt.zeros((3, 1, 1, 4)), bt.zeros((3, 1, 1, 4)))
    assert np.array_equal(keys.numpy()[:, :, :2], k.numpy()[[1, 1, 0]])
    with pytest.raises(ShapeError, match="grow"):
        cache.append(0, bt.zeros((3, 1, 2, 4)), bt.zeros((3, 1, 2, 4)))
    cache.grow(9)
    keys, values = cache.append(0, bt.ones((3, 1, 2, 4)), bt.ones((3, 1, 2, 4)))
    assert np.array_equal(values.numpy()[:, :, :2], (k.numpy() + 1)[[1, 1, 0]])
    with pytest.raises(ConfigError, match="cannot keep 3"):
        cache.keep(3)
    with pytest.raises(ConfigError):
        KVCache(0, 1, 1, 1, 1)
    assert "2 of 9 tokens" in repr(cache)
    assert cache.nbytes == 2 * 2 * 3 * 9 * 4 * 4
