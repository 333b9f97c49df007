"""What bit-identical results depend on besides the seed."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

from ..insight.system import blas, cpu_count


def numerics(precision: str) -> dict[str, Any]:
    """The kernels of the BLAS, its threads, the processors, and the precision of training."""
    found = blas()
    return {
        "kernels": found["kernels"],
        "threads": found["threads"],
        "cpus": cpu_count(),
        "precision": precision,
    }


def warn_of_other_numerics(saved: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Say what differs from the run that a checkpoint comes from."""
    changed = [
        f"{k}: {saved[k]} then, {now[k]} now" for k in now if k in saved and saved[k] != now[k]
    ]
    if changed:
        warnings.warn(
            "resuming with other numerics, so results agree to rounding only, not bit for bit "
            f"({'; '.join(changed)})",
            stacklevel=4,
        )
