"""Acrobot: swing the free end of a double pendulum above a line, with a motor at the elbow.

Sutton 1996, "Generalization in reinforcement learning: successful examples using sparse coarse
coding", with the equations of the book by Sutton and Barto; the numbers and transitions are those
of Gymnasium's Acrobot-v1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..spaces import Box, Discrete
from .base import ArrayEnv

GRAVITY = 9.8  # m/s²
LENGTH = 1.0  # m, of either link
MASS = 1.0  # kg, of either link
CENTRE = 0.5  # m, from a link's joint to its centre of mass
INERTIA = 1.0  # kg m², of either link
SECONDS = 0.2  # of one step
MAX_SPEEDS = (4 * math.pi, 9 * math.pi)  # rad/s, of the two joints


class Acrobot(ArrayEnv):
    """A reward of -1 for each step until the free end is a link's length above the first joint.

    The state is (angle of the first link from hanging, angle of the second from the first, their
    two speeds).

    Shape: observations (N, 6) float32: cosine and sine of either angle, both speeds; actions (N,):
    0, 1, 2 for a torque of -1, 0, 1 N m.
    """

    id = "Acrobot-v1"
    fps = 15
    max_episode_steps = 500
    trusted = True
    _high = np.array([1, 1, 1, 1, *MAX_SPEEDS], np.float32)
    observation_space = Box(-_high, _high)
    action_space = Discrete(3)

    def begin(self, num: int) -> np.ndarray:
        return self.rng.uniform(-0.1, 0.1, (4, num))

    def advance(
        self, state: np.ndarray, actions: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        if state.shape[1] == 1:  # plain numbers are ten times as fast as arrays of one
            new = np.array(_moved(state[:, 0].tolist(), float(actions[0]) - 1, math))[:, None]
        else:
            new = np.stack(_moved(state, actions - 1.0, np))
        new[:2] -= 2 * math.pi * np.rint(new[:2] / (2 * math.pi))  # to half a turn either way
        for speed, limit in zip(new[2:], MAX_SPEEDS, strict=True):
            np.clip(speed, -limit, limit, out=speed)
        terminated = -np.cos(new[0]) - np.cos(new[0] + new[1]) > 1
        return new, terminated.astype(np.float32) - 1, terminated

    def observe(self, state: np.ndarray) -> np.ndarray:
        out = np.empty((state.shape[1], 6), np.float32)
        out[:, 0:4:2] = np.cos(state[:2]).T
        out[:, 1:4:2] = np.sin(state[:2]).T
        out[:, 4:] = state[2:].T
        return out

    def draw(self, state: np.ndarray) -> np.ndarray:
        from . import drawing as d

        first, second = float(state[0]), float(state[0] + state[1])
        elbow = (LENGTH * math.sin(first), -LENGTH * math.cos(first))
        tip = (elbow[0] + LENGTH * math.sin(second), elbow[1] - LENGTH * math.cos(second))
        canvas = d.Canvas((400, 400), left=-2.2, bottom=-2.2, scale=400 / 4.4)
        canvas.rectangle((-2.2, LENGTH - 0.012), (2.2, LENGTH + 0.012), d.GREEN)
        canvas.bar((0, 0), elbow, 0.2, d.BLUE)
        canvas.bar(elbow, tip, 0.2, d.BLUE)
        canvas.circle((0, 0), 0.11, d.YELLOW)
        canvas.circle(elbow, 0.11, d.YELLOW)
        return canvas.pixels()


def _moved(state: Any, torque: Any, xp: Any) -> list[Any]:
    """One step of the classical Runge-Kutta method of fourth order, with numbers or arrays.

    Both angles and both speeds come and go; `xp` has their functions, `math` or NumPy.
    """

    def after(seconds: float, slope: Sequence[Any]) -> list[Any]:
        return [s + seconds * k for s, k in zip(state, slope, strict=True)]

    k1 = _derivative(state, torque, xp)
    k2 = _derivative(after(SECONDS / 2, k1), torque, xp)
    k3 = _derivative(after(SECONDS / 2, k2), torque, xp)
    k4 = _derivative(after(SECONDS, k3), torque, xp)
    slopes = zip(k1, k2, k3, k4, strict=True)
    return after(SECONDS / 6, [a + 2 * (b + c) + d for a, b, c, d in slopes])


def _derivative(state: Sequence[Any], torque: Any, xp: Any) -> tuple[Any, ...]:
    """Both speeds and both accelerations."""
    angle1, angle2, speed1, speed2 = state
    sine, cosine = xp.sin(angle2), xp.cos(angle2)
    coupling = MASS * LENGTH * CENTRE
    d1 = MASS * (CENTRE**2 + LENGTH**2 + CENTRE**2) + 2 * coupling * cosine + 2 * INERTIA
    d2 = MASS * CENTRE**2 + coupling * cosine + INERTIA
    # The sine stands for the cosine of the angle less a right angle.
    phi2 = MASS * CENTRE * GRAVITY * xp.sin(angle1 + angle2)
    phi1 = (
        -coupling * speed2 * sine * (speed2 + 2 * speed1)
        + MASS * (CENTRE + LENGTH) * GRAVITY * xp.sin(angle1)
        + phi2
    )
    ratio = d2 / d1
    turn2 = torque + ratio * phi1 - coupling * speed1**2 * sine - phi2
    turn2 /= MASS * CENTRE**2 + INERTIA - d2 * ratio
    turn1 = -(d2 * turn2 + phi1) / d1
    return speed1, speed2, turn1, turn2
