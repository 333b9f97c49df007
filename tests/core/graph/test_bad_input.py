"""Compiled functions given what programs do not take, and memory that runs out."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import bestiary as bt
from bestiary import nn
from bestiary.core.errors import DtypeError, ShapeError
from bestiary.core.graph import compiled, steps
from bestiary.core.graph.program import Program
from bestiary.core.nn import functional as F
from bestiary.core.notice import CompileWarning, forget_warnings
from bestiary.core.optim import Adam

DTYPES = ("float16", "bfloat16", "float32", "float64", "complex64", "complex128", "int8", "int32")
DTYPES += ("int64", "uint8", "bool")


def random(*shape: int, seed: int = 0) -> bt.Tensor:
    return bt.Tensor(np.random.default_rng(seed).standard_normal(shape).astype(np.float32))


def chained(x: bt.Tensor) -> bt.Tensor:
    """Enough elementwise operations for a chain of the kernels."""
    return bt.tanh(x * 2.0 + 1.0) * x - bt.exp(-x)


def mixed(x: bt.Tensor) -> bt.Tensor:
    return F.softmax(F.relu(x), axis=-1)


def multiplied(x: bt.Tensor) -> bt.Tensor:
    return F.gelu(F.linear(x, WEIGHT, BIAS))


def convolved(x: bt.Tensor) -> bt.Tensor:
    return F.relu(F.conv2d(x.reshape(1, 1, 5, 8), KERNEL))


WEIGHT, BIAS, KERNEL = random(6, 8), random(6, seed=1), random(3, 1, 3, 3, seed=2)
FUNCTIONS = (chained, mixed, multiplied, convolved)


def outcome(function: Callable[..., Any], *inputs: Any) -> Any:
    """The result, or the type and the words of the error."""
    try:
        with bt.inference_mode(), np.errstate(all="ignore"):
            return function(*inputs)
    except Exception as error:
        return type(error), str(error)


def agree(found: Any, wanted: Any) -> None:
    if isinstance(wanted, tuple):
        assert found == wanted
        return
    assert found.dtype == wanted.dtype and found.shape == wanted.shape
    room = {"float16": 1e-2, "bfloat16": 5e-2}.get(str(wanted.dtype), 1e-5)
    wide = np.complex128 if wanted.dtype.kind == "c" else np.float64
    ours, theirs = found.numpy().astype(wide), wanted.numpy().astype(wide)
    np.testing.assert_allclose(ours, theirs, rtol=room, atol=room)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda f: f.__name__)
def test_every_dtype_is_as_without_compiling(function: Any, dtype: str) -> None:
    """The same numbers, or the same error, before and after the usual dtype was compiled."""
    values = np.random.default_rng(0).uniform(0, 3, (2, 5, 8))
    fast = bt.compile(function)
    for _ in range(2):
        for each in values:
            x = bt.tensor(each.astype(np.float32)).astype(getattr(bt, dtype))
            agree(outcome(fast, x), outcome(function, x))
        usual = bt.tensor(values[0].astype(np.float32))
        agree(outcome(fast, usual), outcome(function, usual))


@pytest.mark.parametrize("shape", [(0, 8), (3, 0), (1, 8), (0,), (), (8,), (2, 0, 8), (5, 8), (7,)])
@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda f: f.__name__)
def test_every_shape_is_as_without_compiling(function: Any, shape: tuple[int, ...]) -> None:
    fast = bt.compile(function)
    usual = random(5, 8)
    for seed in range(3):
        x = random(*shape, seed=seed)
        agree(outcome(fast, x), outcome(function, x))
        agree(outcome(fast, usual), outcome(function, usual))


def test_errors_name_what_is_wrong_and_change_nothing() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()).eval()
    fast, x = bt.compile(net), random(2, 3, 6, 6)
    with bt.inference_mode():
        for _ in range(2):
            assert bt.allclose(fast(x), net(x), atol=1e-6)
            with pytest.raises(ShapeError, match="3 channels"):
                fast(random(2, 4, 6, 6))
            with pytest.raises(DtypeError):
                fast(x.astype(bt.complex64))
            with pytest.raises(DtypeError, match="float64"):
                fast(x.astype(bt.float64))
    assert len(fast.explain()) == 1


def misaligned(x: bt.Tensor) -> bt.Tensor:
    raw = np.zeros(x.array.nbytes + 1, np.uint8)[1:].view(np.float32).reshape(x.shape)
    raw[...] = x.array
    return bt.Tensor(raw)


def test_misaligned_memory() -> None:
    """Inputs run as they are; of what is read there is a warning."""
    forget_warnings()
    fast, x = bt.compile(multiplied), random(5, 8)
    with bt.inference_mode():
        for _ in range(2):
            assert bt.allclose(fast(x), multiplied(x), atol=1e-6)
            assert bt.allclose(fast(misaligned(x)), multiplied(x), atol=1e-6)
        assert len(fast.explain()) == 1
        net = nn.Linear(8, 6).eval()
        net.weight = nn.Parameter(misaligned(net.weight.detach()).array)
        fast = bt.compile(net)
        with pytest.warns(CompileWarning, match="misaligned: give it a copy"):
            found = fast(x)
        assert bt.allclose(found, net(x)) and bt.allclose(fast(x), net(x))


# -- memory that runs out ------------------------------------------------------------------------


class Short:
    """Memory for some allocations of a kind, then none."""

    def __init__(self, run: Any, left: int) -> None:
        self.run, self.left = run, left

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self.left -= 1
        if self.left < 0:
            raise MemoryError("Unable to allocate 3.00 TiB")
        return self.run(*args, **kwargs)


@pytest.mark.parametrize("where", ["program", "passes", "check"])
def test_no_memory_to_compile(where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    forget_warnings()
    nothing = Short(None, 0)
    if where == "program":
        monkeypatch.setattr(compiled, "Program", nothing)
    elif where == "passes":
        monkeypatch.setattr(compiled, "PASSES", (("fold", nothing),))
    else:
        monkeypatch.setattr(Program, "__call__", lambda self, inputs: nothing())
    fast, x = bt.compile(multiplied), random(5, 8)
    with bt.inference_mode():
        with pytest.warns(CompileWarning, match="memory ran out while it was compiled; it runs as"):
            first = fast(x)
        monkeypatch.undo()
        for found in (first, fast(x)):
            assert bt.allclose(found, multiplied(x))
        assert not fast.explain()
        other = random(3, 8)  # other shapes have programs of their own
        assert bt.allclose(fast(other), multiplied(other), atol=1e-6) and len(fast.explain()) == 1


def test_no_memory_to_run(monkeypatch: pytest.MonkeyPatch) -> None:
    forget_warnings()
    fast, x = bt.compile(multiplied), random(5, 8)
    with bt.inference_mode():
        fast(x)
        monkeypatch.setattr(Program, "__call__", lambda self, inputs: Short(None, 0)())
        with pytest.warns(CompileWarning, match="memory ran out while its program ran"):
            assert bt.allclose(fast(x), multiplied(x))
        assert not fast.explain()
        assert bt.allclose(fast(x), multiplied(x))  # without another try


def training() -> tuple[nn.Module, Any]:
    bt.manual_seed(0)
    net = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 1))
    optimizer = Adam(net.parameters(), lr=0.01)

    def step(x: bt.Tensor) -> bt.Tensor:
        loss = bt.mean(net(x) ** 2)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    return net, step


@pytest.mark.parametrize("calls", [0, 3, 8, None])
def test_no_memory_to_compile_a_step(calls: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever it runs out, parameters go the way that they go without compiling."""
    forget_warnings()
    (ours, step), (theirs, plain) = training(), training()
    fast = bt.compile(step)
    if calls is None:
        monkeypatch.setattr(steps, "Program", Short(None, 0))
    else:
        made = steps.Program

        def short(graph: Any) -> Any:
            program = made(graph)
            program.steps = [s._replace(run=r) for s, r in runs(program, calls)]
            program.write()
            return program

        monkeypatch.setattr(steps, "Program", short)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        for seed in range(6):
            x = random(4, 8, seed=seed)
            assert fast(x).item() == pytest.approx(plain(x).item(), rel=1e-5)
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        np.testing.assert_allclose(a.array, b.array, rtol=1e-5, atol=1e-6)
    (warning,) = said
    assert "memory ran out while it was compiled; it runs as it is" in str(warning.message)


def runs(program: Any, calls: int) -> list[tuple[Any, Any]]:
    """The steps of a program, of which some have memory."""
    return [
        (step, step.run if place < calls else Short(None, 0))
        for place, step in enumerate(program.steps)
    ]
