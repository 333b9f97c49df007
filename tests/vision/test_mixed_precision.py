"""Architectures under autocast: results near those in float32, gradients in float32."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import bestiary as bt
from bestiary.core.nn import functional as F
from bestiary.hub.registry import entries

TINY: dict[str, dict[str, Any]] = {
    "resnet": {"depths": (1, 2), "hidden_sizes": (8, 12), "embedding_size": 6},
    "efficientnet-lite": {"width_coefficient": 0.1, "depth_coefficient": 0.3},
    "cifar-resnet": {"stem": 4, "widths": (6, 8), "residual": (1, 2)},
}


@pytest.mark.parametrize("name", TINY)
@pytest.mark.parametrize("dtype", [bt.float16, bt.bfloat16])
def test_predictions_and_gradients(name: str, dtype: Any) -> None:
    architecture = next(a for a, _ in entries() if a.name == name)
    bt.manual_seed(0)
    module = architecture.build(architecture.config(**TINY[name], num_classes=5)).eval()
    x = bt.tensor(np.random.default_rng(0).normal(size=(2, 3, 40, 40)).astype(np.float32))
    full = module(x)
    with bt.autocast(dtype):
        logits = module(x)
        loss = F.cross_entropy(logits, bt.tensor([0, 4]))
    assert (logits.dtype, loss.dtype) == (dtype, bt.float32)
    scale = float(np.abs(full.detach().numpy()).max())
    np.testing.assert_allclose(
        logits.detach().astype(bt.float32).numpy(), full.detach().numpy(), atol=0.05 * scale
    )
    loss.backward()
    for parameter in module.parameters():
        assert parameter.grad.dtype == bt.float32
        assert np.isfinite(parameter.grad.numpy()).all()
