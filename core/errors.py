"""The library's exceptions.

Each carries the facts of the mistake as attributes (`error.expected`, `error.got`), so that
programs can act on them, and a message that follows one template: what went wrong, where,
the values that disagree, the likely cause, and a fix that can be pasted.
"""

from __future__ import annotations

from typing import Any


class BestiaryError(Exception):
    """Base of every error that the library raises on purpose.

    Args:
        message: the text for the user, at most 12 lines.
        facts: the values that the message mentions, kept as attributes.
    """

    def __init__(self, message: str, **facts: Any) -> None:
        super().__init__(message)
        self.message = message
        self.facts = facts
        # Filled in by Module.__call__ while the exception travels outwards: "encoder.fc1".
        self.module_path: str | None = None

    def __getattr__(self, name: str) -> Any:
        facts = self.__dict__.get("facts", {})
        if name in facts:
            return facts[name]
        raise AttributeError(f"{type(self).__name__!r} has no fact named {name!r}")

    def __str__(self) -> str:
        if self.module_path:
            return f"in module {self.module_path!r}: {self.message}"
        return self.message

    def __reduce__(self) -> tuple[Any, ...]:
        # The default would drop the facts (loader workers send errors between processes).
        return _rebuild, (type(self), self.message, self.facts, self.module_path)


def _rebuild(
    kind: type[BestiaryError], message: str, facts: dict[str, Any], path: str | None
) -> BestiaryError:
    error = kind(message, **facts)
    error.module_path = path
    return error


class ShapeError(BestiaryError, ValueError):
    """Shapes that do not fit together."""


class DtypeError(BestiaryError, TypeError):
    """Data types that do not fit together, or that an operation does not take."""


class DeviceError(BestiaryError, RuntimeError):
    """Tensors on different devices, or a device that cannot be used."""


class GradError(BestiaryError, RuntimeError):
    """A gradient that cannot be computed as asked."""


class IndexRangeError(BestiaryError, IndexError):
    """An index, class id or token id outside its range."""


class WeightsError(BestiaryError, ValueError):
    """A weight file that is damaged, unsafe, or does not fit the model."""


class HubError(BestiaryError, OSError):
    """A model or file that could not be found or fetched."""


class ConfigError(BestiaryError, ValueError):
    """A configuration or argument that makes no sense."""


class DataError(BestiaryError, ValueError):
    """Input data that cannot be read or used."""


class OutOfMemoryError(BestiaryError, MemoryError):
    """Memory ran out in training; says what takes how much, and which batch would fit."""


class MissingExtra(BestiaryError, ImportError):
    """An optional library is needed and not installed; names the extra that brings it."""
