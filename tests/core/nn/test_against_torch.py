"""Every layer against torch: outputs, gradients, running statistics, with torch's state dicts."""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open

import bestiary as bt

HERE = Path(__file__).parents[2] / "references"
CASES = runpy.run_path(str(HERE / "layer_cases.py"))["CASES"]
ARRAYS: dict[str, dict[str, np.ndarray]] = {}
with safe_open(HERE / "data" / "layers.safetensors", "np") as opened:
    NAMES = json.loads(opened.metadata()["names"])
    for full in opened.keys():  # noqa: SIM118
        case, _, key = full.partition("/")
        ARRAYS.setdefault(case, {})[key] = opened.get_tensor(full)


def part(case: str, kind: str) -> dict[str, np.ndarray]:
    start = kind + "."
    return {k.removeprefix(start): v for k, v in ARRAYS[case].items() if k.startswith(start)}


def build(case: str) -> Any:
    name, arguments, _, options = CASES[case]
    arguments = dict(arguments)
    if options.get("batch_first"):
        arguments["batch_first"] = True
    layer = getattr(bt.nn, name)(**arguments)
    if options.get("wrap"):
        axis = {"axis": options["axis"]} if "axis" in options else {}
        getattr(bt.nn, options["wrap"])(layer, **axis)
    return layer.train(bool(options.get("train")))


def flat(value: Any) -> list[bt.Tensor]:
    if isinstance(value, bt.Tensor):
        return [value]
    return [x for item in value if item is not None for x in flat(item)]


def run(layer: Any, inputs: list[bt.Tensor], options: dict[str, Any]) -> list[bt.Tensor]:
    keywords = dict(options.get("forward", {}))
    if options.get("self"):
        return flat(layer(*inputs * 3, **keywords))
    if "padding" in options:
        keys = inputs[1].shape[1]
        lengths = np.array(options["padding"])[:, None]
        keywords["key_padding_mask"] = bt.asarray(np.arange(keys)[None] >= lengths)
    if options.get("mask"):
        shape = inputs[0].shape[1], inputs[1].shape[1]
        keywords["attn_mask"] = bt.asarray(np.triu(np.ones(shape, bool), 2))
    if "causal" in options:
        return flat(layer(*inputs, is_causal=True))
    if isinstance(layer, (bt.nn.RNN, bt.nn.LSTM, bt.nn.GRU, bt.nn.LSTMCell)):
        x, *states = inputs
        first = tuple(states) if len(states) == 2 else states[0] if states else None
        if "lengths" in options:
            keywords["lengths"] = options["lengths"]
        return flat(layer(x, first, **keywords))
    return flat(layer(*inputs, **keywords))


def close(ours: bt.Tensor | None, expected: np.ndarray, what: str) -> None:
    assert ours is not None, what
    assert ours.shape == expected.shape, what
    assert ours.dtype == expected.dtype, what
    np.testing.assert_allclose(ours.array, expected, rtol=1e-5, atol=1e-5, err_msg=what)


@pytest.mark.parametrize("case", CASES)
def test_layer_equals_torch(case):
    _, _, _, options = CASES[case]
    layer = build(case)
    state = part(case, "state")
    assert list(layer.state_dict()) == NAMES[case]
    layer.load_state_dict(state)
    inputs = []
    for number, array in sorted(part(case, "in").items()):
        needs = f"grad_in.{number}" in ARRAYS[case]
        inputs.append(bt.tensor(array, requires_grad=needs))
    outputs = run(layer, inputs, options)
    expected = part(case, "out")
    assert len(outputs) == len(expected)
    total: Any = 0.0
    for number, out in enumerate(outputs):
        close(out, expected[str(number)], f"output {number}")
        total = total + (out * bt.asarray(part(case, "weight")[str(number)])).sum()
    total.backward()
    for number, array in part(case, "grad_in").items():
        close(inputs[int(number)].grad, array, f"gradient of input {number}")
    found = dict(layer.named_parameters())
    gradients = part(case, "grad")
    assert set(found) == set(gradients)
    for name, array in gradients.items():
        close(found[name].grad, array, f"gradient of {name}")
    buffers = dict(layer.named_buffers())
    for name, array in part(case, "after").items():
        close(buffers[name], array, f"{name} after")
