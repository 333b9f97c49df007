"""Requests to the hub: bounded in time, tried again with patience, the token bound to its origin.

They go through the client of `huggingface_hub`, so that proxies, certificates and a client
factory that the user has set up apply here too.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import quote, urljoin, urlsplit

from ..core.errors import HubError
from .cache import COMMIT, RemoteFile, check_repo, check_revision, told_file
from .problems import Refused, Unreachable, brief, status_error, without_query
from .settings import Settings

REDIRECTS = (301, 302, 303, 307, 308)
_HOPS = 8
_ANSWER_BYTES = 100_000_000  # the most that an answer of the interface is read
_RETRIED = (408, 425, 429, 500, 502, 503, 504)
_QUICK = 0.5  # seconds up to which a failure to connect was no matter of waiting
_PAUSE = 0.5  # seconds before the first retry; doubled each time
_LONGEST_PAUSE = 8.0
_DEFAULT_PORTS = {"http": 80, "https": 443}


def origin(url: str) -> tuple[str, str, int]:
    """Scheme, host and port of an address."""
    parts = urlsplit(url)
    port = parts.port or _DEFAULT_PORTS.get(parts.scheme, 0)
    return parts.scheme, (parts.hostname or "").lower(), port


class _Attempt:
    """One request, sent in a thread of its own: whatever hangs in it ends when its time is up.

    A name server can hang, and an answer's headers can come byte by byte, each in time. What
    comes too late is closed in that thread.
    """

    def __init__(self, client: Any, request: Any, host: str) -> None:
        self._client = client
        self._request = request
        self._host = host
        self._lock = threading.Lock()
        self._moved = threading.Event()  # connected, answered or failed
        self._ended = threading.Event()
        self._late = False
        self._traced = False
        self._result: Any = None
        self._error: BaseException | None = None
        request.extensions["trace"] = self._trace

    def _trace(self, event: str, _: Any) -> None:
        self._traced = True
        if event.startswith(("http11.", "http2.")) or event.endswith("connect_tcp.complete"):
            self._moved.set()

    def _run(self) -> None:
        try:
            answer = self._client.send(self._request, stream=True, follow_redirects=False)
        except BaseException as error:
            self._error = error
        else:
            with self._lock:
                if self._late:
                    answer.close()
                else:
                    self._result = answer
        self._ended.set()
        self._moved.set()

    def response(self, connect: float, answer: float) -> Any:
        """The response, its body unread.

        Raises:
            Unreachable: no connection within `connect` seconds, or no headers within `answer`
                more.
        """
        threading.Thread(target=self._run, name="bestiary-hub", daemon=True).start()
        try:
            # A transport that the user brought may tell nothing of its steps.
            connected = self._moved.wait(connect) or not self._traced
            if connected:
                self._ended.wait(answer)
        finally:
            with self._lock:
                self._late = True
        if self._result is not None:
            return self._result
        if self._error is not None:
            raise self._error
        if not connected:
            raise Unreachable(f"{self._host}: no connection within {connect:g} s", host=self._host)
        raise Unreachable(f"{self._host} did not answer within {answer:g} s", host=self._host)


class Patience:
    """How long something is tried again: for `deadline` seconds after the last progress.

    Before the first answer of all there is one retry, and only if the failure came quickly, so
    that a machine without a network learns it at once.
    """

    def __init__(self, settings: Settings) -> None:
        self._deadline = settings.deadline
        self._enough = settings.deadline * settings.minimum_rate
        self._arrived = 0
        self._since = time.monotonic()
        self._tries = 0
        self.contact = False

    def progressed(self, amount: int) -> None:
        """So many bytes arrived: when there are enough of them, the clock starts anew."""
        self._arrived += amount
        if self._arrived >= self._enough:
            self._arrived, self._since, self._tries = 0, time.monotonic(), 0

    def wait(self, error: HubError, asked: float | None = None) -> None:
        """Wait before the next try.

        Args:
            error: why there must be one; raised when patience has ended.
            asked: seconds that the server asked to wait.
        """
        if not self.contact and (self._tries or time.monotonic() - self._since > _QUICK):
            raise error
        pause = min(_PAUSE * 2.0**self._tries, _LONGEST_PAUSE) if asked is None else asked
        self._tries += 1
        left = self._since + self._deadline - time.monotonic()
        if pause > left:
            spent = f"{self._deadline:g} s"
            why = f"It asked to wait {asked:,.0f} s." if asked else f"Tried for {spent}."
            raise type(error)(f"{error.message}\n{why}", **error.facts) from error
        time.sleep(pause)


def retry_after(value: str | None) -> float | None:
    """The seconds of a Retry-After header, which holds a number or a date; None for garbage."""
    if value is None:
        return None
    text = value.strip()
    if text.isascii() and text.isdigit() and len(text) < 10:
        return float(text)
    try:
        when = parsedate_to_datetime(text)
        return max(0.0, when.timestamp() - time.time())
    except (ValueError, TypeError, OverflowError, OSError):
        return None


@dataclass
class Answer:
    """An open response, and the hub's own one that led to it, if it came from a storage server."""

    response: Any
    hub: Any
    status: int
    url: str

    @property
    def headers(self) -> Mapping[str, str]:
        """What the hub itself said; a storage server has no say in hashes and sizes."""
        return {} if self.hub is None else self.hub.headers

    def close(self) -> None:
        self.response.close()


class Web:
    """The hub at the endpoint of the settings."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._origin = origin(settings.endpoint)
        self._token: str | bool | None = settings.token
        self.has_token = False

    # -- one request ----------------------------------------------------------------------------

    def headers_for(self, url: str) -> dict[str, str]:
        """What is sent to an address: the token only where scheme, host and port are its own."""
        from .. import __version__

        headers = {
            "user-agent": f"bestiary/{__version__}",
            # A compressed body could be neither resumed nor compared with its announced size.
            "accept-encoding": "identity",
        }
        if origin(url) == self._origin:
            headers["x-hf-download-counter"] = "1"
            token = self._known_token()
            if token:
                headers["authorization"] = f"Bearer {token}"
        return headers

    def _known_token(self) -> str | None:
        if self._token is None or self._token is True:
            from huggingface_hub import get_token

            self._token = get_token() or False
        self.has_token = bool(self._token)
        return self._token if isinstance(self._token, str) else None

    def open(
        self, url: str, extra: Mapping[str, str] | None = None, *, stay: bool = False
    ) -> Answer:
        """GET an address, following redirects; the body is left to be read.

        Args:
            stay: follow none that leave the hub; the answer is then such a redirect.

        Raises:
            Unreachable: no connection, or no answer in time.
        """
        client, httpx = self.client()
        timeout = httpx.Timeout(self.settings.timeout, connect=self.settings.connect)
        hub = None
        for _ in range(_HOPS):
            host = urlsplit(url).netloc

            headers = {**self.headers_for(url), **(extra or {})}
            try:
                request = client.build_request("GET", url, headers=headers, timeout=timeout)
                attempt = _Attempt(client, request, host)
                response = attempt.response(self.settings.connect, self.settings.timeout)
            except (httpx.HTTPError, httpx.InvalidURL) as error:
                raise Unreachable(f"{host}: {brief(error)}", host=host) from None
            except (OSError, ValueError) as error:
                if isinstance(error, HubError):
                    raise
                raise Unreachable(f"{host}: {brief(error)}", host=host) from None
            if origin(url) == self._origin:
                hub = response
            target = response.headers.get("location")
            if response.status_code in REDIRECTS and target:
                new = self._redirected(url, target)
                if not stay or origin(new) == self._origin:
                    response.close()
                    url = new
                    continue
            return Answer(response, hub, response.status_code, url)
        raise Refused(f"{without_query(url)} redirects without an end")

    def _redirected(self, url: str, target: str) -> str:
        try:
            new = urljoin(url, target)
            scheme = origin(new)[0]
        except ValueError:
            scheme = ""
        if scheme not in ("http", "https") or (origin(url)[0] == "https" and scheme != "https"):
            raise Refused(
                f"{without_query(url)} redirects to an address that is not followed: "
                f"{without_query(target)[:100]!r}"
            )
        return new

    def client(self) -> tuple[Any, Any]:
        from huggingface_hub import constants
        from huggingface_hub.utils import _http

        # Its major versions are built on different ones.
        httpx = vars(_http).get("httpx2") or vars(_http)["httpx"]
        # Decided at its import; here it is what the settings say at this moment.
        constants.HF_HUB_OFFLINE = self.settings.offline
        return _http.get_session(), httpx

    # -- the interface ----------------------------------------------------------------------------

    def listing(self, repo: str, revision: str | None) -> tuple[str, dict[str, RemoteFile]]:
        """The commit of a revision, and every file of the repository at it.

        Raises:
            HubError: no such repository or revision, no permission, or an answer that makes no
                sense.
            Unreachable: no connection.
        """
        check_repo(repo)
        url = f"{self.settings.endpoint}/api/models/{repo}"
        if revision is not None:
            url += f"/revision/{quote(check_revision(revision), safe='')}"
        answer = self._json(f"{url}?blobs=true", repo, revision)
        commit = answer.get("sha")
        if not isinstance(commit, str) or not COMMIT.fullmatch(commit):
            raise Refused(f"{repo}: the hub answered with no commit: {str(commit)[:60]!r}")
        files: dict[str, RemoteFile] = {}
        siblings = answer.get("siblings")
        for sibling in siblings if isinstance(siblings, list) else []:
            name = sibling.get("rfilename") if isinstance(sibling, dict) else None
            if isinstance(name, str):
                files[name] = _file_of(sibling)
        return commit, files

    def _json(self, url: str, repo: str, revision: str | None) -> dict[str, Any]:
        patience = Patience(self.settings)
        while True:
            try:
                answer = self.open(url)
                patience.contact = True
                try:
                    if answer.status == 200:
                        return _object(self._body(answer), url)
                    error = status_error(answer, repo, revision, self.has_token)
                finally:
                    answer.close()
            except Unreachable as broken:
                patience.wait(broken)
                continue
            if answer.status not in _RETRIED:
                raise error
            patience.wait(error, retry_after(answer.response.headers.get("retry-after")))

    def _body(self, answer: Answer) -> bytes:
        """All of a small answer, in bounded time and space."""
        _, httpx = self.client()
        end = time.monotonic() + self.settings.stall
        content = bytearray()
        try:
            for chunk in answer.response.iter_bytes():
                content += chunk
                if len(content) > _ANSWER_BYTES or time.monotonic() > end:
                    raise Unreachable(f"{without_query(answer.url)} sends without an end")
        except httpx.HTTPError as error:
            raise Unreachable(f"{without_query(answer.url)}: {brief(error)}") from None
        return bytes(content)

    def file_url(self, repo: str, commit: str, name: str) -> str:
        """Where a file of a commit is served."""
        return f"{self.settings.endpoint}/{repo}/resolve/{commit}/{quote(name)}"


def is_retried(status: int) -> bool:
    """Whether an HTTP status says that the same request may succeed later."""
    return status in _RETRIED


def _file_of(sibling: dict[str, Any]) -> RemoteFile:
    large = sibling.get("lfs")
    large = large if isinstance(large, dict) else {}
    size = large.get("size", sibling.get("size"))
    digest = large.get("sha256") or large.get("oid") or sibling.get("blobId")
    return told_file(size, digest)


def _object(content: bytes, url: str) -> dict[str, Any]:
    try:
        value = json.loads(content)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        page = content.lstrip()[:15].lower().startswith((b"<!doctype", b"<html"))
        kind = "a web page (the login page of a network, a proxy?)" if page else "no JSON object"
        raise Refused(f"{without_query(url)} answered with {kind}, so it is no hub")
    return value
