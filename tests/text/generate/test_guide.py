"""Answers of a given form: choices and JSON schemas, over vocabularies of several kinds."""

from __future__ import annotations

import json
import random
import string

import numpy as np
import pytest

import bestiary as bt
from bestiary.text.generate.guide import Guide
from bestiary.text.generate.loop import decode
from bestiary.text.generate.schema import chosen, of_choices, of_schema
from bestiary.text.generate.settings import Settings
from bestiary.text.generate.vocabulary import Vocabulary, fitting

ConfigError = bt.errors.ConfigError

PERSON = {
    "type": "object",
    "title": "Person",
    "properties": {
        "name": {"type": "string", "minLength": 1, "maxLength": 8},
        'nämé "2"': {"type": "string"},
        "age": {"type": "integer"},
        "weight": {"type": ["number", "null"]},
        "tags": {"type": "array", "items": {"enum": ["a", "ab", 1, 12, None]}, "maxItems": 3},
        "home": {
            "type": "object",
            "properties": {"lat": {"type": "number"}, "ok": {"type": "boolean"}},
            "required": ["ok"],
        },
        "matrix": {
            "type": "array",
            "minItems": 2,
            "items": {"type": "array", "items": {"type": "integer"}, "minItems": 1, "maxItems": 2},
        },
        "kind": {"const": "person"},
        "any": {"anyOf": [{"type": "string", "maxLength": 3}, {"type": "null"}]},
    },
    "required": ["name", "age", "home", "matrix"],
}


def words():
    """Every byte, and longer tokens across the borders of JSON's own."""
    found = [bytes([b]) for b in range(256)]
    found += [b'{"', b'":', b'": "', b'",', b'", "', b'"}', b"}}", b"]]", b"[[", b'"},', b"true"]
    found += [b"name", b"na", b"person", b" {", b"12", b"null", b", ", b'"name": "', b"\\n", b"\\u"]
    found += [
        "é".encode(),
        "猫".encode(),
        "猫".encode()[:2],
        b'a"',
        b"hello",
        b" world",
        b'"]',
        b"1,",
    ]
    return [b"", *found]


def is_valid(value, schema):
    """What the schema asks for, in the few words that are understood."""
    if "anyOf" in schema:
        return any(is_valid(value, one) for one in schema["anyOf"])
    if "const" in schema:
        return value == schema["const"]
    if "enum" in schema:
        return any(value == v and type(value) is type(v) for v in schema["enum"])
    kinds = schema["type"]
    if isinstance(kinds, list):
        return any(is_valid(value, {**schema, "type": kind}) for kind in kinds)
    if kinds == "object":
        return (
            isinstance(value, dict)
            and set(schema.get("required", ())) <= value.keys() <= schema["properties"].keys()
            and all(is_valid(v, schema["properties"][k]) for k, v in value.items())
        )
    if kinds == "array":
        few, many = schema.get("minItems", 0), schema.get("maxItems", 1 << 30)
        return (
            isinstance(value, list)
            and few <= len(value) <= many
            and all(is_valid(v, schema["items"]) for v in value)
        )
    if kinds == "string":
        few, many = schema.get("minLength", 0), schema.get("maxLength", 1 << 30)
        return isinstance(value, str) and few <= len(value) <= many
    types = {"integer": int, "number": (int, float), "boolean": bool, "null": type(None)}
    return isinstance(value, types[kinds]) and (kinds == "boolean" or value is not True)


def written(guide, room, rng, pull=None):
    """An answer of random tokens, and the number of its tokens."""
    state, text = guide.start(), b""
    guide.check(room)
    for n in range(room):
        logits = rng.normal(size=len(guide.vocabulary.contents)).astype(np.float32)
        if pull is not None:
            logits[pull] += 8
        token = guide.choose(logits, state, room - n, lambda x: int(x.argmax()))
        if token in guide.ends:
            assert guide.machine.accepts(state)
            return text, n + 1
        text += guide.vocabulary.contents[token]
        state = guide.advance(state, token)
        if guide.complete(state):
            return text, n + 1
    assert guide.machine.accepts(state), text
    return text, room


@pytest.mark.parametrize("room", [95, 130, 400])
def test_what_comes_parses_and_is_valid(room):
    guide = Guide(of_schema(PERSON), Vocabulary(words()), ends=[0])
    rng = np.random.default_rng(room)
    for i in range(12):
        text, count = written(guide, room, rng, pull=None if i % 3 else [1 + 0x22])
        assert is_valid(json.loads(text.decode()), PERSON) and count <= room


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "integer"},
        {"type": "number"},
        {"type": "boolean"},
        {"type": "null"},
        {"type": "string", "minLength": 30, "maxLength": 31},
        {"type": "string"},
        {"enum": [1, 12, 123, -5.5, "a"]},
        {"type": "array", "items": {"type": "string", "minLength": 2}, "minItems": 3},
        {"anyOf": [{"type": "array", "items": {"type": "null"}}, {"type": "integer"}]},
    ],
)
@pytest.mark.parametrize("ends", [(), (0,)])
def test_every_kind_of_value(schema, ends):
    guide = Guide(of_schema(schema), Vocabulary(words()), ends)
    rng = np.random.default_rng(1)
    for room in (40, 60, 60, 60):
        text, _ = written(guide, room, rng)
        assert is_valid(json.loads(text.decode()), schema)


def test_the_machine_knows_json():
    """Texts that json writes are accepted, broken ones are not."""
    machine = of_schema({"type": "array", "items": {"type": ["string", "number", "null"]}})
    rng = random.Random(0)
    for _ in range(200):
        alphabet = string.printable + "é猫😀\x7f"
        values = [
            "".join(rng.choices(alphabet, k=5)),
            round(rng.uniform(-1e6, 1e6), 3),
            rng.randint(-99, 99),
            None,
            rng.uniform(0, 1) * 1e-9,
        ]
        for ascii_only in (True, False):
            text = json.dumps(values, ensure_ascii=ascii_only)
            state = machine.walk(machine.start, text.encode())
            if ascii_only and "\\ud83d" in text:
                assert state is None  # halves of characters are not let in
            else:
                assert state == (), text
    for broken in ["[01]", "[1.]", "[-]", '["\\x"]', '["\n"]', "[1,]", "[,1]", "[1  ,2]", "[.5]"]:
        assert machine.walk(machine.start, broken.encode()) is None, broken
    for lead in (b"\xc0\x80", b"\xed\xa0\x80", b"\xf5\x80\x80\x80", b"\x80", b"\xe0\x80\x80"):
        assert machine.walk(machine.start, b'["' + lead) is None


def test_the_shortest_way_completes_from_anywhere():
    machine = of_schema(PERSON)
    rng = random.Random(1)
    for _ in range(300):
        state, text = machine.start, b""
        for _ in range(rng.randint(0, 60)):
            fit = [b for b in range(256) if machine.step(state, b) is not None]
            if not fit:
                break
            byte = rng.choice(fit)
            state, text = machine.step(state, byte), text + bytes([byte])
        whole = text + machine.rest(state)
        end = machine.walk(machine.start, whole)
        assert end is not None and machine.accepts(end), whole
        assert is_valid(json.loads(whole.decode()), PERSON)


def test_a_form_that_does_not_fit_the_room():
    guide = Guide(of_schema(PERSON), Vocabulary(words()), ends=[0])
    with pytest.raises(ConfigError, match="max_new_tokens=") as caught:
        guide.check(10)
    assert caught.value.got == 10 and caught.value.expected > 40


@pytest.mark.parametrize(
    ("schema", "said"),
    [
        ({"type": "string", "pattern": "a+"}, "schema: pattern"),
        ({"type": "integer", "minimum": 3}, "schema: minimum"),
        ({"type": "object"}, "needs properties"),
        ({"type": "object", "properties": {"a": {"$ref": "#"}}}, r"schema.properties.a"),
        ({"type": "object", "properties": {"a": {"type": "null"}}, "required": ["b"]}, "required"),
        ({"type": "array"}, "needs items"),
        ({"type": "thing"}, "type='thing'"),
        ({}, "type=None"),
        ({"enum": []}, "enum"),
        ({"enum": [[1]]}, "texts, numbers"),
        ({"enum": ["a"], "type": "integer"}, "of type 'integer'"),
        ({"type": "string", "minLength": 5, "maxLength": 4}, "minLength=5"),
        ({"type": ["integer", "number"]}, "alternatives begin with"),
        ({"anyOf": [{"type": "string"}, {"enum": ["a"]}]}, "alternatives begin with"),
        ("string", "a dict is wanted"),
    ],
)
def test_schemas_that_are_not_understood(schema, said):
    with pytest.raises(ConfigError, match=said):
        of_schema(schema)


def test_deep_schemas():
    schema = {"type": "null"}
    for _ in range(40):
        schema = {"type": "array", "items": schema}
    with pytest.raises(ConfigError, match="32 levels"):
        of_schema(schema)


# -- choices -----------------------------------------------------------------------------------


def test_choices():
    choices = ["yes", "no", "yes, sir", "naïve 猫", " no"]
    guide = Guide(of_choices(choices), Vocabulary(words()), ends=[0])
    rng = np.random.default_rng(0)
    seen = set()
    for _ in range(200):
        text, _ = written(guide, 30, rng)
        seen.add(chosen(text.decode(), choices))
    assert seen == set(choices)


def test_a_choice_ends_without_an_end_token():
    guide = Guide(of_choices(["yes", "no"]), Vocabulary(words()))
    text, _ = written(guide, 30, np.random.default_rng(0))
    assert text.decode().strip() in ("yes", "no")


@pytest.mark.parametrize("choices", [[], "yes", [""], [1], ["\ud800"]])
def test_bad_choices(choices):
    with pytest.raises(ConfigError):
        of_choices(choices)


def test_a_character_that_is_no_token():
    with pytest.raises(ConfigError, match="no token for 'z'"):
        Guide(of_choices(["z"]), Vocabulary([b"", b"a"]))


def test_in_the_loop(known, letters):
    tokenizer = letters(list('abcdefghinoesy {}:",1[]'))
    vocabulary = Vocabulary.of(tokenizer)
    step = known(tokenizer.size)
    schema = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]}
    guide = Guide(of_schema(schema), vocabulary, ends=[0])
    for temperature in (0, 2.0):
        settings = Settings(temperature=temperature, eos_token_id=(0,), seed=1)
        answers = decode(
            step, [[1, 2], [3]], settings, rooms=[30, 14], stream=tokenizer.stream, guide=guide
        )
        for answer in answers:
            assert set(json.loads(answer.text)) == {"a"} and answer.finish == "complete"
    guide = Guide(of_choices(["yes", "no"]), vocabulary, ends=[0])
    (answer,) = decode(
        step, [[1, 2]], Settings(), rooms=[9], stream=tokenizer.stream, guide=guide, details=True
    )
    assert answer.text.strip() in ("yes", "no") and len(answer.logprobs) == len(answer.ids)


# -- vocabularies ------------------------------------------------------------------------------


def test_tokens_that_begin_alike_are_skipped_together():
    texts = [b"a", b"ab", b"abc", b"abd", b"b", b"a\xff", b"a\xff\xff", b"ab"]
    entries = sorted((t, i) for i, t in enumerate(texts))
    asked = []

    def step(state, byte):
        asked.append(byte)
        return state + bytes([byte]) if (state + bytes([byte])) in b"abc a\xff" else None

    found = fitting(entries, b"", step)
    assert sorted(found) == [0, 1, 2, 4, 5, 7] or sorted(found) == [0, 1, 2, 5, 7]
    assert len(asked) < 9


def test_bytes_of_other_kinds_of_vocabularies():
    class SentencePiece:
        table = ["<s>", "▁hi", "▁", "a", "<0xE7>", "é"]
        size = 6

        def token(self, i):
            return self.table[i]

        def decode(self, ids):
            text = "".join(
                "" if i == 0 else "\ufffd" if i == 4 else self.table[i].replace("▁", " ")
                for i in ids
            )
            return text.removeprefix(" ")

    found = Vocabulary.of(SentencePiece()).contents
    assert found == [b"", b" hi", b" ", b"a", b"\xe7", "é".encode()]


def test_bytes_of_a_byte_level_vocabulary():
    class ByteLevel:
        table = ["<|end|>", "a", "Ġthe", "ç", "Į", "«"]
        raw = [b"", b"a", b" the", b"\xe7", b"\x8c", b"\xab"]
        size = 6

        def token(self, i):
            return self.table[i]

        def decode(self, ids):
            return b"".join(self.raw[i] for i in ids).decode(errors="replace")

    assert Vocabulary.of(ByteLevel()).contents == ByteLevel.raw
