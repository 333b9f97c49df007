"""Values and gradients of both orders of torch's tensor functions.

    python tests/references/ops.py

needs torch and safetensors; nothing of bestiary. Written with torch 2.13.0 on the CPU, computed in
float64, into tests/references/data/ops.safetensors: for each case of ops_cases.py the values, the
gradients, and the gradients of their products with fixed random numbers.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch
import torch.nn.functional as TF
from common import DATA, metadata, save
from ops_cases import CASES, cotangents, inputs, results

_RENAMED = {"axis": "dim", "keepdims": "keepdim", "axes": "dim"}
_NAMES = {"max": "amax", "min": "amin", "cumulative_sum": "cumsum", "cumulative_prod": "cumprod"}


def renamed(function: Any) -> Any:
    def call(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **{_RENAMED.get(k, k): v for k, v in kwargs.items()})

    return call


class Module:
    """A module of torch with our keywords."""

    def __init__(self, module: Any) -> None:
        self.module = module

    def __getattr__(self, name: str) -> Any:
        return renamed(getattr(self.module, name))


class Torch(Module):
    """Torch's functions with our names and keywords."""

    fft = Module(torch.fft)
    linalg = Module(torch.linalg)

    def __getattr__(self, name: str) -> Any:
        function = getattr(torch, _NAMES.get(name, name))

        def call(*args: Any, **kwargs: Any) -> Any:
            if kwargs.get("axis", 0) is None:  # torch takes no None here
                kwargs["axis"] = tuple(range(args[0].ndim))
            return renamed(function)(*args, **kwargs)

        return call

    def sign(self, x):  # type: ignore[no-untyped-def]
        return torch.sgn(x)

    def conj(self, x):  # type: ignore[no-untyped-def]
        return torch.conj_physical(x)

    def clip(self, x, low, high):  # type: ignore[no-untyped-def]
        return torch.clamp(x, low, high)

    def prod(self, x, axis=None):  # type: ignore[no-untyped-def]
        return x.prod() if axis is None else x.prod(axis)

    def expand_dims(self, x, axis):  # type: ignore[no-untyped-def]
        return x.unsqueeze(axis)

    def permute_dims(self, x, axes):  # type: ignore[no-untyped-def]
        return x.permute(axes)

    def flip(self, x, axis):  # type: ignore[no-untyped-def]
        return x.flip(axis)

    def roll(self, x, shift, axis):  # type: ignore[no-untyped-def]
        return torch.roll(x, shift, axis)

    def tril(self, x, k):  # type: ignore[no-untyped-def]
        return torch.tril(x, k)

    def triu(self, x, k):  # type: ignore[no-untyped-def]
        return torch.triu(x, k)

    def unstack(self, x, axis):  # type: ignore[no-untyped-def]
        return torch.unbind(x, axis)

    def repeat(self, x, count, axis):  # type: ignore[no-untyped-def]
        return torch.repeat_interleave(x, count, axis)

    def pad(self, x, widths, mode="constant", constant_values=0):  # type: ignore[no-untyped-def]
        name = "replicate" if mode == "edge" else mode
        if mode != "constant":
            widths = widths[2:]
        flat = [n for pair in reversed(widths) for n in pair]
        return TF.pad(x, flat, name, constant_values if mode == "constant" else None)

    def take(self, x, indices, axis):  # type: ignore[no-untyped-def]
        return torch.index_select(x, axis, indices)

    def take_along_axis(self, x, indices, axis):  # type: ignore[no-untyped-def]
        return torch.gather(x, axis, indices)

    def put_along_axis(self, x, indices, values, axis, mode="set"):  # type: ignore[no-untyped-def]
        if mode == "add":
            return torch.scatter_add(x, axis, indices, values)
        return torch.scatter(x, axis, indices, values)

    def sort(self, x, axis, descending=False):  # type: ignore[no-untyped-def]
        return torch.sort(x, axis, descending).values

    def tensordot(self, x, y, axes):  # type: ignore[no-untyped-def]
        return torch.tensordot(x, y, axes)

    def vecdot(self, x, y):  # type: ignore[no-untyped-def]
        return torch.linalg.vecdot(x, y)

    def diag(self, x):  # type: ignore[no-untyped-def]
        return torch.diag_embed(x)


def weights(name: str, tensors: list[torch.Tensor]) -> list[torch.Tensor]:
    like = [(tuple(t.shape), t.is_complex()) for t in tensors]
    return [torch.tensor(array) for array in cotangents(name, like)]


def main() -> None:
    arrays: dict[str, object] = {}
    for name, (function, _) in CASES.items():
        tensors = [torch.tensor(array, requires_grad=needs) for array, needs in inputs(name)]
        leaves = [t for t in tensors if t.requires_grad]
        outs = results(function(Torch(torch), *tensors))
        for i, out in enumerate(outs):
            arrays[f"{name}/out{i}"] = out
        gradients = torch.autograd.grad(
            outs, leaves, weights(name, outs), create_graph=True, allow_unused=True
        )
        first = [
            torch.zeros_like(x) if g is None else g for g, x in zip(gradients, leaves, strict=True)
        ]
        for i, g in enumerate(first):
            arrays[f"{name}/g{i}"] = g
        second: Any = [None] * len(leaves)
        pairs = [
            (g, w)
            for g, w in zip(first, weights(name + "/2", first), strict=True)
            if g.requires_grad
        ]
        if pairs:
            second = torch.autograd.grad(
                [g for g, _ in pairs], leaves, [w for _, w in pairs], allow_unused=True
            )
        for i, (h, x) in enumerate(zip(second, leaves, strict=True)):
            arrays[f"{name}/h{i}"] = torch.zeros_like(x) if h is None else h
    narrow = {}
    for key, value in arrays.items():
        array = value.numpy(force=True)  # type: ignore[attr-defined]
        if array.dtype.kind == "c":
            array = np.stack([array.real, array.imag], -1)
        narrow[key] = array.astype(np.float32)
    save(DATA / "ops.safetensors", dict(narrow), metadata())


if __name__ == "__main__":
    warnings.filterwarnings("ignore")
    main()
