"""Teaching a segmenter other classes, from pictures and masks.

All layers learn at once, the new head faster than a trained trunk. Pictures and masks are decoded
once, into copies a little larger than the network's input, from which augmentation cuts. A network
that was loaded untrained learns as a whole, and its batch norms learn statistics.
"""

from __future__ import annotations

import copy
import json
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
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
from ..core.insight.progress import progress
from ..core.insight.runs.writer import Run, logged
from ..core.insight.system import cpu_count
from ..core.nn import functional as F
from ..core.paths import check_folder
from ..core.state import inference_mode
from ..core.tensor import Tensor
from ..core.training import History, Trainer
from ..hub.filling import with_new_head
from ..hub.registry import architecture_by_name
from .augment import ColorJitter, RandomHorizontalFlip, RandomResizedCrop
from .finetune import keep_statistics
from .labelled import HELD_OUT
from .segmentation_augment import WithMask
from .segmentation_losses import dice_loss, focal_loss
from .segmentation_metrics import IGNORE, SegmentationReport
from .segmentation_sets import SegmentationData, segmentation_data
from .segmenter import Segmenter
from .transforms import Array, Resize

Say = Callable[[str], None]
LOSSES = ("cross-entropy", "focal")
_MARGIN = 8 / 7  # the kept copy is larger than the network's input by this


@dataclass(frozen=True)
class Recipe:
    """How to train a segmenter.

    Args:
        epochs: passes over the pictures.
        batch_size: pictures in a step.
        lr: learning rate of the head, and of everything in a network that was untrained.
        trunk_lr: of all other layers, times `lr`.
        weight_decay: of AdamW.
        loss: "cross-entropy", or "focal", which turns away from what is already right.
        dice: weight of the Dice loss beside it, by which small classes count as much as large.
        from_scratch: nothing was trained before. Unless given: whether it was loaded untrained.
        flip: mirror pictures at random; turn off where left and right differ.
        smallest_crop: least part of a picture's area that augmentation keeps; 1 for no crops.
        jitter: by how much brightness, contrast and saturation change at most.
        held_out: share of the pictures kept for measuring, where the data has no split.
        seed: of everything random.
    """

    epochs: int = 20
    batch_size: int = 8
    lr: float = 2e-3
    trunk_lr: float = 0.1
    weight_decay: float = 0.01
    loss: str = "cross-entropy"
    dice: float = 0.5
    from_scratch: bool | None = None
    flip: bool = True
    smallest_crop: float = 0.4
    jitter: float = 0.2
    held_out: float = 0.2
    seed: int = 0

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.batch_size < 2:
            raise ConfigError("epochs >= 1 and batch_size >= 2 are needed")
        if not 0 < self.held_out < 1 or not 0 < self.smallest_crop <= 1:
            raise ConfigError(
                f"held_out={self.held_out} and smallest_crop={self.smallest_crop} are shares "
                "between 0 and 1"
            )
        if not self.lr > 0 or not self.trunk_lr >= 0 or not self.dice >= 0:
            raise ConfigError(
                f"lr={self.lr} is positive, trunk_lr={self.trunk_lr} and dice={self.dice} are not "
                "negative"
            )
        if self.loss not in LOSSES:
            raise ConfigError(f"loss={self.loss!r} is none of {', '.join(LOSSES)}", got=self.loss)


def finetune(
    task: Segmenter,
    source: Any,
    *,
    out: str | Path | None = None,
    recipe: Recipe | None = None,
    ignore: int | None = IGNORE,
    binary: bool = False,
    quiet: bool = False,
    **changes: Any,
) -> Segmenter:
    """Teach a segmenter other classes; the given task is left as it was.

    A head for the same classes is kept, and learns on.

    Args:
        source: a folder of pictures and masks, or what `segmentation_data` gives.
        out: folder for the model, its card, learning curve, report and pictures of what it says.
        recipe: how to train; single settings may be given by name: `epochs=10`.
        ignore, binary: see `segmentation_data`.
        quiet: print nothing.

    Returns:
        A new task with the classes of the data. `task.card.training` says how it went.

    Raises:
        DataError: the data cannot be used; names the file.
        ConfigError: settings that make no sense.
    """
    recipe = replace(recipe or Recipe(), **changes)
    say: Say = (
        (lambda _: None) if quiet else (lambda text: print(text, file=sys.stderr, flush=True))
    )
    start = time.perf_counter()
    if isinstance(source, SegmentationData):
        found = source
    else:
        found = segmentation_data(source, ignore=ignore, binary=binary)
    if out is not None:
        check_folder(Path(out))
    train, held = _split(found, recipe)
    say(f"data: {found.source}; classes: {', '.join(found.labels[:12])}")
    say(f"{len(train)} pictures to train on, {len(held)} held out")
    random.manual_seed(recipe.seed)
    if recipe.from_scratch is None:
        untrained = not task.report.loaded and not task.card.training
        recipe = replace(recipe, from_scratch=untrained)
    new = _with_head(task, found)
    pictures = _decode(new, found, False if quiet else None)
    with logged(out, {"model": task.card.name, **vars(recipe)}, new.module) as run:
        history = _train(new, pictures, train, held, recipe, quiet, run)
    new.module.eval()
    measured = found.part(held)
    report = new.evaluate(measured)
    new.card.training.update(
        {
            "data": found.source,
            "pictures": f"{len(train)} trained on, {len(held)} held out",
            "mean IoU on the held-out pictures": f"{report.mean_iou:.4f}",
            "pixel accuracy on the held-out pictures": f"{report.accuracy:.4f}",
            "seconds": round(time.perf_counter() - start, 1),
            "recipe": ", ".join(f"{k} {v}" for k, v in vars(recipe).items()),
        }
    )
    say(str(report))
    if out is not None:
        _write(new, Path(out), history, report, measured)
        say(f"saved in {out}; load it with bt.load({str(out)!r})")
    return new


# -- before ------------------------------------------------------------------------------------


def _split(found: SegmentationData, recipe: Recipe) -> tuple[Array, Array]:
    """Numbers of the pictures to train on and to hold out."""
    if found.splits:
        held = np.array([split == HELD_OUT for split in found.splits])
        return np.flatnonzero(~held), np.flatnonzero(held)
    if len(found) < 3:
        raise DataError(
            f"{found.source}: three or more are needed, two to learn from and one to measure",
            source=found.source,
        )
    order = np.random.default_rng(recipe.seed).permutation(len(found))
    count = min(max(round(recipe.held_out * len(found)), 1), len(found) - 2)
    return np.sort(order[count:]), np.sort(order[:count])


def _with_head(task: Segmenter, found: SegmentationData) -> Segmenter:
    """A copy of the task whose classes are those of the data."""
    architecture = architecture_by_name(task.architecture)
    if architecture is None:
        raise ConfigError(f"{task.architecture} is no architecture of this version")
    if task.labels == found.labels:
        module, config = copy.deepcopy(task.module), task.config
    else:
        module, config = with_new_head(architecture, task.config, task.module, len(found.labels))
    module.to(device=task.device)
    card = replace(task.card, training={"starting from": task.card.name}, metric=None)
    card.name = f"{task.card.name}, fine-tuned"
    card.note = f"classes: {', '.join(found.labels[:20])}"
    return Segmenter(
        module,
        architecture=task.architecture,
        config=config,
        preprocess=task.preprocess,
        labels=found.labels,
        card=card,
    )


@dataclass
class _Pictures:
    """Resized copies of pictures and masks, decoded once."""

    images: Array  # (N, H, W, 3) uint8
    masks: Array  # (N, H, W) uint8, IGNORE where nothing counts


def _decode(task: Segmenter, found: SegmentationData, shown: bool | None) -> _Pictures:
    height, width = (round(side * _MARGIN) for side in task.preprocess.size)
    smooth = Resize((height, width), "exact", task.preprocess.resample)
    nearest = Resize((height, width), "exact", "nearest")
    images = np.empty((len(found), height, width, 3), np.uint8)
    masks = np.empty((len(found), height, width), np.uint8)

    def read(i: int) -> None:
        from PIL import Image

        images[i] = np.asarray(smooth(read_image(found.paths[i], at_least=2 * max(height, width))))
        mask = found.mask(i)
        if found.ignore is not None:
            mask[mask == found.ignore] = IGNORE
        masks[i] = np.asarray(nearest(Image.fromarray(mask)))

    with ThreadPoolExecutor(max(2, cpu_count())) as pool:
        done = pool.map(read, range(len(found)))
        for _ in progress(done, len(found), "reading pictures", "pictures", enabled=shown):
            pass
    return _Pictures(images, masks)


# -- training ----------------------------------------------------------------------------------


class _Training(loading.Dataset[Any]):
    """Augmented training pictures, prepared, and their masks."""

    def __init__(self, task: Segmenter, pictures: _Pictures, chosen: Array, recipe: Recipe) -> None:
        self._pictures, self._chosen = pictures, chosen
        self._channels, self._to_array = task.preprocess.channels, task.preprocess.to_array()
        size, resample = task.preprocess.size, task.preprocess.resample
        steps: list[Any] = [RandomHorizontalFlip()] if recipe.flip else []
        if recipe.smallest_crop < 1:
            steps.append(RandomResizedCrop(size, (recipe.smallest_crop, 1), resample=resample))
        else:
            steps.append(Resize(size, "exact", resample))
        if recipe.jitter:
            steps.append(ColorJitter(recipe.jitter, recipe.jitter, recipe.jitter))
        self._augment = WithMask(tuple(steps))

    def __len__(self) -> int:
        return len(self._chosen)

    def __getitem__(self, index: int) -> tuple[Array, Array]:
        from PIL import Image

        i = int(self._chosen[index])
        image = Image.fromarray(self._pictures.images[i])
        image, mask = self._augment(image, Image.fromarray(self._pictures.masks[i]), sample_rng())
        if self._channels == 1:
            image = image.convert("L")
        return self._to_array(image), np.asarray(mask, np.int64)


def _resized(logits: Tensor, mask: Tensor) -> Tensor:
    """Logits for every pixel of the masks."""
    size = (mask.shape[-2], mask.shape[-1])
    if logits.shape[2:] == size:
        return logits
    return F.interpolate(logits, size=size, mode="bilinear", align_corners=False)


def _train(
    task: Segmenter,
    pictures: _Pictures,
    train: Array,
    held: Array,
    recipe: Recipe,
    quiet: bool,
    run: Run | None,
) -> History:
    loader = loading.DataLoader(
        _Training(task, pictures, train, recipe),
        batch_size=min(recipe.batch_size, len(train)),
        shuffle=True,
        workers=2,
        seed=recipe.seed,
        drop_last=len(train) > recipe.batch_size,
    )
    optimizer = _optimizer(task, recipe)
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

    def loss(module: nn.Module, batch: Any) -> Tensor:
        if not recipe.from_scratch:
            keep_statistics(module)
        pixels, mask = batch[0].to(task.device), batch[1].to(task.device)
        logits = _resized(module(pixels), mask)
        if recipe.loss == "focal":
            value = focal_loss(logits, mask)
        else:
            value = F.cross_entropy(logits, mask, ignore_index=IGNORE)
        return value + recipe.dice * dice_loss(logits, mask) if recipe.dice else value

    def evaluate(module: nn.Module) -> dict[str, float]:
        return {"mean IoU": _quick_report(task, pictures, held, recipe.batch_size).mean_iou}

    trainer = Trainer(
        task.module,
        optimizer,
        loss,
        loader,
        epochs=recipe.epochs,
        evaluate=evaluate,
        schedule=schedule,
        clip_norm=1.0,
        quiet=quiet,
        run=run,
    )
    return trainer.fit()


def _optimizer(task: Segmenter, recipe: Recipe) -> optim.AdamW:
    architecture = architecture_by_name(task.architecture)
    heads = tuple(f"{head}." for head in architecture.head) if architecture is not None else ()
    head: list[nn.Parameter] = []
    trunk: list[nn.Parameter] = []
    for name, parameter in task.module.named_parameters():
        (head if recipe.from_scratch or name.startswith(heads) else trunk).append(parameter)
    groups: list[dict[str, Any]] = [{"params": head}]
    if trunk:
        groups.append({"params": trunk, "lr": recipe.lr * recipe.trunk_lr})
    return optim.AdamW(groups, lr=recipe.lr, weight_decay=recipe.weight_decay)


# -- the result --------------------------------------------------------------------------------


def _quick_report(
    task: Segmenter, pictures: _Pictures, held: Array, batch: int
) -> SegmentationReport:
    """On the resized copies, whole: for the learning curve."""
    from PIL import Image

    resize = Resize(task.preprocess.size, "exact", task.preprocess.resample)
    nearest = Resize(task.preprocess.size, "exact", "nearest")
    array = task.preprocess.to_array()

    def pairs() -> Any:
        for start in range(0, len(held), batch):
            own = held[start : start + batch]
            images = [resize(Image.fromarray(pictures.images[i])) for i in own]
            if task.preprocess.channels == 1:
                images = [image.convert("L") for image in images]
            masks = [np.asarray(nearest(Image.fromarray(pictures.masks[i]))) for i in own]
            with inference_mode():
                pixels = Tensor(np.stack([array(image) for image in images])).to(task.device)
                found = _resized(task.module(pixels), Tensor(masks[0])).cpu().array.argmax(1)
            yield from zip(found, masks, strict=True)

    return SegmentationReport.of(pairs(), task.labels)


def _write(
    task: Segmenter,
    folder: Path,
    history: History,
    report: SegmentationReport,
    held: SegmentationData,
) -> None:
    task.save(folder)
    curve = line_chart(
        {name: history.column(name) for name in ("loss", "mean IoU")},
        title="Training loss, and mean IoU on held-out pictures",
    )
    save_chart(curve, folder / "learning_curve.png")
    shown = [task.draw(path) for path in held.paths[:6]]
    save_chart(contact_sheet(shown, [p.name for p in held.paths[:6]]), folder / "held_out.png")
    (folder / "report.json").write_text(
        json.dumps({**report.to_dict(), "history": history.epochs}, indent=1), encoding="utf-8"
    )
