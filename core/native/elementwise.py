"""Elementwise kernels: activations, half types, random blocks.

Activations take float32 arrays whose memory has no gaps, in any order of axes (channels-last
too): the result has the same layout. Other arrays are copied first.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DtypeError, ShapeError
from .runtime import GRAIN, Float32, run

_FLOAT32 = np.dtype(np.float32)


def erf(x: Float32, out: Float32 | None = None) -> Float32:
    """Error function, elementwise; absolute error below 1.2e-7. `out` may be `x`."""
    return _map("erf", x, None, out)


def relu(x: Float32, out: Float32 | None = None) -> Float32:
    """max(x, 0); NaN stays NaN."""
    return _map("relu", x, None, out)


def relu_backward(g: Float32, y: Float32, out: Float32 | None = None) -> Float32:
    """g where the output y of ReLU is positive, else 0."""
    return _map("relu_backward", y, g, out)


def hardtanh(x: Float32, low: float, high: float, out: Float32 | None = None) -> Float32:
    """x limited to a range; NaN stays NaN."""
    return _map("hardtanh", x, None, out, (low, high))


def hardtanh_backward(
    g: Float32, y: Float32, low: float, high: float, out: Float32 | None = None
) -> Float32:
    """g where the output y of `hardtanh` is inside its range, else 0."""
    return _map("hardtanh_backward", y, g, out, (low, high))


def sigmoid(x: Float32, out: Float32 | None = None) -> Float32:
    """1 / (1 + exp(-x)), accurate in both tails; below -86.6, 0."""
    return _map("sigmoid", x, None, out)


def hardswish(x: Float32, out: Float32 | None = None) -> Float32:
    """x times x / 6 + 1 / 2, the latter limited to 0 ... 1."""
    return _map("hardswish", x, None, out)


def hardswish_backward(g: Float32, x: Float32, out: Float32 | None = None) -> Float32:
    """g times the slope of hardswish at x."""
    return _map("hardswish_backward", x, g, out)


def gelu(x: Float32, out: Float32 | None = None) -> Float32:
    """Exact GELU, x times the normal distribution function, accurate in the tail too."""
    return _map("gelu", x, None, out)


def gelu_backward(g: Float32, x: Float32, out: Float32 | None = None) -> Float32:
    """g times the slope of the exact GELU at x."""
    return _map("gelu_backward", x, g, out)


def gelu_tanh(x: Float32, out: Float32 | None = None) -> Float32:
    """GELU in its tanh approximation (GPT-2's)."""
    return _map("gelu_tanh", x, None, out)


def gelu_tanh_backward(g: Float32, x: Float32, out: Float32 | None = None) -> Float32:
    """g times the slope of the tanh GELU at x."""
    return _map("gelu_tanh_backward", x, g, out)


def silu(x: Float32, out: Float32 | None = None) -> Float32:
    """SiLU (swish), x sigmoid(x)."""
    return _map("silu", x, None, out)


def silu_backward(g: Float32, x: Float32, out: Float32 | None = None) -> Float32:
    """g times the slope of SiLU at x."""
    return _map("silu_backward", x, g, out)


def widen(x: NDArray[Any]) -> Float32:
    """bfloat16 or float16 to float32, exactly.

    Shape: any; the result has the memory layout of `x` where that has no gaps.
    """
    kernel = _half(x.dtype) + "_to_float32"
    flat, axes = _flat(x)
    out = np.empty(flat.size, np.float32)
    run(kernel, (flat.view(np.uint16), out), (), (), flat.size, GRAIN)
    return _unflat(out, x.shape, axes)


def narrow(x: Float32, dtype: np.dtype[Any]) -> NDArray[Any]:
    """float32 to bfloat16 or float16, to the nearest, ties to even; overflow gives infinity."""
    _check_float32("narrow", "x", x)
    kernel = "float32_to_" + _half(dtype)
    flat, axes = _flat(x)
    out = np.empty(flat.size, np.uint16)
    run(kernel, (flat, out), (), (), flat.size, GRAIN)
    return _unflat(out.view(dtype), x.shape, axes)


def philox(seed: int, first: int, count: int) -> NDArray[np.uint32]:
    """Blocks `first` to `first + count` of the Philox 4x32-10 stream of a 64-bit seed.

    Shape: (4 * count,) words, equal to `core.random.philox`.
    """
    out = np.empty(4 * count, np.uint32)
    words = (seed & 0xFFFFFFFF, seed >> 32, first)
    run("philox", (out,), words, (), count, GRAIN // 4)
    return out


def _map(
    kernel: str,
    x: Float32,
    g: Float32 | None,
    out: Float32 | None,
    floats: tuple[float, ...] = (),
) -> Float32:
    """out = kernel(x), or kernel(g, x): all of one shape, in the memory order of x."""
    _check_float32(kernel, "x", x)
    flat, axes = _flat(x)
    if out is None:
        flat_out = np.empty(flat.size, np.float32)
        out = _unflat(flat_out, x.shape, axes)
    else:
        _check_float32(kernel, "out", out)
        view = out if axes is None else out.transpose(axes)
        if out.shape != x.shape or not view.flags.c_contiguous:
            raise ValueError(
                f"native.{kernel}: out must have the shape and memory order of x; x has "
                f"{x.shape} with strides {x.strides}, out {out.shape} with {out.strides}"
            )
        flat_out = view.reshape(-1)
    if g is None:
        run(kernel, (flat, flat_out), (), floats, flat.size, GRAIN)
        return out
    _check_float32(kernel, "g", g)
    if g.shape != x.shape:
        raise ShapeError(
            f"native.{kernel}: g and x must have one shape, got {g.shape} and {x.shape}",
            expected=x.shape,
            got=g.shape,
        )
    flat_g = np.ascontiguousarray(g if axes is None else g.transpose(axes)).reshape(-1)
    run(kernel, (flat_g, flat, flat_out), (), floats, flat.size, GRAIN)
    return out


def _flat(x: NDArray[Any]) -> tuple[NDArray[Any], tuple[int, ...] | None]:
    """Elements in memory order, and the axes from outermost to innermost (None: C order)."""
    if not x.flags.aligned:
        x = x.copy()
    if not x.flags.c_contiguous:
        axes = tuple(sorted(range(x.ndim), key=lambda axis: -x.strides[axis]))
        view = x.transpose(axes)
        if view.flags.c_contiguous:
            return view.reshape(-1), axes
        x = np.ascontiguousarray(x)
    return x.reshape(-1), None


def _unflat(
    flat: NDArray[Any], shape: tuple[int, ...], axes: tuple[int, ...] | None
) -> NDArray[Any]:
    if axes is None:
        return flat.reshape(shape)
    back = sorted(range(len(axes)), key=lambda i: axes[i])
    return flat.reshape([shape[axis] for axis in axes]).transpose(back)


def _check_float32(where: str, name: str, x: Any) -> None:
    if not isinstance(x, np.ndarray) or x.dtype != _FLOAT32:
        got = x.dtype if isinstance(x, np.ndarray) else type(x).__name__
        raise DtypeError(
            f"native.{where}: {name} must be a NumPy array of float32, got {got}",
            expected=_FLOAT32,
            got=got,
        )


def _half(dtype: np.dtype[Any]) -> str:
    if dtype.name not in ("bfloat16", "float16"):
        raise DtypeError(
            f"native.widen and narrow know bfloat16 and float16, got {dtype.name}", got=dtype
        )
    return dtype.name
