"""The hub on loopback: `import hub_server` in a test, and the fixtures that use it."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest


def _imported(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


hub_server = _imported("hub_server")
_imported("upload_server")


@pytest.fixture
def serve() -> Iterator[Callable[..., Any]]:
    """Start a hub with these repositories; it ends with the test."""
    from contextlib import ExitStack

    with ExitStack() as stack:
        yield lambda *given, **named: stack.enter_context(
            hub_server.serving(hub_server.Hub(*given, **named))
        )


@pytest.fixture
def hub_variables(tmp_path: Path) -> dict[str, str]:
    """An environment for processes: a cache of its own, nothing of the user's."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "HUGGING"))}
    return {
        **clean,
        "HF_HOME": str(tmp_path / "hf"),
        "BESTIARY_HOME": str(tmp_path / "bestiary"),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
    }


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """This process with a cache of its own and impatient settings; gives the cache's folder."""
    from bestiary.core.notice import forget_warnings
    from bestiary.hub import settings

    for name in [*os.environ]:
        if name.startswith(("HF_", "HUGGING", "TRANSFORMERS_OFFLINE", "XDG_CACHE_HOME")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("BESTIARY_HOME", str(tmp_path / "bestiary"))
    monkeypatch.setattr(settings, "_configured", {"xet": False})
    # Decided when it was imported: a login of whoever runs the tests is none of their business.
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "hf" / "token"))
    forget_warnings()
    yield tmp_path / "hf" / "hub"
    forget_warnings()
