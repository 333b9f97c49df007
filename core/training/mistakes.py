"""What a trainer says when training goes wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..errors import ConfigError, DataError, DtypeError, GradError
from ..foreign import described
from ..nn import Module, functional
from ..optim import Optimizer

if TYPE_CHECKING:
    from .tracing import Trace
    from .trainer import Trainer
    from .turn import Training


_LOSS = "loss=lambda module, batch: F.cross_entropy(module(batch[0]), batch[1])"


def check_parts(module: Any, optimizer: Any, loss: Any, batches: Any) -> None:
    """Refuse what a trainer cannot be made of, before hours pass.

    Raises:
        ConfigError
    """
    for name, value, kind in (("module", module, Module), ("optimizer", optimizer, Optimizer)):
        if not isinstance(value, kind):
            hint = ""
            if name == "optimizer":
                hint = "\nSuch as bt.optim.AdamW(module.parameters(), lr=1e-3)"
            raise ConfigError(
                f"Trainer: {name} is a {kind.__name__}, got {described(value)}.{hint}", got=value
            )
    known = getattr(loss, "__name__", None)
    if isinstance(loss, Module) or (known and getattr(functional, known, None) is loss):
        raise ConfigError(
            f"Trainer: loss is called with the module and a batch, and {known or described(loss)} "
            f"takes predictions and targets.\nJoin the two: {_LOSS}",
            got=loss,
        )
    if not callable(loss):
        raise ConfigError(
            f"Trainer: loss is a function, got {described(loss)}.\nSuch as {_LOSS}", got=loss
        )
    if not (hasattr(batches, "__iter__") or hasattr(batches, "__getitem__")):
        raise ConfigError(
            f"Trainer: batches can be iterated over, got {described(batches)}.\n"
            "Such as bt.data.DataLoader(dataset, batch_size=32, shuffle=True)",
            got=batches,
        )


def check_counts(**counts: Any) -> None:
    """Refuse numbers of epochs, steps and batches that make no sense.

    Raises:
        ConfigError
    """
    if (counts["epochs"] is None) == (counts["steps"] is None):
        raise ConfigError("Trainer: say when to stop with either epochs= or steps=")
    for name, value in counts.items():
        if value is not None and (not hasattr(value, "__index__") or value < 1):
            raise ConfigError(
                f"Trainer: {name} is a whole number, at least 1, got {value!r}", got=value
            )


def no_loss(found: Any) -> DtypeError:
    """A loss function that returns something else."""
    return DtypeError(
        f"Trainer: loss returns a tensor, or a tensor and a dict of numbers, got "
        f"{described(found)}.\nDoes the function end with `return loss`? "
        "A float has no gradient: leave out .item().",
        got=type(found).__name__,
    )


def no_batches(trainer: Trainer) -> DataError:
    """An epoch without a batch."""
    if trainer.step:
        hint = (
            "A generator can be used once. Give a list, or a DataLoader, which begins anew in "
            "each epoch."
        )
    else:
        hint = "Is the data set empty, or smaller than a batch, with drop_last=True?"
    return DataError(
        f"epoch {trainer.epoch + 1}: the batches gave nothing to train with.\n{hint}",
        epoch=trainer.epoch + 1,
    )


def diverged(trainer: Training, what: str, value: float, found: Trace) -> GradError:
    """A loss, or gradients, that are infinite or not a number."""
    step = trainer.step + 1
    rate = float(trainer.optimizer.param_groups[0]["lr"])
    losses, norms = list(trainer.watch.losses), list(trainer.watch.norms)
    if what == "loss":
        head = f"the loss{trainer.whose} became {value} at step {step} (learning rate {rate:g}).\n"
    else:
        head = (
            f"the gradients{trainer.whose} became {value} at step {step} (learning rate {rate:g}; "
            f"the loss is {trainer.last['loss']:.4g}, the parameters are as before the step).\n"
        )
    before = ""
    if losses:
        told = ", ".join(f"{norm:.4g} (step {at})" for at, norm in norms[-3:]) or "not measured"
        shown = ", ".join(f"{loss:.4g}" for loss in losses)
        before = f"Losses before: {shown}; gradient norms: {told}\n"
    hint = "Lower the learning rate"
    if not trainer.whose:  # a `Trainer`, which can clip
        hint += " or clip gradients (clip_norm=1.0)"
    edge = (found.origin.backward_of or found.origin.op) if found.origin is not None else None
    if found.direction == "data":
        hint = "Look at the data: leave out or repair such samples"
    elif found.direction == "unknown":
        hint += "; to find the operation that made it:\n  with bt.detect_anomaly(): "
        hint += "..." if trainer.whose else "trainer.fit(...)"
    elif edge in _DOMAINS:
        hint = f"Keep {edge} away from its edge, such as x + 1e-8; or l" + hint[1:]
    small = ""
    if trainer.precision == "float16":
        small = "\nBeyond 65504, the largest float16? precision='bfloat16' has float32's range."
    return GradError(
        head + found.text + before + hint + small,
        step=step,
        lr=rate,
        value=value,
        losses=losses,
        gradient_norms=norms,
        **_facts(trainer, found),
    )


def _facts(trainer: Training, found: Trace) -> dict[str, str | None]:
    origin = found.origin
    return {
        "direction": found.direction,
        "op": origin.op if origin else None,
        "backward_of": origin.backward_of if origin else None,
        "module": origin.module(trainer.module) if origin else None,
        "line": origin.line if origin else None,
    }


# Operations whose values or slopes are infinite at an edge of where they are defined.
_DOMAINS = ("divide", "log", "log2", "log10", "log1p", "sqrt", "pow", "reciprocal")


def never_finite(trainer: Trainer, found: Trace) -> GradError:
    """Gradients that no loss scale makes finite."""
    scale = trainer.scaler.get_scale()
    return GradError(
        f"gradients are not finite at step {trainer.step + 1}, although the loss scale has come "
        f"down to {scale:g}: this is no overflow of float16 that scaling could help.\n"
        f"{trainer.skipped} of {trainer.step + 1} steps were left out.\n"
        + found.text
        + "To stop at the first of them: with bt.detect_anomaly(): trainer.fit(...)\n"
        "Or train with precision='bfloat16', whose range is that of float32.",
        step=trainer.step + 1,
        scale=scale,
        **_facts(trainer, found),
    )
