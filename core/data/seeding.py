"""Random numbers for transforms: the same for a sample whoever reads it.

The loader names each sample by (seed, epoch, position in the epoch) before it is read, in
whichever thread or process that happens. What a transform draws from `sample_rng()` depends on
that name alone, so the number of workers changes nothing.
"""

from __future__ import annotations

import threading

import numpy as np

# The first number of a key says what it is for, so that no two purposes share random numbers.
SAMPLE, BATCH, STREAM, ORDER, SPLIT = range(1, 6)

Key = tuple[int, ...]


class _Current(threading.local):
    key: Key | None = None
    rng: np.random.Generator | None = None


_current = _Current()


def generator(key: Key) -> np.random.Generator:
    """A generator of its own for a tuple of non-negative integers."""
    return np.random.default_rng(key)


def sample_rng() -> np.random.Generator:
    """The generator that belongs to the sample (or batch) that is being read.

    Use it in transforms, in `Dataset.__getitem__` and in collate functions instead of
    `np.random` or `random`: the same batches then come from any number of workers, and after a
    resume. Outside a loader it is the generator that `bt.manual_seed` seeds.
    """
    if _current.key is None:
        from ..random import numpy_rng

        return numpy_rng()
    if _current.rng is None:  # made on first use: most samples need none
        _current.rng = generator(_current.key)
    return _current.rng


def set_key(key: Key | None) -> Key | None:
    """Say what this thread reads from here on; returns what it was reading before."""
    before = _current.key
    _current.key = key
    _current.rng = None
    return before


def fresh_seed() -> int:
    """A seed drawn from the generator that `bt.manual_seed` seeds."""
    from ..random import numpy_rng

    return int(numpy_rng().integers(2**63))
