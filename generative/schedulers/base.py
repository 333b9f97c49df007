"""What schedulers share: options, the noise of a timestep, and checks of what a step is given."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, TypeVar

import numpy as np

from ...core.creation import asarray
from ...core.errors import ConfigError, IndexRangeError, ShapeError
from ...core.tensor import Tensor
from .betas import signal_table
from .spacing import RESPACED

Array = np.ndarray[Any, Any]
S = TypeVar("S", bound="Scheduler")

# What configurations carry beside options.
_MARKS = {"_class_name", "_diffusers_version", "_name_or_path", "_use_default_values"}


class Step(NamedTuple):
    """What a step gives: the sample one step cleaner, and what the model takes the end to be."""

    prev_sample: Tensor
    pred_original_sample: Tensor | None = None


class Scheduler:
    """The walk from noise to a sample; a subclass is one way of walking.

    Options are keyword arguments, those of its `Config`; `timesteps` are the places of the walk,
    (N,), the noisiest first. A scheduler holds the state of one walk: `set_timesteps` starts anew.

    Attributes:
        order: how many timesteps belong to one step.
        stochastic: whether steps draw noise.
        unused: options of other schedulers in the configuration, which change nothing here.
    """

    Config: ClassVar[type[Any]]
    order = 1
    stochastic = False

    if TYPE_CHECKING:  # every subclass has these, with arguments of its own
        set_timesteps: Callable[..., None]
        step: Callable[..., Step]

    def __init__(self, **options: Any) -> None:
        known = {f.name for f in dataclasses.fields(self.Config)}
        unknown = sorted(set(options) - known)
        if unknown:
            raise ConfigError(
                f"{type(self).__name__} has no option {', '.join(unknown)}.\n"
                f"Options: {', '.join(sorted(known))}",
                keys=unknown,
            )
        plain = {k: tuple(v) if isinstance(v, list) else v for k, v in options.items()}
        self.config = self.Config(**plain)
        self.unused: tuple[str, ...] = ()
        self.timesteps: Array = np.zeros(0)
        self.steps: int | None = None
        self.index: int | None = None
        self._begin: int | None = None
        self._prepare()

    def _prepare(self) -> None:
        """Tables of the whole training, before any walk."""
        self.signal = signal_table(self.config)
        self.timesteps = np.arange(len(self.signal))[::-1].copy()

    @classmethod
    def from_config(cls: type[S], config: Mapping[str, Any] | Scheduler, **changes: Any) -> S:
        """A scheduler of a published scheduler_config.json, or of another's options.

        Args:
            changes: options that replace those of the file.

        Raises:
            ConfigError: an option that no scheduler has, or a value that makes no sense.
        """
        from . import every_option

        given = dict(config.to_config() if isinstance(config, Scheduler) else config)
        given = {k: v for k, v in given.items() if k not in _MARKS and v is not None} | changes
        known = {f.name for f in dataclasses.fields(cls.Config)}
        other = sorted(set(given) - known)
        strange = sorted(set(other) - every_option()) if other else []
        if strange:
            listed = ", ".join(f"{key}={given[key]!r}" for key in strange[:8])
            raise ConfigError(
                f"{cls.__name__}: the configuration has options that no scheduler has:\n  {listed}",
                keys=strange,
            )
        made = cls(**{key: value for key, value in given.items() if key in known})
        made.unused = tuple(other)
        return made

    def to_config(self) -> dict[str, Any]:
        """What scheduler_config.json says of it: the reverse of `from_config`."""
        fields = dataclasses.asdict(self.config)
        plain = {k: list(v) if isinstance(v, tuple) else v for k, v in fields.items()}
        return {"_class_name": type(self).__name__, **plain}

    def __repr__(self) -> str:
        default = self.Config()
        parts = [
            f"{f.name}={getattr(self.config, f.name)!r}"
            for f in dataclasses.fields(self.config)
            if getattr(self.config, f.name) != getattr(default, f.name)
        ]
        return f"{type(self).__name__}({', '.join(parts)})"

    # -- the walk ------------------------------------------------------------------------------

    @property
    def init_noise_sigma(self) -> float:
        """Standard deviation of the noise that the walk begins with."""
        return 1.0

    def scale_model_input(self, sample: Tensor, timestep: Any = None) -> Tensor:
        """The sample as the model was trained to see it: with variance one, as a rule."""
        return sample

    def _begin_walk(self, count: Any) -> int:
        """Check a number of steps, and forget the last walk."""
        most = self.config.num_train_timesteps
        if type(count) is not int or not 1 <= count <= most:
            raise ConfigError(
                f"{type(self).__name__}: {count!r} steps make no sense: a whole number from 1 to "
                f"{most}, the timesteps of its training, is wanted.",
                got=count,
                expected=most,
            )
        self.steps, self.index, self._begin = count, None, None
        return count

    def _listed(self, what: str, values: Any, *, falling: bool = True, least: int = 1) -> Array:
        """Timesteps or sigmas that are given one by one, checked. Shape: (N,), float32.

        Args:
            falling: each must be less than the one before.
            least: how many there must be.

        Raises:
            ConfigError: they are no such numbers.
        """
        values = values.numpy() if isinstance(values, Tensor) else values
        try:
            found = np.asarray(values, np.float32)
        except (TypeError, ValueError):
            found = np.zeros(0, np.float32)
        most = self.config.num_train_timesteps - 1 if what == "timesteps" else math.inf
        sound = found.ndim == 1 and len(found) >= least and np.isfinite(found).all()
        if not sound or found.min() < 0 or found.max() > most + (not falling):
            raise ConfigError(
                f"{type(self).__name__}: {what}={values!r:.80}: at least {least}, each from 0"
                f"{f' to {most}' if most < math.inf else ''}, are wanted.",
                got=values,
            )
        asked = [name for name in RESPACED if getattr(self.config, name, False)]
        if asked and falling and what == "timesteps":
            raise ConfigError(
                f"{type(self).__name__}: {asked[0]}=True chooses the timesteps, so none can be "
                f"given. Without: from_config(scheduler, {asked[0]}=False)"
            )
        if falling and (np.diff(found) >= 0).any():
            raise ConfigError(
                f"{type(self).__name__}: {what} must fall from each to the next: a walk leads from "
                "noise to a picture.",
                got=values,
            )
        return found

    def _count(self, count: Any, listed: Array | None, steps: int | None = None) -> int:
        """The number of steps: given, or that of a list; and forget the last walk.

        Args:
            steps: that the list stands for, where not one for each.

        Raises:
            ConfigError: both are given, or neither.
        """
        if listed is None:
            return self._begin_walk(count)
        if count is not None:
            raise ConfigError(
                f"{type(self).__name__}: {count} steps, and a list of them: give one of the two."
            )
        return self._begin_walk(len(listed) if steps is None else steps)

    def set_begin_index(self, index: int) -> None:
        """Let the walk begin at `timesteps[index]`, where what it begins with is not pure noise."""
        if not 0 <= index < len(self.timesteps):
            raise IndexRangeError(
                f"{type(self).__name__}: there is no step {index} among {len(self.timesteps)}.",
                got=index,
                size=len(self.timesteps),
            )
        self._begin = index

    def index_of(self, timestep: Any) -> int:
        """Where a timestep stands in `timesteps`; the second place, where it stands twice.

        Raises:
            IndexRangeError: it is none of them.
        """
        value = _number(timestep)
        found = np.flatnonzero(self.timesteps == self.timesteps.dtype.type(value))
        if not len(found):
            listed = ", ".join(f"{t:g}" for t in self.timesteps[:4])
            raise IndexRangeError(
                f"{type(self).__name__}: {value:g} is none of its {len(self.timesteps)} timesteps "
                f"({listed}, ...).\nset_timesteps(n) chooses them; step through "
                "scheduler.timesteps.",
                got=value,
            )
        return int(found[1 if len(found) > 1 else 0])

    def _place(self, timestep: Any) -> int:
        """The index of the step to take now.

        Raises:
            ConfigError: the steps are not chosen yet, or all are done.
        """
        if self.steps is None:
            raise ConfigError(
                f"{type(self).__name__}: how many steps? scheduler.set_timesteps(20) comes before "
                "the first."
            )
        if self.index is None:
            self.index = self.index_of(timestep) if self._begin is None else self._begin
        if self.index >= len(self.timesteps):
            raise ConfigError(
                f"{type(self).__name__}: all {len(self.timesteps)} steps are done.\n"
                f"To begin again: scheduler.set_timesteps({self.steps})"
            )
        return self.index

    def check_timestep(self, timestep: Any) -> int:
        """A whole timestep of the training.

        Raises:
            IndexRangeError: it lies beyond.
        """
        value, size = _number(timestep), self.config.num_train_timesteps
        if value != int(value) or not 0 <= value < size:
            raise IndexRangeError(
                f"{type(self).__name__}: {value:g} is none of its {size} timesteps "
                f"(0 to {size - 1}).",
                got=value,
                size=size,
            )
        return int(value)

    def check_samples(self, model_output: Tensor, sample: Tensor) -> None:
        """Raise unless the model's output is of the sample's shape."""
        if tuple(model_output.shape) != tuple(sample.shape):
            raise ShapeError(
                f"{type(self).__name__}: the model's output {tuple(model_output.shape)} and the "
                f"sample {tuple(sample.shape)} must have one shape.",
                expected=tuple(sample.shape),
                got=tuple(model_output.shape),
            )

    # -- noise ---------------------------------------------------------------------------------

    def scales(self, timestep: Any) -> tuple[float, float]:
        """Factors of the signal and of the noise at a timestep."""
        left = float(self.signal[self.check_timestep(timestep)])
        return left**0.5, (1 - left) ** 0.5

    def add_noise(self, original_samples: Tensor, noise: Tensor, timesteps: Any) -> Tensor:
        """Samples as noisy as at these timesteps: one number, or one for each sample.

        Shape:
            original_samples and noise (B, ...), kept
        """
        self.check_samples(noise, original_samples)
        signal, sigma = self._factors(timesteps, original_samples)
        return signal * original_samples + sigma * noise

    def get_velocity(self, sample: Tensor, noise: Tensor, timesteps: Any) -> Tensor:
        """What models of `prediction_type="v_prediction"` are trained to predict.

        Source: Salimans and Ho 2022, "Progressive distillation for fast sampling".
        """
        self.check_samples(noise, sample)
        signal, sigma = self._factors(timesteps, sample)
        return signal * noise - sigma * sample

    def _factors(self, timesteps: Any, like: Tensor) -> tuple[Tensor, Tensor]:
        """`scales` of each sample, shaped to multiply it."""
        times = timesteps.numpy() if isinstance(timesteps, Tensor) else np.asarray(timesteps)
        if times.ndim > 1 or times.size not in (1, like.shape[0]):
            raise ShapeError(
                f"{type(self).__name__}: one timestep for each of the {like.shape[0]} samples is "
                f"wanted, got {times.shape}.",
                expected=(like.shape[0],),
                got=times.shape,
            )
        pairs = np.array([self.scales(t) for t in times.reshape(-1)])
        shape = (len(pairs), *[1] * (like.ndim - 1))
        first, second = (
            asarray(column.reshape(shape).astype(like.dtype), device=like.device)
            for column in pairs.T
        )
        return first, second


def _number(timestep: Any) -> float:
    return float(timestep.item() if hasattr(timestep, "item") else timestep)
