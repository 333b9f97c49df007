"""How texts are continued: the settings, their checks, and a model's own defaults."""

from __future__ import annotations

import dataclasses
import difflib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypedDict

from ...core.errors import ConfigError

DEFAULT_NEW_TOKENS = 256
FILE = "generation_config.json"


class Options(TypedDict, total=False):
    """The settings as keyword arguments; see `Settings`. `seed`, one or one for each prompt."""

    max_new_tokens: int | None
    max_length: int | None
    min_new_tokens: int
    do_sample: bool | None
    temperature: float | None
    top_k: int | None
    top_p: float | None
    min_p: float | None
    repetition_penalty: float
    frequency_penalty: float
    presence_penalty: float
    no_repeat_ngram_size: int
    suppress_tokens: Sequence[int]
    begin_suppress_tokens: Sequence[int]
    forced_bos_token_id: int | None
    forced_eos_token_id: int | None
    num_beams: int
    num_return_sequences: int
    length_penalty: float
    early_stopping: bool | Literal["never"]
    stop: str | Sequence[str]
    eos_token_id: int | Sequence[int] | None
    pad_token_id: int | None
    seed: int | Sequence[int] | None


@dataclass(frozen=True)
class Settings:
    """How a text is continued. Names and meanings are those of transformers.

    Attributes:
        max_new_tokens: the most tokens of an answer.
        max_length: the most tokens of prompt and answer together; `max_new_tokens` wins.
        min_new_tokens: no end before so many.
        do_sample: draw tokens; None draws where one of the next four is set and not 0.
        temperature: divides the logits: above 1 for more variety; 0 takes the best token.
        top_k: draw from the k best tokens.
        top_p: draw from the fewest tokens that hold this share of the probability.
        min_p: draw from the tokens at least this share as probable as the best one.
        repetition_penalty: above 1, divides the logits of tokens that were there, prompt included.
        frequency_penalty, presence_penalty: taken off the logits of tokens of the answer, for
            each time that they came, and once.
        no_repeat_ngram_size: no run of so many tokens comes twice, prompt included.
        suppress_tokens, begin_suppress_tokens: never chosen; not chosen first.
        forced_bos_token_id, forced_eos_token_id: the first token; the last one that fits.
        num_beams: beam search over so many candidates, in place of one token at a time; where
            tokens are drawn, candidates are drawn.
        num_return_sequences: answers for each prompt.
        length_penalty: beams are ranked by log-probability / length ** length_penalty.
        early_stopping: beam search ends with as many answers as beams; False asks whether it is
            likely that a better one comes, "never" whether it is possible.
        stop: strings that end the answer, which does not include them.
        eos_token_id: tokens that end the answer.
        pad_token_id: fills shorter prompts of a batch; it is masked, so any token will do.
        seed: draws repeat themselves for it, whatever else is in the batch.

    Raises:
        ConfigError: a value that makes no sense, or two that contradict each other.
    """

    max_new_tokens: int | None = None
    max_length: int | None = None
    min_new_tokens: int = 0
    do_sample: bool | None = None
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    repetition_penalty: float = 1.0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    no_repeat_ngram_size: int = 0
    suppress_tokens: tuple[int, ...] = ()
    begin_suppress_tokens: tuple[int, ...] = ()
    forced_bos_token_id: int | None = None
    forced_eos_token_id: int | None = None
    num_beams: int = 1
    num_return_sequences: int = 1
    length_penalty: float = 1.0
    early_stopping: bool | str = False
    stop: tuple[str, ...] = ()
    eos_token_id: tuple[int, ...] = ()
    pad_token_id: int | None = None
    seed: int | tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        _whole(self, "max_new_tokens", 1, optional=True)
        _whole(self, "max_length", 1, optional=True)
        _whole(self, "min_new_tokens", 0)
        _whole(self, "no_repeat_ngram_size", 0)
        _whole(self, "num_beams", 1)
        _whole(self, "num_return_sequences", 1)
        _whole(self, "top_k", 0, optional=True)
        for name in ("forced_bos_token_id", "forced_eos_token_id", "pad_token_id"):
            _whole(self, name, 0, optional=True)
        _number(self, "temperature", 0, math.inf, "from 0, which takes the best token")
        _number(self, "top_p", 0, 1, "above 0 and at most 1", above=True)
        _number(self, "min_p", 0, 1, "from 0 to 1")
        _number(self, "repetition_penalty", 0, math.inf, "above 0; 1 changes nothing", above=True)
        for name in ("frequency_penalty", "presence_penalty", "length_penalty"):
            _number(self, name, -math.inf, math.inf, "a number")
        for name in ("suppress_tokens", "begin_suppress_tokens", "eos_token_id"):
            object.__setattr__(self, name, _tokens(name, getattr(self, name)))
        object.__setattr__(self, "stop", _strings(self.stop))
        object.__setattr__(self, "seed", _seed(self.seed))
        if self.do_sample not in (None, True, False):
            raise ConfigError(f"do_sample={self.do_sample!r} is neither True, False nor None")
        if self.early_stopping not in (True, False, "never"):
            raise ConfigError(
                f"early_stopping={self.early_stopping!r} is neither True, False nor 'never'",
                got=self.early_stopping,
            )
        self._check_together()

    def _check_together(self) -> None:
        if self.do_sample and self.temperature == 0:
            raise ConfigError("do_sample=True draws tokens, and temperature=0 takes the best one")
        if self.num_return_sequences > 1:
            if self.num_beams == 1 and not self.sampling:
                raise ConfigError(
                    f"num_return_sequences={self.num_return_sequences}, but without drawing they "
                    "are all the same.\nGive temperature=1.0, or num_beams="
                    f"{self.num_return_sequences}.",
                    got=self.num_return_sequences,
                )
            if 1 < self.num_beams < self.num_return_sequences:
                raise ConfigError(
                    f"num_return_sequences={self.num_return_sequences} are more than "
                    f"num_beams={self.num_beams}",
                    got=self.num_return_sequences,
                )
        most = self.max_new_tokens
        if most is not None and self.min_new_tokens > most:
            raise ConfigError(
                f"min_new_tokens={self.min_new_tokens} is more than max_new_tokens={most}",
                got=self.min_new_tokens,
            )

    @property
    def sampling(self) -> bool:
        """Whether tokens are drawn."""
        if self.do_sample is not None:
            return bool(self.do_sample)
        if self.temperature is not None:
            return self.temperature > 0
        return bool(self.top_k) or self.top_p is not None or bool(self.min_p)

    @property
    def changes_logits(self) -> bool:
        """Whether the logits are changed before a token is chosen."""
        return (
            self.repetition_penalty != 1
            or self.frequency_penalty != 0
            or self.presence_penalty != 0
            or self.no_repeat_ngram_size > 0
            or (self.min_new_tokens > 0 and bool(self.eos_token_id))
            or bool(self.suppress_tokens or self.begin_suppress_tokens)
            or self.forced_bos_token_id is not None
            or self.forced_eos_token_id is not None
        )

    def changed(self, given: Mapping[str, Any]) -> Settings:
        """These settings with others, as `Options`. What is given wins over a default that it
        contradicts: a temperature over beams, beams and `temperature=0` over drawing. Beams and
        a temperature that are both given draw among beams.

        Raises:
            ConfigError: an unknown name (with the nearest one), or a value that makes no sense.
        """
        known = [field.name for field in dataclasses.fields(Settings)]
        for name in given:
            if name not in known:
                near = difflib.get_close_matches(_RENAMED.get(name, name), known, n=1, cutoff=0.5)
                hint = f" Did you mean {near[0]!r}?" if near else ""
                raise ConfigError(
                    f"{name!r} is no setting of generation.{hint}\nThere are: {', '.join(known)}",
                    got=name,
                )
        return dataclasses.replace(self, **{**self._yielding(given), **given})

    def _yielding(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """The defaults that step back for what is given."""
        off: dict[str, Any] = {}
        draws = {"temperature", "top_k", "top_p", "min_p", "do_sample"}
        wanted = {name for name in draws & given.keys() if given[name]}
        none = dict.fromkeys(draws)
        if given.get("temperature") == 0 or given.get("do_sample") is False:
            off.update({name: None for name in none if name not in wanted})
        elif wanted and "do_sample" not in given and self.do_sample is False:
            off["do_sample"] = None
        if given.get("num_beams", 1) > 1:
            if not wanted:
                off.update(none)
        elif wanted and "num_beams" not in given:
            off["num_beams"] = 1
        if "max_length" in given and "max_new_tokens" not in given:
            off["max_new_tokens"] = None
        return off

    def room(self, prompt: int, context: int | None) -> int:
        """How many new tokens there may be after a prompt of so many tokens.

        Raises:
            ConfigError: more were asked for than fit, or `max_length` leaves none.
        """
        left = None if context is None else context - prompt
        if self.max_new_tokens is not None:
            if left is not None and self.max_new_tokens > left:
                raise ConfigError(
                    f"a prompt of {prompt} tokens and max_new_tokens={self.max_new_tokens} are "
                    f"more than the {context} that the model's context holds "
                    f"({prompt + self.max_new_tokens} > {context}).\n"
                    f"Give max_new_tokens={left} or less, or a shorter prompt.",
                    prompt=prompt,
                    max_new_tokens=self.max_new_tokens,
                    context=context,
                )
            return self.max_new_tokens
        if self.max_length is not None:
            if self.max_length <= prompt:
                raise ConfigError(
                    f"max_length={self.max_length} counts the prompt, which has {prompt} tokens, "
                    "so that none is left.\nGive max_new_tokens=, which does not count it.",
                    prompt=prompt,
                    max_length=self.max_length,
                )
            wanted = self.max_length - prompt
        else:
            wanted = DEFAULT_NEW_TOKENS
        return wanted if left is None else min(wanted, left)


# What other libraries call some of the settings.
_RENAMED = {
    "max_tokens": "max_new_tokens",
    "beams": "num_beams",
    "n": "num_return_sequences",
    "sample": "do_sample",
    "stop_strings": "stop",
    "stop_sequences": "stop",
    "random_state": "seed",
    "repeat_penalty": "repetition_penalty",
}


def published_settings(folder: Path | None, config: Mapping[str, Any]) -> Settings:
    """The defaults of a model: generation_config.json, else what config.json says of it.

    Keys of other meaning (`use_cache`, `transformers_version`, ...) are left aside; so is
    `max_length=20`, which transformers writes where nobody chose it.

    Raises:
        ConfigError: the file cannot be read, or a value in it makes no sense.
    """
    found: Mapping[str, Any] = config
    path = None if folder is None else folder / FILE
    if path is not None and path.is_file():
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ConfigError(f"{path} is no JSON: {error}", path=str(path)) from error
        if not isinstance(found, dict):
            raise ConfigError(f"{path} holds no JSON object", path=str(path))
    known = {field.name for field in dataclasses.fields(Settings)} - {"stop", "seed"}
    chosen = {k: v for k, v in found.items() if k in known and v is not None}
    if chosen.get("max_length") == 20:
        del chosen["max_length"]
    if found.get("stop_strings"):
        chosen["stop"] = found["stop_strings"]
    if not chosen.get("do_sample"):  # transformers ignores these then
        chosen.pop("do_sample", None)
        for name in ("temperature", "top_k", "top_p", "min_p"):
            chosen.pop(name, None)
    if chosen.get("num_beams", 1) == 1:
        chosen.pop("num_return_sequences", None)
    return Settings(**chosen)


# -- checks ----------------------------------------------------------------------------------------


def _whole(settings: Settings, name: str, least: int, optional: bool = False) -> None:
    value = getattr(settings, name)
    if value is None and optional:
        return
    if type(value) is not int or value < least:
        raise ConfigError(f"{name}={value!r} must be a whole number from {least}", got=value)


def _number(
    settings: Settings, name: str, low: float, high: float, meaning: str, above: bool = False
) -> None:
    value = getattr(settings, name)
    if value is None and name in ("temperature", "top_p", "min_p"):
        return
    fits = isinstance(value, int | float) and not isinstance(value, bool)
    if not fits or not math.isfinite(value) or not low <= value <= high or (above and value == low):
        raise ConfigError(f"{name}={value!r} must be {meaning}", got=value)


def _tokens(name: str, value: Any) -> tuple[int, ...]:
    found = () if value is None else (value,) if type(value) is int else tuple(value)
    if not all(type(number) is int and number >= 0 for number in found):
        raise ConfigError(f"{name}={value!r} must be numbers of tokens", got=value)
    return found


def _strings(value: Any) -> tuple[str, ...]:
    found = () if value is None else (value,) if isinstance(value, str) else tuple(value)
    if not all(isinstance(text, str) and text for text in found):
        raise ConfigError(f"stop={value!r} must be strings that are not empty", got=value)
    return found


def _seed(value: Any) -> int | tuple[int, ...] | None:
    if value is None:
        return None
    found = (value,) if isinstance(value, int) else tuple(value)
    if not all(type(number) is int and number >= 0 for number in found):
        raise ConfigError(f"seed={value!r} must be a whole number from 0, or one a prompt")
    return found[0] if isinstance(value, int) else found
