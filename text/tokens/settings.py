"""The small files beside a vocabulary: tokenizer_config.json and its relatives."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ...core.errors import DataError
from .parts import ROLES, Added, Settings

CONFIG = "tokenizer_config.json"
SPECIAL = "special_tokens_map.json"
ADDED = "added_tokens.json"
TEMPLATE = "chat_template.jinja"
TEMPLATES = "additional_chat_templates"
# Configs write "none" as 10^30.
_NO_LIMIT = 10**9
_LARGEST = 64 << 20


def read_bytes(path: Path) -> bytes:
    """The content of a file.

    Raises:
        DataError: it cannot be read, or is far too large.
    """
    try:
        if path.stat().st_size > _LARGEST:
            raise DataError(
                f"{path} has {path.stat().st_size:,} bytes; files of a tokenizer have at most "
                f"{_LARGEST:,}.",
                path=str(path),
            )
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error}", path=str(path)) from error


def read_object(path: Path, content: bytes | None = None) -> dict[str, Any]:
    """A JSON object.

    Raises:
        DataError: it is none; names the file.
    """
    try:
        value = json.loads(read_bytes(path) if content is None else content)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is damaged: {error}", path=str(path)) from None
    if not isinstance(value, dict):
        raise DataError(
            f"{path} is damaged: a JSON object is wanted, not {type(value).__name__}",
            path=str(path),
        )
    return value


def read_settings(root: Path) -> Settings:
    """What the folder says beside the vocabulary; absent files are fine.

    Raises:
        DataError: a file is damaged; names it.
    """
    found = Settings()

    def optional(name: str) -> dict[str, Any]:
        path = root / name
        if not path.is_file():
            return {}
        found.files[name] = read_bytes(path)
        return read_object(path, found.files[name])

    config, special, added = optional(CONFIG), optional(SPECIAL), optional(ADDED)
    found.values = config
    found.kind = str(config.get("tokenizer_class") or "")
    found.kind = found.kind.removesuffix("Fast").removesuffix("Tokenizer")
    _read_added(found, root, config, added)
    # Older files keep the special tokens apart, and that file wins there.
    both = {**special, **config} if "added_tokens_decoder" in config else {**config, **special}
    for role in ROLES:
        token = _token(root / CONFIG, both.get(f"{role}_token"))
        if token is not None:
            found.roles[role] = token.content
            known = found.added.get(token.content)
            if known is None or known.number is None:
                found.added[token.content] = token
    for key in ("additional_special_tokens", "extra_special_tokens"):
        more = both.get(key) or []
        for item in more.values() if isinstance(more, dict) else more:
            token = _token(root / CONFIG, item)
            if token is not None:
                found.extra.append(token.content)
                found.added.setdefault(token.content, token)
    _read_rest(found, root)
    _read_templates(found, root)
    return found


def _read_added(found: Settings, root: Path, config: dict[str, Any], added: dict[str, Any]) -> None:
    decoder = config.get("added_tokens_decoder") or {}
    if not isinstance(decoder, dict):
        raise DataError(f"{root / CONFIG}: added_tokens_decoder is no object")
    for key, item in decoder.items():
        token = _token(root / CONFIG, item, special=False)
        if token is None or not str(key).isdecimal():
            raise DataError(
                f"{root / CONFIG}: {key!r} in added_tokens_decoder is no id of a token",
                path=str(root / CONFIG),
            )
        found.added[token.content] = _numbered(token, int(key))
    for content, number in added.items():
        if type(number) is not int or number < 0:
            raise DataError(
                f"{root / ADDED}: the id of {content!r} is {number!r}", path=str(root / ADDED)
            )
        if content not in found.added:
            found.added[content] = Added(content, number, special=False, normalized=True)


def _numbered(token: Added, number: int) -> Added:
    values = {name: getattr(token, name) for name in Added.__dataclass_fields__}
    return Added(**{**values, "number": number})


def _token(path: Path, item: Any, *, special: bool = True) -> Added | None:
    if item is None:
        return None
    if isinstance(item, str):
        return Added(item) if item else None
    if isinstance(item, dict) and isinstance(item.get("content"), str) and item["content"]:
        special = bool(item.get("special", special))
        return Added(
            item["content"],
            None,
            special,
            left=bool(item.get("lstrip", False)),
            right=bool(item.get("rstrip", False)),
            word=bool(item.get("single_word", False)),
            normalized=bool(item.get("normalized", not special)),
        )
    raise DataError(f"{path}: {item!r:.60} is no token", path=str(path))


def _read_rest(found: Settings, root: Path) -> None:
    config = found.values
    length = config.get("model_max_length")
    if length is not None:
        if isinstance(length, bool) or not isinstance(length, int | float) or length < 1:
            raise DataError(
                f"{root / CONFIG}: model_max_length is {length!r}", path=str(root / CONFIG)
            )
        found.max_length = int(length) if length < _NO_LIMIT else None
    for name, key in (("side", "padding_side"), ("cut_side", "truncation_side")):
        side = config.get(key) or "right"
        if side not in ("left", "right"):
            raise DataError(f"{root / CONFIG}: {key} is {side!r}, neither left nor right")
        setattr(found, name, side)
    for name in ("add_bos", "add_eos"):
        value = config.get(f"{name}_token")
        setattr(found, name, None if value is None else bool(value))
    found.clean_up = bool(config.get("clean_up_tokenization_spaces", False))


def _read_templates(found: Settings, root: Path) -> None:
    listed = found.values.get("chat_template")
    texts: dict[str, str] = {}
    if isinstance(listed, list):
        for item in listed:
            if not isinstance(item, dict) or not isinstance(item.get("template"), str):
                raise DataError(f"{root / CONFIG}: chat_template is a list without templates")
            texts[str(item.get("name", "default"))] = item["template"]
    elif isinstance(listed, dict):
        texts = {str(name): text for name, text in listed.items() if isinstance(text, str)}
    elif isinstance(listed, str):
        texts["default"] = listed
    elif listed is not None:
        raise DataError(f"{root / CONFIG}: chat_template is no text", path=str(root / CONFIG))
    files = [root / TEMPLATE, *sorted((root / TEMPLATES).glob("*.jinja"))]
    for path in files:
        if path.is_file():
            content = read_bytes(path)
            found.files[path.relative_to(root).as_posix()] = content
            name = "default" if path.name == TEMPLATE else path.stem
            try:
                texts[name] = content.decode("utf-8")
            except UnicodeDecodeError as error:
                raise DataError(f"{path} is damaged: {error}", path=str(path)) from None
    found.templates = texts or None
