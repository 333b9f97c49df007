"""onnxruntime gives what our networks give, for two batch sizes and lengths of every model."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import bestiary as bt
from bestiary.hub.card import card_of

pytestmark = pytest.mark.reference
TESTS = Path(__file__).parents[2]
PICTURES = (
    "cifar-resnet convnext dinov2 efficientnet efficientnet-lite mobilenet-v2 mobilenet-v3 resnet "
    "squeezenet swin vgg vit"
).split()
TEXTS: list[tuple[str, dict[str, Any]]] = [
    *((name, {}) for name in ("albert", "bert", "distilbert", "gpt2", "llama", "roberta")),
    # Relative positions, and windows that are shorter and longer than what is recorded.
    ("deberta-v2", {}), ("mpnet", {}), ("modernbert", {}), ("gemma3", {}),
    ("modernbert", {"local_attention": 20}), ("gemma3", {"sliding_window": 10}),
    ("deberta-v2", {"max_relative_positions": 12}),
]  # fmt: skip


def helpers(domain: str) -> Any:
    """The tiny configurations of the tests of a domain."""
    spec = importlib.util.spec_from_file_location(
        f"{domain}_models", TESTS / domain / "test_models.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def ran(path: Path, feeds: dict[str, Any]) -> Any:
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx").checker.check_model(str(path))
    session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(None, feeds)[0]


@pytest.mark.parametrize("name", PICTURES)
def test_pictures(name: str, tmp_path: Path) -> None:
    models = helpers("vision")
    task = models.task_of(models.architectures()[name])
    bt.export(task, tmp_path / "m.onnx")
    for batch in (1, 4):
        x = models.images(batch, 3, 40, 40, seed=batch)
        with bt.inference_mode():
            wanted = task.module(bt.tensor(x)).numpy()
        np.testing.assert_allclose(ran(tmp_path / "m.onnx", {"pixel_values": x}), wanted, atol=1e-4)


@pytest.mark.parametrize(("name", "changes"), TEXTS)
def test_texts(name: str, changes: Any, tmp_path: Path) -> None:
    models = helpers("text")
    module = models.built(name, **changes).eval()
    card = card_of(models.architectures()[name], None, "tiny")
    task = SimpleNamespace(module=module, config=module.config, card=card)
    done = bt.export(task, tmp_path / "m.onnx")
    for batch, tokens in ((1, 3), (4, 12), (2, 22)):
        feeds = models.feeds(done.inputs, batch, tokens)
        with bt.inference_mode():
            wanted = models.scores_of(module(*(bt.tensor(x) for x in feeds.values()))).numpy()
        np.testing.assert_allclose(ran(tmp_path / "m.onnx", feeds), wanted, atol=1e-4)
