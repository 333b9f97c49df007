"""Generative models, one file per architecture, with schedulers and pipelines.

Names are imported when they are first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

_NAMES = {
    name: module
    for module, names in {
        "pipelines.estimates": "Cost",
        "pipelines.metadata": "settings_of write_picture",
        "schedulers": "Scheduler scheduler_of",
        "tasks.autoencoder": "Autoencoder",
        "tasks.class_to_image": "ClassToImage",
        "tasks.image_generator": "ImageGenerator",
        "tasks.latent": "LatentStep",
        "tasks.text_to_image": "TextToImage",
    }.items()
    for name in names.split()
}

if TYPE_CHECKING:
    from .pipelines.estimates import Cost as Cost
    from .pipelines.metadata import settings_of as settings_of
    from .pipelines.metadata import write_picture as write_picture
    from .schedulers import Scheduler as Scheduler
    from .schedulers import scheduler_of as scheduler_of
    from .tasks.autoencoder import Autoencoder as Autoencoder
    from .tasks.class_to_image import ClassToImage as ClassToImage
    from .tasks.image_generator import ImageGenerator as ImageGenerator
    from .tasks.latent import LatentStep as LatentStep
    from .tasks.text_to_image import TextToImage as TextToImage

__all__ = sorted(_NAMES)


def __getattr__(name: str) -> Any:
    if name not in _NAMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{_NAMES[name]}", __name__), name)
    globals()[name] = value  # the next use does not come here
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_NAMES})
