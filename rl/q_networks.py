"""Networks of the algorithms that learn from a replay memory.

Each is used in three ways: as a module, with gradients; through `bare`, which takes and gives plain
arrays, for acting and for targets; and through `traced`, where the gradient of the loss for the
output is known in closed form and only has to go back through the layers. For networks this small
a step through NumPy costs less than the bookkeeping of a graph.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from ..core import nn
from ..core.errors import ConfigError
from ..core.nn import functional as F
from ..core.ops.trigonometry import tanh
from ..core.state import inference_mode
from ..core.tensor import Tensor
from .spaces import Box, Space


class Perceptron(nn.Module):
    """Linear layers with rectifiers between.

    Shape: (B, sizes[0]) -> (B, sizes[-1])
    """

    def __init__(self, sizes: Sequence[int], *, squash: bool = False) -> None:
        self.layers = [nn.Linear(a, b) for a, b in pairwise(sizes)]
        self.squash = squash

    def forward(self, x: Tensor) -> Tensor:
        last = self.layers[-1]
        for layer in self.layers:
            x = F.linear(x, layer.weight, layer.bias)
            if layer is not last:
                x = F.relu(x)
        return tanh(x) if self.squash else x

    def bare(self, x: np.ndarray) -> np.ndarray:
        """The same of an array, as an array."""
        return self.traced(x).out

    def traced(self, x: np.ndarray) -> LayerTrace:
        """The same, and what its gradients need."""
        seen, last = [x], self.layers[-1]
        for layer in self.layers:
            assert layer.bias is not None
            x = x @ layer.weight.array.T
            x += layer.bias.array
            if layer is not last:
                np.maximum(x, 0, out=x)
            elif self.squash:
                np.tanh(x, out=x)
            seen.append(x)
        return LayerTrace(self, seen)


class LayerTrace:
    """What a `Perceptron` made of an input, and the way back through its layers.

    Attributes:
        given: the input, (B, sizes[0]).
        out: the result, (B, sizes[-1]).
    """

    def __init__(self, network: Perceptron, seen: list[np.ndarray]) -> None:
        self.given, self.out = seen[0], seen[-1]
        self._network, self._seen = network, seen

    def backward(self, gradient: np.ndarray) -> None:
        """From the gradient of a loss for `out` to the `grad` of every parameter, set anew."""
        for layer, x, g in self._back(gradient):
            assert layer.bias is not None
            layer.weight.grad = Tensor(g.T @ x)
            layer.bias.grad = Tensor(g.sum(axis=0))

    def slope(self, gradient: np.ndarray) -> np.ndarray:
        """The gradient for the input, (B, sizes[0]); those of parameters stay as they are."""
        for layer, _, g in self._back(gradient):  # noqa: B007 (the last ones are wanted)
            pass
        slope: np.ndarray = g @ layer.weight.array
        return slope

    def _back(self, g: np.ndarray) -> Iterator[tuple[nn.Linear, np.ndarray, np.ndarray]]:
        """Every layer, the last one first, with its input and the gradient for its output."""
        if self._network.squash:
            g = g * (1 - self.out * self.out)
        layers, inputs = self._network.layers, self._seen[:-1]
        for i in reversed(range(len(layers))):
            yield layers[i], inputs[i], g
            if i:
                w = layers[i].weight.array
                g = g @ w if len(w) > 1 else g * w  # an outer product is slow as a matrix product
                g *= inputs[i] > 0


class GraphTrace:
    """The same of any network, by a recorded graph."""

    def __init__(self, network: nn.Module, x: np.ndarray) -> None:
        self.given = x
        self._network, self._result = network, network(Tensor(x))
        self.out: np.ndarray = self._result.array

    def backward(self, gradient: np.ndarray) -> None:
        """From the gradient of a loss for `out` to the `grad` of every parameter, set anew."""
        for p in self._network.parameters():
            p.grad = None
        self._result.backward(Tensor(gradient))


class Pixels(nn.Module):
    """Convolutions over pictures: those of DQN from 36 pixels on, smaller ones below.

    Source: Mnih et al. 2015, "Human-level control through deep reinforcement learning".

    Shape: (B, C, H, W) -> (B, features)
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        channels, height, width = shape
        if min(height, width) >= 36:
            plan = [(32, 8, 4), (64, 4, 2), (64, 3, 1)]
        else:
            plan = [(16, 3, 2), (32, 3, 2)]
        self.layers = []
        for out, kernel, stride in plan:
            self.layers.append(nn.Conv2d(channels, out, kernel, stride=stride))
            channels = out
            height, width = ((n - kernel) // stride + 1 for n in (height, width))
        if min(height, width) < 1:
            raise ConfigError(f"pictures of shape {shape} are too small for convolutions")
        self.features = channels * height * width

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = F.relu(layer(x))
        return x.reshape(x.shape[0], self.features)


class QNetwork(nn.Module):
    """Values of every action, `width` numbers for each: 1 for DQN, atoms or quantiles for others.

    Args:
        space: of observations.
        actions: how many there are.
        hidden: sizes of the hidden layers.
        width: numbers for each action.
        duelling: state values and advantages apart. Source: Wang et al. 2016, "Dueling network
            architectures for deep reinforcement learning".

    Shape: features (B, ...) -> (B, actions * width)
    """

    def __init__(
        self,
        space: Space,
        actions: int,
        hidden: Sequence[int],
        *,
        width: int = 1,
        duelling: bool = False,
    ) -> None:
        self.actions, self.width, self.duelling = actions, width, duelling
        self.pixels: Pixels | None = Pixels(space.shape) if is_picture(space) else None
        size = space.features if self.pixels is None else self.pixels.features
        if not duelling:
            self.q = Perceptron([size, *hidden, actions * width])
            return
        self.trunk: Perceptron | None = Perceptron([size, *hidden[:-1]]) if hidden[1:] else None
        size = hidden[-2] if hidden[1:] else size
        self.advantage = Perceptron([size, *hidden[-1:], actions * width])
        self.value = Perceptron([size, *hidden[-1:], width])

    def forward(self, x: Tensor) -> Tensor:
        if self.pixels is not None:
            x = self.pixels(x)
        if not self.duelling:
            out: Tensor = self.q(x)
            return out
        if self.trunk is not None:
            x = F.relu(self.trunk(x))
        shape = (x.shape[0], self.actions, self.width)
        advantage = self.advantage(x).reshape(shape)
        value = self.value(x).reshape(shape[0], 1, self.width)
        # Only differences of advantages count: their mean is taken away.
        joined: Tensor = value + advantage - advantage.mean(axis=1, keepdims=True)
        return joined.reshape(shape[0], self.actions * self.width)

    def bare(self, x: np.ndarray) -> np.ndarray:
        """The same of an array, as an array."""
        if self.pixels is None and not self.duelling:
            return self.q.bare(x)
        with inference_mode():
            out: np.ndarray = self.forward(Tensor(x)).array
        return out

    def traced(self, x: np.ndarray) -> LayerTrace | GraphTrace:
        """The same, and the way back for gradients."""
        if self.pixels is None and not self.duelling:
            return self.q.traced(x)
        return GraphTrace(self, x)


def is_picture(space: Space) -> bool:
    """Whether observations are pictures, (C, H, W) uint8."""
    return isinstance(space, Box) and len(space.shape) == 3 and space.dtype == np.uint8


def features(space: Space, observations: np.ndarray) -> np.ndarray:
    """Observations as a network takes them: pictures from 0 to 1, the rest as `Space.encode`.

    Shape: (B, ...) -> (B, C, H, W) or (B, space.features), float32
    """
    if is_picture(space):
        scaled: np.ndarray = np.multiply(observations, np.float32(1 / 255), dtype=np.float32)
        return scaled
    if isinstance(space, Box) and len(space.shape) == 1 and observations.dtype == np.float32:
        return observations
    return space.encode(observations)


def sizes_of(name: str, value: Any) -> tuple[int, ...]:
    """Sizes of hidden layers, checked."""
    sizes = tuple(value) if np.iterable(value) else (value,)
    if not sizes or any(isinstance(n, bool) or not isinstance(n, int) or n < 1 for n in sizes):
        raise ConfigError(f"{name} are sizes of hidden layers such as (64, 64), not {value!r}")
    return sizes
