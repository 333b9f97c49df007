"""`bt.configure` and the variables that the Hugging Face tools share."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import bestiary as bt
from bestiary.core.errors import ConfigError
from bestiary.hub.settings import current

pytestmark = pytest.mark.usefixtures("own_cache")

CASES: list[dict[str, str]] = [
    {},
    {"HF_HOME": "/x/hf"},
    {"HF_HUB_CACHE": "/x/cache", "HF_HOME": "/x/hf"},
    {"HUGGINGFACE_HUB_CACHE": "/x/old"},
    {"HF_HUB_CACHE": "~/mine/$USER_OF_TEST", "USER_OF_TEST": "somebody"},
    {"XDG_CACHE_HOME": "/x/xdg"},
    {"HF_ENDPOINT": "https://mirror.example/"},
    {"HF_HUB_OFFLINE": "1"},
    {"HF_HUB_OFFLINE": "yes"},
    {"HF_HUB_OFFLINE": "0", "TRANSFORMERS_OFFLINE": "1"},
    {"TRANSFORMERS_OFFLINE": "ON"},
    {"HF_HUB_DISABLE_XET": "1"},
    {"HF_HUB_DOWNLOAD_TIMEOUT": "33"},
    {"HF_HUB_DISABLE_IMPLICIT_TOKEN": "1"},
    {"HF_HUB_DISABLE_PROGRESS_BARS": "1"},
]

THEIRS = """
import json
from huggingface_hub import constants as c
print(json.dumps({"cache_dir": c.HF_HUB_CACHE, "endpoint": c.ENDPOINT,
    "offline": c.HF_HUB_OFFLINE, "xet": not c.HF_HUB_DISABLE_XET,
    "timeout": c.HF_HUB_DOWNLOAD_TIMEOUT, "token": not c.HF_HUB_DISABLE_IMPLICIT_TOKEN,
    "bars": not c.HF_HUB_DISABLE_PROGRESS_BARS}))
"""


@pytest.mark.parametrize("variables", CASES, ids=lambda v: "+".join(v) or "none")
def test_variables_mean_what_they_mean_to_the_other_tools(monkeypatch, variables):
    monkeypatch.delenv("HF_HOME")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    theirs = json.loads(
        subprocess.run(
            [sys.executable, "-c", THEIRS], env={**os.environ}, capture_output=True, check=True
        ).stdout
    )
    bt.configure(xet=None)
    ours = current()
    assert ours.cache_dir == Path(theirs["cache_dir"])
    assert ours.endpoint == theirs["endpoint"]
    assert (ours.offline, ours.xet) == (theirs["offline"], theirs["xet"])
    assert (ours.timeout, ours.bars) == (theirs["timeout"], theirs["bars"])
    assert (ours.token is not False) == theirs["token"]


def test_configure_wins_over_variables_and_gives_way_to_them(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_ENDPOINT", "https://one.example")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    bt.configure(endpoint="https://two.example/", offline=False, cache_dir=tmp_path)
    assert current().endpoint == "https://two.example" and not current().offline
    bt.configure(timeout=3)  # what is not named stays
    assert current().cache_dir == tmp_path and current().timeout == 3
    bt.configure(endpoint=None, offline=None, cache_dir=None)
    assert current().endpoint == "https://one.example" and current().offline
    assert current().offline_by == "HF_HUB_OFFLINE=1"
    monkeypatch.setenv("HF_HUB_OFFLINE", "")  # read when it is needed, not at import
    assert not current().offline


@pytest.mark.parametrize(
    "given",
    [
        {"endpoint": "ftp://hub"},
        {"endpoint": "hub.example"},
        {"endpoint": "https://user:secret@hub.example"},
        {"endpoint": "https://hub.example/?token=secret"},
        {"endpoint": "https://hub.example:port"},
        {"timeout": 0},
        {"deadline": -1},
        {"stall": float("nan")},
        {"token": 7},
    ],
    ids=str,
)
def test_values_that_make_no_sense(given):
    before = current()
    with pytest.raises(ConfigError) as caught:
        bt.configure(**given)
    assert "secret" not in str(caught.value)
    assert current() == before


@pytest.mark.parametrize(
    "name, value", [("HF_ENDPOINT", "hub.example"), ("HF_HUB_DOWNLOAD_TIMEOUT", "soon")]
)
def test_variables_that_make_no_sense(monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=name):
        current()


def test_offline_in_the_environment_can_be_lifted_in_the_process(serve, tmp_path, hub_variables):
    """huggingface_hub decides at its import; `configure` works afterwards too."""
    (tmp_path / "config.json").write_text("{}")
    hub = serve({"zoo/a": tmp_path})
    code = (
        "import huggingface_hub, bestiary as bt\n"
        "from bestiary.hub.download import fetch\n"
        "try:\n    fetch('zoo/a', ['config.json'])\n"
        "except bt.errors.HubError:\n    print('refused')\n"
        "bt.configure(offline=False)\n"
        "print(len(fetch('zoo/a', ['config.json']).files))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**hub_variables, "HF_ENDPOINT": hub.url, "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout.split() == ["refused", "1"], done.stderr
