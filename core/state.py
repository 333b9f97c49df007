"""What a thread is doing: whether it records gradients, who observes it, its default device."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from .node import Node
    from .op import Op

# An observer is called instead of the operation and must call `run()` itself, once:
# it may time it, look at the result, or write it down.
Observer = Callable[["Op[..., Any]", tuple[Any, ...], dict[str, Any], Callable[[], Any]], Any]
# Is given an operation and its operands, and returns the operands to use (core/autocast.py).
Cast = Callable[["Op[..., Any]", tuple[Any, ...]], tuple[Any, ...]]


class _State(threading.local):
    """Thread-local modes. Class attributes are the values of a new thread."""

    grad_enabled: bool = True
    inference: bool = False
    observers: tuple[Observer, ...] = ()
    cast: Cast | None = None
    backward: bool = False  # a backward pass is running
    node: Node | None = None  # whose rule runs, where somebody observes
    loss_scaled: bool = False  # and began at a loss that was multiplied: it may overflow
    device: Any = None
    any_length: bool = False  # what is recorded must hold for inputs of all lengths (export)
    # A layer that ran in training mode without gradients since the last backward pass, and where.
    noisy: tuple[str, str] | None = None
    # Random keys: a list to which draws are appended, or an iterator that supplies them.
    key_log: list[Any] | None = None
    key_replay: Iterator[Any] | None = None


state = _State()


class _Watch:
    """How many observers and casts there are in all threads: one cheap test on the common path.

    `writes` counts the operations that wrote memory in place: what was derived from a tensor
    and kept, such as packed weights, is stale when it has moved. `structure` counts what changes
    in modules: layers, parameters, modes and hooks that are set.
    """

    count = 0
    writes = 0
    structure = 0
    lock = threading.Lock()


watch = _Watch()


@contextmanager
def observing(observer: Observer) -> Iterator[None]:
    """Let `observer` see every operation that this thread runs."""
    with watch.lock:
        watch.count += 1
    before = state.observers
    state.observers = (*before, observer)
    try:
        yield
    finally:
        state.observers = before
        with watch.lock:
            watch.count -= 1


def reading(tensor: Any, how: str) -> None:
    """Tell observers that want to know that Python looks at the elements of a tensor.

    Without a tensor: that it runs something that is no operation, and may look at any.
    """
    for observer in state.observers:
        read = getattr(observer, "read", None)
        if read is not None:
            read(tensor, how)


def touching(leaf: Any) -> None:
    """Tell observers that want to know that the gradient of a leaf is read or replaced."""
    for observer in state.observers:
        touch = getattr(observer, "touch", None)
        if touch is not None:
            touch(leaf)


@contextmanager
def _grad_mode(enabled: bool, inference: bool) -> Iterator[None]:
    before = state.grad_enabled, state.inference
    state.inference = state.inference or inference
    state.grad_enabled = enabled and not state.inference
    try:
        yield
    finally:
        state.grad_enabled, state.inference = before


@contextmanager
def walking(create_graph: bool) -> Iterator[None]:
    """A backward pass: its rules use the dtypes of the forward pass, whatever is cast around it."""
    before = state.grad_enabled, state.cast, state.backward
    state.grad_enabled = create_graph and not state.inference
    state.cast, state.backward = None, True
    # What overflows for a scale that was too large is noticed by GradScaler.
    quiet: AbstractContextManager[Any] = nullcontext()
    if state.loss_scaled:
        quiet = np.errstate(over="ignore", invalid="ignore")
    try:
        with quiet:
            yield
    finally:
        state.grad_enabled, state.cast, state.backward = before


def no_grad() -> AbstractContextManager[None]:
    """Record no gradients inside; also usable as a decorator: `@bt.no_grad()`."""
    return _grad_mode(enabled=False, inference=False)


def enable_grad() -> AbstractContextManager[None]:
    """Record gradients inside, also within `no_grad` (but not within `inference_mode`)."""
    return _grad_mode(enabled=True, inference=False)


def inference_mode() -> AbstractContextManager[None]:
    """Record no gradients inside, and let nothing inside turn them on again."""
    return _grad_mode(enabled=False, inference=True)


def set_grad_enabled(enabled: bool) -> AbstractContextManager[None]:
    """Record gradients inside or not, as `enabled` says."""
    return _grad_mode(enabled=enabled, inference=False)


def is_grad_enabled() -> bool:
    """Whether this thread records gradients now."""
    return state.grad_enabled
