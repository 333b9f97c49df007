"""Reading sound: WAV files, and numbers at any rate."""

from __future__ import annotations

import struct
from math import gcd
from pathlib import Path
from typing import Any

import numpy as np

from ..core.errors import DataError

Array = np.ndarray[Any, Any]

RATES = (1000, 768_000)  # samples per second that are believed
_ZEROS = 64  # how many zeros of the sine cardinal the filter of `resample` has on either side
_PCM, _FLOAT, _EXTENSIBLE = 1, 3, 0xFFFE
_OTHERS = {
    b"ID3": "an MP3 file",
    b"\xff\xfb": "an MP3 file",
    b"\xff\xf3": "an MP3 file",
    b"fLaC": "a FLAC file",
    b"OggS": "an Ogg file",
    b"\x1aE\xdf\xa3": "a Matroska or WebM file",
}


def read_wav(source: str | Path | bytes | bytearray | memoryview) -> tuple[Array, int]:
    """The samples of a WAV file and their rate.

    8-, 16-, 24- and 32-bit PCM and floating samples of 32 and 64 bits are read. A file that is cut
    short gives what there is.

    Shape: (N, channels), float32 from -1 to 1
    Raises:
        DataError: it is no WAV file, or one of another kind; says which.
    """
    if isinstance(source, bytes | bytearray | memoryview):
        data, name = bytes(source), "the audio"
    else:
        path = Path(source).expanduser()
        name = str(source)
        try:
            data = path.read_bytes()
        except OSError as error:
            raise DataError(f"{name}: cannot be read: {error.strerror or error}") from error
    if data[:4] not in (b"RIFF", b"RF64") or data[8:12] != b"WAVE":
        raise DataError(_no_wav(data, name))
    shape: tuple[int, int, int, int] | None = None
    at = 12
    while at + 8 <= len(data):
        kind, size = struct.unpack_from("<4sI", data, at)
        body = data[at + 8 : at + 8 + size]  # streams say 0xffffffff: all that comes
        if kind == b"fmt ":
            shape = _format(body, name)
        elif kind == b"data":
            if shape is None:
                raise DataError(f"{name}: a damaged WAV file: samples come before their format")
            code, channels, rate, bits = shape
            return _samples(body, code, channels, bits), rate
        at += 8 + size + size % 2
    raise DataError(f"{name}: a damaged WAV file: there are no samples in it")


def _no_wav(data: bytes, name: str) -> str:
    if not data:
        return f"{name}: the file is empty"
    found = next((what for start, what in _OTHERS.items() if data.startswith(start)), None)
    if data[4:8] == b"ftyp":
        found = "an MP4 or M4A file"
    what = f"{found}, not a WAV file" if found else "no WAV file"
    return f"{name}: {what}.\nOnly WAV is read; ffmpeg makes one: ffmpeg -i INPUT -ac 1 output.wav"


def _format(body: bytes, name: str) -> tuple[int, int, int, int]:
    """What the samples are: code, channels, rate, bits, each checked."""
    if len(body) < 16:
        raise DataError(f"{name}: a damaged WAV file: its format has {len(body)} bytes, not 16")
    code, channels, rate, _, block, bits = struct.unpack_from("<HHIIHH", body)
    if code == _EXTENSIBLE and len(body) >= 26:
        code = struct.unpack_from("<H", body, 24)[0]
    known = {_PCM: (8, 16, 24, 32), _FLOAT: (32, 64)}
    if bits not in known.get(code, ()):
        raise DataError(
            f"{name}: WAV files of format {code} with {bits} bits are not read.\n"
            "ffmpeg makes one that is: ffmpeg -i INPUT -c:a pcm_s16le output.wav",
            got=(code, bits),
        )
    if not 1 <= channels <= 64 or block != channels * bits // 8:
        raise DataError(f"{name}: a damaged WAV file: {channels} channels, {block} bytes a frame")
    check_rate(rate, name)
    return code, channels, rate, bits


def _samples(body: bytes, code: int, channels: int, bits: int) -> Array:
    """Bytes as numbers from -1 to 1. Shape: (N, channels)."""
    frame = channels * bits // 8
    body = body[: len(body) // frame * frame]
    if code == _FLOAT:
        found: Any = np.frombuffer(body, f"<f{bits // 8}").astype(np.float32)
    elif bits == 8:  # the only one without a sign
        found = (np.frombuffer(body, np.uint8).astype(np.float32) - 128) / 128
    elif bits == 24:
        parts = np.frombuffer(body, np.uint8).reshape(-1, 3)
        wide = np.zeros((len(parts), 4), np.uint8)
        wide[:, 1:] = parts
        found = wide.view("<i4")[:, 0] / np.float32(2**31)
    else:
        found = np.frombuffer(body, f"<i{bits // 8}") / np.float32(2 ** (bits - 1))
    return np.asarray(found, np.float32).reshape(-1, channels)


def check_rate(rate: Any, name: str = "the audio") -> int:
    """A believable rate.

    Raises:
        DataError: it is none.
    """
    if isinstance(rate, bool) or not isinstance(rate, int | np.integer):
        raise DataError(f"{name}: rate={rate!r} must be a whole number of samples per second")
    if not RATES[0] <= rate <= RATES[1]:
        raise DataError(
            f"{name}: rate={rate} samples per second is not between {RATES[0]} and {RATES[1]}",
            got=int(rate),
        )
    return int(rate)


def sound(audio: Any, rate: int | None, wanted: int) -> Array:
    """One recording as numbers at the rate that is wanted; several channels are averaged.

    Args:
        audio: the path or the bytes of a WAV file, or samples: (N,) or (N, channels), floating from
            -1 to 1, or whole numbers of 8 bits without a sign, 16 or 32 bits with one.
        rate: samples per second; files say it themselves.

    Shape: (N,), float32
    Raises:
        DataError: what cannot be sound, an array without a rate, a rate that the file contradicts.
    """
    if isinstance(audio, str | Path | bytes | bytearray | memoryview):
        found, said = read_wav(audio)
        if rate is not None and check_rate(rate) != said:
            raise DataError(
                f"rate={rate}, but the file has {said} samples per second.\nLeave rate away: files "
                "say it themselves.",
                expected=said,
                got=rate,
            )
        rate = said
    else:
        found = _numbers(audio)
        if rate is None:
            raise DataError(
                "how many samples per second does this array have? Give rate=, such as rate=16000"
            )
        check_rate(rate)
    if not len(found):
        raise DataError("the audio is empty: it has no samples")
    if not np.isfinite(found).all():
        raise DataError("the audio has values that are no finite numbers (NaN or infinite)")
    return resample(found.mean(axis=1, dtype=np.float32), rate, wanted)


def _numbers(audio: Any) -> Array:
    """Samples of an array from -1 to 1. Shape: (N, channels)."""
    array = np.asarray(getattr(audio, "array", audio))
    if array.ndim not in (1, 2) or array.dtype.kind not in "fiu":
        raise DataError(
            f"audio is the path or the bytes of a WAV file, or an array (N,) or (N, channels) of "
            f"numbers, not {type(audio).__name__} of shape {array.shape} and type {array.dtype}"
        )
    if array.ndim == 2 and array.shape[1] > 64:
        raise DataError(
            f"an array of shape {array.shape} would have {array.shape[1]} channels: samples come "
            "first, (N, channels).\nChannels first? Give audio.T",
            got=array.shape,
        )
    if array.dtype.kind == "f":
        most = float(np.fmax.reduce(np.abs(array), axis=None, initial=0))
        if 16 < most < np.inf:
            raise DataError(
                f"floating samples lie between -1 and 1; these go up to {most:g}.\n"
                "Of 16-bit numbers? audio / 32768"
            )
        scaled: Any = array.astype(np.float32)
    elif array.dtype == np.uint8:
        scaled = (array.astype(np.float32) - 128) / 128
    elif array.dtype in (np.int16, np.int32):
        scaled = array / np.float32(2 ** (8 * array.dtype.itemsize - 1))
    else:
        raise DataError(
            f"whole numbers of type {array.dtype} have no known range: uint8, int16 and int32 have"
        )
    columns = -1 if array.ndim == 2 else 1
    return np.asarray(scaled, np.float32).reshape(len(array), columns)


def resample(x: Array, rate: int, wanted: int) -> Array:
    """Sound at another rate: by a sine cardinal under a Kaiser window, which keeps frequencies up
    to 92% of what the lower of the two rates can hold and lets none alias.

    Shape: (N,) -> (ceil(N * wanted / rate),), float32
    Source: Smith 2002, "Digital Audio Resampling".
    """
    if rate == wanted:
        return x
    common = gcd(rate, wanted)
    up, down = wanted // common, rate // common
    cutoff = min(1.0, up / down) * 0.96  # the middle of the slope
    half = int(np.ceil(_ZEROS / cutoff))
    count = -(-len(x) * up // down)
    padded = np.concatenate([np.zeros(half, x.dtype), x, np.zeros(half + 1, x.dtype)])
    windows = np.lib.stride_tricks.sliding_window_view(padded, 2 * half)
    offsets = np.arange(1 - half, half + 1)
    out = np.empty(count, np.float32)
    for phase in range(min(up, count)):  # places that lie alike between samples share a filter
        start, part = divmod(phase * down, up)
        t = offsets - part / up
        taps = (
            cutoff * np.sinc(cutoff * t) * np.i0(8.0 * np.sqrt(np.maximum(1 - (t / half) ** 2, 0)))
        )
        taps = (taps / taps.sum()).astype(np.float32)
        places = out[phase::up]
        places[:] = windows[start + 1 :: down][: len(places)] @ taps
    return out
