"""Reader of GGUF files: weights in blocks of few bits, with all that a model needs beside them.

    with GgufFile("model.gguf") as file:
        file.metadata["general.architecture"], file["token_embd.weight"]    # in float32
        form, rows = file.packed("blk.0.attn_q.weight")                     # as it is stored

Opening a file reads and validates its header and nothing else.
"""

from __future__ import annotations

import numpy as np

from ..dtypes import DType, bfloat16, float16, float32, uint8
from ..quantization import Format, unpack
from .gguf_header import MAX_HEADER_BYTES, read_header
from .source import Array, FilePath, FileWeights, Source, TensorInfo

# Numbers of two bytes are formats too: their rows can stay as they are.
_HALVES = {float16: "float16", bfloat16: "bfloat16"}
_BLOCK = 1 << 20  # numbers that are unpacked at once


class GgufFile(FileWeights):
    """A GGUF file; `file[name]` reads one tensor, in float32 where it is stored in blocks.

    Args:
        path: the file.
        mapped: give arrays that share the mapped file (copy on write) instead of reading them.
            Only for files that nobody truncates or rewrites in place.
        max_header_bytes: refuse longer headers before they are read whole.

    Attributes:
        metadata: name -> number, text, truth value, array or list of texts.

    Raises:
        WeightsError: the file is damaged, of a format that is not supported, or it changed while
            it was read.
        OSError: it does not exist or cannot be read.
    """

    def __init__(
        self, path: FilePath, mapped: bool = False, *, max_header_bytes: int = MAX_HEADER_BYTES
    ) -> None:
        self._source = source = Source(path)
        self.path = source.path
        self._take = source.mapped if mapped else source.array
        try:
            header = read_header(source, max_header_bytes)
        except BaseException:
            source.close()
            raise
        self.version, self.metadata, self._entries, self._start = header

    def __getitem__(self, name: str) -> Array:
        kind, shape, start, _ = self._entries[name]
        if not isinstance(kind, Format):
            return self._take(self._start + start, shape, kind)
        rows = self._rows(name)
        flat = rows.reshape(-1, rows.shape[-1])
        out = np.empty((len(flat), shape[-1]), float32)
        step = max(1, _BLOCK // max(shape[-1], 1))
        with np.errstate(all="ignore"):  # damaged scales may be NaN, as in files of plain numbers
            for at in range(0, len(flat), step):
                out[at : at + step] = unpack(np, flat[at : at + step], kind.name, shape[-1])
        return out.reshape(shape)

    def _rows(self, name: str) -> Array:
        _, shape, start, nbytes = self._entries[name]
        width = nbytes // max(int(np.prod(shape[:-1], dtype=np.int64)), 1)
        return self._take(self._start + start, (*shape[:-1], width), uint8)

    def packed(self, name: str) -> tuple[str, Array] | None:
        """The format and the bytes of a tensor's rows; None of one of plain numbers.

        Shape:
            (..., bytes), uint8
        """
        kind, shape = self._entries[name][:2]
        if isinstance(kind, Format):
            return kind.name, self._rows(name)
        if kind in _HALVES and shape and shape[-1] % 32 == 0:
            return _HALVES[kind], self._rows(name)
        return None

    def format(self, name: str) -> str:
        """What a tensor is stored as: "q4_1", "float32", ..."""
        found: str = self._entries[name].kind.name
        return found

    def info(self, name: str) -> TensorInfo:
        """The dtype that reading gives, and the shape; reads no values."""
        kind, shape = self._entries[name][:2]
        dtype: DType = float32 if isinstance(kind, Format) else kind
        return TensorInfo(dtype, shape)
