"""`bestiary train`: a model of one's own from nothing, by a recipe."""

from __future__ import annotations

import dataclasses
import difflib
import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args, get_type_hints

import click

from ...core.errors import ConfigError
from .output import json_option, print_json, print_table


@dataclass(frozen=True)
class Recipe:
    """One kind of training.

    Attributes:
        module: where it is, in the package.
        settings: the name of its dataclass of settings there.
        run: the name of its function there: (recipe, data, settings, out=, device=, resume=,
            quiet=) -> facts of the result, of which `folder` is one.
        line: what it trains, for people.
        data: what DATA-OR-ENV is.
    """

    module: str
    settings: str
    run: str
    line: str
    data: str = "a folder of pictures, idx files, or the name of a data set"


_DIRECT = ("generative.training.recipes", "AdversarialSettings", "adversarial")
_ENV = "an environment: CartPole-v1, or module:Class"
_OWN_LOSS = ("generative.training.recipes", "AutoencodingSettings", "autoencoding")

RECIPES = {
    "ddpm": Recipe(
        "generative.training.recipes",
        "DiffusionSettings",
        "diffusion",
        "a diffusion model: the best pictures, the longest training",
    ),
    "dcgan": Recipe(*_DIRECT, "a GAN of convolutions: quick"),
    "wgan-gp": Recipe(*_DIRECT, "a GAN with a gradient penalty: slow and steady"),
    "sngan": Recipe(*_DIRECT, "a GAN with spectral norms"),
    "stylegan": Recipe(*_DIRECT, "a compact StyleGAN2"),
    "vae": Recipe(*_OWN_LOSS, "a variational autoencoder: quick and blurred"),
    "vqvae": Recipe(
        "generative.training.recipes",
        "QuantizingSettings",
        "quantizing",
        "an autoencoder with a codebook: pictures as small whole numbers",
    ),
    "realnvp": Recipe(*_OWN_LOSS, "a normalising flow, with exact likelihoods"),
    "text-to-image-lora": Recipe(
        "generative.training.recipes",
        "LoRASettings",
        "text_to_image_lora",
        "an adapter of --model: a style or a thing, of pictures with captions",
        "a folder of pictures with captions: a.png and a.txt, or metadata.jsonl",
    ),
    "recurrent-ppo": Recipe(
        "rl.recipes",
        "RecurrentPPOSettings",
        "train",
        "an agent: PPO with a memory, where not everything is seen",
        _ENV,
    ),
    **{
        name.lower(): Recipe("rl.recipes", f"{name}Settings", "train", f"an agent: {what}", _ENV)
        for name, what in {
            "PPO": "any actions, steady",
            "A2C": "any actions, many environments at once",
            "REINFORCE": "any actions, the simplest",
            "DQN": "choices, from a memory",
            "SAC": "numbers, from a memory, few steps",
            "TD3": "numbers, from a memory",
        }.items()
    },
}


@click.command(
    "train",
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": True},
)
@click.argument("recipe", required=False)
@click.argument("data", required=False, metavar="DATA-OR-ENV")
@click.argument("settings", nargs=-1, type=click.UNPROCESSED, metavar="[--SETTING VALUE]...")
@click.option(
    "-o",
    "--out",
    type=click.Path(path_type=Path),
    help="Folder for the result; one in runs unless given.",
)
@click.option("--resume", type=click.Choice(["auto"]), help="Go on from the newest checkpoint.")
@click.option("--device", default="cpu", show_default=True)
@click.option("--quiet", is_flag=True, help="Print no progress.")
@json_option
def train_command(
    recipe: str | None,
    data: str | None,
    settings: tuple[str, ...],
    out: Path | None,
    resume: str | None,
    device: str,
    quiet: bool,
    as_json: bool,
) -> None:
    """Train a model by RECIPE on DATA-OR-ENV; without DATA, list the recipe's settings.

    Without a recipe, list the recipes. Each setting of a recipe is an option:
    `bestiary train ddpm pictures --size 32 --epochs 100`.
    """
    if recipe is None:
        rows = [(name, one.line, one.data) for name, one in RECIPES.items()]
        print_table(rows, ("recipe", "what it trains", "of"))
        return
    if recipe.startswith("-"):
        raise click.UsageError(f"No such option: {recipe}. A recipe comes first: train ddpm ...")
    chosen = _recipe(recipe)
    module = importlib.import_module(f"....{chosen.module}", __name__)
    kind = getattr(module, chosen.settings)
    if data is None:
        if settings:
            raise click.UsageError(f"train {recipe}: where is the data? {chosen.data} is wanted")
        fields = dataclasses.fields(kind)
        print_table(
            [(option_of(f.name), repr(f.default)) for f in fields], ("setting", "unless given")
        )
        return
    given = read_settings(kind, [data, *settings] if data.startswith("--") else settings)
    target = out or Path("runs", f"{Path(data).name.replace(':', '-')}-{recipe}")
    found = getattr(module, chosen.run)(
        recipe, data, given, out=target, device=device, resume=resume, quiet=quiet or as_json
    )
    if as_json:
        print_json(found)
    else:
        click.echo(str(found["folder"]))


def _recipe(name: str) -> Recipe:
    if name in RECIPES:
        return RECIPES[name]
    near = difflib.get_close_matches(name, RECIPES, 1)
    raise ConfigError(
        f"there is no recipe {name!r}."
        + (f" Did you mean {near[0]!r}?" if near else "")
        + f"\nRecipes: {', '.join(RECIPES)}",
        got=name,
    )


def options_of(recipe: str) -> set[str]:
    """The options that are a recipe's settings, switches off among them."""
    chosen = _recipe(recipe)
    kind = getattr(importlib.import_module(f"....{chosen.module}", __name__), chosen.settings)
    named = {option_of(f.name) for f in dataclasses.fields(kind)}
    return named | {name.replace("--", "--no-", 1) for name in named}


def option_of(field: str) -> str:
    """The option of a setting: `--batch-size` of `batch_size`."""
    return "--" + field.replace("_", "-")


def read_settings(kind: type[Any], words: Sequence[str]) -> Any:
    """Settings out of `--name value` and `--name=value`; switches are `--name` and `--no-name`.

    Raises:
        UsageError: an option that the recipe does not have, or a value of another type.
    """
    hints = get_type_hints(kind)
    known = {option_of(f.name): f.name for f in dataclasses.fields(kind)}
    found: dict[str, Any] = {}
    rest = list(words)
    while rest:
        word, _, value = rest.pop(0).partition("=")
        name = known.get(word)
        off = known.get(word.replace("--no-", "--", 1)) if word.startswith("--no-") else None
        if name is None and off is not None and hints[off] is bool:
            found[off] = False
            continue
        if name is None:
            near = difflib.get_close_matches(word, known, 1)
            raise click.UsageError(
                f"there is no setting {word}."
                + (f" Did you mean {near[0]}?" if near else f" There are: {', '.join(known)}")
            )
        if hints[name] is bool and not value:
            found[name] = True
            continue
        if not value:
            if not rest:
                raise click.UsageError(f"{word} wants a value")
            value = rest.pop(0)
        found[name] = _value(word, hints[name], value)
    return kind(**found)


def _value(word: str, hint: Any, text: str) -> Any:
    """A value of a field's type."""
    kinds = [k for k in get_args(hint) if k is not type(None)] or [hint]
    kind = kinds[0]
    try:
        if kind is bool:
            return {"true": True, "false": False}[text.lower()]
        if hint == tuple[int, ...]:
            return tuple(int(part) for part in text.split(","))
        if kind is float and str in kinds:  # a number, or a word such as "auto"
            return _number_or_word(text)
        return kind(text)
    except (ValueError, KeyError):
        wanted = _KINDS.get(hint, _KINDS.get(kind, kind.__name__))
        raise click.UsageError(f"{word} {text}: {wanted} is wanted") from None


_KINDS = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    tuple[int, ...]: "a list of whole numbers, with commas between,",
}


def _number_or_word(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text
