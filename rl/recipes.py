"""Recipes of `bestiary train` for agents: an algorithm, an environment, its settings."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, get_type_hints

from ..core.errors import ConfigError
from ..core.insight.runs.writer import Run
from .agents import algorithm
from .callbacks import CheckpointEvery, EvaluateEvery, StopAtReturn
from .evaluation import evaluate, film

# Recipes and their classes; DATA-OR-ENV is what `rl.make` takes as text.
_CLASSES = {
    "ppo": "PPO",
    "recurrent-ppo": "RecurrentPPO",
    "a2c": "A2C",
    "reinforce": "REINFORCE",
    "dqn": "DQN",
    "sac": "SAC",
    "td3": "TD3",
}
# Options of the run: type, unless given. `run` is the folder of the log, `eval_every` keeps the
# best agent, `stop_at` is a mean return.
_OWN: dict[str, tuple[Any, Any]] = {
    "steps": (int, 100_000),
    "seed": (int, 0),
    "num_envs": (int, 1),
    "run": (str | None, None),
    "eval_every": (int | None, None),
    "checkpoint_every": (int | None, None),
    "stop_at": (float | None, None),
}
_EPISODES = 20  # of the evaluation at the end


def _settings(recipe: str) -> Any:
    """A dataclass of an algorithm's hyper-parameters with the options of the run before them."""
    kind = algorithm(_CLASSES[recipe]).Settings
    hints = get_type_hints(kind)
    own: list[Any] = [(name, hint, value) for name, (hint, value) in _OWN.items()]
    theirs = [(f.name, hints[f.name], f.default) for f in dataclasses.fields(kind)]
    return dataclasses.make_dataclass(f"{_CLASSES[recipe]}Settings", own + theirs, frozen=True)


def __getattr__(name: str) -> Any:
    for recipe, kind in _CLASSES.items():
        if name == f"{kind}Settings":
            globals()[name] = found = _settings(recipe)
            return found
    raise AttributeError(f"{__name__} has no {name!r}")


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

    With `eval_every` the best agent lies in `out`/best.

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
    own = {name: given.pop(name) for name in _OWN}
    agent = algorithm(_CLASSES[recipe])(env, seed=own["seed"], num_envs=own["num_envs"], **given)
    again = resume is not None and (out / "checkpoints").is_dir()
    told = {"algorithm": agent.name, "environment": env, **vars(settings)}
    calls: list[Any] = []
    if own["stop_at"] is not None and own["eval_every"] is None:
        calls.append(StopAtReturn(own["stop_at"]))
    watch = None
    if own["eval_every"] is not None:
        watch = EvaluateEvery(own["eval_every"], out, episodes=_EPISODES, stop_at=own["stop_at"])
        calls.append(watch)
    if own["checkpoint_every"] is not None:
        calls.append(CheckpointEvery(own["checkpoint_every"], out))
    with Run(own["run"] or out, told) as run:
        if watch is not None:
            watch.run = run
        agent.learn(
            own["steps"],
            calls,
            progress=not quiet,
            out=out,
            resume=out if again else None,
            run=run,
        )
        found = evaluate(agent, episodes=_EPISODES, progress=not quiet)
        run.scalar("evaluation/return", found.mean, agent.steps)
        film(agent, run, agent.steps)
    result = {
        "folder": str(out / "agent"),
        "steps": agent.steps,
        "episodes": _EPISODES,
        "mean": found.mean,
        "std": found.std,
    }
    if watch is not None and watch.results:
        result["best"] = {"folder": str(out / "best"), "mean": watch.best}
    return result
