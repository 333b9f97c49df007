"""Make docs/vision-models.md: every model for pictures, of the registry and of what was measured.

    python docs/examples/vision_models.py

Names, parameters and licences are the registry's. Agreement and speed are those of
vision_models.json: the largest difference from the reference in float32 with random weights, and
how many times as fast as PyTorch eager one model of the family is. A test compares the page with
what this makes, and fails for a family that the file does not know.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from bestiary.hub.registry import Architecture, Entry, entries, task_of

HERE = Path(__file__).parent
FAMILIES = HERE / "vision_models.json"
PAGE = HERE.parent / "vision-models.md"
HEAD = """# All models for pictures

<!-- This page is made by docs/examples/vision_models.py; change that. -->

Agreement is the largest difference from the reference in float32, with the same random weights, as
tests show it: of logits, features, scores or masks; "ours" has no reference. Speed says how many
times as fast as PyTorch 2.13 eager one model of the family was, for 1 and for 8 pictures, on two
cores; more of it is in [Performance](performance.md#families-of-vision-models). "-" was not timed.

"""


def family_of(architecture: Architecture, entry: Entry, known: list[dict[str, Any]]) -> Any:
    """What was measured of the family of an entry.

    Raises:
        KeyError: nothing is written down of it.
    """
    for family in known:
        pattern = family.get("names", ".*")
        if family["architecture"] == architecture.name and re.fullmatch(pattern, entry.name):
            return family
    raise KeyError(f"{FAMILIES.name} has no family for {entry.name} ({architecture.name})")


def page() -> str:
    """The page, with a table for each task."""
    known = json.loads(FAMILIES.read_text(encoding="utf-8"))
    tables: dict[str, list[str]] = {}
    for architecture, entry in entries():
        if not architecture.build.__module__.startswith("bestiary.vision."):
            continue
        family = family_of(architecture, entry, known)
        speed = " / ".join(f"{ratio:.2f}" for ratio in family.get("speed", ())) or "-"
        cells = (
            f"`{entry.name}`",
            family["family"],
            "-" if entry.parameters is None else f"{entry.parameters:,}",
            entry.license or "not pinned",
            family["difference"],
            f"{speed} ({family['timed']})" if family.get("timed") else speed,
        )
        row = f"| {' | '.join(cells)} |"
        tables.setdefault(task_of(architecture, entry), []).append(row)
    head = "| model | family | parameters | licence of the weights | agreement | speed, 1 / 8 |"
    parts = []
    for task, rows in sorted(tables.items()):
        title = task.replace("-", " ").capitalize()
        parts.append("\n".join([f"## {title}", "", head, "|---|---|---|---|---|---|", *rows, ""]))
    return HEAD + "\n".join(parts)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8", newline="\n")
    print(PAGE)
