"""Try something out with a trainer, and leave everything as it was, bit for bit."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from .. import random
from ..data import DataLoader
from ..data.epochs import bookmark
from ..errors import ConfigError
from ..nn.module import rebind
from ..ops.update import assign
from ..optim import GradScaler, clip_grad_norm_
from ..state import no_grad
from ..tensor import Tensor

if TYPE_CHECKING:
    from .trainer import Trainer


def checked(function: str, trainer: Any) -> None:
    """Refuse what is no trainer, or one whose batches can be read only once.

    Raises:
        ConfigError: either.
    """
    from .trainer import Trainer

    if not isinstance(trainer, Trainer):
        raise ConfigError(
            f"{function} takes a trainer, got {type(trainer).__name__}.\n"
            f"Write: {function}(bt.training.Trainer(module, optimizer, loss, batches, steps=1000))",
            got=type(trainer).__name__,
        )
    if isinstance(trainer.batches, Iterator):
        raise ConfigError(
            f"{function}: the trainer's batches are an iterator, which would be used up.\n"
            "Give the trainer a list of batches or a DataLoader."
        )


@contextmanager
def kept(trainer: Trainer, weights: bool = True) -> Iterator[None]:
    """What is changed inside is put back: weights, optimizer, random streams, loader, modes.

    Args:
        weights: False keeps the weights and the optimizer's state that were reached.
    """
    module, optimizer, loader = trainer.module, trainer.optimizer, trainer.batches
    tensors = [*module.parameters(), *module.buffers()]
    before = [(x, x.array, x.array.copy(), x.grad) for x in tensors]
    settings = _copied(optimizer.state_dict())
    modes = [(inner, inner.training) for inner in module.modules()]
    drawn = random.snapshot()
    back = _bookmark(loader)
    scaler, watch = trainer.scaler, trainer.watch
    trainer.scaler = GradScaler(enabled=scaler.enabled)
    trainer.watch = type(watch)()
    try:
        yield
    finally:
        trainer.scaler, trainer.watch = scaler, watch
        for x, array, copy, grad in before:
            if weights:
                if x.array is not array and x.array.shape != array.shape:
                    rebind(x, array)
                with no_grad():
                    assign(x, Tensor(copy))
            x.grad = grad
        if weights:
            optimizer.load_state_dict(settings)
        else:
            for group, saved in zip(optimizer.param_groups, settings["param_groups"], strict=True):
                group["lr"] = saved["lr"]
        for inner, training in modes:
            inner.training = training
        random.restore(drawn)
        back()


def _bookmark(loader: Any) -> Callable[[], None]:
    if isinstance(loader, DataLoader):
        return bookmark(loader)
    if hasattr(loader, "state_dict") and hasattr(loader, "load_state_dict"):
        return partial(loader.load_state_dict, loader.state_dict())
    return lambda: None


def _copied(value: Any) -> Any:
    if isinstance(value, Tensor):
        return Tensor(value.array.copy())
    if isinstance(value, Mapping):
        return {key: _copied(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_copied(inner) for inner in value)
    return value


def again(batches: Any) -> Generator[Any, None, None]:
    """The batches, epoch after epoch.

    Raises:
        ConfigError: there are none.
    """
    while True:
        empty = True
        for batch in batches:
            empty = False
            yield batch
        if empty:
            raise ConfigError("the trainer's batches are empty")


def one_step(trainer: Trainer, batches: Iterator[Any]) -> tuple[float, Any]:
    """One optimizer step: the loss before it, and the last batch. The trainer's counters stay.

    Where the loss is not finite, nothing is updated.
    """
    scaler, optimizer = trainer.scaler, trainer.optimizer
    total, batch = 0.0, None
    for _ in range(trainer.accumulate):
        batch = next(batches)
        trainer.watch.drawn = random.snapshot()
        loss, _ = trainer.compute(batch)
        total += float(loss.item()) / trainer.accumulate
        if not math.isfinite(total):
            optimizer.zero_grad()
            return total, batch
        scaler.scale(loss / trainer.accumulate if trainer.accumulate > 1 else loss).backward()
    scaler.unscale_(optimizer)
    if trainer.clip_norm is not None and not scaler.overflowed(optimizer):
        every = [p for group in optimizer.param_groups for p in group["params"]]
        clip_grad_norm_(every, trainer.clip_norm)
    scaler.step(optimizer)
    scaler.update()
    return total, batch
