"""What users of PyTorch write is answered with our spelling."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import bestiary as bt

X = bt.ones((2, 3))


@pytest.mark.parametrize(
    "mistake, ours",
    [
        (lambda: bt.sum(X, dim=1), "axis="),  # a function
        (lambda: bt.max(X, dim=1), "axis="),  # a primitive
        (lambda: X.sum(dim=1), "axis="),  # a method
        (lambda: X.mean(axis=1, keepdim=True), "keepdims="),
        (lambda: bt.concat([X, X], dim=0), "axis="),
        (lambda: bt.flip(X, dims=(0,)), "axis="),
        (lambda: bt.fft.fftshift(X, axis=0), "axes"),
        (lambda: bt.var(X, unbiased=True), "correction="),
        (lambda: bt.sum(X, axes=1), "axis="),  # a slip
        (lambda: bt.exp(input=X), "x="),
        (lambda: bt.data.DataLoader([1], num_workers=2), r"DataLoader\(\).*workers="),  # a class
        (lambda: bt.data.DataLoader([1], collate_fn=list), "collate="),
    ],
)
def test_keywords(mistake: Callable[[], Any], ours: str) -> None:
    with pytest.raises(TypeError, match=ours):
        mistake()


def test_other_type_errors_pass_unchanged() -> None:
    with pytest.raises(TypeError, match="positional"):
        bt.sum(X, 1)  # type: ignore[misc]
    with pytest.raises(TypeError, match="missing"):
        bt.concat()  # type: ignore[call-arg]


@pytest.mark.parametrize("name", ["view", "permute", "unsqueeze", "cat", "clamp", "topk"])
def test_methods_of_pytorch(name: str) -> None:
    with pytest.raises(AttributeError, match=r"Here it is written: (bt|x)"):
        getattr(X, name)


@pytest.mark.parametrize("name", ["autograd", "cuda", "utils", "amp"])
def test_modules_of_pytorch(name: str) -> None:
    with pytest.raises(AttributeError, match="Here it is written: bt"):
        getattr(bt, name)


def test_every_spelling_that_is_offered_exists() -> None:
    """A function that the table names is in the namespace."""
    import re

    from bestiary.core.spelling import NAMESPACE_SPELLINGS, TORCH_SPELLINGS

    for text in (*TORCH_SPELLINGS.values(), *NAMESPACE_SPELLINGS.values()):
        for path in re.findall(r"bt\.([a-z_A-Z.0-9]+)", text):
            value: Any = bt
            for part in path.rstrip(".").split("."):
                value = getattr(value, part)
