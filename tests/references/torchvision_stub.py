"""Lets timm be imported without an installed torchvision.

timm needs torchvision only for its image transforms and data sets and for one normalisation
class that its plain classifiers never make. `install()` puts empty modules in their place; a
name that is asked for from them is a class that does nothing.

torchvision's wheel does not work with a CPU build of torch, but its transforms of Pillow images
are plain Python. `install(transforms_from=folder)` takes these from a wheel unpacked there
(`pip install --no-deps --target FOLDER torchvision`) and nothing else.
"""

from __future__ import annotations

import importlib
import importlib.machinery
import sys
import types

NAMES = (
    "torchvision",
    "torchvision.datasets",
    "torchvision.models",
    "torchvision.models.feature_extraction",
    "torchvision.ops",
    "torchvision.ops.misc",
    "torchvision.transforms",
    "torchvision.transforms.functional",
    "torchvision.utils",
)


class _Stub(types.ModuleType):
    __path__: list[str] = []

    def __getattr__(self, name: str) -> type:
        if name.startswith("__"):
            raise AttributeError(name)
        value = type(name, (), {"BICUBIC": 3, "BILINEAR": 2, "NEAREST": 0, "LANCZOS": 1,
                                "BOX": 4, "HAMMING": 5})  # fmt: skip
        setattr(self, name, value)
        return value


def install(transforms_from: str | None = None) -> None:
    """Put the stand-ins into `sys.modules`; call it before `import timm`."""
    import transformers  # noqa: F401  (it asks whether torchvision is there: let it hear no)

    real = ("torchvision.transforms", "torchvision.utils") if transforms_from else ()
    for name in NAMES:
        if name.startswith(real or "-"):
            continue
        module = _Stub(name)
        module.__spec__ = importlib.machinery.ModuleSpec(name, None)
        module.__version__ = "0.0"
        sys.modules[name] = module
        if transforms_from and name == "torchvision":
            module.__path__ = [f"{transforms_from}/torchvision"]
        parent, _, child = name.rpartition(".")
        if parent:
            setattr(sys.modules[parent], child, module)
    if transforms_from:
        for name in real:
            importlib.import_module(name)
