"""Models that other installed distributions offer: built, installed and loaded for real."""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

import bestiary as bt
from bestiary.core.errors import HubError
from bestiary.core.notice import forget_warnings
from bestiary.hub import plugins, registry

MODEL = Path(__file__).parents[1] / "references" / "data" / "resnet-timm-basic"

PYPROJECT = """
[build-system]
requires = ["setuptools>=61"]
build-backend = "setuptools.build_meta"

[project]
name = "acme-models"
version = "1.2.0"

[project.entry-points."bestiary.models"]
acme = "acme_models"

[tool.setuptools]
packages = ["acme_models"]

[tool.setuptools.package-data]
acme_models = ["bestiary.json", "widgets/*"]
"""

DESCRIPTION: dict[str, Any] = {
    "bestiary": 1,
    "models": [
        {
            "name": "acme-widgets",
            "architecture": "resnet",
            "aliases": ["widgets"],
            "license": "CC-BY-NC-4.0",
            "commercial": False,
            "parameters": 21_000,
            "note": "finds broken widgets",
            "metric": {
                "name": "% top-1",
                "value": 93.5,
                "dataset": "Acme widgets",
                "resolution": 64,
                "source": "https://acme.example/widgets",
            },
            "sources": [{"folder": "widgets"}, {"repo": "acme/widgets", "revision": "main"}],
        }
    ],
}


def source_tree(folder: Path, description: Any = DESCRIPTION) -> Path:
    """The sources of a sample distribution, as the documentation says."""
    package = folder / "acme_models"
    package.mkdir(parents=True)
    (folder / "pyproject.toml").write_text(PYPROJECT)
    # Importing it would be noticed.
    (package / "__init__.py").write_text("raise SystemExit('the plugin was imported')\n")
    (package / "bestiary.json").write_text(json.dumps(description))
    shutil.copytree(
        MODEL, package / "widgets", ignore=shutil.ignore_patterns("reference.safetensors")
    )
    return folder


def installed(target: Path, description: Any = DESCRIPTION) -> Path:
    """What pip would leave behind, written by hand: quick."""
    source = source_tree(target / "src", description)
    site = target / "site"
    shutil.copytree(source / "acme_models", site / "acme_models")
    info = site / "acme_models-1.2.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-models\nVersion: 1.2.0\n")
    (info / "entry_points.txt").write_text("[bestiary.models]\nacme = acme_models\n")
    return site


@pytest.fixture
def offered(tmp_path, monkeypatch):
    """Install a description into a folder on this process's path."""

    def install(description: Any = DESCRIPTION) -> Path:
        site = installed(tmp_path, description)
        monkeypatch.syspath_prepend(site)
        registry.forget_offers()
        forget_warnings()
        return site

    yield install
    registry.forget_offers()
    forget_warnings()


LOADS = """
import sys
import bestiary as bt

assert "acme-widgets" in bt.list_models("acme*"), bt.list_models()
model = bt.load("Acme_Widgets")
assert "acme_models" not in sys.modules
print(len(model.labels), model.card.source, bt.load("widgets").card.license)
"""


@pytest.mark.parametrize("editable", [False, True])
def test_built_installed_and_loaded(tmp_path, editable):
    source = source_tree(tmp_path / "source")
    python = sys.executable
    env = {**os.environ, "BESTIARY_HOME": str(tmp_path / "home"), "PIP_NO_INDEX": "1"}
    pip = [python, "-m", "pip", "--disable-pip-version-check", "-q"]
    if editable:
        target = tmp_path / "site"
        shutil.copytree(source, tmp_path / "work")
        # An editable installation: the metadata lies in one folder, the package in another.
        build = [*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", str(tmp_path), source]
        subprocess.run(build, check=True, env=env, capture_output=True)
        (wheel,) = tmp_path.glob("*.whl")
        target.mkdir()
        with zipfile.ZipFile(wheel) as archive:
            for name in archive.namelist():
                if ".dist-info/" in name:
                    (target / name).parent.mkdir(exist_ok=True)
                    (target / name).write_bytes(archive.read(name))
        paths = [target, tmp_path / "work"]
    else:
        target = tmp_path / "site"
        build = [*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", str(tmp_path), source]
        subprocess.run(build, check=True, env=env, capture_output=True)
        (wheel,) = tmp_path.glob("*.whl")
        subprocess.run(
            [*pip, "install", "--no-deps", "--target", str(target), wheel], check=True, env=env
        )
        paths = [target]
    path = os.pathsep.join([*map(str, paths), *env.get("PYTHONPATH", "").split(os.pathsep)])
    done = subprocess.run(
        [python, "-W", "error", "-c", LOADS],
        env={**env, "PYTHONPATH": path},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "7 the distribution acme-models 1.2.0 CC-BY-NC-4.0"


def test_listed_with_its_facts(offered):
    offered()
    facts = bt.info("acme-widgets")
    assert facts["commercial"] is False and facts["metric"]["value"] == 93.5
    assert facts["sources"][0]["kind"] == "installed"
    assert facts["sources"][1] == {
        "kind": "hub",
        "repo": "acme/widgets",
        "revision": "main",
        "pull_request": None,
    }
    assert "acme-widgets" in bt.list_models(commercial=False)
    assert "acme-widgets" not in bt.list_models(commercial=True)
    with pytest.raises(HubError, match="acme-widgets"):
        registry.get("acme-wigdets")


def test_loading_and_building_untrained(offered):
    offered()
    model = bt.load("acme-widgets")
    expected = bt.load(MODEL)
    for name, value in expected.module.state_dict().items():
        assert (value.numpy() == model.module.state_dict()[name].numpy()).all()
    assert bt.load("acme-widgets", weights=False, num_classes=2).labels == ["class 0", "class 1"]


def test_our_own_names_come_first(offered):
    description = json.loads(json.dumps(DESCRIPTION))
    description["models"][0]["name"] = "resnet18"
    offered(description)
    assert registry.get("resnet18")[1].sources[0].kind == "hub"
    assert sum(e.name == "resnet18" for _, e in registry.entries()) == 1


def test_an_architecture_that_is_not_there(offered):
    description = json.loads(json.dumps(DESCRIPTION))
    description["models"][0]["architecture"] = "perceiver"
    offered(description)
    with pytest.warns(UserWarning, match="'perceiver', which this version does not have"):
        assert "acme-widgets" not in bt.list_models()


def model(**changes: Any) -> Any:
    changed = {**DESCRIPTION["models"][0], **changes}
    return {"bestiary": 1, "models": [{k: v for k, v in changed.items() if v != "absent"}]}


@pytest.mark.parametrize(
    "description, word",
    [
        ([], '"bestiary": 1'),
        ({"bestiary": 2, "models": []}, '"bestiary": 1'),
        ({"bestiary": 1, "models": {}}, "a list"),
        ({"bestiary": 1, "models": [], "run": "setup.py"}, "nothing else"),
        ({"bestiary": 1, "models": [3]}, "no JSON object"),
        (model(name="absent"), "missing: name"),
        (model(sources="absent"), "missing: sources"),
        (model(sources=[]), "empty"),
        (model(factory="acme_models:build"), "unknown keys: factory"),
        (model(name="../x"), "is no name"),
        (model(name=3), "name is 3"),
        (model(aliases=["a/b"]), "is no name"),
        (model(parameters=True), "parameters is True"),
        (model(commercial="yes"), "commercial is 'yes'"),
        (model(sources=[{"folder": "../../elsewhere"}]), "not the name of a file"),
        (model(sources=[{"folder": "/etc"}]), "not the name of a file"),
        (model(sources=[{"folder": "nothing"}]), r"no config\.json"),
        (model(sources=[{"repo": "../x"}]), "no id of a repository"),
        (model(sources=[{"repo": "a/b", "revision": "../x"}]), "no revision"),
        (model(sources=[{"url": "https://x"}]), "a source has the keys"),
        (model(sources=["widgets"]), "a source is"),
        (model(metric={"name": "x"}), "metric: value"),
    ],
)
def test_descriptions_that_make_no_sense_are_left_out(offered, description, word):
    """One bad distribution does not take `bestiary list` from everybody."""
    offered(description)
    with pytest.warns(UserWarning, match=f"acme-models offers are left out: .*{word}"):
        names = bt.list_models()
    assert "resnet18" in names and "acme-widgets" not in names


@pytest.mark.parametrize("value", ["acme_models:build", "os.path", "../x", "no_such_package"])
def test_entry_points_that_name_no_package_with_a_description(offered, value, monkeypatch):
    site = offered()
    (site / "acme_models-1.2.0.dist-info" / "entry_points.txt").write_text(
        f"[bestiary.models]\nacme = {value}\n"
    )
    with pytest.warns(UserWarning, match="are left out"):
        assert plugins.offers() == []


def test_the_documented_example_makes_sense(tmp_path):
    """The JSON block of docs/publishing.md, as a distribution."""
    page = (Path(__file__).parents[2] / "docs" / "publishing.md").read_text(encoding="utf-8")
    assert '[project.entry-points."bestiary.models"]' in page
    (block,) = re.findall(r"```json\n(.*?)```", page, re.DOTALL)
    site = installed(tmp_path, json.loads(block))
    distribution = importlib.metadata.Distribution.at(site / "acme_models-1.2.0.dist-info")
    (offer,) = plugins._offers_of(distribution, "acme_models")
    assert offer.entry.name == "acme-widgets" and offer.architecture == "resnet"
    given = json.loads(block)["models"][0]
    assert set(given) >= {"name", "architecture", "sources", "license", "commercial", "metric"}
