"""Networks of tier 2 at published sizes, with random weights, beside the libraries themselves.

    TORCHVISION=FOLDER pytest -m reference tests/vision/test_published_sizes.py

in an environment with torch and transformers; FOLDER holds torchvision's Python files
(`pip install --no-deps --target FOLDER torchvision`). What tiny networks show in every run is shown
here for the sizes that people load: every number that the network says, not what survives sorting.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bestiary as bt
from bestiary.hub.loading import load

pytestmark = [pytest.mark.reference, pytest.mark.filterwarnings("ignore")]
SCRIPTS = Path(__file__).parent.parent / "references"
FILES = {
    "retinanet_resnet50_fpn": "retinanet_resnet50_fpn_coco-eeacb38b.pth",
    "fasterrcnn_resnet50_fpn": "fasterrcnn_resnet50_fpn_coco-258fb6c6.pth",
    "fasterrcnn_mobilenet_v3_large_fpn": "fasterrcnn_mobilenet_v3_large_fpn-fb6a3cc7.pth",
    "maskrcnn_resnet50_fpn": "maskrcnn_resnet50_fpn_coco-bf2d0c1e.pth",
}
SIZE = (256, 320)


def script(name: str) -> Any:
    """A script of the references as a module."""
    if str(SCRIPTS) not in sys.path:
        sys.path.insert(0, str(SCRIPTS))
    spec = importlib.util.spec_from_file_location(f"reference_{name}", SCRIPTS / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def torchvision() -> Any:
    """The script that takes torchvision's detectors without what is compiled."""
    if "TORCHVISION" not in os.environ:
        pytest.skip("TORCHVISION names no folder with torchvision's files")
    return script("torchvision_detectors")


def near(ours: Any, theirs: Any) -> None:
    """Equal to 1e-4, and of a size at which that says something."""
    ours, theirs = np.asarray(ours), theirs.detach().numpy()
    assert ours.shape == theirs.shape
    assert 1 < np.abs(theirs).max() < 50
    print(f"differs by {np.abs(ours - theirs).max():.1e}, numbers to {np.abs(theirs).max():.2g}")
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-4)


def frozen(model: Any, kind: Any, eps: float) -> Any:
    """The norms of published weights in the place of those that are trained."""
    import torch

    for name, part in list(model.named_modules()):
        if isinstance(part, torch.nn.BatchNorm2d):
            parent = model.get_submodule(name.rpartition(".")[0])
            setattr(parent, name.rpartition(".")[2], kind(part.num_features, eps=eps))
    return model


@pytest.mark.parametrize("name", FILES)
def test_detectors_of_torchvision(torchvision: Any, name: str, tmp_path: Path) -> None:
    import torch

    build = getattr(torchvision.detection, name)
    eps = 1e-5 if "mobilenet" in name else 0.0
    model = build(weights=None, weights_backbone=None)
    model = frozen(model, torchvision.FrozenBatchNorm2d, eps)
    torchvision.randomise(model, 7)
    with torch.no_grad():
        for tensor in model.backbone.parameters():
            if tensor.ndim == 4 and eps == 0.0:  # so many convolutions make large numbers otherwise
                tensor *= 0.85
    torch.save(model.state_dict(), tmp_path / FILES[name])
    ours = load(tmp_path / FILES[name]).module

    pixels = torchvision.common.images(1, 3, *SIZE, seed=3)
    model.transform = torchvision.Ready(pixels, [SIZE])
    seen: dict[str, Any] = {}

    def watch(part: str) -> None:
        def keep(_: Any, given: Any, out: Any) -> None:
            seen[part] = given, out

        model.get_submodule(part).register_forward_hook(keep)

    mask = name.startswith("mask")
    parts = ["head"] if name.startswith("retina") else ["rpn.head", "roi_heads"]
    parts += ["roi_heads.box_predictor"] if len(parts) == 2 else []
    for part in parts + (["roi_heads.mask_predictor"] if mask else []):
        watch(part)
    with torch.no_grad():
        (found,) = model([pixels[0]])
    with bt.inference_mode():
        output = ours(bt.tensor(pixels.numpy()))
    if parts == ["head"]:
        said = seen["head"][1]
        near(output.logits.array, said["cls_logits"])
        near(output.deltas.array, said["bbox_regression"])
        return
    joined = sys.modules["torchvision.models.detection.rpn"].concat_box_prediction_layers
    logits, deltas = joined(*seen["rpn.head"][1])
    near(output.logits.array.reshape(-1, 1), logits)
    near(output.deltas.array.reshape(-1, 4), deltas)
    proposals = [boxes.numpy() for boxes in seen["roi_heads"][0][1]]
    maps, picture = output.maps[:-1], output.grid.picture
    with bt.inference_mode():
        logits, deltas = ours.roi_heads(maps, proposals, picture)
    wanted_logits, wanted_deltas = seen["roi_heads.box_predictor"][1]
    near(logits.array, wanted_logits)
    near(deltas.array.reshape(len(deltas), -1), wanted_deltas)
    if mask:
        assert len(found["labels"])
        labels, boxes = found["labels"].numpy(), found["boxes"].numpy()
        with bt.inference_mode():
            made = ours.roi_heads.masks(maps, [boxes], labels, picture)
        wanted = seen["roi_heads.mask_predictor"][1]
        near(made.array, wanted[torch.arange(len(labels)), found["labels"]])


def test_segment_anything(tmp_path: Path) -> None:
    import torch
    from transformers import SamConfig, SamModel

    common = script("common")
    model = common.randomise(SamModel(SamConfig()), 0)
    model.save_pretrained(tmp_path)
    ours = load(tmp_path).module
    x = common.images(1, 3, 1024, 1024, seed=1)
    points = torch.tensor([[[[300.0, 420.0], [700.0, 90.0]]]])
    labels = torch.tensor([[[1, 0]]])
    with torch.no_grad():
        maps = model.get_image_embeddings(x)
        out = model(
            image_embeddings=maps, input_points=points, input_labels=labels, multimask_output=True
        )
    with bt.inference_mode():
        seen = ours.embed_image(bt.tensor(x.numpy()))
        given = {
            "input_points": bt.tensor(points.numpy()),
            "input_labels": bt.tensor(labels.numpy()),
        }
        found = ours(image_embeddings=seen, **given)
    near(seen.array, maps)
    near(found.iou_scores.array, out.iou_scores)
    near(found.pred_masks.array, out.pred_masks)


@pytest.mark.parametrize("name", ["vgg16_bn", "squeezenet1_1"])
def test_classifiers_of_torchvision(torchvision: Any, name: str) -> None:
    import torch

    model = getattr(torchvision.torchvision.models, name)(weights=None)
    torchvision.common.randomise(model, 0)
    ours = load(name, weights=False).module.eval()
    state = {key: bt.tensor(value.numpy()) for key, value in model.state_dict().items()}
    ours.load_state_dict(state)
    x = torchvision.common.images(2, 3, 224, 224, seed=1)
    with torch.no_grad():
        wanted = model(x)
    with bt.inference_mode():
        near(ours(bt.tensor(x.numpy())).array, wanted)


def test_depth_anything(tmp_path: Path) -> None:
    import torch
    from transformers import DepthAnythingConfig, DepthAnythingForDepthEstimation, Dinov2Config

    common = script("common")
    trunk = {"image_size": 518, "reshape_hidden_states": False, "out_indices": [3, 6, 9, 12]}
    small = Dinov2Config(hidden_size=384, num_attention_heads=6, **trunk)
    model = DepthAnythingForDepthEstimation(DepthAnythingConfig(backbone_config=small))
    common.randomise(model, 0)
    model.head.conv3.weight.data *= 0.4  # depths of up to ten, not of up to twenty-five
    model.head.conv3.bias.data += 1  # most are above zero
    model.save_pretrained(tmp_path)
    x = common.images(1, 3, 252, 336, seed=1)
    with torch.no_grad():
        wanted = model(x).predicted_depth
    with bt.inference_mode():
        near(load(tmp_path).module(bt.tensor(x.numpy())).array, wanted)
