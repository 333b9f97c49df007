"""Models that other installed distributions offer, described by data.

A distribution names one of its packages under the entry point group `bestiary.models`, and puts
`bestiary.json` and the folders of its models into that package. Entry points and files are read
through the distribution's metadata: nothing of it is imported, and nothing in it is run.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..core.errors import HubError
from ..core.notice import HubWarning, warn_once
from .cache import check_name, check_repo, check_revision
from .registry import Entry, Hub, Installed, Metric, Source, canonical

GROUP = "bestiary.models"
FILE = "bestiary.json"
FORMAT = 1
_MAX_BYTES = 5_000_000
_PACKAGE = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*", re.ASCII)
_NAME = re.compile(r"[a-z0-9][a-z0-9.-]{0,79}")
# Key of a model -> type of its value; the last two have a form of their own.
_KEYS: dict[str, type | tuple[type, ...]] = {
    "name": str,
    "architecture": str,
    "aliases": list,
    "license": str,
    "commercial": bool,
    "gated": bool,
    "parameters": int,
    "paper": str,
    "note": str,
    "metric": dict,
    "sources": list,
}


@dataclass(frozen=True)
class Offer:
    """A model of another distribution; its architecture is one of ours, by name."""

    entry: Entry
    architecture: str
    distribution: str


def offers() -> list[Offer]:
    """What the installed distributions offer, by name.

    A description that makes no sense is left out with a warning that names the distribution.
    """
    found: dict[str, Offer] = {}
    for point in sorted(importlib.metadata.entry_points(group=GROUP), key=lambda p: p.value):
        distribution = point.dist
        if distribution is None:
            continue
        try:
            offered = _offers_of(distribution, point.value)
        except (HubError, OSError) as error:
            warn_once(
                f"plugin {distribution.name}",
                f"the models that the distribution {distribution.name} offers are left out: "
                f"{error}",
                HubWarning,
            )
            continue
        for offer in offered:
            other = found.setdefault(offer.entry.name, offer)
            if other is not offer and other.distribution != offer.distribution:
                warn_once(
                    f"plugin name {offer.entry.name}",
                    f"{offer.distribution} and {other.distribution} both offer a model named "
                    f"{offer.entry.name}; that of {other.distribution} is used",
                    HubWarning,
                )
    return [found[name] for name in sorted(found)]


def _offers_of(distribution: importlib.metadata.Distribution, value: str) -> list[Offer]:
    if not _PACKAGE.fullmatch(value):
        raise HubError(f"the entry point {value!r} of {GROUP} is no name of a package")
    folder = _folder(distribution, value)
    path = folder / FILE
    if path.stat().st_size > _MAX_BYTES:
        raise HubError(f"{path} has more than {_MAX_BYTES:,} bytes")
    try:
        described = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise HubError(f"{path} is no JSON: {str(error)[:200]}") from None
    if not isinstance(described, dict) or described.get("bestiary") != FORMAT:
        raise HubError(f'{path} does not begin with "bestiary": {FORMAT}')
    models = described.get("models")
    if not isinstance(models, list) or set(described) - {"bestiary", "models"}:
        raise HubError(f'{path} holds "bestiary" and a list "models", nothing else')
    found = []
    for number, model in enumerate(models):
        try:
            found.append(_offer(model, folder, distribution))
        except HubError as error:
            raise HubError(f"{path}: model {number + 1}: {error}") from None
    return found


def _folder(distribution: importlib.metadata.Distribution, package: str) -> Path:
    """The folder of a package, without importing it."""
    first, *rest = package.split(".")
    folder = Path(str(distribution.locate_file(Path(first, *rest))))
    if (folder / FILE).is_file():
        return folder
    # An editable installation lies elsewhere. Of a top-level name, nothing is imported.
    spec = importlib.util.find_spec(first)
    for place in (spec.submodule_search_locations or ()) if spec is not None else ():
        folder = Path(place, *rest)
        if (folder / FILE).is_file():
            return folder
    raise HubError(f"the package {package} holds no {FILE}")


def _offer(model: Any, folder: Path, distribution: importlib.metadata.Distribution) -> Offer:
    given = _checked(model)
    sources = tuple(_source(s, folder, distribution) for s in given["sources"])
    if not sources:
        raise HubError(f'{given["name"]}: "sources" is empty')
    aliases = given.get("aliases", [])
    for name in (given["name"], *aliases):
        if not isinstance(name, str) or not _NAME.fullmatch(canonical(name)):
            raise HubError(f"{name!r} is no name: letters, digits, hyphens and dots, 80 at most")
    entry = Entry(
        name=canonical(given["name"]),
        sources=sources,
        config=None,
        aliases=tuple(aliases),
        license=given.get("license"),
        commercial=given.get("commercial"),
        gated=given.get("gated", False),
        parameters=given.get("parameters"),
        metric=_metric(given["metric"]) if "metric" in given else None,
        paper=given.get("paper"),
        note=given.get("note"),
    )
    return Offer(entry, given["architecture"], distribution.name)


def _checked(model: Any) -> dict[str, Any]:
    """A model's description, every key of it known and of the right type."""
    if not isinstance(model, dict):
        raise HubError("it is no JSON object")
    unknown = sorted(set(model) - set(_KEYS))
    missing = sorted({"name", "architecture", "sources"} - set(model))
    if unknown or missing:
        raise HubError(
            f"unknown keys: {', '.join(unknown) or 'none'}; missing: {', '.join(missing) or 'none'}"
        )
    for key, kind in _KEYS.items():
        value = model.get(key)
        wrong = isinstance(value, bool) and kind is int  # to Python, True is a number
        if key in model and (wrong or not isinstance(value, kind)):
            raise HubError(f"{key} is {value!r}, which is no {getattr(kind, '__name__', kind)}")
    return model


def _source(given: Any, folder: Path, distribution: importlib.metadata.Distribution) -> Source:
    keys = set(given) if isinstance(given, Mapping) else set()
    if not keys or not all(isinstance(value, str) for value in given.values()):
        raise HubError(f"a source is {given!r}")
    if keys == {"folder"}:
        path = folder.joinpath(*check_name(given["folder"]).split("/"))
        if not (path / "config.json").is_file():
            raise HubError(f"the folder {given['folder']!r} holds no config.json")
        return Installed(distribution.name, distribution.version, given["folder"], str(path))
    if keys in ({"repo"}, {"repo", "revision"}):
        revision = given.get("revision")
        return Hub(check_repo(given["repo"]), check_revision(revision) if revision else None)
    raise HubError(
        f"a source has the keys {sorted(keys)}; it is {{'folder': ...}} or {{'repo': ..., "
        "'revision': ...}"
    )


def _metric(given: dict[str, Any]) -> Metric:
    kinds: dict[str, type | tuple[type, ...]] = {
        "name": str,
        "value": (int, float),
        "dataset": str,
        "source": str,
    }
    for key, kind in kinds.items():
        if not isinstance(given.get(key), kind) or isinstance(given.get(key), bool):
            raise HubError(f"metric: {key} is {given.get(key)!r}")
    resolution = given.get("resolution")
    if resolution is not None and type(resolution) is not int:
        raise HubError(f"metric: resolution is {resolution!r}")
    if unknown := sorted(set(given) - {*kinds, "resolution"}):
        raise HubError(f"metric: unknown keys: {', '.join(unknown)}")
    return Metric(
        given["name"], float(given["value"]), given["dataset"], resolution, given["source"]
    )
