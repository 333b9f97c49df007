"""Bad networks: throttled, failing, stalled, refused (TESTPLAN 27 to 29), with the log asserted."""

from __future__ import annotations

import email.utils
import socket
import threading
import time
from contextlib import contextmanager

import hub_server
import pytest

import bestiary as bt
from bestiary.core.errors import HubError
from bestiary.core.notice import HubWarning
from bestiary.hub import web
from bestiary.hub.download import cached, fetch
from bestiary.hub.repository import snapshot
from bestiary.hub.web import retry_after

REPO = "zoo/faulty"
FILES = ["config.json", "model.safetensors"]
WEIGHTS = "model.safetensors"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return hub_server.write_repository(tmp_path_factory.mktemp("faulty"), 300_000)


@pytest.fixture
def hub(serve, folder, own_cache, monkeypatch):
    monkeypatch.setattr(web, "_PAUSE", 0.02)
    served = serve({REPO: folder})
    bt.configure(endpoint=served.url, timeout=1.0, deadline=2.0, connect=1.0)
    return served


def same(found, folder) -> bool:
    return found.files[WEIGHTS].read_bytes() == (folder / WEIGHTS).read_bytes()


@contextmanager
def at_most(seconds: float):
    """The block takes no longer, not counting time in which this process was suspended."""
    ended, ticks = threading.Event(), 0

    def count() -> None:
        nonlocal ticks
        while not ended.wait(0.05):
            ticks += 1

    thread = threading.Thread(target=count, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
    assert ticks * 0.05 < seconds


# -- row 27: too many requests, and failures of the server ----------------------------------------


def test_row_27_retry_after():
    assert retry_after("3") == 3.0 and retry_after(" 12 ") == 12.0
    later = email.utils.formatdate(time.time() + 30, usegmt=True)
    assert 27 < retry_after(later) <= 30
    assert retry_after(email.utils.formatdate(0, usegmt=True)) == 0.0
    for garbage in (None, "", "soon", "-5", "1e9", "٣", "9" * 40, "Wed, 99 Foo 2015"):
        assert retry_after(garbage) is None


@pytest.mark.parametrize("where", ["api/models", "resolve.*config", WEIGHTS])
@pytest.mark.parametrize("status", [429, 500, 502, 503])
def test_row_27_failures_that_pass_are_waited_out(hub, folder, where, status):
    headers = {"Retry-After": "garbage"} if status == 429 else {}
    hub.faults = [hub_server.Fault(where, times=2, status=status, headers=headers)]
    assert same(fetch(REPO, FILES), folder)
    assert hub.faults[0].times == 0


@pytest.mark.parametrize("form", ["seconds", "date"])
def test_row_27_the_wait_that_is_asked_for_is_kept(hub, form):
    asked = "1" if form == "seconds" else email.utils.formatdate(time.time() + 2, usegmt=True)
    hub.faults = [hub_server.Fault("api/models", status=429, headers={"Retry-After": asked})]
    start = time.monotonic()
    fetch(REPO, ["config.json"])
    assert time.monotonic() - start > 0.9


@pytest.mark.parametrize("status, word", [(429, "too many requests"), (503, "answered 503")])
@pytest.mark.parametrize("where", ["api/models", "resolve", WEIGHTS])
def test_row_27_failures_that_stay_are_an_error_within_the_deadline(hub, status, word, where):
    bt.configure(deadline=0.5)
    hub.faults = [hub_server.Fault(where, times=999, status=status)]
    with at_most(10), pytest.raises(HubError, match=word) as caught:
        fetch(REPO, FILES)
    assert caught.value.status == status and "Tried for 0.5 s" in str(caught.value)
    assert 3 <= len(hub.log) < 60


def test_row_27_a_wait_beyond_the_deadline_is_not_waited(hub):
    headers = {"Retry-After": "3600"}
    hub.faults = [hub_server.Fault("api", times=9, status=429, headers=headers)]
    with at_most(10), pytest.raises(HubError, match=r"asked to wait 3,600 s"):
        fetch(REPO, FILES)
    assert len(hub.log) == 1


@pytest.mark.parametrize("status", [400, 410, 418])
def test_row_27_what_no_retry_changes_is_not_tried_again(hub, status):
    hub.faults = [hub_server.Fault("resolve.*config", times=9, status=status)]
    with pytest.raises(HubError, match=str(status)):
        fetch(REPO, FILES)
    assert hub.faults[0].times == 8


def test_row_27_a_signed_address_that_ran_out_is_asked_for_again(hub, folder):
    hub.faults = [hub_server.Fault(WEIGHTS, where="storage", status=403)]
    assert same(fetch(REPO, FILES), folder)
    assert len([r for r in hub.log if r.where == "hub" and WEIGHTS in r.path]) == 2


# -- row 28: stalls -------------------------------------------------------------------------------


def test_row_28_a_body_that_stalls_is_continued_over_a_new_connection(hub, folder):
    bt.configure(timeout=0.3)
    hub.faults = [hub_server.Fault(WEIGHTS, where="storage", at=200_000, pause=15)]
    with at_most(10):
        assert same(fetch(REPO, FILES), folder)
    assert hub.bodies(WEIGHTS)[1].range > 100_000


def test_row_28_a_body_that_always_stalls_meets_the_deadline(hub):
    bt.configure(timeout=0.2, deadline=0.6)
    hub.faults = [hub_server.Fault(WEIGHTS, times=99, where="storage", at=0, pause=15)]
    with at_most(10), pytest.raises(HubError, match="could not be reached"):
        fetch(REPO, FILES)
    assert cached(REPO) is None


def test_row_28_a_trickle_meets_the_deadline(hub):
    """A byte now and then keeps a connection alive for ever, but it is no download."""
    bt.configure(timeout=1.0, stall=0.3, deadline=0.8)
    hub.faults = [hub_server.Fault(WEIGHTS, times=99, where="storage", pause=0.05, step=1)]
    with at_most(10), pytest.raises(HubError, match="bytes per second"):
        fetch(REPO, FILES)


def test_row_28_a_slow_but_steady_body_is_let_be(hub, folder):
    bt.configure(timeout=1.0, stall=0.2, minimum_rate=10_000)
    hub.faults = [hub_server.Fault("config", pause=0.1, step=20)]  # 200 bytes per second
    bt.configure(minimum_rate=50)
    assert fetch(REPO, ["config.json"]).files["config.json"].is_file()


def test_row_28_an_answer_that_never_comes(hub):
    bt.configure(timeout=0.3, connect=0.3, deadline=0.5)
    hub.faults = [hub_server.Fault("api", times=99, before=15)]
    with at_most(10), pytest.raises(HubError, match="could not be reached"):
        fetch(REPO, FILES)


def test_row_28_headers_that_trickle(own_cache):
    """Each byte arrives in time, the answer never does."""
    bt.configure(timeout=0.3, connect=0.3)

    def dribble(connection: socket.socket) -> None:
        connection.recv(4096)
        for byte in b"HTTP/1.1 200 OK\r\nX-Filler: " + b"a" * 100:
            connection.sendall(bytes([byte]))
            time.sleep(0.05)

    with listening(dribble) as url:
        bt.configure(endpoint=url)
        with at_most(10), pytest.raises(HubError, match=r"did not answer within 0\.3 s"):
            fetch(REPO, FILES)


# -- row 29: no connection ------------------------------------------------------------------------


@contextmanager
def listening(serve_one):
    """A server that treats every connection as `serve_one` does."""
    server = socket.create_server(("127.0.0.1", 0))
    ended = threading.Event()

    def one(connection: socket.socket) -> None:
        try:
            serve_one(connection)
        except OSError:
            pass
        finally:
            connection.close()

    def run() -> None:
        while not ended.is_set():
            try:
                connection, _ = server.accept()
            except OSError:
                return
            threading.Thread(target=one, args=(connection,), daemon=True).start()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
    finally:
        ended.set()
        server.close()


@pytest.fixture
def black_hole():
    """An address that answers to nothing: the queue of connections is full."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as server:
        address = server.getsockname()
        queued = [socket.socket() for _ in range(4)]
        for one in queued:
            one.setblocking(False)
            one.connect_ex(address)
        yield f"http://127.0.0.1:{address[1]}"
        for one in queued:
            one.close()


def unreachable(hub, kind: str, monkeypatch, black_hole, seconds=None) -> None:
    if kind == "refused":
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        bt.configure(endpoint=f"http://127.0.0.1:{port}")
    elif kind == "no name":

        def unknown(*_: object, **__: object) -> None:
            raise socket.gaierror(-2, "Name or service not known")

        monkeypatch.setattr(socket, "getaddrinfo", unknown)
        bt.configure(endpoint="http://hub.invalid")
    elif kind == "name server hangs":
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: time.sleep(20))
        bt.configure(endpoint="http://hub.invalid", connect=seconds)
    elif kind == "black hole":
        bt.configure(endpoint=black_hole, connect=seconds)
    else:
        hub.faults = [hub_server.Fault("", times=999, close=kind)]


KINDS = ["refused", "reset", "silent", "no name", "name server hangs", "black hole"]


@pytest.mark.parametrize("kind", KINDS)
def test_row_29_errors_37_without_a_copy_an_error_within_five_seconds(
    hub, own_cache, kind, monkeypatch, black_hole
):
    bt.configure(deadline=None, timeout=None, connect=None)  # what users have
    unreachable(hub, kind, monkeypatch, black_hole)
    with at_most(5), pytest.raises(HubError, match="the hub could not be reached") as caught:
        snapshot(REPO)
    message = str(caught.value)
    assert "efficientnet-lite0" in message  # what can be had without it
    for source in caught.value.tried:
        assert source in message
    assert str(own_cache) in message and len(message.splitlines()) <= 12


@pytest.mark.parametrize("kind", KINDS)
def test_row_29_with_a_copy_it_is_used_with_one_warning(hub, kind, monkeypatch, black_hole):
    first = snapshot(REPO)
    hub.forget()
    unreachable(hub, kind, monkeypatch, black_hole, seconds=0.3)
    assert snapshot(REPO).files == first.files  # complete: nothing is asked, nothing is said
    with pytest.warns(HubWarning, match="its copy in the cache is used"):
        assert fetch(REPO, FILES, refresh=True).commit == first.commit
    assert snapshot(REPO, refresh=True).commit == first.commit  # warned of already


def test_row_29_a_newer_commit_that_breaks_off_leaves_the_older_one_in_use(hub, tmp_path, folder):
    first = fetch(REPO, FILES)
    newer = hub_server.write_repository(tmp_path, 200_000)
    hub.revisions[REPO] = {"main": ("f" * 40, newer)}
    hub.faults = [hub_server.Fault(WEIGHTS, times=999, close="silent")]
    bt.configure(deadline=0.3)
    with pytest.warns(HubWarning, match="its copy in the cache is used"):
        assert fetch(REPO, FILES, refresh=True).files == first.files
    assert cached(REPO).commit == first.commit


def test_row_29_without_its_tokenizer_a_model_is_used_with_one_warning(hub, tmp_path, folder):
    """Another tool fetched configuration and weights; what else there is cannot be fetched."""
    (folder / "tokenizer.json").write_text("{}")
    try:
        fetch(REPO, FILES)
        hub.faults = [hub_server.Fault("", times=999, close="silent")]
        with pytest.warns(HubWarning, match="its copy in the cache is used"):
            found = snapshot(REPO)
        assert set(found.files) == set(FILES)
        bt.configure(offline=True)
        assert set(snapshot(REPO).files) == set(FILES)
    finally:
        (folder / "tokenizer.json").unlink()


@pytest.mark.parametrize(
    "body, said",
    [(b"<!DOCTYPE html><title>Log in</title>", "web page"), (b"[]", "no JSON"), (b"", "no JSON")],
)
def test_errors_28_a_page_instead_of_the_hub(hub, body, said):
    hub.faults = [hub_server.Fault("api", status=200, body=body)]
    with pytest.raises(HubError, match=said):
        fetch(REPO, FILES)


def test_errors_28_a_page_instead_of_weights(hub, own_cache):
    hub.faults = [
        hub_server.Fault(
            "resolve.*safetensors", times=9, status=200, body=b"<html>please log in</html>"
        )
    ]
    with pytest.raises(HubError, match="no hash"):
        fetch(REPO, FILES)
    assert cached(REPO) is None
