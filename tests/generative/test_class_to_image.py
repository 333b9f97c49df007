"""DiT's pipeline against the pictures of diffusers, for the same noise."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bestiary.core.errors import ConfigError, DataError, DeviceError, ShapeError
from bestiary.core.weights import load_file
from bestiary.generative.pipelines import estimates
from bestiary.generative.tasks.class_to_image import ClassToImage
from bestiary.hub.loading import load

FOLDER = Path(__file__).parent.parent / "references" / "data" / "dit-tiny"
QUICK: dict[str, Any] = {"steps": 2}


@pytest.fixture
def model() -> ClassToImage:
    loaded = load(FOLDER)
    assert isinstance(loaded, ClassToImage)
    return loaded


@pytest.mark.parametrize("slicing", [False, True])
def test_pictures_equal_the_references(model: ClassToImage, replay: Any, slicing: bool) -> None:
    arrays = load_file(FOLDER / "reference.safetensors")
    model.slicing = slicing
    for name, guidance in (("guided", 2.0), ("plain", 1.0)):
        replay(arrays, name)
        settings: dict[str, Any] = {"steps": 4, "guidance": guidance, "batch_size": 2}
        made = model(2, label=[7, 207], output="array", **settings)
        pixels = np.clip(made / 2 + 0.5, 0, 1).transpose(0, 2, 3, 1)
        np.testing.assert_allclose(pixels, arrays[f"{name}.image"], atol=1e-3, rtol=0)


def test_labels_by_name_and_number(model: ClassToImage) -> None:
    named = model(1, label="Thing 3", seed=0, output="array", **QUICK)
    # The second may run compiled, which sums in another order.
    again = model(1, label=3, seed=0, output="array", **QUICK)
    np.testing.assert_allclose(named, again, atol=1e-5)
    both = model(2, label=["thing 3", 4], seed=0, output="array", **QUICK)
    np.testing.assert_allclose(both[:1], named, atol=1e-5)
    assert model(1, seed=3, **QUICK)[0].info["bestiary"]["label"] == 3


@pytest.mark.parametrize(
    "settings, kind, words",
    [
        ({"label": "thing 33"}, DataError, "Nearest: thing 3"),
        ({"label": 1000}, DataError, "0 to 999"),
        ({"label": -1}, DataError, "0 to 999"),
        ({"label": 2.5}, DataError, "neither a name"),
        ({"label": [1, 2]}, DataError, "2 labels for 1"),
        ({"label": [True]}, DataError, "neither a name"),
        ({"size": 18}, ShapeError, "multiples of 4"),
        ({"guidance": float("inf")}, ConfigError, "guidance=inf"),
        ({"output": "x"}, ConfigError, "output='x'"),
        ({"batch_size": 0}, ConfigError, "batch_size=0"),
        ({"latents": np.zeros((1, 4, 3, 3))}, ShapeError, r"\(1, 4, 8, 8\)"),
    ],
)
def test_settings_that_make_no_sense(
    model: ClassToImage, settings: dict[str, Any], kind: type[Exception], words: str
) -> None:
    with pytest.raises(kind, match=words):
        model(**(QUICK | settings))


def test_saved_and_loaded_again(model: ClassToImage, tmp_path: Path) -> None:
    again = load(model.save(tmp_path))
    assert again.labels == model.labels
    first = model(1, label=1, seed=0, output="latents", **QUICK)
    np.testing.assert_array_equal(first, again(1, label=1, seed=0, output="latents", **QUICK))


def test_too_little_memory(model: ClassToImage, monkeypatch: pytest.MonkeyPatch) -> None:
    assert model.cost(2).operations == pytest.approx(2 * model.cost(1).operations)
    monkeypatch.setattr(estimates, "available_memory", lambda device: 10)
    with pytest.raises(DeviceError, match="beside the weights"):
        model(**QUICK)
