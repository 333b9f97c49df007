"""`bestiary bench`: how fast a model is on this machine."""

from __future__ import annotations

from dataclasses import asdict

import click

from ..benching import bench
from ..loading import load
from .output import json_option, print_json, print_table


def _sizes(ctx: click.Context, param: click.Parameter, value: str) -> tuple[int, ...]:
    parts = value.split(",")
    if not all(part.strip().isdigit() and int(part) > 0 for part in parts):
        raise click.BadParameter(f"{value!r} is no list of batch sizes such as 1,8", ctx, param)
    return tuple(int(part) for part in parts)


@click.command("bench")
@click.argument("name")
@click.option("--batch", callback=_sizes, default="1,8", show_default=True, help="Batch sizes.")
@click.option(
    "--seconds",
    type=click.FloatRange(0, min_open=True),
    default=2.0,
    show_default=True,
    help="For each line.",
)
@click.option("--device", default="cpu", show_default=True)
@json_option
def bench_command(
    name: str, batch: tuple[int, ...], seconds: float, device: str, as_json: bool
) -> None:
    """Time the network of a model on inputs of its own kind, as it is and compiled."""
    model = load(name)
    if device != "cpu":
        model.to(device)
    found = bench(model, batch_sizes=batch, seconds=seconds)
    if as_json:
        print_json(
            {
                "model": name,
                "jobs": [{**asdict(s), "ratio": s.ratio, "rate": s.rate} for s in found],
            }
        )
        return
    rows = [
        [
            s.what,
            _time(s.eager),
            "-" if s.compiled is None else _time(s.compiled),
            "-" if s.ratio is None else f"{s.ratio:.2f}",
            f"{s.rate:,.3g} {s.unit}/s" if s.rate < 1000 else f"{s.rate:,.0f} {s.unit}/s",
        ]
        for s in found
    ]
    print_table(rows, ["input", "eager", "compiled", "times as fast", "the faster way"])


def _time(seconds: float) -> str:
    return f"{seconds * 1e6:.0f} us" if seconds < 1e-3 else f"{seconds * 1e3:.3g} ms"
