"""Vision models, one file per architecture, with their transforms, metrics and tasks.

Names are imported when they are first used.
"""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING, Any

_NAMES = {
    name: module
    for module, names in {
        "augment": "ColorJitter CutMix Mixup RandAugment RandomCrop RandomErasing "
        "RandomHorizontalFlip RandomResizedCrop RandomVerticalFlip TrivialAugment",
        "boxes": "Boxes batched_nms box_area box_giou box_iou clip_boxes convert_boxes nms",
        "depth_estimator": "Depth DepthEstimator",
        "detection_sets": "DetectionData detection_data",
        "detection_metrics": "DetectionReport",
        "detection_preprocess": "DetectionPreprocess",
        "detector": "Detector coco_json",
        "drawing": "draw_boxes",
        "embedder": "Embedder",
        "explain": "Explanation",
        "generated": "shape_scenes write_masks write_shapes",
        "labels": "imagenet_synsets label_names",
        "mask_generator": "MaskGenerator",
        "masks": "Mask draw_masks",
        "metrics": "ClassificationReport confusion_matrix top_k",
        "preprocess": "Preprocess",
        "samples": "sample_photographs",
        "scenes": "ball_scenes",
        "segmentation": "Segmentation",
        "segmentation_augment": "WithMask",
        "segmentation_losses": "dice_loss focal_loss",
        "segmentation_metrics": "SegmentationReport",
        "segmentation_sets": "SegmentationData segmentation_data",
        "segmenter": "Segmenter",
        "tasks": "ImageClassifier image_files",
        "transforms": "CenterCrop Compose Normalize Resize ToArray",
        "zero_shot": "ZeroShotClassifier",
    }.items()
    for name in names.split()
}

if TYPE_CHECKING:
    from .augment import ColorJitter as ColorJitter
    from .augment import CutMix as CutMix
    from .augment import Mixup as Mixup
    from .augment import RandAugment as RandAugment
    from .augment import RandomCrop as RandomCrop
    from .augment import RandomErasing as RandomErasing
    from .augment import RandomHorizontalFlip as RandomHorizontalFlip
    from .augment import RandomResizedCrop as RandomResizedCrop
    from .augment import RandomVerticalFlip as RandomVerticalFlip
    from .augment import TrivialAugment as TrivialAugment
    from .boxes import Boxes as Boxes
    from .boxes import batched_nms as batched_nms
    from .boxes import box_area as box_area
    from .boxes import box_giou as box_giou
    from .boxes import box_iou as box_iou
    from .boxes import clip_boxes as clip_boxes
    from .boxes import convert_boxes as convert_boxes
    from .boxes import nms as nms
    from .depth_estimator import Depth as Depth
    from .depth_estimator import DepthEstimator as DepthEstimator
    from .detection_metrics import DetectionReport as DetectionReport
    from .detection_preprocess import DetectionPreprocess as DetectionPreprocess
    from .detection_sets import DetectionData as DetectionData
    from .detection_sets import detection_data as detection_data
    from .detector import Detector as Detector
    from .detector import coco_json as coco_json
    from .drawing import draw_boxes as draw_boxes
    from .embedder import Embedder as Embedder
    from .explain import Explanation as Explanation
    from .generated import shape_scenes as shape_scenes
    from .generated import write_masks as write_masks
    from .generated import write_shapes as write_shapes
    from .labels import imagenet_synsets as imagenet_synsets
    from .labels import label_names as label_names
    from .mask_generator import MaskGenerator as MaskGenerator
    from .masks import Mask as Mask
    from .masks import draw_masks as draw_masks
    from .metrics import ClassificationReport as ClassificationReport
    from .metrics import confusion_matrix as confusion_matrix
    from .metrics import top_k as top_k
    from .preprocess import Preprocess as Preprocess
    from .samples import sample_photographs as sample_photographs
    from .scenes import ball_scenes as ball_scenes
    from .segmentation import Segmentation as Segmentation
    from .segmentation_augment import WithMask as WithMask
    from .segmentation_losses import dice_loss as dice_loss
    from .segmentation_losses import focal_loss as focal_loss
    from .segmentation_metrics import SegmentationReport as SegmentationReport
    from .segmentation_sets import SegmentationData as SegmentationData
    from .segmentation_sets import segmentation_data as segmentation_data
    from .segmenter import Segmenter as Segmenter
    from .tasks import ImageClassifier as ImageClassifier
    from .tasks import image_files as image_files
    from .transforms import CenterCrop as CenterCrop
    from .transforms import Compose as Compose
    from .transforms import Normalize as Normalize
    from .transforms import Resize as Resize
    from .transforms import ToArray as ToArray
    from .zero_shot import ZeroShotClassifier as ZeroShotClassifier

__all__ = sorted(_NAMES)


def __getattr__(name: str) -> Any:
    if name not in _NAMES:
        # No search among models: every `from . import file` comes here first.
        model = f" (a model? bt.load({name!r}))" if name[:1].islower() else ""
        raise AttributeError(
            f"module {__name__!r} has no attribute {name!r}{model}",
            name=name,
            obj=sys.modules[__name__],
        )
    value = getattr(importlib.import_module(f".{_NAMES[name]}", __name__), name)
    globals()[name] = value  # the next use does not come here
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_NAMES})
