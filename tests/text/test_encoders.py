"""Encoders and their heads against transformers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bestiary as bt
from bestiary.core.errors import ConfigError, IndexRangeError, ShapeError
from bestiary.core.weights import load_file, save_file
from bestiary.hub.filling import Options
from bestiary.hub.loading import from_folder
from bestiary.hub.registry import architecture_of_config
from bestiary.hub.rename import renamed
from bestiary.hub.sources import Request

DATA = Path(__file__).parent.parent / "references" / "data"
FAMILIES = (
    "bert-",
    "roberta-",
    "xlm-roberta-",
    "distilbert-",
    "albert-",
    "mpnet-",
    "modernbert-",
    "deberta-v2-",
)
FOLDERS = sorted(p.parent.name for p in DATA.glob("*-transformers*/config.json"))
FOLDERS = [name for name in FOLDERS if name.startswith(FAMILIES)]
INPUTS = ("input_ids", "attention_mask", "token_type_ids")


def opened(folder: Path, **changes: Any) -> Any:
    settings: dict[str, Any] = {"num_classes": None, "task": None, **changes}
    options = Options(
        True, bt.float32, settings["num_classes"], None, None, settings["task"], Request()
    )
    return from_folder(folder, options)


def inputs_of(stored: dict[str, np.ndarray]) -> dict[str, bt.Tensor]:
    return {name: bt.asarray(stored[name]) for name in INPUTS if name in stored}


def outputs_of(found: Any) -> dict[str, bt.Tensor]:
    if isinstance(found, bt.Tensor):
        return {"logits": found}
    return {k: v for k, v in found._asdict().items() if v is not None}


@pytest.mark.parametrize("name", FOLDERS)
def test_equals_transformers(name: str) -> None:
    module = opened(DATA / name).module.eval()
    stored = load_file(DATA / name / "reference.safetensors")
    real = stored["attention_mask"].astype(bool)
    with bt.inference_mode():
        found = outputs_of(module(**inputs_of(stored)))
    wanted = {k.removeprefix("output."): v for k, v in stored.items() if k.startswith("output.")}
    assert set(found) == set(wanted)
    for key, want in wanted.items():
        difference = np.abs(found[key].numpy() - want)
        if difference.shape[:2] == real.shape:
            difference = difference[real]
        assert difference.max() <= 1e-4 * max(1.0, float(np.abs(want).max()))


@pytest.mark.parametrize("family", [f.removesuffix("-") for f in FAMILIES])
def test_padding_changes_nothing(family: str) -> None:
    module = opened(DATA / f"{family}-transformers-mask").module.eval()
    ids = np.random.default_rng(0).integers(5, 101, (1, 7))
    padded = np.concatenate([ids, np.full((1, 4), 1)], axis=1)
    mask = np.array([[1] * 7 + [0] * 4])
    with bt.inference_mode():
        alone = module(bt.asarray(ids)).numpy()
        among = module(bt.asarray(padded), bt.asarray(mask)).numpy()[:, :7]
    assert np.abs(alone - among).max() < 1e-5


@pytest.mark.parametrize("family", [f.removesuffix("-") for f in FAMILIES])
def test_other_tasks_and_classes(family: str) -> None:
    """A masked language model becomes a classifier, an embedder, a reader of answers."""
    folder = DATA / f"{family}-transformers-mask"
    ids = bt.asarray([[5, 6, 7]])
    classifier = opened(folder, num_classes=4)
    assert classifier.config.task == "text-classification"
    assert classifier.module(ids).shape == (1, 4)
    assert any("classifier" in name for name in classifier.report.replaced)
    assert classifier.report.dropped
    same = opened(folder, num_classes=4)
    trunk = {n: t for n, t in same.module.state_dict().items() if n not in same.report.replaced}
    first = classifier.module.state_dict()
    assert all(np.array_equal(t.numpy(), first[n].numpy()) for n, t in trunk.items())
    features = opened(folder, task="feature-extraction").module(ids)
    assert features.last_hidden_state.shape == (1, 3, 24)
    tags = opened(folder, task="token-classification", num_classes=3).module(ids)
    assert tags.shape == (1, 3, 3)
    spans = opened(folder, task="question-answering").module(ids)
    assert spans.start_logits.shape == (1, 3)
    with pytest.raises(ConfigError, match="text-generation"):
        opened(folder, task="text-generation")


@pytest.mark.parametrize("family", [f.removesuffix("-") for f in FAMILIES])
def test_training_lowers_the_loss(family: str) -> None:
    module = opened(DATA / f"{family}-transformers-mask", num_classes=2).module.train()
    ids = bt.asarray(np.random.default_rng(1).integers(5, 101, (8, 9)))
    targets = bt.asarray(np.arange(8) % 2)
    optimizer = bt.optim.AdamW(module.parameters(), lr=3e-3)
    losses = []
    for _ in range(25):
        loss = bt.nn.functional.cross_entropy(module(ids), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert np.mean(losses[-5:]) < 0.7 * np.mean(losses[:3])
    assert all(p.grad is not None for p in module.parameters())


def test_names_of_2018(tmp_path: Path) -> None:
    """Norms with gamma and beta, and the head of the pretraining."""
    source = DATA / "bert-transformers-mask"
    old = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace(
            "LayerNorm.bias", "LayerNorm.beta"
        ): array
        for name, array in load_file(source / "model.safetensors").items()
    }
    assert any("gamma" in name for name in old)
    old["cls.seq_relationship.weight"] = np.ones((2, 24), np.float32)
    old["cls.seq_relationship.bias"] = np.ones(2, np.float32)
    (tmp_path / "config.json").write_text((source / "config.json").read_text())
    save_file(old, tmp_path / "model.safetensors")
    stored = load_file(source / "reference.safetensors")
    with bt.inference_mode():
        found = opened(tmp_path).module.eval()(**inputs_of(stored)).numpy()
    real = stored["attention_mask"].astype(bool)
    assert np.abs(found - stored["output.logits"])[real].max() < 1e-4


@pytest.mark.parametrize("ending", ["mask", "tokens", "spans"])
@pytest.mark.parametrize("family", ["bert", "roberta", "albert", "mpnet"])
def test_a_pooler_that_the_task_does_not_need(family: str, ending: str, tmp_path: Path) -> None:
    """Files of bert-base-uncased and of many a fine-tuned model have one."""
    source = DATA / f"{family}-transformers-{ending}"
    arrays = dict(load_file(source / "model.safetensors"))
    name = f"{family}.pooler" if family == "albert" else f"{family}.pooler.dense"
    arrays |= {f"{name}.weight": np.ones((24, 24), np.float32)}
    arrays |= {f"{name}.bias": np.ones(24, np.float32)}
    (tmp_path / "config.json").write_text((source / "config.json").read_text())
    save_file(arrays, tmp_path / "model.safetensors")
    found = opened(tmp_path)
    assert {f"{name}.weight", f"{name}.bias"} <= set(found.report.dropped)
    ids = bt.asarray([[5, 6, 7]])
    with bt.inference_mode():
        ours = outputs_of(found.module.eval()(ids))
        wanted = outputs_of(opened(source).module.eval()(ids))
    assert all(np.array_equal(ours[key].numpy(), wanted[key].numpy()) for key in wanted)


def test_deberta_without_a_class_of_its_writer(tmp_path: Path) -> None:
    """As microsoft/deberta-v3-small: the head of the pretraining under names of its own."""
    source = DATA / "deberta-v2-transformers"
    said = json.loads((source / "config.json").read_text())
    del said["architectures"]
    (tmp_path / "config.json").write_text(json.dumps(said))
    arrays = {f"deberta.{n}": a for n, a in load_file(source / "model.safetensors").items()}
    arrays["lm_predictions.lm_head.bias"] = np.zeros(101, np.float32)
    arrays["mask_predictions.dense.bias"] = np.zeros(24, np.float32)
    save_file(arrays, tmp_path / "model.safetensors")
    assert opened(tmp_path).config.task == "feature-extraction"
    assert opened(tmp_path, num_classes=2).module(bt.asarray([[5, 6]])).shape == (1, 2)


@pytest.mark.parametrize("family", [f.removesuffix("-") for f in FAMILIES if "deberta" not in f])
@pytest.mark.parametrize("head", [True, False])
def test_no_class_of_its_writer(family: str, head: bool, tmp_path: Path) -> None:
    """The names of the weights say whether there is a head to fill gaps with."""
    source = DATA / f"{family}-transformers-mask"
    said = json.loads((source / "config.json").read_text())
    del said["architectures"]
    (tmp_path / "config.json").write_text(json.dumps(said))
    arrays = load_file(source / "model.safetensors")
    if not head:
        heads = ("cls.", "lm_head.", "predictions.", "vocab_", "head.", "decoder.")
        arrays = {n: a for n, a in arrays.items() if not n.startswith(heads)}
    save_file(arrays, tmp_path / "model.safetensors")
    found = opened(tmp_path)
    assert found.config.task == ("fill-mask" if head else "feature-extraction")
    ids = bt.asarray([[5, 6, 7]])
    with bt.inference_mode():
        got = outputs_of(found.module.eval()(ids))
        want = outputs_of(opened(source, task=found.config.task).module.eval()(ids))
    for key in got.keys() - {"pooler_output"}:
        assert np.array_equal(got[key].numpy(), want[key].numpy())


@pytest.mark.parametrize("family", ["bert", "roberta", "albert", "deberta-v2"])
def test_segments_of_another_shape(family: str) -> None:
    """(B, 1) would otherwise be spread over all tokens without a word."""
    module = opened(DATA / f"{family}-transformers-mask").module.eval()
    ids = bt.asarray([[5, 6, 7], [8, 9, 10]])
    for shape in [(2, 1), (1, 3), (3,), (2, 4)]:
        with pytest.raises(ShapeError, match="token_type_ids") as caught:
            module(ids, token_type_ids=bt.zeros(shape, dtype=bt.int64))
        assert caught.value.expected == (2, 3) and caught.value.got == shape


SIZES = json.loads((DATA / "encoder_names.json").read_text())


@pytest.mark.parametrize("name", sorted(set(SIZES) - {"made_with"}))
def test_names_and_shapes_at_full_size(name: str) -> None:
    listed = SIZES[name]
    found = architecture_of_config(listed["config"])
    assert found is not None
    layout = found[0].layouts[found[1]]
    theirs: dict[str, tuple[int, ...]] = {}
    for key, line in listed["tensors"].items():
        pattern = key.partition(" ")[0]
        theirs |= {pattern.format(n): tuple(line[0]) for n in (line[1] if line[1:] else [0])}
    wanted = {new: theirs[old] for old, (new, _) in renamed(list(theirs), layout.rename).items()}
    assert layout.config is not None
    with bt.nn.init.empty():
        module = found[0].build(layout.config(listed["config"]))
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
    stored = load_file(DATA / name / "reference.safetensors")
    with torch.no_grad():
        given = {key: torch.tensor(stored[key]) for key in INPUTS if key in stored}
        out = model.eval()(**given)
    real = stored["attention_mask"].astype(bool)
    for key in (k for k in stored if k.startswith("output.")):
        difference = np.abs(out[key.removeprefix("output.")].numpy() - stored[key])
        if difference.shape[:2] == real.shape:
            difference = difference[real]
        assert difference.max() < 1e-4


@pytest.mark.parametrize("family", [f.removesuffix("-") for f in FAMILIES])
def test_unknown_keys_are_named(family: str, tmp_path: Path) -> None:
    source = DATA / f"{family}-transformers-mask"
    said = json.loads((source / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**said, "secret_sauce": 3}))
    (tmp_path / "model.safetensors").write_bytes((source / "model.safetensors").read_bytes())
    with pytest.raises(ConfigError, match="secret_sauce=3"):
        opened(tmp_path)


@pytest.mark.parametrize("family", [f.removesuffix("-") for f in FAMILIES])
def test_mistakes(family: str) -> None:
    module = opened(DATA / f"{family}-transformers-mask").module.eval()
    with pytest.raises(IndexRangeError, match="token id 101 is outside its vocabulary of 101"):
        module(bt.asarray([[5, 101]]))
    longest = module.config.context
    with pytest.raises(ShapeError, match=f"{longest + 1} > {longest}"):
        module(bt.asarray(np.full((1, longest + 1), 5)))
    with pytest.raises(ShapeError, match="mask"):
        module(bt.asarray([[5, 6]]), bt.asarray([[1]]))
    with pytest.raises(ShapeError, match=r"ids\[None\]"):
        module(bt.asarray([5, 6]))
