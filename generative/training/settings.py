"""Checks that the settings of several recipes share."""

from __future__ import annotations

from typing import Any

from ...core.errors import ConfigError


def check_counts(what: str, **values: Any) -> None:
    """Raise unless every value is a whole number from 0.

    Raises:
        ConfigError: names the field.
    """
    for name, value in values.items():
        if type(value) is not int or value < 0:
            raise ConfigError(
                f"{what}: {name}={value!r} makes no sense: a whole number from 0 is wanted.",
                name=name,
                got=value,
            )
