"""`bestiary convert`: a torch checkpoint as safetensors, without running anything in it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from .output import json_option, megabytes, print_json


@click.command("convert")
@click.argument("source", type=click.Path(exists=True, path_type=Path))
@click.option(
    "-o",
    "--out",
    type=click.Path(path_type=Path),
    help="A .safetensors file, or a folder for shards; beside SOURCE unless given.",
)
@click.option("--key", help="Of a checkpoint with several state dicts, the one to take.")
@click.option("--dtype", help="Of the floating-point tensors: float32, float16, bfloat16.")
@click.option("--force", is_flag=True, help="Replace files that exist.")
@json_option
def convert_command(
    source: Path, out: Path | None, key: str | None, dtype: str | None, force: bool, as_json: bool
) -> None:
    """Write the tensors of SOURCE as safetensors: a checkpoint (.pt, .pth, .bin), or a folder.

    The checkpoint is read by an interpreter that imports nothing and calls nothing; one that
    wants more than tensors is refused by name. What was written is read again and compared.
    """
    from ..converting import convert

    done = convert(source, out, key=key, dtype=dtype, force=force, quiet=as_json)
    told: dict[str, Any] = {
        "source": str(done.source),
        "files": [str(path.absolute()) for path in done.files],
        "tensors": done.tensors,
        "bytes": done.size,
        "shared": done.shared,
    }
    if as_json:
        print_json(told)
        return
    click.echo(f"{done.tensors} tensors, {megabytes(done.size)}", err=True)
    if done.shared:
        click.echo(
            f"note: {len(done.shared)} tensors share their values with another and were written "
            f"once more: {', '.join(done.shared[:4])}{', ...' if done.shared[4:] else ''}",
            err=True,
        )
    click.echo(told["files"][-1])
