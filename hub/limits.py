"""Configurations that make no sense are refused before anything is allocated for them.

A config.json may say that a layer has a billion features. What a model can need is known: its
weights fill it, so it is not larger than their headers say, but for what the caller changes.
"""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ..core.errors import ConfigError
from ..core.weights import TensorInfo

MAX_CONFIG_BYTES = 25_000_000
# Modules may be built with tensors that are tied, or dropped, afterwards.
_TIMES = 4
_SPARE_ELEMENTS = 1 << 24
_SPARE_TENSORS = 1000
_MOST_TENSORS = 200_000
# The widest layer that a head or stem of the caller's choice is next to.
_WIDEST = 1 << 16
_LARGE_NUMBER = 1 << 26  # ids, positions and numbers of pixels are below


class Budget:
    """What a model may allocate while it is built.

    Args:
        what: the model, for messages.
        elements: numbers in all parameters together.
        tensors: parameters.
        reason: why it may be no more, for messages.
    """

    def __init__(self, what: str, elements: int, tensors: int, reason: str) -> None:
        self.what = what
        self.elements = elements
        self.tensors = tensors
        self.reason = reason
        self._elements = 0
        self._tensors = 0

    def take(self, shape: tuple[int, ...]) -> None:
        """Count a parameter.

        Raises:
            ConfigError: it is one too many.
        """
        self._elements += math.prod(max(int(n), 0) for n in shape)
        self._tensors += 1
        if self._elements > self.elements:
            raise self._error(f"a model of more than {self._elements:,} numbers", shape)
        if self._tensors > self.tensors:
            raise self._error(f"a model of more than {self._tensors - 1:,} tensors", shape)

    def _error(self, wants: str, shape: tuple[int, ...]) -> ConfigError:
        return ConfigError(
            f"{self.what}: the configuration wants {wants}, the last of shape {shape},\n"
            f"but {self.reason}.\n"
            "Nothing was allocated. The configuration is damaged, or of another model.",
            expected=self.elements,
            got=self._elements,
            shape=shape,
        )


def budget_for(what: str, infos: Mapping[str, TensorInfo], changes: Iterable[int] = ()) -> Budget:
    """What a model may allocate that weights of these shapes fill.

    Args:
        infos: of every tensor in the file.
        changes: sizes that the caller asks for beside them, such as a number of classes.
    """
    elements = sum(math.prod(info.shape) for info in infos.values())
    allowed = _TIMES * elements + _SPARE_ELEMENTS + _WIDEST * sum(changes)
    reason = f"its weights hold {len(infos):,} tensors with {elements:,} numbers"
    return Budget(what, allowed, _TIMES * len(infos) + _SPARE_TENSORS, reason)


def budget_without_weights(what: str) -> Budget:
    """What an untrained model may allocate: half of this machine's memory, in float32."""
    memory = physical_memory()
    reason = f"this machine has {memory / 1e9:,.1f} GB of memory"
    return Budget(what, memory // 8, _MOST_TENSORS, reason)


def physical_memory() -> int:
    """Bytes of memory of this machine; where the system does not tell, 64 GB."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return 64 * 2**30


def check_config(what: str, config: Any, elements: int | None = None) -> None:
    """Refuse numbers that no model has, before anything is made of them.

    Args:
        config: an architecture's Config.
        elements: numbers in its weights; no size of a model is larger.

    Raises:
        ConfigError: names the key and its value.
    """
    largest = max(_LARGE_NUMBER, elements or 0)
    for name, value in _numbers(config):
        if value > largest:
            known = f"its weights hold {elements:,} numbers" if elements else "no model has that"
            raise ConfigError(
                f"{what}: {name}={value} in the configuration makes no sense: {known}.\n"
                "Nothing was allocated. The configuration is damaged, or of another model.",
                name=name,
                got=value,
                expected=largest,
            )


def _numbers(config: Any) -> Iterator[tuple[str, int]]:
    """Every whole number of a Config, with its name."""
    if not dataclasses.is_dataclass(config):
        return
    for field in dataclasses.fields(config):
        waiting = [getattr(config, field.name)]
        while waiting:
            value = waiting.pop()
            if type(value) is int:
                yield field.name, value
            elif isinstance(value, (list, tuple)):
                waiting.extend(value)
            elif isinstance(value, Mapping):
                waiting.extend(value.values())
            else:
                yield from ((f"{field.name}.{n}", v) for n, v in _numbers(value))


def check_size(path: Path) -> None:
    """Refuse a configuration file that is too long to be one, before it is read.

    Raises:
        ConfigError: names the file and its size.
    """
    size = path.stat().st_size
    if size > MAX_CONFIG_BYTES:
        raise ConfigError(
            f"{path} has {size:,} bytes; a configuration has less than {MAX_CONFIG_BYTES:,}.",
            path=str(path),
            got=size,
            expected=MAX_CONFIG_BYTES,
        )
