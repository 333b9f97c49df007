"""Changing the dtype of arrays: NumPy's way, and the C kernels' for the half types."""

from __future__ import annotations

from typing import Any

import numpy as np

from . import dtypes, native

_WORTH_IT = 4096  # elements from which a kernel pays for its call


def converted(array: Any, dtype: dtypes.DType) -> Any:
    """The array in another dtype; the same array where it has it already."""
    source = array.dtype
    if source == dtype:
        return array
    if type(array) is np.ndarray and array.size >= _WORTH_IT and native.available():
        if dtype == dtypes.float32 and source in dtypes.HALVES:
            return native.widen(array)
        if source == dtypes.float32 and dtype in dtypes.HALVES:
            return native.narrow(array, dtype)
    return array.astype(dtype)
