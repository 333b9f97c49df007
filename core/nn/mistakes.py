"""What a module tells its user about mistakes, and where in the tree they happened."""

from __future__ import annotations

import contextlib
import difflib
import inspect
import traceback
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from ..errors import BestiaryError, ConfigError, GradError

_NOTE = "in module "
_NO_CALL = "'int' object is not callable"

# What users of torch look for, and how it is written here.
_ELSEWHERE = {
    "register_buffer": "write `self.name = nn.Buffer(tensor, persistent=True)`",
    "register_parameter": "write `self.name = nn.Parameter(tensor)`",
    "register_module": "write `self.name = module`",
    "add_module": "write `setattr(self, name, module)`, or use nn.ModuleDict",
    "cuda": "write `module.to('cuda')`",
    "cpu": "write `module.to('cpu')`",
    "half": "write `module.to(bt.float16)`",
    "float": "write `module.to(bt.float32)`",
    "double": "write `module.to(bt.float64)`",
    "bfloat16": "write `module.to(bt.bfloat16)`",
    "register_full_backward_hook": (
        "gradients are seen at tensors: in a forward hook, `output.register_hook(f)`"
    ),
    "register_backward_hook": (
        "gradients are seen at tensors: in a forward hook, `output.register_hook(f)`"
    ),
    "_parameters": "use `named_parameters()`",
    "_modules": "use `named_children()`",
    "_buffers": "use `named_buffers()`",
    "forward": "add `def forward(self, x): ...` to the class (is it misspelt or misplaced?)",
}


_ARGUMENTS = {
    "dim": "axis",
    "keepdim": "keepdims",
    "start_dim": "start_axis",
    "end_dim": "end_axis",
}
TORCH_ARGUMENTS = frozenset(_ARGUMENTS)


def check_arguments(cls: type, given: Iterable[str]) -> None:
    """Refuse torch's names of arguments, unless the class has arguments of these names."""
    known = inspect.signature(cls.__init__).parameters  # type: ignore[misc]
    for name in TORCH_ARGUMENTS.intersection(given) - set(known):
        if _ARGUMENTS[name] in known:
            raise TypeError(
                f"{cls.__name__} has no argument {name!r} (PyTorch's name). "
                f"Here it is written: {_ARGUMENTS[name]}="
            )


def no_attribute(module: Any, name: str) -> AttributeError:
    """The error for an attribute that a module lacks, with our spelling for torch's."""
    message = f"{type(module).__name__} has no attribute {name!r}"
    if name in _ELSEWHERE:
        return AttributeError(f"{message}: {_ELSEWHERE[name]}")
    near = difflib.get_close_matches(name, vars(module), n=1)
    return AttributeError(f"{message}; did you mean {near[0]!r}?" if near else message)


def unknown_name(module: Any, kind: str, name: str, known: list[str]) -> ConfigError:
    """The error for a dotted name that the tree does not have."""
    near = difflib.get_close_matches(name, [k for k in known if k], n=3, cutoff=0.3)
    hint = f"\nThe nearest: {', '.join(near)}." if near else ""
    return ConfigError(
        f"{type(module).__name__} has no {kind} named {name!r}.{hint}", name=name, nearest=near
    )


def cycle(where: str) -> ConfigError:
    """A module that contains itself."""
    return ConfigError(
        f"module {where!r} contains itself: its names would never end.\n"
        "A reference to a parent? Give the attribute a private name: self._parent = parent",
        where=where,
    )


def stray_tensor(where: str, tensor: Any) -> GradError:
    """A tensor attribute that wants gradients and is no Parameter."""
    name = where.rpartition(".")[2]
    return GradError(
        f"module attribute {where!r} is a plain tensor of shape {tensor.shape} that needs "
        "gradients:\nno optimizer would find it and state_dict() would leave it out.\n"
        f"To train it: self.{name} = nn.Parameter(tensor)\n"
        f"To keep it as a constant: self.{name} = nn.Buffer(tensor.detach())\n"
        f"A value of the moment? Give it a private name: self._{name} = tensor",
        where=where,
        shape=tensor.shape,
    )


def replaced_parameter(module: Any, name: str) -> GradError:
    """`module.weight += v`, or another plain tensor in the place of a parameter."""
    where = f"{type(module).__name__}.{name}"
    return GradError(
        f"{where} is a parameter; a plain tensor in its place would never be trained.\n"
        f"`m.{name} += v` makes a new tensor. To change the values of the one that is there:\n"
        f"  bt.assign(m.{name}, m.{name}.detach() + v)    # or an optimizer's step\n"
        f"For another parameter: m.{name} = nn.Parameter(tensor)",
        name=name,
    )


def in_tuple(where: str, value: Any) -> ConfigError:
    """Modules or parameters where the walk does not look."""
    kind = type(value).__name__
    name = where.rpartition(".")[2]
    return ConfigError(
        f"module attribute {where!r} holds modules or parameters in a {kind}.\n"
        f"Only attributes, lists and dicts are walked (a set has no order, and a tuple may be "
        f"shared).\nWrite: self.{name} = list(...)\n"
        f"Not part of this module? Give it a private name: self._{name} = ...",
        where=where,
        kind=kind,
    )


def add_path(
    error: Exception, module: Any, walk: Callable[[Any], Iterator[tuple[str, Any]]]
) -> None:
    """Note where in the tree an exception arose, as it travels outwards through the calls.

    Each caller finds the module that the exception came from among its own descendants and
    puts its name in front: at the outermost call the path is complete.
    """
    trail = getattr(error, "_trail", None)
    if trail is None and type(error) is TypeError and str(error) == _NO_CALL:
        _explain_size(error)
    inner, path = trail or (module, "")
    if inner is not module:
        path = _join(_name_of(inner, walk(module)), path)
    with contextlib.suppress(AttributeError, TypeError):  # an exception without a __dict__
        error._trail = (module, path)  # type: ignore[attr-defined]
    if not path:
        return
    if isinstance(error, BestiaryError):
        error.module_path = path
        return
    note = f"{_NOTE}{path!r}"
    notes: list[str] = getattr(error, "__notes__", [])
    for i, before in enumerate(notes):
        if before.startswith(_NOTE):
            notes[i] = note
            return
    error.add_note(note)


def _explain_size(error: Exception) -> None:
    """Note how `x.size(0)` is written: `size` is a plain int, which cannot answer a call itself."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    if ".size(" in (last.line or ""):
        error.add_note("x.size is the number of elements here. Write: x.shape, or x.shape[0]")


def _name_of(module: Any, pairs: Iterable[tuple[str, Any]]) -> str:
    # A broken tree must not replace the error that is on its way.
    with contextlib.suppress(BestiaryError):
        for name, candidate in pairs:
            if candidate is module:
                return name
    return ""


def _join(first: str, second: str) -> str:
    return f"{first}.{second}" if first and second else first or second
