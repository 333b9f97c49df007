"""Packs: models in one file, for machines without a network.

A pack is a plain zip file whose members are stored as they are, with `bestiary-pack.json` that
lists every file with its size and hash:

    bestiary-pack.json
    hub/models--org--name/<commit>/config.json
    wheels/<sha256>/<name of the file>
    folders/<name>/config.json

Equal models give equal bytes. Unpacking believes nothing: names, sizes and hashes are checked, and
a model appears only when all of the pack was right.
"""

from __future__ import annotations

import json
import stat
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..core.errors import HubError
from ..core.insight.progress import Progress, progress
from ..core.paths import atomic
from .cache import Storage, algorithm_of, check_name, check_repo, hash_file
from .entry import listing_digest
from .registry import Hub, Wheel
from .sources import Obtained

MANIFEST = "bestiary-pack.json"
FORMAT = 1
MAX_MANIFEST_BYTES = 25_000_000
MAX_FILES = 100_000
_BLOCK = 1 << 20
_DATE = (1980, 1, 1, 0, 0, 0)  # of every member: the bytes depend on the models alone


@dataclass(frozen=True)
class Packed:
    """One file of a pack."""

    name: str  # within the model
    member: str  # within the pack
    size: int
    sha256: str
    digest: str  # how the cache names it: the sha256, or git's sha1 of small files of the hub


@dataclass(frozen=True)
class PackedModel:
    """One model of a pack."""

    name: str
    source: Mapping[str, Any]
    files: tuple[Packed, ...]

    @property
    def kind(self) -> str:
        """hub, wheel or folder."""
        return str(self.source["kind"])


# -- writing ---------------------------------------------------------------------------------------


def pack(models: Iterable[Obtained], target: Path) -> list[PackedModel]:
    """Write the files of models into a pack; `target` appears whole or not at all.

    Raises:
        HubError: a model that another distribution carries, or two of one name.
    """
    plans = [_plan(found) for found in models]
    names = [model.name for model, _ in plans]
    if doubled := sorted({n for n in names if names.count(n) > 1}):
        raise HubError(f"two models of the same name in one pack: {', '.join(doubled)}")
    total = sum(file.size for model, _ in plans for file in model.files)
    described = [
        {"name": m.name, "source": dict(m.source), "files": [vars(f) for f in m.files]}
        for m, _ in plans
    ]
    text = json.dumps({"bestiary-pack": FORMAT, "models": described}, indent=1)
    with (
        atomic(target) as part,
        zipfile.ZipFile(part, "w", zipfile.ZIP_STORED, allowZip64=True) as archive,
        progress(total=total, what=f"packing {target.name}", unit="B") as bar,
    ):
        archive.writestr(_info(MANIFEST), text)
        written = set()
        for model, paths in plans:
            for file in model.files:
                if file.member not in written:
                    _add(archive, file, paths[file.name], bar)
                    written.add(file.member)
    return [model for model, _ in plans]


def _plan(found: Obtained) -> tuple[PackedModel, Mapping[str, Path]]:
    """What of a model goes where in the pack."""
    source = found.source
    digests = found.sha256()
    names = dict(digests)
    if isinstance(source, Hub):
        storage = Storage(source.repo)
        assert found.commit is not None
        place = f"hub/{storage.name}/{found.commit}/"
        for name in digests:
            names[name] = storage.digest_of(found.commit, name) or digests[name]
        told = {"kind": "hub", "repo": source.repo, "commit": found.commit}
        told["revision"] = source.revision or "main"
    elif isinstance(source, Wheel):
        place = f"wheels/{source.file_sha256}/"
        told = {"kind": "wheel", "distribution": source.distribution, "version": source.version}
    elif source is None:
        name = found.path.resolve().name
        place, told = f"folders/{name}/", {"kind": "folder"}
        return _packed(name, told, place, found, digests, names), found.files
    else:
        raise HubError(
            f"{found.name} comes with "
            + ("this package" if found.kind == "bundled" else "another distribution")
            + " and needs no pack: install that on the other machine.",
            name=found.name,
        )
    return _packed(found.name, told, place, found, digests, names), found.files


def _packed(
    name: str,
    source: dict[str, Any],
    place: str,
    found: Obtained,
    digests: Mapping[str, str],
    names: Mapping[str, str],
) -> PackedModel:
    files = []
    for file, path in sorted(found.files.items()):
        inside = _inside(source["kind"], file, len(found.files))
        member = check_name(place + inside)
        files.append(Packed(file, member, path.stat().st_size, digests[file], names[file]))
    return PackedModel(name, source, tuple(files))


def _inside(kind: str, name: str, count: int) -> str:
    """The name of a file in its place: a wheel's only file has no folders there."""
    return Path(name).name if kind == "wheel" and count == 1 else name


def _info(member: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(member, _DATE)
    info.external_attr = (stat.S_IFREG | 0o644) << 16
    info.create_system = 3
    return info


def _add(archive: zipfile.ZipFile, file: Packed, path: Path, bar: Progress[Any]) -> None:
    info = _info(file.member)
    info.file_size = file.size
    with open(path, "rb") as source, archive.open(info, "w") as out:
        done = 0
        while block := source.read(_BLOCK):
            out.write(block)
            done += len(block)
            bar.update(len(block))
    if done != file.size:
        raise HubError(f"{path} changed while it was packed", path=str(path))


# -- reading ---------------------------------------------------------------------------------------


def contents(path: Path) -> list[PackedModel]:
    """The models of a pack, its structure checked; no contents are read.

    Raises:
        HubError: it is no pack, damaged, or made to do harm; names what is wrong.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return _contents(archive, path)
    except (zipfile.BadZipFile, NotImplementedError, EOFError, ValueError) as error:
        raise refused(path, f"it is no readable zip file ({str(error)[:100]})") from None


def refused(path: Path, problem: str, **facts: Any) -> HubError:
    """The error of a pack that is not used."""
    return HubError(
        f"{path} was not unpacked: {problem}.\n"
        "Nothing of it is used. It was damaged on the way, or was not made by `bestiary pack`.",
        path=str(path),
        reason="pack",
        **facts,
    )


def _contents(archive: zipfile.ZipFile, path: Path) -> list[PackedModel]:
    members = archive.infolist()
    if len(members) > MAX_FILES:
        raise refused(path, f"it has {len(members):,} members, more than {MAX_FILES:,}")
    for member in members:
        if problem := _problem(member):
            raise refused(path, f"its member {member.filename[:120]!r} {problem}")
    sizes = {member.filename: member.file_size for member in members}
    if len({name.casefold() for name in sizes}) < len(members):
        raise refused(path, "two of its members have the same name")
    # Stored members that do not overlap cannot hold more than the file does.
    if sum(sizes.values()) > path.stat().st_size:
        raise refused(path, "its members claim more bytes than it has")
    if sizes.get(MANIFEST, MAX_MANIFEST_BYTES + 1) > MAX_MANIFEST_BYTES:
        raise refused(path, f"it has no {MANIFEST}, or one that is too long")
    models = _manifest(archive.read(MANIFEST), path)
    listed = {file.member: file.size for model in models for file in model.files}
    for name, size in listed.items():
        if sizes.get(name) != size:
            there = "is missing" if name not in sizes else f"has {sizes[name]:,} bytes"
            raise refused(path, f"{name!r} {there}, and should have {size:,}")
    if others := sorted(set(sizes) - set(listed) - {MANIFEST}):
        raise refused(path, f"it holds {others[0]!r}, which is not in its list")
    return models


def _problem(member: zipfile.ZipInfo) -> str | None:
    """What is wrong with a member's header, in words."""
    try:
        check_name(member.filename)
    except HubError:
        return "would leave the folder, or is no file's name"
    if stat.S_IFMT(member.external_attr >> 16) not in (0, stat.S_IFREG):
        return "is a link or another special file"
    if member.compress_type != zipfile.ZIP_STORED or member.flag_bits & 1:
        return "is compressed or encrypted, and those of a pack are not"
    if member.compress_size != member.file_size:
        return "has two sizes"
    return None


def _manifest(raw: bytes, path: Path) -> list[PackedModel]:
    try:
        found = json.loads(raw.decode("utf-8"))
        if found["bestiary-pack"] != FORMAT:
            raise refused(path, f"it is of the format {found['bestiary-pack']!r}, not {FORMAT}")
        models = [
            PackedModel(m["name"], m["source"], tuple(Packed(**f) for f in m["files"]))
            for m in found["models"]
        ]
        for model in models:
            _check(model)
    except HubError as error:
        if error.facts.get("reason") == "pack":
            raise
        raise refused(path, error.message.splitlines()[0].rstrip(".")) from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise refused(path, f"its {MANIFEST} makes no sense ({str(error)[:100]})") from None
    names = [model.name for model in models]
    if not models or len(set(names)) < len(names):
        raise refused(path, "it has no models, or two of one name")
    return models


def _check(model: PackedModel) -> None:
    """Refuse a model whose files would not go where those of its kind go.

    Raises:
        HubError, ValueError, KeyError, TypeError: it makes no sense.
    """
    kind, source = model.kind, model.source
    if not model.files:
        raise ValueError("a model without files")
    if "/" in check_name(model.name) and model.name != source.get("repo"):
        raise ValueError(f"the name {model.name[:40]!r} is none")
    if kind == "hub":
        place = f"hub/{Storage(check_repo(source['repo'])).name}/{source['commit']}/"
        if algorithm_of(source["commit"]) != "git-sha1":
            raise ValueError("the commit is none")
        check_name(source["revision"])
    elif kind == "wheel":
        digest = model.files[0].digest
        if len(model.files) > 1:
            digest = listing_digest((file.name, file.digest) for file in model.files)
        place = f"wheels/{digest}/"
    elif kind == "folder":
        if "/" in model.name or model.name.startswith("."):
            raise ValueError("the name of a folder is none")
        place = f"folders/{model.name}/"
    else:
        raise ValueError(f"the source {kind[:40]!r} is not known")
    for file in model.files:
        inside = _inside(kind, check_name(file.name), len(model.files))
        if file.member != place + inside or type(file.size) is not int or file.size < 0:
            raise ValueError(f"the file {file.name!r} is not where it belongs")
        if algorithm_of(file.sha256) != "sha256" or (
            file.digest != file.sha256
            and (kind != "hub" or algorithm_of(file.digest) != "git-sha1")
        ):
            raise ValueError(f"the hash of {file.name!r} is none")


def sound(path: Path, file: Packed) -> bool:
    """Whether a file on this machine is one of the pack."""
    try:
        if path.stat().st_size != file.size:
            return False
    except OSError:
        return False
    if hash_file(path, "sha256") != file.sha256:
        return False
    return file.digest == file.sha256 or hash_file(path, "git-sha1") == file.digest
