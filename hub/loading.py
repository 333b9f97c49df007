"""`bt.load`: from a name, a repository or a folder to a model that takes raw input."""

from __future__ import annotations

import dataclasses
import importlib
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..core import dtypes
from ..core.conversion import converted
from ..core.errors import BestiaryError, ConfigError, HubError, WeightsError
from ..core.nn import Module, init
from ..core.spelling import spelled
from . import licences, limits
from .card import Card, card_of
from .choice import weights_in
from .published import Origin, origin_of, remember
from .registry import (
    Architecture,
    Entry,
    Hub,
    Wheel,
    architecture_by_name,
    architecture_of_config,
    entry_of_repository,
    find,
    supported,
)
from .rename import join, renamed
from .repository import read_json
from .sources import Request, described, obtain, of_entry

MARKER = "bestiary"  # the key of config.json that tells our own saved models

# The class that serves each task, imported when the first model of it is loaded.
_TASKS = {
    "depth-estimation": ("vision.depth_estimator", "DepthEstimator"),
    "image-classification": ("vision.tasks", "ImageClassifier"),
    "image-feature-extraction": ("vision.embedder", "Embedder"),
    "image-segmentation": ("vision.segmenter", "Segmenter"),
    "object-detection": ("vision.detector", "Detector"),
    "zero-shot-image-classification": ("vision.zero_shot", "ZeroShotClassifier"),
}
FEATURES = "image-feature-extraction"


@dataclass(frozen=True)
class Report:
    """What loading did with every tensor of the file and of the model."""

    loaded: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()  # named in the rename table as no weights
    replaced: tuple[str, ...] = ()  # initialised anew: the head or stem that was asked for
    cast: tuple[str, ...] = ()  # converted to another dtype
    reshaped: tuple[str, ...] = ()  # fitted to another size of pictures
    source: str = ""

    def __str__(self) -> str:
        parts = [f"{len(self.loaded)} tensors loaded from {self.source}"]
        for label in ("dropped", "replaced", "reshaped", "cast"):
            names = getattr(self, label)
            if names:
                parts.append(f"{len(names)} {label}")
        return ", ".join(parts)


@dataclass
class Loaded:
    """Everything a task is made of."""

    module: Module
    architecture: Architecture
    config: Any
    card: Card
    report: Report
    preprocess: Mapping[str, Any] | None = None  # of the registry entry
    published: dict[str, Any] = field(default_factory=dict)  # config.json
    processor: dict[str, Any] | None = None  # preprocessor_config.json
    labels: str | list[str] | None = None  # the name of a list, or the list
    folder: Path | None = None
    image_size: tuple[int, int] | None = None  # that the caller asked for


@dataclass(frozen=True)
class _Options:
    weights: bool
    dtype: dtypes.DType
    num_classes: int | None
    in_channels: int | None
    image_size: tuple[int, int] | None
    request: Request  # how the files are obtained
    mapped: bool = False  # share the memory of the file, which nobody rewrites in place


@spelled
def load(
    name: str | Path,
    *,
    weights: bool = True,
    device: Any = "cpu",
    dtype: Any = None,
    revision: str | None = None,
    num_classes: int | None = None,
    in_channels: int | None = None,
    image_size: int | tuple[int, int] | None = None,
    task: str | None = None,
    variant: str | None = None,
    locked: bool | str | Path = False,
    verify: bool | None = None,
) -> Any:
    """A model that takes raw input: `bt.load("efficientnet-lite0")("photo.jpg", top=5)`.

    Args:
        name: a curated name (`bestiary list`), a hub repository `org/name` of a supported
            family, or a folder with config.json and weights. An existing folder wins.
        weights: False builds the model untrained.
        device: "cpu", "cuda", "cuda:1".
        dtype: of the parameters; float32 unless given.
        revision: branch, tag or commit of a hub repository.
        num_classes: replaces the classification head with an untrained one of this size.
        in_channels: adapts the first layer to images of this many channels.
        image_size: height and width of the pictures, where not those of the training; tables
            of positions are resized.
        task: "image-feature-extraction" gives an `Embedder` in place of a classifier.
        variant: of the published weights, such as "fp16".
        locked: load only what a lock file names: its path, or True for `bestiary.lock` here.
        verify: hash the cached files of a hub repository again, instead of comparing size and
            time with what was found on their arrival.

    Raises:
        HubError: nothing of that name, or it could not be fetched.
        WeightsError: the weights are damaged or do not fit the model.
        ConfigError: the published configuration has keys that are not understood.
    """
    from .lock import in_force

    options = _Options(
        weights=weights,
        dtype=dtypes.as_dtype(dtype if dtype is not None else dtypes.float32),
        num_classes=num_classes,
        in_channels=in_channels,
        image_size=_size(image_size),
        request=Request(revision=revision, variant=variant, lock=in_force(locked), verify=verify),
    )
    loaded = _loaded(name, options)
    loaded.module.eval()
    loaded.image_size = options.image_size
    loaded.card.task = _task_name(loaded, options, task)
    licences.show_once(loaded.card)
    model = task_class(loaded.card.task).from_loaded(loaded)
    return model.to(device) if str(device) != "cpu" else model


def _size(size: int | tuple[int, int] | None) -> tuple[int, int] | None:
    if size is None:
        return None
    pair = tuple(size) if isinstance(size, (tuple, list)) else (size, size)
    if len(pair) != 2 or not all(type(n) is int and 1 <= n <= 65_536 for n in pair):
        raise ConfigError(
            f"image_size={size!r} is neither a number of pixels nor (height, width)", got=size
        )
    return pair[0], pair[1]


def _task_name(loaded: Loaded, options: _Options, wanted: str | None) -> str:
    """What the model is to do: as asked; as its head, or the lack of one, says; as it was saved."""
    own, classes = loaded.architecture.task, getattr(loaded.config, "num_classes", None)
    if own == FEATURES and classes:
        own = "image-classification"
    if wanted is not None:
        if wanted != own and not (wanted == FEATURES and hasattr(loaded.module, "embed")):
            raise ConfigError(
                f"{loaded.card.name} is for {own} and cannot do {wanted!r}.", got=wanted
            )
        return wanted
    if classes == 0:
        return FEATURES
    saved_so = loaded.card.task == FEATURES != loaded.architecture.task
    return FEATURES if saved_so and options.num_classes is None else own


def task_class(task: str) -> Any:
    """The class that serves a task."""
    module, name = _TASKS[task]
    return getattr(importlib.import_module(f"...{module}", __name__), name)


def _loaded(name: str | Path, options: _Options) -> Loaded:
    path = Path(name).expanduser()
    found = None if isinstance(name, Path) or path.exists() else find(name)
    if found is not None:
        return _curated(*found, options)
    here = obtain(name, options.request)
    options = _mapping(options, here.source)
    loaded = from_folder(here.path, options, name=None if here.source is None else here.name)
    if here.source is not None:
        loaded.card.source = described(here.source)
    known = entry_of_repository(here.source.repo) if isinstance(here.source, Hub) else None
    if known is not None and known.commercial is not None:  # repositories may say "other"
        loaded.card.license, loaded.card.commercial = known.license, known.commercial
    licences.describe(loaded.card, here.path)
    return loaded


def _mapping(options: _Options, source: Any) -> _Options:
    """Map what lies in a cache or an installed package, and read what the user named.

    A mapped file that is truncated ends the process. On Windows one that is mapped could not be
    removed from the cache.
    """
    return dataclasses.replace(options, mapped=source is not None and os.name != "nt")


# -- curated models ------------------------------------------------------------------------


def _curated(architecture: Architecture, entry: Entry, options: _Options) -> Loaded:
    card = card_of(architecture, entry, entry.name)
    if not options.weights and entry.config is not None:
        config = _adapted(architecture, architecture.config(**entry.config), options)
        module = _untrained(architecture, config, entry.name)
        report = Report(source="nothing: untrained")
        return Loaded(
            module, architecture, config, card, report, entry.preprocess, labels=entry.labels
        )
    found = of_entry(entry, options.request)
    card.source = described(found.source)
    options = _mapping(options, found.source)
    if not isinstance(found.source, Wheel):
        loaded = from_folder(found.path, options, name=entry.name, architecture=architecture)
        loaded.card, loaded.preprocess = card, entry.preprocess or loaded.preprocess
        licences.describe(card, found.path)
        if options.num_classes is None:
            loaded.labels = entry.labels or loaded.labels
        return loaded
    original = architecture.config(**(entry.config or {}))
    config = _adapted(architecture, original, options)
    module, report = _filled(architecture, original, config, found.path, entry.layout, options)
    labels = entry.labels if options.num_classes is None else None
    return Loaded(module, architecture, config, card, report, entry.preprocess, labels=labels)


# -- folders ------------------------------------------------------------------------


def from_folder(
    folder: Path,
    options: _Options,
    *,
    name: str | None = None,
    architecture: Architecture | None = None,
) -> Loaded:
    """A model of a folder in our own layout, transformers' or timm's."""
    path = folder / "config.json"
    if not path.is_file():
        raise HubError(
            f"{folder} holds no config.json, so its architecture is unknown.\n"
            f"It has: {', '.join(sorted(p.name for p in folder.iterdir())[:8]) or 'no files'}",
            folder=str(folder),
        )
    limits.check_size(path)
    published = read_json(path)
    marker = published.get(MARKER)
    if isinstance(marker, dict):
        architecture = architecture_by_name(str(marker.get("architecture")))
        layout = str(marker.get("layout", "native"))
        published = {key: value for key, value in published.items() if key != MARKER}
    elif architecture is None:
        found = architecture_of_config(published)
        architecture, layout = found if found is not None else (None, "")
    else:
        layout = (architecture_of_config(published) or (None, "native"))[1]
    if architecture is not None and layout not in architecture.layouts:
        raise HubError(f"{architecture.name} has no layout {layout!r}", layout=layout)
    if architecture is None:
        family = published.get("model_type") or published.get("architecture") or marker
        raise HubError(
            f"{name or folder}: the architecture {family!r} is not supported.\n"
            f"Supported: {', '.join(supported())}",
            architecture=family,
        )
    try:
        config = _config_of(architecture, layout, published, marker)
    except BestiaryError:
        raise
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise ConfigError(
            f"{architecture.name}: {path} holds a value that makes no sense: {error}",
            path=str(path),
        ) from error
    weights = _weights_in(folder, options) if options.weights else None
    detect = architecture.layouts[layout].detect
    shapes = _shapes_in(weights) if weights is not None else {}
    if weights is not None and detect is not None:
        config = detect(config, list(shapes))
    original = config
    config = _adapted(architecture, config, options)
    processor = folder / "preprocessor_config.json"
    card = _card_in(architecture, marker, name or folder.resolve().name)
    if weights is not None:
        module, report = _filled(architecture, original, config, weights, layout, options)
    else:
        module = _untrained(architecture, config, str(path))
        report = Report(source="nothing: untrained")
    same_head = getattr(config, "num_classes", None) == getattr(original, "num_classes", None)
    processing = read_json(processor) if processor.is_file() else None
    if weights is not None:
        remember(module, Origin(layout, published, shapes, processing))
    return Loaded(
        module,
        architecture,
        config,
        card,
        report,
        published=published,
        processor=processing,
        labels=_labels(published) if same_head else None,
        folder=folder,
    )


def card_of_folder(folder: Path) -> Card:
    """The card of a model in a folder, from its config.json alone: no weights are read.

    Raises:
        HubError: there is no config.json, or its architecture is not known.
    """
    path = folder / "config.json"
    if not path.is_file():
        raise HubError(f"{folder} holds no config.json, so nothing is known of it.")
    limits.check_size(path)
    published = read_json(path)
    marker = published.get(MARKER)
    if isinstance(marker, dict):
        architecture = architecture_by_name(str(marker.get("architecture")))
    else:
        architecture = (architecture_of_config(published) or (None, ""))[0]
    if architecture is None:
        family = published.get("model_type") or published.get("architecture") or marker
        raise HubError(f"{folder}: the architecture {family!r} is not supported.")
    card = _card_in(architecture, marker, folder.resolve().name)
    licences.describe(card, folder)
    return card


def _card_in(architecture: Architecture, marker: Any, name: str) -> Card:
    """What the marker of a saved model says, or what is known of any of this architecture."""
    if isinstance(marker, dict) and isinstance(marker.get("card"), dict):
        known = {f.name for f in dataclasses.fields(Card)}
        return Card(**{k: v for k, v in marker["card"].items() if k in known})
    return card_of(architecture, None, name)


def _config_of(
    architecture: Architecture, layout: str, published: dict[str, Any], marker: Any
) -> Any:
    if isinstance(marker, dict):
        known = {f.name for f in dataclasses.fields(architecture.config)}
        given = marker.get("config")
        given = given if isinstance(given, dict) else {}
        unknown = sorted(set(given) - known)
        if unknown:
            raise ConfigError(
                f"{architecture.name}: unknown keys in the saved configuration: {unknown}.\n"
                "Was it saved by a newer version? pip install --upgrade bestiary",
                keys=unknown,
            )
        return architecture.config(
            **{k: tuple(v) if isinstance(v, list) else v for k, v in given.items()}
        )
    translate = architecture.layouts[layout].config
    if translate is None:
        raise HubError(f"{architecture.name}: the layout {layout!r} carries no configuration")
    return translate(published)


def _labels(published: dict[str, Any]) -> list[str] | None:
    table = published.get("id2label")
    if isinstance(table, dict) and table:
        try:
            return [str(table[key]) for key in sorted(table, key=int)]
        except ValueError:
            return None
    names = published.get("label_names")
    return [str(n) for n in names] if isinstance(names, list) and names else None


def _weights_in(folder: Path, options: _Options) -> Path:
    chosen = weights_in(folder, options.request.variant)
    if chosen is None:
        raise HubError(
            f"{folder} holds no weights (model.safetensors, pytorch_model.bin, ...).\n"
            "To build it untrained: bt.load(..., weights=False)",
            folder=str(folder),
        )
    return folder / chosen


def _shapes_in(path: Path) -> dict[str, tuple[int, ...]]:
    from ..core.weights import open_weights

    with open_weights(path) as file:
        return {name: info.shape for name, info in file.infos().items()}


# -- filling a module ------------------------------------------------------------------------


def _adapted(architecture: Architecture, config: Any, options: _Options) -> Any:
    """The configuration with the head and the input that the caller asked for."""
    if options.image_size is not None and hasattr(config, "image_size"):
        config = dataclasses.replace(config, image_size=options.image_size)
    for name in ("num_classes", "in_channels"):
        value = getattr(options, name)
        if value is None:
            continue
        if value < 1:
            raise ConfigError(f"{name} must be at least 1, got {value}", got=value)
        if not hasattr(config, name):
            raise ConfigError(f"{architecture.name} has no {name} to change")
        config = dataclasses.replace(config, **{name: value})
    return config


def _filled(
    architecture: Architecture,
    original: Any,
    config: Any,
    path: Path,
    layout: str,
    options: _Options,
) -> tuple[Module, Report]:
    """The module of `config` with the weights of a file, every one accounted for.

    Args:
        original: the Config that the file was written for.
    """
    from ..core import weights as weight_files

    with weight_files.open_weights(path) as file:
        infos = file.infos()
    module = _empty(architecture, config, path, infos, options)
    arrays = weight_files.load(path, mapped=options.mapped)
    names = renamed(list(arrays), architecture.layouts[layout].rename)
    state: dict[str, Any] = {}
    for old, (new, apply) in names.items():
        state[new] = apply(arrays[old]) if apply is not None else arrays[old]
    dropped = tuple(sorted(set(arrays) - set(names)))
    join(state, architecture.layouts[layout].join)
    reshaped = architecture.fit(state, original, config) if architecture.fit is not None else ()
    targets = {name: tensor.shape for name, tensor in module.state_dict().items()}
    replaced = _replace_head(architecture, module, state, targets, options)
    cast = []
    for new, array in state.items():
        if array.dtype in dtypes.FLOATS and array.dtype != options.dtype:
            state[new] = converted(array, options.dtype)
            cast.append(new)
    if options.dtype != dtypes.float32:
        with np.errstate(all="ignore"):  # what is converted is still uninitialised memory
            module.to(dtype=options.dtype)
    try:
        module.load_state_dict(state, assign=True)
    except WeightsError as error:
        raise WeightsError(f"{path.name}: {error.message}", **error.facts) from None
    report = Report(tuple(sorted(state)), dropped, replaced, tuple(cast), reshaped, str(path))
    return module, report


def _untrained(architecture: Architecture, config: Any, what: str) -> Module:
    """The module of a configuration with initial values; refused if it cannot be meant."""
    what = f"{architecture.name} ({what})"
    limits.check_config(what, config)
    # First without initial values, which costs next to nothing, to know that it is not too large.
    with init.empty():
        _built(architecture, config, limits.budget_without_weights(what))
    return architecture.build(config)


def _empty(
    architecture: Architecture, config: Any, path: Path, infos: Mapping[str, Any], options: _Options
) -> Module:
    """The module that tensors of these shapes are to fill; refused if it is far larger."""
    what = f"{architecture.name} ({path.name})"
    limits.check_config(what, config, sum(math.prod(info.shape) for info in infos.values()))
    height, width = options.image_size or (0, 0)
    asked = (options.num_classes or 0, options.in_channels or 0, height * width)
    with init.empty():
        return _built(architecture, config, limits.budget_for(what, infos, asked))


def _built(architecture: Architecture, config: Any, budget: limits.Budget) -> Module:
    try:
        with init.limited(budget):
            return architecture.build(config)
    except MemoryError as error:
        raise ConfigError(
            f"{budget.what}: its configuration wants more memory than there is: {error}"
        ) from None


def with_new_head(
    architecture: Architecture, config: Any, module: Module, num_classes: int
) -> tuple[Module, Any]:
    """A copy of a module whose head is untrained and has `num_classes` outputs; its Config."""
    changed = dataclasses.replace(config, num_classes=num_classes)
    with init.empty():
        copied = architecture.build(changed)
    inside = tuple(f"{head}." for head in architecture.head)
    state = {
        name: value.array.copy()
        for name, value in module.state_dict().items()
        if not name.startswith(inside)
    }
    for head in architecture.head:
        part = copied.get_submodule(head)
        part.reset_parameters()
        state.update({f"{head}.{name}": v.array for name, v in part.state_dict().items()})
    copied.load_state_dict(state, assign=True)
    remember(copied, origin_of(module))
    return copied, changed


def _replace_head(
    architecture: Architecture,
    module: Module,
    state: dict[str, Any],
    targets: Mapping[str, tuple[int, ...]],
    options: _Options,
) -> tuple[str, ...]:
    """Where the caller asked for another head or stem: new values in place of the file's."""
    replaced: list[str] = []
    if options.num_classes is not None:
        for head in architecture.head:
            own = [n for n in targets if n.startswith(f"{head}.")]
            if all(n in state and state[n].shape == targets[n] for n in own):
                continue  # the same size: the trained head is kept
            part = module.get_submodule(head)
            part.reset_parameters()
            for name, value in part.state_dict().items():
                state[f"{head}.{name}"] = value.array
                replaced.append(f"{head}.{name}")
    stem = architecture.stem
    if options.in_channels is not None and stem is not None and stem in state:
        wanted = targets[stem][1]
        if state[stem].shape[1] != wanted:
            state[stem] = adapted_stem(state[stem], wanted)
            replaced.append(stem)
    return tuple(replaced)


def adapted_stem(weight: Any, channels: int) -> Any:
    """A first convolution for another number of channels, keeping its response to grey images.

    One channel takes the sum over the trained ones; more repeat them, scaled.
    """
    wide = weight.astype(np.float32)
    trained = wide.shape[1]
    if channels == 1:
        out = wide.sum(axis=1, keepdims=True)
    else:
        repeats = -(-channels // trained)
        out = np.tile(wide, (1, repeats, 1, 1))[:, :channels] * (trained / channels)
    return np.ascontiguousarray(out.astype(weight.dtype))
