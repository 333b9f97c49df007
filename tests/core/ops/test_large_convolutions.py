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


def test_panels_of_large_weights_are_multiplied_in_ranges() -> None:
    """Several blocks of pixels, and more weights than a cache holds."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((1, 15, 20, 1030)).astype("f4")
    w = rng.standard_normal((1100, 1030)).astype("f4")
    place = native.Convolution(x.shape, native.pack_weight(w[:, :, None, None]))
    assert place._call[-1] > 1 < place._call[-2]
    found = place(x)
    np.testing.assert_allclose(found, x.astype("f8") @ w.T.astype("f8"), rtol=1e-4, atol=1e-3)
    again = native.conv2d(
        x,
        native.pack_weight(
            np.ascontiguousarray(w.T)[..., None, None].reshape(1030, 1100, 1, 1), turned=True
        ),
    )
    assert np.array_equal(again, found)


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize(
    ("outputs", "kernel", "padding", "dilation"),
    [
        (1, 3, 1, 1),
        (3, 3, 1, 1),
        (3, 3, "valid", 1),
        (2, (3, 5), (0, 4), 1),
        (3, 5, 2, 1),
        (1, 3, 2, 2),
        (3, 3, 3, 1),  # more padding than the kernel reaches: the usual way
        (4, (4, 2), 1, 1),
    ],
)
def test_few_outputs(outputs, kernel, padding, dilation, last) -> None:
    rng = np.random.default_rng(0)
    size = (outputs, 6, *(kernel if isinstance(kernel, tuple) else (kernel, kernel)))
    x, w = rng.standard_normal((2, 6, 19, 23)), rng.standard_normal(size)
    b = rng.standard_normal(outputs)
    if last:
        x = np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    given = {"padding": padding, "dilation": dilation}
    for bias in (None, b):
        exact, found = (
            F.conv2d(
                *(None if a is None else bt.tensor(a.astype(kind)) for a in (x, w, bias)), **given
            ).numpy()
            for kind in ("f8", "f4")
        )
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, exact, atol=2e-5)


def test_which_convolutions_sum_back() -> None:
    x = np.zeros((1, 64, 32, 32), "f4")

    def back(outputs: int, kernel: int = 3, stride: int = 1, image: np.ndarray = x) -> bool:
        w, pad = np.zeros((outputs, 64, kernel, kernel), "f4"), (kernel // 2,) * 4
        return native_conv._sums_back(w, (stride, stride), pad, (1, 1), image)

    assert back(1) and back(3) and back(3, 5)
    assert not (back(64) or back(3, 1) or back(3, stride=2) or back(3, image=x[..., :4, :4]))
    assert not back(3, image=np.lib.stride_tricks.as_strided(x, (1, 64, 4096, 4096), (0, 0, 0, 0)))
