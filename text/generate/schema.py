"""JSON schemas, and lists of answers, as state machines.

The part of JSON Schema that is understood: `type` (one, or a list of them), `enum`, `const`,
`anyOf` of alternatives that differ in their first character; `properties` and `required`, `items`,
`minItems`, `maxItems`, `minLength`, `maxLength`. Anything else that would restrict the answer
raises: an answer that only seems to fit is worse than none.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from ...core.errors import ConfigError
from .machine import Either, List, Literals, Machine, Number, Object, Part, String

_DEPTH = 32
_NOTES = {
    "$schema", "$id", "$comment", "title", "description", "default", "examples", "deprecated",
    "readOnly", "writeOnly",
}  # fmt: skip
_KEYS = {
    "object": {"properties", "required", "additionalProperties"},
    "array": {"items", "minItems", "maxItems"},
    "string": {"minLength", "maxLength"},
    "integer": set(),
    "number": set(),
    "boolean": set(),
    "null": set(),
}


def of_choices(choices: Sequence[str]) -> Machine:
    """Exactly one of several answers; a space may come before it.

    Raises:
        ConfigError: no choices, or one that is no text.
    """
    if not choices or isinstance(choices, str):
        raise ConfigError(f"choices={choices!r}: a list of answers to choose from is wanted")
    if not all(type(choice) is str and choice for choice in choices):
        raise ConfigError(f"choices={list(choices)!r}: each must be a text that is not empty")
    options = [_encoded(choice) for choice in choices]
    spaced = [b" " + option for option in options if not option.startswith(b" ")]
    return Machine([Literals(tuple(dict.fromkeys(options + spaced)))], lead=False)


def chosen(text: str, choices: Sequence[str]) -> str:
    """Which of the choices a text is."""
    return text if text in choices else text[1:]


def _encoded(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise ConfigError(f"{text!r} holds half a character, which no text does") from error


def of_schema(schema: Mapping[str, Any]) -> Machine:
    """JSON that a schema describes, without spaces but one behind a colon or a comma.

    Raises:
        ConfigError: names the place in the schema, and what is not understood there.
    """
    if not isinstance(schema, Mapping):
        raise ConfigError(f"schema={schema!r}: a dict is wanted, as JSON Schema has it")
    parts: list[Part] = []
    _part(schema, "schema", parts, 0)
    return Machine(parts)


def _part(schema: Any, where: str, parts: list[Part], depth: int) -> Part:
    """Append the part of a schema behind the parts that it is made of."""
    if not isinstance(schema, Mapping):
        raise ConfigError(f"{where}: {schema!r} is no schema: a dict is wanted", where=where)
    if depth > _DEPTH:
        raise ConfigError(f"{where}: more than {_DEPTH} levels", where=where)
    part: Part
    if "enum" in schema or "const" in schema:
        part = _fixed(schema, where)
    elif "anyOf" in schema:
        _known(schema, {"anyOf"}, where)
        given = _listed(schema["anyOf"], f"{where}.anyOf")
        part = _either(
            [_part(s, f"{where}.anyOf[{i}]", parts, depth + 1) for i, s in enumerate(given)], where
        )
    else:
        part = _typed(schema, where, parts, depth)
    parts.append(part)
    return part


def _typed(schema: Mapping[str, Any], where: str, parts: list[Part], depth: int) -> Part:
    kinds = schema.get("type")
    if isinstance(kinds, list):
        _known(schema, set().union(*(_KEYS.get(str(k), set()) for k in kinds)) | {"type"}, where)
        found = []
        for kind in _listed(kinds, f"{where}.type"):
            keys = {"type", *_KEYS.get(str(kind), ())}
            one = {**{k: v for k, v in schema.items() if k in keys}, "type": kind}
            found.append(_part(one, where, parts, depth + 1))
        return _either(found, where)
    if not isinstance(kinds, str) or kinds not in _KEYS:
        raise ConfigError(
            f"{where}: type={kinds!r} is not understood.\nThere are: {', '.join(_KEYS)}",
            where=where,
        )
    _known(schema, _KEYS[kinds] | {"type"}, where)
    if kinds == "object":
        return _object(schema, where, parts, depth)
    if kinds == "array":
        if "items" not in schema:
            raise ConfigError(f"{where}: an array needs items, the schema of one", where=where)
        items = _part(schema["items"], f"{where}.items", parts, depth + 1)
        return List(items, *_range(schema, "minItems", "maxItems", where))
    if kinds == "string":
        return String(*_range(schema, "minLength", "maxLength", where))
    if kinds in ("integer", "number"):
        return Number(kinds == "integer")
    return Literals((b"true", b"false") if kinds == "boolean" else (b"null",))


def _object(schema: Mapping[str, Any], where: str, parts: list[Part], depth: int) -> Object:
    properties = schema.get("properties")
    if not isinstance(properties, Mapping) or not properties:
        raise ConfigError(f"{where}: an object needs properties, at least one", where=where)
    required = schema.get("required", [])
    if not isinstance(required, list) or not set(required) <= properties.keys():
        raise ConfigError(
            f"{where}: required={required!r} names what properties does not have", where=where
        )
    values = [
        _part(value, f"{where}.properties.{name}", parts, depth + 1)
        for name, value in properties.items()
    ]
    return Object(
        tuple(_encoded(json.dumps(name, ensure_ascii=False)[1:]) for name in properties),
        tuple(values),
        tuple(name in required for name in properties),
    )


def _fixed(schema: Mapping[str, Any], where: str) -> Literals:
    _known(schema, {"enum", "const", "type"}, where)
    values = [schema["const"]] if "const" in schema else schema["enum"]
    values = _listed(values, f"{where}.enum")
    if not all(value is None or isinstance(value, str | int | float) for value in values):
        raise ConfigError(f"{where}: {values!r} may hold texts, numbers, true, false and null")
    kind = schema.get("type")
    if kind is not None and not all(_is(value, kind) for value in values):
        raise ConfigError(f"{where}: not all of {values!r} are of type {kind!r}", where=where)
    try:
        texts = [json.dumps(value, ensure_ascii=False, allow_nan=False) for value in values]
    except ValueError as error:
        raise ConfigError(f"{where}: {values!r}: {error}", where=where) from error
    return Literals(tuple(dict.fromkeys(map(_encoded, texts))))


def _is(value: Any, kind: Any) -> bool:
    """Whether a value is of a type of JSON's, or of one of several."""
    if isinstance(kind, list):
        return any(_is(value, one) for one in kind)
    if isinstance(value, bool):
        return bool(kind == "boolean")
    types = {"string": str, "integer": int, "number": int | float, "null": type(None)}
    return kind in types and isinstance(value, types[kind])


def _either(found: list[Part], where: str) -> Part:
    taken: set[int] = set()
    for part in found:
        if taken & part.first():
            raise ConfigError(
                f"{where}: two alternatives begin with {chr(min(taken & part.first()))!r}, so that "
                "their first character does not tell them apart, which is all that is looked at.",
                where=where,
            )
        taken |= part.first()
    return Either(tuple(found))


def _known(schema: Mapping[str, Any], keys: set[str], where: str) -> None:
    unknown = sorted(str(key) for key in schema if key not in keys | _NOTES)
    if unknown:
        raise ConfigError(
            f"{where}: {', '.join(unknown)}: not understood here, and left aside the answer might "
            f"not fit.\nUnderstood: {', '.join(sorted(keys))}",
            where=where,
            keys=unknown,
        )


def _listed(value: Any, where: str) -> list[Any]:
    if not isinstance(value, list | tuple) or not value:
        raise ConfigError(f"{where}={value!r}: a list that is not empty is wanted", where=where)
    return list(value)


def _range(schema: Mapping[str, Any], low: str, high: str, where: str) -> tuple[int, int | None]:
    least, most = schema.get(low, 0), schema.get(high)
    fits = type(least) is int and 0 <= least <= 10_000
    if not fits or not (most is None or (type(most) is int and most >= least)):
        raise ConfigError(
            f"{where}: {low}={least!r} and {high}={most!r} must be whole numbers, the second not "
            "less than the first, the first at most 10,000",
            where=where,
        )
    return least, most
