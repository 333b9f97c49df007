"""`bestiary play`: let an agent play, and record what is seen."""

from __future__ import annotations

from pathlib import Path

import click

from ...core.errors import ConfigError
from ..loading import load
from .output import json_option, print_json


@click.command("play")
@click.argument("name")
@click.option("--env", help="An environment; the agent's own unless given.")
@click.option("--episodes", type=click.IntRange(1), default=1, show_default=True)
@click.option("--record", type=click.Path(path_type=Path), help="A .gif or .webp of what is seen.")
@click.option("--seed", type=click.IntRange(0), default=10_000, show_default=True)
@json_option
def play_command(
    name: str, env: str | None, episodes: int, record: Path | None, seed: int, as_json: bool
) -> None:
    """Let the agent NAME play: one that comes with the package, a folder of yours, or a zip of
    Stable-Baselines3, which wants --env."""
    agent = load(name)
    if not hasattr(agent, "play"):
        raise ConfigError(f"{name} is no agent, so that it cannot play")
    found = agent.play(env, episodes, record=record, seed=seed)
    if as_json:
        print_json(found.to_dict())
        return
    click.echo(str(found))
    if record is not None:
        click.echo(str(record))
