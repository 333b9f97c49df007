"""The wheel source: pinned contents, fetched with the user's own package client."""

from __future__ import annotations

import dataclasses
import hashlib
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from bestiary.core.errors import HubError
from bestiary.core.paths import sha256_of
from bestiary.hub import wheels
from bestiary.hub.registry import Wheel

WEIGHTS = b"weights" * 1000
NAME = "zoo_test_weights-1.0-py3-none-any.whl"


def make_wheel(folder: Path, contents: bytes = WEIGHTS) -> Path:
    path = folder / NAME
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("zoo_test_weights/__init__.py", "raise SystemExit('imported')\n")
        archive.writestr("zoo_test_weights/model.bin", contents)
        archive.writestr(
            "zoo_test_weights-1.0.dist-info/METADATA",
            "Metadata-Version: 2.1\nName: zoo-test-weights\nVersion: 1.0\nRequires-Dist: torch\n",
        )
        archive.writestr(
            "zoo_test_weights-1.0.dist-info/WHEEL",
            "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        )
        archive.writestr("zoo_test_weights-1.0.dist-info/RECORD", "")
    return path


@pytest.fixture
def index(tmp_path, monkeypatch):
    """A folder that serves as the package index, and a cache of its own."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("BESTIARY_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def source_of(path: Path, contents: bytes = WEIGHTS, **changes: str) -> Wheel:
    facts = {
        "distribution": "zoo-test-weights",
        "version": "1.0",
        "file": "zoo_test_weights/model.bin",
        "sha256": sha256_of(path),
        "file_sha256": hashlib.sha256(contents).hexdigest(),
    }
    return Wheel(**{**facts, **changes})


def test_a_wheel_is_fetched_checked_and_kept(index):
    source = source_of(make_wheel(index))
    assert wheels.cached_file(source) is None
    path = wheels.fetch(source)
    assert path.read_bytes() == WEIGHTS
    assert wheels.cached_file(source) == path
    assert source.file_sha256 in str(path)
    assert "zoo_test_weights" not in sys.modules


def test_a_wheel_for_another_machine_is_fetched_where_it_is_meant(index):
    path = make_wheel(index)
    path = path.rename(path.with_name(path.name.replace("py3-none-any", "cp37-none-win32")))
    with pytest.raises(HubError, match="did not give"):
        wheels.fetch(source_of(path))
    source = dataclasses.replace(source_of(path), built_for=("3.7", "win32"))
    assert wheels.fetch(source).read_bytes() == WEIGHTS


def test_another_wheel_of_that_name_is_refused(index):
    path = make_wheel(index)
    source = source_of(path)
    make_wheel(index, b"other" * 100)
    with pytest.raises(HubError, match="not the one that this model was checked with") as caught:
        wheels.fetch(source)
    assert caught.value.expected == source.sha256 and caught.value.got != source.sha256
    assert wheels.cached_file(source) is None


def test_another_file_inside_is_refused(index):
    source = source_of(make_wheel(index), file_sha256="0" * 64)
    with pytest.raises(HubError, match="not the file that was checked"):
        wheels.fetch(source)
    assert wheels.cached_file(source) is None
    assert not [p for p in Path(index.parent / "home").rglob("*") if p.is_file()]


def test_a_missing_inner_file_is_named(index):
    source = source_of(make_wheel(index), file="zoo_test_weights/none.bin")
    with pytest.raises(HubError, match=r"holds no zoo_test_weights/none\.bin"):
        wheels.fetch(source)


def test_an_index_without_it_says_what_to_try(index):
    source = Wheel("zoo-test-absent", "9.9", "a", "0" * 64, "0" * 64)
    with pytest.raises(HubError) as caught:
        wheels.fetch(source)
    assert "pip download" in str(caught.value) and "zoo-test-absent==9.9" in str(caught.value)


def test_without_a_package_client_the_error_names_the_command(index, monkeypatch):
    monkeypatch.setattr(wheels.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(wheels.shutil, "which", lambda name: None)
    with pytest.raises(HubError, match=r"pip install zoo-test-weights==1\.0"):
        wheels.fetch(source_of(make_wheel(index)))


def test_the_installed_distribution_comes_first(index, tmp_path, monkeypatch):
    path = make_wheel(index)
    site = tmp_path / "site"
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", site, path],
        check=True,
        capture_output=True,
    )
    monkeypatch.syspath_prepend(str(site))
    source = source_of(path)
    assert wheels.installed_file(source) == site / "zoo_test_weights" / "model.bin"
    # Changed contents are not taken for the pinned ones.
    (site / "zoo_test_weights" / "model.bin").write_bytes(b"changed")
    assert wheels.installed_file(source) is None
    assert "zoo_test_weights" not in sys.modules


# -- folders ---------------------------------------------------------------------------------------

FOLDER = {"config.json": b"{}", "model.bin": WEIGHTS, "1_Pooling/config.json": b'{"a": 1}'}


def wheel_of_folder(index: Path, **changes: bytes) -> Wheel:
    path = index / NAME
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in {**FOLDER, **changes}.items():
            archive.writestr(f"zoo_test_weights/model/{name}", content)
        archive.writestr(
            "zoo_test_weights-1.0.dist-info/METADATA",
            "Metadata-Version: 2.1\nName: zoo-test-weights\nVersion: 1.0\nRequires-Dist: torch\n",
        )
        archive.writestr(
            "zoo_test_weights-1.0.dist-info/WHEEL",
            "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        )
        archive.writestr("zoo_test_weights-1.0.dist-info/RECORD", "")
    hashes = {name: hashlib.sha256(content).hexdigest() for name, content in FOLDER.items()}
    return Wheel.of_folder(
        "zoo-test-weights", "1.0", "zoo_test_weights/model", sha256_of(path), hashes
    )


def test_a_folder_of_a_wheel_is_kept_whole(index):
    source = wheel_of_folder(index)
    assert wheels.cached_file(source) is None
    found = wheels.fetch(source)
    assert wheels.cached_file(source) == found
    there = {p.relative_to(found).as_posix(): p.read_bytes() for p in found.rglob("*.*")}
    assert there == FOLDER
    (found / "1_Pooling" / "config.json").unlink()
    assert wheels.cached_file(source) is None  # not complete, and so not there
    assert wheels.fetch(source) == found


def test_a_file_of_the_folder_that_is_another_is_refused(index):
    source = wheel_of_folder(index, **{"model.bin": b"others"})
    with pytest.raises(HubError, match=r"model/model\.bin in .* is not the file"):
        wheels.fetch(source)
    assert wheels.cached_file(source) is None


def test_folders_of_other_contents_have_other_places(index):
    first = wheel_of_folder(index)
    other = Wheel.of_folder("a", "1", "f", first.sha256, {**dict(first.files), "b": "0" * 64})
    assert first.file_sha256 != other.file_sha256
