"""A network that works only together with others: the task of parts of pipelines."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

from ...core.errors import ConfigError
from ...core.nn import Module
from ...hub.card import Card
from ...hub.filling import Report
from ...hub.loading import Loaded


class Part:
    """A network of a pipeline by itself, such as `unet` or `text_encoder`.

    `part.module(...)` gives its outputs; raw input it cannot take.

    Attributes:
        module: the network.
        card: licence, origin.
        report: what loading did with each tensor.
    """

    task = "pipeline-part"

    def __init__(
        self,
        module: Module,
        *,
        architecture: str,
        config: Any,
        card: Card,
        report: Report | None = None,
    ) -> None:
        self.module, self.architecture, self.config = module, architecture, config
        self.card, self.report = card, report or Report()
        self.compile = True

    @classmethod
    def from_loaded(cls, loaded: Loaded) -> Self:
        """The task of what `bt.load` has loaded."""
        return cls(
            loaded.module,
            architecture=loaded.architecture.name,
            config=loaded.config,
            card=loaded.card,
            report=loaded.report,
        )

    def _repr_html_(self) -> str:
        from ...core.insight.notebook import task_html

        return task_html(self)

    @property
    def device(self) -> Any:
        """Where the network is."""
        return self.module.device

    def to(self, device: Any) -> Self:
        """Move the network to a device: `part.to("cuda")`."""
        self.module.to(device=device)
        return self

    def save(self, folder: str | Path, *, dtype: Any = None) -> Path:
        """Write a folder that `bt.load(folder)` opens again.

        Args:
            dtype: of the stored weights, such as "float16"; as they are unless given.
        """
        from ...hub.saving import save_model

        return save_model(
            folder,
            self.module,
            architecture=self.architecture,
            config=self.config,
            card=self.card,
            dtype=dtype,
        )

    def __call__(self, *inputs: Any, **settings: Any) -> Any:
        """Raises: a part takes no raw input."""
        raise ConfigError(
            f"{self.card.name} is one network of a pipeline ({self.architecture}) and takes no raw "
            "input.\nLoad the folder above it, which has model_index.json; or give the network "
            "arrays: part.module(...)"
        )

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.card.name!r}, {self.architecture}, on {self.device})"
