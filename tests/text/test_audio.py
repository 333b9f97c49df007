"""WAV files of every kind, samples in arrays, resampling; and what is no sound."""

from __future__ import annotations

import struct
import wave
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bestiary.core.errors import DataError
from bestiary.text.audio import read_wav, resample, sound

TONE = (0.5 * np.sin(np.arange(400) / 7)).astype(np.float32)


def wav(
    samples: np.ndarray, bits: int = 16, rate: int = 16_000, code: int = 1, extra: bytes = b""
) -> bytes:
    """A WAV file, chunk by chunk."""
    channels = samples.shape[1] if samples.ndim == 2 else 1
    flat = samples.reshape(-1)
    if code == 3:
        data = flat.astype(f"<f{bits // 8}").tobytes()
    elif bits == 8:
        data = np.round(flat * 127 + 128).astype(np.uint8).tobytes()
    elif bits == 24:
        wide = np.round(flat * (2**23 - 1)).astype("<i4")
        data = wide.view(np.uint8).reshape(-1, 4)[:, :3].tobytes()
    else:
        data = np.round(flat.astype(np.float64) * (2 ** (bits - 1) - 1)).astype(f"<i{bits // 8}")
        data = data.tobytes()
    block = channels * bits // 8
    form = struct.pack("<HHIIHH", code, channels, rate, rate * block, block, bits)
    body = b"fmt " + struct.pack("<I", len(form)) + form + extra
    body += b"data" + struct.pack("<I", len(data)) + data
    return b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WAVE" + body


@pytest.mark.parametrize(("bits", "code"), [(8, 1), (16, 1), (24, 1), (32, 1), (32, 3), (64, 3)])
def test_kinds_of_samples(bits: int, code: int) -> None:
    found, rate = read_wav(wav(TONE, bits, code=code))
    assert rate == 16_000 and found.shape == (400, 1) and found.dtype == np.float32
    assert np.abs(found[:, 0] - TONE).max() < (0.01 if bits == 8 else 4e-5)


def test_equals_the_standard_library(tmp_path: Path) -> None:
    path = tmp_path / "tone.wav"
    with wave.open(str(path), "wb") as file:
        file.setnchannels(2)
        file.setsampwidth(2)
        file.setframerate(22_050)
        file.writeframes(np.arange(-50, 50, dtype="<i2").tobytes())
    found, rate = read_wav(path)
    assert rate == 22_050
    assert np.array_equal(found * 32_768, np.arange(-50, 50).reshape(50, 2))


def test_other_chunks_streams_and_cut_files() -> None:
    odd = b"LIST" + struct.pack("<I", 3) + b"abc\0"
    plain = wav(TONE)
    assert np.array_equal(read_wav(wav(TONE, extra=odd))[0], read_wav(plain)[0])
    endless = plain.replace(b"data" + struct.pack("<I", 800), b"data\xff\xff\xff\xff")
    assert np.array_equal(read_wav(endless)[0], read_wav(plain)[0])
    assert len(read_wav(plain[:-5])[0]) == 397
    form = struct.pack("<HHIIHHHHIH", 0xFFFE, 1, 8000, 16_000, 2, 16, 22, 16, 0, 1) + b"\0" * 14
    body = (
        b"fmt " + struct.pack("<I", len(form)) + form + b"data" + struct.pack("<I", 4) + b"\1\0\2\0"
    )
    extensible = b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WAVE" + body
    found, rate = read_wav(extensible)
    assert rate == 8000 and (found[:, 0] * 32_768).tolist() == [1, 2]


@pytest.mark.parametrize(
    ("data", "word"),
    [
        (b"", "empty"),
        (b"hello", "no WAV file"),
        (b"ID3\x04" + b"\0" * 50, "an MP3 file"),
        (b"fLaC" + b"\0" * 50, "a FLAC file"),
        (b"OggS" + b"\0" * 50, "an Ogg file"),
        (b"\0\0\0\x20ftypM4A " + b"\0" * 50, "M4A"),
        (b"RIFF\0\0\0\0WAVE", "no samples"),
        (b"RIFF\0\0\0\0WAVEdata\4\0\0\0abcd", "before their format"),
        (b"RIFF\0\0\0\0WAVEfmt \4\0\0\0abcd", "damaged"),
        (wav(TONE, code=7), "format 7"),
        (wav(TONE, rate=3), "rate=3"),
        (wav(TONE).replace(struct.pack("<HH", 1, 1), struct.pack("<HH", 1, 0), 1), "damaged"),
    ],
)
def test_what_is_no_wav(data: bytes, word: str) -> None:
    with pytest.raises(DataError, match=word):
        read_wav(data)


def test_files_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere\.wav"):
        read_wav(tmp_path / "nowhere.wav")
    with pytest.raises(DataError, match="cannot be read"):
        read_wav(tmp_path)


# -- arrays ----------------------------------------------------------------------------------------


def test_samples_in_arrays() -> None:
    same = sound(TONE, 16_000, 16_000)
    assert np.array_equal(same, TONE)
    assert np.array_equal(sound(TONE.astype(np.float64), 16_000, 16_000), TONE)
    whole = np.round(TONE * 32_767).astype(np.int16)
    assert np.abs(sound(whole, 16_000, 16_000) - TONE).max() < 1e-4
    small = np.round(TONE * 127 + 128).astype(np.uint8)
    assert np.abs(sound(small, 16_000, 16_000) - TONE).max() < 0.01
    stereo = np.stack([TONE, -TONE / 2], axis=1)
    assert np.allclose(sound(stereo, 16_000, 16_000), TONE / 4)
    assert np.allclose(sound(wav(stereo), None, 16_000), TONE / 4, atol=1e-4)


@pytest.mark.parametrize(
    ("audio", "rate", "word"),
    [
        (TONE, None, "rate=16000"),
        (TONE, 7, "rate=7"),
        (TONE, 16_000.5, "whole number"),
        (TONE, True, "whole number"),
        (TONE[:0], 16_000, "empty"),
        (TONE * np.nan, 16_000, "finite"),
        (TONE * 20_000, 16_000, "32768"),
        (TONE[None], 16_000, r"audio\.T"),
        (TONE[None, None], 16_000, "shape"),
        (TONE.astype(np.int64), 16_000, "int64"),
        (TONE > 0, 16_000, "bool"),
        (None, 16_000, "NoneType"),
        (wav(TONE), 8000, "has 16000"),
        (wav(TONE[:0]), None, "empty"),
    ],
)
def test_what_is_no_sound(audio: Any, rate: Any, word: str) -> None:
    with pytest.raises(DataError, match=word):
        sound(audio, rate, 16_000)


# -- resampling ------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [8000, 11_025, 22_050, 44_100, 48_000])
@pytest.mark.parametrize("share", [0.05, 0.5, 0.91])
def test_tones_stay_what_they_are(rate: int, share: float) -> None:
    frequency = share * min(rate, 16_000) / 2
    x = np.sin(2 * np.pi * frequency * np.arange(rate) / rate).astype(np.float32)
    found = resample(x, rate, 16_000)
    want = np.sin(2 * np.pi * frequency * np.arange(16_000) / 16_000)
    assert found.shape == (16_000,) and found.dtype == np.float32
    assert np.abs(found - want)[500:-500].max() < 2e-4


def test_nothing_aliases() -> None:
    x = np.sin(2 * np.pi * 9000 * np.arange(44_100) / 44_100).astype(np.float32)
    assert np.abs(resample(x, 44_100, 16_000))[200:-200].max() < 1e-4


def test_lengths() -> None:
    for count in (1, 2, 3, 440, 441, 442):
        x = np.ones(count, np.float32)
        assert len(resample(x, 44_100, 16_000)) == -(-count * 160 // 441)
    assert len(resample(np.ones(5, np.float32), 8000, 16_000)) == 10
