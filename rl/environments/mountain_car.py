"""MountainCar: get out of a valley with a motor too weak for the slope, by swinging.

Moore 1990, "Efficient memory-based learning for robot control"; the numbers and transitions are
those of Gymnasium's MountainCar-v0 and MountainCarContinuous-v0.
"""

from __future__ import annotations

import math

import numpy as np

from ..spaces import Box, Discrete, Space
from .base import ArrayEnv

LEFT, RIGHT = -1.2, 0.6  # ends of the road
MAX_SPEED = 0.07
GRAVITY = 0.0025


class MountainCar(ArrayEnv):
    """A reward of -1 for each step until the car is on top of the right hill.

    The state is (position, velocity), which is also what is seen.

    Shape: observations (N, 2) float32, actions (N,): 0 drives left, 1 not at all, 2 right.
    """

    id = "MountainCar-v0"
    fps = 30
    max_episode_steps = 200
    trusted = True
    observation_space = Box(np.array([LEFT, -MAX_SPEED]), np.array([RIGHT, MAX_SPEED]))
    action_space: Space = Discrete(3)

    goal = 0.5
    force = 0.001

    def begin(self, num: int) -> np.ndarray:
        return np.stack([self.rng.uniform(-0.6, -0.4, num), np.zeros(num)])

    def advance(
        self, state: np.ndarray, actions: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        new, terminated = self._drive(state, (actions - 1) * self.force)
        return new, np.full(state.shape[1], -1, np.float32), terminated

    def _drive(self, state: np.ndarray, force: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        new = np.empty_like(state)
        position, velocity = new
        np.clip(
            state[1] + force - GRAVITY * np.cos(3 * state[0]), -MAX_SPEED, MAX_SPEED, out=velocity
        )
        np.clip(state[0] + velocity, LEFT, RIGHT, out=position)
        velocity[(position <= LEFT) & (velocity < 0)] = 0  # the left end is a wall
        return new, (position >= self.goal) & (velocity >= 0)

    def observe(self, state: np.ndarray) -> np.ndarray:
        out = np.empty((state.shape[1], 2), np.float32)
        out.T[...] = state
        return out

    def draw(self, state: np.ndarray) -> np.ndarray:
        from . import drawing as d

        canvas = d.Canvas((600, 400), left=LEFT, bottom=0, scale=600 / (RIGHT - LEFT))
        road = [(float(x), _height(float(x))) for x in np.linspace(LEFT, RIGHT, 100)]
        canvas.polygon([*road, (RIGHT, 0), (LEFT, 0)], d.GROUND)
        canvas.line(road, 0.012, d.INK)
        top = _height(self.goal)
        canvas.line([(self.goal, top), (self.goal, top + 0.16)], 0.012, d.INK)
        flag = [(0.006, 0.16), (0.08, 0.13), (0.006, 0.10)]
        canvas.polygon([(self.goal + x, top + y) for x, y in flag], d.RED)
        x = float(state[0])
        slope = math.atan(0.45 * 3 * math.cos(3 * x))
        along, up = (math.cos(slope), math.sin(slope)), (-math.sin(slope), math.cos(slope))

        def at(u: float, v: float) -> tuple[float, float]:
            return (
                x + u * along[0] + v * up[0],
                _height(x) + u * along[1] + v * up[1],
            )

        body = [(-0.08, 0.03), (0.08, 0.03), (0.08, 0.07), (0.03, 0.1), (-0.05, 0.1), (-0.08, 0.07)]
        canvas.polygon([at(u, v) for u, v in body], d.BLUE)
        for u in (-0.045, 0.045):
            canvas.circle(at(u, 0.03), 0.027, d.INK)
            canvas.circle(at(u, 0.03), 0.011, d.GROUND)
        return canvas.pixels()


class MountainCarContinuous(MountainCar):
    """100 for the top of the right hill, less 0.1 times the square of each action.

    Forces beyond 1 are cut to that, but cost what was asked for.

    Shape: observations (N, 2) float32, actions (N, 1) float.
    """

    id = "MountainCarContinuous-v0"
    max_episode_steps = 999
    action_space = Box(-1, 1, (1,))

    goal = 0.45
    force = 0.0015

    def advance(
        self, state: np.ndarray, actions: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        asked = actions[:, 0].astype(np.float64)
        new, terminated = self._drive(state, np.clip(asked, -1, 1) * self.force)
        # Gymnasium keeps these states in single precision.
        new = new.astype(np.float32).astype(np.float64)
        reward = 100.0 * terminated - 0.1 * asked**2
        return new, reward.astype(np.float32), terminated


def _height(x: float) -> float:
    return 0.45 * math.sin(3 * x) + 0.55
