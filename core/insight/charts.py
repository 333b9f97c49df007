"""Charts drawn with Pillow alone: learning curves, confusion matrices, contact sheets."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

_INK, _GRID, _PAPER = (34, 34, 34), (222, 222, 222), (255, 255, 255)
# Told apart by people with any colour vision. Source: Okabe and Ito 2008.
COLOURS = (
    (0, 114, 178),
    (213, 94, 0),
    (0, 158, 115),
    (204, 121, 167),
    (230, 159, 0),
    (86, 180, 233),
)
_MARKED = 60  # points of a line up to which each has a dot
_DARK = (8, 48, 107)  # the full cell of a confusion matrix


def font(size: int) -> Any:
    """Pillow's built-in font in a size."""
    return ImageFont.load_default(size)


def line_chart(
    series: Mapping[str, Sequence[float]],
    *,
    title: str = "",
    x_label: str = "epoch",
    size: tuple[int, int] = (720, 420),
) -> Image.Image:
    """Lines over 1, 2, 3, ...; values that are not finite leave a gap.

    Args:
        series: name -> values.
        size: width and height in pixels.
    """
    longest = max((len(values) for values in series.values()), default=0)
    last = max(longest - 1, 0)
    ticks = sorted({1, last + 1, *(round(k * last / 5) + 1 for k in range(6))})
    lines = {name: (range(1, len(v) + 1), v) for name, v in series.items()}
    return step_chart(lines, title=title, x_label=x_label, size=size, x_ticks=ticks)


def step_chart(
    lines: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    *,
    title: str = "",
    x_label: str = "step",
    size: tuple[int, int] = (720, 420),
    x_ticks: Sequence[float] | None = None,
) -> Image.Image:
    """Lines through points; values that are not finite leave a gap.

    Args:
        lines: name -> the places of its points, and their values.
        size: width and height in pixels.
        x_ticks: places that are named; round ones unless given.
    """
    width, height = size
    image = Image.new("RGB", size, _PAPER)
    draw = ImageDraw.Draw(image)
    text = font(13)
    left, right, top, bottom = 70, width - 24, 56, height - 48
    draw.text((left, 12), title, _INK, font(17))
    finite = [float(v) for _, values in lines.values() for v in values if math.isfinite(v)]
    if not finite:
        draw.text((left, (top + bottom) // 2), "no finite values", _INK, text)
        return image
    ticks = nice_ticks(min(finite), max(finite))
    low, high = min(ticks[0], min(finite)), max(ticks[-1], max(finite))
    places = [float(x) for xs, _ in lines.values() for x in xs]
    first, last = min(places), max(places)

    def place(x: float, v: float) -> tuple[float, float]:
        across = left + (right - left) * ((x - first) / (last - first) if last > first else 0.5)
        return across, bottom - (bottom - top) * (v - low) / ((high - low) or 1.0)

    for tick in ticks:
        _, y = place(first, tick)
        draw.line((left, y, right, y), _GRID)
        label = f"{tick:.6g}"
        draw.text((left - 8 - draw.textlength(label, text), y - 8), label, _INK, text)
    for tick in x_ticks or nice_ticks(first, last):
        if first <= tick <= last:
            x, _ = place(tick, low)
            label = f"{tick:,.6g}"
            draw.text((x - draw.textlength(label, text) / 2, bottom + 6), label, _INK, text)
    draw.text(((left + right) / 2, height - 24), x_label, _INK, text)
    x = float(left)
    for (name, (xs, values)), colour in zip(lines.items(), _cycle(len(lines)), strict=True):
        points = [
            place(float(a), float(v)) if math.isfinite(v) else None
            for a, v in zip(xs, values, strict=True)
        ]
        _polyline(draw, points, colour)
        draw.rectangle((x, 40, x + 12, 50), colour)
        draw.text((x + 17, 37), name, _INK, text)
        x += 40 + draw.textlength(name, text)
    return image


def _cycle(count: int) -> list[tuple[int, int, int]]:
    return [COLOURS[i % len(COLOURS)] for i in range(count)]


def _polyline(
    draw: ImageDraw.ImageDraw,
    points: Sequence[tuple[float, float] | None],
    colour: tuple[int, int, int],
) -> None:
    marked = len(points) <= _MARKED
    for i, point in enumerate(points):
        if point is None:
            continue
        before = points[i - 1] if i else None
        if before is not None:
            draw.line((*before, *point), colour, 2)
        x, y = point
        alone = before is None and (i + 1 == len(points) or points[i + 1] is None)
        if marked or alone:
            draw.ellipse((x - 2.5, y - 2.5, x + 2.5, y + 2.5), colour)


def nice_ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Round values, 1, 2 or 5 times a power of ten apart, that cover the range."""
    if high <= low:
        pad = abs(low) * 0.1 or 1.0
        low, high = low - pad, high + pad
    raw = (high - low) / count
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= raw * 0.999)
    first, last = math.floor(low / step), math.ceil(high / step)
    return [i * step for i in range(first, last + 1)]


def confusion_chart(
    matrix: Any, labels: Sequence[str], *, title: str = "Confusion matrix"
) -> Image.Image:
    """True classes in rows, predicted ones in columns; a cell's shade is its share of the row.

    Args:
        matrix: (C, C) counts.
    """
    counts = np.asarray(matrix, np.int64)
    n = len(labels)
    if counts.shape != (n, n):
        raise ValueError(f"a matrix of {n} x {n} is needed for {n} labels, got {counts.shape}")
    cell = max(14, min(64, 900 // max(n, 1)))
    text = font(max(9, min(14, cell // 3)))
    probe = ImageDraw.Draw(Image.new("RGB", (1, 1)))
    shown = [name if len(name) <= 22 else name[:21] + "…" for name in labels]
    margin = int(max((probe.textlength(name, text) for name in shown), default=0)) + 44
    width, height = margin + n * cell + 24, 64 + n * cell + margin
    image = Image.new("RGB", (max(width, 320), height), _PAPER)
    draw = ImageDraw.Draw(image)
    draw.text((16, 12), title, _INK, font(17))
    draw.text((16, 36), "rows: true class, columns: predicted", _INK, font(12))
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    for row in range(n):
        y = 64 + row * cell
        name = shown[row]
        draw.text((margin - 8 - draw.textlength(name, text), y + cell / 2 - 8), name, _INK, text)
        for column in range(n):
            x, share = margin + column * cell, float(shares[row, column])
            fill = tuple(round(255 + (d - 255) * share) for d in _DARK)
            draw.rectangle((x, y, x + cell - 1, y + cell - 1), fill, _GRID)
            count = str(counts[row, column])
            if counts[row, column] and draw.textlength(count, text) < cell - 2:
                ink = _PAPER if share > 0.5 else _INK
                offset = (cell - draw.textlength(count, text)) / 2
                draw.text((x + offset, y + cell / 2 - 8), count, ink, text)
    for column in range(n):
        _vertical(image, shown[column], margin + column * cell + cell // 2, 70 + n * cell, text)
    return image


def _vertical(image: Image.Image, name: str, x: int, y: int, text: Any) -> None:
    length = int(ImageDraw.Draw(image).textlength(name, text)) + 4
    strip = Image.new("RGB", (length, 20), _PAPER)
    ImageDraw.Draw(strip).text((0, 1), name, _INK, text)
    image.paste(strip.rotate(-90, expand=True), (x - 10, y))


def contact_sheet(
    pictures: Sequence[Image.Image],
    captions: Sequence[str],
    *,
    columns: int = 3,
    side: int = 220,
) -> Image.Image:
    """Pictures in a grid, each over its caption (one or more lines)."""
    text = font(13)
    lines = max((caption.count("\n") + 1 for caption in captions), default=1)
    tile = side + 10 + 17 * lines + 10
    rows = -(-len(pictures) // columns)
    sheet = Image.new("RGB", (columns * (side + 16) + 16, rows * tile + 16), _PAPER)
    draw = ImageDraw.Draw(sheet)
    for i, (picture, caption) in enumerate(zip(pictures, captions, strict=True)):
        x, y = 16 + (i % columns) * (side + 16), 16 + (i // columns) * tile
        small = picture.convert("RGB")
        small.thumbnail((side, side))
        sheet.paste(small, (x + (side - small.width) // 2, y + (side - small.height) // 2))
        draw.multiline_text((x, y + side + 6), caption, _INK, text, spacing=3)
    return sheet


def save_chart(image: Image.Image, path: str | Path) -> Path:
    """Write a picture as PNG, whole or not at all."""
    from ..paths import atomic

    target = Path(path)
    with atomic(target) as part:
        image.save(part, format="PNG", optimize=True)
    return target
