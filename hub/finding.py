"""Looking for a model: words that need not be spelled right, and facts."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass

from .registry import Architecture, Entry, canonical, entries, task_of

_ALIKE = 0.7  # share of equal letters from which two words count as one misspelled


@dataclass(frozen=True)
class Wanted:
    """What a model must be; None where anything will do.

    Attributes:
        task: a part of its task, such as "segmentation".
        license: a part of its licence, such as "apache".
        commercial: whether its licence permits commercial use.
        parameters: the fewest and the most.
        local: whether it needs no model hub: bundled, carried by a wheel or installed.
    """

    task: str | None = None
    license: str | None = None
    commercial: bool | None = None
    fewest: int | None = None
    most: int | None = None
    local: bool = False

    def fits(self, architecture: Architecture, entry: Entry) -> bool:
        """Whether a model is so; a fact that is not known fits no limit."""
        known = entry.parameters
        return (
            (self.task is None or canonical(self.task) in task_of(architecture, entry))
            and (self.license is None or canonical(self.license) in canonical(entry.license or ""))
            and (self.commercial is None or entry.commercial is self.commercial)
            and (self.fewest is None or (known is not None and known >= self.fewest))
            and (self.most is None or (known is not None and known <= self.most))
            and (not self.local or any(s.kind != "hub" for s in entry.sources))
        )


def search(
    words: Sequence[str] = (), wanted: Wanted | None = None
) -> list[tuple[Architecture, Entry]]:
    """The models that fit, the best first; every word must be found somewhere, or nearly.

    Words are looked for in names, then in architecture, task, notes and papers.
    """
    wanted = wanted or Wanted()
    parts = [canonical(part) for word in words for part in word.split()]
    scored = []
    for architecture, entry in entries():
        if not entry.sources or not wanted.fits(architecture, entry):
            continue
        scores = [_score(part, architecture, entry) for part in parts]
        if all(scores):
            scored.append((-sum(scores), entry.name, (architecture, entry)))
    return [found for *_, found in sorted(scored, key=lambda row: row[:2])]


def _score(word: str, architecture: Architecture, entry: Entry) -> float:
    """How well a word fits: from 4 for the name to 1 for a mention, less if misspelled."""
    names = [canonical(name) for name in (entry.name, *entry.aliases)]
    if word in names:
        return 4.0
    if word in _pieces(names[0]):
        return 3.5
    if any(word in _pieces(name) for name in names):
        return 3.0
    if any(word in name for name in names):
        return 2.0
    said = " ".join(
        [architecture.name, task_of(architecture, entry), entry.note or "", architecture.doc]
    )
    others = re.findall(r"[a-z0-9][a-z0-9.-]*", said.lower())
    if any(word in other for other in others):
        return 1.0
    pieces = {piece for name in names for piece in (name, *_pieces(name))}
    candidates = [*pieces, *others, *(p for other in others for p in other.split("-"))]
    near = difflib.get_close_matches(word, candidates, n=1, cutoff=_ALIKE)
    return difflib.SequenceMatcher(None, word, near[0]).ratio() * 0.9 if near else 0.0


def _pieces(name: str) -> list[str]:
    return re.split(r"[-./]", name)
