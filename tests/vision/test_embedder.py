"""Pictures to vectors and feature maps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import bestiary as bt
from bestiary.core.errors import ConfigError, DataError
from bestiary.hub.card import Card
from bestiary.vision.embedder import Embedder
from bestiary.vision.preprocess import Preprocess
from bestiary.vision.resnet import Config, ResNet
from bestiary.vision.tasks import ImageClassifier

CONFIG = Config(depths=(1, 1), hidden_sizes=(8, 12), embedding_size=6, num_classes=3)


@pytest.fixture(scope="module")
def classifier() -> ImageClassifier:
    bt.manual_seed(0)
    return ImageClassifier(
        ResNet(CONFIG).eval(),
        architecture="resnet",
        config=CONFIG,
        preprocess=Preprocess(size=(32, 48), resize=(32, 48), fit="exact"),
        labels=["a", "b", "c"],
        card=Card(name="small", architecture="resnet", task="image-classification"),
    )


@pytest.fixture(scope="module")
def folder(classifier: ImageClassifier, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return classifier.save(tmp_path_factory.mktemp("embedder") / "model")


@pytest.fixture(scope="module")
def model(folder: Path) -> Embedder:
    loaded = bt.load(folder, task="image-feature-extraction")
    assert isinstance(loaded, Embedder)
    return loaded


@pytest.fixture
def pictures() -> list[Image.Image]:
    rng = np.random.default_rng(1)
    return [
        Image.fromarray(rng.integers(0, 256, (4, 5, 3), dtype=np.uint8)).resize((30 + i, 24))
        for i in range(5)
    ]


def test_vectors_are_what_the_head_sees(
    model: Embedder, classifier: ImageClassifier, pictures: list[Image.Image]
) -> None:
    vectors = model.encode(pictures, batch_size=2)
    assert vectors.shape == (5, 12)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(vectors, classifier.embed(pictures), atol=1e-6)
    logits = classifier.module.fc(bt.tensor(vectors)).array
    x = bt.tensor(classifier.preprocess.batch(pictures))
    np.testing.assert_allclose(logits, classifier.module(x).array, atol=1e-5)
    assert repr(model) == "Embedder('small', 32 x 48 pixels, on cpu)"


def test_normalized_vectors_have_length_one(model: Embedder, pictures: list[Image.Image]) -> None:
    unit = model.encode(pictures, normalize=True)
    np.testing.assert_allclose(np.linalg.norm(unit, axis=1), 1, atol=1e-6)
    plain = model.encode(pictures)
    lengths = np.linalg.norm(plain, axis=1, keepdims=True)
    np.testing.assert_allclose(unit * lengths, plain, atol=1e-6)
    np.testing.assert_array_equal(model(pictures[0], normalize=True), unit[0])


def test_every_kind_of_source(model: Embedder, pictures: list[Image.Image], tmp_path: Path) -> None:
    expected = model.encode(pictures)
    for i, picture in enumerate(pictures):
        picture.save(tmp_path / f"{i}.png")
    np.testing.assert_allclose(model.encode(tmp_path), expected, atol=1e-6)
    by_path = model(tmp_path)
    assert [Path(name).name for name in by_path] == [f"{i}.png" for i in range(5)]
    np.testing.assert_allclose(list(by_path.values()), expected, atol=1e-6)
    np.testing.assert_allclose(model(pictures[1]), expected[1], atol=1e-6)
    np.testing.assert_allclose(list(model(iter(pictures))), expected, atol=1e-6)
    assert model.encode(tmp_path / "0.png").shape == (1, 12)


def test_feature_maps_of_every_stage(model: Embedder, pictures: list[Image.Image]) -> None:
    maps = model.features(pictures, batch_size=3)
    assert [m.shape for m in maps] == [(5, 8, 8, 12), (5, 12, 4, 6)]
    np.testing.assert_allclose(maps[-1].mean((2, 3)), model.encode(pictures), atol=1e-5)


def test_saved_as_an_embedder_it_is_one_again(
    model: Embedder, pictures: list[Image.Image], tmp_path: Path
) -> None:
    again = bt.load(model.save(tmp_path))
    assert isinstance(again, Embedder)
    # The model of this module may have run often enough to be compiled, the new one has not.
    np.testing.assert_allclose(again.encode(pictures), model.encode(pictures), atol=1e-5)
    assert isinstance(bt.load(tmp_path, num_classes=4), ImageClassifier)


def test_another_size_of_pictures(folder: Path, pictures: list[Image.Image]) -> None:
    large = bt.load(folder, image_size=(64, 32), task="image-feature-extraction")
    assert large.preprocess.size == (64, 32)
    assert [m.shape for m in large.features(pictures[0])] == [(1, 8, 16, 8), (1, 12, 8, 4)]
    assert bt.load(folder, image_size=40).preprocess.size == (40, 40)


@pytest.mark.parametrize("size", [0, -1, 3.5, (1, 2, 3), (4, 0), True, "x"])
def test_sizes_that_make_no_sense(folder: Path, size: object) -> None:
    with pytest.raises(ConfigError, match="image_size"):
        bt.load(folder, image_size=size)


def test_a_task_that_the_model_cannot_do(folder: Path) -> None:
    with pytest.raises(ConfigError, match="object-detection"):
        bt.load(folder, task="object-detection")


def test_nothing_to_encode(model: Embedder, tmp_path: Path) -> None:
    with pytest.raises(DataError):
        model.encode([])
    with pytest.raises(DataError):
        model.features([])
    with pytest.raises(DataError, match="no pictures"):
        model(tmp_path)
    (tmp_path / "broken.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"broken\.png"):
        model.encode(tmp_path)
