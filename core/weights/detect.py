"""What kind of weight file a file is, by its content; and what it is when it is none."""

from __future__ import annotations

import os
import re
from typing import Literal

from ..errors import WeightsError
from .source import FilePath, Source, quoted

Format = Literal["safetensors", "torch", "index", "gguf", "ncnn"]

_SAMPLE = 4096
_LFS = b"version https://git-lfs.github.com/spec/"
_HTML = re.compile(rb"(\xef\xbb\xbf)?\s*<(!doctype|html|head|body|\?xml|!--)", re.IGNORECASE)

NCNN_PARAM = b"7767517"  # the first line of a .param file
# What else people keep weights in, by its first bytes: the name, and the way out.
_OTHERS: tuple[tuple[bytes, str, str], ...] = (
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file (Keras)", "Save the weights as safetensors."),
    (b"\x93NUMPY", "a NumPy array", "Read it with numpy.load."),
    (b"\x1f\x8b", "a gzip archive", "Unpack it: gunzip FILE"),
    (b"\xfd7zXZ\x00", "an xz archive", "Unpack it: xz -d FILE"),
    (b"BZh", "a bzip2 archive", "Unpack it: bunzip2 FILE"),
    (b"\x28\xb5\x2f\xfd", "a zstd archive", "Unpack it: zstd -d FILE"),
    (b"\x47\x6b\x30\x01", "the weights of an ncnn model", "Give the .param file beside it."),
    (b"7z\xbc\xaf\x27\x1c", "a 7-zip archive", "Unpack it."),
)


def detect(path: FilePath) -> Format:
    """The kind of a weight file, by its first bytes and never by its name.

    Raises:
        WeightsError: it is something else, such as a Git-LFS pointer, a web page or a file cut
            off at its very beginning; the message says which.
        OSError: it does not exist or cannot be read.
    """
    source = Source(path)
    try:
        start, size = source.read(0, _SAMPLE), source.size
    finally:
        source.close()
    where = source.path
    if start.startswith(_LFS):
        raise _lfs_pointer(where, start, size)
    if _HTML.match(start):
        raise _web_page(where, start, size)
    if size < 8:
        raise _not_weights(
            where, size, "an empty file" if not size else "cut off", "Fetch or save it again."
        )
    if start[:4] in (b"PK\x03\x04", b"PK\x05\x06") or start[257:262] == b"ustar":
        return "torch"
    length = int.from_bytes(start[:8], "little")
    if start[8:9] == b"{" and length < 2**40:  # before pickles: a length may begin like one
        return "safetensors"
    if start[0] == 0x80 and 2 <= start[1] <= 5:  # a pickle
        return "torch"
    if start.startswith(b"GGUF"):
        return "gguf"
    if start[:8].rstrip(b"\r\n ") == NCNN_PARAM:
        return "ncnn"
    for magic, what, way_out in _OTHERS:
        if start.startswith(magic):
            raise _not_weights(where, size, what, way_out)
    if not start.strip(b"\0"):
        raise _not_weights(
            where, size, "nothing but zeros: a download that never finished", "Fetch it again."
        )
    if start[8:9] == b"{" or (length < 2**40 and start[7] == 0):
        return "safetensors"  # its reader says what is wrong with it
    if start.lstrip()[:1] == b"{":
        if b'"weight_map"' in start or where.endswith(".index.json"):
            return "index"
        raise _not_weights(where, size, f"JSON: {_excerpt(start)}", "Give the weight file's path.")
    if where.endswith(".safetensors"):
        return "safetensors"
    raise _not_weights(
        where,
        size,
        f"of a kind that is not known (it begins with {start[:12]!r})",
        "Weights are read from safetensors, torch checkpoints, GGUF files and ncnn models.",
    )


def _not_weights(where: str, size: int, what: str, way_out: str) -> WeightsError:
    return WeightsError(
        f"{where}: not a weight file. It has {size:,} bytes and is {what}.\n{way_out}",
        path=where,
        got=what,
        size=size,
    )


def _lfs_pointer(where: str, start: bytes, size: int) -> WeightsError:
    found = re.search(rb"^size (\d{1,15})$", start, re.MULTILINE)
    real = int(found[1]) if found else None
    meant = f"{real:,} bytes" if real is not None else "an unknown size"
    return WeightsError(
        f"{where}: a Git-LFS pointer, not the weights. It has {size:,} bytes and stands for a "
        f"file of {meant}.\n"
        "The repository was cloned without Git-LFS. Fetch the real files:\n"
        f"    cd {os.path.dirname(where) or '.'} && git lfs install && git lfs pull",
        path=where,
        got="git-lfs pointer",
        size=size,
        expected=real,
    )


def _web_page(where: str, start: bytes, size: int) -> WeightsError:
    title = re.search(rb"<title[^>]*>([^<]{1,200})", start, re.IGNORECASE)
    says = f" titled {_excerpt(title[1])}" if title else ""
    return WeightsError(
        f"{where}: an HTML page{says} of {size:,} bytes, not the weights.\n"
        "A server sent a page (a login, an error, a preview) in place of the file. Fetch the "
        "file's own address; on the hub it has /resolve/ where the page has /blob/.",
        path=where,
        got="html page",
        size=size,
    )


def _excerpt(raw: bytes) -> str:
    return quoted(" ".join(raw.decode("utf-8", "replace").split()), 60)
