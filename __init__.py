"""bestiary: a model zoo with its own tensor and autograd core.

    import bestiary as bt

    model = bt.load("efficientnet-lite0")
    model("photo.jpg", top=5)

Every public name is imported when it is first used, so that `import bestiary` costs next to
nothing and never imports a domain (`bt.vision`, `bt.text`, ...) that is not asked for.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# The one table of public names. The imports under TYPE_CHECKING below repeat it for type checkers
# (a lazy __getattr__ erases types); tests/test_imports.py compares the two.
_MODULES = {
    "data": "core.data",
    "generative": "generative",
    "hub": "hub",
    "nn": "core.nn",
    "optim": "core.optim",
    "rl": "rl",
    "testing": "core.testing",
    "text": "text",
    "training": "core.training",
    "vision": "vision",
    "weights": "core.weights",
}

_NAMES = {
    name: module
    for module, names in {
        "core.tensor": "Tensor asarray tensor",
    }.items()
    for name in names.split()
}

if TYPE_CHECKING:
    from . import generative as generative
    from . import hub as hub
    from . import rl as rl
    from . import text as text
    from . import vision as vision
    from .core import data as data
    from .core import nn as nn
    from .core import optim as optim
    from .core import testing as testing
    from .core import training as training
    from .core import weights as weights
    from .core.tensor import Tensor as Tensor
    from .core.tensor import asarray as asarray
    from .core.tensor import tensor as tensor


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        value: Any = importlib.import_module(f".{_MODULES[name]}", __name__)
    elif name in _NAMES:
        value = getattr(importlib.import_module(f".{_NAMES[name]}", __name__), name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value  # the next use does not come here
    return value


def __dir__() -> list[str]:
    return sorted({"__version__", *_MODULES, *_NAMES})
