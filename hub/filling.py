"""A module with the weights of a file: every tensor accounted for.

Names are translated, and heads replaced where another task or number of classes is asked for.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..core import dtypes
from ..core.conversion import converted
from ..core.errors import ConfigError, WeightsError
from ..core.nn import Module, init, quantize_
from ..core.nn.quantized import check_trainable
from . import limits
from .published import origin_of, remember
from .quantizing import STORED, Packing, sized
from .registry import Architecture
from .rename import join, renamed
from .sources import Request

#: Tasks of texts whose head has classes; `num_classes=` for another gives the first.
_WITH_CLASSES = ("text-classification", "token-classification")


@dataclass(frozen=True)
class Report:
    """What loading did with every tensor of the file and of the model."""

    loaded: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()  # named in the rename table as no weights
    replaced: tuple[str, ...] = ()  # initialised anew: the head or stem that was asked for
    cast: tuple[str, ...] = ()  # converted to another dtype
    reshaped: tuple[str, ...] = ()  # fitted to another size of pictures
    quantized: tuple[str, ...] = ()  # layers whose weights have few bits
    source: str = ""

    def __str__(self) -> str:
        parts = [f"{len(self.loaded)} tensors loaded from {self.source}"]
        for label in ("dropped", "replaced", "reshaped", "cast", "quantized"):
            names = getattr(self, label)
            if names:
                parts.append(f"{len(names)} {label}")
        return ", ".join(parts)


@dataclass(frozen=True)
class Options:
    """What the caller of `bt.load` asked for."""

    weights: bool
    dtype: dtypes.DType
    num_classes: int | None
    in_channels: int | None
    image_size: tuple[int, int] | None
    task: str | None
    request: Request  # how the files are obtained
    mapped: bool = False  # share the memory of the file, which nobody rewrites in place
    form: str | None = STORED  # of weights of few bits: a format, as the file has them, or none


def adapted(architecture: Architecture, config: Any, options: Options) -> Any:
    """The configuration with the task, the head and the input that the caller asked for."""
    if options.image_size is not None and hasattr(config, "image_size"):
        config = dataclasses.replace(config, image_size=options.image_size)
    if hasattr(config, "task"):
        config = with_task(config, options.task, options.num_classes)
    for name in ("num_classes", "in_channels"):
        value = getattr(options, name)
        if value is None:
            continue
        if not isinstance(value, int) or value < 1:
            raise ConfigError(f"{name} is a whole number from 1 up, got {value!r}", got=value)
        if not hasattr(config, name):
            raise ConfigError(f"{architecture.name} has no {name} to change")
        config = dataclasses.replace(config, **{name: value})
    return config


def with_task(config: Any, task: str | None, num_classes: int | None) -> Any:
    """A Config that says its task, for another: as asked, or as a number of classes implies."""
    if task is None and num_classes is not None and config.task not in _WITH_CLASSES:
        task = _WITH_CLASSES[0]
    if task in (None, config.task):
        return config
    changes: dict[str, Any] = {"task": task}
    if hasattr(config, "num_classes"):
        changes["num_classes"] = (num_classes or 2) if task in _WITH_CLASSES else 0
    return dataclasses.replace(config, **changes)


def filled(
    architecture: Architecture,
    original: Any,
    config: Any,
    path: Path,
    layout: str,
    options: Options,
    stored: Mapping[str, str] | None = None,
) -> tuple[Module, Report]:
    """The module of `config` with the weights of a file, every one accounted for.

    Args:
        original: the Config that the file was written for.
        stored: layers whose weights are bytes in the file, and the format of each.
    """
    from ..core.weights import open_weights

    naming = architecture.layouts[layout]
    other = getattr(original, "task", None) != getattr(config, "task", None)
    with open_weights(path, mapped=options.mapped) as file:
        infos = sized(file.infos(), stored or {})
        module = _empty(architecture, config, path, infos, options)
        names = renamed(list(infos), naming.rename)
        made_anew = architecture.head if other or options.num_classes is not None else ()
        packing = Packing(
            module,
            names,
            naming.join,
            file,
            stored=stored or {},
            dtype=options.dtype,
            form=options.form,
            keep=lambda name: _inside(name, made_anew),
        )
        # One after the other, and none of them twice in memory; what is yet to be fitted to
        # another size is fitted as it was stored.
        early = architecture.fit is None
        state = {new: packing.taken(old, new, apply, early) for old, (new, apply) in names.items()}
    dropped = tuple(sorted(set(infos) - set(names)))
    cast = {
        packing.owner(new)
        for old, (new, _) in names.items()
        if state[new].dtype in dtypes.FLOATS and infos[old].dtype != state[new].dtype
    }
    join(state, naming.join)
    if naming.settle is not None:
        naming.settle(state, original)
    reshaped = architecture.fit(state, original, config) if architecture.fit is not None else ()
    targets = {name: tensor.shape for name, tensor in module.state_dict().items()}
    # The heads of the task that it was for; parts that files have whether their task needs them.
    unused = (*architecture.fresh, *(architecture.head if other else ()))
    mine = {n for n in state if n not in targets and _inside(n, unused)}
    dropped += tuple(sorted(mine))
    state = {name: array for name, array in state.items() if name not in mine}
    replaced = _replace_head(architecture, module, state, targets, options, other)
    for new, array in state.items():
        if array.dtype in dtypes.FLOATS and array.dtype != options.dtype:
            state[new] = converted(array, options.dtype)
            cast.add(new)
    try:
        module.load_state_dict(state, assign=True)
    except WeightsError as error:
        raise WeightsError(f"{path.name}: {error.message}", **error.facts) from None
    if options.dtype != dtypes.float32:
        module.to(dtype=options.dtype)  # what is in no file
    if packing.plan:
        module.requires_grad_(False)
    report = Report(
        loaded=tuple(sorted(state)),
        dropped=dropped,
        replaced=replaced,
        cast=tuple(sorted(cast & set(state))),
        reshaped=reshaped,
        quantized=tuple(sorted(packing.plan)),
        source=str(path),
    )
    return module, report


def untrained(
    architecture: Architecture, config: Any, what: str, form: str | None = None
) -> Module:
    """The module of a configuration with initial values; refused if it cannot be meant.

    Args:
        form: of its weights, if they are to have few bits.
    """
    what = f"{architecture.name} ({what})"
    limits.check_config(what, config)
    # First without initial values, which costs next to nothing, to know that it is not too large.
    with init.empty():
        _built(architecture, config, limits.budget_without_weights(what))
    module = architecture.build(config)
    return module if form in (None, STORED) else quantize_(module, form)


def _empty(
    architecture: Architecture, config: Any, path: Path, infos: Mapping[str, Any], options: Options
) -> Module:
    """The module that tensors of these shapes are to fill; refused if it is far larger."""
    what = f"{architecture.name} ({path.name})"
    limits.check_config(what, config, sum(math.prod(info.shape) for info in infos.values()))
    height, width = options.image_size or (0, 0)
    asked = (options.num_classes or 0, options.in_channels or 0, height * width)
    with init.empty():
        return _built(architecture, config, limits.budget_for(what, infos, asked))


def _built(architecture: Architecture, config: Any, budget: limits.Budget) -> Module:
    try:
        with init.limited(budget):
            return architecture.build(config)
    except MemoryError as error:
        raise ConfigError(
            f"{budget.what}: its configuration wants more memory than there is: {error}"
        ) from None


def with_new_head(
    architecture: Architecture,
    config: Any,
    module: Module,
    num_classes: int,
    task: str | None = None,
) -> tuple[Module, Any]:
    """A copy of a module whose head is untrained and has `num_classes` outputs; its Config.

    Args:
        task: what the copy is for, where Configs of this architecture say it.

    Raises:
        ConfigError: its weights have few bits, which are not trained.
    """
    check_trainable(module, f"a {architecture.name} with a new head")
    changed = with_task(config, task, num_classes) if hasattr(config, "task") else config
    changed = dataclasses.replace(changed, num_classes=num_classes)
    with init.empty():
        copied = architecture.build(changed)
    targets = copied.state_dict()
    state = {
        name: value.array.copy()
        for name, value in module.state_dict().items()
        if name in targets and not _inside(name, architecture.head)
    }
    for part in _untrained_parts(architecture, copied, state):
        state.update(_anew(copied, part))
    copied.load_state_dict(state, assign=True)
    remember(copied, origin_of(module))
    return copied, changed


def _untrained_parts(
    architecture: Architecture, module: Module, state: Mapping[str, Any]
) -> list[str]:
    """The heads of a module, and the parts beside them that the state has nothing for."""
    names = list(module.state_dict())
    there = [
        p for p in (*architecture.head, *architecture.fresh) if any(_inside(n, (p,)) for n in names)
    ]
    return [p for p in there if p in architecture.head or not any(_inside(n, (p,)) for n in state)]


def _inside(name: str, parts: tuple[str, ...]) -> bool:
    return any(name == part or name.startswith(f"{part}.") for part in parts)


def _anew(module: Module, path: str) -> dict[str, Any]:
    """Initial values of a part of a module, by name."""
    part = module.get_submodule(path)
    for inner in part.modules():
        reset = getattr(inner, "reset_parameters", None)
        if reset is not None:
            reset()
    return {f"{path}.{name}": value.array for name, value in part.state_dict().items()}


def _replace_head(
    architecture: Architecture,
    module: Module,
    state: dict[str, Any],
    targets: Mapping[str, tuple[int, ...]],
    options: Options,
    other: bool,
) -> tuple[str, ...]:
    """Where the caller asked for another head or stem: new values in place of the file's.

    Args:
        other: the module is for another task than the file.
    """
    replaced: list[str] = []
    if options.num_classes is not None or other:
        for part in (*architecture.head, *(architecture.fresh if other else ())):
            own = [n for n in targets if _inside(n, (part,))]
            if all(n in state and state[n].shape == targets[n] for n in own):
                continue  # there, and of the same size: what was trained is kept
            values = _anew(module, part)
            state.update(values)
            replaced += values
    stem = architecture.stem
    if options.in_channels is not None and stem is not None and stem in state:
        wanted = targets[stem][1]
        if state[stem].shape[1] != wanted:
            state[stem] = adapted_stem(state[stem], wanted)
            replaced.append(stem)
    return tuple(replaced)


def adapted_stem(weight: Any, channels: int) -> Any:
    """A first convolution for another number of channels, keeping its response to grey images.

    One channel takes the sum over the trained ones; more repeat them, scaled.
    """
    wide = weight.astype(np.float32)
    trained = wide.shape[1]
    if channels == 1:
        out = wide.sum(axis=1, keepdims=True)
    else:
        repeats = -(-channels // trained)
        out = np.tile(wide, (1, repeats, 1, 1))[:, :channels] * (trained / channels)
    return np.ascontiguousarray(out.astype(weight.dtype))
