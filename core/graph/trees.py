"""Arguments and results: tensors in nests of tuples, named tuples, lists and dicts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..devices import device_of
from ..tensor import Tensor

_LEAF = ("tensor",)


def flattened(value: Any) -> tuple[list[Tensor], Any]:
    """The tensors of a result, and how it is put together."""
    leaves: list[Tensor] = []
    return leaves, _tree(value, leaves)


def _tree(value: Any, leaves: list[Tensor]) -> Any:
    if isinstance(value, Tensor):
        leaves.append(value)
        return _LEAF
    if isinstance(value, dict):
        return (dict, tuple(value), tuple(_tree(x, leaves) for x in value.values()))
    if isinstance(value, list | tuple):
        return (type(value), None, tuple(_tree(x, leaves) for x in value))
    return ("value", type(value), value)  # 1, 1.0 and True are equal and not the same


def foreign(tree: Any) -> str | None:
    """The type of something in a result that is neither a tensor nor a plain value; None if none.

    What it holds may depend on the inputs, so that it cannot be given again.
    """
    if tree[0] == "tensor":
        return None
    if tree[0] == "value":
        plain = tree[1] in (bool, int, float, str, type(None))
        return None if plain else str(tree[1].__name__)
    return next((found for part in tree[2] if (found := foreign(part)) is not None), None)


def rebuilt(tree: Any, leaves: Sequence[Tensor]) -> Any:
    """The reverse of `flattened`."""
    return _built(tree, iter(leaves))


def _built(tree: Any, leaves: Any) -> Any:
    kind = tree[0]
    if tree is _LEAF or kind == "tensor":
        return next(leaves)
    if kind == "value":
        return tree[2]
    parts = [_built(part, leaves) for part in tree[2]]
    if kind is dict:
        return dict(zip(tree[1], parts, strict=True))
    if hasattr(kind, "_fields"):
        return kind(*parts)
    return kind(parts)


def signature(
    args: tuple[Any, ...], kwargs: dict[str, Any], replace: Sequence[Tensor] | None = None
) -> tuple[Any, Any] | None:
    """What tells calls apart that need programs of their own, and the tensors of a call.

    Args:
        replace: tensors to put in the place of these: then the second is (args, kwargs) with them.

    Returns:
        None for arguments that cannot be told apart, or tensors that are not on the CPU or
        misaligned.
    """
    if not kwargs and replace is None:
        quick = _of_tensors(args)
        if quick is not None:
            return quick
    tensors: list[Tensor] = []
    tree = _tree((args, kwargs), tensors)
    if replace is not None:
        return None, rebuilt(tree, replace)
    if any(device_of(x.array).type != "cpu" or not x.array.flags.aligned for x in tensors):
        return None
    arrays = [id(x.array) for x in tensors]  # one array in two places is a case of its own
    key = (tree, tuple((x.shape, x.dtype, arrays.index(id(x.array))) for x in tensors))
    try:
        hash(key)
    except TypeError:
        return None
    return key, tensors


def _of_tensors(args: tuple[Any, ...]) -> tuple[Any, Any] | None:
    """The signature of the common case, tensors alone, each with an array of its own."""
    parts, seen = [], set()
    for x in args:
        if not isinstance(x, Tensor) or type(x.array) is not np.ndarray:
            return None
        if not x.array.flags.aligned:
            return None
        parts.append((x.array.shape, x.array.dtype))
        seen.add(id(x.array))
    return (tuple(parts), args) if len(seen) == len(args) else None
