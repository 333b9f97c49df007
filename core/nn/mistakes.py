"""What a module tells its user about mistakes, and where in the tree they happened."""

from __future__ import annotations

import contextlib
import difflib
import inspect
import re
import traceback
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from ..errors import BestiaryError, ConfigError, GradError
from ..foreign import is_foreign, no_tensor
from ..likely import LateWords, nearest
from ..spelling import keyword_error

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
    "backward": (
        "a gradient starts from a loss, which is a tensor: "
        "`loss = nn.CrossEntropyLoss()(logits, target); loss.backward()`"
    ),
    "item": "call it first: the result of `module(...)` is a tensor",
    "save": "write `bt.weights.save_file(module.state_dict(), 'model.safetensors')`",
    "load": "write `module.load_state_dict(bt.weights.load('model.safetensors'))`",
    "predict": "write `with bt.no_grad(): y = module(x)`, after `module.eval()`",
    "fit": "use bt.training.Trainer(module, optimizer, loss, batches).fit()",
    "forward": "add `def forward(self, x): ...` to the class (is it misspelt or misplaced?)",
}


def no_attribute(module: Any, name: str) -> AttributeError:
    """The error for an attribute that a module lacks, with our spelling for torch's."""
    message = f"{type(module).__name__} has no attribute {name!r}"
    if name in _ELSEWHERE:
        return AttributeError(f"{message}: {_ELSEWHERE[name]}")

    def words() -> str:
        near = nearest(name, [*vars(module), *dir(type(module))])
        return f"{message}; did you mean {near!r}?" if near else message

    return LateWords(words)


def better(
    error: Exception, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Exception | None:
    """A clearer error for what Python itself says of a call's arguments, if there is one."""
    if type(error) not in (TypeError, AttributeError) or hasattr(error, "_trail"):
        return None
    text = str(error)
    trace = error.__traceback__
    if trace is not None and trace.tb_next is None and _CALL.search(text):
        return _wrong_call(module, text, args, kwargs)
    if not type(module).__module__.startswith(_OURS):
        return None
    for name, value in _given(module, args, kwargs):
        if f"{type(value).__name__!r} object" in text and is_foreign(value):
            return no_tensor(type(module).__name__, value, name)
    return None


_OURS = __name__.partition(".")[0] + "."
_CALL = re.compile(r"forward\(\) (got an|got multiple|takes|missing)")
_KEYWORD = re.compile(r"unexpected keyword argument '(\w+)'")
_MODES = ("training", "train", "is_training")


def _wrong_call(module: Any, text: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> TypeError:
    """Of a module that was called with other arguments than its forward takes."""
    name = type(module).__name__
    parameters = inspect.signature(module.forward).parameters
    unknown = _KEYWORD.search(text)
    if unknown and unknown[1] in _MODES:
        return TypeError(
            f"{name}: training and prediction are modes of a module, no arguments of its call.\n"
            "Set them before: module.train(), or module.eval()"
        )
    if unknown:
        return keyword_error(f"{name}.forward", unknown[1], parameters)
    given = [type(a).__name__ for a in args] + [f"{k}=..." for k in kwargs]
    return TypeError(
        f"{name} is called with ({', '.join(map(str, parameters.values()))}), "
        f"got ({', '.join(given)})."
    )


def _given(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """The arguments of a call with their names in forward."""
    names = list(inspect.signature(module.forward).parameters)
    yield from zip(names, args, strict=False)
    yield from kwargs.items()


def no_mode(mode: Any) -> ConfigError:
    """`train("no")`: every text is true."""
    return ConfigError(
        f"train(mode) takes True or False, got {mode!r}.\n"
        "For prediction: module.eval(), which is module.train(False)",
        got=mode,
    )


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
