"""Pendulum: swing a rod up with a motor too weak to lift it, and keep it there.

The numbers and transitions are those of Gymnasium's Pendulum-v1.
"""

from __future__ import annotations

import math

import numpy as np

from ..spaces import Box
from .base import ArrayEnv

GRAVITY = 10.0  # m/s²
MASS = 1.0  # kg
LENGTH = 1.0  # m
SECONDS = 0.05  # of one step
MAX_SPEED = 8.0  # rad/s
MAX_TORQUE = 2.0  # N m


class Pendulum(ArrayEnv):
    """The cost of a step is angle² + 0.1 speed² + 0.001 torque², the angle from upright.

    The state is (angle, speed). Torques beyond 2 N m are cut to that.

    Shape: observations (N, 3) float32: cosine and sine of the angle, speed; actions (N, 1) float.
    """

    id = "Pendulum-v1"
    fps = 30
    max_episode_steps = 200
    trusted = True
    _high = np.array([1, 1, MAX_SPEED], np.float32)
    observation_space = Box(-_high, _high)
    action_space = Box(-MAX_TORQUE, MAX_TORQUE, (1,))

    def begin(self, num: int) -> np.ndarray:
        high = np.array([[math.pi], [1.0]])
        return self.rng.uniform(-high, high, (2, num))

    def advance(
        self, state: np.ndarray, actions: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        angle, speed = state
        torque = np.clip(actions[:, 0], -MAX_TORQUE, MAX_TORQUE).astype(np.float64)
        upright = (angle + math.pi) % (2 * math.pi) - math.pi
        cost = upright**2 + 0.1 * speed**2 + 0.001 * torque**2
        turn = 3 * GRAVITY / (2 * LENGTH) * np.sin(angle) + 3 / (MASS * LENGTH**2) * torque
        new = np.empty_like(state)
        new[1] = np.clip(speed + turn * SECONDS, -MAX_SPEED, MAX_SPEED)
        new[0] = angle + new[1] * SECONDS
        return new, (-cost).astype(np.float32), np.zeros(state.shape[1], np.bool_)

    def observe(self, state: np.ndarray) -> np.ndarray:
        out = np.empty((state.shape[1], 3), np.float32)
        out[:, 0], out[:, 1], out[:, 2] = np.cos(state[0]), np.sin(state[0]), state[1]
        return out

    def draw(self, state: np.ndarray) -> np.ndarray:
        from . import drawing as d

        angle = float(state[0])
        canvas = d.Canvas((400, 400), left=-1.4, bottom=-1.4, scale=400 / 2.8)
        canvas.circle((0, 0), 1.18, d.GROUND)
        canvas.circle((0, 0), 1.16, d.PAPER)
        tip = (-LENGTH * math.sin(angle), LENGTH * math.cos(angle))
        canvas.bar((0, 0), tip, 0.2, d.RED)
        canvas.circle((0, 0), 0.05, d.INK)
        return canvas.pixels()
