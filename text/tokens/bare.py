"""A bare vocabulary, read by ours."""

from __future__ import annotations

from pathlib import Path

from .parts import Engine, Settings, Template


def read_bare(root: Path, settings: Settings) -> tuple[Engine, Template, dict[str, bytes]] | None:
    """The engine, the template and the files of the first vocabulary that the folder holds."""
    return None
