"""ONNX files of networks for texts, read again and run at lengths that were not recorded."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import bestiary as bt
from bestiary.core.errors import ConfigError
from bestiary.hub.card import card_of
from bestiary.hub.loading import load

_SPEC = importlib.util.spec_from_file_location(
    "text_models", Path(__file__).with_name("test_models.py")
)
assert _SPEC is not None
assert _SPEC.loader is not None
models = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(models)


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("deberta-v2", {"max_relative_positions": 12}),
        ("mpnet", {}),
        ("modernbert", {}),
        ("modernbert", {"local_attention": 20}),  # wider than what is recorded
        ("gemma3", {}),
        ("gemma3", {"sliding_window": 10}),
    ],
)
def test_relative_positions_and_windows_have_open_lengths(
    name: str, changes: Any, tmp_path: Path
) -> None:
    module = models.built(name, **changes).eval()
    card = card_of(models.architectures()[name], None, "tiny")
    task = SimpleNamespace(module=module, config=module.config, card=card)
    done = bt.export(task, tmp_path / "m.onnx")
    loaded = bt.load(tmp_path / "m.onnx")
    for batch, tokens in ((1, 3), (2, 22)):
        feeds = models.feeds(done.inputs, batch, tokens)
        with bt.inference_mode():
            wanted = models.scores_of(module(*(bt.tensor(x) for x in feeds.values()))).numpy()
            np.testing.assert_allclose(loaded(**feeds).numpy(), wanted, atol=1e-4)


DATA = Path(__file__).parents[1] / "references" / "data"
PAIRS = [
    "t5-transformers-bare",
    "t5-transformers",
    "t5-transformers-flan",
    "mt5-transformers",
    "whisper-transformers",
]


def through_bestiary(path: Path, feeds: dict[str, Any]) -> Any:
    with bt.inference_mode():
        return bt.load(path)(**feeds).numpy()


def through_onnxruntime(path: Path, feeds: dict[str, Any]) -> Any:
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx").checker.check_model(str(path))
    session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(None, feeds)[0]


RUNNERS = [
    through_bestiary,
    pytest.param(through_onnxruntime, marks=pytest.mark.reference),
]


@pytest.mark.parametrize("run", RUNNERS)
@pytest.mark.parametrize("name", PAIRS)
def test_encoders_and_decoders(name: str, run: Any, tmp_path: Path) -> None:
    task = load(DATA / name)
    module = task.module.eval()
    config, sound = module.config, "whisper" in name
    encoder = bt.export(task, tmp_path / "encoder.onnx", part="encoder")
    decoder = bt.export(task, tmp_path / "decoder.onnx", part="decoder")
    assert decoder.inputs["decoder_input_ids"] == ("batch", "tokens")
    assert list(encoder.outputs) == ["states"]
    assert list(decoder.outputs) == ["states" if name.endswith("bare") else "logits"]
    for batch, source, tokens in ((1, 4, 1), (3, 40, 30)):
        rng = np.random.default_rng(batch)
        if sound:
            shape = (batch, config.num_mel_bins, config.columns)
            given: dict[str, Any] = {"input_features": rng.standard_normal(shape).astype("f4")}
        else:
            mask = np.ones((batch, source), np.int64)
            mask[0, -1] = 0
            ids = rng.integers(1, config.vocab_size, (batch, source))
            given = {"input_ids": ids, "attention_mask": mask}
        tokens = min(tokens, config.context) if sound else tokens
        with bt.inference_mode():
            states = module.encode(*(bt.tensor(x) for x in given.values())).numpy()
        np.testing.assert_allclose(run(tmp_path / "encoder.onnx", given), states, atol=1e-4)
        ids = rng.integers(1, config.vocab_size, (batch, tokens))
        read = {"decoder_input_ids": ids, "encoder_hidden_states": states}
        if not sound:
            read["encoder_attention_mask"] = given["attention_mask"]
        with bt.inference_mode():
            wanted = module.decode(*(bt.tensor(x) for x in read.values())).numpy()
        found = run(tmp_path / "decoder.onnx", read)
        np.testing.assert_allclose(found, wanted, atol=1e-4 * max(1.0, np.abs(wanted).max()))


def test_parts_of_a_pair(tmp_path: Path) -> None:
    for part in (None, "image"):
        with pytest.raises(ConfigError, match="part='encoder' or part='decoder'"):
            bt.export(load(DATA / "t5-transformers"), tmp_path / "m.onnx", part=part)
    alone = load(DATA / "t5-transformers-encoder")
    assert list(bt.export(alone, tmp_path / "m.onnx").outputs) == ["states"]
    with pytest.raises(ConfigError, match="part='decoder'"):
        bt.export(alone, tmp_path / "m.onnx", part="decoder")
