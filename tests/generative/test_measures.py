"""Measures of made pictures against direct computations and values known beforehand."""

import numpy as np
import pytest

from bestiary.core.errors import DataError, ShapeError
from bestiary.generative import measures as m


def normal(count, mean, cov, seed=0):
    return np.random.default_rng(seed).multivariate_normal(mean, cov, count)


def covariance(size, seed):
    root = np.random.default_rng(seed).standard_normal((size, size))
    return root @ root.T / size + 0.1 * np.eye(size)


def direct_frechet(mean1, cov1, mean2, cov2):
    """The formula as written, with the root of the product by its eigenvalues."""
    values, vectors = np.linalg.eig(cov1 @ cov2)
    root = vectors @ np.diag(np.sqrt(values.astype(complex))) @ np.linalg.inv(vectors)
    assert np.abs(root @ root - cov1 @ cov2).max() < 1e-8  # it is a root
    difference = mean1 - mean2
    return (difference @ difference + np.trace(cov1 + cov2 - 2 * root)).real


@pytest.mark.parametrize("size", [1, 2, 7, 64])
def test_frechet_is_the_formula(size):
    rng = np.random.default_rng(size)
    one, two = covariance(size, 1), covariance(size, 2)
    a, b = rng.standard_normal((2, size))
    wanted = direct_frechet(a, one, b, two)
    assert m.frechet_of_moments(a, one, b, two) == pytest.approx(wanted, rel=1e-9)


@pytest.mark.reference
def test_frechet_is_that_of_scipy():
    linalg = pytest.importorskip("scipy.linalg")
    for size in (3, 40, 200):
        x = normal(3 * size, np.zeros(size), covariance(size, 1), 1)
        y = normal(3 * size, np.ones(size), covariance(size, 2), 2)
        a, b = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
        root = linalg.sqrtm(a @ b).real
        wanted = np.square(x.mean(0) - y.mean(0)).sum() + np.trace(a + b - 2 * root)
        assert m.frechet_distance(x, y) == pytest.approx(wanted, rel=1e-6)


def test_frechet_of_known_distributions():
    # In one dimension it is (mean difference)^2 + (difference of deviations)^2.
    assert m.frechet_of_moments([1.0], np.eye(1), [4.0], 9 * np.eye(1)) == pytest.approx(9 + 4)
    x = normal(500, [0, 0, 0], np.eye(3))
    assert m.frechet_distance(x, x) == pytest.approx(0, abs=1e-9)
    assert m.frechet_distance(x, x + np.array([3, 0, 4])) == pytest.approx(25)
    # Features that never vary make a singular covariance, and no NaN.
    flat = np.column_stack([x, np.ones(500)])
    assert m.frechet_distance(flat, flat + np.array([0, 0, 0, 1])) == pytest.approx(1, abs=1e-9)


def test_frechet_shrinks_with_the_shift_and_is_symmetric():
    x = normal(400, np.zeros(5), covariance(5, 0), 1)
    found = [
        m.frechet_distance(x, normal(400, np.full(5, s), covariance(5, 0), 2)) for s in (3, 1, 0)
    ]
    assert found[0] > found[1] > found[2] >= 0
    y = normal(300, np.ones(5), covariance(5, 3), 4)
    assert m.frechet_distance(x, y) == pytest.approx(m.frechet_distance(y, x))


def test_kernel_distance_by_loops():
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((12, 3)), rng.standard_normal((12, 3)) + 1

    def k(a, b):
        return (a @ b / 3 + 1) ** 3

    pairs = [(i, j) for i in range(12) for j in range(12)]
    within = sum(k(z[i], z[j]) for z in (x, y) for i, j in pairs if i != j) / (12 * 11)
    between = sum(k(x[i], y[j]) for i, j in pairs) / 144
    found, spread = m.kernel_distance(x, y, subsets=3, size=12)
    assert found == pytest.approx(within - 2 * between)
    assert spread == pytest.approx(0, abs=1e-12)


def test_kernel_distance_is_unbiased():
    x, y = (normal(2000, np.zeros(4), np.eye(4), seed) for seed in (1, 2))
    found, spread = m.kernel_distance(x, y, subsets=40, size=100)
    assert abs(found) < 0.15
    assert spread > 0
    assert m.kernel_distance(x, y + 1, subsets=10, size=100)[0] > 5


def test_precision_and_recall():
    x = normal(400, [0, 0], np.eye(2), 1)
    same = m.precision_recall(x, normal(400, [0, 0], np.eye(2), 2))
    assert same.precision > 0.85 and same.recall > 0.85
    apart = m.precision_recall(x, x + 100)
    assert (apart.precision, apart.recall) == (0, 0)
    # Few kinds of good pictures: all of them lie among real ones, and most real ones are missed.
    collapsed = m.precision_recall(x, 0.05 * normal(400, [0, 0], np.eye(2), 3))
    assert collapsed.precision > 0.95 and collapsed.recall < 0.2
    # Every kind and much nonsense besides: the other way round.
    wide = m.precision_recall(x, 8 * normal(400, [0, 0], np.eye(2), 4))
    assert wide.precision < 0.5 < wide.recall


def test_features_by_any_network():
    samples = np.random.default_rng(0).standard_normal((10, 1, 4, 4)).astype("f4")
    sizes = []

    def network(part):
        sizes.append(len(part))
        return part.reshape(len(part), -1)[:, :3]

    found = m.features_of(network, samples, batch_size=4)
    assert sizes == [4, 4, 2]
    assert found == pytest.approx(samples.reshape(10, -1)[:, :3])


def test_bad_input():
    x = np.zeros((5, 3))
    with pytest.raises(ShapeError, match="one size"):
        m.frechet_distance(x, np.zeros((5, 4)))
    with pytest.raises(DataError, match="two of each"):
        m.frechet_distance(x, x[:1])
    with pytest.raises(ShapeError, match=r"\(N, D\)"):
        m.kernel_distance(x, x[0])
    bad = x.copy()
    bad[3, 1] = np.nan
    with pytest.raises(DataError, match="row 3"):
        m.precision_recall(bad, x)
    with pytest.raises(DataError, match="neighbours"):
        m.precision_recall(x, x, neighbours=5)
    with pytest.raises(DataError, match="no samples"):
        m.features_of(lambda part: part, np.zeros((0, 1, 4, 4)))
    with pytest.raises(ShapeError, match="mean over all places"):
        m.features_of(lambda part: part, np.zeros((2, 1, 4, 4)))
