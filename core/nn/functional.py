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
from ..ops.elementwise import tanh
from ..ops.groupnorm import group_norm, instance_norm
from ..ops.linear import linear
from ..ops.normalization import batch_norm, layer_norm, rms_norm
from ..ops.softmax import log_softmax, logsumexp, softmax, softmin

__all__ = [
    "batch_norm",
    "celu",
    "elu",
    "erf",
    "gelu",
    "glu",
    "group_norm",
    "hardsigmoid",
    "hardswish",
    "hardtanh",
    "instance_norm",
    "layer_norm",
    "leaky_relu",
    "linear",
    "log_sigmoid",
    "log_softmax",
    "logsumexp",
    "mish",
    "prelu",
    "quick_gelu",
    "relu",
    "relu6",
    "rms_norm",
    "selu",
    "sigmoid",
    "silu",
    "softmax",
    "softmin",
    "softplus",
    "softsign",
    "tanh",
]
