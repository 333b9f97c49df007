"""Where a loss or a gradient that is not finite came from: the same batch again, watched."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import random
from ..anomaly import Origin, Tracer, not_finite
from ..dtypes import float32, float64
from ..optim import clip_grad_norm_
from ..optim.clip import gradient_norm
from ..state import observing
from ..tensor import Tensor
from .mistakes import diverged

if TYPE_CHECKING:
    from .turn import Training

_SHARE = 0.005  # of the time, that norms of gradients may take


@dataclass(frozen=True)
class Trace:
    """What was found.

    Attributes:
        text: lines for the message.
        direction: "forward", "backward", "parameters", "buffers", "data", or "unknown".
        origin: the operation, where it is one.
    """

    text: str
    direction: str
    origin: Origin | None = None


class Watch:
    """What a trainer keeps for the error that it may have to raise: next to nothing, cheaply.

    Norms of all gradients cost a few percent of a small step, so they are taken in a small share of
    the time (clipping computes them anyway). Between, one gradient far from the loss is looked
    at: what is not finite in the backward pass arrives there.
    """

    def __init__(self) -> None:
        self.drawn: Any = None  # where the random streams stood before the batch
        self.losses: deque[float] = deque(maxlen=5)
        self.norms: deque[tuple[int, float]] = deque(maxlen=5)  # steps and norms
        self._start = time.perf_counter()
        self._spent = 0.0
        self._far: Any = None

    def check(self, trainer: Training, batch: Any) -> None:
        """Clip the gradients, and notice what is not finite before it reaches the parameters.

        Raises:
            GradError: a gradient is not finite; says where that began.
        """
        with np.errstate(all="ignore"):
            norm = self._norm(trainer)
        if norm is None:
            return
        # The squares of finite gradients may overflow.
        if not math.isfinite(norm) and any(
            p.grad is not None and not_finite(p.grad) for p in _trained(trainer)
        ):
            raise diverged(trainer, "gradients", norm, trace(trainer, batch, backward=True))
        self.norms.append((trainer.step + 1, norm))

    def _norm(self, trainer: Training) -> float | None:
        """The norm of all gradients, which are clipped; None if it is not taken this time."""
        if trainer.clip_norm is not None:
            norm = float(clip_grad_norm_(_trained(trainer), trainer.clip_norm).item())
            trainer.last["grad_norm"] = norm
            return norm
        begin = time.perf_counter()
        due = len(self.norms) < 5 or self._spent <= _SHARE * (begin - self._start)
        if not due and self._far_is_finite():
            return None
        every = _trained(trainer)
        grads = [p.grad for p in every if p.grad is not None]
        norm = float(gradient_norm(*grads, norm_type=2.0).item()) if grads else 0.0
        if self._far is None:
            self._far = _far(every)
        self._spent += time.perf_counter() - begin
        return norm

    def _far_is_finite(self) -> bool:
        grad = None if self._far is None else self._far.grad
        if grad is None or type(grad.array) is not np.ndarray:
            return True  # of a GPU nothing is read back
        flat = grad.array.reshape(-1)
        return math.isfinite(np.dot(flat, flat))


def _trained(trainer: Training) -> list[Tensor]:
    return [p for group in trainer.optimizer.param_groups for p in group["params"]]


def _far(every: list[Tensor]) -> Tensor | None:
    """The smallest of the first parameters, to which the backward pass comes last."""
    first = [p for p in every if p.grad is not None and p.dtype in (float32, float64)][:8]
    return min(first, key=lambda p: p.size, default=None)


def trace(trainer: Training, batch: Any, backward: bool) -> Trace:
    """Compute a batch again with the random numbers that it had, and follow what is not finite.

    Args:
        backward: its loss is finite and its gradients are not.
    """
    module = trainer.module
    broken = _broken("parameter", module.named_parameters())
    if broken:
        return Trace(broken, "parameters")
    tracer = Tracer()
    after = random.snapshot()
    random.restore(trainer.watch.drawn)
    waiting = [p.grad for p in module.parameters()]
    try:
        with untouched(module), observing(tracer), np.errstate(all="ignore"):
            loss, _ = trainer.compute(batch)
            if backward:
                trainer.optimizer.zero_grad()
                loss.backward()
        origin = _found(tracer, [p.grad for p in module.parameters()] if backward else [loss])
    except Exception as error:  # such as a loss that counts its calls
        return Trace(
            f"The batch could not be run again: {type(error).__name__}: {error}\n", "unknown"
        )
    finally:
        random.restore(after)
        for p, grad in zip(module.parameters(), waiting, strict=True):
            p.grad = grad
    data = "".join(f"The batch holds {what}\n" for what in _in_batch(batch))
    if origin is None and data:
        return Trace(data, "data")
    # Only now: the batch itself has moved running means.
    if origin is None and (broken := _broken("buffer", module.named_buffers())):
        return Trace(broken, "buffers")
    if origin is None:
        again = "gradients were" if backward else "loss was"
        other = "it depends on something else than the batch and the seed"
        if backward and trainer.accumulate > 1:
            other = f"look at the {trainer.accumulate - 1} before it, whose gradients were added"
        return Trace(f"Run again, the batch's {again} finite: {other}.\n", "unknown")
    return Trace(_story(origin, module) + data, origin.first.direction, origin.first)


def _found(tracer: Tracer, ends: list[Tensor | None]) -> Origin | None:
    """The origin of the first end that has one."""
    bad = [x for x in ends if x is not None and not_finite(x)]
    for x in bad:
        origin = tracer.origin(x)
        if origin is not None:
            return origin
    return tracer.origins[0] if bad and tracer.origins else None


def _story(origin: Origin, module: Any) -> str:
    first = origin.first
    lines = [f"First {first.value}: {first.told(module)}"]
    lines += [f"  {told}" for told in first.operands[:3]]
    if first is not origin:
        lines.append(f"  of which came {origin.value}: {origin.told(module)}")
    return "\n".join(lines) + "\n"


def _broken(kind: str, pairs: Iterable[tuple[str, Tensor]]) -> str:
    """Parameters or buffers that were not finite before the batch."""
    found = []
    for name, x in pairs:
        bad = not_finite(x)
        if bad is not None:
            found.append(f"{kind} {name}: {bad[1]} of {x.size} values are {bad[0]}")
    if not found:
        return ""
    more = f"  and {len(found) - 3} more\n" if len(found) > 3 else ""
    return (
        "It was in the weights before this batch, from the last update or as they were loaded:\n"
        + "".join(f"  {line}\n" for line in found[:3])
        + more
    )


def _in_batch(batch: Any, path: str = "batch") -> Iterator[str]:
    """What is not finite in a batch, and where."""
    if isinstance(batch, Mapping):
        for key, value in batch.items():
            yield from _in_batch(value, f"{path}[{key!r}]")
    elif isinstance(batch, (list, tuple)):
        for i, value in enumerate(batch):
            yield from _in_batch(value, f"{path}[{i}]")
    elif hasattr(batch, "shape"):
        bad = not_finite(batch)
        if bad is not None:
            array = batch.detach().cpu().numpy() if isinstance(batch, Tensor) else batch
            array = array if isinstance(array, np.ndarray) else array.get()
            first = np.argwhere(~np.isfinite(array.astype(np.float32)))[0].tolist()
            place = f"{path}[{', '.join(map(str, first))}]"
            yield f"{bad[0]}: {bad[1]} of {array.size} values of {path}, the first at {place}"


@contextmanager
def untouched(module: Any) -> Iterator[None]:
    """Put buffers back, such as running means, which another pass would move."""
    before = [(buffer, buffer.array.copy()) for buffer in module.buffers()]
    try:
        yield
    finally:
        for buffer, array in before:
            if buffer.array.shape == array.shape:
                buffer.array[...] = array
