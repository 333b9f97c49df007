"""Random numbers: one stream that is the same on every device.

The generator is Philox 4x32-10, a function of a seed and a counter: block `i` of the stream is
four 32-bit words. A draw takes the next words of the stream by moving the generator's position,
which is itself an operation (`draw`) that writes the generator's state; what it hands out, a
key, is an operand of the operation that makes the numbers. So a recorded graph draws fresh
numbers at every replay, and `checkpoint` can repeat a draw. NumPy's generator, seeded together
with ours, serves initialisation and shuffling.

Source: Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3".
"""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping
from typing import Any

import numpy as np

from . import dtypes, native
from .devices import Device, as_device, backend_for
from .errors import ConfigError
from .op import op
from .state import state
from .tensor import Tensor

_BLOCK = 16384  # words generated at once: small draws are slices of the last block
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)
_ROUNDS = 10
_MASK = 0xFFFFFFFF


def philox(xp: Any, seed: int, first: int, count: int) -> Any:
    """Blocks `first` to `first + count` of the stream of a seed: `4 * count` uint32 words."""
    if xp is np and native.available():
        return native.philox(seed, first, count)
    return philox_of(xp, seed, first, count)


def philox_of(xp: Any, seed: int, first: int, count: int) -> Any:
    """`philox` in terms of the array library: the definition, and the way without C kernels."""
    with np.errstate(over="ignore"):
        counter = xp.arange(first, first + count, dtype=np.uint64)
        c0, c1 = counter & _MASK, counter >> np.uint64(32)
        c2 = c3 = xp.zeros_like(counter)
        k0, k1 = seed & _MASK, seed >> 32
        for _ in range(_ROUNDS):
            p0, p1 = c0 * np.uint64(_MULTIPLIERS[0]), c2 * np.uint64(_MULTIPLIERS[1])
            c0, c2 = (
                (p1 >> np.uint64(32)) ^ c1 ^ np.uint64(k0),
                ((p0 >> np.uint64(32)) ^ c3 ^ np.uint64(k1)),
            )
            c1, c3 = p1 & _MASK, p0 & _MASK
            k0, k1 = (k0 + _WEYL[0]) & _MASK, (k1 + _WEYL[1]) & _MASK
        return xp.stack((c0, c1, c2, c3), axis=1).astype(np.uint32).reshape(-1)


class _Blocks(threading.local):
    """The block that a thread used last, so that small draws cost a slice."""

    key: tuple[int, int] | None = None
    words: Any = None


_last = _Blocks()


def _words(xp: Any, key: Any, count: int) -> Any:
    """`count` words of the stream from the position that the key names."""
    seed, position = (int(v) for v in (key.get() if hasattr(key, "get") else key))
    first, offset = divmod(position, _BLOCK)
    blocks = -(-(offset + count) // _BLOCK)
    if blocks == 1 and xp is np:
        if _last.key != (seed, first):
            _last.words = philox(np, seed, first * (_BLOCK // 4), _BLOCK // 4)
            _last.key = (seed, first)
        return _last.words[offset : offset + count]
    words = philox(xp, seed, first * (_BLOCK // 4), blocks * (_BLOCK // 4))
    return words[offset : offset + count]


class Generator:
    """A position in the random stream of a seed.

    Args:
        seed: any integer of up to 64 bits.
        device: where the numbers are made; the stream is the same on all.
    """

    def __init__(self, seed: int = 0, device: Any = None) -> None:
        self.device: Device = as_device(device)
        xp = backend_for(self.device).xp
        self.state = Tensor(xp.zeros(2, np.uint64))
        self.manual_seed(seed)

    def manual_seed(self, seed: int) -> Generator:
        """Start the stream of another seed; returns the generator."""
        if not 0 <= seed < 2**64:
            raise ConfigError(f"a seed is an integer from 0 to 2**64 - 1, got {seed}", got=seed)
        self.state.array[0] = seed
        self.state.array[1] = 0
        return self

    def get_state(self) -> tuple[int, int]:
        """Seed and position: what a checkpoint has to keep."""
        seed, position = self.state.array.tolist()
        return seed, position

    def set_state(self, value: tuple[int, int]) -> None:
        """Go back to a state that `get_state` returned."""
        self.state.array[0], self.state.array[1] = value

    def __repr__(self) -> str:
        seed, position = self.get_state()
        return f"Generator(seed={seed}, position={position}, device={str(self.device)!r})"


@op(raw=True, writes=("state",), differentiable=False)
def draw(xp: Any, state: Tensor, *, count: int) -> Tensor:
    """Take `count` words of a generator's stream: returns their key, moves the position."""
    key = state.copy()
    state[1] += np.uint64(count)
    return key


def key(count: int, generator: Generator | None, device: Any = None) -> Tensor:
    """The key of a fresh draw of `count` words, or of the draw that is being repeated.

    A generator draws on its own device; `device` is that of the default one.
    """
    if state.key_replay is not None:
        repeated: Tensor = next(state.key_replay)
        return repeated
    chosen = generator if generator is not None else default_generator(device)
    fresh = draw(chosen.state, count=count)
    if state.key_log is not None:
        state.key_log.append(fresh)
    return fresh


_defaults: dict[Device, Generator] = {}
_seed = 0
_numpy = np.random.default_rng(0)


def default_generator(device: Any = None) -> Generator:
    """The generator used on a device when none is given."""
    place = as_device(device)
    if place not in _defaults:
        _defaults[place] = Generator(_seed, place)
    return _defaults[place]


def manual_seed(seed: int) -> None:
    """Seed everything: the generators of all devices, and NumPy's for initialisation."""
    global _seed, _numpy
    if not 0 <= seed < 2**64:
        raise ConfigError(f"a seed is an integer from 0 to 2**64 - 1, got {seed}", got=seed)
    _seed = seed
    for generator in _defaults.values():
        generator.manual_seed(seed)
    _numpy = np.random.default_rng(seed)


def numpy_rng() -> np.random.Generator:
    """NumPy's generator that `manual_seed` seeds: for initialisation and shuffling."""
    return _numpy


def get_state() -> dict[str, Any]:
    """Where all random streams stand, as JSON values: ours on every device, and NumPy's."""
    return {
        "seed": _seed,
        "generators": {str(device): list(g.get_state()) for device, g in _defaults.items()},
        "numpy": _numpy.bit_generator.state,
    }


def set_state(value: Mapping[str, Any]) -> None:
    """Put all random streams back where `get_state` found them."""
    global _seed
    _seed = int(value["seed"])
    for device, (seed, position) in value["generators"].items():
        default_generator(device).set_state((int(seed), int(position)))
    _numpy.bit_generator.state = value["numpy"]


def snapshot() -> Any:
    """Where all random streams stand, for `restore`; does not wait for a GPU."""
    places = {device: g.state.array.copy() for device, g in _defaults.items()}
    return _seed, places, _numpy.bit_generator.state


def restore(taken: Any) -> None:
    """Put all random streams back where `snapshot` found them."""
    global _seed
    _seed, places, _numpy.bit_generator.state = taken
    for device, generator in _defaults.items():
        if device in places:
            generator.state.array[...] = places[device]
        else:  # made since then
            generator.manual_seed(_seed)


# -- distributions -----------------------------------------------------------------------------


def _word_count(shape: tuple[int, ...], dtype: dtypes.DType) -> int:
    return math.prod(shape) * (2 if dtype == dtypes.float64 else 1)


@op(name="random_uniform", raw=True, differentiable=False)
def _uniform(xp: Any, key: Tensor, *, shape: tuple[int, ...], dtype: dtypes.DType) -> Tensor:
    words = _words(xp, key, _word_count(shape, dtype))
    if dtype == dtypes.float64:
        high, low = words[0::2] >> np.uint32(5), words[1::2] >> np.uint32(6)
        return ((high * 67108864.0 + low) / 9007199254740992.0).reshape(shape)
    small = (words >> np.uint32(8)).astype(np.float32) * np.float32(2.0**-24)
    return small.reshape(shape)


@op(name="random_normal", raw=True, differentiable=False)
def _normal(xp: Any, key: Tensor, *, shape: tuple[int, ...], dtype: dtypes.DType) -> Tensor:
    # Box and Muller: two uniforms give two normals.
    count = math.prod(shape)
    pairs = (count + 1) // 2
    words = _words(xp, key, 2 * pairs * (2 if dtype == dtypes.float64 else 1))
    if dtype == dtypes.float64:
        u = ((words[0::2] >> np.uint32(5)) * 67108864.0 + (words[1::2] >> np.uint32(6)) + 1.0) / (
            9007199254740992.0
        )
    else:
        u = ((words >> np.uint32(8)).astype(np.float32) + np.float32(1)) * np.float32(2.0**-24)
    radius = xp.sqrt(-2 * xp.log(u[0::2]))
    angle = u[1::2] * u.dtype.type(2 * math.pi)
    out = xp.empty(2 * pairs, u.dtype)
    out[0::2] = radius * xp.cos(angle)
    out[1::2] = radius * xp.sin(angle)
    return out[:count].reshape(shape)


@op(name="random_integers", raw=True, differentiable=False)
def _integers(xp: Any, key: Tensor, *, low: int, high: int, shape: tuple[int, ...]) -> Tensor:
    span = high - low
    words = _words(xp, key, 2 * math.prod(shape)).astype(np.uint64)
    wide = (words[0::2] << np.uint64(32)) | words[1::2]
    return ((wide % np.uint64(span)).astype(np.int64) + low).reshape(shape)


def _shape(shape: Any) -> tuple[int, ...]:
    return (int(shape),) if hasattr(shape, "__index__") else tuple(int(n) for n in shape)


def _finished(x: Tensor, dtype: dtypes.DType) -> Tensor:
    return x if x.dtype == dtype else x.astype(dtype)


def _float(dtype: Any) -> tuple[dtypes.DType, dtypes.DType]:
    """The dtype asked for, and the one that is drawn in."""
    wanted = dtypes.default_float if dtype is None else dtypes.as_dtype(dtype)
    if wanted not in dtypes.FLOATS:
        raise ConfigError(f"random numbers are drawn as floats, got dtype {wanted}")
    return wanted, dtypes.widened(wanted)


def uniform(
    shape: Any,
    *,
    low: float = 0.0,
    high: float = 1.0,
    dtype: Any = None,
    device: Any = None,
    generator: Generator | None = None,
) -> Tensor:
    """Uniform numbers from `low` (included) to `high`; bit-equal on every device."""
    wanted, drawn = _float(dtype)
    size = _shape(shape)
    u = _uniform(key(_word_count(size, drawn), generator, device), shape=size, dtype=drawn)
    if (low, high) != (0.0, 1.0):
        u = u * (high - low) + low
    return _finished(u, wanted)


def normal(
    shape: Any,
    *,
    mean: float = 0.0,
    std: float = 1.0,
    dtype: Any = None,
    device: Any = None,
    generator: Generator | None = None,
) -> Tensor:
    """Normal numbers; equal on every device to 1e-6."""
    wanted, drawn = _float(dtype)
    size = _shape(shape)
    pairs = (math.prod(size) + 1) // 2
    count = 2 * pairs * (2 if drawn == dtypes.float64 else 1)
    z = _normal(key(count, generator, device), shape=size, dtype=drawn)
    if (mean, std) != (0.0, 1.0):
        z = z * std + mean
    return _finished(z, wanted)


def integers(
    low: int,
    high: int,
    shape: Any = (),
    *,
    dtype: Any = None,
    device: Any = None,
    generator: Generator | None = None,
) -> Tensor:
    """Whole numbers from `low` (included) to `high` (excluded); bit-equal on every device."""
    if high <= low:
        raise ConfigError(f"integers: nothing lies between {low} and {high}")
    size = _shape(shape)
    drawn = _integers(key(2 * math.prod(size), generator, device), low=low, high=high, shape=size)
    return _finished(drawn, dtypes.int64 if dtype is None else dtypes.as_dtype(dtype))


def bernoulli(
    p: float, shape: Any, *, device: Any = None, generator: Generator | None = None
) -> Tensor:
    """True with probability `p`."""
    if not 0 <= p <= 1:
        raise ConfigError(f"a probability lies between 0 and 1, got {p}", got=p)
    return uniform(shape, device=device, generator=generator) < p


def permutation(n: int, *, generator: Generator | None = None) -> Tensor:
    """The numbers 0 to n - 1 in random order."""
    if generator is None:
        return Tensor(_numpy.permutation(n))
    seed = int(integers(0, 2**62, (), generator=generator).item())
    return Tensor(np.random.default_rng(seed).permutation(n))
