"""Files of ncnn: what is read, and every way in which the two files can be wrong."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bestiary.core.errors import WeightsError
from bestiary.core.weights import NcnnFile, detect, load, open_weights
from bestiary.core.weights.ncnn import read_layers

LAYERS = [
    "Input in 0 1 data",
    "Convolution first 1 1 data a 0=2 1=3 11=1 4=1 5=1 6=18 9=2 -23310=1,2.0e-01",
    "PReLU bent 1 1 a b 0=2",
    "Convolution second 1 1 b c 0=3 1=1 6=6",
    "InnerProduct last 1 1 c out 0=2 1=1 2=8",
]
HALF, PLAIN = (0x01306B47).to_bytes(4, "little"), bytes(4)


def text(layers: list[str], count: int | None = None) -> str:
    total = len(layers) if count is None else count
    return "\n".join(["7767517", f"{total} {total}", *layers]) + "\n"


def weights() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)

    def drawn(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape).astype(np.float32)

    return {
        "Convolution.0.weight": drawn(2, 3, 1, 3).astype(np.float16),
        "Convolution.0.bias": drawn(2),
        "PReLU.0.weight": drawn(2),
        "Convolution.1.weight": drawn(3, 2, 1, 1),
        "InnerProduct.0.weight": drawn(2, 4),
        "InnerProduct.0.bias": drawn(2),
    }


def stored(arrays: dict[str, np.ndarray]) -> bytes:
    found = b""
    for name, array in arrays.items():
        if name.endswith("weight") and not name.startswith("PReLU"):
            found += HALF if array.dtype == np.float16 else PLAIN
        found += array.tobytes()
        found += bytes(-len(found) % 4)
    return found


def write(folder: Path, layers: str, data: bytes) -> Path:
    (folder / "net.param").write_text(layers)
    (folder / "net.bin").write_bytes(data)
    return folder / "net.param"


@pytest.mark.parametrize("mapped", [False, True])
def test_tensors_are_numbered_by_kind(tmp_path: Path, mapped: bool) -> None:
    path = write(tmp_path, text(LAYERS), stored(weights()))
    assert detect(path) == "ncnn"
    with open_weights(path, mapped=mapped) as file:
        assert isinstance(file, NcnnFile)
        assert list(file) == list(weights()) and len(file) == 6
        for name, array in weights().items():
            assert file.info(name) == (array.dtype, array.shape)
            np.testing.assert_array_equal(file[name], array)
        assert file.layers[1].options[9] == 2 and file.layers[1].options[10] == (0.2,)
        assert "PReLU.1.weight" not in file
    np.testing.assert_array_equal(load(path)["PReLU.0.weight"], weights()["PReLU.0.weight"])


def test_halves_of_odd_number_are_filled_up(tmp_path: Path) -> None:
    layers = text(["Input in 0 1 a", "Convolution c 1 1 a b 0=1 1=1 5=1 6=3"])
    half = np.array([1, 2, 3], np.float16)
    data = HALF + half.tobytes() + bytes(2) + np.float32(7).tobytes()
    with open_weights(write(tmp_path, layers, data)) as file:
        assert file["Convolution.0.weight"].ravel().tolist() == [1, 2, 3]
        assert file["Convolution.0.bias"].tolist() == [7]


def test_every_cut_is_noticed(tmp_path: Path) -> None:
    whole = stored(weights())
    for size in range(len(whole)):
        with pytest.raises(WeightsError):
            NcnnFile(write(tmp_path, text(LAYERS), whole[:size]))
    with pytest.raises(WeightsError, match="not of one model"):
        NcnnFile(write(tmp_path, text(LAYERS), whole + bytes(4)))
    (tmp_path / "net.bin").unlink()
    with pytest.raises(FileNotFoundError):
        NcnnFile(tmp_path / "net.param")


@pytest.mark.parametrize(
    "tag, match", [(0x000D4B38, "8-bit"), (0x0002C056, "another layout"), (77, "unknown kind")]
)
def test_other_numbers_are_refused(tmp_path: Path, tag: int, match: str) -> None:
    data = tag.to_bytes(4, "little") + stored(weights())[4:]
    with pytest.raises(WeightsError, match=match):
        NcnnFile(write(tmp_path, text(LAYERS), data))


@pytest.mark.parametrize(
    "line, match",
    [
        ("LSTM x 1 1 a b 0=3", "'LSTM' are not supported"),
        ("Convolution c 1 1 a b 0=2 1=3 6=19", "19 weights for 2 outputs"),
        ("Convolution c 1 1 a b 0=2 1=3", "0 weights"),
        ("Convolution c 1 1 a b 0=0 1=3 6=9", "9 weights for 0"),
        ("Convolution c 1 1 a b 0=-2 1=3 6=18", "option 0=-2"),
        ("Convolution c 1 1 a b 0=2.5 1=3 6=18", "option 0=2.5"),
        ("Convolution c 1 1 a b 0=9999999999 1=3 6=18", "option 0="),
        ("Convolution c 1 1 a b 0=1 1=1 6=2147483647", "ends too early"),
        ("Convolution c 9 1 a b", "no layer"),
        ("Convolution c -1 1 a b", "no layer"),
        ("Convolution c x 1 a b", "no layer"),
        ("Convolution c", "no layer"),
        ("Convolution c 1 1 a b 0=x", "no layer"),
        ("Convolution c 1 1 a b 0=nan", "no layer"),
        ("Convolution c 1 1 a b 0=1e999", "no layer"),
        ("Convolution c 1 1 a b -23310=3,1", "no layer"),
        ("Convolution c 1 1 a b word", "no layer"),
    ],
)
def test_damaged_layers(tmp_path: Path, line: str, match: str) -> None:
    with pytest.raises(WeightsError, match=match):
        NcnnFile(write(tmp_path, text(["Input in 0 1 a", line]), bytes(64)))


@pytest.mark.parametrize(
    "raw, match",
    [
        (b"\xff\xfe7767517\n1 1\n", "no text"),
        (b"7767518\n1 1\nInput a 0 1 b\n", "begins otherwise"),
        (b"7767517\n", "begins otherwise"),
        (b"7767517\none two\n", "line 2"),
        (b"7767517\n3 3\nInput a 0 1 b\n", "3 layers are promised and 1"),
    ],
)
def test_damaged_texts(raw: bytes, match: str) -> None:
    with pytest.raises(WeightsError, match=match):
        read_layers(raw, "net.param")


def test_weights_alone_say_what_is_missing(tmp_path: Path) -> None:
    write(tmp_path, text(LAYERS), stored(weights()))
    with pytest.raises(WeightsError, match=r"\.param"):
        load(tmp_path / "net.bin")
