"""Fixtures of the vision tests."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image


@pytest.fixture(scope="session")
def references() -> Path:
    """The folder of stored references; tests/references says how they were made."""
    return Path(__file__).parent.parent / "references" / "data"


@pytest.fixture(scope="session")
def samples() -> Path:
    """The photographs that ship with the package."""
    from bestiary.vision.samples import FOLDER

    return FOLDER


@pytest.fixture
def photo() -> Image.Image:
    """A small colourful picture, different in every direction."""
    rng = np.random.default_rng(7)
    coarse = Image.fromarray(rng.integers(0, 256, (5, 6, 3), dtype=np.uint8))
    return coarse.resize((60, 48), Image.Resampling.BICUBIC)
