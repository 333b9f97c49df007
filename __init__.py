"""bestiary: a model zoo with its own tensor and autograd core.

    import bestiary as bt

    model = bt.load("efficientnet-lite0")
    model("photo.jpg", top=5)

Every public name is imported when it is first used, so that `import bestiary` costs next to
nothing and never imports a domain (`bt.vision`, `bt.text`, ...) that is not asked for.
"""

from __future__ import annotations

import importlib
import sys
from importlib.machinery import ModuleSpec
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# The one table of public names. The imports under TYPE_CHECKING below repeat it for type checkers
# (a lazy __getattr__ erases types); tests/test_imports.py compares the two.
_MODULES = {
    "data": "core.data",
    "errors": "core.errors",
    "fft": "core.ops.fft",
    "generative": "generative",
    "graph": "core.graph",
    "hub": "hub",
    "linalg": "core.linalg",
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
        "core.autocast": "autocast",
        "core.autograd": "backward grad jvp vjp",
        "core.checkpoint": "checkpoint",
        "core.creation": (
            "arange asarray empty empty_like eye from_dlpack full full_like linspace ones "
            "ones_like tensor zeros zeros_like"
        ),
        "core.devices": "Device cuda_is_available device",
        "core.graph.compiled": "compile",
        "core.insight.activations": "watch_activations",
        "core.insight.flow": "gradient_flow",
        "core.insight.profile": "profile",
        "core.insight.runs.reader": "read_run",
        "core.insight.runs.writer": "Run",
        "core.dtypes": (
            "bfloat16 bool complex64 complex128 float16 float32 float64 "
            "int8 int16 int32 int64 uint8 uint16 uint32 uint64"
        ),
        "core.op": "op",
        "core.namespace": (
            "__array_api_version__ __array_namespace_info__ astype can_cast e finfo iinfo inf "
            "isdtype nan newaxis pi result_type"
        ),
        "core.ops.gelu": "erf",
        "core.ops.cumulative": "cumulative_prod cumulative_sum diff",
        "core.ops.einsum": "einsum",
        "core.ops.elementwise": (
            "abs add clip conj divide exp expm1 imag log log10 log1p log2 logaddexp maximum "
            "minimum multiply negative positive pow real reciprocal sign sqrt square subtract "
            "where"
        ),
        "core.ops.indexing": "put_along_axis take take_along_axis",
        "core.ops.linalg": "diag matmul outer tensordot trace vecdot",
        "core.ops.logic": (
            "all allclose any bitwise_and bitwise_invert bitwise_left_shift bitwise_or "
            "bitwise_right_shift bitwise_xor equal greater greater_equal isclose isfinite "
            "isinf isnan less less_equal logical_and logical_not logical_or logical_xor "
            "not_equal"
        ),
        "core.ops.manipulation": (
            "broadcast_arrays broadcast_shapes flip meshgrid moveaxis repeat roll split tile "
            "tril triu unstack"
        ),
        "core.ops.padding": "pad",
        "core.ops.reduction": "count_nonzero max mean min prod std sum var",
        "core.ops.rounding": (
            "ceil copysign floor floor_divide nextafter remainder round signbit trunc"
        ),
        "core.ops.searching": "argmax argmin nonzero searchsorted",
        "core.ops.sets": "unique_all unique_counts unique_inverse unique_values",
        "core.ops.shape": (
            "broadcast_to concat expand_dims matrix_transpose permute_dims reshape squeeze stack"
        ),
        "core.ops.softmax": "logsumexp",
        "core.ops.sorting": "argsort sort topk",
        "core.ops.trigonometry": (
            "acos acosh asin asinh atan atan2 atanh cos cosh hypot sin sinh tan tanh"
        ),
        "core.ops.update": "assign",
        "core.random": "Generator manual_seed",
        "core.state": "enable_grad inference_mode is_grad_enabled no_grad set_grad_enabled",
        "core.tensor": "Tensor",
        "core.training.overfit": "overfit_one_batch",
        "core.training.rates": "lr_find",
        "hub.commands.catalog": "info",
        "hub.exporting": "export",
        "hub.loading": "load",
        "hub.registry": "list_models",
        "hub.settings": "configure",
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
    from .core import linalg as linalg
    from .core import nn as nn
    from .core import optim as optim
    from .core import random as random
    from .core import testing as testing
    from .core import training as training
    from .core import weights as weights
    from .core.anomaly import detect_anomaly as detect_anomaly
    from .core.autocast import autocast as autocast
    from .core.autograd import backward as backward
    from .core.autograd import grad as grad
    from .core.autograd import jvp as jvp
    from .core.autograd import vjp as vjp
    from .core.checkpoint import checkpoint as checkpoint
    from .core.creation import arange as arange
    from .core.creation import asarray as asarray
    from .core.creation import empty as empty
    from .core.creation import empty_like as empty_like
    from .core.creation import eye as eye
    from .core.creation import from_dlpack as from_dlpack
    from .core.creation import full as full
    from .core.creation import full_like as full_like
    from .core.creation import linspace as linspace
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
    from .core.graph.compiled import compile as compile
    from .core.insight.activations import watch_activations as watch_activations
    from .core.insight.flow import gradient_flow as gradient_flow
    from .core.insight.profile import profile as profile
    from .core.insight.runs.reader import read_run as read_run
    from .core.insight.runs.writer import Run as Run
    from .core.namespace import __array_api_version__ as __array_api_version__
    from .core.namespace import __array_namespace_info__ as __array_namespace_info__
    from .core.namespace import astype as astype
    from .core.namespace import can_cast as can_cast
    from .core.namespace import e as e
    from .core.namespace import finfo as finfo
    from .core.namespace import iinfo as iinfo
    from .core.namespace import inf as inf
    from .core.namespace import isdtype as isdtype
    from .core.namespace import nan as nan
    from .core.namespace import newaxis as newaxis
    from .core.namespace import pi as pi
    from .core.namespace import result_type as result_type
    from .core.op import op as op
    from .core.ops import fft as fft
    from .core.ops.cumulative import cumulative_prod as cumulative_prod
    from .core.ops.cumulative import cumulative_sum as cumulative_sum
    from .core.ops.cumulative import diff as diff
    from .core.ops.einsum import einsum as einsum
    from .core.ops.elementwise import abs as abs
    from .core.ops.elementwise import add as add
    from .core.ops.elementwise import clip as clip
    from .core.ops.elementwise import conj as conj
    from .core.ops.elementwise import divide as divide
    from .core.ops.elementwise import exp as exp
    from .core.ops.elementwise import expm1 as expm1
    from .core.ops.elementwise import imag as imag
    from .core.ops.elementwise import log as log
    from .core.ops.elementwise import log1p as log1p
    from .core.ops.elementwise import log2 as log2
    from .core.ops.elementwise import log10 as log10
    from .core.ops.elementwise import logaddexp as logaddexp
    from .core.ops.elementwise import maximum as maximum
    from .core.ops.elementwise import minimum as minimum
    from .core.ops.elementwise import multiply as multiply
    from .core.ops.elementwise import negative as negative
    from .core.ops.elementwise import positive as positive
    from .core.ops.elementwise import pow as pow
    from .core.ops.elementwise import real as real
    from .core.ops.elementwise import reciprocal as reciprocal
    from .core.ops.elementwise import sign as sign
    from .core.ops.elementwise import sqrt as sqrt
    from .core.ops.elementwise import square as square
    from .core.ops.elementwise import subtract as subtract
    from .core.ops.elementwise import where as where
    from .core.ops.gelu import erf as erf
    from .core.ops.indexing import put_along_axis as put_along_axis
    from .core.ops.indexing import take as take
    from .core.ops.indexing import take_along_axis as take_along_axis
    from .core.ops.linalg import diag as diag
    from .core.ops.linalg import matmul as matmul
    from .core.ops.linalg import outer as outer
    from .core.ops.linalg import tensordot as tensordot
    from .core.ops.linalg import trace as trace
    from .core.ops.linalg import vecdot as vecdot
    from .core.ops.logic import all as all
    from .core.ops.logic import allclose as allclose
    from .core.ops.logic import any as any
    from .core.ops.logic import bitwise_and as bitwise_and
    from .core.ops.logic import bitwise_invert as bitwise_invert
    from .core.ops.logic import bitwise_left_shift as bitwise_left_shift
    from .core.ops.logic import bitwise_or as bitwise_or
    from .core.ops.logic import bitwise_right_shift as bitwise_right_shift
    from .core.ops.logic import bitwise_xor as bitwise_xor
    from .core.ops.logic import equal as equal
    from .core.ops.logic import greater as greater
    from .core.ops.logic import greater_equal as greater_equal
    from .core.ops.logic import isclose as isclose
    from .core.ops.logic import isfinite as isfinite
    from .core.ops.logic import isinf as isinf
    from .core.ops.logic import isnan as isnan
    from .core.ops.logic import less as less
    from .core.ops.logic import less_equal as less_equal
    from .core.ops.logic import logical_and as logical_and
    from .core.ops.logic import logical_not as logical_not
    from .core.ops.logic import logical_or as logical_or
    from .core.ops.logic import logical_xor as logical_xor
    from .core.ops.logic import not_equal as not_equal
    from .core.ops.manipulation import broadcast_arrays as broadcast_arrays
    from .core.ops.manipulation import broadcast_shapes as broadcast_shapes
    from .core.ops.manipulation import flip as flip
    from .core.ops.manipulation import meshgrid as meshgrid
    from .core.ops.manipulation import moveaxis as moveaxis
    from .core.ops.manipulation import repeat as repeat
    from .core.ops.manipulation import roll as roll
    from .core.ops.manipulation import split as split
    from .core.ops.manipulation import tile as tile
    from .core.ops.manipulation import tril as tril
    from .core.ops.manipulation import triu as triu
    from .core.ops.manipulation import unstack as unstack
    from .core.ops.padding import pad as pad
    from .core.ops.reduction import count_nonzero as count_nonzero
    from .core.ops.reduction import max as max
    from .core.ops.reduction import mean as mean
    from .core.ops.reduction import min as min
    from .core.ops.reduction import prod as prod
    from .core.ops.reduction import std as std
    from .core.ops.reduction import sum as sum
    from .core.ops.reduction import var as var
    from .core.ops.rounding import ceil as ceil
    from .core.ops.rounding import copysign as copysign
    from .core.ops.rounding import floor as floor
    from .core.ops.rounding import floor_divide as floor_divide
    from .core.ops.rounding import nextafter as nextafter
    from .core.ops.rounding import remainder as remainder
    from .core.ops.rounding import round as round
    from .core.ops.rounding import signbit as signbit
    from .core.ops.rounding import trunc as trunc
    from .core.ops.searching import argmax as argmax
    from .core.ops.searching import argmin as argmin
    from .core.ops.searching import nonzero as nonzero
    from .core.ops.searching import searchsorted as searchsorted
    from .core.ops.sets import unique_all as unique_all
    from .core.ops.sets import unique_counts as unique_counts
    from .core.ops.sets import unique_inverse as unique_inverse
    from .core.ops.sets import unique_values as unique_values
    from .core.ops.shape import broadcast_to as broadcast_to
    from .core.ops.shape import concat as concat
    from .core.ops.shape import expand_dims as expand_dims
    from .core.ops.shape import matrix_transpose as matrix_transpose
    from .core.ops.shape import permute_dims as permute_dims
    from .core.ops.shape import reshape as reshape
    from .core.ops.shape import squeeze as squeeze
    from .core.ops.shape import stack as stack
    from .core.ops.softmax import logsumexp as logsumexp
    from .core.ops.sorting import argsort as argsort
    from .core.ops.sorting import sort as sort
    from .core.ops.sorting import topk as topk
    from .core.ops.trigonometry import acos as acos
    from .core.ops.trigonometry import acosh as acosh
    from .core.ops.trigonometry import asin as asin
    from .core.ops.trigonometry import asinh as asinh
    from .core.ops.trigonometry import atan as atan
    from .core.ops.trigonometry import atan2 as atan2
    from .core.ops.trigonometry import atanh as atanh
    from .core.ops.trigonometry import cos as cos
    from .core.ops.trigonometry import cosh as cosh
    from .core.ops.trigonometry import hypot as hypot
    from .core.ops.trigonometry import sin as sin
    from .core.ops.trigonometry import sinh as sinh
    from .core.ops.trigonometry import tan as tan
    from .core.ops.trigonometry import tanh as tanh
    from .core.ops.update import assign as assign
    from .core.random import Generator as Generator
    from .core.random import manual_seed as manual_seed
    from .core.state import enable_grad as enable_grad
    from .core.state import inference_mode as inference_mode
    from .core.state import is_grad_enabled as is_grad_enabled
    from .core.state import no_grad as no_grad
    from .core.state import set_grad_enabled as set_grad_enabled
    from .core.tensor import Tensor as Tensor
    from .core.training.overfit import overfit_one_batch as overfit_one_batch
    from .core.training.rates import lr_find as lr_find
    from .hub.commands.catalog import info as info
    from .hub.exporting import export as export
    from .hub.loading import load as load
    from .hub.registry import list_models as list_models
    from .hub.settings import configure as configure


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


class _Aliases:
    """Lets `import bestiary.nn.functional as F` mean `bestiary.core.nn.functional`.

    It is the same module under both names, so that nothing exists twice.
    """

    @staticmethod
    def find_spec(name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        """The finder: answers for names below an alias of the table, for nothing else."""
        if not name.startswith(_PREFIX):
            return None
        first, _, rest = name.removeprefix(_PREFIX).partition(".")
        module = _MODULES.get(first, first)
        if module == first:
            return None
        loader: Any = _Aliases()  # only its two methods are used
        spec = ModuleSpec(name, loader)
        spec.loader_state = f"{_PREFIX}{module}.{rest}".rstrip(".")
        return spec

    @staticmethod
    def create_module(spec: ModuleSpec) -> Any:
        """The loader's first half: the module of the real name."""
        module = importlib.import_module(spec.loader_state)
        spec.loader_state = module.__spec__
        return module

    @staticmethod
    def exec_module(module: Any) -> None:
        """The second half: take back the alias that the import system has put into the module."""
        module.__spec__ = module.__spec__.loader_state


_PREFIX = f"{__name__}."
sys.meta_path.insert(0, _Aliases())  # before the finder by path, which would load a second copy
