"""Rename tables: from the names in a published file to ours, as data.

    RENAME = {
        "h.{}.attn.bias": None,                                   # not a weight: dropped
        "h.{}.attn.c_attn.weight": transposed("h.{}.attn.c_attn.weight"),
        "resnet.embedder.{rest}": "stem.{rest}",
    }

`{}` stands for a layer number, `{word}` for any text; both may be used again on the right.
The first pattern that fits a name decides; a name that fits none is kept.

What is several tensors in a file and one in the model is a second table: the model's name, and
the names (after renaming) that are put one below the other.

    JOIN = {"blocks.{}.qkv.{rest}": ("blocks.{}.q.{rest}", "blocks.{}.k.{rest}", "...")}
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from ..core.errors import WeightsError


@dataclass(frozen=True)
class Transform:
    """A new name, and what is done to the array."""

    name: str
    apply: Callable[[Any], Any]


def transposed(name: str) -> Transform:
    """The matrix transposed: linear weights kept as [in, out]."""
    return Transform(name, lambda array: array.T)


@lru_cache(maxsize=4096)
def _compiled(pattern: str) -> re.Pattern[str]:
    count = 0

    def group(match: re.Match[str]) -> str:
        nonlocal count
        word = match.group(1)
        if word:
            return f"(?P<{word}>.+)"
        count += 1
        return f"(?P<number_{count}>\\d+)"

    parts = re.split(r"(\{\w*\})", pattern)
    return re.compile(
        "".join(
            re.sub(r"\{(\w*)\}", group, p) if p.startswith("{") else re.escape(p) for p in parts
        )
    )


def _filled(template: str, match: re.Match[str]) -> str:
    numbers = iter(v for k, v in match.groupdict().items() if k.startswith("number_"))
    return re.sub(
        r"\{(\w*)\}", lambda m: match[m.group(1)] if m.group(1) else next(numbers), template
    )


def renamed(names: list[str], table: Mapping[str, Any]) -> dict[str, tuple[str, Any]]:
    """Old name -> (new name, function of the array or None), without what is dropped.

    Raises:
        WeightsError: two tensors get one name.
    """
    result: dict[str, tuple[str, Any]] = {}
    owner: dict[str, str] = {}
    for old in names:
        new, apply = old, None
        for pattern, target in table.items():
            match = _compiled(pattern).fullmatch(old)
            if match is None:
                continue
            if target is None:
                new = ""
            elif isinstance(target, Transform):
                new, apply = _filled(target.name, match), target.apply
            else:
                new = _filled(target, match)
            break
        if not new:
            continue
        if new in owner:
            raise WeightsError(
                f"the tensors {owner[new]!r} and {old!r} of the file are both {new!r} here",
                names=[owner[new], old],
            )
        owner[new] = old
        result[old] = (new, apply)
    return result


def groups(names: Iterable[str], table: Mapping[str, tuple[str, ...]]) -> dict[str, list[str]]:
    """What a table of joins makes of these names: new name -> the names it is made of.

    A group of which a part is missing is left out: strict loading then names what is there.
    """
    found: dict[str, list[str]] = {}
    present = set(names)
    for target, parts in table.items():
        for name in sorted(present):
            match = _compiled(parts[0]).fullmatch(name)
            if match is None:
                continue
            members = [_filled(part, match) for part in parts]
            if present.issuperset(members):
                found[_filled(target, match)] = members
    return found


def join(state: dict[str, Any], table: Mapping[str, tuple[str, ...]]) -> None:
    """Put the arrays of each group below one another, in place."""
    for new, members in groups(state, table).items():
        state[new] = np.concatenate([state.pop(name) for name in members])


def inverted(names: Iterable[str], table: Mapping[str, Any]) -> dict[str, str] | None:
    """Our names -> the names in a file that the table renames to them; None if there are none.

    Tables whose arrays are changed on the way have no inverse here.
    """
    found: dict[str, str] = {}
    for new in names:
        for pattern, target in table.items():
            match = _compiled(target).fullmatch(new) if isinstance(target, str) else None
            old = _filled(pattern, match) if match is not None else ""
            if old and renamed([old], table).get(old) == (new, None):
                found[new] = old
                break
        else:
            if renamed([new], table).get(new) != (new, None):
                return None
            found[new] = new
    return found if len(set(found.values())) == len(found) else None
