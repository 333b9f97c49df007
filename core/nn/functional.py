"""Functions of neural networks, with the names of torch.nn.functional and `axis` for `dim`.

Each is defined beside its primitives in core/ops; this is the list of them.
"""

from __future__ import annotations

from ..ops.activation import (
    celu,
    elu,
    erf,
    gelu,
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
from ..ops.classification import cross_entropy, nll_loss, one_hot
from ..ops.elementwise import tanh
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
from ..ops.normalization import batch_norm, layer_norm, rms_norm
from ..ops.softmax import log_softmax, logsumexp, softmax, softmin

__all__ = [
    "batch_norm",
    "binary_cross_entropy",
    "binary_cross_entropy_with_logits",
    "celu",
    "cross_entropy",
    "elu",
    "erf",
    "gelu",
    "glu",
    "group_norm",
    "hardsigmoid",
    "hardswish",
    "hardtanh",
    "huber_loss",
    "instance_norm",
    "kl_div",
    "l1_loss",
    "layer_norm",
    "leaky_relu",
    "linear",
    "log_sigmoid",
    "log_softmax",
    "logsumexp",
    "mish",
    "mse_loss",
    "nll_loss",
    "one_hot",
    "prelu",
    "quick_gelu",
    "relu",
    "relu6",
    "rms_norm",
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
]
