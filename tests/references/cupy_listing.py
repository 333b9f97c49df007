"""Write down which functions CuPy has, with their parameters, for tests without a GPU.

    pip install cupy-cuda13x==14.2.0
    python tests/references/cupy_listing.py

CuPy imports without a GPU or driver. The listing is what tests/core/ops/fake_device.py lets the
library use of it: a function that NumPy has and CuPy lacks fails there.
"""

from __future__ import annotations

import inspect
import json
import types
from pathlib import Path
from typing import Any

import cupy

TARGET = Path(__file__).parents[1] / "core" / "ops" / "cupy_names.json"


def parameters(function: Any) -> list[str] | None:
    """Names of the parameters, with * and ** kept; None where CuPy does not tell."""
    try:
        found = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return None
    marks = {inspect.Parameter.VAR_POSITIONAL: "*", inspect.Parameter.VAR_KEYWORD: "**"}
    return [marks.get(p.kind, "") + p.name for p in found]


def functions(module: types.ModuleType) -> dict[str, list[str] | None]:
    return {
        name: parameters(value)
        for name, value in sorted(vars(module).items())
        if callable(value)
        and not name.startswith("_")
        and not inspect.isclass(value)
        and not isinstance(value, cupy.ufunc)
    }


def main() -> None:
    listing = {
        "version": cupy.__version__,
        "functions": functions(cupy),
        "linalg": functions(cupy.linalg),
        "fft": functions(cupy.fft),
        "stride_tricks": functions(cupy.lib.stride_tricks),
        "ufuncs": {
            name: value.types
            for name, value in sorted(vars(cupy).items())
            if isinstance(value, cupy.ufunc)
        },
        "ufunc_methods": [m for m in dir(cupy.ufunc) if not m.startswith("_")],
        "ndarray": [m for m in dir(cupy.ndarray) if not m.startswith("_")],
        "scalars": [
            name
            for name, value in sorted(vars(cupy).items())
            if isinstance(value, type) and issubclass(value, cupy.generic)
        ],
    }
    TARGET.write_text(json.dumps(listing, indent=0, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
