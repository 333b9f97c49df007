"""Pictures of coloured shapes whose boxes are known exactly: to try a detector, and to test one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from ..core.errors import ConfigError
from ..core.paths import atomic

Array = np.ndarray[Any, Any]

SHAPES = ("circle", "square", "triangle")


def write_shapes(
    folder: str | Path, count: int = 100, *, size: int = 128, most: int = 4, seed: int = 0
) -> Path:
    """Write pictures of circles, squares and triangles, their boxes and outlines as COCO JSON.

    Shapes have any colour and size and do not hide one another; the ground is noise of another
    colour.

    Args:
        folder: for the pictures and `annotations.json`.
        count: how many pictures.
        size: their width and height.
        most: shapes in one, at most; one at least.
        seed: the same pictures come out of the same number.
    Returns:
        The JSON file.
    """
    from PIL import Image

    if count < 1 or size < 32 or most < 1:
        raise ConfigError(f"count={count}, size={size}, most={most}: at least 1, 32 and 1")
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number in range(1, count + 1):
        pixels, shapes, _ = _picture(rng, size, most)
        name = f"{number:05}.png"
        with atomic(target / name) as part:
            Image.fromarray(pixels).save(part, format="PNG")
        images.append({"id": number, "file_name": name, "width": size, "height": size})
        for kind, (x0, y0, x1, y1) in shapes:
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": kind + 1,
                    "bbox": [x0, y0, x1 - x0, y1 - y0],
                    "area": (x1 - x0) * (y1 - y0),
                    "iscrowd": 0,
                    "segmentation": [_outline(kind, x0, y0, x1, y1)],
                }
            )
    content = {
        "images": images,
        "categories": [{"id": i, "name": name} for i, name in enumerate(SHAPES, start=1)],
        "annotations": annotations,
    }
    with atomic(target / "annotations.json") as part:
        part.write_text(json.dumps(content), encoding="utf-8")
    return target / "annotations.json"


def write_masks(
    folder: str | Path, count: int = 100, *, size: int = 128, most: int = 4, seed: int = 0
) -> Path:
    """Write the same pictures in `images` and, in `masks`, the class of every pixel; 0: the ground.

    The arguments are those of `write_shapes`. The names of the classes are in `classes.txt`.

    Returns:
        The folder.
    """
    from PIL import Image

    if count < 1 or size < 32 or most < 1:
        raise ConfigError(f"count={count}, size={size}, most={most}: at least 1, 32 and 1")
    target = Path(folder)
    for part in ("images", "masks"):
        (target / part).mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    for number in range(1, count + 1):
        pixels, _, classes = _picture(rng, size, most)
        for part, array in (("images", pixels), ("masks", classes)):
            with atomic(target / part / f"{number:05}.png") as path:
                Image.fromarray(array).save(path, format="PNG")
    (target / "classes.txt").write_text("\n".join(("background", *SHAPES)) + "\n", "utf-8")
    return target


def shape_scenes(
    count: int, *, size: int = 128, most: int = 4, seed: int = 0
) -> tuple[Array, Array]:
    """The same pictures as arrays, and which shape each pixel belongs to.

    Args:
        count, size, most, seed: as in `write_shapes`.
    Returns:
        Pictures (N, H, W, 3), uint8, and for every pixel 1, 2, ... for the shapes of its picture
        or 0 for the ground, (N, H, W), uint8.
    """
    if count < 1 or size < 32 or most < 1:
        raise ConfigError(f"count={count}, size={size}, most={most}: at least 1, 32 and 1")
    rng = np.random.default_rng(seed)
    pictures = np.empty((count, size, size, 3), np.uint8)
    owners = np.zeros((count, size, size), np.uint8)
    for i in range(count):
        pictures[i], shapes, classes = _picture(rng, size, most)
        for number, (_, (x0, y0, x1, y1)) in enumerate(shapes, start=1):
            inside = classes[y0:y1, x0:x1] > 0
            owners[i, y0:y1, x0:x1][inside] = number
    return pictures, owners


def _picture(rng: np.random.Generator, size: int, most: int) -> tuple[Any, list[Any], Any]:
    """Pixels (H, W, 3), (kind, edges) of each shape, and the class of each pixel (H, W)."""
    ground = rng.integers(60, 196, 3)
    pixels = ground + rng.normal(0, 12, (size, size, 3))
    shapes: list[Any] = []
    classes = np.zeros((size, size), np.uint8)
    for _ in range(int(rng.integers(1, most + 1))):
        for _ in range(20):  # until it lies apart from the others
            side = int(rng.integers(size // 8, size // 3))
            x, y = (int(n) for n in rng.integers(0, size - side + 1, 2))
            box = (x, y, x + side, y + side)
            if all(_apart(box, other) for _, other in shapes):
                break
        else:
            continue
        kind = int(rng.integers(len(SHAPES)))
        colour = rng.integers(0, 256, 3)
        while np.abs(colour - ground).sum() < 150:
            colour = rng.integers(0, 256, 3)
        inside = _mask(kind, side)
        classes[y : y + side, x : x + side][inside] = kind + 1
        pixels[y : y + side, x : x + side][inside] = colour + rng.normal(0, 6, (inside.sum(), 3))
        rows, columns = (np.flatnonzero(inside.any(axis=axis)) for axis in (1, 0))
        edges = (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)
        shapes.append((kind, tuple(int(a) + b for a, b in zip(edges, (x, y, x, y), strict=True))))
    return pixels.round().clip(0, 255).astype(np.uint8), shapes, classes


def _outline(kind: int, x0: int, y0: int, x1: int, y1: int) -> list[float]:
    """The polygon of a shape in its box, as x, y, x, y, ..."""
    if kind == 0:
        angle = np.arange(32) * (2 * np.pi / 32)
        x = (x0 + x1) / 2 + np.cos(angle) * (x1 - x0) / 2
        y = (y0 + y1) / 2 + np.sin(angle) * (y1 - y0) / 2
        return [float(n) for n in np.stack([x, y], axis=1).round(2).reshape(-1)]
    if kind == 1:
        return [x0, y0, x1, y0, x1, y1, x0, y1]
    return [(x0 + x1) / 2, y0, x1, y1, x0, y1]


def _apart(a: tuple[int, ...], b: tuple[int, ...]) -> bool:
    return a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1]


def _mask(kind: int, side: int) -> Any:
    """The pixels of a shape in its square."""
    y, x = np.mgrid[:side, :side] + 0.5
    if kind == 0:
        return (x - side / 2) ** 2 + (y - side / 2) ** 2 <= (side / 2) ** 2
    if kind == 1:
        return np.ones((side, side), bool)
    return np.abs(x - side / 2) <= y / 2
