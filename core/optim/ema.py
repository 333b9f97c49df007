"""A running average of a model's weights, which often predicts better than the weights do."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np

from ..devices import backend_for
from ..dtypes import FLOATS
from ..errors import ConfigError
from ..nn.module import Module
from ..nn.parameter import Parameter
from ..op import op
from ..ops.update import assign
from ..tensor import Tensor
from .blocks import blocks, caster, compute_dtype, count, numbers
from .group import Bucket, buckets_of


@op(raw=True, differentiable=False, writes=("flat", "step"))
def ema_update(
    xp: Any, flat: Tensor, step: Tensor, scalars: Tensor, *sources: Tensor, warmup: bool
) -> None:
    """Move a flat buffer towards the values of the sources by 1 - decay."""
    (decay,) = numbers(xp, scalars)
    t = count(xp, step)
    dtype = compute_dtype(flat.dtype)
    if warmup:
        decay = xp.minimum(decay, t / (t + 9.0))
    share = caster(xp, dtype)(1 - (float(decay) if xp is np else decay))
    for _, mean, x, (t1,) in blocks(xp, flat, sources, dtype, 1):
        xp.subtract(x, mean, out=t1)
        t1 *= share
        mean += t1


class EMA:
    """Exponential moving average of a module's parameters, kept in a copy of the module.

    Args:
        module: the module that is trained.
        decay: how much of the average is kept each step.
        warmup: start with a smaller decay, `t / (t + 9)` at step t, so that the average forgets
            the initial weights.
        buffers: "copy" takes running statistics as they are, "average" averages floating ones.

    `ema.module` is the averaged copy, in eval mode; `with ema.applied():` lends its values to the
    trained module instead.

        ema = bt.optim.EMA(model, decay=0.999)
        for x, y in loader:
            ...
            optimizer.step()
            ema.update()
        accuracy = evaluate(ema.module)

    Source: Polyak and Juditsky 1992, "Acceleration of stochastic approximation by averaging".
    """

    def __init__(
        self, module: Module, decay: float = 0.999, *, warmup: bool = False, buffers: str = "copy"
    ) -> None:
        if not 0 <= decay <= 1:
            raise ConfigError(f"EMA: decay lies between 0 and 1, got {decay}", got=decay)
        if buffers not in ("copy", "average"):
            raise ConfigError(f"EMA: buffers is 'copy' or 'average', got {buffers!r}", got=buffers)
        self.decay = decay
        self.warmup = warmup
        self.buffers = buffers
        self._source = module
        self.module = copy.deepcopy(module).eval().requires_grad_(False)
        self._pairs = list(zip(_state(self.module), _state(module), strict=True))
        self._copied = [pair for pair in self._pairs if not self._averages(pair[0])]
        self._buckets: list[tuple[Bucket, list[Any], Tensor]] = []
        self._arrange()

    def _arrange(self) -> None:
        """Lay the averaged values out in flat buffers."""
        steps = self.steps
        sources = {id(mine): theirs for mine, theirs in self._pairs}
        averaged = [mine for mine, _ in self._pairs if self._averages(mine)]
        self._buckets = []
        for bucket in buckets_of(averaged, share=True):
            scalars = Tensor(backend_for(bucket.device).xp.full(1, float(self.decay)))
            theirs = [sources[id(p)] for p in bucket.params]
            bucket.step.array[...] = steps
            self._buckets.append((bucket, theirs, scalars))

    def _averages(self, mine: Tensor) -> bool:
        if isinstance(mine, Parameter):
            return True
        return self.buffers == "average" and mine.dtype in FLOATS

    @property
    def steps(self) -> int:
        """How often it was updated."""
        return int(self._buckets[0][0].step.array) if self._buckets else 0

    def update(self) -> None:
        """Take in the present weights: call it after `optimizer.step()`."""
        if any(p.array is not seat for bucket, _, _ in self._buckets for p, seat in bucket.seats):
            self._arrange()  # the copy was moved or converted
        for bucket, sources, scalars in self._buckets:
            ema_update(bucket.flat, bucket.step, scalars, *sources, warmup=self.warmup)
        for mine, theirs in self._copied:
            assign(mine, theirs.detach())

    @contextmanager
    def applied(self) -> Iterator[Module]:
        """The trained module with averaged values inside; its own values come back after."""
        own = [theirs.array.copy() for _, theirs in self._pairs]
        for mine, theirs in self._pairs:
            assign(theirs, mine.detach())
        try:
            yield self._source
        finally:
            for (_, theirs), array in zip(self._pairs, own, strict=True):
                assign(theirs, Tensor(array))

    def copy_to(self, module: Module | None = None) -> None:
        """Write the averaged values into a module of the same kind; the trained one by default."""
        for mine, theirs in zip(_state(self.module), _state(module or self._source), strict=True):
            assign(theirs, mine.detach())

    def state_dict(self) -> dict[str, Any]:
        """The averaged values, and how often they were updated."""
        return {"steps": self.steps, "decay": self.decay, "module": self.module.state_dict()}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take back what `state_dict` gave.

        Raises:
            WeightsError: the values belong to another module.
        """
        self.module.load_state_dict(state_dict["module"])
        self.decay = float(state_dict["decay"])
        for bucket, _, scalars in self._buckets:
            bucket.step.array[...] = int(state_dict["steps"])
            scalars.array[...] = self.decay


def _state(module: Module) -> list[Any]:
    return [*module.parameters(), *module.buffers()]
