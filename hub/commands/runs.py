"""`bestiary runs`: the runs of a folder side by side."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from ...core.errors import DataError
from .output import json_option, print_json, print_table

_WIDEST = 24  # characters of a hyper-parameter
_NAMED = 6  # columns that are named where they do not fit


@click.command("runs")
@click.argument("folder", type=click.Path(path_type=Path), default="runs")
@click.option("--figure", "wanted", multiple=True, help="A number to show; the main ones else.")
@click.option("--sort", help="By this column: a figure (its best value), step, started or name.")
@json_option
def runs_command(folder: Path, wanted: tuple[str, ...], sort: str | None, as_json: bool) -> None:
    """List the runs in FOLDER (runs, unless named): status, steps, figures, what differs."""
    from ...core.insight.runs.compare import differing, main_figures, name_of, summary
    from ...core.insight.runs.reader import read_run, runs_in

    if not folder.is_dir():
        raise DataError(f"{folder} is no folder: `bestiary runs FOLDER` lists the runs in one")
    rows = [summary(read_run(path), name_of(path, folder)) for path in runs_in(folder)]
    known = sorted({tag for row in rows for tag in row["figures"]})
    for tag in (*wanted, *([sort] if sort not in (None, "step", "started", "name") else [])):
        if tag not in known:
            there = (
                f"there are: {', '.join(known[:12])}" if known else "there are no numbers at all"
            )
            raise DataError(f"no run has the number {tag!r}; {there}")
    if sort is not None:
        rows.sort(key=lambda row: _place(row, sort))
    if as_json:
        print_json(rows)
        return
    if not rows:
        click.echo(f"no runs in {folder}", err=True)
        return
    tags = list(wanted) or main_figures(rows)
    settings = differing(rows) if len(rows) > 1 else []
    # What most runs have tells most; the sort is stable.
    settings.sort(key=lambda name: -sum(name in row["hyperparameters"] for row in rows))
    groups = [_figure(rows, tag) for tag in tags] + [_setting(rows, name) for name in settings]
    shown, hidden = _fitting(_fixed(rows), groups, shutil.get_terminal_size((0, 0)).columns)
    print_table(list(zip(*(column[1:] for column in shown), strict=True)), [c[0] for c in shown])
    if hidden:
        names = ", ".join(hidden[:_NAMED]) + (", ..." if len(hidden) > _NAMED else "")
        click.echo(f"{len(hidden)} more in a wider window, all with --json: {_plain(names)}")
    for row in rows:
        for problem in row["problems"]:
            click.echo(f"{row['name']}: {problem}", err=True)


def _place(row: dict[str, Any], by: str) -> tuple[bool, Any]:
    """Where a run belongs: the best first, those without a value last."""
    from ...core.insight.runs.compare import lower_is_better

    if by in ("step", "started", "name"):
        return row[by] is None, row[by] or 0
    value = row["figures"].get(by, {}).get("best")
    return value is None, (value or 0.0) * (1 if lower_is_better(by) else -1)


def _fixed(rows: Sequence[dict[str, Any]]) -> list[list[str]]:
    """The columns that are always there; each begins with its heading."""
    return [
        ["run", *(row["name"] for row in rows)],
        ["status", *(row["status"] for row in rows)],
        ["step", *(_short(row["step"]) for row in rows)],
        ["time", *(_time(row["seconds"]) for row in rows)],
    ]


def _figure(rows: Sequence[dict[str, Any]], tag: str) -> list[list[str]]:
    """Two columns: the last values of a figure and the best ones."""
    found = [row["figures"].get(tag, {}) for row in rows]
    return [
        [_plain(tag), *(_short(one.get("last")) for one in found)],
        ["best", *(_short(one.get("best")) for one in found)],
    ]


def _setting(rows: Sequence[dict[str, Any]], name: str) -> list[list[str]]:
    return [[_plain(name), *(_short(row["hyperparameters"].get(name)) for row in rows)]]


def _fitting(
    fixed: list[list[str]], groups: Sequence[list[list[str]]], width: int
) -> tuple[list[list[str]], list[str]]:
    """The columns that a line holds, the first groups before later ones, and the names of the rest.

    Args:
        width: of the terminal, in characters; 0 for one without end, such as a file.
    """
    shown, hidden = list(fixed), []
    left = width - _wide(fixed)
    for group in groups:
        if width and _wide(group) + 2 > left:
            hidden.append(group[0][0])
            continue
        left -= _wide(group) + 2
        shown += group
    return shown, hidden


def _wide(columns: Sequence[Sequence[str]]) -> int:
    """Characters of columns side by side, with two between them."""
    return sum(max(map(len, column)) for column in columns) + 2 * (len(columns) - 1)


def _short(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.4g}"
    text = _plain(str(value))
    return text if len(text) <= _WIDEST else text[: _WIDEST - 1] + "…"


def _plain(text: str) -> str:
    """A log is not this terminal's master: no control characters reach it."""
    return "".join(c if c.isprintable() else "?" for c in text)


def _time(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
