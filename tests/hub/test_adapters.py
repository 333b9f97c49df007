"""Adapters of the library peft: read, trained to the same losses, written so that it reads them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bestiary as bt
from bestiary.core.errors import ConfigError, HubError, WeightsError
from bestiary.core.nn import functional as F
from bestiary.core.nn.lora import adapters
from bestiary.core.weights import load_file, save_file
from bestiary.hub.adapters import CONFIG, WEIGHTS, base_of, is_adapter, load_adapter, save_adapter

DATA = Path(__file__).parent.parent / "references" / "data"
BASES = {
    "lora-gpt2": "gpt2-transformers",
    "lora-llama": "llama-transformers",
    "lora-bert": "bert-transformers-classes",
}


def loss_of(module: Any, ids: bt.Tensor, labels: bt.Tensor, language: bool) -> bt.Tensor:
    logits = module(ids)
    if language:
        flat = logits[:, :-1].reshape(-1, logits.shape[-1])
        return F.cross_entropy(flat, labels[:, 1:].reshape(-1))
    return F.cross_entropy(logits, labels)


@pytest.mark.parametrize("name", BASES)
def test_adapters_of_peft_are_read(name: str) -> None:
    stored = load_file(DATA / name / "reference.safetensors")
    module = bt.load(DATA / BASES[name]).module
    load_adapter(DATA / name, module)
    with bt.no_grad():
        logits = module(bt.tensor(stored["ids"][0]))
    np.testing.assert_allclose(logits.array, stored["logits"], atol=1e-4)
    bt.nn.merge_lora(module)
    with bt.no_grad():
        logits = module(bt.tensor(stored["ids"][0]))
    np.testing.assert_allclose(logits.array, stored["logits"], atol=1e-4)


@pytest.mark.parametrize("name", BASES)
def test_training_has_the_losses_of_peft(name: str, tmp_path: Path) -> None:
    stored = load_file(DATA / name / "reference.safetensors")
    start = {k[6:]: v for k, v in stored.items() if k.startswith("start.")}
    shutil.copy(DATA / name / CONFIG, tmp_path / CONFIG)
    save_file(start, tmp_path / WEIGHTS[0])
    module = bt.load(DATA / BASES[name]).module
    load_adapter(tmp_path, module)
    optimizer = bt.optim.AdamW([p for p in module.parameters() if p.requires_grad], lr=3e-3)
    losses = []
    for ids, labels in zip(stored["ids"], stored["labels"], strict=True):
        loss = loss_of(module, bt.tensor(ids), bt.tensor(labels), name != "lora-bert")
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    np.testing.assert_allclose(losses, stored["losses"], atol=1e-3)


@pytest.mark.parametrize("name", BASES)
def test_what_is_written_is_what_peft_writes(name: str, tmp_path: Path) -> None:
    module = bt.load(DATA / BASES[name]).module
    how = load_adapter(DATA / name, module)
    save_adapter(tmp_path, module, how, base="some/model", task="text-generation")
    ours, theirs = load_file(tmp_path / WEIGHTS[0]), load_file(DATA / name / WEIGHTS[0])
    assert ours.keys() == theirs.keys()
    assert all(np.array_equal(ours[key], theirs[key]) for key in theirs)
    config, other = (json.loads((f / CONFIG).read_text()) for f in (tmp_path, DATA / name))
    for key in ("r", "lora_alpha", "lora_dropout", "use_rslora", "peft_type", "bias"):
        assert config[key] == other[key]
    assert base_of(tmp_path) == ("some/model", "text-generation", None)
    assert is_adapter(tmp_path) and not is_adapter(DATA / BASES[name])


@pytest.mark.reference
@pytest.mark.filterwarnings("ignore")  # peft's own
def test_peft_reads_what_is_written(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", exc_type=ImportError)
    peft = pytest.importorskip("peft", exc_type=ImportError)
    transformers = pytest.importorskip("transformers", exc_type=ImportError)
    module = bt.load(DATA / "gpt2-transformers").module
    how = bt.nn.LoRA(rank=4, excluded=("lm_head",))
    bt.nn.add_lora(module, how)
    for _, layer in adapters(module):
        bt.nn.init.normal_(layer.lora_B.weight, std=0.1)
    save_adapter(tmp_path, module, how, base="x", task="text-generation")
    plain = transformers.AutoModelForCausalLM.from_pretrained(DATA / "gpt2-transformers")
    model = peft.PeftModel.from_pretrained(plain, tmp_path).eval()
    ids = np.arange(5, 25)[None]
    with torch.no_grad():
        theirs = model(torch.tensor(ids)).logits.numpy()
    module.eval()
    with bt.no_grad():
        ours = module(bt.tensor(ids)).array
    np.testing.assert_allclose(ours, theirs, atol=1e-4)


@pytest.mark.reference
@pytest.mark.filterwarnings("ignore")  # peft's own
def test_losses_at_the_size_of_gpt2_are_those_of_peft(tmp_path: Path) -> None:
    """124 million random weights, the same adapters at first, 20 steps."""
    torch = pytest.importorskip("torch", exc_type=ImportError)
    peft = pytest.importorskip("peft", exc_type=ImportError)
    transformers = pytest.importorskip("transformers", exc_type=ImportError)
    torch.manual_seed(0)
    plain = transformers.GPT2LMHeadModel(transformers.GPT2Config())
    plain.save_pretrained(tmp_path / "base")
    settings = peft.LoraConfig(r=8, lora_alpha=16, target_modules=["c_attn"], task_type="CAUSAL_LM")
    model = peft.get_peft_model(plain, settings).eval()
    model.save_pretrained(tmp_path / "adapter")
    module = bt.load(tmp_path / "base").module
    load_adapter(tmp_path / "adapter", module)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-3)
    own = bt.optim.AdamW([p for p in module.parameters() if p.requires_grad], lr=1e-3)
    rng = np.random.default_rng(0)
    losses: list[tuple[float, float]] = []
    for _ in range(20):
        ids = rng.integers(0, 50257, (2, 32))
        theirs = model(input_ids=torch.tensor(ids), labels=torch.tensor(ids)).loss
        optimizer.zero_grad()
        theirs.backward()
        optimizer.step()
        ours = loss_of(module, bt.tensor(ids), bt.tensor(ids), language=True)
        own.zero_grad()
        ours.backward()
        own.step()
        losses.append((ours.item(), theirs.item()))
    found = np.array(losses)
    assert np.abs(found[:, 0] - found[:, 1]).max() < 1e-3


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"use_dora": True}, "use_dora=True"),
        ({"bias": "all"}, "bias='all'"),
        ({"peft_type": "IA3"}, "'IA3'"),
        ({"rank_pattern": {"q": 4}}, "rank_pattern"),
        ({"a_new_setting": 3}, "a_new_setting=3"),
        ({"r": "many"}, "rank='many'"),
        ({"target_modules": ["no_such"]}, "no linear layer is called"),
    ],
)
def test_settings_that_are_not_understood(
    tmp_path: Path, change: dict[str, Any], said: str
) -> None:
    shutil.copytree(DATA / "lora-gpt2", tmp_path / "a")
    config = json.loads((tmp_path / "a" / CONFIG).read_text())
    (tmp_path / "a" / CONFIG).write_text(json.dumps({**config, **change}))
    module = bt.load(DATA / "gpt2-transformers").module
    with pytest.raises(ConfigError, match=said):
        load_adapter(tmp_path / "a", module)
    assert list(adapters(module)) == []


def test_files_that_do_not_fit(tmp_path: Path) -> None:
    module = bt.load(DATA / "gpt2-transformers").module
    with pytest.raises(HubError, match="no adapter_config"):
        load_adapter(DATA / "gpt2-transformers", module)
    shutil.copytree(DATA / "lora-gpt2", tmp_path / "a")
    (tmp_path / "a" / WEIGHTS[0]).unlink()
    with pytest.raises(HubError, match="holds none of"):
        load_adapter(tmp_path / "a", module)
    state = load_file(DATA / "lora-gpt2" / WEIGHTS[0])
    first = next(iter(state))
    save_file({k: v for k, v in state.items() if k != first}, tmp_path / "a" / WEIGHTS[0])
    with pytest.raises(WeightsError, match="1 tensors are missing"):
        load_adapter(tmp_path / "a", module)
    save_file({**state, first: state[first][:, :3]}, tmp_path / "a" / WEIGHTS[0])
    with pytest.raises(WeightsError, match="for another model"):
        load_adapter(tmp_path / "a", module)
    (tmp_path / "a" / CONFIG).write_text("{")
    with pytest.raises(ConfigError, match="no JSON"):
        load_adapter(tmp_path / "a", module)
    assert list(adapters(module)) == [] and all(p.requires_grad for p in module.parameters())
