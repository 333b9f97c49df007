"""Toy archives as the package registries serve them."""

import hashlib
import io
import tarfile
from types import SimpleNamespace

import pytest

from bestiary.core.data.packages import Member, Package


def tar_of(files, mode="w:gz", extra=()):
    """A tar archive of {path: content}."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode) as tar:
        for entry in extra:
            tar.addfile(entry)
        for path, content in files.items():
            entry = tarfile.TarInfo(path)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return out.getvalue()


def ar_of(members):
    """An ar archive of (name, content)."""
    out = b"!<arch>\n"
    for name, content in members:
        out += f"{name:<16}{0:<12}{0:<6}{0:<6}{'100644':<8}{len(content):<10}`\n".encode()
        out += content + b"\n" * (len(content) % 2)
    return out


def deb_of(files, mode="w:xz", ending="xz"):
    """A Debian package that holds {path: content}."""
    data = tar_of({f"./{path}": content for path, content in files.items()}, mode)
    return ar_of(
        [
            ("debian-binary", b"2.0\n"),
            ("control.tar.xz", b"odd"),
            (f"data.tar.{ending}", data),
        ]
    )


def package_of(content, kind="npm", files=None, roles=None, **changes):
    """The entry of a toy package; roles default to the last five letters of the paths."""
    files = FILES if files is None else files
    roles = roles or {path[-5:]: path for path in files}
    return Package(
        kind=kind,
        name="toy",
        version="1.0",
        file="toy-1.0.tgz" if kind == "npm" else "toy_1.0_all.deb",
        size=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
        members={
            role: Member(path, len(files[path]), hashlib.sha256(files[path]).hexdigest())
            for role, path in roles.items()
        },
        **changes,
    )


FILES = {"package/a.txt": b"hello", "package/b.bin": bytes(1000)}


@pytest.fixture(scope="session")
def toy():
    """Makers of toy archives and their entries."""
    return SimpleNamespace(tar=tar_of, ar=ar_of, deb=deb_of, package=package_of, files=FILES)
