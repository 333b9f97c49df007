"""Explaining: the map lies where the answer comes from, where that is known."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import bestiary as bt
from bestiary.core.errors import ConfigError, DataError
from bestiary.hub.card import Card
from bestiary.hub.cli import _run
from bestiary.vision import vit
from bestiary.vision.preprocess import Preprocess
from bestiary.vision.tasks import ImageClassifier

LABELS = ["upper left", "upper right", "lower left", "lower right"]
PLAIN = {"mean": (0.0,) * 3, "std": (1.0,) * 3, "resample": "bilinear"}


@dataclass(frozen=True)
class Small:
    """A configuration of four classes."""

    num_classes: int = 4


class Quadrants(bt.nn.Module):
    """Class i is the brightness of quadrant i, and of nothing else."""

    def __init__(self, side: int = 32) -> None:
        self.conv = bt.nn.Conv2d(3, 1, 4, 4, bias=False)
        bt.nn.init.ones_(self.conv.weight)
        self.norm = bt.nn.BatchNorm2d(1)
        cells = side // 4
        self.head = bt.nn.Linear(cells * cells, 4, bias=False)
        weight = np.zeros((4, cells, cells), np.float32)
        half = cells // 2
        for i in range(4):
            weight[i, half * (i // 2) :, half * (i % 2) :][:half, :half] = 1
        self.head.weight.array[...] = weight.reshape(4, -1)

    def forward_features(self, x: bt.Tensor) -> bt.Tensor:
        return self.norm(self.conv(x))

    def forward(self, x: bt.Tensor) -> bt.Tensor:
        return self.head(self.forward_features(x).reshape((x.shape[0], -1)))


def classifier(module: bt.nn.Module, config: Any = None, **preprocess: Any) -> ImageClassifier:
    settings: dict[str, Any] = {"size": (32, 32), "resize": (32, 32), "fit": "exact", **PLAIN}
    return ImageClassifier(
        module.eval(),
        architecture="test",
        config=config or Small(),
        preprocess=Preprocess(**{**settings, **preprocess}),
        labels=LABELS,
        card=Card(name="test", architecture="test", task="image-classification"),
    )


def bright(quadrants: tuple[int, ...], height: int = 60, width: int = 100) -> Image.Image:
    """A black picture with bright quadrants."""
    pixels = np.zeros((height, width, 3), np.uint8)
    for i in quadrants:
        y, x = height // 2 * (i // 2), width // 2 * (i % 2)
        pixels[y : y + height // 2, x : x + width // 2] = 255
    return Image.fromarray(pixels)


def share(heat: np.ndarray, box: tuple[int, int, int, int]) -> float:
    """How much of a map lies in a box (x0, y0, x1, y1)."""
    x0, y0, x1, y1 = box
    return float(heat[y0:y1, x0:x1].sum() / heat.sum())


def quadrant(i: int, height: int = 60, width: int = 100) -> tuple[int, int, int, int]:
    x, y = width // 2 * (i % 2), height // 2 * (i // 2)
    return x, y, x + width // 2, y + height // 2


# -- Grad-CAM ------------------------------------------------------------------------------------


@pytest.mark.parametrize("i", range(4))
def test_the_map_is_where_the_answer_comes_from(i: int) -> None:
    found = classifier(Quadrants()).explain(bright((i,)))
    assert (found.label, found.method) == (LABELS[i], "grad-cam")
    assert found.map.shape == (60, 100) and found.map.dtype == np.float32
    assert found.map.min() == 0 and found.map.max() == 1
    assert share(found.map, quadrant(i)) > 0.9
    assert found.score == pytest.approx(1, abs=1e-3)


def test_grad_cam_is_the_published_formula() -> None:
    """By hand on arrays: mean gradients weigh channels, then what is positive."""
    model = bt.load("resnet-cifar10")
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (36, 36, 3), np.uint8))
    found = model.explain(picture)
    module = model.module
    features = module.forward_features(bt.tensor(model.preprocess(picture)[None])).detach()
    a, number = features.array[0].astype(np.float64), model.labels.index(found.label)
    # Its head sees the maximum over all places: the gradient is the head's weight there, or 0.
    gradient = np.zeros_like(a)
    for c, plane in enumerate(a):
        place = np.unravel_index(plane.argmax(), plane.shape)
        gradient[c][place] = module.fc.weight.array[number, c] * module.config.scale
    expected = np.maximum((gradient.mean((1, 2))[:, None, None] * a).sum(0), 0)
    assert expected.shape == (4, 4) and expected.max() > 0
    # Cells of nine pixels: the middle one has the cell's own value.
    np.testing.assert_allclose(found.map[4::9, 4::9], expected / expected.max(), atol=1e-5)


def test_what_was_cropped_away_counts_nothing() -> None:
    """The middle square of a wide picture is seen; the map says so, pixel for pixel."""
    model = classifier(Quadrants(), resize=32, fit="shorter")
    found = model.explain(Image.new("RGB", (100, 50), (255, 255, 255)), 0)
    assert found.map.shape == (50, 100)
    assert not found.map[:, :25].any() and not found.map[:, 75:].any()
    assert found.map[:, 26:74].all()


def test_a_picture_smaller_than_the_crop() -> None:
    """Its border is filled for the network; the map is of the picture alone."""
    model = classifier(Quadrants(), resize=None, fit="exact")
    picture = Image.new("RGB", (16, 16), (0, 0, 0))
    picture.paste((255, 255, 255), (0, 0, 8, 8))
    found = model.explain(picture)
    assert found.label == "upper left" and found.map.shape == (16, 16)
    assert share(found.map, (0, 0, 8, 8)) > 0.6


# How a camera stored an upright picture, by the orientation that it wrote beside it.
STORED = {
    3: Image.Transpose.ROTATE_180,
    6: Image.Transpose.ROTATE_90,
    8: Image.Transpose.ROTATE_270,
}


@pytest.mark.parametrize("orientation", [1, *STORED])
def test_pictures_are_upright(tmp_path: Path, orientation: int) -> None:
    stored = bright((1,))
    if orientation in STORED:
        stored = stored.transpose(STORED[orientation])
    exif = Image.Exif()
    exif[274] = orientation
    stored.save(tmp_path / "photo.png", exif=exif)
    found = classifier(Quadrants()).explain(tmp_path / "photo.png")
    assert found.label == "upper right" and found.map.shape == (60, 100)
    assert share(found.map, quadrant(1)) > 0.9
    assert found.image.size == (100, 60)


def test_the_label_decides() -> None:
    model = classifier(Quadrants())
    for label, number in (("lower left", 2), (0, 0)):
        found = model.explain(bright((0, 2)), label)
        assert found.label == LABELS[number]
        assert found.map.any()


def test_what_speaks_against_a_label_is_no_reason() -> None:
    module = Quadrants()
    module.head.weight.array[...] *= -1
    found = classifier(module).explain(bright((0, 1, 2, 3)), 0)
    assert not found.map.any()
    assert np.array_equal(np.asarray(found.draw()), np.asarray(found.image))


def test_the_network_is_left_as_it_was() -> None:
    module = Quadrants()
    model = classifier(module)
    module.train()
    module.norm.eval()
    before = {k: v.array.copy() for k, v in module.state_dict().items()}
    model.explain(bright((0,)))
    assert module.training and module.conv.training and not module.norm.training
    assert all(np.array_equal(v.array, before[k]) for k, v in module.state_dict().items())
    assert all(p.grad is None for p in module.parameters())
    assert "forward_features" not in vars(module)


def test_a_frozen_network_without_gradients_is_explained() -> None:
    module = Quadrants()
    for parameter in module.parameters():
        parameter.requires_grad_(False)
    with bt.no_grad():
        found = classifier(module).explain(bright((3,)))
    assert share(found.map, quadrant(3)) > 0.9


def test_sources(tmp_path: Path) -> None:
    model = classifier(Quadrants())
    for i in range(3):
        bright((i,)).save(tmp_path / f"{i}.png")
    assert [e.label for e in model.explain([bright((3,)), bright((0,))])] == [LABELS[3], LABELS[0]]
    found = model.explain(tmp_path)
    assert {Path(path).name: e.label for path, e in found.items()} == {
        f"{i}.png": LABELS[i] for i in range(3)
    }
    assert next(model.explain(bright((i,)) for i in (2,))).label == LABELS[2]


FAMILIES = "resnet18 efficientnet-lite0 mobilenetv3-small-050 convnext-atto squeezenet1-1".split()
MORE = (
    "mobilenetv2-050 efficientnet-b0 efficientnetv2-s convnextv2-atto vgg11 "
    "swin-tiny-patch4-window7-224"
).split()


@pytest.mark.parametrize(
    "name", [*FAMILIES, *(pytest.param(name, marks=pytest.mark.slow) for name in MORE)]
)
def test_every_family(name: str, photo: Image.Image) -> None:
    bt.manual_seed(0)
    model = bt.load(name, weights=False)
    model.module.eval()
    found = model.explain(photo, 7)
    assert found.method == "grad-cam" and found.map.shape == (48, 60)
    assert np.isfinite(found.map).all() and found.map.max() in (0, 1)


# -- attention -----------------------------------------------------------------------------------


def transformer(pooling: str = "token", **settings: Any) -> ImageClassifier:
    """One block whose class token attends to bright patches; the head reads the class token."""
    config = vit.Config(
        hidden_size=4,
        num_hidden_layers=1,
        num_attention_heads=1,
        intermediate_size=4,
        patch_size=(8, 8),
        image_size=(32, 32),
        num_classes=4,
        pooling=pooling,
        layer_norm_eps=1e-6,
        **settings,
    )
    bt.manual_seed(0)
    return classifier(vit.ViT(config), config)


def attend_to_bright(module: Any) -> None:
    """Keys say how bright a patch is; values of bright patches raise class 1."""
    for parameter in module.parameters():
        parameter.array[...] = 0
    for norm in (module.norm, module.blocks[0].norm1, module.blocks[0].norm2):
        norm.weight.array[...] = 1
    # A patch is (1, -1, 0, 0) where bright and (-1, 1, 0, 0) where dark; the token (0, 0, 1, -1).
    module.patch_embed.proj.weight.array[0] = 2 / (3 * 64)
    module.patch_embed.proj.weight.array[1] = -2 / (3 * 64)
    module.patch_embed.proj.bias.array[:2] = (-1, 1)
    module.cls_token.array[0, 0] = (0, 0, 1, -1)
    block = module.blocks[0].attn
    q, k, v = np.split(block.qkv.weight.array, 3)
    q[0, 2] = 4  # the class token asks,
    k[0, 0] = 2  # bright patches answer,
    v[1, 0] = 1  # and bring their brightness
    block.proj.weight.array[...] = np.eye(4)
    module.head.weight.array[1, 1] = 1
    module.head.weight.array[2, 1] = -1


@pytest.mark.parametrize("method", ["attention", "rollout"])
@pytest.mark.parametrize("i", range(4))
def test_attention_to_one_quadrant(i: int, method: str) -> None:
    model = transformer()
    attend_to_bright(model.module)
    found = model.explain(bright((i,)), 1, method=method)
    assert found.method == method and found.map.max() == 1
    assert share(found.map, quadrant(i)) > 0.75
    assert found.map.shape == (60, 100)


def test_attention_has_regard_to_the_label() -> None:
    """What raises one class lowers the other: for that, it is no reason."""
    model = transformer()
    attend_to_bright(model.module)
    assert model.explain(bright((0,)), 1).map[:30, :50].mean() > 0.5
    assert model.explain(bright((0,)), 2).map[:22, :37].max() < 1e-6


def test_attention_weights_and_gradients() -> None:
    """One layer by hand: softmax of the scores times the gradient found by differences."""
    from bestiary.core.tensor import Tensor
    from bestiary.vision import explain

    model = transformer()
    x = Tensor(model.preprocess(bright((1, 2)))[None])
    layers, used, _ = explain._attentions(model, x, 0)
    (weights, gradient) = layers[0]
    assert weights.shape == gradient.shape == (1, 17, 17)
    np.testing.assert_allclose(weights.sum(-1), 1, atol=1e-5)
    np.testing.assert_allclose(used, np.eye(17)[0], atol=1e-6)
    assert np.abs(gradient[0, 0]).max() > 0 and not gradient[0, 1:].any()
    # The gradient for a weight is that of the output along the patch's value.
    attention = model.module.blocks[0].attn
    tokens = model.module.blocks[0].norm1(model.module._embedded(x)[0])
    values = attention.qkv(tokens).array[0, :, 8:]
    mixed = (weights[0] @ values).astype(np.float32)
    embedded = model.module._embedded(x)[0]

    def score(y: np.ndarray) -> float:
        block = model.module.blocks[0]
        z = embedded + attention.proj(Tensor(y[None]))
        z = z + block.mlp(block.norm2(z))
        return float(model.module.head(model.module.pooled(model.module._normed(z))).array[0, 0])

    step = 1e-2 / np.abs(values[3]).max()
    up, down = mixed.copy(), mixed.copy()
    up[0] += step * values[3]
    down[0] -= step * values[3]
    measured = (score(up) - score(down)) / (2 * step)
    assert measured == pytest.approx(gradient[0, 0, 3], rel=0.02, abs=1e-6)


@pytest.mark.parametrize("settings", [{"pooling": "mean"}, {"pooling": "both"}])
def test_other_poolings(settings: dict[str, Any]) -> None:
    model = transformer(**settings)
    for method in ("attention", "rollout"):
        found = model.explain(bright((1,)), method=method)
        assert found.map.shape == (60, 100) and found.map.max() == pytest.approx(1, abs=1e-5)


def test_pictures_that_patches_do_not_fill() -> None:
    """32 x 44 pixels, patches of 8 x 8: the last four columns are in none."""
    model = transformer()
    attend_to_bright(model.module)
    model.preprocess = Preprocess(size=(32, 44), resize=(32, 44), fit="exact", **PLAIN)
    found = model.explain(bright((1,), 64, 88), 1)
    assert found.map.shape == (64, 88)
    assert share(found.map, (44, 0, 88, 32)) > 0.7
    one = Image.new("RGB", (88, 64))
    one.paste((255, 255, 255), (48, 16, 64, 32))  # the fourth patch of the second row
    y, x = np.unravel_index(model.explain(one, 1).map.argmax(), (64, 88))
    assert y in (23, 24) and x in (55, 56)


# -- mistakes ------------------------------------------------------------------------------------


def test_unknown_labels_are_answered_with_near_ones() -> None:
    model = classifier(Quadrants())
    with pytest.raises(DataError, match="'lower lft' is none of the model's 4 labels") as caught:
        model.explain(bright((0,)), "lower lft")
    assert caught.value.nearest[0] == "lower left"
    with pytest.raises(DataError, match="no class 4: the model's are 0 to 3"):
        model.explain(bright((0,)), 4)
    with pytest.raises(DataError, match="no class -1"):
        model.explain(bright((0,)), -1)
    with pytest.raises(DataError, match=r"by its name or number, not by float 1\.5"):
        model.explain(bright((0,)), 1.5)  # type: ignore[arg-type]
    assert model.explain(bright((0,)), np.int64(0)).label == LABELS[0]


def test_networks_without_what_a_method_needs() -> None:
    class Flat(bt.nn.Module):
        def __init__(self) -> None:
            self.head = bt.nn.Linear(3 * 32 * 32, 4)

        def forward(self, x: bt.Tensor) -> bt.Tensor:
            return self.head(x.reshape((x.shape[0], -1)))

    with pytest.raises(ConfigError, match=r"Flat.*has no feature map"):
        classifier(Flat()).explain(bright((0,)))
    with pytest.raises(ConfigError, match="has no attention between all patches"):
        classifier(Quadrants()).explain(bright((0,)), method="attention")
    with pytest.raises(ConfigError, match=r"no feature map.*\n.*\n.*method='attention'"):
        transformer().explain(bright((0,)), method="grad-cam")
    with pytest.raises(ConfigError, match="'lime' is none of grad-cam, attention, rollout"):
        classifier(Quadrants()).explain(bright((0,)), method="lime")


def test_other_mistakes(tmp_path: Path) -> None:
    model = classifier(Quadrants())
    (tmp_path / "no.png").write_text("no picture")
    with pytest.raises(DataError, match=r"no\.png"):
        model.explain(tmp_path / "no.png")
    with bt.inference_mode(), pytest.raises(ConfigError, match="inference_mode"):
        model.explain(bright((0,)))
    found = model.explain(bright((0,)))
    with pytest.raises(ConfigError, match="opacity lies from 0 to 1, got 2"):
        found.draw(2)


# -- drawing -------------------------------------------------------------------------------------


def test_drawing_covers_what_was_seen_only() -> None:
    found = classifier(Quadrants()).explain(bright((0,)))
    drawn = np.asarray(found.draw())
    assert drawn.shape == (60, 100, 3) and drawn.dtype == np.uint8
    unseen = found.map == 0
    assert unseen.any() and not drawn[unseen].any()
    assert tuple(drawn[10, 10]) != (255, 255, 255)
    assert np.array_equal(np.asarray(found.draw(opacity=0)), np.asarray(found.image))
    assert repr(found).startswith("Explanation('upper left', 1.000, 60 x 100, grad-cam)")


# -- from the command line -----------------------------------------------------------------------


def test_command(samples: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    photos, out = tmp_path / "photos", tmp_path / "seen"
    photos.mkdir()
    for name in ("cat.jpg", "dog.jpg"):
        shutil.copy(samples / name, photos)
    arguments = ["predict", "resnet-cifar10", str(photos), str(samples / "cat.jpg")]
    assert _run([*arguments, "--top", "1", "--explain", str(out)]) == 0
    assert capfd.readouterr().out.count("%  ") == 3
    assert {path.name for path in out.iterdir()} == {"cat.png", "dog.png", "cat-2.png"}
    with Image.open(out / "dog.png") as drawn, Image.open(photos / "dog.jpg") as photo:
        assert drawn.size == photo.size
        expected = bt.load("resnet-cifar10").explain(photos / "dog.jpg").draw()
        assert np.array_equal(np.asarray(drawn), np.asarray(expected))


def test_command_for_classifiers_alone(
    references: Path, samples: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    model, out = str(references / "yolos-transformers"), tmp_path / "seen"
    assert _run(["predict", model, str(samples / "cat.jpg"), "--explain", str(out)]) == 2
    assert "classifiers explain: no --explain" in capfd.readouterr().err
    assert not out.exists()


# -- photographs ---------------------------------------------------------------------------------

# Boxes (x0, y0, x1, y1), read off the sample photographs by eye: the whole thing, and the part
# that tells it: a face, a head with its neck, the cup on its saucer, the bird's head and back.
BOXES = {
    "cat": ((40, 0, 370, 300), (90, 60, 350, 290)),
    "dog": ((20, 10, 500, 410), (340, 10, 500, 250)),
    "espresso": ((75, 15, 450, 360), (150, 15, 390, 220)),
    "macaw": ((125, 55, 510, 395), (125, 55, 450, 260)),
}


@pytest.mark.network
def test_photographs(samples: Path) -> None:
    model = bt.load("efficientnet-lite0")
    for name, (whole, part) in BOXES.items():
        found = model.explain(samples / f"{name}.jpg")
        seen = (found.map > 0).any(axis=0).sum() * (found.map > 0).any(axis=1).sum()
        area = (part[2] - part[0]) * (part[3] - part[1]) / seen
        assert share(found.map, whole) > 0.85, name
        assert share(found.map, part) > min(1.2 * area, 0.85), name
        y, x = np.unravel_index(found.map.argmax(), found.map.shape)
        assert part[0] <= x < part[2] and part[1] <= y < part[3], name


@pytest.mark.network
def test_two_things_in_one_photograph(samples: Path) -> None:
    """Each label's map lies on its own half."""
    model = bt.load("efficientnet-lite0")
    both = Image.new("RGB", (448, 448))
    for i, name in enumerate(("espresso", "macaw")):
        with Image.open(samples / f"{name}.jpg") as picture:
            both.paste(picture.resize((448, 224)), (0, 224 * i))
    for i, label in enumerate(("espresso", "macaw")):
        found = model.explain(both, label)
        assert share(found.map, (0, 224 * i, 448, 224 * (i + 1))) > 0.8, label
