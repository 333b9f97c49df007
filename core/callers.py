"""Where in the user's code something was called: for errors, warnings and the backward pass."""

from __future__ import annotations

import os
import sys
from typing import Any

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
