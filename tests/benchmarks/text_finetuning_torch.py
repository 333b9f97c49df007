"""The peer of text_finetuning.py: the same recipe in PyTorch with transformers.

../peer/bin/python tests/benchmarks/text_finetuning_torch.py FOLDER
"""

from __future__ import annotations

import csv
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

EPOCHS, BATCH, LENGTH, SORTED = 2, 16, 128, 32


def rows_of(path: Path) -> tuple[list[str], np.ndarray[Any, Any]]:
    with open(path, encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    labels = sorted({row["label"] for row in rows})
    return [row["text"] for row in rows], np.array([labels.index(row["label"]) for row in rows])


def main(folder: Path) -> dict[str, float]:
    """Fine-tune and measure, as text_finetuning.py does."""
    torch.manual_seed(0)
    train, test, trunk = folder / "train.csv", folder / "test.csv", folder / "trunk"
    begun = time.perf_counter()
    tokenizer = AutoTokenizer.from_pretrained(trunk)
    model = AutoModelForSequenceClassification.from_pretrained(trunk, num_labels=2)
    texts, targets = rows_of(train)
    rng = np.random.default_rng(0)
    held = np.concatenate(
        [
            rng.permutation(np.flatnonzero(targets == t))[: round(0.2 * (targets == t).sum())]
            for t in (0, 1)
        ]
    )
    chosen = np.setdiff1d(np.arange(len(texts)), held)
    rows = tokenizer(texts, truncation=True, max_length=LENGTH)["input_ids"]
    groups: dict[tuple[bool, bool], list[Any]] = {}
    for name, p in model.named_parameters():
        groups.setdefault(("classifier" in name or "pooler" in name, p.ndim > 1), []).append(p)
    optimizer = torch.optim.AdamW(
        [
            {"params": ps, "lr": 1e-3 if new else 5e-5, "weight_decay": 0.01 if matrix else 0.0}
            for (new, matrix), ps in groups.items()
        ]
    )
    steps = EPOCHS * -(-len(chosen) // BATCH)
    rising = round(0.1 * steps)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda s: min((s + 1) / rising, max(0.0, (steps - s) / (steps - rising)))
    )
    for _ in range(EPOCHS):
        model.train()
        order, batches = rng.permutation(chosen), []
        for start in range(0, len(order), SORTED * BATCH):
            part = sorted(order[start : start + SORTED * BATCH], key=lambda i: len(rows[i]))
            batches += [part[i : i + BATCH] for i in range(0, len(part), BATCH)]
        for i in rng.permutation(len(batches)):
            padded = tokenizer.pad(
                {"input_ids": [rows[j] for j in batches[i]]}, return_tensors="pt"
            )
            loss = torch.nn.functional.cross_entropy(
                model(**padded).logits, torch.tensor(targets[batches[i]])
            )
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
        accuracy(model, tokenizer, [texts[i] for i in held], targets[held])
    seconds = time.perf_counter() - begun
    return {"accuracy": accuracy(model, tokenizer, *rows_of(test)), "seconds": seconds}


def accuracy(model: Any, tokenizer: Any, texts: list[str], targets: np.ndarray[Any, Any]) -> float:
    model.eval()
    right = 0
    order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
    with torch.inference_mode():
        for start in range(0, len(order), 32):
            part = order[start : start + 32]
            x = tokenizer(
                [texts[i] for i in part], truncation=True, max_length=LENGTH, padding=True,
                return_tensors="pt",
            )  # fmt: skip
            right += int((model(**x).logits.argmax(1).numpy() == targets[part]).sum())
    return right / len(texts)


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]))))
