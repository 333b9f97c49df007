"""Atari games as learners see them: grey, small, every fourth frame.

Mnih et al. 2015, "Human-level control through deep reinforcement learning"; Machado et al. 2018,
"Revisiting the Arcade Learning Environment", on what the steps do to results.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ...core.errors import ConfigError, MissingExtra
from ..spaces import Box
from .base import VectorEnv, count
from .loop import METHODS, LoopEnv, name_of
from .wrappers import FrameStack

GREY = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601


class Atari:
    """One game with the usual preparation, with Gymnasium's methods.

    Args:
        env: a game that shows single frames, in colour (H, W, 3) or grey (H, W), uint8.
        size: of the pictures.
        skip: an action is repeated so often; the picture is the greatest of the last two frames,
            since some games draw half of their objects in each.
        noops: an episode begins with up to so many steps of doing nothing, drawn.
        episodic_life: a lost life ends an episode, for learning. The game goes on in the next.
        clip_reward: only the signs of rewards count, for learning.

    Shape: observations (1, size, size) uint8.
    """

    def __init__(
        self,
        env: Any,
        *,
        size: int = 84,
        skip: int = 4,
        noops: int = 30,
        episodic_life: bool = True,
        clip_reward: bool = True,
    ) -> None:
        for method in METHODS:
            if not hasattr(env, method):
                raise ConfigError(f"Atari: {type(env).__name__} has no {method}: no environment")
        seen: Any = getattr(env.observation_space, "shape", None)
        shape = tuple(seen or ())
        if len(shape) not in (2, 3) or (len(shape) == 3 and shape[2] != 3):
            raise ConfigError(
                f"Atari: {name_of(env)} shows {env.observation_space}, where pictures (H, W, 3) "
                "or (H, W) are wanted.",
                got=shape,
            )
        self.env = env
        self.size, self.skip = count("Atari: size", size), count("Atari: skip", skip)
        self.noops = count("Atari: noops", noops) if noops else 0
        self.episodic_life, self.clip_reward = episodic_life, clip_reward
        self.observation_space = Box(0, 255, (1, size, size), np.uint8)
        self.action_space = env.action_space
        self.metadata = {"render_fps": 15, **(getattr(env, "metadata", None) or {})}
        self.render_mode = getattr(env, "render_mode", "rgb_array")
        self._down = _area_weights(shape[0], size)
        self._across = _area_weights(shape[1], size).T.copy()
        self._rng = np.random.default_rng()
        self._lives, self._over = 0, True
        meanings: list[str] = getattr(self.unwrapped, "get_action_meanings", list)()
        self._fires = len(meanings) > 2 and meanings[1] == "FIRE"

    @property
    def unwrapped(self) -> Any:
        """The game itself."""
        return getattr(self.env, "unwrapped", self.env)

    @property
    def spec(self) -> Any:
        """How Gymnasium describes the game."""
        return getattr(self.env, "spec", None)

    def reset(self, *, seed: int | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        """Begin a game, or go on with it after a lost life."""
        if seed is not None:
            self._rng = np.random.default_rng(seed)
        if self._over or seed is not None:
            frame, info = self.env.reset(seed=seed)
            for _ in range(int(self._rng.integers(1, self.noops + 1)) if self.noops else 0):
                frame, info = self._once(0, info)
        else:
            frame, _, end, cut, info = self.env.step(0)
            if end or cut:
                frame, info = self.env.reset()
        if self._fires:  # such games wait for the button
            frame, info = self._once(1, info)
        self._over = False
        self._lives = info.get("lives", 0)
        return self._prepared(_grey(frame)), info

    def _once(self, action: int, info: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        frame, _, end, cut, info = self.env.step(action)
        if end or cut:
            frame, info = self.env.reset()
        return frame, info

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Repeat an action for `skip` frames."""
        total = 0.0
        frames: list[np.ndarray] = []
        for i in range(self.skip):
            frame, reward, end, cut, info = self.env.step(action)
            total += float(reward)
            over = end or cut
            if over or i >= self.skip - 2:
                frames.append(_grey(frame))
            if over:
                break
        self._over = bool(end or cut)
        lives = info.get("lives", 0)
        lost, self._lives = lives < self._lives, lives
        shown: np.ndarray = np.max(frames, axis=0)
        reward = float(np.sign(total)) if self.clip_reward else total
        terminated = bool(end or (self.episodic_life and lost))
        return self._prepared(shown), reward, terminated, bool(cut), info

    def _prepared(self, frame: np.ndarray) -> np.ndarray:
        small: np.ndarray = self._down @ frame.astype(np.float32) @ self._across
        return np.asarray(np.rint(small), np.uint8)[None]

    def render(self) -> Any:
        """The game's own picture."""
        return self.env.render()

    def close(self) -> None:
        """Release the game."""
        self.env.close()


def atari(
    name: str,
    num_envs: int = 1,
    *,
    seed: int | None = None,
    frames: int = 4,
    sticky: float = 0.0,
    **settings: Any,
) -> VectorEnv:
    """N games of the Arcade Learning Environment, prepared and stacked.

    Args:
        name: "ALE/Pong-v5", ...
        num_envs: how many.
        seed: of the first `reset`.
        frames: pictures in one observation.
        sticky: the probability that the game repeats the action before; 0.25 in later papers.
        settings: see `Atari`.

    Raises:
        MissingExtra: the Arcade Learning Environment is not installed.
    """
    try:
        import gymnasium

        envs = [
            gymnasium.make(
                name if ":" in name else f"ale_py:{name}",  # importing that makes the games known
                frameskip=1,
                repeat_action_probability=sticky,
                obs_type="grayscale",
                render_mode="rgb_array",
                disable_env_checker=True,
            )
            for _ in range(count("num_envs", num_envs))
        ]
    except ImportError as error:
        raise MissingExtra(
            f"{name} needs the Arcade Learning Environment: {error}\n"
            "pip install 'bestiary[rl]' ale-py"
        ) from None
    except gymnasium.error.Error as error:
        raise ConfigError(f"there is no game {name!r}: {error}", name=name) from None
    loop = LoopEnv([Atari(env, **settings) for env in envs], seed=seed)
    return FrameStack(loop, frames)


def _grey(frame: Any) -> np.ndarray:
    array = np.asarray(frame)
    return array if array.ndim == 2 else np.asarray(np.rint(array @ GREY))


def _area_weights(old: int, new: int) -> np.ndarray:
    """A matrix (new, old): each new pixel is the mean of the old ones that it covers."""
    edges = np.linspace(0, old, new + 1)
    low, high = edges[:-1, None], edges[1:, None]
    pixel = np.arange(old)
    overlap = np.minimum(high, pixel + 1) - np.maximum(low, pixel)
    return np.asarray(np.maximum(overlap, 0) * (new / old), np.float32)
