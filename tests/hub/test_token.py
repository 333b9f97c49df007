"""Where the token goes, what shows it, and who asks for it (TESTPLAN 34, ERRORS 29)."""

from __future__ import annotations

import logging
import subprocess
import sys
import traceback

import hub_server
import pytest

import bestiary as bt
from bestiary.core.errors import HubError
from bestiary.hub import settings, web
from bestiary.hub.download import fetch, listing
from bestiary.hub.repository import snapshot

REPO = "zoo/hostile"
FILES = ["config.json", "model.safetensors"]
TOKEN = "hf_averysecrettokenindeed"


@pytest.fixture
def hub(serve, tmp_path, own_cache, monkeypatch):
    monkeypatch.setattr(web, "_PAUSE", 0.02)
    folder = tmp_path / "repository"
    folder.mkdir()
    served = serve({REPO: hub_server.write_repository(folder, 100_000)})
    bt.configure(endpoint=served.url, timeout=2.0, deadline=0.2)
    return served


def senders(hub) -> set[str]:
    """Where the token arrived."""
    found = set()
    for request in hub.log:
        assert request.headers.get("authorization") in (None, f"Bearer {TOKEN}")
        if "authorization" in request.headers:
            found.add(request.where)
    return found


@pytest.mark.parametrize("source", ["configure", "HF_TOKEN"])
def test_row_34_the_token_goes_to_the_hub_and_to_no_storage(hub, monkeypatch, source):
    if source == "configure":
        bt.configure(token=TOKEN)
    else:
        monkeypatch.setenv("HF_TOKEN", TOKEN)
    fetch(REPO, FILES)
    assert senders(hub) == {"hub"} and {r.where for r in hub.log} == {"hub", "storage"}
    bt.configure(token=False)
    hub.forget()
    fetch(REPO, FILES, refresh=True)
    assert hub.log and not senders(hub)


@pytest.mark.parametrize("path", ["api/models", "resolve.*config", "resolve.*safetensors"])
@pytest.mark.parametrize("status", [302, 307])
def test_row_34_no_redirect_takes_the_token_along(hub, serve, path, status):
    other = serve({})
    bt.configure(token=TOKEN)
    headers = {"Location": f"{other.url}/collect"}
    hub.faults = [hub_server.Fault(path, times=99, status=status, headers=headers)]
    with pytest.raises(HubError):
        fetch(REPO, FILES)
    assert other.log and not senders(other)  # the same host, another port: another origin


@pytest.mark.parametrize(
    "target", ["file:///etc/passwd", "ftp://127.0.0.1/x", "http://[", "gopher://x", "data:,x"]
)
def test_row_34_redirects_that_are_not_followed(hub, target):
    hub.faults = [hub_server.Fault("api", times=99, status=302, headers={"Location": target})]
    # Some of them are refused by the client itself.
    with pytest.raises(HubError, match=r"redirects to an address that is not followed|InvalidURL"):
        fetch(REPO, FILES)


def test_row_34_from_an_encrypted_address_to_a_plain_one(own_cache):
    bt.configure(endpoint="https://hub.invalid")
    reached = web.Web(settings.current())
    with pytest.raises(HubError, match="not followed"):
        reached._redirected("https://hub.invalid/a", "http://hub.invalid/a")
    assert reached._redirected("https://hub.invalid/a", "/b") == "https://hub.invalid/b"


def test_row_34_a_circle_of_redirects_ends(hub):
    headers = {"Location": f"/api/models/{REPO}"}
    hub.faults = [hub_server.Fault("api", times=99, status=307, headers=headers)]
    with pytest.raises(HubError, match="redirects without an end"):
        fetch(REPO, FILES)
    assert len(hub.log) < 20


def test_row_34_a_renamed_repository_is_followed_with_the_token(hub):
    """The hub redirects old names to new ones: that is the same origin."""
    bt.configure(token=TOKEN)
    headers = {"Location": f"/api/models/{REPO}?blobs=true"}
    hub.faults = [hub_server.Fault("api/models/zoo/old", status=307, headers=headers)]
    assert listing("zoo/old")[0] == hub_server.COMMIT
    assert all("authorization" in r.headers for r in hub.log)


@pytest.mark.parametrize(
    "fault",
    [
        {"status": 401},
        {"status": 500, "times": 99},
        {"status": 200, "body": b"<html>"},
        {"close": "silent", "times": 99},
        {"status": 302, "headers": {"Location": "ftp://x/y?token=verysecret"}},
    ],
    ids=lambda f: str(f.get("status", "closed")),
)
@pytest.mark.parametrize("path", ["api", "resolve", "model.safetensors"])
def test_row_34_no_error_log_or_repr_shows_a_secret(hub, path, fault, caplog):
    caplog.set_level(logging.DEBUG)
    bt.configure(token=TOKEN)
    hub.faults = [hub_server.Fault(path, **fault)]
    shown = ""
    try:
        fetch(REPO, FILES)
    except HubError as error:  # some of the faults pass
        shown = "".join(traceback.format_exception(error)) + repr(error.facts)
    assert TOKEN not in shown and "verysecret" not in shown
    assert TOKEN not in caplog.text
    assert TOKEN not in repr(settings.current()) and TOKEN not in str(vars(settings.current))


def test_row_34_debug_output_of_the_client_shows_no_token(hub, hub_variables):
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "import logging; logging.basicConfig(level=0)\n"
            "from bestiary.hub.download import fetch\n"
            f"print(fetch('{REPO}', {FILES}).commit)",
        ],
        env={**hub_variables, "HF_ENDPOINT": hub.url, "HF_DEBUG": "1", "HF_TOKEN": TOKEN},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert senders(hub) == {"hub"}
    assert "GET" in done.stderr and TOKEN not in done.stdout + done.stderr


def test_errors_29_a_gated_repository(hub, monkeypatch):
    hub.gated.add(REPO)
    with pytest.raises(HubError) as caught:
        snapshot(REPO)
    message = str(caught.value)
    for part in (f"https://huggingface.co/{REPO}", "hf auth login", "A token was not found"):
        assert part in message
    assert "Nearest open models: " in message and caught.value.reason == "gated"
    bt.configure(token="hf_wrong")
    with pytest.raises(HubError, match="A token was sent"):
        snapshot(REPO)
    bt.configure(token="hf_right")
    assert set(snapshot(REPO).files) == set(FILES)


def test_errors_29_gated_files_of_a_public_list(hub):
    """As on the public hub: anybody may read what files there are, but not the files."""
    gated = {"status": 403, "headers": {"X-Error-Code": "GatedRepo"}, "times": 9}
    hub.faults = [hub_server.Fault("resolve", **gated)]
    with pytest.raises(HubError, match="is gated"):
        snapshot(REPO)


def test_errors_29_a_token_that_ran_out(hub):
    bt.configure(token=TOKEN)
    message = {"X-Error-Message": "Invalid credentials in Authorization header"}
    hub.faults = [hub_server.Fault("api", times=9, status=401, headers=message)]
    with pytest.raises(HubError, match="does not accept the token") as caught:
        snapshot(REPO)
    assert caught.value.reason == "token" and "hf auth login" in str(caught.value)


def test_errors_29_a_private_or_unknown_repository(hub):
    with pytest.raises(HubError, match=r"no public repository 'zoo/resnet51'") as caught:
        snapshot("zoo/resnet51")
    assert "resnet50" in str(caught.value) and "A token was not found" in str(caught.value)
    with pytest.raises(HubError, match="has no revision 'v9'"):
        snapshot(REPO, "v9")
