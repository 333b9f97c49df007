"""Sound to spectrograms: how loud each of some bands of frequencies is, hundred times a second."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from ..core.errors import ConfigError, DataError

Array = np.ndarray[Any, Any]

# Keys of preprocessor_config.json that change nothing here: the filters are computed.
_KEYS = {
    "feature_size": "bins",
    "sampling_rate": "rate",
    "hop_length": "hop",
    "n_fft": "window",
    "chunk_length": "seconds",
}


@dataclass(frozen=True)
class LogMel:
    """Whisper's spectrogram.

    Args:
        bins: bands of frequencies, equally wide in mel.
        rate: samples per second of the sound.
        hop: samples from one column to the next.
        window: samples that a column looks at.
        seconds: how long the sound of one spectrogram is.

    Source: Radford et al. 2022, section 2.2.
    """

    bins: int = 80
    rate: int = 16_000
    hop: int = 160
    window: int = 400
    seconds: float = 30

    def __post_init__(self) -> None:
        for name in ("bins", "rate", "hop", "window"):
            value = getattr(self, name)
            if type(value) is not int or not 1 <= value <= 1 << 20:
                raise ConfigError(f"a spectrogram of {name}={value!r} makes no sense", got=value)
        if not 0 < self.seconds <= 3600 or self.columns < 1 or self.window < 8:
            raise ConfigError(
                f"spectrograms of {self.seconds} seconds, with a window of {self.window} and a hop "
                f"of {self.hop} samples, make no sense"
            )

    @property
    def columns(self) -> int:
        """How many columns a spectrogram has."""
        return int(self.seconds * self.rate) // self.hop

    @property
    def samples(self) -> int:
        """How many samples it is made of."""
        return self.columns * self.hop

    @cached_property
    def filters(self) -> Array:
        """How much each frequency counts in each band. Shape: (1 + window // 2, bins)."""
        return mel_filters(self.bins, self.rate, self.window)

    def __call__(self, sound: Array) -> Array:
        """The spectrogram of one recording, cut or filled up with silence.

        Shape:
            (N,), from -1 to 1 -> (bins, columns), float32
        """
        padded = np.zeros(self.samples, np.float32)
        kept = sound[: self.samples]
        padded[: len(kept)] = kept
        return self.whole(padded)

    def whole(self, sound: Array) -> Array:
        """The spectrogram of a recording of any length.

        Shape:
            (N,), from -1 to 1 -> (bins, N // hop), float32
        Raises:
            DataError: too little sound for a column, or numbers that are none.
        """
        if sound.ndim != 1 or not len(sound):
            raise DataError(f"sound of shape (N,) is wanted, got {sound.shape}")
        if not np.isfinite(sound).all():
            raise DataError("the sound has values that are no finite numbers (NaN or infinite)")
        half = self.window // 2
        if len(sound) <= half:
            sound = np.concatenate([sound, np.zeros(half + 1 - len(sound), sound.dtype)])
        x = np.pad(sound.astype(np.float64), half, mode="reflect")
        frames = np.lib.stride_tricks.sliding_window_view(x, self.window)[:: self.hop]
        frames = frames[: max(len(sound) // self.hop, 1)]
        taper = np.hanning(self.window + 1)[:-1]
        power = np.empty((self.bins, len(frames)))
        for start in range(0, len(frames), 1000):  # memory of a few MB, however long it is
            spectrum = np.fft.rfft(frames[start : start + 1000] * taper, axis=1)
            power[:, start : start + 1000] = (np.abs(spectrum) ** 2 @ self.filters).T
        level = np.log10(np.maximum(power, 1e-10))
        level = np.maximum(level, level.max() - 8.0)
        return np.asarray((level + 4.0) / 4.0, np.float32)

    @classmethod
    def from_config(cls, said: Mapping[str, Any] | None, bins: int, columns: int) -> LogMel:
        """What a preprocessor_config.json says, for a model of so many bands and columns.

        Raises:
            ConfigError: they do not go together.
        """
        given = {ours: said[theirs] for theirs, ours in _KEYS.items() if said and theirs in said}
        made = cls(**{"bins": bins, **given})
        if "seconds" not in given:
            made = cls(**{"bins": bins, **given, "seconds": columns * made.hop / made.rate})
        if (made.bins, made.columns) != (bins, columns):
            raise ConfigError(
                f"preprocessor_config.json makes spectrograms of {made.bins} bins and "
                f"{made.columns} columns, and the model reads {bins} and {columns}.\n"
                "The two files are of different models.",
                expected=(bins, columns),
                got=(made.bins, made.columns),
            )
        return made

    def to_config(self) -> dict[str, Any]:
        """As a preprocessor_config.json that transformers reads too."""
        whole = int(self.seconds) if float(self.seconds).is_integer() else self.seconds
        return {
            **{theirs: getattr(self, ours) for theirs, ours in _KEYS.items()},
            "chunk_length": whole,
            "feature_extractor_type": "WhisperFeatureExtractor",
            "n_samples": self.samples,
            "nb_max_frames": self.columns,
            "padding_side": "right",
            "padding_value": 0.0,
            "processor_class": "WhisperProcessor",
            "return_attention_mask": False,
        }


def mel_filters(bins: int, rate: int, window: int) -> Array:
    """Triangles over the frequencies, each of area 1, whose corners are equally far apart in mel.

    Mel here grows with the frequency up to 1000 Hz, and with its logarithm from there; the last
    corner is at 8000 Hz, or at half the rate where that is lower.

    Shape: (1 + window // 2, bins)
    Source: Slaney 1998, "Auditory Toolbox".
    """
    top = min(8000.0, rate / 2)
    corners = _hertz(np.linspace(_mel(0.0), _mel(top), bins + 2))
    frequencies = np.linspace(0, rate // 2, 1 + window // 2)
    widths = np.diff(corners)
    slopes = corners[None] - frequencies[:, None]
    down, up = -slopes[:, :-2] / widths[:-1], slopes[:, 2:] / widths[1:]
    triangles = np.maximum(0, np.minimum(down, up))
    return np.asarray(triangles * (2.0 / (corners[2:] - corners[:-2])))


_BREAK, _PER_MEL = 1000.0, 200.0 / 3  # where it becomes logarithmic, hertz per mel below
_STEP = np.log(6.4) / 27


def _mel(hertz: float) -> float:
    if hertz < _BREAK:
        return hertz / _PER_MEL
    return float(_BREAK / _PER_MEL + np.log(hertz / _BREAK) / _STEP)


def _hertz(mel: Array) -> Array:
    corner = _BREAK / _PER_MEL
    above = _BREAK * np.exp(_STEP * (np.maximum(mel, corner) - corner))
    return np.where(mel < corner, mel * _PER_MEL, above)
