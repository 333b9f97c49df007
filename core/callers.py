"""Where in the user's code something was called: for errors, warnings and the backward pass."""

from __future__ import annotations

import os
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from .errors import BestiaryError

PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
# Inside that folder in a checkout, and yet code of users: the tests, and examples of the docs.
OUTSIDE = (PACKAGE + "tests" + os.sep, PACKAGE + "docs" + os.sep)


def user_frame(depth: int = 1) -> Any:
    """The nearest calling frame outside the library; the outermost one if there is none."""
    frame = sys._getframe(depth + 1)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(PACKAGE):
        if frame.f_code.co_filename.startswith(OUTSIDE):
            break
        frame = frame.f_back
    return frame


def user_line(code: Any, lasti: int) -> str:
    """`file.py:12` of an instruction."""
    line = code.co_firstlineno
    for start, end, number in code.co_lines():
        if start <= lasti < end and number is not None:
            line = number
    return f"{os.path.basename(code.co_filename)}:{line}"


def ours(file: str) -> bool:
    """Whether code of this file is the library's."""
    return file.startswith(PACKAGE) and not file.startswith(OUTSIDE)


_debug = False  # `bestiary --debug`


def _installed(file: str) -> bool:
    """Whether code of this file is Python's, or a library's that the library calls."""
    paths = sysconfig.get_paths()
    folders = tuple(paths[name] + os.sep for name in ("stdlib", "platstdlib", "purelib", "platlib"))
    return file.startswith((*folders, "<frozen"))


def debugging() -> bool:
    """Whether tracebacks show the library's own lines: BESTIARY_DEBUG=1, or `--debug`."""
    return _debug or os.environ.get("BESTIARY_DEBUG", "") not in ("", "0")


@contextmanager
def whole_tracebacks() -> Iterator[None]:
    """Show every line of tracebacks inside."""
    global _debug
    before, _debug = _debug, True
    try:
        yield
    finally:
        _debug = before


def drop_our_frames(error: BaseException) -> None:
    """Leave only the user's lines in the traceback of a mistake, unless debugging.

    Called in the `except` clause of what users call, in front of a bare `raise`. Where an error
    that the library does not raise on purpose comes from its own lines, the last of them stay:
    it may be a fault to report.
    """
    if debugging():
        return
    trail = []
    trace = error.__traceback__
    while trace is not None:
        trail.append(trace)
        trace = trace.tb_next
    before = None
    inside = not isinstance(error, BestiaryError)  # among the last lines, which stay
    for trace in reversed(trail):
        file = trace.tb_frame.f_code.co_filename
        mine = ours(file)
        inside = inside and (mine or _installed(file))
        if inside or not mine:
            trace.tb_next = before
            before = trace
    error.__traceback__ = before
