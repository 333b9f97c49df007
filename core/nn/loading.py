"""Taking the values of a state dict, all or nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..creation import asarray
from ..devices import device_of, move
from ..errors import WeightsError
from ..ops.update import assign as write
from ..tensor import Tensor
from .module import Module, _tensors, _walk, rebind
from .parameter import Buffer


def load_state(
    module: Module, state: Mapping[str, Any], *, strict: bool, assign: bool
) -> tuple[list[str], list[str]]:
    """Load `state` into `module`; everything is checked before anything is written.

    Returns the names that were missing from the state and those that it had too many.
    """
    targets = {
        name: tensor
        for name, tensor in _tensors(module)
        if not (isinstance(tensor, Buffer) and not tensor.persistent)
    }
    given = _renamed(module, state, targets)
    missing = [name for name in targets if name not in given]
    unexpected = [name for name in given if name not in targets]
    values = {
        name: value if isinstance(value, Tensor) else asarray(value)
        for name, value in given.items()
        if name in targets
    }
    wrong = [
        (name, targets[name].shape, value.shape)
        for name, value in values.items()
        if targets[name].shape != value.shape
    ]
    if wrong or (strict and (missing or unexpected)):
        raise _misfit(module, missing if strict else [], unexpected if strict else [], wrong)
    for name, value in values.items():
        target = targets[name]
        array = move(value.array, device_of(target.array))
        if assign:
            rebind(target, array)
        elif array is not target.array:
            write(target, Tensor(array))
    return missing, unexpected


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


def _misfit(
    module: Module,
    missing: list[str],
    unexpected: list[str],
    wrong: list[tuple[str, tuple[int, ...], tuple[int, ...]]],
) -> WeightsError:
    lines = [f"the weights do not fit {type(module).__name__}; nothing was loaded."]
    if missing:
        lines.append(f"Missing ({len(missing)}): {_some(missing)}")
    if unexpected:
        lines.append(f"Unexpected ({len(unexpected)}): {_some(unexpected)}")
    for name, want, got in wrong[:4]:
        lines.append(f"Shape of {name}: the module has {want}, the weights {got}")
    if len(wrong) > 4:
        lines.append(f"... and {len(wrong) - 4} more shapes")
    prefix = _common_prefix(missing, unexpected)
    if prefix:
        lines.append(prefix)
    if wrong and not missing and not unexpected:
        lines += _other_head(wrong)
    if not wrong:
        lines.append("To load what fits: model.load_state_dict(state, strict=False)")
    return WeightsError("\n".join(lines), missing=missing, unexpected=unexpected, shapes=wrong)


def _other_head(wrong: list[tuple[str, tuple[int, ...], tuple[int, ...]]]) -> list[str]:
    """The cure when only a head differs, by its number of classes."""
    sizes = {(want[0], got[0]) for _, want, got in wrong if want and got}
    if len(sizes) != 1 or any(want[1:] != got[1:] for _, want, got in wrong):
        return []
    ((want, got),) = sizes
    return [
        f"A head of another size? bt.load(..., num_classes={got}) builds the one of the weights,",
        f"bt.load(..., num_classes={want}) replaces it with an untrained one.",
    ]


def _some(names: list[str], limit: int = 4) -> str:
    more = f", ... ({len(names) - limit} more)" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more


def _common_prefix(missing: list[str], unexpected: list[str]) -> str:
    """The cure when one side has a prefix such as `module.` or `backbone.` that the other lacks."""
    if not missing or not unexpected:
        return ""
    for longer, shorter, cut in ((unexpected, missing, True), (missing, unexpected, False)):
        prefix = longer[0].partition(".")[0] + "."
        stripped = {name.removeprefix(prefix) for name in longer if name.startswith(prefix)}
        if len(stripped) == len(longer) and stripped & set(shorter):
            change = f"k.removeprefix({prefix!r})" if cut else f"{prefix!r} + k"
            which = "weights" if cut else "module's names"
            return (
                f"All {which} begin with {prefix!r}: state = {{{change}: v for k, v in "
                "state.items()}"
            )
    return ""
