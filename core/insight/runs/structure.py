"""The tree of a model for the log of a run, with the shapes that its modules were given."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from ...tensor import Tensor

_MOST = 4  # tensors of a module that are told


def structure(module: Any, shapes: Mapping[int, tuple[str, str]] | None = None) -> dict[str, Any]:
    """The tree of a module: class, extra words of its repr, parameters, children.

    Args:
        module: or several, by name, which become the children of a root without a class.
        shapes: of inputs and outputs, by the identity of the module, as `watched` gives them.
    """
    if isinstance(module, Mapping):
        several = {name: structure(one, shapes) for name, one in module.items()}
        total = sum(one["parameters"] for one in several.values())
        return {"class": "", "words": "", "parameters": total, "children": several}
    children = {name: structure(child, shapes) for name, child in module.named_children()}
    own = sum(p.size for p in module.parameters())
    words = module.extra_repr() if hasattr(module, "extra_repr") else ""
    found = {
        "class": type(module).__name__,
        "words": str(words)[:200],
        "parameters": own,
        "children": children,
    }
    if shapes and id(module) in shapes:
        found["inputs"], found["outputs"] = shapes[id(module)]
    return found


def named_parameters(module: Any) -> Iterator[tuple[str, Tensor]]:
    """The parameters of a module, or of several by name, with their paths."""
    if not isinstance(module, Mapping):
        yield from module.named_parameters()
        return
    for outer, one in module.items():
        for name, parameter in one.named_parameters():
            yield f"{outer}.{name}", parameter


@contextmanager
def watched(module: Any) -> Iterator[dict[int, tuple[str, str]]]:
    """The shapes of the first call of each module inside, by its identity."""
    seen: dict[int, tuple[str, str]] = {}

    def look(one: Any, args: Any, kwargs: Any, result: Any) -> None:
        if id(one) not in seen:
            seen[id(one)] = _told((args, kwargs)), _told(result)

    several = list(module.values()) if isinstance(module, Mapping) else [module]
    handles = [
        one.register_forward_hook(look, with_kwargs=True)
        for root in several
        for _, one in root.named_modules()
    ]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def _told(value: Any) -> str:
    """The shapes of the tensors in a nest of values: "(8, 3), (8,)"."""
    found = [str(tuple(x.shape)) for x in _tensors(value)]
    more = f" and {len(found) - _MOST} more" if len(found) > _MOST else ""
    return ", ".join(found[:_MOST]) + more


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for part in value.values():
            yield from _tensors(part)
    elif isinstance(value, tuple | list):
        for part in value:
            yield from _tensors(part)
