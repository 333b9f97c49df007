"""The figures of a training over time."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ..errors import DataError
from ..insight.tables import html_table

if TYPE_CHECKING:
    from PIL import Image


@dataclass
class History:
    """What happened: one record per logged step and per epoch."""

    steps: list[dict[str, float]] = field(default_factory=list)
    epochs: list[dict[str, float]] = field(default_factory=list)

    def column(self, name: str, of: str = "epochs") -> list[float]:
        """One figure over time; records without it are left out."""
        return [row[name] for row in getattr(self, of) if name in row]

    def plot(self, *names: str) -> Image.Image:
        """A chart over the steps: of the figures named, or of the loss.

        Raises:
            DataError: there are no such figures.
        """
        from ..insight.charts import step_chart

        rows = self.steps if len(self.steps) > len(self.epochs) else self.epochs
        known = dict.fromkeys(n for row in (*rows, *self.epochs) for n in row if n != "step")
        lines = {}
        for name in names or ("loss",):
            # What only epochs have, such as an accuracy, is drawn over their last steps.
            of = rows if any(name in row for row in rows) else self.epochs
            points = [(row["step"], row[name]) for row in of if name in row]
            if not points:
                raise DataError(
                    f"the history has no figure {name!r}; it has: {', '.join(known) or 'none'}",
                    name=name,
                )
            lines[name] = ([step for step, _ in points], [value for _, value in points])
        return step_chart(lines, title=", ".join(lines))

    def _repr_html_(self) -> str:
        rows = self.epochs or self.steps[-50:]
        names = list(dict.fromkeys(name for row in rows for name in row))
        cells = [[f"{row[name]:.4g}" if name in row else "" for name in names] for row in rows]
        return html_table(names, cells, left=0)
