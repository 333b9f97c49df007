"""How good an agent is: whole episodes, played without learning."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from ..core.errors import ConfigError, DataError
from ..core.insight.progress import progress as show_progress
from ..core.paths import atomic
from .environments.base import VectorEnv, count
from .environments.elsewhere import Elsewhere
from .environments.make import make

if TYPE_CHECKING:
    from PIL import Image

    from ..core.insight.runs.writer import Run

_PARALLEL = 16  # environments that play at a time
_FILM = 250  # pictures of an episode in the log of a run, the first ones
FILM = "evaluation/episode"  # their tag
_LONGEST = 100_000  # steps after which an episode without an end is given up


class Acting(Protocol):
    """What plays: anything with `act`, of one observation or of several."""

    def act(self, observation: Any, deterministic: bool = True) -> Any: ...


@dataclass(frozen=True)
class Evaluation:
    """Returns and lengths of episodes.

    Attributes:
        returns: sums of the rewards, not discounted.
        lengths: in steps.
    """

    returns: tuple[float, ...]
    lengths: tuple[int, ...]

    @property
    def mean(self) -> float:
        """Of the returns."""
        return float(np.mean(self.returns))

    @property
    def std(self) -> float:
        """Standard deviation of the returns."""
        return float(np.std(self.returns))

    def to_dict(self) -> dict[str, Any]:
        """The numbers as JSON values."""
        return {
            "mean": self.mean,
            "std": self.std,
            "episodes": len(self.returns),
            "returns": list(self.returns),
            "lengths": list(self.lengths),
        }

    def __str__(self) -> str:
        return (
            f"return {self.mean:.4g} +- {self.std:.3g} over {len(self.returns)} episodes of "
            f"{np.mean(self.lengths):.4g} steps"
        )


def evaluate(
    agent: Acting,
    env: Any = None,
    episodes: int = 20,
    *,
    seed: int = 10_000,
    deterministic: bool = True,
    progress: bool = True,
) -> Evaluation:
    """Play whole episodes and measure them.

    The first episodes to begin count, not the first to end: short ones would count too often.

    Args:
        agent: what plays.
        env: where; a new one of the agent's own kind unless given.
        episodes: how many.
        seed: of the environments; the same gives the same episodes.
        deterministic: take the best action, not a drawn one.
        progress: whether to show it.

    Raises:
        ConfigError: there is no environment, or `episodes` is no number of them.
        DataError: an episode has no end.
    """
    count("evaluate: episodes", episodes)
    worlds = _worlds(agent, env, episodes)
    observation = worlds.reset(seed)
    n = worlds.num_envs
    player = player_of(agent, n)
    # Episode k is played by environment k mod n.
    quota = [len(range(i, episodes, n)) for i in range(n)]
    totals, lengths = np.zeros(n), np.zeros(n, np.int64)
    found: list[list[tuple[float, int]]] = [[] for _ in range(n)]
    shown = None if progress else False
    with show_progress(total=episodes, what="playing", unit="episodes", enabled=shown) as bar:
        while any(len(done) < wanted for done, wanted in zip(found, quota, strict=True)):
            step = worlds.step(np.asarray(player.act(observation, deterministic=deterministic)))
            totals += step.reward
            lengths += 1
            over = step.terminated | step.truncated
            player.forget(over)
            for i in over.nonzero()[0]:
                if len(found[i]) < quota[i]:
                    found[i].append((float(totals[i]), int(lengths[i])))
                    bar.update(1)
                totals[i] = lengths[i] = 0
            if lengths.max() > _LONGEST:
                raise DataError(
                    f"an episode of {worlds.id} has no end after {_LONGEST:,} steps.\n"
                    "A limit of time: rl.environments.wrappers.TimeLimit"
                )
            observation = step.observation
    played = [found[k % n][k // n] for k in range(episodes)]
    return Evaluation(tuple(r for r, _ in played), tuple(length for _, length in played))


def record(
    agent: Acting,
    path: str | Path,
    env: Any = None,
    *,
    episodes: int = 1,
    seed: int = 10_000,
    deterministic: bool = True,
    most: int = 2000,
) -> Evaluation:
    """Play, and write what is seen as a moving picture.

    Args:
        path: ends in .gif or .webp.
        most: pictures, after which nothing more is recorded.

    Raises:
        ConfigError: another ending, or an environment that draws nothing.
    """
    target = Path(path)
    if target.suffix.lower() not in (".gif", ".webp"):
        raise ConfigError(f"{path}: moving pictures are written as .gif or .webp", path=str(path))
    count("record: episodes", episodes)
    world = _worlds(agent, env, 1)
    player = player_of(agent, 1)
    pictures: list[Image.Image] = []
    returns: list[float] = []
    lengths: list[int] = []
    observation = world.reset(seed)
    total, length = 0.0, 0
    pictures.append(_picture(world.render()))
    while len(returns) < episodes:
        step = world.step(np.asarray(player.act(observation, deterministic=deterministic)))
        total, length = total + float(step.reward[0]), length + 1
        ended = bool(step.terminated[0] or step.truncated[0])
        last = world.final_picture() if ended else None
        if len(pictures) < most:
            pictures.append(_picture(world.render() if last is None else last))
        if ended:
            returns.append(total)
            lengths.append(length)
            total, length = 0.0, 0
            player.forget(np.ones(1, bool))
        if length > _LONGEST:
            raise DataError(f"an episode of {world.id} has no end after {_LONGEST:,} steps")
        observation = step.observation
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.suffix.lower() == ".gif":
        pictures = _of_one_palette(pictures)
    with atomic(target) as part:
        pictures[0].save(
            part,
            format=target.suffix[1:].upper(),
            save_all=True,
            append_images=pictures[1:],
            duration=round(1000 / world.fps),
            loop=0,
        )
    return Evaluation(tuple(returns), tuple(lengths))


def film(agent: Acting, run: Run, step: int, env: Any = None, *, seed: int = 10_000) -> None:
    """Play one episode, and log what is seen as the moving picture `evaluation/episode`.

    Where an environment draws nothing, the run is told why as a text.

    Args:
        step: at which it is logged.
    """
    with TemporaryDirectory(prefix="bestiary-") as folder:
        path = Path(folder) / "episode.gif"
        try:
            record(agent, path, env, seed=seed, most=_FILM)
        except Exception as error:  # whatever keeps it from drawing must not end a training
            run.text(FILM, f"no picture: {error}", step)
            return
        run.image(FILM, path, step)


class _Plain:
    """Plays with what remembers nothing."""

    def __init__(self, agent: Acting) -> None:
        self.act = agent.act

    def forget(self, ended: np.ndarray) -> None:
        """There is nothing to forget."""


def player_of(agent: Any, num_envs: int) -> Any:
    """What acts for an agent, and is told where episodes end."""
    return agent.player(num_envs) if hasattr(agent, "player") else _Plain(agent)


def _picture(frame: np.ndarray) -> Image.Image:
    from PIL import Image

    return Image.fromarray(frame)


def _of_one_palette(pictures: list[Image.Image]) -> list[Image.Image]:
    """In the 256 colours that serve eight of them: a palette for each takes ten times longer."""
    from PIL import Image

    some = pictures[:: -(-len(pictures) // 8)]
    width, height = some[0].size
    sheet = Image.new("RGB", (width, height * len(some)))
    for i, one in enumerate(some):
        sheet.paste(one, (0, i * height))
    palette = sheet.quantize(256)
    return [one.quantize(palette=palette, dither=Image.Dither.NONE) for one in pictures]


def _worlds(agent: Any, env: Any, most: int) -> VectorEnv:
    """Environments of the agent's kind, at most `most` of them."""
    if isinstance(env, VectorEnv):
        return env
    if env is None:
        own = getattr(agent, "env", None)
        if own is None:
            raise ConfigError('where should it play? evaluate(agent, "CartPole-v1")')
        if isinstance(own, Elsewhere):
            own.refuse()
        env = own.kind
    worlds = make(env, min(most, _PARALLEL))
    seen, done = (getattr(agent, f"{what}_space", None) for what in ("observation", "action"))
    if (seen is not None and seen.shape != worlds.observation_space.shape) or (
        done is not None and done != worlds.action_space
    ):
        raise ConfigError(
            f"the agent sees {seen} and does {done}; {worlds.id} has "
            f"{worlds.observation_space} and {worlds.action_space}.",
            expected=(seen, done),
        )
    return worlds
