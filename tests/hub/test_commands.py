"""The hub's commands, as a user runs them: what they print, JSON, exit codes, wrong input."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import hub_server
import numpy as np
import pytest

import bestiary as bt
from bestiary.core.weights import load_file, save_file
from bestiary.hub.cli import _run
from bestiary.hub.finding import Wanted, search
from bestiary.hub.registry import task_of

DATA = Path(__file__).parents[1] / "references" / "data"
MODEL = DATA / "resnet-transformers-bottleneck"
CHECKPOINTS = DATA / "torch_checkpoints"
REPO = "zoo/small"


@pytest.fixture
def desk(tmp_path, monkeypatch):
    """A fresh folder to work in."""
    folder = tmp_path / "desk"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def hub(serve, own_cache, tmp_path, desk):
    folder = tmp_path / "repository"
    shutil.copytree(MODEL, folder, ignore=shutil.ignore_patterns("reference.safetensors"))
    (folder / "README.md").write_text("---\nlicense: cc-by-nc-4.0\n---\n")
    served = serve({REPO: folder})
    bt.configure(endpoint=served.url)
    return served


@pytest.fixture
def bestiary(capfd):
    """Run a command: (exit code, standard output, error output)."""

    def run(*arguments: object) -> tuple[int, str, str]:
        code = _run([str(a) for a in arguments])
        said = capfd.readouterr()
        return code, said.out, said.err

    return run


# -- pull ------------------------------------------------------------------------------------------


def test_pull_prints_the_path_last(hub, own_cache, bestiary):
    code, out, err = bestiary("pull", REPO)
    path = Path(out.splitlines()[-1])
    assert code == 0 and path.is_absolute() and (path / "model.safetensors").is_file()
    assert path == own_cache / "models--zoo--small" / "snapshots" / hub_server.COMMIT
    assert "3 files" in err and "does not permit commercial use" in err
    hub.forget()
    code, out, err = bestiary("pull", REPO, "--json")
    (model,) = json.loads(out)["models"]
    assert model["path"] == str(path) and model["commit"] == hub_server.COMMIT
    assert set(model["files"]) == {"README.md", "config.json", "model.safetensors"}
    assert not hub.log and err == ""  # complete: no connection; the licence was shown before


def test_pull_of_several_goes_on_after_a_failure(hub, bestiary):
    code, out, err = bestiary("pull", "no/such", REPO)
    assert code == 1 and "error: no/such" in err
    assert Path(out.splitlines()[-1]).is_dir()
    code, out, _ = bestiary("pull", "no/such", REPO, "--json")
    told = json.loads(out)
    assert code == 1 and told["failed"][0]["name"] == "no/such" and len(told["models"]) == 1


def test_pull_with_wrong_input(hub, bestiary):
    assert bestiary("pull")[0] == 2
    code, out, err = bestiary("pull", "resnet5O")
    assert code == 1 and out == "" and "Nearest: resnet50" in err
    code, _, err = bestiary("pull", "a/b/c")
    assert code == 1 and "no folder 'a/b/c'" in err
    code, _, err = bestiary("pull", REPO, "--revision", "nope")
    assert code == 1 and "no revision 'nope'" in err


def test_pull_again_what_has_moved_on(hub, bestiary):
    bestiary("pull", REPO)
    hub.revisions[REPO] = {"main": ("e" * 40, hub.repositories[REPO])}
    assert bestiary("pull", REPO)[1].strip().endswith(hub_server.COMMIT)
    assert bestiary("pull", REPO, "--refresh")[1].strip().endswith("e" * 40)


# -- locks -----------------------------------------------------------------------------------------


def test_lock_and_locked(hub, desk, bestiary, own_cache):
    code, out, err = bestiary("lock", REPO)
    assert code == 0 and out.strip() == str(desk / "bestiary.lock")
    assert f"+ {REPO}  hub {hub_server.COMMIT[:12]}" in err
    assert bestiary("lock", "--check")[0] == 0
    shutil.rmtree(own_cache)
    code, out, _ = bestiary("pull", "--locked")  # all of it
    assert code == 0 and Path(out.splitlines()[-1]).is_dir()
    code, _, err = bestiary("pull", "--locked", "resnet18")
    assert code == 1 and "not in the lock file" in err
    code, _, err = bestiary("--locked", "predict", "resnet18", MODEL / "config.json")
    assert code == 1 and "not in the lock file" in err
    assert bestiary("pull", "--locked", REPO, "--refresh")[0] == 2
    # the flag ends with the command
    assert bt.load(MODEL) is not None

    hub.revisions[REPO] = {"main": ("e" * 40, hub.repositories[REPO])}
    code, out, err = bestiary("lock", "--check")
    assert code == 1 and f"~ {REPO}  hub {hub_server.COMMIT[:12]} -> hub {'e' * 12}" in err
    code, out, _ = bestiary("lock", "--json")
    told = json.loads(out)
    assert told["changed"] and told["models"][0]["after"]["commit"] == "e" * 40
    assert "= " in bestiary("lock", REPO)[2]


def test_lock_with_wrong_input(hub, desk, bestiary):
    assert bestiary("lock")[0] == 2
    code, _, err = bestiary("pull", "--locked")
    assert code == 1 and "bestiary lock NAME..." in err
    (desk / "bestiary.lock").write_text("{")
    for arguments in (("lock", REPO), ("pull", "--locked"), ("--locked", "list")):
        code, _, err = bestiary(*arguments)
        assert code == 1 and "Traceback" not in err and "no lock file that can be used" in err


def test_folders_are_locked_too(hub, desk, bestiary):
    bt.load(MODEL).save("mine")
    assert bestiary("lock", "mine")[0] == 0
    code, out, _ = bestiary("pull", "--locked")
    assert code == 0 and out.strip() == str(desk / "mine")
    (desk / "mine" / "README.md").write_text("x")
    assert bestiary("pull", "--locked")[0] == 1


# -- packs -----------------------------------------------------------------------------------------


def test_pack_and_unpack(hub, desk, bestiary, own_cache):
    bt.load(MODEL).save("mine")
    code, out, err = bestiary("pack", REPO, "mine", "-o", "models.zip")
    assert code == 0 and out.strip() == str(desk / "models.zip")
    sha256 = err.split("sha256 ")[1].split()[0]
    shutil.rmtree(own_cache)
    bt.configure(offline=True)
    assert bestiary("pull", REPO)[0] == 1
    code, out, _ = bestiary("unpack", "models.zip", "--list")
    assert code == 0 and f"{REPO}  hub  3 files" in out and not own_cache.exists()
    code, out, _ = bestiary("unpack", "models.zip", "--to", "other", "--sha256", sha256)
    lines = out.splitlines()
    assert code == 0 and Path(lines[0]).is_dir() and lines[1] == str(desk / "other" / "mine")
    assert bestiary("pull", REPO)[0] == 0
    code, out, _ = bestiary("unpack", "models.zip", "--to", "other", "--json")
    assert [m["kind"] for m in json.loads(out)["models"]] == ["hub", "folder"]


def test_packs_with_wrong_input(hub, desk, bestiary, own_cache):
    assert bestiary("pack", REPO)[0] == 2
    assert bestiary("pack", "-o", "x.zip")[0] == 2
    assert bestiary("pack", REPO, "-o", "x.zip")[0] == 0
    code, _, err = bestiary("pack", REPO, "-o", "x.zip")
    assert code == 2 and "--force" in err
    assert bestiary("pack", REPO, "-o", "x.zip", "--force")[0] == 0
    assert bestiary("unpack", "nothing.zip")[0] == 2
    (desk / "photo.zip").write_bytes(b"\x89PNG")
    code, _, err = bestiary("unpack", "photo.zip")
    assert code == 1 and "no readable zip file" in err
    code, _, err = bestiary("unpack", "x.zip", "--sha256", "0" * 64)
    assert code == 1 and "another file" in err
    bestiary("lock", REPO)
    assert bestiary("unpack", "x.zip", "--locked")[0] == 0


# -- cache -----------------------------------------------------------------------------------------


def test_cache(hub, own_cache, bestiary):
    code, out, _ = bestiary("cache", "where", "--json")
    assert code == 0 and json.loads(out)["hub"] == str(own_cache)
    assert "nothing is in the caches" in bestiary("cache", "list")[2]
    bestiary("pull", REPO)
    (own_cache / "models--zoo--small" / "blobs" / "abc.incomplete").write_bytes(b"x" * 700)
    code, out, _ = bestiary("cache", "list")
    assert code == 0 and REPO in out and hub_server.COMMIT[:12] in out and "700 B" in out
    (row,) = json.loads(bestiary("cache", "list", "--json")[1])
    assert row["kind"] == "hub" and row["files"] == 3 and row["incomplete_bytes"] == 700
    code, out, _ = bestiary("cache", "verify")
    assert code == 0 and "3 files" in out and "all sound" in out

    blob = next(
        p for p in (own_cache / "models--zoo--small" / "blobs").iterdir() if len(p.name) == 64
    )
    raw = bytearray(blob.read_bytes())
    raw[-1] ^= 1
    blob.write_bytes(raw)
    code, out, err = bestiary("cache", "verify", REPO)
    assert code == 1 and "damaged: zoo/small" in err and "model.safetensors" in err
    assert not json.loads(bestiary("cache", "verify", "--json")[1])["sound"]

    assert bestiary("cache", "remove", REPO)[0] == 2  # nobody can be asked
    code, out, _ = bestiary("cache", "remove", "--incomplete", "--yes")
    assert code == 0 and "freed 700 B" in out
    code, out, _ = bestiary("cache", "remove", REPO, "--yes", "--json")
    assert code == 0 and json.loads(out)["removed"] == [REPO]
    assert not (own_cache / "models--zoo--small").exists()
    code, _, err = bestiary("cache", "verify", REPO)
    assert code == 1 and f"{REPO} is not in the cache" in err
    assert bestiary("cache", "remove")[0] == 2
    assert bestiary("cache", "remove", "x", "--all")[0] == 2
    assert bestiary("cache", "list", "--json")[1].strip() == "[]"


def test_cache_of_wheels(own_cache, tmp_path, bestiary, monkeypatch):
    from bestiary.hub import wheels
    from bestiary.hub.registry import get

    source = get("efficientnet-lite0")[1].sources[0]
    path = wheels._place(source)
    path.parent.mkdir(parents=True)
    path.write_bytes(b"not what it should be")
    code, _, err = bestiary("cache", "verify", "efficientnet-lite0")
    assert code == 1 and source.file_sha256 in err
    assert bestiary("cache", "remove", "efficientnet-lite0", "--yes")[0] == 0
    assert not path.exists()


# -- find ------------------------------------------------------------------------------------------


def test_find(bestiary):
    code, out, _ = bestiary("find", "efficentnet", "lite", "--max-parameters", "5M")
    names = [line.split()[0] for line in out.splitlines()[1:]]
    assert code == 0 and names == ["efficientnet-lite0"]
    code, out, _ = bestiary("find", "resnet50", "--json")
    assert json.loads(out)[0]["name"] == "resnet50"
    code, out, err = bestiary("find", "xylophone-quux")
    assert code == 1 and out == "" and "no model fits" in err
    assert bestiary("find", "--max-parameters", "many")[0] == 2
    for row in json.loads(bestiary("find", "--license", "apache", "--no-hub", "--json")[1]):
        assert "apache" in row["license"].lower()
        assert any(source["kind"] != "hub" for source in row["sources"])


def test_the_best_fit_comes_first():
    assert search(["RESNET_50"])[0][1].name == "resnet50"
    assert search(["resnt101"])[0][1].name == "resnet101"
    names = [e.name for _, e in search(["vit", "small"])]
    assert names[0].startswith("vit-small") and "deit-small-patch16-224" in names
    sizes = [e.parameters for _, e in search([], Wanted(fewest=20_000_000, most=30_000_000))]
    assert sizes and all(20_000_000 <= n <= 30_000_000 for n in sizes)
    found = search([], Wanted(task="classification"))
    assert found and all("classification" in task_of(a, e) for a, e in found)


# -- export ----------------------------------------------------------------------------------------


def test_export(desk, bestiary):
    code, out, _ = bestiary("export", str(MODEL), "-o", "m.onnx", "--json")
    assert code == 0
    told = json.loads(out)
    assert [Path(f).name for f in told["files"]] == ["m.onnx", "m.json"]
    assert told["inputs"]["pixel_values"][:2] == ["batch", 3]
    assert told["bytes"] == sum(Path(f).stat().st_size for f in told["files"])
    beside = json.loads((desk / "m.json").read_text())
    assert len(beside["labels"]) == told["outputs"]["output"][1]
    assert beside["preprocess"]["size"] == told["inputs"]["pixel_values"][2:]
    code, out, _ = bestiary("export", str(MODEL), "-o", "fixed.onnx", "--fixed")
    assert code == 0
    assert out.strip().endswith("fixed.onnx")
    code, _, err = bestiary("export", str(MODEL), "-o", "m.onnx", "--part", "text")
    assert code == 1
    assert "one network" in err


# -- convert ---------------------------------------------------------------------------------------


def test_convert(desk, bestiary):
    source = sorted(p for p in CHECKPOINTS.iterdir() if p.suffix in (".pt", ".bin", ".pth"))[0]
    shutil.copy(source, desk / "pytorch_model.bin")
    code, out, _ = bestiary("convert", "pytorch_model.bin")
    assert code == 0 and out.strip() == str(desk / "model.safetensors")
    expected = bt.weights.load("pytorch_model.bin")
    written = load_file("model.safetensors")
    assert set(written) == set(expected)
    for name, array in expected.items():
        assert array.dtype == written[name].dtype
        np.testing.assert_array_equal(array, written[name])
    with bt.weights.open_weights("model.safetensors") as file:
        assert file.metadata == {"format": "pt"}  # transformers asks for it
    code, _, err = bestiary("convert", "pytorch_model.bin")
    assert code == 1 and "--force" in err
    code, out, _ = bestiary("convert", "pytorch_model.bin", "--force", "--json")
    assert code == 0 and json.loads(out)["tensors"] == len(expected)


def test_convert_to_half_precision_and_to_a_folder(desk, bestiary):
    save_file({"w": np.ones((4, 4), np.float32), "n": np.arange(3)}, desk / "w.safetensors")
    assert bestiary("convert", "w.safetensors", "-o", "half", "--dtype", "float16")[0] == 0
    found = load_file("half/model.safetensors")
    assert found["w"].dtype == np.float16 and found["n"].dtype == np.int64


def test_convert_with_wrong_input(desk, bestiary):
    save_file({"w": np.ones(2, np.float32)}, desk / "w.safetensors")
    assert bestiary("convert", "nothing.pt")[0] == 2
    (desk / "page.bin").write_text("<html>")
    code, _, err = bestiary("convert", "page.bin")
    assert code == 1 and "HTML" in err
    code, _, err = bestiary("convert", "w.safetensors", "-o", "w.onnx")
    assert code == 1 and ".safetensors" in err
    code, _, err = bestiary("convert", "w.safetensors", "-o", "x", "--dtype", "int8")
    assert code == 1 and "no floating-point type" in err
    save_file({}, desk / "empty.safetensors")
    code, _, err = bestiary("convert", "empty.safetensors", "-o", "x")
    assert code == 1 and "no tensors" in err
    assert not (desk / "x").exists()


def test_nothing_in_a_checkpoint_runs(desk, bestiary):
    """ERRORS 27: what asks for an import is refused by name."""
    import pickle

    class Evil:
        def __reduce__(self):
            return (open, ("ran.txt", "w"))

    (desk / "evil.pt").write_bytes(pickle.dumps({"w": Evil()}))
    code, _, err = bestiary("convert", "evil.pt")
    assert code == 1 and "open" in err and not (desk / "ran.txt").exists()
    assert not (desk / "evil.safetensors").exists()
