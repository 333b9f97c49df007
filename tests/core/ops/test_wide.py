"""Half types on a GPU: what sums and exponentiates is computed in float32 there too."""

from __future__ import annotations

import numpy as np
from fake_device import fake_device

import bestiary as bt
from bestiary.core.nn import functional as F


def test_halves_are_widened_on_every_device() -> None:
    with fake_device() as device:
        x = bt.Tensor(np.full((2, 8), 300, np.float16)).to(device).requires_grad_()
        out = F.rms_norm(x, 8)
        assert out.dtype == bt.float16
        assert (out.detach().cpu().numpy() == 1).all()  # 300 * 300 is beyond float16
        g = bt.grad(out, x, bt.Tensor(np.ones((2, 8), np.float16)).to(device))
        assert np.isfinite(g.cpu().numpy()).all()
        many = bt.Tensor(np.ones((4096, 2), np.float16)).to(device)
        mean, var = bt.zeros((2,)).to(device), bt.ones((2,)).to(device)
        F.batch_norm(many.astype(bt.float32), mean, var, training=True, momentum=1.0)
        assert mean.cpu().tolist() == [1, 1]
        logits = bt.Tensor(np.zeros((1, 70_000), np.float16)).to(device)
        loss = F.cross_entropy(logits, bt.asarray([3]).to(device))  # 70,000 is infinite in float16
        assert abs(loss.cpu().item() - np.log(70_000)) < 0.01
