"""Several processes and one cache; full disks; caches that cannot be written (TESTPLAN 31, 32)."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import hub_server
import pytest

import bestiary as bt
from bestiary.core.errors import HubError
from bestiary.hub import download, transfer
from bestiary.hub.cache import Storage
from bestiary.hub.download import cached, fetch, verify

REPO = "zoo/shared"
FILES = ["config.json", "model.safetensors"]
WEIGHTS = "model.safetensors"
SIZE = 8_000_000

FETCH = """
import json, os, sys, time
import bestiary as bt
from bestiary.core.errors import BestiaryError
from bestiary.hub.download import fetch
import huggingface_hub.file_download, filelock
bt.configure(timeout=30, deadline=60, connect=30)
print("ready", flush=True)
sys.stdin.readline()
try:
    found = fetch("zoo/shared", ["config.json", "model.safetensors"])
    print(json.dumps({"size": os.path.getsize(found.files["model.safetensors"])}))
except BestiaryError as error:
    print(json.dumps({"error": str(error), "kind": type(error).__name__}))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return hub_server.write_repository(tmp_path_factory.mktemp("shared"), SIZE)


@pytest.fixture
def hub(serve, folder, own_cache):
    served = serve({REPO: folder})
    bt.configure(endpoint=served.url, timeout=5.0, deadline=5.0)
    return served


def start(hub, variables, code: str = FETCH, **options) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", code],
        env={**variables, "HF_ENDPOINT": hub.url, **options.pop("more", {})},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def released(processes: list[subprocess.Popen]) -> None:
    """Let them all begin at one moment."""
    for process in processes:
        assert process.stdout.readline() == "ready\n", process.stderr.read()
    for process in processes:
        process.stdin.write("\n")
        process.stdin.flush()


def said(process: subprocess.Popen) -> dict[str, object]:
    out, error = process.communicate(timeout=120)
    assert process.returncode == 0, error
    return json.loads(out.splitlines()[-1])


# -- row 31 ---------------------------------------------------------------------------------------


def test_row_31_eight_processes_download_once(hub, folder, own_cache, hub_variables):
    size = (folder / WEIGHTS).stat().st_size
    hub.faults = [hub_server.Fault(WEIGHTS, where="storage", pause=0.01, step=1 << 16)]
    processes = [start(hub, hub_variables) for _ in range(8)]
    released(processes)
    assert [said(p) for p in processes] == [{"size": size}] * 8
    assert len(hub.bodies(WEIGHTS)) == 1 and len(hub.bodies("config.json")) == 1
    assert not list(own_cache.rglob("*.incomplete"))
    assert not [v for v in verify() if v.problem]


def test_row_31_when_the_holder_is_killed_the_others_go_on(hub, folder, own_cache, hub_variables):
    size = (folder / WEIGHTS).stat().st_size
    half = SIZE // 2
    hub.faults = [hub_server.Fault(WEIGHTS, where="storage", at=half, pause=60)]
    holder = start(hub, hub_variables)
    released([holder])
    part = Storage(REPO).partial(hub.digests(folder / WEIGHTS)[1])
    wait_for(lambda: part.exists() and part.stat().st_size >= half - (1 << 17))
    others = [start(hub, hub_variables) for _ in range(3)]
    released(others)
    wait_for(lambda: len([r for r in hub.log if "/api/" in r.path]) == 4)
    time.sleep(0.3)
    assert len(hub.bodies(WEIGHTS)) == 1  # they wait
    holder.send_signal(signal.SIGKILL)
    killed = time.monotonic()
    wait_for(lambda: len(hub.bodies(WEIGHTS)) == 2)
    assert time.monotonic() - killed < 5
    assert [said(p) for p in others] == [{"size": size}] * 3
    holder.communicate()
    first, second = hub.bodies(WEIGHTS)
    assert second.range == part_size(first, second, size)
    assert len(hub.bodies(WEIGHTS)) == 2 and not list(own_cache.rglob("*.incomplete"))


def part_size(first, second, size: int) -> int:
    """The rest, and only the rest, was fetched by the second."""
    assert second.sent == size - second.range and second.range <= first.sent
    return second.range


def wait_for(condition, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.005)


def test_row_31_a_holder_that_makes_no_progress_is_named(hub, monkeypatch, folder):
    from filelock import FileLock

    monkeypatch.setattr(transfer, "_BUSY", 0.5)
    lock = Storage(REPO).lock(hub.digests(folder / WEIGHTS)[1])
    lock.parent.mkdir(parents=True)
    with FileLock(lock), pytest.raises(HubError, match="without progress") as caught:
        fetch(REPO, FILES)
    assert str(lock) in str(caught.value) and caught.value.reason == "locked"


def test_row_31_locks_need_no_unix_module_at_import():
    code = (
        "import sys; sys.modules['fcntl'] = None\n"
        "import bestiary.hub.download, bestiary.hub.repository, bestiary.hub.loading\n"
        "assert 'filelock' not in sys.modules and 'huggingface_hub' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


# -- row 32: full disks ---------------------------------------------------------------------------


def test_row_32_room_is_looked_for_before_anything_is_fetched(hub, own_cache, monkeypatch):
    other = fetch(REPO, ["config.json"])
    hub.forget()
    monkeypatch.setattr(download, "free_bytes", lambda _: SIZE - 1)
    monkeypatch.setattr(transfer, "free_bytes", lambda _: SIZE - 1)
    with pytest.raises(HubError) as caught:
        fetch(REPO, FILES)
    size = Storage(REPO).listing(other.commit)[WEIGHTS].size
    assert caught.value.needed == size and caught.value.free == SIZE - 1
    assert f"{size:,}" in str(caught.value) and f"{SIZE - 1:,}" in str(caught.value)
    assert not hub.bodies()
    assert not list(own_cache.rglob("*.incomplete"))
    assert cached(REPO, filenames=["config.json"]) is not None


def small_disk() -> str | None:
    """A command that runs its argument with a disk of 10 MB at $DISK, where that can be had."""
    if shutil.which("unshare") is None:
        return None
    script = 'mount -t tmpfs -o size=10m none "$DISK" && exec "$0" "$@"'
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", script, "true"],
        env={**os.environ, "DISK": "/mnt"},
        capture_output=True,
    )
    return script if done.returncode == 0 else None


FILL = """
import json, os, sys, threading
import bestiary as bt
from bestiary.core.errors import HubError
from bestiary.hub import download
from bestiary.hub.download import cached, fetch, verify
disk, at = os.environ["DISK"], int(os.environ["AT"])
bt.configure(cache_dir=disk, timeout=20, deadline=40, connect=20)
fetch("zoo/tiny", ["config.json"])
room = download.free_bytes
def lies(folder):
    # There was room when it was looked for; something else takes it in the meantime.
    download.free_bytes = room
    left = room(folder)
    with open(os.path.join(disk, "filler"), "wb") as file:
        file.truncate(0)
        os.posix_fallocate(file.fileno(), 0, left - at)
    return left
download.free_bytes = lies
try:
    fetch("zoo/shared", ["model.safetensors"])
    print(json.dumps({"error": "it was fetched"}))
except HubError as error:
    os.remove(os.path.join(disk, "filler"))
    left = [f for _, _, files in os.walk(disk) for f in files if "incomplete" in f or "part" in f]
    print(json.dumps({"error": str(error), "needed": error.needed, "free": error.free,
        "left": left, "intact": cached("zoo/tiny", filenames=["config.json"]) is not None
        and not [v for v in verify() if v.problem]}))
    fetch("zoo/shared", ["model.safetensors"])
    print("and then it fits")
"""


@pytest.mark.parametrize("percent", [1, 50, 99])
def test_row_32_a_disk_that_fills_up(hub, folder, tmp_path, hub_variables, percent):
    script = small_disk()
    if script is None:
        pytest.skip("needs the right to mount a file system (user namespaces)")
    hub.repositories["zoo/tiny"] = folder
    size = (folder / WEIGHTS).stat().st_size
    disk = tmp_path / "disk"
    disk.mkdir()
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", script, sys.executable, "-c", FILL],
        env={
            **hub_variables,
            "HF_ENDPOINT": hub.url,
            "DISK": str(disk),
            "AT": str(size * percent // 100),
        },
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    found = json.loads(lines[0])
    assert found["needed"] == size and f"{size:,}" in found["error"], found
    assert found["free"] < size and found["left"] == [] and found["intact"] is True
    assert lines[1] == "and then it fits"


# -- row 32: caches that cannot be written --------------------------------------------------------

READ_ONLY = """
import errno, json, os, sys
folder, tries = os.environ["HF_HOME"], []
def guard(event, given):
    paths = [p for p in given if isinstance(p, (str, bytes, os.PathLike))]
    inside = any(os.fsdecode(p).startswith(folder) for p in paths)
    writes = event in ("os.mkdir", "os.rename", "os.remove", "os.symlink", "os.link", "os.utime",
                       "os.rmdir", "os.truncate", "os.chmod")
    if event == "open":
        writes = isinstance(given[1], str) and any(c in given[1] for c in "wax+")
        writes = writes or bool(given[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))
    if inside and writes:
        tries.append(event)
        raise OSError(errno.EROFS, "Read-only file system")
sys.addaudithook(guard)
import bestiary as bt
from bestiary.core.errors import HubError
from bestiary.hub.download import cached, fetch
found = fetch("zoo/shared", ["config.json", "model.safetensors"])
first = len(tries)
assert cached("zoo/shared", filenames=list(found.files)) == found
try:
    fetch("zoo/shared", ["config.json", "README.md"])
except HubError as error:
    print(json.dumps({"tries": first, "records": len(found.records), "error": str(error)}))
"""


def read_only(hub, variables) -> dict[str, object]:
    done = subprocess.run(
        [sys.executable, "-c", READ_ONLY],
        env={**variables, "HF_ENDPOINT": hub.url},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_row_32_a_cache_that_cannot_be_written_works_when_complete(
    hub, folder, own_cache, hub_variables
):
    (folder / "README.md").write_text("# There")
    try:
        fetch(REPO, FILES)
        hub.forget()
        found = read_only(hub, hub_variables)
        assert found["tries"] == 0 and found["records"] == 2
        assert "cannot be written" in found["error"] and str(own_cache) in found["error"]
        # Filled by another tool, it has no records: they go to the library's own folder.
        shutil.rmtree(own_cache / "models--zoo--shared" / ".bestiary")
        for _ in range(2):
            found = read_only(hub, hub_variables)
            assert found["records"] == 2
        assert found["tries"] == 0
    finally:
        (folder / "README.md").unlink()
