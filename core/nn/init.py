"""Initial values of parameters, written in place; the functions return their tensor.

The distributions are torch's, drawn from NumPy's generator, which `bt.manual_seed` seeds.
Inside `with nn.init.empty():` parameters stay as the memory was, so that a model whose weights
are loaded next never pays for initialisation.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar

import numpy as np

from ..devices import as_device, backend_for, device_of, move
from ..dtypes import as_dtype, default_float, float32, float64
from ..errors import ConfigError, DtypeError, ShapeError
from ..ops.update import assign
from ..random import numpy_rng
from ..tensor import Tensor
from .parameter import Parameter

AnyTensor = TypeVar("AnyTensor", bound=Tensor)
Rng = np.random.Generator


class Budget(Protocol):
    """Is asked before the memory of a parameter is allocated; raises to refuse it."""

    def take(self, shape: tuple[int, ...]) -> None:
        """A parameter of this shape comes next."""


class _Mode(threading.local):
    empty = False
    budget: Budget | None = None


_mode = _Mode()


@contextmanager
def empty() -> Iterator[None]:
    """Create modules without initial values: `with nn.init.empty(): model = Model()`."""
    before = _mode.empty
    _mode.empty = True
    try:
        yield
    finally:
        _mode.empty = before


@contextmanager
def limited(budget: Budget) -> Iterator[None]:
    """Ask a budget before the memory of each parameter is allocated."""
    before = _mode.budget
    _mode.budget = budget
    try:
        yield
    finally:
        _mode.budget = before


def is_empty() -> bool:
    """Whether parameters are left without initial values."""
    return _mode.empty


def parameter(*shape: int, device: Any = None, dtype: Any = None) -> Parameter:
    """A parameter of uninitialised memory, for an initialiser or a loader to fill."""
    place = as_device(device)
    kind = default_float if dtype is None else as_dtype(dtype)
    if _mode.budget is not None:
        _mode.budget.take(shape)
    try:
        return Parameter(backend_for(place).xp.empty(shape, kind))
    except (TypeError, ValueError):
        raise _no_sizes(shape) from None


def _no_sizes(shape: tuple[Any, ...]) -> Exception:
    """Sizes of a layer that are negative, or no whole numbers."""
    if any(not hasattr(n, "__index__") for n in shape):
        kinds = ", ".join(type(n).__name__ for n in shape if not hasattr(n, "__index__"))
        hint = "A division that should give a whole number: size // 2" if "float" in kinds else ""
        return DtypeError(f"sizes of a layer are whole numbers, got {shape}.\n{hint}".strip())
    return ConfigError(f"sizes of a layer are not negative, got {shape}.", got=shape)


def _fill(tensor: AnyTensor, values: Any) -> AnyTensor:
    if isinstance(values, np.ndarray):
        values = move(values, device_of(tensor.array))
    assign(tensor, Tensor(values) if hasattr(values, "shape") else values)
    return tensor


def _drawn(tensor: Tensor) -> Any:
    """The dtype in which NumPy draws for a tensor: it knows float32 and float64."""
    return float64 if tensor.dtype == float64 else float32


def uniform_(
    tensor: AnyTensor, a: float = 0.0, b: float = 1.0, generator: Rng | None = None
) -> AnyTensor:
    """Uniform between a and b."""
    if _mode.empty:
        return tensor
    rng = generator or numpy_rng()
    values = rng.random(tensor.shape, dtype=_drawn(tensor))
    values *= b - a
    values += a
    return _fill(tensor, values)


def normal_(
    tensor: AnyTensor, mean: float = 0.0, std: float = 1.0, generator: Rng | None = None
) -> AnyTensor:
    """Normal with this mean and standard deviation."""
    if _mode.empty:
        return tensor
    rng = generator or numpy_rng()
    values = rng.standard_normal(tensor.shape, dtype=_drawn(tensor))
    values *= std
    values += mean
    return _fill(tensor, values)


def trunc_normal_(
    tensor: AnyTensor,
    mean: float = 0.0,
    std: float = 1.0,
    a: float = -2.0,
    b: float = 2.0,
    generator: Rng | None = None,
) -> AnyTensor:
    """Normal, with what falls outside [a, b] (absolute bounds, as in torch) drawn again."""
    if _mode.empty:
        return tensor
    if not a < b:
        raise ConfigError(f"trunc_normal_: nothing lies between a={a} and b={b}")
    rng = generator or numpy_rng()
    low, high = (a - mean) / std, (b - mean) / std
    inside = (math.erf(high / math.sqrt(2)) - math.erf(low / math.sqrt(2))) / 2
    if inside < 0.01:
        raise ConfigError(
            f"trunc_normal_: almost nothing of N({mean}, {std}) lies between a={a} and b={b}.\n"
            "The bounds are values, not multiples of std: a=mean - 2 * std, b=mean + 2 * std"
        )
    values = rng.standard_normal(tensor.size, dtype=_drawn(tensor))
    outside = np.flatnonzero((values < low) | (values > high))
    while outside.size:
        again = rng.standard_normal(outside.size, dtype=values.dtype)
        values[outside] = again
        outside = outside[(again < low) | (again > high)]
    values *= std
    values += mean
    return _fill(tensor, values.reshape(tensor.shape))


def constant_(tensor: AnyTensor, val: float) -> AnyTensor:
    """One value everywhere."""
    return tensor if _mode.empty else _fill(tensor, val)


def zeros_(tensor: AnyTensor) -> AnyTensor:
    """Zeros."""
    return constant_(tensor, 0.0)


def ones_(tensor: AnyTensor) -> AnyTensor:
    """Ones."""
    return constant_(tensor, 1.0)


def eye_(tensor: AnyTensor) -> AnyTensor:
    """The identity matrix."""
    if tensor.ndim != 2:
        raise ShapeError(f"eye_ takes a matrix, got shape {tensor.shape}", got=tensor.shape)
    return tensor if _mode.empty else _fill(tensor, np.eye(*tensor.shape, dtype=_drawn(tensor)))


def dirac_(tensor: AnyTensor, groups: int = 1) -> AnyTensor:
    """A convolution that passes its input channels through unchanged."""
    if tensor.ndim not in (3, 4, 5) or tensor.shape[0] % groups:
        raise ShapeError(
            f"dirac_ takes convolution weights whose first axis {groups} divides, "
            f"got shape {tensor.shape}",
            got=tensor.shape,
        )
    if _mode.empty:
        return tensor
    values = np.zeros(tensor.shape, _drawn(tensor))
    per_group = tensor.shape[0] // groups
    centre = tuple(size // 2 for size in tensor.shape[2:])
    for group in range(groups):
        for channel in range(min(per_group, tensor.shape[1])):
            values[(group * per_group + channel, channel, *centre)] = 1
    return _fill(tensor, values)


def calculate_gain(nonlinearity: str, param: float | None = None) -> float:
    """The factor by which a nonlinearity shrinks the standard deviation, inverted."""
    if nonlinearity == "leaky_relu":
        return math.sqrt(2.0 / (1 + (0.01 if param is None else param) ** 2))
    gains = {"tanh": 5.0 / 3, "relu": math.sqrt(2.0), "selu": 0.75}
    plain = ("linear", "sigmoid", "conv1d", "conv2d", "conv_transpose1d", "conv_transpose2d")
    if nonlinearity in plain:
        return 1.0
    if nonlinearity not in gains:
        known = ", ".join(("leaky_relu", *gains, *plain))
        raise ConfigError(f"calculate_gain: no gain for {nonlinearity!r}.\nThere are: {known}.")
    return gains[nonlinearity]


def _fans(tensor: Tensor) -> tuple[int, int]:
    """Inputs and outputs that each weight connects."""
    if tensor.ndim < 2:
        raise ShapeError(
            f"fan-in and fan-out need at least two axes, got shape {tensor.shape}.\n"
            "For a bias: nn.init.zeros_(tensor)",
            got=tensor.shape,
        )
    field = math.prod(tensor.shape[2:])
    return tensor.shape[1] * field, tensor.shape[0] * field


def xavier_uniform_(
    tensor: AnyTensor, gain: float = 1.0, generator: Rng | None = None
) -> AnyTensor:
    """Uniform, keeping the variance of activations and gradients.

    Source: Glorot and Bengio 2010, "Understanding the difficulty of training deep feedforward
    neural networks".
    """
    bound = gain * math.sqrt(6.0 / sum(_fans(tensor)))
    return uniform_(tensor, -bound, bound, generator)


def xavier_normal_(tensor: AnyTensor, gain: float = 1.0, generator: Rng | None = None) -> AnyTensor:
    """Normal, keeping the variance of activations and gradients."""
    return normal_(tensor, 0.0, gain * math.sqrt(2.0 / sum(_fans(tensor))), generator)


def _kaiming_std(tensor: Tensor, a: float, mode: str, nonlinearity: str) -> float:
    if mode not in ("fan_in", "fan_out"):
        raise ConfigError(f"mode is 'fan_in' or 'fan_out', got {mode!r}", got=mode)
    fan_in, fan_out = _fans(tensor)
    fan = fan_in if mode == "fan_in" else fan_out
    return calculate_gain(nonlinearity, a) / math.sqrt(max(fan, 1))


def kaiming_uniform_(
    tensor: AnyTensor,
    a: float = 0.0,
    mode: str = "fan_in",
    nonlinearity: str = "leaky_relu",
    generator: Rng | None = None,
) -> AnyTensor:
    """Uniform, keeping the variance through rectifiers of negative slope `a`.

    Source: He et al. 2015, "Delving deep into rectifiers".
    """
    bound = math.sqrt(3.0) * _kaiming_std(tensor, a, mode, nonlinearity)
    return uniform_(tensor, -bound, bound, generator)


def kaiming_normal_(
    tensor: AnyTensor,
    a: float = 0.0,
    mode: str = "fan_in",
    nonlinearity: str = "leaky_relu",
    generator: Rng | None = None,
) -> AnyTensor:
    """Normal, keeping the variance through rectifiers of negative slope `a`."""
    return normal_(tensor, 0.0, _kaiming_std(tensor, a, mode, nonlinearity), generator)


def orthogonal_(tensor: AnyTensor, gain: float = 1.0, generator: Rng | None = None) -> AnyTensor:
    """Orthonormal rows or columns, whichever are fewer; later axes are flattened.

    Source: Saxe et al. 2013, "Exact solutions to the nonlinear dynamics of learning in deep
    linear neural networks".
    """
    if tensor.ndim < 2:
        raise ShapeError(
            f"orthogonal_ takes at least two axes, got shape {tensor.shape}", got=tensor.shape
        )
    if _mode.empty or not tensor.size:
        return tensor
    rows, columns = tensor.shape[0], math.prod(tensor.shape[1:])
    rng = generator or numpy_rng()
    flat = rng.standard_normal((max(rows, columns), min(rows, columns)))
    q, r = np.linalg.qr(flat)
    q *= np.sign(np.diag(r))  # else the distribution is not uniform over the orthogonal group
    values = (q if rows >= columns else q.T) * gain
    return _fill(tensor, values.reshape(tensor.shape).astype(_drawn(tensor)))


def sparse_(
    tensor: AnyTensor, sparsity: float, std: float = 0.01, generator: Rng | None = None
) -> AnyTensor:
    """Normal, with this share of each column set to zero."""
    if tensor.ndim != 2:
        raise ShapeError(f"sparse_ takes a matrix, got shape {tensor.shape}", got=tensor.shape)
    if _mode.empty:
        return tensor
    rng = generator or numpy_rng()
    rows, columns = tensor.shape
    values = rng.standard_normal((rows, columns), dtype=_drawn(tensor)) * np.float32(std)
    zeros = math.ceil(sparsity * rows)
    for column in range(columns):
        values[rng.permutation(rows)[:zeros], column] = 0
    return _fill(tensor, values.astype(_drawn(tensor)))
