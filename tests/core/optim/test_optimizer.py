"""Groups, buckets, steps, state dicts, and what optimizers say about mistakes."""

from __future__ import annotations

import copy
import gc
import warnings
from typing import Any

import numpy as np
import pytest

import bestiary as bt
from bestiary.core import notice
from bestiary.core.errors import ConfigError, GradError, WeightsError
from bestiary.core.optim.group import SHARED_BELOW

EVERY = {
    "SGD": {"momentum": 0.9},
    "Adam": {"amsgrad": True},
    "AdamW": {},
    "RMSprop": {"momentum": 0.5, "centered": True},
    "Adagrad": {"initial_accumulator_value": 0.1},
    "Lion": {"weight_decay": 0.1},
    "Adafactor": {"weight_decay": 0.1},
    "Muon": {},
}


def params(*shapes: tuple[int, ...], seed: int = 0, dtype: Any = np.float32) -> list[Any]:
    rng = np.random.default_rng(seed)
    return [bt.nn.Parameter(rng.standard_normal(s).astype(dtype)) for s in shapes]


def give(items: list[Any], seed: int, *, skip: tuple[int, ...] = ()) -> None:
    rng = np.random.default_rng(seed)
    for i, p in enumerate(items):
        g = rng.standard_normal(p.shape).astype(p.dtype)
        p.grad = None if i in skip else bt.asarray(g)


def make(name: str, items: list[Any], **settings: Any) -> Any:
    return getattr(bt.optim, name)(items, **{**EVERY[name], **settings})


MATRICES = ((3, 4), (5, 2), (4, 4))


@pytest.mark.parametrize("name", EVERY)
def test_a_parameter_without_gradient_is_left_alone(name):
    """Each parameter behaves as if it had an optimizer of its own, whatever the others do."""
    together, alone = params(*MATRICES), params(*MATRICES)
    one = make(name, together)
    each = [make(name, [p]) for p in alone]
    for step, skip in enumerate([(), (1,), (1,), (0,), (0, 2), (0, 1, 2), ()]):
        give(together, step, skip=skip)
        give(alone, step, skip=skip)
        one.step()
        for optimizer in each:
            optimizer.step()
        for p, q in zip(together, alone, strict=True):
            np.testing.assert_array_equal(p.array, q.array)


@pytest.mark.parametrize("name", EVERY)
def test_resuming_is_exact(name):
    items = params(*MATRICES)
    optimizer = make(name, items)
    for step in range(6):
        give(items, step, skip=(1,) if step == 3 else ())
        optimizer.step()
    saved = copy.deepcopy(optimizer.state_dict())
    resumed = [bt.nn.Parameter(p.array.copy()) for p in items]
    second = make(name, resumed, lr=123.0)
    second.load_state_dict(saved)
    assert second.param_groups[0]["lr"] == optimizer.param_groups[0]["lr"]
    for step in range(6, 12):
        for each, of in ((optimizer, items), (second, resumed)):
            give(of, step, skip=(2,) if step == 8 else ())
            each.step()
    for p, q in zip(items, resumed, strict=True):
        np.testing.assert_array_equal(p.array, q.array)


def test_state_dict_has_the_structure_of_torch():
    items = params((3, 4), (5,))
    groups = [{"params": items[:1], "lr": 0.5}, {"params": items[1:], "betas": (0.5, 0.6)}]
    optimizer = bt.optim.AdamW(groups)
    assert optimizer.state_dict()["state"] == {}
    give(items, 0)
    optimizer.step()
    state = optimizer.state_dict()
    assert [group["params"] for group in state["param_groups"]] == [[0], [1]]
    assert state["param_groups"][0]["lr"] == 0.5
    assert state["param_groups"][1]["betas"] == (0.5, 0.6)
    assert set(state["state"]) == {0, 1}
    assert set(state["state"][0]) == {"step", "exp_avg", "exp_avg_sq"}
    assert state["state"][0]["exp_avg"].shape == (3, 4)
    assert state["state"][1]["step"].item() == 1.0
    np.testing.assert_allclose(
        state["state"][1]["exp_avg"].array, 0.5 * items[1].grad.array, rtol=1e-6
    )


def test_a_state_dict_of_torch_loads():
    items = params((3, 4), (5,))
    optimizer = bt.optim.SGD(items, lr=0.1)
    momenta = [np.full(p.shape, 2.0, np.float32) for p in items]
    optimizer.load_state_dict(
        {
            "state": {i: {"momentum_buffer": m} for i, m in enumerate(momenta)},
            "param_groups": [
                {"lr": 0.01, "momentum": 0.5, "foreach": None, "fused": None, "params": [0, 1]}
            ],
        }
    )
    before = [p.array.copy() for p in items]
    give(items, 0)
    optimizer.step()
    for p, was in zip(items, before, strict=True):
        np.testing.assert_allclose(p.array, was - 0.01 * (1.0 + p.grad.array), rtol=1e-5)


def test_a_state_dict_of_other_parameters_is_refused_unchanged():
    items, other = params((3, 4), (5,)), params((3, 4), (6,))
    first, second = make("Adam", items), make("Adam", other)
    give(items, 0)
    give(other, 0)
    first.step()
    second.step()
    before = copy.deepcopy(second.state_dict())
    with pytest.raises(WeightsError, match=r"exp_avg of parameter 1 has shape \(5,\)"):
        second.load_state_dict(first.state_dict())
    with pytest.raises(WeightsError, match="a group has 1 parameters, here it has 2"):
        second.load_state_dict(make("Adam", params((2,))).state_dict())
    with pytest.raises(WeightsError, match="1 groups"):
        bt.optim.SGD([{"params": [p]} for p in params((2,), (2,))]).load_state_dict(
            bt.optim.SGD(params((2,), (2,))).state_dict()
        )
    after = second.state_dict()
    for key, value in before["state"][1].items():
        np.testing.assert_array_equal(after["state"][1][key].array, value.array)


# -- memory ------------------------------------------------------------------------------------


def test_small_parameters_share_a_buffer_and_large_ones_stay():
    small, large = params((3, 4), (5,)), params((SHARED_BELOW // 4, 4))
    values = [p.array.copy() for p in small]
    where = large[0].array
    optimizer = bt.optim.SGD([*small, *large], lr=0.5)
    assert large[0].array is where
    assert small[0].array.base is small[1].array.base is not None
    for p, value in zip(small, values, strict=True):
        np.testing.assert_array_equal(p.array, value)
    assert len(optimizer.param_groups[0].buckets) == 2


def test_a_large_parameter_is_updated_in_blocks():
    (p,) = params((300, 700))
    (q,) = params((300, 700), dtype=np.float64)
    q.array[...] = p.array
    ours, exact = bt.optim.Adam([p], lr=0.1), bt.optim.Adam([q], lr=0.1)
    for step in range(3):
        give([p], step)
        q.grad = bt.asarray(p.grad.array.astype(np.float64))
        ours.step()
        exact.step()
    np.testing.assert_allclose(p.array, q.array, atol=2e-6)


def test_gradients_are_only_read():
    items = params((3, 4), (5,), (SHARED_BELOW + 1,))
    for name, settings in (
        ("SGD", {"momentum": 0.9, "nesterov": True, "weight_decay": 0.1, "maximize": True}),
        ("Adam", {"weight_decay": 0.1, "maximize": True}),
        ("Lion", {"maximize": True}),
        ("RMSprop", {"weight_decay": 0.1, "maximize": True}),
        ("Adagrad", {"weight_decay": 0.1, "maximize": True}),
    ):
        optimizer = getattr(bt.optim, name)(items, **settings)
        give(items, 1)
        for p in items:
            p.grad.array.flags.writeable = False
        optimizer.step()
        optimizer.step()


def test_memory_that_cannot_be_written_is_copied():
    frozen = np.ones((4, 6), np.float32)
    frozen.flags.writeable = False
    strided = np.ones((6, 8), np.float32)[:, ::2]
    items = [bt.nn.Parameter(frozen), bt.nn.Parameter(strided)]
    optimizers = [bt.optim.SGD([p], lr=0.5) for p in items]
    for p, optimizer in zip(items, optimizers, strict=True):
        p.grad = bt.asarray(np.ones(p.shape, np.float32))
        optimizer.step()
        np.testing.assert_array_equal(p.array, np.full(p.shape, 0.5))
    assert frozen.all()


def test_two_optimizers_on_the_same_parameters():
    items, reference = params((3, 4), (5,)), params((3, 4), (5,), dtype=np.float64)
    for p, q in zip(items, reference, strict=True):
        q.array[...] = p.array
    first, second = bt.optim.SGD(items, lr=0.1, momentum=0.5), bt.optim.SGD(items, lr=0.01)
    momenta = [np.zeros(q.shape) for q in reference]
    for step in range(6):
        give(items, step)
        (first if step % 2 else second).step()
        for p, q, m in zip(items, reference, momenta, strict=True):
            if step % 2:
                m *= 0.5
                m += p.grad.array
                q.array[...] -= 0.1 * m
            else:
                q.array[...] -= 0.01 * p.grad.array
    for p, q in zip(items, reference, strict=True):
        np.testing.assert_allclose(p.array, q.array, rtol=1e-5, atol=1e-6)


def test_a_model_that_is_converted_between_steps_goes_on():
    model = bt.nn.Sequential(Linear(4, 5), Linear(5, 2))
    optimizer = bt.optim.Adam(model.parameters(), lr=0.1)
    x = bt.asarray(np.ones((3, 4), np.float32))
    (model(x) ** 2).sum().backward()
    optimizer.step()
    model.to(bt.float64)
    assert all(p.grad.dtype == np.float64 for p in model.parameters())
    optimizer.zero_grad()
    before = [p.array.copy() for p in model.parameters()]
    (model(x.astype(bt.float64)) ** 2).sum().backward()
    optimizer.step()
    for p, was in zip(model.parameters(), before, strict=True):
        assert p.dtype == np.float64
        assert not np.array_equal(p.array, was)
    assert optimizer.state_dict()["state"][0]["step"].item() == 2


def test_loading_weights_between_steps_goes_on():
    model = bt.nn.Sequential(Linear(4, 5), Linear(5, 2))
    optimizer = bt.optim.SGD(model.parameters(), lr=1.0)
    for assign in (False, True):
        ones = {k: np.ones(v.shape, np.float32) for k, v in model.state_dict().items()}
        model.load_state_dict(ones, assign=assign)
        for p in model.parameters():
            p.grad = bt.asarray(np.full(p.shape, 0.25, np.float32))
        optimizer.step()
        for p in model.parameters():
            np.testing.assert_array_equal(p.array, np.full(p.shape, 0.75))


@pytest.mark.parametrize("dtype", [bt.float16, bt.bfloat16])
@pytest.mark.parametrize("name", EVERY)
def test_halves_are_updated_in_float32(name, dtype):
    wide, half = params(*MATRICES), params(*MATRICES)
    for p, q in zip(wide, half, strict=True):
        p.array = p.array.astype(dtype).astype(np.float32)
        q.array = q.array.astype(dtype)
        q.requires_grad_(False).requires_grad_()
    first, second = make(name, wide, lr=0.05), make(name, half, lr=0.05)
    give(wide, 0)
    for p, q in zip(wide, half, strict=True):
        q.grad = bt.asarray(p.grad.array.astype(dtype))
        p.grad = bt.asarray(q.grad.array.astype(np.float32))
    first.step()
    second.step()
    for p, q in zip(wide, half, strict=True):
        assert q.array.dtype == dtype
        np.testing.assert_array_equal(q.array, p.array.astype(dtype))
    assert all(
        value.dtype == np.float32
        for entry in second.state_dict()["state"].values()
        for value in entry.values()
    )


def test_a_step_invalidates_graphs_that_saved_the_weights():
    items = params((3, 4), (5,))
    loss = (items[0] * items[0]).sum()
    optimizer = bt.optim.SGD(items)
    loss2 = (items[0] * items[0]).sum()
    give(items, 0)
    optimizer.step()
    optimizer.zero_grad()
    with pytest.raises(GradError, match="changed in place"):
        loss2.backward()
    loss.backward()  # recorded before the optimizer moved them: it keeps the old memory


def test_optimizers_free_their_memory():
    items = params((3, 4))
    optimizer = bt.optim.Adam(items)
    give(items, 0)
    optimizer.step()
    import weakref

    gone = weakref.ref(optimizer)
    gc.collect()
    gc.disable()
    try:
        del optimizer
        assert gone() is None
    finally:
        gc.enable()


# -- groups and settings -----------------------------------------------------------------------


def test_settings_are_read_and_written_as_numbers():
    items = params((2,), (3,))
    optimizer = bt.optim.Adam([{"params": items[:1], "lr": 0.5}, {"params": items[1:]}], lr=0.25)
    first, second = optimizer.param_groups
    assert (first["lr"], second["lr"]) == (0.5, 0.25)
    first["lr"] = bt.tensor(0.75)
    first["betas"] = [0.5, 0.6]
    assert type(first["lr"]) is float
    assert first["lr"] == 0.75
    scalars = first.scalars(items[0].device)
    np.testing.assert_allclose(scalars.array, [0.75, 0.5, 0.6, 1e-8, 0.0])
    first.update(lr=1)
    assert scalars.array[0] == 1.0
    assert "lr" in first
    assert "lr=1.0" in repr(optimizer)


def test_named_parameters_and_late_groups():
    model = Linear(3, 4)
    optimizer = bt.optim.SGD(model.named_parameters(), lr=1.0)
    extra = params((2,))
    optimizer.add_param_group({"params": extra, "lr": 2.0})
    give([*model.parameters(), *extra], 0)
    before = extra[0].array.copy()
    optimizer.step()
    np.testing.assert_allclose(extra[0].array, before - 2 * extra[0].grad.array, rtol=1e-6)


def test_frozen_parameters_join_when_they_thaw():
    items = params((3, 4), (5,))
    items[1].requires_grad_(False)
    optimizer = bt.optim.Adam(items, lr=0.1)
    before = items[1].array.copy()
    give(items[:1], 0)
    optimizer.step()
    np.testing.assert_array_equal(items[1].array, before)
    items[1].requires_grad_()
    items[0].requires_grad_(False)
    kept = items[0].array.copy()
    give(items[1:], 1)
    optimizer.step()
    np.testing.assert_array_equal(items[0].array, kept)
    np.testing.assert_allclose(
        items[1].array, before - 0.1 * np.sign(items[1].grad.array), rtol=1e-4
    )
    assert [e["step"].item() for e in optimizer.state_dict()["state"].values()] == [1, 1]


def test_a_closure_is_run_with_gradients():
    (p,) = params((3,))
    optimizer = bt.optim.SGD([p], lr=0.1)

    def closure() -> Any:
        optimizer.zero_grad()
        loss = (p * p).sum()
        loss.backward()
        return loss

    with bt.no_grad():
        first = optimizer.step(closure)
    assert optimizer.step(closure).item() < first.item()


def test_zero_grad_forgets_or_zeroes():
    items = params((2,), (3,))
    items[1].requires_grad_(False)
    optimizer = bt.optim.SGD(items)
    give(items[:1], 0)
    shared = items[0].grad.array
    optimizer.zero_grad(set_to_none=False)
    assert not items[0].grad.array.any()
    assert shared.any()
    optimizer.zero_grad()
    assert items[0].grad is None


# -- mistakes ----------------------------------------------------------------------------------


def test_no_parameters_at_all():
    with pytest.raises(ConfigError, match="0 parameters") as caught:
        bt.optim.Adam([])
    assert "tuple" in str(caught.value)
    assert "generator" in str(caught.value)
    assert caught.value.given == 0


def test_all_parameters_frozen():
    model = Linear(3, 4).requires_grad_(False)
    with pytest.raises(ConfigError, match=r"2 parameters \(16 numbers\) and all") as caught:
        bt.optim.Adam(model.parameters())
    assert "requires_grad_(True)" in str(caught.value)
    assert caught.value.frozen == 2


def test_wrong_arguments():
    model = Linear(3, 4)
    weight = model.weight
    with pytest.raises(ConfigError, match=r"model\.parameters\(\)"):
        bt.optim.SGD(model)
    with pytest.raises(ConfigError, match=r"\[parameter\]"):
        bt.optim.SGD(weight)
    with pytest.raises(ConfigError, match="use a list"):
        bt.optim.SGD(set(model.parameters()))
    with pytest.raises(ConfigError, match="got ndarray"):
        bt.optim.SGD([np.ones(3)])
    with pytest.raises(GradError, match="result of an operation"):
        bt.optim.SGD([weight * 2])
    with pytest.raises(ConfigError, match="given twice"):
        bt.optim.SGD([weight, weight])
    with pytest.raises(ConfigError, match="no setting 'learning_rate'"):
        bt.optim.SGD([{"params": [weight], "learning_rate": 1}])
    with pytest.raises(ConfigError, match="lr is 0 or more"):
        bt.optim.SGD([weight], lr=-1)
    with pytest.raises(ConfigError, match="betas is from 0 up to 1"):
        bt.optim.Adam([weight], betas=(0.9, 1.0))
    with pytest.raises(ConfigError, match="nesterov needs momentum"):
        bt.optim.SGD([weight], nesterov=True)
    with pytest.raises(ConfigError, match=r"matrices, got a parameter of shape \(4,\)"):
        bt.optim.Muon(model.parameters())


def test_forgotten_zero_grad_is_noticed_once():
    model = Linear(3, 4)
    optimizer = bt.optim.SGD(model.parameters())
    x = bt.asarray(np.ones((2, 3), np.float32))
    notice.forget_warnings()
    model(x).sum().backward()
    model(x).sum().backward()  # accumulation before a step is fine
    optimizer.step()
    with pytest.warns(bt.nn.TrainingWarning, match="after optimizer step 1"):
        model(x).sum().backward()
    optimizer.step()
    model(x).sum().backward()  # and once only


def test_cleared_gradients_are_not_noticed():
    model = Linear(3, 4)
    optimizer = bt.optim.SGD(model.parameters())
    x = bt.asarray(np.ones((2, 3), np.float32))
    notice.forget_warnings()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for clear in (optimizer.zero_grad, model.zero_grad):
            for _ in range(2):
                clear()
                model(x).sum().backward()
                model(x).sum().backward()
                bt.optim.clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step()
        for p in model.parameters():
            p.grad = None
        model(x).sum().backward()


class Linear(bt.nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        self.weight = bt.nn.init.normal_(bt.nn.init.parameter(outputs, inputs))
        self.bias = bt.nn.init.zeros_(bt.nn.init.parameter(outputs))

    def forward(self, x: Any) -> Any:
        return x @ self.weight.T + self.bias
