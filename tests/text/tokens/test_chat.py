"""Chat templates: published features, and what a hostile one must not do."""

from __future__ import annotations

import json
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from bestiary.core.errors import ConfigError, DataError
from bestiary.text.tokens.chat import ChatTemplate
from bestiary.text.tokens.tokenizer import Tokenizer

pytest.importorskip("jinja2")

CHAT = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Is 1 < 2 & 'x'?"},
    {"role": "assistant", "content": " yes ", "tool_calls": None},
]
# In the manner of ChatML.
MARKED = """\
{% for message in messages %}
    {% if loop.first and message.role != 'system' %}
<|im_start|>system\nYou help.<|im_end|>
    {% endif %}
{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] | trim + '<|im_end|>' + '\\n' }}
{%- endfor %}
{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"""


def test_a_conversation() -> None:
    template = ChatTemplate(MARKED)
    text = template.render(CHAT)
    assert text.count("<|im_start|>") == 4 and text.endswith("<|im_start|>assistant\n")
    assert "system\nBe brief.<|im_end|>" in text and "assistant\nyes<|im_end|>" in text
    assert template.render(CHAT, add_generation_prompt=False).count("<|im_start|>") == 3
    assert "You help." in template.render(CHAT[1:])


@pytest.mark.parametrize(
    "source, text",
    [
        ("{{ messages[1].content | tojson }}", "\"Is 1 < 2 & 'x'?\""),
        ("{{ {'b': 'é', 'a': 1} | tojson(indent=1) }}", '{\n "b": "é",\n "a": 1\n}'),
        ("{% generation %}x{% endgeneration %}y", "xy"),
        (
            "{% for m in messages %}{% if loop.index0 == 1 %}{% break %}{% endif %}.{% endfor %}",
            ".",
        ),
        ("{{ bos_token }}{{ extra }}{{ missing }}", "<s>given"),
        ("{% if tools is none %}no{% endif %}{{ 'tool_calls' in messages[2] }}", "noFalse"),
        ("{% set n = namespace(a=1) %}{% set n.a = n.a + 1 %}{{ n.a }}", "2"),
        ("{{ dict(a=1).a }}{{ messages[0]['content'].split(' ')[1].strip('.') }}", "1brief"),
        ("{% macro f(x) %}<{{ x }}>{% endmacro %}{{ f('a') }}", "<a>"),
        ("{{ strftime_now('%Y') }}", str(datetime.now().year)),
        ("{{ messages | selectattr('role', 'equalto', 'user') | list | length }}", "1"),
    ],
)
def test_features(source: str, text: str) -> None:
    template = ChatTemplate(source, tokens={"bos": "<s>"})
    assert template.render(CHAT, extra="given") == text


def test_templates_with_names() -> None:
    template = ChatTemplate({"default": "plain", "tool_use": "tools", "rag": "rag"})
    assert template.render(CHAT) == "plain"
    assert template.render(CHAT, tools=[{"name": "f"}]) == "tools"
    assert template.render(CHAT, template="rag") == "rag"
    with pytest.raises(ConfigError, match="default, rag, tool_use"):
        template.render(CHAT, template="none")
    with pytest.raises(ConfigError, match="empty"):
        ChatTemplate({})


@pytest.mark.parametrize(
    "source, reason",
    [
        ("{{ ''.__class__.__mro__ }}", "sandbox"),
        ("{{ messages.append(1) }}", "sandbox"),
        ("{{ namespace(__init__=1) }}", "sandbox"),
        ("{{ range(10 ** 9) }}", "sandbox"),
        ("{{ cycler.__init__.__globals__ }}", "sandbox"),
        ("{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}", "time"),
        ("{{ 'a' * 10 ** 10 }}", "time"),
        ("{% for i in range(99999) %}{{ 'aaaaaaaaaa' * 1000 }}{% endfor %}", "long"),
        ("{{ raise_exception('roles alternate') }}", "refused"),
        ("{% for x %}", "faulty"),
        ("{{ messages.nothing.more }}", "faulty"),
        ("{{ 1 / 0 }}", "faulty"),
    ],
)
def test_what_is_stopped(source: str, reason: str) -> None:
    start = time.monotonic()
    with pytest.raises(DataError, match="test-model") as caught:
        ChatTemplate(source, name="test-model").render(CHAT)
    assert caught.value.reason == reason
    assert time.monotonic() - start < 20
    assert ChatTemplate("after").render(CHAT) == "after"


@pytest.mark.parametrize(
    "source",
    [
        "{{ messages | attr('__class__') }}",
        "{{ '{0.__class__}'.format(messages) }}",
        "{{ '%s' | format(messages | attr('__init__')) }}",
        "{{ messages | map(attribute='__class__') | list }}",
        "{{ self._TemplateReference__context }}",
    ],
)
def test_walks_that_end_nowhere(source: str) -> None:
    try:
        text = ChatTemplate(source).render(CHAT)
    except DataError as error:
        text = error.message
    assert "<class" not in text and "object at" not in text


@pytest.mark.parametrize("wrong", ["hi", [], {}, None, ["hi"], [{"content": "x"}], [{"role": 1}]])
def test_what_is_no_conversation(wrong: Any) -> None:
    with pytest.raises(DataError, match="message"):
        ChatTemplate(MARKED).render(wrong)


def test_what_is_no_json() -> None:
    with pytest.raises(DataError, match="texts, numbers"):
        ChatTemplate(MARKED).render([{"role": "user", "content": object()}])


def test_nothing_is_rendered_at_load(folders: dict[str, Path], tmp_path: Path) -> None:
    for file in folders["gpt2"].iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    config = {"chat_template": [{"name": "default", "template": "{{ ''.__class__ }}{% broken"}]}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    tokenizer = Tokenizer.from_folder(tmp_path)
    assert tokenizer.chat is not None
    with pytest.raises(DataError):
        tokenizer.chat.render(CHAT)
    (tmp_path / "chat_template.jinja").write_text("{{ messages[0].role }}")
    again = Tokenizer.from_folder(tmp_path)
    assert again.chat is not None and again.chat.render(CHAT) == "system"
    assert "chat_template.jinja" in again.files
    (tmp_path / "chat_template.jinja").write_bytes(b"\xff")
    with pytest.raises(DataError, match=r"chat_template\.jinja"):
        Tokenizer.from_folder(tmp_path)
