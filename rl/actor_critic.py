"""Critics of actions: what DDPG, TD3 and SAC have in common."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..core import nn
from ..core.errors import ConfigError
from ..core.optim import Optimizer
from ..core.tensor import Tensor
from .diverging import check_update
from .q_networks import Perceptron, is_picture
from .spaces import Space


class Critics(nn.Module):
    """Several networks Q(s, a) that see the same.

    Shape: (B, features of both) -> one (B, 1) for each
    """

    def __init__(self, number: int, size: int, hidden: Sequence[int]) -> None:
        self.networks = [Perceptron([size, *hidden, 1]) for _ in range(number)]

    def forward(self, x: Tensor) -> list[Tensor]:
        return [network(x) for network in self.networks]

    def bare(self, observation: np.ndarray, action: np.ndarray) -> np.ndarray:
        """The values by all of them, as arrays, (number, B)."""
        x = _joined(observation, action)
        return np.stack([network.bare(x)[:, 0] for network in self.networks])

    def fit(
        self,
        observation: np.ndarray,
        action: np.ndarray,
        y: np.ndarray,
        optimizer: Optimizer,
        *,
        step: int = 0,
    ) -> float:
        """One step towards the targets y, (B,), by the squared error; returns that error.

        Args:
            observation, action: what is judged.
            step: of the environments so far, for errors.

        Raises:
            GradError: the error is not finite; nothing is updated.
        """
        x, loss = _joined(observation, action), 0.0
        errors = []
        for network in self.networks:
            trace = network.traced(x)
            error = trace.out - y[:, None]
            trace.backward(error * np.float32(2 / len(y)))  # d mean (q - y)^2 / d q
            errors.append(error)
            loss += float(np.vdot(error, error)) / len(y)
        check_update(loss, self, optimizer, x, *errors, step=step, whose="critics", loss=loss)
        optimizer.step()
        return loss

    def slope(
        self, observation: np.ndarray, action: np.ndarray, *, least: bool = False
    ) -> tuple[np.ndarray, np.ndarray]:
        """The value of actions, and its gradient for them.

        Args:
            observation, action: what to judge.
            least: take the lesser value, instead of the first critic's.

        Shape: (B,) and the shape of `action`
        """
        x = _joined(observation, action)
        traces = [network.traced(x) for network in (self.networks if least else self.networks[:1])]
        q = np.concatenate([trace.out for trace in traces], axis=1)
        chosen = q.argmin(axis=1)[:, None]
        slopes = [t.slope((chosen == i).astype(np.float32)) for i, t in enumerate(traces)]
        of_action: np.ndarray = sum(slopes[1:], slopes[0])[:, observation.shape[1] :]
        return q.min(axis=1), of_action


def _joined(observation: np.ndarray, action: np.ndarray) -> np.ndarray:
    return np.concatenate([observation, action], axis=1)


def require_vector(name: str, space: Space) -> None:
    """Complain of pictures, for which these have no networks."""
    if is_picture(space):
        raise ConfigError(
            f"{name}: observations are pictures of shape {space.shape}, and its networks take "
            "lists of numbers.\nFlatten them, or use PPO or DQN.",
            got=space,
        )
