"""Warnings about probable mistakes, each given once per process."""

from __future__ import annotations

import os
import sys
import warnings

_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
_TESTS = _PACKAGE + "tests" + os.sep
_given: set[str] = set()


class TrainingWarning(UserWarning):
    """Something in a training or prediction loop looks forgotten."""


def warn_once(key: str, message: str) -> None:
    """Warn at the user's line, unless a warning of this key was given before."""
    if key in _given:
        return
    _given.add(key)
    level, frame = 2, sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_PACKAGE):
        if frame.f_code.co_filename.startswith(_TESTS):
            break
        frame, level = frame.f_back, level + 1
    warnings.warn(message, TrainingWarning, stacklevel=level)


def forget_warnings() -> None:
    """Let every warning be given once more (for tests)."""
    _given.clear()
