"""`bestiary check`: look into a weight file without running anything in it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import numpy as np

from ...core import dtypes
from ...core.errors import WeightsError
from ...core.weights import load
from .output import json_option, print_json, print_table


@click.command("check")
@click.argument("path", type=click.Path(exists=True, path_type=Path))
@json_option
def check_command(path: Path, as_json: bool) -> int:
    """Structure, shapes and values of a weight file or of a model's folder.

    Exit code 1 when the file is damaged or holds NaN or infinite values.
    """
    file = _file(path)
    tensors = load(file)
    rows = [facts(name, array) for name, array in tensors.items()]
    broken = [row for row in rows if row["nan"] or row["infinite"]]
    if as_json:
        print_json({"file": str(file), "tensors": rows, "sound": not broken})
        return 1 if broken else 0
    print_table(
        [
            [r["name"], r["dtype"], "x".join(map(str, r["shape"])) or "scalar", _range(r)]
            for r in rows
        ],
        ["tensor", "dtype", "shape", "values"],
    )
    total = sum(a.size for a in tensors.values())
    size = sum(a.nbytes for a in tensors.values())
    click.echo(f"\n{len(rows)} tensors, {total:,} values, {size / 1e6:.1f} MB in {file}")
    for row in broken:
        click.echo(
            f"broken: {row['name']} holds {row['nan']} NaN and {row['infinite']} infinite values",
            err=True,
        )
    return 1 if broken else 0


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
