"""The proof of the engine: a recorded training step, replayed, equals eager training.

The step has everything that could go wrong: dropout (fresh random numbers at every replay),
batch norm (running statistics written in place), Adam with a learning rate that changes (scalars
read from tensors), gradients through convolution, and the backward pass itself.
"""

from __future__ import annotations

import numpy as np
import pytest
from step_nets import batches, training

import bestiary as bt
from bestiary import nn, optim
from bestiary.core.errors import ShapeError
from bestiary.core.graph import record, replay


@pytest.mark.parametrize(
    "optimizer, settings",
    [
        (optim.Adam, {"lr": 0.01}),
        (optim.AdamW, {"lr": 0.01, "weight_decay": 0.1}),
        (optim.SGD, {"lr": 0.05, "momentum": 0.9, "nesterov": True}),
        (optim.RMSprop, {"lr": 0.01}),
    ],
    ids=lambda v: getattr(v, "__name__", ""),
)
def test_twenty_replays_equal_twenty_eager_steps(optimizer, settings):
    data = batches(23)
    eager, chosen, step = training(optimizer, **settings)
    schedule = optim.CosineAnnealingLR(chosen, 25)
    expected = []
    for x, y in data:
        expected.append(step(x, y).item())
        schedule.step()
    wanted = {name: t.numpy().copy() for name, t in eager.state_dict().items()}

    net, chosen, step = training(optimizer, **settings)
    schedule = optim.CosineAnnealingLR(chosen, 25)
    losses = []
    for x, y in data[:2]:  # moments and gradients exist before the recording
        losses.append(step(x, y).item())
        schedule.step()
    graph, loss = record(step, *data[2])
    losses.append(loss.item())
    schedule.step()
    for x, y in data[3:]:
        losses.append(replay(graph, x, y)[0].item())
        schedule.step()
    np.testing.assert_allclose(losses, expected, rtol=1e-5, atol=1e-6)
    assert len(set(losses)) == len(losses)
    for name, tensor in net.state_dict().items():
        np.testing.assert_allclose(tensor.numpy(), wanted[name], rtol=1e-4, atol=1e-5, err_msg=name)


def test_dropout_draws_anew_at_every_replay():
    drop = nn.Dropout(0.5)
    x = bt.ones((200,))
    graph, first = record(lambda v: drop(v), x)
    second, third = replay(graph, x)[0], replay(graph, x)[0]
    masks = [tuple(t.tolist()) for t in (first, second, third)]
    assert len(set(masks)) == 3


def test_a_graph_can_be_read():
    w = bt.tensor([[1.0, 2.0]], requires_grad=True)
    graph, _ = record(lambda x: (x @ w).sum(), bt.ones((3, 1)))
    text = repr(graph)
    assert text.startswith("graph(%0) -> ") and "matmul(%0, %1" in text
    assert len(graph.external) == 1


def test_what_is_written_in_place_is_seen_by_the_next_replay():
    total = bt.zeros((2,))
    graph, _ = record(lambda x: bt.assign(total, total + x) or total * 1.0, bt.ones((2,)))
    for k in (2, 3, 4):
        assert replay(graph, bt.ones((2,)))[0].tolist() == [k, k]


def test_another_number_of_inputs_is_refused():
    graph, _ = record(lambda x: x * 2, bt.ones((1,)))
    with pytest.raises(ShapeError, match="takes 1 inputs, got 2"):
        replay(graph, bt.ones((1,)), bt.ones((1,)))
