"""`bestiary lock`: pin names to commits and hashes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .output import json_option, print_json

if TYPE_CHECKING:
    from ..lock import Lock


@click.command("lock")
@click.argument("names", nargs=-1, metavar="[NAME...]")
@click.option(
    "-o",
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The lock file; that of BESTIARY_LOCK, else bestiary.lock, unless given.",
)
@click.option("--check", is_flag=True, help="Change nothing; fail if anything would change.")
@click.option("--offline", is_flag=True, help="Pin what is in the cache; ask nobody.")
@json_option
def lock_command(
    names: tuple[str, ...], out: Path | None, check: bool, offline: bool, as_json: bool
) -> int:
    """Pin models to the commits and hashes that they have now, in bestiary.lock.

    Without names, every model of the file is pinned anew. What is pinned is fetched first. Load
    it with bt.load(NAME, locked=True), bestiary --locked COMMAND, or the variable BESTIARY_LOCK.
    """
    from ..lock import DEFAULT, VARIABLE, from_here, read
    from ..sources import Request, obtain

    path = out or Path(os.environ.get(VARIABLE) or DEFAULT)
    before = read(path)
    chosen = list(names) or [from_here(path, name) for name in before]
    if not chosen:
        raise click.UsageError(f"Name a model: {path} pins none yet")
    after = before
    for name in chosen:
        after = after.with_model(obtain(name, Request(quiet=as_json, refresh=not offline)))
    changes = _changes(before, after)
    changed = any(change["change"] != "same" for change in changes)
    if changed and not check:
        after.save()
    if as_json:
        print_json({"path": str(path.absolute()), "changed": changed, "models": changes})
    else:
        for change in changes:
            click.echo(_line(change), err=True)
        click.echo(str(path.absolute()))
    return 1 if check and changed else 0


def _changes(before: Lock, after: Lock) -> list[dict[str, Any]]:
    rows = []
    for name in after:
        old = before[name].to_dict() if name in before else None
        new = after[name].to_dict()
        what = "added" if old is None else "same" if old == new else "changed"
        rows.append({"name": name, "change": what, "before": old, "after": new})
    return rows


def _line(change: dict[str, Any]) -> str:
    sign = {"added": "+", "same": "=", "changed": "~"}[change["change"]]
    shown = [_pin(c) for c in (change["before"], change["after"]) if c is not None]
    if change["change"] == "changed" and shown[0] == shown[1]:
        old, new = change["before"]["files"], change["after"]["files"]
        differ = sorted(n for n in {*old, *new} if old.get(n) != new.get(n))
        shown = [f"{shown[1]}: {', '.join(differ[:4])}"]
    return f"{sign} {change['name']}  {' -> '.join(dict.fromkeys(shown))}"


def _pin(locked: dict[str, Any]) -> str:
    pins = [v for k, v in locked.items() if k not in ("source", "files", "repo")]
    return " ".join(
        [locked["source"], *(str(p)[:12] if len(str(p)) == 40 else str(p) for p in pins)]
    )
