"""What every task over pictures shares: reading them in batches, the device, saving."""

from __future__ import annotations

import itertools
import operator
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self, TypeVar

import numpy as np

from ..core.data.images import EXTENSIONS
from ..core.errors import BestiaryError, ConfigError, DataError
from ..core.graph.compiled import Compiled
from ..core.insight.answers import Answers
from ..core.insight.progress import progress
from ..core.nn import Module
from ..core.state import inference_mode
from ..core.tensor import Tensor
from ..hub.card import Card
from ..hub.filling import Report
from ..hub.loading import Loaded
from .preprocess import Preprocess

Array = np.ndarray[Any, Any]
T = TypeVar("T")

BATCH = 16
_EAGER_CALLS = 3  # with pictures of one shape, before it pays to compile


class ImageTask:
    """A network for pictures, how they are prepared for it, and what is known of it.

    Attributes:
        module: the network; call it for the outputs of arrays that you prepared yourself.
        preprocess: how pictures are prepared for it.
        card: licence, origin, results.
        report: what loading did with each tensor.
        compile: whether what is run again and again on pictures of one shape is compiled.
    """

    task = ""

    def __init__(
        self,
        module: Module,
        *,
        architecture: str,
        config: Any,
        preprocess: Any,
        card: Card,
        report: Report | None = None,
    ) -> None:
        self.module = module
        self.architecture = architecture
        self.config = config
        self.preprocess = preprocess
        self.card = card
        self.report = report or Report()
        self.compile = True
        self._programs: dict[Any, Compiled] = {}

    def _repr_html_(self) -> str:
        from ..core.insight.notebook import task_html

        return task_html(self)

    # -- the model -------------------------------------------------------------------------

    @property
    def device(self) -> Any:
        """Where the network is."""
        return self.module.device

    def to(self, device: Any) -> Self:
        """Move the network to a device: `model.to("cuda")`."""
        self.module.to(device=device)
        return self

    def save(self, folder: str | Path, *, dtype: Any = None) -> Path:
        """Write a folder that `bt.load(folder)` opens again.

        Args:
            dtype: of the stored weights, such as "float16"; as they are unless given.
        """
        from ..hub.saving import save_model

        return save_model(
            folder,
            self.module,
            architecture=self.architecture,
            config=self.config,
            card=replace(self.card, task=self.task),
            labels=self._saved_labels(),
            processor=self.preprocess.to_config(),
            dtype=dtype,
        )

    def _saved_labels(self) -> Sequence[str] | None:
        return None

    # -- pictures --------------------------------------------------------------------------

    def each(
        self,
        pictures: Iterable[T],
        *,
        unreadable: Callable[[T, Exception], None],
        **settings: Any,
    ) -> Iterator[tuple[T, Any]]:
        """Each picture with what `model(picture)` would give, as they come, in batches.

        A picture that cannot be read does not stop the others.

        Args:
            unreadable: called with such a picture and the error that names it.
            settings: of the call.
        """
        answer: Any = self
        handed = _Handed(pictures, unreadable)
        for found in answer(handed, **settings):
            yield handed.waiting.popleft().picture, found

    def _for_each(
        self,
        source: Any,
        answers: Callable[[Iterable[Any], int | None, int], Iterator[Any]],
        batch_size: int,
    ) -> Any:
        """One answer for a picture, a list for several, a dict for a folder, lazily for a stream.

        Args:
            answers: from pictures, their number if it is known, and the batch size.
        """
        if isinstance(source, str | os.PathLike) and Path(source).is_dir():
            files = image_files(source)
            found = answers(files, len(files), batch_size)
            return dict(zip(map(str, files), found, strict=True))
        if is_stream(source):
            return answers(source, operator.length_hint(source) or None, batch_size)
        pictures = several(source)
        if pictures is None:
            return next(answers([source], 1, 1))
        return Answers(answers(pictures, len(pictures), batch_size))

    def _all(self, sources: Any) -> list[Any]:
        if isinstance(sources, str | os.PathLike) and Path(sources).is_dir():
            return list(image_files(sources))
        pictures = list(sources) if is_stream(sources) else several(sources)
        return [sources] if pictures is None else pictures

    def _grouped(
        self, function: Callable[[Tensor], Tensor], arrays: Sequence[Array]
    ) -> list[Array]:
        """What `function` gives for each array; those of one shape go through it together."""
        function = self._fast(function)
        groups: dict[tuple[int, ...], list[int]] = {}
        for i, array in enumerate(arrays):
            groups.setdefault(array.shape, []).append(i)
        found: dict[int, Array] = {}
        for chosen in groups.values():
            with inference_mode():
                batch = Tensor(np.stack([arrays[i] for i in chosen]))
                result = function(batch.to(device=self.device, dtype=self.module.dtype))
            found.update(zip(chosen, _as_arrays(result), strict=True))
        return [found[i] for i in range(len(arrays))]

    def _batches(
        self,
        function: Callable[[Tensor], Any],
        pictures: Iterable[Any],
        batch_size: int,
        total: int | None,
    ) -> Iterator[Any]:
        """What `function` gives for each batch; the next batch is read while it computes."""
        if batch_size < 1:
            raise ConfigError(f"batch_size={batch_size} must be at least 1", got=batch_size)
        function = self._fast(function)
        with progress(total=total, what="predicting", unit="pictures") as bar:
            for arrays in read_ahead(self.preprocess, pictures, batch_size):
                with inference_mode():
                    batch = Tensor(np.stack(arrays)).to(device=self.device, dtype=self.module.dtype)
                    result = function(batch)
                yield _as_arrays(result)
                bar.update(len(arrays))

    def _fast(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """A function of the network that is compiled once it was called a few times."""
        if not self.compile:
            return function
        # Methods are made anew at each access.
        key = getattr(function, "__func__", function), id(self.module)
        if key not in self._programs:
            self._programs[key] = Compiled(
                function, module=self.module, after=_EAGER_CALLS, quiet=True
            )
        return self._programs[key]


@dataclass(frozen=True, eq=False)
class _Spared:
    """A picture that is left out of the answers if it cannot be read."""

    picture: Any
    fail: Callable[[_Spared, Exception], None]


class _Handed(Iterator[_Spared]):
    """Pictures on their way to the answers.

    Attributes:
        waiting: those that were taken and are not answered yet.
    """

    def __init__(self, pictures: Iterable[T], unreadable: Callable[[T, Exception], None]) -> None:
        self.waiting: deque[_Spared] = deque()
        self._pictures, self._unreadable = iter(pictures), unreadable

    def __next__(self) -> _Spared:
        spared = _Spared(next(self._pictures), self._fail)
        self.waiting.append(spared)
        return spared

    def __length_hint__(self) -> int:
        return operator.length_hint(self._pictures)

    def _fail(self, spared: _Spared, error: Exception) -> None:
        self.waiting.remove(spared)
        self._unreadable(spared.picture, error)


def image_files(folder: str | os.PathLike[str]) -> list[Path]:
    """The pictures in a folder and in the folders within it, by name.

    Raises:
        DataError: there are none.
    """
    found = sorted(
        path
        for path in Path(folder).rglob("*")
        if path.suffix.lower() in EXTENSIONS and path.is_file() and not path.name.startswith(".")
    )
    if not found:
        raise DataError(
            f"{folder} holds no pictures ({', '.join(sorted(EXTENSIONS)[:6])}, ...).",
            folder=str(folder),
        )
    return found


def softmax(logits: Array) -> Array:
    """Probabilities of the last axis."""
    exponentials = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray(exponentials / exponentials.sum(axis=-1, keepdims=True))


def unit(vectors: Array) -> Array:
    """Each row at length 1; zeros stay zeros."""
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.asarray(vectors / np.maximum(lengths, np.finfo(np.float32).tiny))


def is_stream(source: Any) -> bool:
    """Whether it yields pictures; an open file is an iterator too, and is one picture."""
    return isinstance(source, Iterator) and not hasattr(source, "read")


def several(source: Any) -> list[Any] | None:
    """The pictures of a list, tuple or batch; None for a single picture."""
    if isinstance(source, list | tuple):
        return list(source)
    if isinstance(source, Tensor | np.ndarray) and source.ndim == 4:
        return [source[i] for i in range(source.shape[0])]
    return None


def _as_arrays(result: Any) -> Any:
    """A tensor as a float32 array; of several, each."""
    if isinstance(result, list | tuple):
        return [_as_arrays(part) for part in result]
    return np.asarray(result.cpu().array, np.float32)


def read_ahead(work: Callable[[Any], T], items: Iterable[Any], size: int) -> Iterator[list[T]]:
    """Lists of up to `size` results; threads work on the next list while the last is used."""
    iterator = iter(items)
    workers = min(4, os.cpu_count() or 1)
    with ThreadPoolExecutor(workers, thread_name_prefix="pictures") as pool:

        def submit() -> list[tuple[Any, Future[T]]]:
            chosen = itertools.islice(iterator, size)
            return [
                (i, pool.submit(work, i.picture if isinstance(i, _Spared) else i)) for i in chosen
            ]

        waiting = submit()
        try:
            while waiting:
                ready = waiting
                results = list(_results(ready))
                waiting = submit()
                if results:
                    yield results
        finally:
            for _, future in waiting:
                future.cancel()


def _results(ready: Iterable[tuple[Any, Future[T]]]) -> Iterator[T]:
    for item, future in ready:
        try:
            result = future.result()
        except (BestiaryError, OSError) as error:
            if not isinstance(item, _Spared):
                raise
            item.fail(item, error)
        else:
            yield result


def preprocess_of(loaded: Loaded) -> Preprocess:
    """How the pictures of what was loaded are prepared: as published, at the size asked for."""
    found = _published_preprocess(loaded)
    if loaded.image_size is not None:
        found = found.with_size(loaded.image_size)
    channels = getattr(loaded.config, "in_channels", 3)
    # A network for other data (four bands, say) takes prepared arrays; pictures it refuses.
    return found.with_channels(channels) if channels in (1, 3) else found


def _published_preprocess(loaded: Loaded) -> Preprocess:
    """What the model's own files say; then the registry; then the ImageNet habit, at its size."""
    if loaded.processor is not None:
        return Preprocess.from_config(loaded.processor, "preprocessor_config.json")
    if loaded.preprocess is not None:
        return Preprocess(**dict(loaded.preprocess))
    if isinstance(loaded.published.get("pretrained_cfg"), Mapping):
        return Preprocess.from_config(loaded.published, "config.json")
    size = getattr(loaded.config, "image_size", None)
    return Preprocess() if size is None else Preprocess().with_size(size)
