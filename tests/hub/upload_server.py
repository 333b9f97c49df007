"""What `huggingface_hub` asks of a hub to publish a repository; writes what arrives to a folder."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

COMMIT = "89abcdef0123456789abcdef0123456789abcdef"


class Uploads:
    """Repositories that were made, the storage of large files, and the log of requests.

    Attributes:
        refuse: (part of a path, status, body) that is answered in place of the right answer.
    """

    def __init__(self, folder: Path, token: str = "hf_write") -> None:
        self.folder = folder
        self.token = token
        self.url = ""
        self.log: list[tuple[str, str, str | None]] = []  # method, path, authorization
        self.made: list[dict[str, Any]] = []
        self.commits: list[list[dict[str, Any]]] = []
        self.stored: dict[str, bytes] = {}
        self.refuse: tuple[str, int, bytes] | None = None


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Uploads

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        self._respond()

    def do_POST(self) -> None:
        self._respond()

    def do_PUT(self) -> None:
        self._respond()

    def _respond(self) -> None:
        body = self._body()
        path = self.path.partition("?")[0]
        allowed = self.headers.get("authorization")
        self.hub.log.append((self.command, self.path, allowed))
        if self.hub.refuse is not None and self.hub.refuse[0] in path:
            self._send(self.hub.refuse[1], self.hub.refuse[2])
        elif path.startswith("/storage/"):  # a signed address: no token comes along
            self.hub.stored[path.rpartition("/")[2]] = body
            self._send(200, b"")
        elif allowed != f"Bearer {self.hub.token}":
            self._send(401, b'{"error": "Invalid username or password."}')
        else:
            self._send(200, json.dumps(self._answer(path, body)).encode())

    def _body(self) -> bytes:
        if "chunked" not in self.headers.get("transfer-encoding", ""):
            return self.rfile.read(int(self.headers.get("content-length", 0)))
        parts = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _answer(self, path: str, body: bytes) -> Any:
        hub = self.hub
        if path == "/api/repos/create":
            made = json.loads(body)
            hub.made.append(made)
            repo = f"{made['organization']}/{made['name']}"
            return {"url": f"{hub.url}/{repo}", "name": repo, "id": repo}
        if path == "/api/validate-yaml":
            return {"errors": [], "warnings": []}
        if "/preupload/" in path:
            files = json.loads(body)["files"]
            return {
                "files": [
                    {
                        "path": f["path"],
                        "uploadMode": "lfs" if f["path"].endswith(".safetensors") else "regular",
                        "shouldIgnore": False,
                    }
                    for f in files
                ]
            }
        if path.endswith(".git/info/lfs/objects/batch"):
            objects = json.loads(body)["objects"]
            return {
                "transfer": "basic",
                "objects": [
                    {**o, "actions": {"upload": {"href": f"{hub.url}/storage/{o['oid']}"}}}
                    for o in objects
                ],
            }
        if "/commit/" in path:
            return self._commit(path, [json.loads(line) for line in body.splitlines()])
        if path == "/api/whoami-v2":
            return {"name": "zoo", "type": "user", "orgs": []}
        return {}

    def _commit(self, path: str, lines: list[dict[str, Any]]) -> dict[str, Any]:
        repo = path.removeprefix("/api/models/").partition("/commit/")[0]
        self.hub.commits.append(lines)
        for line in lines[1:]:
            value = line["value"]
            target = self.hub.folder / repo / value["path"]
            target.parent.mkdir(parents=True, exist_ok=True)
            if line["key"] == "file":
                target.write_bytes(base64.b64decode(value["content"]))
            else:
                content = self.hub.stored[value["oid"]]
                assert hashlib.sha256(content).hexdigest() == value["oid"]
                target.write_bytes(content)
        url = f"{self.hub.url}/{repo}"
        found = {"commitUrl": f"{url}/commit/{COMMIT}", "commitOid": COMMIT, "success": True}
        if "create_pr=1" in self.path:
            found["pullRequestUrl"] = f"{url}/discussions/1"
        return found

    def _send(self, status: int, content: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


@contextmanager
def receiving(hub: Uploads) -> Iterator[Uploads]:
    """The hub at an address on loopback."""
    handler = type("Handler", (_Handler,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
