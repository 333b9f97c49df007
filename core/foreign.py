"""Values that are no tensors, where one is wanted: what they are, and what to write instead."""

from __future__ import annotations

import os
from typing import Any

from .errors import DtypeError


def no_tensor(where: str, value: Any, name: str = "") -> DtypeError:
    """The error of `where`, an operation or a layer, for something that is no tensor or array.

    `name` is that of the operand, where it is known.
    """
    given = f" for {name!r}" if name else ""
    return DtypeError(
        f"{where}: expected a tensor, an array or a number{given}, got {described(value)}.\n"
        f"{cure(value)}",
        got=type(value).__name__,
    )


def is_foreign(value: Any) -> bool:
    """Whether something is of a kind that `cure` has advice for, so that no operation takes it."""
    if value is None or isinstance(value, (str, bytes, list, tuple, dict, set, os.PathLike, type)):
        return True
    return _is_picture(value) or _is_torch(value) or callable(value)


def described(value: Any) -> str:
    """What a value is, in a word or two."""
    if isinstance(value, (str, os.PathLike)):
        return f"{type(value).__name__} {str(value)[:60]!r}"
    if isinstance(value, type):
        return f"the class {value.__name__}"
    if _is_picture(value):
        return "a Pillow image"
    return "None" if value is None else type(value).__name__


def cure(value: Any) -> str:
    """What to write instead of a value, by what it is."""
    if value is None:
        return "Does the function that made it return its result?"
    if isinstance(value, (str, os.PathLike)):
        return (
            "The name of a file? Tasks read files: bt.load(name)(path)\n"
            "An image as an array: bt.asarray(bt.data.read_image(path))"
        )
    if _is_picture(value):
        return (
            "A task takes pictures as they are: bt.load(name)(image)\n"
            "For a layer, (B, C, H, W): x = bt.asarray(image).astype(bt.float32) / 255;"
            " x = bt.permute_dims(x, (2, 0, 1))[None]"
        )
    if isinstance(value, (list, tuple)):
        if value and all(hasattr(x, "shape") for x in value):
            return "Tensors of one shape? bt.stack(tensors), or one at a time"
        return "Make it a tensor first: bt.tensor(...)"
    if isinstance(value, dict):
        keys = ", ".join(repr(key) for key in list(value)[:4])
        return f"Give one of its values; it has {keys}." if keys else "It is empty."
    if _is_torch(value):
        return "A tensor of PyTorch? bt.asarray(x.detach().cpu().numpy())"
    if isinstance(value, type):
        return f"Make one of the class: {value.__name__}(...)"
    if callable(value):
        return "Call it: its result is wanted here."
    return "Make it a tensor first: bt.asarray(...)"


def _is_picture(value: Any) -> bool:
    return any(c.__module__ == "PIL.Image" for c in type(value).__mro__)


def _is_torch(value: Any) -> bool:
    return type(value).__module__.partition(".")[0] == "torch"
