"""`bestiary doctor`: what is here, what is missing, how to get it."""

from __future__ import annotations

from typing import Any

import click

from ...core.insight.system import report
from .output import json_option, print_json, print_table


@click.command("doctor")
@json_option
def doctor_command(as_json: bool) -> None:
    """Versions, BLAS and its kernels, GPU, cache; what is missing and how to get it."""
    found = report()
    advice = advise(found)
    if as_json:
        print_json({**found, "advice": advice})
        return
    blas, native = found["blas"], found["native"]
    print_table(
        [
            ["bestiary", str(found["bestiary"])],
            ["python", f"{found['python']} on {found['platform']}"],
            ["cpus", str(found["cpus"])],
            *[[name, version or "missing"] for name, version in found["libraries"].items()],
            ["BLAS", f"{blas['library']} {blas['version']}"],
            ["BLAS kernels", f"{blas['kernels']}, {blas['threads']} threads"],
            ["C kernels", _native(native)],
            ["GPU", found["gpu_problem"] or "usable (the GPU path is correct, not yet tuned)"],
            ["folder", found["home"]],
            *[
                [f"extra {name}", "installed" if there else f"pip install 'bestiary[{name}]'"]
                for name, there in found["extras"].items()
            ],
        ]
    )
    for line in advice:
        click.echo(f"\n{line}")


def _native(native: dict[str, Any]) -> str:
    if not native["built"]:
        return "cannot be used" if "problem" in native else "not built"
    return ", ".join(f"{k} {v}" for k, v in native.items() if k != "built")


def advise(found: dict[str, Any]) -> list[str]:
    """What would make this installation faster or more complete."""
    advice = []
    for variable, value in found["blas"]["forced_by"].items():
        advice.append(
            f"{variable}={value} makes NumPy's BLAS use kernels or block sizes other than this "
            f"processor's own, often at half the speed. If nothing needs it: unset {variable}"
        )
    if not found["native"]["built"]:
        advice.append(
            found["native"].get("problem", "The C kernels were not built.")
            + " So convolutions and normalisations are slower. "
            "Install a C compiler (Debian: apt-get install gcc python3-dev), then: "
            "pip install --force-reinstall --no-deps bestiary"
        )
    return advice
