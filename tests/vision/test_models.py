"""Every registered vision architecture: small ones build, run, train, save and load again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bestiary as bt
from bestiary.core.errors import ConfigError, HubError, ShapeError, WeightsError
from bestiary.core.nn import functional as F
from bestiary.core.weights import load_file
from bestiary.hub.loading import load
from bestiary.hub.registry import Architecture, Entry, entries, get
from bestiary.hub.rename import renamed
from bestiary.vision.tasks import ImageClassifier

DATA = Path(__file__).parent.parent / "references" / "data"

BLOCKS = {"num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 40}

# A configuration of each architecture that a test can afford.
TINY: dict[str, dict[str, Any]] = {
    "resnet": {"depths": (1, 2), "hidden_sizes": (8, 12), "embedding_size": 6},
    "efficientnet-lite": {"width_coefficient": 0.1, "depth_coefficient": 0.3},
    "cifar-resnet": {"stem": 4, "widths": (6, 8), "residual": (1, 2)},
    "mobilenet-v2": {"width": 0.1, "depth": 0.5},
    "mobilenet-v3": {"width": 0.1, "depth": 0.5},
    "efficientnet": {"width": 0.15, "depth": 0.3},
    "convnext": {"depths": (1, 1, 1, 1), "hidden_sizes": (8, 12, 16, 24)},
    "vgg": {"depths": (1, 2), "hidden_sizes": (6, 8), "classifier_size": 12, "dropout": 0.1},
    "squeezenet": {"stem_size": 12, "squeeze_sizes": (2, 3, 4, 5, 6, 7, 8)},
    "swin": {"embed_dim": 12, "depths": (1, 2), "num_heads": (3, 2), "window_size": 3},
    "vit": {"image_size": (40, 56), "patch_size": (8, 8), "hidden_size": 24, **BLOCKS},
    "dinov2": {"image_size": (40, 56), "patch_size": (8, 8), "hidden_size": 24, **BLOCKS},
}


# Models without a head become classifiers where classes are asked for.
TASKS = ("image-classification", "image-feature-extraction")


def architectures() -> dict[str, Architecture]:
    found = {a.name: a for a, _ in entries() if a.build.__module__.startswith("bestiary.vision.")}
    return {name: a for name, a in found.items() if a.task in TASKS}


def curated() -> list[Entry]:
    return [e for a, e in entries() if a.name in architectures()]


def task_of(architecture: Architecture, **changes: Any) -> ImageClassifier:
    from bestiary.hub.card import card_of
    from bestiary.vision.preprocess import Preprocess

    config = architecture.config(**{**TINY[architecture.name], "num_classes": 5, **changes})
    bt.manual_seed(3)
    return ImageClassifier(
        architecture.build(config).eval(),
        architecture=architecture.name,
        config=config,
        preprocess=Preprocess(size=(40, 40), resize=40).with_channels(config.in_channels),
        labels=[f"kind {i}" for i in range(config.num_classes)],
        card=card_of(architecture, None, "tiny"),
    )


def images(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def test_every_architecture_has_a_tiny_configuration() -> None:
    assert set(TINY) == set(architectures())


@pytest.mark.parametrize("name", sorted(TINY))
def test_forward_backward_and_features(name: str) -> None:
    module = task_of(architectures()[name]).module.train()
    x = bt.tensor(images(3, 3, 40, 56))
    logits = module(pixel_values=x)
    assert logits.shape == (3, 5)
    assert logits.dtype == np.float32
    loss = F.cross_entropy(logits, bt.tensor(np.array([0, 4, 2])))
    loss.backward()
    for parameter_name, parameter in module.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert np.isfinite(parameter.grad.array).all(), parameter_name
    module.eval()
    with bt.no_grad():
        embedded = module.embed(x)
        features = module.forward_features(x)
        head = module.get_submodule(architectures()[name].head[0])
        if name != "squeezenet":  # whose head is applied before the mean, so differs after it
            np.testing.assert_allclose(head(embedded).array, module(x).array, atol=1e-5)
    assert head(embedded).shape == (3, 5)
    assert features.ndim == 4
    assert (features.shape[0], embedded.ndim) == (3, 2)


@pytest.mark.parametrize("name", sorted(TINY))
def test_channels_last_memory_gives_the_same(name: str) -> None:
    module = task_of(architectures()[name]).module
    x = images(2, 3, 40, 48)
    last = np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    with bt.no_grad():
        np.testing.assert_allclose(
            module(bt.tensor(last)).array, module(bt.tensor(x)).array, atol=1e-5
        )


@pytest.mark.parametrize("name", sorted(TINY))
def test_one_step_of_training_lowers_the_loss(name: str) -> None:
    module = task_of(architectures()[name]).module.train()
    x, y = bt.tensor(images(4, 3, 40, 40)), bt.tensor(np.array([0, 1, 2, 3]))
    optimizer = bt.optim.SGD(module.parameters(), lr=0.005, momentum=0.9)
    losses = []
    for _ in range(6):
        bt.manual_seed(1)  # the same dropout each time
        loss = F.cross_entropy(module(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("dtype", [None, "float16", "bfloat16"])
@pytest.mark.parametrize("name", sorted(TINY))
def test_saved_and_loaded_it_answers_alike(name: str, dtype: str | None, tmp_path: Path) -> None:
    task = task_of(architectures()[name])
    folder = task.save(tmp_path / "model", dtype=dtype)
    loaded = load(folder)
    x = bt.tensor(images(2, 3, 40, 40))
    exact = dtype is None
    np.testing.assert_allclose(
        loaded.module(x).array, task.module(x).array, rtol=0, atol=0 if exact else 0.05
    )
    assert loaded.labels == task.labels
    assert loaded.preprocess == task.preprocess
    assert loaded.config == task.config
    assert not loaded.module.training
    if exact:
        assert loaded.report.cast == ()


@pytest.mark.parametrize("name", sorted(TINY))
def test_another_head_and_other_channels(name: str, tmp_path: Path) -> None:
    folder = task_of(architectures()[name]).save(tmp_path)
    with_head = load(folder, num_classes=9, in_channels=1)
    assert with_head.module(bt.tensor(images(1, 1, 40, 40))).shape == (1, 9)
    assert with_head.labels == [f"class {i}" for i in range(9)]
    assert with_head.preprocess.channels == 1
    head = architectures()[name].head[0]
    assert all(n.startswith((head, architectures()[name].stem)) for n in with_head.report.replaced)
    assert with_head.report.replaced
    same = load(folder, num_classes=5)
    assert same.report.replaced == ()


@pytest.mark.parametrize("name", sorted(TINY))
def test_weights_of_another_size_name_the_remedy(name: str, tmp_path: Path) -> None:
    """ERRORS 16."""
    folder = task_of(architectures()[name]).save(tmp_path)
    config = json.loads((folder / "config.json").read_text())
    config["bestiary"]["config"]["num_classes"] = 20
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(WeightsError) as caught:
        load(folder)
    assert "num_classes=5" in str(caught.value) or "(5," in str(caught.value)
    assert "num_classes=" in str(caught.value)


@pytest.mark.parametrize("name", sorted(TINY))
@pytest.mark.parametrize(
    "shape, facts",
    [
        ((3, 40, 40), ["x[None]"]),  # ERRORS 5
        ((2, 40, 40, 3), ["last axis has 3", "permute_dims(x, (0, 3, 1, 2))"]),  # ERRORS 6
        ((40, 40, 3), ["permute_dims(x, (2, 0, 1))[None]"]),
        ((2, 1, 40, 40), ["in_channels=1", 'convert("RGB")']),  # ERRORS 7
        ((2, 4, 40, 40), ["in_channels=4"]),
        ((40, 40), ["x[None, None]"]),
    ],
)
def test_pictures_of_the_wrong_shape(name: str, shape: tuple[int, ...], facts: list[str]) -> None:
    module = task_of(architectures()[name]).module
    with pytest.raises(ShapeError) as caught:
        module(bt.tensor(np.zeros(shape, np.float32)))
    text = str(caught.value)
    for fact in [*facts, str(shape), "(B, 3, H, W)"]:
        assert fact in text
    assert caught.value.got == shape
    assert len(text.splitlines()) <= 12


def test_pictures_too_small_for_the_pooling() -> None:
    module = task_of(architectures()["cifar-resnet"]).module
    with pytest.raises(ShapeError, match="too small"):
        module(bt.tensor(np.zeros((1, 3, 3, 8), np.float32)))


# -- published facts ------------------------------------------------------------------------------


@pytest.mark.parametrize("entry", curated(), ids=lambda e: e.name)
def test_parameters_are_counted_as_the_entry_says(entry: Entry) -> None:
    architecture, _ = get(entry.name)
    with bt.nn.init.empty():
        module = architecture.build(architecture.config(**entry.config))
    assert sum(p.size for p in module.parameters()) == entry.parameters


@pytest.mark.parametrize("entry", curated(), ids=lambda e: e.name)
def test_untrained_model_of_each_name(entry: Entry) -> None:
    with bt.nn.init.empty():
        task = load(entry.name, weights=False)
    if task.task == "image-feature-extraction":
        assert task.config.num_classes == 0
        return
    assert len(task.labels) == task.config.num_classes
    assert task.labels[0] != "class 0"
    assert task.card.name == entry.name
    assert task.preprocess.size == (entry.preprocess or {})["size"]


@pytest.mark.parametrize("layout", ["timm", "transformers"])
@pytest.mark.parametrize("depth", [18, 34, 50, 101, 152])
def test_names_and_shapes_of_the_published_resnets(depth: int, layout: str) -> None:
    published = json.loads((DATA / "resnet_names.json").read_text())[f"resnet{depth}"]
    architecture, entry = get(f"resnet{depth}")
    names = list(published[layout])
    ours = renamed(names, architecture.layouts[layout].rename)
    assert len(ours) == len(names), "a tensor was dropped"
    with bt.nn.init.empty():
        module = architecture.build(architecture.config(**entry.config))
    expected = {ours[name][0]: tuple(published[layout][name]) for name in names}
    assert {n: t.shape for n, t in module.state_dict().items()} == expected
    if layout == "timm":
        assert list(module.state_dict()) == names


# -- references -----------------------------------------------------------------------------------

RESNETS = sorted(path.name for path in DATA.glob("resnet-*"))


@pytest.mark.parametrize("folder", RESNETS)
def test_resnet_equals_the_reference(folder: str) -> None:
    task = load(DATA / folder)
    stored = load_file(DATA / folder / "reference.safetensors")
    for i in range(2):
        x = bt.tensor(stored[f"{i}.pixel_values"])
        np.testing.assert_allclose(
            task.module.forward_features(x).array, stored[f"{i}.features"], atol=1e-4, rtol=1e-4
        )
        np.testing.assert_allclose(task.module(x).array, stored[f"{i}.logits"], atol=1e-4)


@pytest.mark.parametrize("folder", RESNETS)
def test_resnet_trains_as_the_reference(folder: str) -> None:
    """Logits, gradients and running statistics of a step in training mode."""
    task = load(DATA / folder)
    architecture = architectures()["resnet"]
    layout = "transformers" if "transformers" in folder else "timm"
    stored = load_file(DATA / folder / "reference.safetensors")
    module = task.module.train()
    logits = module(bt.tensor(stored["0.pixel_values"]))
    np.testing.assert_allclose(logits.array, stored["train.logits"], atol=2e-4, rtol=1e-4)
    (logits * bt.tensor(stored["train.coefficients"])).sum().backward()
    names = [n for n in stored if n.startswith(("grad.", "after."))]
    assert len(names) >= 6
    ours = renamed([n.partition(".")[2] for n in names], architecture.layouts[layout].rename)
    state, parameters = module.state_dict(), dict(module.named_parameters())
    for name in names:
        kind, _, theirs = name.partition(".")
        own = ours[theirs][0]
        if kind == "grad":
            gradient = parameters[own].grad
            assert gradient is not None
            result = gradient.array
        else:
            result = state[own].array
        np.testing.assert_allclose(result, stored[name], atol=1e-3, rtol=1e-3, err_msg=name)


def test_efficientnet_lite_equals_the_reference() -> None:
    architecture = architectures()["efficientnet-lite"]
    folder = DATA / "efficientnet-lite-tiny"
    module = architecture.build(
        architecture.config(width_coefficient=0.1, depth_coefficient=0.3, num_classes=6)
    ).eval()
    module.load_state_dict(load_file(folder / "model.safetensors"))
    stored = load_file(folder / "reference.safetensors")
    for i in range(2):
        x = bt.tensor(stored[f"{i}.pixel_values"])
        np.testing.assert_allclose(
            module.forward_features(x).array, stored[f"{i}.features"], atol=1e-4, rtol=1e-4
        )
        np.testing.assert_allclose(module(x).array, stored[f"{i}.logits"], atol=1e-4)


# -- configurations that must not be guessed at --------------------------------------------------


def changed(folder: str, tmp_path: Path, **changes: Any) -> Path:
    """A folder whose config.json has other values; what is None is taken out."""
    config = {**json.loads((DATA / folder / "config.json").read_text()), **changes}
    config = {k: v for k, v in config.items() if v is not None}
    (tmp_path / "config.json").write_text(json.dumps(config))
    return tmp_path


@pytest.mark.parametrize(
    "folder, changes, facts",
    [
        ("resnet-transformers-basic", {"use_se": True}, ["use_se=True"]),  # ERRORS 35
        ("resnet-transformers-basic", {"hidden_act": "gelu"}, ["hidden_act='gelu'", "'relu'"]),
        ("resnet-transformers-basic", {"layer_type": "odd"}, ["'odd'"]),
        ("resnet-transformers-basic", {"embedding_size": 10**9}, ["embedding_size=1000000000"]),
        ("resnet-transformers-basic", {"depths": [1, 1]}, ["depths"]),
        ("resnet-transformers-basic", {"hidden_sizes": [8, -1, 8, 8]}, ["hidden_sizes"]),
        ("resnet-transformers-basic", {"depths": 3}, ["depths=3 is no list"]),
        ("resnet-timm-basic", {"model_args": {"channels": ["x"]}}, ["channels=('x',)"]),
        ("resnet-timm-basic", {"model_args": {"stem_type": "deep"}}, ["stem_type='deep'"]),
        ("resnet-timm-basic", {"global_pool": "max"}, ["global_pool='max'"]),
        ("resnet-timm-basic", {"num_classes": 0}, ["num_classes=0"]),
        ("resnet-timm-basic", {"img_depth": 3}, ["img_depth=3"]),
    ],
)
def test_configurations_that_are_refused(
    folder: str, changes: dict[str, Any], facts: list[str], tmp_path: Path
) -> None:
    with pytest.raises(ConfigError) as caught:
        load(changed(folder, tmp_path, **changes), weights=False)
    for fact in facts:
        assert fact in str(caught.value)


JUNK: list[Any] = [None, True, -1, 1.5, float("nan"), 10**40, "x", [], ["a"], [[1]], {}, {"a": 1}]


@pytest.mark.parametrize("folder", ["resnet-timm-basic", "resnet-transformers-basic", "own"])
def test_values_that_make_no_sense_are_errors_of_ours(folder: str, tmp_path: Path) -> None:
    if folder == "own":
        task = task_of(architectures()["efficientnet-lite"])
        original = json.loads((task.save(tmp_path) / "config.json").read_text())
        places = [original["bestiary"]["config"]]
    else:
        original = json.loads((DATA / folder / "config.json").read_text())
        places = [
            original,
            *(original[k] for k in ("model_args", "pretrained_cfg") if k in original),
        ]
    messages = []
    for place in places:
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
    assert len(messages) > sum(len(place) for place in places)


def test_variants_that_timm_calls_otherwise_are_not_taken_for_resnets(tmp_path: Path) -> None:
    with pytest.raises(HubError, match="resnet50d"):
        load(changed("resnet-timm-bottleneck", tmp_path, architecture="resnet50d"), weights=False)


def test_code_offered_by_a_configuration_is_passed_over(tmp_path: Path) -> None:
    folder = changed("resnet-transformers-basic", tmp_path, auto_map={"AutoModel": "evil.Model"})
    assert load(folder, weights=False).config.embedding_size == 12
