"""The photographs that ship with the package; assets/samples/SOURCES.md says whose they are."""

from __future__ import annotations

from pathlib import Path

FOLDER = Path(__file__).parent / "assets" / "samples"

# What each shows, in an everyday word.
SUBJECTS = {
    "bison": "bison",
    "cat": "cat",
    "dog": "dog",
    "espresso": "espresso",
    "lemur": "lemur",
    "macaw": "macaw",
    "red-panda": "red panda",
}


def sample_photographs() -> list[Path]:
    """Their paths, by name: public domain or CC0, each under 100 kB."""
    return sorted(FOLDER.glob("*.jpg"))
