"""TESTPLAN 35a: damaged GGUF headers give a WeightsError or the right values, nothing else.

Files are made valid and then changed in their bytes and numbers. Under the mark `reference` the
package `gguf` writes the files, and what both read is compared.
"""

from __future__ import annotations

import os
import random
import struct

import numpy as np
import pytest

from bestiary.core.errors import WeightsError
from bestiary.core.quantization import pack
from bestiary.core.weights import GgufFile

FILES = int(os.environ.get("BESTIARY_FUZZ_GGUF", "1500"))
NUMBERS = [0, 1, 2, 7, 8, 9, 31, 32, 255, 2**31, 2**32 - 1, 2**32, 2**61, 2**63, 2**64 - 1]


def changed(raw: bytes, rng: random.Random) -> bytes:
    """A file with one to three faults."""
    data = bytearray(raw)
    for _ in range(rng.randint(1, 3)):
        at = rng.randrange(4, len(data))
        match rng.randrange(5):
            case 0:
                data[at] = rng.randrange(256)
            case 1:
                data[at : at + 4] = struct.pack("<I", rng.choice(NUMBERS) % 2**32)
            case 2:
                data[at : at + 8] = struct.pack("<Q", rng.choice(NUMBERS))
            case 3:
                del data[at : at + rng.randint(1, 40)]
            case 4:
                data[at:at] = rng.randbytes(rng.randint(1, 40))
        if len(data) < 8:
            break
    return bytes(data)


def sample(gguf_bytes, rng: random.Random) -> bytes:
    metadata = [
        ("general.architecture", 8, "llama"),
        ("n", rng.choice([0, 2, 4]), 7),
        ("numbers", 9, (rng.choice([1, 5, 11]), [1, -2, 3])),
        ("texts", 9, (8, ["a", "bc", "Ġd"])),
        ("truth", 7, True),
        ("f", 6, 0.25),
    ]
    rng.shuffle(metadata)
    rows = np.arange(64, dtype=np.float32).reshape(1, 64)
    tensors, data = [], b""
    for name, kind in (("q4_0", 2), ("q8_0", 8), ("q4_1", 3)):
        tensors.append((name, (64, 1), kind, len(data)))
        data += pack(rows, name).tobytes()
        data += bytes(-len(data) % 32)
    tensors.append(("plain", (8, 2), 0, len(data)))
    return gguf_bytes(metadata, tensors, data + np.arange(16, dtype=np.float32).tobytes())


def test_faults_are_refused_and_nothing_else_happens(gguf_bytes, tmp_path) -> None:
    rng = random.Random(0)
    path, outcomes = tmp_path / "model.gguf", {True: 0, False: 0}
    for _ in range(FILES):
        path.unlink(missing_ok=True)
        path.write_bytes(changed(sample(gguf_bytes, rng), rng))
        try:
            with GgufFile(path) as file:
                for name in file:
                    assert file[name].shape == file.info(name).shape
        except WeightsError:
            outcomes[False] += 1
        else:
            outcomes[True] += 1
    assert min(outcomes.values()) > FILES // 50  # both happen, or this tests nothing


def _theirs(path, gguf) -> tuple[dict, dict]:
    """What the package reads: metadata, and tensors in float32."""
    with np.errstate(all="ignore"):
        reader = gguf.GGUFReader(path)
        metadata = {k: f.contents() for k, f in reader.fields.items() if not k.startswith("GGUF.")}
        tensors = {}
        for tensor in reader.tensors:
            array = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
            tensors[tensor.name] = array.reshape(tuple(tensor.shape)[::-1])
    return metadata, tensors


@pytest.mark.reference
def test_the_package_reads_the_same(gguf_bytes, tmp_path) -> None:
    gguf = pytest.importorskip("gguf")
    rng = random.Random(1)
    path, both = tmp_path / "model.gguf", 0
    for i in range(4 * FILES):
        path.unlink(missing_ok=True)
        raw = sample(gguf_bytes, rng)
        path.write_bytes(changed(raw, rng) if i % 10 else raw)
        try:
            with GgufFile(path) as file, np.errstate(all="ignore"):
                mine, arrays = dict(file.metadata), {n: file[n].astype(np.float32) for n in file}
        except WeightsError:
            assert i % 10
            continue
        metadata, tensors = _theirs(path, gguf)
        listed = {k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in mine.items()}
        np.testing.assert_equal(listed, metadata)
        assert arrays.keys() == tensors.keys()
        for name, array in arrays.items():
            np.testing.assert_array_equal(array, tensors[name].astype(np.float32))
        both += 1
    assert both > FILES // 2


@pytest.mark.reference
def test_every_format_equals_the_package(tmp_path) -> None:
    gguf = pytest.importorskip("gguf")
    rng = np.random.default_rng(0)
    writer = gguf.GGUFWriter(tmp_path / "model.gguf", "llama")
    want = {}
    for name in ("Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q4_K", "Q5_K", "Q6_K", "BF16", "F16"):
        kind = gguf.GGMLQuantizationType[name]
        block, size = gguf.GGML_QUANT_SIZES[kind]
        raw = rng.integers(0, 256, (5, 512 // block * size), np.uint8)
        with np.errstate(all="ignore"):
            want[name] = gguf.quants.dequantize(
                raw.view(np.float16) if name == "F16" else raw, kind
            )
        writer.add_tensor(name, raw, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with GgufFile(tmp_path / "model.gguf") as file:
        for name, array in want.items():
            np.testing.assert_array_equal(file[name].astype(np.float32), array.astype(np.float32))
