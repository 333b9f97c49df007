"""A hub on loopback: the endpoints that `huggingface_hub` uses to fetch a repository."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub:
    """Repositories by id (`org/name` -> folder), and the log of requests."""

    def __init__(self, repositories: dict[str, Path], gated: set[str] | None = None) -> None:
        self.repositories = repositories
        self.gated = gated or set()
        self.requests: list[str] = []
        self.url = ""


@contextmanager
def serving(hub: Hub) -> Iterator[Hub]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def do_HEAD(self) -> None:
            self._answer(body=False)

        def do_GET(self) -> None:
            self._answer(body=True)

        def _answer(self, body: bool) -> None:
            hub.requests.append(f"{self.command} {self.path}")
            path = self.path.partition("?")[0].strip("/")
            for repo, folder in hub.repositories.items():
                if repo in hub.gated and repo in path:
                    self._send(403, b"gated", {"X-Error-Code": "GatedRepo"}, body)
                    return
                if path == f"api/models/{repo}" or path.startswith(f"api/models/{repo}/revision/"):
                    self._send(200, json.dumps(self._info(repo, folder)).encode(), {}, body)
                    return
                for revision in ("main", COMMIT):
                    start = f"{repo}/resolve/{revision}/"
                    if path.startswith(start) and (folder / path[len(start) :]).is_file():
                        content = (folder / path[len(start) :]).read_bytes()
                        digest = hashlib.sha256(content).hexdigest()
                        headers = {"ETag": f'"{digest}"', "X-Repo-Commit": COMMIT}
                        self._send(200, content, headers, body)
                        return
            self._send(404, b"none", {"X-Error-Code": "RepoNotFound"}, body)

        def _info(self, repo: str, folder: Path) -> dict[str, object]:
            files = [p for p in sorted(folder.rglob("*")) if p.is_file()]
            return {
                "id": repo,
                "modelId": repo,
                "sha": COMMIT,
                "siblings": [
                    {"rfilename": p.relative_to(folder).as_posix(), "size": p.stat().st_size}
                    for p in files
                ],
            }

        def _send(self, code: int, content: bytes, headers: dict[str, str], body: bool) -> None:
            self.send_response(code)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if body:
                self.wfile.write(content)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
