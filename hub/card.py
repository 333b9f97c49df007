"""What a person should know of a model: licence, origin, data, results."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .registry import Architecture, Entry, task_of


@dataclass
class Card:
    """The facts shown by `bestiary info` and written beside saved models.

    Attributes:
        commercial: whether the licence permits commercial use; None if unknown.
        gated: whether the publisher asks for agreement before the download.
        data: what it was trained on, in words.
        results: each with `name`, `value` and `dataset`, and `split`, `resolution` and `source`
            where they are known.
        training: how it was trained, as facts by name.
    """

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
    data: str | None = None
    results: list[dict[str, Any]] = field(default_factory=list)
    training: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """The facts as JSON values; None where nothing was read from a source."""
        return dict(self.__dict__)

    def markdown(self) -> str:
        """The card as the README of a saved model, which the hub reads too."""
        parts = ["---", *self._head(), "---", "", f"# {_line(self.name)}", ""]
        parts += [f"A {_line(self.architecture)} for {self.task}, saved by bestiary.", ""]
        parts += [
            "```python",
            "import bestiary as bt",
            "",
            'model = bt.load("path/to/this/folder")',
        ]
        parts += ["```", "", *self._facts()]
        if self.results:
            parts += [
                "",
                "## Results",
                "",
                "| metric | value | data | source |",
                "|---|---|---|---|",
            ]
            parts += [_row(result) for result in self.results]
        data = self.data or self.training.get("data")
        if data:
            parts += ["", "## Data", "", _line(data)]
        if self.training:
            parts += ["", "## Training", ""]
            parts += [f"- {_line(key)}: {_line(value)}" for key, value in self.training.items()]
        return "\n".join(parts) + "\n"

    def _head(self) -> list[str]:
        """The lines that programs read, in the hub's format."""
        from .licences import hub_license

        identifier, name = hub_license(self.license)
        lines = [f"license: {identifier}"]
        if name is not None:
            lines.append(f"license_name: {_quoted(name)}")
        lines += [f"pipeline_tag: {self.task}", "library_name: bestiary", "tags:", "- bestiary"]
        lines.append(f"- {_quoted(self.architecture)}")
        base = (self.source or "").removeprefix("https://huggingface.co/")
        if base != (self.source or "") and base.count("/") == 1:
            lines.append(f"base_model: {_quoted(base)}")
        if not self.results:
            return lines
        lines += ["model-index:", f"- name: {_quoted(self.name)}", "  results:"]
        for result in self.results:
            dataset = _quoted(result.get("dataset") or "unknown")
            lines += ["  - task:", f"      type: {self.task}", "    dataset:"]
            lines += [f"      type: {dataset}", f"      name: {dataset}", "    metrics:"]
            lines += [f"    - type: {_quoted(result['name'])}", f"      value: {result['value']}"]
        return lines

    def _facts(self) -> list[str]:
        restricted = " (does not permit commercial use)" if self.commercial is False else ""
        facts = {
            "Licence": self.license + restricted if self.license else "unknown",
            "Parameters": f"{self.parameters:,}" if self.parameters else None,
            "Weights from": self.source,
            "Result": None if self.results else self.metric,
            "Paper": self.paper,
            "Note": self.note,
        }
        return [f"- {label}: {_line(value)}" for label, value in facts.items() if value]


def _line(value: Any) -> str:
    """A text on one line, whatever it holds."""
    return " ".join(str(value).split())


def _quoted(value: Any) -> str:
    """A text as YAML: JSON is a part of it."""
    return json.dumps(_line(value), ensure_ascii=False)


def _row(result: Mapping[str, Any]) -> str:
    data = _line(result.get("dataset") or "unknown")
    data += f", {result['split']}" if result.get("split") else ""
    data += f", at {result['resolution']} pixels" if result.get("resolution") else ""
    cells = [result["name"], f"{result['value']:g}", data, result.get("source") or "measured here"]
    return "| " + " | ".join(_line(cell).replace("|", "\\|") for cell in cells) + " |"


def card_of(architecture: Architecture, entry: Entry | None, name: str) -> Card:
    """The card of a curated model, or of one that is known only by its architecture."""
    if entry is None:
        return Card(name=name, architecture=architecture.name, task=architecture.task)
    return Card(
        name=entry.name,
        architecture=architecture.name,
        task=task_of(architecture, entry),
        license=entry.license,
        commercial=entry.commercial,
        gated=entry.gated,
        parameters=entry.parameters,
        metric=str(entry.metric) if entry.metric is not None else None,
        results=[dataclasses.asdict(entry.metric)] if entry.metric is not None else [],
        paper=entry.paper,
        note=entry.note,
    )
