"""Curated models that were trained for conversations, near another one by name."""

from __future__ import annotations

import difflib
import re

from ...hub import registry

_INSTRUCT = re.compile(r"(^|-)(instruct|chat|it)(-|$)")


def instruct_siblings(name: str, architecture: str, count: int = 3) -> list[str]:
    """Names of models for conversations, those of the same architecture and of like name first."""
    own = registry.canonical(name.rsplit("/", 1)[-1])
    found = [
        (family.name == architecture, difflib.SequenceMatcher(None, own, entry.name).ratio(), entry)
        for family, entry in registry.entries()
        if _INSTRUCT.search(entry.name) and registry.task_of(family, entry) == "text-generation"
    ]
    found.sort(key=lambda row: (not row[0], -row[1], row[2].name))
    return [entry.name for _, _, entry in found[:count]]
