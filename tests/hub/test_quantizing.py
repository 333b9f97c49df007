"""Models whose weights have few bits: made so while they are loaded, saved so, read from GGUF."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bestiary as bt
from bestiary import nn
from bestiary.core.errors import ConfigError, DtypeError, WeightsError
from bestiary.core.nn.quantized import SMALL_TABLE, forms_of
from bestiary.core.quantization import pack, unpack
from bestiary.core.weights import load_file, save_file
from bestiary.hub.card import Card
from bestiary.hub.filling import with_new_head
from bestiary.hub.registry import architecture_by_name
from bestiary.hub.saving import save_model
from bestiary.text import llama
from bestiary.text.llama_gguf import GGUF

DATA = Path(__file__).parent.parent / "references" / "data"
SIZES = {
    "vocab_size": SMALL_TABLE,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
}
IDS = bt.asarray([[5, 9, 2, 77, 8000, 3]])


def written(folder: Path, *, shard: int = 10**9, dtype: Any = None, **changes: Any) -> Any:
    """A small Llama of random weights, saved; the module."""
    bt.manual_seed(0)
    config = llama.Config(**{**SIZES, **changes})
    module = llama.llama(config).eval()
    for name, parameter in module.named_parameters():
        if parameter.ndim == 2 and "embed" not in name:
            nn.init.normal_(parameter, std=0.1)
    card = Card("small", "llama", "text-generation")
    save_model(
        folder,
        module,
        architecture="llama",
        config=config,
        card=card,
        dtype=dtype,
        max_shard_bytes=shard,
    )
    return module


def logits(model: Any) -> np.ndarray:
    with bt.inference_mode():
        out: np.ndarray = model.module(IDS).astype(bt.float32).numpy()
    return out


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize(
    ("dtype", "form", "table", "error"),
    [
        ("int8", "int8", "int8", 0.03),
        (bt.int8, "int8", "int8", 0.03),
        ("int4", "q4_1", "int8", 0.4),
        ("q4_0", "q4_0", "int8", 0.4),
        ("q8_0", "q8_0", "q8_0", 0.02),
    ],
)
def test_loaded_in_few_bits(
    tmp_path: Path, tied: bool, dtype: Any, form: str, table: str, error: float
) -> None:
    module = written(tmp_path, shard=300_000, tie_word_embeddings=tied)
    assert (tmp_path / "model.safetensors.index.json").is_file()
    model = bt.load(tmp_path, dtype=dtype)
    forms = forms_of(model.module)
    assert len(forms) == 2 * 7 + 2 and set(model.report.quantized) == set(forms)
    assert forms["model.layers.1.mlp.up_proj"] == form and forms["lm_head"] == table
    assert (model.module.lm_head.weight is model.module.model.embed_tokens.weight) == tied
    with bt.inference_mode():
        want = module(IDS).numpy()
    off = np.abs(logits(model) - want).max() / np.abs(want).max()
    assert 1e-4 < off < error
    assert not any(p.requires_grad for p in model.module.parameters())
    assert f"{len(forms)} quantized" in str(model.report)
    # The same as quantising what was loaded wide.
    again = bt.load(tmp_path, dtype="float32")
    nn.quantize_(again.module, str(getattr(dtype, "name", dtype)))
    np.testing.assert_array_equal(logits(again), logits(model))


def test_untrained_models_too() -> None:
    model = bt.load(DATA / "vit-transformers", weights=False, dtype="int8")
    assert forms_of(model.module)


def test_tensors_that_are_joined(monkeypatch: pytest.MonkeyPatch) -> None:
    """Queries, keys and values of ViT are three tensors in the file and one in the model."""
    wide, model = (bt.load(DATA / "vit-transformers", dtype=d) for d in ("float32", "int8"))
    forms = forms_of(model.module)
    joined = [name for name in forms if name.endswith("qkv")]
    assert joined
    layer, own = (m.module.get_submodule(joined[0]) for m in (wide, model))
    assert (
        np.abs(own.numbers() - layer.weight.detach().numpy()).max()
        < 0.01 * np.abs(layer.weight.detach().numpy()).max()
    )


@pytest.mark.parametrize("dtype", ["int8", "int4"])
def test_saved_and_loaded_again(tmp_path: Path, dtype: str) -> None:
    written(tmp_path / "wide", tie_word_embeddings=True)
    model = bt.load(tmp_path / "wide", dtype=dtype)
    model.save(tmp_path / "few")
    size = (tmp_path / "few" / "model.safetensors").stat().st_size
    assert size < 0.3 * (tmp_path / "wide" / "model.safetensors").stat().st_size
    again = bt.load(tmp_path / "few")
    assert forms_of(again.module) == forms_of(model.module)
    np.testing.assert_array_equal(logits(again), logits(model))
    assert again.card.parameters == sum(
        p.size for p in bt.load(tmp_path / "wide").module.parameters()
    )
    # Widened, the numbers are what the bytes stand for.
    wide = bt.load(tmp_path / "few", dtype="float32")
    assert forms_of(wide.module) == {}
    np.testing.assert_allclose(logits(wide), logits(model), atol=1e-4)
    assert all(p.requires_grad for p in wide.module.parameters())
    half = bt.load(tmp_path / "few", dtype="bfloat16")
    assert half.module.dtype == bt.bfloat16 and forms_of(half.module) == {}
    other = bt.load(tmp_path / "few", dtype="q8_0")
    assert set(forms_of(other.module).values()) == {"q8_0"}


def test_what_a_saved_model_says_is_checked(tmp_path: Path) -> None:
    written(tmp_path / "wide")
    bt.load(tmp_path / "wide", dtype="int8").save(tmp_path / "few")
    path = tmp_path / "few" / "config.json"
    said = json.loads(path.read_text())
    table = said["bestiary"]["quantized"]
    for wrong in ("int8", ["lm_head"], {"lm_head": 8}, {"lm_head": "int3"}):
        said["bestiary"]["quantized"] = wrong
        path.write_text(json.dumps(said))
        with pytest.raises(ConfigError, match="table of layers and the formats"):
            bt.load(tmp_path / "few")
    said["bestiary"]["quantized"] = {**table, "lm_head": "q4_1"}
    path.write_text(json.dumps(said))
    for dtype in (None, "float32"):
        with pytest.raises(WeightsError, match=r"lm_head\.weight"):
            bt.load(tmp_path / "few", dtype=dtype)
    said["bestiary"]["quantized"] = {**table, "nowhere": "int8"}
    path.write_text(json.dumps(said))
    bt.load(tmp_path / "few")
    del said["bestiary"]["quantized"]
    path.write_text(json.dumps(said))
    with pytest.raises(WeightsError, match=r"lm_head\.weight"):
        bt.load(tmp_path / "few")


def test_numbers_that_no_format_has(tmp_path: Path) -> None:
    written(tmp_path)
    arrays = load_file(tmp_path / "model.safetensors")
    name = next(n for n in arrays if n.endswith("0.mlp.down_proj.weight"))
    arrays[name][3, 4] = np.nan
    save_file(arrays, tmp_path / "model.safetensors")
    with pytest.raises(WeightsError, match=r"row 3 .* int8 has no scale"):
        bt.load(tmp_path, dtype="int8")
    bt.load(tmp_path)


@pytest.mark.parametrize("dtype", ["int3", "int16", "q6_k", bt.int32, "bool", 4])
def test_other_dtypes(tmp_path: Path, dtype: Any) -> None:
    written(tmp_path)
    with pytest.raises(DtypeError, match="few bits as int4, int8"):
        bt.load(tmp_path, dtype=dtype)


def test_training_is_refused_with_the_fix(tmp_path: Path) -> None:
    written(tmp_path)
    model = bt.load(tmp_path, dtype="int4")
    architecture = architecture_by_name("llama")
    assert architecture is not None
    with pytest.raises(ConfigError, match=r"few bits(.|\n)*bt\.load\(name, dtype=.float32.\)"):
        with_new_head(architecture, model.config, model.module, 2)
    with pytest.raises(ConfigError, match="requires_grad"):
        bt.optim.AdamW(model.module.parameters())


PROGRAM = """
import sys
import bestiary as bt
from bestiary.text.tasks import generator
from bestiary.text import llama

def peak():
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1e3

before = peak()
model = bt.load(sys.argv[1], dtype=sys.argv[2])
print(peak() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="asks Linux for the peak")
def test_memory_while_loading(tmp_path: Path) -> None:
    """Never two copies of the weights, nor all of them wide."""
    more = {"hidden_size": 512, "intermediate_size": 2048, "num_hidden_layers": 6}
    module = written(tmp_path, shard=20_000_000, dtype="bfloat16", **more)
    numbers = sum(p.size for p in module.parameters()) / 1e6  # 35 millions
    table = SMALL_TABLE * 512 * 6 / 1e6  # while it is read and rounded, MB
    for dtype, each in (("int8", 1.05), ("int4", 0.8), ("bfloat16", 2), ("float32", 4)):
        command = [sys.executable, "-c", PROGRAM, str(tmp_path), dtype]
        run = subprocess.run(command, capture_output=True, text=True, check=True)
        assert float(run.stdout) < each * numbers + table + 15, dtype


# -- GGUF ------------------------------------------------------------------------------------------

KINDS = {"float32": 0, "float16": 1, "q4_0": 2, "q4_1": 3, "q8_0": 8, "bfloat16": 30}


def _text(value: str) -> bytes:
    raw = value.encode()
    return struct.pack("<Q", len(raw)) + raw


def gguf(path: Path, module: Any, form: str) -> dict[str, np.ndarray]:
    """A model as a GGUF file with matrices in a format; what its numbers are then, by our names."""
    head, data, numbers = b"", b"", {}
    names = {target.replace("{}", "0"): name for name, target in GGUF.items()}
    state = {name: t.numpy() for name, t in module.state_dict().items()}
    for name, array in state.items():
        number = next((part for part in name.split(".") if part.isdigit()), "0")
        plain, last = name.replace(f".{number}.", ".0.", 1), name.rpartition(".")[2]
        new = next(
            theirs.replace("{}", number).replace("{rest}", last)
            for target, theirs in names.items()
            if plain == target.replace("{rest}", last)
        )
        plainly = array.ndim != 2 or form == "float32"
        stored = "float32" if plainly else form
        heads = {"q": 4, "k": 2}.get(name.split(".")[-2][0], 0) if ".self_attn." in name else 0
        turned = array
        if heads:
            rows = array.reshape(heads, 2, len(array) // heads // 2, -1)
            turned = rows.swapaxes(1, 2).reshape(array.shape)
        raw = (turned if stored == "float32" else pack(turned, stored)).tobytes()
        numbers[name] = (
            array
            if stored == "float32"
            else unpack(np, pack(array, stored), stored, array.shape[1])
        )
        head += _text(new) + struct.pack(f"<I{array.ndim}Q", array.ndim, *array.shape[::-1])
        head += struct.pack("<IQ", KINDS[stored], len(data))
        data += raw + b"\0" * (-len(raw) % 32)
    said = {
        "block_count": 2,
        "context_length": 64,
        "embedding_length": 64,
        "feed_forward_length": 96,
        "attention.head_count": 4,
        "attention.head_count_kv": 2,
        "vocab_size": SMALL_TABLE,
    }
    pairs = b"".join(_text(f"llama.{k}") + struct.pack("<II", 4, v) for k, v in said.items())
    pairs += _text("general.architecture") + struct.pack("<I", 8) + _text("llama")
    start = struct.pack("<4sIQQ", b"GGUF", 3, len(state), len(said) + 1) + pairs + head
    path.write_bytes(start + b"\0" * (-len(start) % 32) + data)
    return numbers


@pytest.mark.parametrize("form", [*KINDS])
def test_gguf_files_stay_as_they_are(tmp_path: Path, form: str, monkeypatch) -> None:
    from bestiary.text.tasks import base

    monkeypatch.setattr(base.Tokenizer, "from_gguf", lambda *args, **more: None)
    module = written(tmp_path / "wide")
    numbers = gguf(tmp_path / "model.gguf", module, form)
    model, wide = (bt.load(tmp_path / "model.gguf", dtype=dtype) for dtype in (None, "float32"))
    forms = forms_of(model.module)
    assert set(forms.values()) == ({form} if form != "float32" else set())
    assert len(forms) == (16 if form != "float32" else 0) and forms_of(wide.module) == {}
    for name, tensor in wide.module.state_dict().items():
        np.testing.assert_array_equal(tensor.numpy(), numbers[name], err_msg=name)
        own = model.module.get_submodule(name.removesuffix(".weight"))
        if hasattr(own, "numbers"):
            np.testing.assert_array_equal(own.numbers(), numbers[name], err_msg=name)
    np.testing.assert_allclose(logits(model), logits(wide), atol=2e-4)
    model.save(tmp_path / "saved")
    again = bt.load(tmp_path / "saved")
    assert forms_of(again.module) == forms
    np.testing.assert_array_equal(logits(again), logits(model))
    other = bt.load(tmp_path / "model.gguf", dtype="int8")
    assert set(forms_of(other.module).values()) == {"int8"}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_turned_weights_lie_in_order(dtype: str) -> None:
    """GPT-2's files have its weights the other way round."""
    model = bt.load(DATA / "gpt2-transformers", dtype=dtype)
    for name, parameter in model.module.named_parameters():
        assert parameter.array.flags.c_contiguous, name
