"""Answers of a model: a list, which a notebook shows as a table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from .tables import html_table

T = TypeVar("T")
_SHARES = ("score", "share", "probability")  # shown in percent where they are from 0 to 1


class Answers(list[T]):
    """A list in every respect; in a notebook, a row for each answer and a column for each part.

    Of answers to several inputs, the first column numbers the inputs.
    """

    def _repr_html_(self) -> str | None:
        rows: list[tuple[str, Mapping[str, Any]]] = []
        several = False
        for i, answer in enumerate(self):
            if isinstance(answer, Mapping):
                rows.append((str(i), answer))
            elif isinstance(answer, list) and all(isinstance(a, Mapping) for a in answer):
                several = True
                rows += [(str(i), inner) for inner in answer]
            else:
                return None  # as text
        names = list(dict.fromkeys(name for _, answer in rows for name in answer))
        head = (["#"] if several else []) + names
        cells = [
            ([number] if several else []) + [_cell(name, answer.get(name, "")) for name in names]
            for number, answer in rows
        ]
        return html_table(head, cells, left=len(head))


def _cell(name: str, value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.1%}" if name in _SHARES and 0 <= value <= 1 else f"{value:.4g}"
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(_cell('', v) for v in value[:16])}{', …' if len(value) > 16 else ''}]"
    shape = getattr(value, "shape", None)
    return f"array {tuple(shape)}" if shape is not None and shape != () else str(value)
