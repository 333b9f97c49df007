"""The native kernels are tested with each instruction set that this processor can run."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bestiary.core import native
from bestiary.core.native import runtime

sys.path.insert(0, str(Path(__file__).parent))  # for the tables beside the tests


@pytest.fixture(params=["avx512", "avx2", "generic"])
def isa(request: pytest.FixtureRequest) -> Iterator[str]:
    """Forces an instruction set, two threads."""
    facts = native.info()
    if not facts["built"]:
        pytest.skip("the native kernels are not built")
    if request.param not in facts["isas"]:
        pytest.skip(f"this processor has no {request.param}")
    native.set_isa(request.param)
    native.set_num_threads(2)
    yield request.param
    native.set_isa(facts["isa"])
    native.set_num_threads(facts["threads"])


@pytest.fixture
def built() -> None:
    if not native.info()["built"]:
        pytest.skip("the native kernels are not built")


class Watched:
    """The extension, and the names of the kernels that it ran."""

    def __init__(self) -> None:
        self._native, self.seen = runtime._native, set[str]()
        self._names = {number: name for name, number in runtime.KERNELS.items()}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._native, name)

    def run(self, kernel: int, *rest: Any) -> None:
        self.seen.add(self._names[kernel])
        self._native.run(kernel, *rest)


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> Watched:
    """Notes which kernels run."""
    found = Watched()
    monkeypatch.setattr(runtime, "_native", found)
    return found
