"""What is used of a GPU, asked of CuPy, if something has imported it, and of NVIDIA's NVML."""

from __future__ import annotations

import ctypes
import sys
from typing import Any

_LIBRARIES = ("libnvidia-ml.so.1", "nvml.dll")


class _Rates(ctypes.Structure):
    """nvmlUtilization_t: percent of the time in which kernels ran, and memory was moved."""

    _fields_ = (("gpu", ctypes.c_uint), ("memory", ctypes.c_uint))


class GpuUse:
    """Samples of the GPU that CuPy works on; nothing where there is none."""

    def __init__(self) -> None:
        self._nvml: Any = None
        self._handle: ctypes.c_void_p | None = None
        self._tried = False

    def sample(self) -> dict[str, float]:
        """`gpu_memory` in megabytes, of all processes, and `gpu` in percent, if NVML tells it."""
        cupy = sys.modules.get("cupy")  # who uses a GPU has imported it
        if cupy is None:
            return {}
        try:
            free, total = cupy.cuda.runtime.memGetInfo()
            found = {"gpu_memory": (int(total) - int(free)) / 1e6}
            if not self._tried:
                self._tried = True
                self._open(cupy.cuda.runtime)
        except Exception:  # without a device, or a driver, CuPy has errors of many kinds
            return {}
        rates = _Rates()
        if self._handle is not None and not self._nvml.nvmlDeviceGetUtilizationRates(
            self._handle, ctypes.byref(rates)
        ):
            found["gpu"] = float(rates.gpu)
        return found

    def _open(self, runtime: Any) -> None:
        """Find the device by its place on the bus: NVML numbers devices in an order of its own."""
        nvml = _library()
        handle = ctypes.c_void_p()
        if nvml is None or nvml.nvmlInit_v2():
            return
        place = str(runtime.deviceGetPCIBusId(runtime.getDevice())).encode()
        if not nvml.nvmlDeviceGetHandleByPciBusId_v2(place, ctypes.byref(handle)):
            self._nvml, self._handle = nvml, handle


def _library() -> Any:
    for name in _LIBRARIES:
        try:
            return ctypes.CDLL(name)
        except OSError:
            continue
    return None
