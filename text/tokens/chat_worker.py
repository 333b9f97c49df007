"""Renders chat templates, in a process of its own. Run by chat.py, imported by nothing.

Requests come on the standard input and answers go to the standard output, each as eight bytes of
length and JSON. The first request is the list of folders to import from.
"""

from __future__ import annotations

import json
import sys
from datetime import datetime
from functools import lru_cache
from typing import Any, BinaryIO

_MEMORY = 1 << 30
_LONGEST = 8 << 20


class _Endless(Exception):
    """A rendered text grew beyond any conversation."""


def environment() -> Any:
    """Jinja's immutable sandbox, with what published templates expect."""
    import jinja2
    from jinja2 import nodes
    from jinja2.exceptions import SecurityError, TemplateError
    from jinja2.ext import Extension
    from jinja2.sandbox import ImmutableSandboxedEnvironment
    from jinja2.utils import Namespace

    class Generation(Extension):
        """`{% generation %}` marks answers for training; here it is as if it were not there."""

        tags = {"generation"}

        def parse(self, parser: Any) -> Any:
            line = next(parser.stream).lineno
            body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            return nodes.If(nodes.Const(True), body, [], []).set_lineno(line)

    class Names(Namespace):  # type: ignore[misc, unused-ignore]
        """`namespace(...)` whose names cannot reach into Python."""

        def __init__(*args: Any, **named: Any) -> None:
            self, *rest = args
            values = dict(*rest, **named)
            for name in values:
                _check(name)
            Namespace.__init__(self, values)

        def __setitem__(self, name: str, value: Any) -> None:
            _check(name)
            super().__setitem__(name, value)

    def _check(name: Any) -> None:
        if isinstance(name, str) and name.startswith("_"):
            raise SecurityError(f"a namespace has no name {name!r}")

    def raise_exception(message: object) -> None:
        raise TemplateError(str(message))

    def make_dict(*args: Any, **named: Any) -> dict[Any, Any]:
        return dict(*args, **named)

    def to_json(
        value: Any,
        ensure_ascii: bool = False,
        indent: int | None = None,
        separators: tuple[str, str] | None = None,
        sort_keys: bool = False,
    ) -> str:
        # Unlike Jinja's own, which writes < > & ' as escapes for web pages.
        return json.dumps(
            value,
            ensure_ascii=ensure_ascii,
            indent=indent,
            separators=separators,
            sort_keys=sort_keys,
        )

    sandbox = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, jinja2.ext.loopcontrols]
    )
    sandbox.filters["tojson"] = to_json
    sandbox.globals |= {
        "raise_exception": raise_exception,
        "strftime_now": lambda form: datetime.now().strftime(form),
        "namespace": Names,
        "dict": make_dict,
    }
    return sandbox


def recent_enough() -> bool:
    """Whether there is a jinja2 without known holes in its sandbox."""
    try:
        from importlib.metadata import version

        import jinja2.sandbox  # noqa: F401

        parts = tuple(int(part) for part in version("jinja2").split(".")[:3] if part.isdigit())
    except (ImportError, ValueError):
        return False
    return parts >= (3, 1, 6)


@lru_cache(maxsize=1)
def _environment() -> Any:
    return environment()


@lru_cache(maxsize=32)
def _template(source: str) -> Any:
    return _environment().from_string(source)


def rendered(source: str, values: dict[str, Any]) -> dict[str, str]:
    """`{"text": ...}`, or `{"error": kind, "message": ...}`."""
    if not recent_enough():
        return {"error": "missing", "message": ""}
    from jinja2.exceptions import SecurityError, TemplateError, TemplateSyntaxError, UndefinedError

    try:
        parts, length = [], 0
        for part in _template(source).generate(values):
            length += len(part)
            if length > _LONGEST:
                raise _Endless
            parts.append(part)
        return {"text": "".join(parts)}
    except SecurityError as error:
        return {"error": "sandbox", "message": str(error)}
    except (TemplateSyntaxError, UndefinedError) as error:
        return {"error": "faulty", "message": str(error)}
    except TemplateError as error:
        return {"error": "refused", "message": str(error)}
    except _Endless:
        return {"error": "long", "message": ""}
    except OverflowError as error:  # the sandbox's own limit of range()
        return {"error": "sandbox", "message": str(error)}
    except MemoryError:
        return {"error": "time", "message": ""}
    except Exception as error:  # whatever the template's own expressions raise
        return {"error": "faulty", "message": f"{type(error).__name__}: {error}"}


def _read(source: BinaryIO) -> Any:
    size = source.read(8)
    if len(size) < 8:
        raise SystemExit
    return json.loads(source.read(int.from_bytes(size, "big")))


def _write(target: BinaryIO, answer: dict[str, str]) -> None:
    body = json.dumps(answer).encode()
    target.write(len(body).to_bytes(8, "big") + body)
    target.flush()


def main() -> None:
    """Answer until the input ends."""
    source, target = sys.stdin.buffer, sys.stdout.buffer
    sys.path[:] = _read(source)
    sys.setrecursionlimit(4000)
    if recent_enough():
        _environment()
    try:
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    except (ImportError, ValueError, OSError):
        pass  # another system: the clock still holds
    _write(target, {"text": ""})
    while True:
        template, values = _read(source)
        _write(target, rendered(template, values))


if __name__ == "__main__":
    main()
