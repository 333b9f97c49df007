"""The `precision=` of a trainer: what it may be, and what "auto" means on a device."""

from __future__ import annotations

from typing import Any

from ..autocast import best_precision
from ..devices import CPU
from ..dtypes import float32
from ..errors import ConfigError
from ..nn import Module
from ..notice import warn_once

_KNOWN = ("float32", "bfloat16", "float16", "auto")
# What the same is called elsewhere.
_ELSEWHERE = {
    "16": "float16",
    "16-mixed": "float16",
    "32": "float32",
    "32-true": "float32",
    "bf16": "bfloat16",
    "bf16-mixed": "bfloat16",
    "fp16": "float16",
    "fp32": "float32",
    "half": "float16",
}


def chosen_precision(wanted: Any, module: Module) -> str:
    """The precision to train a module in; "auto" becomes the fastest that its device has.

    Raises:
        ConfigError: there is no such precision, or the module's own is not float32.
    """
    wanted = getattr(wanted, "name", wanted)  # of a dtype
    if wanted not in _KNOWN:
        near = _ELSEWHERE.get(str(wanted))
        fix = f"precision={near!r}" if near in _KNOWN else "precision='auto'"
        raise ConfigError(
            f"Trainer: precision is one of {', '.join(map(repr, _KNOWN))}, got {wanted!r}.\n"
            f"Write: Trainer(..., {fix})",
            got=wanted,
        )
    device = module.device or CPU
    precision: str = best_precision(device) if wanted == "auto" else wanted
    if precision == "float32":
        return precision
    for name, p in module.named_parameters():
        if p.requires_grad and p.dtype != float32:
            if wanted == "auto":
                return "float32"
            raise ConfigError(
                f"Trainer: precision={precision!r} keeps float32 parameters and converts them for "
                f"each operation; {name} is {p.dtype}.\n"
                "Write: module.to(bt.float32)",
                name=name,
                dtype=str(p.dtype),
            )
    if device.type == "cpu":
        warn_once(
            f"precision {precision}",
            f"precision={precision!r} on the CPU is slower than float32: half types are widened "
            "for each operation and every result is rounded.\n"
            "It shows what a GPU would compute. For speed here: precision='auto'",
        )
    return precision
