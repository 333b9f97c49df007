"""The runs of generative trainings: figures, and the grids of pictures, in the result's folder."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ...core.errors import ConfigError
from ...core.insight.runs.writer import Run, logged

GRID = "samples"  # the tag of the grids


@contextmanager
def recorded(
    run: Run | None, folder: Path, recipe: str, source: str, settings: Any, module: Any
) -> Iterator[Run]:
    """The run that a training writes into: the one given, or one in the folder of its result.

    One that was given is left open: closing it is left to who made it.

    Args:
        module: what is trained, or several modules by name.

    Raises:
        ConfigError: what is given is no run.
    """
    if run is not None:
        if not isinstance(run, Run):
            raise ConfigError(
                f"run={run!r} is no run: bt.Run('runs/first') is one. Without, the run is written "
                "into the folder of the result.",
                got=type(run),
            )
        run.model(module)
        yield run
        return
    with logged(folder, {"recipe": recipe, "data": source, **asdict(settings)}, module) as made:
        assert made is not None
        yield made
