"""The Tensor: an array, and its place in a graph of recorded operations.

One class, which makes this file long; most methods are a line. Its operators are in operators.py.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from . import dtypes, mistakes
from .callers import drop_our_frames
from .devices import Device, as_device, backend_of, device_of
from .errors import GradError, ShapeError
from .node import Leaf, Node
from .op import _install
from .operators import Operators, install_operators
from .ops.indexing import getitem, split_index, write_item
from .ops.reduction import max, mean, min, sum
from .ops.shape import (
    astype,
    matrix_transpose,
    permute_dims,
    positive_copy,
    reshape,
    to_device,
)
from .spelling import spelled, torch_spelling
from .state import reading, state, touching, watch


class Tensor(Operators):
    """An n-dimensional array that remembers how it was made, so that gradients can be computed.

    `Tensor(array)` wraps an array without a copy; `bt.tensor(data)` and `bt.asarray(data)` make
    one from lists and numbers. Functions of the array API standard (`bt.sum`, `bt.concat`, ...)
    work on it, on every device. `x += y` makes a new tensor; `x[i] = v` writes memory.

    Attributes:
        array: the NumPy or CuPy array. Writing to it is not seen by autograd's checks.
    """

    # `_cell` is [version, where it was last written], shared between a tensor and its views.
    __slots__ = ("__weakref__", "_cell", "_node", "_slot", "_view", "array")

    array: Any
    _node: Node | Leaf | None
    _slot: int
    _cell: list[Any]
    _view: bool

    # NumPy's operators hand over to ours: array + tensor is a tensor.
    __array_ufunc__ = None

    def __init__(self, array: Any) -> None:
        if type(array) is not np.ndarray and backend_of(array) is None:
            if not isinstance(array, np.generic):
                raise TypeError(
                    f"Tensor(...) wraps an array, got {type(array).__name__}.\n"
                    "Make one from lists or numbers with bt.tensor(...)"
                )
            array = np.asarray(array)
        self.array = array
        self._node = None
        self._slot = 0
        self._cell = [0, None]
        self._view = False

    # -- what it is ---------------------------------------------------------------------------

    @property
    def shape(self) -> tuple[int, ...]:
        """The size of each axis."""
        return self.array.shape  # type: ignore[no-any-return]

    @property
    def dtype(self) -> dtypes.DType:
        """The type of the elements."""
        return self.array.dtype  # type: ignore[no-any-return]

    @property
    def ndim(self) -> int:
        """The number of axes."""
        return self.array.ndim  # type: ignore[no-any-return]

    @property
    def size(self) -> int:
        """The number of elements."""
        return self.array.size  # type: ignore[no-any-return]

    @property
    def nbytes(self) -> int:
        """The memory that the elements take, in bytes."""
        return self.array.nbytes  # type: ignore[no-any-return]

    @property
    def device(self) -> Device:
        """Where the elements are."""
        return device_of(self.array)

    @property
    def T(self) -> Tensor:
        """A matrix, transposed."""
        if self.ndim != 2:
            raise ShapeError(
                f".T is for matrices, this tensor has shape {self.shape}.\n"
                "The last two axes: x.mT; any order: bt.permute_dims(x, axes)"
            )
        return permute_dims(self, (1, 0))

    @property
    def mT(self) -> Tensor:
        """The last two axes exchanged."""
        return matrix_transpose(self)

    # -- gradients ----------------------------------------------------------------------------

    @property
    def requires_grad(self) -> bool:
        """Whether operations on it are recorded."""
        return self._node is not None

    @requires_grad.setter
    def requires_grad(self, value: bool) -> None:
        self.requires_grad_(value)

    def requires_grad_(self, value: bool = True) -> Tensor:
        """Start or stop recording what is computed from this tensor; returns it.

        Raises:
            GradError: it is the result of a recorded operation, or holds no floats.
        """
        if isinstance(self._node, Node):
            if value:
                return self
            raise GradError(
                "requires_grad_(False): this tensor is the result of a recorded operation.\n"
                "Cut it from its graph instead: x.detach()"
            )
        if not value:
            self._node = None
        elif self._node is None:
            if self.dtype not in dtypes.INEXACT:
                raise mistakes.no_gradient_for(self.dtype)
            self._node = Leaf(self.array)
        return self

    @property
    def is_leaf(self) -> bool:
        """Whether it is no result of a recorded operation."""
        return not isinstance(self._node, Node)

    @property
    def grad(self) -> Tensor | None:
        """The gradient that `backward` left here; None before, and for tensors without one."""
        node = self._node
        if isinstance(node, Leaf):
            if watch.count:
                touching(node)
            return node.grad
        if node is not None and node.retained is not None:
            return node.retained.get(self._slot)
        return None

    @grad.setter
    def grad(self, value: Tensor | None) -> None:
        node = self._node
        if not isinstance(node, Leaf):
            if value is None:
                return
            raise GradError("only a tensor that requires_grad and is a leaf holds a gradient")
        if value is not None and value.shape != self.shape:
            raise ShapeError(
                f"the gradient has shape {value.shape}, its tensor {self.shape}",
                expected=self.shape,
                got=value.shape,
            )
        if watch.count:
            touching(node)
        node.grad = value

    def retain_grad(self) -> None:
        """Keep the gradient of this intermediate result in `.grad` too."""
        node = self._node
        if node is None:
            raise GradError("retain_grad: this tensor needs no gradient")
        if isinstance(node, Node):
            if node.retained is None:
                node.retained = {}
            node.retained.setdefault(self._slot, None)

    def register_hook(self, hook: Callable[[Tensor], Tensor | None]) -> Callable[[], None]:
        """Call `hook(gradient)` when this tensor's gradient is complete.

        What it returns, if not None, replaces the gradient. Returns a function that removes it.
        """
        node = self._node
        if node is None:
            raise GradError("register_hook: this tensor needs no gradient")
        if node.hooks is None:
            node.hooks = {}
        table: dict[int, Any] = node.hooks
        if isinstance(node, Node):
            table = table.setdefault(self._slot, {})
        key = id(hook)
        while key in table:
            key += 1
        table[key] = hook

        def remove() -> None:
            table.pop(key, None)

        return remove

    def backward(
        self,
        gradient: Tensor | None = None,
        *,
        retain_graph: bool | None = None,
        create_graph: bool = False,
    ) -> None:
        """Add the gradient of this value to `.grad` of every leaf that it was computed from.

        Args:
            gradient: the gradient of this tensor; may be left out for a single value.
            retain_graph: keep the graph for another backward.
            create_graph: make the gradients differentiable themselves.
        """
        from .autograd import backward

        try:
            backward(self, gradient, retain_graph=retain_graph, create_graph=create_graph)
        except Exception as error:
            drop_our_frames(error)
            raise

    def detach(self) -> Tensor:
        """The same memory without a graph."""
        out = _wrap(self.array)
        out._cell = self._cell
        return out

    # -- conversion ---------------------------------------------------------------------------

    def item(self) -> Any:
        """The value of a tensor with one element, as a Python number."""
        if self.size != 1:
            raise ShapeError(
                f"item() takes one value, this tensor has shape {self.shape}.\n"
                "Reduce it first (x.mean().item()), or use x.tolist().",
                shape=self.shape,
            )
        if watch.count:
            reading(self, "item()")
        if state.noisy is not None:
            mistakes.warn_of_prediction(self)
        return self.array.item()

    def tolist(self) -> Any:
        """The values as nested Python lists."""
        if watch.count:
            reading(self, "tolist()")
        if state.noisy is not None:
            mistakes.warn_of_prediction(self)
        return self.array.tolist()

    def numpy(self) -> np.ndarray[Any, Any]:
        """The values as a NumPy array that shares memory.

        Raises:
            GradError: the tensor has a graph, or is on a GPU; the message says what to write.
        """
        if watch.count:
            reading(self, "numpy()")
        elsewhere = type(self.array) is not np.ndarray
        if elsewhere or self._node is not None:
            raise mistakes.not_for_numpy(self, elsewhere)
        if state.noisy is not None:
            mistakes.warn_of_prediction(self)
        return self.array  # type: ignore[no-any-return]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray[Any, Any]:
        return np.array(self.numpy(), dtype=dtype, copy=copy)

    def __dlpack__(
        self,
        *,
        stream: Any = None,
        max_version: Any = None,
        dl_device: Any = None,
        copy: bool | None = None,
    ) -> Any:
        if self._node is not None:
            raise GradError(
                "this tensor takes part in a gradient, which DLPack cannot carry.\n"
                "Write: x.detach()"
            )
        asked = {"max_version": max_version, "dl_device": dl_device, "copy": copy}
        given = {name: value for name, value in asked.items() if value is not None}
        return self.array.__dlpack__(stream=stream, **given)

    def __dlpack_device__(self) -> Any:
        return self.array.__dlpack_device__()

    def __array_namespace__(self, *, api_version: str | None = None) -> Any:
        from .. import __name__ as root

        if api_version not in (None, "2021.12", "2022.12", "2023.12", "2024.12"):
            raise ValueError(f"array API version {api_version!r} is not known")
        return sys.modules[root]

    def to_device(self, device: Any, /, *, stream: Any = None) -> Tensor:
        """The tensor on another device (the standard's name for `to`)."""
        if stream is not None:
            raise ValueError("to_device: streams are managed by the library; leave stream=None")
        return self.to(device)

    def to(self, device: Any = None, dtype: Any = None) -> Tensor:
        """The tensor on another device, in another dtype; itself where nothing changes."""
        x = self
        if device is not None:
            if isinstance(device, np.dtype):
                device, dtype = None, device
            else:
                target, source = as_device(device), x.device
                if target != source:
                    x = to_device(x, device=target, source=source)
        if dtype is not None and x.dtype != dtypes.as_dtype(dtype):
            x = astype(x, dtype=dtypes.as_dtype(dtype))
        return x

    def cpu(self) -> Tensor:
        """The tensor in the main memory."""
        return self.to("cpu")

    def cuda(self) -> Tensor:
        """The tensor on the first GPU."""
        return self.to("cuda")

    def astype(self, dtype: Any) -> Tensor:
        """The values in another dtype."""
        return self.to(dtype=dtypes.as_dtype(dtype))

    def clone(self) -> Tensor:
        """A copy, through which gradients flow."""
        out: Tensor = positive_copy(self)
        return out

    # -- short forms of functions --------------------------------------------------------------

    @spelled
    def sum(self, axis: Any = None, *, dtype: Any = None, keepdims: bool = False) -> Tensor:
        """Sum over axes."""
        return sum(self, axis=axis, dtype=dtype, keepdims=keepdims)

    @spelled
    def mean(self, axis: Any = None, *, keepdims: bool = False) -> Tensor:
        """Mean over axes."""
        return mean(self, axis=axis, keepdims=keepdims)

    @spelled
    def max(self, axis: Any = None, *, keepdims: bool = False) -> Tensor:
        """Largest value over axes."""
        return max(self, axis=axis, keepdims=keepdims)

    @spelled
    def min(self, axis: Any = None, *, keepdims: bool = False) -> Tensor:
        """Smallest value over axes."""
        return min(self, axis=axis, keepdims=keepdims)

    def reshape(self, *shape: Any) -> Tensor:
        """The same values in another shape: `x.reshape(2, -1)` or `x.reshape((2, -1))`."""
        if len(shape) == 1 and isinstance(shape[0], (tuple, list)):
            shape = tuple(shape[0])
        return reshape(self, shape)

    # -- indexing ------------------------------------------------------------------------------

    def __getitem__(self, index: Any) -> Tensor:
        kind = type(index)
        if kind is int or kind is slice:
            return getitem(self, layout=(index,))
        layout, operands = split_index(index, _is_tensor)
        return getitem(self, *operands, layout=layout)

    def __setitem__(self, index: Any, value: Any) -> None:
        layout, operands = split_index(index, _is_tensor)
        if isinstance(self._node, Leaf):
            raise mistakes.write_to_leaf(self)
        if self._view:
            raise mistakes.write_to_view(self)
        out = write_item(self, value, *operands, layout=layout)
        if out._node is not None:
            self._node = out._node
            self._slot = out._slot

    def __len__(self) -> int:
        if self.ndim == 0:
            raise TypeError("a tensor without axes has no length")
        return self.shape[0]

    def __iter__(self) -> Iterator[Tensor]:
        if self.ndim == 0:
            raise TypeError("cannot iterate over a tensor without axes")
        for i in range(self.shape[0]):
            yield self[i]

    # -- numbers --------------------------------------------------------------------------------

    def __bool__(self) -> bool:
        if self.size != 1:
            raise ValueError(
                f"the truth of a tensor of shape {self.shape} is ambiguous.\n"
                "Use bt.any(x) or bt.all(x)."
            )
        if watch.count:
            reading(self, "the truth")
        return bool(self.array.item())

    def __int__(self) -> int:
        return int(self.item())

    def __float__(self) -> float:
        return float(self.item())

    def __complex__(self) -> complex:
        return complex(self.item())

    def __index__(self) -> int:
        if self.dtype.kind not in "iu" or self.ndim:
            raise TypeError("only an integer tensor without axes can be an index")
        if watch.count:
            reading(self, "the value")
        return int(self.array.item())

    __hash__ = object.__hash__

    def __repr__(self) -> str:
        from .display import tensor_repr

        return tensor_repr(self)

    def _repr_html_(self) -> str:
        from .insight.notebook import tensor_html

        return tensor_html(self)

    def __format__(self, spec: str) -> str:
        return format(self.item(), spec) if spec and self.size == 1 else repr(self)

    def __getattr__(self, name: str) -> Any:
        raise torch_spelling(name, "Tensor", dir(type(self)))

    def __copy__(self) -> Tensor:
        return self.clone()

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        if isinstance(self._node, Node):
            raise GradError("a result of a recorded operation cannot be deep-copied; detach it")
        copied = type(self).__new__(type(self))
        Tensor.__init__(copied, self.array.copy())
        if self._node is not None:
            copied.requires_grad_()
        memo[id(self)] = copied
        return copied

    def __reduce__(self) -> Any:
        return _unpickled, (type(self), self.cpu().array, self._node is not None)


def _unpickled(kind: type[Tensor], array: Any, requires_grad: bool) -> Tensor:
    tensor = kind.__new__(kind)
    Tensor.__init__(tensor, array)
    return tensor.requires_grad_() if requires_grad else tensor


def _is_tensor(x: Any) -> bool:
    return isinstance(x, Tensor)


_new = object.__new__


def _wrap(array: Any) -> Tensor:
    """A tensor of an array that is known to be one: the short way."""
    tensor = _new(Tensor)
    tensor.array = array
    tensor._node = None
    tensor._slot = 0
    tensor._cell = [0, None]
    tensor._view = False
    return tensor


_install(Tensor, _wrap)
install_operators(Tensor)
