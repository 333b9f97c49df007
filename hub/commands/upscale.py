"""`bestiary upscale`: pictures made larger."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ...core.errors import ConfigError
from ...core.paths import atomic
from ..loading import load, task_class
from .output import json_option, print_json

_CHECKPOINTS = (".pth", ".pt", ".bin", ".safetensors", ".param")


@click.command("upscale")
@click.argument(
    "pictures",
    nargs=-1,
    required=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
)
@click.option(
    "--model",
    "name",
    default="realesrgan-x4plus",
    show_default=True,
    help="A name, a saved folder, or a checkpoint such as RealESRGAN_x4plus.pth or net.param.",
)
@click.option("-o", "--out", type=click.Path(path_type=Path), help="A file, or a folder for many.")
@click.option(
    "--tile", type=click.IntRange(8), help="Pixels worked on at once; fewer, less memory."
)
@click.option("--device", default="cpu", show_default=True)
@json_option
def upscale_command(
    pictures: tuple[Path, ...],
    name: str,
    out: Path | None,
    tile: int | None,
    device: str,
    as_json: bool,
) -> None:
    """Make PICTURES larger with an upscaler."""
    path = Path(name)
    model: Any
    if path.is_file() and path.suffix in _CHECKPOINTS:
        model = task_class("image-upscaling").from_checkpoint(path).to(device)
    else:
        model = load(name, device=device)
    if model.task != "image-upscaling":
        raise ConfigError(f"{name} is for {model.task}; an upscaler is wanted", got=model.task)
    many = len(pictures) > 1
    if many and out is not None and out.suffix:
        raise click.UsageError(f"{len(pictures)} pictures do not go into one file: -o {out.stem}")
    written = []
    for picture in pictures:
        made = model(picture, **({} if tile is None else {"tile": tile}))
        named = f"{picture.stem}-x{model.scale}.png"
        if out is None:
            target = picture.with_name(named)
        else:
            target = out if out.suffix else out / named
        target.parent.mkdir(parents=True, exist_ok=True)
        kind = "JPEG" if target.suffix.lower() in (".jpg", ".jpeg") else "PNG"
        with atomic(target) as part:
            made.save(part, format=kind)
        written.append({"file": str(target), "size": list(made.size)})
        if not as_json:
            click.echo(f"{target}  {made.width} x {made.height}")
    if as_json:
        print_json(written)
