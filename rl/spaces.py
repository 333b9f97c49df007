"""Spaces: what an environment shows, and what it takes as an action.

The four kinds that agents here can learn with. A space describes one environment; arrays of N
environments have one more axis in front.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..core.errors import ConfigError, DataError
from ..core.random import numpy_rng

_HUGE = 2**53  # integers beyond are no longer exact as floats


@dataclass(frozen=True)
class Space(ABC):
    """Base of the four kinds; `Space.of` and `Space.from_json` build the right one."""

    @property
    @abstractmethod
    def shape(self) -> tuple[int, ...]:
        """Shape of one value."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Data type of arrays of values."""
        return np.dtype(np.int64)

    @property
    def features(self) -> int:
        """Numbers in one value when given to a network: see `encode`."""
        return int(np.prod(self.shape, dtype=np.int64))

    def contains(self, value: Any) -> bool:
        """Whether this is one value of the space."""
        try:
            array = np.asarray(value)
        except ValueError:  # ragged lists
            return False
        if array.shape != self.shape or array.dtype.kind not in "biuf":
            return False
        return self.problem(array[None]) is None

    @abstractmethod
    def problem(self, values: np.ndarray) -> str | None:
        """What is wrong with values in an array with one axis more, or None.

        Shape: `(N, *self.shape)`, which is not checked again.
        """

    def sample(
        self, rng: np.random.Generator | int | None = None, num: int | None = None
    ) -> np.ndarray:
        """A random value, or an array of `num` of them.

        Args:
            rng: a generator, a seed, or None for the one that `bt.manual_seed` sets.
            num: how many; None gives one value without the additional axis.
        """
        if rng is None:
            rng = numpy_rng()
        elif not isinstance(rng, np.random.Generator):
            rng = np.random.default_rng(rng)
        values = self._draw(rng, 1 if num is None else num)
        return np.asarray(values[0]) if num is None else values

    @abstractmethod
    def _draw(self, rng: np.random.Generator, num: int) -> np.ndarray:
        """`num` random values."""

    def encode(self, values: np.ndarray) -> np.ndarray:
        """Values as float32 features for a network: classes one-hot, the rest flattened.

        Shape: (N, *self.shape) -> (N, self.features)
        """
        return np.asarray(values).reshape(len(values), -1).astype(np.float32)

    @abstractmethod
    def to_json(self) -> dict[str, Any]:
        """The space as JSON holds it; `from_json` gives it back."""

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> Space:
        """The space that `to_json` described.

        Raises:
            DataError: it describes none.
        """
        return from_json(data)

    @staticmethod
    def of(space: Any) -> Space:
        """The same space, from one of Gymnasium's or ours; see `of`."""
        return of(space)


@dataclass(frozen=True, init=False, eq=False, repr=False)
class Box(Space):
    """Arrays of numbers between bounds.

    Args:
        low: the least values, a number or an array; may be -inf.
        high: the greatest values, likewise.
        shape: of one value; by default that of the bounds.
        dtype: float32, uint8, ...
    """

    low: np.ndarray
    high: np.ndarray

    def __init__(self, low: Any, high: Any, shape: Any = None, dtype: Any = np.float32) -> None:
        text = f"Box(low={low!r}, high={high!r}, shape={shape})"
        dtype = np.dtype(dtype)
        if dtype.kind not in "biuf":
            raise ConfigError(f"Box holds numbers, not {dtype}", dtype=dtype)
        try:
            low, high = np.asarray(low, np.float64), np.asarray(high, np.float64)
            if shape is None:
                shape = np.broadcast_shapes(low.shape, high.shape)
            shape = _shape(shape)
            low, high = np.broadcast_to(low, shape), np.broadcast_to(high, shape)
        except (TypeError, ValueError) as error:
            raise ConfigError(f"{text}: {error}") from None
        if np.isnan(low).any() or np.isnan(high).any() or (low > high).any():
            raise ConfigError(f"{text}: low must be at most high, and neither may be NaN")
        if dtype.kind in "iu":
            edge = np.iinfo(dtype)
            if (low < edge.min).any() or (high > edge.max).any():
                raise ConfigError(f"{text}: {dtype} holds {edge.min} to {edge.max}", dtype=dtype)
        for name, value in (("low", low.astype(dtype)), ("high", high.astype(dtype))):
            value.flags.writeable = False
            object.__setattr__(self, name, value)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.low.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.low.dtype

    @property
    def bounded(self) -> bool:
        """Whether all bounds are finite."""
        return bool(np.isfinite(self.low).all() and np.isfinite(self.high).all())

    def problem(self, values: np.ndarray) -> str | None:
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            return "NaN or infinity"
        outside = (values < self.low) | (values > self.high)
        if outside.any():
            worst = values[outside].ravel()[0]
            return f"{worst} is outside {_span(self.low)} to {_span(self.high)}"
        return None

    def _draw(self, rng: np.random.Generator, num: int) -> np.ndarray:
        shape = (num, *self.shape)
        if self.dtype.kind == "b":
            return rng.random(shape) < 0.5
        if self.dtype.kind in "iu":
            return rng.integers(self.low, self.high, shape, self.dtype, endpoint=True)
        low, high = self.low.astype(np.float64), self.high.astype(np.float64)
        down, up = np.isfinite(low), np.isfinite(high)
        # Without bounds: normal; with one bound: exponential beyond it.
        values = rng.standard_normal(shape)
        values = np.where(down & ~up, np.where(down, low, 0) + np.abs(values), values)
        values = np.where(up & ~down, np.where(up, high, 0) - np.abs(values), values)
        both = down & up
        start, width = np.where(both, low, 0), np.where(both, high, 0) - np.where(both, low, 0)
        values = np.where(both, start + rng.random(shape) * width, values)
        return np.asarray(np.clip(values.astype(self.dtype), self.low, self.high))

    def to_json(self) -> dict[str, Any]:
        return {
            "kind": "Box",
            "low": _bounds(self.low),
            "high": _bounds(self.high),
            "shape": list(self.shape),
            "dtype": self.dtype.name,
        }

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Box)
            and self.shape == other.shape
            and self.dtype == other.dtype
            and np.array_equal(self.low, other.low)
            and np.array_equal(self.high, other.high)
        )

    def __hash__(self) -> int:
        return hash((self.shape, self.dtype, self.low.tobytes(), self.high.tobytes()))

    def __repr__(self) -> str:
        return f"Box({_span(self.low)}, {_span(self.high)}, {self.shape}, {self.dtype.name})"


_UNSIGNED = {size: np.dtype(f"u{size}") for size in (1, 2, 4, 8)}
_maximum = np.maximum.reduce


@dataclass(frozen=True)
class Discrete(Space):
    """One of `n` integers, from `start`."""

    n: int
    start: int = 0

    def __post_init__(self) -> None:
        _positive("Discrete", "n", self.n)
        _whole("Discrete", "start", self.start)

    @property
    def shape(self) -> tuple[int, ...]:
        return ()

    @property
    def features(self) -> int:
        return self.n

    def problem(self, values: np.ndarray) -> str | None:
        if values.dtype.kind not in "iu":
            return f"{values.dtype} numbers, where integers are wanted"
        # Reductions are faster than comparing every element, and those of NumPy's functions than
        # its methods; a number below 0 is a very large one without its sign.
        if not len(values):
            return None
        if self.start == 0:
            signed = values.dtype.kind == "i"
            unsigned = values.view(_UNSIGNED[values.itemsize]) if signed else values
            outside = _maximum(unsigned, None) >= self.n
        else:
            outside = values.min() < self.start or values.max() >= self.start + self.n
        if outside:
            wrong = values[(values < self.start) | (values >= self.start + self.n)][0]
            return f"{wrong} is outside {self.start} to {self.start + self.n - 1}"
        return None

    def _draw(self, rng: np.random.Generator, num: int) -> np.ndarray:
        return rng.integers(self.start, self.start + self.n, num)

    def encode(self, values: np.ndarray) -> np.ndarray:
        return _one_hot(np.asarray(values) - self.start, self.n)

    def to_json(self) -> dict[str, Any]:
        return {"kind": "Discrete", "n": self.n, "start": self.start}


@dataclass(frozen=True)
class MultiDiscrete(Space):
    """Several integers, the i-th below `nvec[i]`."""

    nvec: tuple[int, ...]

    def __post_init__(self) -> None:
        try:
            sizes = tuple(int(n) if n == int(n) else n for n in np.asarray(self.nvec).tolist())
        except (TypeError, ValueError):
            sizes = ()
        if not sizes:
            raise ConfigError(f"MultiDiscrete({self.nvec!r}) wants a list such as [3, 2]")
        for n in sizes:
            _positive("MultiDiscrete", "each number of nvec", n)
        object.__setattr__(self, "nvec", sizes)

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self.nvec),)

    @property
    def features(self) -> int:
        return sum(self.nvec)

    def problem(self, values: np.ndarray) -> str | None:
        if values.dtype.kind not in "iu":
            return f"{values.dtype} numbers, where integers are wanted"
        outside = (values < 0) | (values >= np.asarray(self.nvec))
        if outside.any():
            row, column = (int(k[0]) for k in outside.nonzero())
            return f"{values[row, column]} is outside 0 to {self.nvec[column] - 1}"
        return None

    def _draw(self, rng: np.random.Generator, num: int) -> np.ndarray:
        return rng.integers(0, np.asarray(self.nvec), (num, len(self.nvec)))

    def encode(self, values: np.ndarray) -> np.ndarray:
        columns = np.asarray(values).T
        parts = [_one_hot(column, n) for column, n in zip(columns, self.nvec, strict=True)]
        return np.concatenate(parts, axis=1)

    def to_json(self) -> dict[str, Any]:
        return {"kind": "MultiDiscrete", "nvec": list(self.nvec)}


@dataclass(frozen=True)
class MultiBinary(Space):
    """`n` numbers that are 0 or 1."""

    n: int

    def __post_init__(self) -> None:
        _positive("MultiBinary", "n", self.n)

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.n,)

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(np.int8)

    def problem(self, values: np.ndarray) -> str | None:
        outside = (values != 0) & (values != 1)
        return f"{values[outside].ravel()[0]} is neither 0 nor 1" if outside.any() else None

    def _draw(self, rng: np.random.Generator, num: int) -> np.ndarray:
        return rng.integers(0, 2, (num, self.n), np.int8)

    def to_json(self) -> dict[str, Any]:
        return {"kind": "MultiBinary", "n": self.n}


def from_json(data: Mapping[str, Any]) -> Space:
    """The space that `Space.to_json` described.

    Raises:
        DataError: it describes none.
    """
    wanted: dict[str, tuple[Any, set[str]]] = {
        "Box": (Box, {"low", "high", "shape", "dtype"}),
        "Discrete": (Discrete, {"n", "start"}),
        "MultiDiscrete": (MultiDiscrete, {"nvec"}),
        "MultiBinary": (MultiBinary, {"n"}),
    }
    kind = data.get("kind") if hasattr(data, "get") else None
    if not isinstance(kind, str) or kind not in wanted:
        raise DataError(f"a space is one of {', '.join(wanted)}, not {data!r}")
    build, names = wanted[kind]
    values = {k: v for k, v in data.items() if k != "kind"}
    if set(values) != names:
        raise DataError(f"{kind} is described by {', '.join(sorted(names))}, not {data!r}")
    try:
        if build is Box:
            dtype = np.dtype(values["dtype"])
            ends = {k: np.asarray(values[k]).astype(np.float64) for k in ("low", "high")}
            return Box(**ends, shape=tuple(values["shape"]), dtype=dtype)
        made: Space = build(**values)
        return made
    except (TypeError, ValueError) as error:  # ConfigError too
        raise DataError(f"{data!r} describes no {kind}: {error}") from None


def of(space: Any) -> Space:
    """A space of Gymnasium as one of ours; ours are returned as they are.

    Raises:
        ConfigError: agents here have no use for that kind of space.
    """
    if isinstance(space, Space):
        return space
    kind = type(space).__name__
    if kind == "Box":
        low, high = np.asarray(space.low), np.asarray(space.high)
        if space.dtype.kind in "iu" and space.dtype.itemsize == 8:
            # Whole ranges of 64 bits are not exact as floats: what is used is far smaller.
            low, high = np.clip(low, -_HUGE, _HUGE), np.clip(high, -_HUGE, _HUGE)
        return Box(low, high, tuple(space.shape), space.dtype)
    if kind == "Discrete":
        return Discrete(int(space.n), int(space.start))
    if kind == "MultiDiscrete":
        if np.ndim(space.nvec) == 1 and not np.any(getattr(space, "start", 0)):
            return MultiDiscrete(tuple(np.asarray(space.nvec).tolist()))
        raise ConfigError(f"{space}: only a list of integers that start at 0 is supported")
    if kind == "MultiBinary":
        if len(space.shape) == 1:
            return MultiBinary(int(space.shape[0]))
        raise ConfigError(f"{space}: only a flat list of bits is supported")
    hint = ""
    if kind in ("Dict", "Tuple"):
        hint = (
            "\nFor observations: gymnasium.wrappers.FlattenObservation(env) makes one array of it."
        )
    raise ConfigError(
        f"a space of kind {kind} is not supported.\n"
        f"Supported: Box, Discrete, MultiDiscrete, MultiBinary.{hint}",
        kind=kind,
    )


def _one_hot(values: np.ndarray, n: int) -> np.ndarray:
    out = np.zeros((len(values), n), np.float32)
    out[np.arange(len(values)), values] = 1
    return out


def _shape(shape: Any) -> tuple[int, ...]:
    sizes = tuple(shape) if np.iterable(shape) else (shape,)
    if any(not isinstance(n, (int, np.integer)) or n < 0 for n in sizes):
        raise ValueError(f"{shape} is no shape")
    return tuple(int(n) for n in sizes)


def _span(values: np.ndarray) -> str:
    """A bound in words: one number where all are the same."""
    flat = values.ravel()
    if flat.size and (flat == flat[0]).all():
        return f"{flat[0]:.6g}"
    return str([float(f"{v:.6g}") for v in flat[:6]])[:-1] + (", ...]" if flat.size > 6 else "]")


def _bounds(values: np.ndarray) -> Any:
    """Bounds for JSON, which has no infinities: those are texts."""
    flat = values.ravel()
    if flat.size and (flat == flat[0]).all():
        values = np.asarray(flat[0])

    def plain(value: Any) -> Any:
        if isinstance(value, list):
            return [plain(v) for v in value]
        return value if np.isfinite(value) else str(value)

    return plain(values.tolist())


def _whole(what: str, name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise ConfigError(f"{what}: {name} is an integer, not {value!r}", value=value)


def _positive(what: str, name: str, value: Any) -> None:
    _whole(what, name, value)
    if value < 1:
        raise ConfigError(f"{what}: {name} is at least 1, not {value}", value=value)
