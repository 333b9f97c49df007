"""Train the mask generator `sam-shapes` on pictures whose shapes are known.

Expected: a mean overlap with the truth of 0.935 asked by a point and 0.939 asked by a box, on
          100 new pictures: the model that is shipped. Twelve minutes on one core (AMD Zen 5).
Run:      python docs/examples/sam.py --out runs/sam
Try it:   python docs/examples/sam.py --steps 20

Every picture is drawn anew. A prompt is a point on a shape or the box around it. Points may mean
several things, so that the best of three masks is taught; boxes mean one. In half of the steps the
network is asked a second time, with its first answer and a point where that was wrong, as the paper
does.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import dataclass, fields

import numpy as np

import bestiary as bt
from bestiary.core.nn import functional as F
from bestiary.hub.card import Card
from bestiary.vision import DetectionPreprocess, MaskGenerator, shape_scenes
from bestiary.vision.sam import SAM, Config


@dataclass
class Args:
    """Every setting, with its unit."""

    out: str = "runs/sam"  # folder for the model
    steps: int = 4000
    batch_size: int = 8
    prompts: int = 4  # for each picture
    lr: float = 1e-3  # the highest rate
    warmup: float = 0.1  # share of the steps in which the rate rises
    weight_decay: float = 0.01
    size: int = 128  # pixels
    seed: int = 0
    quiet: bool = False


def config(size: int) -> Config:
    """A small SAM."""
    return Config(
        hidden_size=64,
        num_hidden_layers=4,
        num_attention_heads=4,
        mlp_dim=128,
        input_size=size,
        patch_size=8,
        window_size=8,
        global_attn_indexes=(1, 3),
        num_pos_feats=24,
        output_channels=48,
        mask_input_channels=16,
        decoder_attention_heads=4,
        decoder_mlp_dim=96,
        iou_head_hidden_dim=48,
    )


def asked(
    rng: np.random.Generator, owners: np.ndarray, prompts: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A point (x, y) on a random shape, its box, and which pixels it has, `prompts` of each.

    Shape:
        (B, H, W) -> (B, P, 2), (B, P, 4), (B, P, H, W)
    """
    count, height, width = owners.shape
    points = np.empty((count, prompts, 2), np.float32)
    boxes = np.empty((count, prompts, 4), np.float32)
    inside = np.empty((count, prompts, height, width), bool)
    for i in range(count):
        for k in range(prompts):
            inside[i, k] = owners[i] == rng.integers(1, owners[i].max() + 1)
            rows, columns = np.nonzero(inside[i, k])
            chosen = rng.integers(len(rows))
            points[i, k] = columns[chosen] + 0.5, rows[chosen] + 0.5
            boxes[i, k] = columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
    return points, boxes, inside


def wrong_places(rng: np.random.Generator, found: np.ndarray, true: np.ndarray) -> np.ndarray:
    """A pixel (row, column) of each mask where it is wrong; any pixel of one without a mistake."""
    chance = rng.random(found.shape) * np.where(found != true, 1, 1e-9)
    flat = chance.reshape(*found.shape[:-2], -1).argmax(-1)
    return np.stack(np.divmod(flat, found.shape[-1]), axis=-1)


def mask_loss(logits: bt.Tensor, true: bt.Tensor) -> bt.Tensor:
    """Focal loss, twenty times, and dice loss, of each mask: (B, P, K, H, W) -> (B, P, K)."""
    probability = F.sigmoid(logits)
    surprise = F.binary_cross_entropy_with_logits(
        logits, bt.broadcast_to(true, logits.shape), reduction="none"
    )
    missed = true * (1 - probability) + (1 - true) * probability
    focal = (surprise * missed * missed).mean(axis=(-2, -1))
    both = (probability * true).sum(axis=(-2, -1))
    areas = probability.sum(axis=(-2, -1)) + true.sum(axis=(-2, -1))
    return 20 * focal + 1 - (2 * both + 1) / (areas + 1)


def overlap(logits: np.ndarray, true: np.ndarray) -> np.ndarray:
    """Intersection over union of each mask: (B, P, K, H, W) -> (B, P, K)."""
    inside, truth = logits > 0, true > 0.5
    both, either = (inside & truth).sum((-2, -1)), (inside | truth).sum((-2, -1))
    return (both / np.maximum(either, 1)).astype(np.float32)


def answer_loss(out: object, true: bt.Tensor) -> tuple[bt.Tensor, np.ndarray]:
    """The loss of the best mask of each prompt, with that of the scores; and which was best."""
    losses = mask_loss(out.pred_masks, true)
    best = losses.detach().numpy().argmin(-1)
    chosen = bt.tensor(np.eye(losses.shape[-1], dtype=np.float32)[best])
    truth = overlap(out.pred_masks.detach().numpy(), true.numpy())
    scores = ((out.iou_scores - bt.tensor(truth)) ** 2).mean()
    return (losses * chosen).sum(axis=-1).mean() + scores, best


def step_loss(module: SAM, rng: np.random.Generator, args: Args, seed: int) -> bt.Tensor:
    """The loss of one batch of new pictures."""
    pictures, owners = shape_scenes(args.batch_size, size=args.size, seed=seed)
    points, boxes, inside = asked(rng, owners, args.prompts)
    scale = np.float32(1 / 127.5)
    pixels = bt.tensor((pictures * scale - 1).transpose(0, 3, 1, 2).astype(np.float32))
    seen = module.embed_image(pixels)
    low = inside.reshape(*inside.shape[:2], args.size // 2, 2, args.size // 2, 2).mean((3, 5))
    true = bt.tensor((low >= 0.5).astype(np.float32)[:, :, None])
    if rng.random() < 0.5:
        given = {"input_points": bt.tensor(points[:, :, None]), "multimask_output": True}
    else:
        noise = rng.normal(0, 0.02 * args.size, boxes.shape).astype(np.float32)
        given = {"input_boxes": bt.tensor(boxes + noise), "multimask_output": False}
    out = module(image_embeddings=seen, **given)
    loss, best = answer_loss(out, true)
    if rng.random() < 0.5:
        # Earlier masks go with one prompt for each picture: the first.
        first = np.take_along_axis(
            out.pred_masks.detach().numpy(), best[..., None, None, None], axis=2
        )[:, :1, 0]
        truth = low[:, :1] >= 0.5
        places = wrong_places(rng, first > 0, truth)
        kinds = np.take_along_axis(
            truth.reshape(*truth.shape[:2], -1), (places @ [truth.shape[-1], 1])[..., None], -1
        )
        again = module(
            image_embeddings=seen,
            input_points=bt.tensor((2.0 * places[:, :, None, ::-1] + 1).astype(np.float32)),
            input_labels=bt.tensor(kinds.astype(np.int64)),
            input_masks=bt.tensor(np.clip(first, -32, 32)),
            multimask_output=False,
        )
        loss = loss + answer_loss(again, true[:, :1])[0]
    return loss


def measure(model: MaskGenerator, count: int = 100) -> dict[str, float]:
    """Mean overlap with the truth of the best answer to a point, and of that to a box."""
    pictures, owners = shape_scenes(count, size=model.config.input_size, seed=99)
    points, boxes, inside = asked(np.random.default_rng(99), owners, 1)
    found: dict[str, list[float]] = {"a point": [], "a box": []}
    for i, picture in enumerate(pictures):
        seen = model.see(picture)
        for name, prompt in (("a point", {"points": points[i]}), ("a box", {"box": boxes[i, 0]})):
            mask = seen.masks(**prompt)[0].mask
            both, either = (mask & inside[i, 0]).sum(), (mask | inside[i, 0]).sum()
            found[name].append(both / either)
    return {name: float(np.mean(values)) for name, values in found.items()}


def main(args: Args) -> MaskGenerator:
    """Train, measure and save."""
    bt.manual_seed(args.seed)
    rng = np.random.default_rng(args.seed)
    module = SAM(config(args.size))
    bt.nn.init.normal_(module.shared_image_embedding.positional_embedding, std=1.0)
    optimizer = bt.optim.AdamW(module.parameters(), lr=args.lr, weight_decay=args.weight_decay)
    rising = max(1, round(args.warmup * args.steps))
    schedule = bt.optim.SequentialLR(
        optimizer,
        [
            bt.optim.LinearLR(optimizer, start_factor=0.05, total_iters=rising),
            bt.optim.CosineAnnealingLR(optimizer, max(1, args.steps - rising)),
        ],
        milestones=[rising],
    )
    start = time.perf_counter()
    for step in range(1, args.steps + 1):
        loss = step_loss(module, rng, args, seed=1_000_000 * (args.seed + 1) + step)
        optimizer.zero_grad()
        loss.backward()
        bt.optim.clip_grad_norm_(module.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if not args.quiet and (step % 50 == 0 or step == args.steps):
            seconds = time.perf_counter() - start
            print(f"step {step}: loss {loss.item():.4f}, {seconds:.0f} s", file=sys.stderr)
    module.eval()
    model = MaskGenerator(
        module,
        architecture="sam",
        config=module.config,
        preprocess=DetectionPreprocess(
            shortest=None,
            longest=args.size,
            pad=(args.size, args.size),
            mean=(0.5, 0.5, 0.5),
            std=(0.5, 0.5, 0.5),
        ),
        card=Card(
            name="sam-shapes",
            architecture="sam",
            task="mask-generation",
            license="Apache-2.0",
            commercial=True,
            parameters=sum(p.size for p in module.parameters()),
            note="circles, squares and triangles, as bestiary.vision.shape_scenes draws them",
            data=f"shape_scenes, {args.steps * args.batch_size} pictures, seed {args.seed}",
        ),
    )
    overlaps = measure(model)
    model.card.training = {
        "steps": args.steps,
        **{f"mean overlap on 100 pictures, asked by {k}": f"{v:.3f}" for k, v in overlaps.items()},
        "seconds": round(time.perf_counter() - start),
    }
    model.save(args.out, dtype="float16")
    if not args.quiet:
        print(f"overlap {overlaps}; saved in {args.out}", file=sys.stderr)
    return model


if __name__ == "__main__":
    parser = argparse.ArgumentParser(formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    for field in fields(Args):
        if isinstance(field.default, bool):
            parser.add_argument(f"--{field.name}", action="store_true")
        else:
            parser.add_argument(
                f"--{field.name.replace('_', '-')}", type=type(field.default), default=field.default
            )
    main(Args(**vars(parser.parse_args())))
