"""What functions promise beyond their values: extremes, statistics, memory, warnings."""

from __future__ import annotations

import math
import tracemalloc
import warnings

import numpy as np
import pytest

import bestiary as bt
from bestiary.core import random
from bestiary.core.autograd import grad
from bestiary.core.errors import DtypeError, IndexRangeError, ShapeError
from bestiary.core.nn import functional as F
from bestiary.core.ops import attention_blocks, classification

INF = math.inf


def leaf(values, dtype=bt.float32) -> bt.Tensor:
    return bt.tensor(values, dtype=dtype, requires_grad=True)


def finite_gradient(out: bt.Tensor, x: bt.Tensor) -> np.ndarray:
    g = grad(out, x, bt.ones(out.shape, dtype=out.dtype)).numpy()
    assert np.isfinite(g).all()
    return g


# -- extremes: the value that is promised, and no NaN in gradients -------------------------------


@pytest.mark.parametrize("dtype", [bt.float32, bt.float64])
def test_softmax_of_large_numbers(dtype):
    x = leaf([1e4, 0.0, -1e4], dtype)
    assert F.softmax(x).tolist() == [1, 0, 0]
    assert F.log_softmax(x).tolist() == [0, -1e4, -2e4]
    assert F.logsumexp(x).item() == 1e4
    for function in (F.softmax, F.log_softmax, F.logsumexp):
        finite_gradient(function(x), x)


@pytest.mark.parametrize("rows", [(2, 3), (200, 900)])
def test_rows_without_any_chance(rows):
    values = np.zeros(rows, np.float32)
    values[1] = -INF
    x = leaf(values)
    assert not F.softmax(x).detach().numpy()[1].any()
    assert (F.log_softmax(x).detach().numpy()[1] == -INF).all()
    out = F.logsumexp(x, axis=1)
    assert out.detach().numpy()[1] == -INF
    assert not finite_gradient(F.softmax(x), x)[1].any()
    assert not finite_gradient(out, x)[1].any()


def test_infinite_logsumexp():
    assert F.logsumexp(bt.asarray([INF, 0.0])).item() == INF


@pytest.mark.parametrize("additive", [False, True])
def test_a_query_that_may_attend_to_nothing(additive):
    rng = np.random.default_rng(0)
    q, k, v = (leaf(rng.standard_normal((1, 2, 3, 4))) for _ in range(3))
    mask = np.ones((3, 3), bool)
    mask[1] = False
    given = bt.asarray(np.where(mask, 0, -INF).astype(np.float32) if additive else mask)
    out = F.scaled_dot_product_attention(q, k, v, given)
    assert not out.detach().numpy()[:, :, 1].any()
    assert not finite_gradient(out, q)[:, :, 1].any()
    finite_gradient(F.scaled_dot_product_attention(q, k, v, given), k)
    finite_gradient(F.scaled_dot_product_attention(q, k, v, given), v)


def test_norms_of_constants():
    x = leaf(np.full((2, 4, 3, 3), 7.0))
    w, b = bt.ones((4,)) * 2, bt.ones((4,)) * 0.5
    for out in (
        F.batch_norm(x, None, None, w, b, training=True),
        F.group_norm(x, 2, w, b),
        F.instance_norm(x, None, None, w, b),
    ):
        assert (out.detach().numpy() == 0.5).all()
        finite_gradient(out, x)
    rows = leaf(np.full((2, 5), 7.0))
    assert not F.layer_norm(rows, 5).detach().numpy().any()
    finite_gradient(F.layer_norm(rows, 5), rows)
    zeros = leaf(np.zeros((2, 5)))
    assert not F.rms_norm(zeros, 5).detach().numpy().any()
    finite_gradient(F.rms_norm(zeros, 5), zeros)
    assert not F.normalize(zeros).detach().numpy().any()
    finite_gradient(F.normalize(zeros), zeros)
    assert not F.cosine_similarity(zeros, rows).detach().numpy().any()
    finite_gradient(F.cosine_similarity(zeros, rows), zeros)


def test_norms_far_from_zero_are_accurate():
    rng = np.random.default_rng(0)
    x = (rng.standard_normal((8, 16, 40, 40)) + 300).astype(np.float32)
    for memory in (x, np.moveaxis(np.ascontiguousarray(np.moveaxis(x, 1, -1)), -1, 1)):
        exact = memory.astype(np.float64)
        exact -= exact.mean((0, 2, 3), keepdims=True)
        exact /= np.sqrt((exact**2).mean((0, 2, 3), keepdims=True) + 1e-5)
        out = F.batch_norm(bt.Tensor(memory), None, None, training=True).numpy()
        assert np.abs(out - exact).max() < 2e-4  # float32 itself resolves 300 to 1.5e-5


def test_binary_cross_entropy_at_its_ends():
    p, t = leaf([0.0, 1.0, 0.0, 1.0]), bt.asarray([0.0, 1.0, 1.0, 0.0])
    loss = F.binary_cross_entropy(p, t, reduction="none")
    assert loss.tolist() == [0, 0, 100, 100]
    finite_gradient(loss, p)
    x = leaf([-1e4, 1e4, -1e4, 1e4])
    loss = F.binary_cross_entropy_with_logits(x, t, reduction="none")
    assert loss.tolist() == [0, 0, 1e4, 1e4]
    np.testing.assert_allclose(finite_gradient(loss, x), [0, 0, -1, 1], atol=1e-30)


def test_tails_keep_their_digits():
    x = bt.asarray(np.array([-30.0, -17.0, 17.0], np.float32))
    exact = 1 / (1 + np.exp(-np.array([-30.0, -17.0, 17.0])))
    np.testing.assert_allclose(F.sigmoid(x).numpy(), exact, rtol=1e-6)
    zero = bt.zeros((3,))
    tail = F.binary_cross_entropy_with_logits(x, zero, reduction="none").numpy()
    np.testing.assert_allclose(tail[:2], exact[:2], rtol=1e-6)
    np.testing.assert_allclose(F.log_sigmoid(-x).numpy()[:2], -exact[:2], rtol=1e-6)


@pytest.mark.parametrize(
    "name", "sigmoid silu gelu softplus mish elu selu tanh hardswish log_sigmoid".split()
)
def test_activations_of_huge_numbers(name):
    x = leaf([-1e30, -1e4, 0.0, 1e4, 1e30])
    out = getattr(F, name)(x)
    assert np.isfinite(out.detach().numpy()).all()
    finite_gradient(out, x)


def test_float16_does_not_overflow_inside():
    x = bt.asarray(np.full((2, 8), 300, np.float16))
    assert (F.rms_norm(x, 8).numpy() == 1).all()  # 300 * 300 is beyond float16
    assert not F.layer_norm(x, 8).numpy().any()
    assert F.softmax(x).numpy().sum() == 2


def test_half_gradients_do_not_depend_on_rounded_statistics():
    rng = np.random.default_rng(0)
    values = (rng.standard_normal((4, 64)) + 20).astype(np.float32)
    halves = bt.asarray(values).astype(bt.bfloat16)
    weights = bt.asarray(rng.standard_normal((4, 64)).astype(np.float32))
    for function in (
        lambda x: F.layer_norm(x, 64),
        lambda x: F.batch_norm(x, None, None, training=True),
        lambda x: F.group_norm(x, 4),
    ):
        x = halves.detach().requires_grad_()
        wide = halves.astype(bt.float32).requires_grad_()
        first = grad(function(x), x, weights.astype(bt.bfloat16)).astype(bt.float32).numpy()
        second = grad(function(wide), wide, weights.astype(bt.bfloat16).astype(bt.float32)).numpy()
        assert np.abs(first - second).max() < 0.02 * np.abs(second).max()


# -- running statistics --------------------------------------------------------------------------


def test_running_statistics_are_updated_in_place():
    rng = np.random.default_rng(0)
    mean, var = bt.zeros((3,)), bt.ones((3,))
    array = mean.array
    x = rng.standard_normal((5, 3, 4)).astype(np.float32)
    F.batch_norm(bt.asarray(x), mean, var, training=True, momentum=0.25)
    assert mean.array is array
    np.testing.assert_allclose(mean.numpy(), 0.25 * x.mean((0, 2)), rtol=1e-5, atol=1e-6)
    expected = 0.75 + 0.25 * x.var((0, 2), ddof=1)
    np.testing.assert_allclose(var.numpy(), expected, rtol=1e-5)


def test_plain_average_of_statistics():
    rng = np.random.default_rng(0)
    mean, var, seen = bt.zeros((3,)), bt.ones((3,)), bt.zeros((), dtype=bt.int64)
    batches = rng.standard_normal((4, 6, 3)).astype(np.float32)
    for batch in batches:
        bt.assign(seen, seen + 1)
        F.batch_norm(bt.asarray(batch), mean, var, training=True, momentum=None, num_batches=seen)
    np.testing.assert_allclose(mean.numpy(), batches.mean((0, 1)), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(var.numpy(), batches.var(1, ddof=1).mean(0), rtol=1e-5)


def test_prediction_leaves_statistics_alone():
    mean, var = bt.zeros((3,)), bt.ones((3,))
    F.batch_norm(bt.ones((2, 3)) * 5, mean, var)
    assert mean.tolist() == [0, 0, 0]
    assert var.tolist() == [1, 1, 1]


# -- dropout -------------------------------------------------------------------------------------


def test_dropout_keeps_the_mean_and_the_rate():
    x = bt.ones((200, 300))
    out = F.dropout(x, 0.3, generator=random.Generator(1)).numpy()
    assert set(np.unique(out)) == {np.float32(0), np.float32(1 / 0.7)}
    assert abs((out == 0).mean() - 0.3) < 0.01
    assert F.dropout(x, 0.3, training=False) is x
    assert F.dropout(x, 0.0) is x
    assert not F.dropout(x, 1.0).numpy().any()


def test_dropout_of_channels_and_samples():
    x = bt.ones((20, 30, 4, 5))
    channels = F.dropout2d(x, 0.5, generator=random.Generator(1)).numpy().reshape(600, -1)
    assert (channels == channels[:, :1]).all()
    assert 0.4 < (channels[:, 0] == 0).mean() < 0.6
    samples = F.drop_path(x, 0.5, generator=random.Generator(1)).numpy().reshape(20, -1)
    assert (samples == samples[:, :1]).all()
    assert 0 < (samples[:, 0] == 0).sum() < 20


def test_dropout_gradient_uses_the_same_values():
    x = leaf(np.ones((10, 10)))
    out = F.dropout(x, 0.5)
    np.testing.assert_array_equal(finite_gradient(out, x), out.detach().numpy())


def test_dropout_inside_attention(monkeypatch):
    rng = np.random.default_rng(0)
    q, k, v = (leaf(rng.standard_normal((1, 2, 30, 4))) for _ in range(3))

    def run():
        generator = random.Generator(5)
        return F.scaled_dot_product_attention(q, k, v, dropout_p=0.5, generator=generator)

    whole = run()
    monkeypatch.setitem(attention_blocks.BLOCK, "cpu", 100)
    blocks = run()  # the mask is a function of the place, not of the block
    np.testing.assert_allclose(blocks.detach().numpy(), whole.detach().numpy(), rtol=1e-5)
    plain = F.scaled_dot_product_attention(q, k, v)
    assert np.abs(whole.detach().numpy() - plain.detach().numpy()).max() > 0.1
    for a, b in zip(grad(whole.sum(), (q, k, v)), grad(blocks.sum(), (q, k, v)), strict=True):
        np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-4, atol=1e-5)


# -- memory and layout ---------------------------------------------------------------------------


def test_memory_of_attention_does_not_grow_with_the_square():
    rng = np.random.default_rng(0)

    def peak(length):
        shape = (1, 2, length, 8)
        q, k, v = (leaf(rng.standard_normal(shape).astype(np.float32)) for _ in range(3))
        tracemalloc.start()
        out = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        grad(out.sum(), (q, k, v))
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    scores = 2 * 4096 * 4096 * 4
    assert peak(4096) < scores / 8
    assert peak(4096) < 4 * peak(1024)


def test_heads_can_be_joined_without_a_copy():
    q = bt.permute_dims(bt.ones((2, 5, 3, 4)), (0, 2, 1, 3))
    out = F.scaled_dot_product_attention(q, q, q)
    joined = bt.permute_dims(out, (0, 2, 1, 3)).reshape(2, 5, 12)
    assert np.shares_memory(joined.array, out.array)


def last(x: bt.Tensor) -> bool:
    return bool(x.array.transpose(0, 2, 3, 1).flags.c_contiguous)


def test_a_convolutional_network_stays_channels_last():
    rng = np.random.default_rng(0)

    def weight(*shape):
        return leaf(rng.standard_normal(shape).astype(np.float32))

    x = bt.asarray(rng.standard_normal((2, 3, 20, 22)).astype(np.float32))
    x = F.conv2d(x, weight(24, 3, 3, 3), None, 2, 1)
    steps = [
        lambda x: F.batch_norm(x, None, None, weight(24), weight(24), True),
        F.relu,
        lambda x: F.max_pool2d(x, 3, 2, 1),
        lambda x: F.conv2d(x, weight(24, 24, 3, 3), weight(24), 1, 1),
        lambda x: F.group_norm(x, 4, weight(24), weight(24)),
        F.silu,
        lambda x: F.conv2d(x, weight(24, 1, 3, 3), None, 1, 1, 1, 24),
        F.gelu,
        lambda x: x + F.conv2d(x, weight(24, 24, 1, 1)),
        lambda x: F.interpolate(x, scale_factor=2.0, mode="bilinear"),
        lambda x: F.avg_pool2d(x, 2),
        lambda x: F.pad(x, (1, 1, 1, 1)),
        lambda x: F.dropout(x, 0.5),
        lambda x: F.conv_transpose2d(x, weight(24, 20, 2, 2), None, 2),
    ]
    assert last(x)
    for i, step in enumerate(steps):
        x = step(x)
        assert last(x), i
    x.sum().backward()


# -- mistakes ------------------------------------------------------------------------------------


def test_softmax_before_cross_entropy_is_noticed(monkeypatch):
    from bestiary.core import notice

    target = bt.asarray([1, 0])
    for logits in (leaf([[1.0, 2.0], [0.0, 1.0]]), bt.asarray([[1.0, 2.0], [0.0, 1.0]])):
        notice.forget_warnings()
        monkeypatch.setattr(classification, "_looks", 8)
        with pytest.warns(notice.TrainingWarning, match="applies softmax itself"):
            F.cross_entropy(F.softmax(logits), target)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            F.cross_entropy(F.softmax(logits), target)
    notice.forget_warnings()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        F.cross_entropy(bt.asarray([[1.0, 2.0], [0.0, 1.0]]), target)
        F.cross_entropy(bt.asarray([[1.0, 0.0], [0.0, 1.0]]), target)


def test_a_mean_over_nothing_is_zero():
    x = leaf(np.ones((2, 3)))
    ignored = bt.asarray([-100, -100])
    for loss in (F.cross_entropy(x, ignored), F.nll_loss(x, ignored)):
        assert loss.item() == 0
        assert not finite_gradient(loss, x).any()


def test_class_ids_that_do_not_exist():
    logits = bt.zeros((2, 3))
    with pytest.raises(IndexRangeError, match="Subtract it: target - 1") as caught:
        F.cross_entropy(logits, bt.asarray([1, 3]))
    assert (caught.value.value, caught.value.index, caught.value.classes) == (3, (1,), 3)
    with pytest.raises(IndexRangeError, match="ignore_index=-1"):
        F.cross_entropy(logits, bt.asarray([-1, 2]))
    with pytest.raises(IndexRangeError, match="Give it 8 outputs"):
        F.cross_entropy(logits, bt.asarray([0, 7]))
    with pytest.raises(IndexRangeError, match="nll_loss: target 3"):
        F.nll_loss(logits, bt.asarray([0, 3]))


def test_mixed_floats_are_refused():
    x, w = bt.zeros((2, 3), dtype=bt.float64), bt.zeros((3, 3))
    image, kernel = bt.zeros((1, 3, 4, 4), dtype=bt.float64), bt.zeros((2, 3, 3, 3))
    for call in (
        lambda: F.linear(x, w),
        lambda: F.conv2d(image, kernel),
        lambda: F.layer_norm(x, 3, bt.ones((3,))),
        lambda: F.batch_norm(x, None, None, bt.ones((3,)), training=True),
        lambda: F.batch_norm(x, bt.zeros((3,)), bt.ones((3,))),
        lambda: F.scaled_dot_product_attention(x, w, w),
    ):
        with pytest.raises(DtypeError, match=r"x\.astype\(bt\.float32\)"):
            call()


def test_how_a_width_arose():
    x = bt.zeros((2, 64, 6, 6), dtype=bt.float32)
    for given in (x, x.requires_grad_()):
        with pytest.raises(ShapeError, match="2304 = 64x6x6 flattened") as caught:
            F.linear(given.reshape(2, -1), bt.zeros((10, 256)))
        facts = caught.value
        assert (facts.expected, facts.got, facts.before) == (256, 2304, (64, 6, 6))


def test_torch_spelling_of_axes():
    x = bt.ones((2, 3))
    for function in (F.softmax, F.log_softmax, F.logsumexp, F.normalize, F.glu):
        with pytest.raises(TypeError, match="axis="):
            function(x, dim=1)
