"""Weights of few bits: how rows of numbers are stored as bytes, and read back.

Every format stores a row by itself, as whole blocks of bytes one after the other, so that rows
can be taken, put in another order and mapped from a file. Those with the names of GGUF files have
their layout: blocks of 32 numbers with a scale, or of 256 with scales of scales. `int8` has one
scale for a row; `bfloat16` and `float16` are the numbers themselves.

Source: the GGUF format, https://github.com/ggml-org/ggml/blob/master/docs/gguf.md.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from .dtypes import bfloat16, float16, float32, int8, uint8
from .errors import ConfigError, ShapeError, WeightsError

GROUP = 32  # numbers that have a scale of their own in most formats
_BITS = float32.itemsize  # bytes of the scale of a row
_LARGEST = 65_504  # of float16


class Format(NamedTuple):
    """How a row is stored.

    Attributes:
        name: of it.
        block: numbers of a block; rows are filled up with zeros to whole ones.
        bytes: of a block.
        head: bytes before the first block.
    """

    name: str
    block: int
    bytes: int
    head: int = 0

    def stored(self, features: int) -> int:
        """Bytes of a row of so many numbers."""
        return self.head + -(-features // self.block) * self.bytes

    @property
    def bits(self) -> float:
        """Of one number, scales included (of a long row)."""
        return 8 * self.bytes / self.block


FORMATS = {
    each.name: each
    for each in (
        Format("q8_0", GROUP, 34),
        Format("q4_0", GROUP, 18),
        Format("q4_1", GROUP, 20),
        Format("q5_0", GROUP, 22),
        Format("q5_1", GROUP, 24),
        Format("q4_k", 256, 144),
        Format("q5_k", 256, 176),
        Format("q6_k", 256, 210),
        Format("int8", GROUP, GROUP, _BITS),
        Format("bfloat16", GROUP, 2 * GROUP),
        Format("float16", GROUP, 2 * GROUP),
    )
}
# What people ask for by how much memory it takes.
ALIASES = {"int4": "q4_1"}
PACKED = ("int8", "q4_1", "q4_0", "q8_0", "bfloat16", "float16")  # those that `pack` makes


def as_format(name: str) -> Format:
    """The format of a name.

    Raises:
        ConfigError: there is none.
    """
    found = FORMATS.get(ALIASES.get(str(name), str(name)))
    if found is None:
        raise ConfigError(
            f"{name!r} is no format of weights.\nThere are: {', '.join((*ALIASES, *FORMATS))}.",
            got=name,
        )
    return found


# -- reading -------------------------------------------------------------------------------------


def unpack(xp: Any, raw: Any, form: str, features: int) -> Any:
    """The numbers of packed rows, in float32, exactly.

    Shape:
        raw (..., bytes), uint8 -> (..., features)
    Raises:
        ShapeError: rows of another length.
    """
    layout = as_format(form)
    if raw.shape[-1] != layout.stored(features):
        raise ShapeError(
            f"{form}: rows of {features} numbers have {layout.stored(features)} bytes, not "
            f"{raw.shape[-1]}",
            expected=layout.stored(features),
            got=raw.shape[-1],
        )
    blocks = xp.ascontiguousarray(raw[..., layout.head :])
    count = blocks.shape[-1] // layout.bytes
    blocks = blocks.reshape(*raw.shape[:-1], count, layout.bytes)
    if layout.name == "int8":
        scale = xp.ascontiguousarray(raw[..., :_BITS]).view(float32)
        numbers = blocks.view(int8).astype(float32) * scale[..., None]
    else:
        numbers = _READERS[layout.name](xp, blocks)
    return numbers.reshape(*raw.shape[:-1], count * layout.block)[..., :features]


def _half(xp: Any, blocks: Any, at: int) -> Any:
    """The float16 at a byte of each block, with an axis for its numbers."""
    return xp.ascontiguousarray(blocks[..., at : at + 2]).view(float16).astype(float32)


def _nibbles(blocks: Any, at: int, stop: int) -> tuple[Any, Any]:
    """The lower and the upper four bits of bytes."""
    return blocks[..., at:stop] & 15, blocks[..., at:stop] >> 4


def _q8_0(xp: Any, blocks: Any) -> Any:
    numbers = xp.ascontiguousarray(blocks[..., 2:]).view(int8).astype(float32)
    numbers *= _half(xp, blocks, 0)
    return numbers


def _q4_0(xp: Any, blocks: Any) -> Any:
    numbers = xp.concatenate(_nibbles(blocks, 2, 18), -1).astype(float32)
    numbers -= 8
    numbers *= _half(xp, blocks, 0)
    return numbers


def _q4_1(xp: Any, blocks: Any) -> Any:
    numbers = xp.concatenate(_nibbles(blocks, 4, 20), -1).astype(float32)
    numbers *= _half(xp, blocks, 0)
    numbers += _half(xp, blocks, 2)
    return numbers


def _fifth(xp: Any, blocks: Any, at: int) -> Any:
    """Numbers of five bits: the highest in four bytes, then the lower four."""
    places = xp.arange(8, dtype=uint8)
    high = blocks[..., at : at + 4, None] >> places & 1
    low = xp.concatenate(_nibbles(blocks, at + 4, at + 20), -1)
    return (low | high.reshape(low.shape) << 4).astype(float32)


def _q5_0(xp: Any, blocks: Any) -> Any:
    return (_fifth(xp, blocks, 2) - 16) * _half(xp, blocks, 0)


def _q5_1(xp: Any, blocks: Any) -> Any:
    return _fifth(xp, blocks, 4) * _half(xp, blocks, 0) + _half(xp, blocks, 2)


def _group_scales(xp: Any, blocks: Any) -> tuple[Any, Any]:
    """Scales and minima of the eight groups of a block of 256: six bits each, in twelve bytes."""
    packed = blocks[..., 4:16]
    first, second, third = packed[..., :4], packed[..., 4:8], packed[..., 8:]
    scales = xp.concatenate([first & 63, (third & 15) | (first >> 6) << 4], -1)
    minima = xp.concatenate([second & 63, third >> 4 | (second >> 6) << 4], -1)
    scales = scales.astype(float32) * _half(xp, blocks, 0)
    return scales[..., None], (minima.astype(float32) * _half(xp, blocks, 2))[..., None]


def _pairs(xp: Any, blocks: Any, at: int) -> Any:
    """Four bits of each of 8 groups of 32: two groups share their bytes."""
    low, high = _nibbles(blocks, at, at + 128)
    shape = (*blocks.shape[:-1], 4, 1, GROUP)
    both = xp.concatenate([low.reshape(shape), high.reshape(shape)], -2)
    return both.reshape(*blocks.shape[:-1], 8, GROUP)


def _q4_k(xp: Any, blocks: Any) -> Any:
    scales, minima = _group_scales(xp, blocks)
    return _pairs(xp, blocks, 16).astype(float32) * scales - minima


def _q5_k(xp: Any, blocks: Any) -> Any:
    scales, minima = _group_scales(xp, blocks)
    places = xp.arange(8, dtype=uint8)[:, None]
    high = blocks[..., None, 16:48] >> places & 1
    return (_pairs(xp, blocks, 48) | high << 4).astype(float32) * scales - minima


def _q6_k(xp: Any, blocks: Any) -> Any:
    lead = blocks.shape[:-1]
    low, high = _nibbles(blocks.reshape(-1, 210), 0, 128)
    shape = (-1, 2, 1, 2, GROUP)  # halves of 128, and in each two groups, then two more
    low = xp.concatenate([low.reshape(shape), high.reshape(shape)], 2)
    places = (2 * xp.arange(4, dtype=uint8)).reshape(2, 2, 1)
    top = blocks[..., 128:192].reshape(-1, 2, 1, 1, GROUP) >> places & 3
    numbers = (low | top << 4).astype(float32) - 32
    scales = xp.ascontiguousarray(blocks[..., 192:208]).view(int8).astype(float32)
    scales *= _half(xp, blocks, 208)
    numbers = numbers.reshape(*lead, 16, 16) * scales[..., None]
    return numbers.reshape(*lead, 256)


def _bfloat16(xp: Any, blocks: Any) -> Any:
    return (blocks.view(np.uint16).astype(np.uint32) << 16).view(float32)


def _float16(xp: Any, blocks: Any) -> Any:
    return blocks.view(float16).astype(float32)


_READERS = {
    "q8_0": _q8_0,
    "q4_0": _q4_0,
    "q4_1": _q4_1,
    "q5_0": _q5_0,
    "q5_1": _q5_1,
    "q4_k": _q4_k,
    "q5_k": _q5_k,
    "q6_k": _q6_k,
    "bfloat16": _bfloat16,
    "float16": _float16,
}


# -- writing -------------------------------------------------------------------------------------


def pack(numbers: Any, form: str) -> Any:
    """Rows of floats in a format, rounded to the nearest that it has.

    Shape:
        (..., features) -> (..., bytes), uint8, NumPy
    Raises:
        ConfigError: a format that is only read.
        WeightsError: numbers for which the format has no scale: NaN, infinite or huge ones.
    """
    layout = as_format(form)
    if layout.name not in PACKED:
        raise ConfigError(
            f"weights are not written as {layout.name}, only read.\n"
            f"To choose from: {', '.join((*ALIASES, *PACKED))}.",
            got=form,
        )
    wide = np.asarray(numbers)
    features = wide.shape[-1]
    out = np.zeros((*wide.shape[:-1], layout.stored(features)), uint8)
    rows = wide.reshape(-1, features)
    flat = out.reshape(len(rows), -1)
    step = max(1, (1 << 18) // max(features, 1))  # few rows at a time, which stay in the cache
    for at in range(0, len(rows), step):
        part = rows[at : at + step].astype(float32)
        _check_scale(part, layout.name, at)
        part = np.pad(part, ((0, 0), (0, -features % layout.block)))
        flat[at : at + step] = _WRITERS[layout.name](part)
    return out


def _check_scale(rows: Any, form: str, first: int) -> None:
    """Refuse what scales cannot express: they are float16, or that of `int8` float32."""
    if form in ("bfloat16", "float16") or not rows.size:
        return
    sizes = np.abs(rows).max(-1)
    wrong = ~np.isfinite(sizes) if form == "int8" else ~(sizes <= _LARGEST)
    if wrong.any():
        row = int(wrong.argmax())
        raise WeightsError(
            f"row {first + row} of a weight holds {sizes[row]:g}, for which {form} has no scale.\n"
            "NaN and infinite values come from damaged files, or from training that diverged. "
            'Keep the weights wide: dtype="float32"',
            row=first + row,
            got=float(sizes[row]),
        )


def _bytes(*parts: Any) -> Any:
    """Blocks of the bytes of several arrays, joined to rows."""
    joined = np.concatenate([np.ascontiguousarray(part).view(uint8) for part in parts], -1)
    return joined.reshape(len(joined), -1)


def _steps(numbers: Any, scale: Any) -> Any:
    """numbers / scale rounded, 0 where the scale is."""
    with np.errstate(divide="ignore", over="ignore"):
        inverse = np.where(scale == 0, np.float32(0), np.float32(1) / scale)
    steps = numbers * np.where(np.isinf(inverse), np.float32(0), inverse)  # a scale near 0 is one
    return np.rint(steps, out=steps)


def _over_groups(groups: Any, function: Any) -> Any:
    """The least or largest number of each group: halves against halves, as NumPy is fast with."""
    while groups.shape[-1] > 1:
        half = groups.shape[-1] // 2
        groups = function(groups[..., :half], groups[..., half:])
    return groups


def _to_int8(rows: Any) -> Any:
    scale = np.abs(rows).max(-1, keepdims=True) / np.float32(127)
    numbers = np.clip(_steps(rows, scale), -127, 127).astype(int8)
    return np.concatenate([scale.view(uint8), numbers.view(uint8)], -1)


def _to_q8_0(rows: Any) -> Any:
    groups = rows.reshape(len(rows), -1, GROUP)
    scale = (_over_groups(np.abs(groups), np.maximum) / 127).astype(float16)
    numbers = np.clip(_steps(groups, scale.astype(float32)), -127, 127)
    return _bytes(scale, numbers.astype(int8))


def _paired(numbers: Any) -> Any:
    """Numbers of four bits, two in a byte: the first half of a group below the second."""
    small = numbers.astype(uint8)
    return small[..., : GROUP // 2] | small[..., GROUP // 2 :] << 4


def _to_q4_0(rows: Any) -> Any:
    groups = rows.reshape(len(rows), -1, GROUP)
    least, most = _over_groups(groups, np.minimum), _over_groups(groups, np.maximum)
    largest = np.where(-least > most, least, most)
    scale = (largest / -8).astype(float16)  # the largest is -8: there is no +8
    numbers = np.clip(_steps(groups, scale.astype(float32)) + 8, 0, 15)
    return _bytes(scale, _paired(numbers))


def _to_q4_1(rows: Any) -> Any:
    groups = rows.reshape(len(rows), -1, GROUP)
    least = _over_groups(groups, np.minimum).astype(float16)
    # From the rounded minimum, so that the largest number is reached.
    span = _over_groups(groups, np.maximum) - least.astype(float32)
    scale = (span / 15).astype(float16)
    numbers = _steps(groups - least.astype(float32), scale.astype(float32))
    return _bytes(scale, least, _paired(np.clip(numbers, 0, 15)))


_WRITERS: dict[str, Any] = {
    "int8": _to_int8,
    "q8_0": _to_q8_0,
    "q4_0": _to_q4_0,
    "q4_1": _to_q4_1,
    "bfloat16": lambda rows: rows.astype(bfloat16).view(uint8),
    "float16": lambda rows: rows.astype(float16).view(uint8),
}
