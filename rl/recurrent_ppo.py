"""PPO with a memory: an LSTM reads the observations, and what it remembers goes to the policy.

For environments that do not show everything: velocities, what was seen long ago, whose turn it is.
The losses are those of `ppo.py`; what differs is that the network's answer depends on the episode
so far. Five details, as Huang et al. 2022 list them:

    1. the LSTM's weights begin orthogonally, its biases at zero;
    2. its memory begins at zero;
    3. at the end of an episode it is put back to zero;
    4. mini-batches are made of whole sequences, not of single steps;
    5. learning runs through each sequence from the memory that it began with.

A sequence ends where the episode or the rollout does. Those of a mini-batch are of different
lengths: they lie in an array (steps of the longest, sequences), and the rest is masked.

Sources: Hochreiter and Schmidhuber 1997; Mnih et al. 2016 for policies with an LSTM.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ..core import nn
from ..core.errors import ShapeError
from ..core.nn import functional as F
from ..core.ops.recurrent import lstm_scan
from ..core.ops.scans import sigmoid_in_place
from ..core.state import inference_mode
from ..core.tensor import Tensor
from .environments.base import count
from .on_policy import Array, Rollout
from .policies import Distribution, TanhLayers, distribution_of
from .ppo import PPO
from .ppo import Settings as PPOSettings
from .q_networks import Pixels, features, is_picture
from .spaces import Space

Memory = tuple[Array, Array]  # the LSTM's state and cell, (N, features) each


@dataclass(frozen=True)
class Settings(PPOSettings):
    """Hyper-parameters of PPO, and the size of the memory; defaults as in sb3-contrib.

    Attributes:
        memory: numbers that the LSTM remembers.
        n_steps: steps of every environment between updates: the longest sequence.
        batch_size: about so many steps in a mini-batch, of whole sequences.
    """

    memory: int = 64
    n_steps: int = 128
    batch_size: int = 128

    def __post_init__(self) -> None:
        super().__post_init__()
        count("memory", self.memory)


@dataclass
class Sequences:
    """The sequences of a mini-batch.

    Attributes:
        features: (T, B, ...), zeros behind the end of a sequence.
        mask: (T, B), False there.
        memory: what the LSTM remembered before each, (B, memory).
    """

    features: Array
    mask: Array
    memory: Memory


class RecurrentPolicy(nn.Module):
    """An LSTM, and on what it remembers a policy and values.

    Pictures go through convolutions first.

    Shape: sequences -> what the distribution wants, and values, for every step that is not masked:
        sequence after sequence
    """

    def __init__(
        self, space: Space, memory: int, outputs: int, hidden: tuple[int, ...], free: int
    ) -> None:
        self.pixels: Pixels | None = Pixels(space.shape) if is_picture(space) else None
        size = space.features if self.pixels is None else self.pixels.features
        self.lstm = nn.LSTMCell(size, memory)
        for name, parameter in self.lstm.named_parameters():
            if name.startswith("weight"):
                nn.init.orthogonal_(parameter, 1.0)
            else:
                nn.init.zeros_(parameter)
        self.actor = TanhLayers([memory, *hidden, outputs], 0.01)
        self.critic = TanhLayers([memory, *hidden, 1], 1.0)
        self.log_std: nn.Parameter | None = (
            nn.Parameter(np.zeros(free, np.float32)) if free else None
        )

    def forward(self, x: Sequences) -> tuple[Tensor, Tensor]:
        cell = self.lstm
        steps, number = x.mask.shape
        seen = Tensor(x.features.reshape(steps * number, *x.features.shape[2:]))
        if self.pixels is not None:
            seen = F.relu(self.pixels(seen))
        gates = F.linear(seen, cell.weight_ih, self.bias)
        gates = gates.reshape(steps, number, -1)
        h, c = x.memory
        states = lstm_scan(
            gates, Tensor(h), Tensor(c), cell.weight_hh, None, Tensor(x.mask), reverse=False
        )[0]
        flat = states.reshape(steps * number, -1)
        rows = np.arange(steps * number).reshape(steps, number).T[x.mask.T]
        remembered = flat[rows]
        return self.actor(remembered), self.critic(remembered).reshape(len(rows))

    @property
    def bias(self) -> Tensor:
        """Both biases of the LSTM, which are only ever added."""
        cell = self.lstm
        assert cell.bias_ih is not None and cell.bias_hh is not None
        return cell.bias_ih + cell.bias_hh

    def bare(self, x: Array, memory: Memory) -> tuple[Array, Array, Memory]:
        """One step of all environments as arrays: answers, values, and the new memory."""
        if self.pixels is not None:
            with inference_mode():
                x = F.relu(self.pixels(Tensor(x))).array
        h, c = memory
        cell = self.lstm
        assert cell.bias_ih is not None and cell.bias_hh is not None
        gates = x @ cell.weight_ih.array.T + h @ cell.weight_hh.array.T
        gates += cell.bias_ih.array + cell.bias_hh.array
        size = c.shape[1]
        sigmoid_in_place(np, gates[:, : 2 * size])
        sigmoid_in_place(np, gates[:, 3 * size :])
        # In torch's order: input, forget, cell, output.
        c = gates[:, size : 2 * size] * c
        c += gates[:, :size] * np.tanh(gates[:, 2 * size : 3 * size])
        h = gates[:, 3 * size :] * np.tanh(c)
        return self.actor.bare(h), self.critic.bare(h)[:, 0], (h, c)


class Player:
    """Plays with an agent and remembers the episodes: what `evaluate` and `record` act through.

    Args:
        agent: the agent.
        num_envs: environments that are played.
    """

    def __init__(self, agent: RecurrentPPO, num_envs: int) -> None:
        self.agent, self.memory = agent, agent.no_memory(num_envs)

    def act(self, observation: Any, deterministic: bool = True) -> Array:
        """The actions now; the observations are remembered."""
        action, self.memory = self.agent.predict(
            observation, self.memory, deterministic=deterministic
        )
        return action

    def forget(self, ended: Array) -> None:
        """Episodes ended in these rows, (N,) bool."""
        for part in self.memory:
            part[ended] = 0


class RecurrentPPO(PPO):
    """Proximal policy optimisation with a memory, for choices and for numbers.

    `act` sees an observation as the first of an episode. What plays on gives the memory along, as
    in Stable-Baselines3: `action, memory = agent.predict(observation, memory, episode_start)`.
    """

    Settings: ClassVar[type[Any]] = Settings
    network: Any

    def build(self) -> None:
        s = self.settings
        self.distribution: Distribution = distribution_of(self.action_space, self.name)
        head = self.distribution
        self.network = RecurrentPolicy(
            self.observation_space, s.memory, head.outputs, s.hidden, head.free
        )
        self._parameters = list(self.network.parameters())
        self.optimizer = self.make_optimizer()
        self.memory = self.no_memory(self.env.num_envs)  # of the environments it learns in
        self._first = self.memory  # before the rollout

    def no_memory(self, number: int) -> Memory:
        """What is remembered at the beginning of episodes."""
        size = self.settings.memory
        return np.zeros((number, size), np.float32), np.zeros((number, size), np.float32)

    # -- acting ------------------------------------------------------------------------------

    def choose(self, observations: Array, deterministic: bool) -> Array:
        return self._chosen(observations, self.no_memory(len(observations)), deterministic)[0]

    def _chosen(
        self, observations: Array, memory: Memory, deterministic: bool
    ) -> tuple[Array, Memory]:
        x = features(self.observation_space, observations)
        out, _, after = self.network.bare(x, memory)
        if deterministic:
            return self.distribution.best(out), after
        return self.distribution.sample(out, self.free, self.rng), after

    def predict(
        self,
        observation: Any,
        state: Any = None,
        episode_start: Any = None,
        deterministic: bool = False,
    ) -> tuple[Array, Any]:
        """The action, and what is to be given as `state` with the next observation.

        Args:
            observation: one, or one for each of N environments.
            state: what the last call gave; None at the beginning.
            episode_start: (N,) bool, where a new episode begins: there the memory is put to zero.

        Raises:
            ShapeError: the state, or `episode_start`, is of another number of environments.
        """
        batch = self.checked(observation)
        single = batch.ndim == np.ndim(observation) + 1
        size = (len(batch), self.settings.memory)
        memory = self.no_memory(len(batch)) if state is None else tuple(map(np.array, state))
        if len(memory) != 2 or any(part.shape != size for part in memory):
            raise ShapeError(
                f"RecurrentPPO.predict: the state of {len(batch)} environments is two arrays "
                f"{size}; got {[part.shape for part in memory]}.\n"
                "It is what the last call of predict gave; None begins anew.",
                expected=size,
            )
        if episode_start is not None:
            begun = np.asarray(episode_start, bool).reshape(-1)
            if begun.shape != (len(batch),):
                raise ShapeError(
                    f"RecurrentPPO.predict: episode_start has {len(begun)} entries for "
                    f"{len(batch)} environments",
                    expected=len(batch),
                    got=len(begun),
                )
            for part in memory:
                part[begun] = 0
        chosen, after = self._chosen(batch, (memory[0], memory[1]), deterministic)
        actions = self.to_env(chosen)
        return (actions[0] if single else actions), after

    def player(self, num_envs: int) -> Player:
        """Something that plays whole episodes, and remembers them."""
        return Player(self, num_envs)

    def value(self, observations: Array) -> Array:
        """How good it is to begin there, (N,)."""
        return self._values(observations, self.no_memory(len(observations)))

    def _values(self, observations: Array, memory: Memory) -> Array:
        found: Array = self.network.bare(features(self.observation_space, observations), memory)[1]
        return found

    # -- learning ----------------------------------------------------------------------------

    def look(self, x: Array) -> tuple[Array, Array]:
        out, values, self.memory = self.network.bare(x, self.memory)
        return out, values

    def forget(self, ended: Array) -> None:
        for part in self.memory:
            part[ended] = 0

    def value_now(self, observations: Array, rows: Any) -> Array:
        h, c = self.memory
        return self._values(observations, (h[rows], c[rows]))

    def _gather(self) -> Rollout:
        h, c = self.memory
        self._first = h.copy(), c.copy()
        return super()._gather()

    def batches(self, rollout: Rollout) -> Iterator[tuple[Array, Sequences]]:
        """Whole sequences in a new order, until about `batch_size` steps are together."""
        found = sequences_of(rollout.ended)
        waiting: list[tuple[int, int, int]] = []
        steps = 0
        for i in self.rng.permutation(len(found)):
            waiting.append(found[i])
            steps += found[i][2] - found[i][1]
            if steps >= self.settings.batch_size:
                yield self._together(rollout, waiting)
                waiting, steps = [], 0
        if waiting:
            yield self._together(rollout, waiting)

    def _together(
        self, rollout: Rollout, chosen: list[tuple[int, int, int]]
    ) -> tuple[Array, Sequences]:
        """The rows of sequences, one after the other, and what the network takes for them."""
        number = rollout.ended.shape[1]
        rows = [np.arange(start, end) * number + env for env, start, end in chosen]
        longest = max(map(len, rows))
        mask = np.zeros((longest, len(rows)), bool)
        x = np.zeros((*mask.shape, *rollout.features.shape[1:]), np.float32)
        h, c = self.no_memory(len(rows))
        for i, (env, start, _) in enumerate(chosen):
            x[: len(rows[i]), i] = rollout.features[rows[i]]
            mask[: len(rows[i]), i] = True
            if start == 0:  # it goes on with what was remembered before the rollout
                h[i], c[i] = self._first[0][env], self._first[1][env]
        return np.concatenate(rows), Sequences(x, mask, (h, c))

    def forward(self, x: Any) -> tuple[Tensor, Tensor]:
        out, values = self.network(x)
        return out, values

    def extra_state(self) -> dict[str, Any]:
        return {**super().extra_state(), "memory": list(self.memory)}

    def load_extra_state(self, state: Mapping[str, Any]) -> None:
        super().load_extra_state(state)
        h, c = (np.array(part, np.float32) for part in state["memory"])
        self.memory = h, c


def sequences_of(ended: Array) -> list[tuple[int, int, int]]:
    """Environment, first step and the step behind the last, of every sequence of a rollout.

    Args:
        ended: whether an episode ended with a step, (T, N).
    """
    steps, number = ended.shape
    found = []
    for env in range(number):
        ends = [*(ended[:, env].nonzero()[0] + 1).tolist(), steps]
        start = 0
        for end in ends:
            if end > start:
                found.append((env, start, end))
            start = end
    return found
