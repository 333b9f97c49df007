"""The backward walk: gradients of any order, what a graph keeps, and writing in place."""

from __future__ import annotations

import gc
import threading
import weakref

import numpy as np
import pytest

import bestiary as bt
from bestiary.core.errors import GradError, ShapeError
from bestiary.core.op import op
from bestiary.core.ops.elementwise import exp, multiply
from bestiary.core.ops.trigonometry import sin, tanh


def leaf(*values: float, dtype: object = None) -> bt.Tensor:
    return bt.tensor(list(values), dtype=dtype, requires_grad=True)


def test_gradients_of_a_small_expression():
    x, y = leaf(1.0, 2.0, 3.0), leaf(4.0, 5.0, 6.0)
    (x * y + tanh(x)).sum().backward()
    np.testing.assert_allclose(x.grad.numpy(), y.array + 1 - np.tanh(x.array) ** 2, rtol=1e-6)
    np.testing.assert_allclose(y.grad.numpy(), x.array)


def test_gradients_add_up_over_uses_and_calls():
    x = leaf(2.0)
    (x * x + x + x).sum().backward()
    assert x.grad.item() == 6.0
    (3 * x).sum().backward()
    assert x.grad.item() == 9.0


def test_broadcast_axes_are_summed_back():
    x, row = bt.tensor(np.ones((3, 4), np.float32)), leaf(1.0, 2.0, 3.0, 4.0)
    column = bt.tensor(np.ones((3, 1), np.float32), requires_grad=True)
    (x * row * column).sum().backward()
    assert row.grad.tolist() == [3.0] * 4
    assert column.grad.tolist() == [[10.0]] * 3


def test_third_order():
    x = leaf(2.0, dtype=bt.float64)
    y = x**4
    for expected in (32.0, 48.0, 48.0, 24.0):
        y = bt.grad(y.sum(), x, create_graph=True)
        assert y.item() == pytest.approx(expected)


def test_grad_leaves_grad_alone_and_prunes():
    x, w = leaf(3.0), leaf(2.0)
    called = []
    hidden = x * w
    w.register_hook(lambda g: called.append(g))
    g = bt.grad(hidden.sum(), x)
    assert g.item() == 2.0
    assert x.grad is None and w.grad is None and not called


def test_grad_of_an_intermediate_result():
    x = leaf(2.0)
    y = x * 3
    z = y * y
    gy, gx = bt.grad(z.sum(), [y, x])
    assert (gy.item(), gx.item()) == (12.0, 36.0)


def test_unused_input_is_an_error_or_none():
    x, y = leaf(1.0), leaf(1.0)
    with pytest.raises(GradError, match="do not depend on input 1"):
        bt.grad((x * 2).sum(), [x, y])
    assert bt.grad((x * 2).sum(), [x, y], allow_unused=True)[1] is None


def test_vjp_and_jvp_agree_with_the_jacobian():
    def f(x: bt.Tensor) -> bt.Tensor:
        return sin(x) * x.sum()

    x = bt.tensor([0.3, -1.2, 2.0], dtype=bt.float64)
    total, s, c = x.array.sum(), np.sin(x.array), np.cos(x.array)
    jacobian = np.diag(c * total) + np.outer(s, np.ones(3))
    v = bt.tensor([1.0, -2.0, 0.5], dtype=bt.float64)
    out, tangent = bt.jvp(f, [x], [v])
    np.testing.assert_allclose(out.numpy(), s * total)
    np.testing.assert_allclose(tangent.numpy(), jacobian @ v.array)
    _, pull = bt.vjp(f, x)
    np.testing.assert_allclose(pull(v)[0].numpy(), jacobian.T @ v.array)


def test_jvp_of_a_linear_function_and_of_a_constant():
    x, v = bt.tensor([1.0, 2.0]), bt.tensor([1.0, 1.0])
    assert bt.jvp(lambda t: t * 3, [x], [v])[1].tolist() == [3.0, 3.0]


def test_a_chain_of_100_000_operations():  # TESTPLAN 42
    x = leaf(1.0)
    y = x
    for _ in range(100_000):
        y = y * 1.0
    y.sum().backward()
    assert x.grad.item() == 1.0


def test_dropping_the_loss_frees_the_graph_without_the_collector():
    gc.collect()
    gc.disable()
    try:
        x = leaf(1.0, 2.0)
        y = exp(x)
        array = weakref.ref(y.array)
        z = (y * y).sum()
        del y
        assert array() is not None  # the graph holds it
        del z
        assert array() is None
    finally:
        gc.enable()


def test_backward_frees_what_it_used():
    x = leaf(1.0, 2.0)
    y = exp(x)
    array = weakref.ref(y.array)
    z = (y * y).sum()
    del y
    z.backward()
    assert array() is None


def test_leaves_never_share_gradient_memory():
    a, b = leaf(1.0, 2.0), leaf(3.0, 4.0)
    (a + b).backward(bt.tensor([1.0, 1.0]))
    a.grad.array[0] = 99.0
    assert b.grad.tolist() == [1.0, 1.0]


def test_a_rule_may_hand_the_same_memory_to_two_operands():
    @op(name="test_sum_of_both", promote=True)
    def both(xp, x1, x2):
        return x1 + x2

    @both.backward
    def _(g):
        shared = g * 1.0
        return shared, shared

    x, y = leaf(1.0, 2.0), leaf(3.0, 4.0)
    a, b = x * 1.0, y * 1.0
    # a's gradient arrives in three parts: adding them up must not touch b's
    (both(a, b) + a * 2.0 + a * 3.0).sum().backward()
    assert x.grad.tolist() == [6.0, 6.0] and y.grad.tolist() == [1.0, 1.0]


def test_the_given_gradient_is_not_changed():
    x = leaf(1.0, 2.0)
    g = bt.tensor([1.0, 1.0])
    y = x * 1.0
    (y + y + y + y).backward(g)
    assert g.tolist() == [1.0, 1.0]
    assert x.grad.tolist() == [4.0, 4.0]


# -- backward that cannot be: ERRORS 9, 11, 12 ---------------------------------------------------


def test_backward_twice_names_the_remedies():
    x = leaf(1.0)
    y = (x * x).sum()
    y.backward()
    with pytest.raises(GradError) as caught:
        y.backward()
    for part in ("retain_graph=True", "detach()", "loss1 + loss2"):
        assert part in str(caught.value)
    z = (x * x).sum()
    z.backward(retain_graph=True)
    z.backward()


def test_backward_without_a_graph_says_why():
    frozen = bt.tensor([1.0, 2.0])
    with pytest.raises(GradError, match="frozen"):
        (frozen * 2).sum().backward()
    x = leaf(1.0)
    with bt.no_grad():
        y = (x * 2).sum()
        with pytest.raises(GradError, match="no_grad"):
            y.backward()


def test_backward_of_many_values_needs_a_gradient():
    x = leaf(1.0, 2.0)
    with pytest.raises(GradError, match=r"\(2,\)") as caught:
        (x * 2).backward()
    assert "mean()" in str(caught.value)
    with pytest.raises(ShapeError):
        (x * 2).backward(bt.tensor([1.0]))


# -- modes ------------------------------------------------------------------------------------


def test_no_grad_inference_mode_and_enable_grad():
    x = leaf(1.0)
    with bt.no_grad():
        assert not (x * 2).requires_grad
        with bt.enable_grad():
            assert (x * 2).requires_grad
    with bt.inference_mode(), bt.enable_grad():
        assert not (x * 2).requires_grad

    @bt.no_grad()
    def quiet() -> bt.Tensor:
        return x * 2

    assert not quiet().requires_grad
    assert (x * 2).requires_grad


def test_modes_belong_to_their_thread():
    seen = []
    with bt.no_grad():
        thread = threading.Thread(target=lambda: seen.append(bt.is_grad_enabled()))
        thread.start()
        thread.join()
    assert seen == [True]


def test_whole_numbers_and_comparisons_record_nothing():
    x = leaf(1.0, 2.0)
    assert not (x > 1).requires_grad
    assert not x.astype(bt.int64).requires_grad


# -- hooks ------------------------------------------------------------------------------------


def test_hooks_see_and_replace_gradients():
    x = leaf(1.0, 2.0)
    y = x * 2
    seen = []
    remove = y.register_hook(lambda g: seen.append(g.tolist()))
    y.register_hook(lambda g: g * 10)
    y.retain_grad()
    (y * 3).sum().backward()
    assert seen == [[3.0, 3.0]]
    assert y.grad.tolist() == [30.0, 30.0]
    assert x.grad.tolist() == [60.0, 60.0]
    remove()
    z = x * 2
    z.sum().backward()
    assert len(seen) == 1


def test_hook_on_a_leaf_sees_the_whole_gradient():
    x = leaf(1.0)
    seen = []
    x.register_hook(lambda g: seen.append(g.item()))
    (x * 2 + x * 3).sum().backward()
    assert seen == [5.0]


# -- writing in place ---------------------------------------------------------------------------


def test_written_values_carry_gradients():
    x, v = leaf(1.0, 2.0, 3.0), leaf(10.0)
    y = x * 2
    y[1:2] = v
    (y * y).sum().backward()
    assert y.tolist() == [2.0, 10.0, 6.0]
    assert x.grad.tolist() == [8.0, 0.0, 24.0]
    assert v.grad.tolist() == [20.0]


def test_writing_means_the_same_with_and_without_gradients():
    for mode in (bt.no_grad, bt.enable_grad):
        with mode():
            x = leaf(1.0, 2.0)
            y = x * 1
            alias = y.detach()
            y[0] = 7.0
            assert alias.tolist() == [7.0, 2.0]
            with pytest.raises(GradError, match=r"x\[0, 1\] = v"):
                y.reshape(2, 1)[0] = 1.0
            with pytest.raises(GradError, match="optimizer"):
                x[0] = 1.0
    assert x.tolist() == [1.0, 2.0]


def test_rebinding_makes_a_new_tensor():
    x = leaf(1.0)
    before = x
    x += 1.0
    assert x is not before and before.tolist() == [1.0]


def test_a_saved_value_changed_in_place_is_noticed():  # ERRORS 8
    x = leaf(1.0, 2.0)
    y = exp(x)
    y[0] = 1.0
    with pytest.raises(GradError) as caught:
        y.sum().backward()
    text = str(caught.value)
    assert caught.value.op == "exp"
    assert caught.value.saved_at.startswith("test_autograd.py:")
    assert caught.value.written_at.startswith("test_autograd.py:")
    assert caught.value.saved_at != caught.value.written_at
    assert "clone()" in text


def test_a_write_through_a_view_s_base_is_noticed():
    base = bt.tensor([1.0, 2.0, 3.0])
    x = leaf(1.0, 1.0)
    y = x * base[:2]
    base[0] = 5.0
    with pytest.raises(GradError, match="changed in place"):
        y.sum().backward()


def test_a_write_that_nothing_needs_is_fine():
    x = leaf(1.0, 2.0)
    y = x + 1.0
    y[0] = 0.0
    y.sum().backward()
    assert x.grad.tolist() == [0.0, 1.0]


def test_rebinding_a_parameter_s_array_does_not_change_a_recorded_gradient():
    w = leaf(3.0)
    x = leaf(2.0)
    y = (x * w).sum()
    w.array = np.array([100.0], np.float32)
    y.backward()
    assert x.grad.item() == 3.0


def test_assign_overwrites_and_bumps_the_version():
    w = leaf(1.0, 2.0)
    y = (w * w).sum()
    bt.assign(w, bt.tensor([5.0, 6.0]))
    assert w.tolist() == [5.0, 6.0]
    with pytest.raises(GradError, match="changed in place"):
        y.backward()


# -- operations made by users -------------------------------------------------------------------


def test_an_operation_with_several_outputs():
    @op(outputs=2, name="test_halves_of")
    def halves(xp, x):
        """Both halves of a vector."""
        n = x.shape[0] // 2
        return x[:n].copy(), x[n:].copy()

    @halves.backward
    def _(g, shapes):
        first, second = g
        n = shapes[0][0] // 2
        zero = bt.zeros((n,))
        if isinstance(first, np.ndarray) or isinstance(second, np.ndarray):
            zero = zero.numpy()
        from bestiary.core.ops.shape import _concat

        return _concat(zero if first is None else first, zero if second is None else second)

    x = leaf(1.0, 2.0, 3.0, 4.0)
    _, second = halves(x)
    (second * second).sum().backward()  # the first output has no gradient: None, not zeros
    assert x.grad.tolist() == [0.0, 0.0, 6.0, 8.0]


def test_registration_mistakes_are_refused():
    with pytest.raises(TypeError, match="reserved"):

        @op(name="test_bad_operand")
        def bad(xp, g):
            return g

    with pytest.raises(TypeError, match="first parameter"):

        @op(name="test_bad_first")
        def worse(x):
            return x

    @op(name="test_one_operand")
    def fine(xp, x):
        return x

    with pytest.raises(TypeError, match="unknown parameter 'y'"):

        @fine.backward
        def _(g, y):
            return g

    with pytest.raises(TypeError, match="writes="):

        @op(name="test_bad_writes", writes=("z",))
        def bad_writes(xp, x):
            return x


def test_operands_may_be_left_out_or_given_by_name():
    @op(name="test_scaled", promote=True)
    def scaled(xp, x, scale=None, *, offset=0.0):
        """x * scale + offset."""
        return (x if scale is None else x * scale) + offset

    @scaled.backward
    def _(g, x, scale, needs):
        return (g if scale is None else g * scale), (g * x if needs[1] else None)

    x, scale = leaf(2.0), leaf(3.0)
    scaled(x).sum().backward()
    assert x.grad.item() == 1.0
    scaled(x, scale=scale, offset=1.0).sum().backward()
    assert x.grad.item() == 4.0 and scale.grad.item() == 2.0
    with pytest.raises(TypeError, match="has no keyword 'scael'"):
        scaled(x, scael=scale)
    with pytest.raises(TypeError, match="'x' is missing"):
        scaled()


def test_an_operation_without_a_rule_says_so():
    @op(name="test_no_rule")
    def no_rule(xp, x):
        return x * 2

    with pytest.raises(GradError, match="test_no_rule has no gradient"):
        no_rule(leaf(1.0)).sum().backward()


def test_a_rule_with_the_wrong_number_of_results_is_named():
    @op(name="test_two_operands", promote=True)
    def two(xp, x1, x2):
        return x1 + x2

    @two.backward
    def _(g):
        return g

    with pytest.raises(GradError, match="returned 1 gradients for 2"):
        two(leaf(1.0), leaf(2.0)).sum().backward()


def test_a_composite_serves_higher_orders():
    calls = []

    def composite(x):
        calls.append("composite")
        return x * x * x

    @op(name="test_fused_cube", composite=composite)
    def cube(xp, x):
        return x**3

    @cube.backward
    def _(g, x):
        calls.append("rule")
        return g * (3 * x * x)

    x = leaf(2.0, dtype=bt.float64)
    cube(x).sum().backward()
    assert calls == ["rule"]
    first = bt.grad(cube(x * 1).sum(), x, create_graph=True)
    second = bt.grad(first.sum(), x, create_graph=True)
    third = bt.grad(second.sum(), x)
    assert (first.item(), second.item(), third.item()) == (12.0, 12.0, 6.0)
    assert "composite" in calls


# -- anomaly mode and observers -----------------------------------------------------------------


def test_anomaly_mode_names_the_operation_and_the_line():
    from bestiary.core.ops.elementwise import log

    x = leaf(-1.0)
    with bt.detect_anomaly():  # NumPy does not warn before
        y = exp(x)
        with pytest.raises(GradError, match="log made NaN") as caught:
            log(x) * y
    assert "test_autograd.py:" in caught.value.line


def test_anomaly_mode_sees_the_backward_pass():
    from bestiary.core.ops.elementwise import sqrt

    x = leaf(0.0)
    with bt.detect_anomaly():
        y = sqrt(x).sum()
        with pytest.raises(GradError, match="divide made infinity") as caught:
            y.backward()
    assert any("backward pass of sqrt" in note for note in caught.value.__notes__)


def test_observed_backward_equals_the_bare_one():
    from bestiary.core.state import observing

    x = bt.tensor(np.linspace(-2, 2, 12, dtype=np.float32).reshape(3, 4), requires_grad=True)
    seen = []

    def loss() -> bt.Tensor:
        return (tanh(x) * x.sum(axis=1, keepdims=True) / 3).mean()

    bare = bt.grad(loss(), x)
    with observing(lambda op, operands, constants, run: (seen.append(op.name), run())[1]):
        watched = bt.grad(loss(), x)
    np.testing.assert_array_equal(bare.numpy(), watched.numpy())
    assert seen.count("tanh") == 1 and seen.count("multiply") > 2


# -- halves -------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [bt.float16, bt.bfloat16], ids=str)
def test_half_types_compute_in_float32_and_round_once(dtype):
    ones = bt.ones((4096,), dtype=dtype)
    assert ones.sum().item() == 4096.0
    x = bt.tensor(np.linspace(0.5, 2, 64, dtype=np.float32), dtype=dtype, requires_grad=True)
    wide = x.detach().astype(bt.float32).requires_grad_()
    (multiply(x, x) * x).sum().backward()
    rounded = (wide.detach() * wide.detach()).astype(dtype).astype(bt.float32)
    expected = rounded.array + 2 * wide.array * wide.array
    assert x.grad.dtype == dtype
    np.testing.assert_array_equal(x.grad.array, expected.astype(dtype))


def test_half_gradients_accumulate_in_float32():
    x = bt.ones((), dtype=bt.bfloat16).requires_grad_()
    y = x * 1.0
    total = y * 0.0
    for _ in range(300):
        total = total + y
    total.backward()
    assert x.grad.item() == 300.0  # in bfloat16 steps of 1 the sum would stop at 256


# -- complex ------------------------------------------------------------------------------------


def test_complex_gradients_follow_the_conjugate_convention():
    z = bt.tensor([1 + 2j, -0.5 + 1j], dtype=bt.complex128, requires_grad=True)
    abs(z * z).sum().backward()
    expected = 2 * z.array * np.abs(z.array) / np.abs(z.array) ** 0  # d|z|^2 = 2z
    np.testing.assert_allclose(z.grad.numpy(), expected / np.abs(z.array))


def test_real_operand_of_a_complex_product_gets_a_real_gradient():
    x = leaf(1.0, 2.0)
    z = bt.tensor([1 + 1j, 2 - 1j])
    abs(x * z).sum().backward()
    assert x.grad.dtype == bt.float32
    np.testing.assert_allclose(x.grad.numpy(), np.abs(z.array), rtol=1e-6)
