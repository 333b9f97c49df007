"""What this process uses of the machine, cheaply enough to ask once a second."""

from __future__ import annotations

import os
import time

from .gpu import GpuUse

_EVERY = 1.0  # seconds


class Use:
    """Samples of processors and memory, a GPU's too; `sample` is to be called now and then."""

    def __init__(self) -> None:
        self._when = time.monotonic()
        self._spent = time.process_time()
        self._gpu = GpuUse()

    def sample(self) -> dict[str, float] | None:
        """What was used since the last sample; None if that is less than a second ago.

        `cpu` is in percent of one processor, so that two busy ones are 200; `memory` is in
        megabytes and left out where the system does not tell it; `gpu`, in percent, and
        `gpu_memory` are there where a GPU is in use.
        """
        now, spent = time.monotonic(), time.process_time()
        passed = now - self._when
        if passed < _EVERY:
            return None
        found = {"cpu": 100 * (spent - self._spent) / passed}
        self._when, self._spent = now, spent
        memory = resident_bytes()
        if memory is not None:
            found["memory"] = memory / 1e6
        return found | self._gpu.sample()


def resident_bytes() -> int | None:
    """Memory that this process holds now (Linux); None elsewhere."""
    try:
        with open("/proc/self/statm", "rb") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return None
