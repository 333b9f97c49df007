"""The hub source, with the real `huggingface_hub` client against a server on loopback."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import hub_server
import pytest

REFERENCES = Path(__file__).parents[1] / "references" / "data"


def load(url: str, home: Path, name: str, **variables: str) -> dict[str, object]:
    """Load a model by id in a fresh process, whose hub is the given server."""
    code = (
        "import json, sys, warnings\n"
        "warnings.simplefilter('ignore')\n"
        "import bestiary as bt\n"
        "try:\n"
        "    model = bt.load(sys.argv[1])\n"
        "    print(json.dumps({'loaded': len(model.report.loaded), 'source': model.card.source}))\n"
        "except bt.errors.BestiaryError as error:\n"
        "    print(json.dumps({'kind': type(error).__name__, 'error': str(error)}))\n"
    )
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "HUGGING"))}
    done = subprocess.run(
        [sys.executable, "-c", code, name],
        env={
            **clean,
            "HF_ENDPOINT": url,
            "HF_HOME": str(home),
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            **variables,
        },
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture
def hub():
    repositories = {
        "zoo/resnet": REFERENCES / "resnet-timm-basic",
        "zoo/locked": REFERENCES / "resnet-timm-basic",
    }
    with hub_server.serving(hub_server.Hub(repositories, gated={"zoo/locked"})) as served:
        yield served


def test_row_23_by_name_fetched_once_into_the_standard_cache(hub, tmp_path):
    found = load(hub.url, tmp_path, "zoo/resnet")
    assert found["loaded"] > 10
    assert found["source"] == "https://huggingface.co/zoo/resnet"
    fetched = [r for r in hub.requests if r.startswith("GET") and "/resolve/" in r]
    assert sorted(r.rpartition("/")[2] for r in fetched) == ["config.json", "model.safetensors"]
    snapshots = tmp_path / "hub" / "models--zoo--resnet" / "snapshots" / hub_server.COMMIT
    assert {p.name for p in snapshots.iterdir()} == {"config.json", "model.safetensors"}
    hub.forget()
    assert load(hub.url, tmp_path, "zoo/resnet") == found
    assert hub.requests == []  # complete in the cache: no connection at all


def test_row_30_offline_with_a_complete_cache(hub, tmp_path):
    load(hub.url, tmp_path, "zoo/resnet")
    hub.forget()
    assert load(hub.url, tmp_path, "zoo/resnet", HF_HUB_OFFLINE="1")["loaded"] > 10
    assert hub.requests == []


def test_errors_30_offline_without_it(hub, tmp_path):
    found = load(hub.url, tmp_path, "zoo/resnet", HF_HUB_OFFLINE="1")
    assert found["kind"] == "HubError"
    for part in ("HF_HUB_OFFLINE", str(tmp_path), "bestiary pull zoo/resnet"):
        assert part in found["error"]
    assert hub.requests == []


def test_no_such_repository(hub, tmp_path):
    found = load(hub.url, tmp_path, "zoo/nothing")
    assert "no public repository 'zoo/nothing'" in found["error"]


def test_errors_29_a_gated_repository(hub, tmp_path):
    found = load(hub.url, tmp_path, "zoo/locked")
    for part in ("gated", "https://huggingface.co/zoo/locked", "A token was not found"):
        assert part in found["error"]


def test_errors_37_no_server(tmp_path):
    found = load("http://127.0.0.1:9", tmp_path, "zoo/resnet")
    assert "could not be reached" in found["error"]
    assert "efficientnet-lite0" in found["error"]  # what can be had without it
