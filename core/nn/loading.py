"""Taking the values of a state dict, all or nothing."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from ..creation import asarray
from ..devices import device_of, move
from ..errors import DtypeError, WeightsError
from ..foreign import described
from ..ops.update import assign as write
from ..tensor import Tensor
from ..weights.matching import Comparison, compare, misfit
from .module import Module, _tensors, _walk, rebind
from .parameter import Buffer


def load_state(
    module: Module, state: Mapping[str, Any], *, strict: bool, assign: bool
) -> tuple[list[str], list[str]]:
    """Load `state` into `module`; everything is checked before anything is written.

    Returns the names that were missing from the state and those that it had too many.
    """
    if not isinstance(state, Mapping):
        raise _no_state(module, state)
    targets = {
        name: tensor
        for name, tensor in _tensors(module)
        if not (isinstance(tensor, Buffer) and not tensor.persistent)
    }
    try:
        values = {
            name: value if isinstance(value, Tensor) else asarray(value)
            for name, value in _renamed(module, state, targets).items()
        }
    except DtypeError:
        better = _checkpoint(module, state)
        if better is None:
            raise
        raise better from None
    _share(values, targets)
    result = compare(values, targets)
    missing, unexpected = result.missing, result.unexpected
    if not strict:
        result = Comparison([], [], result.misshapen, result.mistyped, result.cast, result.total)
    if not result.fits:
        raise misfit(result, where="the weights", model=type(module).__name__)
    for name, target in targets.items():
        if name not in values:
            continue
        array = move(values[name].array, device_of(target.array))
        if assign:
            rebind(target, array)
        elif array is not target.array:
            write(target, Tensor(array))
    return missing, unexpected


def _no_state(module: Module, state: Any) -> WeightsError:
    """For what is no mapping of names to tensors."""
    if isinstance(state, Module):
        hint = "Of another module: model.load_state_dict(other.state_dict())"
    elif isinstance(state, (str, os.PathLike)):
        hint = f"Read the file first: model.load_state_dict(bt.weights.load({str(state)!r}))"
    else:
        hint = "Such as model.state_dict(), or bt.weights.load(path)"
    return WeightsError(
        f"load_state_dict of {type(module).__name__} takes tensors by name, got "
        f"{described(state)}.\n{hint}",
        got=type(state).__name__,
    )


def _checkpoint(module: Module, state: Mapping[str, Any]) -> WeightsError | None:
    """For a mapping that holds a state dict among other things; None if it does not."""
    inner = [key for key, value in state.items() if isinstance(value, Mapping)]
    if not inner:
        return None
    shown = ", ".join(map(repr, list(state)[:6]))
    key = next((k for k in inner if k in _INNER), inner[0])
    return WeightsError(
        f"load_state_dict of {type(module).__name__} takes tensors by name, got a checkpoint with "
        f"{shown}.\nThe weights are in one of its entries: "
        f"model.load_state_dict(checkpoint[{key!r}])",
        keys=list(state),
        inner=key,
    )


_INNER = ("state_dict", "model_state_dict", "model", "weights", "module", "net")


def _share(values: dict[str, Tensor], targets: Mapping[str, Any]) -> None:
    """What is one parameter under several names is in a file once: the others take its value."""
    known = {id(target): values[name] for name, target in targets.items() if name in values}
    for name, target in targets.items():
        if name not in values and id(target) in known:
            values[name] = known[id(target)]


def _renamed(
    module: Module, state: Mapping[str, Any], targets: Mapping[str, Any]
) -> dict[str, Any]:
    """Names of older layouts that a module still reads, such as `weight_g` of weight norm."""
    renames: dict[str, str] = {}
    for prefix, inner in _walk(module):
        start = prefix + "." if prefix else ""
        for old, new in inner._old_state_names().items():
            if start + new in targets and start + new not in state:
                renames[start + old] = start + new
    return {renames.get(name, name): value for name, value in state.items()}
