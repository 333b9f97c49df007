"""Warnings, each given once per process: probable mistakes, and what a user should know."""

from __future__ import annotations

import warnings

from .callers import user_frame

_given: set[str] = set()


class TrainingWarning(UserWarning):
    """Something in a training or prediction loop looks forgotten."""


class CompileWarning(UserWarning):
    """A function runs as it is, since it cannot be compiled."""


class NativeWarning(UserWarning):
    """The kernels in C are there and cannot be used, so that everything is slower."""


class HubWarning(UserWarning):
    """A model was found or fetched, though not as one would expect."""


class LengthWarning(UserWarning):
    """A text is longer than those that a model was trained on."""


def warn_once(key: str, message: str, category: type[Warning] = TrainingWarning) -> None:
    """Warn at the user's line, unless a warning of this key was given before."""
    if key in _given:
        return
    _given.add(key)
    frame = user_frame()
    warnings.warn_explicit(
        message,
        category,
        frame.f_code.co_filename,
        frame.f_lineno,
        module=frame.f_globals.get("__name__"),
    )


def was_given(key: str) -> bool:
    """Whether a warning of this key was given already."""
    return key in _given


def forget_warnings() -> None:
    """Let every warning be given once more (for tests)."""
    _given.clear()
