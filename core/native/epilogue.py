"""What follows a product, in one pass and in place: bias, an addend, an activation."""

from __future__ import annotations

from ..errors import ConfigError
from .rows import NO_CLAMP, Clamp
from .runtime import Float32, check, grain_for, run

#: Activations besides a clamp, by the name of their kernel.
ACTIVATIONS = ("gelu", "gelu_tanh", "silu", "hardswish", "sigmoid")


def finish(
    x: Float32,
    bias: Float32 | None = None,
    add: Float32 | None = None,
    *,
    activation: str | None = None,
    clamp: Clamp = NO_CLAMP,
) -> Float32:
    """activation(x + bias + add) in the place of x; without an activation, clamped.

    Args:
        activation: one of `ACTIVATIONS`.

    Shape: x (..., D), bias (D,), add (..., D); all C-contiguous.
    Raises: ConfigError for another activation; ShapeError, DtypeError.
    """
    if activation is not None and activation not in ACTIVATIONS:
        raise ConfigError(
            f"native.finish: activation is one of {', '.join(ACTIVATIONS)}, got {activation!r}",
            got=activation,
        )
    check("finish", "x", x)
    d = x.shape[-1]
    if bias is not None:
        check("finish", "bias", bias, (d,))
    if add is not None:
        check("finish", "add", add, x.shape)
    if x.size:
        floats = clamp if activation is None else ()
        kernel = f"end_{activation or 'clamp'}"
        run(kernel, (bias, add, x), (d,), floats, x.size // d, grain_for(d))
    return x
