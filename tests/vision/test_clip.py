"""CLIP against the stored outputs of transformers, and the classifier that takes words."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import bestiary as bt
from bestiary.core.errors import (
    ConfigError,
    DataError,
    DtypeError,
    HubError,
    IndexRangeError,
    ShapeError,
)
from bestiary.core.weights import load_file, save_file
from bestiary.hub.cli import _run
from bestiary.hub.loading import load
from bestiary.hub.registry import entries, get
from bestiary.vision.clip import Config
from bestiary.vision.embedder import Embedder
from bestiary.vision.zero_shot import ZeroShotClassifier

DATA = Path(__file__).parent.parent / "references" / "data"
MODELS = ["clip-transformers", "clip-transformers-gelu"]
FIRST = DATA / MODELS[0]
LABELS = ["cat", "large dog", "Model", "the shape of a tensor"]


def copy_of(tmp_path: Path, folder: str = MODELS[0], *, tokenizer: bool = True) -> Path:
    """A model's folder, with the tokenizer that needs no library."""
    names = ["config.json", "model.safetensors", "preprocessor_config.json"]
    names += ["vocab.json", "merges.txt"] if tokenizer else []
    for name in names:
        if (DATA / folder / name).is_file():
            shutil.copy(DATA / folder / name, tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> ZeroShotClassifier:
    loaded = load(copy_of(tmp_path_factory.mktemp("clip")))
    assert isinstance(loaded, ZeroShotClassifier)
    return loaded


@pytest.fixture(scope="module")
def reference() -> dict[str, np.ndarray]:
    return load_file(FIRST / "reference.safetensors")


@pytest.fixture
def pictures() -> list[Image.Image]:
    rng = np.random.default_rng(1)
    return [
        Image.fromarray(rng.integers(0, 256, (4, 5, 3), dtype=np.uint8)).resize((40 + i, 34))
        for i in range(5)
    ]


# -- the network ---------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [None, "bfloat16"])
@pytest.mark.parametrize("folder", MODELS)
def test_outputs_equal_the_references(folder: str, dtype: str | None, tmp_path: Path) -> None:
    module = load(copy_of(tmp_path, folder, tokenizer=False), dtype=dtype).module
    stored = load_file(DATA / folder / "reference.safetensors")
    ids, mask = bt.tensor(stored["input_ids"]), bt.tensor(stored["attention_mask"])
    near: dict[str, Any] = {"atol": 1e-4} if dtype is None else {"atol": 2e-2, "rtol": 2e-2}
    for i in range(2):
        x = bt.tensor(stored[f"{i}.pixel_values"]).astype(module.dtype)
        with bt.no_grad():
            output = module(ids, x, mask)
            tokens = module.vision_model(x).last_hidden_state
        if dtype is not None:  # the likenesses; the logits are these, some 15 times as large
            scale = np.exp(2.7)
            stored[f"{i}.output"] = stored[f"{i}.output"] / scale
            output = output._replace(logits_per_image=output.logits_per_image / scale)
        results = {
            "output": output.logits_per_image,
            "image_embeds": output.image_embeds,
            "text_embeds": output.text_embeds,
        }
        for name, result in results.items():
            values = result.astype(np.float32).array
            np.testing.assert_allclose(values, stored[f"{i}.{name}"], **near, err_msg=name)
        if dtype is None:
            logits = output.logits_per_image.array
            np.testing.assert_array_equal(output.logits_per_text.array, logits.T)
            np.testing.assert_allclose(tokens.array, stored[f"{i}.tokens"], atol=1e-4)
            with bt.no_grad():
                features = module.text_model(ids, mask).last_hidden_state
            real = stored["attention_mask"].astype(bool)
            np.testing.assert_allclose(features.array[real], stored["text.tokens"][real], atol=1e-4)


@pytest.mark.parametrize("folder", MODELS)
def test_gradients_equal_the_references(folder: str, tmp_path: Path) -> None:
    module = load(copy_of(tmp_path, folder, tokenizer=False)).module.train()
    stored = load_file(DATA / folder / "reference.safetensors")
    ids, mask = bt.tensor(stored["input_ids"]), bt.tensor(stored["attention_mask"])
    logits = module(ids, bt.tensor(stored["0.pixel_values"]), mask).logits_per_image
    coefficients = np.linspace(-1, 1, logits.size, dtype=np.float32).reshape(logits.shape)
    (logits * bt.tensor(coefficients)).sum().backward()
    parameters = dict(module.named_parameters())
    assert all(p.grad is not None for p in parameters.values())
    names = [name for name in stored if name.startswith("grad.")]
    assert len(names) >= 6
    for name in names:
        gradient = parameters[name.removeprefix("grad.")].grad
        assert gradient is not None
        scale = max(1.0, float(np.abs(stored[name]).max()))
        np.testing.assert_allclose(gradient.array, stored[name], atol=1e-4 * scale, err_msg=name)


def test_buffers_of_old_files(tmp_path: Path, model: ZeroShotClassifier) -> None:
    folder = copy_of(tmp_path)
    arrays = load_file(folder / "model.safetensors")
    names = [f"{part}_model.embeddings.position_ids" for part in ("text", "vision")]
    arrays |= {name: np.arange(17)[None] for name in names}
    save_file(arrays, folder / "model.safetensors")
    old = load(folder)
    assert sorted(old.report.dropped) == names
    np.testing.assert_array_equal(old.encode_text(LABELS), model.encode_text(LABELS))


def test_padding_after_the_end_changes_nothing(model: ZeroShotClassifier) -> None:
    assert model.tokenizer is not None
    alone, _ = model.tokenizer(["a cat"])
    padded, mask = model.tokenizer(["a cat", "a photo of a large dog."])
    with bt.no_grad():
        first = model.module.embed_text(bt.tensor(alone)).array[0]
        second = model.module.embed_text(bt.tensor(padded), bt.tensor(mask)).array[0]
        third = model.module.embed_text(bt.tensor(padded)).array[0]
    np.testing.assert_allclose(second, first, atol=1e-6)
    np.testing.assert_allclose(third, first, atol=1e-6)


@pytest.mark.parametrize(
    "ids, error",
    [
        (np.zeros(4, np.int64), ShapeError),
        (np.zeros((1, 25), np.int64), ShapeError),
        (np.zeros((1, 0), np.int64), ShapeError),
        (np.zeros((1, 4), np.float32), DtypeError),
        (np.full((1, 4), 10**6), IndexError),
    ],
)
def test_tokens_of_the_wrong_kind(
    model: ZeroShotClassifier, ids: np.ndarray, error: type[Exception]
) -> None:
    with pytest.raises(error):
        model.module.embed_text(bt.tensor(ids))


def test_pictures_of_the_wrong_shape(model: ZeroShotClassifier) -> None:
    for shape in ((3, 32, 32), (1, 1, 32, 32), (1, 3, 3, 32)):
        with pytest.raises(ShapeError, match=r"\(B, 3, H, W\)"):
            model.module.embed(bt.tensor(np.zeros(shape, np.float32)))


def test_feature_maps(model: ZeroShotClassifier) -> None:
    x = bt.tensor(np.random.default_rng(0).standard_normal((2, 3, 40, 24)).astype(np.float32))
    with bt.no_grad():
        maps = model.module.feature_maps(x)
        tokens = model.module.vision_model(x).last_hidden_state.array
    assert maps[-1].shape == (2, 36, 10, 6)
    np.testing.assert_allclose(
        maps[-1].array.reshape(2, 36, 60).transpose(0, 2, 1), tokens[:, 1:], atol=1e-6
    )


def test_another_size_and_other_channels(tmp_path: Path) -> None:
    folder = copy_of(tmp_path)
    plain, large = load(folder), load(folder, image_size=(48, 24))
    x = bt.tensor(np.random.default_rng(0).standard_normal((1, 3, 48, 24)).astype(np.float32))
    with bt.no_grad():
        np.testing.assert_allclose(
            large.module.embed(x).array, plain.module.embed(x).array, atol=1e-5
        )
    name = "vision_model.embeddings.position_embedding.weight"
    assert large.report.reshaped == (name,)
    assert large.preprocess.size == (48, 24)
    grey = load(folder, in_channels=1)
    assert grey.preprocess.channels == 1
    assert grey.report.replaced == ("vision_model.embeddings.patch_embedding.weight",)
    with pytest.raises(ConfigError, match="num_classes"):
        load(folder, num_classes=3)


# -- the task ------------------------------------------------------------------------------------


def test_scores_equal_those_of_the_reference(
    model: ZeroShotClassifier, reference: dict[str, np.ndarray]
) -> None:
    """From a picture and words to scores: resizing, tokens, both encoders, template."""
    template = "a drawing of a {}"
    scores = model.probabilities(reference["picture"], LABELS, template=template)
    np.testing.assert_allclose(scores, reference["zero_shot"], atol=1e-5)
    answer = model(reference["picture"], labels=LABELS, template=template)
    assert [row["label"] for row in answer] == [LABELS[i] for i in np.argsort(-scores[0])]
    assert sum(row["score"] for row in answer) == pytest.approx(1, abs=1e-5)
    assert type(answer[0]["score"]) is float


def test_every_kind_of_source(
    model: ZeroShotClassifier, pictures: list[Image.Image], tmp_path: Path
) -> None:
    for i, picture in enumerate(pictures):
        picture.save(tmp_path / f"{i}.png")
    expected = [model(picture, labels=LABELS, top=2) for picture in pictures]
    assert [len(answer) for answer in expected] == [2] * 5
    several = model(pictures, labels=LABELS, top=2, batch_size=2)
    assert [[r["label"] for r in a] for a in several] == [[r["label"] for r in a] for a in expected]
    by_path = model(tmp_path, labels=LABELS, top=2)
    assert [Path(name).name for name in by_path] == [f"{i}.png" for i in range(5)]
    assert len(list(model(iter(pictures), labels=LABELS))) == 5
    assert model.probabilities([], LABELS).shape == (0, 4)


def test_vectors_of_pictures_and_texts(
    model: ZeroShotClassifier, pictures: list[Image.Image]
) -> None:
    images, texts = model.encode(pictures, batch_size=2), model.encode_text(LABELS, batch_size=3)
    assert images.shape == (5, 10)
    assert texts.shape == (4, 10)
    np.testing.assert_allclose(np.linalg.norm(images, axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(texts, axis=1), 1, atol=1e-6)
    scale = np.exp(model.module.logit_scale.array)
    logits = scale * images @ texts.T
    expected = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    scores = model.probabilities(pictures, LABELS, template="{}")
    np.testing.assert_allclose(scores, expected, atol=1e-5)
    np.testing.assert_array_equal(model.encode_text("cat"), model.encode_text(["cat"]))
    assert model.encode([]).shape == model.encode_text([]).shape == (0, 10)


def test_several_templates_are_averaged(
    model: ZeroShotClassifier, pictures: list[Image.Image]
) -> None:
    templates = ["a photo of a {}.", "{} and {}"]
    scores = model.probabilities(pictures[0], LABELS, template=templates)
    vectors = np.stack(
        [model.encode_text([t.replace("{}", label) for t in templates]).mean(0) for label in LABELS]
    )
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    scale = np.exp(model.module.logit_scale.array)
    logits = scale * model.encode(pictures[0]) @ vectors.T
    np.testing.assert_allclose(scores, np.exp(logits) / np.exp(logits).sum(), atol=1e-5)


def test_vectors_of_labels_are_made_once_and_again_after_training(
    tmp_path: Path, pictures: list[Image.Image], monkeypatch: pytest.MonkeyPatch
) -> None:
    own = load(copy_of(tmp_path))
    calls = []
    encode = own.encode_text
    monkeypatch.setattr(own, "encode_text", lambda texts: calls.append(1) or encode(texts))
    before = own.probabilities(pictures[0], LABELS)
    own.probabilities(pictures[1], LABELS)
    own.probabilities(pictures[1], LABELS[:2])
    assert len(calls) == 2
    optimizer = bt.optim.SGD(own.module.parameters(), lr=0.5)
    ids, _ = own.tokenizer(LABELS)
    (own.module.embed_text(bt.tensor(ids)) ** 2).sum().backward()
    optimizer.step()
    after = own.probabilities(pictures[0], LABELS)
    assert len(calls) == 3
    assert np.abs(after - before).max() > 1e-4


@pytest.mark.parametrize(
    "arguments",
    [
        {"labels": []},
        {"labels": "cat"},
        {"labels": ["cat", 3]},
        {"labels": ["cat"], "template": "a photo"},
        {"labels": ["cat"], "template": []},
        {"labels": ["cat"], "top": 0},
        {"labels": ["cat"], "batch_size": 0},
    ],
)
def test_arguments_that_make_no_sense(
    model: ZeroShotClassifier, pictures: list[Image.Image], arguments: dict[str, Any]
) -> None:
    with pytest.raises(ConfigError):
        model(pictures, **arguments)


def test_from_the_command_line(
    tmp_path: Path, pictures: list[Image.Image], capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "model").mkdir()
    folder, path = copy_of(tmp_path / "model"), tmp_path / "a.png"
    pictures[0].save(path)
    arguments = ["predict", str(folder), str(path), "--json"]
    assert _run([*arguments, "--labels", "cat, large dog ,Model", "--top", "2"]) == 0
    answer = json.loads(capsys.readouterr().out)[str(path)]
    assert len(answer) == 2
    assert {row["label"] for row in answer} < {"cat", "large dog", "Model"}
    for wrong in ([], ["--labels", " , "]):
        assert _run([*arguments, *wrong]) == 2
        assert "--labels" in capsys.readouterr().err
    resnet = str(DATA / "resnet-timm-basic")
    assert _run(["predict", resnet, str(path), "--labels", "cat"]) == 2


def test_a_picture_that_cannot_be_read(model: ZeroShotClassifier, tmp_path: Path) -> None:
    path = tmp_path / "broken.png"
    path.write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"broken\.png"):
        model(path, labels=LABELS)


def test_without_a_tokenizer(tmp_path: Path, pictures: list[Image.Image]) -> None:
    bare = load(copy_of(tmp_path, tokenizer=False))
    assert bare.encode(pictures).shape == (5, 10)
    with pytest.raises(HubError, match=r"vocab\.json"):
        bare(pictures[0], labels=LABELS)


def test_saved_and_loaded_with_its_tokenizer(
    model: ZeroShotClassifier, pictures: list[Image.Image], tmp_path: Path
) -> None:
    again = load(model.save(tmp_path))
    assert isinstance(again, ZeroShotClassifier)
    assert again.config == model.config
    assert again.preprocess == model.preprocess
    np.testing.assert_array_equal(
        again.probabilities(pictures, LABELS), model.probabilities(pictures, LABELS)
    )
    assert repr(model).startswith("ZeroShotClassifier('clip")


def test_as_an_embedder(
    model: ZeroShotClassifier, pictures: list[Image.Image], tmp_path: Path
) -> None:
    embedder = load(copy_of(tmp_path), task="image-feature-extraction")
    assert isinstance(embedder, Embedder)
    vectors = embedder.encode(pictures, normalize=True)
    np.testing.assert_allclose(vectors, model.encode(pictures), atol=1e-6)


# -- published facts -----------------------------------------------------------------------------

CURATED = [e.name for a, e in entries() if a.name == "clip"]


@pytest.mark.parametrize("name", CURATED)
def test_names_and_shapes_at_full_size(name: str) -> None:
    listing = json.loads((DATA / "clip_names.json").read_text())[name]["transformers"]
    expected = {}
    for key, line in listing["tensors"].items():
        pattern = key.partition(" ")[0]
        numbers = line[1] if len(line) > 1 else [None]
        expected.update({pattern.format(n): tuple(line[0]) for n in numbers})
    architecture, entry = get(name)
    with bt.nn.init.empty():
        module = architecture.build(architecture.config(**entry.config))
    assert {n: t.shape for n, t in module.state_dict().items()} == expected
    assert sum(p.size for p in module.parameters()) == entry.parameters == listing["parameters"]


def test_an_untrained_model_of_a_name_takes_arrays() -> None:
    with bt.nn.init.empty():
        task = load("clip-vit-base-patch32", weights=False)
    assert isinstance(task, ZeroShotClassifier)
    assert task.tokenizer is None
    assert task.card.license == "MIT"
    assert task.preprocess.size == (224, 224)


# An old file, as openai/clip-vit-base-patch32 has it: everything that transformers 4.16 knew.
OLD = {
    "_name_or_path": "",
    "add_cross_attention": False,
    "architectures": None,
    "attention_dropout": 0.0,
    "bad_words_ids": None,
    "bos_token_id": 0,
    "chunk_size_feed_forward": 0,
    "cross_attention_hidden_size": None,
    "diversity_penalty": 0.0,
    "dropout": 0.0,
    "eos_token_id": 2,
    "hidden_act": "quick_gelu",
    "is_decoder": False,
    "length_penalty": 1.0,
    "max_length": 20,
    "num_beams": 1,
    "pruned_heads": {},
    "torchscript": False,
    "use_bfloat16": False,
}


def changed(tmp_path: Path, **changes: Any) -> Path:
    config = {**json.loads((FIRST / "config.json").read_text()), **changes}
    (tmp_path / "config.json").write_text(json.dumps(config))
    return tmp_path


def test_old_configurations(tmp_path: Path) -> None:
    old = {"text_config": OLD, "text_config_dict": {"hidden_act": "gelu"}, "vision_config": None}
    with bt.nn.init.empty():
        config = load(changed(tmp_path, **old), weights=False).config
    assert config.text.eos_token_id == 2
    assert config.text.hidden_act == "gelu"
    assert config.text.hidden_size == 512
    assert config.vision == Config().vision


@pytest.mark.parametrize(
    "changes, facts",
    [
        ({"text_config": {"rope": True}}, ["rope=True", "text_config"]),
        ({"vision_config": {"pruned_heads": {"1": [0]}}}, ["pruned_heads"]),
        ({"vision_config": {"hidden_act": "relu"}}, ["hidden_act='relu'", "quick_gelu"]),
        ({"vision_config": {"num_attention_heads": 5}}, ["num_attention_heads=5"]),
        ({"vision_config": {"image_size": 16, "patch_size": 32}}, ["patch_size=32"]),
        ({"text_config": {"eos_token_id": [1, 2]}}, ["eos_token_id=[1, 2]"]),
        ({"text_config": [1]}, ["text_config=[1]"]),
        ({"fusion": 1}, ["fusion=1"]),
        ({"architectures": ["CLIPForImageClassification"]}, ["CLIPForImageClassification"]),
        ({"projection_dim": 0}, ["projection_dim=0"]),
    ],
)
def test_configurations_that_are_refused(
    changes: dict[str, Any], facts: list[str], tmp_path: Path
) -> None:
    with pytest.raises(ConfigError) as caught, bt.nn.init.empty():
        load(changed(tmp_path, **changes), weights=False)
    for fact in facts:
        assert fact in str(caught.value)


JUNK: list[Any] = [None, True, -1, 1.5, float("nan"), 10**40, "x", [], ["a"], [[1]], {}, {"a": 1}]


def test_values_that_make_no_sense_are_errors_of_ours(tmp_path: Path) -> None:
    original = json.loads((FIRST / "config.json").read_text())
    messages = []
    with bt.nn.init.empty():
        for place in (original, original["text_config"], original["vision_config"]):
            for key, before in list(place.items()):
                for value in JUNK:
                    place[key] = value
                    (tmp_path / "config.json").write_text(json.dumps(original))
                    try:
                        load(tmp_path, weights=False)
                    except (ConfigError, HubError) as error:
                        messages.append(str(error))
                place[key] = before
    assert max(len(message.splitlines()) for message in messages) <= 12
    assert len(messages) > len(original["text_config"])


def test_errors_25_and_26_tokens_that_do_not_fit() -> None:
    module = load(DATA / "clip-transformers").module
    with pytest.raises(IndexRangeError, match=r"(?s)1000000.*634 entries.*tokenizer and the model"):
        module.embed_text(bt.tensor(np.full((1, 5), 10**6)))
    with pytest.raises(ShapeError, match=r"(?s)50 > 24.*model\.tokenizer"):
        module.embed_text(bt.tensor(np.ones((1, 50), np.int64)))
