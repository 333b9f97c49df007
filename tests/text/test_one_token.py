"""The next token by prepared steps: what the operations give, whatever was changed."""

from __future__ import annotations

import copy
import pickle
import threading
from typing import Any

import numpy as np
import pytest

import bestiary as bt
from bestiary import nn
from bestiary.core import native
from bestiary.core.errors import IndexRangeError, ShapeError
from bestiary.core.nn.quantized import SMALL_TABLE
from bestiary.core.state import observing
from bestiary.text import gpt2, llama

pytestmark = pytest.mark.skipif(not native.available(), reason="without the C kernels")

KINDS: dict[str, dict[str, Any]] = {
    "llama": {},
    "tied": {"tie_word_embeddings": True},
    "one key for all": {"num_key_value_heads": 1},
    "qwen 2": {"attention_bias": True},
    "qwen 3": {"qk_norm": True, "head_dim": 32},
    "mistral": {"sliding_window": 9},
    "windows here and there": {"sliding_window": 70, "windowed": (False, True)},
    "scaled": {"rope_scaling": (("rope_type", "linear"), ("factor", 2.0))},
}


def made(dtype: str = "float32", **changes: Any) -> llama.Llama:
    sizes: dict[str, Any] = {
        "vocab_size": SMALL_TABLE,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 128,
    }
    bt.manual_seed(0)
    module = llama.llama(llama.Config(**{**sizes, **changes}))
    for parameter in module.parameters():
        if parameter.ndim == 2:
            nn.init.normal_(parameter, std=0.2)
        else:
            nn.init.uniform_(parameter, 0.5, 1.5)
    if dtype in ("float16", "bfloat16"):
        module.to(dtype=dtype)
    elif dtype != "float32":
        nn.quantize_(module, dtype)
    return module.eval()


def ids(count: int) -> bt.Tensor:
    return bt.asarray(np.random.default_rng(0).integers(0, SMALL_TABLE, (1, count)))


def read(module: Any, tokens: bt.Tensor, whole: int, fast: bool = True) -> np.ndarray:
    """Scores after each token behind the first ones, which are read at once."""
    cache = module.cache(1, tokens.shape[1])
    found = []
    with bt.inference_mode():
        module(tokens[:, :whole], cache=cache)
        for i in range(whole, tokens.shape[1]):
            part = tokens[:, i : i + 1]
            places = None if fast else bt.asarray([i])  # places of its own take the long way
            scores = module(part, position_ids=places, cache=cache, last=1)
            found.append(scores.astype(bt.float32).numpy()[0, 0])
    return np.stack(found)


def used(module: Any) -> bool:
    return module._steps is not None


@pytest.mark.parametrize("dtype", ["float32", "int8", "int4"])
@pytest.mark.parametrize("kind", KINDS)
def test_equals_the_operations(kind: str, dtype: str) -> None:
    module = made(dtype, **KINDS[kind])
    tokens = ids(100)
    want = read(module, tokens, 30, fast=False)
    assert not used(module)
    got = read(module, tokens, 30)
    assert used(module)
    assert np.abs(got - want).max() < 2e-5 * np.abs(want).max()


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_halves_are_nearer_to_the_truth(dtype: str) -> None:
    wide, module = made(), made(dtype)
    for a, b in zip(wide.parameters(), module.parameters(), strict=True):
        a.array[...] = b.array.astype(np.float32)
    tokens = ids(60)
    want = read(wide, tokens, 20, fast=False)
    long, short = read(module, tokens, 20, fast=False), read(module, tokens, 20)
    assert used(module)
    assert np.abs(short - want).mean() < np.abs(long - want).mean()
    with bt.inference_mode():
        scores = module(tokens[:, :1], cache=module.cache(1, 2), last=1)
    assert scores.dtype == module.dtype and scores.shape == (1, 1, SMALL_TABLE)


def test_changes_are_seen() -> None:
    module, tokens = made(), ids(12)

    def check() -> None:
        want = read(module, tokens, 4, fast=False)
        assert np.abs(read(module, tokens, 4) - want).max() < 2e-5 * np.abs(want).max()

    check()
    first = module._steps
    check()
    assert module._steps is first  # prepared once
    layer = module.model.layers[0]
    layer.mlp.up_proj.weight.array[...] *= 2  # the same memory
    check()
    nn.init.normal_(layer.self_attn.q_proj.weight)
    check()
    state = {k: v.numpy() * 1.5 for k, v in module.state_dict().items()}
    module.load_state_dict(state, assign=True)
    check()
    assert module._steps is not first
    module.to(dtype="bfloat16").to(dtype="float32")
    check()
    layer.mlp.up_proj = nn.QuantizedLinear.of(layer.mlp.up_proj, "int8")
    check()
    assert used(module)
    handle = layer.mlp.register_forward_hook(lambda module, args, out: out * 2)
    check()
    assert not used(module)
    handle.remove()
    check()
    assert used(module)
    layer.mlp.gate_proj = nn.Sequential(layer.mlp.gate_proj, nn.Identity())
    check()
    assert not used(module)
    layer.mlp = nn.Linear(64, 64)
    check()
    assert not used(module)


def test_written_halves_are_seen() -> None:
    module, tokens = made("bfloat16", attention_bias=True), ids(5)
    read(module, tokens, 2)
    first = module._steps
    norm = module.model.layers[1].input_layernorm
    nn.init.constant_(norm.weight, 3.0)  # of which a wide copy was made
    got = read(module, tokens, 2)
    assert module._steps is not first
    want = read(module, tokens, 2, fast=False)
    assert np.abs(got - want).max() < 0.1 * np.abs(want).max()


def test_copies_prepare_their_own() -> None:
    module, tokens = made("int8"), ids(8)
    want = read(module, tokens, 3)
    for other in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert not used(other)
        np.testing.assert_allclose(read(other, tokens, 3), want, atol=1e-4)
        assert other._steps is not module._steps


def test_who_watches_sees_operations() -> None:
    module, tokens = made(), ids(4)
    cache = module.cache(1, 8)
    seen = []

    def watch(op: Any, operands: Any, constants: Any, run: Any) -> Any:
        seen.append(op.name)
        return run()

    with bt.inference_mode(), observing(watch):
        module(tokens[:, :1], cache=cache)
    assert "rms_norm" in seen and not used(module)
    module(tokens[:, :1], cache=cache)  # with gradients
    assert not used(module)
    with bt.inference_mode():
        module(bt.asarray([[1], [2]]), cache=module.cache(2, 4))
    assert not used(module)


def test_mistakes_are_the_same() -> None:
    module = made()
    cache = module.cache(1, 2)
    with bt.inference_mode():
        module(ids(2), cache=cache)
        with pytest.raises(ShapeError, match=r"cache\.grow"):
            module(ids(1), cache=cache)
        cache.keep(1)
        with pytest.raises(IndexRangeError, match=str(SMALL_TABLE)):
            module(bt.asarray([[SMALL_TABLE]]), cache=cache)
        assert cache.length == 1


def test_two_threads() -> None:
    module, tokens = made("int8"), ids(80)
    want = read(module, tokens, 10)
    found: list[np.ndarray] = []
    threads = [
        threading.Thread(target=lambda: found.append(read(module, tokens, 10))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    for got in found:
        assert np.abs(got - want).max() < 2e-5 * np.abs(want).max()


@pytest.mark.parametrize("dtype", ["float32", "int8", "int4", "bfloat16"])
@pytest.mark.parametrize("act", ["gelu_new", "gelu", "silu"])
def test_gpt2_too(act: str, dtype: str) -> None:
    bt.manual_seed(0)
    config = gpt2.Config(
        vocab_size=SMALL_TABLE,
        n_positions=128,
        n_embd=64,
        n_layer=2,
        n_head=2,
        activation_function=act,
        scale_attn_by_inverse_layer_idx=act == "gelu",
    )
    module = gpt2.gpt2(config)
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.2)
    if dtype == "bfloat16":
        module.to(dtype=dtype)
    elif dtype != "float32":
        nn.quantize_(module, dtype)
    module.eval()
    tokens = ids(100)
    want = read(module, tokens, 30, fast=False)
    assert not used(module)
    got = read(module, tokens, 30)
    assert used(module)
    near = 2e-5 if dtype != "bfloat16" else 0.05
    assert np.abs(got - want).max() < near * np.abs(want).max()
    again = read(copy.deepcopy(module), tokens, 30)
    np.testing.assert_allclose(again, got, atol=1e-4 * np.abs(want).max())


def test_gpt2_beyond_its_places_is_refused() -> None:
    config = gpt2.Config(vocab_size=50, n_positions=4, n_embd=32, n_layer=1, n_head=2)
    module = gpt2.gpt2(config).eval()
    with bt.inference_mode():
        cache = module.cache(1, 6)
        module(bt.asarray([[1, 2, 3]]), cache=cache)
        module(bt.asarray([[4]]), cache=cache)
        assert used(module) and cache.length == 4
        with pytest.raises(ShapeError, match="4"):
            module(bt.asarray([[4]]), cache=cache)
        with pytest.raises(IndexRangeError):
            module(bt.asarray([[50]]), cache=module.cache(1, 2))
