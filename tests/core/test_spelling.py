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
        (lambda: bt.ones((2,), requires_grad=True), r"bt\.ones\(\.\.\.\)\.requires_grad_\(\)"),
        (lambda: bt.arange(3, requires_grad=True), r"bt\.arange\(\.\.\.\)\.requires_grad_\(\)"),
        (lambda: bt.checkpoint(bt.exp, X, use_reentrant=False), "Leave it out"),
        (lambda: bt.autocast(device_type="cuda"), r"Leave it out.*bt\.autocast\(bt\.bfloat16\)"),
        (lambda: bt.load("resnet18", pretrained=True), r"Leave it out.*weights=False"),
        (lambda: bt.zeros(2, 3), r"bt\.zeros\(\(2, 3\)\)"),
        (lambda: bt.full(2, 3, 0.5), r"bt\.full\(\(2, 3\), 0\.5\)"),
        (lambda: bt.ones(2, 3, dtype=bt.float64), r"bt\.ones\(\(2, 3\)\)"),
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


def test_a_shape_in_one_piece_passes() -> None:
    assert bt.zeros((2, 3)).shape == bt.ones([2, 3]).shape == (2, 3)
    with pytest.raises(TypeError, match="missing"):
        bt.zeros()  # type: ignore[call-arg]


@pytest.mark.parametrize(
    "owner, name, answer",
    [
        (bt, "jit", "which PyTorch has. Leave it out"),
        (bt, "set_default_dtype", r"dtype=bt\.float64"),
        (bt.nn, "utils", r"bt\.optim\.clip_grad_norm_"),
        (bt.nn, "DataParallel", r"model\.to\('cuda'\)"),
        (bt.nn, "Transformer", r"bt\.nn\.TransformerEncoder"),
        (bt.nn, "Linaer", "Did you mean 'Linear'"),
        (bt.optim, "LBFGS", r"bt\.optim\.Adam"),
        (bt.linalg, "norm", r"bt\.linalg\.vector_norm"),
        (bt.nn.Linear(1, 1), "register_full_backward_hook", r"output\.register_hook\(f\)"),
    ],
)
def test_names_that_are_elsewhere_or_absent(owner: Any, name: str, answer: str) -> None:
    with pytest.raises(AttributeError, match=answer) as caught:
        getattr(owner, name)
    assert "\n" not in str(caught.value)


def test_what_no_one_has_is_said_plainly() -> None:
    with pytest.raises(AttributeError, match=r"bestiary\.nn has no attribute 'qqqq'\.$"):
        _ = bt.nn.qqqq  # type: ignore[attr-defined]
    assert not hasattr(bt.optim, "__wrapped__")


@pytest.mark.parametrize("name", ["autograd", "cuda", "utils", "amp"])
def test_modules_of_pytorch(name: str) -> None:
    with pytest.raises(AttributeError, match="Here it is written: bt"):
        getattr(bt, name)


def test_every_spelling_that_is_offered_exists() -> None:
    """A function that the table names is in the namespace."""
    import re

    from bestiary.core.spelling import ABSENT, SPELLINGS

    tables = (*SPELLINGS.values(), *ABSENT.values())
    for text in (text for table in tables for text in table.values()):
        for path in re.findall(r"bt\.([a-z_A-Z.0-9]+)", text):
            value: Any = bt
            for part in path.rstrip(".").split("."):
                value = getattr(value, part)


def test_size_is_a_count_and_a_forward_that_calls_it_is_answered() -> None:
    class Net(bt.nn.Module):
        def forward(self, x: bt.Tensor) -> Any:
            return x.size(0)  # type: ignore[operator]

    class Other(bt.nn.Module):
        def forward(self, x: bt.Tensor) -> Any:
            number: Any = 3
            return number()

    assert type(X.size) is int  # what operators take for a plain number
    with pytest.raises(TypeError) as caught:
        bt.nn.Sequential(bt.nn.Sequential(Net()))(X)
    assert [note for note in caught.value.__notes__ if "x.shape[0]" in note] == [
        "x.size is the number of elements here. Write: x.shape, or x.shape[0]"
    ]
    with pytest.raises(TypeError) as caught:
        bt.nn.Sequential(Other())(X)
    assert not [note for note in caught.value.__notes__ if "size" in note]
