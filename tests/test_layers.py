"""Who may import whom. Read from the syntax trees, so that nothing needs to be installed."""

from __future__ import annotations

import ast
import sys
from pathlib import Path
from typing import Any

import pytest

# A folder may import itself and these.
FOLDERS: dict[str, set[str]] = {
    "core": set(),
    "hub": {"core"},
    "text": {"core", "hub"},
    "rl": {"core", "hub"},
    "vision": {"core", "hub", "text"},
    "generative": {"core", "hub", "text", "vision"},
}

# The order inside core: a unit (a file or a folder) may import, at module level, what stands in
# its own line or above. Imports inside functions and for types may go anywhere within core.
CORE = [
    "errors paths",
    "callers foreign likely",
    "notice wire",
    "state dtypes spelling native",
    "devices conversion quantization",
    "node",
    "mistakes",
    "operands",
    "op",
    "ops autocast",
    "operators",
    "tensor display",
    "walk creation random namespace linalg",
    "autograd anomaly checkpoint",
    "nn weights graph insight data",
    "optim testing onnx",
    "training",
]
RANK = {unit: rank for rank, units in enumerate(CORE) for unit in units.split()}

# What may be imported at module level from outside, besides the standard library.
THIRD_PARTY = {
    "core": {"numpy", "ml_dtypes"},
    "hub": {"numpy", "click"},
    "text": {"numpy"},
    "rl": {"numpy"},
    "vision": {"numpy"},
    "generative": {"numpy"},
}

# Files that are about one library, and are themselves imported only when they are used
# (tests/test_imports.py sees that neither `import bestiary` nor `bestiary --help` brings it).
WHOLE_FILES = {
    "core/insight/charts.py": "PIL",
    "hub/commands/tour.py": "PIL",
}

# Other frameworks: never, not even inside a function.
FRAMEWORKS = {
    "diffusers",
    "flax",
    "jax",
    "keras",
    "paddle",
    "stable_baselines3",
    "tensorflow",
    "timm",
    "torch",
    "torchvision",
    "transformers",
}


def problem(i: Any) -> str | None:
    """What is wrong with an import, or None."""
    folder = i.file.split("/")[0]
    top, _, rest = i.module.partition(".")
    if top in FRAMEWORKS:
        return "another framework"
    if i.file == "__main__.py":
        return None if i.module == "bestiary.hub.cli" else "python -m runs the command, no more"
    if folder not in FOLDERS:  # another file at the root
        if top == "bestiary" and i.where == "module":
            return "the root imports lazily"
        return None if top == "bestiary" or _standard(top) else "the root needs nothing else"
    if top != "bestiary":
        allowed = THIRD_PARTY[folder] | {WHOLE_FILES.get(i.file)}
        if i.where == "module" and not _standard(top) and top not in allowed:
            return "heavy or optional libraries are imported inside the function that needs them"
        return None
    if not i.relative:
        return "imports inside the package are relative"
    target, _, inner = rest.partition(".")
    if target in ("", "__init__"):
        # `from .. import __version__` and the like
        return None if i.where != "module" else "the root package is imported inside functions"
    if target != folder and target not in FOLDERS[folder]:
        by_name = folder == "hub" and i.where == "function"
        return None if by_name else f"{folder} may not import {target}"
    if folder == "core":
        return _core_problem(i, inner)
    return None


def _core_problem(i: Any, target: str) -> str | None:
    unit = Path(i.file).parts[1].removesuffix(".py")
    target = target.split(".")[0]
    if i.where != "module" or unit == "__init__" or unit == target or not target:
        return None
    for name in (unit, target):
        if name not in RANK:
            return f"core.{name} has no place in the order (tests/test_layers.py)"
    if RANK[target] > RANK[unit]:
        return f"core.{unit} stands below core.{target}"
    return None


def _standard(top: str) -> bool:
    return top in sys.stdlib_module_names


def test_every_import_obeys_the_layers(package_imports: list[Any]) -> None:
    assert len(package_imports) > 50
    wrong = [f"{i}: {p}" for i in package_imports if (p := problem(i))]
    assert not wrong, "\n" + "\n".join(wrong)


def test_core_order_names_real_units(package_root: Path) -> None:
    """A unit that was renamed must not leave a hole in the order."""
    units = {f.stem for f in (package_root / "core").glob("*.py")}
    units |= {f.parent.name for f in (package_root / "core").glob("*/__init__.py")}
    assert set(RANK) | {"__init__"} == units


@pytest.mark.parametrize(
    "file, text, word",
    [
        ("core/op.py", "from .tensor import Tensor", "stands below"),
        ("core/op.py", "from .ops.shape import reshape", "stands below"),
        ("core/nn/linear.py", "from ..optim import SGD", "stands below"),
        ("core/data/loader.py", "from ..training import Trainer", "stands below"),
        ("core/new.py", "from .op import op", "no place"),
        ("core/nn/linear.py", "from ...vision import resnet", "may not import vision"),
        ("core/nn/linear.py", "def f():\n    from ...hub import load", "may not import hub"),
        ("core/ops/a.py", "import bestiary.core.op", "relative"),
        ("core/ops/a.py", "import cupy", "heavy"),
        ("core/ops/a.py", "try:\n    import cupy\nexcept ImportError:\n    pass", "heavy"),
        ("core/ops/a.py", "def f():\n    import torch.nn", "framework"),
        ("core/ops/a.py", "def f():\n    import_module('jax')", "framework"),
        ("core/ops/a.py", "if TYPE_CHECKING:\n    import torch", "framework"),
        ("hub/load.py", "from ..vision import resnet", "may not import vision"),
        ("hub/load.py", "import huggingface_hub", "heavy"),
        ("vision/a.py", "from .. import load", "inside functions"),
        ("text/bert.py", "from ..vision.clip import CLIP", "may not import vision"),
        ("vision/clip.py", "from ..generative import vae", "may not import generative"),
        ("__init__.py", "from .core import op", "lazily"),
        ("__init__.py", "import numpy", "nothing else"),
        ("__main__.py", "from .core.op import op", "no more"),
    ],
)
def test_the_check_finds(make_source: Any, file: str, text: str, word: str) -> None:
    modules = frozenset({"bestiary.vision", "bestiary.generative", "bestiary.core.op"})
    found = [problem(i) for i in make_source(file, ast.parse(text)).imports(modules)]
    assert any(word in p for p in found if p), found


@pytest.mark.parametrize(
    "file, text",
    [
        ("core/op.py", "if TYPE_CHECKING:\n    from .tensor import Tensor"),
        ("core/tensor.py", "def f():\n    from .autograd import backward"),
        ("core/nn/linear.py", "from ..ops.linalg import matmul"),
        ("core/ops/a.py", "def f():\n    import cupy"),
        ("hub/load.py", "def f():\n    from ..vision import resnet"),
        ("vision/clip.py", "from ..text.bert import Bert"),
        ("hub/cli.py", "import click"),
    ],
)
def test_the_check_permits(make_source: Any, file: str, text: str) -> None:
    modules = frozenset({"bestiary.vision", "bestiary.text", "bestiary.core.op"})
    assert not [p for i in make_source(file, ast.parse(text)).imports(modules) if (p := problem(i))]
