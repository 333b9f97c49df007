"""Nothing of a repository is imported, compiled or run (TESTPLAN 16, ERRORS 27)."""

from __future__ import annotations

import json
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

MODEL = Path(__file__).parents[1] / "references" / "data" / "resnet-transformers-bottleneck"

# Loads a clean model first, so that all of the library is imported; what is seen afterwards comes
# from the second one. An audit hook cannot be removed, hence a process of its own.
WATCH = """
import os, sys
import bestiary as bt

bt.load(sys.argv[1])
seen = []
watched = ("import", "compile", "exec", "pickle.find_class", "subprocess.Popen", "os.system",
           "os.exec", "os.posix_spawn", "os.fork", "socket.connect")

def hook(event, arguments):
    if event in watched:
        seen.append((event, str(arguments)[:200]))

sys.addaudithook(hook)
try:
    bt.load(sys.argv[2])
except bt.errors.BestiaryError as error:
    message = str(error)
else:
    message = "loaded"
events = list(seen)
print(message)
for event in events:
    print("EVENT", *event)
"""


@pytest.fixture
def repository(tmp_path):
    """A model with everything in it that other tools might run."""
    folder = tmp_path / "repository"
    shutil.copytree(MODEL, folder, ignore=shutil.ignore_patterns("reference.safetensors"))
    config = json.loads((folder / "config.json").read_text())
    config["auto_map"] = {"AutoConfig": "configuration_evil.Evil", "AutoModel": "evil--m.Model"}
    config["trust_remote_code"] = True
    (folder / "config.json").write_text(json.dumps(config))
    marker = tmp_path / "ran"
    run = f"open({str(marker)!r}, 'w').close()\n"
    for name in (
        "__init__.py",
        "configuration_evil.py",
        "modeling_evil.py",
        "setup.py",
        "conftest.py",
        "sitecustomize.py",
        "bestiary.py",
        "numpy.py",
    ):
        (folder / name).write_text(run)
    return folder, marker


def watched(folder: Path) -> tuple[str, list[str]]:
    done = subprocess.run(
        [sys.executable, "-c", WATCH, str(MODEL), str(folder)],
        capture_output=True,
        text=True,
        cwd=folder.parent,
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    events = [line for line in lines if line.startswith("EVENT")]
    return "\n".join(line for line in lines if not line.startswith("EVENT")), events


def test_code_beside_the_weights(repository):
    folder, marker = repository
    message, events = watched(folder)
    assert message == "loaded" and events == []
    assert not marker.exists()


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.safetensors"])
def test_code_in_place_of_the_weights(repository, name):
    folder, marker = repository

    class Evil:
        def __reduce__(self):
            return (exec, (f"open({str(marker)!r}, 'w').close()",))

    (folder / "model.safetensors").unlink()
    (folder / name).write_bytes(pickle.dumps({"fc.weight": Evil()}))
    message, events = watched(folder)
    assert "loaded" not in message.splitlines()
    assert not [e for e in events if "EVENT import" not in e], events
    assert not [e for e in events if str(folder) in e], events
    assert not marker.exists()
    if name.endswith(".bin"):
        assert "exec" in message  # refused by name


def test_code_in_the_other_files(repository):
    folder, marker = repository
    tag = f"!!python/object/apply:os.system ['touch {marker}']"
    (folder / "README.md").write_text(f"---\nlicense: {tag}\ntags: {tag}\n---\n{{{{ 7*7 }}}}\n")
    (folder / "preprocessor_config.json").write_text(
        json.dumps({"image_processor_type": "os.system", "size": {"shortest_edge": 224}})
    )
    _, events = watched(folder)
    assert events == [] and not marker.exists()
