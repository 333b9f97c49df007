"""Memory that ran out: what takes how much of it, and the batch that would fit."""

from __future__ import annotations

import gc
import math
import traceback
import tracemalloc
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .. import random
from ..devices import backend_for
from ..errors import OutOfMemoryError
from ..insight.system import available_memory
from ..nn.summary import readable_bytes
from ..node import Node
from ..tensor import Tensor
from .display import batch_size
from .tracing import untouched

if TYPE_CHECKING:
    from .turn import Training

_MARGIN = 0.75  # of what is free: a few samples do not show all, and free memory is in pieces


@dataclass(frozen=True)
class Step:
    """What a step of a batch takes, as a line through two measurements.

    Attributes:
        kept, kept_each: bytes that the graph keeps for the backward pass, and of each sample.
        peak, peak_each: bytes at the height of a step, gradients of the parameters included.
        parts: samples of the batches that were measured.
    """

    parts: tuple[int, int]
    kept: float
    kept_each: float
    peak: float
    peak_each: float

    def fits(self, free: int) -> int:
        """Samples whose step takes no more than this; rounded down to a multiple of 8."""
        count = max(int((free * _MARGIN - self.peak) / max(self.peak_each, 1.0)), 0)
        return count - count % 8 if count > 16 else count


@contextmanager
def exhaustion_told(trainer: Training, batch: Any) -> Iterator[None]:
    """Inside a step; memory that runs out becomes an error that says what took it."""
    try:
        yield
    except Exception as error:
        if is_exhaustion(error):
            raise out_of_memory(trainer, batch, error) from error
        raise


def is_exhaustion(error: BaseException) -> bool:
    """Whether an error says that memory ran out: Python's, NumPy's, CuPy's, or CUDA's."""
    return not isinstance(error, OutOfMemoryError) and (
        isinstance(error, MemoryError)
        or "cudaErrorMemoryAllocation" in str(error)
        or "ALLOC_FAILED" in str(error)
    )


def out_of_memory(trainer: Training, batch: Any, error: Exception) -> OutOfMemoryError:
    """The error that tells what took the memory; measures a few samples of the batch."""
    place = _place(error)
    told = str(error).splitlines()[0] if str(error) else type(error).__name__
    _let_go(error)
    trainer.module.zero_grad()
    device = trainer.module.device
    gc.collect()
    if device is not None and device.type != "cpu":
        backend_for(device).xp.get_default_memory_pool().free_all_blocks()
    free = available_memory(device or "cpu")
    size = batch_size(batch)
    try:
        step = _measured(trainer, batch, size)
        why = "" if step is not None else f"not measured: a batch of {size} cannot be divided"
    except Exception as failure:
        step, told_too = None, f"not measured: {failure}"
        why = "not even two samples fit" if is_exhaustion(failure) else told_too
    return _message(trainer, size, f"{place}: a batch of {size} does not fit.\n  {told}", step, why,
                    free)  # fmt: skip


def _message(
    trainer: Training, size: int, head: str, step: Step | None, why: str, free: int | None
) -> OutOfMemoryError:
    own = list(trainer.module.parameters())
    parameters = sum(p.nbytes for p in own) + sum(b.nbytes for b in trainer.module.buffers())
    gradients = sum(p.nbytes for p in own if p.requires_grad)
    optimizer = sum(
        x.nbytes
        for one in trainer.optimizers
        for group in one.param_groups
        for bucket in group.buckets
        for x in bucket.state.values()
    )
    activations = None if step is None else int(step.kept + size * step.kept_each)
    fits = None if step is None or free is None else min(step.fits(free), max(size - 1, 0))
    rows = {
        "parameters": readable_bytes(parameters),
        "gradients": readable_bytes(gradients),
        "optimizer state": readable_bytes(optimizer),
        "activations": why.splitlines()[0] if activations is None or step is None else
        f"{readable_bytes(activations)}, {readable_bytes(step.kept_each)} for each of {size} "
        f"samples (measured on {step.parts[0]} and {step.parts[1]})",
        "left for a step": "unknown" if free is None else readable_bytes(free),
    }  # fmt: skip
    if fits:
        rounds = math.ceil(size / fits)
        smaller = math.ceil(size / rounds)
        advice = f"A batch of about {fits} fits: batch_size={smaller}"
        if not trainer.whose:  # a `Trainer`
            advice = (
                f"A batch of about {fits} fits. As one of {size}: batch_size={smaller}"
                f", Trainer(..., accumulate={rounds * trainer.accumulate})"
            )
    else:
        advice = (
            "A smaller batch or smaller samples; or compute layers again in the backward pass:\n"
            "bt.checkpoint(layer, x); or train fewer parameters: module.requires_grad_(False)"
        )
    return OutOfMemoryError(
        f"out of memory at step {trainer.step + 1}{head}\n"
        + "".join(f"  {name:<16} {value}\n" for name, value in rows.items())
        + advice,
        step=trainer.step + 1,
        batch_size=size,
        fits=fits,
        parameters=parameters,
        gradients=gradients,
        optimizer=optimizer,
        activations=activations,
        available=free,
    )


def _place(error: BaseException) -> str:
    """The operation and the module, which were noted while the error travelled."""
    notes = [str(note).splitlines()[0] for note in getattr(error, "__notes__", ())]
    found = ""
    for note in notes:
        if note.startswith("in bestiary's "):
            found += f", in {note.removeprefix('in bestiary' + chr(39) + 's ').split(':')[0]}"
        elif note.startswith("in module "):
            found += f" of {note.removeprefix('in ')}"
        elif note.startswith("in the backward pass of "):
            found += f", {note.split(',')[0]}"
    return found


def _let_go(error: BaseException | None) -> None:
    """Drop what the frames of an error hold: the graph, which is to be measured without it."""
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__context__


def _measured(trainer: Training, batch: Any, size: int) -> Step | None:
    """Two small parts of the batch; None for batches that are too small."""
    # Large parts tell more, as gradients of the parameters are the height of a step of few samples.
    tried = [(size // 16, size // 8)] if size >= 64 else []
    tried += [(2, 4)] if size >= 8 else [(1, 2)] if size >= 3 else []
    for parts in tried:
        try:
            return _of_parts(trainer, batch, size, parts)
        except Exception as error:
            if parts == tried[-1] or not is_exhaustion(error):
                raise
            _let_go(error)
    return None


def _of_parts(trainer: Training, batch: Any, size: int, parts: tuple[int, int]) -> Step:
    """Forward and backward pass of a few samples, twice, with the random numbers of the batch."""
    after = random.snapshot()
    found = []
    try:
        for count in parts:
            random.restore(trainer.watch.drawn)
            with untouched(trainer.module):
                found.append(_one(trainer, part(batch, size, count)))
    finally:
        random.restore(after)
        trainer.module.zero_grad()
    (kept1, peak1), (kept2, peak2) = found
    more = parts[1] - parts[0]
    kept_each = max(kept2 - kept1, 0) / more
    peak_each = max((peak2 - peak1) / more, kept_each)
    return Step(
        parts, max(kept1 - parts[0] * kept_each, 0.0), kept_each,
        max(peak1 - parts[0] * peak_each, 0.0), peak_each,
    )  # fmt: skip


def _one(trainer: Training, few: Any) -> tuple[int, int]:
    """Bytes that the graph keeps, and bytes at the height of the step."""
    device = trainer.module.device
    own = {id(_root(p.array)) for p in trainer.module.parameters()}
    pool = None
    if device is not None and device.type != "cpu":
        pool = backend_for(device).xp.get_default_memory_pool()
        pool.free_all_blocks()
        before = int(pool.used_bytes())
    else:
        traced = tracemalloc.is_tracing()
        if not traced:
            tracemalloc.start()
        tracemalloc.reset_peak()
        before = tracemalloc.get_traced_memory()[0]
    try:
        loss, _ = trainer.compute(few)
        kept = sum({id(a): int(a.nbytes) for a in _saved(loss) if id(a) not in own}.values())
        loss.backward()
        del loss
        if pool is not None:  # blocks that were freed stay in the pool
            return kept, int(pool.total_bytes()) - before
        return kept, tracemalloc.get_traced_memory()[1] - before
    finally:
        trainer.module.zero_grad()
        if pool is None and not traced:
            tracemalloc.stop()


def _saved(loss: Tensor) -> Iterator[Any]:
    """The arrays that a graph keeps, those that own the memory."""
    seen: set[int] = set()
    stack: list[Any] = [loss._node]
    while stack:
        node = stack.pop()
        if not isinstance(node, Node) or node.order in seen:
            continue
        seen.add(node.order)
        stack.extend(node.parents)
        for entry in node.saved or ():
            for array in entry if isinstance(entry, tuple) else (entry,):
                if hasattr(array, "nbytes"):
                    yield _root(array)


def _root(array: Any) -> Any:
    while getattr(array, "base", None) is not None and hasattr(array.base, "nbytes"):
        array = array.base
    return array


def part(batch: Any, size: int, count: int) -> Any:
    """The first samples of a batch: of its tensors, arrays and lists as long as the batch."""
    if hasattr(batch, "shape"):
        return batch[:count] if batch.shape and batch.shape[0] == size else batch
    if isinstance(batch, Mapping):
        return {key: part(value, size, count) for key, value in batch.items()}
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*(part(value, size, count) for value in batch))
    if isinstance(batch, (list, tuple)):
        inner = [hasattr(value, "shape") for value in batch]
        if len(batch) == size and isinstance(batch, list) and not all(inner):
            return batch[:count]
        return type(batch)(part(value, size, count) for value in batch)
    return batch
