"""`bestiary export`: a model as an ONNX file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from .output import json_option, megabytes, print_json


@click.command("export")
@click.argument("name")
@click.option(
    "-o",
    "--out",
    type=click.Path(path_type=Path),
    help="The file, *.onnx; NAME.onnx here unless given.",
)
@click.option(
    "--part",
    type=click.Choice(["image", "text", "encoder", "decoder"]),
    help="Of a model with two networks.",
)
@click.option("--task", help="What the model is to do, where it can do several things.")
@click.option("--fixed", is_flag=True, help="Fix the lengths of the batch and of texts.")
@click.option("--untrained", is_flag=True, help="Without weights: the form of the network alone.")
@json_option
def export_command(
    name: str,
    out: Path | None,
    part: str | None,
    task: str | None,
    fixed: bool,
    untrained: bool,
    as_json: bool,
) -> None:
    """Write the model NAME as ONNX, and a description of inputs and classes beside it."""
    from ..exporting import export
    from ..loading import load

    model = load(name, weights=not untrained, task=task)
    path = out or Path(f"{name.rstrip('/').rpartition('/')[2]}.onnx")
    done = export(model, path, part=part, dynamic=not fixed)
    told: dict[str, Any] = {
        "files": [str(file.absolute()) for file in done.files],
        "inputs": {k: list(v) for k, v in done.inputs.items()},
        "outputs": {k: list(v) for k, v in done.outputs.items()},
        "nodes": sum(done.nodes.values()),
        "bytes": done.bytes,
    }
    if as_json:
        print_json(told)
        return
    shapes = {**done.inputs, **done.outputs}
    for key, shape in shapes.items():
        click.echo(f"{key}: ({', '.join(map(str, shape))})", err=True)
    click.echo(f"{told['nodes']} nodes, {megabytes(done.bytes)}", err=True)
    click.echo(told["files"][0])
