"""The photographs that ship with the package; assets/samples/SOURCES.md says whose they are."""

from __future__ import annotations

from pathlib import Path

FOLDER = Path(__file__).parent / "assets" / "samples"


def sample_photographs() -> list[Path]:
    """Their paths, by name: public domain or CC0, each under 100 kB."""
    return sorted(FOLDER.glob("*.jpg"))
