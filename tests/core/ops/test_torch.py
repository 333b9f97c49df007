"""Tensor functions against torch: values and gradients of both orders. See references/ops.py."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rows_elementwise
import rows_indexing
import rows_linalg
import rows_reduction
import rows_shape
from safetensors import safe_open

import bestiary as bt

HERE = Path(__file__).parents[2] / "references"
MODULE = runpy.run_path(str(HERE / "ops_cases.py"))
CASES, inputs, cotangents = MODULE["CASES"], MODULE["inputs"], MODULE["cotangents"]
with safe_open(HERE / "data" / "ops.safetensors", "np") as opened:
    ARRAYS = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118


def close(ours: bt.Tensor | None, key: str, like: Any = None) -> None:
    """Within 2e-6 of the stored float32, of the largest value; None stands for zeros."""
    expected = ARRAYS[key]
    if ours is None:
        assert not expected.any(), f"{key}: no gradient"
        return
    array = ours.detach().numpy()
    if array.dtype.kind == "c":
        array = np.stack([array.real, array.imag], -1)
    assert array.shape == expected.shape, key
    scale = max(1.0, float(np.abs(expected).max(initial=0)))
    np.testing.assert_allclose(array, expected, rtol=2e-6, atol=2e-6 * scale, err_msg=key)


def weights(name: str, tensors: list[bt.Tensor]) -> list[bt.Tensor]:
    like = [(x.shape, x.dtype.kind == "c") for x in tensors]
    return [bt.asarray(array) for array in cotangents(name, like)]


@pytest.mark.parametrize("name", CASES)
def test_values_and_gradients(name: str) -> None:
    xs = []
    for array, needs in inputs(name):
        x = bt.asarray(array)
        xs.append(x.requires_grad_() if needs else x)
    leaves = [x for x in xs if x.requires_grad]
    outs = MODULE["results"](CASES[name][0](bt, *xs))
    for i, out in enumerate(outs):
        close(out, f"{name}/out{i}")
    found = bt.grad(outs, leaves, weights(name, outs), create_graph=True, allow_unused=True)
    first = [
        bt.zeros_like(x).detach() if g is None else g for g, x in zip(found, leaves, strict=True)
    ]
    for i, g in enumerate(first):
        close(g, f"{name}/g{i}")
    ways = weights(name + "/2", first)
    pairs = [(g, w) for g, w in zip(first, ways, strict=True) if g.requires_grad]
    second: Any = [None] * len(leaves)
    if pairs:
        second = bt.grad([g for g, _ in pairs], leaves, [w for _, w in pairs], allow_unused=True)
    for i, h in enumerate(second):
        close(h, f"{name}/h{i}")


# Differentiable functions that torch has not, or has without a gradient.
NO_PEER = {
    "floor_divide": "torch gives it no gradient",
    "linear_recurrence": "torch has none",
    "identity": "torch has none",
    "astype_gradient": "a cast",
    "positive_copy": "a copy",
    "to_device": "a copy",
    "write_item": "in place: tests/core/test_autograd.py",
    "erase_item": "the gradient of write_item",
    "broadcast_arrays": "broadcast_to",
    "fftshift": "roll",
    "ifftshift": "roll",
    "unstack_one": "unstack",
    "split_one": "split",
    "prod_of_zeros": "prod_of_a_zero",
}


def test_every_differentiable_row_has_a_case() -> None:
    """Of the tensor functions; tests/core/nn/test_functional_torch.py has the neural ones."""
    tables = (rows_elementwise, rows_reduction, rows_shape, rows_indexing, rows_linalg)
    rows = [row for table in tables for row in table.ROWS if row.order]
    text = (HERE / "ops_cases.py").read_text()
    missing = [r.id for r in rows if r.id not in NO_PEER and r.id.split("_by_")[0] not in text]
    assert len(rows) > 100
    assert not missing
