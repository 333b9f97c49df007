"""What every test may use: the package's sources and imports, and a guard against the network."""

from __future__ import annotations

import ast
import importlib.util
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("core", "generative", "hub", "rl", "text", "vision")

# Failures must repeat: no time limit that a busy machine breaks, no seed of the day.
settings.register_profile("bestiary", deadline=None, derandomize=True, database=None)
settings.load_profile("bestiary")


@dataclass(frozen=True)
class Import:
    """One import statement, or one `import_module("...")` call, of the package."""

    file: str  # relative to the repository root, with forward slashes
    line: int
    module: str  # absolute: "bestiary.core.op", "numpy"
    where: str  # "module", "function" or "typing" (under TYPE_CHECKING)
    relative: bool

    def __str__(self) -> str:
        return f"{self.file}:{self.line} imports {self.module} at {self.where} level"


@dataclass(frozen=True)
class Source:
    """One file of the package, parsed."""

    file: str
    tree: ast.Module

    @property
    def package(self) -> str:
        """The package that relative imports of this file start from."""
        parts = ["bestiary", *Path(self.file).parts[:-1]]
        return ".".join(parts)

    def imports(self, modules: frozenset[str] = frozenset()) -> list[Import]:
        """Every import; `modules` are the package's own, to tell `from . import module`."""
        found: list[Import] = []
        self._walk(self.tree.body, "module", modules, found)
        return list(dict.fromkeys(found))

    def _walk(
        self, nodes: list[Any], where: str, modules: frozenset[str], found: list[Import]
    ) -> None:
        for node in nodes:
            if isinstance(node, ast.Import):
                for alias in node.names:
                    found.append(Import(self.file, node.lineno, alias.name, where, False))
            elif isinstance(node, ast.ImportFrom):
                base = node.module or ""
                if node.level:
                    parts = self.package.split(".")
                    up = parts[: len(parts) - node.level + 1]
                    base = ".".join([*up, *([base] if base else [])])
                for alias in node.names:
                    deeper = f"{base}.{alias.name}"
                    name = deeper if deeper in modules else base
                    found.append(Import(self.file, node.lineno, name, where, node.level > 0))
            elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
                body = node.body if isinstance(node.body, list) else [node.body]
                inner = "typing" if where == "typing" else "function"
                self._walk(body, inner, modules, found)
            elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
                self._walk(node.body, "typing", modules, found)
                self._walk(node.orelse, where, modules, found)
            else:
                if isinstance(node, ast.Call):
                    named = dynamic_import(node)
                    if named:
                        found.append(Import(self.file, node.lineno, named, where, False))
                self._walk(list(ast.iter_child_nodes(node)), where, modules, found)


def dynamic_import(call: ast.Call) -> str | None:
    """The module named by `import_module("name")` or `__import__("name")`."""
    if ast.unparse(call.func).split(".")[-1] not in ("import_module", "__import__"):
        return None
    first = call.args[0] if call.args else None
    if isinstance(first, ast.Constant) and isinstance(first.value, str):
        return first.value
    return None


@pytest.fixture(scope="session")
def package_root() -> Path:
    """The repository root, which is the package."""
    return ROOT


@pytest.fixture(scope="session")
def make_source() -> type[Source]:
    """To parse a snippet as if it were a file of the package."""
    return Source


@pytest.fixture(scope="session")
def sources() -> list[Source]:
    """Every Python file of the package."""
    files = [*ROOT.glob("*.py"), *(f for d in FOLDERS for f in sorted((ROOT / d).rglob("*.py")))]
    return [
        Source(f.relative_to(ROOT).as_posix(), ast.parse(f.read_text("utf-8"), str(f)))
        for f in files
    ]


@pytest.fixture(scope="session")
def own_modules(sources: list[Source]) -> frozenset[str]:
    """The names of the package's modules and packages."""
    names = set()
    for source in sources:
        parts = ["bestiary", *Path(source.file).with_suffix("").parts]
        names.add(".".join(parts[:-1] if parts[-1] == "__init__" else parts))
    return frozenset(names)


@pytest.fixture(scope="session")
def package_imports(sources: list[Source], own_modules: frozenset[str]) -> list[Import]:
    """Every import statement of the package."""
    return [i for source in sources for i in source.imports(own_modules)]


def _is_local(address: Any) -> bool:
    if not isinstance(address, tuple):
        return True  # a Unix socket
    host = str(address[0])
    return host in ("localhost", "::1", "") or host.startswith("127.")


@pytest.fixture(autouse=True)
def _no_network(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only loopback can be reached, unless the test is marked `network`."""
    if request.node.get_closest_marker("network") is None:
        connect = socket.socket.connect

        def guarded(self: socket.socket, address: Any) -> None:
            if not _is_local(address):
                raise OSError(f"this test may not connect to {address}; mark it network")
            connect(self, address)

        monkeypatch.setattr(socket.socket, "connect", guarded)


def _has_gpu() -> bool:
    if importlib.util.find_spec("cupy") is None:
        return False
    import cupy

    return bool(cupy.cuda.is_available())


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what this machine cannot run, also where a -m asks for it."""
    if any(item.get_closest_marker("gpu") for item in items) and not _has_gpu():
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason="no CuPy or no NVIDIA GPU"))
    if importlib.util.find_spec("torch") is None:
        for item in items:
            if item.get_closest_marker("reference"):
                item.add_marker(pytest.mark.skip(reason="the reference libraries are missing"))
