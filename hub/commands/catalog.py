"""`bestiary list` and `bestiary info`."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from ..loading import agents
from ..registry import (
    Architecture,
    Bundled,
    Entry,
    Hub,
    Installed,
    Source,
    Wheel,
    entries,
    get,
    list_models,
    name_fits,
    task_of,
)
from .output import json_option, print_json, print_table


@click.command("list")
@click.argument("pattern", default="*")
@click.option("--task", help="Only models of this task, such as image-classification.")
@click.option(
    "--commercial/--non-commercial",
    default=None,
    help="Only models whose licence permits commercial use, or only those whose does not.",
)
@json_option
def list_command(pattern: str, task: str | None, commercial: bool | None, as_json: bool) -> None:
    """Names of the models that can be loaded. PATTERN may hold * and ?."""
    playing = _agents(pattern, task, commercial)
    of_agents = task is not None and task == agents().TASK  # no model of the registry has it
    names = set() if of_agents else set(list_models(pattern, task=task, commercial=commercial))
    chosen = [(a, e) for a, e in entries() if e.name in names]
    if as_json:
        print_json([*(facts(a, e) for a, e in chosen), *playing])
        return
    if not chosen and not playing:
        click.echo("no model fits", err=True)
        return
    models_table(chosen, playing)


def _agents(pattern: str, task: str | None, commercial: bool | None) -> list[dict[str, Any]]:
    """What is known of the agents that come with the package and fit."""
    known = agents()
    if commercial is False or task not in (None, known.TASK):
        return []
    return [known.facts(name) for name in known.shipped() if name_fits(name, pattern)]


def models_table(
    models: Sequence[tuple[Architecture, Entry]], playing: Sequence[dict[str, Any]] = ()
) -> None:
    """One line for each model, and for each agent."""
    rows = [
        [e.name, task_of(a, e), _count(e.parameters), e.license or "not pinned", _kinds(e)]
        for a, e in models
    ]
    rows += [
        [a["name"], a["task"], _count(a["parameters"]), a["license"], "bundled"] for a in playing
    ]
    print_table(rows, ["name", "task", "parameters", "licence", "weights"])


@click.command("info")
@click.argument("name")
@json_option
def info_command(name: str, as_json: bool) -> None:
    """What is known of a model. A fact that was read from no source is "not pinned".

    NAME is a name that `bestiary list` shows, a folder with a saved model or agent, or a zip with
    an agent of Stable-Baselines3.
    """
    agent = agents().facts(name)
    if agent is not None:
        if as_json:
            print_json(agent)
        else:
            print_table([[key, _shown(value)] for key, value in agent.items()])
        return
    if Path(name).is_dir():
        from ..loading import card_of_folder

        card = card_of_folder(Path(name)).to_dict()
        if as_json:
            print_json(card)
        else:
            print_table([[key, _shown(value)] for key, value in card.items() if value])
        return
    architecture, entry = get(name)
    known = facts(architecture, entry)
    if as_json:
        print_json(known)
        return
    if entry.metric is not None:
        known["metric"] = str(entry.metric)
    rows = [[key, _shown(value)] for key, value in known.items() if key != "sources"]
    rows += [["source", _source(s)] for s in entry.sources]
    print_table(rows)


def facts(architecture: Architecture, entry: Entry) -> dict[str, Any]:
    """Everything that is known of a model, as JSON values; None where nothing was read."""
    return {
        "name": entry.name,
        "aliases": list(entry.aliases),
        "architecture": architecture.name,
        "task": task_of(architecture, entry),
        "license": entry.license,
        "commercial": entry.commercial,
        "gated": entry.gated,
        "parameters": entry.parameters,
        "metric": dataclasses.asdict(entry.metric) if entry.metric else None,
        "preprocess": dict(entry.preprocess) if entry.preprocess else None,
        "labels": entry.labels,
        "paper": entry.paper,
        "note": entry.note,
        "sources": [{"kind": s.kind, **dataclasses.asdict(s)} for s in entry.sources],
    }


def info(name: str) -> dict[str, Any]:
    """What is known of a model, as `bestiary info NAME --json` prints it.

    Raises:
        HubError: no model of that name; names the nearest ones.
    """
    agent: dict[str, Any] | None = agents().facts(name)
    return facts(*get(name)) if agent is None else agent


def _count(n: int | None) -> str:
    if n is None:
        return "not pinned"
    return f"{n / 1e6:.1f} M" if n >= 1e5 else f"{n:,}"


def _kinds(entry: Entry) -> str:
    return ", ".join(dict.fromkeys(s.kind for s in entry.sources))


def _shown(value: Any) -> str:
    if value is None:
        return "not pinned"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, dict):
        return ", ".join(f"{k} {_shown(v)}" for k, v in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_shown, value)) or "none"
    return str(value)


def _source(source: Source) -> str:
    if isinstance(source, Wheel):
        return f"wheel {source.distribution} {source.version}: {source.file}"
    if isinstance(source, Bundled):
        return "bundled in this package"
    if isinstance(source, Installed):
        return f"the distribution {source.distribution} {source.version}: {source.folder}"
    assert isinstance(source, Hub)
    revision = source.revision or "not pinned"
    return f"hub {source.repo}, revision {revision}"
