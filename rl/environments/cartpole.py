"""CartPole: keep a pole upright by pushing the cart under it to the left or right.

Barto, Sutton, Anderson 1983, "Neuronlike adaptive elements that can solve difficult learning
control problems"; the numbers are those of Gymnasium's CartPole-v1, and so are the transitions.
"""

from __future__ import annotations

import math

import numpy as np

from ...core import native
from ..spaces import Box, Discrete
from .base import ArrayEnv

GRAVITY = 9.8  # m/s²
MASS_CART = 1.0  # kg
MASS_POLE = 0.1  # kg
HALF_LENGTH = 0.5  # m, of the pole
FORCE = 10.0  # N
SECONDS = 0.02  # of one step
X_LIMIT = 2.4  # m
ANGLE_LIMIT = math.radians(12)
START = 0.05  # states begin within this of upright rest

_TOTAL = MASS_CART + MASS_POLE
_SHARE = MASS_POLE * HALF_LENGTH / _TOTAL


class CartPole(ArrayEnv):
    """A reward of 1 for each step until the pole leans 12 degrees or the cart leaves the track.

    The state is (position, velocity, angle, angular velocity), which is also what is seen.

    Shape: observations (N, 4) float32, actions (N,): 0 pushes left, 1 right.
    """

    id = "CartPole-v1"
    fps = 50
    max_episode_steps = 500
    trusted = True
    _kernels: bool | None = None
    _high = np.array([2 * X_LIMIT, np.inf, 2 * ANGLE_LIMIT, np.inf], np.float32)
    observation_space = Box(-_high, _high)
    action_space = Discrete(2)

    def begin(self, num: int) -> np.ndarray:
        return self.rng.uniform(-START, START, (4, num))

    def advance(
        self, state: np.ndarray, actions: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        if self._kernels is None:  # asked once, not at each of millions of steps
            self._kernels = native.available()
        fits = state.dtype == np.float64 and actions.dtype == np.int64
        if self._kernels and fits and state.flags.c_contiguous:
            moved, ended = native.cartpole(state, np.ascontiguousarray(actions))
            return moved, np.ones(state.shape[1], np.float32), ended
        return self.advance_in_numpy(state, actions)

    def advance_in_numpy(
        self, state: np.ndarray, actions: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """`advance` where there is no extension; the same but for roundings."""
        velocity, angle, spin = state[1], state[2], state[3]
        sine, cosine = np.sin(angle), np.cos(angle)
        push = spin * spin
        push *= sine
        push *= _SHARE
        push += np.where(actions, FORCE / _TOTAL, -FORCE / _TOTAL)
        # Angular acceleration, with the inertia of a rod about its end.
        turn = GRAVITY * sine
        turn -= cosine * push
        inertia = cosine * cosine
        inertia *= -HALF_LENGTH * MASS_POLE / _TOTAL
        inertia += HALF_LENGTH * 4.0 / 3.0
        turn /= inertia
        cosine *= turn
        cosine *= _SHARE
        push -= cosine  # acceleration of the cart
        # Euler: positions move with the old velocities.
        new = np.empty_like(state)
        new[0], new[1], new[2], new[3] = velocity, push, spin, turn
        new *= SECONDS
        new += state
        reach = np.abs(new[::2])
        terminated = (reach[0] > X_LIMIT) | (reach[1] > ANGLE_LIMIT)
        return new, np.ones(state.shape[1], np.float32), terminated

    def observe(self, state: np.ndarray) -> np.ndarray:
        return state.T.astype(np.float32, order="C")

    def draw(self, state: np.ndarray) -> np.ndarray:
        from . import drawing as d

        x, angle = float(state[0]), float(state[2])
        canvas = d.Canvas((600, 400), left=-2.4, bottom=-0.8, scale=125)
        canvas.rectangle((-2.4, -0.8), (2.4, -0.14), d.GROUND)
        canvas.rectangle((-2.4, -0.15), (2.4, -0.13), d.INK)
        for side in (-0.14, 0.14):
            canvas.circle((x + side, -0.06), 0.07, d.INK)
        canvas.rectangle((x - 0.25, -0.04), (x + 0.25, 0.16), d.BLUE, radius=0.03)
        tip = (x + 2 * HALF_LENGTH * math.sin(angle), 0.1 + 2 * HALF_LENGTH * math.cos(angle))
        canvas.bar((x, 0.1), tip, 0.08, d.SAND)
        canvas.circle((x, 0.1), 0.03, d.INK)
        return canvas.pixels()
