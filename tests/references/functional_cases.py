"""The cases of functional.py, as expressions: read by the script that needs torch and by the test.

Each is a function of F (torch's functions behind our spelling, or ours) and of its inputs, with
the inputs' shapes. A shape may have a kind before it: "p" numbers between 0 and 1, "+" positive
ones, "c" constants without a gradient, "b" 0 or 1, "i5" whole numbers below 5, "mask" booleans;
the last four have no gradient.

Inputs come from NumPy's legacy generator, whose stream is frozen: they need not be stored.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Any

import numpy as np

Case = tuple[Callable[..., Any], list[Any]]

_X = (2, 3, 4)
_MAP = (2, 4, 6, 5)
CASES: dict[str, Case] = {}


def case(name: str, function: Callable[..., Any], *shapes: Any) -> None:
    assert name not in CASES
    CASES[name] = (function, list(shapes))


def inputs(name: str) -> list[tuple[np.ndarray, bool]]:
    """The inputs of a case, in float64, and whether each has a gradient."""
    rng = np.random.RandomState(zlib.crc32(name.encode()) % 2**31)
    found = []
    for spec in CASES[name][1]:
        kind, shape = spec if spec and isinstance(spec[0], str) else ("f", spec)
        if kind == "p":
            found.append((rng.uniform(0.05, 0.95, shape), True))
        elif kind == "+":
            found.append((rng.uniform(0.3, 2.0, shape), True))
        elif kind == "c":
            found.append((rng.uniform(0.3, 2.0, shape), False))
        elif kind == "b":
            found.append((rng.randint(0, 2, shape).astype(float), False))
        elif kind == "mask":
            mask = rng.uniform(0, 1, shape) < 0.7
            mask[..., 0] = True
            found.append((mask, False))
        elif kind[0] == "i":
            found.append((rng.randint(0, int(kind[1:]), shape), False))
        else:
            found.append((rng.standard_normal(shape) * 1.5, True))
    return found


def cotangents(name: str, shapes: list[tuple[int, ...]]) -> list[np.ndarray]:
    """Fixed random numbers of some shapes: the gradients that are sent back."""
    rng = np.random.RandomState(zlib.crc32((name + "/g").encode()) % 2**31)
    return [np.asarray(rng.standard_normal(shape)) for shape in shapes]


# -- linear and activations --------------------------------------------------------------------

case("linear", lambda F, x, w, b: F.linear(x, w, b), (2, 3, 4), (5, 4), (5,))
case("linear_plain", lambda F, x, w: F.linear(x, w), (3, 4), (5, 4))
case("linear_vector", lambda F, x, w, b: F.linear(x, w, b), (4,), (5, 4), (5,))
for _name in (
    "celu elu erf gelu hardsigmoid hardswish hardtanh leaky_relu log_sigmoid mish relu relu6 selu "
    "sigmoid silu softplus softsign tanh"
).split():
    case(_name, lambda F, x, n=_name: getattr(F, n)(x), _X)
case("celu_alpha", lambda F, x: F.celu(x, 0.5), _X)
case("elu_alpha", lambda F, x: F.elu(x, 0.5), _X)
case("gelu_tanh", lambda F, x: F.gelu(x, approximate="tanh"), _X)
case("hardtanh_limits", lambda F, x: F.hardtanh(x, -0.5, 2.0), _X)
case("leaky_relu_slope", lambda F, x: F.leaky_relu(x, 0.3), _X)
case("leaky_relu_steep", lambda F, x: F.leaky_relu(x, 1.5), _X)
case("leaky_relu_negative", lambda F, x: F.leaky_relu(x, -0.3), _X)
case("softplus_beta", lambda F, x: F.softplus(x, 2.0), _X)
case("quick_gelu", lambda F, x: F.quick_gelu(x), _X)
case("glu", lambda F, x: F.glu(x), _X)
case("glu_axis", lambda F, x: F.glu(x, axis=0), _X)
case("prelu", lambda F, x, w: F.prelu(x, w), _X, (3,))
case("prelu_single", lambda F, x, w: F.prelu(x, w), _X, (1,))
for _name in ("softmax", "log_softmax", "softmin"):
    case(_name, lambda F, x, n=_name: getattr(F, n)(x, axis=-1), _X)
    case(_name + "_axis", lambda F, x, n=_name: getattr(F, n)(x, axis=1), _X)
case("logsumexp", lambda F, x: F.logsumexp(x, axis=-1), _X)
case("logsumexp_axes", lambda F, x: F.logsumexp(x, axis=(0, 2), keepdims=True), _X)

# -- normalisation -----------------------------------------------------------------------------

for _label, _shape in (("2d", (5, 4)), ("3d", (2, 4, 5)), ("4d", (2, 4, 3, 2))):
    case(
        f"batch_norm_{_label}",
        lambda F, x, w, b: F.batch_norm(x, None, None, w, b, True),
        *(_shape, (4,), (4,)),
    )
    case(
        f"batch_norm_eval_{_label}",
        lambda F, x, m, v, w, b: F.batch_norm(x, m, v, w, b, False, eps=1e-3),
        *(_shape, ("c", (4,)), ("c", (4,)), (4,), (4,)),
    )
    case(
        f"group_norm_{_label}",
        lambda F, x, w, b: F.group_norm(x, 2, w, b),
        *(_shape, (4,), (4,)),
    )
case("batch_norm_plain", lambda F, x: F.batch_norm(x, None, None, training=True), (2, 4, 3))
case("group_norm_plain", lambda F, x: F.group_norm(x, 1), (2, 4, 3))
case("instance_norm", lambda F, x, w, b: F.instance_norm(x, None, None, w, b), _MAP, (4,), (4,))
case(
    "instance_norm_running",
    lambda F, x, m, v: F.instance_norm(x, m, v, use_input_stats=False),
    *(_MAP, ("c", (4,)), ("c", (4,))),
)
case("layer_norm", lambda F, x, w, b: F.layer_norm(x, (4,), w, b), _X, (4,), (4,))
case("layer_norm_axes", lambda F, x, w, b: F.layer_norm(x, (3, 4), w, b), _X, (3, 4), (3, 4))
case("layer_norm_plain", lambda F, x: F.layer_norm(x, (4,)), _X)
case("rms_norm", lambda F, x, w: F.rms_norm(x, (4,), w), _X, (4,))
case("rms_norm_plain", lambda F, x: F.rms_norm(x, (3, 4), eps=1e-3), _X)
case("normalize", lambda F, x: F.normalize(x), _X)
case("normalize_p1", lambda F, x: F.normalize(x, 1.0, axis=-1), _X)
case("normalize_p3", lambda F, x: F.normalize(x, 3.0, axis=0), _X)

# -- convolution -------------------------------------------------------------------------------

for _label, _c, _o, _k, _options in (
    ("pointwise", 4, 6, (1, 1), {}),
    ("pointwise_stride", 4, 6, (1, 1), {"stride": 2}),
    ("3x3", 4, 6, (3, 3), {"padding": 1}),
    ("stride", 4, 6, (3, 2), {"stride": 2, "padding": (1, 0)}),
    ("dilation", 4, 6, (3, 2), {"stride": (1, 2), "padding": 2, "dilation": 2}),
    ("groups", 4, 6, (3, 3), {"groups": 2, "padding": 1}),
    ("depthwise", 4, 4, (3, 3), {"groups": 4, "padding": 1, "stride": 2}),
    ("multiplier", 4, 8, (3, 2), {"groups": 4, "padding": 1}),
    ("same", 4, 3, (4, 3), {"padding": "same", "dilation": 2}),
    ("valid", 4, 3, (2, 2), {"padding": "valid"}),
):
    case(
        f"conv2d_{_label}",
        lambda F, x, w, b, options=_options: F.conv2d(x, w, b, **options),
        *(_MAP, (_o, _c // _options.get("groups", 1), *_k), (_o,)),
    )
case(
    "conv2d_channels",
    lambda F, x, w, b: F.conv2d(x, w, b, 2, 1),
    *((1, 18, 5, 4), (3, 18, 3, 3), (3,)),
)
case(
    "conv2d_asymmetric",
    lambda F, x, w: F.conv2d(x, w, None, 2, ((0, 1), (2, 1))),
    *(_MAP, (3, 4, 3, 3)),
)
case(
    "conv1d",
    lambda F, x, w, b: F.conv1d(x, w, b, 2, 1, 2, 2),
    *((2, 4, 9), (6, 2, 3), (6,)),
)
case("conv1d_same", lambda F, x, w: F.conv1d(x, w, padding="same"), (2, 4, 7), (3, 4, 4))
for _label, _options in (
    ("plain", {}),
    ("stride", {"stride": 2, "padding": 1}),
    ("output", {"stride": (2, 3), "padding": 1, "output_padding": (1, 2)}),
    ("dilation", {"stride": 1, "padding": 1, "output_padding": 1, "dilation": 2}),
    ("groups", {"stride": 2, "groups": 2}),
):
    case(
        f"conv_transpose2d_{_label}",
        lambda F, x, w, b, options=_options: F.conv_transpose2d(x, w, b, **options),
        *((2, 4, 3, 4), (4, 6 // _options.get("groups", 1), 3, 2), (6,)),
    )
case(
    "conv_transpose2d_depthwise",
    lambda F, x, w: F.conv_transpose2d(x, w, None, 2, 1, 1, 4),
    *((2, 4, 3, 3), (4, 1, 3, 3)),
)
case(
    "conv_transpose1d",
    lambda F, x, w, b: F.conv_transpose1d(x, w, b, 2, 1, 1, 2),
    *((2, 4, 5), (4, 3, 3), (6,)),
)

# -- pooling and resampling --------------------------------------------------------------------

for _label, _arguments in (
    ("plain", (2,)),
    ("padded", (3, 2, 1)),
    ("ceil", ((3, 2), 2, (1, 0))),
):
    _extra = {"ceil_mode": True} if _label == "ceil" else {}
    case(
        f"max_pool2d_{_label}",
        lambda F, x, a=_arguments, e=_extra: F.max_pool2d(x, *a, **e),
        _MAP,
    )
    for _include in (True, False):
        case(
            f"avg_pool2d_{_label}_{_include}".lower(),
            lambda F, x, a=_arguments, e=_extra, i=_include: F.avg_pool2d(
                x, *a, count_include_pad=i, **e
            ),
            _MAP,
        )
case("max_pool2d_dilation", lambda F, x: F.max_pool2d(x, 2, 1, 0, 2), _MAP)
case("max_pool1d", lambda F, x: F.max_pool1d(x, 3, 2, 1), (2, 3, 9))
case("avg_pool1d", lambda F, x: F.avg_pool1d(x, 3, 2, 1), (2, 3, 9))
for _size in ((1, 1), (4, 3), (2, 5)):
    for _name in ("adaptive_avg_pool2d", "adaptive_max_pool2d"):
        case(
            f"{_name}_{_size[0]}x{_size[1]}",
            lambda F, x, n=_name, s=_size: getattr(F, n)(x, s),
            _MAP,
        )
case("adaptive_avg_pool1d", lambda F, x: F.adaptive_avg_pool1d(x, 4), (2, 3, 9))
case("adaptive_max_pool1d", lambda F, x: F.adaptive_max_pool1d(x, 4), (2, 3, 9))
for _mode in ("nearest", "nearest-exact", "bilinear", "bicubic", "area"):
    for _label, _options in (
        ("up", {"size": (9, 8)}),
        ("down", {"size": (4, 3)}),
        ("factor", {"scale_factor": 1.6}),
    ):
        case(
            f"interpolate_{_mode}_{_label}",
            lambda F, x, m=_mode, o=_options: F.interpolate(x, mode=m, **o),
            (2, 2, 6, 5),
        )
    if _mode in ("bilinear", "bicubic"):
        case(
            f"interpolate_{_mode}_aligned",
            lambda F, x, m=_mode: F.interpolate(x, (9, 3), mode=m, align_corners=True),
            (2, 2, 6, 5),
        )
case("interpolate_linear", lambda F, x: F.interpolate(x, 11, mode="linear"), (2, 3, 7))
for _mode, _widths in (
    ("constant", (1, 2, 0, 3)),
    ("reflect", (1, 2, 3, 0)),
    ("replicate", (1, 2, 3, 4)),
    ("circular", (1, 2, 3, 0)),
):
    case(f"pad_{_mode}", lambda F, x, m=_mode, w=_widths: F.pad(x, w, m), (2, 2, 6, 5))
case("pad_cut", lambda F, x: F.pad(x, (-1, 2, 1, -2), value=3.0), (2, 2, 6, 5))
case("unfold", lambda F, x: F.unfold(x, (2, 3), 2, 1, 2), (2, 2, 6, 7))
case("fold", lambda F, x: F.fold(x, (6, 5), (2, 3), 1, 1, 2), (2, 12, 12))
case("pixel_shuffle", lambda F, x: F.pixel_shuffle(x, 2), (2, 8, 3, 2))
case("pixel_unshuffle", lambda F, x: F.pixel_unshuffle(x, 2), (2, 2, 4, 6))
for _outside in ("zeros", "border", "reflection"):
    for _align in (False, True):
        case(
            f"grid_sample_{_outside}_{_align}".lower(),
            lambda F, x, g, o=_outside, a=_align: F.grid_sample(x, g, "bilinear", o, a),
            *((2, 2, 4, 5), (2, 3, 4, 2)),
        )
    case(
        f"grid_sample_nearest_{_outside}",
        lambda F, x, g, o=_outside: F.grid_sample(x, g, "nearest", o, False),
        *((2, 2, 4, 5), ("c", (2, 3, 4, 2))),
    )
case("affine_grid", lambda F, t: F.affine_grid(t, (2, 3, 4, 5), False), (2, 2, 3))
case("affine_grid_aligned", lambda F, t: F.affine_grid(t, (2, 3, 4, 5), True), (2, 2, 3))

# -- attention and embedding -------------------------------------------------------------------

_Q, _K, _V = (2, 3, 4, 5), (2, 3, 6, 5), (2, 3, 6, 7)
case("attention", lambda F, *a: F.scaled_dot_product_attention(*a), _Q, _K, _V)
case(
    "attention_single",
    lambda F, *a: F.scaled_dot_product_attention(*a, scale=0.7),
    *((4, 5), (6, 5), (6, 7)),
)
case(
    "attention_causal",
    lambda F, *a: F.scaled_dot_product_attention(*a, is_causal=True),
    *(_Q, _K, _V),
)
case(
    "attention_causal_long",
    lambda F, *a: F.scaled_dot_product_attention(*a, is_causal=True),
    *((1, 2, 7, 3), (1, 2, 4, 3), (1, 2, 4, 3)),
)
case(
    "attention_boolean",
    lambda F, *a: F.scaled_dot_product_attention(*a),
    *(_Q, _K, _V, ("mask", (2, 1, 4, 6))),
)
case("attention_added", lambda F, *a: F.scaled_dot_product_attention(*a), _Q, _K, _V, (3, 4, 6))
case("attention_keys", lambda F, *a: F.scaled_dot_product_attention(*a), _Q, _K, _V, (2, 1, 1, 6))
case(
    "attention_shared_heads",
    lambda F, *a: F.scaled_dot_product_attention(*a, enable_gqa=True),
    *((2, 6, 4, 5), (2, 2, 6, 5), (2, 2, 6, 7), (1, 6, 4, 6)),
)
case(
    "attention_shared_heads_causal",
    lambda F, *a: F.scaled_dot_product_attention(*a, is_causal=True, enable_gqa=True),
    *((2, 6, 5, 3), (2, 2, 5, 3), (2, 2, 5, 3)),
)
case("embedding", lambda F, i, w: F.embedding(i, w), ("i7", (3, 4)), (7, 3))
case("embedding_padding", lambda F, i, w: F.embedding(i, w, 2), ("i7", (3, 4)), (7, 3))

# -- losses ------------------------------------------------------------------------------------

for _reduction in ("mean", "sum", "none"):
    for _smoothing in (0.0, 0.1):
        _tag = f"{_reduction}{'_smooth' if _smoothing else ''}"
        case(
            f"cross_entropy_{_tag}",
            lambda F, x, t, r=_reduction, s=_smoothing: F.cross_entropy(
                x, t, ignore_index=1, reduction=r, label_smoothing=s
            ),
            *((6, 4), ("i4", (6,))),
        )
        case(
            f"cross_entropy_weight_{_tag}",
            lambda F, x, t, w, r=_reduction, s=_smoothing: F.cross_entropy(
                x, t, w, reduction=r, label_smoothing=s
            ),
            *((2, 4, 3, 2), ("i4", (2, 3, 2)), ("c", (4,))),
        )
    case(
        f"cross_entropy_soft_{_reduction}",
        lambda F, x, t, r=_reduction: F.cross_entropy(x, t, reduction=r, label_smoothing=0.1),
        *((3, 4), ("p", (3, 4))),
    )
    case(
        f"nll_loss_{_reduction}",
        lambda F, x, t, w, r=_reduction: F.nll_loss(x, t, w, ignore_index=2, reduction=r),
        *((2, 4, 3), ("i4", (2, 3)), ("c", (4,))),
    )
    for _name in ("mse_loss", "l1_loss", "huber_loss", "smooth_l1_loss"):
        case(
            f"{_name}_{_reduction}",
            lambda F, x, y, n=_name, r=_reduction: getattr(F, n)(x, y, reduction=r),
            *(_X, _X),
        )
    case(
        f"binary_cross_entropy_{_reduction}",
        lambda F, x, y, w, r=_reduction: F.binary_cross_entropy(x, y, w, reduction=r),
        *(("p", (3, 4)), ("p", (3, 4)), ("c", (4,))),
    )
    case(
        f"binary_cross_entropy_with_logits_{_reduction}",
        lambda F, x, y, w, r=_reduction: F.binary_cross_entropy_with_logits(
            x, y, reduction=r, pos_weight=w
        ),
        *((3, 4), ("p", (3, 4)), ("c", (4,))),
    )
    case(
        f"kl_div_{_reduction}",
        lambda F, x, y, r=_reduction: F.kl_div(x, y, reduction=r),
        *((3, 4), ("p", (3, 4))),
    )
    case(
        f"ctc_loss_{_reduction}",
        lambda F, x, t, r=_reduction: F.ctc_loss(
            F.log_softmax(x, axis=-1), t + 1, (7, 6, 4), (3, 2, 1), reduction=r
        ),
        *((7, 3, 5), ("i4", (3, 3))),
    )
case("huber_loss_delta", lambda F, x, y: F.huber_loss(x, y, delta=0.5), _X, _X)
case("smooth_l1_loss_beta", lambda F, x, y: F.smooth_l1_loss(x, y, beta=0.5), _X, _X)
case("kl_div_logs", lambda F, x, y: F.kl_div(x, y, reduction="batchmean", log_target=True), _X, _X)
case("sigmoid_focal_loss", lambda F, x, y: F.sigmoid_focal_loss(x, y), _X, ("b", _X))
case("cosine_similarity", lambda F, x, y: F.cosine_similarity(x, y), _X, _X)
case("cosine_similarity_axis", lambda F, x, y: F.cosine_similarity(x, y, axis=-1), _X, _X)
case("pairwise_distance", lambda F, x, y: F.pairwise_distance(x, y), (4, 3), (4, 3))
case(
    "cosine_embedding_loss",
    lambda F, x, y, t: F.cosine_embedding_loss(x, y, t * 2 - 1, 0.1),
    *((5, 3), (5, 3), ("b", (5,))),
)
for _swap in (False, True):
    case(
        f"triplet_margin_loss{'_swap' if _swap else ''}",
        lambda F, x, y, z, s=_swap: F.triplet_margin_loss(x, y, z, swap=s),
        *((5, 3), (5, 3), (5, 3)),
    )
case("info_nce", lambda F, x, y: F.info_nce(x, y, 0.2), (4, 3), (4, 3))
case("info_nce_symmetric", lambda F, x, y: F.info_nce(x, y, 0.2, symmetric=True), (4, 3), (4, 3))
