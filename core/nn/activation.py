"""Activations as layers.

`inplace` is taken where torch has it: results are the same, and nothing is written in place.
"""

from __future__ import annotations

from typing import Any

from ..tensor import Tensor
from . import functional as F
from . import init
from .module import Module


class _InPlace(Module):
    """An activation without settings but torch's `inplace`."""

    def __init__(self, inplace: bool = False) -> None:
        self.inplace = inplace


class ReLU(_InPlace):
    """max(x, 0)."""

    def forward(self, input: Tensor) -> Tensor:
        return F.relu(input)


class ReLU6(_InPlace):
    """x limited to [0, 6]."""

    def forward(self, input: Tensor) -> Tensor:
        return F.relu6(input)


class SELU(_InPlace):
    """The self-normalising ELU. Source: Klambauer et al. 2017."""

    def forward(self, input: Tensor) -> Tensor:
        return F.selu(input)


class SiLU(_InPlace):
    """x * sigmoid(x), also called swish."""

    def forward(self, input: Tensor) -> Tensor:
        return F.silu(input)


class Mish(_InPlace):
    """x * tanh(softplus(x)). Source: Misra 2019."""

    def forward(self, input: Tensor) -> Tensor:
        return F.mish(input)


class Hardswish(_InPlace):
    """x * relu6(x + 3) / 6. Source: Howard et al. 2019, "Searching for MobileNetV3"."""

    def forward(self, input: Tensor) -> Tensor:
        return F.hardswish(input)


class Hardsigmoid(_InPlace):
    """relu6(x + 3) / 6."""

    def forward(self, input: Tensor) -> Tensor:
        return F.hardsigmoid(input)


class Sigmoid(Module):
    """1 / (1 + exp(-x))."""

    def forward(self, input: Tensor) -> Tensor:
        return F.sigmoid(input)


class LogSigmoid(Module):
    """The logarithm of the sigmoid, without overflow."""

    def forward(self, input: Tensor) -> Tensor:
        return F.log_sigmoid(input)


class Tanh(Module):
    """Hyperbolic tangent."""

    def forward(self, input: Tensor) -> Tensor:
        return F.tanh(input)


class Softsign(Module):
    """x / (1 + |x|)."""

    def forward(self, input: Tensor) -> Tensor:
        return F.softsign(input)


class QuickGELU(Module):
    """x * sigmoid(1.702 x), the approximation that CLIP was trained with."""

    def forward(self, input: Tensor) -> Tensor:
        return F.quick_gelu(input)


class GELU(Module):
    """x times the normal distribution function of x; `approximate="tanh"` is GPT-2's form.

    Source: Hendrycks and Gimpel 2016, "Gaussian error linear units".
    """

    def __init__(self, approximate: str = "none") -> None:
        self.approximate = approximate

    def forward(self, input: Tensor) -> Tensor:
        return F.gelu(input, self.approximate)

    def extra_repr(self) -> str:
        return f"approximate={self.approximate!r}"


class LeakyReLU(Module):
    """x where positive, else `negative_slope * x`."""

    def __init__(self, negative_slope: float = 0.01, inplace: bool = False) -> None:
        self.negative_slope, self.inplace = negative_slope, inplace

    def forward(self, input: Tensor) -> Tensor:
        return F.leaky_relu(input, self.negative_slope)

    def extra_repr(self) -> str:
        return f"negative_slope={self.negative_slope}"


class PReLU(Module):
    """LeakyReLU whose slope is learned, for all values or for each channel.

    Source: He et al. 2015, "Delving deep into rectifiers".
    """

    def __init__(
        self,
        num_parameters: int = 1,
        init: float = 0.25,
        *,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        self.num_parameters = num_parameters
        self.init = init
        self.weight = _constant(num_parameters, init, device, dtype)

    def forward(self, input: Tensor) -> Tensor:
        return F.prelu(input, self.weight)

    def extra_repr(self) -> str:
        return f"num_parameters={self.num_parameters}"


def _constant(size: int, value: float, device: Any, dtype: Any) -> Any:
    return init.constant_(init.parameter(size, device=device, dtype=dtype), value)


class _Alpha(Module):
    def __init__(self, alpha: float = 1.0, inplace: bool = False) -> None:
        self.alpha, self.inplace = alpha, inplace

    def extra_repr(self) -> str:
        return f"alpha={self.alpha}"


class ELU(_Alpha):
    """x where positive, else `alpha * (exp(x) - 1)`. Source: Clevert et al. 2016."""

    def forward(self, input: Tensor) -> Tensor:
        return F.elu(input, self.alpha)


class CELU(_Alpha):
    """x where positive, else `alpha * (exp(x / alpha) - 1)`. Source: Barron 2017."""

    def forward(self, input: Tensor) -> Tensor:
        return F.celu(input, self.alpha)


class Hardtanh(Module):
    """x limited to [min_val, max_val]."""

    def __init__(self, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False) -> None:
        self.min_val, self.max_val, self.inplace = min_val, max_val, inplace

    def forward(self, input: Tensor) -> Tensor:
        return F.hardtanh(input, self.min_val, self.max_val)

    def extra_repr(self) -> str:
        return f"min_val={self.min_val}, max_val={self.max_val}"


class Softplus(Module):
    """log(1 + exp(beta x)) / beta, without overflow."""

    def __init__(self, beta: float = 1.0) -> None:
        self.beta = beta

    def forward(self, input: Tensor) -> Tensor:
        return F.softplus(input, self.beta)

    def extra_repr(self) -> str:
        return f"beta={self.beta}"


class _AlongAxis(Module):
    def __init__(self, axis: int = -1) -> None:
        self.axis = axis

    def extra_repr(self) -> str:
        return f"axis={self.axis}"


class Softmax(_AlongAxis):
    """exp(x) / sum(exp(x)) along an axis."""

    def forward(self, input: Tensor) -> Tensor:
        return F.softmax(input, self.axis)


class LogSoftmax(_AlongAxis):
    """The logarithm of softmax along an axis, without overflow."""

    def forward(self, input: Tensor) -> Tensor:
        return F.log_softmax(input, self.axis)


class Softmin(_AlongAxis):
    """Softmax of -x along an axis."""

    def forward(self, input: Tensor) -> Tensor:
        return F.softmin(input, self.axis)


class GLU(_AlongAxis):
    """The first half of an axis times the sigmoid of the second. Source: Dauphin et al. 2017."""

    def forward(self, input: Tensor) -> Tensor:
        return F.glu(input, self.axis)
