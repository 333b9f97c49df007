"""bt.compile: the same numbers, faster, and the function itself wherever that cannot be."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

import numpy as np
import pytest

import bestiary as bt
from bestiary import nn
from bestiary.core.graph.compiled import Compiled
from bestiary.core.graph.program import Program
from bestiary.core.graph.record import Ref, record
from bestiary.core.notice import CompileWarning
from bestiary.core.optim import SGD


def random(*shape: int, seed: int = 0) -> bt.Tensor:
    return bt.Tensor(np.random.default_rng(seed).standard_normal(shape).astype(np.float32))


class Net(nn.Module):
    """A convolution with a norm, a residual, a squeezed gate, a linear head."""

    def __init__(self) -> None:
        self.conv1 = nn.Conv2d(3, 8, 3, padding=1)
        self.norm1 = nn.BatchNorm2d(8)
        self.conv2 = nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False)
        self.norm2 = nn.BatchNorm2d(8)
        self.act = nn.SiLU()
        self.head = nn.Linear(8, 5)
        rng = np.random.default_rng(5)
        for norm in (self.norm1, self.norm2):
            for value in (norm.weight, norm.bias, norm.running_mean):
                value.array[...] = rng.standard_normal(8)
            norm.running_var.array[...] = rng.uniform(0.2, 2, 8)

    def forward(self, x: bt.Tensor) -> bt.Tensor:
        x = nn.functional.relu(self.norm1(self.conv1(x)))
        x = nn.functional.relu(self.norm2(self.conv2(x)) + x)
        return self.head(self.act(bt.mean(x, axis=(2, 3))))


@pytest.fixture
def net() -> Net:
    bt.manual_seed(0)
    return Net().eval()


def assert_same(fast: Compiled, function: Any, *inputs: bt.Tensor) -> None:
    got, want = fast(*inputs), function(*inputs)
    assert np.allclose(got.numpy(), want.numpy(), atol=2e-5, rtol=1e-4)


def test_norms_are_folded_and_activations_joined(net: Net) -> None:
    fast = bt.compile(net)
    with bt.inference_mode():
        for seed in range(3):
            assert_same(fast, net, random(2, 3, 9, 7, seed=seed))
    (explained,) = fast.explain()
    done = dict(explained.passes)
    assert done["norms and scales folded into products"] == 2
    assert done["activations and sums joined to products"] >= 3
    assert explained.left < explained.recorded
    assert "batch_norm" not in explained.text
    assert "compiled in" in str(explained)


def test_each_combination_of_shapes_has_a_program(net: Net) -> None:
    fast = bt.compile(net)
    with bt.inference_mode():
        for n in (1, 2, 1, 3):
            assert_same(fast, net, random(n, 3, 8, 8, seed=n))
    assert [e.inputs for e in fast.explain()] == [((n, 3, 8, 8),) for n in (1, 2, 3)]
    fast.clear()
    assert fast.explain() == []


def test_programs_are_bounded(net: Net) -> None:
    fast = bt.compile(net)
    with bt.inference_mode():
        for n in range(1, 12):
            fast(random(n, 3, 8, 8))
    assert len(fast.explain()) == 8


def test_with_gradients_the_module_itself_runs(net: Net) -> None:
    fast, x = bt.compile(net), random(2, 3, 8, 8)
    fast(x).sum().backward()
    assert net.head.weight.grad is not None
    assert fast.explain() == []


def test_training_mode_is_not_compiled(net: Net) -> None:
    fast = bt.compile(net.train())
    before = net.norm1.running_mean.array.copy()
    with bt.no_grad():
        fast(random(4, 3, 8, 8))
    assert not np.array_equal(net.norm1.running_mean.array, before)
    assert fast.explain() == []


@pytest.mark.parametrize("change", ["assign", "load", "layer", "parameter", "step"])
def test_changes_of_the_module_are_seen(net: Net, change: str) -> None:
    fast, x = bt.compile(net), random(2, 3, 8, 8)
    with bt.inference_mode():
        before = fast(x).numpy()
        fast(x)
    if change == "assign":
        with bt.no_grad():
            bt.assign(net.norm1.weight, net.norm1.weight * 2)
    elif change == "load":
        state = {name: t.array + 0.5 for name, t in net.state_dict().items() if "bias" in name}
        net.load_state_dict(state, strict=False, assign=True)
    elif change == "layer":
        net.head = nn.Linear(8, 5)
    elif change == "parameter":
        net.head.bias = nn.Parameter(np.ones(5, np.float32))
    else:
        net(x).sum().backward()
        SGD(net.parameters(), lr=0.1).step()
    with bt.inference_mode():
        assert not np.allclose(fast(x).numpy(), before)
        assert_same(fast, net, x)
        assert_same(fast, net, random(2, 3, 8, 8, seed=9))


def test_modes_and_hooks_are_seen(net: Net) -> None:
    fast, x, seen = bt.compile(net), random(2, 3, 8, 8), []
    with bt.inference_mode():
        fast(x)
        hook = net.head.register_forward_hook(lambda m, i, o: seen.append(1))
        fast(x)
        assert seen == [1]
        hook.remove()
        fast(x)
        assert seen == [1]
    assert len(fast.explain()) == 1


def test_other_threads_and_observers(net: Net) -> None:
    from concurrent.futures import ThreadPoolExecutor

    fast = bt.compile(net)
    inputs = [random(2, 3, 8, 8, seed=i) for i in range(8)]

    def run(x: bt.Tensor) -> np.ndarray:
        with bt.inference_mode():
            return fast(x).numpy()

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(run, inputs))
    with bt.inference_mode():
        for x, got in zip(inputs, found, strict=True):
            assert np.allclose(got, net(x).numpy(), atol=1e-5)
        with bt.detect_anomaly():
            assert np.allclose(fast(inputs[0]).numpy(), found[0], atol=1e-5)


# -- functions that look at values -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("function", "word"),
    [
        (lambda x: x * 2 if x.sum().item() > 0 else x, "item"),
        (lambda x: x * 2 if bt.any(x > 0) else x, "the truth"),
        (lambda x: x * float(np.asarray((x + 1).numpy()).mean()), "numpy"),
        (lambda x: x + bt.Tensor((x * 2).array[:1] * 1.0), "values of its inputs"),
        (lambda x: x[: int(bt.argmax(x[:, 0]))], "item|the value|elements"),
    ],
)
def test_what_depends_on_values_runs_as_it_is(function: Any, word: str) -> None:
    fast = bt.compile(function)
    with bt.inference_mode():
        with pytest.warns(CompileWarning, match=word):
            assert_same(fast, function, random(3, 4))
        for seed in range(1, 4):
            assert_same(fast, function, random(3, 4, seed=seed) - 1)
            assert_same(fast, function, random(3, 4, seed=seed) + 1)
    assert fast.explain() == []


def test_writing_and_random_numbers_are_compiled_as_steps_are() -> None:
    total = bt.zeros((3,))

    def add(x: bt.Tensor) -> bt.Tensor:
        bt.assign(total, total + x)
        return total * 1

    def noisy(x: bt.Tensor) -> bt.Tensor:
        return nn.functional.dropout(x, 0.5, training=True)

    with bt.no_grad():
        fast = bt.compile(add)
        assert [fast(bt.ones((3,))).tolist()[0] for _ in range(8)] == [1, 2, 3, 4, 5, 6, 7, 8]
        assert len(fast.explain()) == 1
        fast, x = bt.compile(noisy), bt.ones((64,))
        masks = {tuple(fast(x).tolist()) for _ in range(8)}
        assert len(masks) == 8 and len(fast.explain()) == 1


# -- arguments and results -------------------------------------------------------------------------


class Pair(NamedTuple):
    """Two results."""

    a: bt.Tensor
    b: bt.Tensor | None


def test_nests_constants_and_named_tuples() -> None:
    def f(x: bt.Tensor, scale: float = 1, *, parts: Any = None) -> dict[str, Any]:
        y = x * scale
        return {"pair": Pair(y, None), "list": [y + 1, parts["k"] * 2], "flag": True}

    fast, k = bt.compile(f), random(2, seed=3)
    with bt.no_grad():
        for seed in (0, 1):
            for scale in (2.0, 3.0, 1, True):
                x = random(2, seed=seed)
                got, want = fast(x, scale, parts={"k": k}), f(x, scale, parts={"k": k})
                assert isinstance(got["pair"], Pair)
                assert got["pair"].b is None
                assert got["flag"] is True
                assert np.allclose(got["pair"].a.numpy(), want["pair"].a.numpy())
                assert np.allclose(got["list"][1].numpy(), want["list"][1].numpy())
    assert len(fast.explain()) == 4


def test_results_with_arrays_are_not_compiled() -> None:
    def f(x: bt.Tensor) -> tuple[bt.Tensor, np.ndarray]:
        return x * 2, (x * 3).array

    fast = bt.compile(f)
    with bt.no_grad():
        with pytest.warns(CompileWarning, match="holds a ndarray"):
            fast(random(3))
        assert np.allclose(fast(random(3, seed=1))[1], 3 * random(3, seed=1).array)


def test_one_tensor_in_two_places_is_a_case_of_its_own() -> None:
    def f(a: bt.Tensor, b: bt.Tensor) -> bt.Tensor:
        return a - b

    fast, x, y = bt.compile(f), random(3), random(3, seed=1)
    with bt.no_grad():
        assert fast(x, x).tolist() == [0, 0, 0]
        assert np.allclose(fast(x, y).numpy(), (x - y).numpy())
        assert np.allclose(fast(y, x).numpy(), (y - x).numpy())


def test_whole_numbers_halves_and_empty_arrays() -> None:
    table = random(7, 4)

    def f(ids: bt.Tensor, h: bt.Tensor) -> tuple[bt.Tensor, bt.Tensor]:
        return bt.take(table, ids, axis=0), (h * 2).sum(axis=0)

    fast = bt.compile(f)
    with bt.no_grad():
        for n in (0, 3):
            ids = bt.asarray(np.arange(n) % 7)
            h = random(n, 2).astype(bt.bfloat16)
            for _ in range(2):
                for got, want in zip(fast(ids, h), f(ids, h), strict=True):
                    assert got.dtype == want.dtype
                    assert np.array_equal(
                        got.astype(bt.float32).numpy(), want.astype(bt.float32).numpy()
                    )


def test_after_a_few_calls(net: Net) -> None:
    fast = bt.compile(net, after=2)
    with bt.inference_mode():
        for calls in range(4):
            fast(random(1, 3, 8, 8))
            assert len(fast.explain()) == (calls >= 2)


def test_it_stands_for_the_module(net: Net) -> None:
    fast = bt.compile(net)
    assert fast.head is net.head
    assert len(list(fast.parameters())) == len(list(net.parameters()))
    assert "Net" in repr(fast)
    with pytest.raises(AttributeError):
        _ = fast._nothing


@pytest.mark.parametrize("isa", ["avx512", "avx2", "generic"])
def test_another_instruction_set_compiles_anew(net: Net, isa: str) -> None:
    from bestiary.core import native

    if not native.available() or isa not in native.info()["isas"]:
        pytest.skip(f"no {isa}")
    fast, x, before = bt.compile(net), random(2, 3, 8, 8), native.isa()
    with bt.inference_mode():
        fast(x)
        native.set_isa(isa)
        try:
            assert_same(fast, net, x)
        finally:
            native.set_isa(before)
        assert_same(fast, net, x)


# -- random graphs ---------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(40))
def test_random_networks(seed: int) -> None:
    """Chains of layers, residuals and activations, drawn at random."""
    rng = np.random.default_rng(seed)
    bt.manual_seed(seed)
    width = int(rng.integers(1, 9))
    layers: list[Any] = []
    for _ in range(int(rng.integers(2, 8))):
        kind = rng.integers(0, 7)
        if kind == 0:
            layers.append(nn.Conv2d(width, width, int(rng.choice([1, 3])), padding="same"))
        elif kind == 1:
            layers.append(nn.Conv2d(width, width, 3, padding=1, groups=width, bias=bool(seed % 2)))
        elif kind == 2:
            norm = nn.BatchNorm2d(width).eval()
            norm.running_var.array[...] = rng.uniform(0.1, 3, width)
            norm.running_mean.array[...] = rng.standard_normal(width)
            layers.append(norm)
        elif kind == 3:
            choices = [nn.ReLU(), nn.SiLU(), nn.GELU(), nn.GELU("tanh"), nn.ReLU6(), nn.Hardswish()]
            layers.append(choices[int(rng.integers(0, 6))])
        elif kind == 4:
            scale = bt.Tensor(rng.standard_normal((1, width, 1, 1)).astype(np.float32))
            layers.append(lambda x, scale=scale: x * scale)
        elif kind == 5:
            layers.append("add")
        else:
            layers.append("keep")

    def network(x: bt.Tensor) -> bt.Tensor:
        kept = x
        for layer in layers:
            if layer == "add":
                x = x + kept
            elif layer == "keep":
                kept = x
            else:
                x = layer(x)
        return x

    fast = bt.compile(network)
    with bt.inference_mode():
        for i in range(3):
            x = random(2, width, 6, 5, seed=100 * seed + i)
            got, want = fast(x).numpy(), network(x).numpy()
            assert np.abs(got - want).max() <= 1e-4 * max(1, np.abs(want).max())
    assert len(fast.explain()) == 1


def test_the_function_of_a_program_is_made_of_numbers_alone(net: Net) -> None:
    """Texts of a graph, which may come from a file, never become code."""
    fast = bt.compile(net)
    with bt.inference_mode():
        fast(random(1, 3, 8, 8))
    (plan,) = fast._plans.values()
    head, *lines = plan.program.source.splitlines()
    assert head == "def program(inputs):" and len(lines) > 5
    name = r"(v\d+|c\d+_\d+|f\d+|_)"
    line = rf"    (del |return |)?[\[\]]?({name}([, \[\]=()]*))+( = inputs)?"
    assert all(re.fullmatch(line, one) for one in lines)
    graph, _ = record(lambda x: x + 1.0, random(2))
    graph.inputs[0] = Ref("0] = inputs; import os; [v0")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="format code 'd'"):
        Program(graph)
