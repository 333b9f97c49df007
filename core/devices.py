"""Devices, and the array library that serves each.

NumPy serves `cpu`; CuPy serves `cuda`, `cuda:1`, ... and is imported when a cuda device is first
asked for, never before.
"""

from __future__ import annotations

import builtins
import importlib
import importlib.util
from dataclasses import dataclass
from typing import Any

import numpy as np

from .errors import DeviceError
from .state import state


@dataclass(frozen=True)
class Device:
    """Where an array lives: `type` is "cpu" or "cuda", `index` counts the GPUs from 0."""

    type: str
    index: int = 0

    def __str__(self) -> str:
        if self.type == "cpu":
            return "cpu"
        return self.type if self.index == 0 else f"{self.type}:{self.index}"

    def __repr__(self) -> str:
        return f"device({str(self)!r})"

    def __eq__(self, other: object) -> bool:
        if isinstance(other, str):
            return str(self) == other or (self.index == 0 and f"{self.type}:0" == other)
        if isinstance(other, Device):
            return (self.type, self.index) == (other.type, other.index)
        return NotImplemented

    def __hash__(self) -> int:
        return hash((self.type, self.index))


CPU = Device("cpu")


@dataclass(frozen=True)
class Backend:
    """An array library: its namespace, its array class, and the device type that it serves."""

    type: str
    xp: Any
    array_type: builtins.type[Any]


NUMPY = Backend("cpu", np, np.ndarray)
# Looked up with the class of every array that is not NumPy's; CuPy adds itself on first use.
_by_array_type: dict[type, Backend] = {np.ndarray: NUMPY}
_by_device_type: dict[str, Backend] = {"cpu": NUMPY}


def register_backend(backend: Backend) -> None:
    """Make an array library serve a device type."""
    _by_array_type[backend.array_type] = backend
    _by_device_type[backend.type] = backend


def unregister_backend(device_type: str) -> None:
    """Undo `register_backend` (for tests)."""
    backend = _by_device_type.pop(device_type)
    del _by_array_type[backend.array_type]


def backend_of(array: Any) -> Backend | None:
    """The backend whose array this is; None if it is no array of ours."""
    found = _by_array_type.get(type(array))
    if found is not None:
        return found
    for array_type, backend in _by_array_type.items():  # subclasses, such as numpy.memmap
        if isinstance(array, array_type):
            return backend
    return None


def device_of(array: Any) -> Device:
    """The device of an array."""
    backend = backend_of(array)
    if backend is None:
        raise DeviceError(f"{type(array).__name__} is not an array of a known device")
    if backend.type == "cpu":
        return CPU
    return Device(backend.type, int(array.device.id))


def as_device(value: Any) -> Device:
    """The device that `value` names; None means the current default.

    Raises:
        DeviceError: it names none, or one that cannot be used; says which of driver, GPU or
            CuPy is missing and what to install.
    """
    if value is None:
        return state.device or CPU
    if isinstance(value, Device):
        found = value
    else:
        kind, _, index = str(value).partition(":")
        if kind not in ("cpu", "cuda") or (index and not index.isdigit()):
            raise DeviceError(
                f"there is no device {value!r}.\nDevices are 'cpu', 'cuda' and 'cuda:1'."
                + (" A GPU of NVIDIA is 'cuda'." if kind in ("gpu", "nvidia") else ""),
                got=value,
            )
        found = Device(kind, int(index or 0))
    backend_for(found)
    return found


def backend_for(device: Device) -> Backend:
    """The backend that serves a device; loads CuPy when it is first needed."""
    backend = _by_device_type.get(device.type)
    if backend is None:
        backend = _load_cupy()
    if device.type != "cpu" and device.index >= _gpu_count(backend):
        raise DeviceError(
            f"{device} does not exist: this machine has {_gpu_count(backend)} GPU(s).\n"
            f"Use 'cpu' or one of {[f'cuda:{i}' for i in range(_gpu_count(backend))]}.",
            got=str(device),
        )
    return backend


def _gpu_count(backend: Backend) -> int:
    return int(backend.xp.cuda.runtime.getDeviceCount())


def cuda_problem() -> str | None:
    """Why no GPU can be used, in one sentence with the remedy; None if one can."""
    if "cuda" in _by_device_type:
        return None
    if importlib.util.find_spec("cupy") is None:
        return (
            "CuPy is not installed: pip install 'bestiary[cuda13]' "
            "(or 'bestiary[cuda12]' for a CUDA 12 driver)."
        )
    try:
        cupy = importlib.import_module("cupy")
    except ImportError as error:
        return f"CuPy is installed and cannot be imported ({error}): reinstall 'bestiary[cuda13]'."
    try:
        if cupy.cuda.runtime.getDeviceCount() > 0:
            return None
    except cupy.cuda.runtime.CUDARuntimeError as error:
        if "insufficient" in str(error).lower() or "driver" in str(error).lower():
            return (
                f"the NVIDIA driver is missing or too old ({error}): install one that "
                "supports CUDA 13, or use 'bestiary[cuda12]'."
            )
    return "CuPy finds no GPU on this machine (is it hidden by CUDA_VISIBLE_DEVICES?)."


def _load_cupy() -> Backend:
    problem = cuda_problem()
    if problem is not None:
        raise DeviceError(
            f"a GPU was asked for and none can be used: {problem}\nOn the CPU: device='cpu'.",
            problem=problem,
        )
    cupy = importlib.import_module("cupy")
    backend = Backend("cuda", cupy, cupy.ndarray)
    register_backend(backend)
    return backend


class device:
    """Create new tensors on this device inside: `with bt.device("cuda"): ...`.

    It names the device as well, as torch's does: `x.to(bt.device("cuda"))`.
    """

    def __init__(self, value: Any) -> None:
        self._chosen = as_device(value)
        self._before: list[Device | None] = []

    def __str__(self) -> str:
        return str(self._chosen)

    def __repr__(self) -> str:
        return f"device({str(self)!r})"

    def __enter__(self) -> Device:
        self._before.append(state.device)
        state.device = self._chosen
        return self._chosen

    def __exit__(self, *_: object) -> None:
        state.device = self._before.pop()


def cuda_is_available() -> bool:
    """Whether a GPU can be used."""
    return cuda_problem() is None


def move(array: Any, target: Device) -> Any:
    """A copy of the array on another device; the same array if it is there already."""
    source = device_of(array)
    if source == target:
        return array
    backend = backend_for(target)
    if target.type == "cpu":
        return array.get()
    with backend.xp.cuda.Device(target.index):
        return backend.xp.asarray(array)
