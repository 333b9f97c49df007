"""Optional kernels in C; everything works without them, slower.

`available()` says whether they are there. The functions take and return NumPy arrays and know
nothing of tensors: operations register them as their CPU kernels (core/ops).

Environment: `BESTIARY_NUM_THREADS` sets the threads of the kernels' own pool (else the
processors that the process may run on). `BESTIARY_NATIVE` is `0` to do without the kernels, or
`avx512`, `avx2` or `generic` to choose an instruction set. `python -m bestiary.core.native`
prints what is in use. Where the C library is glibc, freed memory is kept for the next arrays (at
most 2 GiB at the end of the heap) unless `BESTIARY_KEEP_MEMORY` is `0` or a variable of glibc's
own (`MALLOC_...`, `GLIBC_TUNABLES`) says how to allocate.
"""

from .attention import WIDEST, attention
from .cartpole import cartpole
from .chain import Chain
from .conv import (
    Convolution,
    PackedWeight,
    col2im,
    conv2d,
    conv2d_weight_grad,
    depthwise_conv2d,
    depthwise_conv2d_input_grad,
    depthwise_conv2d_weight_grad,
    im2col,
    pack_weight,
)
from .decode import (
    MAX_WIDTH,
    TokenAttention,
    activation_step,
    add_step,
    gated_step,
    layer_norm_step,
    product_step,
    rms_norm_step,
    run_steps,
)
from .elementwise import (
    erf,
    gelu,
    gelu_backward,
    gelu_tanh,
    gelu_tanh_backward,
    hardswish,
    hardswish_backward,
    hardtanh,
    hardtanh_backward,
    narrow,
    philox,
    relu,
    relu_backward,
    sigmoid,
    silu,
    silu_backward,
    widen,
)
from .epilogue import ACTIVATIONS, finish
from .pooling import max_pool2d, max_pool2d_backward
from .quantized import numbers, product
from .rows import (
    NO_CLAMP,
    RELU,
    Clamp,
    batch_norm_apply,
    batch_norm_backward,
    batch_norm_stats,
    channel_sum,
    channel_sums,
    layer_norm,
    layer_norm_backward,
    log_softmax,
    log_softmax_backward,
    sample_stats,
    softmax,
    softmax_backward,
)
from .runtime import (
    available,
    get_num_threads,
    info,
    isa,
    panel_width,
    set_isa,
    set_num_threads,
)
from .training import adam, cross_entropy, cross_entropy_backward
from .winograd import WinogradConvolution, WinogradWeight, winograd_weight

__all__ = [
    "ACTIVATIONS",
    "MAX_WIDTH",
    "NO_CLAMP",
    "RELU",
    "WIDEST",
    "Chain",
    "Clamp",
    "Convolution",
    "PackedWeight",
    "TokenAttention",
    "WinogradConvolution",
    "WinogradWeight",
    "activation_step",
    "adam",
    "add_step",
    "attention",
    "available",
    "batch_norm_apply",
    "batch_norm_backward",
    "batch_norm_stats",
    "cartpole",
    "channel_sum",
    "channel_sums",
    "col2im",
    "conv2d",
    "conv2d_weight_grad",
    "cross_entropy",
    "cross_entropy_backward",
    "depthwise_conv2d",
    "depthwise_conv2d_input_grad",
    "depthwise_conv2d_weight_grad",
    "erf",
    "finish",
    "gated_step",
    "gelu",
    "gelu_backward",
    "gelu_tanh",
    "gelu_tanh_backward",
    "get_num_threads",
    "hardswish",
    "hardswish_backward",
    "hardtanh",
    "hardtanh_backward",
    "im2col",
    "info",
    "isa",
    "layer_norm",
    "layer_norm_backward",
    "layer_norm_step",
    "log_softmax",
    "log_softmax_backward",
    "max_pool2d",
    "max_pool2d_backward",
    "narrow",
    "numbers",
    "pack_weight",
    "panel_width",
    "philox",
    "product",
    "product_step",
    "relu",
    "relu_backward",
    "rms_norm_step",
    "run_steps",
    "sample_stats",
    "set_isa",
    "set_num_threads",
    "sigmoid",
    "silu",
    "silu_backward",
    "softmax",
    "softmax_backward",
    "widen",
    "winograd_weight",
]
