"""One file from the hub into the cache: resumed, watched, hashed as it arrives.

The parts of a file gather in `blobs/<hash>.incomplete`, a name that a later process finds again:
a download that was killed goes on where it stopped. It gets its final name only when its hash
is the announced one.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..core.errors import HubError
from ..core.paths import flush_folder
from .cache import RemoteFile, Storage, algorithm_of, new_hash
from .problems import Refused, Unreachable, brief, status_error
from .web import REDIRECTS, Answer, Patience, Web, is_retried, origin, retry_after
from .xet import by_xet, has_xet, usable_xet

_BLOCK = 1 << 20
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_BUSY = 600.0  # seconds after which another process that makes no progress is called stuck

Advance = Callable[[int], None]


@dataclass(frozen=True)
class Wanted:
    """A file to fetch; its hash names the blob."""

    repo: str
    commit: str
    name: str
    size: int
    digest: str


class _Stale(Exception):
    """What there is of the file cannot be continued, or what comes is too long for it."""


def describe(web: Web, repo: str, commit: str, name: str, told: RemoteFile) -> Wanted:
    """Size and hash of a file: as listed, else as the headers of the file itself say.

    Raises:
        Refused: neither tells, or the headers hold no hash.
    """
    size, digest = told.size, told.digest
    if size is None or digest is None:
        answer = _answered(web, repo, commit, web.file_url(repo, commit, name))
        answer.close()
        digest = digest or announced(answer, name)
        length = answer.headers.get("x-linked-size") or answer.response.headers.get(
            "content-length", ""
        )
        size = int(length) if size is None and length.isascii() and length.isdigit() else size
        if size is None:
            raise Refused(f"{repo}: the hub does not tell the size of {name}")
    return Wanted(repo, commit, name, size, digest)


def _answered(
    web: Web,
    repo: str,
    commit: str,
    url: str,
    done: int = 0,
    patience: Patience | None = None,
    *,
    stay: bool = False,
) -> Answer:
    """The answer that carries a file from byte `done` on, whatever number of tries it takes.

    Args:
        stay: the redirect that leads to it will do.

    Raises:
        HubError: a status that no retry changes, or patience has ended.
    """
    patience = patience or Patience(web.settings)
    while True:
        answer = web.open(url, {"range": f"bytes={done}-"} if done else None, stay=stay)
        patience.contact = True
        if answer.status in (200, 206) or (stay and answer.status in REDIRECTS):
            return answer
        error = status_error(answer, repo, commit, web.has_token)
        answer.close()
        if answer.status == 416:
            raise _Stale("the hub says that it is shorter than what there is of it")
        if not is_retried(answer.status) and origin(answer.url) == origin(url):
            raise error
        # A storage server that refuses gets a fresh signed address from the hub.
        patience.wait(error, retry_after(answer.response.headers.get("retry-after")))


def announced(answer: Answer, name: str) -> str:
    """The hash in the headers of a file, which are the hub's own and not those of its storage.

    Raises:
        Refused: there is none.
    """
    raw = answer.headers.get("x-linked-etag") or answer.headers.get("etag") or ""
    digest = raw.removeprefix("W/").strip('"')
    if algorithm_of(digest) is None:
        raise Refused(
            f"{name}: the hub names its content {raw[:60]!r}, which is no hash.\n"
            "Nothing was written. Is the endpoint a hub?",
            etag=raw[:300],
        )
    return digest


def fetch_blob(
    web: Web, storage: Storage, wanted: Wanted, advance: Advance, *, verify: bool = False
) -> None:
    """Fetch a file's content into the cache; a second process waits for the first.

    Args:
        advance: told of every byte that there is more (or, negative, less) of the file.
        verify: trust what lies there only after hashing it.

    Raises:
        HubError: it could not be had, or what came was wrong twice.
    """
    blob = storage.blob(wanted.digest)
    with _locked(storage, wanted):
        if blob.exists() and storage.problem(blob, wanted.digest, verify=verify) is None:
            advance(wanted.size)  # another process was faster, or another commit has it too
            return
        blob.unlink(missing_ok=True)
        part = storage.partial(wanted.digest)
        try:
            _checked(web, storage, wanted, part, advance)
        except OSError as error:
            if error.errno in FULL:
                part.unlink(missing_ok=True)
            raise
        storage.keep_record(blob, wanted.digest)


def disk_full(folder: Path, needed: int, what: str) -> HubError:
    """The error that names what is needed and what there is."""
    free = free_bytes(folder)
    return HubError(
        f"{what} needs {needed:,} bytes, and only {free:,} are free in {folder}.\n"
        "What was there before is untouched. Make room (bestiary cache list, bestiary cache "
        "remove), or choose another disk: bt.configure(cache_dir=...) or HF_HUB_CACHE.",
        needed=needed,
        free=free,
        path=str(folder),
        reason="disk",
    )


def free_bytes(folder: Path) -> int:
    """The free space where a folder is, or will be."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return shutil.disk_usage(folder).free


@contextlib.contextmanager
def _locked(storage: Storage, wanted: Wanted) -> Iterator[None]:
    """The lock of a blob. It ends with the process that holds it, however that ends."""
    from filelock import Timeout
    from huggingface_hub import utils

    exported: Any = utils
    path = storage.lock(wanted.digest)
    path.parent.mkdir(parents=True, exist_ok=True)
    storage.blob(wanted.digest).parent.mkdir(parents=True, exist_ok=True)
    seen, since = -1, time.monotonic()
    with contextlib.ExitStack() as stack:
        while True:
            try:
                stack.enter_context(exported.WeakFileLock(path, timeout=1.0))
                break
            except Timeout:
                size = _downloaded(storage, wanted)
            if size != seen:
                seen, since = size, time.monotonic()
            elif time.monotonic() - since > _BUSY:
                raise HubError(
                    f"another process has been fetching {wanted.name} of {wanted.repo} for "
                    f"{_BUSY:.0f} s without progress.\nIf there is none, remove {path}",
                    path=str(path),
                    reason="locked",
                )
        yield


def _downloaded(storage: Storage, wanted: Wanted) -> int:
    """Bytes that any process has of a file that is being fetched, for whoever waits."""
    folder, total = storage.blob(wanted.digest).parent, 0
    with contextlib.suppress(OSError):
        for entry in os.scandir(folder):
            if entry.name.startswith(wanted.digest):
                total += entry.stat().st_size
    return total


def _checked(web: Web, storage: Storage, wanted: Wanted, part: Path, advance: Advance) -> None:
    """Fetch until the content is right; what is wrong is fetched once more, and not by xet."""
    xet = web.settings.xet and has_xet()
    for last in (False, True):
        arriving = _Arriving(wanted, part, advance)
        with arriving:
            _receive(web, arriving, xet=xet and not last)
        got = arriving.digest.hexdigest()
        if got == wanted.digest:
            os.replace(part, storage.blob(wanted.digest))
            flush_folder(part.parent)
            return
        advance(-arriving.done)
        part.unlink(missing_ok=True)
    raise HubError(
        f"{wanted.repo}: {wanted.name} arrived twice with other contents than announced.\n"
        f"  expected {algorithm_of(wanted.digest)} {wanted.digest}\n  got {got}\n"
        "It was deleted. A proxy or mirror on the way changes it, or the hub's copy is damaged.",
        repo=wanted.repo,
        name=wanted.name,
        expected=wanted.digest,
        got=got,
        reason="damaged",
    )


class _Arriving:
    """A file of which there is a part: how much, and the hash of that much."""

    def __init__(self, wanted: Wanted, part: Path, advance: Advance) -> None:
        self.wanted = wanted
        self.part = part
        self.done = 0
        self.advance = advance

    def __enter__(self) -> None:
        # Unbuffered: what a killed process received is in the file.
        self._file = open(self.part, "ab", buffering=0)
        if self.part.stat().st_size > self.wanted.size:
            self._file.truncate(0)
        self.read()

    def __exit__(self, *_: object) -> None:
        with self._file:
            os.fsync(self._file.fileno())
        if not self.done and self.wanted.size:
            self.part.unlink(missing_ok=True)  # nothing came

    def read(self) -> None:
        """Take over, and hash, what is in the file."""
        self.digest = new_hash(algorithm_of(self.wanted.digest) or "", self.wanted.size)
        with open(self.part, "rb") as file:
            while block := file.read(_BLOCK):
                self.digest.update(block)
                self.done += len(block)
        self.advance(self.done)

    def write(self, chunk: bytes) -> None:
        """Add what arrived."""
        self._file.write(chunk)
        self.digest.update(chunk)
        self.done += len(chunk)
        self.advance(len(chunk))

    def restart(self) -> None:
        """Forget everything that arrived."""
        self._file.truncate(0)
        self.advance(-self.done)
        self.done = 0
        self.digest = new_hash(algorithm_of(self.wanted.digest) or "", self.wanted.size)

    def replace(self, complete: Path) -> None:
        """Take a file that was written by somebody else in the place of the part."""
        self._file.close()
        os.replace(complete, self.part)
        self._file = open(self.part, "ab", buffering=0)  # noqa: SIM115
        self.done = 0
        self.read()


def _receive(web: Web, arriving: _Arriving, *, xet: bool) -> None:
    """All of a file, over whatever number of connections."""
    wanted = arriving.wanted
    patience = Patience(web.settings)
    url = web.file_url(wanted.repo, wanted.commit, wanted.name)
    stale = 0
    # By its hash, so that a later process finds what a killed one left, and removes it.
    other = arriving.part.with_name(f"{wanted.digest}.xet.incomplete")
    other.unlink(missing_ok=True)
    while arriving.done < wanted.size:
        try:
            xet = xet and not arriving.done
            answer = _open(web, url, wanted, arriving.done, patience, stay=xet)
            with contextlib.closing(answer):
                if answer.status in REDIRECTS:
                    xet = False  # whatever becomes of it, there is no second time
                    usable = usable_xet(web, answer)
                    if usable and by_xet(web, answer, other, wanted.size, arriving.advance):
                        arriving.replace(other)
                    other.unlink(missing_ok=True)
                    continue
                if answer.status == 200 and arriving.done:
                    arriving.restart()  # a server that knows no ranges
                for chunk in _body(web, answer, wanted, arriving.done):
                    arriving.write(chunk)
                    patience.progressed(len(chunk))
        except _Stale as error:
            arriving.restart()
            stale += 1
            refused = Refused(f"{wanted.repo}: {wanted.name}: {error}", reason="stale")
            if stale > 2:
                raise refused from None
            patience.wait(refused)
        except Unreachable as error:
            patience.wait(error)


def _open(
    web: Web, url: str, wanted: Wanted, done: int, patience: Patience, *, stay: bool
) -> Answer:
    """The answer that carries the rest of a file; see `_answered`.

    Raises:
        Refused: the hub announces other contents than it listed.
    """
    answer = _answered(web, wanted.repo, wanted.commit, url, done, patience, stay=stay)
    try:
        told = announced(answer, wanted.name)
        if told != wanted.digest:
            raise Refused(
                f"{wanted.name}: the hub lists it as {wanted.digest} and sends {told}.\n"
                "Nothing of it was kept.",
                expected=wanted.digest,
                got=told,
            )
        if answer.status == 206 and _start(answer) != done:
            raise _Stale("the hub answered with another part than was asked for")
    except BaseException:
        answer.close()
        raise
    return answer


def _start(answer: Answer) -> int:
    """Where the part of a file begins that a 206 answer carries; -1 if it does not say."""
    unit, _, rest = answer.response.headers.get("content-range", "").partition(" ")
    first = rest.partition("-")[0]
    return int(first) if unit == "bytes" and first.isascii() and first.isdigit() else -1


def _body(web: Web, answer: Answer, wanted: Wanted, done: int) -> Any:
    """The chunks of an answer, as they come, as long as they come fast enough.

    Raises:
        Unreachable: the connection broke, or brings too little.
        _Stale: the answer is longer than the file.
    """
    _, httpx = web.client()
    settings = web.settings
    window, received = time.monotonic(), 0
    try:
        for chunk in answer.response.iter_bytes():
            done += len(chunk)
            if done > wanted.size:
                raise _Stale(f"more than the announced {wanted.size:,} bytes came")
            yield chunk
            if done == wanted.size:
                return  # whatever a server does with the connection afterwards
            received += len(chunk)
            elapsed = time.monotonic() - window
            if elapsed >= settings.stall:
                if received < settings.minimum_rate * elapsed:
                    raise Unreachable(
                        f"{wanted.name} came at {received / elapsed:,.0f} bytes per second",
                        reason="stalled",
                    )
                window, received = time.monotonic(), 0
    except httpx.HTTPError as error:
        raise Unreachable(f"{wanted.name}: {brief(error)}", reason="broken") from None
    if done < wanted.size:
        raise Unreachable(
            f"{wanted.name}: the connection ended after {done:,} of {wanted.size:,} bytes",
            reason="broken",
        )
