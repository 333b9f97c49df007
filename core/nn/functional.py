"""Functions of neural networks, with the names of torch.nn.functional and `axis` for `dim`.

Each is defined beside its primitives in core/ops; this is the list of them.
"""

from __future__ import annotations

from ..ops import native_kernels as _native_kernels  # noqa: F401  (registers them)
from ..ops.activation import (
    celu,
    elu,
    glu,
    hardsigmoid,
    hardswish,
    hardtanh,
    leaky_relu,
    log_sigmoid,
    mish,
    prelu,
    quick_gelu,
    relu,
    relu6,
    selu,
    sigmoid,
    silu,
    softplus,
    softsign,
)
from ..ops.attention import scaled_dot_product_attention
from ..ops.classes import nll_loss, one_hot
from ..ops.classification import cross_entropy
from ..ops.convolution import conv1d, conv2d, conv_transpose1d, conv_transpose2d
from ..ops.ctc import ctc_loss
from ..ops.distance import (
    cosine_embedding_loss,
    cosine_similarity,
    info_nce,
    normalize,
    pairwise_distance,
    triplet_margin_loss,
)
from ..ops.dropout import drop_path, dropout, dropout1d, dropout2d
from ..ops.embedding import embedding
from ..ops.gelu import erf, gelu
from ..ops.groupnorm import group_norm, instance_norm
from ..ops.linear import linear
from ..ops.loss import (
    binary_cross_entropy,
    binary_cross_entropy_with_logits,
    huber_loss,
    kl_div,
    l1_loss,
    mse_loss,
    sigmoid_focal_loss,
    smooth_l1_loss,
)
from ..ops.normalization import batch_norm
from ..ops.padding import pad_last_axes as pad
from ..ops.patches import fold, unfold
from ..ops.pooling import (
    adaptive_avg_pool1d,
    adaptive_avg_pool2d,
    adaptive_max_pool1d,
    adaptive_max_pool2d,
    avg_pool1d,
    avg_pool2d,
    max_pool1d,
    max_pool2d,
)
from ..ops.quantized import quantized_embedding, quantized_linear
from ..ops.resampling import interpolate, pixel_shuffle, pixel_unshuffle
from ..ops.roi import roi_align
from ..ops.rownorm import layer_norm, rms_norm
from ..ops.sampling import affine_grid, grid_sample
from ..ops.softmax import log_softmax, logsumexp, softmax, softmin
from ..ops.trigonometry import tanh

__all__ = [
    "adaptive_avg_pool1d",
    "adaptive_avg_pool2d",
    "adaptive_max_pool1d",
    "adaptive_max_pool2d",
    "affine_grid",
    "avg_pool1d",
    "avg_pool2d",
    "batch_norm",
    "binary_cross_entropy",
    "binary_cross_entropy_with_logits",
    "celu",
    "conv1d",
    "conv2d",
    "conv_transpose1d",
    "conv_transpose2d",
    "cosine_embedding_loss",
    "cosine_similarity",
    "cross_entropy",
    "ctc_loss",
    "drop_path",
    "dropout",
    "dropout1d",
    "dropout2d",
    "elu",
    "embedding",
    "erf",
    "fold",
    "gelu",
    "glu",
    "grid_sample",
    "group_norm",
    "hardsigmoid",
    "hardswish",
    "hardtanh",
    "huber_loss",
    "info_nce",
    "instance_norm",
    "interpolate",
    "kl_div",
    "l1_loss",
    "layer_norm",
    "leaky_relu",
    "linear",
    "log_sigmoid",
    "log_softmax",
    "logsumexp",
    "max_pool1d",
    "max_pool2d",
    "mish",
    "mse_loss",
    "nll_loss",
    "normalize",
    "one_hot",
    "pad",
    "pairwise_distance",
    "pixel_shuffle",
    "pixel_unshuffle",
    "prelu",
    "quantized_embedding",
    "quantized_linear",
    "quick_gelu",
    "relu",
    "relu6",
    "rms_norm",
    "roi_align",
    "scaled_dot_product_attention",
    "selu",
    "sigmoid",
    "sigmoid_focal_loss",
    "silu",
    "smooth_l1_loss",
    "softmax",
    "softmin",
    "softplus",
    "softsign",
    "tanh",
    "triplet_margin_loss",
    "unfold",
]
