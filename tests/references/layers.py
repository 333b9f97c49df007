"""Outputs and gradients of torch's layers, with random weights.

    python tests/references/layers.py

needs torch and safetensors; nothing of bestiary. Written with torch 2.13.0 on the CPU into
tests/references/data/layers.safetensors: for each case of layer_cases.py its state dict, inputs,
outputs, the gradient given to each output, and the gradients of inputs and parameters.
"""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from layer_cases import CASES
from safetensors.numpy import save_file
from torch.nn.utils import parametrizations, rnn

FILE = Path(__file__).parent / "data" / "layers.safetensors"


def build(name: str, arguments: dict[str, Any], options: dict[str, Any]) -> torch.nn.Module:
    renamed = {options.get("rename", {}).get(k, k): v for k, v in arguments.items()}
    if options.get("batch_first"):
        renamed["batch_first"] = True
    layer = getattr(torch.nn, name)(**renamed)
    if options.get("wrap"):
        axis = {"dim": options["axis"]} if "axis" in options else {}
        layer = getattr(parametrizations, options["wrap"])(layer, **axis)
    return layer.train(bool(options.get("train")))


def randomise(layer: torch.nn.Module, rng: np.random.Generator) -> None:
    with torch.no_grad():
        for name, tensor in layer.state_dict().items():
            values = rng.standard_normal(tuple(tensor.shape)) * 0.7
            if name.endswith(("running_var", "original0")):
                values = np.abs(values) + 0.5
            if name.endswith("num_batches_tracked"):
                values = np.array(3)
            if name.endswith(("_u", "_v")):
                values /= np.linalg.norm(values)
            tensor.copy_(torch.tensor(values))


def inputs_of(
    shapes: list[tuple[int, ...]], options: dict[str, Any], rng: np.random.Generator
) -> list[torch.Tensor]:
    found = []
    for i, shape in enumerate(shapes):
        if "ints" in options:
            found.append(torch.tensor(rng.integers(0, options["ints"], shape)))
        elif options.get("target") == "ids" and i == 1:
            found.append(torch.tensor(rng.integers(0, 5, shape)))
        elif options.get("target") == "signs" and i == 2:
            found.append(torch.tensor(rng.integers(0, 2, shape) * 2 - 1))
        elif options.get("positive"):
            found.append(torch.tensor(rng.uniform(0.05, 0.95, shape).astype(np.float32)))
        else:
            found.append(torch.tensor((1.3 * rng.standard_normal(shape)).astype(np.float32)))
    for i, x in enumerate(found):
        if x.is_floating_point() and not (options.get("target") == "values" and i == 1):
            x.requires_grad_()
    return found


def flat(value: Any) -> list[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        return [value]
    return [x for item in value if item is not None for x in flat(item)]


def run(
    layer: torch.nn.Module, inputs: list[torch.Tensor], options: dict[str, Any]
) -> list[torch.Tensor]:
    keywords = dict(options.get("forward", {}))
    if options.get("self"):
        return flat(layer(*inputs * 3, **keywords))
    if "padding" in options:
        keys = inputs[1].shape[1]
        lengths = torch.tensor(options["padding"])[:, None]
        keywords["key_padding_mask"] = torch.arange(keys)[None] >= lengths
    if options.get("mask"):
        steps, keys = inputs[0].shape[1], inputs[1].shape[1]
        keywords["attn_mask"] = torch.ones(steps, keys).triu(2).bool()
    if "causal" in options:
        n = options["causal"]
        mask = torch.full((n, n), float("-inf")).triu(1)
        return flat(layer(*inputs, src_mask=mask, is_causal=True))
    if isinstance(layer, (torch.nn.RNNBase, torch.nn.LSTMCell)):
        x, *states = inputs
        first = tuple(states) if len(states) == 2 else states[0] if states else None
        if "lengths" in options:
            lengths = torch.tensor(options["lengths"])
            packed = rnn.pack_padded_sequence(x, lengths, layer.batch_first, enforce_sorted=False)
            out, last = layer(packed, first)
            out, _ = rnn.pad_packed_sequence(out, layer.batch_first, total_length=5)
            return flat((out, last))
        return flat(layer(x, first))
    return flat(layer(*inputs, **keywords))


def main() -> None:
    warnings.simplefilter("ignore")  # slow paths of torch
    arrays: dict[str, np.ndarray] = {}
    names: dict[str, list[str]] = {}
    for number, (case, (name, arguments, shapes, options)) in enumerate(CASES.items()):
        rng = np.random.default_rng(number)
        layer = build(name, arguments, options)
        randomise(layer, rng)
        inputs = inputs_of(shapes, options, rng)
        kept: dict[str, torch.Tensor] = {}
        kept |= {f"state.{k}": v.clone() for k, v in layer.state_dict().items()}
        outputs = run(layer, inputs, options)
        total = torch.zeros(())
        for i, out in enumerate(outputs):
            weight = torch.tensor(rng.standard_normal(tuple(out.shape)).astype(np.float32))
            total = total + (out * weight).sum()
            kept |= {f"out.{i}": out, f"weight.{i}": weight}
        total.backward()
        for i, x in enumerate(inputs):
            kept[f"in.{i}"] = x
            if x.grad is not None:
                kept[f"grad_in.{i}"] = x.grad
        for k, p in layer.named_parameters():
            kept[f"grad.{k}"] = p.grad
        if options.get("train"):
            kept |= {f"after.{k}": v for k, v in layer.named_buffers()}
        for key, value in kept.items():
            arrays[f"{case}/{key}"] = np.array(value.detach().numpy(), order="C", copy=True)
        names[case] = list(layer.state_dict())
    # The file sorts its arrays; the order of state dicts is compared too.
    metadata = {"torch": torch.__version__, "names": json.dumps(names)}
    save_file(arrays, FILE, metadata=metadata)
    print(f"torch {torch.__version__}: {len(CASES)} cases, {FILE.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
