"""The assignment problem, by trying all of them and against scipy."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest

from bestiary.core.errors import DataError, ShapeError
from bestiary.core.weights import load_file
from bestiary.vision.matching import assign


@pytest.mark.parametrize("shape", [(1, 1), (2, 2), (3, 5), (5, 3), (5, 5), (0, 4), (4, 0)])
@pytest.mark.parametrize("digits", [0, 1, 6])  # rounded costs are often equal
def test_no_other_assignment_costs_less(shape: tuple[int, int], digits: int) -> None:
    rng = np.random.default_rng(digits)
    for _ in range(10):
        cost = rng.standard_normal(shape).round(digits)
        rows, columns = assign(cost)
        assert len(set(rows.tolist())) == len(set(columns.tolist())) == min(shape)
        assert rows.tolist() == sorted(rows.tolist())
        table = cost if shape[0] <= shape[1] else cost.T
        n, m = table.shape
        best = min(
            sum(table[i, p[i]] for i in range(n)) for p in itertools.permutations(range(m), n)
        )
        assert cost[rows, columns].sum() == pytest.approx(best)


@pytest.mark.parametrize("case", range(7))
def test_equals_scipy(case: int, references: Path) -> None:
    stored = load_file(references / "detection.safetensors")
    rows, columns = assign(stored[f"assign.{case}.cost"])
    np.testing.assert_array_equal([rows, columns], stored[f"assign.{case}.pairs"])


def test_what_makes_no_sense() -> None:
    with pytest.raises(DataError, match=r"pair \(0, 1\) is nan"):
        assign([[1.0, float("nan")]])
    with pytest.raises(ShapeError, match="two axes"):
        assign(np.zeros(3))
