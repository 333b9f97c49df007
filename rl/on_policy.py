"""The loop of the algorithms that learn from what they just did: act, judge, learn, forget."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..core import optim
from ..core.autograd import backward
from ..core.errors import ConfigError
from ..core.nn.module import Module
from ..core.tensor import Tensor
from .diverging import check_update, memory_told
from .environments.base import Step, count
from .learner import Learner
from .policies import Distribution, Policy, distribution_of
from .q_networks import features, sizes_of
from .spaces import Box

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class OnPolicySettings:
    """Hyper-parameters that all of them have, under Stable-Baselines3's names.

    Attributes:
        hidden: sizes of the hidden layers, of the policy and of the values.
        learning_rate: at first; see `anneal`.
        anneal: let the rate fall to nothing while `learn` goes on.
        n_steps: steps of every environment between updates.
        gamma: discount of later rewards.
        gae_lambda: between one step's error (0) and all rewards that came (1). Source: Schulman et
            al. 2016, "High-dimensional continuous control using generalized advantage estimation".
        ent_coef: how much the entropy of the policy counts in the loss.
        vf_coef: how much the error of the values does.
        max_grad_norm: gradients are scaled down to this norm.
        normalize_advantage: bring the advantages of a batch to mean 0 and deviation 1.
    """

    hidden: tuple[int, ...] = (64, 64)
    learning_rate: float = 3e-4
    anneal: bool = False
    n_steps: int = 2048
    gamma: float = 0.99
    gae_lambda: float = 0.95
    ent_coef: float = 0.0
    vf_coef: float = 0.5
    max_grad_norm: float = 0.5
    normalize_advantage: bool = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "hidden", sizes_of("hidden", self.hidden))
        count("n_steps", self.n_steps)
        rate: Any = self.learning_rate
        if not (isinstance(rate, (int, float)) and 0 < rate < 10):
            raise ConfigError(f"learning_rate is a number above 0, not {rate!r}")
        for name in ("gamma", "gae_lambda"):
            value: Any = getattr(self, name)
            if not (isinstance(value, (int, float)) and 0 <= value <= 1):
                raise ConfigError(f"{name} lies between 0 and 1, not {value!r}")
        for name in ("ent_coef", "vf_coef"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ConfigError(f"{name} is at least 0, not {getattr(self, name)!r}")
        if not self.max_grad_norm > 0:
            raise ConfigError(f"max_grad_norm is above 0, not {self.max_grad_norm!r}")


@dataclass
class Rollout:
    """What was done since the last update: T steps of N environments as T * N rows.

    Attributes:
        features: of the observations, as the network takes them, (T * N, ...).
        actions: in the agent's numbers.
        log_probs, values: of them, when they were taken, (T * N,).
        advantages: how much better they turned out than expected, (T * N,).
        returns: what the values should have said, (T * N,).
        ended: whether the episode ended with the step, (T, N).
    """

    features: Array
    actions: Array
    log_probs: Array
    values: Array
    advantages: Array
    returns: Array
    ended: Array


def advantages_of(
    rewards: Array, values: Array, ended: Array, last: Array, gamma: float, lam: float
) -> Array:
    """Generalised advantage estimates: sums of later errors of the values, each discounted.

        error[t] = reward[t] + gamma value[t + 1] - value[t]
        advantage[t] = error[t] + gamma lam advantage[t + 1]

    Nothing of the next episode counts where one ended.

    Args:
        rewards, values: (T, N).
        ended: whether the episode ended with this step, (T, N), bool.
        last: the values of what the environments show now, (N,).
    Shape:
        (T, N), float32
    """
    found = np.empty_like(rewards)
    alive = 1 - ended.astype(np.float32)
    following = np.concatenate([values[1:], last[None]])
    errors = rewards + gamma * following * alive - values
    fading = (gamma * lam) * alive
    carried = np.zeros_like(last)
    for t in range(len(rewards) - 1, -1, -1):
        carried = errors[t] + fading[t] * carried
        found[t] = carried
    return found


class OnPolicy(Learner):
    """Base: a subclass gives `make_optimizer` and `update`."""

    settings: Any

    def build(self) -> None:
        self.distribution: Distribution = distribution_of(self.action_space, self.name)
        head = self.distribution
        self.network = Policy(self.observation_space, head.outputs, self.settings.hidden, head.free)
        self._parameters = list(self.network.parameters())
        self.optimizer = self.make_optimizer()

    @abstractmethod
    def make_optimizer(self) -> optim.Optimizer:
        """The optimizer of `self._parameters`."""

    @abstractmethod
    def update(self, rollout: Rollout) -> dict[str, float]:
        """Learn from what was done; returns what to log."""

    def modules(self) -> dict[str, Module]:
        return {"network": self.network}

    def optimizers(self) -> dict[str, optim.Optimizer]:
        return {"optimizer": self.optimizer}

    def _check_spaces(self) -> None:
        distribution_of(self.action_space, self.name)

    # -- acting ------------------------------------------------------------------------------

    @property
    def free(self) -> Array | None:
        """Parameters of the distribution that depend on nothing."""
        return None if self.network.log_std is None else self.network.log_std.array

    def to_env(self, actions: Array) -> Array:
        # Numbers are those of the environment itself, cut to what it takes.
        space = self.action_space
        if isinstance(space, Box):
            return np.clip(actions, space.low, space.high).astype(space.dtype)
        return super().to_env(actions)

    def choose(self, observations: Array, deterministic: bool) -> Array:
        out, _ = self.network.bare(features(self.observation_space, observations))
        if deterministic:
            return self.distribution.best(out)
        return self.distribution.sample(out, self.free, self.rng)

    def value(self, observations: Array) -> Array:
        """How good it is to be there, (N,)."""
        return self.network.bare(features(self.observation_space, observations))[1]

    def value_now(self, observations: Array, rows: Any) -> Array:
        """How good it is in these rows of the environments, which show this."""
        return self.value(observations)

    def look(self, x: Array) -> tuple[Array, Array]:
        """What the network gives for features that the environments show now, and the values."""
        return self.network.bare(x)

    def forget(self, ended: Array) -> None:
        """Episodes ended in these rows, (N,) bool: what was remembered of them is of no use."""

    def begin_anew(self) -> None:
        super().begin_anew()
        self.forget(np.ones(self.env.num_envs, np.bool_))

    # -- learning ----------------------------------------------------------------------------

    def advance(self) -> dict[str, float]:
        """`n_steps` steps of the environments, then the update."""
        s = self.settings
        if s.anneal:
            for group in self.optimizer.param_groups:
                group["lr"] = s.learning_rate * (1 - self.progress)
        figures = self.update(self._gather())
        return {**figures, "lr": float(self.optimizer.param_groups[0]["lr"])}

    def _gather(self) -> Rollout:
        s, env, n = self.settings, self.env, self.env.num_envs
        observation = self.first_observation()
        shown, actions = [], []
        log_probs, values = (
            np.empty((s.n_steps, n), np.float32),
            np.empty((s.n_steps, n), np.float32),
        )
        rewards, ended = np.empty((s.n_steps, n), np.float32), np.zeros((s.n_steps, n), bool)
        free = self.free
        for t in range(s.n_steps):
            x = features(self.observation_space, observation)
            out, values[t] = self.look(x)
            chosen = self.distribution.sample(out, free, self.rng)
            log_probs[t] = self.distribution.log_prob(out, free, chosen)
            step = env.step(self.to_env(chosen))
            shown.append(x)
            actions.append(chosen)
            rewards[t] = step.reward
            over = None
            if step.final_observation is not None:
                over = ended[t] = step.terminated | step.truncated
                rewards[t] += self._cut_off(step)
                self.forget(over)
            observation = self.observation = step.observation
            self.count_step(step.reward, over)
        last = self.value_now(observation, slice(None))
        advantages = advantages_of(rewards, values, ended, last, s.gamma, s.gae_lambda)
        return Rollout(
            np.concatenate(shown),
            np.concatenate(actions),
            log_probs.reshape(-1),
            values.reshape(-1),
            advantages.reshape(-1),
            (advantages + values).reshape(-1),
            ended,
        )

    def _cut_off(self, step: Step) -> Array:
        """What episodes that were cut by a limit of time would still have brought, (N,)."""
        future = np.zeros(self.env.num_envs, np.float32)
        if step.truncated.any() and step.final_observation is not None:
            rows = step.truncated.nonzero()[0]
            future[rows] = self.settings.gamma * self.value_now(step.final_observation[rows], rows)
        return future

    def forward(self, x: Any) -> tuple[Tensor, Tensor]:
        """The network's answers for the rows of a mini-batch, to be differentiated."""
        out, values = self.network(Tensor(x))
        return out, values

    def descend(self, x: Any, d_out: Any, d_values: Any) -> dict[str, float]:
        """One step of the optimizer.

        Args:
            x: what `forward` takes.
            d_out: of what the network gives and the free parameters: the gradient for these, and
                figures to log.
            d_values: of the values: the gradient for them.

        Returns:
            The figures, with the norm of the gradient.

        Raises:
            GradError, OutOfMemoryError: before anything is updated; see `diverging`.
        """
        for p in self._parameters:
            p.grad = None
        told_as: dict[str, Any] = {"step": self.steps, "whose": self.name, "forward": self.forward}
        with memory_told(self.network, self.optimizer, x, **told_as):
            out, values = self.forward(x)
            gradient, d_free, figures = d_out(out.array)
            d_v = d_values(values.array)
            backward([out, values], [Tensor(gradient), Tensor(d_v)])
        if d_free is not None and self.network.log_std is not None:
            self.network.log_std.grad = Tensor(d_free)
        norm = float(optim.clip_grad_norm_(self._parameters, self.settings.max_grad_norm).item())
        loss = sum(value for name, value in figures.items() if name.endswith("loss"))
        check_update(norm, self.network, self.optimizer, x, gradient, d_v, loss=loss, **told_as)
        self.optimizer.step()
        told: dict[str, float] = {**figures, "grad_norm": norm}
        return told
