"""Products that do without BLAS, attention in one pass, group norms with activations."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import bestiary as bt
from bestiary import nn
from bestiary.core import native
from bestiary.core.graph import products
from bestiary.core.graph.record import record
from bestiary.core.nn import functional as F

pytestmark = pytest.mark.skipif(not native.available(), reason="needs the C kernels")


def random(*shape: int, seed: int = 0) -> bt.Tensor:
    return bt.Tensor(np.random.default_rng(seed).standard_normal(shape).astype(np.float32))


class Net(nn.Module):
    """Convolutions around a group norm with an activation, linear maps and attention."""

    def __init__(self, act: str = "silu", heads: int = 1, width: int = 12) -> None:
        bt.manual_seed(1)
        self.heads, self.act = heads, act
        self.conv1 = nn.Conv2d(3, width, 5, padding=2)
        self.norm = nn.GroupNorm(3, width)
        self.norm.weight.array[...] = np.linspace(-1, 2, width)
        self.norm.bias.array[...] = np.linspace(1, -1, width)
        self.conv2 = nn.Conv2d(width, width, 5, padding=2)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.eval()

    def forward(self, x: bt.Tensor, context: bt.Tensor | None = None) -> bt.Tensor:
        x = self.conv1(x)
        x = self.conv2(getattr(F, self.act)(self.norm(x)))
        b, c, h, w = x.shape
        tokens = bt.reshape(bt.permute_dims(x, (0, 2, 3, 1)), (b, h * w, c))
        parts = bt.reshape(self.qkv(tokens), (b, h * w, 3, self.heads, c // self.heads))
        q, k, v = bt.unstack(bt.permute_dims(parts, (2, 0, 3, 1, 4)))
        seen = bt.reshape(
            bt.permute_dims(F.scaled_dot_product_attention(q, k, v), (0, 2, 1, 3)), tokens.shape
        )
        tokens = tokens + F.gelu(self.out(seen))
        return bt.permute_dims(bt.reshape(tokens, (b, h, w, c)), (0, 3, 1, 2))


def compiled(net: nn.Module, *inputs: bt.Tensor) -> Any:
    fast = bt.compile(net)
    with bt.inference_mode():
        for seed in range(2):
            given = [x * (1.0 + seed) for x in inputs]
            np.testing.assert_allclose(
                fast(*given).numpy(), net(*given).numpy(), atol=2e-5, rtol=1e-4
            )
    (explained,) = fast.explain()
    return fast, explained


@pytest.mark.parametrize("heads", [1, 3])
@pytest.mark.parametrize("size", [(8, 8), (5, 3)])
def test_products_by_convolution_give_the_same(
    heads: int, size: tuple[int, int], monkeypatch: Any
) -> None:
    """And BLAS is not asked for anything."""
    net = Net(heads=heads)
    x = random(2, 3, *size)
    fast, _ = compiled(net, x)
    asked = []
    monkeypatch.setattr(np, "matmul", lambda *args, **kwargs: asked.append(args))
    with bt.inference_mode():
        fast(x)
    assert asked == []


@pytest.mark.parametrize("act", ["silu", "relu", "relu6", "hardswish", "gelu", "sigmoid"])
@pytest.mark.parametrize("size", [(6, 5), (48, 40)])
def test_an_activation_is_joined_to_a_group_norm(act: str, size: tuple[int, int]) -> None:
    """For samples that are taken together and, larger ones, one by one."""
    net = nn.Sequential(nn.Conv2d(3, 12, 3, padding=1), nn.GroupNorm(4, 12), Activation(act)).eval()
    _, explained = compiled(net, random(3, 3, *size))
    assert "group_norm_fused" in explained.text


class Activation(nn.Module):
    def __init__(self, name: str) -> None:
        self.name = name

    def forward(self, x: bt.Tensor) -> bt.Tensor:
        return getattr(F, self.name)(x)


def test_a_group_norm_of_other_memory_is_not_changed() -> None:
    """Rows by columns as they were made, not channels last."""
    net = nn.Sequential(nn.GroupNorm(2, 4), nn.SiLU(), nn.Conv2d(4, 4, 3)).eval()
    compiled(net, random(2, 4, 9, 7))


def test_group_norm_statistics_with_another_use_are_kept() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.GroupNorm(2, 4)).eval()

    def twice(x: bt.Tensor) -> bt.Tensor:
        y = net(x)
        return F.silu(y) + y

    fast = bt.compile(twice)
    x = random(2, 3, 9, 7)
    with bt.inference_mode():
        fast(x)
        np.testing.assert_allclose(fast(x).numpy(), twice(x).numpy(), atol=2e-5, rtol=1e-4)


def test_which_graphs_do_without_blas() -> None:
    """Those of convolutions, and of products of few rows."""

    def of(net: nn.Module, x: bt.Tensor) -> bool:
        with bt.inference_mode():
            return products.without_blas(record(net, x)[0])

    assert of(Net(), random(1, 3, 8, 8))
    assert of(nn.Linear(16, 300).eval(), random(599, 16))
    assert not of(nn.Linear(16, 300).eval(), random(600, 16))
    assert not of(nn.Linear(16, 300).eval(), random(3, 200, 16))
    assert of(Net(width=12), random(1, 3, 40, 40))


def test_a_linear_map_shares_its_packed_weight_among_shapes() -> None:
    net = nn.Linear(16, 24).eval()
    fast = bt.compile(net)
    with bt.inference_mode():
        for rows in (1, 7, 40):
            fast(random(rows, 16))
            np.testing.assert_allclose(
                fast(random(rows, 16)).numpy(), net(random(rows, 16)).numpy(), atol=1e-5
            )
    cells = [
        cell.cell_contents
        for plan in fast._plans.values()
        for step in plan.program.steps
        for cell in step.run.__closure__ or ()
    ]
    runs = [c for c in cells if isinstance(c, native.conv.Convolution)]
    assert len(runs) == 3
    assert len({id(run._weight) for run in runs}) == 1


@pytest.mark.parametrize("shape", [(8, 1024, 16), (3, 35, 7), (1, 4096, 5), (2, 997, 4), (2, 1, 3)])
def test_statistics_of_each_sample(shape: tuple[int, int, int]) -> None:
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float32) + 3
    mean, var = native.sample_stats(x)
    np.testing.assert_allclose(mean, x.astype(np.float64).mean(1), rtol=1e-6)
    np.testing.assert_allclose(var, x.astype(np.float64).var(1), rtol=1e-5, atol=1e-9)


def test_recording_keeps_no_values() -> None:
    """They would take as much memory as training does."""
    import weakref

    first: list[Any] = []
    alive: list[bool] = []

    def function(x: bt.Tensor) -> bt.Tensor:
        y = x * 2.0
        first.append(weakref.ref(y.array))
        y = y + 1.0
        alive.append(first[0]() is not None)
        return y * 3.0

    with bt.inference_mode():
        graph, out = record(function, random(50, 50))
    assert alive == [False]
    assert len(graph.calls) == 3
    assert out.shape == (50, 50)


def test_compiled_and_eager_share_packed_weights() -> None:
    net = nn.Sequential(nn.Conv2d(3, 16, 5), nn.Conv2d(16, 16, 5)).eval()  # 3: by Winograd
    x = random(1, 3, 12, 12)
    from bestiary.core.ops import native_conv

    with bt.inference_mode():
        net(x)
        fast = bt.compile(net)
        fast(x)
        (plan,) = fast._plans.values()
        cells = [c.cell_contents for s in plan.program.steps for c in s.run.__closure__ or ()]
        runs = [c for c in cells if isinstance(c, native.conv.Convolution)]
        kept = [native_conv.packed(layer.weight.array, 1).array for layer in net]
    assert [any(r._weight is k for r in runs) for k in kept] == [True, True]
