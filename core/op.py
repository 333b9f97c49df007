"""The choke point: every call of every primitive operation goes through `Op.__call__`.

A primitive is written once, over `xp` (numpy or cupy), with its gradient beside it:

    @op
    def tanh(xp, x):
        return xp.tanh(x)

    @tanh.backward
    def _(g, out):            # parameter names say what stays alive: here only the output
        return g * (1 - out * out)

`Op.__call__` unwraps tensors, checks that devices agree, brings dtypes together, picks the
kernel, wraps the result and, when a gradient is wanted, records a `Node`. Tracing, profiling and
anomaly mode are observers that hang here too. A primitive called on plain arrays returns plain
arrays, so that one backward rule serves bare arrays (fast) and tensors (any order).
"""

from __future__ import annotations

import inspect
import itertools
import os
import sys
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar, overload

import numpy as np

from . import dtypes
from .conversion import converted
from .devices import Backend, backend_of, device_of
from .errors import BestiaryError, DeviceError, DtypeError, ShapeError
from .spelling import keyword_error
from .state import state, watch

if TYPE_CHECKING:
    from .tensor import Tensor

P = ParamSpec("P")
R = TypeVar("R")

_F32 = dtypes.float32
_I64 = dtypes.int64
_BOOL = dtypes.bool_
_ndarray = np.ndarray
_SCALARS = (bool, int, float, complex)
_RESERVED = ("g", "out", "shapes", "needs")
_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
_order = itertools.count()

Meta = tuple[tuple[tuple[int, ...], dtypes.DType], ...]

REGISTRY: dict[str, Op[..., Any]] = {}


class Leaf:
    """The end of a graph: a tensor that the user asked a gradient for.

    It holds the gradient and the hooks, so that a graph never needs the tensor itself.
    """

    __slots__ = ("grad", "hooks", "meta", "name")
    order = -1

    def __init__(self, array: Any) -> None:
        self.meta: Meta = ((array.shape, array.dtype),)
        self.grad: Tensor | None = None
        self.hooks: dict[int, Callable[[Tensor], Tensor | None]] | None = None
        self.name: str | None = None


class Node:
    """One recorded call. It points only backwards: dropping the result frees the graph.

    It keeps arrays, never tensors, so that rebinding or writing a tensor later is noticed
    (through the version cells) and never silently changes a gradient.
    """

    __slots__ = (
        "cells",
        "code",
        "constants",
        "half",
        "hooks",
        "lasti",
        "meta",
        "op",
        "order",
        "parents",
        "retained",
        "saved",
        "shapes",
        "slots",
        "versions",
    )

    op: Op[..., Any]
    parents: tuple[Node | Leaf | None, ...]  # the node of each operand
    slots: tuple[int, ...]  # which output of the parent each operand was
    saved: tuple[Any, ...] | None  # operands and outputs that the rule names; None once freed
    cells: tuple[list[Any] | None, ...]  # version cells of what was saved
    versions: tuple[int, ...]
    constants: dict[str, Any]
    shapes: tuple[tuple[int, ...] | None, ...] | None
    meta: Meta  # shape and dtype of each output
    half: bool  # a half type is involved: its rule runs on widened tensors
    order: int  # creation order: parents come before children
    hooks: dict[int, dict[int, Callable[[Tensor], Tensor | None]]] | None
    retained: dict[int, Tensor | None] | None
    code: Any  # where it was called, as a code object and an instruction offset
    lasti: int


def user_line(code: Any, lasti: int) -> str:
    """`file.py:12` of an instruction."""
    line = code.co_firstlineno
    for start, end, number in code.co_lines():
        if start <= lasti < end and number is not None:
            line = number
    return f"{os.path.basename(code.co_filename)}:{line}"


def user_frame(depth: int = 1) -> Any:
    """The nearest calling frame outside the library; the outermost one if there is none."""
    frame = sys._getframe(depth + 1)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_PACKAGE):
        if frame.f_code.co_filename.startswith(_TESTS):
            break
        frame = frame.f_back
    return frame


def creation_number() -> int:
    """A number that later nodes exceed: tells what was recorded after this call."""
    return next(_order)


def new_node(
    operation: Op[..., Any], edges: list[tuple[Node | Leaf, int]], outs: tuple[Tensor, ...]
) -> Node:
    """A node that joins `outs` to `edges` with nothing saved: for operations made by hand."""
    node = Node()
    node.op = operation
    node.parents = tuple(parent for parent, _ in edges)
    node.slots = tuple(slot for _, slot in edges)
    node.saved = node.cells = node.versions = ()
    node.constants = {}
    node.shapes = node.hooks = node.retained = None
    node.meta = tuple((x.array.shape, x.array.dtype) for x in outs)
    node.half = any(dtype in dtypes.HALVES for _, dtype in node.meta)
    node.order = next(_order)
    frame = user_frame(2)
    node.code, node.lasti = frame.f_code, frame.f_lasti
    for slot, x in enumerate(outs):
        x._node, x._slot = node, slot
    return node


_TESTS = (_PACKAGE + "tests" + os.sep, _PACKAGE + "docs" + os.sep)


class Op(Generic[P, R]):
    """A primitive operation: a body, a backward rule, and kernels for particular devices.

    Made by the `op` decorator, which documents the declarations.
    """

    def __init__(
        self,
        body: Callable[..., Any],
        *,
        name: str | None = None,
        outputs: int = 1,
        differentiable: bool = True,
        promote: bool | tuple[int, ...] = False,
        to_float: bool = False,
        raw: bool = False,
        wide: bool = False,
        view: bool = False,
        same_float: bool = False,
        writes: tuple[str, ...] = (),
        composite: Callable[..., Any] | None = None,
    ) -> None:
        self.name = name or body.__name__
        self.__name__ = self.name
        self.__doc__ = body.__doc__
        self.__module__ = body.__module__
        signature = inspect.signature(body)
        # Without xp: what callers see, and what help() and inspect show.
        self.__signature__ = signature.replace(parameters=list(signature.parameters.values())[1:])
        self.body = body
        self.outputs = outputs
        self.differentiable = differentiable
        self.promote = promote
        self.to_float = to_float
        self.raw = raw or view
        self.wide = wide
        self.view = view
        self.same_float = same_float
        self.composite = composite
        self.rule: Callable[..., Any] | None = None
        self.rule_spec: tuple[tuple[str, Any], ...] = ()
        self.explain: Callable[..., Exception | None] | None = None
        self.kernels: dict[str, Callable[..., Any]] = {}
        self._read_signature(body)
        unknown = set(writes) - set(self.operands)
        if unknown:
            raise TypeError(f"op {self.name}: writes= names no operand: {sorted(unknown)}")
        self.writes = tuple(self.operands.index(w) for w in writes)
        # The common case is decided once: float32 arrays need no preparation unless the op writes,
        # nor do masks and numbers beside them, and the integers of one that only moves data.
        self._plain = self.raw and not (promote or to_float or same_float)
        self._cpu: Callable[..., Any] = partial(body, np)
        self._save: tuple[int, ...] = ()  # operands to keep for the rule
        self._save_out = False
        self._save_shapes = False
        if self.name in REGISTRY and REGISTRY[self.name].__module__ != body.__module__:
            raise TypeError(f"there are two ops named {self.name!r}")
        REGISTRY[self.name] = self

    def _read_signature(self, body: Callable[..., Any]) -> None:
        parameters = list(inspect.signature(body).parameters.values())
        if not parameters or parameters[0].name != "xp":
            raise TypeError(f"op {self.name}: the first parameter of the body must be xp")
        self.operands: list[str] = []
        self._optional: dict[str, Any] = {}  # operands that may be left out
        self.defaults: dict[str, Any] = {}
        self.constant_names: set[str] = set()
        self.variadic = False
        for p in parameters[1:]:
            if p.name in _RESERVED:
                raise TypeError(f"op {self.name}: {p.name!r} is a reserved name")
            if p.kind is p.KEYWORD_ONLY:
                self.constant_names.add(p.name)
                if p.default is not p.empty:
                    self.defaults[p.name] = p.default
            elif p.kind is p.VAR_POSITIONAL:
                self.variadic = True
                self.operands.append(p.name)
            elif p.kind is p.VAR_KEYWORD:
                raise TypeError(f"op {self.name}: constants must be listed, not **{p.name}")
            else:
                self.operands.append(p.name)
                if p.default is not p.empty:
                    self._optional[p.name] = p.default
        self._arity = len(self.operands) - self.variadic

    # -- declaring ---------------------------------------------------------------------------

    def backward(self, rule: Callable[..., Any]) -> Callable[..., Any]:
        """Register the backward rule. Its parameter names say what it is given."""
        spec: list[tuple[str, Any]] = []
        save: list[int] = []
        for name in inspect.signature(rule).parameters:
            if name in _RESERVED:
                spec.append((name, None))
                self._save_out |= name == "out"
                self._save_shapes |= name == "shapes"
            elif name in self.operands:
                index = self.operands.index(name)
                starred = self.variadic and index == len(self.operands) - 1
                spec.append(("rest" if starred else "operand", index))
                save.append(-1 if starred else index)
            elif name in self.constant_names:
                spec.append(("constant", name))
            else:
                raise TypeError(
                    f"backward rule of {self.name}: unknown parameter {name!r}; "
                    f"known are {', '.join((*_RESERVED, *self.operands, *self.constant_names))}"
                )
        self.rule = rule
        self.rule_spec = tuple(spec)
        self._save = tuple(save)
        return rule

    def kernel(self, device_type: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        """Register a body for one device type ("cpu", "cuda").

        It has the body's signature without `xp`, and may return `NotImplemented` to leave a
        case to the generic body.
        """

        def register(kernel: Callable[..., Any]) -> Callable[..., Any]:
            self.kernels[device_type] = kernel
            if device_type == "cpu":
                body = self.body

                def run(*arrays: Any, **constants: Any) -> Any:
                    result = kernel(*arrays, **constants)
                    if result is NotImplemented:
                        return body(np, *arrays, **constants)
                    return result

                self._cpu = run
            return kernel

        return register

    def explains(self, function: Callable[..., Exception | None]) -> Callable[..., Any]:
        """Register a function `(error, operands, constants)` that makes a clearer error."""
        self.explain = function
        return function

    def __repr__(self) -> str:
        return f"<op {self.name}>"

    # -- calling -----------------------------------------------------------------------------

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        operands: tuple[Any, ...] = args
        if len(operands) < self._arity or (kwargs and not kwargs.keys() <= self.constant_names):
            operands = self._arranged(operands, kwargs)
        if watch.count and state.observers:
            return self._observed(operands, kwargs)  # type: ignore[no-any-return]
        return self._run(operands, kwargs)  # type: ignore[no-any-return]

    def _arranged(self, operands: tuple[Any, ...], constants: dict[str, Any]) -> tuple[Any, ...]:
        """All operands by position: those given by name, and the defaults of those left out."""
        unknown = constants.keys() - self.constant_names - set(self.operands[len(operands) :])
        if unknown:
            raise keyword_error(self.name, min(unknown), (*self.operands, *self.constant_names))
        rest = []
        for name in self.operands[len(operands) : self._arity]:
            if name in constants:
                rest.append(constants.pop(name))
            elif name in self._optional:
                rest.append(self._optional[name])
            else:
                raise TypeError(f"{self.name}: the operand {name!r} is missing")
        return (*operands, *rest)

    def _observed(self, operands: tuple[Any, ...], constants: dict[str, Any]) -> Any:
        run: Callable[[], Any] = partial(self._run, operands, constants)
        if any(isinstance(x, Tensor) for x in operands):
            for observer in state.observers:
                run = partial(observer, self, operands, constants, run)
        return run()

    def _run(self, operands: tuple[Any, ...], constants: dict[str, Any]) -> Any:
        arrays = []
        simple = not self.writes
        track = False
        tensors = floats = False
        for x in operands:
            if isinstance(x, Tensor):
                tensors = True
                a = x.array
                if x._node is not None:
                    track = True
                dtype = a.dtype
                if dtype is _F32:
                    floats = True
                elif dtype is not _BOOL and not (dtype is _I64 and self._plain):
                    simple = False
                if type(a) is not _ndarray:
                    simple = False
                arrays.append(a)
            else:
                kind = type(x)
                if kind is not float and kind is not int and x is not None:
                    simple = False
                arrays.append(x)
        if not tensors:
            return self._run_bare(operands, constants)
        simple = simple and (floats or self._plain)
        try:
            if simple:
                result = self._cpu(*arrays, **constants)
                saved_from: Any = arrays
            else:
                result, saved_from = self._run_prepared(operands, arrays, constants)
        except Exception as error:
            raise self._clearer(error, operands, constants) from None
        if self.outputs == 1:
            if result is None:
                return None
            if type(result) is not _ndarray:
                result = _as_array(result)
            out = _wrap(result)
            if self.view:
                base = operands[0]
                out._cell = base._cell
                out._view = True
            if track and state.grad_enabled and self.differentiable and result.dtype.kind in "fcV":
                node = self._record(operands, constants, saved_from, simple)
                node.meta = ((result.shape, result.dtype),)
                if not simple and result.dtype in dtypes.HALVES:
                    node.half = True
                if self._save_out:
                    self._keep_output(node, (out,), result)
                out._node = node
            return out
        results = tuple(r if type(r) is _ndarray or r is None else _as_array(r) for r in result)
        outs = tuple(None if r is None else _wrap(r) for r in results)
        if self.view:
            for each in outs:
                if each is not None:
                    each._cell, each._view = operands[0]._cell, True
        if track and state.grad_enabled and self.differentiable:
            node = self._record(operands, constants, saved_from, simple)
            node.meta = tuple(((), _F32) if r is None else (r.shape, r.dtype) for r in results)
            if self._save_out:
                self._keep_output(node, outs, results)
            for slot, each in enumerate(outs):
                if each is not None and each.array.dtype.kind in "fcV":
                    each._node = node
                    each._slot = slot
        return outs

    def _run_bare(self, operands: tuple[Any, ...], constants: dict[str, Any]) -> Any:
        """On plain arrays: no wrapping, no recording, NumPy's own promotion."""
        backend: Backend | None = None
        for x in operands:
            if x is not None and type(x) not in _SCALARS:
                backend = backend_of(x)
                if backend is not None:
                    break
        if backend is None or backend.type == "cpu":
            return self._cpu(*operands, **constants)
        return self._run_on(backend, operands, constants)

    def _run_on(self, backend: Backend, arrays: Any, constants: dict[str, Any]) -> Any:
        if backend.type == "cpu":
            return self._cpu(*arrays, **constants)
        kernel = self.kernels.get(backend.type)
        if kernel is not None:
            result = kernel(*arrays, **constants)
            if result is not NotImplemented:
                return result
        return self.body(backend.xp, *arrays, **constants)

    def _run_prepared(
        self, operands: tuple[Any, ...], arrays: list[Any], constants: dict[str, Any]
    ) -> tuple[Any, list[Any]]:
        """The general path: other dtypes, devices, scalars. Returns the result and what to save."""
        backend = self._common_backend(operands, arrays)
        for i, a in enumerate(arrays):
            if not (a is None or type(a) in _SCALARS or type(a) is backend.array_type):
                arrays[i] = _operand_array(a, self.name)
        if self.promote:
            _promote(arrays, self.promote, self.to_float, backend.xp)
        elif self.to_float:
            for i, a in enumerate(arrays):
                if type(a) not in _SCALARS and a is not None and a.dtype.kind in "iub":
                    arrays[i] = a.astype(_F32)
        if self.same_float:
            self._check_same_float(arrays)
        kept = list(arrays)
        rounded = None
        if (backend.type == "cpu" or self.wide) and not self.raw:
            rounded = _widen(arrays, skip=self.writes)
        if self.writes:
            self._before_writing(operands)
        result = self._run_on(backend, arrays, constants)
        if rounded is not None:
            result = _round(result, rounded)
        return result, kept

    def _before_writing(self, operands: tuple[Any, ...]) -> None:
        """Bump the versions of operands that the body is about to update in place."""
        watch.writes += 1
        frame = user_frame(3)
        for i in self.writes:
            x = operands[i]
            if isinstance(x, Tensor):
                cell = x._cell
                cell[0] += 1
                cell[1] = (frame.f_code, frame.f_lasti)

    # -- recording ---------------------------------------------------------------------------

    def _record(
        self,
        operands: tuple[Any, ...],
        constants: dict[str, Any],
        arrays: list[Any],
        simple: bool,
    ) -> Node:
        node = Node()
        node.op = self
        node.constants = constants
        node.order = next(_order)
        node.hooks = node.retained = None
        node.half = False
        if not simple:
            for a in arrays:
                if getattr(a, "dtype", None) in dtypes.HALVES:
                    node.half = True
        parents = []
        slots = []
        for x in operands:
            if isinstance(x, Tensor):
                parents.append(x._node)
                slots.append(x._slot)
            else:
                parents.append(None)
                slots.append(0)
        node.parents = tuple(parents)
        node.slots = tuple(slots)
        node.shapes = None
        if self._save_shapes:
            node.shapes = tuple([getattr(a, "shape", None) for a in arrays])
        if self._save:
            saved, cells, versions = [], [], []
            for i in self._save:
                if i < 0:  # the variadic operand: all of them
                    first = len(self.operands) - 1
                    saved.append(tuple(arrays[first:]))
                    for x in operands[first:]:
                        if isinstance(x, Tensor):
                            cells.append(x._cell)
                            versions.append(x._cell[0])
                    continue
                saved.append(arrays[i])
                x = operands[i]
                if isinstance(x, Tensor):
                    cells.append(x._cell)
                    versions.append(x._cell[0])
            node.saved = tuple(saved)
            node.cells = tuple(cells)
            node.versions = tuple(versions)
        else:
            node.saved = node.cells = node.versions = ()
        frame = sys._getframe(3)
        while frame.f_code.co_filename.startswith(_PACKAGE):
            if frame.f_back is None or frame.f_code.co_filename.startswith(_TESTS):
                break
            frame = frame.f_back
        node.code = frame.f_code
        node.lasti = frame.f_lasti
        return node

    def _keep_output(self, node: Node, outs: tuple[Any, ...], result: Any) -> None:
        node.saved = (*(node.saved or ()), result)
        cells = tuple(out._cell for out in outs if out is not None)
        node.cells = node.cells + cells
        node.versions = node.versions + tuple(cell[0] for cell in cells)

    # -- mistakes ----------------------------------------------------------------------------

    def _common_backend(self, operands: tuple[Any, ...], arrays: list[Any]) -> Backend:
        found: Backend | None = None
        first: Any = None
        for i, a in enumerate(arrays):
            if a is None or type(a) in _SCALARS or isinstance(a, np.generic):
                continue
            backend = backend_of(a)
            if backend is None:
                continue
            if found is None:
                found, first = backend, i
            elif backend is not found or (
                found.type != "cpu" and device_of(a) != device_of(arrays[first])
            ):
                raise self._device_error(operands, arrays)
        if found is None:
            raise DtypeError(f"{self.name} needs at least one tensor")
        return found

    def _device_error(self, operands: tuple[Any, ...], arrays: list[Any]) -> DeviceError:
        places = []
        devices = set()
        for i, (x, a) in enumerate(zip(operands, arrays, strict=True)):
            if backend_of(a) is None:
                continue
            label = self.operands[min(i, len(self.operands) - 1)]
            name = getattr(getattr(x, "_node", None), "name", None)
            where = str(device_of(a))
            devices.add(where)
            places.append(f"  {label}{f' ({name})' if name else ''}: {where}")
        return DeviceError(
            f"{self.name}: the tensors are on different devices.\n"
            + "\n".join(places)
            + "\nMove the input to the model: x = x.to(model.device)"
            + "  (or the model to the input: model.to(x.device)).",
            devices=sorted(devices),
        )

    def _check_same_float(self, arrays: list[Any]) -> None:
        found: dict[dtypes.DType, str] = {}
        for i, a in enumerate(arrays):
            d = getattr(a, "dtype", None)
            if d is not None and d in dtypes.INEXACT:
                found.setdefault(d, self.operands[min(i, len(self.operands) - 1)])
        if len(found) > 1:
            listing = ", ".join(f"{name} is {d}" for d, name in found.items())
            hint = ""
            if dtypes.float64 in found:
                hint = (
                    "\nfloat64 usually comes from a NumPy array or a Python list made with NumPy."
                )
            wanted = next(d for d in found if d != dtypes.float64)
            raise DtypeError(
                f"{self.name}: floating dtypes differ: {listing}.{hint}\n"
                f"Convert the data: x = x.astype(bt.{wanted})",
                dtypes={name: str(d) for d, name in found.items()},
            )

    def _clearer(
        self, error: Exception, operands: tuple[Any, ...], constants: dict[str, Any]
    ) -> Exception:
        if isinstance(error, BestiaryError):
            return error
        if self.explain is not None:
            better = self.explain(error, operands, constants)
            if better is not None:
                return better
        shapes = [
            f"  {self.operands[min(i, len(self.operands) - 1)]}: {tuple(x.shape)} {x.dtype}"
            for i, x in enumerate(operands)
            if hasattr(x, "shape")
        ]
        text = f"{self.name}: {error}\n" + "\n".join(shapes)
        if isinstance(error, ValueError):
            kept = [tuple(x.shape) for x in operands if hasattr(x, "shape")]
            return ShapeError(text, shapes=kept)
        if isinstance(error, TypeError):
            return DtypeError(text)
        error.add_note(f"in bestiary's {text}")
        return error


# -- preparing operands ----------------------------------------------------------------------


def _operand_array(a: Any, name: str) -> Any:
    if isinstance(a, np.generic):
        return a.item() if a.dtype.kind in "biufc" else np.asarray(a)  # weak, as Python scalars
    if isinstance(a, np.ndarray):
        return a.view(np.ndarray)
    if backend_of(a) is not None:
        return a
    raise DtypeError(
        f"{name}: expected a tensor, an array or a number, got {type(a).__name__}.\n"
        f"Make it a tensor first: bt.asarray(...)",
        got=type(a).__name__,
    )


def _promote(arrays: list[Any], which: bool | tuple[int, ...], to_float: bool, xp: Any) -> None:
    """Bring operands to one dtype; Python scalars stay as they are, being weak."""
    places = range(len(arrays)) if which is True else which or ()
    chosen = [(i, arrays[i]) for i in places if arrays[i] is not None]
    found = [a.dtype for _, a in chosen if type(a) not in _SCALARS]
    if not found:  # where(mask, 1.0, 0.0): scalars alone have their default types
        target = dtypes.bool_
    else:
        target = dtypes.promote_all(found)
    for _, a in chosen:
        if type(a) in _SCALARS:
            scalar: Any = type(a)
            target = dtypes.with_scalar(target, scalar)
    if to_float and target not in dtypes.INEXACT:
        target = dtypes.default_float
    for i, a in chosen:
        if type(a) not in _SCALARS:
            if a.dtype != target:
                arrays[i] = a.astype(target)
        elif not found:
            arrays[i] = xp.asarray(a, target)


def _widen(arrays: list[Any], skip: tuple[int, ...]) -> dtypes.DType | None:
    """Half operands to float32; returns the dtype to which results are rounded, if any."""
    halves = False
    floats = []
    for i, a in enumerate(arrays):
        d = getattr(a, "dtype", None)
        if d is None or d not in dtypes.FLOATS:
            continue
        floats.append(d)
        if d in dtypes.HALVES and i not in skip:
            halves = True
            arrays[i] = converted(a, _F32)
    if not halves:
        return None
    target = dtypes.promote_all(floats)
    return target if target in dtypes.HALVES else None


def _round(result: Any, dtype: dtypes.DType) -> Any:
    if isinstance(result, tuple):
        return tuple(_round(r, dtype) for r in result)
    return converted(result, dtype) if result is not None and result.dtype == _F32 else result


def _as_array(result: Any) -> Any:
    """NumPy returns scalars for 0-d results; `.array` is always an array."""
    if isinstance(result, np.ndarray):
        return result.view(np.ndarray)
    return result if backend_of(result) is not None else np.asarray(result)


@overload
def op(body: Callable[..., R], /) -> Op[..., R]: ...
@overload
def op(**declarations: Any) -> Callable[[Callable[..., R]], Op[..., R]]: ...
def op(body: Any = None, /, **declarations: Any) -> Any:
    """Make a primitive operation of a function `(xp, *operands, *, constants)`.

    Args:
        outputs: how many results; with more than one the body returns a tuple.
        differentiable: False records no gradient.
        promote: operands are brought to one dtype first (elementwise operations); a tuple of
            positions where not all of them are.
        to_float: integer operands become the default float first.
        raw: the body is given half types as they are (it moves data or handles dtypes itself).
        wide: half types are widened to float32 on every device, not on the CPU alone: for
            sums and exponentials, which lose their accuracy or overflow in halves.
        view: the result may share memory with the first operand; implies raw.
        same_float: mixed floating dtypes are refused.
        writes: names of operands that the body updates in place.
        composite: the same function over tensors, made of other ops; used for higher orders.

    Your own differentiable functions are made the same way, and checked by
    `bestiary.testing.gradcheck`.
    """
    if body is None:
        return partial(op, **declarations)
    if not callable(body):
        raise TypeError("op decorates a function")
    return Op(body, **declarations)


# Set by tensor.py, which imports this module.
def _install(tensor_class: type[Tensor], wrap: Callable[[Any], Tensor]) -> None:
    global Tensor, _wrap
    Tensor = tensor_class  # type: ignore[misc]
    _wrap = wrap


_wrap: Callable[[Any], Tensor]
