"""Convolutions with weights so large that their panels are not kept."""

from __future__ import annotations

import numpy as np
import pytest

import bestiary as bt
from bestiary.core import native
from bestiary.core.nn import functional as F
from bestiary.core.ops import native_conv

pytestmark = pytest.mark.skipif(not native.available(), reason="the C extension is not built")


@pytest.mark.parametrize("size", [(3, 4), (12, 20), (17, 16)])
@pytest.mark.parametrize("kernel", [1, 3])
@pytest.mark.parametrize("last", [False, True])
def test_large_weights_are_the_same_and_not_kept(
    monkeypatch: pytest.MonkeyPatch, size: tuple[int, int], kernel: int, last: bool
) -> None:
    rng = np.random.default_rng(0)
    x = bt.tensor(rng.standard_normal((2, 5, *size)).astype("f4"))
    weight = rng.standard_normal((7, 5, kernel, kernel)).astype("f4")
    if last:
        weight = np.ascontiguousarray(weight.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    w, b = bt.tensor(weight), bt.tensor(rng.standard_normal(7).astype("f4"))
    given = {"padding": kernel // 2, "stride": 1 if size[0] < 17 else 2}
    with bt.inference_mode():
        wanted = F.conv2d(x, w, b, **given).numpy()
        kept = len(native_conv._packings)
        monkeypatch.setattr(native_conv, "_LARGE_WEIGHT", 1)
        fresh = bt.tensor(weight.copy())
        for bias, other in ((b, wanted), (None, wanted - b.numpy()[:, None, None])):
            np.testing.assert_allclose(F.conv2d(x, fresh, bias, **given).numpy(), other, atol=2e-5)
        assert len(native_conv._packings) <= kept
        # Compiled programs keep them, and others use what is there.
        panels = native_conv.packed(fresh.array, 1, keep=True)
        assert native_conv.packed(fresh.array, 1) is panels
        np.testing.assert_allclose(F.conv2d(x, fresh, b, **given).numpy(), wanted, atol=2e-5)
