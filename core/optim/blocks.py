"""How an update walks through memory: blocks that stay in cache, and scratch space for them.

An update reads and writes four or five arrays several times. Done array by array, every pass
would go through main memory; done block by block, one pass does.
"""

from __future__ import annotations

import functools
import inspect
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from .. import dtypes
from ..op import Op, op

# Elements. Six float32 blocks of 64 KiB fit in a second-level cache of 512 KiB.
BLOCK = 1 << 14


class _Scratch(threading.local):
    def __init__(self) -> None:
        self.arrays: dict[tuple[dtypes.DType, int], Any] = {}


_scratch = _Scratch()


def _scratch_arrays(xp: Any, size: int, dtype: dtypes.DType, count: int) -> list[Any]:
    """`count` arrays to compute in; on the CPU the same ones each time, for one block."""
    if xp is not np:
        return [xp.empty(size, dtype) for _ in range(count)]
    found = []
    for i in range(count):
        array = _scratch.arrays.get((dtype, i))
        if array is None or array.size < size:
            array = _scratch.arrays[dtype, i] = np.empty(max(size, BLOCK), dtype)
        found.append(array[:size])
    return found


def update_op(*writes: str) -> Callable[[Callable[..., None]], Op[..., None]]:
    """Make an operation of an optimizer's update, which writes the operands of these names.

    It takes one operand more than the function, the first: `skip`, None or a truth value without
    axes. Where it is True, as when a gradient overflowed, everything stays as it was. Being read
    by the operation, it holds for recorded steps too.
    """

    def make(body: Callable[..., None]) -> Op[..., None]:
        signature = inspect.signature(body)
        xp, *others = signature.parameters.values()
        written = [i for i, p in enumerate(others) if p.name in writes]

        @functools.wraps(body)
        def run(xp: Any, skip: Any, *operands: Any, **constants: Any) -> None:
            if skip is None:
                body(xp, *operands, **constants)
            elif xp is np:
                if not skip:
                    body(xp, *operands, **constants)
            else:  # reading `skip` would stop the stream
                kept = [
                    (operands[i], operands[i].copy()) for i in written if operands[i] is not None
                ]
                body(xp, *operands, **constants)
                for array, before in kept:
                    array[...] = xp.where(skip, before, array)

        skip = inspect.Parameter("skip", inspect.Parameter.POSITIONAL_OR_KEYWORD)
        run.__signature__ = signature.replace(parameters=[xp, skip, *others])  # type: ignore[attr-defined]
        made: Op[..., None] = op(raw=True, differentiable=False, writes=writes)(run)
        return made

    return make


def compute_dtype(dtype: dtypes.DType) -> dtypes.DType:
    """The dtype in which values of another are updated: float32 for halves."""
    return dtypes.widened(dtype)


def blocks(
    xp: Any, flat: Any, sources: Sequence[Any], dtype: dtypes.DType, arrays: int
) -> Iterator[tuple[slice, Any, Any, list[Any]]]:
    """The blocks of an update: where, the parameters, the gradients, arrays to compute in.

    The parameters are a part of `flat` if it has this dtype, else a copy that is written back
    after the body of the loop. Gradients must not be written: they may be a source's own memory.

    Args:
        sources: the gradients of all parameters, one after another.
        dtype: to compute in.
        arrays: how many of them to compute in.
    """
    for where, size, values in _parts(xp, sources, dtype):
        target = flat[where]
        p = target if target.dtype == dtype else target.astype(dtype)
        yield where, p, values, _scratch_arrays(xp, size, dtype, arrays)
        if p is not target:
            target[...] = p


def _parts(
    xp: Any, sources: Sequence[Any], dtype: dtypes.DType
) -> Iterator[tuple[slice, int, Any]]:
    """The values of all sources one after another, in blocks: where, how many, the values."""
    start = 0
    limit = BLOCK if xp is np else 1 << 62
    pending: list[Any] = []
    waiting = 0
    for source in sources:
        flat = source.reshape(-1)
        size = flat.size
        if waiting + size > limit and pending:
            yield slice(start, start + waiting), waiting, _joined(xp, pending, dtype)
            start, waiting, pending = start + waiting, 0, []
        if size <= limit:
            pending.append(flat)
            waiting += size
            continue
        for first in range(0, size, limit):
            part = flat[first : first + limit]
            if part.dtype != dtype:
                part = part.astype(dtype)
            yield slice(start, start + part.size), part.size, part
            start += part.size
    if pending:
        yield slice(start, start + waiting), waiting, _joined(xp, pending, dtype)


def joined(xp: Any, sources: Sequence[Any], dtype: dtypes.DType) -> Iterator[tuple[slice, Any]]:
    """All sources one after another, for kernels that go through memory themselves: small ones
    joined to blocks, others as they are. Where each lies, and its values."""
    pending: list[Any] = []
    start = waiting = 0
    for source in (*sources, None):
        size = BLOCK if source is None else source.size
        if pending and waiting + size > BLOCK:
            yield slice(start, start + waiting), _joined(xp, pending, dtype)
            start, waiting, pending = start + waiting, 0, []
        if source is not None:
            pending.append(source.reshape(-1))
            waiting += source.size


def _joined(xp: Any, parts: list[Any], dtype: dtypes.DType) -> Any:
    joined = parts[0] if len(parts) == 1 else xp.concatenate(parts)
    return joined if joined.dtype == dtype else joined.astype(dtype)


def numbers(xp: Any, scalars: Any) -> list[Any]:
    """The values of a small vector: floats on the CPU, arrays without axes on a GPU.

    Reading a GPU's memory would stop the stream, and could not be captured in a CUDA graph.
    """
    if xp is np:
        return scalars.tolist()  # type: ignore[no-any-return]
    return [scalars[i] for i in range(scalars.size)]


def count(xp: Any, step: Any) -> Any:
    """Advance the step count in place and return it, as `numbers` returns numbers."""
    step += 1
    return step.item() if xp is np else step


def caster(xp: Any, dtype: dtypes.DType) -> Callable[[Any], Any]:
    """Makes coefficients weak: a float is, a float64 array of a GPU must be converted."""
    if xp is np:
        return lambda x: x
    return lambda x: x.astype(dtype) if hasattr(x, "astype") else x


def may_be_nonzero(x: Any) -> bool:
    """Whether a term with this coefficient has to be computed (always, on a GPU)."""
    return not isinstance(x, float) or x != 0.0
