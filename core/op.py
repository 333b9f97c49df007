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

The life of an operation is read here at one sitting, how it is declared, called and recorded,
which makes this file long. What it does to unusual operands is in operands.py, what it says
about wrong ones in mistakes.py.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar, overload

import numpy as np

from . import dtypes, mistakes
from .callers import OUTSIDE, PACKAGE, drop_our_frames, user_frame
from .devices import Backend, backend_of
from .node import Node, creation_order
from .operands import (
    SCALARS,
    as_array,
    as_operand,
    check_same_float,
    common_backend,
    integers_to_float,
    promote_together,
    rounded,
    widen_halves,
)
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
_RESERVED = ("g", "out", "shapes", "needs")

REGISTRY: dict[str, Op[..., Any]] = {}


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
        narrow: tuple[str, ...] = (),
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
        unknown = {*writes, *narrow} - set(self.operands)
        if unknown:
            raise TypeError(
                f"op {self.name}: writes= or narrow= name no operand: {sorted(unknown)}"
            )
        self.writes = tuple(self.operands.index(w) for w in writes)
        self._unwidened = (*self.writes, *(self.operands.index(name) for name in narrow))
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
        self.optional: dict[str, Any] = {}  # operands that may be left out
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
                    self.optional[p.name] = p.default
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
        try:
            if len(operands) < self._arity or (kwargs and not kwargs.keys() <= self.constant_names):
                operands = self._arranged(operands, kwargs)
            if watch.count:
                if state.cast is not None:
                    operands = state.cast(self, operands)
                if state.observers:
                    return self._observed(operands, kwargs)  # type: ignore[no-any-return]
            return self._run(operands, kwargs)  # type: ignore[no-any-return]
        except Exception as error:
            drop_our_frames(error)
            raise

    def _arranged(self, operands: tuple[Any, ...], constants: dict[str, Any]) -> tuple[Any, ...]:
        """All operands by position: those given by name, and the defaults of those left out."""
        unknown = constants.keys() - self.constant_names - set(self.operands[len(operands) :])
        if unknown:
            raise keyword_error(self.name, min(unknown), (*self.operands, *self.constant_names))
        rest = []
        for name in self.operands[len(operands) : self._arity]:
            if name in constants:
                rest.append(constants.pop(name))
            elif name in self.optional:
                rest.append(self.optional[name])
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
        """Unwrap, run, wrap, record. One function, since a call more is felt in every operation."""
        arrays = []
        simple = not self.writes  # nothing to prepare: float32 arrays of the CPU, and numbers
        track = False  # an operand has a place in a graph
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
            raise mistakes.clearer(self, error, operands, constants) from None
        if self.outputs == 1:
            if result is None:
                return None
            if type(result) is not _ndarray:
                result = as_array(result)
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
        results = tuple(r if type(r) is _ndarray or r is None else as_array(r) for r in result)
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
            if x is not None and type(x) not in SCALARS:
                backend = backend_of(x)
                if backend is not None:
                    break
        try:
            if backend is None or backend.type == "cpu":
                return self._cpu(*operands, **constants)
            return self._run_on(backend, operands, constants)
        except Exception:
            better = mistakes.foreign_operand(self, operands)
            if better is None:
                raise
            raise better from None

    def _run_on(self, backend: Backend, arrays: Any, constants: dict[str, Any]) -> Any:
        """On prepared arrays: the kernel of their device, or else the body."""
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
        backend = common_backend(self, operands, arrays)
        for i, a in enumerate(arrays):
            if not (a is None or type(a) in SCALARS or type(a) is backend.array_type):
                arrays[i] = as_operand(a, self.name)
        if self.promote:
            promote_together(arrays, self.promote, self.to_float, backend.xp)
        elif self.to_float:
            integers_to_float(arrays)
        if self.same_float:
            check_same_float(self, arrays)
        kept = list(arrays)
        half = None
        if (backend.type == "cpu" or self.wide) and not self.raw:
            half = widen_halves(arrays, skip=self._unwidened)
        if self.writes:
            self._before_writing(operands)
        result = self._run_on(backend, arrays, constants)
        if half is not None:
            result = rounded(result, half)
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
        """A node for this call, with what the rule names; the caller adds what is the result's."""
        node = Node()
        node.op = self
        node.constants = constants
        node.order = next(creation_order)
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
        frame = sys._getframe(3)  # user_frame, without the price of a call
        while frame.f_code.co_filename.startswith(PACKAGE):
            if frame.f_back is None or frame.f_code.co_filename.startswith(OUTSIDE):
                break
            frame = frame.f_back
        node.code = frame.f_code
        node.lasti = frame.f_lasti
        return node

    def _keep_output(self, node: Node, outs: tuple[Any, ...], result: Any) -> None:
        """For a rule that names `out`: it is saved last."""
        node.saved = (*(node.saved or ()), result)
        cells = tuple(out._cell for out in outs if out is not None)
        node.cells = node.cells + cells
        node.versions = node.versions + tuple(cell[0] for cell in cells)


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
        narrow: names of operands whose halves the body takes as they are, beside others that are
            widened: weights, of which it widens a part at a time.
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
