"""`bestiary sample`: make pictures, of a text, of a class, or of what a model was trained on."""

from __future__ import annotations

import inspect
import secrets
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click

from ...core.errors import ConfigError, HubError
from ..loading import load
from ..registry import find
from ..sources import is_repository
from .output import json_option, print_json

_LONG = 20  # seconds of work that are announced
_SEEDS = 1 << 31
_FILE = "sample.png"
# What a picture's file says, and an argument of the call that makes it.
_REPEATED = (
    "prompt",
    "negative",
    "label",
    "seed",
    "steps",
    "guidance",
    "rescale",
    "scheduler",
    "size",
    "strength",
    "clip_skip",
    "eta",
)


def _size(context: click.Context, parameter: click.Parameter, value: str | None) -> Any:
    if value is None:
        return None
    parts = value.lower().split("x")
    if len(parts) > 2 or not all(part.strip().isdecimal() for part in parts):
        raise click.BadParameter(f"{value!r} is neither 512 nor 512x768 (height x width)")
    return tuple(int(part) for part in parts) if len(parts) == 2 else int(parts[0])


_path = click.Path(path_type=Path)
_file = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command("sample")
@click.argument("name", required=False)
@click.argument("prompt", required=False)
@click.option("--negative", help="What the picture is not to show.")
@click.option("--label", help="The class of the pictures: a name or a number.")
@click.option("-n", "count", type=click.IntRange(1), default=1, show_default=True)
@click.option("--seed", type=click.IntRange(0), help="Of the first picture; drawn if not given.")
@click.option("--steps", type=click.IntRange(1), help="From noise to picture.")
@click.option("--guidance", type=float, help="How closely the text or class is followed.")
@click.option("--scheduler", help="ddim, euler, dpm++, ...")
@click.option("--size", callback=_size, help="512, or 512x768: height x width.")
@click.option("--init", type=_file, help="A picture to begin with.")
@click.option("--mask", type=_file, help="Bright where that picture is made anew.")
@click.option("--strength", type=float, help="How much of that picture is lost, up to 1.")
@click.option("--lora", multiple=True, help="An adapter: FILE or FILE:SCALE; may be repeated.")
@click.option("--truncate", is_flag=True, help="Leave out what is too long for the encoder.")
@click.option("--low-memory", is_flag=True, help="One sample at a time, decoded by tiles.")
@click.option("--from", "source", type=_file, help="Repeat a picture that was made so.")
@click.option("--metadata/--no-metadata", default=True, help="Write into PNG files how they came.")
@click.option("-o", "--out", type=_path, help="A file (several pictures: a sheet) or a folder.")
@click.option("--device", default="cpu", show_default=True, help="cpu, cuda or cuda:1.")
@click.option("--dtype", help="Of the weights, such as float16.")
@json_option
def sample_command(
    name: str | None,
    prompt: str | None,
    count: int,
    lora: tuple[str, ...],
    low_memory: bool,
    source: Path | None,
    metadata: bool,
    out: Path | None,
    device: str,
    dtype: str | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Make pictures with the model NAME: of PROMPT, of a class, or of its own kind.

    A PNG file says how it was made, and `--from` makes it again.
    """
    # A seed of 0 is one; what is not given is None, or False.
    given = {key: v for key, v in options.items() if v is not None and v is not False}
    if prompt is not None:
        given["prompt"] = prompt
    said: dict[str, Any] = {}
    if source is not None:
        said = _said(source)
        name = name or _trusted(str(said.get("model", "")), source)
        given = {key: said[key] for key in _REPEATED if said.get(key) is not None} | given
        count = int(said.get("count", 1)) if count == 1 else count
    if name is None:
        raise click.UsageError("NAME of a model is missing: bestiary sample NAME 'a prompt'")
    given.setdefault("seed", secrets.randbelow(_SEEDS))
    _writable(out)
    model = load(name, device=device, dtype=dtype)
    _adapt(model, lora, said)
    _checked(model, name, given, said)
    if low_memory:
        model.slicing = model.tiling = True
    _announce(model, given, count)
    started = time.perf_counter()
    call = dict(given)
    if "label" in call and str(call["label"]).isdecimal():
        call["label"] = int(call["label"])
    text = (call.pop("prompt"),) if "prompt" in call else ()
    pictures = _maker(model)(*text, count=count, **call)
    seconds = time.perf_counter() - started
    files = _write(pictures, out, {"model": model.card.name, **given}, metadata)
    if as_json:
        from ...generative.pipelines.metadata import KEY

        print_json(
            {
                "files": [str(path) for path in files],
                "pictures": [picture.info.get(KEY) for picture in pictures],
                "seconds": round(seconds, 3),
            }
        )
        return
    for path in files:
        click.echo(str(path))
    click.echo(f"seed {given['seed']}, {seconds:.1f} s", err=True)


# -- what was said before --------------------------------------------------------------------------


def _said(source: Path) -> dict[str, Any]:
    from ...generative.pipelines.metadata import settings_of

    said = settings_of(source)
    known = dict(said)
    if isinstance(known.get("size"), list):
        known["size"] = tuple(known["size"])
    scheduler = known.get("scheduler")
    if isinstance(scheduler, dict):
        from ...generative.schedulers import scheduler_of

        known["scheduler"] = scheduler_of(scheduler)
    return known


def _trusted(name: str, source: Path) -> str:
    """A model that a picture names, if it may be loaded: others are fetched only when told to.

    Raises:
        HubError: it is none that has a name everywhere.
        Abort: the answer is no.
    """
    if find(name) is not None:
        return name
    if not is_repository(name):
        raise HubError(
            f"{source} was made with {name!r}, which is a file or folder of whoever made it.\n"
            f"Say where yours is: bestiary sample PATH --from {source}",
            name=name,
        )
    from ..download import cached

    if cached(name) is None:
        click.confirm(
            f"{source} names the model {name}, which is not on this machine. Fetch it?",
            abort=True,
            err=True,
        )
    return name


def _adapt(model: Any, lora: tuple[str, ...], said: Mapping[str, Any]) -> None:
    for spec in lora:
        file, _, scale = spec.rpartition(":")
        if not file or Path(spec).exists():
            file, scale = spec, "1"
        try:
            strength = float(scale)
        except ValueError:
            raise ConfigError(f"--lora {spec}: {scale!r} is no scale", got=scale) from None
        if not hasattr(model, "load_lora"):
            raise ConfigError(f"{model.card.name} takes no LoRA adapters.")
        model.load_lora(file, scale=strength)
    wanted = said.get("adapters")
    missing = set(wanted) - set(model.adapters.said()) if isinstance(wanted, dict) else set()
    if missing:
        raise ConfigError(
            f"the picture was made with the adapters {', '.join(sorted(missing))}.\n"
            "Give their files: --lora FILE:SCALE"
        )


def _maker(model: Any) -> Callable[..., Any]:
    """What makes pictures: the model itself, or the method of those that are called otherwise."""
    found: Callable[..., Any] = getattr(model, "sample", model.__call__)
    return found


def _checked(model: Any, name: str, given: Mapping[str, Any], said: Mapping[str, Any]) -> None:
    """Raise where the model has no use for what is given, or lacks something."""
    known = inspect.signature(_maker(model)).parameters
    if "count" not in known:
        raise ConfigError(
            f"{name} is for {model.task} and makes no pictures.\n"
            "Models that do: bestiary list --task text-to-image",
            task=model.task,
        )
    strange = sorted(key for key in given if key not in known and key != "eta")
    if strange:
        words = ", ".join("PROMPT" if key == "prompt" else f"--{key}" for key in strange)
        raise ConfigError(f"{name} is for {model.task} and takes no {words}.", keys=strange)
    if "prompt" in known and "prompt" not in given:
        raise ConfigError(f'{name} needs a prompt: bestiary sample {name} "what it is to show"')
    if said.get("strength") is not None and "init" not in given:
        raise ConfigError(
            "the picture was made of another one: --init FILE (and --mask) is missing."
        )


def _announce(model: Any, given: Mapping[str, Any], count: int) -> None:
    """Say what a long run will take, before it begins."""
    if not hasattr(model, "cost"):
        return
    known = inspect.signature(model.cost).parameters
    cost = model.cost(count, **{key: given[key] for key in known if key in given})
    if cost.seconds is not None and cost.seconds > _LONG:
        click.echo(f"{count} of {model.card.name}: {cost}", err=True)


# -- files -----------------------------------------------------------------------------------------


def _writable(out: Path | None) -> None:
    """Raise before the work where its result could not be written.

    Raises:
        DataError: the file would be of a kind that is not written.
        ConfigError: there is a file where a folder is wanted.
    """
    from ...generative.pipelines.metadata import kind_of

    if out is None:
        return
    if out.suffix and not out.is_dir():
        kind_of(out)
    wrong = next((p for p in (out, *out.parents) if p.is_file()), None)
    if wrong is not None and (wrong != out or not out.suffix):
        raise ConfigError(f"-o {out}: {wrong} is a file, and a folder is wanted there.", got=out)


def _write(
    pictures: list[Any], out: Path | None, given: Mapping[str, Any], metadata: bool
) -> list[Path]:
    """One file, a sheet of all, or a folder of files."""
    from ...generative.pipelines.metadata import KEY, remember, write_picture
    from ...generative.schedulers import Scheduler

    plain = {
        key: value.to_config() if isinstance(value, Scheduler) else value
        for key, value in given.items()
        if not isinstance(value, Path)
    }
    for i, picture in enumerate(pictures):
        if KEY not in picture.info:
            remember(picture, {**plain, "seed": given["seed"] + i})
    if out is not None and (out.is_dir() or not out.suffix):
        out.mkdir(parents=True, exist_ok=True)
        paths = [_free(out / f"{p.info[KEY]['seed']}.png") for p in pictures]
        pairs = zip(pictures, paths, strict=True)
        return [write_picture(p, path, metadata=metadata) for p, path in pairs]
    target = _free(Path(_FILE)) if out is None else out
    whole = pictures[0]
    if len(pictures) > 1:
        whole = remember(_sheet(pictures), {**pictures[0].info[KEY], "count": len(pictures)})
    return [write_picture(whole, target, metadata=metadata)]


def _free(path: Path) -> Path:
    """The path, or one with a number behind its name if there is such a file."""
    found, number = path, 1
    while found.exists():
        number += 1
        found = path.with_name(f"{path.stem}-{number}{path.suffix}")
    return found


def _sheet(pictures: list[Any], gap: int = 2) -> Any:
    """Several pictures side by side, in rows."""
    from PIL import Image

    columns = max(round(len(pictures) ** 0.5), 1)
    while len(pictures) % columns:
        columns += 1
    rows = len(pictures) // columns
    width, height = (n + gap for n in pictures[0].size)
    sheet = Image.new(pictures[0].mode, (columns * width - gap, rows * height - gap), "white")
    for i, picture in enumerate(pictures):
        sheet.paste(picture, (i % columns * width, i // columns * height))
    return sheet
