"""How fast a model is on this machine: its network as it is, and compiled.

What is timed is the network alone, on inputs of its own kind that are made here: reading files and
cutting texts into tokens is not part of it. Eager and compiled runs take turns, so that a machine
that becomes slower meanwhile is slower for both.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import numpy as np

from ..core.errors import ConfigError
from ..core.graph.compiled import Compiled
from ..core.insight.progress import progress
from ..core.state import inference_mode
from ..core.tensor import Tensor
from .loading import domain_of

_TOKENS = (16, 128, 512)
_WRITTEN = 32  # tokens
_WARM = 4  # calls before the clock starts: a compiled function is recorded, checked, and run


@dataclass(frozen=True)
class Speed:
    """One line of the report.

    Attributes:
        what: the inputs, in words.
        items: how many pictures, tokens, samples or actions a call handles.
        unit: their name.
        eager, compiled: the median seconds of a call; None where the network is not compiled.
        runs: how many calls each median is of.
    """

    what: str
    items: int
    unit: str
    eager: float
    compiled: float | None
    runs: int

    @property
    def ratio(self) -> float | None:
        """How many times as fast compiling makes it."""
        return None if self.compiled is None else self.eager / self.compiled

    @property
    def rate(self) -> float:
        """Items in a second, the faster way."""
        best = self.eager if self.compiled is None else min(self.eager, self.compiled)
        return self.items / best


def bench(
    model: Any, *, batch_sizes: tuple[int, ...] = (1, 8), seconds: float = 2.0
) -> list[Speed]:
    """Time a loaded model.

    Args:
        batch_sizes: pictures, texts, samples or observations in a call.
        seconds: for each line; slow networks take longer, three calls at least.

    Raises:
        ConfigError: a task whose inputs are not made here, or settings that make no sense.
    """
    if not batch_sizes or min(batch_sizes) < 1 or seconds <= 0:
        raise ConfigError("bench: batch sizes are 1 or more, and seconds above 0")
    found = []
    jobs = list(_jobs(model, batch_sizes))
    with progress(total=len(jobs), what="timing", unit="jobs") as bar:
        for what, items, unit, function, args in jobs:
            with inference_mode():
                found.append(_timed(what, items, unit, function, args, seconds))
            bar.update(1)
    return found


_Job = tuple[str, int, str, Callable[..., Any], tuple[Any, ...] | None]


def _jobs(model: Any, batch_sizes: tuple[int, ...]) -> Iterator[_Job]:
    """What to time: words, items, their unit, the function, and its inputs.

    Without inputs the function takes none, and is not compiled.
    """
    task = getattr(model, "task", "")
    if hasattr(model, "act"):
        yield from _actions(model, batch_sizes)
    elif task == "text-generation":
        yield from _language(model)
    elif task == "unconditional-image-generation":
        yield from _samples(model, batch_sizes)
    elif task and domain_of(task) == "text" and task not in _TWO_INPUTS:
        yield from _texts(model, batch_sizes)
    elif task and domain_of(task) == "vision" and task != "mask-generation":
        yield from _pictures(model, batch_sizes)
    else:
        name = task or type(model).__name__
        raise ConfigError(
            "bench times classifiers, detectors, segmenters, encoders, language models, samplers "
            f"of pictures and agents, not models for {name}.\n"
            "Time what you do with it: with bt.profile() as p: ...",
            got=name,
        )


_TWO_INPUTS = ("automatic-speech-recognition", "text2text-generation")


def _pictures(model: Any, batch_sizes: tuple[int, ...]) -> Iterator[_Job]:
    from PIL import Image

    pixels = np.random.default_rng(0).integers(0, 256, (480, 640, 3), dtype=np.uint8)
    one = np.asarray(model.preprocess(Image.fromarray(pixels)))
    function = model.module
    if model.task == "zero-shot-image-classification":  # of pictures and texts, the pictures
        function = function.embed
    for count in batch_sizes:
        x = Tensor(np.stack([one] * count)).to(device=model.device, dtype=model.module.dtype)
        size = " x ".join(str(n) for n in one.shape[-2:])
        yield f"{count} of {size} pixels", count, "pictures", function, (x,)


def _texts(model: Any, batch_sizes: tuple[int, ...]) -> Iterator[_Job]:
    for count in batch_sizes:
        for tokens in _lengths(model):
            ids = _ids(model, count, tokens)
            what = f"{count} of {tokens} tokens"
            yield what, count * tokens, "tokens", model.module, (ids,)


def _lengths(model: Any) -> list[int]:
    most = getattr(model.config, "max_position_embeddings", None) or max(_TOKENS)
    return [n for n in _TOKENS if n <= most - 2] or [max(most - 2, 1)]


def _ids(model: Any, count: int, tokens: int) -> Tensor:
    drawn = np.random.default_rng(0).integers(0, model.config.vocab_size, (count, tokens))
    return Tensor(drawn).to(device=model.device)


def _language(model: Any) -> Iterator[_Job]:
    most = getattr(model.config, "max_position_embeddings", None) or max(_TOKENS)
    for tokens in _TOKENS:
        if tokens < most:
            what = f"reads {tokens} tokens"
            yield what, tokens, "tokens", model.module, (_ids(model, 1, tokens),)
    if model.tokenizer is not None:
        count = min(_WRITTEN, max(most - 8, 1))

        def write() -> None:
            model.generate("a", max_new_tokens=count, min_new_tokens=count, temperature=0)

        yield f"writes {count} tokens", count, "tokens", write, None


def _samples(model: Any, batch_sizes: tuple[int, ...]) -> Iterator[_Job]:
    config = model.config
    if hasattr(config, "latent_size"):
        yield from _generated(model, batch_sizes)
        return
    size = config.sample_size
    height, width = size if isinstance(size, tuple | list) else (size, size)
    rng = np.random.default_rng(0)
    for count in batch_sizes:
        x = Tensor(
            rng.standard_normal((count, config.in_channels, height, width)).astype(np.float32)
        )
        like = next(model.module.parameters())
        x = x.to(device=like.device, dtype=like.dtype)
        t = Tensor(np.full(count, 500.0, np.float32)).to(device=like.device)
        inputs: tuple[Any, ...] = (x, t)
        if getattr(config, "num_class_embeds", None):
            inputs += (Tensor(np.zeros(count, np.int64)).to(device=like.device),)
        what = f"a step of {count} of {height} x {width} pixels"
        yield what, count, "samples", model.module, inputs


def _generated(model: Any, batch_sizes: tuple[int, ...]) -> Iterator[_Job]:
    like = next(model.module.parameters())
    for count in batch_sizes:
        z = Tensor(np.random.default_rng(0).standard_normal((count, model.config.latent_size)))
        inputs: tuple[Any, ...] = (z.to(device=like.device, dtype=like.dtype),)
        if model.config.num_classes:
            inputs += (Tensor(np.zeros(count, np.int64)).to(device=like.device),)
        size = model.config.size
        yield f"{count} of {size} x {size} pixels", count, "pictures", model.module, inputs


def _actions(model: Any, batch_sizes: tuple[int, ...]) -> Iterator[_Job]:
    one = np.asarray(model.observation_space.sample())
    for count in batch_sizes:
        seen = np.stack([one] * count)
        what = f"{count} observation" + ("s" if count > 1 else "")

        def act(seen: Any = seen) -> Any:
            return model.act(seen)

        yield what, count, "actions", act, None


def _timed(
    what: str,
    items: int,
    unit: str,
    function: Callable[..., Any],
    args: tuple[Any, ...] | None,
    seconds: float,
) -> Speed:
    sides = [function]
    given = args or ()
    if args is not None:
        fast = Compiled(function, quiet=True)
        sides.append(fast)
    taken: list[list[float]] = [[] for _ in sides]
    for side in sides:
        for _ in range(_WARM if args is not None else 1):
            side(*given)
    begun = perf_counter()
    while len(taken[0]) < 3 or perf_counter() - begun < seconds:
        for side, times in zip(sides, taken, strict=True):
            start = perf_counter()
            side(*given)
            times.append(perf_counter() - start)
    medians = [statistics.median(times) for times in taken]
    compiled = medians[1] if args is not None and fast.explain() else None
    return Speed(what, items, unit, medians[0], compiled, len(taken[0]))
