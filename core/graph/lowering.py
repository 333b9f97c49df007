"""What a call of a graph becomes in a program: a function on arrays.

Most calls run the kernel of their operation at once, without what `Op.__call__` does before and
after it, since shapes and dtypes are known. Products whose weights are constant are packed ahead.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from .. import native
from ..dtypes import HALVES, bool_, float32, int64
from ..op import REGISTRY
from ..operands import as_array
from ..ops import native_attention, native_norms, normalization
from ..ops.native_conv import (
    depthwise_taps,
    flat,
    is_depthwise,
    nchw,
    nhwc,
    packed,
    transformed,
    winograd_tile,
)
from ..state import watch
from ..tensor import Tensor
from . import products
from .passes.constants import written
from .record import Call, Graph, Ref

Run = Callable[..., Any]
Lowered = tuple[Run, tuple[Any, ...]]
_MOST_TAPS = 64


class Whole(NamedTuple):
    """What is known of a graph as a whole: asked once, not for each call.

    Attributes:
        without_blas: products are those of the kernels here.
        changing: external values that are no constants.
        uses: how often each value is used.
    """

    without_blas: bool
    changing: set[int]
    uses: Counter[int]

    @classmethod
    def of(cls, graph: Graph) -> Whole:
        return cls(products.without_blas(graph), written(graph), graph.uses())


def lowered(graph: Graph, call: Call, whole: Whole) -> Lowered:
    """The function of a call, and the operands that it takes."""
    if call.op.name == "chain":
        return _chain(call), call.operands
    special, floats, weights = _SPECIAL.get(call.op.name, (None, 0, False))
    if special is not None and native.available() and _all_float32(graph, call, floats):
        plain = not weights or _constant_weights(graph, call, whole)
        found = special(graph, call, whole) if plain else None
        if found is not None:
            return found
    op = call.op
    if op.name == "channel_sum" and _small_matrix(graph, call):
        # As the body has it, which comes last: after the kernel that leaves small ones.
        return partial(np.add.reduce, axis=1 - call.constants["axis"] % 2), call.operands
    if _direct(graph, call):
        run: Run = partial(op._cpu, **call.constants) if call.constants else op._cpu
        bare = any(r is not None and graph.kinds[r.index][0] == () for r in call.results)
        run = _wrapping(run) if bare else run
        return (_writing(run) if op.writes else run), call.operands
    tensors = tuple(isinstance(x, Ref) for x in call.operands)

    def through_tensors(*operands: Any) -> Any:
        """By the choke point: other dtypes, numbers that are promoted, writing in place."""
        given = [Tensor(x) if t else x for x, t in zip(operands, tensors, strict=True)]
        out = op(*given, **call.constants)
        if isinstance(out, tuple):
            return tuple(None if x is None else x.array for x in out)
        return None if out is None else out.array

    return through_tensors, call.operands


def _wrapping(run: Run) -> Run:
    """With results that are arrays, where NumPy gives bare numbers."""

    def wrapped(*arrays: Any) -> Any:
        out = run(*arrays)
        if isinstance(out, tuple):
            return tuple(None if x is None else as_array(x) for x in out)
        return as_array(out)

    return wrapped


def _direct(graph: Graph, call: Call) -> bool:
    """Whether the choke point would prepare nothing: it would hand over the arrays as they are."""
    op, floats = call.op, False
    as_they_are = not (op.promote or op.to_float or op.same_float)
    ids = op.same_float and not (op.promote or op.to_float)  # after the first operand
    for i, x in enumerate(call.operands):
        if isinstance(x, Ref):
            dtype = graph.kinds[x.index][1]
            if dtype == float32 or (as_they_are and (op.raw or dtype not in HALVES)):
                floats = True
            elif not (dtype == bool_ or (ids and i and dtype.kind in "iu")):
                return False
        elif not (x is None or type(x) in (int, float)):
            return False
    return floats or op._plain


def _small_matrix(graph: Graph, call: Call) -> bool:
    x = call.operands[0]
    if not isinstance(x, Ref):
        return False
    shape, dtype = graph.kinds[x.index]
    return len(shape) == 2 and dtype == float32 and math.prod(shape) <= normalization.SMALL


def _chain(call: Call) -> Run:
    """Elementwise operations in one pass, if the kernels are there; with bare results for one."""
    if native.available():
        return native.Chain(
            call.constants["steps"], call.constants["wanted"], call.constants["shape"]
        )
    run: Run = partial(call.op._cpu, **call.constants)
    return run if len(call.results) > 1 else lambda *arrays: run(*arrays)[0]


def _writing(run: Run) -> Run:
    """With notice to whoever keeps something that was derived from the memory that changes."""

    def writing(*arrays: Any) -> Any:
        watch.writes += 1
        return run(*arrays)

    return writing


# -- products with constant weights ------------------------------------------------------------


def _constant_weights(graph: Graph, call: Call, whole: Whole) -> bool:
    for x in call.operands[1:3]:
        if x is not None and not (
            isinstance(x, Ref) and x.index in graph.external and x.index not in whole.changing
        ):
            return False
    return True


def _all_float32(graph: Graph, call: Call, first: int) -> bool:
    return all(
        graph.kinds[x.index][1] == float32 and 0 not in graph.kinds[x.index][0]
        for x in call.operands[:first]
        if isinstance(x, Ref)
    )


def _ending(call: Call) -> tuple[native.Clamp, str | None] | None:
    """The clamp and the activation of a call; None if the kernels have no such activation."""
    activation = call.constants.get("activation")
    if activation is None:
        return native.NO_CLAMP, None
    name, constants = activation[0], dict(activation[1])
    if name == "relu":
        return native.RELU, None
    if name == "hardtanh":
        return (constants["low"], constants["high"]), None
    if name == "gelu":
        return native.NO_CLAMP, "gelu" if constants["approximate"] == "none" else "gelu_tanh"
    return (native.NO_CLAMP, name) if name in native.ACTIVATIONS else None


def _conv2d(graph: Graph, call: Call, whole: Whole) -> Lowered | None:
    x, weight, bias, *rest = call.operands
    ending, add = _ending(call), rest[0] if rest else None
    if not isinstance(x, Ref) or ending is None:
        return None
    clamp, activation = ending
    place: Any = {k: call.constants[k] for k in ("stride", "padding", "dilation")}
    groups = call.constants["groups"]
    w = graph.external[weight.index]
    b = None if bias is None else flat(graph.external[bias.index])
    n, c, height, width = graph.kinds[x.index][0]
    if is_depthwise(w, groups):
        if max(w.shape[2:]) > _MOST_TAPS:
            return None
        taps = depthwise_taps(w)
        inner = native.NO_CLAMP if add is not None else clamp

        def depthwise(x: Any, add: Any = None) -> Any:
            out = native.depthwise_conv2d(nhwc(x), taps, b, **place, clamp=inner)
            if add is not None or activation is not None:
                other = None if add is None else nhwc(add)
                native.finish(out, None, other, activation=activation, clamp=clamp)
            return nchw(out)

        return depthwise, (x,) if add is None else (x, add)
    run: native.Convolution | native.WinogradConvolution
    if tile := winograd_tile((n, c, height, width), w, **place, groups=groups):
        run = native.WinogradConvolution(
            (n, height, width, c), transformed(w, tile), padding=place["padding"], clamp=clamp
        )
    else:
        run = native.Convolution(
            (n, height, width, c), packed(w, groups, keep=True), **place, clamp=clamp
        )

    def conv2d(x: Any, add: Any = None) -> Any:
        out = run(nhwc(x), b, None if add is None else nhwc(add))
        if activation is not None:
            native.finish(out, activation=activation)
        return nchw(out)

    return conv2d, (x,) if add is None else (x, add)


def _linear(graph: Graph, call: Call, whole: Whole) -> Lowered | None:
    x, weight, bias, *rest = call.operands
    ending, add = _ending(call), rest[0] if rest else None
    if not isinstance(x, Ref) or ending is None:
        return None
    clamp, activation = ending
    w = graph.external[weight.index]
    b = None if bias is None else flat(graph.external[bias.index])
    turned, outputs, features = w.T, w.shape[0], w.shape[1]
    shape = (*graph.kinds[x.index][0][:-1], outputs)
    if whole.without_blas:
        run = products.linear(w, b, shape, clamp, activation)
        return run, (x,) if add is None else (x, add)
    bare = b is None and add is None and activation is None and clamp == native.NO_CLAMP

    def linear(x: Any, add: Any = None) -> Any:
        out = np.matmul(x.reshape(-1, features), turned)
        if not bare:
            other = None if add is None else np.ascontiguousarray(add).reshape(out.shape)
            native.finish(out, b, other, activation=activation, clamp=clamp)
        return out.reshape(shape)

    return linear, (x,) if add is None else (x, add)


def _attention(graph: Graph, call: Call, whole: Whole) -> Lowered | None:
    *_, mask, key = call.operands
    used = call.results[1] is not None and whole.uses[call.results[1].index]
    if used or key is not None:
        return None
    options: Any = {name: call.constants[name] for name in ("scale", "causal")}
    general = partial(call.op._cpu, **call.constants)

    def attention(q: Any, k: Any, v: Any, mask: Any = None) -> Any:
        out = native_attention.attention(q, k, v, mask, **options, lse=False)
        return general(q, k, v, mask, None) if out is NotImplemented else out

    return attention, call.operands[: 3 if mask is None else 4]


def _group_norm(graph: Graph, call: Call, whole: Whole) -> Lowered | None:
    x, weight, bias = call.operands
    ending = _ending(call)
    if not isinstance(x, Ref) or x.index in graph.external:
        return None
    w, b = (None if v is None else graph.external[v.index] for v in (weight, bias))
    options = {key: call.constants[key] for key in ("groups", "eps")}
    name, constants = call.constants["activation"]
    norm, activate = REGISTRY["group_norm"]._cpu, partial(REGISTRY[name]._cpu, **dict(constants))

    def one_by_one(x: Any) -> Any:
        return activate(norm(x, w, b, **options)[0])

    def group_norm(x: Any) -> Any:
        if ending is None:
            return one_by_one(x)
        end: Any = {"clamp": ending[0], "activation": ending[1]}
        out = native_norms.group_norm_then(x, w, b, **options, **end)
        return one_by_one(x) if out is NotImplemented else out[0]

    return group_norm, (x,)


def _usual_classes(graph: Graph, call: Call, x: Any, ids: Any, weight: Any) -> bool:
    """Whether it is a loss of all rows of a matrix, by class ids."""
    if not isinstance(x, Ref) or not isinstance(ids, Ref) or weight is not None:
        return False
    options, shape, (places, dtype) = (
        call.constants,
        graph.kinds[x.index][0],
        graph.kinds[ids.index],
    )
    usual = options["reduction"] == "mean" and not options["smoothing"]
    fits = len(shape) == 2 and places == shape[:1] and dtype == int64
    return usual and fits and options["ignore_index"] < 0


def _cross_entropy(graph: Graph, call: Call, whole: Whole) -> Lowered | None:
    x, ids, weight = call.operands
    if not _usual_classes(graph, call, x, ids, weight):
        return None
    rows, classes = graph.kinds[x.index][0]
    general, count = _wrapping(partial(call.op._cpu, **call.constants)), np.float32(rows)

    def cross_entropy(x: Any, ids: Any) -> tuple[Any, Any]:
        if not _classes_fit(x, ids, classes):
            return general(x, ids, None)  # type: ignore[no-any-return]
        loss, lse = native.cross_entropy(x, ids)
        return as_array(np.add.reduce(loss) / count), lse

    return cross_entropy, (x, ids)


def _cross_entropy_backward(graph: Graph, call: Call, whole: Whole) -> Lowered | None:
    g, x, ids, weight, lse = call.operands
    if not _usual_classes(graph, call, x, ids, weight):
        return None
    rows, classes = graph.kinds[x.index][0]
    general = partial(call.op._cpu, **call.constants)

    def cross_entropy_backward(g: Any, x: Any, ids: Any, lse: Any) -> Any:
        if not _classes_fit(x, ids, classes):
            return general(g, x, ids, None, lse)
        return native.cross_entropy_backward(x, ids, lse, g.item() / rows)

    return cross_entropy_backward, (g, x, ids, lse)


def _classes_fit(x: Any, ids: Any, classes: int) -> bool:
    """Whether the kernels take it; an id below 0 is a very large one without its sign."""
    plain = x.flags.c_contiguous and ids.flags.c_contiguous
    return bool(plain and _maximum(ids.view(np.uint64)) < classes)


_maximum = np.maximum.reduce

# Operation -> what makes its function, how many of its operands have to be float32, and whether
# the second and third have to be constant.
_SPECIAL: dict[str, tuple[Callable[[Graph, Call, Whole], Lowered | None], int, bool]] = {
    "attention": (_attention, 3, False),
    "conv2d": (_conv2d, 3, True),
    "conv2d_fused": (_conv2d, 4, True),
    "cross_entropy": (_cross_entropy, 1, False),
    "cross_entropy_backward": (_cross_entropy_backward, 2, False),
    "group_norm_fused": (_group_norm, 3, True),
    "linear": (_linear, 3, True),
    "linear_fused": (_linear, 4, True),
}
