"""Tables as text for a terminal and as HTML for a notebook."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import Any

_MOST = 200  # rows and columns that a notebook shows
_LONGEST = 200  # characters of a cell
_TABLE = '<table cellpadding="3" style="border-collapse:collapse">'
_LEFT, _RIGHT = "text-align:left;white-space:pre-wrap", "text-align:right"


def text_table(head: Sequence[str], rows: Sequence[Sequence[Any]], left: int = 1) -> str:
    """Columns of equal width; the first `left` begin at the left, numbers end at the right."""
    cells = [[str(cell) for cell in row] for row in [head, *rows]]
    widths = [max(len(row[i]) for row in cells) for i in range(len(head))]
    lines = [
        "  ".join(
            cell.ljust(width) if i < left else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in cells
    ]
    lines.insert(1, "-" * max(map(len, lines)))
    return "\n".join(lines)


def html_table(
    head: Sequence[str], rows: Sequence[Sequence[Any]], *, caption: str = "", left: int = 1
) -> str:
    """The same for a notebook: escaped, in its own colours, of at most 200 rows and columns."""
    shown = rows[:_MOST]
    wide = len(head) > _MOST
    parts = [_TABLE]
    if caption:
        parts.append(f'<caption style="text-align:left">{escaped(caption)}</caption>')
    if any(head):
        parts.append(_row("th", head, left))
    parts += [_row("td", row, left) for row in shown]
    hidden = len(rows) - len(shown)
    if hidden or wide:
        more = f"... and {hidden:,} more rows" if hidden else "... and more columns"
        parts.append(f'<tr><td colspan="{min(len(head), _MOST)}">{more}</td></tr>')
    return "".join(parts) + "</table>"


def _row(kind: str, cells: Sequence[Any], left: int) -> str:
    inner = "".join(
        f'<{kind} style="{_LEFT if i < left else _RIGHT}">{escaped(cell)}</{kind}>'
        for i, cell in enumerate(cells[:_MOST])
    )
    return f"<tr>{inner}</tr>"


def escaped(value: Any) -> str:
    """Text for HTML, of bounded length."""
    text = str(value)
    return html.escape(text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…")


def html_block(title: str, *parts: str) -> str:
    """A heading and what belongs to it; the parts are HTML already."""
    heading = f"<b>{escaped(title)}</b>" if title else ""
    return f"<div>{heading}{''.join(parts)}</div>"
