"""Finds the extension, and says once what is wrong with one that is there and cannot be used.

Without it everything works, slower. One that was never built is no mistake and makes no warning:
`bestiary doctor` says so. A file that cannot be loaded, or that was built from older sources, is.
"""

from __future__ import annotations

import os
import sys
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import Any

from ..notice import NativeWarning, warn_once

REBUILD = (
    "Install a C compiler and build it anew: pip install --force-reinstall --no-deps bestiary "
    "(in a checkout: pip install --no-deps -e .)"
)
#: Every kernel of native.h: a file that lacks one was built from older sources.
NAMES = frozenset(
    """
    erf gelu gelu_tanh silu relu sigmoid hardswish hardtanh hardtanh_backward relu_backward
    hardswish_backward gelu_backward gelu_tanh_backward silu_backward
    bfloat16_to_float32 float32_to_bfloat16 float16_to_float32 float32_to_float16 philox
    end_clamp end_gelu end_gelu_tanh end_silu end_hardswish end_sigmoid
    softmax softmax_backward log_softmax log_softmax_backward
    layer_norm layer_norm_backward layer_norm_sums
    column_sum channel_stats channel_sums channel_affine batch_norm_backward
    im2col col2im depthwise depthwise_input_grad depthwise_weight_grad
    conv_pack conv conv_weight_grad winograd4 winograd2 max_pool max_pool_backward
    product_q8_0 product_q4_0 product_q4_1 product_q5_0 product_q5_1 product_q4_k product_q5_k
    product_q6_k product_int8 product_bfloat16 product_float16 product_float32
    numbers_q8_0 numbers_q4_0 numbers_q4_1 numbers_q5_0 numbers_q5_1 numbers_q4_k numbers_q5_k
    numbers_q6_k numbers_int8 numbers_bfloat16 numbers_float16 numbers_float32
    cross_entropy cross_entropy_backward adam cartpole chain
    attention attend_token gated added
    """.split()
)

problem: str | None = None  # what is wrong with a file that is there


def load() -> Any:
    """The extension module; None without one that can be used."""
    global problem
    try:
        from . import _native
    except ImportError as error:
        problem = _problem(error, Path(__file__).parent)
    else:
        missing = sorted(NAMES - _native.kernels.keys())
        if not missing:
            return _native
        problem = (
            f"{getattr(_native, '__file__', '_native')} was built from other sources than these: "
            f"it has no kernel {missing[0]}."
        )
    if problem is not None and os.environ.get("BESTIARY_NATIVE") != "0":
        warn_once(
            "native",
            f"The kernels in C cannot be used: {problem}\n"
            f"Everything works without them, slower. {REBUILD}\n"
            "BESTIARY_NATIVE=0 does without them and this warning.",
            NativeWarning,
        )
    return None


def _problem(error: ImportError, folder: Path) -> str | None:
    """Why the extension was not loaded; None where none was built."""
    if error.path and Path(error.path).name.startswith("_native."):  # a file that is no good
        why = str(error).removeprefix(f"{error.path}: ")
        if _machine(error.path) not in (None, _machine(sys.executable)):
            why = "it is for another kind of processor"  # the system says: no such file
        return f"{error.path} does not load ({why})."
    built = sorted(p.name for p in folder.glob("_native.*") if p.suffix in (".so", ".pyd"))
    others = [name for name in built if name.removeprefix("_native") not in EXTENSION_SUFFIXES]
    if others and len(others) == len(built):
        return (
            f"{folder / others[0]} is for another Python or another kind of machine: its name "
            "does not end as those of this Python do."
        )
    return None


def _machine(path: str) -> bytes | None:
    """What an ELF file says of the machine that it is for; None of other files."""
    try:
        with open(path, "rb") as file:
            head = file.read(20)
    except OSError:
        return None
    return head[4:6] + head[18:20] if len(head) == 20 and head.startswith(b"\x7fELF") else None
