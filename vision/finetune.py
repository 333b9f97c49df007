"""Fine-tuning an image classifier on one's own photographs.

First the new head alone, on features that the frozen trunk computes once; then all layers at a
lower rate on augmented pictures. Each photograph is decoded once, into a resized copy. Batch
norms keep their running statistics: a few hundred pictures are too few to estimate new ones.
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..core import data, nn, optim, random
from ..core.data.images import read_image
from ..core.errors import ConfigError, DataError
from ..core.insight.charts import confusion_chart, line_chart, save_chart
from ..core.insight.progress import progress
from ..core.insight.runs.writer import Run, logged
from ..core.insight.system import cpu_count
from ..core.nn import functional as F
from ..core.paths import check_folder
from ..core.state import inference_mode
from ..core.tensor import Tensor
from ..core.training import History, Trainer
from ..hub.card import Card
from ..hub.filling import with_new_head
from ..hub.registry import architecture_by_name
from .augment import Mixup, RandomHorizontalFlip, RandomResizedCrop
from .image_task import ImageTask
from .labelled import HELD_OUT, LabelledPictures, folds, labelled_pictures, stratified
from .layer_rates import layer_groups, layers_of
from .metrics import ClassificationReport
from .tasks import ImageClassifier
from .transforms import CenterCrop, Resize

Array = np.ndarray[Any, Any]
Say = Callable[[str], None]

_MARGIN = 256 / 224  # the kept copy is larger than the crop by this, for augmentation
_FEW = 500  # below this many pictures, accuracy is estimated by cross-validation
_FOLDS = 5


@dataclass(frozen=True)
class Recipe:
    """How to fine-tune.

    Args:
        epochs: passes over the pictures with all layers; 0 trains the head alone.
        head_epochs: passes over the features with the head alone.
        batch_size: pictures in a step.
        lr: learning rate of the trunk in the second stage.
        head_lr: learning rate of the head.
        weight_decay: of AdamW.
        smoothing: label smoothing.
        smallest_crop: least part of a picture's area that augmentation keeps.
        flip: mirror pictures at random; turn off where left and right differ, as in text.
        held_out: share of each class kept for measuring, where the data has no split.
        layer_decay: each layer of the trunk learns at this times the rate of the next; the last
            one at `lr`. 1: all at one rate.
        mixup: of the beta distribution by which pictures are blended in the second stage, 0.2 say;
            0: not at all.
        ema: how much of an average of the weights is kept at each step of the second stage, 0.99
            say; the average is then the result. 0: none.
        freeze: "trunk" lets the head alone learn in the second stage too, on augmented pictures.
        seed: of everything random.
    """

    epochs: int = 5
    head_epochs: int = 30
    batch_size: int = 32
    lr: float = 2e-4
    head_lr: float = 2e-3
    weight_decay: float = 0.01
    smoothing: float = 0.1
    smallest_crop: float = 0.35
    flip: bool = True
    held_out: float = 0.2
    layer_decay: float = 1.0
    mixup: float = 0.0
    ema: float = 0.0
    freeze: str | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.epochs < 0 or self.head_epochs < 1 or self.batch_size < 2:
            raise ConfigError("epochs >= 0, head_epochs >= 1 and batch_size >= 2 are needed")
        if not (0 < self.lr < math.inf and 0 < self.head_lr < math.inf):
            raise ConfigError(
                f"learning rates are numbers above 0, got lr={self.lr}, head_lr={self.head_lr}"
            )
        if not 0 < self.held_out < 1:
            raise ConfigError(f"held_out is a share between 0 and 1, got {self.held_out}")
        if not 0 < self.layer_decay <= 1 or not 0 <= self.ema < 1 or not 0 <= self.mixup < math.inf:
            raise ConfigError(
                f"layer_decay={self.layer_decay} lies above 0 and up to 1, ema={self.ema} from 0 "
                f"to below 1, and mixup={self.mixup} is not negative"
            )
        if self.freeze not in (None, "trunk"):
            raise ConfigError(f"freeze is 'trunk' or None, got {self.freeze!r}", got=self.freeze)


@dataclass
class _Pictures:
    """Resized copies of the photographs, decoded once."""

    large: Array  # (N, R, R, 3) uint8, what augmentation crops from
    exact: Array  # (N, H, W, 3) uint8, what the model's own preprocessing shows it
    targets: Array  # (N,)


def finetune(
    task: ImageTask,
    source: str | Path,
    *,
    out: str | Path | None = None,
    recipe: Recipe | None = None,
    quiet: bool = False,
    **changes: Any,
) -> ImageClassifier:
    """Teach a classifier other classes; the given task is left as it was.

    Args:
        source: a folder with a folder for each class, or a CSV file; see `labelled_pictures`.
        out: folder for the model, its card, learning curve and confusion matrix.
        recipe: how to train; single settings may be given by name: `epochs=10`.
        quiet: print nothing.

    Returns:
        A new task with the new labels. `task.card.training` says how it went.

    Raises:
        DataError: the pictures cannot be used; names the file or line.
        ConfigError: settings that make no sense.
    """
    recipe = replace(recipe or Recipe(), **changes)
    say: Say = (
        (lambda _: None) if quiet else (lambda text: print(text, file=sys.stderr, flush=True))
    )
    start = time.perf_counter()
    found = labelled_pictures(source)
    if out is not None:
        check_folder(Path(out))
    train, held = _split(found, recipe)
    _describe(found, train, held, say)
    random.manual_seed(recipe.seed)
    architecture = architecture_by_name(task.architecture)
    if architecture is None or not architecture.head:
        raise ConfigError(f"{task.architecture} has no head that could be replaced")
    module, config = with_new_head(architecture, task.config, task.module, len(found.labels))
    module.to(device=task.device)
    new = ImageClassifier(
        module,
        architecture=task.architecture,
        config=config,
        preprocess=task.preprocess,
        labels=found.labels,
        card=_card(task, found),
    )
    shown = False if quiet else None  # progress: by itself, or not at all
    pictures = _decode(new, found, shown)
    head = module.get_submodule(architecture.head[0])
    _preflight(new, pictures, recipe, len(train), say)
    features = _features(new, pictures, recipe, shown)
    if len(found.paths) < _FEW:
        _cross_validate(new, head, features, found.targets, recipe, say)
    history = _train_head(new, head, features, found.targets, train, held, recipe)
    if recipe.epochs:
        with logged(out, {"model": task.card.name, **vars(recipe)}, module) as run:
            _append(history, _train_all(new, head, pictures, train, held, recipe, quiet, run))
    module.eval()
    report = _report(new, pictures, held)
    new.card.training.update(
        {
            "data": found.source,
            "pictures": f"{len(train)} trained on, {len(held)} held out",
            "accuracy on the held-out pictures": f"{100 * report.accuracy:.1f} %",
            "seconds": round(time.perf_counter() - start, 1),
            "recipe": ", ".join(f"{k} {v}" for k, v in vars(recipe).items()),
        }
    )
    new.card.results = [
        {
            "name": "accuracy",
            "value": round(report.accuracy, 4),
            "dataset": Path(source).name,
            "split": f"{len(held)} held-out pictures",
        }
    ]
    say(f"held-out accuracy {100 * report.accuracy:.1f} % ({len(held)} pictures)")
    if out is not None:
        _write(new, Path(out), history, report)
        say(f"saved in {out}; load it with bt.load({str(out)!r})")
    return new


# -- the data ----------------------------------------------------------------------------------


def _split(found: LabelledPictures, recipe: Recipe) -> tuple[Array, Array]:
    if found.splits:
        held = np.array([s == HELD_OUT for s in found.splits])
        train, rest = np.flatnonzero(~held), np.flatnonzero(held)
        if not len(train) or not len(rest):
            raise DataError("one of the splits is empty; name both, or give no split")
        return train, rest
    few = found.counts < 2
    if few.any():
        names = [found.labels[i] for i in np.flatnonzero(few)]
        raise DataError(
            "a class needs two pictures or more, one to learn from and one to measure.\n"
            f"Fewer have: {', '.join(names[:8])}{', ...' if len(names) > 8 else ''}",
            labels=names,
        )
    return stratified(found.targets, recipe.held_out, recipe.seed)


def _describe(found: LabelledPictures, train: Array, held: Array, say: Say) -> None:
    counts = found.counts
    say(f"data: {found.source}")
    say(
        f"{len(found.paths)} pictures, {len(found.labels)} classes: "
        + ", ".join(f"{n} {c}" for n, c in zip(found.labels[:12], counts, strict=False))
        + (", ..." if len(found.labels) > 12 else "")
    )
    how = "as the data says" if found.splits else "every class's share"
    say(f"{len(train)} to train on, {len(held)} held out ({how})")
    if counts.max() > 5 * counts.min():
        say(
            f"the classes are uneven ({counts.min()} to {counts.max()} pictures): rare ones will "
            "be predicted too seldom; more pictures of them help most"
        )


def _decode(task: ImageClassifier, found: LabelledPictures, shown: bool | None) -> _Pictures:
    height, width = task.preprocess.size
    side = math.ceil(max(height, width) * _MARGIN)
    resize, crop = Resize(side, "shorter", task.preprocess.resample), CenterCrop((side, side))
    count = len(found.paths)
    large = np.empty((count, side, side, 3), np.uint8)
    exact = np.empty((count, height, width, 3), np.uint8)
    prepare = replace(task.preprocess, mean=(0.0,) * 3, std=(1.0,) * 3)

    def read(i: int) -> None:
        image = read_image(found.paths[i], at_least=2 * side)
        large[i] = np.asarray(crop(resize(image)))
        exact[i] = np.asarray(prepare.picture(image))

    with ThreadPoolExecutor(max(2, cpu_count())) as pool:
        done = pool.map(read, range(count))
        for _ in progress(done, count, "reading pictures", "pictures", enabled=shown):
            pass
    return _Pictures(large, exact, found.targets)


def _to_batch(task: ImageClassifier, pixels: Array) -> Tensor:
    """Pictures (B, H, W, 3) uint8 as the network's input, in channels-last memory."""
    p = task.preprocess
    scale = (np.float32(p.scale) / np.asarray(p.std, np.float32)).astype(np.float32)
    shift = (np.asarray(p.mean, np.float32) / np.asarray(p.std, np.float32)).astype(np.float32)
    if p.channels == 1:
        pixels = np.asarray(pixels, np.float32) @ np.array([[0.299], [0.587], [0.114]], np.float32)
    values = pixels * scale - shift
    return Tensor(values.transpose(0, 3, 1, 2)).to(task.device)


class _Augmented(data.Dataset[Any]):
    """Randomly cropped and mirrored training pictures, as uint8."""

    def __init__(
        self, task: ImageClassifier, pictures: _Pictures, chosen: Array, recipe: Recipe
    ) -> None:
        self._pictures, self._chosen = pictures, chosen
        self._crop = RandomResizedCrop(
            task.preprocess.size, (recipe.smallest_crop, 1.0), resample=task.preprocess.resample
        )
        self._flip = RandomHorizontalFlip() if recipe.flip else None

    def __len__(self) -> int:
        return len(self._chosen)

    def __getitem__(self, index: int) -> Any:
        from PIL import Image

        i = int(self._chosen[index])
        image = self._crop(Image.fromarray(self._pictures.large[i]))
        if self._flip is not None:
            image = self._flip(image)
        return np.asarray(image), self._pictures.targets[i]


# -- the two stages ----------------------------------------------------------------------------


def _preflight(
    task: ImageClassifier, pictures: _Pictures, recipe: Recipe, count: int, say: Say
) -> None:
    """One batch through the network: shapes, the loss to expect, time and memory."""
    size = min(recipe.batch_size, len(pictures.exact))
    x = _to_batch(task, pictures.exact[:size])
    y = Tensor(pictures.targets[:size]).to(task.device)
    task.module.train()
    keep_statistics(task.module)
    for _ in range(2):  # the first one is slower, and tells nothing of the rest
        begin = time.perf_counter()
        loss = F.cross_entropy(task.module(x), y)
        loss.backward()
        seconds = time.perf_counter() - begin
        task.module.zero_grad()
    expected = math.log(len(task.labels))
    steps = recipe.epochs * math.ceil(count / recipe.batch_size)
    memory = pictures.large.nbytes + pictures.exact.nbytes
    say(
        f"first batch: {tuple(x.shape)}, loss {loss.item():.2f} (guessing gives {expected:.2f}); "
        f"about {steps * seconds + len(pictures.exact) * seconds / size:.0f} s to train, "
        f"{memory / 1e6:.0f} MB of pictures in memory"
    )


def keep_statistics(module: nn.Module) -> None:
    """Batch norms use their running statistics and leave them as they are."""
    for part in module.modules():
        if isinstance(part, (nn.BatchNorm1d, nn.BatchNorm2d)):
            part.eval()


def _features(
    task: ImageClassifier, pictures: _Pictures, recipe: Recipe, shown: bool | None
) -> Array:
    """What the head sees of each picture (N, D), mirrored ones after them."""
    task.module.eval()
    rows = []
    with inference_mode():
        views = [pictures.exact] + ([pictures.exact[:, :, ::-1]] if recipe.flip else [])
        starts = range(0, len(pictures.exact), recipe.batch_size)
        total = len(views) * len(pictures.exact)
        with progress(total=total, what="features", unit="pictures", enabled=shown) as bar:
            for view in views:
                for start in starts:
                    batch = view[start : start + recipe.batch_size]
                    rows.append(task.module.embed(_to_batch(task, batch)).cpu().array)
                    bar.update(len(batch))
    return np.concatenate(rows)


def _train_head(
    task: ImageClassifier,
    head: nn.Module,
    features: Array,
    targets: Array,
    train: Array,
    held: Array,
    recipe: Recipe,
) -> History:
    """Train the head on the features of the training pictures, mirrored ones included."""
    count = len(targets)
    mirrored = len(features) // count
    rows = np.concatenate([train + k * count for k in range(mirrored)])
    return _fit_head(head, features, np.tile(targets, mirrored), rows, held, recipe, task.device)


def _fit_head(
    head: nn.Module,
    features: Array,
    targets: Array,
    rows: Array,
    held: Array,
    recipe: Recipe,
    device: Any,
) -> History:
    inputs, wanted = Tensor(features[held]).to(device), targets[held]
    loader = data.DataLoader(
        data.ArrayDataset(features[rows], targets[rows]),
        batch_size=min(4 * recipe.batch_size, len(rows)),
        shuffle=True,
        device=device,
        seed=recipe.seed,
    )
    optimizer = optim.AdamW(head.parameters(), lr=recipe.head_lr, weight_decay=recipe.weight_decay)
    steps = recipe.head_epochs * len(loader)

    def loss(module: nn.Module, batch: Any) -> Tensor:
        return F.cross_entropy(module(batch[0]), batch[1], label_smoothing=recipe.smoothing)

    def evaluate(module: nn.Module) -> dict[str, float]:
        return {"accuracy": float((module(inputs).cpu().array.argmax(1) == wanted).mean())}

    trainer = Trainer(
        head,
        optimizer,
        loss,
        loader,
        epochs=recipe.head_epochs,
        evaluate=evaluate,
        schedule=optim.CosineAnnealingLR(optimizer, steps),
        quiet=True,
    )
    return trainer.fit()


def _cross_validate(
    task: ImageClassifier,
    head: nn.Module,
    features: Array,
    targets: Array,
    recipe: Recipe,
    say: Say,
) -> None:
    """With few pictures one held-out part says little: measure the head on five."""
    import copy

    parts = folds(targets, _FOLDS, recipe.seed)
    found = []
    for part in parts:
        if not len(part):
            continue
        fresh = copy.deepcopy(head)
        rest = np.setdiff1d(np.arange(len(targets)), part)
        history = _fit_head(
            fresh, features[: len(targets)], targets, rest, part, recipe, task.device
        )
        found.append(history.epochs[-1]["accuracy"])
    mean, spread = float(np.mean(found)), float(np.std(found))
    text = f"{100 * mean:.1f} ± {100 * spread:.1f} % over {len(found)} parts"
    task.card.training["accuracy of the head alone, cross-validated"] = text
    say(f"cross-validated accuracy of the head alone: {text}")


def _train_all(
    task: ImageClassifier,
    head: nn.Module,
    pictures: _Pictures,
    train: Array,
    held: Array,
    recipe: Recipe,
    quiet: bool,
    run: Run | None,
) -> History:
    loader = data.DataLoader(
        _Augmented(task, pictures, train, recipe),
        batch_size=recipe.batch_size,
        shuffle=True,
        workers=2,
        seed=recipe.seed,
        drop_last=len(train) > recipe.batch_size,
    )
    trunk = layers_of(task.module, head)
    groups: list[dict[str, Any]] = [{"params": list(head.parameters())}]
    if recipe.freeze is None:
        rated = trunk if recipe.layer_decay < 1 else [[p for layer in trunk for p in layer]]
        groups += layer_groups(rated, recipe.lr, recipe.layer_decay)
    learning = recipe.head_lr / 4
    optimizer = optim.AdamW(groups, lr=learning, weight_decay=recipe.weight_decay)
    steps = recipe.epochs * len(loader)
    warm = max(1, steps // 10)
    schedule = optim.SequentialLR(
        optimizer,
        [
            optim.LinearLR(optimizer, start_factor=0.1, total_iters=warm),
            optim.CosineAnnealingLR(optimizer, max(1, steps - warm)),
        ],
        milestones=[warm],
    )

    ema = optim.EMA(task.module, recipe.ema, warmup=True) if recipe.ema else None
    mixup = Mixup(len(task.labels), recipe.mixup, recipe.smoothing) if recipe.mixup else None
    rng = np.random.default_rng(recipe.seed)

    def loss(module: nn.Module, batch: Any) -> Tensor:
        keep_statistics(module)
        pixels, targets = batch[0].cpu().array, batch[1]
        smoothing = recipe.smoothing
        if mixup is not None:
            pixels, rows = mixup(pixels.astype(np.float32), targets.cpu().array, rng)
            targets, smoothing = Tensor(rows), 0.0  # the rows are smooth already
        logits = module(_to_batch(task, pixels))
        return F.cross_entropy(logits, targets.to(task.device), label_smoothing=smoothing)

    def evaluate(module: nn.Module) -> dict[str, float]:
        with nullcontext() if ema is None else ema.applied():
            report = _report(task, pictures, held)
        if run is not None:
            run.confusion("held-out", report.confusion, task.labels, trainer.step)
        return {"accuracy": report.accuracy}

    trainer = Trainer(
        task.module,
        optimizer,
        loss,
        loader,
        epochs=recipe.epochs,
        evaluate=evaluate,
        schedule=schedule,
        ema=ema,
        clip_norm=1.0,
        quiet=quiet,
        run=run,
    )
    frozen = [p for layer in trunk for p in layer if p.requires_grad and recipe.freeze]
    for parameter in frozen:
        parameter.requires_grad_(False)
    try:
        history = trainer.fit()
    finally:
        for parameter in frozen:
            parameter.requires_grad_(True)
    if ema is not None:
        ema.copy_to()
    return history


# -- the result --------------------------------------------------------------------------------


def _scores(task: ImageClassifier, pixels: Array, size: int = 32) -> Array:
    rows = []
    with inference_mode():
        for start in range(0, len(pixels), size):
            rows.append(task.module(_to_batch(task, pixels[start : start + size])).cpu().array)
    return np.concatenate(rows)


def _report(task: ImageClassifier, pictures: _Pictures, held: Array) -> ClassificationReport:
    scores = _scores(task, pictures.exact[held])
    return ClassificationReport.of(scores, pictures.targets[held], task.labels)


def _append(history: History, later: History) -> None:
    offset = len(history.epochs)
    for row in later.epochs:
        history.epochs.append({**row, "epoch": row["epoch"] + offset})


def _card(task: ImageTask, found: LabelledPictures) -> Card:
    card = replace(task.card)
    card.name = f"{task.card.name}, fine-tuned"
    card.note = f"classes: {', '.join(found.labels[:20])}"
    card.metric, card.results = None, []  # those were of other classes
    card.data = found.source
    card.training = {"starting from": task.card.name}
    return card


def _write(
    task: ImageClassifier, folder: Path, history: History, report: ClassificationReport
) -> None:
    task.save(folder)
    curve = line_chart(
        {"training loss": history.column("loss"), "held-out accuracy": history.column("accuracy")},
        title="Fine-tuning: head first, then all layers",
    )
    save_chart(curve, folder / "learning_curve.png")
    save_chart(confusion_chart(report.confusion, task.labels), folder / "confusion.png")
    (folder / "report.json").write_text(
        json.dumps({**report.to_dict(), "history": history.epochs}, indent=1), encoding="utf-8"
    )
