"""Which arguments of a DataLoader contradict each other, and what to write instead."""

from __future__ import annotations

from os import PathLike
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError
from ..foreign import described
from .dataset import is_stream
from .samplers import check_batch_size

if TYPE_CHECKING:
    from .loader import DataLoader


def check_arguments(
    loader: DataLoader,
    shuffle: bool,
    sampler: Any,
    batch_sampler: Any,
    collate: Any,
    seed: int | None,
) -> None:
    """Refuse contradictions, between these and what the loader has taken already.

    Raises:
        ConfigError: two arguments exclude each other, or one is out of range.
    """

    def refuse(message: str) -> None:
        raise ConfigError(f"DataLoader: {message}")

    if loader.dataset is None or isinstance(loader.dataset, (str, PathLike)):
        refuse(
            f"a data set is wanted, got {described(loader.dataset)}.\n"
            "A folder of images: bt.data.ImageFolder(path); arrays: bt.data.ArrayDataset(x, y)"
        )
    if loader.batch_size is not None:
        check_batch_size(loader.batch_size)
    elif loader.drop_last:
        refuse("drop_last makes no sense without batches (batch_size=None)")
    elif collate is not None:
        refuse("batch_size=None passes samples on as they are, so collate= is never used")
    if loader.workers < 0:
        refuse(f"workers must not be negative, got {loader.workers}")
    if loader.processes and loader.workers == 0:
        refuse("processes=True needs workers= (how many processes)")
    if loader.persistent and not loader.processes:
        refuse("persistent=True is about worker processes: add processes=True")
    if loader.prefetch < 1:
        refuse(f"prefetch must be at least 1, got {loader.prefetch}")
    if seed is not None and seed < 0:
        refuse(f"a seed is a number from 0 up, got {seed}")
    if collate is not None and not callable(collate):
        refuse(f"collate must be a function, got {type(collate).__name__}")
    if is_stream(loader.dataset) and (shuffle or sampler is not None or batch_sampler is not None):
        refuse(
            f"{type(loader.dataset).__name__} is a stream: its samples come in their own order, "
            "so shuffle, sampler and batch_sampler cannot be used.\n"
            "Shuffle inside its __iter__, with bt.data.sample_rng()."
        )
    if shuffle and sampler is not None:
        refuse("shuffle=True and a sampler are two orders; give one of them")
    if batch_sampler is not None and (
        loader.batch_size != 1 or shuffle or sampler is not None or loader.drop_last
    ):
        refuse(
            "batch_sampler decides everything: leave out batch_size, shuffle, sampler and drop_last"
        )
