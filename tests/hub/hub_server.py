"""A hub on loopback: what `huggingface_hub` asks of one to fetch a repository, and every fault.

Two origins, as in reality: the hub answers for its interface and for small files, and redirects
to a storage server for large ones. Both write one log of requests.
"""

from __future__ import annotations

import hashlib
import json
import re
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np

from bestiary.core.weights import save_file

COMMIT = "0123456789abcdef0123456789abcdef01234567"
LARGE = (".safetensors", ".bin", ".pth", ".pt", ".gguf")  # kept in the storage server
_BLOCK = 1 << 16


def write_repository(folder: Path, size: int) -> Path:
    """A repository with a configuration and weights of so many bytes."""
    (folder / "config.json").write_text('{"model_type": "resnet"}')
    values = np.random.default_rng(0).integers(0, 255, size, np.uint8)
    save_file({"weight": values}, folder / "model.safetensors")
    return folder


@dataclass
class Request:
    """One line of the log."""

    where: str  # "hub" or "storage"
    method: str
    path: str
    headers: dict[str, str]
    status: int = 0
    sent: int = 0  # bytes of the body that were handed to the network

    def __str__(self) -> str:
        return f"{self.method} {self.path}"

    @property
    def range(self) -> int:
        """Where the body was asked to begin."""
        found = re.fullmatch(r"bytes=(\d+)-", self.headers.get("range", ""))
        return int(found[1]) if found else 0


@dataclass
class Fault:
    """What goes wrong with a request, `times` times.

    Attributes:
        match: a regular expression that the path fits.
        at: the byte of the whole file before which it happens.
        status, headers, body: an answer in place of the right one.
        close: "silent" ends the connection without an answer, "reset" breaks it.
        cut: the body ends at `at`, though more was announced.
        pause: seconds to wait at `at`; with `step`, before every `step` bytes from there.
        flip: the byte at `at` is sent wrong.
        call: run at `at`.
        no_range: the whole file is sent whatever was asked for.
        before: seconds to wait before the answer.
    """

    match: str
    times: int = 1
    where: str = "any"
    at: int = 0
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    close: str = ""
    cut: bool = False
    pause: float = 0.0
    step: int = 0
    flip: bool = False
    call: Callable[[], None] | None = None
    no_range: bool = False
    before: float = 0.0
    extra: bytes = b""
    range_offset: int = 0


class Hub:
    """Repositories by id (`org/name` -> folder), faults, and the log of requests."""

    def __init__(self, repositories: dict[str, Path], gated: set[str] | None = None) -> None:
        self.repositories = repositories
        self.revisions: dict[str, dict[str, tuple[str, Path]]] = {}  # repo -> name -> commit, files
        self.gated = gated or set()
        self.listed: dict[str, Any] = {}  # changes of the answer of the interface
        self.hashes = True  # whether files are listed with their hashes
        self.faults: list[Fault] = []
        self.log: list[Request] = []
        self.url = ""
        self.storage = ""
        self.lock = threading.Lock()
        self._digests: dict[Path, tuple[str, str]] = {}

    @property
    def requests(self) -> list[str]:
        """The log as text."""
        return [str(r) for r in self.log]

    def bodies(self, name: str = "") -> list[Request]:
        """Requests that carried (a part of) a file's content."""
        found = []
        for r in self.log:
            content = r.where == "storage" or ("/resolve/" in r.path and r.status in (200, 206))
            if content and r.method == "GET" and r.path.partition("?")[0].endswith(name):
                found.append(r)
        return found

    def forget(self) -> None:
        """Empty the log."""
        self.log.clear()

    # -- what there is --------------------------------------------------------------------------

    def at(self, repo: str, revision: str) -> tuple[str, Path] | None:
        """The commit and the files of a revision."""
        known = self.revisions.get(repo, {})
        if revision in known:
            return known[revision]
        for commit, folder in known.values():
            if commit == revision:
                return commit, folder
        if revision in ("main", COMMIT) and repo in self.repositories:
            return COMMIT, self.repositories[repo]
        return None

    def digests(self, path: Path) -> tuple[str, str]:
        """The name of a file's content for git, and its sha256."""
        if path not in self._digests:
            content = path.read_bytes()
            git = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
            self._digests[path] = git, hashlib.sha256(content).hexdigest()
        return self._digests[path]

    def info(self, repo: str, commit: str, folder: Path) -> dict[str, Any]:
        """The answer of the interface."""
        siblings = []
        for path in sorted(p for p in folder.rglob("*") if p.is_file()):
            sibling: dict[str, Any] = {"rfilename": path.relative_to(folder).as_posix()}
            if self.hashes:
                git, sha256 = self.digests(path)
                size = path.stat().st_size
                sibling.update(size=size, blobId=git)
                if path.name.endswith(LARGE):
                    sibling["lfs"] = {"sha256": sha256, "size": size, "pointerSize": 130}
            siblings.append(sibling)
        return {"id": repo, "modelId": repo, "sha": commit, "siblings": siblings, **self.listed}

    def fault(self, where: str, path: str) -> Fault | None:
        """The fault that this request meets, used up."""
        with self.lock:
            for fault in self.faults:
                fits = fault.where in ("any", where) and re.search(fault.match, path)
                if fits and fault.times > 0:
                    fault.times -= 1
                    return fault
        return None


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub
    where: str

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._respond()

    def do_GET(self) -> None:
        self._respond()

    def _respond(self) -> None:
        headers = {k.lower(): v for k, v in self.headers.items()}
        self.request_log = Request(self.where, self.command, self.path, headers)
        with self.hub.lock:
            self.hub.log.append(self.request_log)
        fault = self.hub.fault(self.where, unquote(self.path))
        try:
            if fault is not None and fault.before:
                time.sleep(fault.before)
            if fault is not None and fault.close:
                self._break(reset=fault.close == "reset")
            elif fault is not None and fault.status:
                self._send(fault.status, fault.body, fault.headers)
            else:
                self._answer(unquote(self.path.partition("?")[0]).strip("/"), fault)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    def _break(self, reset: bool) -> None:
        if reset:
            linger = struct.pack("ii", 1, 0)
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        else:
            self.connection.shutdown(socket.SHUT_RDWR)
        self.connection.close()
        self.close_connection = True

    def _answer(self, path: str, fault: Fault | None) -> None:
        hub = self.hub
        if self.where == "storage":
            self._file(Path("/" + path), {}, fault)
            return
        for repo in {*hub.repositories, *hub.revisions}:
            interface, files = f"api/models/{repo}", f"{repo}/resolve/"
            if not path.startswith((interface, files)):
                continue
            if repo in hub.gated and self.headers.get("authorization") != "Bearer hf_right":
                self._send(403, b"gated", {"X-Error-Code": "GatedRepo"})
                return
            rest = path.removeprefix(interface).removeprefix(files).strip("/")
            found, name = self._revision(repo, rest.removeprefix("revision/"))
            if found is None:
                self._send(404, b"none", {"X-Error-Code": "RevisionNotFound"})
            elif path.startswith(interface):
                self._send(200, json.dumps(hub.info(repo, *found)).encode(), {})
            elif not (found[1] / name).is_file():
                self._send(404, b"", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": found[0]})
            else:
                self._resolve(found[1] / name, found[0], fault)
            return
        self._send(404, b"none", {"X-Error-Code": "RepoNotFound"})

    def _revision(self, repo: str, rest: str) -> tuple[tuple[str, Path] | None, str]:
        """The revision that a path begins with, and the file behind it."""
        for name in sorted({"main", COMMIT, *self.hub.revisions.get(repo, {})}, key=len)[::-1]:
            if rest == name or rest.startswith(f"{name}/") or (not rest and name == "main"):
                return self.hub.at(repo, name), rest[len(name) + 1 :]
        commit, _, name = rest.partition("/")
        return self.hub.at(repo, commit), name

    def _resolve(self, path: Path, commit: str, fault: Fault | None) -> None:
        git, sha256 = self.hub.digests(path)
        headers = {"X-Repo-Commit": commit}
        if path.name.endswith(LARGE):
            headers |= {
                "X-Linked-ETag": f'"{sha256}"',
                "X-Linked-Size": str(path.stat().st_size),
                "Location": f"{self.hub.storage}{path}?Signature=verysecret",
            }
            self._send(302, b"", headers | (fault.headers if fault else {}))
            return
        self._file(path, headers | {"ETag": f'"{git}"'}, fault)

    def _file(self, path: Path, headers: dict[str, str], fault: Fault | None) -> None:
        if not path.is_file():
            self._send(404, b"", {})
            return
        content = path.read_bytes() + (fault.extra if fault else b"")
        start = 0 if fault is not None and fault.no_range else self.request_log.range
        headers = headers | {"Accept-Ranges": "bytes"} | (fault.headers if fault else {})
        if start >= len(content) > 0 and start:
            self._send(416, b"", {"Content-Range": f"bytes */{len(content)}"})
            return
        if start:
            shown = start + (fault.range_offset if fault else 0)
            headers["Content-Range"] = f"bytes {shown}-{len(content) - 1}/{len(content)}"
        self._send(206 if start else 200, content[start:], headers, start, fault)

    def _send(
        self,
        code: int,
        content: bytes,
        headers: dict[str, str],
        start: int = 0,
        fault: Fault | None = None,
    ) -> None:
        self.request_log.status = code
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name, value)
        if "Content-Length" not in headers:
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command == "HEAD":
            return
        position = 0
        while position < len(content):
            size = min(_BLOCK, len(content) - position)
            block = bytearray(content[position : position + size])
            if fault is not None:
                offset = fault.at - start - position
                if fault.step and offset <= 0:
                    time.sleep(fault.pause)
                    del block[fault.step :]
                elif 0 < offset < size:
                    del block[offset:]  # up to the byte first
                elif offset == 0:
                    if fault.pause:
                        time.sleep(fault.pause)
                    if fault.call is not None:
                        fault.call()
                    if fault.flip:
                        block[0] ^= 1
                    if fault.cut:
                        self._break(reset=False)
                        return
            self.wfile.write(block)
            self.request_log.sent += len(block)
            position += len(block)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, *_: object) -> None:
        """Clients that go away are what many of the tests are about."""


@contextmanager
def serving(hub: Hub) -> Iterator[Hub]:
    """The hub and its storage server, each at an address of its own."""
    servers = []
    for where in ("hub", "storage"):
        handler = type("Handler", (_Handler,), {"hub": hub, "where": where})
        server = _Server(("127.0.0.1", 0), handler)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        servers.append((server, thread))
    hub.url, hub.storage = (f"http://127.0.0.1:{s.server_address[1]}" for s, _ in servers)
    try:
        yield hub
    finally:
        for server, thread in servers:
            server.shutdown()
            server.server_close()
            thread.join()
