"""Fetching packages: clients, hashes, archives that are not what they should be."""

import gzip
import hashlib
import http.server
import importlib.util
import subprocess
import tarfile
import threading
from dataclasses import replace

import pytest

from bestiary.core.data import packages
from bestiary.core.errors import HubError


@pytest.mark.parametrize("kind", ["npm", "deb xz", "deb gz", "deb plain"])
def test_files_of_a_package(kind, tmp_path, toy):
    content = {
        "npm": lambda: toy.tar(toy.files),
        "deb xz": lambda: toy.deb(toy.files),
        "deb gz": lambda: toy.deb(toy.files, "w:gz", "gz"),
        "deb plain": lambda: toy.deb(toy.files, "w", ""),
    }[kind]()
    package = toy.package(content, kind[:3])
    archive = tmp_path / package.file
    archive.write_bytes(content)
    packages.check_archive(package, archive)
    found = packages.members(package, archive)
    assert found == {"a.txt": b"hello", "b.bin": bytes(1000)}


def test_zstd_packages_of_ubuntu(tmp_path, toy, monkeypatch):
    """Unpacked by Python from 3.14 on, and by dpkg-deb elsewhere."""
    plain = toy.deb(toy.files, "w", "zst")
    data = toy.tar({f"./{path}": body for path, body in toy.files.items()}, "w")
    archive = tmp_path / "toy.deb"
    archive.write_bytes(plain)
    package = toy.package(plain, "deb")
    if importlib.util.find_spec("compression") is not None:
        from compression import zstd

        archive.write_bytes(toy.ar([("data.tar.zst", zstd.compress(data))]))
        assert packages.members(package, archive)["a.txt"] == b"hello"
        return
    results = [(0, data, b""), (2, b"", b"not a package")]

    def run(command, **_):
        assert command == ["dpkg-deb", "--fsys-tarfile", str(archive)]
        return subprocess.CompletedProcess(command, *results.pop(0))

    monkeypatch.setattr(packages.subprocess, "run", run)
    monkeypatch.setattr(packages.shutil, "which", lambda name: name)
    assert packages.members(package, archive)["a.txt"] == b"hello"
    with pytest.raises(HubError, match="not a package"):
        packages.members(package, archive)
    monkeypatch.setattr(packages.shutil, "which", lambda name: None)
    with pytest.raises(HubError, match=r"Python 3\.14 or dpkg-deb"):
        packages.members(package, archive)


def test_another_archive_is_refused(tmp_path, toy):
    content = toy.tar(toy.files)
    archive = tmp_path / "toy-1.0.tgz"
    archive.write_bytes(content + b"x")
    with pytest.raises(HubError, match=r"sha256 [0-9a-f]{64}\n.*not") as caught:
        packages.check_archive(toy.package(content), archive)
    assert caught.value.expected == hashlib.sha256(content).hexdigest()
    packages.check_archive(toy.package(content, rebuilt=True), archive)  # its files decide


def link(path):
    entry = tarfile.TarInfo(path)
    entry.type, entry.linkname = tarfile.SYMTYPE, "/etc/passwd"
    return entry


OTHERS = {
    "another byte": (
        lambda toy: toy.tar({"package/a.txt": b"hellO", "package/b.bin": bytes(1000)}),
        "not the file",
    ),
    "another size": (
        lambda toy: toy.tar({"package/a.txt": b"hello!", "package/b.bin": bytes(1000)}),
        "6 bytes, 5 were",
    ),
    "a file less": (lambda toy: toy.tar({"package/a.txt": b"hello"}), r"lacks package/b\.bin"),
    "another path": (
        lambda toy: toy.tar({"../a.txt": b"hello", "package/b.bin": bytes(1000)}),
        r"lacks package/a\.txt",
    ),
    "a link": (
        lambda toy: toy.tar({"package/b.bin": bytes(1000)}, extra=[link("package/a.txt")]),
        "0 bytes",
    ),
    "cut off": (lambda toy: toy.tar(toy.files)[:-30], "damaged|lacks"),
    "text": (lambda toy: b"not an archive at all", "damaged"),
    "no tar": (lambda toy: gzip.compress(b"x" * 2000), "damaged"),
    "nothing": (lambda toy: b"", "damaged"),
}


@pytest.mark.parametrize("make, words", OTHERS.values(), ids=OTHERS)
def test_other_contents_are_refused(make, words, tmp_path, toy):
    package = toy.package(toy.tar(toy.files))
    archive = tmp_path / package.file
    archive.write_bytes(make(toy))
    with pytest.raises(HubError, match=words):
        packages.members(package, archive)
    assert [p.name for p in tmp_path.iterdir()] == [package.file]  # nothing was written


def test_damaged_debian_packages(tmp_path, toy):
    archive = tmp_path / "toy.deb"
    good = toy.deb(toy.files)
    for content in (
        b"!<arch>\n",
        b"!<arch>\nshort",
        b"PK\3\4",
        toy.ar([("debian-binary", b"2.0\n")]),
        good[:-200],
        toy.ar([("data.tar.xz", b"x")]).replace(b"1         `", b"-9        `"),
        toy.ar([("data.tar.xz", b"x")]),
    ):
        archive.write_bytes(content)
        with pytest.raises(HubError):
            packages.members(toy.package(good, "deb"), archive)


# -- clients ----------------------------------------------------------------------------------


@pytest.fixture
def clients(monkeypatch):
    """Which clients the machine has, and what they do."""
    state = {"has": {"npm", "apt-get"}, "commands": [], "write": {}, "status": 0, "output": ""}

    def run(command, folder, tick=lambda: None):
        state["commands"].append(command)
        tick()
        for name, content in state["write"].items():
            (folder / name).write_bytes(content)
        return state["status"], state["output"]

    monkeypatch.setattr(packages, "run_command", run)
    monkeypatch.setattr(
        packages.shutil, "which", lambda name: f"/bin/{name}" if name in state["has"] else None
    )
    monkeypatch.delenv("npm_config_registry", raising=False)
    monkeypatch.delenv("NPM_CONFIG_REGISTRY", raising=False)
    return state


def test_npm(clients, tmp_path, toy):
    content = toy.tar(toy.files)
    clients["write"] = {"toy-1.0.tgz": content}
    archive = packages.fetch(toy.package(content), tmp_path)
    assert archive.read_bytes() == content
    (command,) = clients["commands"]
    assert command[:3] == ["/bin/npm", "pack", "toy@1.0"] and "--ignore-scripts" in command
    assert str(tmp_path) in command


def test_apt(clients, tmp_path, toy):
    clients["write"] = {"toy_1.0_all.deb": b"x"}
    assert packages.fetch(toy.package(b"x", "deb"), tmp_path).name == "toy_1.0_all.deb"
    assert clients["commands"] == [["apt-get", "download", "toy"]]


def test_what_to_do_when_it_fails(clients, tmp_path, toy):
    clients |= {"status": 100, "output": "line\n\nE: Unable to locate package toy\n"}
    with pytest.raises(HubError, match="status 100") as caught:
        packages.fetch(toy.package(b"x", "deb"), tmp_path)
    text = str(caught.value)
    for words in ("Unable to locate package toy", "apt-get download toy", "toy_1.0_all.deb"):
        assert words in text
    assert "apt-get update" in text and "folder=FOLDER" in text
    assert len(text.splitlines()) <= 12
    clients["status"] = 0
    with pytest.raises(HubError, match=r"0 files that end in \.deb came"):
        packages.fetch(toy.package(b"x", "deb"), tmp_path)


def test_without_clients(clients, tmp_path, monkeypatch, toy):
    clients["has"] = set()
    monkeypatch.setattr(packages.Path, "home", lambda: tmp_path / "nobody")
    with pytest.raises(HubError, match="no apt-get"):
        packages.fetch(toy.package(b"x", "deb"), tmp_path)
    with pytest.raises(HubError, match="npm is not installed") as caught:
        packages.fetch(toy.package(b"x"), tmp_path)
    assert "npm pack toy@1.0" in str(caught.value) and "toy-1.0.tgz" in str(caught.value)
    assert caught.value.package == "toy"


@pytest.fixture
def registry():
    """A registry on this machine: `answers` maps paths to bodies or to functions of the handler."""
    answers = {}

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            answer = answers.get(self.path)
            if answer is None:
                self.send_error(404)
            elif callable(answer):
                answer(self)
            else:
                self.send_response(200)
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", answers
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize("how", ["environment", "file"])
def test_npm_without_npm(clients, tmp_path, monkeypatch, registry, how, toy):
    address, answers = registry
    clients["has"] = set()
    content = toy.tar(toy.files)
    answers["/toy/-/toy-1.0.tgz"] = content
    answers["/@org/toy/-/toy-1.0.tgz"] = content
    monkeypatch.setattr(packages.Path, "home", lambda: tmp_path)
    if how == "environment":
        monkeypatch.setenv("npm_config_registry", address + "/")
    else:
        (tmp_path / ".npmrc").write_text(f"; mine\nfund=false\nregistry = {address}/\n")
    package = toy.package(content)
    assert packages.fetch(package, tmp_path).read_bytes() == content
    assert packages.fetch(replace(package, name="@org/toy"), tmp_path).read_bytes() == content
    with pytest.raises(HubError, match="HTTP 404"):
        packages.fetch(replace(package, version="2.0"), tmp_path)
    answers["/toy/-/toy-1.0.tgz"] = content + b"x"
    with pytest.raises(HubError, match=r"more than the .* bytes expected"):
        packages.fetch(package, tmp_path)


def test_a_registry_that_is_not_there(clients, tmp_path, monkeypatch, toy):
    clients["has"] = set()
    monkeypatch.setenv("npm_config_registry", "http://127.0.0.1:9")
    with pytest.raises(HubError, match="could not be read"):
        packages.fetch(toy.package(b"x"), tmp_path)
    monkeypatch.setenv("npm_config_registry", "http://registry.example")
    with pytest.raises(HubError, match="https://"):
        packages.fetch(toy.package(b"x"), tmp_path)


def test_running_a_program(tmp_path, monkeypatch):
    import sys

    ticks = []
    code = "import time; print('ä', flush=True); time.sleep(0.12); raise SystemExit(3)"
    status, output = packages.run_command(
        [sys.executable, "-X", "utf8", "-c", code], tmp_path, lambda: ticks.append(1)
    )
    assert status == 3 and output.strip() == "ä" and ticks
    monkeypatch.setattr(packages, "_DEADLINE", 0.0)
    with pytest.raises(HubError, match="minutes"):
        packages.run_command([sys.executable, "-c", "import time; time.sleep(60)"], tmp_path)
