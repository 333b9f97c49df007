"""Charts: the drawn pixels say what the numbers say."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from bestiary.core.insight.charts import (
    COLOURS,
    confusion_chart,
    contact_sheet,
    line_chart,
    nice_ticks,
    save_chart,
)


def rows_of(image: Image.Image, colour: tuple[int, int, int]) -> np.ndarray:
    array = np.asarray(image)[60:]  # below the legend
    return np.nonzero((array == colour).all(axis=-1))[0]


def test_a_rising_line_rises():
    image = line_chart({"a": [0.0, 1.0, 2.0]})
    array = np.asarray(image)[60:]
    ys, xs = np.nonzero((array == COLOURS[0]).all(axis=-1))
    left, right = ys[xs < xs.mean()].mean(), ys[xs > xs.mean()].mean()
    assert right < left - 50  # pixels count downwards


def test_values_that_are_not_finite_leave_a_gap():
    whole = line_chart({"a": [1.0, 2.0, 1.5, 3.0]})
    gap = line_chart({"a": [1.0, float("nan"), 1.5, 3.0]})
    assert len(rows_of(gap, COLOURS[0])) < len(rows_of(whole, COLOURS[0]))
    assert not len(rows_of(line_chart({"a": [float("inf")]}), COLOURS[0]))


@pytest.mark.parametrize(
    "low, high", [(0, 1), (-3.2, 17), (1e-9, 2e-9), (5, 5), (0, 0), (1e6, 3e7)]
)
def test_ticks_are_round_and_cover_the_range(low, high):
    ticks = nice_ticks(low, high)
    assert ticks[0] <= low and ticks[-1] >= high
    assert 2 <= len(ticks) <= 12
    steps = np.diff(ticks)
    np.testing.assert_allclose(steps, steps[0], rtol=1e-6)


def test_cells_are_shaded_by_their_share_of_the_row():
    image = np.asarray(confusion_chart([[9, 1], [5, 5]], ["cat", "dog"]))
    shades = {tuple(p) for p in image.reshape(-1, 3)}

    def shade(share: float) -> tuple[int, ...]:
        return tuple(round(255 + (d - 255) * share) for d in (8, 48, 107))

    assert {shade(0.9), shade(0.1), shade(0.5)} <= shades
    assert shade(1.0) not in shades


def test_a_matrix_of_another_size_is_refused():
    with pytest.raises(ValueError, match="2 x 2"):
        confusion_chart(np.zeros((3, 3)), ["a", "b"])


def test_contact_sheet_and_saving(tmp_path):
    pictures = [Image.new("RGB", (300, 100), colour) for colour in COLOURS[:4]]
    sheet = contact_sheet(pictures, ["one", "two\nlines", "three", "four"], columns=2, side=60)
    found = {tuple(p) for p in np.asarray(sheet).reshape(-1, 3)}
    assert set(COLOURS[:4]) <= found
    path = save_chart(sheet, tmp_path / "sheet.png")
    with Image.open(path) as saved:
        assert saved.size == sheet.size
