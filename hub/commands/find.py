"""`bestiary find`: models by words that need not be spelled right, and by facts."""

from __future__ import annotations

import re

import click

from .catalog import facts, models_table
from .output import json_option, print_json

_NUMBER = re.compile(r"(\d+(?:\.\d+)?)\s*([kmb]?)", re.IGNORECASE)
_TIMES = {"": 1, "k": 1e3, "m": 1e6, "b": 1e9}


def _count(ctx: click.Context, param: click.Parameter, value: str | None) -> int | None:
    """A number of parameters: 25000000, 25M, 1.5B."""
    found = _NUMBER.fullmatch((value or "").strip())
    if value is not None and found is None:
        raise click.BadParameter(f"{value!r} is no number such as 500k, 25M or 1.5B", ctx, param)
    return None if found is None else round(float(found[1]) * _TIMES[found[2].lower()])


@click.command("find")
@click.argument("words", nargs=-1, metavar="[WORD...]")
@click.option("--task", help="A part of the task, such as segmentation.")
@click.option("--license", help="A part of the licence, such as apache or mit.")
@click.option(
    "--commercial/--non-commercial",
    default=None,
    help="Only models whose licence permits commercial use, or only those whose does not.",
)
@click.option("--max-parameters", callback=_count, help="Not larger than, such as 25M.")
@click.option("--min-parameters", callback=_count, help="Not smaller than.")
@click.option("--no-hub", is_flag=True, help="Only models that need no model hub.")
@json_option
def find_command(
    words: tuple[str, ...],
    task: str | None,
    license: str | None,
    commercial: bool | None,
    max_parameters: int | None,
    min_parameters: int | None,
    no_hub: bool,
    as_json: bool,
) -> int:
    """Look for models; WORDs may be misspelled, and the best fit comes first.

    Exit code 1 when there is none.
    """
    from ..finding import Wanted, search

    wanted = Wanted(task, license, commercial, min_parameters, max_parameters, no_hub)
    found = search(words, wanted)
    if as_json:
        print_json([facts(a, e) for a, e in found])
    elif found:
        models_table(found)
    else:
        click.echo("no model fits; all names: bestiary list", err=True)
    return 0 if found else 1
