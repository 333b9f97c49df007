"""`bestiary pull`: fetch models ahead of their use."""

from __future__ import annotations

from typing import Any

import click

from ...core.errors import BestiaryError
from .output import json_option, megabytes, print_json


@click.command("pull")
@click.argument("names", nargs=-1, metavar="NAME...")
@click.option("--revision", help="Branch, tag, commit or refs/pr/N of a hub repository.")
@click.option("--variant", help='Of the weights, such as "fp16".')
@click.option("--refresh", is_flag=True, help="Ask whether a branch has moved on since.")
@click.option("--verify", is_flag=True, help="Hash what is in the cache again.")
@click.option("--locked", is_flag=True, help="Only what the lock file names; alone, all of it.")
@json_option
def pull_command(
    names: tuple[str, ...],
    revision: str | None,
    variant: str | None,
    refresh: bool,
    verify: bool,
    locked: bool,
    as_json: bool,
) -> int:
    """Fetch models: curated names, or repositories (org/name). What is here is left alone.

    The last line printed is the path of the (last) model. Progress goes to the error output.
    """
    from ..lock import from_here, in_force
    from ..sources import Request

    lock = in_force(locked)
    if not names and not (locked and lock is not None):
        raise click.UsageError("Name a model, or take all that are locked: --locked")
    if lock is not None and (refresh or revision):
        raise click.UsageError("--refresh and --revision contradict the lock file")
    if not names and lock is not None:
        names = tuple(from_here(lock.path, name) for name in lock)
    request = Request(
        revision=revision,
        variant=variant,
        quiet=as_json,
        refresh=refresh,
        verify=True if verify else None,
        lock=lock,
    )
    done: list[dict[str, Any]] = []
    failed: list[dict[str, str]] = []
    for name in names:
        try:
            done.append(_pull(name, request, quiet=as_json))
        except (BestiaryError, OSError) as error:
            if len(names) == 1:
                raise
            failed.append({"name": name, "error": str(error)})
            click.echo(f"error: {name}: {error}", err=True)
    if as_json:
        print_json({"models": done, "failed": failed})
    return 1 if failed else 0


def _pull(name: str, request: Any, *, quiet: bool) -> dict[str, Any]:
    from ..licences import show_once
    from ..sources import card_of_files, facts, obtain

    found = obtain(name, request)
    show_once(card_of_files(found))
    told = facts(found)
    if not quiet:
        commit = f" at {told['commit'][:12]}" if told["commit"] else ""
        count = f"{len(told['files'])} file{'s' if len(told['files']) != 1 else ''}"
        click.echo(
            f"{found.name}: {count}, {megabytes(told['bytes'])}, {told['source']}{commit}", err=True
        )
        click.echo(told["path"])
    return told
