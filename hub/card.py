"""What a person should know of a model: licence, origin, results."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from .registry import Architecture, Entry


@dataclass
class Card:
    """The facts shown by `bestiary info` and written beside saved models."""

    name: str
    architecture: str
    task: str
    license: str | None = None
    commercial: bool | None = None
    gated: bool = False
    parameters: int | None = None
    source: str | None = None
    metric: str | None = None
    paper: str | None = None
    note: str | None = None
    training: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """The facts as JSON values; None where nothing was read from a source."""
        return dict(self.__dict__)

    def markdown(self) -> str:
        """The card as the README of a saved model."""
        lines = ["---", f"license: {self.license or 'unknown'}", f"pipeline_tag: {self.task}"]
        lines += ["library_name: bestiary", "---", "", f"# {self.name}", ""]
        lines += [
            f"A {self.architecture} for {self.task}, saved by bestiary.",
            "",
            "```python",
            "import bestiary as bt",
            "",
            'model = bt.load("path/to/this/folder")',
            "```",
            "",
        ]
        for label, value in (
            ("Parameters", f"{self.parameters:,}" if self.parameters else None),
            ("Weights from", self.source),
            ("Result", self.metric),
            ("Paper", self.paper),
            ("Note", self.note),
        ):
            if value:
                lines.append(f"- {label}: {value}")
        if self.training:
            lines += ["", "## Training", ""]
            lines += [f"- {key}: {value}" for key, value in self.training.items()]
        return "\n".join(lines) + "\n"


def card_of(architecture: Architecture, entry: Entry | None, name: str) -> Card:
    """The card of a curated model, or of one that is known only by its architecture."""
    if entry is None:
        return Card(name=name, architecture=architecture.name, task=architecture.task)
    metric = entry.metric
    shown = None
    if metric is not None:
        at = f" at {metric.resolution} pixels" if metric.resolution else ""
        shown = f"{metric.value:g} {metric.name} on {metric.dataset}{at} ({metric.source})"
    return Card(
        name=entry.name,
        architecture=architecture.name,
        task=architecture.task,
        license=entry.license,
        commercial=entry.commercial,
        gated=entry.gated,
        parameters=entry.parameters,
        metric=shown,
        paper=entry.paper,
        note=entry.note,
    )
