"""Every function against torch: values and gradients of both orders."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open

import bestiary as bt
from bestiary.core.autograd import grad
from bestiary.core.nn import functional as F

HERE = Path(__file__).parents[2] / "references"
MODULE = runpy.run_path(str(HERE / "functional_cases.py"))
CASES, inputs, cotangents = MODULE["CASES"], MODULE["inputs"], MODULE["cotangents"]
with safe_open(HERE / "data" / "functional.safetensors", "np") as opened:
    ARRAYS = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    ONCE = opened.metadata()["once"].split()


def tensors(name: str, dtype: Any, channels_last: bool = False) -> list[bt.Tensor]:
    found = []
    for array, needs in inputs(name):
        if array.dtype.kind == "f":
            array = array.astype(dtype)
        if channels_last and array.ndim == 4:
            array = np.ascontiguousarray(array.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
        x = bt.asarray(array)
        found.append(x.requires_grad_() if needs else x)
    return found


def close(ours: bt.Tensor, name: str, tolerance: float) -> None:
    expected = ARRAYS[name]
    assert ours.shape == expected.shape, name
    scale = max(1.0, float(np.abs(expected).max(initial=0)))
    np.testing.assert_allclose(
        ours.array, expected, rtol=tolerance, atol=tolerance * scale, err_msg=name
    )


def gradients(out: bt.Tensor, leaves: list[bt.Tensor], w: bt.Tensor, **options: Any) -> Any:
    return grad(out, leaves, w.astype(out.dtype), **options)


@pytest.mark.parametrize("channels_last", [False, True], ids=["nchw", "nhwc"])
@pytest.mark.parametrize("name", CASES)
def test_value_and_gradient(name, channels_last):
    if channels_last and all(array.ndim != 4 for array, _ in inputs(name)):
        return
    for dtype, tolerance in ((np.float64, 1e-6), (np.float32, 2e-5)):
        xs = tensors(name, dtype, channels_last)
        leaves = [x for x in xs if x.requires_grad]
        out = CASES[name][0](F, *xs)
        assert out.dtype == dtype
        close(out.detach(), f"{name}/out", tolerance)
        (w,) = cotangents(name, [out.shape])
        for i, g in enumerate(gradients(out, leaves, bt.asarray(w))):
            assert g.dtype == dtype
            close(g, f"{name}/g{i}", tolerance)


@pytest.mark.parametrize("name", [n for n in CASES if n not in ONCE])
def test_second_order(name):
    xs = tensors(name, np.float64)
    leaves = [x for x in xs if x.requires_grad]
    out = CASES[name][0](F, *xs)
    w = bt.asarray(cotangents(name, [out.shape])[0]).requires_grad_()
    first = gradients(out, leaves, w, create_graph=True)
    for i, g in enumerate(first):
        close(g.detach(), f"{name}/g{i}", 1e-6)
    total: Any = 0.0
    for g, v in zip(first, cotangents(name + "/2", [g.shape for g in first]), strict=True):
        total = total + (g * bt.asarray(v)).sum()
    second = grad(total, [*leaves, w], allow_unused=True)
    for i, h in enumerate(second):
        expected = ARRAYS[f"{name}/h{i}"]
        if h is None:
            assert not expected.any(), f"{name}/h{i}"
        else:
            close(h, f"{name}/h{i}", 2e-6)


def test_every_function_has_a_case():
    import inspect

    source = inspect.getsource(inspect.getmodule(CASES["linear"][0]) or F)
    text = (HERE / "functional_cases.py").read_text() + source
    drawn = {"dropout", "dropout1d", "dropout2d", "drop_path", "one_hot"}
    missing = [name for name in F.__all__ if name not in text and name not in drawn]
    assert not missing
