"""The native kernels are tested with each instruction set that this processor can run."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from bestiary.core import native


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
