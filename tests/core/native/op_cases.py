"""Calls of every operation that has a kernel in C, with shapes and memory chosen by hypothesis.

A case makes the operands and constants of one call. Sizes and memory are those of drawing.py: zero,
one, odd and around multiples of the vectors; with gaps, backwards, misaligned. `kernels`
names the kernels that some of its calls must have run.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from drawing import Draw, in_layout, laid, like, maybe, numbers, size, wide
from hypothesis import strategies as st

import bestiary.core.nn.functional
import bestiary.core.optim  # noqa: F401  (registers its operations)
from bestiary.core.native.conv import output_size
from bestiary.core.quantization import PACKED, pack

Call = tuple[list[Any], dict[str, Any]]


@dataclass(frozen=True)
class Case:
    """How calls of an operation are made; `name` is the operation's."""

    name: str
    make: Callable[[Draw], Call]
    kernels: tuple[str, ...]
    rtol: float = 2e-5


# -- elementwise -----------------------------------------------------------------------------------


def any_shape(draw: Draw) -> tuple[int, ...]:
    return tuple(size(draw, 33) for _ in range(draw(st.integers(0, 4))))


def unary(draw: Draw) -> Call:
    if not draw(st.integers(0, 9)):  # on several threads
        return [numbers(draw, 40_003, scale=3)], {}
    return [numbers(draw, *any_shape(draw), scale=3)], {}


def slope(draw: Draw) -> Call:
    [x], _ = unary(draw)
    return [like(draw, x), x], {}


def with_constants(make: Callable[[Draw], Call], **choices: Any) -> Callable[[Draw], Call]:
    def made(draw: Draw) -> Call:
        operands, constants = make(draw)
        return operands, constants | {k: draw(st.sampled_from(v)) for k, v in choices.items()}

    return made


def limited(draw: Draw) -> Call:
    [g, x], _ = slope(draw)
    return [g, np.clip(x, -1.0, 2.0)], {"low": -1.0, "high": 2.0}


# -- rows ------------------------------------------------------------------------------------------


def rows(draw: Draw) -> Call:
    shape = [size(draw, 33) for _ in range(draw(st.integers(0, 2)))] + [size(draw)]
    if not draw(st.integers(0, 9)):
        shape = [130, 257]
    axis = draw(st.sampled_from([-1, -1, len(shape) - 1, 0]))
    return [numbers(draw, *shape, scale=4)], {"axis": axis}


def of_softmax(draw: Draw) -> Call:
    [x], constants = rows(draw)
    e = np.exp(wide(x) - (wide(x).max() if x.size else 0))
    total = e.sum(constants["axis"], keepdims=True)
    y = laid(draw, (e / total).astype(np.float32))
    return [numbers(draw, *x.shape), y], constants


def of_log_softmax(draw: Draw) -> Call:
    [g, y], constants = of_softmax(draw)
    return [g, in_layout(np.log(y + np.float32(1e-30)), "C")], constants


def row_norm(draw: Draw) -> Call:
    axes = draw(st.integers(1, 2))
    lead = [size(draw, 33, zero=False) for _ in range(draw(st.integers(0, 2)))]
    own = [size(draw, 65 if axes == 1 else 9, zero=False) for _ in range(axes)]
    x = numbers(draw, *lead, *own, scale=2)
    return [x, maybe(draw, numbers(draw, *own))], {"axes": axes, "eps": 1e-2}


def layer_norm(draw: Draw) -> Call:
    [x, weight], constants = row_norm(draw)
    bias = maybe(draw, numbers(draw, *x.shape[x.ndim - constants["axes"] :]))
    return [x, weight, bias], constants


def row_norm_backward(draw: Draw, centred: bool) -> Call:
    [x, weight], constants = row_norm(draw)
    axes = constants["axes"]
    own = wide(x).reshape(-1, int(np.prod(x.shape[x.ndim - axes :])))
    mean = own.mean(1, keepdims=True) * centred
    rstd = (((own - mean) ** 2).mean(1, keepdims=True) + 1e-2) ** -0.5
    needed = draw(st.sampled_from([(True, True), (True, False), (False, True)]))
    stats = [mean, rstd] if centred else [rstd]
    return [numbers(draw, *x.shape), x, *stats, weight], {"axes": axes, "needed": needed}


# -- channels --------------------------------------------------------------------------------------


def channels(draw: Draw, large: bool = False) -> Any:
    axes = draw(st.integers(0, 2))
    space = [size(draw, 17, zero=False) for _ in range(axes)]
    b = draw(st.sampled_from([1, 2, 5, 64]))
    c = size(draw, zero=False)
    if large or not draw(st.integers(0, 9)):  # above the sizes from which kernels are used
        b, c = b + 2100 // (c * max(int(np.prod(space)), 1)), c + 8
    return numbers(draw, b, c, *space, scale=2) + np.float32(draw(st.sampled_from([0, 3])))


def statistics(x: Any) -> tuple[Any, Any]:
    axes = (0, *range(2, x.ndim))
    return wide(x).mean(axes), wide(x).var(axes)


def batch_norm(draw: Draw) -> Call:
    x = channels(draw)
    mean, var = statistics(x)
    weight, bias = (maybe(draw, numbers(draw, x.shape[1])) for _ in range(2))
    return [x, mean, var, weight, bias], {"eps": 1e-2}


def batch_norm_inference(draw: Draw) -> Call:
    [x, mean, var, *rest], constants = batch_norm(draw)
    return [x, mean.astype(np.float32), var.astype(np.float32), *rest], constants


def batch_norm_backward(draw: Draw) -> Call:
    [x, mean, var, weight, _], constants = batch_norm(draw)
    wanted = draw(st.booleans())
    return [like(draw, x), x, mean, var, weight], constants | {"input_needed": wanted}


def summed(draw: Draw) -> Call:
    x = numbers(draw, draw(st.sampled_from([300, 1001])), size(draw, zero=False), 1 + size(draw, 3))
    return [x], {"axis": draw(st.sampled_from([1, 1, -1]))}


def two_sums(draw: Draw) -> Call:
    [x], _ = summed(draw)
    return [like(draw, x), x, numbers(draw, x.shape[1])], {}


def scaled(draw: Draw) -> Call:
    [x], _ = summed(draw)
    return [x, numbers(draw, x.shape[1])], {}


def group_norm(draw: Draw) -> Call:
    groups = draw(st.sampled_from([1, 2, 3]))
    b, c = draw(st.integers(1, 3)), groups * size(draw, 17, zero=False)
    space = draw(st.sampled_from([(1,), (7,), (3, 5), (16, 17), (65, 64)]))
    x = numbers(draw, b, c, *space, scale=2)
    weight, bias = (maybe(draw, numbers(draw, c)) for _ in range(2))
    return [x, weight, bias], {"groups": groups, "eps": 1e-2}


def group_norm_backward(draw: Draw) -> Call:
    [x, weight, _], constants = group_norm(draw)
    b, c = x.shape[:2]
    parts = wide(x).reshape(b, constants["groups"], -1)
    each = c // constants["groups"]
    centre = parts.mean(2).repeat(each, 1)
    rstd = ((parts.var(2) + 1e-2) ** -0.5).repeat(each, 1)
    return [like(draw, x), x, centre, rstd, weight], {"groups": constants["groups"]}


# -- attention and losses --------------------------------------------------------------------------


def attention(draw: Draw) -> Call:
    b, shared, group = (draw(st.integers(1, 2)) for _ in range(3))
    tq, tk = (size(draw, 33, zero=False) for _ in range(2))
    d, dv = (size(draw, 17, zero=False) for _ in range(2))
    q = numbers(draw, b, shared * group, tq, d)
    k, v = numbers(draw, b, shared, tk, d), numbers(draw, b, shared, tk, dv)
    mask = draw(st.sampled_from(["none", "numbers", "truth"]))
    given = None if mask == "none" else numbers(draw, draw(st.sampled_from([1, b])), 1, tq, tk)
    if mask == "truth":
        given = given > -1
    causal = draw(st.booleans())
    return [q, k, v, given, None], {"scale": d**-0.5, "causal": causal, "dropout": 0.0}


def attention_backward(draw: Draw) -> Call:
    from bestiary.core.op import REGISTRY

    operands, constants = attention(draw)
    bare = [wide(x) if x is not None and x.dtype != bool else x for x in operands]
    out, lse = REGISTRY["attention"].body(np, *bare, **constants)
    out = out.astype(np.float32)
    needed = operands[3] is not None and operands[3].dtype != bool
    grad = numbers(draw, *out.shape)
    return [grad, *operands, out, lse], constants | {"mask_needed": needed}


def cross_entropy(draw: Draw) -> Call:
    b, c = (size(draw, zero=False) for _ in range(2))
    if not draw(st.integers(0, 9)):
        b, c = 40, 1001
    x = numbers(draw, b, c, scale=4)
    ids = np.random.default_rng(b).integers(0, c, b)
    ids = laid(draw, ids)
    weight = np.abs(numbers(draw, c)) + 0.1 if not draw(st.integers(0, 3)) else None
    return [x, ids, weight], {
        "reduction": draw(st.sampled_from(["mean", "sum", "none"])),
        "ignore_index": draw(st.sampled_from([-100, -100, 0])),
        "smoothing": draw(st.sampled_from([0.0, 0.0, 0.1])),
    }


def cross_entropy_backward(draw: Draw) -> Call:
    [x, ids, weight], constants = cross_entropy(draw)
    top = wide(x).max(1)
    lse = np.log(np.exp(wide(x) - top[:, None]).sum(1)) + top
    scalar = constants["reduction"] != "none"
    grad = np.float32(0.5).reshape(()) if scalar else numbers(draw, len(x))
    return [grad, x, ids, weight, lse], constants


# -- convolution and pooling -----------------------------------------------------------------------


def geometry(draw: Draw) -> tuple[tuple[int, int], dict[str, Any], tuple[int, int]]:
    """A kernel, its options, and the size of an image that it fits."""
    kernel = tuple(draw(st.sampled_from([1, 1, 2, 3, 3, 5])) for _ in range(2))
    stride = tuple(draw(st.sampled_from([1, 1, 2, 3])) for _ in range(2))
    dilation = tuple(draw(st.sampled_from([1, 1, 2])) for _ in range(2))
    padding = tuple(draw(st.sampled_from([0, 1, 1, 3])) for _ in range(4))
    shape = tuple(
        max(draw(st.sampled_from([1, 3, 5, 8, 17, 20, 33])), d * (k - 1) + 1)
        for d, k in zip(dilation, kernel, strict=True)
    )
    options = {"stride": stride, "padding": padding, "dilation": dilation}
    return (kernel[0], kernel[1]), options, (shape[0], shape[1])


def conv2d(draw: Draw, *, depthwise: bool = False) -> Call:
    kernel, options, image = geometry(draw)
    groups = draw(st.sampled_from([1, 1, 2, 3]))
    if depthwise:
        o = groups = c = 1 + size(draw, 33, zero=False)
        cg = 1
    else:
        cg, o = size(draw, 33, zero=False), groups * size(draw, 48, zero=False)
        c = groups * cg
    x = numbers(draw, draw(st.sampled_from([1, 2, 5])), c, *image)
    weight = numbers(draw, o, cg, *kernel)
    return [x, weight, maybe(draw, numbers(draw, o))], options | {"groups": groups}


def _out_size(x: Any, kernel: Any, constants: dict[str, Any]) -> tuple[int, int]:
    s, p, d = (constants[k] for k in ("stride", "padding", "dilation"))
    return output_size("test", x.shape[2], x.shape[3], tuple(kernel), s, p, d)


def conv2d_input_grad(draw: Draw, *, depthwise: bool = False) -> Call:
    [x, weight, _], constants = conv2d(draw, depthwise=depthwise)
    y = numbers(draw, x.shape[0], len(weight), *_out_size(x, weight.shape[2:], constants))
    bias = maybe(draw, numbers(draw, x.shape[1]))
    return [y, weight, bias], constants | {"shape": x.shape}


def conv2d_weight_grad(draw: Draw, *, depthwise: bool = False) -> Call:
    [x, weight, _], constants = conv2d(draw, depthwise=depthwise)
    y = numbers(draw, x.shape[0], len(weight), *_out_size(x, weight.shape[2:], constants))
    return [x, y], constants | {"kernel": weight.shape[2:]}


def max_pool2d(draw: Draw) -> Call:
    kernel, options, image = geometry(draw)
    padding = tuple(min(p, k // 2) for p, k in zip(options["padding"][::2], kernel, strict=True))
    c = size(draw, 33, zero=False)
    x = np.round(2 * numbers(draw, draw(st.integers(1, 2)), c, *image)) / 2  # with equal values
    both = (padding[0], padding[0], padding[1], padding[1])
    out = _out_size(x, kernel, options | {"padding": both})
    return [laid(draw, x)], options | {"padding": padding, "kernel": kernel, "size": out}


def max_unpool(draw: Draw) -> Call:
    from bestiary.core.op import REGISTRY

    [x], constants = max_pool2d(draw)
    largest = laid(draw, REGISTRY["max_pool2d"].body(np, x, **constants))
    del constants["size"]
    return [numbers(draw, *largest.shape), x, largest], constants


# -- weights of few bits, optimizers ---------------------------------------------------------------


def quantized_linear(draw: Draw) -> Call:
    form = draw(st.sampled_from(PACKED))
    outs, features = size(draw, zero=False), draw(st.sampled_from([1, 31, 32, 33, 64, 96, 160]))
    raw = pack(wide(numbers(draw, outs, features)).astype(np.float32), form)
    lead = draw(st.sampled_from([(), (1,), (3,), (2, 2), (5,), (17,)]))
    x = numbers(draw, *lead, features)
    return [x, laid(draw, raw), maybe(draw, numbers(draw, outs))], {
        "form": form,
        "features": features,
    }


def adam(draw: Draw) -> Call:
    sizes = [size(draw, zero=False) for _ in range(draw(st.integers(1, 3)))]
    if not draw(st.integers(0, 5)):
        sizes.append(20_001)
    total = sum(sizes)
    state = [in_layout(np.abs(numbers(draw, total)), "C") for _ in range(4)]
    if draw(st.booleans()):
        state[3] = None
    scalars = np.array([0.01, 0.9, 0.99, 1e-8, draw(st.sampled_from([0.0, 0.1]))])
    grads = [numbers(draw, n) for n in sizes]
    return [None, *state, np.array(3.0), scalars, *grads], {
        "maximize": draw(st.booleans()),
        "decoupled": draw(st.booleans()),
    }


GELU = {"approximate": ("none", "tanh")}

CASES = [
    Case("relu", unary, ("relu",)),
    Case("relu_backward", slope, ("relu_backward",)),
    Case("sigmoid", unary, ("sigmoid",)),
    Case("hardswish", unary, ("hardswish",)),
    Case("hardswish_backward", slope, ("hardswish_backward",)),
    Case("hardtanh", with_constants(unary, low=(-1.0,), high=(2.0,)), ("hardtanh",)),
    Case("hardtanh_backward", limited, ("hardtanh_backward",)),
    Case("erf", unary, ("erf",)),
    Case("silu", unary, ("silu",)),
    Case("silu_backward", slope, ("silu_backward",)),
    Case("gelu", with_constants(unary, **GELU), ("gelu", "gelu_tanh")),
    Case("gelu_backward", with_constants(slope, **GELU), ("gelu_backward", "gelu_tanh_backward")),
    Case("softmax", rows, ("softmax",)),
    Case("softmax_backward", of_softmax, ("softmax_backward",)),
    Case("log_softmax", rows, ("log_softmax",)),
    Case("log_softmax_backward", of_log_softmax, ("log_softmax_backward",)),
    Case("layer_norm", layer_norm, ("layer_norm",)),
    Case(
        "layer_norm_backward",
        lambda draw: row_norm_backward(draw, centred=True),
        ("layer_norm_backward", "layer_norm_sums"),
    ),
    Case("rms_norm", row_norm, ("layer_norm",)),
    Case(
        "rms_norm_backward",
        lambda draw: row_norm_backward(draw, centred=False),
        ("layer_norm_backward", "layer_norm_sums"),
    ),
    Case("batch_norm_stats", lambda draw: ([channels(draw)], {}), ("channel_stats",)),
    Case("batch_norm", batch_norm, ("channel_affine",)),
    Case("batch_norm_inference", batch_norm_inference, ("channel_affine",)),
    Case("batch_norm_backward", batch_norm_backward, ("batch_norm_backward", "channel_sums")),
    Case("channel_sum", summed, ("column_sum",)),
    Case("channel_sums", two_sums, ("channel_sums",)),
    Case("scale_channels", scaled, ("channel_affine",)),
    Case("group_norm", group_norm, ("channel_stats", "channel_affine")),
    Case("group_norm_backward", group_norm_backward, ("channel_sums", "channel_affine")),
    Case("attention", attention, ("attention", "softmax")),
    Case("attention_backward", attention_backward, ("softmax", "softmax_backward")),
    Case("cross_entropy", cross_entropy, ("cross_entropy",)),
    Case("cross_entropy_backward", cross_entropy_backward, ("cross_entropy_backward",)),
    Case("conv2d", conv2d, ("conv", "conv_pack", "im2col")),
    Case("conv2d", partial(conv2d, depthwise=True), ("depthwise",)),
    Case("conv2d_input_grad", conv2d_input_grad, ("conv", "conv_pack", "col2im")),
    Case(
        "conv2d_input_grad", partial(conv2d_input_grad, depthwise=True), ("depthwise_input_grad",)
    ),
    Case("conv2d_weight_grad", conv2d_weight_grad, ("conv_weight_grad",)),
    Case(
        "conv2d_weight_grad",
        partial(conv2d_weight_grad, depthwise=True),
        ("depthwise_weight_grad",),
    ),
    Case("max_pool2d", max_pool2d, ("max_pool",)),
    Case("max_unpool", max_unpool, ("max_pool_backward",)),
    Case("quantized_linear", quantized_linear, tuple(f"product_{form}" for form in PACKED), 1e-4),
    Case("adam_update", adam, ("adam",)),
]
