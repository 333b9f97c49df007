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
    "errors": "core.errors",
    "generative": "generative",
    "graph": "core.graph",
    "hub": "hub",
    "nn": "core.nn",
    "optim": "core.optim",
    "random": "core.random",
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
        "core.anomaly": "detect_anomaly",
        "core.autograd": "backward grad jvp vjp",
        "core.checkpoint": "checkpoint",
        "core.creation": (
            "asarray empty empty_like full full_like ones ones_like tensor zeros zeros_like"
        ),
        "core.devices": "Device cuda_is_available device",
        "core.dtypes": (
            "bfloat16 bool complex64 complex128 float16 float32 float64 "
            "int8 int16 int32 int64 uint8 uint16 uint32 uint64"
        ),
        "core.op": "op",
        "core.ops.update": "assign",
        "core.random": "Generator manual_seed",
        "core.state": "enable_grad inference_mode is_grad_enabled no_grad set_grad_enabled",
        "core.tensor": "Tensor",
        "hub.commands.catalog": "info",
        "hub.loading": "load",
        "hub.registry": "list_models",
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
    from .core import errors as errors
    from .core import graph as graph
    from .core import nn as nn
    from .core import optim as optim
    from .core import random as random
    from .core import testing as testing
    from .core import training as training
    from .core import weights as weights
    from .core.anomaly import detect_anomaly as detect_anomaly
    from .core.autograd import backward as backward
    from .core.autograd import grad as grad
    from .core.autograd import jvp as jvp
    from .core.autograd import vjp as vjp
    from .core.checkpoint import checkpoint as checkpoint
    from .core.creation import asarray as asarray
    from .core.creation import empty as empty
    from .core.creation import empty_like as empty_like
    from .core.creation import full as full
    from .core.creation import full_like as full_like
    from .core.creation import ones as ones
    from .core.creation import ones_like as ones_like
    from .core.creation import tensor as tensor
    from .core.creation import zeros as zeros
    from .core.creation import zeros_like as zeros_like
    from .core.devices import Device as Device
    from .core.devices import cuda_is_available as cuda_is_available
    from .core.devices import device as device
    from .core.dtypes import bfloat16 as bfloat16
    from .core.dtypes import bool as bool
    from .core.dtypes import complex64 as complex64
    from .core.dtypes import complex128 as complex128
    from .core.dtypes import float16 as float16
    from .core.dtypes import float32 as float32
    from .core.dtypes import float64 as float64
    from .core.dtypes import int8 as int8
    from .core.dtypes import int16 as int16
    from .core.dtypes import int32 as int32
    from .core.dtypes import int64 as int64
    from .core.dtypes import uint8 as uint8
    from .core.dtypes import uint16 as uint16
    from .core.dtypes import uint32 as uint32
    from .core.dtypes import uint64 as uint64
    from .core.op import op as op
    from .core.ops.update import assign as assign
    from .core.random import Generator as Generator
    from .core.random import manual_seed as manual_seed
    from .core.state import enable_grad as enable_grad
    from .core.state import inference_mode as inference_mode
    from .core.state import is_grad_enabled as is_grad_enabled
    from .core.state import no_grad as no_grad
    from .core.state import set_grad_enabled as set_grad_enabled
    from .core.tensor import Tensor as Tensor
    from .hub.commands.catalog import info as info
    from .hub.loading import load as load
    from .hub.registry import list_models as list_models


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        value: Any = importlib.import_module(f".{_MODULES[name]}", __name__)
    elif name in _NAMES:
        value = getattr(importlib.import_module(f".{_NAMES[name]}", __name__), name)
    else:
        from .core.spelling import torch_spelling

        raise torch_spelling(name, "bestiary")
    globals()[name] = value  # the next use does not come here
    return value


def __dir__() -> list[str]:
    return sorted({"__version__", *_MODULES, *_NAMES})
