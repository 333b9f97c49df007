"""`bestiary runs`: the runs of a folder side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from ...core.errors import DataError
from .output import json_option, print_json, print_table

_WIDEST = 24  # characters of a hyper-parameter


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
    header = ["run", "status", "step", "time"]
    header += [word for tag in tags for word in (tag, "best")] + settings
    print_table([_row(row, tags, settings) for row in rows], header)
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


def _row(row: dict[str, Any], tags: Sequence[str], settings: Sequence[str]) -> list[str]:
    cells = [row["name"], row["status"], _short(row["step"]), _time(row["seconds"])]
    for tag in tags:
        found = row["figures"].get(tag, {})
        cells += [_short(found.get("last")), _short(found.get("best"))]
    return cells + [_short(row["hyperparameters"].get(name)) for name in settings]


def _short(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.4g}"
    # A log is not this terminal's master: no control characters reach it.
    text = "".join(c if c.isprintable() else "?" for c in str(value))
    return text if len(text) <= _WIDEST else text[: _WIDEST - 1] + "…"


def _time(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
