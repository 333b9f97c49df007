"""Modules: trees of parameters that know their names.

A module is a plain object. Its parameters, buffers and children are whatever `Parameter`,
`Buffer` and `Module` values its attributes hold, directly or in lists and dicts; nothing is
registered and no `super().__init__()` is needed. They are listed as torch lists them: own
parameters, own buffers, then children, each in the order in which they were assigned.

Names that begin with an underscore are private: the walk skips them.

`Module` is the longer half of this file, most of it signatures and docstrings; the walk, on
which all of it rests, is the other half and belongs beside it.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple, Self

import numpy as np

from ..callers import drop_our_frames
from ..devices import Device, as_device, device_of, move
from ..dtypes import FLOATS, DType, as_dtype
from ..errors import ConfigError
from ..node import Leaf
from ..spelling import check_keywords
from ..state import reading, state, watch
from ..tensor import Tensor
from . import mistakes
from .parameter import Buffer, Parameter


class LoadResult(NamedTuple):
    """What a load left out: empty lists when everything fitted."""

    missing_keys: list[str]
    unexpected_keys: list[str]


class HookHandle:
    """Takes a hook away again: `handle.remove()`."""

    def __init__(self, hooks: list[Any], hook: Any) -> None:
        self._hooks, self._hook = hooks, hook
        watch.structure += 1

    def remove(self) -> None:
        """Take the hook away; a second call does nothing."""
        self._hooks[:] = [hook for hook in self._hooks if hook is not self._hook]
        watch.structure += 1


class _FirstTensor:
    """`module.device` and `module.dtype`; without a setter, so that a module may assign its own."""

    def __init__(self, read: Callable[[Tensor], Any]) -> None:
        self._read = read

    def __get__(self, module: Module | None, owner: type) -> Any:
        if module is None:
            return self
        first = None
        for _, tensor in _tensors(module):
            if tensor.dtype in FLOATS:
                return self._read(tensor)
            first = tensor if first is None else first
        return None if first is None else self._read(first)


class Module:
    """Base of all layers and models: subclass it, assign layers in `__init__`, write `forward`.

    Calling the module calls `forward`. `training` says which of the two behaviours dropout
    and batch norm show; `train()` and `eval()` set it for the whole tree.
    """

    training: bool = True
    #: Device and dtype of the first floating parameter or buffer; None if there is none.
    device: Any = _FirstTensor(lambda t: device_of(t.array))
    dtype: Any = _FirstTensor(lambda t: t.dtype)

    # Private names that are part of the state all the same, because published files name them so.
    _state_names: tuple[str, ...] = ()
    # Lists of (hook, with_kwargs); None on the class, so that a call without hooks costs nothing.
    _pre_hooks: list[tuple[Callable[..., Any], bool]] | None = None
    _post_hooks: list[tuple[Callable[..., Any], bool]] | None = None

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        if kwargs:
            check_keywords(cls, kwargs)
        return super().__new__(cls)

    def __setattr__(self, name: str, value: Any) -> None:
        if type(value) is Tensor:
            current = self.__dict__.get(name)
            if isinstance(current, Parameter):
                raise mistakes.replaced_parameter(self, name)
            if isinstance(current, Buffer):  # as in torch: it stays a buffer
                value = Buffer(value, current.persistent)
        elif type(value) is np.ndarray and isinstance(self.__dict__.get(name), Parameter):
            raise mistakes.replaced_parameter(self, name)
        elif name == "training" or isinstance(value, Module | Parameter | Buffer):
            watch.structure += 1
        object.__setattr__(self, name, value)

    def __delattr__(self, name: str) -> None:
        watch.structure += 1
        object.__delattr__(self, name)

    # -- calling -----------------------------------------------------------------------------

    # A variable, not a method: each module declares the arguments that its forward takes.
    forward: Callable[..., Any]

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        try:
            if self._pre_hooks is None and self._post_hooks is None:
                return self.forward(*args, **kwargs)
            return self._call_with_hooks(args, kwargs)
        except Exception as error:
            better = mistakes.better(error, self, args, kwargs)
            mistakes.add_path(better or error, self, _walk)
            if better is not None:
                raise better from None
            drop_our_frames(error)
            raise

    def _call_with_hooks(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if watch.count and (self._pre_hooks or self._post_hooks):
            reading(None, f"a hook of {type(self).__name__}")
        for hook, with_kwargs in list(self._pre_hooks or ()):
            if with_kwargs:
                changed = hook(self, args, kwargs)
                if changed is not None:
                    args, kwargs = changed
            else:
                changed = hook(self, args)
                if changed is not None:
                    args = changed if isinstance(changed, tuple) else (changed,)
        result = self.forward(*args, **kwargs)
        for hook, with_kwargs in list(self._post_hooks or ()):
            changed = hook(self, args, kwargs, result) if with_kwargs else hook(self, args, result)
            if changed is not None:
                result = changed
        return result

    def register_forward_pre_hook(
        self, hook: Callable[..., Any], *, with_kwargs: bool = False
    ) -> HookHandle:
        """Call `hook(module, args)` before `forward`; what it returns replaces the arguments.

        With `with_kwargs` it is `hook(module, args, kwargs)` and returns both.
        """
        if self._pre_hooks is None:
            self._pre_hooks = []
        self._pre_hooks.append(entry := (hook, with_kwargs))
        return HookHandle(self._pre_hooks, entry)

    def register_forward_hook(
        self, hook: Callable[..., Any], *, with_kwargs: bool = False
    ) -> HookHandle:
        """Call `hook(module, args, output)` after `forward`; what it returns is the output.

        With `with_kwargs` it is `hook(module, args, kwargs, output)`.
        """
        if self._post_hooks is None:
            self._post_hooks = []
        self._post_hooks.append(entry := (hook, with_kwargs))
        return HookHandle(self._post_hooks, entry)

    # -- walking -----------------------------------------------------------------------------

    def named_children(self) -> Iterator[tuple[str, Module]]:
        """Direct children with their names, each once; in lists and dicts: `layers.0`."""
        return _once(_children(self))

    def children(self) -> Iterator[Module]:
        """Direct children, each once."""
        return (child for _, child in self.named_children())

    def named_modules(self) -> Iterator[tuple[str, Module]]:
        """Every module of the tree, itself first (its name is empty), each once."""
        return _once(_walk(self))

    def modules(self) -> Iterator[Module]:
        """Every module of the tree, itself first, each once."""
        return (module for _, module in self.named_modules())

    def named_parameters(self) -> Iterator[tuple[str, Parameter]]:
        """Parameters of the tree with their names; a shared one under its first name only."""
        return _once((name, t) for name, t in _tensors(self) if isinstance(t, Parameter))

    def parameters(self) -> Iterator[Parameter]:
        """Parameters of the tree, each once."""
        return (parameter for _, parameter in self.named_parameters())

    def named_buffers(self) -> Iterator[tuple[str, Buffer]]:
        """Buffers of the tree with their names, each once."""
        return _once((name, t) for name, t in _tensors(self) if isinstance(t, Buffer))

    def buffers(self) -> Iterator[Buffer]:
        """Buffers of the tree, each once."""
        return (buffer for _, buffer in self.named_buffers())

    def get_submodule(self, name: str) -> Module:
        """The module of that name: `model.get_submodule("encoder.layers.0")`.

        Raises:
            ConfigError: there is none; names the nearest.
        """
        found = dict(_walk(self))
        if name not in found:
            raise mistakes.unknown_name(self, "module", name, list(found))
        return found[name]

    def get_parameter(self, name: str) -> Tensor:
        """The parameter or buffer of that name: `model.get_parameter("encoder.fc.weight")`.

        Raises:
            ConfigError: there is none; names the nearest.
        """
        found = dict(_tensors(self))
        if name not in found:
            raise mistakes.unknown_name(self, "parameter", name, list(found))
        return found[name]

    def apply(self, function: Callable[[Module], object]) -> Self:
        """Call `function(module)` on every module of the tree, children before parents."""
        for module in reversed(list(self.modules())):
            function(module)
        return self

    # -- state -------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Tensor]:
        """Parameters and persistent buffers by name, sharing memory with the module.

        A shared parameter appears under every one of its names.
        """
        return {
            name: tensor.detach()
            for name, tensor in _tensors(self)
            if isinstance(tensor, Parameter) or tensor.persistent
        }

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, *, assign: bool = False
    ) -> LoadResult:
        """Take the values of a state dict: tensors or arrays by name.

        Args:
            state_dict: values are copied and converted to each parameter's dtype and device.
            strict: refuse missing and unexpected names; else they are only returned.
            assign: take the arrays as they are, with their dtype and without a copy (for
                files that are mapped into memory).

        Raises:
            WeightsError: names or shapes that do not fit; the module is unchanged then.
        """
        from .loading import load_state

        try:
            return LoadResult(*load_state(self, state_dict, strict=strict, assign=assign))
        except Exception as error:
            drop_our_frames(error)
            raise

    def _old_state_names(self) -> dict[str, str]:
        """Names of older files and what they are called now, both relative to this module."""
        return {}

    # -- changing ----------------------------------------------------------------------------

    def to(self, *args: Any, device: Any = None, dtype: Any = None) -> Self:
        """Move to a device and convert floating tensors: `to("cuda")`, `to(bt.float16)`, or both.

        Parameters stay the same objects, so optimizers that hold them go on working.
        """
        for value in args:
            if isinstance(value, Device) or str(value).partition(":")[0] in ("cpu", "cuda"):
                device = value
            else:
                dtype = value
        if isinstance(dtype, str) and dtype in ("gpu", "mps", "xpu", "tpu"):
            device, dtype = dtype, None  # no dtype that is misspelt
        target = None if device is None else as_device(device)
        kind = None if dtype is None else as_dtype(dtype)
        if kind is not None and kind not in FLOATS:
            raise ConfigError(
                f"module.to() converts parameters to a floating dtype, not to {kind}.\n"
                "Use bt.float32, bt.float64, bt.float16 or bt.bfloat16.",
                got=kind,
            )
        for name, tensor in _once(_tensors(self)):
            _convert(tensor, target, kind)
            if isinstance(tensor._node, Leaf):
                tensor._node.name = name  # shown when devices clash
            if tensor.grad is not None:
                _convert(tensor.grad, target, kind)
        return self

    def train(self, mode: bool = True) -> Self:
        """Set training behaviour (dropout drops, batch norm uses the batch) for the whole tree."""
        if mode is not True and mode is not False:
            raise mistakes.no_mode(mode)
        for module in self.modules():
            module.training = mode
        if not mode:
            state.noisy = None  # what is read from now on is meant
        return self

    def eval(self) -> Self:
        """Set prediction behaviour for the whole tree."""
        return self.train(False)

    def requires_grad_(self, requires_grad: bool = True) -> Self:
        """Train the parameters of the tree, or freeze them."""
        for parameter in self.parameters():
            parameter.requires_grad_(requires_grad)
        return self

    def zero_grad(self) -> None:
        """Forget the gradients of all parameters."""
        for parameter in self.parameters():
            parameter.grad = None

    # -- showing -----------------------------------------------------------------------------

    def extra_repr(self) -> str:
        """What the repr shows between the brackets: the layer's settings."""
        return ""

    def __repr__(self) -> str:
        for _ in _walk(self):  # a cycle raises here, and not after a thousand lines
            pass
        name, settings = type(self).__name__, self.extra_repr()
        lines = _child_lines(self)
        if not lines:
            return f"{name}({settings})"
        body = [settings, *lines] if settings else lines
        return f"{name}(\n  " + "\n".join(body).replace("\n", "\n  ") + "\n)"

    def _repr_html_(self) -> str:
        from ..insight.notebook import module_html

        return module_html(self)

    def summary(self, *args: Any, **kwargs: Any) -> Any:
        """A table of the layers: output shape, parameters, FLOPs and memory of each.

        Takes what `forward` takes; a tuple of numbers stands for float32 data of that shape:
        `print(model.summary((1, 3, 224, 224)))`.
        """
        from .summary import summarize

        return summarize(self, *args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        raise mistakes.no_attribute(self, name)

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        new = copy.copy(self)
        memo[id(self)] = new
        # Hooks stay behind: they would still act on the original.
        kept = {k: v for k, v in vars(self).items() if k not in ("_pre_hooks", "_post_hooks")}
        new.__dict__ = copy.deepcopy(kept, memo)
        return new


def _convert(tensor: Tensor, device: Device | None, dtype: DType | None) -> None:
    array = tensor.array
    if dtype is not None and array.dtype in FLOATS and array.dtype != dtype:
        array = array.astype(dtype)
    if device is not None:
        array = move(array, device)
    if array is not tensor.array:
        rebind(tensor, array)


def rebind(tensor: Tensor, array: Any, cell: list[Any] | None = None) -> None:
    """Let a parameter or buffer hold another array; graphs recorded before keep the old one."""
    tensor.array = array
    tensor._cell = [0, None] if cell is None else cell
    if isinstance(tensor._node, Leaf):
        tensor._node.meta = ((array.shape, array.dtype),)


# -- the walk ----------------------------------------------------------------------------------


def _attributes(holder: Any) -> Iterable[tuple[str, Any]]:
    if isinstance(holder, Module):
        allowed = holder._state_names
        return [(k, v) for k, v in vars(holder).items() if k[0] != "_" or k in allowed]
    if isinstance(holder, dict):
        return [(str(key), value) for key, value in holder.items()]
    return [(str(i), value) for i, value in enumerate(holder)]


def _own(holder: Any, where: str) -> tuple[list[Any], list[Any], list[Any]]:
    """Parameters, buffers, and what may hold more of them (modules, lists, dicts)."""
    parameters: list[Any] = []
    buffers: list[Any] = []
    inner: list[Any] = []
    for name, value in _attributes(holder):
        if isinstance(value, (Module, list, dict)):
            inner.append((name, value))
        elif isinstance(value, Parameter):
            parameters.append((name, value))
        elif isinstance(value, Buffer):
            buffers.append((name, value))
        elif isinstance(value, Tensor):
            if value.requires_grad:
                raise mistakes.stray_tensor(where + name, value)
        elif isinstance(value, (tuple, set, frozenset)) and _holds_state(value):
            raise mistakes.in_tuple(where + name, value)
    return parameters, buffers, inner


def _holds_state(values: Iterable[Any]) -> bool:
    return any(
        isinstance(value, (Module, Parameter, Buffer))
        or (isinstance(value, (tuple, list)) and _holds_state(value))
        for value in values
    )


def _children(
    holder: Any, where: str = "", path: tuple[int, ...] = ()
) -> Iterator[tuple[str, Module]]:
    """Direct child modules, through lists and dicts, under every name."""
    for name, value in _own(holder, where)[2]:
        if isinstance(value, Module):
            yield name, value
        elif id(value) in path:
            raise mistakes.cycle(where + name)
        else:
            for rest, child in _children(value, f"{where}{name}.", (*path, id(value))):
                yield f"{name}.{rest}", child


def _walk(
    module: Module, where: str = "", path: tuple[int, ...] = ()
) -> Iterator[tuple[str, Module]]:
    """Every module of the tree under every one of its names, parents first."""
    if id(module) in path:
        raise mistakes.cycle(where[:-1])
    yield where[:-1], module
    for name, child in _children(module, where):
        yield from _walk(child, f"{where}{name}.", (*path, id(module)))


def _tensors(
    holder: Any, where: str = "", path: tuple[int, ...] = ()
) -> Iterator[tuple[str, Parameter | Buffer]]:
    """Every parameter and buffer of the tree under every one of its names."""
    if id(holder) in path:
        raise mistakes.cycle(where[:-1])
    parameters, buffers, inner = _own(holder, where)
    for name, tensor in parameters + buffers:
        yield where + name, tensor
    for name, value in inner:
        yield from _tensors(value, f"{where}{name}.", (*path, id(holder)))


def _once(pairs: Iterable[tuple[str, Any]]) -> Iterator[tuple[str, Any]]:
    seen: set[int] = set()
    for name, value in pairs:
        if id(value) not in seen:
            seen.add(id(value))
            yield name, value


def _child_lines(module: Module) -> list[str]:
    """One entry for each child; a run of equal ones is written once: `(0-11): 12 x Block(...)`."""
    runs: list[tuple[list[str], str]] = []
    for name, child in _children(module):
        text = repr(child)
        if runs and runs[-1][1] == text and name.rpartition(".")[2].isdigit():
            runs[-1][0].append(name)
        else:
            runs.append(([name], text))
    lines = []
    for names, text in runs:
        if len(names) == 1:
            lines.append(f"({names[0]}): {text}")
        else:
            last = names[-1].rpartition(".")[2]
            lines.append(f"({names[0]}-{last}): {len(names)} x {text}")
    return lines
