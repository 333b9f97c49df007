"""Fetching into the standard cache (TESTPLAN 23, 24, 25), with the request log asserted."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import hub_server
import numpy as np
import pytest

import bestiary as bt
from bestiary.core.errors import HubError
from bestiary.core.weights import save_file
from bestiary.hub import download
from bestiary.hub.download import cached, fetch, listing, verify
from bestiary.hub.repository import snapshot

COMMIT = hub_server.COMMIT
FILES = ["config.json", "model.safetensors"]
REPO = "zoo/small"


@pytest.fixture
def folder(tmp_path):
    """A repository: two files that count, and some that are not needed."""
    made = tmp_path / "repository"
    (made / "onnx").mkdir(parents=True)
    (made / "config.json").write_text('{"model_type": "resnet"}')
    values = np.random.default_rng(0).standard_normal(50_000).astype(np.float32)
    save_file({"weight": values}, made / "model.safetensors")
    (made / "tokenizer.json").write_text("{}")
    (made / "README.md").write_text("# A model")
    for name in ("pytorch_model.bin", "onnx/model.onnx", "tf_model.h5", "training.log"):
        (made / name).write_bytes(b"not needed" * 100)
    return made


@pytest.fixture
def hub(serve, folder, own_cache):
    served = serve({REPO: folder})
    bt.configure(endpoint=served.url, timeout=2.0, deadline=2.0)
    return served


def blobs(cache: Path) -> dict[str, bytes]:
    found = (cache / "models--zoo--small" / "blobs").iterdir()
    return {p.name: p.read_bytes() for p in found}


def damage(path: Path, content: bytes, *, keep_time: bool = False) -> None:
    """Change a cached file in place, as a broken disk or a careless program does."""
    before = path.stat()
    path.resolve().write_bytes(content)
    if keep_time:
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


# -- row 23: the standard cache, read by others ---------------------------------------------------


def test_row_23_files_land_in_the_standard_cache(hub, folder, own_cache):
    found = fetch(REPO, FILES)
    assert found.commit == COMMIT and found.repo == REPO
    root = own_cache / "models--zoo--small"
    assert found.folder == root / "snapshots" / COMMIT
    assert (root / "refs" / "main").read_text() == COMMIT
    for name in FILES:
        assert found.files[name].read_bytes() == (folder / name).read_bytes()
        git, sha256 = hub.digests(folder / name)
        digest = sha256 if name.endswith("safetensors") else git
        link = os.readlink(found.files[name])
        assert link == os.path.join("..", "..", "blobs", digest)
        record = found.records[name]
        assert record.digest == digest and record.size == (folder / name).stat().st_size
        assert record.algorithm == ("sha256" if name.endswith("safetensors") else "git-sha1")
    # One question to the interface, one for each file, one more to the storage for the large one.
    assert [r.where for r in hub.log] == ["hub", "hub", "hub", "storage"]


def test_row_23_other_tools_read_what_we_fetched(hub, own_cache):
    import huggingface_hub

    ours = fetch(REPO, FILES)
    hub.forget()
    for name in FILES:
        theirs = huggingface_hub.try_to_load_from_cache(REPO, name, cache_dir=own_cache)
        assert Path(theirs) == ours.files[name]
        offline = huggingface_hub.hf_hub_download(
            REPO, name, cache_dir=own_cache, local_files_only=True
        )
        assert Path(offline) == ours.files[name]
    # Asked with the endpoint, it finds the content that it would fetch already there.
    again = huggingface_hub.hf_hub_download(
        REPO, FILES[1], cache_dir=own_cache, endpoint=hub.url, token=False
    )
    assert Path(again) == ours.files[FILES[1]] and not hub.bodies()
    scanned = huggingface_hub.scan_cache_dir(own_cache)
    assert not scanned.warnings
    (repo,) = scanned.repos
    assert repo.repo_id == REPO and repo.nb_files == 2
    assert {f.file_name for r in repo.revisions for f in r.files} == set(FILES)


def test_row_23_we_read_what_other_tools_fetched(hub, folder, own_cache):
    import huggingface_hub

    for name in FILES:
        huggingface_hub.hf_hub_download(
            REPO, name, cache_dir=own_cache, endpoint=hub.url, token=False
        )
    hub.forget()
    found = cached(REPO)
    assert found is not None and set(found.files) == set(FILES)
    assert fetch(REPO, FILES).files == found.files
    assert not hub.log
    # What has no record of ours was hashed once, and is compared from now on.
    assert found.records[FILES[1]].digest == hub.digests(folder / FILES[1])[1]


def test_row_23_by_name_only_what_is_needed(hub):
    found = snapshot(REPO)
    assert set(found.files) == {*FILES, "tokenizer.json", "README.md"}
    assert sorted(r.path.rpartition("/")[2].partition("?")[0] for r in hub.bodies()) == [
        "README.md", "config.json", "model.safetensors", "tokenizer.json",
    ]  # fmt: skip


def test_a_file_that_is_not_there_is_answered_with_the_nearest(hub):
    with pytest.raises(HubError, match=r"no file 'model\.safetensor'") as caught:
        fetch(REPO, ["model.safetensor"])
    assert "model.safetensors" in str(caught.value) and caught.value.reason == "file"
    assert not hub.bodies()


def test_a_hub_that_lists_no_hashes_is_asked_for_those_of_the_files(hub, folder):
    hub.hashes = False
    found = fetch(REPO, FILES)
    assert found.records[FILES[1]].digest == hub.digests(folder / FILES[1])[1]
    assert found.files[FILES[0]].read_bytes() == (folder / FILES[0]).read_bytes()


def test_a_moving_branch(hub, folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(download, "_BIG", 1000)
    first = fetch(REPO, FILES)
    capsys.readouterr()
    newer = tmp_path / "newer"
    shutil.copytree(folder, newer)
    (newer / "config.json").write_text('{"model_type": "resnet", "newer": true}')
    commit = "f" * 40
    hub.revisions[REPO] = {"main": (commit, newer)}
    hub.forget()
    assert fetch(REPO, FILES).commit == COMMIT  # complete: nothing is asked
    assert not hub.log
    moved = fetch(REPO, FILES, refresh=True)
    assert moved.commit == commit and "newer" in moved.files[FILES[0]].read_text()
    assert capsys.readouterr().err == ""  # no size of what is there already
    # The weights are the same content, so they are not fetched again.
    assert [r.path.rpartition("/")[2] for r in hub.bodies()] == ["config.json"]
    assert fetch(REPO, FILES, revision=COMMIT).files == first.files  # the older one is still there
    assert fetch(REPO, FILES).commit == commit


def test_a_missing_file_joins_the_commit_that_is_there(hub, tmp_path, folder):
    fetch(REPO, FILES)
    hub.revisions[REPO] = {"main": ("f" * 40, folder), COMMIT: (COMMIT, folder)}
    found = fetch(REPO, [*FILES, "tokenizer.json"])
    assert found.commit == COMMIT
    assert [r.path for r in hub.bodies("tokenizer.json")] == [
        f"/{REPO}/resolve/{COMMIT}/tokenizer.json"
    ]


def test_a_commit_that_is_gone_gives_way_to_the_branch(hub, folder):
    path = fetch(REPO, FILES).files[FILES[1]]
    path.resolve().unlink()
    hub.repositories.clear()  # history was rewritten: the old commit is no longer served
    hub.revisions[REPO] = {"main": ("f" * 40, folder)}
    assert fetch(REPO, FILES).commit == "f" * 40
    assert [r.status for r in hub.log if COMMIT in r.path][-1] == 404
    hub.forget()
    with pytest.raises(HubError, match="has no revision"):  # but what is pinned stays pinned
        fetch(REPO, ["tokenizer.json"], revision=COMMIT)


def test_listing_is_asked_once(hub):
    commit, files = listing(REPO)
    assert commit == COMMIT and files["tokenizer.json"].size == 2
    fetch(REPO, ["config.json"])
    hub.forget()
    assert listing(REPO) == (commit, files) and not hub.log


@pytest.mark.parametrize("links", [True, False])
def test_folders_spaces_empty_and_equal_files(hub, folder, own_cache, monkeypatch, links):
    if not links:  # as on Windows without the right to make them
        monkeypatch.setenv("HF_HUB_DISABLE_SYMLINKS", "1")
    (folder / "1_Pooling").mkdir()
    names = ["1_Pooling/config.json", "a ü#%.json", "empty.txt"]
    for name in names:
        (folder / name).write_bytes(b"{}" if name.endswith("json") else b"")
    found = fetch(REPO, [*FILES, *names])
    for name in [*FILES, *names]:
        assert found.files[name].read_bytes() == (folder / name).read_bytes()
        assert found.files[name].is_symlink() is links
    assert found.records["empty.txt"].digest == "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391"
    assert len(hub.bodies(".json")) == 2  # the equal ones came once
    hub.forget()
    assert fetch(REPO, [*FILES, *names]) == found and not hub.log
    damage(found.files[FILES[1]], b"short")
    assert cached(REPO, filenames=FILES) is None
    assert fetch(REPO, FILES).files[FILES[1]].stat().st_size == 200_080
    assert not [v for v in verify() if v.problem]


# -- row 24: wrong bytes on the way ---------------------------------------------------------------


def wrong_byte(name: str, times: int = 1) -> hub_server.Fault:
    where = "storage" if name.endswith(".safetensors") else "hub"
    return hub_server.Fault(name, where=where, times=times, flip=True, at=5)


@pytest.mark.parametrize("name", FILES)
def test_row_24_wrong_bytes_once_are_fetched_again(hub, folder, own_cache, name):
    hub.faults = [wrong_byte(name)]
    found = fetch(REPO, FILES)
    assert found.files[name].read_bytes() == (folder / name).read_bytes()
    assert len(hub.bodies(name)) == 2
    assert len(blobs(own_cache)) == 2  # no part is left


@pytest.mark.parametrize("name", FILES)
def test_row_24_wrong_bytes_twice_are_an_error_with_both_hashes(hub, folder, own_cache, name):
    hub.faults = [wrong_byte(name, times=9)]
    with pytest.raises(HubError, match="other contents than announced") as caught:
        fetch(REPO, [name])
    git, sha256 = hub.digests(folder / name)
    assert caught.value.expected == (sha256 if name.endswith("safetensors") else git)
    assert caught.value.got != caught.value.expected and caught.value.got in str(caught.value)
    assert len(hub.bodies(name)) == 2
    assert not blobs(own_cache) and cached(REPO, filenames=[name]) is None


def test_row_24_a_body_that_is_too_long(hub, own_cache):
    hub.faults = [hub_server.Fault("safetensors", times=9, extra=b"more", where="storage")]
    with pytest.raises(HubError, match="more than the announced"):
        fetch(REPO, FILES)
    assert cached(REPO) is None and len(hub.bodies(FILES[1])) == 3


# -- row 25: damage in the cache ------------------------------------------------------------------


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("content", [b"", b"short", b"x" * 1_000_000])
def test_row_25_a_wrong_size_is_seen_at_every_load(hub, folder, name, content):
    path = fetch(REPO, FILES).files[name]
    hub.forget()
    damage(path, content, keep_time=True)
    assert cached(REPO, filenames=FILES) is None
    found = fetch(REPO, FILES)
    assert found.files[name].read_bytes() == (folder / name).read_bytes()
    assert [r.path.partition("?")[0].rpartition("/")[2] for r in hub.bodies()] == [name]


def flipped(path: Path) -> bytes:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    return bytes(content)


def test_row_25_a_flipped_bit_is_found_by_verify(hub, folder, own_cache):
    path = fetch(REPO, FILES).files[FILES[1]]
    damage(path, flipped(path), keep_time=True)  # size and time are as recorded
    assert cached(REPO, filenames=FILES) is not None
    found = {v.name: v for v in verify()}
    assert found["config.json"].problem is None
    problem = found["model.safetensors"].problem
    assert hub.digests(folder / FILES[1])[1] in problem and "sha256" in problem
    assert [v.name for v in verify(REPO) if v.problem] == ["model.safetensors"]
    hub.forget()
    assert cached(REPO, filenames=FILES, verify=True) is None
    repaired = fetch(REPO, FILES, verify=True)
    assert repaired.files[FILES[1]].read_bytes() == (folder / FILES[1]).read_bytes()
    assert len(hub.bodies()) == 1 and not [v for v in verify() if v.problem]


def test_row_25_verify_as_a_setting(hub, folder):
    path = fetch(REPO, FILES).files[FILES[0]]
    damage(path, flipped(path), keep_time=True)
    bt.configure(verify=True)
    assert fetch(REPO, FILES).files[FILES[0]].read_bytes() == (folder / FILES[0]).read_bytes()


def test_row_25_a_changed_time_alone_is_looked_into_once(hub, monkeypatch):
    from bestiary.hub import cache

    path = fetch(REPO, FILES).files[FILES[1]]
    os.utime(path, ns=(1, 1))  # as after a copy of the cache
    hashed = []
    real = cache.hash_file
    monkeypatch.setattr(cache, "hash_file", lambda p, a: hashed.append(p) or real(p, a))
    hub.forget()
    for _ in range(3):
        assert cached(REPO, filenames=FILES) is not None
    assert len(hashed) == 1 and not hub.log
    damage(path, flipped(path))  # another content, and so another time
    assert cached(REPO, filenames=FILES) is None


def test_row_25_a_file_that_another_tool_left_broken(hub, folder, own_cache):
    """Nothing is recorded of it, but its name in the cache is the hash that it should have."""
    import huggingface_hub

    for name in FILES:
        path = huggingface_hub.hf_hub_download(
            REPO, name, cache_dir=own_cache, endpoint=hub.url, token=False
        )
    os.truncate(path, 1000)
    assert cached(REPO) is None
    hub.forget()
    assert fetch(REPO, FILES).files[FILES[1]].read_bytes() == (folder / FILES[1]).read_bytes()
    assert [r.path.rpartition("/")[2].partition("?")[0] for r in hub.bodies()] == [FILES[1]]


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"\xff",
        b"[]",
        b'{"files": 7}',
        b'{"files": {"config.json": 7}}',
        b'{"files": {"config.json": {"size": "x", "digest": "../../evil"}}}',
        b'{"algorithm": "sha256", "digest": "x", "size": "big", "mtime_ns": null}',
        b"[" * 100_000,
    ],
    ids=range(8),
)
def test_row_25_notes_of_ours_that_are_damaged_are_made_anew(hub, folder, own_cache, text):
    fetch(REPO, FILES)
    notes = list((own_cache / "models--zoo--small" / ".bestiary").rglob("*.json"))
    assert len(notes) == 3
    for note in notes:
        digest = note.stem.encode()
        note.write_bytes(text.replace(b'"x", "size": "big"', b'"%s", "size": "big"' % digest))
    found = fetch(REPO, [*FILES, "tokenizer.json"])
    assert len(hub.bodies("tokenizer.json")) == 1 and len(found.records) == 3
    assert found.files[FILES[1]].read_bytes() == (folder / FILES[1]).read_bytes()
    assert not (own_cache.parent / "evil").exists()


def test_row_25_a_link_without_content_is_missing(hub):
    path = fetch(REPO, FILES).files[FILES[1]]
    path.resolve().unlink()
    assert [(v.name, v.problem) for v in verify() if v.problem] == [
        ("model.safetensors", "it is missing")
    ]
    assert cached(REPO, filenames=FILES) is None
    assert fetch(REPO, FILES).files[FILES[1]].is_file()


def test_row_25_damage_and_no_network_is_named(hub):
    path = fetch(REPO, FILES).files[FILES[1]]
    damage(path, b"short")
    bt.configure(offline=True)
    with pytest.raises(HubError, match=r"model\.safetensors: it has 5 bytes instead of 200"):
        fetch(REPO, FILES)
    assert path.read_bytes() == b"short"  # nothing is deleted that cannot be replaced
