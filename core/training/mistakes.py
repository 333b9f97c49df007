"""What a trainer says when training goes wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import GradError

if TYPE_CHECKING:
    from .tracing import Trace
    from .trainer import Trainer


def diverged(trainer: Trainer, what: str, value: float, found: Trace) -> GradError:
    """A loss, or gradients, that are infinite or not a number."""
    step = trainer.step + 1
    rate = float(trainer.optimizer.param_groups[0]["lr"])
    losses, norms = list(trainer.watch.losses), list(trainer.watch.norms)
    if what == "loss":
        head = f"the loss became {value} at step {step} (learning rate {rate:g}).\n"
    else:
        head = (
            f"the gradients became {value} at step {step} (learning rate {rate:g}; the loss is "
            f"{trainer.last['loss']:.4g}, the parameters are as before the step).\n"
        )
    before = ""
    if losses:
        told = ", ".join(f"{norm:.4g} (step {at})" for at, norm in norms[-3:]) or "not measured"
        shown = ", ".join(f"{loss:.4g}" for loss in losses)
        before = f"Losses before: {shown}; gradient norms: {told}\n"
    hint = "Lower the learning rate or clip gradients (clip_norm=1.0)"
    edge = (found.origin.backward_of or found.origin.op) if found.origin is not None else None
    if found.direction == "data":
        hint = "Look at the data: leave out or repair such samples"
    elif found.direction == "unknown":
        hint += (
            "; to find the operation that made it:\n  with bt.detect_anomaly(): trainer.fit(...)"
        )
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


def _facts(trainer: Trainer, found: Trace) -> dict[str, str | None]:
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
