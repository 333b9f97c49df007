"""Mixed precision: which operations are cast, equality with explicit casts, and every mode."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest

import bestiary as bt
from bestiary import nn
from bestiary.core import autocast as module
from bestiary.core.devices import Backend, Device
from bestiary.core.errors import ConfigError, DtypeError, GradError
from bestiary.core.graph import record, replay
from bestiary.core.nn import functional as F
from bestiary.core.op import REGISTRY
from bestiary.core.state import state, watch

HALVES = [bt.float16, bt.bfloat16]


def data(*shape: int, seed: int = 0) -> bt.Tensor:
    return bt.Tensor(np.random.default_rng(seed).normal(size=shape).astype(np.float32))


def leaf(*shape: int, seed: int = 0) -> bt.Tensor:
    return data(*shape, seed=seed).requires_grad_()


# Calls, and the dtype of results from float32 and from float16 operands: h float16, f float32.
TABLE: dict[str, tuple[Any, str]] = {
    "matmul": (lambda x: x @ x, "hh"),
    "batched matmul": (lambda x: x[None] @ x[None], "hh"),
    "einsum": (lambda x: bt.einsum("ij,jk->ik", x, x), "hh"),
    "linear": (lambda x: F.linear(x, data(3, 4), data(3)), "hh"),
    "conv1d": (lambda x: F.conv1d(x[None], data(2, 4, 3), data(2), padding=1), "hh"),
    "conv2d": (lambda x: F.conv2d(x[None, None], data(2, 1, 3, 3)), "hh"),
    "conv_transpose2d": (lambda x: F.conv_transpose2d(x[None, None], data(1, 2, 3, 3)), "hh"),
    "attention": (lambda x: F.scaled_dot_product_attention(x[None], x[None], data(1, 4, 4)), "hh"),
    "LSTM": (lambda x: nn.LSTM(4, 3)(x[None])[0], "hh"),
    "GRU": (lambda x: nn.GRU(4, 3)(x[None])[0], "hh"),
    "multi-head": (lambda x: nn.MultiheadAttention(4, 2)(x[None], x[None], x[None])[0], "hh"),
    "add": (lambda x: x + x, "fh"),
    "add float32": (lambda x: x + data(4, 4), "ff"),
    "relu": (F.relu, "fh"),
    "gelu": (F.gelu, "fh"),
    "max_pool2d": (lambda x: F.max_pool2d(x[None, None], 2), "fh"),
    "avg_pool2d": (lambda x: F.avg_pool2d(x[None, None], 2), "fh"),
    "adaptive_avg_pool2d": (lambda x: F.adaptive_avg_pool2d(x[None, None], 1), "fh"),
    "reshape": (lambda x: x.reshape(16), "fh"),
    "concat": (lambda x: bt.concat([x, data(4, 4)]), "ff"),
    "where": (lambda x: bt.where(x > 0, x, 0.0), "fh"),
    "dropout": (lambda x: F.dropout(x, 0.5), "fh"),
    "batch_norm": (lambda x: nn.BatchNorm1d(4)(x), "fh"),
    "batch_norm in eval mode": (lambda x: nn.BatchNorm1d(4).eval()(x), "fh"),
    "layer_norm": (lambda x: nn.LayerNorm(4)(x), "ff"),
    "rms_norm": (lambda x: nn.RMSNorm(4)(x), "ff"),
    "group_norm": (lambda x: nn.GroupNorm(2, 4)(x), "ff"),
    "instance_norm": (lambda x: nn.InstanceNorm1d(4)(x[None]), "ff"),
    "softmax": (lambda x: F.softmax(x, axis=-1), "ff"),
    "log_softmax": (lambda x: F.log_softmax(x, axis=-1), "ff"),
    "logsumexp": (lambda x: bt.logsumexp(x, axis=-1), "ff"),
    "cross_entropy": (lambda x: F.cross_entropy(x, bt.tensor([0, 1, 2, 3])), "ff"),
    "mse_loss": (lambda x: F.mse_loss(x, x * 2), "ff"),
    "huber_loss": (lambda x: F.huber_loss(x, target=x * 2), "ff"),
    "bce": (lambda x: F.binary_cross_entropy_with_logits(x, data(4, 4)), "ff"),
    "info_nce": (lambda x: F.info_nce(x, x), "ff"),
    "cosine_similarity": (lambda x: F.cosine_similarity(x, x), "ff"),
    "sum": (lambda x: x.sum(), "ff"),
    "mean": (lambda x: x.mean(axis=0), "ff"),
    "var": (lambda x: bt.var(x), "ff"),
    "cumulative_sum": (lambda x: bt.cumulative_sum(x, axis=0), "ff"),
    "vector_norm": (lambda x: bt.linalg.vector_norm(x), "ff"),
    "exp": (bt.exp, "ff"),
    "log": (lambda x: bt.log(bt.abs(x) + 1), "ff"),
    "pow": (lambda x: x**2, "ff"),
    "tanh": (bt.tanh, "fh"),
    "inv": (bt.linalg.inv, "ff"),
}
LETTERS = {"h": bt.float16, "f": bt.float32}


@pytest.mark.parametrize("name", TABLE)
def test_the_dtype_of_results(name):
    function, expected = TABLE[name]
    for given, letter in zip((bt.float32, bt.float16), expected, strict=True):
        with bt.autocast(bt.float16):
            assert function(data(4, 4).astype(given)).dtype == LETTERS[letter], given


def test_float64_and_complex_are_left_alone():
    wide = data(4, 4).astype(bt.float64)
    with bt.autocast(bt.bfloat16):
        assert (wide @ wide).dtype == bt.float64
        assert bt.exp(wide).dtype == bt.float64
        assert (data(4, 4).astype(bt.complex64) @ data(4, 4).astype(bt.complex64)).dtype.kind == "c"
        assert (bt.tensor([[1, 2]]) @ bt.tensor([[1], [2]])).dtype == bt.int64
        with pytest.raises(DtypeError, match="float64"):
            F.linear(wide, data(3, 4))


@pytest.mark.parametrize("dtype", HALVES)
def test_it_equals_explicit_casts_bit_for_bit(dtype):
    x, w, b, v = data(5, 4), leaf(6, 4, seed=1), leaf(6, seed=2), leaf(3, 6, seed=3)
    y = bt.tensor([0, 1, 2, 0, 1])
    with bt.autocast(dtype):
        hidden = F.relu(F.linear(x, w, b))
        logits = F.linear(hidden, v)
        loss = F.cross_entropy(logits, y)
    assert (hidden.dtype, logits.dtype, loss.dtype) == (dtype, dtype, bt.float32)
    found = bt.grad(loss, (w, b, v))

    halves = [t.astype(dtype) for t in (x, w, b, v)]
    hidden2 = F.relu(F.linear(*halves[:3]))
    logits2 = F.linear(hidden2, halves[3])
    loss2 = F.cross_entropy(logits2.astype(bt.float32), y)
    np.testing.assert_array_equal(hidden.detach().numpy(), hidden2.detach().numpy())
    np.testing.assert_array_equal(logits.detach().numpy(), logits2.detach().numpy())
    assert loss.item() == loss2.item()
    for g, e in zip(found, bt.grad(loss2, (w, b, v)), strict=True):
        assert g.dtype == bt.float32
        rounded = e.astype(dtype).astype(bt.float32)  # gradients of casts are rounded too
        np.testing.assert_array_equal(g.numpy(), rounded.numpy())


def test_gradients_overflow_where_a_gpu_would_let_them():
    w = leaf(2, 2)
    with bt.autocast(bt.float16):
        loss = (bt.ones((1, 2)) @ w).sum()
    (loss * 70_000.0).backward()
    assert np.isinf(w.grad.numpy()).all()
    w.grad = None
    with bt.autocast(bt.bfloat16):
        loss = (bt.ones((1, 2)) @ w).sum()
    (loss * 70_000.0).backward()
    np.testing.assert_allclose(w.grad.numpy(), 70_000, rtol=0.01)


# -- the mode ----------------------------------------------------------------------------------


def test_nesting_and_leaving():
    x = data(2, 2)
    with bt.autocast("float16"):
        assert (x @ x).dtype == bt.float16
        with bt.autocast(bt.bfloat16):
            assert (x @ x).dtype == bt.bfloat16
            with bt.autocast(bt.float32):
                assert (x @ x).dtype == bt.float32
            with bt.autocast(bt.float16, enabled=False):
                assert (x @ x).dtype == bt.float32
        assert (x @ x).dtype == bt.float16
    assert (x @ x).dtype == bt.float32
    with pytest.raises(KeyError), bt.autocast(bt.float16):
        raise KeyError
    assert state.cast is None
    assert watch.count == 0


def test_as_a_decorator():
    @bt.autocast(bt.bfloat16)
    def product(x: bt.Tensor) -> bt.Tensor:
        return x @ x

    assert product(data(2, 2)).dtype == product(data(2, 2)).dtype == bt.bfloat16


def test_another_thread_does_not_see_it():
    seen = []

    def run() -> None:
        seen.append((data(2, 2) @ data(2, 2)).dtype)

    with bt.autocast(bt.float16):
        thread = threading.Thread(target=run)
        thread.start()
        thread.join()
    assert seen == [bt.float32]


@pytest.mark.parametrize("wrong", ["cuda", "fp16", bt.float64, bt.int8, None, 3])
def test_other_dtypes_are_refused_at_once(wrong):
    with pytest.raises(ConfigError, match=r"with bt\.autocast\(bt\.bfloat16\)"):
        bt.autocast(wrong)


def test_plain_arrays_are_left_alone():
    x = np.ones((2, 2), np.float32)
    with bt.autocast(bt.float16):
        assert REGISTRY["matmul"](x, x).dtype == np.float32
        mixed = bt.Tensor(x) @ x
    assert mixed.dtype == bt.float16


# Layers and losses in which float32 and halves meet, fed by a layer that makes halves.
LAYERS: dict[str, Any] = {
    "encoder": lambda x: nn.TransformerEncoderLayer(4, 2, 8, batch_first=True)(x),
    "attention with masks": lambda x: nn.MultiheadAttention(4, 2, batch_first=True)(
        x, data(2, 3, 4), x, key_padding_mask=bt.tensor([[True, True, False]] * 2)
    )[0],
    "attention with numbers for a mask": lambda x: nn.MultiheadAttention(
        4, 2, batch_first=True, add_zero_attn=True
    )(x, x, x, attn_mask=data(3, 3))[0],
    "LSTM": lambda x: nn.LSTM(4, 5, 2, bidirectional=True, batch_first=True)(
        x, lengths=bt.tensor([3, 2])
    )[0],
    "projected LSTM": lambda x: nn.LSTM(4, 5, proj_size=3)(x)[0],
    "RNN": lambda x: nn.RNN(4, 5)(x)[0],
    "cells": lambda x: nn.LSTMCell(4, 4)(nn.GRUCell(4, 4)(x[0]))[0],
    "transposed convolution": lambda x: nn.ConvTranspose1d(3, 6, 3, stride=2)(x),
    "upsampling": lambda x: nn.Upsample(scale_factor=2, mode="bilinear")(x[None]),
    "grid sampling": lambda x: F.grid_sample(x[None], data(1, 4, 4, 2)),
    "PReLU": lambda x: nn.PReLU()(x),
    "weight norm": lambda x: nn.weight_norm(nn.Linear(4, 5))(x),
    "spectral norm": lambda x: nn.spectral_norm(nn.Linear(4, 5))(x),
    "embedding": lambda x: x + nn.Embedding(10, 4)(bt.tensor([1, 2, 3])),
    "CTC": lambda x: F.ctc_loss(
        F.log_softmax(x, axis=-1), bt.tensor([[1]] * 3), bt.tensor([2] * 3), bt.tensor([1] * 3)
    ),
    "focal": lambda x: F.sigmoid_focal_loss(x, bt.ones(x.shape), reduction="mean"),
    "triplet": lambda x: F.triplet_margin_loss(x, data(2, 3, 4), x + 1),
    "BCE": lambda x: F.binary_cross_entropy(F.sigmoid(x), bt.ones(x.shape)),
    "KL": lambda x: F.kl_div(F.log_softmax(x, axis=-1), F.softmax(data(2, 3, 4), axis=-1)),
    "weighted": lambda x: F.cross_entropy(x[0], bt.tensor([0, 1, 3]), weight=bt.ones(4)),
    "soft targets": lambda x: F.cross_entropy(x[0], F.softmax(data(3, 4), axis=-1)),
}


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("dtype", HALVES)
def test_layers_take_halves_and_give_gradients(name, dtype):
    first, x = nn.Linear(4, 4), leaf(2, 3, 4)
    with bt.autocast(dtype):
        hidden = first(x)
        assert hidden.dtype == dtype
        loss = LAYERS[name](hidden).sum()
    assert loss.dtype == bt.float32
    for g in bt.grad(loss, (x, first.weight, first.bias)):
        assert g.dtype == bt.float32
        assert np.isfinite(g.numpy()).all()


# -- with the rest of the engine ---------------------------------------------------------------


class Net(nn.Module):
    def __init__(self) -> None:
        self.conv = nn.Conv2d(1, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.drop = nn.Dropout(0.3)
        self.out = nn.Linear(4, 3)

    def forward(self, x: bt.Tensor) -> bt.Tensor:
        x = F.relu(self.norm(self.conv(x)))
        return self.out(self.drop(x).mean(axis=(2, 3)))


def gradients(net: nn.Module) -> list[np.ndarray]:
    found = [p.grad.numpy().copy() for p in net.parameters()]
    net.zero_grad()
    return found


def test_backward_inside_is_backward_outside():
    net, x = Net().eval(), data(2, 1, 5, 5)
    with bt.autocast(bt.float16):
        net(x).sum().backward()
    inside = gradients(net)
    with bt.autocast(bt.float16):
        loss = net(x).sum()
    loss.backward()
    for a, b in zip(inside, gradients(net), strict=True):
        assert a.dtype == np.float32
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("dtype", HALVES)
def test_checkpoint_recomputes_in_the_same_mode(dtype):
    net, x = Net(), leaf(2, 1, 5, 5)
    found = []
    for run in (net, lambda v: bt.checkpoint(net, v)):
        bt.manual_seed(4)
        with bt.autocast(dtype):
            out = run(x)
        out.sum().backward()  # outside: the recomputation must still be in halves
        found.append([out.detach().numpy(), x.grad.numpy().copy(), *gradients(net)])
        x.grad = None
    for a, b in zip(*found, strict=True):
        np.testing.assert_array_equal(a, b)


def test_second_order():
    def penalty() -> tuple[bt.Tensor, Any]:
        out = bt.tanh(F.linear(x, w)).sum()
        slope = bt.grad(out, x, create_graph=True)
        assert slope.dtype == bt.float32
        loss = ((slope * slope).sum() - 1) ** 2
        return loss, bt.grad(loss, w)

    x, w = leaf(3, 4), leaf(5, 4, seed=1)
    loss, expected = penalty()
    with bt.autocast(bt.bfloat16):
        half_loss, found = penalty()
    assert found.dtype == bt.float32
    assert half_loss.item() == pytest.approx(loss.item(), rel=0.05)
    scale = np.abs(expected.numpy()).max()
    np.testing.assert_allclose(found.numpy(), expected.numpy(), atol=0.05 * scale)


def test_anomalies_are_found_in_halves():
    x = leaf(1, 1)
    with pytest.raises(GradError, match="lowered made infinity"), bt.detect_anomaly():
        with bt.autocast(bt.float16):
            (x * 1e6) @ x
    with bt.detect_anomaly(), bt.autocast(bt.bfloat16):
        (x * 1e6) @ x


def test_a_recorded_step_replays_in_the_same_dtypes():
    def run(recorded: bool) -> list[float]:
        bt.manual_seed(0)
        net = Net()
        optimizer = bt.optim.Adam(net.parameters(), lr=0.01)

        def step(x: bt.Tensor) -> bt.Tensor:
            with bt.autocast(bt.bfloat16):
                loss = F.cross_entropy(net(x), bt.tensor([0, 1, 2, 0]))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            return loss

        losses, graph = [], None
        for i in range(12):
            x = data(4, 1, 5, 5, seed=i)
            if graph is not None:
                with bt.autocast(bt.float16):  # a replay runs what was recorded
                    loss = replay(graph, x)[0]
            elif recorded and i == 2:
                graph, loss = record(step, x)
            else:
                loss = step(x)
            losses.append(loss.item())
        return losses

    np.testing.assert_allclose(run(True), run(False), rtol=1e-5)


def test_hooks_and_retained_gradients_have_the_tensors_dtype():
    w, seen = leaf(2, 2), []
    with bt.autocast(bt.float16):
        out = bt.ones((1, 2)) @ w
        out.register_hook(lambda g: seen.append(g.dtype))
        out.retain_grad()
        loss = out.sum()
    loss.backward()
    assert seen == [bt.float16]
    assert out.grad.dtype == bt.float16
    assert w.grad.dtype == bt.float32


def test_writing_in_place_keeps_the_dtype():
    with bt.autocast(bt.float16):
        x = bt.zeros((2, 2))
        x[0] = (data(2, 2) @ data(2, 2))[0]
        norm = nn.BatchNorm1d(2)
        norm(data(4, 2) @ data(2, 2))
    assert x.dtype == norm.running_mean.dtype == bt.float32


def test_large_batch_statistics_do_not_overflow():
    with bt.autocast(bt.float16):
        x = (data(64, 3) * 300) @ bt.eye(3)
        norm = nn.BatchNorm1d(3)
        out = norm(x)
    assert x.dtype == out.dtype == bt.float16
    assert (
        norm.running_var.numpy().min() > 1000
    )  # the variance, near 90,000, is infinite in float16
    np.testing.assert_allclose(out.detach().numpy().astype(np.float32).std(0), 1, atol=0.01)


def test_an_operation_of_the_users_that_refuses_mixed_floats():
    @bt.op(name="blend_of_test_autocast", same_float=True)
    def blend(xp, a, b):
        return a + b

    try:
        with bt.autocast(bt.float16):
            half = data(2, 2) @ data(2, 2)
            assert blend(half, data(2, 2)).dtype == bt.float32
            assert blend(half, half).dtype == bt.float16
    finally:
        del REGISTRY["blend_of_test_autocast"]


# -- devices -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "capability, expected",
    [
        ("90", "bfloat16"),
        ("80", "bfloat16"),
        ("75", "float16"),
        ("70", "float16"),
        ("61", "float32"),
    ],
)
def test_the_best_precision_of_a_device(monkeypatch, capability, expected):
    class Cuda:
        class Device:
            def __init__(self, index: int) -> None:
                self.compute_capability = capability

    xp = type("Namespace", (), {"cuda": Cuda})
    monkeypatch.setattr(module, "backend_for", lambda device: Backend("cuda", xp, np.ndarray))
    assert module.best_precision(Device("cuda")) == expected
    assert module.best_precision(Device("cpu")) == "float32"


def test_stacks_of_matrices_in_bfloat16_on_a_gpu():
    kernel = REGISTRY["matmul"].kernels["cuda"]
    x = data(2, 3, 4).astype(bt.bfloat16).array
    y = data(4, 5, seed=1).astype(bt.bfloat16).array
    out = kernel(x, y)
    assert out.dtype == bt.bfloat16
    np.testing.assert_array_equal(out, (bt.Tensor(x) @ bt.Tensor(y)).array)
    assert kernel(x[0], y) is NotImplemented
    assert kernel(x.astype(np.float32), y.astype(np.float32)) is NotImplemented


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", HALVES)
def test_training_on_a_gpu_equals_the_cpu(dtype):
    def run(device: str) -> list[np.ndarray]:
        bt.manual_seed(0)
        net = Net().to(device)
        net.drop.p = 0.0
        with bt.autocast(dtype):
            loss = F.cross_entropy(
                net(data(8, 1, 6, 6).to(device)), bt.tensor([0, 1, 2, 0] * 2).to(device)
            )
        loss.backward()
        return [loss.detach().cpu().numpy(), *(p.grad.cpu().numpy() for p in net.parameters())]

    for a, b in zip(run("cuda"), run("cpu"), strict=True):
        assert a.dtype == np.float32
        np.testing.assert_allclose(a, b, atol=0.03 * max(np.abs(b).max(), 1e-3))
