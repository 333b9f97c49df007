"""The special tokens of published kinds of tokenizers, where a model's files name none."""

from __future__ import annotations

from collections.abc import Callable

from .parts import Added, Settings

_BERT = {"unk": "[UNK]", "sep": "[SEP]", "pad": "[PAD]", "cls": "[CLS]", "mask": "[MASK]"}
_ROBERTA = {
    "bos": "<s>",
    "eos": "</s>",
    "unk": "<unk>",
    "sep": "</s>",
    "pad": "<pad>",
    "cls": "<s>",
    "mask": "<mask>",
}
_PAIRED = {"bos": "<s>", "eos": "</s>", "unk": "<unk>"}
# tokenizer_class without "Tokenizer" and "Fast" -> its tokens.
KINDS: dict[str, dict[str, str]] = {
    "Bert": _BERT,
    "DistilBert": _BERT,
    "Electra": _BERT,
    "Roberta": _ROBERTA,
    "Longformer": _ROBERTA,
    "XLMRoberta": _ROBERTA,
    "Camembert": _ROBERTA,
    "MPNet": {**_ROBERTA, "unk": "[UNK]"},
    "Albert": {**_BERT, "bos": "[CLS]", "eos": "[SEP]", "unk": "<unk>", "pad": "<pad>"},
    "DebertaV2": {**_BERT, "bos": "[CLS]", "eos": "[SEP]"},
    "GPT2": dict.fromkeys(("bos", "eos", "unk"), "<|endoftext|>"),
    "Llama": _PAIRED,
    "T5": {"eos": "</s>", "unk": "<unk>", "pad": "<pad>"},
}


def fill_roles(settings: Settings, number: Callable[[str], int | None], kind: str = "") -> None:
    """Give the special tokens their usual names, those that the vocabulary has.

    Args:
        number: the id of a token, or None.
        kind: what the tokenizer is where its files do not say.
    """
    kind = settings.kind if settings.kind in KINDS else kind
    roles = KINDS.get(kind, {})
    if not roles and all(number(token) is not None for token in _BERT.values()):
        roles = _BERT
    for role, token in roles.items():
        if role not in settings.roles and number(token) is not None:
            settings.roles[role] = token
    for role, token in settings.roles.items():
        # RoBERTa's mask takes the blank before it along.
        left = role == "mask" and token == "<mask>"
        settings.added.setdefault(token, Added(token, number(token), left=left))
