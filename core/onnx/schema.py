"""The numbers of ONNX: fields of its messages, and its element types.

Source: onnx.proto and IR.md of the ONNX specification.
"""

from __future__ import annotations

import numpy as np

from ..dtypes import bfloat16

OPSET, IR_VERSION = 17, 8  # what is written

# Element types: number in a file -> dtype of an array. Text (8) is of its own.
DTYPES = {
    1: np.dtype(np.float32),
    2: np.dtype(np.uint8),
    3: np.dtype(np.int8),
    4: np.dtype(np.uint16),
    5: np.dtype(np.int16),
    6: np.dtype(np.int32),
    7: np.dtype(np.int64),
    9: np.dtype(np.bool_),
    10: np.dtype(np.float16),
    11: np.dtype(np.float64),
    12: np.dtype(np.uint32),
    13: np.dtype(np.uint64),
    14: np.dtype(np.complex64),
    15: np.dtype(np.complex128),
    16: bfloat16,
}
CODES = {dtype: code for code, dtype in DTYPES.items()}
STRING = 8

# Kinds of attributes.
FLOAT, INT, TEXT, TENSOR, GRAPH = 1, 2, 3, 4, 5
FLOATS, INTS, TEXTS, TENSORS, GRAPHS = 6, 7, 8, 9, 10
