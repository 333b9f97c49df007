"""The names of `bestiary.generative`, which are imported when they are first used."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from bestiary import generative


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
