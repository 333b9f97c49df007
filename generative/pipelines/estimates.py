"""What making pictures will cost: operations, time and memory, known before the run.

Operations are counted from the layers and the size of the maps that they see. The time follows
from how fast this machine multiplies; it is an estimate, good to about a factor of two.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from ...core import nn
from ...core.devices import as_device, backend_for
from ...core.errors import DeviceError
from ...core.nn import Module
from ..blocks import Attention

_SHARE = 0.45  # of the speed of large products that whole networks reach: measured
_SIDE = 1024  # of the products that are timed
_GIGABYTE = 1e9
_CGROUP = Path("/sys/fs/cgroup")
_LEVEL = re.compile(r"(down_blocks|up_blocks)\.(\d+)\.(\w+)")


@dataclass(frozen=True)
class Cost:
    """What a run is expected to need.

    Attributes:
        seconds: of computing; None where the machine's speed is not known.
        memory: bytes beside those of the weights, at most.
        weights: bytes of the weights, which are there already.
        operations: multiplications and additions.
    """

    seconds: float | None
    memory: int
    weights: int
    operations: float

    def __str__(self) -> str:
        parts = [f"{(self.memory + self.weights) / _GIGABYTE:.1f} GB of memory"]
        if self.seconds is not None:
            parts.insert(0, f"about {duration(self.seconds)}")
        return ", ".join(parts)


def duration(seconds: float) -> str:
    """Seconds for people."""
    if seconds < 90:
        return f"{max(seconds, 1):.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def weight_bytes(module: Module) -> int:
    """Bytes of all parameters."""
    return sum(p.size * p.dtype.itemsize for p in module.parameters())


# -- operations ------------------------------------------------------------------------------------


def unet_operations(unet: Module, rows: int, columns: int, tokens: int) -> float:
    """Operations of a conditional UNet for one sample.

    Args:
        rows, columns: of the latents.
        tokens: of the text.
    """
    levels = len(unet.config.block_out_channels)

    def places(path: str) -> int:
        return _places(path, levels, rows, columns)

    total = 0.0
    for path, layer in unet.named_modules():
        at = places(path)
        if isinstance(layer, nn.Conv2d):
            total += 2.0 * layer.weight.size * at
        elif isinstance(layer, nn.Linear):
            if ".attn2.to_k" in path or ".attn2.to_v" in path:
                at = tokens
            elif "time_emb" in path or "add_embedding" in path:
                at = 1
            total += 2.0 * layer.weight.size * at
        elif isinstance(layer, Attention):
            seen = tokens if path.endswith("attn2") else at
            total += 4.0 * at * seen * layer.to_q.out_features
    return total


def _places(path: str, levels: int, rows: int, columns: int) -> int:
    """How many places the output of a layer of a UNet has."""
    found = _LEVEL.search(path)
    level = levels - 1 if path.startswith("mid_block") else 0
    if found is not None:
        level = int(found[2]) if found[1] == "down_blocks" else levels - 1 - int(found[2])
        if found[3] == "downsamplers":
            level += 1
        elif found[3] == "upsamplers":
            level -= 1
    return max(rows >> level, 1) * max(columns >> level, 1)


def decoder_operations(vae: Module, rows: int, columns: int) -> float:
    """Operations of an autoencoder's decoder for one picture."""
    total = 0.0
    levels = len(vae.config.block_out_channels)
    for path, layer in vae.decoder.named_modules():
        found = re.match(r"up_blocks\.(\d+)\.(\w+)", path)
        level = int(found[1]) if found is not None else 0
        if found is not None and found[2] == "upsamplers":
            level += 1
        if path.startswith("conv_out"):
            level = levels - 1
        at = rows * columns * 4**level
        if isinstance(layer, nn.Conv2d | nn.Linear):
            total += 2.0 * layer.weight.size * at
        elif isinstance(layer, Attention):
            total += 4.0 * at * at * layer.to_q.out_features
    return total


def transformer_operations(network: Module, rows: int, columns: int) -> float:
    """Operations of a transformer over patches for one sample."""
    patch = network.config.patch_size
    tokens = (rows // patch) * (columns // patch)
    total = 0.0
    for path, layer in network.named_modules():
        once = ".norm1." in path or "proj_out_1" in path
        if isinstance(layer, nn.Linear | nn.Conv2d):
            total += 2.0 * layer.weight.size * (1 if once else tokens)
        elif isinstance(layer, Attention):
            total += 4.0 * tokens * tokens * layer.to_q.out_features
    return total


@cache
def speed() -> float:
    """Operations a second of a product of matrices on this machine's CPU; measured once."""
    a = np.ones((_SIDE, _SIDE), np.float32)
    b = np.ones((_SIDE, _SIDE), np.float32)
    best = float("inf")
    for _ in range(6):
        start = time.perf_counter()
        a @ b
        best = min(best, time.perf_counter() - start)
    return 2.0 * _SIDE**3 / best


def seconds_for(operations: float, device: Any) -> float | None:
    """How long so many operations take; None on devices whose speed is not measured."""
    return operations / (speed() * _SHARE) if str(device) == "cpu" else None


# -- memory ----------------------------------------------------------------------------------------


#: Of a network's weights, what is kept prepared for the processor from the first call on, and
#: what a compiled program holds beside that: measured with Stable Diffusion 1.5's UNet.
PREPARED, COMPILED = 0.15, 1.6


def unet_memory(unet: Module, rows: int, columns: int, batch: int) -> int:
    """Bytes of the maps that are alive at once, at most: the skips and a block at work."""
    config = unet.config
    skips = sum(_skips(config, rows, columns))
    first = config.block_out_channels[0]
    widest = max(
        width * max(rows >> i, 1) * max(columns >> i, 1)
        for i, width in enumerate((first, *config.block_out_channels))
    )
    return int(batch * 4 * (skips + _AT_WORK * widest))


def _skips(config: Any, rows: int, columns: int) -> Iterator[int]:
    yield config.block_out_channels[0] * rows * columns
    for i, width in enumerate(config.block_out_channels):
        layers = config.layers_per_block
        count = layers[i] if isinstance(layers, tuple) else layers
        yield count * width * max(rows >> i, 1) * max(columns >> i, 1)
        if i + 1 < len(config.block_out_channels):
            yield width * max(rows >> (i + 1), 1) * max(columns >> (i + 1), 1)


_AT_WORK = 32  # maps of the widest level beside the skips: measured
_DECODING = 5  # maps of the decoder's widest level: measured


def decoder_memory(vae: Module, rows: int, columns: int, tile: int | None) -> int:
    """Bytes that decoding one picture takes beside the weights."""
    if tile is not None:
        rows, columns = min(rows, tile), min(columns, tile)
    widths = vae.config.block_out_channels[::-1]
    largest: int = 0
    for i, width in enumerate(widths):
        before = widths[max(i - 1, 0)]
        largest = max(largest, int(max(width, before) * rows * columns * 4**i))
    return int(4 * _DECODING * largest)


def transformer_memory(network: Module, rows: int, columns: int, batch: int) -> int:
    """Bytes of the tokens that are alive at once, at most."""
    patch = network.config.patch_size
    tokens = (rows // patch) * (columns // patch)
    return int(4 * batch * tokens * network.config.width * _AT_WORK)


def available_memory(device: Any) -> int | None:
    """Bytes that can still be had on a device; None where that is not known."""
    if str(device) != "cpu":
        xp = backend_for(as_device(device)).xp
        return int(xp.cuda.runtime.memGetInfo()[0])
    free: list[int] = []
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        free += [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable")]
        limit, used, stat = (
            (_CGROUP / f"memory.{name}").read_text(encoding="ascii")
            for name in ("max", "current", "stat")
        )
        if limit.strip() != "max":
            cached = re.findall(r"^(?:in)?active_file (\d+)$", stat, re.MULTILINE)
            free.append(int(limit) - int(used) + sum(map(int, cached)))
    except (OSError, ValueError, IndexError):
        pass
    return max(min(free), 0) if free else None


def refuse_too_large(what: str, cost: Cost, device: Any) -> None:
    """Raise where a run cannot fit into memory, before it begins.

    Raises:
        DeviceError: says how much is wanted and how much there is.
    """
    free = available_memory(device)
    if free is not None and cost.memory > free:
        raise DeviceError(
            f"{what} needs about {cost.memory / _GIGABYTE:.1f} GB of memory beside the weights "
            f"({cost.weights / _GIGABYTE:.1f} GB), and {free / _GIGABYTE:.1f} GB are free on "
            f"{device}.\n"
            "Smaller pictures, batch_size=1, model.slicing = True and model.tiling = True need "
            "less.",
            expected=cost.memory,
            got=free,
        )
