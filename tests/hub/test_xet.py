"""The accelerated route, and the plain one when it fails (the real `hf_xet` against the server)."""

from __future__ import annotations

import importlib.util
import time

import hub_server
import pytest

import bestiary as bt
from bestiary.core.errors import HubError
from bestiary.hub.cache import Storage
from bestiary.hub.download import cached, fetch

REPO = "zoo/fast"
WEIGHTS = "model.safetensors"
TOKEN = "hf_averysecrettokenindeed"

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("hf_xet") is None, reason="hf_xet is not installed"
)


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "repository"
    made.mkdir()
    return hub_server.write_repository(made, 200_000)


@pytest.fixture
def hub(serve, folder, own_cache, monkeypatch):
    """A hub that offers its weights by xet, from a server of chunks at its own address."""
    monkeypatch.setenv("HF_XET_CACHE", str(own_cache.parent / "xet"))
    served = serve({REPO: folder})
    route = f"{served.url}/api/models/{REPO}/xet-read-token/main"
    served.offer = {"X-Xet-Hash": "a" * 64, "X-Xet-Refresh-Route": route}
    served.keys = {
        "X-Xet-Cas-Url": f"{served.url}/chunks",
        "X-Xet-Access-Token": "for chunks only",
        "X-Xet-Token-Expiration": str(int(time.time()) + 3600),
    }
    served.faults = [
        hub_server.Fault("resolve.*safetensors", headers=served.offer, times=99),
        hub_server.Fault("xet-read-token", status=200, headers=served.keys, times=99),
    ]
    bt.configure(endpoint=served.url, timeout=5.0, deadline=5.0, stall=0.7, xet=True, token=TOKEN)
    return served


def paths(hub) -> list[str]:
    return [r.path.partition("?")[0] for r in hub.log]


def fetched(folder) -> bool:
    return fetch(REPO, [WEIGHTS]).files[WEIGHTS].read_bytes() == (folder / WEIGHTS).read_bytes()


@pytest.mark.parametrize(
    "kind, fault",
    [
        ("no keys", hub_server.Fault("xet-read-token", times=99, status=404)),
        ("chunks fail", hub_server.Fault("/chunks", times=999, status=500)),
        ("chunks stall", hub_server.Fault("/chunks", times=999, before=20)),
        ("chunks break", hub_server.Fault("/chunks", times=999, close="silent")),
    ],
    ids=lambda v: v if isinstance(v, str) else "",
)
def test_what_fails_by_xet_comes_by_http(hub, folder, own_cache, kind, fault):
    hub.faults.insert(0, fault)
    assert fetched(folder)
    if kind != "no keys":
        assert any(p.startswith("/chunks") for p in paths(hub))  # it was tried
    assert len(hub.bodies(WEIGHTS)) == 1  # and then once by the other route
    assert not list(own_cache.rglob("*.incomplete"))
    for request in hub.log:
        if request.where == "storage" or request.path.startswith("/chunks"):
            assert TOKEN not in request.headers.get("authorization", "")


def written(monkeypatch, content: bytes, seen: list[dict[str, object]] | None = None) -> None:
    """The client, which delivers this content."""
    from huggingface_hub import file_download

    def xet_get(*, incomplete_path, _tqdm_bar, **given):
        if seen is not None:
            seen.append(given)
        _tqdm_bar.update(len(content))
        _tqdm_bar.set_postfix_str("fast")
        incomplete_path.write_bytes(content)

    monkeypatch.setattr(file_download, "xet_get", xet_get)


def test_what_comes_by_xet_is_hashed(hub, folder, own_cache, monkeypatch):
    seen: list[dict[str, object]] = []
    written(monkeypatch, (folder / WEIGHTS).read_bytes(), seen)
    assert fetched(folder)
    assert not hub.bodies() and len(seen) == 1
    assert seen[0]["headers"]["authorization"] == f"Bearer {TOKEN}"  # for the hub's own address
    assert not list(own_cache.rglob("*.incomplete"))
    assert cached(REPO, filenames=[WEIGHTS]).records[WEIGHTS].algorithm == "sha256"


def test_row_24_wrong_bytes_by_xet_are_fetched_by_http(hub, folder, monkeypatch):
    size = (folder / WEIGHTS).stat().st_size
    written(monkeypatch, b"x" * size)
    assert fetched(folder)
    assert len(hub.bodies(WEIGHTS)) == 1


def test_row_34_keys_are_not_asked_for_elsewhere(hub, serve, folder):
    """A hub that says the keys for chunks are given out by somebody else gets no token there."""
    other = serve({})
    hub.offer["X-Xet-Refresh-Route"] = f"{other.url}/collect"
    assert fetched(folder)
    assert not other.log and not any(p.startswith("/chunks") for p in paths(hub))


def test_what_was_begun_by_http_is_continued_by_http(hub, folder):
    content = (folder / WEIGHTS).read_bytes()
    part = Storage(REPO).partial(hub.digests(folder / WEIGHTS)[1])
    part.parent.mkdir(parents=True)
    part.write_bytes(content[:150_000])
    assert fetched(folder)
    (rest,) = hub.bodies(WEIGHTS)
    assert rest.range == 150_000 and not any("xet" in p for p in paths(hub))


@pytest.mark.parametrize("how", ["configure", "HF_HUB_DISABLE_XET"])
def test_xet_can_be_turned_off(hub, folder, monkeypatch, how):
    bt.configure(xet=False if how == "configure" else None)
    if how != "configure":
        monkeypatch.setenv("HF_HUB_DISABLE_XET", "1")
    assert fetched(folder)
    assert [r.where for r in hub.log] == ["hub", "hub", "storage"]


@pytest.mark.parametrize("xet", [True, False])
def test_what_a_killed_process_left_is_removed(hub, folder, own_cache, monkeypatch, xet):
    bt.configure(xet=xet)
    part = Storage(REPO).partial(hub.digests(folder / WEIGHTS)[1])
    part.parent.mkdir(parents=True)
    part.with_name(f"{part.stem}.xet.incomplete").write_bytes(b"x" * 1000)
    written(monkeypatch, (folder / WEIGHTS).read_bytes())
    assert fetched(folder)
    assert not list(own_cache.rglob("*.incomplete"))


def test_without_any_route_there_is_one_error(hub):
    hub.faults.insert(0, hub_server.Fault("/chunks", times=999, status=500))
    hub.faults.insert(0, hub_server.Fault(WEIGHTS, where="storage", times=999, status=500))
    bt.configure(deadline=0.5)
    with pytest.raises(HubError, match="500"):
        fetch(REPO, [WEIGHTS])
