"""The form in which others publish a model: their configuration and their names of tensors.

A model that was loaded from a repository of transformers or timm is saved as it came, so that
these libraries read it too. Everything is checked by going back: the configuration must translate
to ours, every name must be renamed to ours, every array must come out as it is. Where that fails
(a head that they have no name for, a change that their configuration cannot say), the model is
saved in our own form.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..core.errors import BestiaryError
from ..core.nn import Module
from .registry import Architecture, Layout
from .rename import groups, inverted, renamed

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Origin:
    """What a module was loaded from; kept with it.

    Attributes:
        layout: one of the architecture's.
        published: config.json.
        shapes: of every tensor in the file, by its name there.
        processor: preprocessor_config.json.
    """

    layout: str
    published: Mapping[str, Any]
    shapes: Mapping[str, tuple[int, ...]]
    processor: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Form:
    """How a model is written."""

    layout: str
    published: dict[str, Any]
    arrays: dict[str, Any]


def remember(module: Module, origin: Origin | None) -> None:
    """Keep with a module what it was loaded from."""
    object.__setattr__(module, "_origin", origin)  # not walked: its name begins with _


def origin_of(module: Module) -> Origin | None:
    """What a module was loaded from, if it was."""
    return getattr(module, "_origin", None)


def form_of(
    architecture: Architecture,
    config: Any,
    arrays: Mapping[str, Any],
    origin: Origin | None,
    labels: Sequence[str] | None,
) -> Form | None:
    """The form that others read; None if the model has none, or has left it.

    Args:
        arrays: the state of the module, by our names.
        labels: names of the classes.
    """
    if labels is not None and list(labels) == [f"class {i}" for i in range(len(labels))]:
        labels = None if origin is not None and _says_classes(origin, len(labels)) else labels
    if origin is not None and origin.layout != "native":
        layout = architecture.layouts.get(origin.layout)
        if layout is not None:
            said = _changed(origin, config, labels)
            found = _form(origin.layout, layout, said, config, arrays, origin.shapes)
            if found is not None:
                return found
    for name, layout in architecture.layouts.items():
        if layout.publish is not None:
            said = _labelled(dict(layout.publish(config)), labels)
            found = _form(name, layout, said, config, arrays, None)
            if found is not None:
                return found
    return None


def _says_classes(origin: Origin, count: int) -> bool:
    """Whether the published configuration has this many classes, so that names may be left out."""
    said = origin.published
    return count in (said.get("num_classes"), said.get("num_labels"), len(said.get("id2label", ())))


def _form(
    name: str,
    layout: Layout,
    said: dict[str, Any],
    config: Any,
    arrays: Mapping[str, Any],
    shapes: Mapping[str, tuple[int, ...]] | None,
) -> Form | None:
    try:
        written = (
            _by_pattern(layout, arrays) if shapes is None else _by_file(layout, arrays, shapes)
        )
        if written is None or layout.config is None:
            return None
        back = layout.config(copy.deepcopy(said))
        if layout.detect is not None:
            back = layout.detect(back, list(written))
    except (BestiaryError, ArithmeticError, LookupError, TypeError, ValueError):
        return None
    return Form(name, said, written) if back == config else None


# -- tensors ---------------------------------------------------------------------------------------


def _by_file(
    layout: Layout, arrays: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]
) -> dict[str, Any] | None:
    """Our arrays under the names of the file they came from; None if there are others."""
    theirs = renamed(list(shapes), layout.rename)
    origin = {new: (old, apply) for old, (new, apply) in theirs.items()}
    parts = dict(arrays)
    for target, members in groups(list(origin), layout.join).items():
        if target in parts:
            sizes = [shapes[origin[member][0]][0] for member in members]
            whole = parts.pop(target)
            if whole.shape[0] != sum(sizes):
                return None
            parts.update(zip(members, np.split(whole, np.cumsum(sizes)[:-1]), strict=True))
    kept = {id(parts[name]) for name in origin if name in parts}
    more = [name for name in parts if name not in origin]
    if set(origin) - set(parts) or any(id(parts[name]) not in kept for name in more):
        return None  # but for tied weights, which are in a file once
    written = {}
    for new, (old, apply) in origin.items():
        array = parts[new] if apply is None else _before(parts[new], apply, shapes[old])
        if array is None:
            return None
        written[old] = array
    return written


def _before(array: Array, apply: Any, shape: tuple[int, ...]) -> Array | None:
    """What a transform of a rename table made an array of: transposed, or of another shape."""
    candidates = [array.T] if array.ndim == len(shape) else []
    rest = math.prod(shape[1:])
    if shape and rest and array.size % rest == 0:
        candidates.append(array.reshape((-1, *shape[1:])))  # a head may have other classes
    for candidate in candidates:
        again = apply(candidate)
        if again.shape == array.shape and np.array_equal(again, array, equal_nan=True):
            return np.ascontiguousarray(candidate)
    return None


def _by_pattern(layout: Layout, arrays: Mapping[str, Any]) -> dict[str, Any] | None:
    """Our arrays under the names that the rename table, read backwards, gives them."""
    names = inverted(list(arrays), layout.rename) if not layout.join else None
    return None if names is None else {names[new]: array for new, array in arrays.items()}


# -- configurations --------------------------------------------------------------------------------


def _changed(origin: Origin, config: Any, labels: Sequence[str] | None) -> dict[str, Any]:
    """The published configuration with the changes that ours has had since."""
    said = copy.deepcopy(dict(origin.published))
    if origin.layout == "timm":
        return _timm(said, config, labels)
    size = getattr(config, "image_size", None)
    if "image_size" in said and size is not None:
        pair = tuple(size) if isinstance(size, (list, tuple)) else (size, size)
        square = isinstance(said["image_size"], int) and pair[0] == pair[1]
        said["image_size"] = pair[0] if square else list(pair)
    if hasattr(config, "in_channels") and "num_channels" in said:
        said["num_channels"] = config.in_channels
    return _labelled(said, labels)


def _labelled(said: dict[str, Any], labels: Sequence[str] | None) -> dict[str, Any]:
    if labels is not None and "architecture" not in said:
        said.pop("num_labels", None)
        said["id2label"] = {str(i): name for i, name in enumerate(labels)}
        said["label2id"] = {name: i for i, name in enumerate(labels)}
    return said


def _timm(said: dict[str, Any], config: Any, labels: Sequence[str] | None) -> dict[str, Any]:
    args = said.get("model_args") if isinstance(said.get("model_args"), dict) else {}
    cfg = said.get("pretrained_cfg") if isinstance(said.get("pretrained_cfg"), dict) else {}
    assert args is not None and cfg is not None
    classes, channels = getattr(config, "num_classes", None), getattr(config, "in_channels", None)
    if classes is not None:
        for table in (said, args, cfg):
            if "num_classes" in table:
                table["num_classes"] = classes
        if labels is not None:
            said["label_names"] = list(labels)
            said.pop("label_descriptions", None)
    size = getattr(config, "image_size", None)
    if channels is not None and isinstance(cfg.get("input_size"), list):
        if channels != cfg["input_size"][0] or "in_chans" in args:
            args["in_chans"] = channels
            said["model_args"] = args
        cfg["input_size"] = [channels, *cfg["input_size"][1:]]
    if size is not None and "img_size" in args:
        args["img_size"] = list(size) if isinstance(size, (list, tuple)) else size
    return said


def processor_of(origin: Origin | None, own: Mapping[str, Any]) -> Mapping[str, Any]:
    """How pictures are prepared, in the words of the file it came from if it is still so.

    Args:
        own: in our words.
    """
    if origin is None or origin.processor is None:
        return own
    from ..vision.preprocess import MARK, Preprocess

    if own.get("image_processor_type") != MARK:
        return own
    try:
        same = Preprocess.from_config(origin.processor) == Preprocess.from_config(own)
    except BestiaryError:
        return own
    return origin.processor if same else own
