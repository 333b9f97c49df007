"""What the algorithms that learn from a memory share: settings, acting, saving, exact resume.

A subclass says what its networks are (`build`), how it chooses actions (`choose`), and how one
round of experience and learning goes (`advance`).
"""

from __future__ import annotations

import dataclasses
import difflib
import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np

from ..core import optim
from ..core.errors import ConfigError, DataError, ShapeError, WeightsError
from ..core.insight.progress import progress as show_progress
from ..core.nn.module import Module
from ..core.notice import warn_once
from ..core.random import manual_seed, numpy_rng
from ..core.training.state import packed, unpacked
from ..core.training.store import CheckpointStore
from ..core.weights.safetensors import load_file, save_file
from .callbacks import Callback, gathered, restore, state_of
from .environments.base import NO_STATE, VectorEnv, checked_seed, count
from .environments.elsewhere import Elsewhere
from .environments.make import make
from .history import Log, text_of
from .spaces import Box, Discrete, Space, from_json

if TYPE_CHECKING:
    from ..core.insight.runs.writer import Run
    from .evaluation import Evaluation

_AGENT, _WEIGHTS = "agent.json", "agent.safetensors"

# Called after every round with the agent; False ends the learning.


class Learner(ABC):
    """Base of agents that learn from a memory.

    Args:
        env: an environment, its id, a function that makes one, or "module:Class"; see `make`.
        policy: "mlp", or "cnn" for pictures, which is found by itself. Also taken in
            Stable-Baselines3's order, `DQN("MlpPolicy", env)`.
        seed: of everything that is drawn.
        num_envs: copies of the environment that step together.
        settings: the fields of `Settings`.

    Attributes:
        settings: the hyper-parameters.
        steps: steps of environments that it learned from.
        history: what `learn` logged, one dict for each line.
    """

    Settings: ClassVar[type[Any]]
    actions: ClassVar[str] = "any"  # "discrete", "continuous" or "any"

    def __init__(
        self, env: Any, policy: Any = "mlp", *, seed: int = 0, num_envs: int = 1, **settings: Any
    ) -> None:
        if isinstance(env, str) and env.lower() in _POLICIES:
            env, policy = policy, env
        if not (isinstance(policy, str) and policy.lower() in _POLICIES):
            raise ConfigError(
                f"{self.name}: the policy is one of mlp, cnn, MlpPolicy and CnnPolicy, not "
                f"{policy!r}",
                got=policy,
            )
        checked_seed(seed)
        self.settings = self._read_settings(settings)
        self.seed = int(seed)
        self.env: VectorEnv = make(env, count(f"{self.name}: num_envs", num_envs), seed=seed)
        self._begin(self.env.observation_space, self.env.action_space)

    def _begin(self, observation_space: Space, action_space: Space) -> None:
        self.observation_space, self.action_space = observation_space, action_space
        self._check_spaces()
        # Not the stream of the environments, with which actions would be correlated.
        self.rng = np.random.default_rng([self.seed, 1])
        self.steps = 0
        self.iterations = 0
        self.began = self.until = 0  # steps at which the present call of `learn` began and ends
        self._calls: list[Callback] = []
        self._log = Log(self)
        self.progress = 0.0  # of the present call of `learn`, from 0 to 1
        self.history: list[dict[str, float]] = []
        self.returns: list[float] = []  # of the last 100 episodes
        self.lengths: list[int] = []
        self.observation: np.ndarray | None = None
        manual_seed(self.seed)  # initial weights come from the global stream
        self.build()

    @property
    def name(self) -> str:
        """The name of the algorithm."""
        return type(self).__name__

    def _repr_html_(self) -> str:
        from ..core.insight.notebook import agent_html

        return agent_html(self)

    # -- what a subclass gives ---------------------------------------------------------------

    @abstractmethod
    def build(self) -> None:
        """Make networks and optimizers."""

    @abstractmethod
    def modules(self) -> dict[str, Module]:
        """The networks, by the names under which they are saved; the first of them acts."""

    @abstractmethod
    def optimizers(self) -> dict[str, optim.Optimizer]:
        """The optimizers, by name."""

    @abstractmethod
    def choose(self, observations: np.ndarray, deterministic: bool) -> np.ndarray:
        """Actions for observations, in the agent's own numbers: see `to_env`."""

    @abstractmethod
    def advance(self) -> dict[str, float]:
        """Gather some experience and learn from it; returns what to log."""

    def extra_state(self) -> dict[str, Any]:
        """What a checkpoint keeps besides networks, optimizers, environment and generators."""
        return {}

    def load_extra_state(self, state: Mapping[str, Any]) -> None:  # noqa: B027 (may be nothing)
        """Take back what `extra_state` gave."""

    # -- acting ------------------------------------------------------------------------------

    def to_env(self, actions: np.ndarray) -> np.ndarray:
        """The agent's numbers as actions of the environment: it counts from 0, and from -1 to 1."""
        space = self.action_space
        if isinstance(space, Box):
            half = 0.5 * (space.high - space.low)
            middle = 0.5 * (space.high + space.low)
            scaled = np.clip(middle + half * actions, space.low, space.high)
            return np.asarray(scaled, space.dtype)
        if isinstance(space, Discrete) and space.start:
            return actions + space.start
        return actions

    def act(self, observation: Any, deterministic: bool = True) -> np.ndarray:
        """The action for an observation, or for each of several.

        Shape: (...) of the space, or (N, ...) -> an action of the space, or (N, ...)

        Raises:
            ShapeError: it is no observation of this agent's environment.
            DataError: there is NaN in it.
        """
        batch = self.checked(observation)
        actions = self.to_env(self.choose(batch, deterministic))
        return actions[0] if batch.ndim == np.ndim(observation) + 1 else actions

    def checked(self, observation: Any) -> np.ndarray:
        """An observation, or several, as several: (N, ...), of the space's type.

        Raises:
            ShapeError, DataError: see `act`.
        """
        array = np.asarray(observation)
        space = self.observation_space
        batch = array[None] if array.shape == space.shape else array
        if batch.shape[1:] != space.shape or batch.ndim != len(space.shape) + 1:
            raise ShapeError(
                f"{self.name}: an observation has shape {space.shape}, several (N, "
                f"{', '.join(map(str, space.shape))}); got {array.shape}.\n"
                f"The agent was trained in {space}.",
                expected=space.shape,
                got=array.shape,
            )
        if batch.dtype.kind == "f" and not np.isfinite(batch).all():
            raise DataError(f"{self.name}: the observation holds NaN or infinity.")
        return batch.astype(space.dtype, copy=False)

    def predict(
        self,
        observation: Any,
        state: Any = None,
        episode_start: Any = None,
        deterministic: bool = False,
    ) -> tuple[np.ndarray, Any]:
        """The pair that Stable-Baselines3 gives: the action, and the state, here None."""
        return self.act(observation, deterministic), None

    def play(
        self,
        env: Any = None,
        episodes: int = 1,
        *,
        record: str | Path | None = None,
        seed: int = 10_000,
    ) -> Evaluation:
        """Play whole episodes without learning.

        Args:
            env: where; a new one of the agent's own kind unless given.
            record: a file that ends in .gif or .webp, for what is seen.
            seed: of the environment.
        """
        from . import evaluation

        if record is not None:
            return evaluation.record(self, record, env, episodes=episodes, seed=seed)
        return evaluation.evaluate(self, env, episodes, seed=seed)

    # -- learning ----------------------------------------------------------------------------

    def learn(
        self,
        steps: int,
        callbacks: Callback | Iterable[Callback] = (),
        progress: bool = True,
        out: str | Path | None = None,
        resume: str | Path | None = None,
        checkpoint_every: int | None = None,
        run: Run | None = None,
    ) -> Self:
        """Learn from `steps` more steps of environments.

        Args:
            steps: how many, over all copies of the environment.
            callbacks: called after every round with the agent; one that returns False ends it. See
                `rl.callbacks` for evaluations, checkpoints and an early end.
            progress: whether to show it.
            out: folder for checkpoints and, at the end, the agent (`agent/`).
            resume: a folder that was `out` before: go on from its newest checkpoint, exactly.
            checkpoint_every: steps between checkpoints in `out`; by default one at the end.
            run: whose log gets the lines of the history.

        Raises:
            ConfigError: `steps` is no number of steps, there is nothing to resume, a callback
                cannot be called, or there are checkpoints without `out`.
        """
        count(f"{self.name}.learn: steps", steps)
        calls = gathered(self.name, callbacks, out, checkpoint_every, run)
        store = None if out is None else CheckpointStore(Path(out) / "checkpoints")
        self.began, self.until = self.steps, self.steps + steps
        self._calls, self._log = calls, Log(self)
        if resume is not None:
            self._resume(Path(resume))
        begun, target = self.began, self.until
        log = self._log
        what = f"{self.name} {self.env.id}"
        with show_progress(total=target, what=what, enabled=None if progress else False) as shown:
            shown.update(self.steps)
            stopped = False
            while self.steps < target and not stopped:
                self.progress = (self.steps - begun) / max(1, target - begun)
                before = self.steps
                figures = self.advance()
                self.iterations += 1
                line = log.add(figures, self.steps - before)
                shown.update(self.steps - before, None if line is None else text_of(line))
                for call in calls:
                    stopped |= call(self) is False
        self.progress = 1.0
        if store is not None and out is not None:
            self.checkpoint(store)
            self.save(Path(out) / "agent")
        return self

    def first_observation(self) -> np.ndarray:
        """What the environments show now; begins them the first time."""
        if self.observation is None:
            self.observation = self._begun(self.seed)
        return self.observation

    def count_step(self, reward: np.ndarray, ended: np.ndarray | None) -> None:
        """Keep the returns of episodes; `ended` is None where none did."""
        self.steps += self.env.num_envs
        self._return += reward
        self._length += 1
        if ended is not None:
            rows = ended.nonzero()[0]
            self.returns = (self.returns + self._return[rows].tolist())[-100:]
            self.lengths = (self.lengths + self._length[rows].tolist())[-100:]
            self._return[rows] = 0
            self._length[rows] = 0

    # -- files -------------------------------------------------------------------------------

    def save(self, folder: str | Path) -> Path:
        """Write the agent: `agent.json` and `agent.safetensors`."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        tensors = {
            f"{name}.{key}": tensor
            for name, module in self.modules().items()
            for key, tensor in module.state_dict().items()
        }
        save_file(tensors, folder / _WEIGHTS)
        card = {
            "algorithm": self.name,
            "environment": self.env.id,
            "observation_space": self.observation_space.to_json(),
            "action_space": self.action_space.to_json(),
            "settings": dataclasses.asdict(self.settings),
            "seed": self.seed,
            "steps": self.steps,
        }
        text = json.dumps(card, indent=1) + "\n"
        (folder / _AGENT).write_text(text, encoding="utf-8", newline="\n")
        return folder

    @classmethod
    def load(cls, folder: str | Path, env: Any = None) -> Self:
        """The agent that `save` wrote.

        Args:
            folder: where it is.
            env: to learn on in, or to play in; by default the one that it was trained in.

        Raises:
            WeightsError: the folder holds no agent, or one of another algorithm.
            ConfigError: the environment has other spaces.
        """
        folder = Path(folder)
        try:
            card = json.loads((folder / _AGENT).read_text(encoding="utf-8"))
            settings = {k: _tupled(v) for k, v in card["settings"].items()}
            spaces = from_json(card["observation_space"]), from_json(card["action_space"])
            seed, algorithm, name = int(card["seed"]), card["algorithm"], card["environment"]
            steps = int(card["steps"])
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise WeightsError(f"{folder} holds no agent: {_AGENT}: {error!r}") from None
        if algorithm != cls.__name__:
            raise WeightsError(
                f"{folder} holds an agent of {algorithm}, not of {cls.__name__}.\n"
                f"Load it with {algorithm}.load({str(folder)!r})",
                expected=cls.__name__,
                got=algorithm,
            )
        named: Any = name if env is None else env
        if env is None and ":" in name:  # the file does not decide what is imported
            named = Elsewhere(*spaces, named=name)
        agent = cls(named, seed=seed, **settings)
        if (agent.observation_space, agent.action_space) != spaces:
            raise ConfigError(
                f"{folder}: the agent sees {spaces[0]} and does {spaces[1]}; {agent.env.id} has "
                f"{agent.observation_space} and {agent.action_space}.",
                expected=spaces,
            )
        agent._load_tensors(load_file(folder / _WEIGHTS), str(folder))
        agent.steps = steps
        return agent

    def _load_tensors(self, tensors: Mapping[str, Any], where: str) -> None:
        for name, module in self.modules().items():
            start = f"{name}."
            own = {k.removeprefix(start): v for k, v in tensors.items() if k.startswith(start)}
            if not own:
                raise WeightsError(f"{where}: there is nothing of {name!r} among the weights")
            module.load_state_dict(own)

    def state(self) -> dict[str, Any]:
        """Everything that the future depends on, as arrays and JSON values."""
        state = {
            "modules": {k: dict(m.state_dict()) for k, m in self.modules().items()},
            "optimizers": {k: o.state_dict() for k, o in self.optimizers().items()},
            "steps": self.steps,
            "iterations": self.iterations,
            "rng": self.rng.bit_generator.state,
            "numpy": numpy_rng().bit_generator.state,
            "returns": self.returns,
            "lengths": self.lengths,
            "history": self.history,
            "extra": self.extra_state(),
        }
        if self.observation is not None:
            try:
                state["env"] = self.env.state()
            except ConfigError as error:  # one of the user's: it begins anew when all else goes on
                if error.facts.get("reason") != NO_STATE:
                    raise
            state["observation"] = self.observation
            state["return"], state["length"] = self._return, self._length
        return state

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on exactly where `state` was taken."""
        for name, module in self.modules().items():
            module.load_state_dict(state["modules"][name])
        for name, optimizer in self.optimizers().items():
            optimizer.load_state_dict(state["optimizers"][name])
        self.steps, self.iterations = int(state["steps"]), int(state["iterations"])
        self.rng.bit_generator.state = state["rng"]
        numpy_rng().bit_generator.state = state["numpy"]
        self.returns, self.lengths = list(state["returns"]), list(state["lengths"])
        self.history = list(state["history"])
        if "env" in state:
            self.env.load_state(state["env"])
            self.observation = np.array(state["observation"])
            self._return = np.array(state["return"])
            self._length = np.array(state["length"])
        self.load_extra_state(state["extra"])
        if "observation" in state and "env" not in state:
            warn_once(
                f"begins anew: {self.env.id}",
                f"{self.env.id} does not offer its state, so that new episodes begin there: what "
                "follows is not what would have followed without the interruption.",
            )
            self.begin_anew()

    def begin_anew(self) -> None:
        """Begin new episodes in the middle of a training."""
        self.observation = self._begun(self.seed + self.steps)

    def _begun(self, seed: int) -> np.ndarray:
        self._return = np.zeros(self.env.num_envs)
        self._length = np.zeros(self.env.num_envs, np.int64)
        return self.env.reset(seed)

    def checkpoint(self, store: CheckpointStore) -> None:
        """Write down everything that going on depends on, the present `learn` included."""
        told = {
            "begun": self.began,
            "target": self.until,
            "callbacks": state_of(self._calls),
            "log": self._log.state(),
        }
        state, tensors = packed({**self.state(), **told})
        store.save(self.steps, tensors, state)

    def _resume(self, folder: Path) -> None:
        found = CheckpointStore(folder / "checkpoints").newest()
        if found is None:
            raise ConfigError(f"{self.name}.learn: there is no checkpoint to resume in {folder}")
        state = unpacked(found.state, found.tensors)
        self.load_state(state)
        self.began, self.until = int(state["begun"]), int(state["target"])
        restore(self._calls, state.get("callbacks", {}))
        self._log = Log(self)
        if "log" in state:
            self._log.load_state(state["log"])

    # -- checks ------------------------------------------------------------------------------

    def _check_spaces(self) -> None:
        space = self.action_space
        fits = {
            "any": isinstance(space, (Box, Discrete)),
            "discrete": isinstance(space, Discrete),
            "continuous": isinstance(space, Box),
        }[self.actions]
        if not fits:
            others = "SAC, TD3 or PPO" if isinstance(space, Box) else "DQN, DiscreteSAC or PPO"
            raise ConfigError(
                f"{self.name} is for {self.actions} actions, and {self.env.id} has {space}.\n"
                f"For those: {others}.",
                expected=self.actions,
                got=space,
            )
        if isinstance(space, Box) and not (space.bounded and len(space.shape) == 1):
            raise ConfigError(
                f"{self.name}: continuous actions are a list of numbers between finite bounds, "
                f"and {self.env.id} has {space}.",
                got=space,
            )

    def _read_settings(self, given: Mapping[str, Any]) -> Any:
        known = [f.name for f in dataclasses.fields(self.Settings)]
        for key in given:
            if key not in known:
                near = difflib.get_close_matches(key, known, n=3)
                raise ConfigError(
                    f"{self.name} has no setting {key!r}."
                    + (f" Near: {', '.join(near)}." if near else "")
                    + f"\nIt has: {', '.join(known)}.",
                    unknown=key,
                )
        return self.Settings(**given)


_POLICIES = ("mlp", "cnn", "mlppolicy", "cnnpolicy")


def _tupled(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
