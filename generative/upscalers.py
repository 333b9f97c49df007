"""Which upscaler a file holds: networks and sizes are read off the weights."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from ..core.errors import WeightsError
from ..core.nn import Module
from ..core.tensor import Tensor
from ..core.weights import NcnnFile, detect, load
from ..core.weights.ncnn import Layer
from . import esrgan, srvgg

Array = np.ndarray[Any, Any]
_LEAKY = {9: 2, 10: (0.2,)}  # of a convolution in a file of ncnn: what follows it
_ADDED = {0: 1, 1: (0.2, 1.0)}  # 0.2 times the first and the second


def network_of(file: Path) -> tuple[str, Module, Any]:
    """The architecture, the network with its weights, and its sizes.

    Raises:
        WeightsError: it is neither an RRDBNet nor an SRVGGNetCompact.
    """
    state = _of_ncnn(file) if detect(file) == "ncnn" else _of_checkpoint(file)
    name, config, make = _described(state, file)
    module: Module = make(config)
    try:
        module.load_state_dict({k: Tensor(v.astype(np.float32)) for k, v in state.items()})
    except WeightsError as error:
        raise WeightsError(f"{file}: {error.message}", **error.facts) from None
    return name, module.eval(), config


def _described(state: dict[str, Array], file: Path) -> tuple[str, Any, Any]:
    if "conv_first.weight" in state:
        return "rrdbnet", _rrdbnet(state, file), esrgan.RRDBNet
    return "srvgg-compact", _srvgg(state, file), srvgg.SRVGGNetCompact


def _of_checkpoint(file: Path) -> dict[str, Array]:
    tensors = {key: np.asarray(value) for key, value in load(file).items()}
    first = [k for k in tensors if k.endswith(("conv_first.weight", "body.0.weight"))]
    # Files hold the averaged network, the last one, or both.
    chosen = next((k for k in first if "ema" in k), first[0] if first else None)
    if chosen is None:
        raise WeightsError(
            f"{file} holds no RRDBNet, nor an SRVGGNetCompact: there is neither conv_first.weight "
            "nor body.0.weight in it."
        )
    prefix = chosen.removesuffix("conv_first.weight").removesuffix("body.0.weight")
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


# -- files of ncnn ---------------------------------------------------------------------------------


def _of_ncnn(file: Path) -> dict[str, Array]:
    with NcnnFile(file) as found:
        names = _names(found.layers, file)
        strange = [name for name in found if name not in names]
        if strange:
            raise WeightsError(f"{file}: {strange[0]} belongs to no layer of the network")
        return {names[name]: found[name] for name in found}


def _names(layers: Iterable[Layer], file: Path) -> dict[str, str]:
    """Our names of the tensors, if these are the layers of one of the networks."""
    row = [layer for layer in layers if layer.kind not in ("Split", "Input")]
    kinds = [layer.kind for layer in row]
    blocks, rest = divmod(kinds.count("Convolution") - 6, 15)
    if blocks > 0 and not rest and kinds == _rrdbnet_kinds(blocks):
        rows = (layer.options.items() for layer in row if layer.kind == "Eltwise")
        if all(_ADDED.items() <= options for options in rows) and _leaky(row, blocks):
            return esrgan.ncnn_names(blocks)
    convolutions = kinds.count("Convolution")
    plain = ["Convolution", "PReLU"] * (convolutions - 1)
    if kinds == [*plain, "Convolution", "PixelShuffle", "Interp", "BinaryOp"]:
        return srvgg.NCNN
    raise WeightsError(
        f"{file}: its {len(row)} layers are those of neither RRDBNet nor SRVGGNetCompact."
    )


def _rrdbnet_kinds(blocks: int) -> list[str]:
    dense = [*["Convolution", "Concat"] * 4, "Convolution", "Eltwise"]
    middle = [*dense * 3, "Eltwise"] * blocks
    up = ["Interp", "Convolution"] * 2
    return ["Convolution", *middle, "Convolution", "BinaryOp", *up, *["Convolution"] * 2]


def _leaky(row: list[Layer], blocks: int) -> bool:
    """Whether the right convolutions are followed by a leaky rectifier."""
    wanted = [False, *[*[True] * 4, False] * (3 * blocks), False, True, True, True, False]
    found = [layer.options for layer in row if layer.kind == "Convolution"]
    return all(
        _LEAKY.items() <= options.items() if bent else not options.get(9)
        for bent, options in zip(wanted, found, strict=True)
    )


# -- sizes -----------------------------------------------------------------------------------------


def _srvgg(state: dict[str, Array], file: Path) -> srvgg.Config:
    """The sizes of the SRVGGNetCompact that these weights belong to."""
    places = (key.split(".")[1] for key in state if key.startswith("body."))
    numbers = [int(place) for place in places if place.isdecimal()]
    last = state.get(f"body.{max(numbers, default=0)}.weight")
    first = state["body.0.weight"]
    if last is None or first.ndim != 4 or last.ndim != 4 or max(numbers) < 2:
        raise WeightsError(f"{file} holds no SRVGGNetCompact: convolutions are missing.")
    channels = first.shape[1]
    scale = round((last.shape[0] / channels) ** 0.5)
    if channels * scale**2 != last.shape[0]:
        raise WeightsError(
            f"{file}: {channels} channels go into the network and {last.shape[0]} come out of it, "
            "which no scale explains.",
            got=last.shape[0],
        )
    return srvgg.Config(
        num_in_ch=channels,
        num_out_ch=channels,
        scale=scale,
        num_feat=first.shape[0],
        num_conv=max(numbers) // 2 - 1,
        act_type="prelu" if "body.1.weight" in state else "relu",
    )


def _rrdbnet(state: dict[str, Any], file: Path) -> esrgan.Config:
    """The sizes of the RRDBNet that these weights belong to."""
    blocks = {key.split(".")[1] for key in state if key.startswith("body.")}
    growth, last = state.get("body.0.rdb1.conv1.weight"), state.get("conv_last.weight")
    first = state["conv_first.weight"]
    if growth is None or last is None or first.ndim != 4:
        raise WeightsError(f"{file} holds no RRDBNet: body or conv_last is missing.")
    outputs = last.shape[0]
    scale = {outputs: 4, 4 * outputs: 2, 16 * outputs: 1}.get(first.shape[1])
    if scale is None:
        raise WeightsError(
            f"{file}: {first.shape[1]} channels go into the network and {outputs} come out of it, "
            "which no scale explains.",
            got=first.shape[1],
        )
    return esrgan.Config(
        num_in_ch=outputs,
        num_out_ch=outputs,
        scale=scale,
        num_feat=first.shape[0],
        num_block=len(blocks),
        num_grow_ch=growth.shape[0],
    )
