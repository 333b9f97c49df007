"""What every task over texts shares: the network, its tokenizer, the device, saving."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

from ...core.errors import ConfigError, HubError, MissingExtra
from ...core.nn import LoRA, Module, merge_lora, remove_lora
from ...core.paths import atomic
from ...hub.card import Card
from ...hub.filling import Report
from ...hub.loading import Loaded
from ..tokens.tokenizer import VOCABULARIES, Tokenizer


class TextTask:
    """A network for texts, the tokenizer it was trained with, and what is known of it.

    Attributes:
        module: the network; call it for the outputs of ids that you prepared yourself.
        tokenizer: texts to ids and back; None where the model came without one.
        card: licence, origin, results.
        report: what loading did with each tensor.
        compile: whether what is run again and again is compiled.
        adapter: how the network is adapted, where it is.
        loaded_as: the name or folder that it was loaded by.
    """

    task = ""
    adapter: LoRA | None = None
    loaded_as: str = ""

    def __init__(
        self,
        module: Module,
        *,
        architecture: str,
        config: Any,
        tokenizer: Tokenizer | None,
        card: Card,
        report: Report | None = None,
    ) -> None:
        self.module = module
        self.architecture = architecture
        self.config = config
        self.tokenizer = tokenizer
        self.card = card
        self.report = report or Report()
        self.compile = True
        self._why = ""  # there is no tokenizer

    def _repr_html_(self) -> str:
        from ...core.insight.notebook import task_html

        return task_html(self)

    @classmethod
    def from_loaded(cls, loaded: Loaded) -> Self:
        """The task of what was loaded, with the tokenizer of its folder if it has one."""
        return cls._of(loaded)

    @classmethod
    def _of(cls, loaded: Loaded, **more: Any) -> Self:
        """The same, with what a task has besides."""
        tokenizer, why = None, ""
        if loaded.metadata is not None:
            tokenizer = Tokenizer.from_gguf(loaded.metadata, name=loaded.card.name)
        elif loaded.folder is not None:
            try:
                tokenizer = Tokenizer.from_folder(loaded.folder)
            except (HubError, MissingExtra) as error:
                why = str(error)
        model = cls(
            loaded.module,
            architecture=loaded.architecture.name,
            config=loaded.config,
            tokenizer=tokenizer,
            card=loaded.card,
            report=loaded.report,
            **more,
        )
        model._why = why
        return model

    @property
    def device(self) -> Any:
        """Where the network is."""
        return self.module.device

    def to(self, device: Any) -> Self:
        """Move the network to a device: `model.to("cuda")`."""
        self.module.to(device=device)
        return self

    # -- adapters --------------------------------------------------------------------------

    def load_adapter(self, folder: str | Path) -> Self:
        """Put an adapter in peft's form on the network: `model.load_adapter("my-lora")`.

        Raises:
            HubError: the folder holds none.
            ConfigError: it is not understood, or the network has an adapter already.
            WeightsError: it is for another network.
        """
        from ...hub.adapters import load_adapter

        self.adapter = load_adapter(folder, self.module)
        return self

    def merge_adapter(self) -> Self:
        """Add the adapter to the weights, which is as fast as without one; `save` writes them all.

        Raises:
            ConfigError: there is no adapter, or the weights have few bits.
        """
        if self.adapter is None:
            raise ConfigError(f"{self.card.name} has no adapter that could be merged")
        merge_lora(self.module)
        self.adapter = None
        return self

    def remove_adapter(self) -> Self:
        """Take the adapter away."""
        if self.adapter is not None:
            remove_lora(self.module)
            self.adapter = None
        return self

    # -- saving ----------------------------------------------------------------------------

    def save(self, folder: str | Path, *, dtype: Any = None) -> Path:
        """Write a folder that `bt.load(folder)` opens again; where there is one, the adapter alone.

        Args:
            dtype: of the stored weights, such as "float16"; as they are unless given.
        """
        from ...hub.saving import save_model

        if self.adapter is not None:
            return self._save_adapter(folder)

        target = save_model(
            folder,
            self.module,
            architecture=self.architecture,
            config=self.config,
            card=replace(self.card, task=self.task),
            labels=self._saved_labels(),
            dtype=dtype,
        )
        if self.tokenizer is not None:
            self.tokenizer.save(target)
        return target

    def _save_adapter(self, folder: str | Path) -> Path:
        from ...hub.adapters import save_adapter

        assert self.adapter is not None
        target = Path(folder)
        target.mkdir(parents=True, exist_ok=True)
        with atomic(target / "README.md") as part:
            part.write_text(replace(self.card, task=self.task).markdown(), encoding="utf-8")
        if self.tokenizer is not None:
            self.tokenizer.save(target)
        return save_adapter(
            target,
            self.module,
            self.adapter,
            base=self.loaded_as or self.card.name,
            task=self.task,
            labels=self._saved_labels(),
        )

    def _saved_labels(self) -> Sequence[str] | None:
        return None

    def _need_tokenizer(self) -> Tokenizer:
        """The tokenizer.

        Raises:
            HubError: there is none; names the files that are wanted.
        """
        if self.tokenizer is None:
            raise HubError(
                self._why
                or f"{self.card.name} has no tokenizer, so that it cannot read texts.\n"
                f"Wanted: tokenizer.json, or one of {', '.join(VOCABULARIES)}.",
                model=self.card.name,
            )
        return self.tokenizer
