"""RRDBNet and the Upscaler: sizes, tiles, checkpoints, the command, bad input."""

import json

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

import bestiary as bt
from bestiary.core.errors import ConfigError, ShapeError, WeightsError
from bestiary.core.weights import save_file
from bestiary.generative.esrgan import Config, RRDBNet
from bestiary.generative.tasks.upscaler import Upscaler
from bestiary.hub.card import Card
from bestiary.hub.commands.upscale import upscale_command

SMALL = {"num_feat": 6, "num_block": 1, "num_grow_ch": 3}


def upscaler(scale=4):
    bt.manual_seed(0)
    config = Config(scale=scale, **SMALL)
    card = Card(name="small", architecture="rrdbnet", task=Upscaler.task)
    return Upscaler(RRDBNet(config).eval(), config=config, card=card)


def photo(height=13, width=18):
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def test_names_and_number_of_parameters_are_those_of_x4plus():
    with bt.nn.init.empty():
        net = RRDBNet(Config())
    names = dict(net.named_parameters())
    assert sum(p.size for p in names.values()) == 16_697_987
    assert names["body.22.rdb3.conv5.weight"].shape == (64, 192, 3, 3)
    assert len(names) == 2 * (6 + 23 * 15)


@pytest.mark.parametrize("scale", [1, 2, 4])
def test_sizes_and_gradients(scale):
    bt.manual_seed(0)
    net = RRDBNet(Config(scale=scale, **SMALL))
    out = net(bt.tensor(np.random.default_rng(0).random((2, 3, 8, 12)).astype("f4")))
    assert out.shape == (2, 3, 8 * scale, 12 * scale)
    bt.sum(out * out).backward()
    for name, p in net.named_parameters():
        assert p.grad is not None and np.abs(p.grad.numpy()).max() > 0, name


@pytest.mark.parametrize("scale", [1, 2, 4])
def test_tiles_make_the_same_picture(scale):
    model = upscaler(scale)
    whole = np.asarray(model(photo(40, 50), tile=64)).astype(int)
    tiles = np.asarray(model(photo(40, 50), tile=16, overlap=24)).astype(int)
    assert whole.shape == (40 * scale, 50 * scale, 3)
    assert np.abs(whole - tiles).max() <= 1
    # and the overlap is needed for it
    bare = np.asarray(model(photo(40, 50), tile=16, overlap=0)).astype(int)
    assert np.abs(whole - bare).max() > 1


def test_pixels_are_as_the_network_says():
    model = upscaler()
    x = np.asarray(photo(), np.float32).transpose(2, 0, 1)[None] / 255
    with bt.no_grad():
        wanted = np.clip(model.module(bt.tensor(x)).numpy()[0], 0, 1).transpose(1, 2, 0)
    assert (np.asarray(model(photo())) == np.round(wanted * 255)).all()
    assert len(model([photo(), photo()])) == 2


@pytest.mark.parametrize("prefix", ["", "params_ema."])
def test_checkpoints_tell_their_sizes(tmp_path, prefix):
    model = upscaler(2)
    state = {prefix + k: v.numpy() for k, v in model.module.state_dict().items()}
    if prefix:
        state |= {"params.conv_first.weight": np.zeros((1, 1, 3, 3), "f4")}
    save_file(state, tmp_path / "net.safetensors")
    found = Upscaler.from_checkpoint(tmp_path / "net.safetensors")
    assert found.config == model.config
    assert (np.asarray(found(photo())) == np.asarray(model(photo()))).all()
    save_file({"weight": np.zeros(3, "f4")}, tmp_path / "other.safetensors")
    with pytest.raises(WeightsError, match="no RRDBNet"):
        Upscaler.from_checkpoint(tmp_path / "other.safetensors")


def test_the_command(tmp_path):
    folder = upscaler().save(tmp_path / "model")
    photo().save(tmp_path / "photo.png")
    run = CliRunner().invoke(
        upscale_command, [str(tmp_path / "photo.png"), "--model", str(folder), "--json"]
    )
    assert run.exit_code == 0, run.output
    (said,) = json.loads(run.stdout)
    assert said["size"] == [72, 52]
    with Image.open(tmp_path / "photo-x4.png") as made:
        assert made.size == (72, 52)
    missing = CliRunner().invoke(upscale_command, ["nowhere.png", "--model", str(folder)])
    assert missing.exit_code == 2 and "nowhere.png" in missing.output


def test_bad_input():
    with pytest.raises(ConfigError, match="scale"):
        Config(scale=3)
    with pytest.raises(ConfigError, match="num_block"):
        Config(num_block=0)
    model = upscaler(2)
    with pytest.raises(ShapeError, match="pictures"):
        model.module(bt.zeros((1, 4, 8, 8)))
    with pytest.raises(ShapeError, match="multiples of 2"):
        model.module(bt.zeros((1, 3, 7, 8)))
    with pytest.raises(ConfigError, match="tile"):
        model(photo(), tile=0)
    with pytest.raises(ConfigError, match="overlap"):
        model(photo(), overlap=-1)
