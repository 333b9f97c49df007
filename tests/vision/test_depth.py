"""Depth from one picture: equal to transformers, at the size of the picture."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

import bestiary as bt
from bestiary.core.errors import ConfigError, DataError, ShapeError
from bestiary.core.weights import load_file
from bestiary.hub.cli import cli
from bestiary.hub.loading import load
from bestiary.hub.registry import get
from bestiary.hub.rename import join, renamed
from bestiary.vision.depth_estimator import Depth, DepthEstimator
from bestiary.vision.preprocess import Preprocess
from bestiary.vision.transforms import Resize

DATA = Path(__file__).parent.parent / "references" / "data"
FOLDERS = ("depth-anything-transformers", "depth-anything-transformers-metric")
NAMES = json.loads(gzip.decompress((DATA / "depth_names.json.gz").read_bytes()))


def stored_of(folder: str) -> dict[str, np.ndarray]:
    return load_file(DATA / folder / "reference.safetensors")


@pytest.mark.parametrize("folder", FOLDERS)
def test_depths_equal_the_references(folder: str) -> None:
    task, stored = load(DATA / folder), stored_of(folder)
    assert type(task) is DepthEstimator
    for i in range(2):
        with bt.no_grad():
            depth = task.module(bt.tensor(stored[f"{i}.pixel_values"]))
        scale = max(1.0, task.config.max_depth)
        np.testing.assert_allclose(depth.array / scale, stored[f"{i}.output"] / scale, atol=1e-4)
        assert (stored[f"{i}.output"] > 0).mean() > 0.3


@pytest.mark.parametrize("folder", FOLDERS)
def test_bfloat16_stays_near_the_references(folder: str) -> None:
    task, stored = load(DATA / folder, dtype="bfloat16"), stored_of(folder)
    tolerance = max(2e-2, 1.25 * float(stored["bfloat16.error"]))
    for i in range(2):
        with bt.no_grad():
            depth = task.module(bt.tensor(stored[f"{i}.pixel_values"]).astype(bt.bfloat16))
        result = depth.array.astype(np.float32)
        np.testing.assert_allclose(result, stored[f"{i}.output"], atol=tolerance)


@pytest.mark.parametrize("folder", FOLDERS)
def test_pictures_and_answers_equal_the_references(folder: str) -> None:
    task, stored = load(DATA / folder), stored_of(folder)
    prepared = task.preprocess(stored["picture"])
    np.testing.assert_allclose(prepared, stored["prepared"][0], atol=1e-5)
    found = task(stored["picture"])
    assert found.values.shape == stored["picture"].shape[:2]
    np.testing.assert_allclose(found.values, stored["depth"], atol=1e-3)
    assert found.metric is ("metric" in folder)


@pytest.mark.parametrize("name", ["depth-anything-v2-small", "depth-anything-v2-base"])
def test_names_and_shapes_of_the_published_sizes(name: str) -> None:
    architecture, entry = get(name)
    layout = architecture.layouts["transformers"]
    tensors = {n: np.empty(shape, np.bool_) for n, shape in NAMES[name]["tensors"].items()}
    dropped = {"backbone.embeddings.mask_token"}
    ours = renamed(list(tensors), layout.rename)
    assert set(tensors) - set(ours) == dropped
    state = {new: tensors[old] for old, (new, _) in ours.items()}
    join(state, layout.join)
    with bt.nn.init.empty():
        module = architecture.build(architecture.config(**(entry.config or {})))
    assert {n: t.shape for n, t in module.state_dict().items()} == {
        n: a.shape for n, a in state.items()
    }
    mask = int(np.prod(NAMES[name]["tensors"]["backbone.embeddings.mask_token"]))
    assert sum(p.size for p in module.parameters()) == entry.parameters
    assert entry.parameters == NAMES[name]["parameters"] - mask
    assert entry.commercial is name.endswith("small")


def test_saved_and_loaded_it_answers_alike(tmp_path: Path) -> None:
    task = load(DATA / FOLDERS[0])
    again = load(task.save(tmp_path))
    assert type(again) is DepthEstimator
    assert (again.config, again.preprocess) == (task.config, task.preprocess)
    picture = stored_of(FOLDERS[0])["picture"]
    np.testing.assert_array_equal(again(picture).values, task(picture).values)
    larger = load(tmp_path, image_size=70)
    assert larger.preprocess(picture).shape == (3, 56, 70)
    assert larger(picture).values.shape == picture.shape[:2]


def test_every_parameter_learns() -> None:
    module = load(DATA / FOLDERS[0]).module.train()
    module(bt.tensor(stored_of(FOLDERS[0])["0.pixel_values"])).sum().backward()
    unused = {n for n, p in module.named_parameters() if p.grad is None}
    # The coarsest level has no finer map to add; its weights are published all the same.
    assert unused and all(n.startswith("neck.fusion.0.residual_layer1.") for n in unused)


def test_lists_folders_and_drawings(tmp_path: Path) -> None:
    task = load(DATA / FOLDERS[0])
    for i, size in enumerate([(60, 40), (40, 60), (60, 40)]):
        Image.new("RGB", size, (40 * i, 90, 20)).save(tmp_path / f"{i}.png")
    found = task(tmp_path)
    assert [d.values.shape for d in found.values()] == [(40, 60), (60, 40), (40, 60)]
    assert task.draw(tmp_path / "1.png").size == (40, 60)
    (tmp_path / "bad.jpg").write_bytes(b"no")
    with pytest.raises(DataError, match=r"bad\.jpg"):
        task(tmp_path)


def test_predict_writes_depths(tmp_path: Path) -> None:
    picture = tmp_path / "a.png"
    Image.new("RGB", (30, 20), (200, 90, 20)).save(picture)
    run = CliRunner().invoke
    model = str(DATA / FOLDERS[1])
    done = run(cli, ["predict", model, str(picture), "--draw", str(tmp_path / "out")])
    assert done.exit_code == 0, done.output
    assert done.output.rstrip().endswith(" m")
    with Image.open(tmp_path / "out" / "a.png") as image:
        assert image.size == (30, 20)
    found = json.loads(run(cli, ["predict", model, str(picture), "--json"]).output)
    assert found[str(picture)]["metres"] is True
    assert run(cli, ["predict", model, str(picture), "--masks", "x"]).exit_code == 2


def test_near_is_bright(tmp_path: Path) -> None:
    values = np.array([[1.0, 3.0], [2.0, 5.0]], np.float32)
    np.testing.assert_allclose(Depth(values, False).nearness, [[0, 0.5], [0.25, 1]])
    np.testing.assert_allclose(Depth(values, True).nearness, [[1, 0.5], [0.75, 0]])
    assert not Depth(np.ones((2, 2), np.float32), True).nearness.any()
    assert repr(Depth(values, True)) == "Depth(2 x 2 pixels: 1 to 5 m)"
    with Image.open(Depth(values, False).save(tmp_path / "d.png")) as image:
        np.testing.assert_array_equal(np.asarray(image), [[0, 32768], [16384, 65535]])
    np.testing.assert_array_equal(np.load(Depth(values, False).save(tmp_path / "d.npy")), values)
    with pytest.raises(DataError, match=r"d\.jpg"):
        Depth(values, False).save(tmp_path / "d.jpg")


def test_sizes_that_are_multiples() -> None:
    least = Resize((518, 518), "least", multiple=14)
    assert least.target(480, 640) == (518, 686)
    assert least.target(640, 480) == (686, 518)
    assert least.target(2000, 1000) == (1036, 518)  # that is less scaling than to (518, 259)
    assert Resize((50, 33), "exact", multiple=7).target(9, 9) == (49, 35)
    assert Resize((3, 3), "least", multiple=14).target(9, 9) == (14, 14)
    with pytest.raises(ConfigError):
        Preprocess(multiple=0)


@pytest.mark.parametrize(
    "changes, fact",
    [
        ({"depth_estimation_type": "odd"}, "depth_estimation_type='odd'"),
        ({"backbone_config": None}, "backbone_config=None"),
        ({"neck_hidden_sizes": [4, 4]}, "one value for each"),
        ({"reassemble_factors": [4, 2, 3, 0.5]}, "factor=3"),
        ({"odd": 1}, "odd=1"),
        ({"patch_size": 5}, "patch_size"),
    ],
)
def test_configurations_that_are_refused(
    changes: dict[str, Any], fact: str, tmp_path: Path
) -> None:
    config = {**json.loads((DATA / FOLDERS[0] / "config.json").read_text()), **changes}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, weights=False)
    assert fact in str(caught.value)


def test_pictures_of_the_wrong_shape() -> None:
    module = load(DATA / FOLDERS[0]).module
    with pytest.raises(ShapeError, match=r"x\[None\]"):
        module(bt.ones((3, 42, 42)))
    with pytest.raises(ShapeError, match="too small"):
        module(bt.ones((1, 3, 4, 42)))
