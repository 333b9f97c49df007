"""A recorded training step, replayed by the reference interpreter, equals eager steps."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import bestiary as bt
from bestiary.core.graph import record, replay

CASES = {
    "SGD": {"momentum": 0.9, "dampening": 0.5, "weight_decay": 0.01},
    "Adam": {"amsgrad": True},
    "AdamW": {},
    "RMSprop": {"momentum": 0.9},
    "Adagrad": {"lr_decay": 0.1},
    "Lion": {},
    "Adafactor": {},
    "Muon": {},
}


def model() -> tuple[list[Any], Any]:
    rng = np.random.default_rng(0)
    shapes = ((6, 4), (3, 6))
    items = [bt.nn.Parameter(rng.standard_normal(s).astype(np.float32)) for s in shapes]

    def loss(x: Any) -> Any:
        hidden = x @ items[0].T
        return (((hidden * hidden) @ items[1].T) ** 2).mean()

    return items, loss


@pytest.mark.parametrize("name", CASES)
def test_twenty_replayed_steps_follow_a_schedule(name):
    results = []
    for recorded in (False, True):
        items, loss = model()
        optimizer = getattr(bt.optim, name)(items, lr=0.05, **CASES[name])
        schedule = bt.optim.SequentialLR(
            optimizer,
            [bt.optim.LinearLR(optimizer, 0.1), bt.optim.ExponentialLR(optimizer, 0.9)],
            [5],
        )

        def step(x: Any, loss: Any = loss, optimizer: Any = optimizer, items: Any = items) -> Any:
            optimizer.zero_grad()
            value = loss(x)
            value.backward()
            bt.optim.clip_grad_norm_(items, 0.5)
            optimizer.step()
            return value

        rng = np.random.default_rng(1)
        graph = None
        losses = []
        for _ in range(20):
            x = bt.asarray(rng.standard_normal((5, 4)).astype(np.float32))
            if not recorded:
                value = step(x)
            elif graph is None:
                graph, value = record(step, x)
            else:
                (value,) = replay(graph, x)
            losses.append(value.item())
            schedule.step()
        results.append((losses, [p.array.copy() for p in items], optimizer.state_dict()))
    (eager_losses, eager, eager_state), (replayed_losses, replayed, state) = results
    np.testing.assert_allclose(replayed_losses, eager_losses, rtol=1e-5)
    for p, q in zip(eager, replayed, strict=True):
        np.testing.assert_allclose(q, p, rtol=1e-5, atol=1e-6)
    for number, entry in eager_state["state"].items():
        for key, value in entry.items():
            np.testing.assert_allclose(
                state["state"][number][key].array, value.array, rtol=2e-4, atol=1e-6
            )
