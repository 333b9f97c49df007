"""Options that several schedulers have, checked in one place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ...hub.configuration import expect, flags, natural, real
from .betas import Betas
from .spacing import SPACINGS, check_respacing


@dataclass(frozen=True)
class Spaced(Betas):
    """Options of schedulers that visit some of the training's timesteps.

    Args:
        prediction_type: what the model predicts: "epsilon" (the noise), "sample" or "v_prediction".
        timestep_spacing, steps_offset: see `spacing.timesteps`.
    """

    prediction_type: str = "epsilon"
    timestep_spacing: str = "leading"
    steps_offset: int = 0

    predictions: ClassVar[tuple[str, ...]] = ("epsilon", "sample", "v_prediction")

    def __post_init__(self) -> None:
        super().__post_init__()
        what = type(self).__qualname__
        natural(what, steps_offset=self.steps_offset)
        choices = {"prediction_type": self.predictions, "timestep_spacing": SPACINGS}
        expect({key: getattr(self, key) for key in choices}, what, **choices)


@dataclass(frozen=True)
class Bounded(Spaced):
    """Options of schedulers that keep the clean sample in a range.

    Args:
        clip_sample, clip_sample_range: clip it to plus and minus the range.
        thresholding: clip and scale each sample by a quantile of its own instead, of
            `dynamic_thresholding_ratio` and at most `sample_max_value`.
    """

    clip_sample: bool = True
    clip_sample_range: float = 1.0
    thresholding: bool = False
    dynamic_thresholding_ratio: float = 0.995
    sample_max_value: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_thresholding(self)
        what = type(self).__qualname__
        flags(what, clip_sample=self.clip_sample)
        real(what, 0.0, 1e6, clip_sample_range=self.clip_sample_range)


@dataclass(frozen=True)
class Respaced(Spaced):
    """Options of schedulers that walk along sigmas, see `spacing.respaced`.

    Args:
        use_karras_sigmas, use_exponential_sigmas, use_beta_sigmas: replace those of the timesteps.
    """

    timestep_spacing: str = "linspace"
    use_karras_sigmas: bool | None = False
    use_exponential_sigmas: bool | None = False
    use_beta_sigmas: bool | None = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_respacing(self)


def check_thresholding(config: object) -> None:
    """Check the options of `predictions.thresholded`."""
    what = type(config).__qualname__
    names = ("dynamic_thresholding_ratio", "sample_max_value")
    ratio, most = (getattr(config, name) for name in names)
    flags(what, thresholding=getattr(config, "thresholding", None))
    real(what, 0.0, 1.0, dynamic_thresholding_ratio=ratio)
    real(what, 0.0, 1e6, sample_max_value=most)
