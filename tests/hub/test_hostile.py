"""Hubs that lie: names, hashes, commits, indexes, code (TESTPLAN 33, 35)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import hub_server
import pytest

import bestiary as bt
from bestiary.core.errors import HubError, WeightsError
from bestiary.hub import web
from bestiary.hub.cache import Storage, check_name, check_repo, check_revision
from bestiary.hub.download import cached, fetch
from bestiary.hub.repository import snapshot

REPO = "zoo/hostile"
FILES = ["config.json", "model.safetensors"]
WEIGHTS = "model.safetensors"


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "repository"
    made.mkdir()
    return hub_server.write_repository(made, 100_000)


@pytest.fixture
def hub(serve, folder, own_cache, monkeypatch):
    monkeypatch.setattr(web, "_PAUSE", 0.02)
    served = serve({REPO: folder})
    bt.configure(endpoint=served.url, timeout=2.0, deadline=0.2)
    return served


def everything(folder: Path) -> list[str]:
    """Whatever was written."""
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


# -- row 33: hashes that are none -----------------------------------------------------------------

ETAGS = [
    "../../../../evil",
    "..",
    "",
    '""',
    "/etc/passwd",
    "a" * 10_000,
    "0123456789abcdef",
    "g" * 64,
    "..\\..\\evil",
    "%2e%2e%2fevil",
]


@pytest.mark.parametrize("etag", ETAGS)
@pytest.mark.parametrize("hashes", [True, False])
def test_row_33_an_etag_that_is_no_hash_is_refused(hub, own_cache, tmp_path, etag, hashes):
    hub.hashes = hashes
    headers = {"ETag": etag, "X-Linked-ETag": etag}
    hub.faults = [hub_server.Fault("resolve", times=99, headers=headers)]
    before = everything(tmp_path)
    with pytest.raises(HubError, match=r"no hash|could not be reached"):
        fetch(REPO, FILES)
    # The list of the commit is remembered, and a lock was taken; no content, and nothing elsewhere.
    new = [p for p in everything(tmp_path) if p not in before]
    inside = f"hf/hub/models--zoo--hostile/.bestiary/listing-{hub_server.COMMIT}.json"
    assert [p for p in new if ".locks" not in p] == [inside]


@pytest.mark.parametrize("name", FILES)
def test_row_33_an_etag_of_other_content_is_refused(hub, name):
    lie = "0" * (64 if name == WEIGHTS else 40)
    headers = {"ETag": f'"{lie}"', "X-Linked-ETag": f'"{lie}"'}
    hub.faults = [hub_server.Fault(f"resolve.*{name}", times=99, headers=headers)]
    with pytest.raises(HubError, match="sends 0000") as caught:
        fetch(REPO, FILES)
    assert caught.value.got == lie
    assert cached(REPO) is None


@pytest.mark.parametrize("sha", ["../../evil", "", None, 7, "main", "A" * 40, "0" * 39])
def test_row_33_a_commit_that_is_none_is_refused(hub, own_cache, sha):
    hub.listed = {"sha": sha}
    with pytest.raises(HubError, match="answered with no commit"):
        fetch(REPO, FILES)
    assert not own_cache.exists()


def test_row_33_another_commit_than_the_pinned_one_is_refused(hub, own_cache):
    hub.listed = {"sha": "e" * 40}
    with pytest.raises(HubError, match=f"asked for the commit {hub_server.COMMIT}"):
        fetch(REPO, FILES, revision=hub_server.COMMIT)
    assert not own_cache.exists()


@pytest.mark.parametrize("siblings", [None, 7, "x", [None, 7, "x", {}, {"rfilename": 7}]])
def test_row_33_a_list_that_is_none(hub, siblings):
    hub.listed = {"siblings": siblings}
    with pytest.raises(HubError, match=r"has no file 'config\.json'"):
        fetch(REPO, FILES)


@pytest.mark.parametrize("size", [-1, 1.5, "x", None, True, 10**30])
def test_row_33_sizes_that_make_no_sense(hub, folder, size):
    git, sha256 = hub.digests(folder / WEIGHTS)
    lfs = {"sha256": sha256, "size": size}
    hub.listed = {"siblings": [{"rfilename": WEIGHTS, "size": size, "blobId": git, "lfs": lfs}]}
    if size == 10**30:
        with pytest.raises(HubError, match="bytes, and only"):  # no disk has room for it
            fetch(REPO, [WEIGHTS])
        assert not hub.bodies()
    else:  # the file's own headers say it
        assert fetch(REPO, [WEIGHTS]).files[WEIGHTS].is_file()


# -- row 33: names --------------------------------------------------------------------------------

NAMES = [
    "..",
    "../model.safetensors",
    "a/../../model.safetensors",
    "/etc/passwd.safetensors",
    "C:model.safetensors",
    "C:\\model.safetensors",
    "..\\model.safetensors",
    "\\\\server\\share\\model.safetensors",
    "model\0.safetensors",
    "model\n.safetensors",
    "a" * 300 + ".safetensors",
    "ä" * 130 + ".safetensors",
    "",
    ".",
    "./model.safetensors",
    "a//model.safetensors",
    " model.safetensors",
    "model.safetensors ",
    "a:b.safetensors",
    "con|pipe.safetensors",
    "x/" * 501 + "y",
]


@pytest.mark.parametrize("name", NAMES, ids=range(len(NAMES)))
def test_row_33_a_file_name_that_leads_elsewhere_is_refused(hub, tmp_path, name):
    before = everything(tmp_path)
    with pytest.raises(HubError, match="is not the name of a file"):
        fetch(REPO, [name])
    assert not hub.log and everything(tmp_path) == before


@pytest.mark.parametrize("name", [n for n in NAMES if n.endswith("safetensors")], ids=repr)
def test_row_33_such_a_name_in_the_list_of_a_repository_is_not_fetched(hub, tmp_path, name):
    siblings = [{"rfilename": "config.json"}, {"rfilename": name}]
    hub.listed = {"siblings": siblings}
    with pytest.raises((HubError, WeightsError)):
        snapshot(REPO)
    assert not hub.bodies()
    assert not [p for p in everything(tmp_path) if p.endswith("safetensors") and "reposit" not in p]


@pytest.mark.parametrize("name", ["a/b/c.json", "1_Pooling/config.json", "é.json", "a" * 240])
def test_good_names(name):
    assert check_name(name) == name


@pytest.mark.parametrize(
    "repo",
    [
        "a",
        "a/b/c",
        "../b",
        "a/..",
        "/b",
        "a/",
        "a b/c",
        "a/b\0",
        "a/b.git",
        "a--b/c",
        "-a/b",
        "a/.b",
    ],
)
def test_row_33_ids_of_repositories(repo, own_cache):
    with pytest.raises(HubError, match="is no id of a repository"):
        check_repo(repo)
    with pytest.raises(HubError):
        fetch(repo, FILES)


@pytest.mark.parametrize("revision", ["../main", "a/../../b", "/main", "a\0", "C:x"])
def test_row_33_revisions(hub, revision):
    with pytest.raises(HubError, match="is no revision"):
        check_revision(revision)
    with pytest.raises(HubError, match="is no revision"):
        fetch(REPO, FILES, revision=revision)
    assert not hub.log


def test_row_33_a_ref_on_disk_that_leads_elsewhere(own_cache):
    storage = Storage(REPO)
    (storage.folder / "refs").mkdir(parents=True)
    (storage.folder / "refs" / "main").write_text("../../../somewhere")
    assert storage.commit_of("main") is None and cached(REPO) is None


# -- row 35: indexes of shards --------------------------------------------------------------------

SHARDS = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
INDEX = "model.safetensors.index.json"


@pytest.mark.parametrize(
    "content, said",
    [
        ({"weight_map": {"a": "../evil.safetensors"}}, "not the plain name"),
        ({"weight_map": {"a": "/etc/evil.safetensors"}}, "not the plain name"),
        ({"weight_map": {"a": SHARDS[0], "b": "model-00003-of-00002.safetensors"}}, "missing"),
        (f'{{"weight_map": {{"a": "{SHARDS[0]}", "a": "{SHARDS[1]}"}}}}', "listed twice"),
        ({"weight_map": {}}, "no weight_map"),
        ("not json", "not JSON"),
    ],
)
def test_row_35_an_index_that_leads_astray_is_refused_before_any_request(
    hub, folder, content, said
):
    (folder / WEIGHTS).unlink()
    for name in SHARDS:
        (folder / name).write_bytes(b"weights")
    text = content if isinstance(content, str) else json.dumps(content)
    (folder / INDEX).write_text(text)
    for _ in range(2):  # and again, when the index itself is in the cache
        with pytest.raises(WeightsError, match=said):
            snapshot(REPO)
    assert {r.path.rpartition("/")[2].partition("?")[0] for r in hub.bodies()} == {INDEX}


def test_nothing_of_a_repository_is_imported_or_run(hub, folder, hub_variables, tmp_path):
    """TESTPLAN 16: code beside the weights, and a configuration that points to it."""
    (folder / "modeling_evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    (folder / "config.json").write_text(
        json.dumps({"model_type": "evil", "auto_map": {"AutoModel": "modeling_evil.Evil"}})
    )
    code = (
        "import sys, bestiary as bt\n"
        "try:\n"
        f"    bt.load('{REPO}')\n"
        "except bt.errors.BestiaryError as error:\n"
        "    print(error)\n"
        "assert not [m for m in sys.modules if 'evil' in m]"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**hub_variables, "HF_ENDPOINT": hub.url},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert "not supported" in done.stdout and not os.path.exists(tmp_path / "ran")
    assert not [r for r in hub.log if ".py" in r.path]
