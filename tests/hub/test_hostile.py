"""Hubs that lie: names, hashes, redirects, indexes; where the token goes (TESTPLAN 33 to 35)."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import traceback
from pathlib import Path

import hub_server
import pytest

import bestiary as bt
from bestiary.core.errors import HubError, WeightsError
from bestiary.hub import settings, web
from bestiary.hub.cache import Storage, check_name, check_repo, check_revision
from bestiary.hub.download import cached, fetch, listing
from bestiary.hub.repository import snapshot

REPO = "zoo/hostile"
FILES = ["config.json", "model.safetensors"]
WEIGHTS = "model.safetensors"
TOKEN = "hf_averysecrettokenindeed"


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


# -- row 34: the token ----------------------------------------------------------------------------


def senders(hub) -> set[str]:
    """Where the token arrived."""
    found = set()
    for request in hub.log:
        assert request.headers.get("authorization") in (None, f"Bearer {TOKEN}")
        if "authorization" in request.headers:
            found.add(request.where)
    return found


@pytest.mark.parametrize("source", ["configure", "HF_TOKEN"])
def test_row_34_the_token_goes_to_the_hub_and_to_no_storage(hub, monkeypatch, source):
    if source == "configure":
        bt.configure(token=TOKEN)
    else:
        monkeypatch.setenv("HF_TOKEN", TOKEN)
    fetch(REPO, FILES)
    assert senders(hub) == {"hub"} and {r.where for r in hub.log} == {"hub", "storage"}
    bt.configure(token=False)
    hub.forget()
    fetch(REPO, FILES, refresh=True)
    assert hub.log and not senders(hub)


@pytest.mark.parametrize("path", ["api/models", "resolve.*config", "resolve.*safetensors"])
@pytest.mark.parametrize("status", [302, 307])
def test_row_34_no_redirect_takes_the_token_along(hub, serve, path, status):
    other = serve({})
    bt.configure(token=TOKEN)
    headers = {"Location": f"{other.url}/collect"}
    hub.faults = [hub_server.Fault(path, times=99, status=status, headers=headers)]
    with pytest.raises(HubError):
        fetch(REPO, FILES)
    assert other.log and not senders(other)  # the same host, another port: another origin


@pytest.mark.parametrize(
    "target", ["file:///etc/passwd", "ftp://127.0.0.1/x", "http://[", "gopher://x", "data:,x"]
)
def test_row_34_redirects_that_are_not_followed(hub, target):
    hub.faults = [hub_server.Fault("api", times=99, status=302, headers={"Location": target})]
    # Some of them are refused by the client itself.
    with pytest.raises(HubError, match=r"redirects to an address that is not followed|InvalidURL"):
        fetch(REPO, FILES)


def test_row_34_from_an_encrypted_address_to_a_plain_one(own_cache):
    bt.configure(endpoint="https://hub.invalid")
    reached = web.Web(settings.current())
    with pytest.raises(HubError, match="not followed"):
        reached._redirected("https://hub.invalid/a", "http://hub.invalid/a")
    assert reached._redirected("https://hub.invalid/a", "/b") == "https://hub.invalid/b"


def test_row_34_a_circle_of_redirects_ends(hub):
    headers = {"Location": f"/api/models/{REPO}"}
    hub.faults = [hub_server.Fault("api", times=99, status=307, headers=headers)]
    with pytest.raises(HubError, match="redirects without an end"):
        fetch(REPO, FILES)
    assert len(hub.log) < 20


def test_row_34_a_renamed_repository_is_followed_with_the_token(hub):
    """The hub redirects old names to new ones: that is the same origin."""
    bt.configure(token=TOKEN)
    headers = {"Location": f"/api/models/{REPO}?blobs=true"}
    hub.faults = [hub_server.Fault("api/models/zoo/old", status=307, headers=headers)]
    assert listing("zoo/old")[0] == hub_server.COMMIT
    assert all("authorization" in r.headers for r in hub.log)


@pytest.mark.parametrize(
    "fault",
    [
        {"status": 401},
        {"status": 500, "times": 99},
        {"status": 200, "body": b"<html>"},
        {"close": "silent", "times": 99},
        {"status": 302, "headers": {"Location": "ftp://x/y?token=verysecret"}},
    ],
    ids=lambda f: str(f.get("status", "closed")),
)
@pytest.mark.parametrize("path", ["api", "resolve", "model.safetensors"])
def test_row_34_no_error_log_or_repr_shows_a_secret(hub, path, fault, caplog):
    caplog.set_level(logging.DEBUG)
    bt.configure(token=TOKEN)
    hub.faults = [hub_server.Fault(path, **fault)]
    shown = ""
    try:
        fetch(REPO, FILES)
    except HubError as error:  # some of the faults pass
        shown = "".join(traceback.format_exception(error)) + repr(error.facts)
    assert TOKEN not in shown and "verysecret" not in shown
    assert TOKEN not in caplog.text
    assert TOKEN not in repr(settings.current()) and TOKEN not in str(vars(settings.current))


def test_row_34_debug_output_of_the_client_shows_no_token(hub, hub_variables):
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "import logging; logging.basicConfig(level=0)\n"
            "from bestiary.hub.download import fetch\n"
            f"print(fetch('{REPO}', {FILES}).commit)",
        ],
        env={**hub_variables, "HF_ENDPOINT": hub.url, "HF_DEBUG": "1", "HF_TOKEN": TOKEN},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert senders(hub) == {"hub"}
    assert "GET" in done.stderr and TOKEN not in done.stdout + done.stderr


def test_errors_29_a_gated_repository(hub, monkeypatch):
    hub.gated.add(REPO)
    with pytest.raises(HubError) as caught:
        snapshot(REPO)
    message = str(caught.value)
    for part in (f"https://huggingface.co/{REPO}", "hf auth login", "A token was not found"):
        assert part in message
    assert "Nearest open models: " in message and caught.value.reason == "gated"
    bt.configure(token="hf_wrong")
    with pytest.raises(HubError, match="A token was sent"):
        snapshot(REPO)
    bt.configure(token="hf_right")
    assert set(snapshot(REPO).files) == set(FILES)


def test_errors_29_a_private_or_unknown_repository(hub):
    with pytest.raises(HubError, match=r"no public repository 'zoo/resnet51'") as caught:
        snapshot("zoo/resnet51")
    assert "resnet50" in str(caught.value) and "A token was not found" in str(caught.value)
    with pytest.raises(HubError, match="has no revision 'v9'"):
        snapshot(REPO, "v9")


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
