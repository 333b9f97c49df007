"""Schedulers: how samples are walked from noise to data, one way a file.

scheduler = DDIMScheduler(beta_schedule="scaled_linear")  # or scheduler_of(json)
scheduler.set_timesteps(20)
for t in scheduler.timesteps:
    x = scheduler.step(model(scheduler.scale_model_input(x, t), t), t, x).prev_sample
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from functools import cache
from typing import Any

from ...core.errors import ConfigError
from .base import Scheduler, Step
from .ddim import DDIMScheduler
from .ddpm import DDPMScheduler
from .dpm_multistep import DPMSolverMultistepScheduler
from .euler import EulerDiscreteScheduler
from .euler_ancestral import EulerAncestralDiscreteScheduler
from .flow_euler import FlowMatchEulerDiscreteScheduler
from .heun import HeunDiscreteScheduler
from .lcm import LCMScheduler
from .pndm import PNDMScheduler
from .unipc import UniPCMultistepScheduler

#: By the `_class_name` of published configurations.
SCHEDULERS: dict[str, type[Scheduler]] = {
    kind.__name__: kind
    for kind in (
        DDIMScheduler,
        DDPMScheduler,
        DPMSolverMultistepScheduler,
        EulerAncestralDiscreteScheduler,
        EulerDiscreteScheduler,
        FlowMatchEulerDiscreteScheduler,
        HeunDiscreteScheduler,
        LCMScheduler,
        PNDMScheduler,
        UniPCMultistepScheduler,
    )
}
#: Short names, as on the command line.
SHORT = {
    "ddim": "DDIMScheduler",
    "ddpm": "DDPMScheduler",
    "dpm++": "DPMSolverMultistepScheduler",
    "euler": "EulerDiscreteScheduler",
    "euler-ancestral": "EulerAncestralDiscreteScheduler",
    "flow-euler": "FlowMatchEulerDiscreteScheduler",
    "heun": "HeunDiscreteScheduler",
    "lcm": "LCMScheduler",
    "pndm": "PNDMScheduler",
    "unipc": "UniPCMultistepScheduler",
}

__all__ = [
    "SCHEDULERS",
    "SHORT",
    "DDIMScheduler",
    "DDPMScheduler",
    "DPMSolverMultistepScheduler",
    "EulerAncestralDiscreteScheduler",
    "EulerDiscreteScheduler",
    "FlowMatchEulerDiscreteScheduler",
    "HeunDiscreteScheduler",
    "LCMScheduler",
    "PNDMScheduler",
    "Scheduler",
    "Step",
    "UniPCMultistepScheduler",
    "every_option",
    "scheduler_of",
]


def scheduler_of(config: Mapping[str, Any] | Scheduler | str, **changes: Any) -> Scheduler:
    """The scheduler that a scheduler_config.json describes, or of a short name such as "ddim".

    Args:
        changes: options that replace those of the file.

    Raises:
        ConfigError: a scheduler or an option that is not known.
    """
    if isinstance(config, str):
        config = {"_class_name": SHORT.get(config, config)}
    elif isinstance(config, Scheduler):
        config = config.to_config()
    name = config.get("_class_name")
    if name not in SCHEDULERS:
        raise ConfigError(
            f"the scheduler {name!r} is not supported.\n"
            f"Supported: {', '.join(SCHEDULERS)}; short: {', '.join(SHORT)}",
            got=name,
        )
    return SCHEDULERS[name].from_config(config, **changes)


@cache
def every_option() -> frozenset[str]:
    """The options of all schedulers: files of one are read by another, which needs fewer."""
    return frozenset(
        f.name for kind in SCHEDULERS.values() for f in dataclasses.fields(kind.Config)
    )
