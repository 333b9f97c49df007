"""Files of a repository, complete and checked, in the standard cache.

    snapshot = fetch("org/name", ["config.json", "model.safetensors"])
    snapshot.files["config.json"]

What is complete in the cache is used without any connection. Nothing that is fetched is ever
imported or run.
"""

from __future__ import annotations

import difflib
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..core.errors import HubError
from ..core.insight.progress import progress
from ..core.notice import HubWarning, warn_once
from .cache import COMMIT, Record, RemoteFile, Storage, check_name, repositories
from .problems import Unreachable, offline_error, out_of_reach
from .settings import Settings, current
from .transfer import FULL, Wanted, describe, disk_full, fetch_blob, free_bytes
from .web import Web

_BIG = 200_000_000  # bytes from which the size is shown before a download


@dataclass(frozen=True)
class Snapshot:
    """Files of a repository at one commit, as they lie in the cache.

    Attributes:
        folder: holds the files under their names, links to the cache's blobs.
        files: name -> path.
        records: name -> size, time and hash; of a file that other tools put there without
            telling its hash, there is none.
    """

    repo: str
    commit: str
    folder: Path
    files: dict[str, Path] = field(default_factory=dict)
    records: dict[str, Record] = field(default_factory=dict)


@dataclass(frozen=True)
class Verified:
    """What `verify` found of one file; `problem` is None if it is what it should be."""

    repo: str
    commit: str
    name: str
    path: Path
    size: int
    problem: str | None


def cached(
    repo: str,
    revision: str | None = None,
    *,
    filenames: Sequence[str] | None = None,
    variant: str | None = None,
    verify: bool | None = None,
) -> Snapshot | None:
    """What is needed of a repository, if all of it is on this machine; opens no connection.

    Args:
        revision: branch, tag or commit; of a branch, the commit that was fetched last.
        filenames: what is needed; else what a model needs: see `hub.choice`.
        variant: of the weights, such as "fp16".
        verify: hash every file again.

    Raises:
        WeightsError: an index of shards that is damaged or leads elsewhere.
    """
    storage = Storage(repo)
    commit = storage.commit_of(revision)
    if commit is None:
        return None
    if filenames is None:
        from .choice import wanted_here

        filenames = wanted_here(storage, commit, variant)
        if filenames is None:
            return None
    wrong = _wrong(storage, commit, filenames, _verify(verify))
    return None if wrong else _snapshot(storage, commit, filenames)


def fetch(
    repo: str,
    filenames: Sequence[str],
    *,
    revision: str | None = None,
    quiet: bool = False,
    refresh: bool = False,
    verify: bool | None = None,
) -> Snapshot:
    """The files of a repository; those that are missing or damaged are fetched.

    Args:
        revision: branch, tag, commit or `refs/pr/N`; "main" unless given.
        quiet: show neither progress nor size.
        refresh: ask the hub whether the branch has moved on; without it, what is complete in the
            cache is used as it is.
        verify: hash files of the cache again instead of comparing size and time.

    Raises:
        HubError: no such repository, revision or file, no permission, no connection, no room, or
            what came was damaged.
    """
    settings = current()
    storage = Storage(repo, settings.cache_dir)
    names = list(dict.fromkeys(check_name(name) for name in filenames))
    checks = _verify(verify)
    commit = storage.commit_of(revision)
    wrong = {} if commit is None else _wrong(storage, commit, names, checks)
    here = _snapshot(storage, commit, names) if commit is not None and not wrong else None
    if here is not None and (settings.offline or not refresh):
        return here
    if settings.offline:
        missing = [f"{name}: {problem}" for name, problem in wrong.items()] or names
        raise offline_error(repo, revision, settings, storage.folder, missing)
    known = None if refresh else commit
    web = Web(settings)
    try:
        try:
            commit = _fetched(web, storage, revision, known, names, quiet, checks)
        except HubError as error:
            # A commit that was fetched before may be gone; its branch has another one, then.
            if known is None or known == revision or error.facts.get("status") != 404:
                raise
            commit = _fetched(web, storage, revision, None, names, quiet, checks)
    except Unreachable as error:
        if here is None:
            raise out_of_reach(error, repo, _tried(storage, settings)) from None
        warn_once(
            f"hub out of reach: {repo}",
            f"the hub could not be asked about {repo}; its copy in the cache is used "
            f"({error.message})",
            HubWarning,
        )
        return here
    storage.keep_ref(revision, commit)
    return _snapshot(storage, commit, names)


def listing(
    repo: str, revision: str | None = None, *, refresh: bool = False
) -> tuple[str, dict[str, RemoteFile]]:
    """The commit of a revision and every file of the repository at it, by name.

    One that was asked for before is answered from the cache, unless `refresh`.

    Raises:
        HubError: see `fetch`.
    """
    settings = current()
    storage = Storage(repo, settings.cache_dir)
    commit = storage.commit_of(revision)
    known = storage.listing(commit) if commit is not None else None
    if commit is not None and known is not None and (settings.offline or not refresh):
        return commit, known
    if settings.offline:
        raise offline_error(repo, revision, settings, storage.folder, ["its list of files"])
    try:
        return _listing(Web(settings), storage, revision, None, ())
    except Unreachable as error:
        raise out_of_reach(error, repo, _tried(storage, settings)) from None


def verify(repo: str | None = None) -> list[Verified]:
    """Hash every file of the cache again, or those of one repository; opens no connection.

    A file of which only the link is there counts as missing. What is damaged is left where it
    is: the next load fetches it again.
    """
    found: list[Verified] = []
    for storage in repositories() if repo is None else (Storage(repo),):
        seen: dict[Path, str | None] = {}  # several commits link to one blob
        for commit in storage.commits():
            for name in storage.names(commit):
                path = storage.snapshot(commit) / name
                real = path.resolve()
                if real not in seen:
                    digest = storage.digest_of(commit, name)
                    seen[real] = storage.problem(path, digest, verify=True)
                size = path.stat().st_size if path.exists() else 0
                found.append(Verified(storage.repo, commit, name, path, size, seen[real]))
    return found


# -- steps -----------------------------------------------------------------------------------------


def _verify(asked: bool | None) -> bool:
    return current().verify if asked is None else asked


def _wrong(storage: Storage, commit: str, names: Iterable[str], verify: bool) -> dict[str, str]:
    """What is missing or damaged, in words."""
    found = {}
    for name in names:
        path = storage.snapshot(commit).joinpath(*check_name(name).split("/"))
        problem = storage.problem(path, storage.digest_of(commit, name), verify=verify)
        if problem is not None:
            found[name] = problem
    return found


def _snapshot(storage: Storage, commit: str, names: Iterable[str]) -> Snapshot:
    folder = storage.snapshot(commit)
    files = {name: folder.joinpath(*name.split("/")) for name in names}
    records = {}
    for name in files:
        digest = storage.digest_of(commit, name)
        record = storage.record(digest) if digest else None
        if record is not None:
            records[name] = record
    return Snapshot(storage.repo, commit, folder, files, records)


def _listing(
    web: Web, storage: Storage, revision: str | None, commit: str | None, names: Sequence[str]
) -> tuple[str, dict[str, RemoteFile]]:
    """What the hub lists; of a commit that is known, what it listed before.

    So the missing file of an older commit joins the others of that commit.
    """
    if commit is not None:
        known = storage.listing(commit)
        if known is not None and all(name in known for name in names):
            return commit, known
    commit, files = web.listing(storage.repo, revision)
    if revision is not None and COMMIT.fullmatch(revision) and commit != revision:
        raise HubError(
            f"{storage.repo}: asked for the commit {revision}, the hub answered with {commit}.",
            expected=revision,
            got=commit,
        )
    storage.keep_listing(commit, files)
    return commit, files


def _fetched(
    web: Web,
    storage: Storage,
    revision: str | None,
    commit: str | None,
    names: Sequence[str],
    quiet: bool,
    verify: bool,
) -> str:
    """Fetch what is missing of a commit, or of the one that the revision has now; gives it."""
    commit, files = _listing(web, storage, revision, commit, names)
    _require(storage.repo, names, files)
    wrong = _wrong(storage, commit, names, verify)
    plan = [describe(web, storage.repo, commit, name, files[name]) for name in wrong]
    _transfer(web, storage, plan, quiet, verify)
    return commit


def _tried(storage: Storage, settings: Settings) -> list[str]:
    return [f"the cache ({storage.folder})", settings.endpoint]


def _require(repo: str, names: Sequence[str], listing: dict[str, RemoteFile]) -> None:
    missing = [name for name in names if name not in listing]
    if not missing:
        return
    near = difflib.get_close_matches(missing[0], listing, n=3, cutoff=0.3)
    raise HubError(
        f"{repo} has no file {missing[0]!r}.\n"
        f"Nearest: {', '.join(near) or 'none'}; it has {len(listing)} files.",
        repo=repo,
        missing=missing,
        reason="file",
    )


def _transfer(web: Web, storage: Storage, plan: list[Wanted], quiet: bool, verify: bool) -> None:
    """Fetch what is planned, after a look at the disk."""
    blobs = {}  # by content: what another commit, or another name, has already is not fetched
    for wanted in plan:
        if storage.problem(storage.blob(wanted.digest), wanted.digest, verify=verify) is not None:
            blobs[wanted.digest] = wanted
    total = sum(wanted.size for wanted in blobs.values())
    if not quiet and total > _BIG:
        print(f"{storage.repo}: fetching {total / 1e6:,.0f} MB", file=sys.stderr, flush=True)
    here = sum(storage.arrived(digest) for digest in blobs)
    if total - here > free_bytes(storage.cache_dir):
        raise disk_full(storage.cache_dir, total - here, storage.repo)
    with progress(
        total=total,
        what=f"fetching {storage.repo}",
        unit="B",
        enabled=None if web.settings.bars and not quiet else False,
    ) as bar:
        try:
            for wanted in blobs.values():
                fetch_blob(web, storage, wanted, bar.update, verify=verify)
            for number, wanted in enumerate(plan):
                several = any(later.digest == wanted.digest for later in plan[number + 1 :])
                storage.link(wanted.commit, wanted.name, wanted.digest, several=several)
        except OSError as error:
            if error.errno in FULL:
                raise disk_full(storage.cache_dir, total, storage.repo) from None
            if isinstance(error, HubError):
                raise
            raise HubError(
                f"{storage.repo} cannot be written to the cache {storage.cache_dir}: {error}",
                path=str(storage.cache_dir),
                reason="cache",
            ) from error
