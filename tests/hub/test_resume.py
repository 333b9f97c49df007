"""Downloads that broke, or whose process was killed, are continued (TESTPLAN 26)."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time

import hub_server
import pytest

import bestiary as bt
from bestiary.core.errors import HubError
from bestiary.hub import web
from bestiary.hub.cache import Storage
from bestiary.hub.download import cached, fetch, verify

REPO = "zoo/large"
FILES = ["config.json", "model.safetensors"]
WEIGHTS = "model.safetensors"
MIB = 1 << 20


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Weights of 40 MB, so that "after 30 MB" is in the middle of them."""
    return hub_server.write_repository(tmp_path_factory.mktemp("large"), 40_000_000)


@pytest.fixture
def hub(serve, folder, own_cache, monkeypatch):
    monkeypatch.setattr(web, "_PAUSE", 0.02)
    served = serve({REPO: folder})
    bt.configure(endpoint=served.url, timeout=5.0, deadline=5.0, connect=4.0)
    return served


def same(found, folder) -> bool:
    return found.files[WEIGHTS].read_bytes() == (folder / WEIGHTS).read_bytes()


def overlap(hub, folder) -> int:
    """Bytes of the weights that were sent more than once."""
    return sum(r.sent for r in hub.bodies(WEIGHTS)) - (folder / WEIGHTS).stat().st_size


def no_parts(cache) -> bool:
    return not list(cache.rglob("*.incomplete"))


@pytest.mark.parametrize("at", [MIB, 25 * MIB, 30 * MIB])
def test_row_26_a_cut_connection_is_continued_where_it_broke(hub, folder, own_cache, at):
    hub.faults = [hub_server.Fault(WEIGHTS, where="storage", at=at, cut=True)]
    assert same(fetch(REPO, FILES), folder)
    first, second = hub.bodies(WEIGHTS)
    # What the network had in hand when it broke is asked for again, and no more.
    assert at - MIB <= second.range <= at == first.sent
    assert overlap(hub, folder) == at - second.range
    assert no_parts(own_cache)


def test_row_26_many_cuts(hub, folder, own_cache):
    hub.faults = [
        hub_server.Fault(WEIGHTS, where="storage", at=n * 5 * MIB, cut=True) for n in range(1, 8)
    ]
    assert same(fetch(REPO, FILES), folder)
    assert len(hub.bodies(WEIGHTS)) == 8 and overlap(hub, folder) < 8 * MIB


def test_row_26_a_download_that_was_given_up_is_continued_by_the_next(hub, folder, own_cache):
    bt.configure(deadline=0.5)
    down = hub_server.Fault("resolve", times=99, status=503)
    cut = hub_server.Fault(WEIGHTS, where="storage", at=25 * MIB, cut=True)
    cut.call = lambda: hub.faults.append(down)
    hub.faults = [cut]
    with pytest.raises(HubError, match="503"):
        fetch(REPO, FILES)
    assert cached(REPO) is None
    hub.forget()
    hub.faults = []
    assert same(fetch(REPO, FILES), folder)
    (rest,) = hub.bodies(WEIGHTS)
    assert rest.status == 206 and rest.range >= 24 * MIB and no_parts(own_cache)


def test_row_26_a_server_without_ranges_sends_all_of_it_again(hub, folder):
    hub.faults = [
        hub_server.Fault(WEIGHTS, where="storage", at=25 * MIB, cut=True),
        hub_server.Fault(WEIGHTS, where="storage", no_range=True),
    ]
    assert same(fetch(REPO, FILES), folder)
    assert len(hub.bodies(WEIGHTS)) == 2  # the answer that was not asked for is used as it is


def test_row_26_another_range_than_was_asked_for(hub, folder):
    hub.faults = [
        hub_server.Fault(WEIGHTS, where="storage", at=25 * MIB, cut=True),
        hub_server.Fault(WEIGHTS, where="storage", range_offset=7),
    ]
    assert same(fetch(REPO, FILES), folder)
    assert [bool(r.range) for r in hub.bodies(WEIGHTS)] == [False, True, False]


def test_row_26_a_server_that_has_less_than_was_fetched_already(hub, folder):
    hub.faults = [
        hub_server.Fault(WEIGHTS, where="storage", at=25 * MIB, cut=True),
        hub_server.Fault(WEIGHTS, where="storage", status=416),
    ]
    assert same(fetch(REPO, FILES), folder)
    assert [bool(r.range) for r in hub.bodies(WEIGHTS)] == [False, True, False]


@pytest.mark.parametrize("left", ["too long", "other bytes"])
def test_row_26_what_is_left_of_something_else_is_not_used(hub, folder, own_cache, left):
    size = (folder / WEIGHTS).stat().st_size
    part = Storage(REPO).partial(hub.digests(folder / WEIGHTS)[1])
    part.parent.mkdir(parents=True)
    part.write_bytes(b"x" * (size + 1 if left == "too long" else 1000))
    assert same(fetch(REPO, FILES), folder)
    assert no_parts(own_cache)


# -- kill -9 --------------------------------------------------------------------------------------

FETCH = """
import json, sys, warnings
import bestiary as bt
from bestiary.hub.download import fetch
bt.configure(timeout=20, deadline=40, connect=20)
print("ready", flush=True)
found = fetch("zoo/large", ["config.json", "model.safetensors"])
print(json.dumps(sorted(map(str, found.files.values()))))
"""


def start(hub, hub_variables) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", FETCH],
        env={**hub_variables, "HF_ENDPOINT": hub.url},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen) -> None:
    said, error = process.communicate(timeout=60)
    assert process.returncode == 0, error
    assert WEIGHTS in said


def killed_at_random(hub, folder, own_cache, hub_variables, kills: int) -> None:
    size = (folder / WEIGHTS).stat().st_size
    rng = random.Random(kills)
    done, again = 0, 0
    part = Storage(REPO).partial(hub.digests(folder / WEIGHTS)[1])
    for _ in range(kills):
        # Slow enough that there is a middle to be killed in.
        hub.faults = [hub_server.Fault(WEIGHTS, where="storage", pause=0.004, step=1 << 16)]
        hub.forget()
        process = start(hub, hub_variables)
        assert process.stdout.readline() == "ready\n"
        target = done + rng.randrange(1, size // (kills + 1))
        while process.poll() is None and not (part.exists() and part.stat().st_size >= target):
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        for body in hub.bodies(WEIGHTS):
            assert body.range == done  # exactly where the one before had stopped
        done = part.stat().st_size
        assert part.read_bytes() == (folder / WEIGHTS).read_bytes()[:done]
        again = max(again, body.range + body.sent - done)
    hub.faults = []
    hub.forget()
    finish(start(hub, hub_variables))
    (rest,) = hub.bodies(WEIGHTS)
    assert rest.range == done and rest.sent == size - done
    # What the network held when the process died: buffers of sockets, no chunk of the file.
    assert again < 10 * MIB
    assert no_parts(own_cache) and same(fetch(REPO, FILES), folder)
    assert [v.problem for v in verify()] == [None, None]
    left = {p.name for p in (own_cache / "models--zoo--large" / "blobs").iterdir()}
    assert len(left) == 2, left


def test_row_26_killed_and_run_again(hub, folder, own_cache, hub_variables):
    killed_at_random(hub, folder, own_cache, hub_variables, kills=3)


def test_row_26_interrupted_by_the_user_and_run_again(hub, folder, own_cache, hub_variables):
    hub.faults = [hub_server.Fault(WEIGHTS, where="storage", at=25 * MIB, pause=60)]
    process = start(hub, hub_variables)
    part = Storage(REPO).partial(hub.digests(folder / WEIGHTS)[1])
    while not (part.exists() and part.stat().st_size > 20 * MIB):
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert "KeyboardInterrupt" in error
    done = part.stat().st_size
    hub.faults = []
    finish(start(hub, hub_variables))
    assert hub.bodies(WEIGHTS)[-1].range == done
    assert no_parts(own_cache) and same(fetch(REPO, FILES), folder)


@pytest.mark.slow
def test_row_26_killed_fifty_times_and_run_again(hub, folder, own_cache, hub_variables):
    killed_at_random(hub, folder, own_cache, hub_variables, kills=50)
