"""What is complete opens no socket; what is not says how to get it (TESTPLAN 30, ERRORS 30)."""

from __future__ import annotations

import json
import subprocess
import sys

import hub_server
import pytest

import bestiary as bt
from bestiary.core.errors import HubError
from bestiary.hub.download import fetch
from bestiary.hub.repository import snapshot

COMMIT = hub_server.COMMIT
FILES = ["config.json", "model.safetensors"]
REPO = "zoo/small"


@pytest.fixture
def hub(serve, tmp_path, own_cache):
    folder = tmp_path / "repository"
    folder.mkdir()
    served = serve({REPO: hub_server.write_repository(folder, 100_000)})
    bt.configure(endpoint=served.url)
    return served


GUARDED = """
import json, sys
names = []
def guard(event, given):
    if event.startswith("socket."):
        names.append(event)
        raise RuntimeError(event)
sys.addaudithook(guard)
sys.path.insert(0, sys.argv[1])
import bestiary as bt
from bestiary.hub import download
from bestiary.hub.download import cached, fetch
found = fetch("zoo/small", ["config.json", "model.safetensors"])
assert cached("zoo/small").commit == found.commit
print(json.dumps({"commit": found.commit, "events": names,
                  "client": "huggingface_hub" in sys.modules}))
"""


@pytest.mark.parametrize("variables", [{}, {"HF_HUB_OFFLINE": "1"}, {"TRANSFORMERS_OFFLINE": "1"}])
def test_row_30_what_is_complete_opens_no_socket(hub, own_cache, hub_variables, variables):
    snapshot(REPO)
    hub.forget()
    done = subprocess.run(
        [sys.executable, "-c", GUARDED, ""],
        env={
            **hub_variables,
            "HF_ENDPOINT": hub.url,
            "HF_HOME": str(own_cache.parent),
            **variables,
        },
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found == {"commit": COMMIT, "events": [], "client": False}
    assert not hub.log


def test_row_30_errors_30_offline_and_not_cached(own_cache, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(HubError) as caught:
        snapshot(REPO)
    message = str(caught.value)
    for part in ("HF_HUB_OFFLINE=1", str(own_cache), f"bestiary pull {REPO}", "bestiary pack"):
        assert part in message
    bt.configure(offline=True)
    with pytest.raises(HubError, match=r"bt\.configure\(offline=True\) forbids"):
        fetch(REPO, FILES, revision="v1")
