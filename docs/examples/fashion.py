"""Train the shipped models of Fashion-MNIST: a classifier, a VAE, a GAN, a diffusion model.

Expected: a classifier of 92.5 % on the test set, and the measures of docs/gans.md; the logs are in
          fashion.json. On one core of a busy machine (AMD Zen 5): 12 minutes for the classifier,
          4 for the VAE, 20 for the GAN and two and a quarter hours for the diffusion model.
Run:      python docs/examples/fashion.py classifier --out runs/fashion
          and the same with vae, dcgan, ddpm; then `measure`, which compares what they make.
Go on:    the same command; it resumes after the last checkpoint.
Try it:   python docs/examples/fashion.py vae --steps 20 --limit 2000
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

import bestiary as bt
from bestiary.core.nn import functional as F
from bestiary.generative.measures import (
    classifier_features,
    features_of,
    frechet_distance,
    kernel_distance,
    precision_recall,
)
from bestiary.generative.training import adversarial, autoencoding, diffusion
from bestiary.generative.training.grids import save_grid
from bestiary.generative.training.pictures import Batches, Pictures, read_pictures
from bestiary.hub.card import Card
from bestiary.hub.saving import save_model
from bestiary.vision.cifar_resnet import Config as ClassifierConfig
from bestiary.vision.cifar_resnet import cifar_resnet
from bestiary.vision.preprocess import Preprocess

# Mean and standard deviation of the 60,000 training pictures, computed.
MEAN, STD = 0.28604, 0.35302


@dataclass
class Args:
    """Every setting, with its unit; 0 takes the recipe's own."""

    what: str = "classifier"  # or vae, dcgan, ddpm, measure
    out: str = "runs/fashion"  # folder for checkpoints, logs and models
    data: str = "fashion-mnist"  # by name, or a folder with its idx files
    steps: int = 0  # batches in all
    limit: int = 0  # use only so many pictures
    seed: int = 0
    count: int = 1000  # pictures of each kind that are measured
    quiet: bool = False


def normalized(samples: np.ndarray) -> np.ndarray:
    """Samples from -1 to 1 as the classifier wants them: of mean 0 and standard deviation 1."""
    return ((samples + 1) / 2 - np.float32(MEAN)) / np.float32(STD)


def accuracy(module: bt.nn.Module, pictures: Pictures) -> float:
    """The part of the pictures that is named rightly."""
    assert pictures.labels is not None
    right = 0
    with bt.inference_mode():
        for start in range(0, len(pictures), 500):
            part = slice(start, start + 500)
            found = module(bt.tensor(normalized(pictures.scaled(part)))).numpy().argmax(axis=1)
            right += int((found == pictures.labels[part]).sum())
    return right / len(pictures)


def classifier(args: Args, train: Pictures, test: Pictures) -> dict[str, Any]:
    """A small residual network: one cycle of SGD, mirrored and shifted pictures, averages."""
    out = Path(args.out) / "classifier"
    bt.manual_seed(args.seed)
    config = ClassifierConfig(stem=24, widths=(48, 96, 128), in_channels=1)
    module = cifar_resnet(config)
    batches = Batches(train, 128, seed=args.seed, flip=True)
    steps = args.steps or 3 * len(batches)
    optimizer = bt.optim.SGD(
        module.parameters(), lr=0.2, momentum=0.9, nesterov=True, weight_decay=5e-4
    )
    schedule = bt.optim.OneCycleLR(
        optimizer, max_lr=0.2, total_steps=steps, pct_start=0.2, cycle_momentum=False
    )
    ema = bt.optim.EMA(module, decay=0.99, warmup=True, buffers="average")

    def loss(module: bt.nn.Module, batch: tuple[bt.Tensor, bt.Tensor]) -> bt.Tensor:
        x, y = batch
        shifted = np.pad(normalized(x.numpy()), ((0, 0), (0, 0), (2, 2), (2, 2)), mode="edge")
        top, left = bt.core.random.numpy_rng().integers(0, 5, 2)
        shifted = shifted[..., top : top + 28, left : left + 28]
        return F.cross_entropy(module(bt.tensor(shifted)), y, label_smoothing=0.1)

    trainer = bt.training.Trainer(
        module,
        optimizer,
        loss,
        batches,
        steps=steps,
        schedule=schedule,
        ema=ema,
        evaluate=lambda averaged: {"accuracy": accuracy(averaged, test)},
        folder=out / "checkpoints",
        save_every=200,
        quiet=args.quiet,
    )
    history = trainer.fit(resume="auto")
    ema.copy_to(module)
    module.eval()
    found = accuracy(module, test)
    card = Card(
        name="resnet-fashion",
        architecture="cifar-resnet",
        task="image-classification",
        license="Apache-2.0",
        commercial=True,
        metric=f"{100 * found:.2f} % top-1 on the Fashion-MNIST test set",
        training={"data": "Fashion-MNIST, 60,000 training pictures", "steps": steps, "lr": 0.2},
    )
    processor = Preprocess(
        size=(28, 28), resize=28, resample="bicubic", mean=(MEAN,), std=(STD,)
    ).to_config()
    save_model(
        out / "model",
        module,
        architecture="cifar-resnet",
        config=config,
        card=card,
        labels=test.classes,
        processor=processor,
        dtype="float16",
    )
    return {"epochs": history.epochs, "accuracy": found}


def vae(args: Args, train: Pictures, test: Pictures) -> dict[str, Any]:
    """A VAE of 16 latents, for all classes together."""
    settings = autoencoding.Settings(
        epochs=2, latent_size=16, conditional=False, steps=args.steps, seed=args.seed
    )
    out = Path(args.out) / "vae-fashion"
    run = autoencoding.Autoencoding(train, settings, kind="vae", out=out, quiet=args.quiet)
    run.fit(resume="auto").save(out / "model", dtype="float16")
    return {"epochs": run.trainer.history.epochs, "steps": run.trainer.history.steps}


def dcgan(args: Args, train: Pictures, test: Pictures) -> dict[str, Any]:
    """A conditional DCGAN of 64 latents."""
    settings = adversarial.Settings(width=32, epochs=2, steps=args.steps, seed=args.seed)
    out = Path(args.out) / "dcgan-fashion"
    run = adversarial.Adversarial(train, settings, kind="dcgan", out=out, quiet=args.quiet)
    run.fit(resume="auto").save(out / "model", dtype="float16")
    return run.history


def ddpm(args: Args, train: Pictures, test: Pictures) -> dict[str, Any]:
    """A UNet of three levels that learns ten classes, and now and then none."""
    settings = diffusion.Settings(
        channels=(32, 64, 96),
        layers=1,
        steps=args.steps or 10_000,
        cooldown=0.3,
        lr=1.2e-3,
        warmup=150,
        ema=0.998,
        save_every=200,
        seed=args.seed,
    )
    out = Path(args.out) / "ddpm-fashion"
    run = diffusion.Diffusion(train, settings, out=out, quiet=args.quiet)
    model = run.fit(resume="auto")
    model.defaults["guidance"] = 1.3
    model.save(out / "model", dtype="float16")
    return {"epochs": run.trainer.history.epochs, "steps": run.trainer.history.steps}


def measure(args: Args, train: Pictures, test: Pictures) -> dict[str, Any]:
    """Every model's pictures against the test set, by what the classifier sees of them.

    All sets have the same size, since a Fréchet distance of few samples is larger.
    """
    folder, count = Path(args.out), args.count
    judge = bt.load(folder / "classifier" / "model")
    features = classifier_features(judge)
    rng = np.random.default_rng(args.seed)
    real = test.scaled(rng.permutation(len(test))[:count])
    seen = features_of(features, real)
    other = train.scaled(rng.permutation(len(train))[:count])
    rows = {"real": compared(seen, features_of(features, other))}
    labels = [i % len(test.classes) for i in range(count)]
    for name in ("vae-fashion", "dcgan-fashion", "ddpm-fashion"):
        if not (folder / name / "model").is_dir():
            continue
        model = bt.load(folder / name / "model")
        begun = time.perf_counter()
        chosen = labels if model.labels else None
        made = model(count, label=chosen, seed=0, output="array")
        seconds = time.perf_counter() - begun
        rows[name] = compared(seen, features_of(features, made))
        if chosen:
            with bt.inference_mode():
                named = judge.module(bt.tensor(normalized(made))).numpy().argmax(axis=1)
            rows[name]["accuracy"] = float((named == np.array(labels)).mean())
        rows[name]["seconds"] = round(seconds, 1)
        save_grid(made[:100], folder / f"{name}.png", 10, zoom=2)
        print(name, rows[name], flush=True)
    save_grid(real[:100], folder / "real.png", 10, zoom=2)
    return {"count": count, "against": "pictures of the test set", "measures": rows}


def compared(real: np.ndarray, made: np.ndarray) -> dict[str, float]:
    """Fréchet distance, kernel distance, precision and recall of features."""
    sides = precision_recall(real, made)
    return {
        "frechet": frechet_distance(real, made),
        "kernel": kernel_distance(real, made)[0],
        "precision": sides.precision,
        "recall": sides.recall,
    }


RECIPES = {"classifier": classifier, "vae": vae, "dcgan": dcgan, "ddpm": ddpm, "measure": measure}


def main(args: Args) -> dict[str, Any]:
    """Train or measure; returns the log, which is written beside the result."""
    train = read_pictures(args.data).first(args.limit)
    test = read_pictures(args.data, split="test").first(args.limit)
    begun = time.perf_counter()
    log = RECIPES[args.what](args, train, test)
    log["seconds"] = round(time.perf_counter() - begun)
    path = Path(args.out) / f"{args.what}.json"
    path.write_text(json.dumps(log, indent=1) + "\n", encoding="utf-8")
    return log


def parsed() -> Args:
    """The command line: what to do, and one option for each other field of `Args`."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("what", choices=[*RECIPES])
    for field in fields(Args)[1:]:
        kind = type(field.default)
        if kind is bool:
            parser.add_argument(f"--{field.name}", action="store_true")
        else:
            parser.add_argument(f"--{field.name}", type=kind, default=field.default)
    return Args(**vars(parser.parse_args()))


if __name__ == "__main__":
    print(json.dumps({k: v for k, v in main(parsed()).items() if k != "epochs"}, indent=1))
