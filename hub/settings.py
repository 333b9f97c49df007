"""Where the hub is, what is allowed, how patient we are.

The variables of `huggingface_hub` mean here what they mean there, but they are read when they
are needed and not when a module is imported, so that `configure` works at any time.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..core.errors import ConfigError

ENDPOINT = "https://huggingface.co"


class _Unchanged:
    def __repr__(self) -> str:
        return "unchanged"


UNCHANGED: Any = _Unchanged()
_configured: dict[str, Any] = {}


@dataclass(frozen=True)
class Settings:
    """What holds now: what `configure` was given, else the environment, else the defaults.

    Attributes:
        endpoint: the address of the hub.
        cache_dir: the standard cache that other tools share.
        offline: nothing is asked of any network.
        offline_by: what said so, for messages.
        token: None takes the one of this machine (`hf auth login`, HF_TOKEN); False sends none.
        xet: large files may come by the accelerated protocol, where `hf_xet` is installed.
        timeout: seconds in which a server must send something.
        connect: seconds for the first contact, after which the hub counts as out of reach.
        deadline: seconds without any progress in which failures are tried again.
        minimum_rate: bytes per second below which, over `stall` seconds, a connection is dropped.
        stall: seconds over which the rate is looked at.
        verify: hash cached files at every load.
        bars: whether progress is shown.
    """

    endpoint: str
    cache_dir: Path
    offline: bool
    offline_by: str
    token: str | bool | None = field(repr=False)
    xet: bool
    timeout: float
    connect: float
    deadline: float
    minimum_rate: float
    stall: float
    verify: bool
    bars: bool


def configure(
    *,
    offline: bool | None = UNCHANGED,
    endpoint: str | None = UNCHANGED,
    token: str | bool | None = UNCHANGED,
    cache_dir: str | Path | None = UNCHANGED,
    xet: bool | None = UNCHANGED,
    verify: bool | None = UNCHANGED,
    timeout: float | None = UNCHANGED,
    connect: float | None = UNCHANGED,
    deadline: float | None = UNCHANGED,
    minimum_rate: float | None = UNCHANGED,
    stall: float | None = UNCHANGED,
) -> None:
    """Change how models are fetched, for this process: `bt.configure(offline=True)`.

    What is not named stays as it is; None goes back to the environment.

    Args:
        offline: ask nothing of any network (HF_HUB_OFFLINE).
        endpoint: the address of the hub or a mirror of it (HF_ENDPOINT).
        token: for gated and private repositories (HF_TOKEN); False sends none.
        cache_dir: the folder of the standard cache (HF_HUB_CACHE, HF_HOME).
        xet: whether the accelerated protocol is used (HF_HUB_DISABLE_XET).
        verify: hash cached files at every load.
        timeout: seconds in which a server must send something (HF_HUB_DOWNLOAD_TIMEOUT).
        connect: seconds for the first contact.
        deadline: seconds without progress after which a download is given up.
        minimum_rate: bytes per second that a connection must bring on average over `stall`
            seconds; a slower one is dropped and opened again.
        stall: see `minimum_rate`.

    Raises:
        ConfigError: a value that makes no sense.
    """
    given = {name: value for name, value in locals().items() if value is not UNCHANGED}
    for name in ("timeout", "connect", "deadline", "stall"):
        value = given.get(name)
        if value is not None and not 0 < value < 1e9:
            raise ConfigError(f"{name} is a number of seconds above 0, got {value!r}", got=value)
    if given.get("endpoint") is not None:
        given["endpoint"] = _address(given["endpoint"], "endpoint")
    if given.get("token") is not None and not isinstance(given["token"], (str, bool)):
        raise ConfigError("token is a text, or False to send none")
    for name, value in given.items():
        if value is None:
            _configured.pop(name, None)
        else:
            _configured[name] = value


def current() -> Settings:
    """The settings that hold now.

    Raises:
        ConfigError: a variable of the environment makes no sense.
    """
    offline, by = _offline()
    timeout = _seconds("HF_HUB_DOWNLOAD_TIMEOUT", 10.0)
    found: dict[str, Any] = {
        "endpoint": _address(os.environ.get("HF_ENDPOINT") or ENDPOINT, "HF_ENDPOINT"),
        "cache_dir": _cache_dir(),
        "offline": offline,
        "offline_by": by,
        "token": False if is_true("HF_HUB_DISABLE_IMPLICIT_TOKEN") else None,
        "xet": not is_true("HF_HUB_DISABLE_XET"),
        "timeout": timeout,
        "connect": min(3.5, _seconds("HF_HUB_ETAG_TIMEOUT", 3.5)),
        "deadline": 60.0,
        "minimum_rate": 1000.0,
        "stall": 30.0,
        "verify": False,
        "bars": not is_true("HF_HUB_DISABLE_PROGRESS_BARS"),
    }
    found.update(_configured)
    if "offline" in _configured:
        found["offline_by"] = "bt.configure(offline=True)"
    found["cache_dir"] = Path(found["cache_dir"]).expanduser()
    return Settings(**found)


def is_true(variable: str) -> bool:
    """Whether a variable of the environment says yes, as the Hugging Face tools read it."""
    return os.environ.get(variable, "").upper() in ("1", "ON", "YES", "TRUE")


def _offline() -> tuple[bool, str]:
    # As in huggingface_hub: the second one counts where the first is not set.
    for variable in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        if os.environ.get(variable):
            return is_true(variable), f"{variable}={os.environ[variable]}"
    return False, ""


def _cache_dir() -> Path:
    chosen = os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE")
    return Path(_expanded(chosen)) if chosen else hf_home() / "hub"


def hf_home() -> Path:
    """The folder of the Hugging Face tools: `HF_HOME`, else `huggingface` in the cache folder."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join("~", ".cache")
    return Path(_expanded(os.environ.get("HF_HOME") or os.path.join(base, "huggingface")))


def _expanded(path: str) -> str:
    return os.path.expandvars(os.path.expanduser(path))


def _seconds(variable: str, default: float) -> float:
    text = os.environ.get(variable)
    if not text:
        return default
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < 1e9:
        raise ConfigError(f"the variable {variable} holds no number of seconds: {text!r}")
    return value


def _address(text: str, where: str) -> str:
    from urllib.parse import urlsplit

    try:
        parts = urlsplit(text)
        sound = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        sound = sound and parts.username is None and not parts.query and not parts.fragment
    except ValueError:
        sound = False
    if not sound:
        raise ConfigError(
            f"{where} is no address of a hub: it has the form https://host or https://host:port/path"
        )
    return text.rstrip("/")
