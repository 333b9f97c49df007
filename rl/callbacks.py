"""What is done now and then while an agent learns: evaluations, checkpoints, an early end, a log.

    agent.learn(100_000, [EvaluateEvery(10_000, "run", stop_at=475), CheckpointEvery(9000, "run")])

A callback is anything that is called with the agent after each round; False ends the learning.
Those here are `Remembering`: what they know is kept in checkpoints, so that a resumed training
does what the whole one would have done.
"""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core.errors import ConfigError
from ..core.insight.runs.structure import named_parameters
from ..core.training.log import Histograms
from ..core.training.store import CheckpointStore
from .environments.base import checked_seed, count
from .evaluation import Evaluation, evaluate, film

if TYPE_CHECKING:
    from ..core.insight.runs.writer import Run


_APART = 5.0  # seconds between histograms

#: Called with the agent after each round; False ends the learning.
Callback = Callable[[Any], bool | None]


class Remembering(ABC):
    """A callback with something that checkpoints keep.

    State is given back to the callback of the same class; of several of one class, in their order.
    """

    @abstractmethod
    def __call__(self, agent: Any) -> bool | None:
        """Look at the agent; False ends the learning."""

    @abstractmethod
    def state(self) -> dict[str, Any]:
        """What to keep, as JSON values."""

    @abstractmethod
    def load_state(self, state: Mapping[str, Any]) -> None:
        """Take back what `state` gave."""


class _Every(Remembering):
    """Does something whenever another `steps` steps are over."""

    def __init__(self, steps: int) -> None:
        self.steps = count(f"{type(self).__name__}: steps", steps)
        self._done: int | None = None  # how many times `steps` fits into the steps so far

    def __call__(self, agent: Any) -> bool | None:
        now = agent.steps // self.steps
        before, self._done = self._done, now
        if before is None:  # a round may be longer than `steps`
            before = agent.began // self.steps
        return self.act(agent) if now > before else None

    @abstractmethod
    def act(self, agent: Any) -> bool | None:
        """Do it."""

    def state(self) -> dict[str, Any]:
        return {"done": self._done}

    def load_state(self, state: Mapping[str, Any]) -> None:
        self._done = state["done"]


class EvaluateEvery(_Every):
    """Plays whole episodes now and then, and keeps the best agent.

    Args:
        steps: between evaluations.
        folder: the best agent is saved in its folder `best`; None keeps none.
        episodes: in each; always the same ones.
        env: where; a new environment of the agent's own kind unless given.
        stop_at: end the learning when the mean return is at least this.
        seed: of the episodes.
        run: the mean return and length are logged there, as `evaluation/...`, and a film of the
            first episode where the environment draws.

    Attributes:
        results: (steps, mean return) of every evaluation.
        best: the greatest mean return.
        last: the newest evaluation.

    Raises:
        ConfigError: numbers that are none.
    """

    def __init__(
        self,
        steps: int,
        folder: str | Path | None = None,
        *,
        episodes: int = 20,
        env: Any = None,
        stop_at: float | None = None,
        seed: int = 10_000,
        run: Run | None = None,
    ) -> None:
        super().__init__(steps)
        self.folder = None if folder is None else Path(folder)
        self.episodes = count("EvaluateEvery: episodes", episodes)
        self.stop_at = None if stop_at is None else _number("EvaluateEvery: stop_at", stop_at)
        checked_seed(seed)
        self.env, self.seed, self.run = env, seed, run
        self.results: list[tuple[int, float]] = []
        self.best = -math.inf
        self.last: Evaluation | None = None

    def act(self, agent: Any) -> bool | None:
        found = evaluate(agent, self.env, self.episodes, seed=self.seed, progress=False)
        self.last = found
        self.results.append((agent.steps, found.mean))
        if found.mean > self.best:
            self.best = found.mean
            if self.folder is not None:
                agent.save(self.folder / "best")
        if self.run is not None:
            length = sum(found.lengths) / len(found.lengths)
            figures = {"evaluation/return": found.mean, "evaluation/length": length}
            self.run.scalars(figures, agent.steps)
            film(agent, self.run, agent.steps, self.env, seed=self.seed)
        return None if self.stop_at is None or found.mean < self.stop_at else False

    def state(self) -> dict[str, Any]:
        best = None if math.isinf(self.best) else self.best
        return {**super().state(), "results": [list(one) for one in self.results], "best": best}

    def load_state(self, state: Mapping[str, Any]) -> None:
        super().load_state(state)
        self.results = [(int(steps), float(mean)) for steps, mean in state["results"]]
        self.best = -math.inf if state["best"] is None else float(state["best"])


class CheckpointEvery(_Every):
    """Keeps checkpoints, from which `learn(..., resume=folder)` goes on to the last bit.

    It is called after all other callbacks, whose state is in the checkpoint.

    Args:
        steps: between checkpoints.
        folder: they are in its folder `checkpoints`.
        keep: how many of the newest.
    """

    def __init__(self, steps: int, folder: str | Path, *, keep: int = 2) -> None:
        super().__init__(steps)
        keep = count("CheckpointEvery: keep", keep)
        self.store = CheckpointStore(Path(folder) / "checkpoints", keep)

    def act(self, agent: Any) -> bool | None:
        agent.checkpoint(self.store)
        return None


class StopAtReturn(Remembering):
    """Ends the learning when the last episodes of the training brought enough, on the mean.

    Args:
        value: the mean return that is enough.
        episodes: how many episodes that is of, at most 100.
    """

    def __init__(self, value: float, episodes: int = 100) -> None:
        self.value = _number("StopAtReturn", value)
        self.episodes = count("StopAtReturn: episodes", episodes)
        if self.episodes > 100:
            raise ConfigError(f"agents remember 100 episodes; StopAtReturn got {episodes}")

    def __call__(self, agent: Any) -> bool | None:
        newest = agent.returns[-self.episodes :]
        enough = len(newest) == self.episodes and sum(newest) >= self.value * self.episodes
        return False if enough else None

    def state(self) -> dict[str, Any]:
        return {}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """There is nothing to take back."""


class LogTo(Remembering):
    """Writes each line of an agent's history into the log of a run, as `train/...`.

    They have returns and lengths of episodes, losses, entropy and the like. The run is also told
    the trees of the networks and, every few seconds and at the end, how parameters and gradients
    are spread.
    """

    def __init__(self, run: Run) -> None:
        self.run = run
        self._seen: int | None = None
        self._histograms = Histograms(run)
        self._next = 0.0  # when histograms are due again

    def __call__(self, agent: Any) -> bool | None:
        now = time.monotonic()
        if now >= self._next or agent.steps >= agent.until:
            self._next = now + _APART
            self._spread(agent)
        for line in agent.history[self._seen or 0 :]:
            figures = {f"train/{name}": value for name, value in line.items() if name != "steps"}
            self.run.scalars(figures, int(line["steps"]))
        self._seen = len(agent.history)
        return None

    def _spread(self, agent: Any) -> None:
        modules = agent.modules()
        self.run.model(modules)
        self._histograms.write("parameters", named_parameters(modules), agent.steps)
        gradients = [(name, p.grad) for name, p in named_parameters(modules)]
        if any(g is not None for _, g in gradients):
            self._histograms.write("gradients", gradients, agent.steps)

    def state(self) -> dict[str, Any]:
        return {"seen": self._seen}

    def load_state(self, state: Mapping[str, Any]) -> None:
        self._seen = state["seen"]


def ordered(callbacks: list[Any]) -> list[Any]:
    """Checkpoints last; the rest as it was."""
    return sorted(callbacks, key=lambda one: isinstance(one, CheckpointEvery))


def state_of(callbacks: list[Any]) -> dict[str, list[dict[str, Any]]]:
    """What callbacks remember, by their classes."""
    kept: dict[str, list[dict[str, Any]]] = {}
    for one in callbacks:
        if isinstance(one, Remembering):
            kept.setdefault(type(one).__name__, []).append(one.state())
    return kept


def restore(callbacks: list[Any], kept: Mapping[str, Any]) -> None:
    """Give callbacks back what they remembered; new ones begin anew."""
    waiting = {name: list(states) for name, states in kept.items()}
    for one in callbacks:
        states = waiting.get(type(one).__name__, [])
        if isinstance(one, Remembering) and states:
            one.load_state(states.pop(0))


def _number(what: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ConfigError(f"{what} is a return, a number, not {value!r}", got=value)
    return float(value)


def gathered(
    name: str,
    given: Callback | Iterable[Callback],
    out: str | Path | None,
    checkpoint_every: int | None,
    run: Run | None,
) -> list[Callback]:
    """All callbacks of a call of `learn`, in the order in which they are called.

    Args:
        name: of the agent, for what is said of wrong ones.
        given: by the user; the other arguments are those of `Learner.learn`.

    Raises:
        ConfigError: a callback cannot be called, or there are checkpoints without `out`.
    """
    calls: list[Callback] = [given] if callable(given) else list(given)
    for call in calls:
        if not callable(call):
            raise ConfigError(
                f"{name}.learn: a callback is called with the agent, and {call!r} cannot be "
                "called.",
                got=call,
            )
    if run is not None:
        calls.append(LogTo(run))
    if checkpoint_every is not None:
        if out is None:
            raise ConfigError(
                f"{name}.learn: where do the checkpoints go? Give out='folder' with "
                "checkpoint_every"
            )
        calls.append(CheckpointEvery(checkpoint_every, out))
    return ordered(calls)
