"""Publishing: a saved model as a repository on the hub."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..core.errors import HubError, WeightsError
from ..core.weights import open_weights
from .cache import check_name, check_repo
from .choice import weights_in
from .licences import front_matter
from .problems import brief
from .settings import Settings, current
from .sources import files_in

_LOGIN = "Log in with a token that may write: hf auth login (or set HF_TOKEN)"


@dataclass(frozen=True)
class Plan:
    """What would be uploaded; hidden files never are.

    Attributes:
        files: name -> path.
        remarks: what its readers will miss, in words.
    """

    folder: Path
    repo: str
    files: dict[str, Path]
    remarks: tuple[str, ...]

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(path.stat().st_size for path in self.files.values())


@dataclass(frozen=True)
class Pushed:
    """Where it is now."""

    repo: str
    commit: str
    url: str
    pull_request: str | None = None


def plan(folder: str | Path, repo: str) -> Plan:
    """What pushing a folder would upload, after a look at it; asks nobody.

    Raises:
        HubError: it is no saved model, or it holds files with names that the hub does not take.
        WeightsError: its weights are damaged, or a torch checkpoint.
    """
    folder = Path(folder).expanduser()
    check_repo(repo)
    if not (folder / "config.json").is_file():
        raise HubError(
            f"{folder} holds no config.json, so it is no saved model.\n"
            "Save one: model.save(folder)",
            folder=str(folder),
        )
    weights = weights_in(folder)
    if weights is None:
        raise HubError(f"{folder} holds no weights", folder=str(folder))
    with open_weights(folder / weights) as file:  # reads every header, and refuses damaged ones
        count = len(file)
    if not weights.endswith((".safetensors", ".safetensors.index.json")):
        raise WeightsError(
            f"{folder / weights} is a torch checkpoint, which is a program to those who read it "
            f"carelessly.\nPublish safetensors: bestiary convert {folder}, and remove {weights}",
            path=str(folder / weights),
        )
    files = {check_name(name): path for name, path in files_in(folder).items()}
    said = front_matter(folder / "README.md")
    remarks = []
    if not count:
        remarks.append("the weights are empty")
    if not (folder / "README.md").is_file():
        remarks.append("there is no README.md, the model's card")
    elif said.get("license", "unknown") == "unknown":
        remarks.append("its card names no licence: without one nobody may use it")
    return Plan(folder, repo, files, tuple(remarks))


def push(
    folder: str | Path,
    repo: str,
    *,
    private: bool = False,
    message: str | None = None,
    revision: str | None = None,
    pull_request: bool = False,
) -> Pushed:
    """Upload a saved model as one commit; the repository is made if there is none.

    Args:
        folder: that `model.save` wrote.
        repo: org/name.
        private: of a new repository.
        message: of the commit.
        revision: the branch; "main" unless given.
        pull_request: offer the commit to the owner of the repository instead of writing to it.

    Raises:
        HubError: not permitted, offline, out of reach, or the hub refuses a file.
        WeightsError: see `plan`.
    """
    planned = plan(folder, repo)
    settings = current()
    if settings.offline:
        raise HubError(
            f"{repo} cannot be pushed: {settings.offline_by} forbids any connection.",
            reason="offline",
        )
    from huggingface_hub import CommitOperationAdd, HfApi

    api = HfApi(endpoint=settings.endpoint, token=settings.token)
    operations = [
        CommitOperationAdd(path_in_repo=name, path_or_fileobj=str(path))
        for name, path in planned.files.items()
    ]
    try:
        if not pull_request:
            api.create_repo(repo, private=private or None, exist_ok=True)
        done = api.create_commit(
            repo,
            operations,
            commit_message=message or f"Upload {planned.folder.resolve().name}",
            revision=revision,
            create_pr=pull_request,
        )
    except Exception as error:
        raise _explained(error, planned, settings) from None
    return Pushed(repo, done.oid, f"{settings.endpoint}/{repo}", done.pr_url)


def _explained(error: Exception, planned: Plan, settings: Settings) -> HubError:
    """A failure of the client in our words; its own text may hold addresses with secrets."""
    from huggingface_hub import get_token
    from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError

    repo = planned.repo
    given = settings.token if isinstance(settings.token, str) else None
    has_token = settings.token is not False and bool(given or get_token())
    facts: dict[str, Any] = {"repo": repo}
    if isinstance(error, LocalTokenNotFoundError):
        return HubError(f"{repo} cannot be pushed: no token was found.\n{_LOGIN}", **facts)
    if isinstance(error, HfHubHTTPError) and error.response is not None:
        status = int(error.response.status_code)
        facts["status"] = status
        if status in (401, 403, 404):
            token = f"A token was {'sent' if has_token else 'not found'}."
            return HubError(
                f"{settings.endpoint} did not permit pushing to {repo} ({status}).\n{token} Is the "
                f"name before the slash yours, or of an organization that you may write to?\n"
                f"{_LOGIN}",
                reason="permission",
                **facts,
            )
        said = str(getattr(error, "server_message", None) or "")[:300]
        return HubError(
            f"the hub refused {repo} ({status}){': ' + said if said else ''}.\n"
            "Nothing was changed there.",
            reason="status",
            **facts,
        )
    return HubError(
        f"{repo} was not pushed: {brief(error)}\n"
        f"Is {settings.endpoint} in reach? Run the command again; what has arrived is kept there.",
        reason="unreachable",
        **facts,
    )
