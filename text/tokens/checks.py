"""What is asked of a tokenizer before it is used, and of ids before a model gets them.

A `tokenizer.json` from somewhere may hold ids that make others reserve gigabytes, and regular
expressions that never come to an end and cannot be interrupted.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...core.errors import DataError, IndexRangeError

if TYPE_CHECKING:
    from .tokenizer import Tokenizer

# More than any vocabulary by far.
LARGEST_ID = 1 << 24
_SECONDS = 4.0
_MEMORY = 1 << 30

_EXPRESSION = re.compile(rb'"Regex"\s*:\s*("(?:[^"\\]|\\.)*")')
# A letter written as an escape, which nothing writes and could hide the word above.
_HIDDEN = re.compile(rb"(?<!\\)(?:\\\\)*\\u00(?:4[1-9a-f]|5[0-9a]|6[1-9a-f]|7[0-9a])", re.I)

_CONTRACTED = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_DIGIT, _DIGITS = r"\p{N}", r"\p{N}{1,3}"
_TAIL = _CONTRACTED + (
    r"|[^\r\n\p{L}\p{N}]?\p{L}+|%s| ?[^\s\p{L}\p{N}]+[\r\n%s]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_O200K = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+%(c)s|"
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*%(c)s|"
    r"\p{N}%(n)s| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# Expressions of published tokenizers; each takes time in proportion to the text.
KNOWN = frozenset(
    {
        r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
        r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+",
        r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|"
        r"[^\s\p{L}\p{N}]+",
        _TAIL % (_DIGITS, ""),
        _TAIL % (_DIGIT, ""),
        _TAIL % (_DIGITS, "/"),
        _O200K % {"c": _CONTRACTED + "?", "n": "{1,3}"},
        _O200K % {"c": "", "n": ""},
        r"\p{N}{1,3}",
        r"\p{N}",
        r"\s+",
        r"\s",
        r" {2,}",
        r"[ ]{2,}",
        "\n",
        r"\n",
        r"[\r\n]",
        r"^(?!▁)",
    }
)

# Run by a Python of its own: exits well when every expression gets through every text.
_TRIAL = r"""
import json, sys
seconds, memory, expressions = json.load(sys.stdin)
try:
    import resource
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
except (ImportError, ValueError, OSError):
    pass
from tokenizers import Regex
from tokenizers.pre_tokenizers import Split
seeds = ["a", "A", "0", " ", "\n", "\t", ".", "'", "é", "日", "a ", "a0", "ab", "aA", "a'", " \n"]
for expression in expressions:
    split = Split(Regex(expression), "isolated")
    own = sorted(set(expression))
    for seed in [*seeds, expression, "".join(own), *own]:
        for size in (32, 2000):
            text = (seed * size)[:2000]
            for tail in ("", "!", "z", "0"):
                split.pre_tokenize_str(text + tail)
"""


def check_tokenizer_json(path: Path, content: bytes) -> None:
    """Look at a `tokenizer.json` before the library reads it.

    Raises:
        DataError: a regular expression is not known and takes too long, or the file hides what it
            says.
    """
    if _HIDDEN.search(content):
        raise DataError(
            f"{path} writes letters as escapes (\\u0061 for a), which nothing does by itself.",
            path=str(path),
        )
    unknown = set()
    for found in _EXPRESSION.finditer(content):
        try:
            expression = json.loads(found[1])
        except ValueError as error:
            raise DataError(f"{path} is damaged: {error}", path=str(path)) from None
        if expression not in KNOWN:
            unknown.add(expression)
    if unknown:
        check_expressions(path, sorted(unknown))


def check_expressions(path: Path, expressions: list[str]) -> None:
    """Try regular expressions in a process of their own, with a limit of time and memory.

    Raises:
        DataError: one did not come to an end, or is none.
    """
    task = [int(_SECONDS) + 1, _MEMORY, expressions]
    try:
        done = subprocess.run(
            [sys.executable, "-I", "-c", _TRIAL],
            input=json.dumps(task).encode(),
            capture_output=True,
            timeout=_SECONDS,
            check=False,
        )
        problem = "" if done.returncode == 0 else f"they failed (exit {done.returncode})"
    except subprocess.TimeoutExpired:
        problem = f"they took more than {_SECONDS:g} s on short texts"
    except OSError as error:
        problem = f"they could not be tried: {error}"
    if problem:
        shown = "\n".join(f"  {expression[:200]!r}" for expression in expressions[:3])
        raise DataError(
            f"{path} has regular expressions that are not known, and {problem}:\n{shown}\n"
            "Such an expression can stop a program for ever, so the file is refused.",
            path=str(path),
            expressions=expressions,
        )


def check_ids_of(path: Path, whole: Any) -> None:
    """Ids that are huge, or given twice.

    Raises:
        DataError: there is one; names the token.
    """
    vocab = whole.get_vocab(with_added_tokens=True)
    check_vocab(path, vocab)


def check_vocab(path: Path, vocab: dict[str, int]) -> None:
    """Ids that are negative, huge, or given twice.

    Raises:
        DataError: there is one; names the token.
    """
    if not vocab:
        raise DataError(f"{path} has an empty vocabulary", path=str(path))
    smallest, largest = min(vocab.values()), max(vocab.values())
    if smallest < 0 or largest >= LARGEST_ID:
        wrong = smallest if smallest < 0 else largest
        token = next(token for token, number in vocab.items() if number == wrong)
        raise DataError(
            f"{path} gives the token {token!r:.60} the id {wrong}; ids are from 0 to "
            f"{LARGEST_ID - 1}.",
            path=str(path),
            token=token,
        )
    if len(vocab) > largest + 1 or len(set(vocab.values())) != len(vocab):
        seen: dict[int, str] = {}
        for token, number in vocab.items():
            if number in seen:
                raise DataError(
                    f"{path} gives the id {number} to both {seen[number]!r:.60} and {token!r:.60}.",
                    path=str(path),
                    id=number,
                )
            seen[number] = token


def check_joined(tokenizer: Tokenizer, vocab_size: int, *, model: str = "the model") -> None:
    """That a tokenizer and a model belong together, as far as their sizes tell.

    Args:
        vocab_size: the rows of the model's table of tokens.
        model: its name, for the message.
    Raises:
        IndexRangeError: the vocabulary, or a token that stands around every text, is beyond it.
    """
    always = max(tokenizer.template.specials(), default=-1)
    wrong = always if always >= vocab_size else tokenizer.base - 1
    if wrong >= vocab_size:
        raise IndexRangeError(
            _beyond(tokenizer, wrong, vocab_size, model)
            + "\nThe two were not made for each other: take the tokenizer from the model's folder.",
            id=wrong,
            vocab_size=vocab_size,
            tokenizer=tokenizer.name,
            model=model,
        )


def check_ids(
    ids: Any, vocab_size: int, *, tokenizer: Tokenizer | None = None, model: str = "the model"
) -> None:
    """That a model has all of these tokens.

    Args:
        ids: (B, T), whole numbers.
    Raises:
        IndexRangeError: one is negative or beyond the vocabulary; names it and both sides.
    """
    numbers = np.asarray(ids)
    if not numbers.size:
        return
    low, high = int(numbers.min()), int(numbers.max())
    if low >= 0 and high < vocab_size:
        return
    wrong = low if low < 0 else high
    raise IndexRangeError(
        _beyond(tokenizer, wrong, vocab_size, model)
        + "\nIf tokens were added, the model's table of tokens must grow with them.",
        id=wrong,
        vocab_size=vocab_size,
        tokenizer=None if tokenizer is None else tokenizer.name,
        model=model,
    )


def _beyond(tokenizer: Tokenizer | None, wrong: int, vocab_size: int, model: str) -> str:
    if tokenizer is None:
        return f"the token id {wrong} is beyond the vocabulary of {model}: 0 to {vocab_size - 1}."
    token = tokenizer.engine.token(wrong) if wrong >= 0 else None
    named = "" if token is None else f" ({token!r:.40})"
    return (
        f"the token id {wrong}{named} is beyond the vocabulary of {model}: it has {vocab_size} "
        f"tokens, 0 to {vocab_size - 1}.\nThe tokenizer {tokenizer.name} has {tokenizer.size}."
    )
