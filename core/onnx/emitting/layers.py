"""Products, convolution, pooling, normalisation, attention, resizing."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...dtypes import bool_, float32
from ...graph.record import Call, Ref
from ..builder import Builder
from ..sizes import Size
from . import emits
from .elementwise import common, one, result_dtype

_LOWEST = float(np.finfo(np.float32).min)


@emits("linear")
def _linear(b: Builder, call: Call) -> Any:
    x, weight, bias = call.operands
    turned = b.add("Transpose", b.name(weight), perm=[1, 0])
    out = b.add("MatMul", b.name(x), turned)
    return out if bias is None else b.add("Add", out, b.name(bias))


@emits("matmul")
def _matmul(b: Builder, call: Call) -> str:
    return b.add("MatMul", one(b, call, 0), one(b, call, 1))  # type: ignore[no-any-return]


# -- convolution and pooling -------------------------------------------------------------------


@emits("conv2d")
def _conv2d(b: Builder, call: Call) -> str:
    c = call.constants
    top, bottom, left, right = c["padding"]
    return b.add(  # type: ignore[no-any-return]
        "Conv",
        *(b.name(x) for x in call.operands),
        kernel_shape=list(b.shape(call.operands[1])[2:]),
        strides=list(c["stride"]),
        pads=[top, left, bottom, right],
        dilations=list(c["dilation"]),
        group=c["groups"],
    )


@emits("conv2d_input_grad")
def _conv_transpose(b: Builder, call: Call) -> str:
    """The gradient of a convolution is the transposed one."""
    c, y, weight = call.constants, call.operands[0], call.operands[1]
    top, bottom, left, right = c["padding"]
    extra = []
    kernel: Any = b.shape(weight)[2:]
    for i, (first, last) in enumerate(((top, bottom), (left, right))):
        have, want = b.shape(y)[2 + i], c["shape"][2 + i]
        if isinstance(have, Size) or isinstance(want, Size):
            raise b.refused("a transposed convolution of an open size")
        reach = (have - 1) * c["stride"][i] + c["dilation"][i] * (kernel[i] - 1) + 1
        extra.append(want - (reach - first - last))
    return b.add(  # type: ignore[no-any-return]
        "ConvTranspose",
        *(b.name(x) for x in call.operands),
        kernel_shape=list(kernel),
        strides=list(c["stride"]),
        pads=[top, left, bottom, right],
        dilations=list(c["dilation"]),
        group=c["groups"],
        output_padding=extra,
    )


def _windows(b: Builder, call: Call) -> dict[str, Any]:
    """Attributes of pooling; a window that hangs over the end needs more padding there."""
    c, spatial = call.constants, b.shape(call.operands[0])[2:]
    ends, dilation = list(c["padding"]), c.get("dilation", (1, 1))
    for i, n in enumerate(spatial):
        if isinstance(n, Size):
            raise b.refused("pooling along an open axis")
        reach = (c["size"][i] - 1) * c["stride"][i] + dilation[i] * (c["kernel"][i] - 1) + 1
        ends[i] = max(reach - n - c["padding"][i], 0)
    return {
        "kernel_shape": list(c["kernel"]),
        "strides": list(c["stride"]),
        "pads": [*c["padding"], *ends],
    }


@emits("max_pool2d")
def _max_pool(b: Builder, call: Call) -> str:
    dilations = list(call.constants["dilation"])
    return b.add("MaxPool", b.name(call.operands[0]), **_windows(b, call), dilations=dilations)  # type: ignore[no-any-return]


@emits("avg_pool2d")
def _avg_pool(b: Builder, call: Call) -> str:
    c, found = call.constants, _windows(b, call)
    over = any(end > p for end, p in zip(found["pads"][2:], c["padding"], strict=True))
    if c["include_pad"] and over:
        raise b.refused("average pooling with windows that hang over the padding")
    return b.add("AveragePool", one(b, call), **found, count_include_pad=int(c["include_pad"]))  # type: ignore[no-any-return]


@emits("global_avg_pool")
def _global_pool(b: Builder, call: Call) -> str:
    axes = list(range(2, b.ndim(call.operands[0])))
    return b.add("ReduceMean", one(b, call), axes=axes, keepdims=0)  # type: ignore[no-any-return]


@emits("resample")
def _resample(b: Builder, call: Call) -> str:
    """A sparse map along one axis, as the product with its matrix."""
    taps, axis, ndim = call.constants["taps"], call.constants["axis"], b.ndim(call.operands[0])
    matrix = np.zeros((taps.size, taps.index.shape[1]), result_dtype(b, call))
    columns = np.arange(taps.index.shape[1])
    for index, weight in zip(taps.index, taps.weight, strict=True):
        np.add.at(matrix, (index, columns), weight.astype(matrix.dtype))
    order = [i for i in range(ndim) if i != axis % ndim] + [axis % ndim]
    moved = b.add("Transpose", one(b, call), perm=order)
    back = [order.index(i) for i in range(ndim)]
    return b.add("Transpose", b.add("MatMul", moved, b.const(matrix)), perm=back)  # type: ignore[no-any-return]


# -- normalisation -----------------------------------------------------------------------------


def _per_channel(b: Builder, x: Ref, operand: Any) -> str:
    """A vector of channels, shaped for axis 1."""
    count = b.ndim(x) - 2
    name = b.name(operand)
    return b.add("Reshape", name, b.ints([-1] + [1] * count)) if count else name


@emits("batch_norm_inference")
def _batch_norm(b: Builder, call: Call) -> str:
    x, mean, var, weight, bias = (*call.operands, None, None)[:5]
    channels = b.shape(mean)
    dtype = result_dtype(b, call)
    scale = b.const(np.ones(channels, dtype)) if weight is None else b.name(weight)
    shift = b.const(np.zeros(channels, dtype)) if bias is None else b.name(bias)
    stats = [b.cast(b.name(v), b.dtype(v), dtype) for v in (mean, var)]
    eps = float(call.constants["eps"])
    return b.add("BatchNormalization", b.name(x), scale, shift, *stats, epsilon=eps)  # type: ignore[no-any-return]


@emits("scale_channels")
def _scale_channels(b: Builder, call: Call) -> str:
    x, factor = call.operands
    return b.add("Mul", b.name(x), _per_channel(b, x, factor))  # type: ignore[no-any-return]


@emits("layer_norm")
def _layer_norm(b: Builder, call: Call) -> list[str]:
    x, weight, bias = (*call.operands, None, None)[:3]
    axes, eps = call.constants["axes"], float(call.constants["eps"])
    shape: Any = b.shape(x)[-axes:]
    if weight is None and any(isinstance(n, Size) for n in shape):
        raise b.refused("a layer norm over an open axis")
    scale = b.const(np.ones(shape, b.dtype(x))) if weight is None else b.name(weight)
    return [b.add("LayerNormalization", b.name(x), scale, b.name(bias), axis=-axes, epsilon=eps)]


@emits("rms_norm")
def _rms_norm(b: Builder, call: Call) -> list[str]:
    x, weight = (*call.operands, None)[:2]
    name, axes = b.name(x), call.constants["axes"]
    mean = b.add("ReduceMean", b.add("Mul", name, name), axes=list(range(-axes, 0)), keepdims=1)
    eps = b.const(np.asarray(call.constants["eps"], b.dtype(x)))
    out = b.add("Div", name, b.add("Sqrt", b.add("Add", mean, eps)))
    return [out if weight is None else b.add("Mul", out, b.name(weight))]


@emits("group_norm")
def _group_norm(b: Builder, call: Call) -> list[str]:
    x, weight, bias = (*call.operands, None, None)[:3]
    groups, dtype = call.constants["groups"], b.dtype(x)
    rows = b.add("Reshape", b.name(x), b.const(np.array([0, groups, -1])))
    unit, zero = b.const(np.ones(groups, dtype)), b.const(np.zeros(groups, dtype))
    eps = float(call.constants["eps"])
    out = b.add("InstanceNormalization", rows, unit, zero, epsilon=eps)
    out = b.add("Reshape", out, b.add("Shape", b.name(x)))
    out = out if weight is None else b.add("Mul", out, _per_channel(b, x, weight))
    return [out if bias is None else b.add("Add", out, _per_channel(b, x, bias))]


# -- attention ---------------------------------------------------------------------------------


@emits("attention")
def _attention(b: Builder, call: Call) -> list[str]:
    q, k, v, mask, key = call.operands
    c = call.constants
    if key is not None:
        raise b.refused("attention with dropout")
    dtype, ndim = b.dtype(q), b.ndim(q)
    heads, shared = b.shape(q)[-3], b.shape(k)[-3]
    keys, values = b.name(k), b.name(v)
    if heads != shared:
        if isinstance(heads, Size) or isinstance(shared, Size):
            raise b.refused("attention with an open number of heads")
        keys = _for_all_heads(b, k, heads // shared)
        values = _for_all_heads(b, v, heads // shared)
    order = [*range(ndim - 2), ndim - 1, ndim - 2]
    scaled = b.add("Mul", b.name(q), b.const(np.asarray(c["scale"], dtype)))
    scores = b.add("MatMul", scaled, b.add("Transpose", keys, perm=order))
    seen = _seen(b, q, k) if c["causal"] else None
    if mask is not None and b.dtype(mask) == bool_:
        seen = b.name(mask) if seen is None else b.add("And", b.name(mask), seen)
    elif mask is not None:
        scores = b.add("Add", scores, b.cast(b.name(mask), b.dtype(mask), dtype))
    if seen is None:
        return [b.add("MatMul", b.add("Softmax", scores, axis=-1), values)]
    # A row that sees nothing is all zeros here, where -inf would make it NaN.
    scores = b.add("Where", seen, scores, b.const(np.asarray(_LOWEST, dtype)))
    weights = b.add("Softmax", scores, axis=-1)
    weights = b.add("Where", seen, weights, b.const(np.zeros((), dtype)))
    return [b.add("MatMul", weights, values)]


def _for_all_heads(b: Builder, x: Ref, times: int) -> str:
    """Keys or values that several heads share, once for each of them."""
    *lead, heads, tokens, width = b.shape(x)
    axis = len(lead) + 1
    wide = b.add("Unsqueeze", b.name(x), b.const(np.array([axis])))
    counts = [1] * (axis + 3)
    counts[axis] = times
    wide = b.add("Expand", wide, b.const(np.array(counts)))
    assert isinstance(heads, int)
    return b.reshape(wide, [*lead, heads * times, tokens, width], lead)


def _seen(b: Builder, q: Ref, k: Ref) -> str:
    """Which keys each query sees where it sees those before it."""
    rows = b.add("Range", b.number(0), b.number(b.shape(q)[-2]), b.number(1))
    columns = b.add("Range", b.number(0), b.number(b.shape(k)[-2]), b.number(1))
    rows = b.add("Unsqueeze", rows, b.const(np.array([1])))
    return b.add("LessOrEqual", columns, rows)  # type: ignore[no-any-return]


@emits("rotate_halves")
def _rotate(b: Builder, call: Call) -> str:
    x, cos, sin = call.operands
    width = b.shape(x)[-1]
    assert isinstance(width, int)
    half = width // 2
    name, at = b.name(x), b.const(np.array([-1]))
    first = b.add("Slice", name, b.ints([0]), b.ints([half]), at)
    second = b.add("Slice", name, b.ints([half]), b.ints([2 * half]), at)
    dtype = common(b, (x,)) if b.dtype(x).kind == "f" else float32
    c, s = (b.cast(b.name(v), b.dtype(v), dtype) for v in (cos, sin))
    kinds = ("Add", "Sub") if call.constants.get("back") else ("Sub", "Add")
    left = b.add(kinds[0], b.add("Mul", first, c), b.add("Mul", second, s))
    right = b.add(kinds[1], b.add("Mul", second, c), b.add("Mul", first, s))
    return b.add("Concat", left, right, axis=-1)  # type: ignore[no-any-return]
