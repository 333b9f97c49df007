"""What the commands share: JSON for programs, aligned tables for people."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import click

json_option = click.option(
    "--json", "as_json", is_flag=True, help="Print JSON, for a program to read."
)


def print_json(value: Any) -> None:
    """One JSON document on standard output."""
    click.echo(json.dumps(value, indent=2, default=str))


def print_table(rows: Sequence[Sequence[str]], header: Sequence[str] | None = None) -> None:
    """Columns, aligned; the last one is not padded."""
    every = [list(header)] if header else []
    every += [[str(cell) for cell in row] for row in rows]
    if not every:
        return
    widths = [max(len(row[i]) for row in every) for i in range(len(every[0]))]
    for row in every:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        click.echo("  ".join(cells).rstrip())


def megabytes(size: float) -> str:
    """A number of bytes for people."""
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:,.3g} GB"
