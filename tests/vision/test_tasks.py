"""The classifier task: whatever a person may hand it, and what comes back."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import bestiary as bt
from bestiary.core.errors import ConfigError, DataError
from bestiary.hub.card import Card
from bestiary.vision.cifar_resnet import CifarResNet, Config
from bestiary.vision.preprocess import Preprocess
from bestiary.vision.tasks import ImageClassifier, image_files, softmax

LABELS = [f"kind {i}" for i in range(10)]


@pytest.fixture(scope="module")
def model() -> ImageClassifier:
    bt.manual_seed(0)
    config = Config(stem=4, widths=(6, 8), residual=(1, 1), scale=4.0)
    return ImageClassifier(
        CifarResNet(config).eval(),
        architecture="cifar-resnet",
        config=config,
        preprocess=Preprocess(size=(16, 16), resize=20),
        labels=LABELS,
        card=Card(name="small", architecture="cifar-resnet", task="image-classification"),
    )


@pytest.fixture
def pictures() -> list[Image.Image]:
    rng = np.random.default_rng(1)
    return [
        Image.fromarray(rng.integers(0, 256, (4, 5, 3), dtype=np.uint8)).resize((30 + i, 24))
        for i in range(5)
    ]


def test_one_picture(model: ImageClassifier, pictures: list[Image.Image]) -> None:
    answer = model(pictures[0], top=3)
    assert [set(row) for row in answer] == [{"label", "score"}] * 3
    assert all(row["label"] in LABELS and type(row["score"]) is float for row in answer)
    scores = [row["score"] for row in answer]
    assert scores == sorted(scores, reverse=True)
    everything = model(pictures[0], top=99)
    assert len(everything) == 10
    assert sum(row["score"] for row in everything) == pytest.approx(1, abs=1e-5)
    assert everything[:3] == answer
    assert len(model(pictures[0])) == 5


def test_the_answer_is_the_networks(model: ImageClassifier, pictures: list[Image.Image]) -> None:
    x = bt.tensor(model.preprocess(pictures[0])[None])
    probabilities = softmax(model.module(x).array)[0]
    best = model(pictures[0], top=1)[0]
    assert best["label"] == LABELS[int(probabilities.argmax())]
    assert best["score"] == pytest.approx(float(probabilities.max()), abs=1e-6)


def test_every_kind_of_source(
    model: ImageClassifier, pictures: list[Image.Image], tmp_path: Path
) -> None:
    picture = pictures[0]
    path = tmp_path / "with spaces ü.png"
    picture.save(path)
    expected = model(picture)
    pixels = np.asarray(picture)
    sources = [path, str(path), path.read_bytes(), io.BytesIO(path.read_bytes()), pixels]
    for source in [*sources, bt.tensor(pixels), pixels.astype(np.float32) / 255]:
        assert model(source) == expected


def test_several_at_once(model: ImageClassifier, pictures: list[Image.Image]) -> None:
    alone = [model(picture) for picture in pictures]
    for batch_size in (1, 2, 16):
        together = model(pictures, batch_size=batch_size)
        assert isinstance(together, list)
        for a, b in zip(together, alone, strict=True):
            assert [row["label"] for row in a] == [row["label"] for row in b]
            np.testing.assert_allclose([r["score"] for r in a], [r["score"] for r in b], atol=1e-5)
    assert len(model(tuple(pictures))) == 5
    assert model([]) == []
    batch = np.stack([np.asarray(p.resize((24, 24))) for p in pictures])
    assert len(model(batch)) == len(model(bt.tensor(batch))) == 5


def test_a_generator_is_read_no_further_than_needed(
    model: ImageClassifier, pictures: list[Image.Image]
) -> None:
    read = 0

    def source() -> Iterator[Image.Image]:
        nonlocal read
        for picture in pictures * 40:
            read += 1
            yield picture

    answers = model(source(), batch_size=2)
    assert read == 0
    assert next(answers) == model(pictures, batch_size=2)[0]
    assert read <= 4  # its own batch and the one that is read ahead
    answers.close()


def test_a_folder(model: ImageClassifier, pictures: list[Image.Image], tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    pictures[0].save(tmp_path / "b" / "one.JPG")
    pictures[1].save(tmp_path / "a.png")
    (tmp_path / "notes.txt").write_text("no picture")
    (tmp_path / ".hidden.png").write_bytes(b"none either")
    answers = model(tmp_path, top=1)
    assert [Path(path).name for path in answers] == ["a.png", "one.JPG"]
    (first,), (alone,) = answers[str(tmp_path / "a.png")], model(pictures[1], top=1)
    # Batches of other sizes, and programs, sum in another order.
    assert first["label"] == alone["label"] and first["score"] == pytest.approx(alone["score"])
    assert image_files(tmp_path) == [tmp_path / "a.png", tmp_path / "b" / "one.JPG"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds no pictures"):
        model(tmp_path / "empty")


def test_a_broken_picture_in_a_batch_is_named(
    model: ImageClassifier, pictures: list[Image.Image], tmp_path: Path
) -> None:
    bad = tmp_path / "bad.jpg"
    bad.write_bytes(b"\xff\xd8 and nothing else")
    with pytest.raises(DataError, match=r"bad\.jpg"):
        model([*pictures, bad])


def test_probabilities_and_embeddings(model: ImageClassifier, pictures: list[Image.Image]) -> None:
    probabilities = model.probabilities(pictures, batch_size=2)
    assert probabilities.shape == (5, 10)
    assert probabilities.dtype == np.float32
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-5)
    assert model.probabilities([]).shape == (0, 10)
    assert model.probabilities(pictures[0]).shape == (1, 10)
    assert model.probabilities(iter(pictures)).shape == (5, 10)
    embedded = model.embed(pictures)
    assert embedded.shape == (5, 8)
    with pytest.raises(DataError, match="no pictures"):
        model.embed([])


def test_evaluate(model: ImageClassifier, pictures: list[Image.Image]) -> None:
    answers = [model(picture, top=1)[0]["label"] for picture in pictures]
    assert model.evaluate(pictures, answers).accuracy == 1
    numbers = [LABELS.index(label) for label in answers]
    numbers[0] = (numbers[0] + 1) % 10
    report = model.evaluate(pictures, numbers)
    assert report.accuracy == pytest.approx(0.8)
    assert report.labels == tuple(LABELS)
    with pytest.raises(DataError, match="5 pictures and 4 classes"):
        model.evaluate(pictures, numbers[:4])
    with pytest.raises(DataError, match="'horse' is none"):
        model.evaluate(pictures, ["horse"] * 5)


@pytest.mark.parametrize("arguments, match", [({"top": 0}, "top=0"), ({"batch_size": 0}, "size=0")])
def test_arguments_that_make_no_sense(
    model: ImageClassifier, pictures: list[Image.Image], arguments: dict[str, Any], match: str
) -> None:
    with pytest.raises(ConfigError, match=match):
        model(pictures[:1], **arguments)


def test_labels_must_fit_the_head(model: ImageClassifier) -> None:
    with pytest.raises(ConfigError, match="3 labels for a model of 10"):
        ImageClassifier(
            model.module,
            architecture=model.architecture,
            config=model.config,
            preprocess=model.preprocess,
            labels=["a", "b", "c"],
            card=model.card,
        )


def test_what_it_shows_and_where_it_is(model: ImageClassifier) -> None:
    assert repr(model) == "ImageClassifier('small', 10 classes, 16 x 16 pixels, on cpu)"
    assert model.to("cpu") is model
    assert str(model.device) == "cpu"


def test_half_precision_answers_alike(
    model: ImageClassifier, pictures: list[Image.Image], tmp_path: Path
) -> None:
    from bestiary.hub.loading import load

    half = load(model.save(tmp_path), dtype="float16")
    assert half.module.dtype == np.float16
    np.testing.assert_allclose(
        half.probabilities(pictures), model.probabilities(pictures), atol=0.02
    )


def test_predicting_records_no_gradients(
    model: ImageClassifier, pictures: list[Image.Image]
) -> None:
    model(pictures[0])
    assert all(p.grad is None and p.requires_grad for p in model.module.parameters())
