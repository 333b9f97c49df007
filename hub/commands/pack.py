"""`bestiary pack` and `bestiary unpack`: models in one file, for machines without a network."""

from __future__ import annotations

from pathlib import Path

import click

from .output import json_option, megabytes, print_json


@click.command("pack")
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@click.option(
    "-o", "--out", required=True, type=click.Path(path_type=Path, dir_okay=False), help="The file."
)
@click.option("--revision", help="Branch, tag or commit of a hub repository.")
@click.option("--variant", help='Of the weights, such as "fp16".')
@click.option("--force", is_flag=True, help="Replace a file that exists.")
@json_option
def pack_command(
    names: tuple[str, ...],
    out: Path,
    revision: str | None,
    variant: str | None,
    force: bool,
    as_json: bool,
) -> None:
    """Put models into one file, which `bestiary unpack` reads on a machine without a network.

    NAME is a curated name, a repository (org/name) or a folder. What is not here is fetched. The
    file is a plain zip file; its sha256 is printed, to be compared on the other machine.
    """
    from ...core.paths import sha256_of
    from ..lock import in_force
    from ..packing import pack
    from ..sources import Request, obtain

    if out.exists() and not force:
        raise click.UsageError(f"{out} exists. To replace it: --force")
    request = Request(revision=revision, variant=variant, quiet=as_json, lock=in_force())
    models = pack([obtain(name, request) for name in names], out)
    told = {
        "path": str(out.absolute()),
        "bytes": out.stat().st_size,
        "sha256": sha256_of(out),
        "models": [
            {"name": m.name, **m.source, "files": [f.name for f in m.files]} for m in models
        ],
    }
    if as_json:
        print_json(told)
        return
    for model in models:
        size = megabytes(sum(file.size for file in model.files))
        click.echo(f"{model.name}: {len(model.files)} files, {size}", err=True)
    click.echo(f"sha256 {told['sha256']}", err=True)
    click.echo(told["path"])


@click.command("unpack")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--to",
    "folder",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where packed folders go; this folder unless given.",
)
@click.option("--sha256", help="What `bestiary pack` printed: refuse any other file.")
@click.option("--list", "only_list", is_flag=True, help="Say what is inside and change nothing.")
@click.option("--locked", is_flag=True, help="Refuse what the lock file does not name.")
@json_option
def unpack_command(
    file: Path,
    folder: Path | None,
    sha256: str | None,
    only_list: bool,
    locked: bool,
    as_json: bool,
) -> None:
    """Put the models of a pack where `bt.load` finds them, after checking every hash."""
    from ...core.errors import HubError
    from ...core.paths import sha256_of
    from ..lock import in_force
    from ..packing import contents
    from ..unpacking import unpack

    if sha256 is not None and sha256_of(file) != sha256.strip().lower():
        raise HubError(
            f"{file} is another file than was packed:\n  expected sha256 {sha256.strip().lower()}\n"
            f"  got             {sha256_of(file)}\nNothing of it was used.",
            path=str(file),
            reason="pack",
        )
    if only_list:
        rows = [
            {
                "name": model.name,
                **model.source,
                "files": [f.name for f in model.files],
                "bytes": sum(f.size for f in model.files),
            }
            for model in contents(file)
        ]
        if as_json:
            print_json({"models": rows})
        for row in [] if as_json else rows:
            click.echo(
                f"{row['name']}  {row['kind']}  {len(row['files'])} files  "
                f"{megabytes(row['bytes'])}"
            )
        return
    done = unpack(file, folder, lock=in_force(locked))
    if as_json:
        print_json({"models": [{**vars(m), "path": str(m.path.absolute())} for m in done]})
        return
    for model in done:
        click.echo(f"{model.name}: {model.files} files, {megabytes(model.size)}", err=True)
        click.echo(str(model.path.absolute()))
