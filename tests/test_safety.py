"""Nothing that a file can contain is ever executed (TESTPLAN 18). Read from the syntax trees."""

from __future__ import annotations

import ast
from typing import Any

import pytest

# Modules that run what they read, or can be made to. multiprocessing's own transport between a
# loader and its workers is apart: it carries only what this process put in.
MODULES = {
    "cloudpickle",
    "code",
    "codeop",
    "dill",
    "imp",
    "joblib",
    "jsonpickle",
    "marshal",
    "pickle",
    "pickletools",
    "pty",
    "runpy",
    "shelve",
    "yaml",
}
BUILTINS = {"__import__", "compile", "eval", "exec"}
# Attributes that execute, import, or unpack archives to paths that the archive chooses.
ATTRIBUTES = {
    "allow_module_from_file",
    "exec_module",
    "execfile",
    "extract",
    "extractall",
    "import_module",
    "load_module",
    "module_from_spec",
    "popen",
    "run_path",
    "spec_from_file_location",
    "system",
    "unpack_archive",
}

# The lazy imports there are: where, and why the name never comes from data.
LAZY = {
    ("__init__.py", "__getattr__"): "names of the table in the same file",
    ("__init__.py", "create_module"): "what the user's own import statement says",
    ("core/devices.py", "_load_cupy"): "cupy, written out",
    ("core/devices.py", "cuda_problem"): "cupy, written out",
    ("generative/__init__.py", "__getattr__"): "names of the table in the same file",
    ("generative/training/adversarial.py", "players_of"): "names of the table in the same file",
    ("generative/training/autoencoding.py", "network"): "names of the table in the same file",
    ("hub/cli.py", "get_command"): "names of the table of commands in the same file",
    ("hub/commands/train.py", "options_of"): "names of the table of recipes in the same file",
    ("hub/commands/train.py", "train_command"): "names of the table of recipes in the same file",
    ("hub/loading.py", "task_class"): "names of the table of tasks in the same file",
    ("hub/loading.py", "agents"): "rl.agents, written out",
    ("hub/registry.py", "_import"): "files found in the package's own domain folders",
    ("rl/__init__.py", "__getattr__"): "names of the table in the same file",
    ("rl/agents.py", "algorithm"): "names of the table in the same file",
    ("rl/environments/__init__.py", "__getattr__"): "names of the table in the same file",
    ("rl/environments/make.py", "_by_name"): "files of the table in the same file",
    ("rl/environments/make.py", "_imported"): "the module that the user names",
    ("vision/__init__.py", "__getattr__"): "names of the table in the same file",
}


def findings(file: str, tree: ast.Module) -> list[tuple[str, str, int, str]]:
    """(file, function, line, what) of everything suspicious."""
    found: list[tuple[str, str, int, str]] = []

    def visit(node: ast.AST, function: str) -> None:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            function = node.name
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names = [node.module or ""]
            if node.module in ("builtins", "importlib", "os", "shutil"):
                names += [a.name for a in node.names if a.name in BUILTINS | ATTRIBUTES]
        else:
            names = []
        for name in names:
            if name.split(".")[0] in MODULES or name in BUILTINS | ATTRIBUTES:
                found.append((file, function, node.lineno, f"import {name}"))  # type: ignore[attr-defined]
        if isinstance(node, ast.Call):
            _call(node, function)
        for child in ast.iter_child_nodes(node):
            visit(child, function)

    def _call(node: ast.Call, function: str) -> None:
        what = None
        if isinstance(node.func, ast.Name) and node.func.id in BUILTINS:
            what = node.func.id
        elif isinstance(node.func, ast.Attribute):
            owner = ast.unparse(node.func.value)
            if node.func.attr in ATTRIBUTES and owner not in ("platform",):  # platform.system()
                what = node.func.attr
            elif owner == "builtins" and node.func.attr in BUILTINS:
                what = f"builtins.{node.func.attr}"
        for keyword in node.keywords:
            if keyword.arg in ("allow_pickle", "shell", "trust_remote_code") and not (
                isinstance(keyword.value, ast.Constant) and not keyword.value.value
            ):
                what = f"{keyword.arg}=True"
        if what:
            found.append((file, function, node.lineno, what))

    visit(tree, "<module>")
    return found


# Functions written as source by the library itself, of numbers alone (a test looks at them).
WRITTEN = {
    ("core/graph/program.py", "write", "exec"),
    ("core/graph/program.py", "write", "compile"),
}


def test_no_code_from_data(sources: list[Any]) -> None:
    assert len(sources) > 50
    seen = set()
    wrong = []
    for source in sources:
        for file, function, line, what in findings(source.file, source.tree):
            if what == "import_module" and (file, function) in LAZY:
                seen.add((file, function))
            elif (file, function, what) not in WRITTEN:
                wrong.append(f"{file}:{line} in {function}: {what}")
    assert not wrong, "\n" + "\n".join(wrong)
    assert seen == set(LAZY), "an entry of LAZY is no longer needed"


@pytest.mark.parametrize(
    "text, what",
    [
        ("import pickle", "import pickle"),
        ("from marshal import loads", "import marshal"),
        ("def f():\n    import pickle as p", "import pickle"),
        ("eval(text)", "eval"),
        ("def f():\n    exec(text)", "exec"),
        ("import builtins\nbuiltins.eval(text)", "builtins.eval"),
        ("from builtins import exec as run", "import exec"),
        ("compile(text, 'x', 'exec')", "compile"),
        ("__import__(name)", "__import__"),
        ("importlib.import_module(name)", "import_module"),
        ("from importlib import import_module as load", "import import_module"),
        ("spec.loader.exec_module(module)", "exec_module"),
        ("np.load(path, allow_pickle=True)", "allow_pickle=True"),
        ("np.load(path, allow_pickle=flag)", "allow_pickle=True"),
        ("subprocess.run(line, shell=True)", "shell=True"),
        ("os.system(line)", "system"),
        ("tarfile.open(path).extractall(target)", "extractall"),
    ],
)
def test_the_check_finds(text: str, what: str) -> None:
    assert what in [w for *_, w in findings("x.py", ast.parse(text))]


@pytest.mark.parametrize(
    "text",
    [
        "module.eval()",
        "re.compile('x')",
        "from .pickle_reader import run",
        "np.load(path, allow_pickle=False)",
        "platform.system()",
    ],
)
def test_the_check_permits(text: str) -> None:
    assert not findings("x.py", ast.parse(text))
