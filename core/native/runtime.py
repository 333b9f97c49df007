"""Loads the extension, sets its threads and instruction set, and checks what goes into it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError, DtypeError, MissingExtra, ShapeError
from ..notice import NativeWarning, warn_once
from . import loading

if TYPE_CHECKING:
    from . import _native
else:
    _native = loading.load()

_BUILT = _native is not None
KERNELS: dict[str, int] = _native.kernels if _BUILT else {}

Float32 = NDArray[np.float32]
# A kernel's number, its arrays, whole numbers, floats, items and grain.
Step = tuple[int, tuple[Any, ...], tuple[int, ...], tuple[float, ...], int, int]

_FLOAT32 = np.dtype(np.float32)

# Items of elementwise work in a block: 64 KiB of float32, and about 10 microseconds.
GRAIN = 16384


def built() -> bool:
    """Whether the extension module is there, in use or not."""
    return _BUILT


def available() -> bool:
    """Whether the native kernels are built and not switched off by `BESTIARY_NATIVE=0`."""
    return _BUILT and os.environ.get("BESTIARY_NATIVE") != "0"


def info() -> dict[str, Any]:
    """What `bestiary doctor` shows.

    Keys: `built`, `available`; `problem` where a file is there that cannot be used; and where it
    is built `isa` (the instruction set in use), `isas` (those that this processor can run),
    `threads`, `threads_started`.
    """
    facts: dict[str, Any] = {"built": built(), "available": available()}
    if loading.problem is not None:
        facts["problem"] = loading.problem
    if built():
        isa, _, _, threads, started = _native.info()
        facts.update(isa=isa, isas=_native.usable(), threads=threads, threads_started=started)
    return facts


def get_num_threads() -> int:
    """Threads that a kernel may use."""
    _require()
    return _native.info()[3]


def set_num_threads(count: int) -> None:
    """Set how many threads a kernel may use; results do not depend on it.

    The first value is `BESTIARY_NUM_THREADS`, else the number of processors that this process
    may run on.

    Raises: ConfigError when the count is below 1.
    """
    _require()
    if count < 1:
        raise ConfigError(f"native kernels need at least 1 thread, got {count}", got=count)
    _native.set_threads(count)


def set_isa(name: str) -> None:
    """Force an instruction set: avx512, avx2 or generic (for tests and measurements)."""
    _require()
    _native.set_isa(name)


def isa() -> str:
    """The instruction set in use; empty without the kernels."""
    return _native.info()[0] if available() else ""


def lanes() -> int:
    """Floats in a vector of the instruction set in use."""
    _require()
    return _native.info()[1]


def panel_width() -> int:
    """Output channels in a packed panel of the instruction set in use."""
    _require()
    return _native.info()[2]


def run(
    kernel: str,
    arrays: tuple[Any, ...],
    ints: tuple[int, ...],
    floats: tuple[float, ...],
    items: int,
    grain: int,
) -> None:
    """Run a kernel over `items`, in blocks of `grain`, on the pool."""
    _require()
    _native.run(KERNELS[kernel], arrays, ints, floats, items, grain)


def run_prepared(step: Step) -> None:
    """Run a kernel with arguments that were put together and checked before."""
    _native.run(*step)


def grain_for(cost: int, work: int = GRAIN) -> int:
    """Items in a block, when each touches `cost` elements."""
    return max(1, work // max(1, cost))


def check(
    where: str,
    name: str,
    array: Any,
    shape: Sequence[int | None] | None = None,
    dtype: np.dtype[Any] = _FLOAT32,
    *,
    strided: bool = False,
) -> None:
    """Check an operand: an array of the dtype, C-contiguous, of the shape (None: any length).

    With `strided` only its last axis has to lie without gaps.

    Raises: DtypeError, ShapeError, ValueError for the memory layout.
    """
    if (  # nearly always, and soon seen
        type(array) is np.ndarray
        and array.dtype is dtype
        and (shape is None or array.shape == shape)
        and array.flags.carray
    ):
        return
    if not isinstance(array, np.ndarray) or array.dtype != dtype:
        got = array.dtype if isinstance(array, np.ndarray) else type(array).__name__
        raise DtypeError(
            f"native.{where}: {name} must be a NumPy array of {dtype}, got {got}",
            expected=dtype,
            got=got,
        )
    flags = array.flags
    packed = flags.c_contiguous or (strided and (array.strides[-1] == 4 or array.shape[-1] == 1))
    if not (packed and flags.aligned):
        raise ValueError(
            f"native.{where}: {name} must be C-contiguous and aligned, got shape {array.shape} "
            f"with strides {array.strides}; use np.require({name}, requirements='CA')"
        )
    if shape is None or array.shape == shape:
        return
    if array.ndim != len(shape) or any(
        want is not None and want != got for want, got in zip(shape, array.shape, strict=True)
    ):
        raise ShapeError(
            f"native.{where}: {name} must have shape {tuple(shape)}, got {array.shape}",
            expected=tuple(shape),
            got=array.shape,
        )


def output(where: str, out: Float32 | None, shape: tuple[int, ...]) -> Float32:
    """`out` checked, or a new array."""
    if out is None:
        return np.empty(shape, np.float32)
    check(where, "out", out, shape)
    return out


def _require() -> None:
    if not _BUILT:
        raise MissingExtra(
            "the native kernels are not built (bestiary.core.native.available() is False).\n"
            + (f"{loading.problem}\n" if loading.problem else "")
            + loading.REBUILD
        )


def _default_threads() -> int:
    text = os.environ.get("BESTIARY_NUM_THREADS", "").strip()
    if text.isdigit() and int(text) > 0:
        return int(text)
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _start() -> None:
    """Apply the environment: no thread starts before the first parallel call."""
    _native.set_threads(_default_threads())
    wanted = os.environ.get("BESTIARY_NATIVE", "")
    if wanted in _native.usable():
        _native.set_isa(wanted)
    elif wanted not in ("", "0", "1"):
        warn_once(
            "BESTIARY_NATIVE",
            f"BESTIARY_NATIVE={wanted} is no instruction set that can be used here; there are "
            f"{', '.join(_native.usable())}, and 0 for none. {_native.info()[0]} is used.",
            NativeWarning,
        )
    if os.environ.get("BESTIARY_KEEP_MEMORY") != "0" and not _allocator_is_set():
        _native.keep_memory()


def _allocator_is_set() -> bool:
    """Whether the user has told the C library how to allocate: then that holds."""
    return "GLIBC_TUNABLES" in os.environ or any(k.startswith("MALLOC_") for k in os.environ)


if _BUILT:
    _start()
