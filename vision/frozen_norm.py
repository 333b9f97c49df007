"""Batch norm that never learns: the backbones of detectors are trained on too few pictures."""

from __future__ import annotations

import numpy as np

from ..core import nn
from ..core.nn import functional as F
from ..core.tensor import Tensor


class FrozenBatchNorm2d(nn.Module):
    """Batch norm with fixed statistics, weight and bias, in training as well.

    Shape:
        (B, C, H, W), kept
    """

    def __init__(self, num_features: int, eps: float = 1e-5) -> None:
        self.num_features = num_features
        self.eps = eps
        self.weight = nn.Buffer(np.ones(num_features, np.float32))
        self.bias = nn.Buffer(np.zeros(num_features, np.float32))
        self.running_mean = nn.Buffer(np.zeros(num_features, np.float32))
        self.running_var = nn.Buffer(np.ones(num_features, np.float32))

    def forward(self, input: Tensor) -> Tensor:
        return F.batch_norm(
            input, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps
        )

    def extra_repr(self) -> str:
        return f"{self.num_features}, eps={self.eps}"


def freeze_batch_norms(module: nn.Module) -> None:
    """Put a new frozen one in the place of every batch norm inside a module."""
    for part in list(module.modules()):
        for name, child in list(part.named_children()):
            if isinstance(child, nn.BatchNorm2d):
                setattr(part, name, FrozenBatchNorm2d(child.num_features, child.eps))
