"""Which name was probably meant by one that does not exist, found out when somebody reads it."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable
from typing import Any


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that was probably meant: the same but for case, else a similar one."""
    names = [k for k in known if not k.startswith("_")]
    plain = name.lower().replace("_", "")
    for candidate in names:
        if candidate.lower().replace("_", "") == plain:
            return candidate
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.75)
    return near[0] if near else None


class LateWords(AttributeError):
    """Is worded when it is read: attributes are also asked for to see whether they are there."""

    def __init__(self, words: Callable[[], str]) -> None:
        super().__init__()
        self._words = words

    def __str__(self) -> str:
        return self._words()

    def __reduce__(self) -> Any:
        return AttributeError, (str(self),)


# It is shown as what it is to those who catch it.
LateWords.__name__ = LateWords.__qualname__ = "AttributeError"
LateWords.__module__ = "builtins"
