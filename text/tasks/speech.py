"""Speech written down, or translated into English."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Unpack

import numpy as np

from ...core.errors import ConfigError, DataError
from ...core.insight.progress import progress
from ...core.paths import atomic
from ...core.state import inference_mode
from ...core.tensor import Tensor
from ...hub.loading import Loaded
from ..audio import sound
from ..generate.answer import Answer
from ..generate.logits import Rule
from ..generate.loop import decode
from ..generate.sampling import seeds_of
from ..generate.settings import FILE, Options, Settings, published_settings
from ..generate.steps import Seq2SeqStep, as_float
from ..log_mel import LogMel
from ..transcription import Prompt, TimestampRule, pieces
from .base import TextTask

BATCH = 8
_STEP = 2  # columns of the spectrogram for each step of time

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Segment:
    """What was said between two times, in seconds from the beginning."""

    start: float
    end: float
    text: str
    ids: list[int]


@dataclass(frozen=True)
class Transcript:
    """A recording, written down.

    Attributes:
        text: all of it.
        language: the code of the language that is spoken; None where the model knows only one.
        segments: its parts, with times; one for each window of sound where no times were asked
            for.
        seconds: how long the recording is.
    """

    text: str
    language: str | None
    segments: list[Segment]
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON values."""
        return asdict(self)


@dataclass
class _Job:
    """A recording on its way."""

    spectrogram: Array  # (bins, columns), all of it
    columns: int  # that are no padding
    seconds: float
    timed: bool
    seed: int | None
    language: int | None = None
    at: int = 0  # the column where the next window begins
    segments: list[Segment] = field(default_factory=list)

    @property
    def over(self) -> bool:
        return self.at >= self.columns


class SpeechRecognizer(TextTask):
    """A network that writes down speech: `model("interview.wav")`.

    Attributes:
        features: how sound becomes a spectrogram.
        prompt: the tokens that tell the network language and task.
        settings: the defaults of decoding, those of the model's generation_config.json.
    """

    task = "automatic-speech-recognition"

    def __init__(
        self,
        module: Any,
        *,
        features: LogMel | None = None,
        generation: Mapping[str, Any] | None = None,
        **facts: Any,
    ) -> None:
        super().__init__(module, **facts)
        config = self.config
        self.features = features or LogMel.from_config(None, config.num_mel_bins, config.columns)
        self._set(dict(generation or {}), Settings())

    def _set(self, generation: dict[str, Any], settings: Settings) -> None:
        self._generation = generation
        self.prompt = Prompt.read(generation, self.config, self.tokenizer)
        size = self.config.vocab_size
        ends = [token for token in settings.eos_token_id if token < size]
        self.settings = replace(settings, eos_token_id=tuple(ends or [self.config.eos_token_id]))
        self._check(self.settings)

    @classmethod
    def from_loaded(cls, loaded: Loaded) -> SpeechRecognizer:
        """The task of what was loaded, with what the files of its folder say."""
        model = super().from_loaded(loaded)
        config = model.config
        if loaded.processor is not None:
            model.features = LogMel.from_config(
                loaded.processor, config.num_mel_bins, config.columns
            )
        path = None if loaded.folder is None else loaded.folder / FILE
        settings = published_settings(loaded.folder, loaded.published)
        said = loaded.published  # where older files have it
        if path is not None and path.is_file():
            said = json.loads(path.read_text(encoding="utf-8"))
        model._set(dict(said), settings)
        return model

    def save(self, folder: str | Path, *, dtype: Any = None) -> Path:
        """Write a folder that `bt.load(folder)` opens again, and transformers too."""
        target = super().save(folder, dtype=dtype)
        prompt, settings = self.prompt, self.settings
        said = {
            **{key: value for key, value in self._generation.items() if key in _KEPT},
            "decoder_start_token_id": prompt.start,
            "eos_token_id": list(settings.eos_token_id),
            "pad_token_id": self.config.pad_token_id,
            "is_multilingual": bool(prompt.languages),
        }
        if len(settings.eos_token_id) == 1:
            said["eos_token_id"] = settings.eos_token_id[0]
        if prompt.languages:
            said["lang_to_id"] = {f"<|{code}|>": token for code, token in prompt.languages.items()}
            said["task_to_id"] = dict(prompt.tasks)
        if prompt.no_timestamps is not None:
            said["no_timestamps_token_id"] = prompt.no_timestamps
        for name, values in ((FILE, said), ("preprocessor_config.json", self.features.to_config())):
            with atomic(target / name) as part:
                part.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
        return target

    # -- recognition -----------------------------------------------------------------------

    def __call__(
        self,
        audio: Any,
        *,
        rate: int | None = None,
        language: str | None = None,
        task: str | None = None,
        timestamps: bool = False,
        details: bool = False,
        batch_size: int = BATCH,
        **options: Unpack[Options],
    ) -> Any:
        """What is said: text; with `timestamps` or `details` a `Transcript`. See `transcribe`."""
        found = self.transcribe(
            audio,
            rate=rate,
            language=language,
            task=task,
            timestamps=timestamps,
            batch_size=batch_size,
            **options,
        )
        if timestamps or details:
            return found
        return found.text if isinstance(found, Transcript) else [one.text for one in found]

    def transcribe(
        self,
        audio: Any,
        *,
        rate: int | None = None,
        language: str | None = None,
        task: str | None = None,
        timestamps: bool = False,
        batch_size: int = BATCH,
        **options: Unpack[Options],
    ) -> Any:
        """Write a recording down: a `Transcript`; for a list of recordings a list.

        Args:
            audio: the path or the bytes of a WAV file; or samples at `rate`: an array (N,) or
                (N, channels), floating from -1 to 1 or of 16-bit numbers.
            rate: samples per second of an array. Other rates than the model's are resampled,
                several channels averaged.
            language: that is spoken: a code or an English name; found out unless given.
            task: "transcribe", or "translate" into English.
            timestamps: cut the text into segments with times. What is longer than a window (30
                seconds) is always read so: each window begins where the last segment ended.
            batch_size: recordings that are read together.
            options: of decoding, `num_beams`, `temperature`, ...: see
                `bestiary.text.generate.settings.Settings`.

        Raises:
            DataError: what is no WAV file, or no sound; empty audio; an array without a rate.
            ConfigError: a language or a task that the model does not know.
            HubError: the model came without a tokenizer.
        """
        tokenizer = self._need_tokenizer()
        settings = self.settings.changed(options)
        self._check(settings)
        if batch_size < 1:
            raise ConfigError(f"batch_size={batch_size} must be at least 1", got=batch_size)
        recordings, single = _recordings(audio)
        wanted = None if language is None else self.prompt.language(language)
        self.prompt.task(task)
        seeds = seeds_of(settings, len(recordings))
        jobs = [
            self._job(one, rate, timestamps, None if seeds is None else seeds[i])
            for i, one in enumerate(recordings)
        ]
        for job in jobs:
            job.language = wanted
        with progress(total=len(jobs), what="listening", unit="recordings") as bar:
            for timed in (False, True):
                active = [job for job in jobs if job.timed == timed]
                while active:
                    batch = active[:batch_size]
                    self._read(batch, task, settings, tokenizer)
                    bar.update(sum(job.over for job in batch))
                    active = [job for job in active if not job.over]
        found = [self._transcript(job) for job in jobs]
        return found[0] if single else found

    def _job(self, audio: Any, rate: int | None, timestamps: bool, seed: int | None) -> _Job:
        features = self.features
        samples = sound(audio, rate, features.rate)
        long = len(samples) > features.samples
        columns = max(-(-len(samples) // features.hop), 1)
        spectrogram = features.whole(samples) if long else features(samples)
        return _Job(
            spectrogram,
            min(columns, spectrogram.shape[1]),
            len(samples) / features.rate,
            timestamps or long,
            seed,
        )

    def _read(self, jobs: Sequence[_Job], task: str | None, settings: Settings, text: Any) -> None:
        """Let the network read a window of each."""
        columns, prompt, device = self.features.columns, self.prompt, self.module.device
        windows = np.zeros((len(jobs), self.features.bins, columns), np.float32)
        for window, job in zip(windows, jobs, strict=True):
            part = job.spectrogram[:, job.at : job.at + columns]
            window[:, : part.shape[1]] = part
        with inference_mode():
            given = Tensor(windows).to(device=device, dtype=self.module.dtype)
            states = self.module.encode(given)
            if prompt.languages and any(job.language is None for job in jobs):
                self._detect(jobs, states)
        timed = jobs[0].timed
        prompts = [prompt.tokens(job.language, task, timed) for job in jobs]
        room = self._room(settings, len(prompts[0]))
        if settings.sampling and jobs[0].seed is not None:
            seeds = tuple((job.seed or 0) + job.at for job in jobs)  # others for each window
            settings = replace(settings, seed=seeds)
        rules: list[Rule] = []
        if timed:
            assert prompt.zero is not None
            end = settings.eos_token_id[0]
            rules.append(TimestampRule(prompt.zero, end, prompt.latest_start))
        step = Seq2SeqStep(self.module, states, None, room)
        rooms = [room] * len(jobs)
        answers = decode(step, prompts, settings, rooms=rooms, rules=rules)
        for job, answer in zip(jobs, answers, strict=True):
            self._take(job, answer, text)

    def _take(self, job: _Job, answer: Answer, tokenizer: Any) -> None:
        """Add what was read of a window, and go on behind it."""
        ids = answer.ids
        if ids and ids[-1] in self.settings.eos_token_id:
            ids = ids[:-1]
        zero, per_second = self.prompt.zero, self.features.rate / self.features.hop
        columns = min(job.columns - job.at, self.features.columns)
        offset = job.at / per_second
        end = min(offset + columns / per_second, job.seconds)
        if not job.timed:
            job.segments.append(Segment(offset, end, self._text(ids, tokenizer), ids))
            job.at = job.columns
            return
        assert zero is not None
        found, covered = pieces(ids, zero, columns)
        for piece in found:
            start, stop = (offset + time * _STEP / per_second for time in (piece.start, piece.end))
            text = self._text(piece.ids, tokenizer)
            job.segments.append(Segment(start, stop, text, piece.ids))
        job.at += covered

    def _text(self, ids: Sequence[int], tokenizer: Any) -> str:
        zero = self.prompt.zero
        words = [token for token in ids if zero is None or token < zero]
        return str(tokenizer.decode(words))

    def _detect(self, jobs: Sequence[_Job], states: Tensor) -> None:
        """Find out the languages that were not given: the most probable first token."""
        starts = np.full((len(jobs), 1), self.prompt.start, np.int64)
        scores = as_float(self.module.decode(Tensor(starts).to(device=states.device), states))
        tokens = np.array(list(self.prompt.languages.values()))
        for job, row in zip(jobs, scores[:, -1], strict=True):
            if job.language is None:
                job.language = int(tokens[row[tokens].argmax()])

    def _transcript(self, job: _Job) -> Transcript:
        language = None if job.language is None else self.prompt.code(job.language)
        text = " ".join(filter(None, (one.text.strip() for one in job.segments)))
        return Transcript(text, language, job.segments, job.seconds)

    # -- checks ----------------------------------------------------------------------------

    def _check(self, settings: Settings) -> None:
        size = self.config.vocab_size
        for name in ("eos_token_id", "suppress_tokens", "begin_suppress_tokens"):
            beyond = [token for token in getattr(settings, name) if token >= size]
            if beyond:
                raise ConfigError(
                    f"{name}: token {beyond[0]} is outside of the model's vocabulary of {size}",
                    got=beyond[0],
                )
        if settings.stop or settings.num_return_sequences > 1:
            raise ConfigError(
                "a recording is written down once, to its end: no stop strings and "
                "no num_return_sequences"
            )

    def _room(self, settings: Settings, prompt: int) -> int:
        """How many tokens may follow; `max_length` of the files counts as the context does."""
        context = self.config.max_target_positions
        if settings.max_new_tokens is None:
            return int(context - prompt)
        return int(settings.room(prompt, context))


_KEPT = frozenset(
    "suppress_tokens begin_suppress_tokens forced_decoder_ids max_initial_timestamp_index "
    "alignment_heads prev_sot_token_id max_length num_beams length_penalty no_repeat_ngram_size "
    "repetition_penalty bos_token_id return_timestamps".split()
)


def _recordings(audio: Any) -> tuple[list[Any], bool]:
    """The recordings, and whether it is one alone."""
    if not isinstance(audio, list | tuple):
        return [audio], True
    if not audio:
        raise DataError("the list of recordings is empty")
    if isinstance(audio[0], int | float | np.number):
        return [np.asarray(audio)], True
    return list(audio), False
