"""`bestiary generate` and `bestiary chat` on a tiny model: what they print, pipes, exit codes."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import pytest

import bestiary as bt
from bestiary.hub.cli import _run
from bestiary.hub.commands import chat as chat_module

DATA = Path(__file__).parents[1] / "references" / "data"
BASE, INSTRUCT = DATA / "generation-gpt2", DATA / "generation-llama"


@pytest.fixture
def bestiary(capfd, monkeypatch):
    """Run a command: (exit code, standard output, error output)."""

    def run(*arguments, stdin=""):
        monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
        code = _run([str(a) for a in arguments])
        said = capfd.readouterr()
        return code, said.out, said.err

    return run


def test_generate(bestiary):
    code, out, err = bestiary("generate", BASE, "Tell me", "--max-new-tokens", 9)
    assert code == 0 and err == "" and out == bt.load(BASE)("Tell me", max_new_tokens=9) + "\n"
    assert bestiary("generate", BASE, "-", "--max-new-tokens", 9, stdin="Tell me\n")[1] == out
    code, out, _ = bestiary("generate", BASE, "Tell me", "--max-new-tokens", 9, "--beams", 3)
    assert out == bt.load(BASE)("Tell me", max_new_tokens=9, num_beams=3) + "\n"


def test_generate_draws_with_a_seed(bestiary):
    more = ("--max-new-tokens", 9, "--temperature", 1.5, "--top-k", 200, "--top-p", 0.99)
    first = bestiary("generate", BASE, "Tell me", *more, "--min-p", 0.001, "--seed", 1)
    assert first == bestiary("generate", BASE, "Tell me", *more, "--min-p", 0.001, "--seed", 1)
    assert first != bestiary("generate", BASE, "Tell me", *more, "--min-p", 0.001, "--seed", 2)


def test_generate_json(bestiary, tmp_path):
    code, out, _ = bestiary("generate", BASE, "Tell me", "--max-new-tokens", 5, "--json")
    found = json.loads(out)
    assert code == 0 and found["finish"] in ("length", "end")
    assert 1 < len(found["logprobs"]) == len(found["ids"]) <= 5
    schema = tmp_path / "schema.json"
    schema.write_text('{"type": "object", "properties": {"a": {"type": "null"}}}')
    code, out, _ = bestiary("generate", BASE, "Tell me", "--schema", schema)
    assert code == 0 and json.loads(out) in ({}, {"a": None})


def test_generate_choices_stop_and_draft(bestiary):
    code, out, _ = bestiary("generate", BASE, "Tell me", "--choices", "yes, no")
    assert code == 0 and out in ("yes\n", "no\n")
    whole = bestiary("generate", BASE, "Tell me", "--max-new-tokens", 20)[1]
    cut = bestiary("generate", BASE, "Tell me", "--max-new-tokens", 20, "--stop", whole[5:7])[1]
    assert cut == whole[: whole.index(whole[5:7])] + "\n"
    assert (
        bestiary("generate", BASE, "Tell me", "--max-new-tokens", 20, "--draft", BASE)[1] == whole
    )


def test_generate_refuses(bestiary, tmp_path):
    assert bestiary("generate", BASE)[0] == 2
    assert bestiary("generate", BASE, "Tell me", "--temperature", -1)[0] == 2
    code, _, err = bestiary("generate", BASE, "Tell me", "--top-p", 7)
    assert code == 1 and "top_p=7" in err
    code, _, err = bestiary("generate", DATA / "resnet-transformers-bottleneck", "Tell me")
    assert code == 1 and "--task text-generation" in err
    (tmp_path / "s.json").write_text("{")
    code, _, err = bestiary("generate", BASE, "Tell me", "--schema", tmp_path / "s.json")
    assert code == 1 and "no JSON" in err


# -- chat ------------------------------------------------------------------------------------------


def test_chat_through_a_pipe(bestiary, tmp_path):
    more = ("--max-new-tokens", 6, "--seed", 3, "--system", "Be brief.")
    saved = tmp_path / "talk.json"
    lines = f"Hello\n\nAnd now?\n/save {saved}\n"
    code, out, err = bestiary("chat", INSTRUCT, *more, stdin=lines)
    said = json.loads(saved.read_text(encoding="utf-8"))
    assert code == 0 and [m["role"] for m in said] == ["system", *["user", "assistant"] * 2]
    assert out == said[2]["content"] + "\n" + said[4]["content"] + "\n"
    model = bt.load(INSTRUCT)
    assert said[4]["content"] == model.chat(said[:4], max_new_tokens=6, seed=3)
    assert "> " not in out and str(saved) in err


def test_chat_commands(bestiary, tmp_path):
    saved = tmp_path / "talk.json"
    lines = f"Hello\n/reset\n/save {saved}\n/help\n/quit\nnever said\n"
    code, out, err = bestiary("chat", INSTRUCT, "--max-new-tokens", 3, stdin=lines)
    assert code == 0 and json.loads(saved.read_text()) == [] and "Ctrl-C stops" in err
    assert "never said" not in out
    code, _, err = bestiary("chat", INSTRUCT, stdin="/dance\n")
    assert code == 1 and "no command /dance" in err
    code, _, err = bestiary("chat", INSTRUCT, stdin=f"/save\n/save {tmp_path}\n")
    assert code == 1 and "a file is wanted" in err and err.count("error:") == 2


def test_chat_goes_on_after_a_message_that_is_too_long(bestiary):
    lines = "Hello\n" + "word " * 300 + "\nHello\n"
    code, out, err = bestiary("chat", INSTRUCT, "--max-new-tokens", 3, stdin=lines)
    assert code == 1 and "> 256" in err and "/reset" in err and out.count("\n") >= 2


def test_a_base_model_is_refused_before_anything_is_said(bestiary):
    """ERRORS 33, on the command line."""
    code, out, err = bestiary("chat", BASE, stdin="Hello\n")
    assert code == 1 and out == ""
    assert "no chat template" in err and "bestiary generate" in err and "instruct" in err


class Talker:
    """A model that is interrupted in the middle of its answer."""

    task = "text-generation"

    def __init__(self):
        self.asked = []

    def prompt(self, messages):
        return ""

    def memory(self):
        return None

    def chat(self, messages, *, stream, **options):
        self.asked.append(list(messages))
        yield "half an"
        if len(self.asked) == 1:
            raise KeyboardInterrupt
        yield " answer"


def test_ctrl_c_stops_the_answer_and_not_the_program(monkeypatch, capsys):
    model = Talker()
    monkeypatch.setattr(chat_module, "generator", lambda name, device, dtype: model)
    lines = iter(["Hello", KeyboardInterrupt(), "Again"])

    class Terminal(io.StringIO):
        def isatty(self):
            return True

    def read(prompt):
        line = next(lines, None)
        if line is None:
            raise EOFError
        if isinstance(line, KeyboardInterrupt):
            raise line
        return line

    monkeypatch.setattr(sys, "stdin", Terminal())
    monkeypatch.setattr("builtins.input", read)
    assert _run(["chat", "some"]) == 0
    said = capsys.readouterr()
    assert "[stopped]" in said.err and said.out == "half an\nhalf an answer\n"
    assert [m["content"] for m in model.asked[1]] == ["Hello", "half an", "Again"]


def test_ctrl_c_ends_a_pipe(monkeypatch, capsys):
    monkeypatch.setattr(chat_module, "generator", lambda name, device, dtype: Talker())
    monkeypatch.setattr(sys, "stdin", io.StringIO("Hello\n"))
    assert _run(["chat", "some"]) == 130


def test_a_terminal_gets_no_characters_that_steer_it(monkeypatch, capsys):
    from bestiary.hub.commands.generate import show

    class Terminal(io.StringIO):
        def isatty(self):
            return True

    show("a\x1b[2Jb\n")
    assert capsys.readouterr().out == "a\x1b[2Jb\n"  # a pipe gets what was said
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    show("a\x1b[2J\x9bb\té\n")
    assert terminal.getvalue() == "a[2Jb\té\n"
