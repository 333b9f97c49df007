"""`bestiary finetune`: a model taught your own classes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ...core.errors import ConfigError
from ..adapters import FILES as ADAPTER_FILES
from ..loading import domain_of, load
from .output import json_option, print_json


@click.command("finetune")
@click.argument("name")
@click.argument("data", type=click.Path(exists=True, path_type=Path))
@click.option("-o", "--out", type=click.Path(path_type=Path), help="Folder for the result.")
@click.option("--epochs", type=click.IntRange(0), help="Passes with all layers; 0: head alone.")
@click.option("--head-epochs", type=click.IntRange(1), help="Passes with the head alone.")
@click.option("--batch-size", type=click.IntRange(2))
@click.option("--lr", type=float, help="Learning rate of all layers.")
@click.option("--layer-decay", type=float, help="Each layer at this times the next one's rate.")
@click.option("--mixup", type=float, help="Blend pictures: 0.2, say.")
@click.option("--ema", type=float, help="Average the weights: 0.99, say.")
@click.option("--freeze", type=click.Choice(["trunk"]), help="Only the head learns.")
@click.option("--lora", type=click.IntRange(1), help="Texts: adapters of this rank learn alone.")
@click.option("--merge", is_flag=True, help="Write whole weights, with the adapters in them.")
@click.option("--max-length", type=click.IntRange(3), help="Texts: the most tokens of one.")
@click.option("--no-flip", is_flag=True, help="Do not mirror pictures.")
@click.option("--seed", type=int)
@click.option("--untrained", is_flag=True, help="Start from nothing, without weights.")
@click.option("--device", default="cpu", show_default=True)
@json_option
def finetune_command(
    name: str,
    data: Path,
    out: Path | None,
    no_flip: bool,
    merge: bool,
    untrained: bool,
    device: str,
    as_json: bool,
    **settings: Any,
) -> None:
    """Teach the model NAME the classes of DATA.

    DATA is a folder with a folder of pictures for each class (or with train and val folders that
    have them), or a CSV file with the columns path and label. For detectors it is a COCO JSON
    file, or a folder with VOC XML or YOLO text; for segmenters a folder with images and masks.
    For models that read texts it is a CSV or JSONL file with a text and a label in each row, or,
    for embedders, two texts, first and second, that belong together. For models that write it is a
    text file, or a JSONL file of texts or conversations.
    """
    model = load(name, device=device, weights=not untrained)
    if not hasattr(model, "finetune"):
        raise ConfigError(f"{name} is for {model.task}, which cannot be fine-tuned yet")
    target = out or Path(f"{Path(name).name}-finetuned")
    chosen = {k: v for k, v in settings.items() if v is not None}
    if merge and "lora" not in chosen:
        raise click.UsageError("--merge is for what --lora has learnt")
    if domain_of(model.task) == "text":
        other = sorted({"head_epochs", "layer_decay", "mixup", "ema"} & chosen.keys())
        if other or no_flip:
            option = "--no-flip" if no_flip else "--" + other[0].replace("_", "-")
            raise click.UsageError(f"{name} reads texts: {option} is for models that see")
    if "head_epochs" in chosen and model.task in ("object-detection", "image-segmentation"):
        raise click.UsageError(f"{name} trains all layers at once: --epochs, no --head-epochs")
    alone = sorted({"layer_decay", "mixup", "ema", "freeze"} & chosen.keys())
    if alone and model.task in ("object-detection", "image-segmentation"):
        option = "--" + alone[0].replace("_", "-")
        raise click.UsageError(f"{name} is for {model.task}: {option} is for classifiers")
    if no_flip:
        chosen["flip"] = False
    if domain_of(model.task) != "text" and {"lora", "max_length"} & chosen.keys():
        raise click.UsageError(f"{name} sees: --lora and --max-length are for models that read")
    new = model.finetune(data, out=target, quiet=as_json, **chosen)
    if merge:
        for file in ADAPTER_FILES:
            (target / file).unlink(missing_ok=True)
        new.merge_adapter().save(target)
    if as_json:
        labels = getattr(new, "labels", None)
        print_json({"folder": str(target), "labels": labels, "training": new.card.training})
    else:
        click.echo(str(target))
