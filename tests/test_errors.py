"""Mistakes that people make, and what they read: one row for each, numbered in ROWS.

A row makes the mistake; the test asserts the class of the exception, the words and the facts that
the message must hold, and that it has at most 12 lines. More of rows 21 (memory that runs out) and
22 (a loss that is no number) is in tests/core/training: test_exhaustion.py, test_tracing.py.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

import bestiary as bt
from bestiary import nn, optim
from bestiary.core import callers, notice
from bestiary.core.errors import (
    BestiaryError,
    ConfigError,
    DataError,
    DeviceError,
    DtypeError,
    GradError,
    HubError,
    IndexRangeError,
    OutOfMemoryError,
    ShapeError,
    WeightsError,
)
from bestiary.core.nn import functional as F
from bestiary.data import DataLoader, Dataset
from bestiary.hub import problems, settings
from bestiary.hub.cli import _run
from bestiary.training import Trainer

ROOT = Path(__file__).resolve().parent
DATA = ROOT / "references" / "data"
HERE = Path(__file__).name


@dataclass
class Row:
    """One mistake. `make` is called with the test's folder and raises."""

    number: int
    what: str
    make: Callable[[Path], Any]
    kind: type[Exception]
    words: tuple[str, ...]
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def id(self) -> str:
        return f"{self.number:02}-{self.what.replace(' ', '-')}"


class Net(nn.Module):
    """A convolution, flattened into a layer that does not fit."""

    def __init__(self) -> None:
        self.conv = nn.Conv2d(3, 64, 3)
        self.fc1 = nn.Linear(256, 10)

    def forward(self, x: bt.Tensor) -> bt.Tensor:
        x = self.conv(x)
        return self.fc1(x.reshape(x.shape[0], -1))


def fake_device() -> Any:
    """A device that is none of this machine: tests/core/ops/fake_device.py."""
    file = ROOT / "core" / "ops" / "fake_device.py"
    spec = importlib.util.spec_from_file_location("fake_device_of_errors", file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def two_devices(_: Path) -> None:
    fake = fake_device()
    with fake.fake_device():
        layer = nn.Linear(2, 2)
        for name, parameter in layer.named_parameters():
            parameter._node.name = name
        layer(bt.Tensor(fake.FakeArray(np.ones((1, 2), np.float32))))


def from_another_device(_: Path) -> None:
    fake = fake_device()
    with fake.fake_device():
        x = bt.Tensor(fake.FakeArray(np.ones(2, np.float32))).requires_grad_()
        (x * 2).numpy()


def changed_in_place(_: Path) -> None:
    w = bt.ones((3,)).requires_grad_()
    y = bt.exp(w)
    y[0] = 5.0
    y.sum().backward()


def backward_twice(_: Path) -> None:
    w = bt.ones((3,)).requires_grad_()
    loss = (w * w).sum()
    loss.backward()
    loss.backward()


def write_to_a_leaf(_: Path) -> None:
    w = nn.Parameter(bt.ones((3,)))
    try:
        w[0] = 2.0
    finally:
        assert w.detach().tolist() == [1.0, 1.0, 1.0]


def add_to_a_parameter(_: Path) -> None:
    layer = nn.Linear(2, 2)
    layer.weight += 1


def an_array_for_a_parameter(_: Path) -> None:
    layer = nn.Linear(2, 2)
    layer.weight = np.ones((2, 2), np.float32)


def under_no_grad(_: Path) -> None:
    with bt.no_grad():
        nn.Linear(2, 1)(bt.ones((1, 2))).sum().backward()


def prefixed(_: Path) -> None:
    net = Net()
    net.load_state_dict({f"module.{k}": v for k, v in net.state_dict().items()})


def misspelt(_: Path) -> None:
    net = Net()
    names = {"conv.weight": "conv1.weight", "conv.bias": "conv1.bias"}
    net.load_state_dict({names.get(k, k): v for k, v in net.state_dict().items()})


class Broken(Dataset[Any]):
    """Its sample 5 cannot be read."""

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> int:
        if index == 5:
            raise OSError("disk gone")
        return index

    def file_of(self, index: int) -> str:
        return f"/data/{index}.jpg"


def unequal(folder: Path) -> None:
    (folder / "all" / "cat").mkdir(parents=True)
    for name, size in (("1.png", (8, 8)), ("2.png", (9, 8))):
        Image.new("RGB", size).save(folder / "all" / "cat" / name)
    images = bt.data.ImageFolder(
        folder / "all", transform=lambda im: np.asarray(im).transpose(2, 0, 1)
    )
    list(DataLoader(images, 2))


def foreign_tokens(_: Path) -> None:
    model = bt.load(DATA / "generation-gpt2")
    ids = np.full((1, 3), 60_000)
    from bestiary.text.tokens.checks import check_ids

    check_ids(ids, 512, tokenizer=model.tokenizer, model="generation-gpt2")


def a_long_prompt(_: Path) -> None:
    bt.load(DATA / "generation-gpt2")("word " * 200)


class Evil:
    """Runs when it is unpickled by something that runs pickles."""

    def __reduce__(self) -> Any:
        return os.mkdir, ("ran",)


def code_in_a_checkpoint(folder: Path) -> None:
    import pickle

    (folder / "evil.pt").write_bytes(pickle.dumps({"w": Evil()}))
    try:
        bt.weights.load(folder / "evil.pt")
    finally:
        assert not Path("ran").exists() and not (folder / "ran").exists()


def a_pointer(folder: Path) -> None:
    text = b"version https://git-lfs.github.com/spec/v1\noid sha256:%s\nsize 438007537\n"
    (folder / "model.safetensors").write_bytes(text % (b"0" * 64))
    bt.weights.load(folder / "model.safetensors")


def a_web_page(folder: Path) -> None:
    page = b"<!DOCTYPE html><html><title>Sign in</title></html>"
    (folder / "model.safetensors").write_bytes(page)
    bt.weights.load(folder / "model.safetensors")


def half_a_file(folder: Path) -> None:
    bt.weights.save_file({"w": np.ones(1000, np.float32)}, folder / "model.safetensors")
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[:2000])
    bt.weights.load(folder / "model.safetensors")


def gated(_: Path) -> None:
    answer = SimpleNamespace(
        response=SimpleNamespace(headers={"x-error-code": "GatedRepo"}), status=403
    )
    raise problems.status_error(answer, "meta-llama/Llama-3.2-1B", None, has_token=False)


def offline(_: Path) -> None:
    bt.configure(offline=True)
    bt.load("zoo/small")


def out_of_reach(_: Path) -> None:
    bt.configure(
        endpoint="http://127.0.0.1:9",
        connect=1.0,
        deadline=0.5,
        timeout=1.0,
    )
    bt.load("zoo/small")


def without_gpu(_: Path) -> None:
    if bt.cuda_is_available():
        pytest.skip("this machine has a GPU")
    bt.zeros((1,), device="cuda")


def unknown_setting(folder: Path) -> None:
    shutil.copytree(DATA / "vit-transformers", folder / "vit")
    file = folder / "vit" / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"fancy_attention": True}))
    bt.load(folder / "vit")


def float64_data(_: Path) -> None:
    nn.Linear(3, 2)(bt.Tensor(np.random.default_rng(0).normal(size=(4, 3))))


def trained(**given: Any) -> None:
    layer = nn.Linear(2, 2)
    parts: dict[str, Any] = {
        "module": layer,
        "optimizer": optim.SGD(layer.parameters(), lr=0.1),
        "loss": lambda module, batch: module(bt.ones((1, 2))).sum(),
        "batches": [1, 2],
        "epochs": 1,
        "quiet": True,
    }
    Trainer(**parts | given).fit()


def memory_runs_out(_: Path) -> None:
    """64 samples do not fit, 8 do."""
    layer = nn.Linear(4, 2)

    def loss(module: nn.Module, batch: bt.Tensor) -> bt.Tensor:
        if batch.shape[0] > 8:
            raise MemoryError("Unable to allocate 1.00 GiB")
        return module(batch).sum()

    optimizer = optim.Adam(layer.parameters(), lr=0.1)
    trained(module=layer, optimizer=optimizer, loss=loss, batches=[bt.ones((64, 4))])


class Measured(nn.Module):
    """A layer whose third answer is of a logarithm of less than nothing."""

    def __init__(self) -> None:
        self.head = nn.Linear(2, 2)
        self.calls = 0

    def forward(self, x: bt.Tensor) -> bt.Tensor:
        self.calls += 1
        x = self.head(x)
        return x if self.calls < 3 else bt.log(-bt.abs(x))


def no_number(_: Path) -> None:
    net = nn.Sequential(Measured())
    trained(module=net, optimizer=optim.SGD(net.parameters(), lr=0.05), batches=[1, 2, 3, 4],
            clip_norm=1.0)  # fmt: skip


conv = nn.Conv2d(3, 8, 3)
logits = bt.zeros((4, 3))
frozen = nn.Linear(2, 2).requires_grad_(False)
needs = bt.ones((3,)).requires_grad_()
x = bt.ones((2, 3))

ROWS = [
    Row(
        1, "a layer of another width", lambda _: Net().eval()(bt.zeros((2, 3, 8, 8))), ShapeError,
        ("fc1", "256", "2304", "64x6x6", "Linear(2304, 10)"),
        {"expected": 256, "got": 2304, "before": (64, 6, 6), "module_path": "fc1"},
    ),
    Row(
        2, "two devices", two_devices, DeviceError,
        ("weight", "fake", "cpu", "x.to(model.device)"), {"devices": ["cpu", "fake"]},
    ),
    Row(
        3, "float targets", lambda _: F.cross_entropy(logits, bt.zeros((4,))), DtypeError,
        ("integer class ids", "float32", "Soft labels", "(4, 3)"), {"got": "float32"},
    ),
    Row(
        3, "targets and logits exchanged",
        lambda _: F.cross_entropy(bt.tensor([0, 1]), bt.zeros((2, 3))), DtypeError,
        ("cross_entropy(logits, target)", "int64"), {"got": "int64"},
    ),
    Row(
        3, "fewer targets than rows",
        lambda _: F.cross_entropy(logits, bt.tensor([0, 1])), ShapeError,
        ("(4, 3)", "(2,)", "One target for each row"), {"expected": (4,), "got": (2,)},
    ),
    Row(
        4, "a target out of range",
        lambda _: F.cross_entropy(logits, bt.tensor([1, 2, 3, 1])), IndexRangeError,
        ("target 3 at index 2", "3 classes", "target - 1"),
        {"value": 3, "index": (2,), "classes": 3},
    ),
    Row(
        5, "no batch axis", lambda _: conv(bt.ones((3, 32, 32))), ShapeError,
        ("(3, 32, 32)", "x[None]"), {"got": (3, 32, 32)},
    ),
    Row(
        6, "channels last", lambda _: conv(bt.ones((1, 32, 32, 3))), ShapeError,
        ("last axis has 3", "bt.permute_dims(x, (0, 3, 1, 2))"), {"got": (1, 32, 32, 3)},
    ),
    Row(
        7, "a grey image", lambda _: conv(bt.ones((1, 1, 32, 32))), ShapeError,
        ("in_channels=1", "convert('RGB')"), {"expected": 3},
    ),
    Row(
        7, "a grey image for a network of the zoo",
        lambda _: bt.load("resnet-cifar10").module(bt.ones((1, 1, 32, 32))), ShapeError,
        ("in_channels=1", 'convert("RGB")'), {"got": (1, 1, 32, 32)},
    ),
    Row(
        8, "changed in place", changed_in_place, GradError,
        ("exp saved it at", "it was written at", "bt.where", ".clone()", HERE), {"op": "exp"},
    ),
    Row(
        9, "backward twice", backward_twice, GradError,
        (".detach()", "(loss1 + loss2)", "retain_graph=True", HERE), {"op": "sum"},
    ),
    Row(
        10, "a write to a leaf", write_to_a_leaf, GradError,
        ("bt.assign(x, value)", "optimizer", ".clone()"), {"shape": (3,)},
    ),
    Row(
        10, "a sum in place of a parameter", add_to_a_parameter, GradError,
        ("Linear.weight", "bt.assign(m.weight", "optimizer"), {"name": "weight"},
    ),
    Row(
        10, "an array in place of a parameter", an_array_for_a_parameter, GradError,
        ("Linear.weight", "nn.Parameter("), {"name": "weight"},
    ),
    Row(
        11, "a loss without a graph", lambda _: frozen(bt.ones((1, 2))).sum().backward(),
        GradError, ("frozen", "requires_grad_(True)", "no_grad", ".item()", ".numpy()"),
        {"shape": ()},
    ),
    Row(11, "under no_grad", under_no_grad, GradError, ("under no_grad",), {"shape": ()}),
    Row(
        12, "backward of many values", lambda _: (needs * 2).backward(), GradError,
        ("(3,)", ".mean()", "loss.backward(bt.ones((3,)))"), {"shape": (3,)},
    ),
    Row(
        13, "numpy of a tensor with a graph", lambda _: (needs * 2).numpy(), GradError,
        ("x.detach().numpy()",), {"steps": [".detach()"]},
    ),
    Row(
        13, "numpy of a tensor elsewhere", from_another_device, GradError,
        ("x.detach().cpu().numpy()", "fake"), {"steps": [".detach()", ".cpu()"]},
    ),
    Row(
        14, "nothing to train", lambda _: optim.SGD(frozen.parameters(), lr=0.1), ConfigError,
        ("2 parameters", "6 numbers", "frozen"), {"given": 2, "frozen": 2},
    ),
    Row(
        14, "no parameters at all", lambda _: optim.Adam([]), ConfigError,
        ("0 parameters", "tuple", "closure"), {"given": 0},
    ),
    Row(
        15, "names with a prefix", prefixed, WeightsError,
        ("conv.weight", "only have 'module.' in front", "removeprefix('module.')"),
        {"prefix": "module.", "missing": ["conv.weight", "conv.bias", "fc1.weight", "fc1.bias"]},
    ),
    Row(
        15, "names that are similar", misspelt, WeightsError,
        ("conv1.weight -> conv.weight", "conv1.bias -> conv.bias"), {"prefix": None},
    ),
    Row(
        15, "a checkpoint around the names",
        lambda _: Net().load_state_dict({"epoch": 3, "model": {}}), WeightsError,
        ("checkpoint['model']",), {"inner": "model"},
    ),
    Row(
        16, "a head of another size",
        lambda _: nn.Linear(4, 20).load_state_dict(nn.Linear(4, 10).state_dict()), WeightsError,
        ("10 outputs in the file and 20", "num_classes=20"), {"missing": []},
    ),
    Row(
        20, "batch norm of one sample", lambda _: nn.BatchNorm1d(4)(bt.ones((1, 4))), ShapeError,
        ("(1, 4)", "1201 samples % 4 leave 1", "drop_last=True", "eval()"), {"got": (1, 4)},
    ),
    Row(
        21, "memory that runs out", memory_runs_out, OutOfMemoryError,
        ("parameters", "gradients", "optimizer", "activations", "batch_size=", "accumulate="),
        {"parameters": 40, "gradients": 40, "batch_size": 64},
    ),
    Row(
        22, "a loss that is no number", no_number, GradError,
        ("nan at step 3", "log", "learning rate 0.05", "gradient norms", "(step 2)"),
        {"op": "log", "module": "0", "direction": "forward", "step": 3, "lr": 0.05},
    ),
    Row(
        23, "a sample that cannot be read", lambda _: list(DataLoader(Broken(), 4, workers=2)),
        DataError, ("sample 5", "/data/5.jpg", "disk gone", "in __getitem__", HERE),
        {"index": 5, "file": "/data/5.jpg", "error": "OSError"},
    ),
    Row(
        24, "samples of unequal shape", unequal, ShapeError,
        ("1.png", "2.png", "(3, 8, 8)", "(3, 8, 9)", "Resize((224, 224))"),
        {"indices": (0, 1), "shapes": ((3, 8, 8), (3, 8, 9))},
    ),
    Row(
        25, "a token beyond the vocabulary", foreign_tokens, IndexRangeError,
        ("60000", "512", "generation-gpt2"),
        {"id": 60_000, "vocab_size": 512, "model": "generation-gpt2"},
    ),
    Row(
        25, "an id beyond a table",
        lambda _: nn.Embedding(100, 8)(bt.tensor([[5, 100]])), IndexRangeError,
        ("id 100 at index (0, 1)", "100 entries", "Embedding(101"),
        {"value": 100, "vocabulary": 100},
    ),
    Row(26, "a long prompt", a_long_prompt, ShapeError, ("> 96", "Truncate", "chunks"),
        {"expected": 96}),
    Row(27, "code in a checkpoint", code_in_a_checkpoint, WeightsError, ("mkdir", "evil.pt")),
    Row(
        28, "a pointer to weights", a_pointer, WeightsError,
        ("Git-LFS pointer", "438,007,537", "git lfs pull"), {"expected": 438_007_537},
    ),
    Row(28, "a web page for weights", a_web_page, WeightsError, ("HTML page", "bytes")),
    Row(28, "half a file", half_a_file, WeightsError, ("truncated", "2,000")),
    Row(
        29, "a gated repository", gated, HubError,
        ("gated", "https://huggingface.co/meta-llama/Llama-3.2-1B", "not found", "Nearest open"),
        {"reason": "gated", "repo": "meta-llama/Llama-3.2-1B"},
    ),
    Row(
        30, "offline and not cached", offline, HubError,
        ("offline=True", "Looked in", "cache", "bestiary pull zoo/small"), {"reason": "offline"},
    ),
    Row(
        31, "an unknown name", lambda _: bt.load("resnet-fasion"), HubError,
        ("resnet-fashion", "Nearest"), {"name": "resnet-fasion"},
    ),
    Row(
        32, "no GPU", without_gpu, DeviceError, ("none can be used", "device='cpu'"),
    ),
    Row(
        33, "a base model asked to chat",
        lambda _: bt.load(DATA / "generation-gpt2").chat([{"role": "user", "content": "Hi"}]),
        ConfigError, ("no chat template", "base model", "instruct"),
    ),
    Row(
        34, "matrices that do not fit", lambda _: bt.ones((2, 3)) @ bt.ones((4, 5)), ShapeError,
        ("(2, >3<)", "(>4<, 5)"), {"expected": 3, "got": 4},
    ),
    Row(
        35, "an unknown key", unknown_setting, ConfigError, ("fancy_attention",),
    ),
    Row(
        36, "float64 data", float64_data, DtypeError,
        ("x is float64", "weight is float32", "NumPy", ".astype(bt.float32)"),
        {"dtypes": {"x": "float64", "weight": "float32"}},
    ),
    Row(
        37, "the hub out of reach", out_of_reach, HubError,
        ("could not be reached", "Tried", "efficientnet-lite0"), {"reason": "unreachable"},
    ),
    Row(38, "view", lambda _: x.view(3, 2), AttributeError, ("x.reshape(...)",)),
    Row(38, "dim", lambda _: bt.sum(x, dim=0), TypeError, ("axis=",)),
    Row(38, "unsqueeze", lambda _: x.unsqueeze(0), AttributeError, ("x[None]",)),
    Row(38, "cat", lambda _: bt.cat([x, x]), AttributeError, ("bt.concat([x, y], axis=0)",)),
]  # fmt: skip


# What is in no row: what newcomers and users of PyTorch do on their first day.
MORE = [
    Row(
        0, "an image for a layer", lambda _: conv(Image.new("RGB", (8, 8))), DtypeError,
        ("Pillow image", "bt.load(name)(image)", "bt.permute_dims"), {"got": "Image"},
    ),
    Row(
        0, "None for a layer", lambda _: nn.Linear(2, 2)(None), DtypeError,
        ("None", "return its result"), {"got": "NoneType"},
    ),
    Row(
        0, "a path for a layer", lambda _: conv("photo.jpg"), DtypeError,
        ("'photo.jpg'", "bt.load(name)(path)"), {"got": "str"},
    ),
    Row(0, "a list for an operation", lambda _: bt.sum([1, 2]), DtypeError, ("bt.tensor(...)",)),
    Row(0, "a sum with None", lambda _: x + None, DtypeError, ("None", "return its result")),
    Row(0, "a difference with a tuple", lambda _: (1, 2, 3) - x, DtypeError, ("bt.tensor(...)",)),
    Row(
        0, "lists of unequal length", lambda _: bt.tensor([[1, 2], [3]]), DtypeError,
        ("[0] has 2, [1] has 1", "pad"), {"sizes": [2, 1]},
    ),
    Row(
        0, "texts for numbers", lambda _: bt.tensor(["cat", "dog"]), DtypeError,
        ("no numbers", "enumerate(names)"), {"got": "<U3"},
    ),
    Row(0, "a negative size", lambda _: bt.zeros((-1, 3)), ShapeError, ("(-1, 3)", "reshape")),
    Row(0, "a size that is no whole number", lambda _: bt.zeros((3 / 2, 2)), ShapeError, ("//",)),
    Row(0, "a layer of a negative size", lambda _: nn.Linear(-1, 2), ConfigError, ("(2, -1)",)),
    Row(0, "a layer of half a size", lambda _: nn.Linear(3 / 2, 2), DtypeError, ("//",)),
    Row(0, "a kernel of no size", lambda _: nn.Conv2d(3, 8, 0), ConfigError, ("kernel_size",)),
    Row(
        0, "a dtype misspelt", lambda _: bt.zeros(2, dtype="flaot32"), DtypeError,
        ("bt.float32",), {"meant": "float32"},
    ),
    Row(
        0, "a dtype of PyTorch", lambda _: bt.zeros(2, dtype="torch.float16"), DtypeError,
        ("bt.float16",), {"meant": "float16"},
    ),
    Row(0, "gpu for cuda", lambda _: nn.Linear(2, 2).to("gpu"), DeviceError, ("'cuda'",)),
    Row(0, "a module's cuda", lambda _: nn.Linear(2, 2).cuda(), AttributeError, ("to('cuda')",)),
    Row(
        0, "a mode as an argument", lambda _: conv(bt.ones((1, 3, 8, 8)), training=True),
        TypeError, ("module.train()", "module.eval()"),
    ),
    Row(0, "two inputs", lambda _: conv(x, x), TypeError, ("Conv2d is called with (input",)),
    Row(0, "backwards", lambda _: x.backwards(), AttributeError, ("'backward'",)),
    Row(0, "a method misspelt", lambda _: conv.forwrad(x), AttributeError, ("'forward'",)),
    Row(
        0, "a loss that was not called", lambda _: nn.CrossEntropyLoss(logits).backward(),
        AttributeError, ("nn.CrossEntropyLoss()(logits, target)",),
    ),
    Row(0, "train of a text", lambda _: conv.train("no"), ConfigError, ("eval()",), {"got": "no"}),
    Row(0, "a keyword misspelt", lambda _: nn.Linear(in_feature=2, out_features=2), TypeError,
        ("in_features=",)),
    Row(0, "a class misspelt", lambda _: nn.ReLu(), AttributeError, ("'ReLU'",)),
    Row(0, "a rate by another name", lambda _: optim.Adam(conv.parameters(), learning_rate=1),
        TypeError, ("lr=",)),
    Row(0, "a rate as a text", lambda _: optim.Adam(conv.parameters(), lr="0.1"), ConfigError,
        ("lr is a number", "'0.1'"), {"setting": "lr"}),
    Row(0, "a step of a loss", lambda _: optim.SGD(conv.parameters(), lr=1).step(x), ConfigError,
        ("loss.backward()",), {"got": "Tensor"}),
    Row(0, "a path for a state dict", lambda _: conv.load_state_dict("model.pt"), WeightsError,
        ("bt.weights.load('model.pt')",), {"got": "str"}),
    Row(0, "a module saved", lambda p: bt.weights.save_file(conv, p / "a"), WeightsError,
        ("model.state_dict()",), {"got": "Conv2d"}),
    Row(0, "arguments exchanged", lambda p: bt.weights.save_file(p / "a", {}), WeightsError,
        ("then the path",)),
    Row(0, "saved as a folder", lambda p: bt.weights.save_file({}, p), IsADirectoryError,
        ("name a file in it",)),
    Row(0, "tensors in pieces", lambda _: bt.concat(x, x), TypeError, ("bt.concat([x, y])",)),
    Row(0, "nothing to join", lambda _: bt.concat([]), ConfigError, ("empty list",)),
    Row(
        0, "parts that do not fit", lambda _: bt.concat([bt.ones((2, 3)), bt.ones((2, 4))]),
        ShapeError, ("tensor 0 (2, >3<)", "tensor 1 (2, >4<)", "axis=1"), {"indices": (0, 1)},
    ),
    Row(
        0, "a stack that does not fit", lambda _: bt.stack([bt.ones((2,)), bt.ones((2, 4))]),
        ShapeError, ("tensor 1 has 2 (2, 4)",), {"indices": (0, 1)},
    ),
    Row(0, "two sizes left out", lambda _: x.reshape(-1, -1), ShapeError, ("Only one size",)),
    Row(0, "a shape of another count", lambda _: x.reshape(4, -1), ShapeError, ("divide 6",)),
    Row(0, "no data set", lambda _: DataLoader("photos"), ConfigError, ("ImageFolder",)),
    Row(0, "pinned memory", lambda _: DataLoader([1], pin_memory=True), TypeError, ("device=",)),
    Row(0, "a model of None", lambda _: bt.load(None), HubError, ("NoneType", "bestiary list")),
    Row(0, "classes as a text", lambda _: bt.load("resnet-cifar10", num_classes="20"), ConfigError,
        ("'20'",), {"got": "20"}),
    Row(0, "an unknown task", lambda _: bt.list_models(task="image-clasification"), ConfigError,
        ("'image-classification'",)),
    Row(0, "a model of vision", lambda _: bt.vision.resnet50, AttributeError,
        ("bt.load('resnet50')",)),
    Row(0, "a criterion for a loss", lambda _: trained(loss=nn.CrossEntropyLoss()), ConfigError,
        ("predictions and targets", "lambda module, batch:")),
    Row(0, "a loss function for a loss", lambda _: trained(loss=F.cross_entropy), ConfigError,
        ("cross_entropy takes", "lambda module, batch:")),
    Row(0, "a loss that returns nothing", lambda _: trained(loss=lambda m, b: None), DtypeError,
        ("None", "return loss"), {"got": "NoneType"}),
    Row(0, "a loss that is a number", lambda _: trained(loss=lambda m, b: 3.0), DtypeError,
        ("float", ".item()"), {"got": "float"}),
    Row(0, "the class of an optimizer", lambda _: trained(optimizer=optim.SGD), ConfigError,
        ("the class SGD", "module.parameters()")),
    Row(0, "no batches to train with", lambda _: trained(batches=[]), DataError,
        ("gave nothing", "drop_last"), {"epoch": 1}),
    Row(0, "a generator used up", lambda _: trained(batches=iter([1]), epochs=2), DataError,
        ("generator", "DataLoader"), {"epoch": 2}),
    Row(0, "epochs as a text", lambda _: trained(epochs="3"), ConfigError, ("'3'",)),
    Row(0, "clipping a module", lambda _: optim.clip_grad_norm_(conv, 1.0), ConfigError,
        ("model.parameters()",)),
    Row(0, "a list for names", lambda _: nn.ModuleDict([conv]), ConfigError, ("ModuleList",)),
    Row(0, "hub.load", lambda _: bt.hub.load("resnet50"), AttributeError, ("bt.load(name)",)),
]  # fmt: skip


@pytest.fixture(autouse=True)
def _clean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(settings, "_configured", dict(settings._configured))
    for name in [n for n in os.environ if n.startswith(("HF_", "BESTIARY_DEBUG"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.chdir(tmp_path)
    notice.forget_warnings()
    yield
    notice.forget_warnings()


def frames(error: BaseException) -> list[str]:
    """The files of a traceback, but for this one."""
    trace = traceback.extract_tb(error.__traceback__)
    return [Path(f.filename).name for f in trace if Path(f.filename).name != HERE]


@pytest.mark.parametrize("row", ROWS + MORE, ids=lambda row: row.id)
def test_the_message_holds_the_facts(row: Row, tmp_path: Path) -> None:
    with pytest.raises(row.kind) as caught:
        row.make(tmp_path)
    error, text = caught.value, str(caught.value)
    for word in row.words:
        assert word in text, text
    assert len(text.splitlines()) <= 12, text
    assert max(map(len, text.splitlines())) <= 300, text
    for name, value in row.facts.items():
        assert getattr(error, name) == value, name
    if isinstance(error, BestiaryError):
        builtin = ValueError, TypeError, OSError, RuntimeError, IndexError, MemoryError
        assert isinstance(error, builtin)


def test_every_row_is_here() -> None:
    warned = {17, 18, 19}
    assert {row.number for row in ROWS} | warned == set(range(1, 39))


# -- warnings: each given once ---------------------------------------------------------------------


def warned(mistake: Callable[[], Any]) -> list[warnings.WarningMessage]:
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        mistake()
    return found


def forgotten() -> None:
    layer = nn.Linear(2, 2)
    optimizer = optim.SGD(layer.parameters(), lr=0.1)
    for _ in range(4):
        layer(bt.ones((1, 2))).sum().backward()
        optimizer.step()


def in_training_mode(layer: nn.Module) -> Callable[[], None]:
    def predict() -> None:
        model = nn.Sequential(nn.Linear(2, 2), layer)
        with bt.no_grad():
            for _ in range(3):
                model(bt.ones((4, 2))).tolist()

    return predict


def softmax_twice() -> None:
    scores = nn.Parameter(logits)
    for _ in range(3):
        F.cross_entropy(F.softmax(scores, axis=-1), bt.tensor([0, 1, 2, 0]))


@pytest.mark.parametrize(
    ("mistake", "words"),
    [
        pytest.param(forgotten, ("optimizer step 1", "zero_grad()"), id="17"),
        pytest.param(
            in_training_mode(nn.Dropout(0.5)), ("Dropout", "model.eval()"), id="18-dropout"
        ),
        pytest.param(
            in_training_mode(nn.BatchNorm1d(2)), ("BatchNorm1d", "model.eval()"), id="18-norm"
        ),
        pytest.param(softmax_twice, ("non-negative", "sum to 1", "logits"), id="19"),
    ],
)
def test_it_is_warned_of_once(mistake: Callable[[], Any], words: tuple[str, ...]) -> None:
    (found,) = warned(mistake)
    assert issubclass(found.category, nn.TrainingWarning)
    assert Path(found.filename).name == HERE  # the user's line
    for word in words:
        assert word in str(found.message)


def test_no_warning_without_the_mistake() -> None:
    def careful() -> None:
        model = nn.Sequential(nn.Linear(2, 3), nn.Dropout(0.5))
        optimizer = optim.SGD(model.parameters(), lr=0.1)
        for _ in range(3):
            optimizer.zero_grad()
            F.cross_entropy(model(bt.ones((4, 2))), bt.tensor([0, 1, 2, 0])).backward()
            optimizer.step()
        with bt.no_grad():
            model.eval()(bt.ones((4, 2))).tolist()

    assert not warned(careful)


# -- lines of the library in tracebacks ------------------------------------------------------------

# Between the user's line and the message of a mistake Python must show no line of the library,
# where something of ours is called that has an `except` clause anyway.
CLEAN = ["01", "05", "06", "07", "08", "09", "12", "15", "20", "23", "25", "31", "34", "36"]


@pytest.mark.parametrize("row", [r for r in ROWS if r.id[:2] in CLEAN and "token" not in r.what],
                         ids=lambda row: row.id)  # fmt: skip
def test_no_line_of_the_library_stands_between(row: Row, tmp_path: Path) -> None:
    with pytest.raises(row.kind) as caught:
        row.make(tmp_path)
    assert frames(caught.value) == []


def test_debugging_shows_every_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BESTIARY_DEBUG", "1")
    with pytest.raises(ShapeError) as caught:
        Net().eval()(bt.zeros((2, 3, 8, 8)))
    assert {"module.py", "op.py"} <= set(frames(caught.value))


def test_the_lines_of_users_between_those_of_the_library_stay() -> None:
    class Outer(nn.Module):
        def __init__(self) -> None:
            self.net = nn.Sequential(nn.Conv2d(3, 3, 1), Net())

        def forward(self, x: bt.Tensor) -> bt.Tensor:
            return self.net(x)

    with pytest.raises(ShapeError) as caught:
        Outer()(bt.zeros((2, 3, 8, 8)))
    names = [f.name for f in traceback.extract_tb(caught.value.__traceback__)]
    assert names == ["test_the_lines_of_users_between_those_of_the_library_stay"] + ["forward"] * 2
    assert caught.value.module_path == "net.1.fc1"


def test_a_fault_of_the_library_keeps_its_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    def faulty(*_: Any) -> None:
        raise KeyError("a fault")

    monkeypatch.setattr(nn.Linear, "forward", faulty)  # its code is in this file: a user's line
    with pytest.raises(KeyError) as caught:
        nn.Sequential(nn.Linear(2, 2))(bt.ones((1, 2)))
    assert frames(caught.value) == []
    monkeypatch.setattr(F, "linear", lambda *_: bt.data.load(3))
    monkeypatch.undo()
    layer = nn.Linear(2, 2)
    layer.weight = None
    with pytest.raises(AttributeError) as other:
        layer(bt.ones((1, 2)))
    assert "linear.py" in frames(other.value)


# -- the command line ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["info", "resnet-fasion"], ("resnet-fashion",)),  # 31
        (["predict", "resnet-cifar10", "page.jpg"], ("page.jpg", "web page")),
        (["check", "page.safetensors"], ("HTML page",)),  # 28
        (["convert", "evil.pt"], ("mkdir",)),  # 27
        (["pull", "zoo/small"], ("HF_HUB_OFFLINE=1", "bestiary pull zoo/small")),  # 30
        (["generate", str(DATA / "generation-gpt2"), "word " * 200], ("> 96", "chunks")),  # 26
        (["chat", str(DATA / "generation-gpt2")], ("no chat template",)),  # 33
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_commands_say_it_in_a_few_lines(
    arguments: list[str],
    words: tuple[str, ...],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import io
    import pickle

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    for name in ("page.safetensors", "page.jpg"):
        (tmp_path / name).write_text("<!DOCTYPE html><html></html>")
    (tmp_path / "evil.pt").write_bytes(pickle.dumps({"w": Evil()}))
    assert _run(arguments) == 1
    said = capfd.readouterr().err
    block = said[said.index("error:") :]
    assert block.startswith("error: ") and block.count("error:") == 1
    assert len(block.splitlines()) <= 12 and "Traceback" not in said
    for word in words:
        assert word in block
    if arguments[0] == "predict":  # says what is wrong with each picture and goes on
        assert _run(["--debug", *arguments]) == 1
        assert "Traceback" in capfd.readouterr().err
        return
    with pytest.raises(BestiaryError):
        _run(["--debug", *arguments])
    assert not callers.debugging()
    monkeypatch.setenv("BESTIARY_DEBUG", "1")
    with pytest.raises(BestiaryError):
        _run(arguments)


@pytest.mark.parametrize("how", ["--debug", "BESTIARY_DEBUG"])
def test_the_whole_traceback_on_request(how: str) -> None:
    flags = [how] if how == "--debug" else []
    done = subprocess.run(
        [sys.executable, "-m", "bestiary", *flags, "info", "no-such-model"],
        env=os.environ | ({} if flags else {how: "1"}),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1 and "Traceback" in done.stderr and "registry.py" in done.stderr
    assert "there is no model named 'no-such-model'" in done.stderr
