"""Attention to neighbours in blocks equals attention under a mask of all pairs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import bestiary as bt
from bestiary.nn import functional as F
from bestiary.text import masks
from bestiary.text.masks import Neighbours

DATA = Path(__file__).parent.parent / "references" / "data"


def drawn(tokens: int) -> list[bt.Tensor]:
    rng = np.random.default_rng(tokens)
    shape = (2, 3, tokens, 8)
    return [
        bt.tensor(rng.normal(size=shape).astype(np.float32), requires_grad=True) for _ in range(3)
    ]


def whole(tokens: int, window: int, mask: np.ndarray | None) -> bt.Tensor:
    places = np.arange(tokens)
    near = (np.abs(places[:, None] - places) <= window)[None, None]
    return bt.asarray(near if mask is None else near & mask)


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize(
    ("tokens", "window"), [(1, 3), (4, 3), (5, 0), (33, 0), (40, 3), (41, 4), (200, 7), (96, 8)]
)
def test_equals_a_mask_of_all_pairs(tokens: int, window: int, padded: bool) -> None:
    mask = None
    if padded:
        mask = (
            np.arange(tokens)[None, None, None]
            < np.array([tokens, tokens // 2 + 1])[:, None, None, None]
        )
    given = None if mask is None else bt.asarray(mask)
    q, k, v = drawn(tokens)
    got = Neighbours(given, tokens, window, q.device)(q, k, v, 0.0)
    got.sum().backward()
    grads = [x.grad.numpy() for x in (q, k, v)]
    a, b, c = drawn(tokens)
    want = F.scaled_dot_product_attention(a, b, c, whole(tokens, window, mask))
    want.sum().backward()
    np.testing.assert_allclose(got.detach().numpy(), want.detach().numpy(), atol=2e-6)
    for grad, x in zip(grads, (a, b, c), strict=True):
        np.testing.assert_allclose(grad, x.grad.numpy(), atol=5e-6)


def test_scores_grow_with_the_length_and_not_with_its_square() -> None:
    def scores(tokens: int) -> int:
        parts = Neighbours(None, tokens, 64, bt.device("cpu")).parts
        return sum((a.stop - a.start) * (b.stop - b.start) for a, b, _ in parts)

    assert scores(8192) < 2.1 * scores(4096) and scores(8192) < 8192**2 / 20
    assert scores(128) == 128**2


@pytest.mark.parametrize("padded", [False, True])
def test_a_text_of_several_blocks(monkeypatch: pytest.MonkeyPatch, padded: bool) -> None:
    module = bt.load(DATA / "modernbert-transformers-mask").module.eval()
    rng = np.random.default_rng(0)
    ids, mask = bt.asarray(rng.integers(5, 101, (2, 40))), None
    if padded:
        mask = bt.asarray((np.arange(40) < np.array([[40], [25]])).astype(np.int64))
    with bt.inference_mode():
        blocks = module(ids, mask).numpy()
        monkeypatch.setattr(masks, "_LEAST", 64)
        at_once = module(ids, mask).numpy()
    real = slice(None, 25 if padded else None)
    assert np.abs(blocks - at_once)[:, real].max() < 1e-5
