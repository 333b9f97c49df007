"""Every operation of the table under autocast: what it is given, what it returns, its gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from fake_device import fake_device
from rows import Row, all_rows
from test_ops import DEVICES, accelerator, arrays_of, by_row, call, forward_backward

import bestiary as bt
from bestiary.core import autocast as module
from bestiary.core.nn import functional as F
from bestiary.core.op import REGISTRY, Op
from bestiary.core.state import observing, state

ROWS = [row for row in all_rows() if "float32" in row.dtypes]
MIXED = ("float32", "bfloat16")  # dtypes that meet under autocast


def operand_dtypes(op: Op[..., Any], operands: Any) -> set[str]:
    found = {str(x.dtype) for x in operands if isinstance(x, bt.Tensor)}
    return found & {"float16", "bfloat16", "float32", "float64"}


def expected_of(op: Op[..., Any]) -> str | None:
    """The dtype in which an operation runs; None where it takes what there is."""
    if op.name in module.HALF:
        return "bfloat16"
    if op.writes or op.name in module.AS_GIVEN:
        return None
    return "float32" if op.name in module.FLOAT32 or op.wide else None


@pytest.mark.parametrize("dtype", MIXED)
@by_row(ROWS)
def test_the_dtypes_of_the_table(row: Row, dtype: str) -> None:
    seen: list[tuple[Op[..., Any], set[str], set[str]]] = []

    def watch(op: Any, operands: Any, constants: Any, run: Callable[[], Any]) -> Any:
        out = run()
        if state.cast is None:  # inside a loss, which computes in float32 as a whole
            return out
        results = out if isinstance(out, tuple) else (out,)
        seen.append((op, operand_dtypes(op, operands), operand_dtypes(op, results)))
        return out

    for sample in row.make():
        arrays = arrays_of(sample, dtype)
        seen.clear()
        with bt.autocast(bt.bfloat16), observing(watch):
            call(row, arrays, sample.constants)
        for op, given, made in seen:
            wanted = expected_of(op)
            if wanted is None or not given or "float64" in given:
                continue
            assert given == {wanted}, op.name
            assert made <= {wanted, "float64"}, op.name  # statistics are kept in float64


@by_row([row for row in ROWS if row.order])
def test_gradients_reach_float32_operands(row: Row) -> None:
    for sample in row.make()[:4]:
        arrays = arrays_of(sample, "float32")
        with bt.autocast(bt.bfloat16):
            outs, found = forward_backward(row, arrays, sample.constants)
        expected_outs, expected = forward_backward(row, arrays, sample.constants)
        assert len(outs) == len(expected_outs)
        for g, e in zip(found, expected, strict=True):
            assert (g is None) == (e is None)
            if g is not None:
                assert g.dtype == e.dtype
                scale = float(np.abs(e.numpy()).max(initial=1e-3))
                np.testing.assert_allclose(g.numpy(), e.numpy(), rtol=0.1, atol=0.1 * scale)


@by_row([row for row in ROWS if row.fake])
def test_on_the_stand_in_for_a_gpu(row: Row) -> None:
    with fake_device() as device:
        for sample in row.make()[:2]:
            arrays = arrays_of(sample, "float32")
            with bt.autocast(bt.float16):
                outs, found = forward_backward(row, arrays, sample.constants, device)
            for x in (*outs, *(g for g in found if g is not None)):
                assert x.device == device


@pytest.mark.parametrize("device_name", DEVICES)
def test_the_backward_pass_on_a_gpu_multiplies_halves(device_name: str) -> None:
    """A gradient that comes from float32 must not make the products below it float32 too."""
    # Not bfloat16, some of whose arithmetic NumPy widens behind the stand-in.
    dtype = bt.float16
    seen: dict[str, set[str]] = {}

    def watch(op: Any, operands: Any, constants: Any, run: Callable[[], Any]) -> Any:
        if state.backward:
            seen.setdefault(op.name, set()).update(operand_dtypes(op, operands))
        return run()

    with accelerator(device_name) as device:
        rng = np.random.default_rng(0)
        shapes = (4, 5), (3, 5), (2, 3)
        x, w, v = (bt.Tensor(rng.normal(size=s).astype("f4")).to(device) for s in shapes)
        for leaf in (x, w, v):
            leaf.requires_grad_()
        with bt.autocast(dtype):
            logits = F.linear(F.relu(F.linear(x, w)), v)
            loss = F.cross_entropy(logits, bt.asarray([0, 1, 0, 1]).to(device))
        with observing(watch):
            found = bt.grad(loss, (x, w, v))
    assert {str(g.dtype) for g in found} == {"float32"}
    for name in ("linear_input_grad", "linear_weight_grad", "relu_backward"):
        assert seen[name] == {str(dtype)}, name
    assert seen["cross_entropy_backward"] == {"float32", "float64"}


def test_the_lists_name_operations() -> None:
    for names in (module.HALF, module.FLOAT32, module.AS_GIVEN):
        assert names <= set(REGISTRY)
    assert not module.HALF & module.FLOAT32
    assert all(REGISTRY[name].wide for name in module.AS_GIVEN)
    assert not any(REGISTRY[name].wide for name in module.HALF | module.FLOAT32)


def test_what_refuses_mixed_floats_is_on_a_list() -> None:
    strict = {name for name, op in REGISTRY.items() if op.same_float and not op.wide}
    library = {name for name in strict if REGISTRY[name].__module__.startswith("bestiary.")}
    assert library <= module.HALF
