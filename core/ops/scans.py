"""What recurrent scans share: the order of steps, steps that are left out, and unrolling.

Letters as in recurrent.py.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .elementwise import where
from .shape import stack

if TYPE_CHECKING:
    from ..tensor import Tensor


def time_order(steps: int, reverse: bool) -> range:
    """The steps in the order in which states follow from each other."""
    return range(steps - 1, -1, -1) if reverse else range(steps)


def sigmoid_in_place(xp: Any, x: Any) -> None:
    """In place, through tanh, which neither overflows nor branches."""
    x *= 0.5
    xp.tanh(x, out=x)
    x *= 0.5
    x += 0.5


def states_before(xp: Any, states: Any, first: Any, reverse: bool) -> Any:
    """The state before each step, (T, B, P)."""
    shifted = xp.empty_like(states)
    if reverse:
        shifted[:-1], shifted[-1] = states[1:], first
    else:
        shifted[1:], shifted[0] = states[:-1], first
    return shifted


def gate_parts(x: Any, size: int) -> list[Any]:
    """The gates of (B, gates * H), each (B, H): views of an array, slices of a tensor."""
    return [x[:, start : start + size] for start in range(0, x.shape[1], size)]


def kept(where: Any, mask: Any, t: int, new: Any, old: Any) -> Any:
    """The state after step t: the old one in sequences that do not have the step.

    `where` is `xp.where`, or ours for tensors.
    """
    return new if mask is None else where(mask[t][:, None], new, old)


def unrolled(
    step: Callable[..., tuple[Tensor, ...]],
    gates: Tensor,
    first: tuple[Tensor, ...],
    mask: Tensor | None,
    reverse: bool,
) -> list[Tensor]:
    """All values (T, B, ...) of each kind of state, made of other operations.

    `step` maps the gates of one step and the states before it to the states after it.
    """
    states, made = first, {}
    for t in time_order(gates.shape[0], reverse):
        new = step(gates[t], *states)
        states = tuple(kept(where, mask, t, a, b) for a, b in zip(new, states, strict=True))
        made[t] = states
    return [stack([made[t][i] for t in range(len(made))]) for i in range(len(first))]


class StateGradient:
    """The gradient of a state on its way back, split where a step did not happen."""

    def __init__(self, xp: Any, like: Any, given: Any, mask: Any) -> None:
        self.xp, self.given, self.mask = xp, given, mask
        self.value = xp.zeros_like(like)
        self.skipped: Any = None

    def at(self, t: int) -> Any:
        """What reaches the state that step t made; the rest goes around the step."""
        total = self.value if self.given is None else self.value + self.given[t]
        self.skipped = None
        if self.mask is not None:
            valid = self.mask[t][:, None]
            self.skipped = self.xp.where(valid, 0, total)
            total = self.xp.where(valid, total, 0)
        return total

    def back(self, value: Any) -> None:
        """What reaches the state before the step."""
        self.value = value if self.skipped is None else value + self.skipped
