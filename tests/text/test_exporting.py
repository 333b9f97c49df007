"""ONNX files of networks for texts, read again and run at lengths that were not recorded."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import bestiary as bt
from bestiary.hub.card import card_of

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
        feeds = {"input_ids": models.ids(batch, tokens).numpy()}
        if "attention_mask" in done.inputs:
            feeds["attention_mask"] = np.ones((batch, tokens), np.int64)
            feeds["attention_mask"][0, -1] = 0
        with bt.inference_mode():
            wanted = models.scores_of(module(*(bt.tensor(x) for x in feeds.values()))).numpy()
            np.testing.assert_allclose(loaded(**feeds).numpy(), wanted, atol=1e-4)
