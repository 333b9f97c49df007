"""docs/vision-models.md is what the registry and the measured families say."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from bestiary.hub.registry import get

SCRIPT = Path(__file__).parents[2] / "docs" / "examples" / "vision_models.py"


@pytest.fixture(scope="module")
def made() -> ModuleType:
    spec = importlib.util.spec_from_file_location("vision_models", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_is_up_to_date(made: ModuleType) -> None:
    assert made.PAGE.read_text(encoding="utf-8") == made.page()


def test_a_family_that_was_not_measured_is_refused(made: ModuleType) -> None:
    architecture, entry = get("resnet18")
    with pytest.raises(KeyError, match="resnet18"):
        made.family_of(architecture, entry, [])
