"""Tells mkdocs where the package is, and fills pages from the tables in the code.

In a page, `!!! names: core.ops.` is replaced by the public names of the root's table whose module
begins so; `!!! imports: core/linalg.py` by what that file imports from `core/ops`.
"""

import ast
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.plugins import event_priority

ROOT = Path(__file__).resolve().parents[2]
LINE = re.compile(r"^!!! (names|imports): (\S+)$", re.MULTILINE)

# The repository root is the package, whatever its folder is called, so the reader of docstrings is
# shown a folder with a link to it. Removed when the build ends.
_SHOWN = tempfile.TemporaryDirectory()


@event_priority(100)
def on_config(config: Any) -> None:
    """Called by mkdocs first, before the plugin that reads docstrings."""
    package = Path(_SHOWN.name) / "bestiary"
    package.mkdir(exist_ok=True)
    for name in ("__init__.py", "core", "generative", "hub", "rl", "text", "vision"):
        if not (package / name).exists():
            (package / name).symlink_to(ROOT / name)
    config.plugins["mkdocstrings"].config.handlers["python"]["paths"] = [_SHOWN.name]


def on_page_markdown(markdown: str, **kwargs: Any) -> str:
    """Called by mkdocs for each page."""
    return LINE.sub(lambda m: "\n".join(_section(*g) for g in _groups(m[1], m[2])), markdown)


def _section(module: str, names: list[str]) -> str:
    title = module.rpartition(".")[2].capitalize()
    lines = [f"## {title}", "", f"::: bestiary.{module}", "    options:"]
    lines += ["      show_root_heading: false", "      show_root_toc_entry: false"]
    lines += ["      heading_level: 2", "      members:"]
    return "\n".join([*lines, *(f"        - {name}" for name in sorted(names)), ""])


def _groups(kind: str, argument: str) -> Iterator[tuple[str, list[str]]]:
    if kind == "names":
        import bestiary

        table = bestiary._NAMES
        modules = sorted({m for m in table.values() if m.startswith(argument)})
        for module in modules:
            yield module, [n for n, m in table.items() if m == module]
        return
    for node in ast.parse((ROOT / argument).read_text("utf-8")).body:
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("ops."):
            yield f"core.{node.module}", [alias.name for alias in node.names]
