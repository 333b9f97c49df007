"""Policies that say how probable each action is, with values beside them: for PPO, A2C, REINFORCE.

The gradients of the losses for what a network gives are known in closed form, and written so in
the classes of distributions below: `Categorical` for one or several choices, `Gaussian` for
numbers. The network itself is differentiated as any other.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from ..core import nn
from ..core.errors import ConfigError
from ..core.nn import functional as F
from ..core.ops.trigonometry import tanh
from ..core.state import inference_mode
from ..core.tensor import Tensor
from .q_networks import Pixels, is_picture
from .spaces import Box, Discrete, MultiBinary, MultiDiscrete, Space

Array = np.ndarray[Any, Any]
_HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)
_TINY = np.float32(1e-30)


class TanhLayers(nn.Module):
    """Linear layers with tanh between, begun orthogonally.

    Args:
        sizes: of the input, the hidden layers and the output.
        gain: of the last layer's weights; the others have the square root of 2. Source: the details
            of PPO that Huang et al. 2022 list, number 2.

    Shape: (B, sizes[0]) -> (B, sizes[-1])
    """

    def __init__(self, sizes: Sequence[int], gain: float) -> None:
        self.layers = [nn.Linear(a, b) for a, b in pairwise(sizes)]
        for layer in self.layers:
            nn.init.orthogonal_(layer.weight, gain if layer is self.layers[-1] else math.sqrt(2))
            assert layer.bias is not None
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        last = self.layers[-1]
        for layer in self.layers:
            x = F.linear(x, layer.weight, layer.bias)
            if layer is not last:
                x = tanh(x)
        return x

    def bare(self, x: Array) -> Array:
        """The same of an array, as an array."""
        last = self.layers[-1]
        for layer in self.layers:
            assert layer.bias is not None
            x = x @ layer.weight.array.T
            x += layer.bias.array
            if layer is not last:
                np.tanh(x, out=x)
        return x


class Policy(nn.Module):
    """What to do, and how good it is to be there.

    Of numbers the two are networks of their own; of pictures they share the convolutions.

    Shape: features (B, ...) -> what the distribution wants (B, A), values (B,)
    """

    def __init__(self, space: Space, outputs: int, hidden: Sequence[int], free: int = 0) -> None:
        self.pixels: Pixels | None = Pixels(space.shape) if is_picture(space) else None
        size = space.features if self.pixels is None else self.pixels.features
        self.actor = TanhLayers([size, *hidden, outputs], 0.01)
        self.critic = TanhLayers([size, *hidden, 1], 1.0)
        # Logarithms of deviations, which depend on nothing.
        self.log_std: nn.Parameter | None = (
            nn.Parameter(np.zeros(free, np.float32)) if free else None
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        if self.pixels is not None:
            x = F.relu(self.pixels(x))
        return self.actor(x), self.critic(x).reshape(x.shape[0])

    def bare(self, x: Array) -> tuple[Array, Array]:
        """The same of an array, as arrays."""
        if self.pixels is not None:
            with inference_mode():
                x = F.relu(self.pixels(Tensor(x))).array
        return self.actor.bare(x), self.critic.bare(x)[:, 0]


class Distribution(ABC):
    """How probable actions are, from what the network gives for each row.

    Attributes:
        outputs: numbers that the network gives.
        free: parameters of the distribution that depend on no observation.
    """

    outputs: int
    free: int = 0

    @abstractmethod
    def sample(self, out: Array, free: Array | None, rng: np.random.Generator) -> Array:
        """An action for each row."""

    @abstractmethod
    def best(self, out: Array) -> Array:
        """The most probable action of each row."""

    @abstractmethod
    def log_prob(self, out: Array, free: Array | None, actions: Array) -> Array:
        """The logarithm of the probability of an action in each row, (B,)."""

    @abstractmethod
    def gradient(
        self, out: Array, free: Array | None, actions: Array, d_log_prob: Array, d_entropy: float
    ) -> tuple[Array, Array | None, float]:
        """The gradient for what the network gives, and for the free parameters; the mean entropy.

        Args:
            d_log_prob: the gradient of the loss for each log-probability, (B,).
            d_entropy: the gradient of the loss for the mean entropy.
        """


class Categorical(Distribution):
    """One choice, or several that are made independently: `sizes` are their numbers of answers."""

    def __init__(self, sizes: Sequence[int], single: bool) -> None:
        self.sizes, self.single = list(sizes), single
        self.outputs = sum(self.sizes)
        ends = np.cumsum(self.sizes)
        self._parts = [slice(int(e - n), int(e)) for e, n in zip(ends, self.sizes, strict=True)]

    def sample(self, out: Array, free: Array | None, rng: np.random.Generator) -> Array:
        # The largest of logits with Gumbel noise is a draw from their softmax.
        draws = rng.standard_exponential(out.shape, np.float32)
        noisy = out - np.log(np.maximum(draws, _TINY))  # a draw may be zero
        return self.best(noisy)

    def best(self, out: Array) -> Array:
        if self.single:
            return np.asarray(out.argmax(axis=1))
        return np.stack([out[:, part].argmax(axis=1) for part in self._parts], axis=1)

    def log_prob(self, out: Array, free: Array | None, actions: Array) -> Array:
        rows = np.arange(len(out))
        chosen = actions[:, None] if self.single else actions
        total = np.zeros(len(out), out.dtype)
        for i, part in enumerate(self._parts):
            total += _log_softmax(out[:, part])[rows, chosen[:, i]]
        return total

    def gradient(
        self, out: Array, free: Array | None, actions: Array, d_log_prob: Array, d_entropy: float
    ) -> tuple[Array, Array | None, float]:
        rows = np.arange(len(out))
        chosen = actions[:, None] if self.single else actions
        gradient = np.empty_like(out)
        entropy = 0.0
        for i, part in enumerate(self._parts):
            logs = _log_softmax(out[:, part])
            p = np.exp(logs)
            each = -(p * logs).sum(axis=1)  # entropy of every row
            entropy += float(each.mean())
            # d log p(a) / d logits = onehot(a) - p
            own = -p * d_log_prob[:, None]
            own[rows, chosen[:, i]] += d_log_prob
            if d_entropy:  # d H / d logits = -p (log p + H), and the mean is over the rows
                own -= (d_entropy / len(out)) * p * (logs + each[:, None])
            gradient[:, part] = own
        return gradient, None, entropy


class Gaussian(Distribution):
    """Numbers around means, with deviations that depend on nothing: their logarithms are free."""

    def __init__(self, size: int) -> None:
        self.outputs = self.free = size

    def sample(self, out: Array, free: Array | None, rng: np.random.Generator) -> Array:
        assert free is not None
        return out + np.exp(free) * rng.standard_normal(out.shape, np.float32)

    def best(self, out: Array) -> Array:
        return out

    def log_prob(self, out: Array, free: Array | None, actions: Array) -> Array:
        assert free is not None
        z = (actions - out) * np.exp(-free)
        return np.asarray((-0.5 * z * z - free - _HALF_LOG_2PI).sum(axis=1))

    def gradient(
        self, out: Array, free: Array | None, actions: Array, d_log_prob: Array, d_entropy: float
    ) -> tuple[Array, Array | None, float]:
        assert free is not None
        inverse = np.exp(-free)
        z = (actions - out) * inverse
        # d log p / d mean = z / std; d log p / d log std = z^2 - 1; d H / d log std = 1
        d_out = d_log_prob[:, None] * z * inverse
        d_free = (d_log_prob[:, None] * (z * z - 1)).sum(axis=0) + d_entropy
        entropy = float((free + 0.5 + _HALF_LOG_2PI).sum())
        return d_out, np.asarray(d_free, np.float32), entropy


def distribution_of(space: Space, who: str) -> Distribution:
    """The distribution of actions of a space.

    Raises:
        ConfigError: actions of another kind.
    """
    if isinstance(space, Discrete):
        return Categorical([space.n], single=True)
    if isinstance(space, MultiDiscrete):
        return Categorical([int(n) for n in space.nvec], single=False)
    if isinstance(space, MultiBinary):
        return Categorical([2] * space.n, single=False)
    if isinstance(space, Box) and len(space.shape) == 1 and space.dtype.kind == "f":
        return Gaussian(space.shape[0])
    raise ConfigError(f"{who}: actions of {space} are not supported", got=space)


def _log_softmax(x: Array) -> Array:
    shifted = x - x.max(axis=1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))
