"""The tokenizer of a GGUF file: byte-level byte pairs, special tokens and chat template."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ...core.errors import DataError
from .bare import byte_level
from .bpe import CUTTERS
from .own import Own
from .parts import Added, Settings, Template

_PREFIX = "tokenizer.ggml."
_CONTROL, _OWN = 3, 4  # kinds of tokens: special ones, and those of users
_CUTTERS = {"default": "gpt-2", "smollm": "smollm", "llama-bpe": "llama-bpe", "qwen2": "qwen2"}
_ROLES = {
    "bos": "bos_token_id",
    "eos": "eos_token_id",
    "unk": "unknown_token_id",
    "pad": "padding_token_id",
    "sep": "seperator_token_id",  # as the format spells it
}


def read_gguf(
    metadata: Mapping[str, Any],
) -> tuple[Own, Template, Settings, dict[str, bytes]]:
    """Engine, template, settings, and files from which the same tokenizer is read again.

    Raises:
        DataError: a kind or a way to cut words that is not supported; something is missing.
    """

    def get(name: str, default: Any = None) -> Any:
        return metadata.get(_PREFIX + name, default)

    kind = get("model")
    tokens, merges = get("tokens"), get("merges")
    if kind != "gpt2" or tokens is None or merges is None:
        raise DataError(
            f"the tokenizer {kind!r} of a GGUF file is not supported, or lacks tokens or merges.\n"
            "Supported: 'gpt2', byte-level byte pairs",
            got=kind,
        )
    pre = str(get("pre", "default"))
    cutter = _CUTTERS.get(pre, pre if pre in CUTTERS else None)
    if cutter is None:
        raise DataError(
            f"texts cannot be cut into words as {pre!r} says.\nKnown: {', '.join(_CUTTERS)}",
            got=pre,
        )
    kinds = get("token_type")
    settings = Settings(add_bos=bool(get("add_bos_token", False)), kind="GPT2")
    settings.add_eos = bool(get("add_eos_token", False))
    for i, content in enumerate(tokens):
        if kinds is not None and int(kinds[i]) in (_CONTROL, _OWN):
            special = int(kinds[i]) == _CONTROL
            settings.added[content] = Added(content, i, special=special)
    for role, name in _ROLES.items():
        number = get(name)
        if number is not None and 0 <= int(number) < len(tokens):
            settings.roles[role] = tokens[int(number)]
    family = metadata.get("general.architecture")
    length = metadata.get(f"{family}.context_length")
    settings.max_length = None if length is None else int(length)
    template = metadata.get("tokenizer.chat_template")
    if isinstance(template, str):
        settings.templates = template
    pairs = [_pair(line) for line in merges]
    engine = byte_level(list(tokens), pairs, cutter=cutter, added=list(settings.added.values()))
    ends = (engine.number(settings.roles.get(role, "")) for role in ("bos", "eos"))
    files = _files(tokens, merges, settings) if cutter == "gpt-2" else {}
    return engine, settings.ends(*ends), settings, files


def _pair(line: str) -> tuple[str, str]:
    left, _, right = line.partition(" ")
    if not left or not right:
        raise DataError(f"{line!r:.40} is no pair of tokens")
    return left, right


def _files(tokens: Any, merges: Any, settings: Settings) -> dict[str, bytes]:
    """vocab.json, merges.txt and tokenizer_config.json, where these say how texts are cut."""
    said: dict[str, Any] = {"tokenizer_class": "GPT2Tokenizer", "chat_template": settings.templates}
    said |= {f"{role}_token": token for role, token in settings.roles.items()}
    said |= {"add_bos_token": settings.add_bos, "model_max_length": settings.max_length}
    vocab = {token: i for i, token in enumerate(tokens)}
    return {
        "vocab.json": json.dumps(vocab, ensure_ascii=False).encode(),
        "merges.txt": ("\n".join(merges) + "\n").encode(),
        "tokenizer_config.json": json.dumps(said, ensure_ascii=False, indent=1).encode(),
    }
