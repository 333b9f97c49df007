"""What `predict` says: lines as answers come, one JSON document, or rows of a CSV file."""

from __future__ import annotations

import csv
import sys
import traceback
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import click

from ...core.callers import debugging
from ...core.paths import atomic
from .output import print_json


class Answers:
    """A context that takes answers one by one; the files are complete when it ends well.

    Args:
        as_json: print one document at the end, and no lines.
        table: the CSV file, if one is wanted.
        columns: its columns.
    Attributes:
        found: the answers so far, for each input.
    """

    def __init__(self, as_json: bool, table: Path | None, columns: Sequence[str]) -> None:
        self.found: dict[str, Any] = {}
        self._as_json, self._table, self._columns = as_json, table, columns
        self._rows: Any = None
        self._open = ExitStack()

    def __enter__(self) -> Self:
        if self._table is not None:
            part = self._open.enter_context(atomic(self._table))
            file = self._open.enter_context(part.open("w", encoding="utf-8", newline=""))
            self._rows = csv.DictWriter(file, list(self._columns), lineterminator="\n")
            self._rows.writeheader()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._open.__exit__(kind, error, trace)
        if kind is None and self._as_json:
            print_json(self.found)

    def add(
        self,
        asked: str,
        answer: Any,
        lines: Iterable[str],
        rows: Iterable[Mapping[str, Any]] = (),
    ) -> None:
        """An answer.

        Args:
            asked: the input.
            answer: for JSON.
            lines: for people; the input stands above them.
            rows: for CSV.
        """
        self.found[asked] = answer
        if self._rows is not None:
            self._rows.writerows(rows)
        if not self._as_json:
            say("\n".join([asked, *(f"  {line}" for line in lines)]))


def say(text: str) -> None:
    """Print a text, above the bar of progress if a terminal shows one."""
    bars = sys.modules.get("tqdm")
    if bars is None or not sys.stdout.isatty():
        click.echo(text)
    else:
        bars.tqdm.write(text, file=sys.stdout)


def complain(error: Exception, name: object = "") -> None:
    """Say what went wrong with one input, by its name, on the error output; the others go on."""
    text = f"{error}" if str(name) in str(error) else f"{name}: {error}"
    if debugging():
        click.echo("".join(traceback.format_exception(error)), err=True)
    bars = sys.modules.get("tqdm")
    if bars is None or not sys.stderr.isatty():
        click.echo(f"error: {text}", err=True)
    else:
        bars.tqdm.write(f"error: {text}", file=sys.stderr)
