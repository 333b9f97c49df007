"""Train the CIFAR-10 network `resnet-cifar10`.

Expected: 92.6 % of the 10,000 test pictures, the model that is shipped; its log is cifar10.json.
          A step of 256 pictures takes about 0.8 s on one core (AMD Zen 5) and 0.5 s on two:
          71 minutes on one core of a busy machine, which is how it was trained.
Run:      python docs/examples/cifar10.py --out runs/cifar10
Go on:    the same command; it resumes after the last finished epoch.
Try it:   python docs/examples/cifar10.py --epochs 1 --limit 2000

The recipe, each part with where it is from:

* SGD with Nesterov momentum; the rate rises for a fifth of the time, then falls in a straight
  line to nothing ("one cycle"). Weight decay on matrices only, not on norms and biases.
* Each picture is shifted by up to 4 pixels (the border mirrored), mirrored half of the time, and
  loses a square of 8 x 8 pixels (Cutout, DeVries and Taylor 2017).
* Label smoothing (Szegedy et al. 2015), and a moving average of the weights, which is what is
  evaluated and saved.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

import bestiary as bt
from bestiary.core.nn import functional as F
from bestiary.vision.cifar_resnet import MEAN, STD


@dataclass
class Args:
    """Every setting, with its unit."""

    out: str = "runs/cifar10"  # folder for checkpoints, log and model
    data: str = ""  # folder that holds CIFAR-10; fetched if empty
    epochs: int = 24
    batch_size: int = 256
    lr: float = 0.4  # the highest rate, for the mean over a batch
    warmup: float = 0.2  # share of the steps in which the rate rises
    momentum: float = 0.9
    weight_decay: float = 5e-4
    label_smoothing: float = 0.1
    ema: float = 0.99  # share of the average that a step keeps
    shift: int = 4  # pixels
    cutout: int = 8  # pixels, the side of the square
    seed: int = 0
    limit: int = 0  # use only so many pictures; 0 for all
    device: str = "cpu"
    quiet: bool = False


class Batches:
    """The training pictures, each once an epoch, changed a little each time.

    All changes are made for a whole batch at once on bytes in memory, which takes about a
    hundredth of the time of a training step. The order and the changes depend on the seed and
    the epoch only, so that a resumed training goes on with the same batches.
    """

    def __init__(self, images: np.ndarray, labels: np.ndarray, args: Args) -> None:
        self.labels, self.args, self.epoch = labels, args, 0
        border = (args.shift, args.shift)
        padded = np.pad(images, ((0, 0), border, border, (0, 0)), mode="reflect")
        # (N, 2 * shift + 1, 2 * shift + 1, 3, 32, 32): every shift of every picture, no copy
        self.windows = np.lib.stride_tricks.sliding_window_view(padded, images.shape[1:3], (1, 2))

    def __len__(self) -> int:
        return len(self.labels) // self.args.batch_size

    def __iter__(self) -> Iterator[tuple[bt.Tensor, bt.Tensor]]:
        rng = np.random.default_rng((self.args.seed, self.epoch))
        order = rng.permutation(len(self.labels))
        self.epoch += 1
        for i in range(len(self)):
            chosen = order[i * self.args.batch_size : (i + 1) * self.args.batch_size]
            yield bt.tensor(self.changed(chosen, rng)), bt.tensor(self.labels[chosen])

    def changed(self, chosen: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """These pictures, shifted, mirrored, normalised and cut: float32 (B, 3, 32, 32)."""
        down, right = rng.integers(0, 2 * self.args.shift + 1, (2, len(chosen)))
        pixels = self.windows[chosen, down, right]
        mirrored = rng.random(len(chosen)) < 0.5
        pixels[mirrored] = pixels[mirrored][..., ::-1]
        x = normalized(pixels)
        side, cut = pixels.shape[-1], self.args.cutout
        for picture, top, left in zip(
            x, *rng.integers(0, side - cut + 1, (2, len(chosen))), strict=True
        ):
            picture[:, top : top + cut, left : left + cut] = 0
        return x

    def state_dict(self) -> dict[str, Any]:
        return {"epoch": self.epoch}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.epoch = int(state["epoch"])


def normalized(pixels: np.ndarray) -> np.ndarray:
    """Bytes (B, 3, H, W) as float32 of mean 0 and standard deviation 1."""
    scale = np.float32(1 / 255) / np.array(STD, np.float32)
    shift = np.array(MEAN, np.float32) / np.array(STD, np.float32)
    return pixels * scale[:, None, None] - shift[:, None, None]


def accuracy(module: bt.nn.Module, images: np.ndarray, labels: np.ndarray) -> float:
    """The part of pictures (N, 32, 32, 3) that are named rightly."""
    right = 0
    with bt.inference_mode():
        for start in range(0, len(labels), 500):
            part = images[start : start + 500].transpose(0, 3, 1, 2)
            x = bt.tensor(normalized(np.ascontiguousarray(part))).to(module.device)
            best = module(x).cpu().array.argmax(axis=1)
            right += int((best == labels[start : start + 500]).sum())
    return right / len(labels)


def main(args: Args) -> dict[str, float]:
    """Train, evaluate and save; returns the accuracies."""
    bt.manual_seed(args.seed)
    out = Path(args.out)
    train = bt.data.load("cifar10", "train", folder=args.data or None)
    test = bt.data.load("cifar10", "test", folder=args.data or None)
    count = args.limit or None
    batches = Batches(train.images[:count], train.labels[:count], args)
    held_out = test.images[:count], test.labels[:count]

    model = bt.load("resnet-cifar10", weights=False, device=args.device)
    module = model.module
    matrices = [p for p in module.parameters() if p.ndim > 1]
    vectors = [p for p in module.parameters() if p.ndim <= 1]
    optimizer = bt.optim.SGD(
        [
            {"params": matrices, "weight_decay": args.weight_decay},
            {"params": vectors, "weight_decay": 0.0},
        ],
        lr=args.lr,
        momentum=args.momentum,
        nesterov=True,
    )
    schedule = bt.optim.OneCycleLR(
        optimizer,
        max_lr=args.lr,
        total_steps=args.epochs * len(batches),
        pct_start=args.warmup,
        anneal_strategy="linear",
        cycle_momentum=False,
    )
    ema = bt.optim.EMA(module, decay=args.ema, warmup=True, buffers="average")

    def loss(module: bt.nn.Module, batch: tuple[bt.Tensor, bt.Tensor]) -> bt.Tensor:
        x, y = (part.to(args.device) for part in batch)
        return F.cross_entropy(module(x), y, label_smoothing=args.label_smoothing)

    start = time.perf_counter()
    trainer = bt.training.Trainer(
        module,
        optimizer,
        loss,
        batches,
        epochs=args.epochs,
        schedule=schedule,
        ema=ema,
        evaluate=lambda averaged: {"accuracy": accuracy(averaged, *held_out)},
        folder=out / "checkpoints",
        quiet=args.quiet,
    )
    history = trainer.fit(resume="auto")
    seconds = time.perf_counter() - start

    ema.copy_to(module)
    module.eval()
    result = {"accuracy": accuracy(module, *held_out)}
    model.card.metric = f"{100 * result['accuracy']:.2f} % top-1 on the CIFAR-10 test set"
    recipe = {k: v for k, v in asdict(args).items() if k not in ("out", "data", "quiet")}
    model.card.training = {"data": "CIFAR-10, 50,000 training pictures", **recipe}
    model.save(out / "model", dtype="float16")
    result["accuracy of the saved model"] = accuracy(bt.load(out / "model").module, *held_out)
    log = {"args": recipe, "epochs": history.epochs, "result": result, "seconds": round(seconds)}
    (out / "log.json").write_text(json.dumps(log, indent=1) + "\n", encoding="utf-8")
    return result


def parsed() -> Args:
    """The command line: one option for each field of `Args`."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    for field in fields(Args):
        kind = type(field.default)
        if kind is bool:
            parser.add_argument(f"--{field.name}", action="store_true")
        else:
            parser.add_argument(
                f"--{field.name.replace('_', '-')}", type=kind, default=field.default
            )
    return Args(**vars(parser.parse_args()))


if __name__ == "__main__":
    for name, value in main(parsed()).items():
        print(f"{name}: {value:.4f}")
