"""`bestiary chat`: a conversation with a language model in the terminal, or through a pipe."""

from __future__ import annotations

import contextlib
import json
import sys
from pathlib import Path
from typing import Any

import click

from ...core.errors import BestiaryError
from ...core.paths import atomic
from .generate import generator, show

HELP = """/reset      forget the conversation
/save FILE  write it as JSON
/help       show this
/quit       end, as Ctrl-D does; Ctrl-C stops an answer"""


@click.command("chat")
@click.argument("name")
@click.option("--system", help="What the model is told before the conversation.")
@click.option("--max-new-tokens", type=click.IntRange(1), help="The most tokens of an answer.")
@click.option("--temperature", type=click.FloatRange(0), help="0 takes the best token each time.")
@click.option("--top-k", type=click.IntRange(0), help="Draw from the K best tokens.")
@click.option("--top-p", type=float, help="Draw from the tokens that hold this share.")
@click.option("--min-p", type=float, help="Draw from tokens this share as probable as the best.")
@click.option("--repetition-penalty", type=float, help="Above 1: against what was said before.")
@click.option("--seed", type=click.IntRange(0), help="For draws that repeat themselves.")
@click.option("--draft", help="A smaller model of the same vocabulary, to be faster.")
@click.option("--device", default="cpu", show_default=True, help="cpu, cuda or cuda:1.")
@click.option("--dtype", help="Of the weights: int8, int4, bfloat16, float32, ...")
def chat_command(
    name: str,
    system: str | None,
    draft: str | None,
    device: str,
    dtype: str | None,
    **settings: Any,
) -> int:
    """Talk to the language model NAME.

    From a pipe each line is a message, and each answer is printed. In a terminal, Ctrl-C stops an
    answer, Ctrl-D ends; /help shows more.
    """
    options = {key: value for key, value in settings.items() if value is not None}
    model = generator(name, device, dtype)
    model.prompt("")  # a base model is refused before anybody writes to it
    if draft is not None:
        options["draft"] = generator(draft, device, dtype)
    options["memory"] = model.memory()
    talk = Conversation(model, system, options)
    person = sys.stdin.isatty()
    if person:
        _edit_lines()
        click.echo(f"{name}. /help shows the commands, Ctrl-D ends.", err=True)
    failed = False
    while True:
        try:
            line = input("> ") if person else _line()
        except EOFError:
            break
        except KeyboardInterrupt:  # a line that was begun is dropped
            click.echo(err=True)
            continue
        if line.strip() in ("/quit", "/exit"):
            return int(failed)
        failed = not talk.say(line, person) or failed
    if person:
        click.echo(err=True)
    return int(failed and not person)


def _edit_lines() -> None:
    """Arrow keys and earlier lines, where the terminal library is there."""
    with contextlib.suppress(ImportError):
        import readline  # noqa: F401


def _line() -> str:
    line = sys.stdin.readline()
    if not line:
        raise EOFError
    return line.rstrip("\n")


class Conversation:
    """The messages so far, and the commands.

    Args:
        system: what the model is told first.
        options: of generation.
    """

    def __init__(self, model: Any, system: str | None, options: dict[str, Any]) -> None:
        self.model, self.options = model, options
        self.system = [] if system is None else [{"role": "system", "content": system}]
        self.messages: list[dict[str, str]] = list(self.system)

    def say(self, line: str, person: bool = False) -> bool:
        """Answer a line, or do what it commands; False where that failed."""
        text = line.strip()
        if not text:
            return True
        if text.startswith("/"):
            return self._command(text)
        asked = [*self.messages, {"role": "user", "content": line}]
        pieces: list[str] = []
        try:
            for piece in self.model.chat(asked, stream=True, **self.options):
                pieces.append(piece)
                show(piece)
        except KeyboardInterrupt:
            if not person:
                raise
            click.echo(" [stopped]", nl=False, err=True)
        except BestiaryError as error:
            click.echo(f"error: {error}", err=True)
            if len(self.messages) > len(self.system):
                click.echo("/reset forgets the conversation so far.", err=True)
            return False
        click.echo()
        # What was said before an answer was stopped stays said.
        self.messages = [*asked, {"role": "assistant", "content": "".join(pieces)}]
        return True

    def _command(self, text: str) -> bool:
        command, _, rest = text.partition(" ")
        if command == "/reset":
            self.messages = list(self.system)
            return True
        if command == "/save":
            return self._save(rest.strip())
        if command == "/help":
            click.echo(HELP, err=True)
            return True
        click.echo(f"error: there is no command {command}\n{HELP}", err=True)
        return False

    def _save(self, name: str) -> bool:
        if not name:
            click.echo("error: /save FILE: a file is wanted", err=True)
            return False
        try:
            with atomic(Path(name).expanduser()) as part:
                part.write_text(
                    json.dumps(self.messages, indent=2, ensure_ascii=False) + "\n",
                    encoding="utf-8",
                )
        except OSError as error:
            click.echo(f"error: {error}", err=True)
            return False
        click.echo(f"saved {name}", err=True)
        return True
