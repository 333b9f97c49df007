"""Decision transformer: continues a recording so that it earns what is asked for.

Chen et al. 2021, "Decision transformer: reinforcement learning via sequence modeling". A small
causal transformer reads the last `context` steps, each as three tokens: the return that is still
to come R, the observation s, the action a,

    R_1 s_1 a_1 R_2 s_2 a_2 ... R_t s_t -> a_t

and is trained as behaviour cloning is, on every step of pieces of recorded episodes. When it acts,
R_1 is the return that is asked for, and R falls by every reward: R_{t+1} = R_t - r_t.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ..core import nn, optim
from ..core.errors import ConfigError
from ..core.nn import functional as F
from ..core.nn.module import Module
from ..core.ops.shape import permute_dims, stack
from ..core.state import inference_mode
from ..core.tensor import Tensor
from .actor_critic import require_vector
from .c51 import softmax
from .diverging import check_update
from .environments.base import count
from .environments.make import make
from .episodes import Episodes
from .evaluation import Evaluation
from .offline import Offline
from .q_networks import features
from .spaces import Box


@dataclass(frozen=True)
class Settings:
    """Hyper-parameters of the decision transformer; Chen et al. 2021, scaled to small tasks.

    Attributes:
        context: steps that it sees (Chen et al. 2021: 20 for control).
        width, layers, heads: size of the transformer.
        longest: the greatest number of a step in an episode.
        learning_rate, weight_decay: of AdamW.
        max_grad_norm: gradients are scaled down to this norm.
        warmup: updates in which the rate rises.
        batch_size: pieces of episodes in an update.
        return_scale: returns are divided by it; None for the greatest size in the data.
        target_return: what `act` and `play_episodes` ask for; None for the best of the data.
    """

    context: int = 20
    width: int = 64
    layers: int = 2
    heads: int = 2
    longest: int = 1000
    learning_rate: float = 1e-3
    weight_decay: float = 1e-4
    max_grad_norm: float = 1.0
    warmup: int = 100
    batch_size: int = 64
    return_scale: float | None = None
    target_return: float | None = None

    def __post_init__(self) -> None:
        for name in "context width layers heads longest batch_size warmup".split():
            count(name, getattr(self, name))
        if self.width % self.heads:
            raise ConfigError(f"width {self.width} is no multiple of {self.heads} heads")
        if not (self.learning_rate > 0 and self.weight_decay >= 0 and self.max_grad_norm > 0):
            raise ConfigError(
                "learning_rate and max_grad_norm are above 0, weight_decay at least 0"
            )
        if self.return_scale is not None and not self.return_scale > 0:
            raise ConfigError(f"return_scale is above 0, not {self.return_scale!r}")


class Block(nn.Module):
    """Attention to what came before, then a perceptron, both after a norm and added."""

    def __init__(self, width: int, heads: int) -> None:
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        b, t, d = x.shape
        qkv = self.qkv(self.norm1(x)).reshape(b, t, 3, self.heads, d // self.heads)
        q, k, v = (permute_dims(qkv[:, :, i], (0, 2, 1, 3)) for i in range(3))
        seen = F.scaled_dot_product_attention(q, k, v, mask)
        x = x + self.out(permute_dims(seen, (0, 2, 1, 3)).reshape(b, t, d))
        out: Tensor = x + self.down(F.gelu(self.up(self.norm2(x))))
        return out


class Network(nn.Module):
    """The transformer over returns, observations and actions.

    Shape: returns (B, K, 1), observations (B, K, S), actions (B, K, A) features, times (B, K)
        int64, mask (B, 1, 3K, 3K) bool -> (B, K, A)
    """

    def __init__(self, seen: int, done: int, s: Settings, *, squash: bool) -> None:
        self.squash = squash
        self.of_return = nn.Linear(1, s.width)
        self.of_observation = nn.Linear(seen, s.width)
        self.of_action = nn.Linear(done, s.width)
        self.of_time = nn.Embedding(s.longest, s.width)
        self.norm = nn.LayerNorm(s.width)
        self.blocks = [Block(s.width, s.heads) for _ in range(s.layers)]
        self.head = nn.Linear(s.width, done)

    def forward(
        self, returns: Tensor, observations: Tensor, actions: Tensor, times: Tensor, mask: Tensor
    ) -> Tensor:
        time = self.of_time(times)
        parts = [
            self.of_return(returns) + time,
            self.of_observation(observations) + time,
            self.of_action(actions) + time,
        ]
        b, k, d = time.shape
        x = stack(parts, axis=2).reshape(b, 3 * k, d)  # R s a R s a ...
        x = self.norm(x)
        for block in self.blocks:
            x = block(x, mask)
        # The token of an observation has seen everything before its action.
        out: Tensor = self.head(x.reshape(b, k, 3, d)[:, :, 1])
        return F.tanh(out) if self.squash else out


class DecisionTransformer(Offline):
    """Sequence modelling of recorded episodes, conditioned on their returns.

    `act` sees one observation and asks for `target_return`; `play_episodes` remembers what came
    before, which is what the model is made for.
    """

    Settings: ClassVar[type[Any]] = Settings
    settings: Any

    def build(self) -> None:
        s = self.settings
        require_vector(self.name, self.observation_space)
        seen, done = self.observation_space.features, self.action_space.features
        self.continuous = isinstance(self.action_space, Box)
        self.network = Network(seen, done, s, squash=self.continuous)
        self.optimizer = optim.AdamW(
            self.network.parameters(), s.learning_rate, weight_decay=s.weight_decay
        )
        self._parameters = list(self.network.parameters())
        # Mean and deviation of observations, scale of returns, return to ask for: of the data.
        self.statistics = Statistics(seen, s)

    def modules(self) -> dict[str, Module]:
        return {"network": self.network, "statistics": self.statistics}

    def optimizers(self) -> dict[str, optim.Optimizer]:
        return {"optimizer": self.optimizer}

    def prepare(self, data: Episodes) -> None:
        if data.lengths.max() > self.settings.longest:
            raise ConfigError(
                f"DecisionTransformer: an episode has {data.lengths.max()} steps, and longest is "
                f"{self.settings.longest}.\nlongest={data.lengths.max()}",
                expected=int(data.lengths.max()),
            )
        inputs = features(self.observation_space, data.observations)
        self.statistics.measure(inputs, data.returns_to_go(), data.returns, self.settings)
        self.inputs = self.statistics.normal(inputs)
        self.labels = self.from_env(data.actions)
        self.to_go = self.statistics.scaled(data.returns_to_go())
        self.time = np.arange(len(inputs)) - data.starts.repeat(data.lengths)

    def action_features(self, labels: np.ndarray) -> np.ndarray:
        """Actions in the agent's numbers as a network takes them: classes one-hot."""
        if self.continuous:
            return labels
        classes: np.ndarray = np.eye(self.action_space.features, dtype=np.float32)[labels]
        return classes

    def update(self) -> dict[str, float]:
        s = self.settings
        last = self.rng.integers(0, len(self.inputs), s.batch_size)
        # Pieces that end at `last`; what would lie before the episode is masked.
        steps = last[:, None] + np.arange(1 - s.context, 1)
        real = steps >= (last - self.time[last])[:, None]
        steps = np.where(real, steps, last[:, None])
        label = self.labels[steps]
        given = self.to_go[steps], self.inputs[steps], label, self.time[steps], real
        out = self.run(*given)
        share = np.float32(1 / real.sum())
        if self.continuous:
            error = (out.array - label) * real[..., None]
            gradient = error * (2 * share / label.shape[-1])
            loss = float(np.vdot(error, error)) * float(share) / label.shape[-1]
        else:
            got = softmax(out.array)
            wanted = self.action_features(label)
            loss = -float((np.log((got * wanted).sum(axis=-1) + 1e-8) * real).sum() * share)
            gradient = (got - wanted) * real[..., None] * share
        self.optimizer.zero_grad()
        gradient = gradient.astype(np.float32)
        out.backward(Tensor(gradient))
        norm = float(optim.clip_grad_norm_(self._parameters, s.max_grad_norm).item())
        check_update(
            norm,
            self.network,
            self.optimizer,
            given,
            gradient,
            step=self.steps,
            whose=self.name,
            loss=loss,
            forward=lambda inputs: self.run(*inputs),
        )
        group = self.optimizer.param_groups[0]
        group["lr"] = s.learning_rate * min(1.0, self.steps / s.warmup)
        self.optimizer.step()
        return {"loss": loss}

    def run(
        self,
        returns: np.ndarray,
        inputs: np.ndarray,
        actions: np.ndarray,
        time: np.ndarray,
        real: np.ndarray,
    ) -> Tensor:
        """The network on pieces; `real` says which of their steps there are."""
        k = real.shape[1]
        tokens = real.repeat(3, axis=1)
        before = np.tril(np.ones((3 * k, 3 * k), bool))
        mask = (tokens[:, None, :] & before) | np.eye(3 * k, dtype=bool)
        out: Tensor = self.network(
            Tensor(returns[..., None]),
            Tensor(inputs),
            Tensor(self.action_features(actions)),
            Tensor(time),
            Tensor(mask[:, None]),
        )
        return out

    def choose(self, observations: np.ndarray, deterministic: bool) -> np.ndarray:
        memory = self.begin(len(observations))
        return memory.choose(observations)

    def begin(self, num: int, target_return: float | None = None) -> Memory:
        """Begin episodes in `num` environments; what it gives acts and remembers."""
        return Memory(self, num, target_return)

    def play_episodes(
        self,
        episodes: int = 20,
        env: Any = None,
        *,
        target_return: float | None = None,
        seed: int = 10_000,
    ) -> Evaluation:
        """Play one episode in each of `episodes` environments, asking for a return.

        Args:
            episodes: how many, all at once.
            env: where; the kind that the agent was made with unless given.
            target_return: what to ask for; that of the settings unless given.
            seed: of the environments.
        """
        envs = make(self.env.kind if env is None else env, count("episodes", episodes))
        memory = self.begin(episodes, target_return)
        observation = envs.reset(seed)
        total, length = np.zeros(episodes), np.zeros(episodes, np.int64)
        on = np.ones(episodes, np.bool_)
        while on.any():
            step = envs.step(self.to_env(memory.choose(observation)))
            total += step.reward * on
            length += on
            on &= ~(step.terminated | step.truncated)
            memory.earn(step.reward)
            observation = step.observation
        return Evaluation(tuple(total.tolist()), tuple(length.tolist()))


class Memory:
    """What a decision transformer saw and did in N episodes that go on together."""

    def __init__(self, agent: DecisionTransformer, num: int, target: float | None) -> None:
        self.agent = agent
        k = agent.settings.context
        statistics = agent.statistics
        target = statistics.target if target is None else float(target)
        if not math.isfinite(target):
            raise ConfigError(f"DecisionTransformer: the return to ask for is {target}")
        self.left = np.full(num, target, np.float64)
        self.returns = np.zeros((num, k), np.float32)
        self.inputs = np.zeros((num, k, agent.observation_space.features), np.float32)
        shape = (num, k, agent.action_space.features) if agent.continuous else (num, k)
        self.actions = np.zeros(shape, np.float32 if agent.continuous else np.int64)
        self.steps = 0

    def choose(self, observations: np.ndarray) -> np.ndarray:
        """The next actions, in the agent's numbers."""
        agent, k = self.agent, self.agent.settings.context
        for array in (self.returns, self.inputs, self.actions):
            array[:, :-1] = array[:, 1:]
        inputs = features(agent.observation_space, observations)
        self.inputs[:, -1] = agent.statistics.normal(inputs)
        self.returns[:, -1] = agent.statistics.scaled(self.left)
        self.actions[:, -1] = 0  # not seen by the token that it is read from
        number = np.arange(self.steps - k + 1, self.steps + 1)
        real = np.broadcast_to(number >= 0, (len(inputs), k))
        time = np.broadcast_to(
            np.clip(number, 0, agent.settings.longest - 1).astype(np.int64), real.shape
        )
        with inference_mode():
            out = agent.run(self.returns, self.inputs, self.actions, time.copy(), real).array[:, -1]
        chosen: np.ndarray = out if agent.continuous else out.argmax(axis=-1)
        self.actions[:, -1] = chosen
        self.steps += 1
        return chosen

    def earn(self, reward: np.ndarray) -> None:
        """Take the rewards of the step from what is still asked for."""
        self.left -= reward


class Statistics(nn.Module):
    """Scales of the data, kept with the weights."""

    def __init__(self, seen: int, s: Settings) -> None:
        self.mean = nn.Buffer(np.zeros(seen, np.float32))
        self.deviation = nn.Buffer(np.ones(seen, np.float32))
        self.returns = nn.Buffer(np.array([s.return_scale or 1.0, s.target_return or 0.0]))

    def measure(
        self, inputs: np.ndarray, to_go: np.ndarray, returns: np.ndarray, s: Settings
    ) -> None:
        """Take the scales of data, where the settings do not give them."""
        self.mean.array[...] = inputs.mean(axis=0)
        self.deviation.array[...] = inputs.std(axis=0) + 1e-6
        scale = s.return_scale or max(1e-6, float(np.abs(to_go).max()))
        target = float(returns.max()) if s.target_return is None else s.target_return
        self.returns.array[...] = scale, target

    @property
    def target(self) -> float:
        return float(self.returns.array[1])

    def normal(self, inputs: np.ndarray) -> np.ndarray:
        """Observations with mean 0 and deviation 1."""
        out: np.ndarray = (inputs - self.mean.array) / self.deviation.array
        return out

    def scaled(self, returns: np.ndarray) -> np.ndarray:
        """Returns of about 1."""
        return np.asarray(returns / self.returns.array[0], np.float32)
