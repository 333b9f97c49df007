"""Reading one batch: samples, their random numbers, collation, and errors that name the sample.

A `Reader` does it wherever it is called: in the loader's own thread, in a worker thread, or in
a worker process, to which it is sent.
"""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import BestiaryError, DataError, ShapeError
from .collate import collate as default_collate
from .dataset import MapDataset, file_of, is_stream
from .seeding import BATCH, SAMPLE, set_key

_FRAMES_SHOWN = 4


@dataclass(frozen=True)
class Task:
    """One batch to read.

    Attributes:
        number: which batch of the epoch.
        first: the position in the epoch of its first sample.
        items: numbers of samples, or for a stream the raw samples.
        state: a stream's own state after these, where it has one.
    """

    number: int
    epoch: int
    first: int
    items: list[Any]
    state: dict[str, Any] | None = None


class Cancelled(Exception):
    """The batch is not wanted any more."""


@dataclass(frozen=True)
class Reader:
    """Turns a task into a batch of arrays.

    Attributes:
        name: what messages call the data set.
        dataset: where samples are read by number; None for a stream, whose samples come in the
            task (a stream, with its open file or socket, is never sent to a worker).
        transforms: what is applied to the samples of a stream; None for a data set.
        collate: makes a batch of a list of samples; None passes the single sample on.
        where: what messages call the thread or process.
        global_seed: also seed `random` and `np.random` for each sample (in a process, where
            nobody else uses them).
    """

    name: str
    dataset: Any
    transforms: tuple[Callable[[Any], Any], ...] | None
    collate: Callable[[list[Any]], Any] | None
    seed: int
    where: str = "the loader's own thread"
    global_seed: bool = False

    @classmethod
    def of(cls, dataset: Any, collate: Callable[[list[Any]], Any] | None, seed: int) -> Reader:
        """The reader of a data set or stream."""
        if not is_stream(dataset):
            return cls(type(dataset).__name__, dataset, None, collate, seed)
        source, transforms = stream_of(dataset)
        return cls(type(source).__name__, None, transforms, collate, seed)

    def __call__(self, task: Task, stop: Callable[[], bool]) -> Any:
        """The batch; raises Cancelled as soon as `stop()` says so."""
        before = set_key(None)
        try:
            gather = getattr(self.dataset, "gather", None)
            if self.collate is default_collate and callable(gather):
                return self._gather(gather, task)
            samples = []
            for offset, item in enumerate(task.items):
                if stop():
                    raise Cancelled
                samples.append(self._sample(task, offset, item))
            return self._collate(task, samples)
        finally:
            set_key(before)

    def _sample(self, task: Task, offset: int, item: Any) -> Any:
        self._set_key((SAMPLE, self.seed, task.epoch, task.first + offset))
        try:
            if self.transforms is None:
                return self.dataset[item]
            for transform in self.transforms:
                item = transform(item)
            return item
        except Exception as error:
            raise self._sample_error(task, offset, item, error) from error

    def _set_key(self, key: tuple[int, ...]) -> None:
        set_key(key)
        if self.global_seed:
            import random

            words = np.random.SeedSequence(key).generate_state(2)
            random.seed(int(words[0]))
            np.random.seed(int(words[1]))

    def _gather(self, gather: Callable[[list[int]], Any], task: Task) -> Any:
        try:
            return gather(task.items)
        except Exception as error:
            raise self._batch_error(task, error, f"{self.name}.gather") from error

    def _collate(self, task: Task, samples: list[Any]) -> Any:
        if self.collate is None:
            return samples[0]
        self._set_key((BATCH, self.seed, task.epoch, task.number))
        try:
            return self.collate(samples)
        except ShapeError as error:
            if "shapes" not in error.facts or "samples" not in error.facts:
                raise self._batch_error(task, error, "collate") from error
            raise self._shape_error(task, error) from None
        except Exception as error:
            raise self._batch_error(task, error, "collate") from error

    # -- messages -----------------------------------------------------------------------------

    def _index(self, task: Task, offset: int) -> int:
        """The number of a sample in the data set; in a stream, its place in the epoch."""
        item = task.items[offset]
        if self.transforms is None and isinstance(item, int | np.integer):
            return int(item)
        return task.first + offset

    def _file(self, task: Task, offset: int) -> str | None:
        return None if self.transforms is not None else file_of(self.dataset, task.items[offset])

    def _sample_error(self, task: Task, offset: int, item: Any, error: Exception) -> DataError:
        index = self._index(task, offset)
        file = self._file(task, offset) or _file_in(error)
        lines = [f"sample {index} could not be read: {_short(error)}"]
        if file is not None:
            lines.append(f"  file: {file}")
        lines.append(f"  in {self.name}, read by {self.where}")
        lines += _calls(error)
        if self.transforms is None:
            lines.append(f"To see it alone: dataset[{index}]")
        return DataError(
            "\n".join(lines),
            index=index,
            file=file,
            error=type(error).__name__,
            traceback="".join(traceback.format_exception(error)),
        )

    def _batch_error(self, task: Task, error: Exception, what: str) -> DataError:
        indices = [self._index(task, offset) for offset in range(len(task.items))]
        shown = ", ".join(map(str, indices[:8])) + (", ..." if len(indices) > 8 else "")
        head = str(error).splitlines() or [""]
        lines = [f"batch {task.number} could not be made: {_short(error)}", *head[1:5]]
        lines.append(f"  by {what}, of the samples {shown}, in {self.where}")
        if not isinstance(error, BestiaryError):
            lines += _calls(error)
        return DataError(
            "\n".join(lines),
            batch=task.number,
            indices=indices,
            error=type(error).__name__,
            traceback="".join(traceback.format_exception(error)),
        )

    def _shape_error(self, task: Task, error: ShapeError) -> ShapeError:
        shapes, offsets = error.shapes, error.samples
        indices = tuple(self._index(task, offset) for offset in offsets)
        files = tuple(self._file(task, offset) for offset in offsets)
        where = getattr(error, "where", "")
        lines = [
            "samples of unequal shape cannot form a batch" + (f" (entry {where})" if where else "")
        ]
        for index, file, shape in zip(indices, files, shapes, strict=True):
            lines.append(f"  sample {index}{f' ({file})' if file else ''}: {shape}")
        lines += _shape_advice(*shapes)
        return ShapeError(
            "\n".join(lines),
            indices=indices,
            files=files,
            shapes=shapes,
            expected=shapes[0],
            got=shapes[1],
            batch=task.number,
        )


def stream_of(dataset: Any) -> tuple[Any, tuple[Callable[[Any], Any], ...]]:
    """The stream under a chain of MapDatasets, and the transforms from the inside out."""
    transforms: tuple[Callable[[Any], Any], ...] = ()
    while isinstance(dataset, MapDataset):
        transforms = (dataset.transform, *transforms)
        dataset = dataset.dataset
    return dataset, transforms


def _shape_advice(first: Any, second: Any) -> list[str]:
    if not (isinstance(first, tuple) and isinstance(second, tuple)):
        return ["Pad them to one length, or give DataLoader(..., collate=) a function that does."]
    if len(first) != len(second):
        return [
            "One of them lacks an axis: perhaps a grey image without channels.",
            'Convert every image in the transform: image.convert("RGB")',
        ]
    unequal = [
        axis for axis, sizes in enumerate(zip(first, second, strict=True)) if sizes[0] != sizes[1]
    ]
    if len(first) == 3 and all(first[a] <= 4 and second[a] <= 4 for a in unequal):
        return [
            "Only the channels differ: grey or transparent images among colour ones.",
            'Convert every image in the transform: image.convert("RGB")',
        ]
    if len(first) >= 3:
        return [
            "The images have different sizes. Bring them to one in the transform, such as",
            "Resize((224, 224)), or image.resize((224, 224)) for a Pillow image.",
        ]
    return [
        "Sequences of different lengths: cut or pad them to one length in the transform,",
        "or pad each batch in a function of your own: DataLoader(..., collate=pad).",
    ]


def _short(error: BaseException) -> str:
    """The kind of error and the first line of its message."""
    text = str(error).splitlines()
    return type(error).__name__ + (f": {text[0][:300]}" if text and text[0] else "")


def _file_in(error: Exception) -> str | None:
    """The file that an exception names."""
    name = getattr(error, "file", None) or getattr(error, "filename", None)
    return None if name is None else str(name)


def _calls(error: Exception) -> list[str]:
    """The worker's own calls, innermost last, without those of the loader."""
    here = os.path.abspath(__file__)
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if os.path.abspath(frame.filename) != here
    ]
    if not frames:
        return []
    lines = ["Traceback of the worker (innermost call last):"]
    for frame in frames[-_FRAMES_SHOWN:]:
        code = f": {frame.line[:120]}" if frame.line else ""
        lines.append(f"  {frame.filename}:{frame.lineno}, in {frame.name}{code}")
    return lines
