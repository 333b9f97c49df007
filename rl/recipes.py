"""Recipes of `bestiary train` for agents: an algorithm, an environment, its settings."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_type_hints

from ..core.errors import ConfigError
from ..core.insight.runs.writer import Run
from .agents import algorithm
from .evaluation import evaluate

# Recipes and their classes; DATA-OR-ENV is what `rl.make` takes as text.
_CLASSES = {
    "ppo": "PPO",
    "a2c": "A2C",
    "reinforce": "REINFORCE",
    "dqn": "DQN",
    "sac": "SAC",
    "td3": "TD3",
}
_OWN = {"steps": 100_000, "seed": 0, "num_envs": 1}
_EPISODES = 20  # of the evaluation at the end


def _settings(recipe: str) -> Any:
    """A dataclass of an algorithm's hyper-parameters with the options of the run before them."""
    kind = algorithm(_CLASSES[recipe]).Settings
    hints = get_type_hints(kind)
    own: list[Any] = [(name, int, value) for name, value in _OWN.items()]
    theirs = [(f.name, hints[f.name], f.default) for f in dataclasses.fields(kind)]
    return dataclasses.make_dataclass(f"{_CLASSES[recipe]}Settings", own + theirs, frozen=True)


def __getattr__(name: str) -> Any:
    for recipe, kind in _CLASSES.items():
        if name == f"{kind}Settings":
            globals()[name] = found = _settings(recipe)
            return found
    raise AttributeError(f"{__name__} has no {name!r}")


def _logger(run: Run) -> Callable[[Any], None]:
    """A callback that writes each new line of an agent's history into a run's log."""
    seen = 0

    def log(agent: Any) -> None:
        nonlocal seen
        for line in agent.history[seen:]:
            figures = {f"train/{name}": value for name, value in line.items() if name != "steps"}
            run.scalars(figures, int(line["steps"]))
        seen = len(agent.history)

    return log


def train(
    recipe: str,
    env: str,
    settings: Any,
    *,
    out: Path,
    device: str = "cpu",
    resume: str | None = None,
    quiet: bool = False,
) -> dict[str, Any]:
    """Train an agent; it lies in `out`/agent, its checkpoints and the log of the run beside it.

    Raises:
        ConfigError: settings out of range, an environment that is not known or does not fit, a
            device other than the CPU.
    """
    if device != "cpu":
        raise ConfigError(
            f"train {recipe}: agents learn on the CPU, where networks this small are fastest; "
            f"got --device {device}",
            got=device,
        )
    given = {f.name: getattr(settings, f.name) for f in dataclasses.fields(settings)}
    steps, seed, num_envs = (given.pop(name) for name in _OWN)
    agent = algorithm(_CLASSES[recipe])(env, seed=seed, num_envs=num_envs, **given)
    again = resume is not None and (out / "checkpoints").is_dir()
    told = {"algorithm": agent.name, "environment": env, **vars(settings)}
    with Run(out, told) as run:
        agent.learn(steps, _logger(run), progress=not quiet, out=out, resume=out if again else None)
        found = evaluate(agent, episodes=_EPISODES)
        run.scalar("evaluation/return", found.mean, agent.steps)
    return {
        "folder": str(out / "agent"),
        "steps": agent.steps,
        "episodes": _EPISODES,
        "mean": found.mean,
        "std": found.std,
    }
