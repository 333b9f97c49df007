"""The random stream: known answers, independence of how it is drawn, distributions."""

from __future__ import annotations

import numpy as np
import pytest

import bestiary as bt
from bestiary.core.errors import ConfigError
from bestiary.core.random import _BLOCK, philox, philox_of


def scalar_philox(counter: tuple[int, ...], key: tuple[int, int]) -> tuple[int, ...]:
    """Philox 4x32-10 written out for one block, straight from the paper."""
    c, k, mask = list(counter), list(key), 0xFFFFFFFF
    for _ in range(10):
        p0, p1 = c[0] * 0xD2511F53, c[2] * 0xCD9E8D57
        c = [(p1 >> 32) ^ c[1] ^ k[0], p1 & mask, (p0 >> 32) ^ c[3] ^ k[1], p0 & mask]
        k = [(k[0] + 0x9E3779B9) & mask, (k[1] + 0xBB67AE85) & mask]
    return tuple(c)


def test_the_known_answers_of_the_paper_s_authors():
    # Random123's kat_vectors: zeros, ones and the digits of pi.
    assert scalar_philox((0,) * 4, (0, 0)) == (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)
    ones = 0xFFFFFFFF
    assert scalar_philox((ones,) * 4, (ones, ones)) == (
        0x408F276D,
        0x41C83B0E,
        0xA20BC7C6,
        0x6D5451FD,
    )


@pytest.mark.parametrize("seed", [0, 1, 2**32 + 7, 2**64 - 1])
@pytest.mark.parametrize("first", [0, 5, 2**32 - 1, 2**40])
@pytest.mark.parametrize("function", [philox, philox_of])
def test_the_stream_is_philox(seed, first, function):
    words = function(np, seed, first, 3).reshape(3, 4)
    for i in range(3):
        counter = ((first + i) & 0xFFFFFFFF, (first + i) >> 32, 0, 0)
        assert tuple(words[i].tolist()) == scalar_philox(counter, (seed & 0xFFFFFFFF, seed >> 32))


def test_small_draws_are_the_pieces_of_a_large_one():
    n = 2 * _BLOCK + 100
    whole = bt.random.uniform((n,), generator=bt.Generator(5))
    g = bt.Generator(5)
    sizes = [1, 3, 500, _BLOCK, n - 504 - _BLOCK]
    parts = np.concatenate([bt.random.uniform((k,), generator=g).numpy() for k in sizes])
    np.testing.assert_array_equal(whole.numpy(), parts)


def test_seeds_reproduce_and_differ():
    bt.manual_seed(7)
    first = bt.random.normal((100,)).numpy()
    second = bt.random.normal((100,)).numpy()
    bt.manual_seed(7)
    np.testing.assert_array_equal(bt.random.normal((100,)).numpy(), first)
    assert not np.array_equal(first, second)
    state = bt.Generator(3)
    bt.random.uniform((10,), generator=state)
    kept = state.get_state()
    a = bt.random.uniform((10,), generator=state).numpy()
    state.set_state(kept)
    np.testing.assert_array_equal(bt.random.uniform((10,), generator=state).numpy(), a)


@pytest.mark.parametrize("dtype", [bt.float32, bt.float64, bt.bfloat16], ids=str)
def test_distributions(dtype):
    g = bt.Generator(1)
    u = bt.random.uniform((200_000,), dtype=dtype, generator=g)
    z = bt.random.normal((200_001,), mean=2.0, std=3.0, dtype=dtype, generator=g)
    assert u.dtype == z.dtype == dtype
    wide = u.astype(bt.float64).numpy()
    assert wide.min() >= 0.0 and abs(wide.mean() - 0.5) < 0.003
    assert abs(wide.var() - 1 / 12) < 0.002
    if dtype != bt.bfloat16:
        assert wide.max() < 1.0
    wide = z.astype(bt.float64).numpy()
    assert np.isfinite(wide).all()
    assert abs(wide.mean() - 2) < 0.03 and abs(wide.std() - 3) < 0.03
    kurtosis = ((wide - wide.mean()) ** 4).mean() / wide.var() ** 2
    assert abs(kurtosis - 3) < 0.1


def test_integers_cover_their_range_evenly():
    x = bt.random.integers(-3, 4, (70_000,), generator=bt.Generator(2)).numpy()
    values, counts = np.unique(x, return_counts=True)
    assert values.tolist() == [-3, -2, -1, 0, 1, 2, 3]
    assert counts.min() > 9_500 and counts.max() < 10_500


def test_bernoulli_and_permutation():
    assert abs(bt.random.bernoulli(0.3, (50_000,)).astype(bt.float32).mean().item() - 0.3) < 0.01
    p = bt.random.permutation(50, generator=bt.Generator(1))
    assert sorted(p.tolist()) == list(range(50))
    q = bt.random.permutation(50, generator=bt.Generator(1))
    assert p.tolist() == q.tolist()


def test_bad_requests():
    with pytest.raises(ConfigError):
        bt.manual_seed(-1)
    with pytest.raises(ConfigError):
        bt.random.integers(3, 3)
    with pytest.raises(ConfigError):
        bt.random.bernoulli(1.5, (1,))
    with pytest.raises(ConfigError):
        bt.random.uniform((1,), dtype=bt.int64)


def test_empty_draws():
    assert bt.random.uniform((0, 3)).shape == (0, 3)
    assert bt.random.normal((0,)).shape == (0,)
