"""The hub source: what a model needs of a Hugging Face repository."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..core.errors import HubError
from ..core.notice import HubWarning, warn_once
from .cache import RemoteFile, Storage
from .choice import Choice, choose, shards, wanted_here
from .download import Snapshot, cached, fetch, listing
from .settings import current


def snapshot(
    repo: str,
    revision: str | None = None,
    *,
    variant: str | None = None,
    pull_request: int | None = None,
    quiet: bool = False,
    refresh: bool = False,
    verify: bool | None = None,
) -> Snapshot:
    """Configuration, one set of weights, tokenizer and the like of a repository.

    A complete copy in the cache is used without any connection.

    Args:
        revision: branch, tag, commit or `refs/pr/N`.
        variant: of the weights, such as "fp16".
        pull_request: the number of one that adds safetensors, taken before a torch checkpoint.
        refresh: ask the hub whether the branch has moved on.

    Raises:
        HubError: no such repository or revision, no permission, no connection, or no weights.
        WeightsError: an index of shards that is damaged or leads elsewhere.
    """
    revisions = [revision]
    if pull_request is not None and revision is None:
        revisions.append(f"refs/pr/{pull_request}")
    if not refresh:
        for name in revisions:
            found = cached(repo, name, variant=variant, verify=verify)
            if found is not None:
                return found
    try:
        commit, files = listing(repo, revision, refresh=refresh)
        chosen = choose(files, variant)
        if len(revisions) > 1 and (chosen is None or not chosen.safe):
            offered = _offered(repo, revisions[1], variant, refresh)
            if offered is not None:
                revision = revisions[1]
                commit, files, chosen = offered
        if chosen is None:
            raise HubError(
                f"{repo} holds no weights that can be read (safetensors, .bin, .pth or .pt).\n"
                f"It has: {', '.join(sorted(files)[:8])}",
                repo=repo,
            )
        names = chosen.core + chosen.side + chosen.also
        if chosen.indexes:
            small = fetch(repo, chosen.indexes, revision=commit, quiet=True, verify=verify)
            for index in chosen.indexes:
                names += shards(small.files[index].read_bytes(), index, files)
        result = fetch(repo, names, revision=commit, quiet=quiet, verify=verify)
    except HubError as error:
        if error.facts.get("reason") not in ("offline", "unreachable"):
            raise
        found = _least(repo, revisions, variant, verify)
        if found is None:
            raise
        if error.facts["reason"] == "unreachable":
            warn_once(
                f"hub out of reach: {repo}",
                f"the hub could not be asked about {repo}; its copy in the cache is used",
                HubWarning,
            )
        return found
    Storage(repo).keep_ref(revision, commit)
    return result


def _offered(
    repo: str, revision: str | None, variant: str | None, refresh: bool
) -> tuple[str, dict[str, RemoteFile], Choice] | None:
    """What a pull request adds, if it is there still and has safetensors."""
    try:
        commit, files = listing(repo, revision, refresh=refresh)
    except HubError as error:
        if error.facts.get("reason") != "revision":
            raise
        return None
    chosen = choose(files, variant)
    return (commit, files, chosen) if chosen is not None and chosen.safe else None


def _least(
    repo: str, revisions: list[str | None], variant: str | None, verify: bool | None
) -> Snapshot | None:
    """What there is of a model whose tokenizer, say, was never fetched: better than nothing."""
    storage = Storage(repo, current().cache_dir)
    for revision in revisions:
        commit = storage.commit_of(revision)
        names = wanted_here(storage, commit, variant, least=True) if commit else None
        if names is not None:
            found = cached(repo, commit, filenames=names, verify=verify)
            if found is not None:
                return found
    return None


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object of a file.

    Raises:
        HubError: it is none; names the file.
    """
    import json

    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise HubError(f"{path} is no JSON: {error}", path=str(path)) from None
    if not isinstance(value, dict):
        raise HubError(f"{path} holds no JSON object", path=str(path))
    return value
