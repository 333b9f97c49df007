"""Fine-tuning end to end on small generated photographs, in Python and on the command line."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import bestiary as bt
from bestiary.core.errors import ConfigError, DataError
from bestiary.hub.cli import _run
from bestiary.vision.finetune import Recipe

MODEL = Path(__file__).parents[1] / "references" / "data" / "resnet-timm-basic"
CLASSES = ("circle", "stripes", "sunset")


def photograph(kind: str, rng: np.random.Generator) -> Image.Image:
    """A noisy picture of one of three kinds, of varying size."""
    h, w = rng.integers(50, 90, 2)
    y, x = np.mgrid[:h, :w] / max(h, w)
    base = {
        "circle": ((x - 0.4) ** 2 + (y - 0.4) ** 2 < 0.07) * 1.0,
        "stripes": (np.sin(40 * x + rng.uniform(0, 6)) > 0) * 1.0,
        "sunset": y,
    }[kind]
    tint = {"circle": (60, 200, 90), "stripes": (220, 210, 60), "sunset": (230, 80, 120)}[kind]
    pixels = base[..., None] * tint + rng.normal(0, 20, (h, w, 3))
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def folder_of(root: Path, count: int = 14) -> Path:
    rng = np.random.default_rng(0)
    for kind in CLASSES:
        (root / kind).mkdir(parents=True)
        for i in range(count):
            photograph(kind, rng).save(root / kind / f"{i}.png")
    return root


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    return folder_of(tmp_path_factory.mktemp("photos"))


@pytest.fixture(scope="module")
def tuned(photos, tmp_path_factory):
    base = bt.load(MODEL)
    before = {n: t.numpy().copy() for n, t in base.module.state_dict().items()}
    out = tmp_path_factory.mktemp("out") / "my model"
    new = base.finetune(
        photos, out=out, epochs=2, head_epochs=40, head_lr=0.02, lr=1e-3, batch_size=8, quiet=True
    )
    return base, before, new, out


def test_it_learns_and_leaves_the_given_model_alone(tuned, photos):
    base, before, new, _ = tuned
    assert new.labels == list(CLASSES)
    accuracy = new.card.training["accuracy on the held-out pictures"]
    assert float(accuracy.split()[0]) >= 70
    for name, tensor in base.module.state_dict().items():
        np.testing.assert_array_equal(tensor.numpy(), before[name])
    assert not new.module.training
    assert "cross-validated" in " ".join(new.card.training)  # fewer than 500 pictures


def test_the_folder_is_a_model_with_its_report(tuned, photos):
    _, _, new, out = tuned
    names = {p.name for p in out.iterdir()}
    assert {"config.json", "model.safetensors", "README.md", "learning_curve.png"} <= names
    assert {"confusion.png", "report.json"} <= names
    again = bt.load(out)
    picture = next((photos / "sunset").iterdir())
    assert again(picture, top=1) == new(picture, top=1)
    report = json.loads((out / "report.json").read_text())
    assert sorted(report["classes"]) == sorted(CLASSES)
    assert len(report["history"]) == 42
    with Image.open(out / "confusion.png") as image:
        assert image.size[0] > 200


def test_evaluate_on_the_command_line(tuned, photos, capfd):
    _, _, _, out = tuned
    assert _run(["evaluate", str(out), str(photos), "--json"]) == 0
    report = json.loads(capfd.readouterr().out)
    assert report["samples"] == 42 and report["accuracy"] > 0.7
    assert set(report["classes"]["circle"]) == {"precision", "recall", "f1", "support"}
    assert _run(["evaluate", str(out), str(photos)]) == 0
    said = capfd.readouterr().out
    assert "accuracy" in said and "top-5" not in said
    if "most confused" in said:
        assert re.search(r"^most confused: '\w+' taken for '\w+', (once|\d+ times)$", said, re.M)


def test_evaluate_refuses_unknown_classes(tuned, tmp_path, capfd):
    _, _, _, out = tuned
    for name in ("circle", "zebra"):
        (tmp_path / name).mkdir()
        Image.new("RGB", (40, 40)).save(tmp_path / name / "1.png")
    assert _run(["evaluate", str(out), str(tmp_path)]) == 1
    said = capfd.readouterr().err
    assert "does not know: 'zebra'." in said and "The model's: 'circle', " in said


def test_finetune_on_the_command_line(photos, tmp_path, capfd):
    out = tmp_path / "out"
    arguments = ["finetune", str(MODEL), str(photos), "-o", str(out), "--epochs", "0"]
    assert _run([*arguments, "--head-epochs", "5"]) == 0
    done = capfd.readouterr()
    assert done.out.strip() == str(out)
    for part in ("42 pictures, 3 classes", "held out", "guessing gives 1.10", "cross-validated"):
        assert part in done.err
    assert bt.load(out).labels == list(CLASSES)


def test_the_same_seed_gives_the_same_model(photos):
    runs = [
        bt.load(MODEL).finetune(photos, epochs=1, head_epochs=2, batch_size=8, quiet=True)
        for _ in range(2)
    ]
    first, second = (run.module.state_dict() for run in runs)
    for name, tensor in first.items():
        np.testing.assert_array_equal(tensor.numpy(), second[name].numpy(), err_msg=name)


def test_grey_pictures_and_networks(photos):
    model = bt.load(MODEL, in_channels=1)
    new = model.finetune(photos, epochs=1, head_epochs=2, batch_size=8, quiet=True)
    assert len(new(photograph("circle", np.random.default_rng(1)), top=3)) == 3


def test_data_that_cannot_be_used(tmp_path):
    model = bt.load(MODEL)
    with pytest.raises(DataError, match="no folder or CSV"):
        model.finetune(tmp_path / "nowhere")
    folder_of(tmp_path / "few", count=1)
    with pytest.raises(DataError, match="two pictures or more"):
        model.finetune(tmp_path / "few")
    folder_of(tmp_path / "broken", count=3)
    (tmp_path / "broken" / "circle" / "bad.jpg").write_bytes(b"\xff\xd8\xff not a picture")
    with pytest.raises(DataError, match=r"bad\.jpg"):
        model.finetune(tmp_path / "broken", quiet=True)


@pytest.mark.parametrize(
    "settings", [{"epochs": -1}, {"batch_size": 1}, {"held_out": 1.5}, {"head_epochs": 0}]
)
def test_senseless_settings(settings):
    with pytest.raises(ConfigError):
        Recipe(**settings)


@pytest.mark.parametrize("settings", [{"lr": -1.0}, {"lr": float("nan")}, {"head_lr": 0.0}])
def test_senseless_learning_rates(settings):
    with pytest.raises(ConfigError, match="numbers above 0"):
        Recipe(**settings)


def test_a_folder_that_cannot_be_written_is_told_before_the_training(photos, tmp_path, monkeypatch):
    monkeypatch.setattr("bestiary.vision.finetune._decode", None)  # not to be called
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(ConfigError, match=r"nothing can be saved in .*file"):
        bt.load(MODEL).finetune(photos, out=tmp_path / "file", quiet=True)


# -- options of the second stage -----------------------------------------------------------------

SHORT = {"epochs": 1, "head_epochs": 2, "batch_size": 8, "quiet": True}


def change_of(photos, **settings):
    """The new model, and how far each tensor went from where it was."""
    base = bt.load(MODEL)
    before = {n: p.detach().numpy().copy() for n, p in base.module.named_parameters()}
    new = base.finetune(photos, **{**SHORT, "lr": 1e-3, **settings})
    moved = {
        n: float(np.abs(p.detach().numpy() - before[n]).max())
        for n, p in new.module.named_parameters()
        if before[n].shape == p.shape
    }
    return new, moved


def test_layer_decay(photos):
    _, even = change_of(photos)
    _, falling = change_of(photos, layer_decay=0.1)
    # AdamW moves each weight by about its rate, whatever the gradient.
    assert even["conv1.weight"] > 0.3 * even["layer4.0.conv2.weight"]
    assert 0 < falling["conv1.weight"] < 0.01 * falling["layer4.0.conv2.weight"]


def test_layers_of_every_kind():
    from bestiary.hub.registry import architecture_by_name
    from bestiary.vision.layer_rates import layer_groups, layers_of

    for name, count in (
        ("resnet18", 9),
        ("vit-tiny-patch16-224", 14),
        ("efficientnet-lite0", 18),
        ("convnext-atto", 18),
    ):
        model = bt.load(name, weights=False)
        head = model.module.get_submodule(architecture_by_name(model.architecture).head[0])
        layers = layers_of(model.module, head)
        assert len(layers) == count, name
        together = [p for layer in layers for p in layer] + list(head.parameters())
        assert {id(p) for p in together} == {id(p) for p in model.module.parameters()}
        assert len(together) == len(list(model.module.parameters()))
    groups = layer_groups(layers, 1.0, 0.5)
    assert [g["lr"] for g in groups[-3:]] == [0.25, 0.5, 1.0]


def test_freeze(photos):
    new, moved = change_of(photos, freeze="trunk")
    assert not any(moved.values())
    assert all(p.requires_grad for p in new.module.parameters())
    once = bt.load(MODEL).finetune(photos, **{**SHORT, "epochs": 0})
    head = new.module.fc.weight.detach().numpy()
    assert np.abs(head - once.module.fc.weight.detach().numpy()).max() > 0  # the head went on


def test_mixup(photos, monkeypatch):
    import bestiary.vision.finetune as module

    seen = []
    entropy = module.F.cross_entropy

    def watched(logits, targets, **settings):
        if targets.ndim == 2:
            seen.append(targets.numpy())
        return entropy(logits, targets, **settings)

    monkeypatch.setattr(module.F, "cross_entropy", watched)
    change_of(photos, mixup=1.0, smoothing=0.0)
    rows = np.concatenate(seen)
    np.testing.assert_allclose(rows.sum(1), 1, atol=1e-5)
    assert (rows.max(1) < 0.95).any()  # some are of two classes
    assert (np.count_nonzero(rows > 1e-6, axis=1) <= 2).all()


def test_ema(photos):
    _, moved = change_of(photos)
    _, averaged = change_of(photos, ema=0.999)
    # The average of the way is behind its end.
    assert 0 < averaged["layer4.0.conv2.weight"] < moved["layer4.0.conv2.weight"]


@pytest.mark.parametrize(
    "settings",
    [{"layer_decay": 0.0}, {"layer_decay": 1.5}, {"ema": 1.0}, {"mixup": -1.0}, {"freeze": "head"}],
)
def test_options_that_make_no_sense(settings):
    with pytest.raises(ConfigError, match=next(iter(settings))):
        Recipe(**settings)


def test_options_on_the_command_line(photos, tmp_path, capfd):
    out = tmp_path / "model"
    arguments = ["--epochs", "1", "--head-epochs", "1", "--layer-decay", "0.5", "--mixup", "0.2"]
    more = ["--ema", "0.9", "--freeze", "trunk", "-o", str(out)]
    assert _run(["finetune", str(MODEL), str(photos), *arguments, *more]) == 0
    recipe = bt.load(out).card.training["recipe"]
    for part in ("layer_decay 0.5", "mixup 0.2", "ema 0.9", "freeze trunk"):
        assert part in recipe
    capfd.readouterr()
    detector = str(MODEL.parent / "yolos-transformers")
    assert _run(["finetune", detector, str(photos), "--layer-decay", "0.5"]) == 2
    assert "--layer-decay is for classifiers" in capfd.readouterr().err


def test_the_result_folder_has_the_log_of_the_run(tuned) -> None:
    *_, out = tuned
    log = bt.read_run(out)
    assert log.status == "finished" and log.about["hyperparameters"]["epochs"] == 2
    assert "model" in log.about["hyperparameters"] and log.about["structure"]["children"]
    assert len(log.scalars["train/loss"]) and len(log.scalars["evaluation/accuracy"]) == 2
    assert log.scalars["evaluation/accuracy"].last <= 1
