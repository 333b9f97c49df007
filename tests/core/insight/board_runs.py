"""Runs with everything that can be logged, and with what an attacker would log."""

from __future__ import annotations

from pathlib import Path

import numpy as np

import bestiary as bt
from bestiary.core.insight.runs.events import histogram, image, text
from bestiary.core.insight.runs.frames import frame

EVIL = '<img src=x onerror="window.hacked=1"><script>window.hacked=1</script></script><!--'


def demo_run(folder: Path, *, seed: int = 0, points: int = 60) -> Path:
    """Numbers, histograms, pictures, texts, a model and its profile."""
    rng = np.random.default_rng(seed)
    net = bt.nn.Sequential(bt.nn.Linear(4, 8), bt.nn.ReLU(), bt.nn.Sequential(bt.nn.Linear(8, 2)))
    settings = {"lr": 10.0 ** -(seed + 1), "net": "small", "seed": seed}
    with bt.Run(folder, settings, module=net) as run:
        for step in range(points):
            loss = float(np.exp(-step / 20) + 0.02 * rng.normal() + 0.1 * seed + 0.2)
            run.scalars({"train/loss": loss, "evaluation/accuracy": 1 - loss / 2}, step)
            run.scalar("system/cpu", 50.0 + step % 7, step)
        run.scalar("broken", float("nan"), 3)
        run.scalar("broken", 1.0, 4)
        for step in range(0, 50, 10):
            run.histogram("parameters/weight", rng.normal(size=500) * (1 + step / 20), step)
            picture = np.zeros((16, 24, 3), np.uint8)
            picture[:, : step // 2 + 1] = (200, 90, 20)
            run.image("samples", picture, step)
        run.text("notes", "# A title\nwords", 1)
        for step in (10, 20):
            counts = [[8 + step, 2, 0], [1, 9 + step, 0], [3, 0, 7 + step]]
            run.confusion("held-out", counts, ["cat", "dog", "bird"], step)
        with bt.profile() as profile, run.shapes(net):
            net(bt.zeros((5, 4))).sum().backward()
        run.profile(profile)
    return folder


def hostile_run(folder: Path) -> Path:
    """Script in every name and text; a picture that is a page."""
    with bt.Run(folder, {EVIL: EVIL, "__proto__": "x", "constructor": 3.0}) as run:
        run.scalar(EVIL, 1.0, 1)
        run.scalar("../../etc/passwd", 2.0, 1)
        run.scalar("__proto__", 2.0, 1)
        run.text(EVIL, EVIL, 1)
        run.confusion(EVIL, [[1]], [EVIL], 1)
        run.histogram(EVIL, np.arange(9.0), 1)
    with open(folder / "events.out.tfevents.2.more", "wb") as file:
        file.write(frame(image(1.0, 1, EVIL, 1, 1, b"<svg onload=alert(1)>" + EVIL.encode())))
        file.write(frame(text(1.0, 2, "nul\x00;%2e%2e", "\x00\x1b[2J")))
        file.write(frame(histogram(1.0, 1, "constructor", np.arange(3.0))))
    return folder
