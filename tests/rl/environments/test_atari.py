"""The preparation of Atari games, on a game of our own; under `reference` on the real ones."""

from __future__ import annotations

import sys
from typing import Any

import gymnasium
import numpy as np
import pytest

from bestiary.core.errors import ConfigError, MissingExtra
from bestiary.rl.environments import FrameStack, atari, make
from bestiary.rl.environments.atari import Atari, _area_weights
from bestiary.rl.spaces import Box, Discrete


class Game:
    """Frames tell their number; a life is lost every 40 frames, of 3; flickers if asked."""

    def __init__(self, *, colour: bool = True, fires: bool = False, flicker: bool = False) -> None:
        shape = (210, 160, 3) if colour else (210, 160)
        self.observation_space = Box(0, 255, shape, np.uint8)
        self.action_space = Discrete(4)
        self.fires, self.flicker = fires, flicker
        self.log: list[Any] = []

    def get_action_meanings(self) -> list[str]:
        return ["NOOP", "FIRE" if self.fires else "UP", "LEFT", "RIGHT"]

    def frame(self) -> np.ndarray:
        value = 0 if self.flicker and self.t % 2 else self.t
        return np.full(self.observation_space.shape, value, np.uint8)

    def info(self) -> dict[str, Any]:
        return {"lives": 3 - self.t // 40}

    def reset(self, *, seed: int | None = None) -> Any:
        self.t = 0
        self.log.append("reset")
        return self.frame(), self.info()

    def step(self, action: int) -> Any:
        self.t += 1
        self.log.append(action)
        return self.frame(), 2.0, self.t >= 120, False, self.info()

    def render(self) -> Any:
        return np.zeros((4, 4, 3), np.uint8)

    def close(self) -> None:
        self.log.append("closed")


def test_frames_are_skipped_and_small() -> None:
    game = Game()
    env = Atari(game, noops=0)
    first, _ = env.reset(seed=0)
    assert first.shape == (1, 84, 84)
    assert first.dtype == np.uint8
    assert (first == 0).all()
    for t in (4, 8):
        obs, reward, end, cut, _ = env.step(3)
        assert (obs == t).all()
        assert (reward, end, cut) == (1.0, False, False)
    assert game.log == ["reset", *[3] * 8]
    assert Atari(game, clip_reward=False).step(3)[1] == 8.0


def test_flicker_is_filled() -> None:
    env = Atari(Game(flicker=True), noops=0, skip=3)
    env.reset()
    assert (env.step(0)[0] == 2).all()  # of frames 2 and 3, of which 3 is empty
    assert (env.step(0)[0] == 6).all()


def test_grey_is_as_bright() -> None:
    game = Game()
    env = Atari(game, noops=0, skip=1)
    env.reset()
    game.frame = lambda: np.full((210, 160, 3), [200, 100, 50], np.uint8)  # type: ignore[method-assign]
    assert (env.step(0)[0] == round(0.299 * 200 + 0.587 * 100 + 0.114 * 50)).all()


def test_small_pixels_are_means() -> None:
    weights = _area_weights(210, 84)
    assert np.allclose(weights.sum(1), 1, atol=1e-6)
    assert np.allclose(weights.sum(0), 84 / 210, atol=1e-6)
    assert np.array_equal(_area_weights(6, 3), np.kron(np.eye(3), [0.5, 0.5]).astype(np.float32))
    assert np.array_equal(_area_weights(5, 5), np.eye(5, dtype=np.float32))
    assert _area_weights(3, 2)[0].tolist() == pytest.approx([2 / 3, 1 / 3, 0])


def test_a_life_is_an_episode() -> None:
    game = Game()
    env = Atari(game, noops=0)
    env.reset(seed=0)
    ends = [env.step(2)[2] for _ in range(10)]
    assert ends == [False] * 9 + [True]
    game.log.clear()
    _, info = env.reset()  # the game goes on
    assert game.log == [0]
    assert info["lives"] == 2
    while not env.step(2)[2]:
        pass
    env.reset()
    while not env.step(2)[2]:
        pass
    assert game.t == 120
    game.log.clear()
    env.reset()
    assert game.log == ["reset"]
    whole = Atari(Game(), noops=0, episodic_life=False)
    whole.reset()
    assert [whole.step(0)[2] for _ in range(30)].index(True) == 29


def test_beginnings() -> None:
    game = Game()
    env = Atari(game, noops=30)
    counts = []
    for seed in range(60):
        game.log.clear()
        env.reset(seed=seed)
        assert game.log[0] == "reset"
        assert set(game.log[1:]) == {0}
        counts.append(len(game.log) - 1)
    assert (min(counts), max(counts)) == (1, 30)
    again = game.log.copy()
    game.log.clear()
    env.reset(seed=59)
    assert game.log == again
    game = Game(fires=True)
    Atari(game, noops=2).reset()
    assert game.log[-1] == 1


def test_in_a_vector() -> None:
    env = FrameStack(make(lambda: Atari(Game(colour=False), size=36), 3, seed=0), 4)
    obs = env.reset()
    assert obs.shape == (3, 4, 36, 36)
    step = env.step(np.array([0, 1, 2]))
    assert step.observation.shape == (3, 4, 36, 36)
    assert env.render(1).shape == (4, 4, 3)
    env.close()


@pytest.mark.parametrize(
    "wrong, words",
    [
        (lambda: Atari(3), "int has no reset"),
        (lambda: Atari(gymnasium.make("CartPole-v1")), r"pictures \(H, W, 3\)"),
        (lambda: Atari(Game(), size=0), "size"),
        (lambda: Atari(Game(), skip=0), "skip"),
        (lambda: Atari(Game(), noops=-1), "noops"),
    ],
)
def test_wrong_games(wrong: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        wrong()


def test_without_the_games(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ale_py", None)
    with pytest.raises(MissingExtra, match="ale-py"):
        atari("ALE/Pong-v5")


@pytest.mark.reference
def test_pictures_are_gymnasiums() -> None:
    """Needs ale-py and OpenCV; its grey is rounded from the palette, its areas in whole numbers."""
    ale_py = pytest.importorskip("ale_py")
    pytest.importorskip("cv2")
    gymnasium.register_envs(ale_py)
    settings = {"frameskip": 1, "repeat_action_probability": 0.0, "obs_type": "grayscale"}
    for name in ("ALE/Pong-v5", "ALE/Breakout-v5"):
        raw = gymnasium.make(name, **settings)
        theirs = gymnasium.wrappers.AtariPreprocessing(
            gymnasium.make(name, **settings), noop_max=0, frame_skip=4
        )
        env = Atari(raw, noops=0, episodic_life=False, clip_reward=False)
        env._fires = False
        ours, _ = env.reset(seed=3)
        other, _ = theirs.reset(seed=3)
        rng = np.random.default_rng(0)
        for _ in range(400):
            assert np.abs(ours[0].astype(int) - other).max() <= 1
            action = int(rng.integers(env.action_space.n))
            ours, reward, end, cut, _ = env.step(action)
            other, *rest, _ = theirs.step(action)
            assert (reward, end, cut) == tuple(rest)
            if end or cut:
                (ours, _), (other, _) = env.reset(), theirs.reset()
    env = atari("ALE/Pong-v5", 2, seed=0)  # type: ignore[assignment]
    assert env.reset().shape == (2, 4, 84, 84)  # type: ignore[attr-defined]
    with pytest.raises(ConfigError, match="no game"):
        atari("ALE/Pnog-v5")
