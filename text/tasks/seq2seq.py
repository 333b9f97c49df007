"""One text turned into another: translation, summaries, answers."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Unpack

import numpy as np

from ...core.errors import ConfigError, DataError
from ...core.insight.progress import progress
from ...core.paths import atomic
from ...core.state import inference_mode
from ...core.tensor import Tensor
from ...hub.loading import Loaded
from ..generate.answer import Answer
from ..generate.loop import begin, decode, loop
from ..generate.sampling import seeds_of
from ..generate.settings import FILE, Options, Settings, published_settings
from ..generate.steps import Seq2SeqStep
from .base import TextTask
from .generator import BATCH, Generation


class TextToText(TextTask):
    """A network with encoder and decoder: `model("translate English to German: Hello")`.

    Attributes:
        settings: the defaults, those of the model's generation_config.json. Each can be given at
            every call; see `bestiary.text.generate.settings.Settings`.
    """

    task = "text2text-generation"

    def __init__(self, module: Any, *, settings: Settings | None = None, **facts: Any) -> None:
        super().__init__(module, **facts)
        self.settings = self._with_end(settings or Settings())

    @classmethod
    def from_loaded(cls, loaded: Loaded) -> TextToText:
        """The task of what was loaded, with the defaults of its generation_config.json."""
        model = super().from_loaded(loaded)
        model.settings = model._with_end(published_settings(loaded.folder, loaded.published))
        return model

    def _with_end(self, settings: Settings) -> Settings:
        ends = [token for token in settings.eos_token_id if token < self.config.vocab_size]
        if not ends and self.tokenizer is not None and self.tokenizer.eos is not None:
            ends = [self.tokenizer.eos]
        return replace(settings, eos_token_id=tuple(ends))

    def save(self, folder: str | Path, *, dtype: Any = None) -> Path:
        """Write a folder that `bt.load(folder)` opens again, with generation_config.json."""
        target = super().save(folder, dtype=dtype)
        default = Settings()
        values = {
            name: value
            for name, value in self.settings.__dict__.items()
            if value != getattr(default, name) and name != "seed"
        }
        if "stop" in values:
            values["stop_strings"] = values.pop("stop")
        if self.settings.sampling:
            values["do_sample"] = True
        values["decoder_start_token_id"] = self.config.start
        with atomic(target / FILE) as part:
            part.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
        return target

    def __call__(
        self,
        texts: str | Sequence[str],
        *,
        details: bool = False,
        batch_size: int = BATCH,
        **options: Unpack[Options],
    ) -> Any:
        """What a text becomes; for a list of texts a list. See `generate`."""
        return self.generate(texts, details=details, batch_size=batch_size, **options)

    def generate(
        self,
        texts: str | Sequence[str],
        *,
        details: bool = False,
        batch_size: int = BATCH,
        **options: Unpack[Options],
    ) -> Any:
        """What a text becomes: another text, or with details a `Generation`.

        A list of texts gives a list; `num_return_sequences=` above 1 gives a list for each.

        Args:
            details: also tokens, their log-probabilities, and why the answer ended.
            batch_size: texts that are read together.
            options: `max_new_tokens`, `num_beams`, `temperature`, `stop`, `seed`, ...: see
                `bestiary.text.generate.settings.Settings`.

        Raises:
            ConfigError: a setting that makes no sense, or settings that contradict each other.
            DataError: a text that is none, or that has no tokens.
            HubError: the model came without a tokenizer.
        """
        single = isinstance(texts, str)
        given = [texts] if isinstance(texts, str) else list(texts)
        if batch_size < 1:
            raise ConfigError(f"batch_size={batch_size} must be at least 1", got=batch_size)
        settings = self.settings.changed(options)
        rows = [self._encoded(text) for text in given]
        room, each = settings.room(1, None), settings.num_return_sequences
        seeds, stream = seeds_of(settings, len(rows)), self._need_tokenizer().stream
        order = sorted(range(len(rows)), key=lambda i: -len(rows[i]))
        results: list[Any] = [None] * len(rows)
        with progress(total=len(rows), what="generating", unit="texts") as bar:
            for at in range(0, len(rows), batch_size):
                chosen = order[at : at + batch_size]
                own = settings
                if seeds is not None:
                    own = replace(settings, seed=tuple(seeds[i] for i in chosen))
                answers = decode(
                    self._step([rows[i] for i in chosen], room),
                    [[self.config.start]] * len(chosen),
                    own,
                    rooms=[room] * len(chosen),
                    stream=stream,
                    details=details,
                )
                for j, i in enumerate(chosen):
                    made = [
                        _result(given[i], answer, details)
                        for answer in answers[j * each : (j + 1) * each]
                    ]
                    results[i] = made if each > 1 else made[0]
                bar.update(len(chosen))
        return results[0] if single else results

    def stream(self, text: str, **options: Unpack[Options]) -> Iterator[str]:
        """The answer piece by piece, as its tokens come. Arguments and errors: see `generate`.

        Raises:
            ConfigError: also for beam search, and for several answers: only one can be streamed.
        """
        settings = self.settings.changed(options)
        if options.get("num_beams", 1) > 1 or settings.num_return_sequences > 1:
            raise ConfigError(
                "an answer can be streamed where it is written token by token: beam search finds "
                "its answers at the end. No num_beams or num_return_sequences with stream."
            )
        settings, row = replace(settings, num_beams=1), self._encoded(text)
        room, tokens = settings.room(1, None), self._need_tokenizer().stream
        answers = begin([[self.config.start]], settings, [room], stream=tokens)
        return _pieces(answers[0], loop(self._step([row], room), answers))

    def _encoded(self, text: Any) -> list[int]:
        if not isinstance(text, str):
            raise DataError(f"a text or a list of texts is wanted, not {text!r:.80}")
        ids = list(self._need_tokenizer().encode(text))
        if not ids or not text.strip():
            raise DataError("the text is empty: there is nothing to make another text of.")
        return ids

    def _step(self, rows: Sequence[list[int]], room: int) -> Seq2SeqStep:
        """The decoder over texts that the encoder has read, padded on the right."""
        longest = max(map(len, rows))
        ids = np.full((len(rows), longest), self.config.pad_token_id, np.int64)
        mask = np.zeros(ids.shape, bool)
        for i, row in enumerate(rows):
            ids[i, : len(row)], mask[i, : len(row)] = row, True
        device = self.module.device
        with inference_mode():
            seen = Tensor(mask).to(device=device)
            states = self.module.encode(Tensor(ids).to(device=device), seen)
        return Seq2SeqStep(self.module, states, None if mask.all() else mask, room)


def _pieces(answer: Answer, steps: Iterator[None]) -> Iterator[str]:
    for _ in steps:
        if answer.piece:
            yield answer.piece


def _result(prompt: str, answer: Answer, details: bool) -> Any:
    text = answer.text or ""
    if not details:
        return text
    assert answer.finish is not None
    return Generation(prompt, text, answer.ids, answer.logprobs or [], answer.finish, answer.score)
