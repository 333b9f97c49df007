"""What Whisper's decoder reads first, and the time stamps in what it writes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from ..core.errors import ConfigError
from .generate.history import History
from .generate.logits import log_softmax

Array = np.ndarray[Any, Any]

_NAMES = """
af afrikaans am amharic ar arabic as assamese az azerbaijani ba bashkir be belarusian bg bulgarian
bn bengali bo tibetan br breton bs bosnian ca catalan cs czech cy welsh da danish de german el greek
en english es spanish et estonian eu basque fa persian fi finnish fo faroese fr french gl galician
gu gujarati ha hausa haw hawaiian he hebrew hi hindi hr croatian ht haitian hu hungarian hy armenian
id indonesian is icelandic it italian ja japanese jw javanese ka georgian kk kazakh km khmer
kn kannada ko korean la latin lb luxembourgish ln lingala lo lao lt lithuanian lv latvian
mg malagasy mi maori mk macedonian ml malayalam mn mongolian mr marathi ms malay mt maltese
my burmese ne nepali nl dutch nn nynorsk no norwegian oc occitan pa punjabi pl polish ps pashto
pt portuguese ro romanian ru russian sa sanskrit sd sindhi si sinhala sk slovak sl slovenian
sn shona so somali sq albanian sr serbian su sundanese sv swedish sw swahili ta tamil te telugu
tg tajik th thai tk turkmen tl tagalog tr turkish tt tatar uk ukrainian ur urdu uz uzbek
vi vietnamese yi yiddish yo yoruba yue cantonese zh chinese
""".split()
#: Codes of languages, as Whisper has them, by their English names.
LANGUAGES = dict(zip(_NAMES[1::2], _NAMES[::2], strict=True))
TASKS = ("transcribe", "translate")
ENGLISH_ONLY = 51_864  # the vocabulary of the models that know no other language


@dataclass(frozen=True)
class Prompt:
    """The tokens with which the decoder is told what to do.

    Args:
        start: the first.
        languages: token of each language's code; none where only English is known.
        tasks: token of "transcribe" and of "translate".
        no_timestamps: the token that asks for none; the token of time 0 comes after it. None
            where the model knows no times.
        latest_start: the most steps of time before the first time stamp of an answer.
        default: the task unless told otherwise.
    """

    start: int
    languages: Mapping[str, int]
    tasks: Mapping[str, int]
    no_timestamps: int | None = None
    latest_start: int | None = None
    default: str = "transcribe"

    @property
    def zero(self) -> int | None:
        """The token of time 0; those of later times follow it."""
        return None if self.no_timestamps is None else self.no_timestamps + 1

    def language(self, name: str) -> int:
        """The token of a language, by its code or English name.

        Raises:
            ConfigError: the model does not know it.
        """
        code = LANGUAGES.get(str(name).lower(), str(name).lower())
        if code not in self.languages:
            known = ", ".join(sorted(self.languages)) or "English alone: leave language away"
            raise ConfigError(
                f"language={name!r} is none that this model knows.\nIt knows {known}.", got=name
            )
        return self.languages[code]

    def code(self, token: int) -> str:
        """The code of a language's token."""
        return next(code for code, known in self.languages.items() if known == token)

    def task(self, name: str | None) -> list[int]:
        """The token of a task; nothing where the model knows only one.

        Raises:
            ConfigError: there is no such task, or not for this model.
        """
        if name not in (None, *TASKS):
            raise ConfigError(f"task={name!r} is none: {' or '.join(TASKS)}", got=name)
        if not self.languages and name == "translate":
            raise ConfigError("this model knows English alone and translates nothing", got=name)
        token = self.tasks.get(name or self.default)
        return [] if token is None or not self.languages else [token]

    def tokens(self, language: int | None, task: str | None, timestamps: bool) -> list[int]:
        """What the decoder reads first.

        Raises:
            ConfigError: the model knows no times, and they are asked for.
        """
        if timestamps and self.no_timestamps is None:
            raise ConfigError(
                "this model's files name no token for times (no_timestamps_token_id in "
                "generation_config.json), so that it can give none, and read no more than one "
                "window of sound."
            )
        quiet = [] if timestamps or self.no_timestamps is None else [self.no_timestamps]
        return [
            self.start,
            *([] if language is None else [language]),
            *self.task(task),
            *quiet,
        ]

    @classmethod
    def read(cls, said: Mapping[str, Any], config: Any, tokenizer: Any) -> Prompt:
        """What a generation_config.json says; what it leaves out, by the names of the tokens."""

        def token(name: str) -> int | None:
            return None if tokenizer is None else tokenizer.number(f"<|{name}|>")

        def tokens(names: Sequence[str]) -> dict[str, int]:
            return {name: found for name in names if (found := token(name)) is not None}

        size = config.vocab_size
        languages = {key.strip("<|>"): value for key, value in _table(said, "lang_to_id").items()}
        if not languages and size != ENGLISH_ONLY:
            languages = tokens(list(LANGUAGES.values()))
        if said.get("is_multilingual") is False:
            languages = {}
        tasks = _table(said, "task_to_id") or tokens(TASKS)
        default = "transcribe"
        forced = [pair[1] for pair in said.get("forced_decoder_ids") or ()]
        if tasks.get("translate") in forced and tasks.get("translate") is not None:
            default = "translate"
        quiet = said.get("no_timestamps_token_id", token("notimestamps"))
        start = said.get("decoder_start_token_id", config.decoder_start_token_id)
        latest = said.get("max_initial_timestamp_index")
        for name, value in {"start": start, "no_timestamps": quiet, **languages, **tasks}.items():
            if value is not None and (type(value) is not int or not 0 <= value < size):
                raise ConfigError(
                    f"generation_config.json: {name}={value!r} is no token of the {size} there are",
                    got=value,
                )
        return cls(start, languages, tasks, quiet, latest, default)


def _table(said: Mapping[str, Any], name: str) -> dict[str, int]:
    found = said.get(name) or {}
    if not isinstance(found, Mapping):
        raise ConfigError(f"generation_config.json: {name} is no table", got=found)
    return dict(found)


class TimestampRule:
    """Keeps times in order and in pairs, one before and one after each piece of text.

    Args:
        zero: the token of time 0.
        end: the token that ends an answer.
        latest_start: the most steps of time before the first time stamp.

    Source: Radford et al. 2022, section 4.5; the rules as transformers has them.
    """

    def __init__(self, zero: int, end: int, latest_start: int | None) -> None:
        self.zero, self.end, self.latest_start = zero, end, latest_start

    def __call__(self, history: History, logits: Array) -> None:
        zero, new = self.zero, history.new
        logits[zero - 1] = -np.inf
        was = bool(new) and new[-1] >= zero
        before = len(new) < 2 or new[-2] >= zero
        if was and before:  # text has to follow
            logits[zero:] = -np.inf
        elif was:  # the next piece begins, or the answer ends
            logits[: self.end] = -np.inf
        times = [token for token in new if token >= zero]
        if times:  # never back, and no piece without length
            logits[zero : times[-1] + (0 if was and not before else 1)] = -np.inf
        if not new:
            logits[:zero] = -np.inf
            if self.latest_start is not None:
                logits[zero + self.latest_start + 1 :] = -np.inf
        if np.isfinite(logits[zero:]).any():
            chances = log_softmax(logits)
            if np.logaddexp.reduce(chances[zero:]) > chances[:zero].max():
                logits[:zero] = -np.inf


class Piece(NamedTuple):
    """Tokens between two times, in steps from the beginning of the window."""

    start: int
    end: int
    ids: list[int]


def pieces(ids: Sequence[int], zero: int, columns: int) -> tuple[list[Piece], int]:
    """Cut an answer at its times; also how many columns of the spectrogram it covers.

    Where the last piece is unfinished, the next window begins at the last time before it.

    Args:
        ids: without the token that ends.
        zero: the token of time 0; a step of time is two columns.
        columns: that the window has.
    """
    ids = list(ids)
    stamped = [token >= zero for token in ids]
    cuts = [i + 1 for i in range(len(ids) - 1) if stamped[i] and stamped[i + 1]]
    if not cuts:
        times = [token - zero for token, is_time in zip(ids, stamped, strict=True) if is_time]
        end = times[-1] if times and times[-1] else columns // 2
        return [Piece(0, end, ids)], columns
    complete = stamped[-2:] == [False, True]
    if complete:
        cuts.append(len(ids))
    else:
        cuts[-1] += 1  # the time that begins what is unfinished
    found, last = [], 0
    for number, cut in enumerate(cuts):
        part = ids[last:cut]
        end = part[-2 if number == len(cuts) - 1 and not complete else -1]
        found.append(Piece(part[0] - zero, end - zero, part))
        last = cut
    covered = columns if complete else 2 * (ids[last - 2] - zero)
    return found, covered if covered > 0 else columns
