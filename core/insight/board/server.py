"""The board's server: pages and JSON for one machine, refused to everybody else.

A page of another site can make a browser ask this server, under a name of its own that it lets
point here ("DNS rebinding"). So the names in `Host` and `Origin` must be ours, and beyond
loopback a token is needed too.
"""

from __future__ import annotations

import gzip
import hmac
import ipaddress
import json
import math
import secrets
import socket
import threading
from collections.abc import Iterable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from ...errors import BestiaryError, ConfigError
from .content import Board
from .page import HEADERS, KINDS, SCRIPTS, STYLE, asset, page

_TIMEOUT = 30.0  # seconds that a connection may be silent
_CONNECTIONS = 64
_LONGEST_QUERY = 4096
_PACKED = 2048  # bytes from which on an answer is packed


class Refused(Exception):
    """An answer other than what was asked for."""

    def __init__(self, status: HTTPStatus, why: str) -> None:
        super().__init__(why)
        self.status = status


class BoardServer(ThreadingHTTPServer):
    """Serves a board until it is closed.

    Args:
        host: address to listen on. Anything but loopback needs a token, which is made.
        port: 0 for any that is free.
        names: further names under which the page may be asked for.
    Raises:
        ConfigError: nothing can listen there.
    """

    daemon_threads = True
    allow_reuse_address = True

    def __init__(
        self,
        board: Board,
        host: str = "127.0.0.1",
        port: int = 6010,
        *,
        names: Iterable[str] = (),
        token: str | None = None,
    ) -> None:
        self.board = board
        self.names = {name.lower().strip("[]") for name in names}
        self.places = threading.BoundedSemaphore(_CONNECTIONS)
        try:
            self.address_family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
            super().__init__((host, port), _Handler)
        except (OSError, OverflowError) as error:
            raise ConfigError(
                f"the board cannot listen on {host}, port {port}: {error}\n"
                "Is another board running? Any free port: --port 0",
                host=host,
                port=port,
            ) from None
        self.port = int(self.server_address[1])
        self.wide = not _is_loopback(str(self.server_address[0]))
        self.token = token or (secrets.token_urlsafe(32) if self.wide else None)
        if not self.wide:
            self.names |= {"localhost", "127.0.0.1", "::1"}
        else:
            self.names |= {socket.gethostname().lower(), host.lower()}

    @property
    def url(self) -> str:
        """Where the page is, with the token where one is needed."""
        host = str(self.server_address[0])
        if host in ("0.0.0.0", "::"):
            host = socket.gethostname()
        host = f"[{host}]" if ":" in host else host
        return f"http://{host}:{self.port}/" + (f"?token={self.token}" if self.token else "")

    def server_bind(self) -> None:
        """Without the base class's look-up of this machine's name, which may take seconds."""
        if self.allow_reuse_address:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()

    def process_request(self, request: Any, client_address: Any) -> None:
        """One thread for each connection, of which there are not too many."""
        if not self.places.acquire(blocking=False):
            self.shutdown_request(request)
            return
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self.places.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away is no news."""


class _Handler(BaseHTTPRequestHandler):
    server: BoardServer
    protocol_version = "HTTP/1.1"
    server_version = "bestiary"
    sys_version = ""
    timeout = _TIMEOUT

    def do_GET(self) -> None:
        try:
            parts = urlsplit(self.path)
            self._admit()
            query = _query(parts.query)
            if self._token_given(query, parts.path):
                return
            self._answer(parts.path, query)
        except Refused as refused:
            self._send_json({"error": str(refused)}, refused.status)
        except BestiaryError as error:
            self._send_json({"error": str(error)}, HTTPStatus.NOT_FOUND)
        except (ValueError, RecursionError) as error:
            self._send_json({"error": f"not understood: {error}"}, HTTPStatus.BAD_REQUEST)

    do_HEAD = do_GET

    # -- who may ask -----------------------------------------------------------------------

    def _admit(self) -> None:
        hosts = self.headers.get_all("Host") or []
        if len(hosts) != 1 or not self._is_ours(hosts[0]):
            raise Refused(HTTPStatus.FORBIDDEN, "this name is not one of the board's: see --name")
        origin = self.headers.get("Origin")
        if origin is not None:
            scheme, _, rest = origin.partition("://")
            if scheme != "http" or rest != hosts[0]:
                raise Refused(HTTPStatus.FORBIDDEN, "pages of other sites may not ask the board")
        if self.headers.get("Sec-Fetch-Site") == "cross-site" and (
            self.headers.get("Sec-Fetch-Mode") != "navigate"
        ):
            raise Refused(HTTPStatus.FORBIDDEN, "pages of other sites may not ask the board")

    def _is_ours(self, host: str) -> bool:
        try:
            parts = urlsplit(f"//{host}")
            name, port = parts.hostname, parts.port
        except ValueError:
            return False
        if name is None or parts.username is not None or parts.path or parts.query:
            return False
        # The address that the client connected to cannot be another site's name.
        here = str(self.connection.getsockname()[0]).removeprefix("::ffff:")
        return (name in self.server.names or name == here) and (port or 80) == self.server.port

    def _token_given(self, query: dict[str, str], path: str) -> bool:
        """Check the token; whether the answer was sent, to put it into a cookie."""
        token = self.server.token
        if token is None:
            return False
        given = query.pop("token", None)
        if given is not None and _same(given, token) and path == "/":
            self.send_response(HTTPStatus.SEE_OTHER)
            cookie = f"{self._cookie}={token}; HttpOnly; SameSite=Strict; Path=/"
            self._end(b"", {"Location": "/", "Set-Cookie": cookie})
            return True
        bearer = (self.headers.get("Authorization") or "").partition("Bearer ")[2]
        candidates = [given or "", bearer, self._cookie_value()]
        if not any(_same(candidate, token) for candidate in candidates):
            raise Refused(
                HTTPStatus.UNAUTHORIZED, "a token is needed: open the address that was printed"
            )
        return False

    @property
    def _cookie(self) -> str:
        return f"bestiary_board_{self.server.port}"

    def _cookie_value(self) -> str:
        for part in (self.headers.get("Cookie") or "").split(";"):
            name, _, value = part.strip().partition("=")
            if name == self._cookie:
                return value
        return ""

    # -- what is answered ------------------------------------------------------------------

    def _answer(self, path: str, query: dict[str, str]) -> None:
        board = self.server.board
        if path == "/":
            self._send(page().encode(), "text/html; charset=utf-8")
            return
        name = path.removeprefix("/assets/")
        if path.startswith("/assets/") and name in (*SCRIPTS, STYLE):
            self._send(asset(name).encode(), KINDS[name[name.rindex(".") :]])
            return
        match path:
            case "/api/runs":
                found: Any = board.overview(_whole(query, "since", -1))
            case "/api/scalars":
                found = board.scalars(
                    _whole(query, "tag"),
                    _wholes(query.get("runs")),
                    since=_whole(query, "since", -1),
                    width=_whole(query, "width", 600),
                    axis=query.get("axis", "step"),
                    log=query.get("log") == "1",
                    low=_real(query, "low"),
                    high=_real(query, "high"),
                    smooth=_real(query, "smooth") or 0.0,
                )
            case "/api/histograms":
                found = board.histograms(_whole(query, "run"), _whole(query, "tag"))
            case "/api/images":
                found = board.images(_whole(query, "run"), _whole(query, "tag"))
            case "/api/confusions":
                found = board.confusions(_whole(query, "run"), _whole(query, "tag"))
            case "/api/texts":
                found = board.texts(_whole(query, "run"), _whole(query, "tag"))
            case "/api/details":
                found = board.details(_whole(query, "run"))
            case "/api/image":
                places = (_whole(query, "run"), _whole(query, "tag"), _whole(query, "place"))
                kind, data = board.image(*places)
                self._send(data, kind)
                return
            case _:
                raise Refused(HTTPStatus.NOT_FOUND, "there is no such page")
        self._send_json(found)

    def _send_json(self, value: Any, status: HTTPStatus = HTTPStatus.OK) -> None:
        data = json.dumps(value, separators=(",", ":"), allow_nan=False).encode()
        self._send(data, "application/json", status)

    def _send(self, data: bytes, kind: str, status: HTTPStatus = HTTPStatus.OK) -> None:
        headers = {"Content-Type": kind}
        packs = "gzip" in (self.headers.get("Accept-Encoding") or "")
        if packs and len(data) > _PACKED and not kind.startswith("image/"):
            data = gzip.compress(data, 1)
            headers["Content-Encoding"] = "gzip"
        self.send_response(status)
        self._end(data, headers)

    def _end(self, data: bytes, headers: dict[str, str]) -> None:
        for name, value in {**HEADERS, **headers}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        """Silent: lines of requests would bury what else the terminal shows."""


def _same(given: str, token: str) -> bool:
    return hmac.compare_digest(given.encode("utf-8", "replace"), token.encode())


def _is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address.partition("%")[0]).is_loopback
    except ValueError:
        return False


def _query(text: str) -> dict[str, str]:
    if len(text) > _LONGEST_QUERY:
        raise Refused(HTTPStatus.REQUEST_URI_TOO_LONG, "this question is too long")
    return dict(parse_qsl(text, keep_blank_values=True, max_num_fields=20))


def _whole(query: dict[str, str], name: str, default: int | None = None) -> int:
    text = query.get(name)
    if text is None:
        if default is None:
            raise ValueError(f"{name} is missing")
        return default
    digits = text.removeprefix("-")
    if not (digits.isascii() and digits.isdigit() and len(digits) <= 18):
        raise ValueError(f"{name} is a whole number")
    return int(text)


def _wholes(text: str | None) -> list[int] | None:
    if text is None:
        return None
    return [_whole({"runs": part}, "runs") for part in text.split(",") if part]


def _real(query: dict[str, str], name: str) -> float | None:
    text = query.get(name)
    if text is None:
        return None
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{name} is finite")
    return value
