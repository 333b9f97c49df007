"""Publishing with the real client to a hub on loopback, and loading what was published."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import upload_server

import bestiary as bt
from bestiary.core.errors import HubError, WeightsError
from bestiary.core.weights import load_file
from bestiary.hub.sharing import plan

MODEL = Path(__file__).parents[1] / "references" / "data" / "resnet-transformers-bottleneck"
REPO = "zoo/mine"


@pytest.fixture
def saved(own_cache, tmp_path):
    folder = bt.load(MODEL).save(tmp_path / "mine")
    (folder / ".env").write_text("SECRET=1")
    (folder / ".git").mkdir()
    (folder / ".git" / "config").write_text("secret")
    return folder


@pytest.fixture
def uploads(tmp_path):
    with upload_server.receiving(upload_server.Uploads(tmp_path / "hub")) as hub:
        yield hub


@pytest.fixture
def push(saved, uploads, hub_variables):
    """`bestiary push` in a process of its own: the client reads its variables when imported."""

    def run(*arguments: object, **variables: str) -> subprocess.CompletedProcess[str]:
        env = {**hub_variables, "HF_ENDPOINT": uploads.url, "HF_TOKEN": "hf_write", **variables}
        code = "from bestiary.hub.cli import main; main()"
        return subprocess.run(
            [sys.executable, "-c", code, *map(str, ("push", *arguments))],
            env=env,
            capture_output=True,
            text=True,
        )

    return run


def test_pushed_and_loaded_again(push, saved, uploads, serve, tmp_path):
    done = push(saved, REPO, "--private", "-m", "First")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == f"{uploads.url}/{REPO}"
    (made,) = uploads.made
    assert (made["organization"], made["name"]) == ("zoo", "mine")
    assert made.get("private") is True or made.get("visibility") == "private"
    (commit,) = uploads.commits
    assert commit[0]["value"]["summary"] == "First"
    sent = {line["value"]["path"]: line["key"] for line in commit[1:]}
    assert sent["model.safetensors"] == "lfsFile" and sent["config.json"] == "file"
    assert not [name for name in sent if name.startswith(".")]  # nothing hidden
    assert "SECRET" not in json.dumps(commit)
    # the token goes to the hub and not to the storage
    assert all(a == "Bearer hf_write" for _, path, a in uploads.log if "/storage/" not in path)
    assert all(a is None for _, path, a in uploads.log if "/storage/" in path)

    shutil.rmtree(tmp_path / "hub" / REPO / ".git", ignore_errors=True)
    bt.configure(endpoint=serve({REPO: tmp_path / "hub" / REPO}).url)
    again, before = bt.load(REPO), bt.load(saved)
    assert again.labels == before.labels
    for name, value in before.module.state_dict().items():
        assert (again.module.state_dict()[name].numpy() == value.numpy()).all()


def test_json_and_a_pull_request(push, saved, uploads):
    done = push(saved, REPO, "--pull-request", "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["pushed"] and told["commit"] == upload_server.COMMIT
    assert told["pull_request"] == f"{uploads.url}/{REPO}/discussions/1"
    assert not uploads.made


def test_a_dry_run_asks_nobody(push, saved, uploads):
    done = push(saved, REPO, "--dry-run")
    assert done.returncode == 0 and "model.safetensors" in done.stdout
    assert ".env" not in done.stdout and not uploads.log
    assert "names no licence" in done.stderr


def test_without_permission(push, saved, uploads):
    done = push(saved, REPO, HF_TOKEN="hf_other")
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "did not permit pushing to zoo/mine (401)" in done.stderr
    assert "A token was sent" in done.stderr and "hf_other" not in done.stderr + done.stdout
    done = push(saved, REPO, HF_TOKEN="")
    assert done.returncode == 1 and "hf auth login" in done.stderr
    assert not uploads.commits


def test_what_the_hub_refuses(push, saved, uploads):
    uploads.refuse = ("/commit/", 400, b'{"error": "the file is too large"}')
    done = push(saved, REPO)
    assert done.returncode == 1 and "refused zoo/mine (400)" in done.stderr
    assert "Traceback" not in done.stderr


def test_out_of_reach_and_offline(push, saved):
    done = push(saved, REPO, HF_ENDPOINT="http://127.0.0.1:9")
    assert done.returncode == 1 and "was not pushed" in done.stderr
    done = push(saved, REPO, HF_HUB_OFFLINE="1")
    assert done.returncode == 1 and "HF_HUB_OFFLINE=1 forbids" in done.stderr


def test_folders_that_are_not_published(saved, tmp_path):
    with pytest.raises(HubError, match="no id of a repository"):
        plan(saved, "mine")
    with pytest.raises(HubError, match=r"no config\.json"):
        plan(tmp_path, REPO)
    weights = saved / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-7])
    with pytest.raises(WeightsError):
        plan(saved, REPO)
    weights.unlink()
    with pytest.raises(HubError, match="no weights"):
        plan(saved, REPO)
    checkpoints = Path(__file__).parents[1] / "references" / "data" / "torch_checkpoints"
    source = sorted(p for p in checkpoints.iterdir() if p.suffix in (".pt", ".bin", ".pth"))[0]
    shutil.copy(source, saved / "pytorch_model.bin")
    with pytest.raises(WeightsError, match="bestiary convert"):
        plan(saved, REPO)


def test_shards_go_together(saved):
    from bestiary.core.weights import save_sharded

    tensors = load_file(saved / "model.safetensors")
    (saved / "model.safetensors").unlink()
    save_sharded(tensors, saved, max_shard_bytes=20_000)
    planned = plan(saved, REPO)
    assert len([n for n in planned.files if n.endswith(".safetensors")]) > 1
    assert "model.safetensors.index.json" in planned.files
