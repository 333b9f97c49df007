"""Preprocessing against the pixels of timm and transformers, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from bestiary.core.errors import ConfigError, DataError
from bestiary.core.weights import load_file
from bestiary.vision.preprocess import Preprocess

DATA = Path(__file__).parent.parent / "references" / "data"
CASES = json.loads((DATA / "preprocessing.json").read_text())


@pytest.fixture(scope="module")
def stored() -> dict[str, np.ndarray]:
    return load_file(DATA / "preprocessing.safetensors")


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_pixels_equal_the_reference(case: dict[str, Any], stored: dict[str, np.ndarray]) -> None:
    preprocess = Preprocess.from_config(case["config"])
    pictures = [k for k in stored if k.startswith("picture.")]
    compared = 0
    for name in pictures:
        key = name.replace("picture", case["name"])
        if key not in stored:
            continue
        result = preprocess.batch([Image.fromarray(stored[name])])
        if "384" in key:
            assert result.shape[2:] == (384, 384)
            result = result[:, :, ::16, ::16]
        assert result.dtype == np.float32
        np.testing.assert_allclose(result, stored[key], atol=1e-5, rtol=0)
        compared += 1
    assert compared >= (1 if "384" in case["name"] else 4)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_saved_and_read_again_it_is_the_same(case: dict[str, Any]) -> None:
    preprocess = Preprocess.from_config(case["config"])
    written = json.loads(json.dumps(preprocess.to_config()))
    assert Preprocess.from_config(written) == preprocess


def test_timm_configuration_inside_config_json() -> None:
    config = json.loads((DATA / "resnet-timm-basic" / "config.json").read_text())
    preprocess = Preprocess.from_config(config)
    assert preprocess.size == (224, 224)
    assert preprocess.resize == 235  # 224 / 0.95, cut off
    assert preprocess.resample == "bicubic"


@pytest.mark.parametrize(
    "change, fact",
    [
        ({"do_flip_channel_order": True}, "do_flip_channel_order"),
        ({"rescale_offset": True}, "rescale_offset"),
        ({"image_processor_type": "VideoMAEImageProcessor"}, "VideoMAEImageProcessor"),
        ({"resample": 9}, "9"),
        ({"image_mean": None}, "image_mean"),
        ({"image_std": [1.0, 0.0, 1.0]}, "not zero"),
        ({"image_mean": [0.5, 0.5]}, "mean has 2 and std 3"),
        ({"size": {"longest_edge": 30}}, "longest_edge"),
        ({"size": {"height": 0, "width": 3}}, "(0, 3)"),
    ],
)
def test_what_is_not_understood_is_refused_by_name(change: dict[str, Any], fact: str) -> None:
    (config,) = [c["config"] for c in CASES if c["name"] == "vit"]
    Preprocess.from_config(config)
    with pytest.raises(ConfigError) as caught:
        Preprocess.from_config({**config, **change})
    assert fact in str(caught.value)


def test_unknown_crop_mode_of_timm() -> None:
    with pytest.raises(ConfigError, match="crop_mode 'tiled'"):
        Preprocess.from_timm({"crop_mode": "tiled"})


def test_unknown_key_of_a_saved_one() -> None:
    with pytest.raises(ConfigError, match="gamma=2"):
        Preprocess.from_config({**Preprocess().to_config(), "gamma": 2})


def test_files_bytes_arrays_and_images_give_the_same(photo: Image.Image, tmp_path: Path) -> None:
    preprocess = Preprocess(size=(32, 32), resize=36)
    path = tmp_path / "a picture ü.png"
    photo.save(path)
    expected = preprocess(photo)
    assert expected.shape == (3, 32, 32)
    for source in (path, str(path), path.read_bytes(), np.asarray(photo)):
        np.testing.assert_array_equal(preprocess(source), expected)


def test_grey_model(photo: Image.Image) -> None:
    grey = Preprocess(size=(8, 8), resize=8, mean=(0.5,), std=(0.25,))
    assert grey.channels == 1
    result = grey(photo)
    assert result.shape == (1, 8, 8)
    wanted = np.asarray(photo.convert("L").resize((10, 8), Image.Resampling.BICUBIC), np.float32)
    np.testing.assert_allclose(result[0], (wanted[:, 1:9] / 255 - 0.5) / 0.25, atol=1e-5)
    assert grey.with_channels(3).mean == (0.5, 0.5, 0.5)
    assert Preprocess().with_channels(1).mean == pytest.approx((0.449,), abs=1e-3)
    assert Preprocess().with_channels(3) == Preprocess()
    four = Preprocess().with_channels(4)
    assert four.mean == (0.485, 0.456, 0.406, 0.485)
    with pytest.raises(DataError, match="4 channels, and pictures have 1 or 3"):
        four(photo)


def test_another_size_keeps_the_part_that_is_cropped() -> None:
    assert Preprocess().with_size(112).resize == 128
    assert Preprocess().with_size(112).size == (112, 112)
    exact = Preprocess(size=(20, 30), resize=(20, 30), fit="exact", crop=False)
    assert exact.with_size((40, 50)).resize == (40, 50)


def test_a_very_long_picture_is_refused_before_it_fills_the_memory() -> None:
    with pytest.raises(DataError, match="too long and thin"):
        Preprocess()(Image.new("RGB", (60_000, 2)))


def test_mean_and_std_of_different_length() -> None:
    with pytest.raises(ConfigError, match="mean has 3 and std 1"):
        Preprocess(std=(1.0,))


JUNK: list[Any] = [
    *(None, True, -1, 0, 1.5, float("nan"), float("inf"), 1e30, 10**40, "x", "", [], [1], ["a"]),
    *([None] * 3, [1, 2, 3], [0.5] * 3, [[1]], {}, {"height": 1}, {"height": "a", "width": 2}),
    *({"shortest_edge": value} for value in ("9", None, -5, 1e9)),
]


@pytest.mark.parametrize("case", [*CASES, {"name": "own", "config": Preprocess().to_config()}],
                         ids=lambda case: case["name"])  # fmt: skip
def test_values_that_make_no_sense_are_one_kind_of_error(case: dict[str, Any]) -> None:
    accepted, messages = 0, []
    for key in case["config"]:
        for value in JUNK:
            try:
                preprocess = Preprocess.from_config({**case["config"], key: value})
            except ConfigError as error:
                messages.append(str(error))
            else:
                accepted += 1
                assert Preprocess.from_config(preprocess.to_config()) == preprocess
    assert accepted < len(case["config"]) * len(JUNK) / 2
    assert max(len(message.splitlines()) for message in messages) <= 12
