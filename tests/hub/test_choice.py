"""Which files of a repository are fetched (ZOO 3), by name alone and from a hub."""

from __future__ import annotations

import json

import hub_server
import numpy as np
import pytest

import bestiary as bt
from bestiary.core.errors import HubError, WeightsError
from bestiary.core.weights import save_file, save_sharded
from bestiary.hub import download
from bestiary.hub.choice import choose, shards, variants, weights_in
from bestiary.hub.download import cached, fetch
from bestiary.hub.registry import Entry, Hub
from bestiary.hub.repository import snapshot
from bestiary.hub.sources import Request, of_entry

REPO = "zoo/chosen"


def core(*names: str, variant: str | None = None) -> list[str] | None:
    chosen = choose(names, variant)
    return None if chosen is None else sorted(chosen.core)


def test_one_weight_file_in_the_order_of_trust():
    every = [
        "model.safetensors",
        "model.safetensors.index.json",
        "other.safetensors",
        "pytorch_model.bin",
        "model.pth",
    ]
    while every:
        assert core("config.json", *every) == ["config.json", every[0]]
        every.pop(0)
    assert core("config.json", "README.md") is None


def test_what_prepares_input_comes_along_and_nothing_else():
    names = [
        "config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "vocab.txt",
        "spiece.model", "merges.txt", "preprocessor_config.json", "generation_config.json",
        "chat_template.jinja", "special_tokens_map.json", "README.md", "LICENSE", "LICENSE.txt",
        "modeling.py", "flax_model.msgpack", "tf_model.h5", "model.onnx", "training_args.bin",
        "optimizer.bin", "runs/events.out", ".gitattributes", "onnx/model.onnx", "logs.json",
    ]  # fmt: skip
    chosen = choose(names)
    assert sorted(chosen.core) == ["config.json", "model.safetensors"]
    assert sorted(chosen.side) == sorted(names[2:11])
    assert sorted(chosen.also) == ["LICENSE", "LICENSE.txt", "README.md"]
    assert chosen.safe and not choose(["config.json", "pytorch_model.bin"]).safe


def test_parts_of_a_sentence_embedder():
    names = ["config.json", "model.safetensors", "modules.json", "1_Pooling/config.json"]
    names += ["2_Dense/config.json", "2_Dense/model.safetensors", "onnx/config.json"]
    assert core(*names) == [
        "1_Pooling/config.json",
        "2_Dense/config.json",
        "2_Dense/model.safetensors",
        "config.json",
        "model.safetensors",
    ]


def test_parts_of_a_pipeline():
    names = [
        "model_index.json",
        "unet/config.json",
        "unet/diffusion_pytorch_model.safetensors",
        "unet/diffusion_pytorch_model.fp16.safetensors",
        "unet/diffusion_pytorch_model.bin",
        "vae/config.json",
        "vae/diffusion_pytorch_model.safetensors",
        "scheduler/scheduler_config.json",
        "tokenizer/tokenizer_config.json",
        "tokenizer/merges.txt",
        "assets/picture.png",
        "v1-5-pruned.ckpt",
    ]
    chosen = choose(names)
    assert sorted(chosen.core) == [
        "model_index.json",
        "unet/config.json",
        "unet/diffusion_pytorch_model.safetensors",
        "vae/config.json",
        "vae/diffusion_pytorch_model.safetensors",
    ]
    assert sorted(chosen.side) == [
        "scheduler/scheduler_config.json",
        "tokenizer/merges.txt",
        "tokenizer/tokenizer_config.json",
    ]
    half = choose(names, "fp16").core
    assert "unet/diffusion_pytorch_model.fp16.safetensors" in half
    assert "vae/diffusion_pytorch_model.safetensors" in half  # it has no other


def test_a_pipeline_of_one_network_may_lie_in_one_folder():
    """As google/ddpm-cifar10-32 does."""
    names = [
        "README.md",
        "config.json",
        "diffusion_pytorch_model.bin",
        "diffusion_pytorch_model.safetensors",
        "model_index.json",
        "scheduler_config.json",
    ]
    chosen = choose(names)
    assert sorted(chosen.core) == [
        "config.json",
        "diffusion_pytorch_model.safetensors",
        "model_index.json",
    ]
    assert chosen.side == ["scheduler_config.json"]


@pytest.mark.parametrize(
    "name",
    [
        "model.fp16.safetensors",
        "model.fp16.safetensors.index.json",
        "model.safetensors.index.fp16.json",
        "diffusion_pytorch_model.fp16.safetensors",
        "pytorch_model.fp16.bin",
    ],
)
def test_variants(name):
    plain = ["config.json", "model.safetensors"]
    assert core(*plain, name) == plain
    assert core(*plain, name, variant="fp16") == sorted(["config.json", name])
    assert variants([*plain, name]) == ["fp16"]


def test_a_variant_that_is_not_there_names_those_that_are():
    with pytest.raises(HubError, match=r"(?s)variant 'fp16'.*Variants: bf16"):
        choose(["config.json", "model.safetensors", "model.bf16.safetensors"], "fp16")


def test_several_weight_files_are_ambiguous():
    with pytest.raises(WeightsError, match="none of which is the obvious one"):
        choose(["config.json", "a.safetensors", "b.safetensors"])


def test_shards_stand_in_the_folder_of_their_index():
    content = json.dumps({"weight_map": {"a": "x-1.safetensors", "b": "x-2.safetensors"}}).encode()
    names = ["unet/x-1.safetensors", "unet/x-2.safetensors", "x-2.safetensors"]
    assert shards(content, "unet/x.safetensors.index.json", names) == names[:2]
    with pytest.raises(WeightsError, match="missing"):
        shards(content, "x.safetensors.index.json", names)


# -- from a hub -----------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "repository"
    made.mkdir()
    (made / "config.json").write_text('{"model_type": "resnet"}')
    return made


@pytest.fixture
def hub(serve, folder, own_cache):
    served = serve({REPO: folder})
    bt.configure(endpoint=served.url, timeout=2.0, deadline=1.0)
    return served


def weights(path, value: float = 0.0) -> None:
    save_file({"weight": np.full(1000, value, np.float32)}, path)


def asked(hub) -> list[str]:
    return sorted(r.path.partition("?")[0].rpartition("/")[2] for r in hub.bodies())


def test_sharded_weights(hub, folder):
    arrays = {f"w{i}": np.full(1000, i, np.float32) for i in range(4)}
    save_sharded(arrays, folder, max_shard_bytes=9000)
    (folder / "model-00007-of-00009.safetensors").write_bytes(b"of another set")
    found = snapshot(REPO)
    names = [f"model-0000{n}-of-00002.safetensors" for n in (1, 2)]
    assert asked(hub) == ["config.json", *names, "model.safetensors.index.json"]
    loaded = bt.weights.load(found.folder)
    assert all((loaded[name] == value).all() for name, value in arrays.items())
    hub.forget()
    assert set(cached(REPO).files) == set(found.files) and not hub.log
    (found.folder / names[0]).unlink()
    assert cached(REPO) is None
    snapshot(REPO)
    assert not hub.bodies()  # the content was still there


def test_half_precision_on_request(hub, folder):
    weights(folder / "model.safetensors")
    weights(folder / "model.fp16.safetensors", 16)
    found = snapshot(REPO, variant="fp16")
    assert asked(hub) == ["config.json", "model.fp16.safetensors"]
    assert weights_in(found.folder, "fp16") == "model.fp16.safetensors"
    assert cached(REPO) is None and cached(REPO, variant="fp16") is not None
    hub.forget()
    snapshot(REPO)
    assert asked(hub) == ["model.safetensors"]
    assert weights_in(found.folder) == "model.safetensors"


def test_a_registered_pull_request_comes_before_a_checkpoint(hub, folder, tmp_path):
    import shutil

    (folder / "pytorch_model.bin").write_bytes(b"a pickle")
    offered = tmp_path / "offered"
    shutil.copytree(folder, offered)
    weights(offered / "model.safetensors")
    hub.revisions[REPO] = {"refs/pr/7": ("7" * 40, offered)}
    found = snapshot(REPO, pull_request=7)
    assert found.commit == "7" * 40 and "model.safetensors" in found.files
    assert "pytorch_model.bin" not in asked(hub)
    hub.forget()
    assert snapshot(REPO, pull_request=7).files == found.files and not hub.log
    # Once the repository itself has them, they are what is taken.
    weights(folder / "model.safetensors", 1)
    assert snapshot(REPO, pull_request=7, refresh=True).commit == hub_server.COMMIT


def test_a_pull_request_that_is_gone_leaves_the_checkpoint(hub, folder):
    (folder / "pytorch_model.bin").write_bytes(b"a pickle")
    assert "pytorch_model.bin" in snapshot(REPO, pull_request=7).files


def test_mirrors_are_further_sources(hub, folder):
    weights(folder / "model.safetensors")
    entry = Entry(name="chosen", sources=(Hub("zoo/vanished"), Hub(REPO)))
    found = of_entry(entry, Request())
    assert found.source == Hub(REPO) and "model.safetensors" in found.files
    hub.forget()
    assert of_entry(entry, Request()).path == found.path and not hub.log


def test_no_weights_at_all(hub, folder):
    (folder / "model.onnx").write_bytes(b"x")
    with pytest.raises(HubError, match=r"(?s)no weights that can be read.*model\.onnx"):
        snapshot(REPO)


def test_the_size_is_shown_before_anything_large(hub, folder, monkeypatch, capsys):
    weights(folder / "model.safetensors")
    monkeypatch.setattr(download, "_BIG", 1000)
    fetch(REPO, ["config.json"])
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(download, "_BIG", 10)
    fetch(REPO, ["model.safetensors"], quiet=True)
    assert capsys.readouterr().err == ""
    cached(REPO, filenames=["model.safetensors"]).files["model.safetensors"].resolve().unlink()
    fetch(REPO, ["model.safetensors"])
    assert capsys.readouterr().err == f"{REPO}: fetching 0 MB\n"


def test_progress_with_rates_in_a_pipe(hub, folder, monkeypatch, capsys):
    from bestiary.core.insight import progress

    (folder / "model.safetensors").write_bytes(b"x" * 400_000)
    monkeypatch.setattr(progress, "LINE_INTERVAL", 0.0)
    monkeypatch.setattr(download, "progress", lambda **given: progress.progress(**given, delay=0.0))
    fetch(REPO, ["config.json", "model.safetensors"])
    lines = capsys.readouterr().err.splitlines()
    assert lines[-1].startswith(f"fetching {REPO}: 400 kB of 400 kB (100%), ")
    assert "/s" in lines[-1] and len(lines) > 2
    monkeypatch.setenv("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    fetch(REPO, ["config.json", "model.safetensors"], refresh=True)
    assert capsys.readouterr().err == ""
