"""Continuing texts, and conversations: the task of causal language models."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Unpack

import numpy as np

from ...core.errors import ConfigError, DataError, ShapeError
from ...core.insight.progress import progress
from ...core.paths import atomic
from ...core.state import inference_mode
from ...core.tensor import Tensor
from ...hub.card import Card
from ...hub.filling import Report
from ...hub.loading import Loaded
from ..generate.answer import Answer, Finish
from ..generate.guide import Guide
from ..generate.logits import log_softmax
from ..generate.loop import begin, decode, loop
from ..generate.sampling import seeds_of
from ..generate.schema import chosen, of_choices, of_schema
from ..generate.settings import FILE, Options, Settings, published_settings
from ..generate.speculative import speculate
from ..generate.steps import CausalStep, Memory, as_float
from ..generate.vocabulary import Vocabulary
from .base import TextTask

BATCH = 8
_BLOCK = 128  # tokens whose logits are held at once when a text is scored

Message = Mapping[str, Any]


@dataclass(frozen=True)
class Generation:
    """One answer.

    Attributes:
        prompt: what it continues.
        text: the answer.
        ids: its tokens, the one that ended it included.
        logprobs: of each token, as the network gives it: before penalties and temperature.
        finish: why it ended: "end" (an end token), "stop" (a stop string), "length", or "complete"
            (it has the form that was asked for).
        score: of an answer that beam search found: what beams are ranked by.
    """

    prompt: str
    text: str
    ids: list[int]
    logprobs: list[float]
    finish: Finish
    score: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON values."""
        return dict(self.__dict__)


@dataclass(frozen=True)
class Score:
    """How probable a text is.

    Attributes:
        ids: its tokens, and
        logprobs: the log-probability of each but the first, which nothing stands before.
    """

    ids: list[int]
    logprobs: list[float]

    @property
    def total(self) -> float:
        """The log-probability of the text."""
        return float(np.sum(self.logprobs))

    @property
    def mean(self) -> float:
        """The log-probability per token."""
        return float(np.mean(self.logprobs))

    @property
    def perplexity(self) -> float:
        """exp(-mean): among so many equally probable tokens the model seems to choose."""
        return float(np.exp(-self.mean))


class TextGenerator(TextTask):
    """A causal language model: `model("Once upon a time", max_new_tokens=40)`.

    Attributes:
        settings: the defaults, those of the model's generation_config.json. Each can be given at
            every call; see `bestiary.text.generate.settings.Settings`.
    """

    task = "text-generation"

    def __init__(
        self,
        module: Any,
        *,
        architecture: str,
        config: Any,
        tokenizer: Any,
        card: Card,
        report: Report | None = None,
        settings: Settings | None = None,
    ) -> None:
        super().__init__(
            module,
            architecture=architecture,
            config=config,
            tokenizer=tokenizer,
            card=card,
            report=report,
        )
        self.settings = self._with_end(settings or Settings())
        self._vocabulary: Vocabulary | None = None

    @classmethod
    def from_loaded(cls, loaded: Loaded) -> TextGenerator:
        """The task of what was loaded, with the defaults of its generation_config.json."""
        model = super().from_loaded(loaded)
        model.settings = model._with_end(published_settings(loaded.folder, loaded.published))
        return model

    def _with_end(self, settings: Settings) -> Settings:
        """Settings without tokens that the vocabulary lacks, and with the tokenizer's end."""
        size = self._size()
        ends = [token for token in settings.eos_token_id if token < size]
        if not ends and self.tokenizer is not None and self.tokenizer.eos is not None:
            ends = [self.tokenizer.eos]
        return replace(settings, eos_token_id=tuple(ends))

    def _size(self) -> int:
        return int(getattr(self.config, "vocab_size", 1 << 30))

    @property
    def context(self) -> int | None:
        """The most tokens of prompt and answer together; None if there is no limit."""
        found = getattr(self.config, "context", None)
        return None if found is None else int(found)

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
        with atomic(target / FILE) as part:
            part.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
        return target

    # -- generation ------------------------------------------------------------------------

    def __call__(
        self,
        prompts: str | Sequence[str],
        *,
        choices: Sequence[str] | None = None,
        schema: Mapping[str, Any] | None = None,
        draft: TextGenerator | None = None,
        batch_size: int = BATCH,
        **options: Unpack[Options],
    ) -> Any:
        """What follows a prompt; for a list of prompts a list. See `generate`."""
        return self.generate(
            prompts, choices=choices, schema=schema, draft=draft, batch_size=batch_size, **options
        )

    def generate(
        self,
        prompts: str | Sequence[str],
        *,
        details: bool = False,
        choices: Sequence[str] | None = None,
        schema: Mapping[str, Any] | None = None,
        draft: TextGenerator | None = None,
        batch_size: int = BATCH,
        **options: Unpack[Options],
    ) -> Any:
        """What follows a prompt: its text, or with details a `Generation`.

        A list of prompts gives a list; `num_return_sequences=` above 1 gives a list for each.

        Args:
            details: also tokens, their log-probabilities, and why an answer ended.
            choices: the answer is exactly one of these.
            schema: the answer is JSON of this schema: see `bestiary.text.generate.schema`.
            draft: a smaller model of the same vocabulary, which proposes tokens that this one
                checks several at a time. The answers stay what they are.
            batch_size: prompts that are continued together.
            options: `max_new_tokens`, `temperature`, `top_p`, `num_beams`, `stop`, `seed`, ...: see
                `bestiary.text.generate.settings.Settings`.

        Raises:
            ConfigError: a setting that makes no sense, or settings that contradict each other.
            ShapeError: a prompt that is longer than the context.
            DataError: a prompt that is no text, or empty where the model has no token for that.
        """
        single = isinstance(prompts, str)
        texts = [prompts] if isinstance(prompts, str) else self._texts(prompts)
        settings = self._settings(options)
        guide = self._guide(settings, choices, schema, draft)
        if batch_size < 1:
            raise ConfigError(f"batch_size={batch_size} must be at least 1", got=batch_size)
        rows = [self._encoded(text) for text in texts]
        each = settings.num_return_sequences
        found = self._answers(rows, settings, guide, draft, details, batch_size)
        made = [
            [self._result(texts[i], answer, details, choices, schema) for answer in answers]
            for i, answers in enumerate(found)
        ]
        results = [several if each > 1 else several[0] for several in made]
        return results[0] if single else results

    def stream(
        self,
        prompt: str,
        *,
        choices: Sequence[str] | None = None,
        schema: Mapping[str, Any] | None = None,
        draft: TextGenerator | None = None,
        **options: Unpack[Options],
    ) -> Iterator[str]:
        """The answer piece by piece, as its tokens come. Arguments and errors: see `generate`.

        Raises:
            ConfigError: also for beam search, and for several answers: only one can be streamed.
        """
        if not isinstance(prompt, str):
            raise DataError(f"one prompt can be streamed, not {prompt!r:.80}")
        return self._stream(self._encoded(prompt), choices, schema, draft, options)

    # -- conversations ---------------------------------------------------------------------

    def chat(
        self,
        messages: str | Sequence[Message],
        *,
        stream: bool = False,
        details: bool = False,
        choices: Sequence[str] | None = None,
        schema: Mapping[str, Any] | None = None,
        draft: TextGenerator | None = None,
        tools: Sequence[Mapping[str, Any]] | None = None,
        memory: Memory | None = None,
        **options: Unpack[Options],
    ) -> Any:
        """The answer to a conversation: `[{"role": "user", "content": "Hello"}]`, or one text.

        Args:
            stream: give an iterator of pieces of the answer.
            tools: descriptions of functions, for templates that know them.
            memory: `model.memory()`, the same one at every turn of a conversation: then what was
                read before is not read again. Beams and drafts do without it.

        Raises:
            ConfigError: the model has no chat template: it was not trained for conversations.
            DataError: messages that are none.
        """
        text = self.prompt(messages, tools=tools)
        row = self._encoded(text, special=False)
        if memory is not None and not isinstance(memory, Memory):
            raise ConfigError(
                f"memory={memory!r:.80}: model.memory() makes one", got=type(memory).__name__
            )
        if stream:
            if details:
                raise ConfigError("stream=True gives text, and details=True more than that: one")
            return self._stream(row, choices, schema, draft, options, memory)
        settings = self._settings(options)
        if settings.num_return_sequences > 1:
            raise ConfigError("a conversation has one answer: no num_return_sequences")
        guide = self._guide(settings, choices, schema, draft)
        ((answer,),) = self._answers([row], settings, guide, draft, details, 1, memory)
        return self._result(text, answer, details, choices, schema)

    @staticmethod
    def memory() -> Memory:
        """What `chat` remembers from turn to turn, empty yet."""
        return Memory()

    def prompt(
        self,
        messages: str | Sequence[Message],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
    ) -> str:
        """A conversation as the text that the model continues with its answer."""
        if isinstance(messages, str):
            messages = [{"role": "user", "content": messages}]
        template = self._need_tokenizer().chat
        if template is None:
            raise ConfigError(self._no_template(), model=self.card.name)
        return template.render(messages, tools=tools, add_generation_prompt=True)

    def _no_template(self) -> str:
        from .siblings import instruct_siblings

        lines = [
            f"{self.card.name} has no chat template: it is a base model, which continues texts and "
            "was not trained for conversations.",
            f'To continue a text: model("..."), or bestiary generate {self.card.name} "...".',
        ]
        names = instruct_siblings(self.card.name, self.architecture)
        if names:
            lines.append(f"Trained for conversations: {', '.join(names)}.")
            lines.append(f'model = bt.load("{names[0]}")')
        return "\n".join(lines)

    # -- texts as they are -----------------------------------------------------------------

    def score(self, texts: str | Sequence[str]) -> Any:
        """How probable a text is: a `Score` with the log-probability of each token.

        Raises:
            ShapeError: more tokens than the context holds.
            DataError: a text of a single token, before which nothing stands.
        """
        if not isinstance(texts, str):
            return [self._score(text) for text in self._texts(texts)]
        return self._score(texts)

    def _score(self, text: str) -> Score:
        tokenizer = self._need_tokenizer()
        ids = tokenizer.encode(text)
        if len(ids) == 1 and tokenizer.bos not in (None, ids[0]):
            ids = [tokenizer.bos, *ids]
        if len(ids) < 2:
            raise DataError(
                f"{text!r} has {len(ids)} tokens: each token is scored by what stands before it, "
                "so that two are wanted at least."
            )
        if self.context is not None and len(ids) > self.context:
            raise self._too_long(len(ids), self.context, "text")
        device = self.module.device
        cache = self.module.cache(1, len(ids))
        logprobs: list[float] = []
        with inference_mode():
            for start in range(0, len(ids) - 1, _BLOCK):
                block = ids[start : min(start + _BLOCK, len(ids) - 1)]
                tensor = Tensor(np.array([block], np.int64)).to(device=device)
                rows = log_softmax(as_float(self.module(tensor, cache=cache))[0])
                after = ids[start + 1 : start + 1 + len(block)]
                logprobs += rows[np.arange(len(block)), after].tolist()
        return Score(ids, logprobs)

    def finetune(self, data: Any, **settings: Any) -> TextGenerator:
        """Let it learn on from texts or conversations; returns a new task.

        Args:
            data: a .txt file, or CSV or JSONL with texts or conversations.
            settings: `out=` a folder for the result, `epochs=`, `lr=`, `lora=8` and the other
                settings of `text.finetuning.language.finetune`.
        """
        from ..finetuning.language import finetune

        return finetune(self, data, **settings)

    def evaluate(self, data: Any, **settings: Any) -> dict[str, float]:
        """How well it foretells texts or answers: `{"perplexity", "nats", "tokens"}`.

        Args:
            data: as for `finetune`.
            settings: `max_length=`, `batch_size=`, `text=`.
        """
        from ..finetuning.language import evaluate

        return evaluate(self, data, **settings)

    # -- parts -----------------------------------------------------------------------------

    def _settings(self, options: Mapping[str, Any]) -> Settings:
        """The defaults as the caller changes them, checked against the model."""
        settings = self.settings.changed(options)
        size = self._size()
        for name in ("eos_token_id", "suppress_tokens", "begin_suppress_tokens"):
            beyond = [token for token in getattr(settings, name) if token >= size]
            if beyond:
                raise ConfigError(
                    f"{name}: token {beyond[0]} is outside of the model's vocabulary of {size}",
                    got=beyond[0],
                )
        return settings

    def _texts(self, prompts: Any) -> list[str]:
        texts = list(prompts)
        wrong = next((text for text in texts if not isinstance(text, str)), None)
        if wrong is not None:
            raise DataError(f"a text or a list of texts is wanted, not {wrong!r:.80}")
        return texts

    def _encoded(self, text: str, special: bool = True) -> list[int]:
        """The tokens of a prompt; of an empty one the token with which texts begin."""
        tokenizer = self._need_tokenizer()
        ids: list[int] = list(tokenizer.encode(text, special=special))
        if not ids:
            start = tokenizer.bos if tokenizer.bos is not None else tokenizer.eos
            if start is None:
                raise DataError(
                    "the prompt is empty, and this model has no token with which texts begin: "
                    "give it a word to continue."
                )
            ids = [start]
        if self.context is not None and len(ids) >= self.context:
            raise self._too_long(len(ids), self.context, "prompt")
        return ids

    def _too_long(self, tokens: int, context: int, what: str) -> ShapeError:
        sign = ">" if tokens > context else ">="
        return ShapeError(
            f"the {what} has {tokens} tokens, and the context of {self.card.name} holds {context} "
            f"({tokens} {sign} {context})"
            + (", the answer included" if what == "prompt" else "")
            + ".\nTruncate it (model.tokenizer.encode(text) gives its tokens, "
            "model.tokenizer.decode(ids[-n:]) the text of the last n), or split it into chunks.",
            expected=context,
            got=tokens,
        )

    def _guide(
        self,
        settings: Settings,
        choices: Sequence[str] | None,
        schema: Mapping[str, Any] | None,
        draft: TextGenerator | None,
    ) -> Guide | None:
        if draft is not None and not isinstance(draft, TextGenerator):
            raise ConfigError(f"draft={draft!r:.80} is no text generator: bt.load(...) gives one")
        if draft is not None and (settings.num_beams > 1 or settings.num_return_sequences > 1):
            raise ConfigError(
                "a draft speeds up one answer at a time: no num_beams, no num_return_sequences"
            )
        if choices is None and schema is None:
            return None
        if choices is not None and schema is not None:
            raise ConfigError("choices and schema are two forms of an answer: give one of them")
        if draft is not None:
            raise ConfigError("choices and schema do not go with a draft")
        machine = of_schema(schema) if choices is None else of_choices(choices or ())  # type: ignore[arg-type]
        if self._vocabulary is None:
            self._vocabulary = Vocabulary.of(self._need_tokenizer())
        return Guide(machine, self._vocabulary, settings.eos_token_id)

    def _pad(self, settings: Settings) -> int:
        """What fills shorter prompts up: masked, so that any token does."""
        if settings.pad_token_id is not None and settings.pad_token_id < self._size():
            return settings.pad_token_id
        return 0

    def _answers(
        self,
        rows: Sequence[list[int]],
        settings: Settings,
        guide: Guide | None,
        draft: TextGenerator | None,
        details: bool,
        batch_size: int,
        memory: Memory | None = None,
    ) -> list[list[Answer]]:
        """The answers to each prompt; prompts of similar lengths together."""
        if settings.num_beams > 1:
            memory = None
        rooms = [self._room(len(row), settings, guide, draft) for row in rows]
        seeds = seeds_of(settings, len(rows))
        each = settings.num_return_sequences
        found: list[list[Answer]] = [[] for _ in rows]
        with progress(total=len(rows), what="generating", unit="prompts") as bar:
            for chosen_rows in self._batches(rows, rooms, 1 if draft is not None else batch_size):
                own = settings
                if seeds is not None:
                    own = replace(settings, seed=tuple(seeds[i] for i in chosen_rows))
                prompts = [rows[i] for i in chosen_rows]
                some = [rooms[i] for i in chosen_rows]
                stream = self._need_tokenizer().stream
                given: dict[str, Any] = {"stream": stream, "details": details}
                if draft is None:
                    step = CausalStep(self.module, max(some), self._pad(settings), memory)
                    answers = decode(step, prompts, own, rooms=some, guide=guide, **given)
                else:
                    answers = begin(prompts, own, some, **given)
                    for _ in self._speculate(answers[0], draft):
                        pass
                for j, i in enumerate(chosen_rows):
                    found[i] = answers[j * each : (j + 1) * each]
                bar.update(len(chosen_rows))
        return found

    def _batches(
        self, rows: Sequence[list[int]], rooms: Sequence[int], size: int
    ) -> Iterator[list[int]]:
        """Numbers of prompts of similar lengths, whose padded rows fit into the context."""
        batch: list[int] = []
        for i in sorted(range(len(rows)), key=lambda i: -len(rows[i])):
            room = max([rooms[i], *(rooms[j] for j in batch)])
            longest = len(rows[batch[0]]) if batch else len(rows[i])
            full = self.context is not None and longest + room > self.context
            if batch and (full or len(batch) == size):
                yield batch
                batch = []
            batch.append(i)
        if batch:
            yield batch

    def _room(
        self, prompt: int, settings: Settings, guide: Guide | None, draft: TextGenerator | None
    ) -> int:
        context = self.context
        if draft is not None and draft.context is not None:
            context = min(draft.context, draft.context if context is None else context)
        room = settings.room(prompt, context)
        if guide is not None:
            guide.check(room)
        return room

    def _speculate(self, answer: Answer, draft: TextGenerator) -> Iterator[None]:
        step, ahead = (CausalStep(model.module, answer.room) for model in (self, draft))
        return speculate(step, ahead, answer)

    def _stream(
        self,
        row: list[int],
        choices: Sequence[str] | None,
        schema: Mapping[str, Any] | None,
        draft: TextGenerator | None,
        options: Mapping[str, Any],
        memory: Memory | None = None,
    ) -> Iterator[str]:
        """Everything is checked here; the iterator only runs."""
        settings = self._settings(options)
        if options.get("num_beams", 1) > 1 or settings.num_return_sequences > 1:
            raise ConfigError(
                "an answer can be streamed where it is written token by token: beam search finds "
                "its answers at the end. No num_beams or num_return_sequences with stream."
            )
        settings = replace(settings, num_beams=1)
        guide = self._guide(settings, choices, schema, draft)
        room = self._room(len(row), settings, guide, draft)
        stream = self._need_tokenizer().stream
        answers = begin([row], settings, [room], stream=stream, guide=guide)
        if draft is None:
            steps = loop(CausalStep(self.module, room, memory=memory), answers)
        else:
            steps = self._speculate(answers[0], draft)
        return _pieces(answers[0], steps, strip=guide is not None)

    def _result(
        self,
        prompt: str,
        answer: Answer,
        details: bool,
        choices: Sequence[str] | None,
        schema: Mapping[str, Any] | None,
    ) -> Any:
        text = answer.text or ""
        if choices is not None:
            text = chosen(text, choices)
        elif schema is not None:
            text = text.removeprefix(" ")
        if not details:
            return text
        assert answer.finish is not None
        return Generation(
            prompt, text, answer.ids, answer.logprobs or [], answer.finish, answer.score
        )


def _pieces(answer: Answer, steps: Iterator[None], strip: bool) -> Iterator[str]:
    """The text of each step; of an answer of a given form without a space before it."""
    began = False
    for _ in steps:
        piece = answer.piece
        if strip and not began:
            piece = piece.removeprefix(" ")
        if piece:
            began = True
            yield piece
