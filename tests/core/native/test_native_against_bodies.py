"""Every operation with a kernel in C against its generic body in float64 (op_cases.py)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from drawing import drawn
from hypothesis import strategies as st
from op_cases import CASES, Case

import bestiary as bt
from bestiary.core import native
from bestiary.core.op import REGISTRY

# Kernels for the CPU that are written in NumPy: tests/core/ops compares them with their bodies.
IN_NUMPY = {"scatter_add", "scatter_along_axis"}


def widened(x: Any) -> Any:
    """In float64 what is float32; a copy, for bodies that write."""
    if isinstance(x, np.ndarray):
        return np.array(x, np.float64 if x.dtype == np.float32 else x.dtype)
    return x


def check(case: Case, operands: list[Any], constants: dict[str, Any], grad: bool) -> None:
    op = REGISTRY[case.name]
    wide = [widened(x) for x in operands]
    with np.errstate(all="ignore"):
        want = op.body(np, *wide, **constants)
        with bt.enable_grad() if grad else bt.no_grad():
            found = op._cpu(*operands, **constants)
    pairs = list(
        zip(
            found if isinstance(want, tuple) else (found,),
            want if isinstance(want, tuple) else (want,),
            strict=True,
        )
    )
    pairs += [(operands[i], wide[i]) for i in op.writes]
    for got, wanted in pairs:
        if wanted is None or got is None:  # gradients that were not asked for may come all the same
            assert got is None or constants.get("needed") or case.name == "adam_update"
            continue
        assert got.shape == wanted.shape
        if not wanted.size:
            continue
        scale = max(1.0, float(np.abs(wanted).max()))
        np.testing.assert_allclose(got, wanted, rtol=case.rtol, atol=case.rtol * scale)


@pytest.mark.parametrize("examples", [60, pytest.param(1000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.name}-{case.kernels[0]}")
def test_any_shape_and_memory(isa: str, case: Case, examples: int, watched: Any) -> None:
    def every(data: Any) -> None:
        operands, constants = case.make(data.draw)
        check(case, operands, constants, data.draw(st.booleans()))

    drawn(every, examples, lambda: watched.seen >= set(case.kernels))


def test_every_operation_with_a_kernel_has_a_case() -> None:
    if not native.available():
        pytest.skip("the native kernels are not registered")
    with_kernels = {name for name, op in REGISTRY.items() if "cpu" in op.kernels}
    assert with_kernels - IN_NUMPY == {case.name for case in CASES}
