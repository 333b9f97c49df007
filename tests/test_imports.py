"""What `import bestiary` does and does not do (TESTPLAN 48), and the table of public names."""

from __future__ import annotations

import ast
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import bestiary

DOMAINS = ("generative", "hub", "rl", "text", "vision")
HEAVY = ("PIL", "click", "cupy", "gymnasium", "huggingface_hub", "matplotlib", "tokenizers", "tqdm")
FRAMEWORKS = ("torch", "tensorflow", "jax")

# Reports everything that touches the network, the disk or other programs. The hook cannot be
# removed again, hence always in a process of its own.
WATCH = """
import json, os, sys
events = []
def hook(event, args):
    if event == "open":
        flags = args[2] if isinstance(args[2], int) else 0
        writes = isinstance(args[1], str) and set(args[1]) & set("wax+")
        if writes or flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            events.append(f"open for writing: {args[0]}")
    elif event.split(".")[0] in ("socket", "subprocess") or event in (
        "os.system", "os.mkdir", "os.rename", "os.remove", "os.fork", "os.posix_spawn"
    ):
        events.append(f"{event} {args}")
import numpy  # what NumPy does is its own affair
sys.addaudithook(hook)
%s
print(json.dumps([events, sorted(sys.modules)]))
"""


def watched(code: str, **environment: str) -> tuple[list[str], set[str]]:
    """Events and modules after running the code in a fresh process."""
    env = {k: v for k, v in os.environ.items() if not k.startswith(("XDG_", "HF_", "BESTIARY_"))}
    # A home that nobody, not even root, can create or write.
    env |= {"HOME": "/proc/nobody", "PYTHONDONTWRITEBYTECODE": "1", **environment}
    done = subprocess.run(
        [sys.executable, "-c", WATCH % code], env=env, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    events, modules = json.loads(done.stdout.splitlines()[-1])
    return events, set(modules)


def brought(modules: set[str], names: tuple[str, ...]) -> set[str]:
    return {name for name in names if name in modules}


def test_import_touches_nothing() -> None:
    events, modules = watched("import bestiary")
    assert not events
    assert not brought(modules, FRAMEWORKS + HEAVY)
    assert not brought(modules, tuple(f"bestiary.{d}" for d in ("core", *DOMAINS)))


def test_computing_touches_nothing() -> None:
    events, modules = watched(
        "import bestiary as bt\n"
        "x = bt.tensor([[1.0, 2.0]], requires_grad=True)\n"
        "layer = bt.nn.Linear(2, 3)\n"
        "layer(x).sum().backward()\n"
        "bt.optim.SGD(layer.parameters(), lr=0.1).step()\n"
    )
    assert not events
    assert not brought(modules, FRAMEWORKS + HEAVY)
    assert not brought(modules, tuple(f"bestiary.{d}" for d in DOMAINS))


def test_help_touches_nothing() -> None:
    events, modules = watched(
        "from bestiary.hub.cli import cli\ncli.main(['--help'], standalone_mode=False)\n"
    )
    assert not events
    assert not brought(modules, (*FRAMEWORKS, "PIL", "huggingface_hub", "tqdm"))
    assert "bestiary.vision" not in modules


def test_the_watch_sees(tmp_path: Path) -> None:
    events, _ = watched(
        f"open({str(tmp_path / 'x')!r}, 'w').close()\n"
        "import socket\n"
        "with socket.socket() as s:\n"
        "    s.connect_ex(('127.0.0.1', 9))\n"
    )
    assert any("open for writing" in e for e in events)
    assert any("socket.connect" in e for e in events)


def test_import_time() -> None:
    code = (
        "import numpy, time; start = time.perf_counter(); import bestiary; "
        "print(time.perf_counter() - start)"
    )
    times = [
        float(subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout)
        for _ in range(5)
    ]
    assert statistics.median(times) <= 0.15


def test_every_public_name_resolves() -> None:
    for name in dir(bestiary):
        getattr(bestiary, name)


@pytest.mark.parametrize(
    "first", ["import bestiary.core.nn.functional", "import bestiary.nn", "pass"]
)
def test_import_statements_find_the_same_modules(first: str) -> None:
    code = (
        f"{first}\n"
        "import bestiary.nn.functional as F, bestiary.nn as nn, bestiary.optim, sys, warnings\n"
        "from bestiary.nn import Linear\n"
        "from bestiary.data.samplers import RandomSampler\n"
        "import bestiary as bt, bestiary.core.nn.functional, bestiary.core.data.samplers as real\n"
        "assert F is bestiary.core.nn.functional is bt.nn.functional\n"
        "assert nn is bestiary.core.nn is bt.nn and Linear is bt.nn.Linear\n"
        "assert RandomSampler is real.RandomSampler\n"
        "assert nn.__spec__.name == nn.__name__ == 'bestiary.core.nn'\n"
        "import importlib; importlib.reload(bestiary.core.spelling)\n"
        "try:\n    import bestiary.nn.nonsense\n"
        "except ModuleNotFoundError as error:\n    assert 'nonsense' in str(error)\n"
        "else:\n    raise AssertionError\n"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, timeout=60)


def test_unknown_name() -> None:
    with pytest.raises(AttributeError, match="nonsense"):
        bestiary.nonsense  # noqa: B018


def test_type_checkers_see_the_same_names(sources: list[Any]) -> None:
    (root,) = (s for s in sources if s.file == "__init__.py")
    seen = {}
    for node in ast.walk(root.tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            for statement in node.body:
                assert isinstance(statement, ast.ImportFrom)
                for alias in statement.names:
                    # `as name` re-exports it under mypy --strict; it may rename (logical names)
                    shown = alias.asname
                    assert shown, f"line {statement.lineno}: write `{alias.name} as ...`"
                    seen[shown] = (statement.module, alias.name)
    names: dict[str, tuple[str | None, str]]
    names = {name: (module, name) for name, module in bestiary._NAMES.items()}
    for name, module in bestiary._MODULES.items():
        parent, _, last = module.rpartition(".")
        names[name] = (parent or None, last)
    assert seen == names
