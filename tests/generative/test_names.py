"""The names of `bestiary.generative`, which are imported when they are first used."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from bestiary import generative
from bestiary.hub.registry import entries

MODELS = Path(__file__).parents[2] / "docs" / "models.md"


def test_every_name_is_there_for_type_checkers_too() -> None:
    tree = ast.parse(Path(generative.__file__).read_text(encoding="utf-8"))
    typed = {
        alias.asname: f"{node.module}"
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.level
        for alias in node.names
    }
    assert typed == generative._NAMES
    for name in generative.__all__:
        assert getattr(generative, name).__name__ == name
    assert set(generative.__all__) <= set(dir(generative))


def test_a_name_that_is_not_there() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Unet'"):
        generative.Unet  # noqa: B018


def test_the_page_of_models_has_every_one_that_makes_pictures() -> None:
    rows = [line for line in MODELS.read_text(encoding="utf-8").splitlines() if line[:1] == "|"]
    found = 0
    for architecture, entry in entries():
        if not architecture.build.__module__.startswith("bestiary.generative."):
            continue
        (row,) = [one for one in rows if f"`{entry.name}`" in one.split("|")[1]]
        assert f"{entry.parameters:,}" in row and (entry.license or "not pinned") in row
        assert ("not for commercial use" in row) == (entry.commercial is False)
        found += 1
    assert found >= 13
