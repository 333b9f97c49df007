"""Names of classes, by the name of their list. Sources stand in the files."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

from ..core.errors import ConfigError

_FOLDER = Path(__file__).parent / "assets" / "labels"
_FILES = {
    "imagenet-1k": "imagenet1k.json",
    "cifar-10": "cifar10.json",
    "coco-91": "coco91.json",
    "fashion-mnist": "fashion_mnist.json",
}


@cache
def _read(name: str) -> dict[str, list[str]]:
    if name not in _FILES:
        raise ConfigError(
            f"there is no list of labels named {name!r}.\nThere are: {', '.join(_FILES)}", name=name
        )
    content: dict[str, list[str]] = json.loads((_FOLDER / _FILES[name]).read_text("utf-8"))
    return content


def label_names(name: str) -> list[str]:
    """The class names of "imagenet-1k", "cifar-10", "coco-91" or "fashion-mnist", by their numbers.

    "imagenet-1k-background" has that class first, as TensorFlow counts; "coco-80" are those of
    "coco-91" that are used, one after the other; "coco-90" are COCO's numbers from 1 on, which
    leave out nothing but the background.

    Raises:
        ConfigError: there is no such list.
    """
    if name == "imagenet-1k-background":
        return ["background", *_read("imagenet-1k")["labels"]]
    if name == "coco-80":
        return [label for label in _read("coco-91")["labels"] if label != "N/A"]
    if name == "coco-90":
        return _read("coco-91")["labels"][1:]
    return list(_read(name)["labels"])


def imagenet_synsets() -> list[str]:
    """WordNet's identifiers of the 1000 ImageNet classes (`n01440764`, ...), sorted as they are."""
    return list(_read("imagenet-1k")["synsets"])
