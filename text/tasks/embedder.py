"""Texts as vectors: like texts lie close to one another."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np

from ...core.errors import ConfigError
from ...core.paths import atomic
from ...core.tensor import Tensor
from ...hub.loading import Loaded
from .encoder_task import BATCH, Array, EncoderTask, as_array, as_texts
from .pooling import Pooling, read_pooling, unit


class Embedder(EncoderTask):
    """Makes a vector of each text: `model.encode(["A cat sat.", "A dog lay."])`.

    Attributes:
        pooling: how the vectors of a text's tokens become one, and the model's prompts.
    """

    task = "feature-extraction"

    def __init__(self, module: Any, *, pooling: Pooling | None = None, **facts: Any) -> None:
        super().__init__(module, **facts)
        self.pooling = pooling or Pooling()

    @classmethod
    def from_loaded(cls, loaded: Loaded) -> Self:
        """The task of what `bt.load` has loaded."""
        return cls._of(loaded, pooling=read_pooling(loaded.folder))

    @property
    def max_length(self) -> int:
        """The most tokens of a text; what is longer is cut."""
        told = self.pooling.max_length
        return super().max_length if told is None else min(super().max_length, told)

    @property
    def dimensions(self) -> int:
        """Numbers of a vector."""
        if self.pooling.dense:
            return int(self.pooling.dense[-1].weight.shape[0])
        config = self.config
        width = getattr(config, "hidden_size", None) or getattr(config, "dim", None)
        return int(width or config.n_embd) * len(self.pooling.modes)

    def __call__(self, texts: Any, **settings: Any) -> Array:
        """The same as `encode`."""
        return self.encode(texts, **settings)

    def encode(
        self,
        texts: Any,
        *,
        prompt: str | None = None,
        prompt_name: str | None = None,
        batch_size: int = BATCH,
        truncate: bool = True,
    ) -> Array:
        """The vector of a text, or of each of a list.

        Args:
            prompt: a text that is put before each.
            prompt_name: of a prompt that the model comes with, such as "query".
            batch_size: how many texts the network sees at a time; those of like length go together.
            truncate: cut texts to `max_length` tokens; False raises instead.
        Shape:
            (D,) for a text, (B, D) for a list; float32
        Raises:
            DataError: something that is no text.
            ConfigError: there is no such prompt.
            ShapeError: a text is too long and `truncate` is False.
        """
        rows, single = as_texts(texts)
        before = self._prompt(prompt, prompt_name)
        skip = 0
        if before and not self.pooling.prompt_counts:
            skip = len(self._need_tokenizer().encode(before)) - 1  # without the token at the end

        def run(inputs: dict[str, Tensor], mask: Array) -> Array:
            found = self._network(inputs)
            tokens = as_array(found if isinstance(found, Tensor) else found.last_hidden_state)
            if skip:
                mask = mask.copy()
                mask[:, :skip] = False
            return self.pooling(tokens, mask)

        vectors = self._run(
            run,
            [before + text for text in rows],
            batch_size=batch_size,
            truncate=truncate,
            what="embedding",
        )
        if single:
            return np.asarray(vectors[0])
        return np.stack(vectors) if vectors else np.zeros((0, self.dimensions), np.float32)

    def similarity(self, a: Any, b: Any) -> Array:
        """The cosine between texts or vectors, from -1 to 1.

        Args:
            a, b: texts, or vectors (.., D) that `encode` made.
        Shape:
            (A, B) for lists; an axis less for each single text or vector
        """
        return np.asarray(unit(self._vectors(a)) @ unit(self._vectors(b)).T)

    def index(self, texts: Any, *, batch_size: int = BATCH, prompt_name: str | None = None) -> Any:
        """These texts, ready to be searched: a `bestiary.text.search.Index`.

        Args:
            prompt_name: of the model's prompt for texts that are searched, such as "passage".
        """
        from ..search import Index

        rows, _ = as_texts(texts)
        vectors = self.encode(rows, batch_size=batch_size, prompt_name=prompt_name)
        return Index(rows, unit(vectors), self.card.name)

    def search(
        self, query: str, texts: Any, *, top: int = 5, prompt_name: str | None = None
    ) -> list[dict[str, Any]]:
        """The texts that mean most nearly what a query means: `{"index", "score", "text"}`.

        Args:
            texts: a list of texts, or an index of them, which saves embedding them again.
            prompt_name: of the model's prompt for queries, such as "query".
        """
        from ..search import Index

        index = texts if isinstance(texts, Index) else self.index(texts)
        vector = self.encode(query, prompt_name=prompt_name)
        return index.nearest(vector, top)

    def finetune(self, data: Any, **settings: Any) -> Any:
        """Teach it labels of yours, or which texts belong together; returns a new task.

        Args:
            data: a CSV or JSONL file: with texts and labels, which gives a `TextClassifier`; or
                with pairs, which gives an `Embedder`.
            settings: `out=` a folder for the result, `epochs=`, `lr=`, `lora=8` and the other
                settings of `text.finetuning.labels.finetune` or `text.finetuning.pairs.finetune`.
        """
        from ..finetuning.pairs import finetune, has_pairs

        if has_pairs(data, settings.get("names")):
            return finetune(self, data, **settings)
        return super().finetune(data, **settings)

    def save(self, folder: str | Path, *, dtype: Any = None) -> Path:
        """Write a folder that `bt.load(folder)` opens again, with the files of the pooling."""
        target = super().save(folder, dtype=dtype)
        for name, content in self.pooling.files.items():
            path = target / name
            path.parent.mkdir(parents=True, exist_ok=True)
            with atomic(path) as part:
                part.write_bytes(content)
        return target

    def _prompt(self, prompt: str | None, name: str | None) -> str:
        if prompt is not None:
            return prompt
        name = name or self.pooling.default
        if name is None:
            return ""
        if name not in self.pooling.prompts:
            known = ", ".join(self.pooling.prompts) or "none"
            raise ConfigError(
                f"{self.card.name} has no prompt {name!r}.\nIts prompts: {known}", got=name
            )
        return self.pooling.prompts[name]

    def _vectors(self, source: Any) -> Array:
        if isinstance(source, str):
            return self.encode(source)
        if isinstance(source, np.ndarray | Tensor):
            return np.asarray(source.array if isinstance(source, Tensor) else source)
        rows: Sequence[Any] = list(source)
        if rows and not isinstance(rows[0], str):
            return np.asarray(rows, np.float32)
        return self.encode(rows)

    def __repr__(self) -> str:
        return f"Embedder({self.card.name!r}, {self.dimensions} dimensions, on {self.device})"
