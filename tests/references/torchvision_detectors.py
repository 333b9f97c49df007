"""Tiny RetinaNets and Faster and Mask R-CNNs of torchvision with random weights.

With what they find and propose, their losses and gradients, prepared pictures, and the names and
shapes of every tensor of the published sizes.
torchvision's wheel does not work with a CPU build of torch; its detectors are plain Python but for
two operations, which are written out here.
Run: TORCHVISION=FOLDER python tests/references/torchvision_detectors.py
"""

from __future__ import annotations

import copy
import gzip
import json
import math
import os
import shutil
import sys
import types
from typing import Any

import common
import numpy as np
import torch
from torch import nn

# -- torchvision, without what is compiled -----------------------------------------------------

sys.path.insert(0, os.environ["TORCHVISION"])
sys.modules["torchvision._meta_registrations"] = types.ModuleType("torchvision._meta_registrations")
_LIBRARY = torch.library.Library("torchvision", "DEF")
_LIBRARY.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")


def nms(boxes: torch.Tensor, scores: torch.Tensor, threshold: float) -> torch.Tensor:
    """Boxes that overlap no better one, best first."""
    overlaps = sys.modules["torchvision.ops.boxes"].box_iou(boxes, boxes)
    kept: list[int] = []
    for i in torch.argsort(scores, descending=True, stable=True).tolist():
        if not bool((overlaps[i, kept] > threshold).any()):  # no number is above a threshold
            kept.append(i)
    return torch.tensor(kept, dtype=torch.int64)


def roi_align(
    x: torch.Tensor,
    rois: torch.Tensor,
    scale: float,
    height: int,
    width: int,
    samples: int,
    aligned: bool,
) -> torch.Tensor:
    """Regions resampled, sample by sample: mean over bilinear samples in each place."""
    found = []
    for image, *edges in rois.tolist():
        x0, y0, x1, y1 = (edge * scale - (0.5 if aligned else 0) for edge in edges)
        least = 0.0 if aligned else 1.0
        spans = max(y1 - y0, least), max(x1 - x0, least)
        counts = [
            samples if samples > 0 else math.ceil(s / n)
            for s, n in zip(spans, (height, width), strict=True)
        ]
        ys, xs = (
            start + (torch.arange(n * count) + 0.5) * span / (n * count)
            for start, span, n, count in zip((y0, x0), spans, (height, width), counts, strict=True)
        )
        values = _between(x[int(image)], ys, xs)
        values = values.reshape(-1, height, counts[0], width, counts[1])
        found.append(values.mean(dim=(2, 4)))
    if not found:
        return x.new_zeros((0, x.shape[1], height, width))
    return torch.stack(found)


def _between(x: torch.Tensor, ys: torch.Tensor, xs: torch.Tensor) -> torch.Tensor:
    """A map (C, H, W) at places, bilinearly; zero for places a pixel outside or further."""
    total: Any = 0
    inside = ((ys >= -1) & (ys <= x.shape[1]))[:, None] & ((xs >= -1) & (xs <= x.shape[2]))
    parts = []
    for places, n in ((ys, x.shape[1]), (xs, x.shape[2])):
        places = places.clamp(0, n - 1)
        low = places.floor().long()
        part = places - low
        parts.append(((low, 1 - part), ((low + 1).clamp(max=n - 1), part)))
    for rows, down in parts[0]:
        for columns, across in parts[1]:
            total = total + x[:, rows][:, :, columns] * down[:, None] * across
    return total * inside


_LIBRARY.impl("nms", nms, "CPU")
import torchvision  # noqa: E402
from torchvision.models import detection  # noqa: E402
from torchvision.models.detection.anchor_utils import AnchorGenerator  # noqa: E402
from torchvision.models.detection.backbone_utils import BackboneWithFPN  # noqa: E402
from torchvision.models.detection.faster_rcnn import (  # noqa: E402
    FastRCNNPredictor,
    TwoMLPHead,
)
from torchvision.models.detection.image_list import ImageList  # noqa: E402
from torchvision.models.detection.mask_rcnn import (  # noqa: E402
    MaskRCNNHeads,
    MaskRCNNPredictor,
)
from torchvision.models.detection.transform import GeneralizedRCNNTransform  # noqa: E402
from torchvision.models.mobilenetv3 import (  # noqa: E402
    InvertedResidualConfig,
    MobileNetV3,
)
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet  # noqa: E402
from torchvision.ops.feature_pyramid_network import (  # noqa: E402
    LastLevelMaxPool,
    LastLevelP6P7,
)
from torchvision.ops.misc import FrozenBatchNorm2d  # noqa: E402

sys.modules["torchvision.extension"]._assert_has_ops = lambda: None
sys.modules["torchvision.ops.boxes"]._assert_has_ops = lambda: None
sys.modules["torchvision.ops.roi_align"]._roi_align = roi_align

# -- tiny ones ---------------------------------------------------------------------------------

WIDTH, CLASSES = 8, 3
SIZES = {"shortest": 64, "longest": 100}
ANCHORS = (8, 14, 24, 40, 64)


class Body(ResNet):
    """torchvision's ResNet of other widths."""

    def __init__(self, block: Any, planes: tuple[int, ...], norm: Any) -> None:
        nn.Module.__init__(self)
        self._norm_layer, self.inplanes, self.dilation = norm, 6, 1
        self.groups, self.base_width = 1, 64
        self.conv1 = nn.Conv2d(3, 6, 7, 2, 3, bias=False)
        self.bn1, self.relu = norm(6), nn.ReLU()
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        for i, width in enumerate(planes):
            layer = self._make_layer(block, width, 1 + i % 2, stride=2 if i else 1)
            setattr(self, f"layer{i + 1}", layer)


def trunk(block: Any, norm: Any, levels: int, more: Any) -> tuple[Any, dict[str, Any]]:
    planes = (2, 3, 4, 5) if block is Bottleneck else (6, 8, 10, 12)
    sizes = [block.expansion * n for n in planes]
    names = {f"layer{i + 5 - levels}": str(i) for i in range(levels)}
    body = Body(block, planes, norm)
    config = {
        "depths": [1, 2, 1, 2], "hidden_sizes": sizes, "embedding_size": 6,
        "layer_type": "bottleneck" if block is Bottleneck else "basic",
        "norm": "batch" if norm is nn.BatchNorm2d else "frozen", "out_channels": WIDTH,
        "anchor_sizes": list(ANCHORS),
    }  # fmt: skip
    return BackboneWithFPN(body, names, sizes[-levels:], WIDTH, more), config


def retinanet(block: Any, norm: Any) -> tuple[Any, dict[str, Any], str]:
    backbone, config = trunk(block, norm, 3, LastLevelP6P7(WIDTH, WIDTH))
    anchors = tuple(tuple(int(side * 2 ** (i / 3)) for i in range(3)) for side in ANCHORS)
    ratios = ((0.5, 1.0, 2.0),) * 5
    model = detection.RetinaNet(
        backbone, CLASSES, min_size=SIZES["shortest"], max_size=SIZES["longest"],
        anchor_generator=AnchorGenerator(anchors, ratios), detections_per_img=40,
        topk_candidates=60, score_thresh=0.1,
    )  # fmt: skip
    config |= {"detections_per_img": 40, "topk_candidates": 60, "score_thresh": 0.1}
    return model, {**config, "num_classes": CLASSES}, "retinanet"


def mobile(_: Any, norm: Any) -> tuple[Any, dict[str, Any], str]:
    """On MobileNetV3-Large at a tenth of its width."""
    rows = [
        (16, 3, 16, 8, False, "RE", 1),
        (8, 3, 32, 8, False, "RE", 2), (8, 3, 24, 8, False, "RE", 1),
        (8, 5, 24, 8, True, "RE", 2), *[(8, 5, 24, 8, True, "RE", 1)] * 2,
        (8, 3, 48, 8, False, "HS", 2), *[(8, 3, 24, 8, False, "HS", 1)] * 3,
        (8, 3, 48, 16, True, "HS", 1), (16, 3, 96, 16, True, "HS", 1),
        (16, 5, 96, 16, True, "HS", 2), *[(16, 5, 96, 16, True, "HS", 1)] * 2,
    ]  # fmt: skip
    settings = [InvertedResidualConfig(*row, 1, 1.0) for row in rows]
    features = MobileNetV3(settings, 8, norm_layer=norm).features
    names = {"13": "0", "16": "1"}
    backbone = BackboneWithFPN(features, names, [16, 96], WIDTH, LastLevelMaxPool())
    config = {"norm": "frozen", "out_channels": WIDTH, "anchor_sizes": list(ANCHORS), "width": 0.1}
    changed = {"rpn_score_thresh": 0.05, "rpn_batch_size_per_image": 50_000}
    changed |= {"box_batch_size_per_image": 4000}
    model = detection.FasterRCNN(
        backbone, None, min_size=SIZES["shortest"], max_size=SIZES["longest"],
        rpn_anchor_generator=AnchorGenerator((ANCHORS,) * 3, ((0.5, 1.0, 2.0),) * 3),
        box_head=TwoMLPHead(WIDTH * 49, 12), box_predictor=FastRCNNPredictor(12, CLASSES + 1),
        **changed,
    )  # fmt: skip
    more = {"representation_size": 12, "num_classes": CLASSES}
    return model, {**config, **changed, **more}, "faster-rcnn-mobilenet"


def mask_rcnn(block: Any, norm: Any) -> tuple[Any, dict[str, Any], str]:
    more = {
        "mask_head": MaskRCNNHeads(WIDTH, (6,) * 4, 1),
        "mask_predictor": MaskRCNNPredictor(6, 6, CLASSES + 1),
    }
    model, config, _ = faster_rcnn(block, norm, detection.MaskRCNN, more)
    return model, {**config, "mask_channels": 6}, "mask-rcnn"


def faster_rcnn(
    block: Any, norm: Any, kind: Any = detection.FasterRCNN, more: Any = None
) -> tuple[Any, dict[str, Any], str]:
    backbone, config = trunk(block, norm, 4, LastLevelMaxPool())
    changed: dict[str, Any] = {
        "rpn_pre_nms_top_n_test": 60, "rpn_post_nms_top_n_test": 50, "rpn_nms_thresh": 0.6,
        "rpn_pre_nms_top_n_train": 70, "rpn_post_nms_top_n_train": 55,
        "rpn_batch_size_per_image": 100_000 // 2, "box_batch_size_per_image": 4000,
        "box_detections_per_img": 30, "box_score_thresh": 0.1,
    }  # fmt: skip
    model = kind(
        backbone, None, min_size=SIZES["shortest"], max_size=SIZES["longest"],
        rpn_anchor_generator=AnchorGenerator(
            tuple((side,) for side in ANCHORS), ((0.5, 1.0, 2.0),) * 5
        ),
        box_head=TwoMLPHead(WIDTH * 49, 12), box_predictor=FastRCNNPredictor(12, CLASSES + 1),
        **changed, **(more or {}),
    )  # fmt: skip
    return (
        model,
        {**config, **changed, "representation_size": 12, "num_classes": CLASSES},
        "faster-rcnn",
    )


MODELS = {
    "retinanet-torchvision": (retinanet, Bottleneck, FrozenBatchNorm2d),
    "retinanet-torchvision-old": (retinanet, BasicBlock, nn.BatchNorm2d),
    "faster-rcnn-torchvision": (faster_rcnn, Bottleneck, FrozenBatchNorm2d),
    "faster-rcnn-torchvision-batch": (faster_rcnn, BasicBlock, nn.BatchNorm2d),
    "faster-rcnn-mobilenet-torchvision": (mobile, None, FrozenBatchNorm2d),
    "mask-rcnn-torchvision": (mask_rcnn, Bottleneck, FrozenBatchNorm2d),
    "mask-rcnn-torchvision-old": (mask_rcnn, Bottleneck, nn.BatchNorm2d),
}


class Ready(nn.Module):
    """In the place of the model's preparation: the batch is prepared already."""

    def __init__(self, pixels: torch.Tensor, sizes: list[tuple[int, int]]) -> None:
        super().__init__()
        self.batch = ImageList(pixels, sizes)

    def forward(self, images: Any, targets: Any = None) -> Any:
        return self.batch, targets

    def postprocess(self, found: Any, *sizes: Any) -> Any:
        return found


def targets(first: int) -> list[dict[str, torch.Tensor]]:
    """What is in two pictures; nothing in a third one."""
    boxes = [
        [[8, 6, 50, 48], [40, 20, 91, 60], [5.5, 40.25, 24, 58]],
        [[14, 18, 42, 50], [40.5, 8, 66, 57]],
    ]
    labels = [[0, 1, 2], [1, 0]]
    there = [
        {
            "boxes": torch.tensor(b, dtype=torch.float32),
            "labels": torch.tensor(n) + first,
            "masks": torch.stack([ellipse(*edges) for edges in b]),
        }
        for b, n in zip(boxes, labels, strict=True)
    ]
    empty = {"boxes": torch.zeros((0, 4)), "labels": torch.zeros(0, dtype=torch.int64)}
    return [*there, {**empty, "masks": torch.zeros((0, 64, 96), dtype=torch.uint8)}]


def ellipse(x0: float, y0: float, x1: float, y1: float) -> torch.Tensor:
    """The pixels of an ellipse in a box."""
    y, x = (t + 0.5 for t in torch.meshgrid(torch.arange(64), torch.arange(96), indexing="ij"))
    across, down = (2 * x - x0 - x1) / (x1 - x0), (2 * y - y0 - y1) / (y1 - y0)
    return (across**2 + down**2 <= 1).to(torch.uint8)


def stored(found: dict[str, torch.Tensor], prefix: str) -> dict[str, Any]:
    """What was found; of masks of the whole picture their bits, of those over boxes the first."""
    arrays: dict[str, Any] = {f"{prefix}.{key}": value for key, value in found.items()}
    if "masks" in found:
        masks = found["masks"][:, 0]
        large = masks.shape[1:] != (28, 28)
        arrays[f"{prefix}.masks"] = (
            np.packbits((masks >= 0.5).numpy(), axis=-1) if large else masks[:8].clone()
        )
    return arrays


def photos() -> list[np.ndarray[Any, Any]]:
    rng = np.random.default_rng(5)
    found = []
    for height, width in ((60, 84), (130, 101)):
        small = rng.integers(0, 256, (height // 6 + 1, width // 6 + 1, 3))
        large = np.kron(small, np.ones((6, 6, 1)))[:height, :width]
        noise = rng.normal(0, 12, large.shape)
        found.append((large + noise).clip(0, 255).astype(np.uint8))
    return found


def rounded(model: Any, pixels: torch.Tensor) -> float:
    """How far the logits of every anchor are off when torch computes in bfloat16."""
    said = []
    for network, dtype in ((model, torch.float32), (copy.deepcopy(model), torch.bfloat16)):
        head = network.head.classification_head if hasattr(network, "head") else network.rpn.head
        with torch.no_grad():
            maps = list(network.to(dtype).backbone(pixels.to(dtype)).values())
            out = head(maps)
        parts = [out] if isinstance(out, torch.Tensor) else out[0]
        said.append(torch.cat([part.float().reshape(-1) for part in parts]))
    return float((said[0] - said[1]).abs().max())


def reference(model: Any, first: int) -> dict[str, Any]:
    arrays: dict[str, Any] = {}
    for i, photo in enumerate(photos()):
        image = torch.tensor(photo).permute(2, 0, 1) / 255
        with torch.no_grad():
            (found,) = model([image])
        arrays |= stored(found, f"photo.{i}")
    whole = (common.images(3, 3, 64, 96, seed=2) * 32).clip(-127, 127).to(torch.int8)
    sizes = [(64, 96), (60, 70), (64, 96)]
    whole[1, :, 60:] = 0
    whole[1, :, :, 70:] = 0
    pixels = whole / 32
    ready, kept = Ready(pixels, sizes), model.transform
    arrays |= {"pixels_times_32": whole, "sizes": np.array(sizes)}
    arrays["bfloat16.error"] = np.array(rounded(model, pixels))
    model.transform = ready
    proposed: list[Any] = []
    if hasattr(model, "rpn"):
        hook = model.rpn.register_forward_hook(lambda _, __, out: proposed.append(out[0]))
    with torch.no_grad():
        for i, found in enumerate(model(list(pixels))):
            arrays |= stored(found, str(i))
    if proposed:
        hook.remove()
        arrays |= {f"{i}.proposals": boxes for i, boxes in enumerate(proposed[0])}
    there = targets(first)
    for i, target in enumerate(there):
        arrays |= {f"{i}.there.{key}": value for key, value in target.items() if key != "masks"}
        if hasattr(model, "roi_heads") and model.roi_heads.has_mask():
            arrays[f"{i}.there.masks"] = np.packbits(target["masks"].numpy(), axis=-1)
    model.train()
    losses = model(list(pixels), there)
    arrays |= {f"loss.{key}": value for key, value in losses.items()}
    sum(losses.values()).backward()
    named = [(n, p) for n, p in model.named_parameters() if p.grad is not None]
    for place in (0, len(named) // 3, 2 * len(named) // 3, len(named) - 1):
        name, parameter = named[place]
        arrays[f"grad.{name}"] = parameter.grad
    model.eval()
    model.transform = kept
    return arrays


def randomise(model: nn.Module, seed: int) -> None:
    """Random weights with which boxes move a little, and some scores are small."""
    common.randomise(model, seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "bbox" in name:
                parameter *= 0.15
            if "cls_" in name and "bias" in name:
                parameter -= 0.5


def old_name(name: str) -> str:
    """What torchvision called a tensor before 0.13, and its files call it still."""
    parts = name.split(".")
    if (
        name.startswith("backbone.fpn.")
        and parts[2].endswith("_blocks")
        and parts[2] != "extra_blocks"
    ):
        del parts[4]
    elif name.startswith("rpn.head.conv."):
        parts[3:5] = []
    elif name.startswith("roi_heads.mask_head."):
        parts[2:4] = [f"mask_fcn{int(parts[2]) + 1}"]
    elif "_head.conv." in name and name.startswith("head."):
        parts[3:5] = [str(2 * int(parts[3]))]
    return ".".join(parts)


def pictures() -> None:
    """Pictures as torchvision prepares them, at two limits."""
    arrays: dict[str, Any] = {}
    for i, photo in enumerate(photos()):
        arrays[f"photo.{i}"] = photo
        image = torch.tensor(photo).permute(2, 0, 1) / 255
        for shortest, longest in ((64, 100), (43, 47)):
            transform = GeneralizedRCNNTransform(
                shortest, longest, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
            ).eval()
            prepared, _ = transform([image])
            arrays[f"{shortest}.{longest}.{i}"] = prepared.tensors[0]
            arrays[f"{shortest}.{longest}.{i}.size"] = np.array(prepared.image_sizes[0])
    meta = common.metadata(script="torchvision_detectors.py")
    common.save(common.DATA / "torchvision_pictures" / "pictures.safetensors", arrays, meta)


def models() -> None:
    meta = {
        **common.metadata(script="torchvision_detectors.py"),
        "torchvision": torchvision.__version__,
    }
    for seed, (name, (build, block, norm)) in enumerate(MODELS.items()):
        folder = common.DATA / name
        shutil.rmtree(folder, ignore_errors=True)
        model, config, architecture = build(block, norm)
        randomise(model, 90 + seed)
        arrays = reference(model, 0 if architecture == "retinanet" else 1)
        common.save(folder / "reference.safetensors", arrays, meta)
        randomise(model, 90 + seed)  # training has moved statistics
        state = {n: t.contiguous() for n, t in model.state_dict().items()}
        if name.endswith("-old"):
            state = {old_name(n): t for n, t in state.items()}
            torch.save(state, folder / "model.pth")
        common.save(folder / "model.safetensors", state, meta)
        written = {
            "id2label": {str(i): f"kind {i}" for i in range(CLASSES)},
            "bestiary": {"architecture": architecture, "config": config},
        }
        (folder / "config.json").write_text(json.dumps(written, indent=1) + "\n")
        processor = {"image_processor_type": "bestiary.DetectionPreprocess", **SIZES}
        processor |= {"resize": "torchvision", "divisor": 32}
        (folder / "preprocessor_config.json").write_text(json.dumps(processor, indent=1) + "\n")


def names() -> None:
    """Names and shapes of the published sizes, and their numbers of parameters."""
    found: dict[str, Any] = {"made_with": {"torchvision": torchvision.__version__}}
    for name in PUBLISHED:
        with torch.device("meta"):
            model = getattr(detection, name)(weights=None, weights_backbone=None)
        found[name] = common.listing(model)
        weights = detection.__dict__[PUBLISHED[name]].COCO_V1
        found[name]["parameters"] = weights.meta["num_params"]
        found[name]["metrics"] = weights.meta["_metrics"]["COCO-val2017"]
    path = common.DATA / "torchvision_detector_names.json.gz"
    path.write_bytes(gzip.compress(json.dumps(found, separators=(",", ":")).encode(), mtime=0))
    print(f"{path.name}: {path.stat().st_size} bytes")


PUBLISHED = {
    "retinanet_resnet50_fpn": "RetinaNet_ResNet50_FPN_Weights",
    "fasterrcnn_resnet50_fpn": "FasterRCNN_ResNet50_FPN_Weights",
    "maskrcnn_resnet50_fpn": "MaskRCNN_ResNet50_FPN_Weights",
    "fasterrcnn_mobilenet_v3_large_fpn": "FasterRCNN_MobileNet_V3_Large_FPN_Weights",
    "fasterrcnn_mobilenet_v3_large_320_fpn": "FasterRCNN_MobileNet_V3_Large_320_FPN_Weights",
}


if __name__ == "__main__":
    torch.set_num_threads(1)
    models()
    pictures()
    names()
