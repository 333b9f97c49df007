"""Chat templates: the text that a conversation is for a model.

A template is a program that came with a model, so it runs in Jinja's immutable sandbox, in a
process of its own that is ended when it takes too long: a loop within a loop cannot be stopped
from inside. The process is started when the first template is rendered and serves all of them.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ...core.errors import ConfigError, DataError, MissingExtra

_WORKER = Path(__file__).parent / "chat_worker.py"
# Longer than a real one takes by a factor of thousands.
SECONDS = 2.0
_STARTING = 60.0
_LONGEST = 64 << 20


class ChatTemplate:
    """The template of a chat model, or several with names.

    Args:
        source: the template's text, or name -> text; "default" is taken where none is named, and
            "tool_use" where there are tools.
        tokens: the special tokens that it may name, "bos" -> "<s>".
        name: for messages, such as the model's.
    """

    def __init__(
        self,
        source: str | Mapping[str, str],
        *,
        tokens: Mapping[str, str] | None = None,
        name: str = "the model",
    ) -> None:
        self.sources = {"default": source} if isinstance(source, str) else dict(source)
        if not self.sources:
            raise ConfigError(f"{name} has an empty list of chat templates")
        self.tokens = {f"{role}_token": token for role, token in (tokens or {}).items()}
        self.name = name

    def source(self, template: str | None = None, *, tools: bool = False) -> str:
        """The text of a template, by name.

        Raises:
            ConfigError: there is none of that name, or none for a conversation without one.
        """
        wanted = template or ("tool_use" if tools and "tool_use" in self.sources else "default")
        if wanted not in self.sources:
            raise ConfigError(
                f"{self.name} has no chat template {wanted!r}; there are "
                f"{', '.join(sorted(self.sources))}: render(..., template=...)",
                got=wanted,
            )
        return self.sources[wanted]

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        add_generation_prompt: bool = True,
        template: str | None = None,
        **variables: Any,
    ) -> str:
        """The text of a conversation.

        Args:
            messages: such as `{"role": "user", "content": "Hello"}`.
            tools: descriptions of functions that the model may call, as JSON schemas.
            add_generation_prompt: end with the beginning of an answer.
            template: the name of one, where there are several.
            variables: whatever else the template asks for.
        Raises:
            DataError: messages of another form, or which the template refuses, or a template that
                is faulty, leaves the sandbox, or takes too long.
            MissingExtra: jinja2 is not installed.
        """
        values = {
            "messages": _checked(messages),
            "tools": None if tools is None else list(tools),
            "documents": None,
            "add_generation_prompt": add_generation_prompt,
            **self.tokens,
            **variables,
        }
        source = self.source(template, tools=tools is not None)
        try:
            request = json.dumps([source, values])
        except (TypeError, ValueError, RecursionError) as error:
            raise DataError(f"a conversation is of texts, numbers, lists: {error}") from None
        if len(request) > _LONGEST:
            raise DataError(f"the conversation is too long: {len(request):,} characters of JSON")
        answer = _process.ask(request.encode())
        if "text" in answer:
            return str(answer["text"])
        if answer["error"] == "missing":
            raise MissingExtra(
                "chat templates need jinja2 3.1.6 or later (earlier ones have holes in their "
                "sandbox), which is not installed.\npip install 'bestiary[text]'"
            )
        what = {
            "refused": "refuses this conversation",
            "sandbox": "was stopped: it does what a template must not do",
            "long": "was stopped: its text is endless",
            "time": f"was stopped: it took more than {SECONDS:g} s or too much memory",
        }.get(answer["error"], "is faulty")
        raise DataError(
            f"the chat template of {self.name} {what}.\n{answer['message'][:400]}".rstrip(),
            reason=answer["error"],
        )


def _checked(messages: Any) -> list[dict[str, Any]]:
    if isinstance(messages, str | Mapping) or not isinstance(messages, Sequence) or not messages:
        raise DataError(
            'a conversation is a list of messages: [{"role": "user", "content": "Hello"}], not '
            f"{messages!r:.80}"
        )
    for i, message in enumerate(messages):
        if not isinstance(message, Mapping) or not isinstance(message.get("role"), str):
            raise DataError(
                f'messages[{i}] is {message!r:.80}; a message is {{"role": "user", '
                '"content": "Hello"}',
                index=i,
            )
    # Templates test whether a key is there; None would be written as a word.
    return [{k: v for k, v in message.items() if v is not None} for message in messages]


class _Process:
    """The process that renders; a new one after a fork, or when one had to be ended."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._child: subprocess.Popen[bytes] | None = None
        self._owner = 0

    def ask(self, request: bytes) -> dict[str, Any]:
        with self._lock:
            if self._child is None or self._owner != os.getpid() or self._child.poll() is not None:
                self._start()
            answer = self._exchange(request, SECONDS)
            if answer is None:
                self.end()
                return {"error": "time", "message": ""}
            return answer

    def _start(self) -> None:
        if self._owner == os.getpid():
            self.end()
        self._owner = os.getpid()
        self._child = subprocess.Popen(
            [sys.executable, "-I", str(_WORKER)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        # Its own imports take a moment, which is not the template's.
        if self._exchange(json.dumps(sys.path).encode(), _STARTING) is None:
            self.end()
            raise DataError("the process that renders chat templates could not be started")

    def _exchange(self, request: bytes, seconds: float) -> dict[str, Any] | None:
        """Its answer, or None when it was ended: by itself or by the clock."""
        child = self._child
        assert child is not None and child.stdin is not None and child.stdout is not None
        clock = threading.Timer(seconds, child.kill)
        clock.daemon = True
        clock.start()
        try:
            child.stdin.write(len(request).to_bytes(8, "big") + request)
            child.stdin.flush()
            size = child.stdout.read(8)
            if len(size) < 8 or int.from_bytes(size, "big") > _LONGEST:
                return None
            body = child.stdout.read(int.from_bytes(size, "big"))
            answer: dict[str, Any] = json.loads(body)
        except (OSError, ValueError):
            return None
        finally:
            clock.cancel()
        return answer

    def end(self) -> None:
        child, self._child = self._child, None
        if child is None or self._owner != os.getpid():
            return
        child.kill()
        for pipe in (child.stdin, child.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        child.wait()


_process = _Process()
atexit.register(_process.end)
