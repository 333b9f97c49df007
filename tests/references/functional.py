"""Values and gradients of both orders of torch's functions.

    python tests/references/functional.py

needs torch and safetensors; nothing of bestiary. Written with torch 2.13.0 on the CPU, computed in
float64, into tests/references/data/functional.safetensors: for each case of functional_cases.py
the value, the gradients, and the gradients of their products with fixed random numbers (where
torch has them).
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch
import torch.nn.functional as TF
from common import DATA, metadata, save
from functional_cases import CASES, cotangents, inputs
from torch.nn.attention import SDPBackend, sdpa_kernel


class Torch:
    """Torch's functions with our keywords; what torch lacks is written out from its definition."""

    def __getattr__(self, name: str) -> Any:
        name = {"log_sigmoid": "logsigmoid"}.get(name, name)
        function = getattr(TF, name, None) or getattr(torch, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            renamed = {"axis": "dim", "keepdims": "keepdim"}
            return function(*args, **{renamed.get(k, k): v for k, v in kwargs.items()})

        return call

    def conv2d(self, x, w, b=None, stride=1, padding=0, dilation=1, groups=1):  # type: ignore[no-untyped-def]
        if isinstance(padding, tuple) and isinstance(padding[0], tuple):
            (top, bottom), (left, right) = padding
            x, padding = TF.pad(x, (left, right, top, bottom)), 0
        return TF.conv2d(x, w, b, stride, padding, dilation, groups)

    def quick_gelu(self, x):  # type: ignore[no-untyped-def]
        return x * torch.sigmoid(1.702 * x)

    def sigmoid_focal_loss(self, x, y):  # type: ignore[no-untyped-def]
        p = torch.sigmoid(x)
        loss = TF.binary_cross_entropy_with_logits(x, y, reduction="none")
        loss = loss * (1 - (p * y + (1 - p) * (1 - y))) ** 2
        return (0.25 * y + 0.75 * (1 - y)) * loss

    def info_nce(self, x, y, temperature, symmetric=False):  # type: ignore[no-untyped-def]
        cosines = TF.normalize(x) @ TF.normalize(y).T / temperature
        own = torch.arange(len(x))
        loss = TF.cross_entropy(cosines, own)
        return (loss + TF.cross_entropy(cosines.T, own)) / 2 if symmetric else loss


def main() -> None:
    arrays: dict[str, object] = {}
    once: list[str] = []
    for name, (function, _) in CASES.items():
        given = inputs(name)
        tensors = [torch.tensor(array, requires_grad=needs) for array, needs in given]
        leaves = [t for t in tensors if t.requires_grad]
        out = function(Torch(), *tensors)
        (weight,) = cotangents(name, [tuple(out.shape)])
        w = torch.tensor(weight, requires_grad=True)
        gradients = torch.autograd.grad(out, leaves, w, create_graph=True)
        arrays[f"{name}/out"] = out
        for i, g in enumerate(gradients):
            arrays[f"{name}/g{i}"] = g + 0
        twice = cotangents(name + "/2", [tuple(g.shape) for g in gradients])
        try:
            total = sum((g * torch.tensor(v)).sum() for g, v in zip(gradients, twice, strict=True))
            second = torch.autograd.grad(total, [*leaves, w], allow_unused=True)
        except RuntimeError as error:
            if not any(w in str(error) for w in ("not implemented", "does not require grad")):
                raise
            once.append(name)
            continue
        for i, h in enumerate(second):
            shape = (*leaves, w)[i].shape
            arrays[f"{name}/h{i}"] = torch.zeros(shape) if h is None else h + 0
    narrow = {
        k: np.asarray(v.detach().numpy(force=True), np.float32)  # type: ignore[attr-defined]
        for k, v in arrays.items()
    }
    save(DATA / "functional.safetensors", dict(narrow), metadata(once=" ".join(once)))


if __name__ == "__main__":
    warnings.filterwarnings("ignore")
    with sdpa_kernel(SDPBackend.MATH):
        main()
