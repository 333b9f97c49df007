"""Scenes of balls on a tiled floor whose depths are known: to train a depth estimator, and to test
one."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..core.errors import ConfigError

Array = np.ndarray[Any, Any]

FAR = 20.0  # metres; nothing is farther than the wall behind the floor
_EYE = 1.5  # metres above the floor; the focal length is the picture's side
_LIGHT = np.array([-0.5, -0.6, -0.62]) / np.linalg.norm([-0.5, -0.6, -0.62])


def ball_scenes(
    count: int, *, size: int = 112, most: int = 5, seed: int = 0
) -> tuple[Array, Array]:
    """Balls of any colour and size on a floor of tiles, before a wall, seen from 1.5 m above.

    The camera looks straight ahead, a little up or down; its focal length is `size` pixels.

    Args:
        count: how many pictures.
        size: their width and height.
        most: balls in one, at most; one at least.
        seed: the same pictures come out of the same number.
    Returns:
        Pictures (N, H, W, 3), uint8, and the distance of every pixel along the view in metres
        (N, H, W), float32.
    """
    if count < 1 or size < 32 or most < 1:
        raise ConfigError(f"count={count}, size={size}, most={most}: at least 1, 32 and 1")
    rng = np.random.default_rng(seed)
    scenes = [_scene(rng, size, most) for _ in range(count)]
    return np.stack([p for p, _ in scenes]), np.stack([d for _, d in scenes])


def _scene(rng: np.random.Generator, size: int, most: int) -> tuple[Array, Array]:
    horizon = size * rng.uniform(0.3, 0.5)
    wall = rng.uniform(7, FAR)
    rows, columns = np.mgrid[:size, :size] + 0.5
    across, down = (columns - size / 2) / size, (rows - horizon) / size
    with np.errstate(divide="ignore"):
        depth = np.where(down > 0, _EYE / down, np.inf)
    depth = np.minimum(depth, wall)
    floor = depth < wall
    colours = rng.uniform(40, 215, (3, 3))
    tiles = (np.floor(across * depth) + np.floor(depth)) % 2 == 0
    pixels = np.where(floor[..., None], colours[np.where(tiles, 0, 1)], colours[2])
    pixels *= np.where(floor, 1.0, 0.85 + 0.15 * down / down.max())[..., None]
    for ball in _balls(rng, wall, int(rng.integers(1, most + 1))):
        _draw(ball, across, down, depth, pixels)
    pixels += rng.normal(0, 4, pixels.shape)
    return pixels.round().clip(0, 255).astype(np.uint8), depth.astype(np.float32)


def _balls(rng: np.random.Generator, wall: float, count: int) -> list[tuple[Array, float, Array]]:
    """Centre (right, down, ahead), radius and colour of each, none within another."""
    found: list[tuple[Array, float, Array]] = []
    for _ in range(20 * count):
        ahead, radius = rng.uniform(2.5, wall - 1.2), rng.uniform(0.25, 0.9)
        centre = np.array([rng.uniform(-0.5, 0.5) * ahead, _EYE - radius, ahead])
        if all(np.linalg.norm(centre - other) > radius + r for other, r, _ in found):
            found.append((centre, radius, rng.uniform(30, 255, 3)))
        if len(found) == count:
            break
    return found


def _draw(
    ball: tuple[Array, float, Array], across: Array, down: Array, depth: Array, pixels: Array
) -> None:
    """Where the ball is the nearest, write its depth and its colour, lit from the upper left."""
    centre, radius, colour = ball
    ray = np.stack([across, down, np.ones_like(across)], axis=-1)
    # |t * ray - centre| = radius, for the smaller t, which is the depth
    a, b = (ray * ray).sum(-1), ray @ centre
    root = b * b - a * (centre @ centre - radius * radius)
    t = (b - np.sqrt(np.maximum(root, 0))) / a
    seen = (root > 0) & (t > 0) & (t < depth)
    normal = (ray[seen] * t[seen, None] - centre) / radius
    light = 0.45 + 0.55 * np.maximum(normal @ _LIGHT, 0)
    depth[seen] = t[seen]
    pixels[seen] = colour * light[:, None]
