"""`bt.load`: from a name, a repository or a folder to a model that takes raw input."""

from __future__ import annotations

import dataclasses
import importlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..core.errors import BestiaryError, ConfigError, HubError
from ..core.nn import Module
from ..core.spelling import spelled
from . import licences, limits
from .adapters import is_adapter, load_adapted
from .card import Card, card_of
from .choice import agent_in, weights_in
from .filling import Options, Report, adapted, filled, untrained
from .published import Origin, remember
from .quantizing import checked, precision
from .registry import (
    Architecture,
    Entry,
    Hub,
    architecture_by_name,
    architecture_of_config,
    entry_of_file,
    entry_of_repository,
    find,
    layout_of,
    supported,
)
from .repository import read_json
from .sources import (
    Obtained,
    Request,
    check_name,
    described,
    is_repository,
    obtain,
    of_entry,
)

GGUF = ".gguf"  # how the name of such a file ends
NCNN = ".param"
FILES = (".pth", ".pt", ".safetensors")  # of files that a curated model may be published as
SINGLE = (".safetensors", ".ckpt")  # of files that may hold all networks of a pipeline
MARKER = "bestiary"  # the key of config.json that tells our own saved models

# The class that serves each task, imported when the first model of it is loaded.
_TASKS = {
    "automatic-speech-recognition": ("text.tasks.speech", "SpeechRecognizer"),
    "class-conditional-image-generation": ("generative.tasks.class_to_image", "ClassToImage"),
    "depth-estimation": ("vision.depth_estimator", "DepthEstimator"),
    "feature-extraction": ("text.tasks.embedder", "Embedder"),
    "fill-mask": ("text.tasks.fill_mask", "FillMask"),
    "image-autoencoding": ("generative.tasks.autoencoder", "Autoencoder"),
    "image-classification": ("vision.tasks", "ImageClassifier"),
    "image-feature-extraction": ("vision.embedder", "Embedder"),
    "image-segmentation": ("vision.segmenter", "Segmenter"),
    "image-upscaling": ("generative.tasks.upscaler", "Upscaler"),
    "mask-generation": ("vision.mask_generator", "MaskGenerator"),
    "object-detection": ("vision.detector", "Detector"),
    "pipeline-part": ("generative.tasks.part", "Part"),
    "question-answering": ("text.tasks.question_answerer", "QuestionAnswerer"),
    "text-classification": ("text.tasks.classifier", "TextClassifier"),
    "text-generation": ("text.tasks.generator", "TextGenerator"),
    "text-to-image": ("generative.tasks.text_to_image", "TextToImage"),
    "text2text-generation": ("text.tasks.seq2seq", "TextToText"),
    "token-classification": ("text.tasks.token_classifier", "TokenClassifier"),
    "unconditional-image-generation": ("generative.tasks.image_generator", "ImageGenerator"),
    "zero-shot-image-classification": ("vision.zero_shot", "ZeroShotClassifier"),
}
FEATURES = "image-feature-extraction"
_AGENTS = "rl.agents"  # what loads these


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
    metadata: dict[str, Any] | None = None  # of a GGUF file: its tokenizer is there
    image_size: tuple[int, int] | None = None  # that the caller asked for
    parts: dict[str, Loaded] = field(default_factory=dict)  # of a pipeline: its networks
    skipped: tuple[str, ...] = ()  # of a pipeline: parts that are not used
    scheduler: dict[str, Any] | None = None  # of a pipeline: scheduler_config.json


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
    compile: bool = True,
) -> Any:
    """A model that takes raw input: `bt.load("efficientnet-lite0")("photo.jpg", top=5)`.

    Args:
        name: a curated name (`bestiary list`), a hub repository `org/name` of a supported
            family or with an agent of Stable-Baselines3, a folder with config.json and weights, a
            GGUF file, or an ONNX file, of which a module with inputs by name is made. What exists
            wins.
        weights: False builds the model untrained.
        device: "cpu", "cuda", "cuda:1".
        dtype: of the parameters: float32 unless given. "int8" and "int4" keep the weights of
            linear layers and large tables in few bits, as `nn.quantize_` does. Those of a GGUF
            file, or of a model saved so, stay as they are stored unless a dtype is given.
        revision: branch, tag or commit of a hub repository.
        num_classes: replaces the classification head with an untrained one of this size.
        in_channels: adapts the first layer to images of this many channels.
        image_size: height and width of the pictures, where not those of the training; tables
            of positions are resized.
        task: what it is for, where a model can do several things: "image-feature-extraction" gives
            an `Embedder` in place of a classifier of pictures; for encoders of texts
            "feature-extraction", "fill-mask", "text-classification", ... A head that the weights
            lack is untrained.
        variant: of the published weights, such as "fp16".
        locked: load only what a lock file names: its path, or True for `bestiary.lock` here.
        verify: hash the cached files of a hub repository again, instead of comparing size and
            time with what was found on their arrival.
        compile: run what is called again and again compiled (`bt.compile`); False never does.

    Raises:
        HubError: nothing of that name, or it could not be fetched.
        WeightsError: the weights are damaged or do not fit the model.
        ConfigError: the published configuration has keys that are not understood.
        DtypeError: a dtype that weights cannot have.
    """
    from .lock import in_force

    check_name(name)
    agent = _agent(name)
    if agent is not None:
        return agent
    path = Path(name).expanduser()
    if path.suffix == ".onnx" and path.is_file():
        from ..core.onnx.runner import load_onnx

        return load_onnx(path)
    if is_adapter(path):
        given = {
            "weights": weights, "device": device, "dtype": dtype, "revision": revision,
            "num_classes": num_classes, "in_channels": in_channels, "image_size": image_size,
            "task": task, "variant": variant, "locked": locked, "verify": verify,
            "compile": compile,
        }  # fmt: skip
        return load_adapted(path, load, given)
    numbers, form = precision(dtype)
    options = Options(
        weights=weights,
        dtype=numbers,
        form=form,
        num_classes=num_classes,
        in_channels=in_channels,
        image_size=_size(image_size),
        task=task,
        request=Request(revision=revision, variant=variant, lock=in_force(locked), verify=verify),
    )
    here = _repository(name, options.request)
    held = None if here is None else agent_in(here.files)
    if here is not None and held is not None:
        return agents().load_agent(here.files[held])
    loaded = _loaded(name, options, here)
    loaded.module.eval()
    loaded.image_size = options.image_size
    loaded.card.task = _task_name(loaded, options, task)
    licences.show_once(loaded.card)
    model = task_class(loaded.card.task).from_loaded(loaded)
    model.compile = compile
    model.loaded_as = str(path.resolve()) if path.exists() else str(name)
    return model.to(device) if str(device) != "cpu" else model


def agents() -> Any:
    """The module that knows agents, which need not be there for anything else."""
    return importlib.import_module(f"...{_AGENTS}", __name__)


def _agent(name: str | Path) -> Any:
    """The agent of a folder, a zip or a name that comes with the package; None of what is none."""
    folder = agents().folder_of(name)
    return None if folder is None else agents().load_agent(folder)


def _size(size: int | tuple[int, int] | None) -> tuple[int, int] | None:
    if size is None:
        return None
    pair = tuple(size) if isinstance(size, (tuple, list)) else (size, size)
    if len(pair) != 2 or not all(type(n) is int and 1 <= n <= 65_536 for n in pair):
        raise ConfigError(
            f"image_size={size!r} is neither a number of pixels nor (height, width)", got=size
        )
    return pair[0], pair[1]


def _task_name(loaded: Loaded, options: Options, wanted: str | None) -> str:
    """What the model is to do: as asked; as its head, or the lack of one, says; as it was saved."""
    if hasattr(loaded.config, "task"):  # and it was adapted to what is wanted
        return str(loaded.config.task)
    own, classes = loaded.architecture.task, getattr(loaded.config, "num_classes", None)
    if own == FEATURES and classes:
        own = "image-classification"
    if wanted is not None:
        if wanted != own and not (wanted == FEATURES and hasattr(loaded.module, "embed")):
            raise ConfigError(
                f"{loaded.card.name} is for {own} and cannot do {wanted!r}.", got=wanted
            )
        return wanted
    if classes == 0 and domain_of(own) != "generative":  # there it is one kind of picture
        return FEATURES
    saved_so = loaded.card.task == FEATURES != loaded.architecture.task
    return FEATURES if saved_so and options.num_classes is None else own


def task_class(task: str) -> Any:
    """The class that serves a task."""
    module, name = _TASKS[task]
    return getattr(importlib.import_module(f"...{module}", __name__), name)


def domain_of(task: str) -> str:
    """The folder that serves a task: "vision" or "text"."""
    return _TASKS[task][0].partition(".")[0]


def _repository(name: str | Path, request: Request) -> Obtained | None:
    """The files of a repository on the hub; None if the name means something else."""
    if isinstance(name, Path) or not is_repository(name) or Path(name).expanduser().exists():
        return None
    return None if find(name) is not None else obtain(name, request)


def _loaded(name: str | Path, options: Options, here: Obtained | None = None) -> Loaded:
    path = Path(name).expanduser()
    found = None if isinstance(name, Path) or path.exists() else find(name)
    if found is not None:
        return _curated(*found, options)
    if path.suffix == GGUF and path.is_file():
        from .gguf import from_gguf

        return from_gguf(path, options)
    if path.suffix in SINGLE and path.is_file():
        from ..generative import single_file

        if single_file.is_single_file(path):
            return single_file.from_single_file(path, options)
    if path.suffix in FILES and path.is_file():
        published = entry_of_file(path.name)
        if published is not None and not options.weights:
            return _curated(*published, options)
        if published is not None:
            return _of_file(*published, path, options, card_of(*published, published[1].name))
    here = here or obtain(name, options.request)
    options = _mapping(options, here.source)
    loaded = from_folder(here.path, options, name=None if here.source is None else here.name)
    if here.source is not None:
        loaded.card.source = described(here.source)
    known = entry_of_repository(here.source.repo) if isinstance(here.source, Hub) else None
    if known is not None and known.commercial is not None:  # repositories may say "other"
        loaded.card.license, loaded.card.commercial = known.license, known.commercial
    licences.describe(loaded.card, here.path)
    return loaded


def _mapping(options: Options, source: Any) -> Options:
    """Map what lies in a cache or an installed package, and read what the user named.

    A mapped file that is truncated ends the process. On Windows one that is mapped could not be
    removed from the cache.
    """
    return dataclasses.replace(options, mapped=source is not None and os.name != "nt")


# -- curated models ------------------------------------------------------------------------


def _curated(architecture: Architecture, entry: Entry, options: Options) -> Loaded:
    card = card_of(architecture, entry, entry.name)
    if not options.weights and entry.config is not None:
        config = adapted(architecture, architecture.config(**entry.config), options)
        module = untrained(architecture, config, entry.name, options.form)
        report = Report(source="nothing: untrained")
        return Loaded(
            module, architecture, config, card, report, entry.preprocess, labels=entry.labels
        )
    found = of_entry(entry, options.request)
    card.source = described(found.source)
    options = _mapping(options, found.source)
    # Other models may lie in the folder of a wheel that is installed.
    layers = [path for name, path in found.files.items() if name.endswith(NCNN)]
    if layers:
        return _of_file(architecture, entry, layers[0], options, card)
    if found.path.is_dir():
        loaded = from_folder(found.path, options, name=entry.name, architecture=architecture)
        loaded.card, loaded.preprocess = card, entry.preprocess or loaded.preprocess
        licences.describe(card, found.path)
        if options.num_classes is None:
            loaded.labels = entry.labels or loaded.labels
        return loaded
    if found.path.suffix == GGUF:
        from .gguf import from_gguf

        loaded = from_gguf(found.path, options)
        loaded.card = card
        return loaded
    return _of_file(architecture, entry, found.path, options, card)


def _of_file(
    architecture: Architecture, entry: Entry, path: Path, options: Options, card: Card
) -> Loaded:
    """A curated model whose weights are one file, without a configuration beside it."""
    original = architecture.config(**(entry.config or {}))
    config = adapted(architecture, original, options)
    module, report = filled(architecture, original, config, path, entry.layout, options)
    labels = entry.labels if options.num_classes is None else None
    return Loaded(module, architecture, config, card, report, entry.preprocess, labels=labels)


# -- folders ------------------------------------------------------------------------


def from_folder(
    folder: Path,
    options: Options,
    *,
    name: str | None = None,
    architecture: Architecture | None = None,
) -> Loaded:
    """A model of a folder in our own layout, transformers' or timm's."""
    path = folder / "config.json"
    if not path.is_file():
        from . import pipelines

        if pipelines.is_pipeline(folder):
            return pipelines.pipeline_in(folder, options, name=name)
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
        own = layout_of(architecture, published)  # without importing all the others
        layout = own or (architecture_of_config(published) or (None, "native"))[1]
    if architecture is not None and layout not in architecture.layouts:
        raise HubError(f"{architecture.name} has no layout {layout!r}", layout=layout)
    if architecture is None:
        known = ("model_type", "architecture", "_class_name")
        family = next((published[key] for key in known if published.get(key)), marker)
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
    config = adapted(architecture, config, options)
    card = card_in(architecture, marker, name or folder.resolve().name)
    if weights is not None:
        stored = checked(marker.get("quantized") if isinstance(marker, dict) else None, str(path))
        module, report = filled(architecture, original, config, weights, layout, options, stored)
    else:
        module = untrained(architecture, config, str(path), options.form)
        report = Report(source="nothing: untrained")
    same_head = _head_of(config) == _head_of(original)
    processing = _processing_in(folder)
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
    from . import pipelines

    path = folder / "config.json"
    if not path.is_file() and pipelines.is_pipeline(folder):
        found, index = pipelines.architecture_of(folder)
        card = card_in(found, index.get(MARKER), folder.resolve().name)
        licences.describe(card, folder)
        return card
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
    card = card_in(architecture, marker, folder.resolve().name)
    licences.describe(card, folder)
    return card


def card_in(architecture: Architecture, marker: Any, name: str) -> Card:
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


def _head_of(config: Any) -> tuple[Any, Any]:
    return getattr(config, "task", None), getattr(config, "num_classes", None)


def _labels(published: dict[str, Any]) -> list[str] | None:
    table = published.get("id2label")
    if isinstance(table, dict) and table:
        try:
            return [str(table[key]) for key in sorted(table, key=int)]
        except ValueError:
            return None
    names = published.get("label_names")
    return [str(n) for n in names] if isinstance(names, list) and names else None


def _processing_in(folder: Path) -> dict[str, Any] | None:
    """How inputs are prepared; transformers 5 writes that of several kinds of input in one file."""
    path = folder / "preprocessor_config.json"
    if path.is_file():
        return read_json(path)
    path = folder / "processor_config.json"
    together = read_json(path) if path.is_file() else {}
    parts = [together.get(key) for key in ("image_processor", "feature_extractor")]
    return next((part for part in parts if isinstance(part, dict)), None)


def _weights_in(folder: Path, options: Options) -> Path:
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
