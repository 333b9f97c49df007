"""What a trainer says when training goes wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import GradError

if TYPE_CHECKING:
    from .trainer import Trainer


def diverged(trainer: Trainer, value: float) -> GradError:
    """A loss that is infinite or not a number."""
    rate = float(trainer.optimizer.param_groups[0]["lr"])
    recent = [row["loss"] for row in trainer.history.steps[-3:] if "loss" in row]
    return GradError(
        f"the loss became {value} at step {trainer.step + 1} (learning rate {rate:g}).\n"
        + (f"Recorded losses before: {', '.join(f'{v:.4g}' for v in recent)}\n" if recent else "")
        + "Lower the learning rate or clip gradients (clip_norm=1.0); to find the operation "
        "that made it:\n  with bt.detect_anomaly(): trainer.fit(...)"
        + (
            "\nBeyond 65504, the largest float16? precision='bfloat16' has the range of float32."
            if trainer.precision == "float16"
            else ""
        ),
        step=trainer.step + 1,
        lr=rate,
        value=value,
    )


def never_finite(trainer: Trainer) -> GradError:
    """Gradients that no loss scale makes finite."""
    scale = trainer.scaler.get_scale()
    return GradError(
        f"gradients are not finite at step {trainer.step + 1}, although the loss scale has come "
        f"down to {scale:g}: this is no overflow of float16 that scaling could help.\n"
        f"{trainer.skipped} of {trainer.step + 1} steps were left out.\n"
        "To find the operation that makes them:\n"
        "  with bt.detect_anomaly(): trainer.fit(...)\n"
        "Or train with precision='bfloat16', whose range is that of float32.",
        step=trainer.step + 1,
        scale=scale,
    )
