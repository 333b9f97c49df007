"""Reading the config.json files of published text models."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from typing import Any

from ..hub.configuration import (
    TRANSFORMERS_COMMON,
    TRANSFORMERS_DUMPED,
    number_of_labels,
    refuse_unknown,
)

# fmt: off
#: Keys that change nothing that a module computes: how text is generated, ids of tokens that the
#: tokenizer knows, switches of training and of memory.
IGNORED = frozenset(TRANSFORMERS_COMMON | TRANSFORMERS_DUMPED | {
    "add_cross_attention", "bos_token_id", "classifier_dropout", "cross_attention_hidden_size",
    "eos_token_id", "gradient_checkpointing", "is_decoder", "is_encoder_decoder",
    "language", "mask_token_id", "name_or_path", "output_past", "pad_token_id",
    "pretraining_tp", "pruned_heads", "sentence_transformers", "summary_activation",
    "summary_first_dropout", "summary_proj_to_labels", "summary_type", "summary_use_proj",
    "unk_token_id", "use_cache",
}) - {"tie_word_embeddings"}
# fmt: on

#: How the name of the class that wrote a file ends -> what the model is for.
ENDINGS = {
    "ForMaskedLM": "fill-mask",
    "ForPreTraining": "fill-mask",
    "ForSequenceClassification": "text-classification",
    "ForTokenClassification": "token-classification",
    "ForQuestionAnswering": "question-answering",
    "ForCausalLM": "text-generation",
    "LMHeadModel": "text-generation",
    "ForConditionalGeneration": "text2text-generation",
    "Model": "feature-extraction",
}
#: With what the names of the weights begin that fill gaps: of all encoders.
_GAPS = ("cls.predictions.", "lm_head.", "predictions.", "vocab_transform.", "decoder.")
WITH_CLASSES = ("text-classification", "token-classification")


def task_of(published: Mapping[str, Any], default: str) -> str:
    """What the class that wrote a config.json is for."""
    wrote = published.get("architectures")
    name = str(wrote[0]) if isinstance(wrote, list) and wrote else ""
    return next((task for ending, task in ENDINGS.items() if name.endswith(ending)), default)


def headed(config: Any, names: Collection[str]) -> Any:
    """The Config of an encoder for filling gaps, where config.json names no class and the file has
    the head for that, as the oldest files do."""
    if config.task == "feature-extraction" and any(name.startswith(_GAPS) for name in names):
        return dataclasses.replace(config, task="fill-mask")
    return config


def settings(
    published: Mapping[str, Any],
    config: type[Any],
    what: str,
    *,
    task: str,
    also: frozenset[str] | set[str] = frozenset(),
) -> dict[str, Any]:
    """What a config.json says of the fields of a Config that have the names published.

    Args:
        config: a dataclass, with `task` and, where heads have classes, `num_classes`.
        what: the family, for errors.
        task: where the file does not say which class wrote it.
        also: keys that the caller reads, or that change nothing.

    Raises:
        ConfigError: keys that nobody reads; lists them.
    """
    names = {field.name for field in dataclasses.fields(config)} - {"task", "num_classes"}
    refuse_unknown(published, names | IGNORED | also, what)
    found = {name: published[name] for name in names if name in published}
    found["task"] = task_of(published, task)
    if found["task"] in WITH_CLASSES:
        found["num_classes"] = number_of_labels(published)
    return found
