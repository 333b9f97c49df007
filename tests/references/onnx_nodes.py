"""Some of the node cases that ONNX publishes: models of one operator, inputs, outputs.

    python tests/references/onnx_nodes.py

needs onnx and safetensors; nothing of bestiary. Written with onnx 1.23.2 into
tests/references/data/onnx_nodes.safetensors: `CASE/model` are the bytes of a file, `CASE/i0` its
first input, `CASE/o0` its first output, and the metadata hold the tolerances. Of each operator of
the main domain a few small cases are taken, spread over the names of all; none with text,
sequences, or elements that safetensors has not.
"""

from __future__ import annotations

import json
import warnings
from collections import defaultdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from onnx import TensorProto, numpy_helper
from onnx.backend.test import loader
from safetensors.numpy import save_file

FILE = Path(__file__).parent / "data" / "onnx_nodes.safetensors"
LARGEST = 2500  # bytes of a case; where an operator has none so small, its smallest
STILL = 6000  # up to this one
RANDOM = {"Bernoulli", "RandomNormalLike", "RandomUniformLike"}
# Their options are worth more cases than those of others.
MANY = {
    "Attention": 6, "Conv": 5, "ConvTranspose": 8, "Resize": 12, "LSTM": 6, "GRU": 6, "RNN": 6,
    "QuantizeLinear": 5, "DequantizeLinear": 5, "QLinearMatMul": 5, "Cast": 12,
    "AveragePool": 5, "MaxPool": 5,
}  # fmt: skip


def parts(case: Any) -> dict[str, Any] | None:
    """The arrays of a case; None where they cannot be stored."""
    inputs, outputs = case.data_sets[0]
    found = {"model": np.frombuffer(case.model.SerializeToString(), np.uint8)}
    for letter, values in (("i", inputs), ("o", outputs)):
        for k, x in enumerate(values):
            if x is None and letter == "i":
                continue
            if isinstance(x, TensorProto):  # what was made for other versions of the format
                x = numpy_helper.to_array(x)
            array = None if x is None or isinstance(x, list) else np.asarray(x)
            if array is None or array.dtype.kind not in "biuf":
                return None
            if hasattr(ml_dtypes, array.dtype.name):
                return None
            found[f"{letter}{k}"] = np.array(array, order="C")
    return found


def size(found: dict[str, Any]) -> int:
    """Bytes of a case."""
    return sum(a.nbytes for a in found.values())


def main() -> None:
    cases: dict[str, dict[str, Any]] = defaultdict(dict)
    for case in loader.load_model_tests(kind="node"):
        nodes = case.model.graph.node
        if len(nodes) != 1 or nodes[0].domain not in ("", "ai.onnx"):
            continue
        if case.name.endswith("_expanded") or nodes[0].op_type in RANDOM:
            continue
        if case.name.startswith("test_training_dropout") and "zero" not in case.name:
            continue  # NumPy's random numbers
        found = parts(case)
        if found is not None and size(found) <= STILL:
            cases[nodes[0].op_type][case.name] = (case, found)
    arrays: dict[str, Any] = {}
    tolerances = {}
    for kind, known in sorted(cases.items()):
        names = sorted(n for n, (_, found) in known.items() if size(found) <= LARGEST)
        names = names or [min(known, key=lambda n: size(known[n][1]))]
        count = MANY.get(kind, 3)
        places = np.unique(np.linspace(0, len(names) - 1, min(count, len(names))).round())
        for place in places.astype(int):
            name = names[place]
            case, found = known[name]
            tolerances[name] = (kind, case.rtol, case.atol)
            arrays |= {f"{name}/{k}": a for k, a in found.items()}
    about = {"onnx": version("onnx"), "cases": json.dumps(tolerances)}
    save_file(arrays, FILE, about)
    print(len(tolerances), "cases of", len(cases), "operators,", FILE.stat().st_size, "bytes")


if __name__ == "__main__":
    warnings.filterwarnings("ignore")
    main()
