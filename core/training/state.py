"""Nested state (optimizer, schedule, loader, random streams) as tensors and JSON, and back.

Arrays and tensors go to the safetensors file under their path (`optimizer/state/0/exp_avg`);
everything else is JSON, in which an array's place is marked.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..errors import WeightsError
from ..tensor import Tensor

_PLACE = "__tensor__"
_PAIRS = "__pairs__"  # a dict whose keys are no strings


def packed(state: Any, path: str = "") -> tuple[Any, dict[str, Any]]:
    """JSON and tensors of a nested state.

    Raises:
        WeightsError: it holds something that is neither an array nor a JSON value.
    """
    tensors: dict[str, Any] = {}

    def walk(value: Any, path: str) -> Any:
        if isinstance(value, (Tensor, np.ndarray)):
            tensors[path] = value.cpu().array if isinstance(value, Tensor) else value
            return {_PLACE: path}
        if isinstance(value, np.generic):
            return value.item()
        if isinstance(value, Mapping):
            if all(isinstance(key, str) for key in value):
                return {key: walk(v, f"{path}/{key}") for key, v in value.items()}
            pairs = [[key, walk(v, f"{path}/{key}")] for key, v in value.items()]
            return {_PAIRS: pairs}
        if isinstance(value, (list, tuple)):
            return [walk(v, f"{path}/{i}") for i, v in enumerate(value)]
        if value is None or isinstance(value, (bool, int, float, str)):
            return value
        raise WeightsError(
            f"the state at {path or '/'} is a {type(value).__name__}: neither an "
            "array nor a JSON value, so it cannot be saved in a checkpoint"
        )

    return walk(state, path), tensors


def unpacked(value: Any, tensors: Mapping[str, Any]) -> Any:
    """The nested state again, with arrays in their places."""
    if isinstance(value, dict):
        if set(value) == {_PLACE}:
            return tensors[value[_PLACE]]
        if set(value) == {_PAIRS}:
            return {key: unpacked(v, tensors) for key, v in value[_PAIRS]}
        return {key: unpacked(v, tensors) for key, v in value.items()}
    if isinstance(value, list):
        return [unpacked(v, tensors) for v in value]
    return value
