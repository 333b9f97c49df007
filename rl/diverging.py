"""Updates of agents whose gradients are not finite, or for which memory runs out: what is told.

Agents compute gradients of losses by hand, mostly on plain arrays. Where something goes wrong, the
update is computed again with tensors and followed as a trainer's step is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from ..core import random
from ..core.nn.module import Module
from ..core.ops.reduction import sum
from ..core.optim import Optimizer
from ..core.tensor import Tensor
from ..core.training.memory import is_exhaustion, out_of_memory
from ..core.training.mistakes import diverged
from ..core.training.tracing import trace
from ..core.training.turn import Turn

if TYPE_CHECKING:
    from .q_networks import GraphTrace, LayerTrace

Array = np.ndarray[Any, Any]


def check_update(
    size: float,
    network: Module,
    optimizer: Optimizer,
    x: Any,
    *gradients: Array,
    step: int,
    whose: str,
    loss: float = math.nan,
    forward: Callable[[Any], Any] | None = None,
) -> None:
    """Raise where an update would break a network; costs a comparison where it does not.

    Args:
        size: of the gradients, or a loss: infinite or NaN if any of them is.
        network, optimizer: what is about to be updated.
        x: what the network was given.
        gradients: of the loss, for each of its outputs.
        step: of the environments, so far.
        whose: the network or the agent, in words.
        loss: its value.
        forward: from `x` to the outputs, where the network does not take an array.

    Raises:
        GradError: names the first operation, its module, or what of the batch is not finite.
    """
    if math.isfinite(size):
        return
    made = [p.grad.array for p in network.parameters() if p.grad is not None]
    if all(np.isfinite(array).all() for array in (*gradients, *made)):
        return  # finite, of which the squares overflowed
    turn, batch = _again(network, optimizer, x, gradients, step, whose, forward)
    turn.last = {"loss": loss}
    with np.errstate(all="ignore"):
        raise diverged(turn, "gradients", size, trace(turn, batch, backward=True))


def descend(
    network: Module,
    trace: LayerTrace | GraphTrace,
    gradient: Array,
    optimizer: Optimizer,
    *,
    step: int,
    whose: str,
) -> None:
    """One step of an optimizer, from the gradient of the loss for what a network gave.

    Raises:
        GradError: the gradient is not finite; nothing is updated.
    """
    trace.backward(gradient)
    first = next(network.parameters()).grad  # NaN that arises on the way back arrives here
    assert first is not None
    size = float(np.vdot(gradient, gradient)) + float(np.vdot(first.array, first.array))
    check_update(size, network, optimizer, trace.given, gradient, step=step, whose=whose)
    optimizer.step()


@contextmanager
def memory_told(
    network: Module,
    optimizer: Optimizer,
    x: Any,
    *,
    step: int,
    whose: str,
    forward: Callable[[Any], Any] | None = None,
) -> Iterator[None]:
    """Inside an update; memory that runs out becomes an error that says what took it."""
    try:
        yield
    except Exception as error:
        if not is_exhaustion(error):
            raise
        turn, batch = _again(network, optimizer, x, (), step, whose, forward)
        raise out_of_memory(turn, batch, error) from error


def _again(
    network: Module,
    optimizer: Optimizer,
    x: Any,
    gradients: Sequence[Array],
    step: int,
    whose: str,
    forward: Callable[[Any], Any] | None,
) -> tuple[Turn, dict[str, Any]]:
    """The update as a loss with the same gradients, and its batch."""

    def loss(batch: dict[str, Any]) -> Tensor:
        given = batch["observations"]
        found = network(Tensor(given)) if forward is None else forward(given)
        outs = found if isinstance(found, tuple | list) else (found,)
        slopes = batch["gradients"] or [1.0] * len(outs)
        parts = [
            sum(out * (Tensor(g) if isinstance(g, np.ndarray) else g))
            for out, g in zip(outs, slopes, strict=True)
        ]
        total = parts[0]
        for part in parts[1:]:
            total = total + part
        return total

    turn = Turn(network, optimizer, loss, whose=whose)
    turn.step = step - 1
    turn.watch.drawn = random.snapshot()
    return turn, {"observations": x, "gradients": list(gradients)}
