"""Mixed precision: products in a half type, what sums and exponentiates in float32.

Inside `autocast(bt.bfloat16)` the choke point brings the operands of some operations to another
dtype first. The conversions are operations like others: they are recorded, and gradients pass
them back to the float32 parameters.

| operations | are given | and return |
|---|---|---|
| `HALF`: products, convolutions, attention, recurrent scans | the half type | the half type |
| `FLOAT32`: sums, exponentials, norms, softmax, decompositions | float32 | float32 |
| batch norm, average pooling | what there is, and compute in float32 | the dtype of their input |
| everything else | what there is | as without autocast |

Losses and distances that are made of several operations compute in float32 as a whole
(`in_float32`). float64 and complex operands are left alone, and so are the operations they meet.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import numpy as np

from . import dtypes
from .conversion import converted
from .devices import Device, backend_for
from .errors import ConfigError, DtypeError
from .op import Op, op
from .ops.shape import astype
from .spelling import spelled
from .state import Cast, state, watch

if TYPE_CHECKING:
    from .tensor import Tensor

P = ParamSpec("P")
R = TypeVar("R")

HALF = frozenset(
    "matmul linear linear_input_grad linear_weight_grad quantized_linear conv2d conv2d_input_grad "
    "conv2d_weight_grad attention rnn_scan lstm_scan gru_scan".split()
)
# Besides these, every operation that is declared `wide`, but for AS_GIVEN.
FLOAT32 = frozenset(
    "sum mean prod norm2 cumulative_sum cumulative_prod linear_recurrence "
    "exp expm1 log log1p log2 log10 logaddexp pow square reciprocal tan sinh cosh asin acos "
    "softplus inv solve det slogdet adjugate cholesky qr eigh eigvalsh svd svdvals pinv "
    "fft rfft irfft".split()
)
AS_GIVEN = frozenset(
    "avg_pool2d avg_unpool global_avg_pool global_avg_unpool batch_norm batch_norm_stats "
    "batch_norm_backward".split()
)
_ADAPTABLE = frozenset((dtypes.float16, dtypes.bfloat16, dtypes.float32))
_FIXED = dtypes.INEXACT - _ADAPTABLE


@op(raw=True)
def lowered(xp: Any, x: Tensor, *, dtype: dtypes.DType) -> Tensor:
    """The values rounded to a half type; the gradient is rounded to it on its way back."""
    with np.errstate(over="ignore"):  # GradScaler lets gradients overflow, and notices
        rounded: Tensor = converted(x, dtype)
    return rounded


@lowered.backward
def _(g: Any, dtype: dtypes.DType) -> Any:
    # On a GPU it has that dtype already. On the CPU gradients of halves are carried in float32,
    # and would neither overflow nor vanish, as they do where the program is meant to run.
    return lowered(g, dtype=dtype)


class _Policy:
    """What `Op` calls with itself and its operands before it runs."""

    __slots__ = ("dtype",)

    def __init__(self, dtype: dtypes.DType) -> None:
        self.dtype = dtype

    def __call__(self, op: Op[..., Any], operands: tuple[Any, ...]) -> tuple[Any, ...]:
        name = op.name
        target: dtypes.DType | None = None
        if name in HALF:
            target = self.dtype
        elif op.writes or name in AS_GIVEN:
            return operands
        elif name in FLOAT32 or op.wide:
            target = dtypes.float32
        elif not op.same_float:
            return operands
        found = [getattr(x, "dtype", None) for x in operands]
        if not _FIXED.isdisjoint(found) or not any(hasattr(x, "_node") for x in operands):
            return operands
        if target is None:  # an operation of the user's that refuses mixed floats
            target = dtypes.promote_all([d for d in found if d in _ADAPTABLE] or [dtypes.float32])
        return tuple(
            _brought(x, target) if dtype in _ADAPTABLE and dtype != target else x
            for x, dtype in zip(operands, found, strict=True)
        )


def _brought(x: Any, dtype: dtypes.DType) -> Any:
    return lowered(x, dtype=dtype) if dtype in dtypes.HALVES else astype(x, dtype=dtype)


@contextmanager
def casting(cast: Cast | None) -> Iterator[None]:
    """Let `cast` see the operands of every operation of this thread; None lets nothing."""
    before = state.cast
    counted = int(cast is not None)
    with watch.lock:
        watch.count += counted
    state.cast = cast
    try:
        yield
    finally:
        state.cast = before
        with watch.lock:
            watch.count -= counted


@spelled
def autocast(dtype: Any, enabled: bool = True) -> AbstractContextManager[None]:
    """Run products in float16 or bfloat16 inside, and what needs accuracy in float32.

    Put the forward pass and the loss inside, `backward` outside (it uses the dtypes of the
    forward pass wherever it is called). Parameters stay float32 and get float32 gradients.

        with bt.autocast(bt.bfloat16):
            loss = F.cross_entropy(model(x), y)
        loss.backward()

    float16 also needs `optim.GradScaler`. `autocast(bt.float32)` switches it off inside. On the
    CPU, half types are widened for each operation and each result is rounded, so that this is
    slower than float32: it lets a program for a GPU be tried. The mode belongs to a thread, and
    the function it returns can decorate another.

    Args:
        dtype: `bt.float16`, `bt.bfloat16` or `bt.float32`, or their names.
        enabled: False switches it off inside.

    Raises:
        ConfigError: another dtype.
    Source: Micikevicius et al. 2018, "Mixed precision training".
    """
    found = _checked(dtype)
    return casting(_Policy(found) if enabled and found in dtypes.HALVES else None)


def _checked(dtype: Any) -> dtypes.DType:
    try:
        found = dtypes.as_dtype(dtype)
    except DtypeError:
        found = None
    if found is not None and found in _ADAPTABLE:
        return found
    raise ConfigError(
        f"autocast: takes a half type to compute in, got {dtype!r}.\n"
        "Write: with bt.autocast(bt.bfloat16): ...  (or bt.float16; bt.float32 switches it off)\n"
        "There is no device to name: operations run where their tensors are.",
        got=dtype,
    )


def in_float32(function: Callable[P, R]) -> Callable[P, R]:
    """Let a function made of several operations compute in float32 under autocast."""

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        if state.cast is None:
            return function(*args, **kwargs)
        wide: Any = [_widened(x) for x in args]
        named: Any = {name: _widened(x) for name, x in kwargs.items()}
        with casting(None):
            return function(*wide, **named)

    return call


def _widened(x: Any) -> Any:
    half = hasattr(x, "_node") and x.dtype in dtypes.HALVES
    return astype(x, dtype=dtypes.float32) if half else x


# From which compute capability on a GPU has fast products of a type.
_FROM = {"bfloat16": 80, "float16": 70}


def best_precision(device: Device) -> str:
    """The fastest of "bfloat16", "float16" and "float32" on a device: float32 on the CPU."""
    if device.type != "cuda":
        return "float32"
    cuda = backend_for(device).xp.cuda
    capability = int(cuda.Device(device.index).compute_capability)
    return next((name for name, least in _FROM.items() if capability >= least), "float32")
