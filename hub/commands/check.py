"""`bestiary check`: look into a weight file without running anything in it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np

from ...core import dtypes
from ...core.errors import WeightsError
from ...core.weights import load
from .output import json_option, megabytes, print_json, print_table

_SHOWN = 20  # broken tensors


@click.command("check")
@click.argument("path", type=click.Path(exists=True, path_type=Path))
@click.option("--all", "show_all", is_flag=True, help="List every tensor.")
@json_option
def check_command(path: Path, show_all: bool, as_json: bool) -> int:
    """Whether a weight file, or that of a model's folder, is sound, and what is in it.

    Exit code 1 when the file is damaged or holds NaN or infinite values.
    """
    file = _file(path)
    tensors = load(file)
    rows = [facts(name, array) for name, array in tensors.items()]
    broken = [row for row in rows if row["nan"] or row["infinite"]]
    if as_json:
        print_json({"file": str(file), "tensors": rows, "sound": not broken})
        return 1 if broken else 0
    if show_all and rows:
        _print_tensors(rows)
        click.echo()
    kinds = Counter(r["dtype"] for r in rows)
    total = sum(a.size for a in tensors.values())
    size = sum(a.nbytes for a in tensors.values())
    click.echo(f"{'broken' if broken else 'sound'}: {file}")
    click.echo(
        f"{len(rows):,} tensor{'s' if len(rows) != 1 else ''} "
        f"({', '.join(f'{n:,} {kind}' for kind, n in kinds.most_common())}), "
        f"{total:,} values, {megabytes(size)}"
    )
    if broken:
        _print_tensors(broken[:_SHOWN])
        if len(broken) > _SHOWN:
            click.echo(f"... and {len(broken) - _SHOWN:,} more broken ones")
        click.echo(f"{len(broken):,} of them hold NaN or infinite values", err=True)
    elif not show_all:
        largest = sorted(rows, key=lambda r: -int(np.prod(r["shape"])))[:3]
        click.echo("largest: " + (", ".join(f"{r['name']} {_shape(r)}" for r in largest) or "none"))
        click.echo("every tensor: --all")
    return 1 if broken else 0


def _print_tensors(rows: Sequence[dict[str, Any]]) -> None:
    bad = any(row["nan"] or row["infinite"] for row in rows)
    header = ["tensor", "dtype", "shape", *(["NaN", "infinite"] if bad else []), "values"]
    table = [
        [
            row["name"],
            row["dtype"],
            _shape(row),
            *([f"{row['nan']:,}", f"{row['infinite']:,}"] if bad else []),
            _range(row),
        ]
        for row in rows
    ]
    print_table(table, header)


def _shape(row: dict[str, Any]) -> str:
    return "x".join(map(str, row["shape"])) or "scalar"


def _file(path: Path) -> Path:
    from ...core.weights import choose_weight_file

    if path.is_file():
        return path
    names = [p.relative_to(path).as_posix() for p in path.rglob("*") if p.is_file()]
    chosen = choose_weight_file(sorted(names))
    if chosen is None:
        raise WeightsError(f"{path} holds no weight file")
    return path / chosen


def facts(name: str, array: Any) -> dict[str, Any]:
    """Shape, range and broken values of one tensor."""
    row: dict[str, Any] = {"name": name, "dtype": array.dtype.name, "shape": list(array.shape)}
    row.update(nan=0, infinite=0, min=None, max=None)
    if array.dtype not in dtypes.FLOATS or not array.size:
        return row
    wide = array.astype(np.float32) if array.dtype in dtypes.HALVES else array
    finite = np.isfinite(wide)
    row["nan"] = int(np.isnan(wide).sum())
    row["infinite"] = int(wide.size - finite.sum() - row["nan"])
    if finite.any():
        row["min"], row["max"] = float(wide[finite].min()), float(wide[finite].max())
    return row


def _range(row: dict[str, Any]) -> str:
    return "" if row["min"] is None else f"{row['min']:.4g} .. {row['max']:.4g}"
