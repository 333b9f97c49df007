"""What there is to load: architectures, and the named models that are curated for each.

An architecture file in `vision/`, `text/`, `rl/` or `generative/` registers itself:

    @register(
        "resnet",
        task="image-classification",
        layouts={"timm": Layout(config_of_timm, RENAME_TIMM), ...},
        model_types=("resnet",),
        entries=(Entry(name="resnet50", ...),),
    )
    def resnet(config: Config) -> ResNet: ...

Nothing else lists it: the domain folders are searched on first use, as text first, so that a
name is found by importing one file.
"""

from __future__ import annotations

import difflib
import importlib
import re
import textwrap
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from ..core.errors import ConfigError, HubError
from ..core.notice import HubWarning, warn_once
from .entry import (
    Architecture,
    Bundled,
    Entry,
    Hub,
    Installed,
    Layout,
    Metric,
    Source,
    Wheel,
)

if TYPE_CHECKING:
    from ..core.nn import Module
    from .plugins import Offer

#: What registering needs is had from here in one import.
__all__ = [
    "DOMAINS",
    "Architecture",
    "Bundled",
    "Entry",
    "Hub",
    "Installed",
    "Layout",
    "Metric",
    "Source",
    "Wheel",
    "architecture_by_name",
    "architecture_of_config",
    "architectures",
    "canonical",
    "entries",
    "entry_of_file",
    "entry_of_repository",
    "find",
    "forget_offers",
    "get",
    "layout_of",
    "list_models",
    "name_fits",
    "nearest",
    "register",
    "supported",
    "task_of",
]

DOMAINS = ("vision", "text", "rl", "generative")
_ROOT = Path(__file__).resolve().parent.parent
_PACKAGE = __name__.rpartition(".hub.")[0]

_ALIKE = 0.6  # share of equal letters from which a name may have been meant
F = TypeVar("F", bound="Callable[..., Module]")

_architectures: dict[str, Architecture] = {}
_entries: dict[str, tuple[Architecture, Entry]] = {}
_names: dict[str, str] = {}  # canonical name or alias -> entry name
_scanned: set[str] = set()
_offered: dict[str, Offer] | None = None  # canonical name or alias -> of another distribution


def canonical(name: str) -> str:
    """Case and underscores are forgiven: `EfficientNet_Lite0` is `efficientnet-lite0`."""
    return name.strip().lower().replace("_", "-")


def register(
    name: str,
    *,
    config: type[Any],
    task: str,
    layouts: Mapping[str, Layout] | None = None,
    model_types: tuple[str, ...] = (),
    classes: tuple[str, ...] = (),
    architectures: tuple[str, ...] = (),
    class_names: tuple[str, ...] = (),
    head: tuple[str, ...] = (),
    fresh: tuple[str, ...] = (),
    stem: str | None = None,
    fit: Callable[[dict[str, Any], Any, Any], tuple[str, ...]] | None = None,
    entries: Iterable[Entry] = (),
    parts: tuple[str, ...] = (),
    optional: tuple[str, ...] = (),
    beside: tuple[str, ...] = (),
) -> Callable[[F], F]:
    """Register the function that builds an architecture; see `Architecture` for the arguments."""

    def keep(build: F) -> F:
        architecture = Architecture(
            name=name,
            build=build,
            config=config,
            task=task,
            layouts={"native": Layout(), **(layouts or {})},
            model_types=model_types,
            classes=classes,
            architectures=architectures,
            class_names=class_names,
            head=head,
            fresh=fresh,
            stem=stem,
            fit=fit,
            entries=tuple(entries),
            doc=(build.__doc__ or "").strip(),
            parts=parts,
            optional=optional,
            beside=beside,
        )
        known = _architectures.get(name)
        if known is not None and known.build.__module__ != build.__module__:
            raise ValueError(f"there are two architectures named {name!r}")
        _architectures[name] = architecture
        for entry in architecture.entries:
            if entry.layout not in architecture.layouts:
                raise ValueError(f"{entry.name}: {name} has no layout {entry.layout!r}")
            for alias in (entry.name, *entry.aliases):
                taken = _names.setdefault(canonical(alias), entry.name)
                if taken != entry.name:
                    raise ValueError(f"{alias!r} names both {taken} and {entry.name}")
            _entries[entry.name] = (architecture, entry)
        return build

    return keep


# -- finding ---------------------------------------------------------------------------------------


def _files() -> list[tuple[str, Path]]:
    """Module name and path of every file that registers something."""
    found = []
    for domain in DOMAINS:
        for path in sorted((_ROOT / domain).glob("*.py")):
            if path.stem != "__init__" and "@register(" in path.read_text(encoding="utf-8"):
                found.append((f"{_PACKAGE}.{domain}.{path.stem}", path))
    return found


def _import(module: str) -> None:
    if module not in _scanned:
        importlib.import_module(module)
        _scanned.add(module)


def _scan() -> None:
    for module, _ in _files():
        _import(module)


def _import_what_mentions(name: str) -> None:
    """Import the files that hold a name in quotes: most likely one of them registers it.

    Entries may stand in a file of their own, which an architecture's file imports.
    """
    loose = "[-_]".join(re.escape(part) for part in name.split("-"))
    spelled = re.compile(f'"{loose}"', re.IGNORECASE)
    texts = {
        path: path.read_text(encoding="utf-8")
        for domain in DOMAINS
        for path in (_ROOT / domain).glob("*.py")
    }
    named = {path for path, text in texts.items() if spelled.search(text)}
    for module, path in _files():
        beside = (f"from .{other.stem} import" for other in named if other.parent == path.parent)
        if path in named or any(line in texts[path] for line in beside):
            _import(module)


def find(name: str) -> tuple[Architecture, Entry] | None:
    """The entry of a name or alias; None if there is none."""
    wanted = canonical(name)
    if "/" in wanted:  # a repository or a path: no reason to import every model
        return None
    # Some files make their names of a stem and a number.
    for stem in (wanted, wanted.rstrip("0123456789")):
        if wanted not in _names and stem:
            _import_what_mentions(stem)
    if wanted not in _names:
        offered = _resolved(wanted)
        if offered is not None:
            return offered
        _scan()
    known = _names.get(wanted)
    return None if known is None else _entries[known]


def _offers() -> dict[str, Offer]:
    """What other distributions offer, by name and alias; read once."""
    global _offered
    if _offered is None:
        from .plugins import offers

        _offered = {}
        for offer in offers():
            for alias in (offer.entry.name, *offer.entry.aliases):
                _offered.setdefault(canonical(alias), offer)
    return _offered


def forget_offers() -> None:
    """Ask the installed distributions again, after one was installed or removed."""
    global _offered
    _offered = None


def _resolved(name: str) -> tuple[Architecture, Entry] | None:
    """What another distribution offers under a name, with the architecture of ours it is for."""
    offer = _offers().get(name)
    if offer is None:
        return None
    architecture = architecture_by_name(offer.architecture)
    if architecture is None:
        warn_once(
            f"plugin architecture {offer.architecture}",
            f"{offer.distribution} offers {offer.entry.name}, of the architecture "
            f"{offer.architecture!r}, which this version does not have; it is left out",
            HubWarning,
        )
        return None
    return architecture, offer.entry


def get(name: str) -> tuple[Architecture, Entry]:
    """The entry of a name.

    Raises:
        HubError: there is none; names the nearest ones.
    """
    found = find(name)
    if found is not None:
        return found
    near = nearest(name)
    raise HubError(
        f"there is no model named {name!r}.\n"
        + (f"Nearest: {', '.join(near)}.\n" if near else "")
        + "All names: bestiary list (or bt.list_models()). A repository is loaded by its id, "
        "'org/name', a folder by its path.",
        name=name,
        nearest=near,
    )


def nearest(name: str, count: int = 3, cutoff: float = _ALIKE) -> list[str]:
    """The names most like this one, or like its family's: none that are far from it.

    Those of agents that come with the package are among them.

    Args:
        cutoff: from 0, where anything will do, to 1.
    """
    from .loading import agents  # which imports this module

    _scan()
    wanted = canonical(name)
    playing = {agent: agent for agent in agents().shipped()}
    names = {**playing, **{alias: offer.entry.name for alias, offer in _offers().items()}, **_names}
    own = sorted(set(names.values()))
    first = re.split(r"[-./]", wanted)[0]
    holding = sorted(
        (n for n in own if wanted and wanted in n), key=lambda n: not n.startswith(first)
    )
    families: dict[str, list[str]] = {}
    for n in own:
        families.setdefault(re.split(r"[-./]", n)[0], []).append(n)
    alike = [names[a] for a in difflib.get_close_matches(wanted, sorted(names), count, cutoff)]
    for family in difflib.get_close_matches(wanted, sorted(families), count, cutoff):
        alike += families[family][:count]
    if len(first) > 2:  # llama-3.2-1b: tinyllama-...
        alike += [n for n in own if first in n]
    found: list[str] = []
    for n in [*holding, *alike]:
        if n not in found:
            found.append(n)
    return found[:count]


def entries() -> list[tuple[Architecture, Entry]]:
    """All of them, by name."""
    _scan()
    found = dict(_entries)
    for name, offer in _offers().items():
        if name not in _names and offer.entry.name not in found:  # our own names come first
            resolved = _resolved(name)
            if resolved is not None:
                found[offer.entry.name] = resolved
    return [found[name] for name in sorted(found)]


def architectures() -> list[Architecture]:
    """All of them, by name."""
    _scan()
    return [_architectures[name] for name in sorted(_architectures)]


def architecture_by_name(name: str) -> Architecture | None:
    """An architecture by its own name."""
    if name not in _architectures:
        _import_what_mentions(name)
    if name not in _architectures:
        _scan()
    return _architectures.get(name)


def architecture_of_config(config: Mapping[str, Any]) -> tuple[Architecture, str] | None:
    """The architecture that a published config.json describes, and its layout."""
    _scan()
    wrote = config.get("architectures")
    name = wrote[0] if isinstance(wrote, list) and wrote else None
    for architecture in _architectures.values():
        if name in architecture.classes:
            return architecture, "transformers"
    for architecture in _architectures.values():
        layout = layout_of(architecture, config)
        if layout is not None:
            return architecture, layout
    return None


def layout_of(architecture: Architecture, config: Mapping[str, Any]) -> str | None:
    """How a published config.json is written, if it is one of this architecture."""
    model_type, timm_name = config.get("model_type"), config.get("architecture")
    if model_type is not None and model_type in architecture.model_types:
        return "transformers"
    if timm_name is not None and any(
        re.fullmatch(pattern, str(timm_name)) for pattern in architecture.architectures
    ):
        return "timm"
    if config.get("_class_name") in architecture.class_names:
        return "diffusers"
    return None


def task_of(architecture: Architecture, entry: Entry) -> str:
    """What a curated model is for."""
    return entry.task or architecture.task


def entry_of_repository(repo: str) -> Entry | None:
    """The curated model whose weights a repository holds; None if it is none of theirs."""
    _scan()
    for _, entry in _entries.values():
        for source in entry.sources:
            if isinstance(source, Hub) and source.repo.lower() == repo.lower():
                return entry
    return None


def entry_of_file(name: str) -> tuple[Architecture, Entry] | None:
    """The curated model whose publisher calls its file so."""
    _scan()
    for architecture, entry in _entries.values():
        if entry.file is not None and entry.file.rpartition("/")[2] == name:
            return architecture, entry
    return None


def supported() -> list[str]:
    """What `architecture_of_config` knows, for the error that names it."""
    _scan()
    names: set[str] = set()
    for architecture in _architectures.values():
        own = architecture.model_types + architecture.class_names
        names.update(own or (architecture.name,))
    return sorted(names)


def name_fits(name: str, pattern: str) -> bool:
    """Whether a name is one of `pattern`, which has `*` and `?`, or is any part of it."""
    from fnmatch import fnmatch

    wanted = canonical(pattern)
    if not any(c in wanted for c in "*?["):
        wanted = f"*{wanted}*"
    return fnmatch(canonical(name), wanted)


def list_models(
    pattern: str = "*", *, task: str | None = None, commercial: bool | None = None
) -> list[str]:
    """Names of the curated models.

    Args:
        pattern: with `*` and `?`, or any part of a name.
        task: only models of this task, such as "image-classification".
        commercial: True for licences that permit commercial use, False for those that do not.

    Raises:
        ConfigError: no model has this task.
    """
    if task is not None:
        tasks = {task_of(architecture, entry) for architecture, entry in entries()}
        if task not in tasks:
            known = sorted(str(t) for t in tasks if t)
            near = difflib.get_close_matches(task, known, n=1)
            hint = f"Did you mean {near[0]!r}?\n" if near else ""
            listing = textwrap.fill(f"Tasks: {', '.join(known)}", 100, break_on_hyphens=False)
            raise ConfigError(f"there is no task named {task!r}.\n{hint}{listing}", task=task)
    return [
        entry.name
        for architecture, entry in entries()
        if entry.sources
        and any(name_fits(n, pattern) for n in (entry.name, *entry.aliases))
        and (task is None or task_of(architecture, entry) == task)
        and (commercial is None or entry.commercial is commercial)
    ]
