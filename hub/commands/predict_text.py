"""`bestiary predict` with models that read texts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ...core.errors import ConfigError

if TYPE_CHECKING:
    from .predict import Asked


def predict_text(model: Any, inputs: tuple[str, ...], asked: Asked) -> int:
    """What a model says of texts; 1 if one of them could not be used.

    Raises:
        ConfigError: it is for something else.
    """
    other = {"text-generation": "\nTo continue a text: bestiary generate, bestiary chat"}
    raise ConfigError(
        f"{asked.name} is for {model.task}, which predict does not run.{other.get(model.task, '')}",
        task=model.task,
    )
