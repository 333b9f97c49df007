"""Low-rank adapters in files: read and written as the library peft does.

A folder holds `adapter_config.json` and `adapter_model.safetensors` (or `.bin`), whose tensors are
called `base_model.model.`, the path of a layer, and `.lora_A.weight` or `.lora_B.weight`; modules
that were trained whole lie beside them under their own paths.

Source: peft 0.21, `LoraConfig`, `get_peft_model_state_dict`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ..core import nn
from ..core.errors import ConfigError, HubError, WeightsError
from ..core.nn.lora import ALL, adapters
from ..core.nn.module import rebind
from ..core.paths import atomic
from ..core.tensor import Tensor
from ..core.weights import open_weights, save_file

CONFIG, WEIGHTS = "adapter_config.json", ("adapter_model.safetensors", "adapter_model.bin")
LABELS = "labels.json"  # of a classifier's new head, which peft's form has no place for
FILES = (CONFIG, *WEIGHTS, LABELS)
_PREFIX = "base_model.model."
_KINDS = {
    "text-generation": "CAUSAL_LM",
    "text2text-generation": "SEQ_2_SEQ_LM",
    "text-classification": "SEQ_CLS",
    "token-classification": "TOKEN_CLS",
    "question-answering": "QUESTION_ANS",
    "feature-extraction": "FEATURE_EXTRACTION",
}
# Settings of peft that change what an adapter computes, and the values without effect.
_NONE: dict[str, tuple[Any, ...]] = {
    "bias": ("none", None),
    "use_dora": (False, None),
    "rank_pattern": ({}, None),
    "alpha_pattern": ({}, None),
    "layers_to_transform": (None,),
    "layers_pattern": (None,),
    "layer_replication": (None,),
    "lora_bias": (False, None),
    "trainable_token_indices": (None,),
    "target_parameters": (None, []),
    "exclude_modules": (None,),
    "megatron_config": (None,),
}
_KNOWN = {
    "peft_type", "task_type", "r", "lora_alpha", "lora_dropout", "target_modules", "use_rslora",
    "modules_to_save", "base_model_name_or_path", "fan_in_fan_out", "inference_mode", "revision",
    "init_lora_weights", "auto_mapping", "loftq_config", "megatron_core", "eva_config",
    "corda_config", "use_qalora", "qalora_group_size", "peft_version", "runtime_config",
    "alora_invocation_tokens", "ensure_weight_tying", "arrow_config", "lora_ga_config",
    "use_bdlora", "velora_config", "monteclora_config", "kasa_config",
}  # fmt: skip


def is_adapter(folder: Path) -> bool:
    """Whether a folder holds an adapter and no model."""
    return (folder / CONFIG).is_file() and not (folder / "config.json").is_file()


def base_of(folder: Path) -> tuple[str, str | None, list[str] | None]:
    """The model that an adapter is for, the task, and the labels of its head.

    Raises:
        HubError: it does not say which model it is for.
    """
    config = _config(folder)
    base = config.get("base_model_name_or_path")
    if not isinstance(base, str) or not base:
        raise HubError(
            f"{folder / CONFIG} does not say which model it adapts.\n"
            "Load that model yourself, then: model.load_adapter(folder)",
            folder=str(folder),
        )
    tasks = {kind: task for task, kind in _KINDS.items()}
    labels = None
    if (folder / LABELS).is_file():
        found = json.loads((folder / LABELS).read_text(encoding="utf-8"))
        labels = [str(label) for label in found] if isinstance(found, list) else None
    return base, tasks.get(str(config.get("task_type"))), labels


def load_adapted(folder: Path, load: Callable[..., Any], settings: Mapping[str, Any]) -> Any:
    """The model that an adapter is for, as a task, with the adapter on it.

    Args:
        load: `bt.load`.
        settings: of the call; a task or number of classes that is given wins.
    """
    base, task, labels = base_of(folder)
    more = dict(settings)
    if more.get("task") is None and more.get("num_classes") is None:
        more["task"] = task
        if labels is not None:
            more["num_classes"] = len(labels)
    model = load(base, **more)
    model.load_adapter(folder)
    if labels is not None:
        model.labels = labels
    model.card = replace(model.card, name=folder.resolve().name)
    return model


def load_adapter(folder: str | Path, module: nn.Module) -> nn.LoRA:
    """Put the adapter of a folder on a module; returns how the module is adapted.

    Raises:
        HubError: the folder holds none.
        ConfigError: it has settings that are not understood, or names layers that are not there.
        WeightsError: its tensors do not fit the module.
    """
    source = Path(folder)
    how = _read_config(source)
    path = next((source / name for name in WEIGHTS if (source / name).is_file()), None)
    if path is None:
        raise HubError(f"{source} holds none of {', '.join(WEIGHTS)}", folder=str(source))
    with open_weights(path) as file:
        tensors = {name.removeprefix(_PREFIX): np.array(file[name]) for name in file}
    # peft lists the heads of all kinds of models, and some of them twice.
    parts = {name for name, _ in module.named_modules()}
    how = replace(how, heads=tuple(dict.fromkeys(h for h in how.heads if h in parts)))
    nn.add_lora(module, how)
    try:
        _fill(module, how, tensors, path)
    except BaseException:
        nn.remove_lora(module)
        raise
    return how


def save_adapter(
    folder: str | Path,
    module: nn.Module,
    how: nn.LoRA,
    *,
    base: str,
    task: str,
    labels: Sequence[str] | None = None,
) -> Path:
    """Write the adapter of a module.

    Args:
        base: the name, repository or folder of the model that is adapted.
        task: of the model, such as "text-generation".
        labels: of a classifier's head that was trained along.

    Returns:
        The folder. The configuration is written last.
    """
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    arrays = {f"{_PREFIX}{name}": t.cpu().array for name, t in _tensors(module, how).items()}
    save_file(arrays, target / WEIGHTS[0], metadata={"format": "pt"})
    if labels is not None:
        _write(target / LABELS, list(labels))
    targets: Any = how.targets
    if targets == ALL:  # peft's own meaning of the word leaves other layers out
        targets = sorted(path for path, _ in adapters(module))
    alpha = 2 * how.rank if how.alpha is None else how.alpha
    config = {
        "peft_type": "LORA",
        "task_type": _KINDS.get(task),
        "base_model_name_or_path": base,
        "r": how.rank,
        "lora_alpha": int(alpha) if float(alpha).is_integer() else alpha,
        "lora_dropout": how.dropout,
        "target_modules": targets if isinstance(targets, str) else list(targets),
        "modules_to_save": list(how.heads) or None,
        "use_rslora": how.root,
        "bias": "none",
        "fan_in_fan_out": False,
        "init_lora_weights": True,
        "inference_mode": True,
    }
    _write(target / CONFIG, config)
    return target


def _tensors(module: nn.Module, how: nn.LoRA) -> dict[str, Tensor]:
    """Everything that was trained, by the name that it has in the file."""
    found: dict[str, Tensor] = {}
    for path, layer in adapters(module):
        found[f"{path}.lora_A.weight"] = layer.lora_A.weight
        found[f"{path}.lora_B.weight"] = layer.lora_B.weight
    for head in how.heads:
        part = module.get_submodule(head)
        found |= {f"{head}.{name}": parameter for name, parameter in part.named_parameters()}
        found |= {f"{head}.{name}": buffer for name, buffer in part.named_buffers()}
    return found


def _fill(module: nn.Module, how: nn.LoRA, tensors: Mapping[str, Any], path: Path) -> None:
    wanted = _tensors(module, how)
    missing, unknown = sorted(wanted.keys() - tensors), sorted(tensors.keys() - wanted)
    if missing or unknown:
        some = [*(f"missing: {n}" for n in missing[:3]), *(f"unknown: {n}" for n in unknown[:3])]
        raise WeightsError(
            f"{path} does not fit the model: {len(missing)} tensors are missing and "
            f"{len(unknown)} have no place.\n" + "\n".join(some),
            missing=missing,
            unexpected=unknown,
        )
    for name, tensor in wanted.items():
        value = tensors[name]
        if value.shape != tensor.shape:
            raise WeightsError(
                f"{path}: {name} is of shape {value.shape}, and the model's layer wants "
                f"{tuple(tensor.shape)}: the adapter is for another model",
                expected=tuple(tensor.shape),
                got=value.shape,
            )
        rebind(tensor, Tensor(value.astype(tensor.dtype)).to(tensor.device).array)


def _config(folder: Path) -> dict[str, Any]:
    path = folder / CONFIG
    if not path.is_file():
        raise HubError(f"{folder} holds no {CONFIG}, so it is no adapter", folder=str(folder))
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path} is no JSON: {error}", path=str(path)) from None
    if not isinstance(found, dict):
        raise ConfigError(f"{path} is no configuration", path=str(path))
    return found


def _read_config(folder: Path) -> nn.LoRA:
    config, path = _config(folder), folder / CONFIG
    if config.get("peft_type") != "LORA":
        raise ConfigError(
            f"{path}: adapters of the kind {config.get('peft_type')!r} are not supported; LORA is"
        )
    odd = {key: value for key, value in config.items() if value not in _NONE.get(key, (value,))}
    odd |= {k: v for k, v in config.items() if k not in _KNOWN | _NONE.keys() and v}
    if odd:
        listed = ", ".join(f"{key}={value!r}" for key, value in sorted(odd.items()))
        raise ConfigError(
            f"{path} has settings that are not understood: {listed:.300}\n"
            "Ignoring them would change what the model says.",
            unknown=sorted(odd),
        )
    targets = config.get("target_modules")
    try:
        return nn.LoRA(
            rank=config.get("r", 8),
            alpha=float(config.get("lora_alpha", 8)),
            dropout=float(config.get("lora_dropout") or 0.0),
            targets=targets if isinstance(targets, str) else tuple(map(str, targets or ())),
            heads=tuple(map(str, config.get("modules_to_save") or ())),
            root=bool(config.get("use_rslora")),
        )
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{path} holds a value that makes no sense: {error}") from error


def _write(path: Path, value: Any) -> None:
    with atomic(path) as part:
        part.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
