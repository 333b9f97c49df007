"""Teaching a detector other classes, on one's own pictures with boxes.

All data is read and checked before anything is trained. The head that names classes is new; it
and what was trained before learn together, the trunk at a lower rate. Every object that the
data marks as a crowd is left out of the training, and not counted in the measure.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..core import data as loading
from ..core import nn, optim, random
from ..core.data.images import read_image
from ..core.data.seeding import sample_rng
from ..core.errors import ConfigError, DataError
from ..core.insight.charts import contact_sheet, line_chart, save_chart
from ..core.insight.runs.writer import Run, logged
from ..core.paths import check_folder
from ..core.tensor import Tensor
from ..core.training import History, Trainer
from ..hub.card import Card
from ..hub.filling import with_new_head
from ..hub.registry import architecture_by_name
from .augment import ColorJitter
from .boxes import Boxes
from .detection_augment import Chain, CropBoxes, FlipBoxes, PixelsOnly, kept, scaled
from .detection_metrics import DetectionReport
from .detection_sets import DetectionData, detection_data
from .detector import Detector
from .finetune import keep_statistics
from .instance_masks import filled_all
from .labelled import HELD_OUT

Array = np.ndarray[Any, Any]
Say = Callable[[str], None]
_TRUNK = ("backbone.", "patch_embed.", "blocks.", "pos_embed", "cls_token")


@dataclass(frozen=True)
class Recipe:
    """How to train a detector.

    Args:
        epochs: passes over the pictures.
        batch_size: pictures in a step.
        lr: learning rate of the head and of all that is no trunk; unless given 1e-4, and 2e-3
            from scratch.
        trunk_lr: of the trunk, times `lr`.
        weight_decay: of AdamW.
        clip_norm: largest norm of all gradients together.
        from_scratch: nothing was trained before: batch norms learn statistics, and the trunk
            learns at the full rate. Unless given: whether the model was loaded untrained.
        flip: mirror pictures at random; turn off where left and right differ.
        smallest_crop: least part of each side that is kept; 1 for no crops.
        jitter: by how much brightness, contrast and saturation change at most.
        held_out: share of the pictures kept for measuring, where the data has no split.
        seed: of everything random.
    """

    epochs: int = 20
    batch_size: int = 8
    lr: float | None = None
    trunk_lr: float = 0.1
    weight_decay: float = 1e-4
    clip_norm: float = 1.0
    from_scratch: bool | None = None
    flip: bool = True
    smallest_crop: float = 0.6
    jitter: float = 0.2
    held_out: float = 0.2
    seed: int = 0

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.batch_size < 1:
            raise ConfigError("epochs >= 1 and batch_size >= 1 are needed")
        if (
            not 0 < self.held_out < 1
            or not (self.lr is None or self.lr > 0)
            or not self.trunk_lr >= 0
        ):
            raise ConfigError(
                f"held_out={self.held_out} is a share between 0 and 1, lr={self.lr} positive and "
                f"trunk_lr={self.trunk_lr} not negative"
            )

    def augmentation(self) -> Chain:
        """What is done to training pictures before they are resized."""
        steps: list[Any] = [FlipBoxes()] if self.flip else []
        if self.smallest_crop < 1:
            steps.append(CropBoxes(self.smallest_crop))
        if self.jitter:
            steps.append(PixelsOnly(ColorJitter(self.jitter, self.jitter, self.jitter)))
        return Chain(tuple(steps))


def finetune(
    task: Detector,
    source: Any,
    *,
    out: str | Path | None = None,
    recipe: Recipe | None = None,
    bad_boxes: str = "raise",
    quiet: bool = False,
    **changes: Any,
) -> Detector:
    """Teach a detector other classes; the given task is left as it was.

    Args:
        source: COCO JSON, a folder of VOC or YOLO, or what `detection_data` gives.
        out: folder for the model, its card, learning curve, report and pictures of what it finds.
        recipe: how to train; single settings may be given by name: `epochs=10`.
        bad_boxes: of boxes that cannot be: "raise", or "skip".
        quiet: print nothing.

    Returns:
        A new task with the classes of the data. `task.card.training` says how it went.

    Raises:
        DataError: the data cannot be used; names the file and the place.
        ConfigError: settings that make no sense.
    """
    recipe = replace(recipe or Recipe(), **changes)
    say: Say = (
        (lambda _: None) if quiet else (lambda text: print(text, file=sys.stderr, flush=True))
    )
    start = time.perf_counter()
    if isinstance(source, DetectionData):
        found = source
    else:
        found = detection_data(source, bad_boxes=bad_boxes)
    if out is not None:
        check_folder(Path(out))
    if finds_masks(task):
        _check_outlines(found)
    train, held = _split(found, recipe)
    _describe(found, train, held, say)
    random.manual_seed(recipe.seed)
    new = _with_head(task, found)
    if recipe.from_scratch is None:
        untrained = not task.report.loaded and not task.card.training
        recipe = replace(recipe, from_scratch=untrained)
    if recipe.lr is None:
        recipe = replace(recipe, lr=2e-3 if recipe.from_scratch else 1e-4)
    with logged(out, {"model": task.card.name, **vars(recipe)}, new.module) as run:
        history = _train(new, found.part(train), found.part(held), recipe, quiet, run)
    new.module.eval()
    measured = found.part(held)
    report = DetectionReport.of(new.boxes(measured.paths), measured.targets, new.labels)
    new.card.training.update(
        {
            "data": found.source,
            "pictures": f"{len(train)} trained on, {len(held)} held out",
            "AP on the held-out pictures": f"{report.ap:.3f} (at IoU 0.5: {report.ap50:.3f})",
            "seconds": round(time.perf_counter() - start, 1),
            "recipe": ", ".join(f"{k} {v}" for k, v in vars(recipe).items()),
        }
    )
    say(f"held-out AP {report.ap:.3f}, at IoU 0.5 {report.ap50:.3f} ({len(held)} pictures)")
    if out is not None:
        _write(new, Path(out), history, report, measured)
        say(f"saved in {out}; load it with bt.load({str(out)!r})")
    return new


# -- before ------------------------------------------------------------------------------------


def _split(found: DetectionData, recipe: Recipe) -> tuple[Array, Array]:
    """Numbers of the pictures to train on and to hold out."""
    if found.splits:
        held = np.array([split == HELD_OUT for split in found.splits])
        return np.flatnonzero(~held), np.flatnonzero(held)
    if len(found) < 2:
        raise DataError(
            f"{found.source}: a single picture; two or more are needed, one to learn from and one "
            "to measure",
            source=found.source,
        )
    order = np.random.default_rng(recipe.seed).permutation(len(found))
    count = min(max(round(recipe.held_out * len(found)), 1), len(found) - 1)
    return np.sort(order[count:]), np.sort(order[:count])


def _describe(found: DetectionData, train: Array, held: Array, say: Say) -> None:
    say(f"data: {found.source}")
    names = zip(found.labels[:12], found.counts, strict=False)
    say(
        f"{len(found)} pictures, {found.counts.sum()} boxes: "
        + ", ".join(f"{name} {count}" for name, count in names)
        + (", ..." if len(found.labels) > 12 else "")
    )
    if found.skipped:
        say(f"{len(found.skipped)} boxes are left out, the first: {found.skipped[0]}")
    how = "as the data says" if found.splits else "at random"
    say(f"{len(train)} to train on, {len(held)} held out ({how})")
    missing = [n for n, c in zip(found.labels, found.part(train).counts, strict=True) if not c]
    if missing:
        raise DataError(
            f"nothing to train {', '.join(missing[:8])} on: no box of it is in the training part",
            labels=missing,
        )


def _with_head(task: Detector, found: DetectionData) -> Detector:
    """A copy of the task whose classes are those of the data."""
    architecture = architecture_by_name(task.architecture)
    if architecture is None:
        raise ConfigError(f"{task.architecture} is no architecture of this version")
    config = task.config
    if hasattr(config, "auxiliary_loss"):
        config = replace(config, auxiliary_loss=True)
    module, config = with_new_head(architecture, config, task.module, len(found.labels))
    module.to(device=task.device)
    card: Card = replace(task.card, training={"starting from": task.card.name}, metric=None)
    card.name = f"{task.card.name}, fine-tuned"
    card.note = f"classes: {', '.join(found.labels[:20])}"
    return Detector(
        module,
        architecture=task.architecture,
        config=config,
        preprocess=task.preprocess,
        labels=found.labels,
        card=card,
    )


# -- training ----------------------------------------------------------------------------------


def finds_masks(task: Detector) -> bool:
    """Whether a model finds masks, and so learns from outlines."""
    return bool(getattr(task.module, "finds_masks", False))


def _check_outlines(found: DetectionData) -> None:
    for path, boxes in zip(found.paths, found.targets, strict=True):
        known = boxes.outlines or [()] * len(boxes)
        crowd = np.zeros(len(boxes), np.bool_) if boxes.crowd is None else boxes.crowd
        missing = [i for i, outline in enumerate(known) if not outline and not crowd[i]]
        if missing:
            name = found.labels[boxes.labels[missing[0]]]
            raise DataError(
                f"{path}: a {name} has no outline, and a model that finds masks learns from them.\n"
                'Outlines are polygons in COCO JSON: "segmentation": [[x, y, x, y, ...]].\n'
                "Without any, teach a model that finds boxes: fasterrcnn-resnet50-fpn",
                file=str(path),
            )


class _Training(loading.Dataset[Any]):
    """Prepared training pictures with their boxes in pixels of these."""

    def __init__(self, task: Detector, found: DetectionData, recipe: Recipe) -> None:
        self._task, self._found = task, found
        self._masks = finds_masks(task)
        self._augment = recipe.augmentation()

    def __len__(self) -> int:
        return len(self._found)

    def __getitem__(self, index: int) -> tuple[Array, Boxes]:
        preprocess = self._task.preprocess
        image, boxes = read_image(self._found.paths[index]), self._found.targets[index]
        if boxes.crowd is not None:
            boxes = kept(boxes, ~boxes.crowd)
        rng = sample_rng()
        image, boxes = self._augment(image, boxes, rng)
        if preprocess.channels == 1:
            image = image.convert("L")
        before = image.height, image.width
        size = preprocess.target(*before)
        boxes = scaled(boxes, before, size)
        masks = filled_all(boxes.outlines, size) if self._masks else None
        return preprocess.prepared(image), Boxes(boxes.boxes, boxes.labels, masks=masks)


def _as_they_are(samples: list[Any]) -> list[Any]:
    return samples


def _train(
    task: Detector,
    found: DetectionData,
    held: DetectionData,
    recipe: Recipe,
    quiet: bool,
    run: Run | None,
) -> History:
    loader = loading.DataLoader(
        _Training(task, found, recipe),
        batch_size=min(recipe.batch_size, len(found)),
        shuffle=True,
        collate=_as_they_are,
        workers=1,
        seed=recipe.seed,
        drop_last=len(found) > recipe.batch_size,
    )
    optimizer = _optimizer(task.module, recipe)
    steps = recipe.epochs * len(loader)
    warm = max(1, min(steps // 10, 200))
    schedule = optim.SequentialLR(
        optimizer,
        [
            optim.LinearLR(optimizer, start_factor=0.05, total_iters=warm),
            optim.CosineAnnealingLR(optimizer, max(1, steps - warm)),
        ],
        milestones=[warm],
    )

    def loss(module: nn.Module, samples: list[Any]) -> tuple[Tensor, dict[str, float]]:
        if not recipe.from_scratch:
            keep_statistics(module)
        batch = task.preprocess.padded([array for array, _ in samples])
        pixels = Tensor(batch.pixel_values).to(task.device)
        mask = Tensor(batch.pixel_mask).to(task.device)
        model: Any = module
        result: tuple[Tensor, dict[str, float]] = model.loss(
            pixels, mask, [boxes for _, boxes in samples], batch.sizes
        )
        return result

    def evaluate(module: nn.Module) -> dict[str, float]:
        report = DetectionReport.of(task.boxes(held.paths), held.targets, task.labels)
        return {"AP": report.ap, "AP50": report.ap50}

    trainer = Trainer(
        task.module,
        optimizer,
        loss,
        loader,
        epochs=recipe.epochs,
        evaluate=evaluate,
        schedule=schedule,
        clip_norm=recipe.clip_norm,
        quiet=quiet,
        run=run,
    )
    return trainer.fit()


def _optimizer(module: nn.Module, recipe: Recipe) -> optim.AdamW:
    lr = recipe.lr or 0.0
    trunk: list[nn.Parameter] = []
    rest: list[nn.Parameter] = []
    for name, parameter in module.named_parameters():
        (trunk if name.startswith(_TRUNK) and not recipe.from_scratch else rest).append(parameter)
    groups: list[dict[str, Any]] = [{"params": rest}]
    if trunk:
        groups.append({"params": trunk, "lr": lr * recipe.trunk_lr})
    return optim.AdamW(groups, lr=lr, weight_decay=recipe.weight_decay)


# -- the result --------------------------------------------------------------------------------


def _write(
    task: Detector, folder: Path, history: History, report: DetectionReport, held: DetectionData
) -> None:
    task.save(folder)
    curve = line_chart(
        {name: history.column(name) for name in ("loss", "AP", "AP50")},
        title="Training loss, and average precision on held-out pictures",
    )
    save_chart(curve, folder / "learning_curve.png")
    shown = [task.draw(path) for path in held.paths[:6]]
    save_chart(
        contact_sheet(shown, [path.name for path in held.paths[:6]]), folder / "examples.png"
    )
    (folder / "report.json").write_text(
        json.dumps({**report.to_dict(), "history": history.epochs}, indent=1), encoding="utf-8"
    )
