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
_BARS = 150  # rows of a chart of bars at most
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
    x_log: bool = False,
    mark: float | None = None,
) -> Image.Image:
    """Lines through points; values that are not finite leave a gap.

    Args:
        lines: name -> the places of its points, and their values.
        size: width and height in pixels.
        x_ticks: places that are named; round ones unless given.
        x_log: the axis of places is logarithmic; they are positive.
        mark: a place at which a vertical line is drawn.
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
    if x_log:
        first, last = math.log10(first), math.log10(last)
        x_ticks = x_ticks or powers_of_ten(first, last)

    def place(x: float, v: float) -> tuple[float, float]:
        x = math.log10(x) if x_log else x
        across = left + (right - left) * ((x - first) / (last - first) if last > first else 0.5)
        return across, bottom - (bottom - top) * (v - low) / ((high - low) or 1.0)

    start = 10.0**first if x_log else first
    for tick in ticks:
        _, y = place(start, tick)
        draw.line((left, y, right, y), _GRID)
        label = f"{tick:.6g}"
        draw.text((left - 8 - draw.textlength(label, text), y - 8), label, _INK, text)
    for tick in x_ticks or nice_ticks(first, last):
        if x_log or first <= tick <= last:
            x, _ = place(tick, low)
            label = f"{tick:,.6g}"
            draw.text((x - draw.textlength(label, text) / 2, bottom + 6), label, _INK, text)
    draw.text(((left + right) / 2, height - 24), x_label, _INK, text)
    if mark is not None:
        x, _ = place(mark, low)
        draw.line((x, top, x, bottom), _INK, 1)
        draw.text((x + 4, top), f"{mark:.3g}", _INK, text)
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


def powers_of_ten(low: float, high: float) -> list[float]:
    """Ticks of a logarithmic axis, of which the ends are given as exponents."""
    first, last = math.ceil(low - 1e-9), math.floor(high + 1e-9)
    every = max(1, (last - first) // 8)
    return [10.0**i for i in range(first, last + 1, every)] or [10.0**low, 10.0**high]


def bar_chart(
    bars: Mapping[str, Mapping[str, float]],
    *,
    title: str = "",
    marked: Sequence[str] = (),
    width: int = 720,
) -> Image.Image:
    """A row for each name with a bar for each of its values, on a logarithmic axis.

    Args:
        bars: name -> what -> a value; those that are 0 or not finite have no bar, and say so.
            Of more than 150 names, the marked and the first are shown.
        marked: names that are written in another colour.
    """
    text = font(12)
    if len(bars) > _BARS:
        title += f" ({_BARS} of {len(bars)})"
        kept = set(sorted(bars, key=lambda name: name not in marked)[:_BARS])
        bars = {name: values for name, values in bars.items() if name in kept}
    kinds = list(dict.fromkeys(kind for values in bars.values() for kind in values))
    probe = ImageDraw.Draw(Image.new("RGB", (1, 1)))
    shown = {name: name if len(name) <= 40 else "…" + name[-39:] for name in bars}
    left = int(max((probe.textlength(name, text) for name in shown.values()), default=0)) + 24
    tall = 7 * len(kinds) + 8
    image = Image.new("RGB", (max(width, left + 240), 96 + tall * len(bars)), _PAPER)
    draw = ImageDraw.Draw(image)
    right, top, bottom = image.width - 24, 60, 60 + tall * len(bars)
    draw.text((12, 12), title, _INK, font(17))
    good = [v for values in bars.values() for v in values.values() if 0 < v < math.inf]
    low = math.floor(math.log10(min(good, default=1.0)) - 0.2)
    high = math.ceil(math.log10(max(good, default=1.0)) + 0.2)
    for tick in powers_of_ten(low, high):
        x = left + (right - left) * (math.log10(tick) - low) / (high - low)
        draw.line((x, top, x, bottom), _GRID)
        label = f"{tick:g}"
        draw.text((x - draw.textlength(label, text) / 2, bottom + 6), label, _INK, text)
    x = float(left)
    for kind, colour in zip(kinds, _cycle(len(kinds)), strict=True):
        draw.rectangle((x, 42, x + 12, 52), colour)
        draw.text((x + 17, 39), kind, _INK, text)
        x += 40 + draw.textlength(kind, text)
    for row, (name, values) in enumerate(bars.items()):
        y = top + row * tall
        ink = COLOURS[1] if name in marked else _INK
        draw.text((left - 8 - draw.textlength(shown[name], text), y), shown[name], ink, text)
        for i, colour in enumerate(_cycle(len(kinds))):
            value = float(values.get(kinds[i], math.nan))
            above = y + 3 + 7 * i
            if 0 < value < math.inf:
                end = left + (right - left) * (math.log10(value) - low) / (high - low)
                draw.rectangle((left, above, end, above + 5), colour)
            elif kinds[i] in values:
                draw.text((left + 2, above - 5), f"{value:g}", COLOURS[1], font(10))
    return image


def png(image: Image.Image) -> bytes:
    """A picture as the bytes of a PNG file, for notebooks."""
    import io

    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()


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
