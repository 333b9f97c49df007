"""bt.compile of training steps: the numbers of eager steps, or the step itself with a warning."""

from __future__ import annotations

import gc
import random as python_random
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import step_nets
from step_nets import Net, Step, batches

import bestiary as bt
from bestiary import nn, optim
from bestiary.core.errors import IndexRangeError
from bestiary.core.graph import steps as steps_file
from bestiary.core.graph.compiled import Compiled
from bestiary.core.nn import functional as F
from bestiary.core.notice import CompileWarning, TrainingWarning, forget_warnings


def training(optimizer_class: type = optim.Adam, **settings: Any) -> tuple[Any, Any, Step]:
    return step_nets.training(optimizer_class, **{"lr": 0.01, **settings})


def run(net: nn.Module, step: Step, data: list[Any], after: Callable[[], None] = lambda: None):
    losses = []
    for batch in data:
        losses.append(step(*batch).item())
        after()
    return losses, {name: t.numpy().copy() for name, t in net.state_dict().items()}


def assert_equal(found: Any, wanted: Any) -> None:
    np.testing.assert_allclose(found[0], wanted[0], rtol=1e-5, atol=1e-6)
    for name, value in wanted[1].items():
        np.testing.assert_allclose(found[1][name], value, rtol=1e-4, atol=1e-5, err_msg=name)


@pytest.mark.parametrize(
    "optimizer, settings",
    [
        (optim.Adam, {}),
        (optim.AdamW, {"weight_decay": 0.1}),
        (optim.SGD, {"momentum": 0.9, "nesterov": True}),
        (optim.RMSprop, {}),
    ],
    ids=lambda v: getattr(v, "__name__", ""),
)
def test_steps_equal_eager_ones_with_a_schedule_and_random_numbers(optimizer, settings) -> None:
    data = batches(25)
    net, chosen, step = training(optimizer, **settings)
    wanted = run(net, step, data, optim.CosineAnnealingLR(chosen, 25).step)
    stream = bt.random.get_state()
    net, chosen, step = training(optimizer, **settings)
    fast = bt.compile(step)
    assert_equal(run(net, fast, data, optim.CosineAnnealingLR(chosen, 25).step), wanted)
    assert len(fast.explain()) == 1 and len(set(wanted[0])) == 25
    assert bt.random.get_state()["generators"] == stream["generators"]
    assert int(net.norm.num_batches_tracked.item()) == 25
    assert all(p.grad is not None for p in net.parameters())


def test_a_last_batch_of_another_size_has_a_program_of_its_own() -> None:
    data = (batches(4) + batches(1, size=3)) * 5
    net, _, step = training()
    wanted = run(net, step, data)
    net, _, step = training()
    fast = bt.compile(step)
    assert_equal(run(net, fast, data), wanted)
    assert {e.inputs[0][0] for e in fast.explain()} == {3, 6}


def test_gradients_that_accumulate_and_are_clipped() -> None:
    def made() -> tuple[Net, Step, Step]:
        net, optimizer, _ = training()

        def add(x: bt.Tensor, y: bt.Tensor) -> bt.Tensor:
            loss = F.cross_entropy(net(x), y) * 0.5
            loss.backward()
            return loss

        def finish() -> bt.Tensor:
            norm = optim.clip_grad_norm_(net.parameters(), 0.3)
            optimizer.step()
            optimizer.zero_grad()
            return norm

        return net, add, finish

    def both(add: Step, finish: Step) -> Step:
        def step(first: Any, second: Any) -> bt.Tensor:
            return add(*first) + add(*second).detach() + finish()

        return step

    data = list(zip(batches(12), batches(12, size=6)[::-1], strict=True))
    net, add, finish = made()
    wanted = run(net, both(add, finish), data)
    net, add, finish = made()
    fast_add, fast_finish = bt.compile(add), bt.compile(finish)
    assert_equal(run(net, both(fast_add, fast_finish), data), wanted)
    assert (len(fast_add.explain()), len(fast_finish.explain())) == (2, 1)
    assert all(p.grad is None for p in net.parameters())


def test_two_networks_that_train_against_each_other() -> None:
    def made() -> tuple[nn.Module, Step]:
        bt.manual_seed(0)
        maker, judge = nn.Linear(4, 3), nn.Linear(3, 1)
        both = nn.ModuleList([maker, judge])
        first, second = optim.Adam(maker.parameters()), optim.Adam(judge.parameters())

        def step(noise: bt.Tensor, real: bt.Tensor) -> bt.Tensor:
            second.zero_grad()
            wrong = judge(maker(noise).detach()).mean() - judge(real).mean()
            wrong.backward()
            second.step()
            second.zero_grad()
            first.zero_grad()
            loss = -judge(maker(noise)).mean()
            loss.backward()
            first.step()
            return loss + wrong.detach()

        return both, step

    rng = np.random.default_rng(1)
    data = [
        tuple(bt.Tensor(rng.normal(size=(5, n)).astype(np.float32)) for n in (4, 3))
        for _ in range(12)
    ]
    net, step = made()
    wanted = run(net, step, data)
    net, step = made()
    fast = bt.compile(step)
    assert_equal(run(net, fast, data), wanted)
    assert len(fast.explain()) == 1


def test_second_order_gradients_and_mixed_precision() -> None:
    def made() -> tuple[nn.Module, Step]:
        bt.manual_seed(0)
        net = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))
        optimizer = optim.SGD(net.parameters(), lr=0.05)

        def step(x: bt.Tensor) -> bt.Tensor:
            points = x.detach().requires_grad_()
            slope = bt.grad(net(points).sum(), points, create_graph=True)
            with bt.autocast(bt.bfloat16):
                value = net(x).astype(bt.float32)
            loss = (((slope**2).sum(axis=1) - 1) ** 2).mean() + (value**2).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            return loss

        return net, step

    rng = np.random.default_rng(1)
    data = [(bt.Tensor(rng.normal(size=(6, 4)).astype(np.float32)),) for _ in range(10)]
    net, step = made()
    wanted = run(net, step, data)
    net, step = made()
    fast = bt.compile(step)
    assert_equal(run(net, fast, data), wanted)
    assert len(fast.explain()) == 1


def test_a_scaler_leaves_out_what_overflows() -> None:
    def made() -> tuple[nn.Module, Step]:
        bt.manual_seed(0)
        net = nn.Linear(4, 2)
        optimizer = optim.SGD(net.parameters(), lr=0.1)
        scaler = bt.optim.GradScaler(init_scale=4.0, growth_interval=3)

        def step(x: bt.Tensor) -> bt.Tensor:
            loss = (net(x) ** 2).mean()
            optimizer.zero_grad()
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
            return loss

        return net, step

    data = [(bt.Tensor(np.full((3, 4), v, np.float32)),) for v in (1, 2, 1, 2, 1e38, 3, 1, 2)]
    net, step = made()
    with np.errstate(over="ignore", invalid="ignore"):
        wanted = run(net, step, data)
        net, step = made()
        fast = bt.compile(step)
        found = run(net, fast, data)
    assert_equal(found, wanted)
    assert np.isfinite(found[1]["weight"]).all() and len(fast.explain()) == 1


# -- what is given back ----------------------------------------------------------------------------


def test_a_function_whose_result_is_differentiated_later_runs_as_it_is() -> None:
    net, _, _ = training()
    fast = bt.compile(lambda x, y: F.cross_entropy(net(x), y))
    for x, y in batches(5):
        net.zero_grad()
        fast(x, y).backward()
        assert net.conv.weight.grad is not None
    assert fast.explain() == []


def test_gradients_of_an_input_are_left_to_the_step() -> None:
    _, _, step = training()
    fast = bt.compile(step)
    for x, y in batches(5):
        x.requires_grad_()
        fast(x, y)
        assert x.grad is not None
    assert fast.explain() == []


def left_as_it_is(step: Step, word: str, *inputs: Any, calls: int = 9) -> Compiled:
    fast = bt.compile(step)

    def call() -> None:
        for _ in range(calls):
            fast(*inputs)

    with pytest.warns(CompileWarning, match=word):
        call()
    assert fast.explain() == []
    return fast


def test_python_that_looks_at_values_is_named_with_its_line() -> None:
    _, _, step = training()

    def looking(x: bt.Tensor, y: bt.Tensor) -> float:
        return step(x, y).item()

    left_as_it_is(looking, r"item\(\) at .*test_steps.py:\d+", *batches(1)[0])


def test_numbers_that_change_at_every_call_are_found() -> None:
    w, count = nn.Parameter(np.ones(3, np.float32)), [0.0]

    def step(x: bt.Tensor) -> bt.Tensor:
        count[0] += 1
        loss = (w * x * count[0]).sum()
        w.grad = None
        loss.backward()
        return loss

    left_as_it_is(step, r"multiply took \d.0 in one call and \d.0 in the next", bt.ones((3,)))


def test_arrays_that_python_makes_anew_are_found() -> None:
    w, rng = nn.Parameter(np.ones(3, np.float32)), np.random.default_rng(0)

    def step(x: bt.Tensor) -> bt.Tensor:
        loss = (w * x * bt.Tensor(rng.random(3, np.float32))).sum()
        w.grad = None
        loss.backward()
        return loss

    left_as_it_is(step, "must be an argument", bt.ones((3,)))


def test_random_numbers_of_python_are_found() -> None:
    w = nn.Parameter(np.ones(3, np.float32))

    def step(x: bt.Tensor) -> bt.Tensor:
        python_random.random()
        loss = (w * x).sum()
        w.grad = None
        loss.backward()
        return loss

    left_as_it_is(step, "random numbers of Python", bt.ones((3,)))


def test_a_schedule_that_is_stepped_within_is_found() -> None:
    _, optimizer, step = training()
    schedule = optim.CosineAnnealingLR(optimizer, 50)

    def scheduled(x: bt.Tensor, y: bt.Tensor) -> bt.Tensor:
        loss = step(x, y)
        schedule.step()
        return loss

    left_as_it_is(scheduled, "by other means than operations", *batches(1)[0])


def test_hooks_run_at_every_call() -> None:
    net, _, step = training()
    seen: list[Any] = []
    net.conv.weight.register_hook(lambda g: seen.append(g.shape))
    left_as_it_is(step, "hooks", *batches(1)[0])
    assert len(seen) == 9


def test_numbers_around_the_step_are_part_of_what_is_compiled() -> None:
    w, factor = nn.Parameter(np.ones(3, np.float32)), 1.0

    def step(x: bt.Tensor) -> bt.Tensor:
        loss = (w * x).sum() * factor
        w.grad = None
        loss.backward()
        return loss

    fast, x = bt.compile(step), bt.ones((3,))
    assert [fast(x).item() for _ in range(5)] == [3.0] * 5
    factor = 2.0
    assert [fast(x).item() for _ in range(5)] == [6.0] * 5
    factor = 1.0
    assert fast(x).item() == 3.0 and len(fast.explain()) == 2


def test_what_python_does_otherwise_later_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steps_file, "_LOOK_AGAIN", 2)
    w, settings = nn.Parameter(np.ones(3, np.float32)), {"factor": 1.0}

    def step(x: bt.Tensor) -> bt.Tensor:
        loss = (w * x).sum() * settings["factor"]
        w.grad = None
        loss.backward()
        return loss

    fast, x = bt.compile(step), bt.ones((3,))
    assert [fast(x).item() for _ in range(4)] == [3.0] * 4
    settings["factor"] = 2.0
    with pytest.warns(CompileWarning, match="1.0 .* 2.0"):
        values = [fast(x).item() for _ in range(4)]
    assert values[-2:] == [6.0, 6.0] and fast(x).item() == 6.0


def test_modes_layers_and_loaded_weights_are_seen() -> None:
    data = batches(6)
    net, _, step = training()
    fast = bt.compile(step)
    for x, y in data:
        fast(x, y)
    tracked = int(net.norm.num_batches_tracked.item())
    net.eval()  # no dropout, and running statistics that stay
    for _ in range(5):
        fast(*data[0])
    assert int(net.norm.num_batches_tracked.item()) == tracked == 6
    net.train()
    fast(*data[0])
    assert int(net.norm.num_batches_tracked.item()) == 7
    net.load_state_dict({k: t * 0 for k, t in net.state_dict().items()}, assign=True)
    for _ in range(5):
        loss = fast(*data[0])
    assert loss.item() == pytest.approx(np.log(5), abs=0.2)


def test_a_forgotten_zero_grad_is_told_once() -> None:
    w = nn.Parameter(np.ones(3, np.float32))
    optimizer = optim.SGD([w], lr=0.0)

    def step(x: bt.Tensor) -> None:
        (w * x).sum().backward()
        optimizer.step()

    fast, x = bt.compile(step), bt.ones((3,))

    def call() -> None:
        for count in range(1, 8):
            fast(x)
            assert w.grad is not None and w.grad.tolist() == [count] * 3

    forget_warnings()
    with pytest.warns(TrainingWarning, match="zero_grad"):
        call()
    assert len(fast.explain()) == 1


def test_errors_of_the_step_are_those_of_the_step() -> None:
    _, _, step = training()
    fast = bt.compile(step)
    x, y = batches(1)[0]
    for _ in range(5):
        fast(x, y)
    with pytest.raises(IndexRangeError, match="7"):
        fast(x, bt.Tensor(np.full(6, 7)))
    assert np.isfinite(fast(x, y).item())


def test_gradients_that_were_replaced_are_let_go() -> None:
    w = nn.Parameter(np.ones(3, np.float32))

    def step(x: bt.Tensor) -> bt.Tensor:
        loss = (w * x).sum()
        loss.backward()  # adds to the gradient of the call before
        return loss

    fast, x, kept = bt.compile(step), bt.ones((3,)), []
    for _ in range(8):
        fast(x)
        assert w.grad is not None
        kept.append(weakref.ref(w.grad.array))
    assert len(fast.explain()) == 1
    gc.collect()
    assert [ref() is not None for ref in kept] == [False] * 7 + [True]
