"""`bestiary cache`: what was fetched, where it lies, whether it is sound, removing it."""

from __future__ import annotations

import sys
from typing import Any

import click

from .output import json_option, megabytes, print_json, print_table


@click.group("cache", context_settings={"help_option_names": ["-h", "--help"]})
def cache_command() -> None:
    """What was fetched: where it lies, whether it is sound, how to remove it."""


@cache_command.command("where")
@json_option
def where_command(as_json: bool) -> None:
    """The folders: that of the hub is the standard one, which other tools share."""
    from ..stored import places

    found = {name: str(path) for name, path in places().items()}
    if as_json:
        print_json(found)
    else:
        print_table([[name, path] for name, path in found.items()])


@cache_command.command("list")
@json_option
def list_command(as_json: bool) -> None:
    """Every model in the caches, the largest first."""
    from ..stored import stored

    found = stored()
    rows: list[dict[str, Any]] = [
        {
            "name": one.name,
            "kind": one.kind,
            "bytes": one.size,
            "files": one.files,
            "commits": list(one.commits),
            "incomplete_bytes": one.incomplete,
            "path": str(one.path),
        }
        for one in found
    ]
    if as_json:
        print_json(rows)
        return
    if not rows:
        click.echo("nothing is in the caches", err=True)
        return
    table = [
        [
            row["name"],
            row["kind"],
            megabytes(row["bytes"]),
            f"{row['files']}",
            ", ".join(commit[:12] for commit in row["commits"])
            + (
                f" ({megabytes(row['incomplete_bytes'])} of interrupted downloads)"
                if row["incomplete_bytes"]
                else ""
            ),
        ]
        for row in rows
    ]
    print_table(table, ["name", "source", "size", "files", "commits"])
    click.echo(f"\n{megabytes(sum(row['bytes'] for row in rows))} in all")


@cache_command.command("verify")
@click.argument("names", nargs=-1, metavar="[NAME...]")
@json_option
def verify_command(names: tuple[str, ...], as_json: bool) -> int:
    """Hash every file again, or those of the models NAMEd. Opens no connection.

    Exit code 1 when a file is damaged or missing; the next load fetches it again.
    """
    from ..stored import check

    rows = [row for name in names for row in check(name)] if names else check()
    damaged = [row for row in rows if row.problem is not None]
    if as_json:
        files = [{**vars(row), "path": str(row.path)} for row in rows]
        print_json({"files": files, "sound": not damaged})
        return 1 if damaged else 0
    for row in damaged:
        where = f"{row.repo} at {row.commit[:12]}" if row.repo else "wheel"
        click.echo(f"damaged: {where}: {row.name}: {row.problem}\n  {row.path}", err=True)
    size = megabytes(sum(row.size for row in rows))
    found = f"{len(damaged)} damaged or missing" if damaged else "all sound"
    click.echo(f"{len(rows)} file{'s' if len(rows) != 1 else ''}, {size}: {found}")
    return 1 if damaged else 0


@cache_command.command("remove")
@click.argument("names", nargs=-1, metavar="[NAME...]")
@click.option("--all", "everything", is_flag=True, help="Every model in the caches.")
@click.option("--incomplete", is_flag=True, help="Only what interrupted downloads left.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@json_option
def remove_command(
    names: tuple[str, ...], everything: bool, incomplete: bool, yes: bool, as_json: bool
) -> int:
    """Remove models from the caches: curated names, repositories, or files of wheels.

    The cache of the hub is shared: what is removed is gone for other tools too.
    """
    from ..stored import chosen, remove, remove_incomplete, stored

    if bool(names) == everything and not (incomplete and not names):
        raise click.UsageError("Name the models to remove, or all of them: --all")
    found = [one for name in names for one in chosen(name)] if names else stored()
    if incomplete:
        found = [one for one in found if one.incomplete]
    sizes = [one.incomplete if incomplete else one.size for one in found]
    if found and not yes:
        if as_json or not sys.stdin.isatty():
            raise click.UsageError("Nobody can be asked here; to remove them: --yes")
        for one, size in zip(found, sizes, strict=True):
            click.echo(f"{one.name}  {one.kind}  {megabytes(size)}  {one.path}")
        if not click.confirm(f"Remove these {megabytes(sum(sizes))}?"):
            click.echo("nothing was removed", err=True)
            return 1
    freed = sum(remove_incomplete(one) if incomplete else remove(one) for one in found)
    if as_json:
        print_json({"removed": [one.name for one in found], "bytes": freed})
    else:
        click.echo(f"removed {len(found)}, freed {megabytes(freed)}")
    return 0
