"""Reading published config.json files: what may be passed over, and what must not be."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ..core.errors import ConfigError

#: Keys that transformers writes for every model and that change no result here.
TRANSFORMERS_COMMON = frozenset(
    (
        "_commit_hash",
        "_name_or_path",
        "architectures",
        "dtype",
        "finetuning_task",
        "id2label",
        "initializer_range",
        "label2id",
        "model_type",
        "num_labels",
        "out_features",
        "out_indices",
        "output_attentions",
        "output_hidden_states",
        "problem_type",
        "return_dict",
        "stage_names",
        "torch_dtype",
        "torchscript",
        "transformers_version",
    )
)

# fmt: off
#: Keys that transformers wrote into parts of a configuration until 2022: how text is generated,
#: which encoders never do, and switches of training.
TRANSFORMERS_DUMPED = frozenset((
    "bad_words_ids", "begin_suppress_tokens", "chunk_size_feed_forward", "decoder_start_token_id",
    "diversity_penalty", "do_sample", "early_stopping", "encoder_no_repeat_ngram_size",
    "exponential_decay_length_penalty", "forced_bos_token_id", "forced_eos_token_id",
    "length_penalty", "max_length", "min_length", "no_repeat_ngram_size", "num_beam_groups",
    "num_beams", "num_return_sequences", "output_scores", "prefix", "remove_invalid_values",
    "repetition_penalty", "return_dict_in_generate", "sep_token_id", "suppress_tokens",
    "task_specific_params", "temperature", "tf_legacy_loss", "tie_encoder_decoder",
    "tie_word_embeddings", "tokenizer_class", "top_k", "top_p", "typical_p", "use_bfloat16",
))
# fmt: on

#: Keys beside `model_args` and `pretrained_cfg` that timm writes.
TIMM_COMMON = frozenset(
    (
        "architecture",
        "global_pool",
        "label_descriptions",
        "label_names",
        "model_args",
        "num_classes",
        "num_features",
        "pretrained_cfg",
    )
)


def refuse_unknown(config: Mapping[str, Any], known: frozenset[str] | set[str], what: str) -> None:
    """Raise for keys that nobody reads: ignoring them would change results.

    Code that a repository offers is never run: `auto_map` is passed over.

    Raises:
        ConfigError: lists the keys and their values.
    """
    unknown = sorted(set(config) - known - {"auto_map", "trust_remote_code"})
    if unknown:
        listed = ", ".join(f"{key}={config[key]!r}" for key in unknown[:8])
        raise ConfigError(
            f"{what}: the published configuration has keys that are not understood:\n  {listed}\n"
            "Ignoring them would change the model's results, so it is not loaded.\n"
            "Of a newer version? pip install --upgrade bestiary\n"
            "Without effect, as far as you know? Remove them from config.json",
            keys=unknown,
        )


def number_of_labels(config: Mapping[str, Any], default: int = 2) -> int:
    """How many classes a transformers configuration has."""
    table = config.get("id2label")
    if isinstance(table, Mapping) and table:
        return len(table)
    return int(config.get("num_labels") or default)


def expect(config: Mapping[str, Any], what: str, **wanted: tuple[Any, ...]) -> None:
    """Raise where a key has a value other than those that are implemented; a missing one is fine.

    Raises:
        ConfigError: names the key, its value and the values wanted.
    """
    for key, values in wanted.items():
        if key in config and config[key] not in values:
            raise ConfigError(
                f"{what}: {key}={config[key]!r} in the published configuration is not supported.\n"
                f"Supported: {', '.join(map(repr, values))}",
                key=key,
                got=config[key],
            )


def choice(what: str, value: Any, allowed: Iterable[str], name: str) -> None:
    """Raise where a setting is none of those that there are.

    Raises:
        ConfigError: names the setting, its value and what there is.
    """
    known = list(allowed)
    if value not in known:
        raise ConfigError(
            f"{what}: there is no {name} {value!r}. There are: {', '.join(known)}",
            key=name,
            got=value,
        )


def as_tuple(what: str, name: str, value: Any) -> tuple[Any, ...]:
    """A list of a configuration as a tuple.

    Raises:
        ConfigError: it is no list.
    """
    if not isinstance(value, (list, tuple)):
        raise ConfigError(f"{what}: {name}={value!r} is no list", name=name, got=value)
    return tuple(value)


def as_pair(what: str, name: str, value: Any) -> tuple[int, int]:
    """A size of pictures or patches: one number for a square, or height and width.

    Raises:
        ConfigError: it is neither.
    """
    pair = tuple(value) if isinstance(value, (list, tuple)) else (value, value)
    positive(what, **{name: pair})
    if len(pair) != 2:
        raise ConfigError(f"{what}: {name}={value!r} is no height and width", name=name, got=value)
    return pair[0], pair[1]


def natural(what: str, **values: Any) -> None:
    """Raise unless every value is a whole number from 0 to 65,536.

    Raises:
        ConfigError: names the field.
    """
    for name, value in values.items():
        if value != 0 or type(value) is not int:
            positive(what, **{name: value})


def positive(what: str, **values: Any) -> None:
    """Raise unless every value, or every item of it, is a whole number from 1 to 65,536.

    Raises:
        ConfigError: names the field; sizes beyond that are nonsense, and allocating for them hurts.
    """
    for name, value in values.items():
        items = value if isinstance(value, (tuple, list)) else (value,)
        if not items or not all(type(item) is int and 1 <= item <= 65_536 for item in items):
            raise ConfigError(
                f"{what}: {name}={value!r} makes no sense: whole numbers from 1 to 65,536 wanted.",
                name=name,
                got=value,
            )


def real(what: str, low: float = 0.0, high: float = 1.0, **values: Any) -> None:
    """Raise unless every value is a number from `low` to `high`.

    Raises:
        ConfigError: names the field.
    """
    for name, value in values.items():
        if type(value) not in (int, float) or not low <= value <= high:
            raise ConfigError(
                f"{what}: {name}={value!r} makes no sense: a number from {low:g} to {high:g} "
                "wanted.",
                name=name,
                got=value,
            )


def flags(what: str, **values: Any) -> None:
    """Raise unless every value is True or False.

    Raises:
        ConfigError: names the field.
    """
    for name, value in values.items():
        if type(value) is not bool:
            raise ConfigError(f"{what}: {name}={value!r} is neither true nor false", name=name)
