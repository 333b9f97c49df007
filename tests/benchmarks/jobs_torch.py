"""PyTorch's side of the suite, eager, in the memory layout that is faster for it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from common import (
    CONVOLUTIONS,
    GBYTES,
    Job,
    conv_work,
    diffusion_jobs,
    family_jobs,
    numbers,
    state_for,
    text_jobs,
)
from gans_torch import JOBS as GANS
from torch import nn

JOBS: dict[str, Callable[[], Job]] = {}


def facts() -> dict[str, Any]:
    return {"torch": torch.__version__, "threads": torch.get_num_threads()}


def job(function: Callable[[], Job]) -> Callable[[], Job]:
    JOBS[function.__name__.replace("_", "-")] = function
    return function


def quiet(function: Callable[[], torch.Tensor]) -> Callable[[], np.ndarray[Any, Any]]:
    def run() -> np.ndarray[Any, Any]:
        with torch.inference_mode():
            return function().numpy()

    return run


def tensor(*shape: int, seed: int = 0, scale: float = 1.0) -> torch.Tensor:
    return torch.from_numpy(numbers(*shape, seed=seed, scale=scale))


@job
def add_64() -> Job:
    a, b = tensor(64, 64), tensor(64, 64, seed=1)

    def run() -> torch.Tensor:
        with torch.no_grad():
            return torch.add(a, b)

    return Job(lambda: run().numpy())


@job
def add_64_recorded() -> Job:
    a, b = tensor(64, 64).requires_grad_(), tensor(64, 64, seed=1)
    return Job(lambda: torch.add(a, b).detach().numpy())


@job
def chain_of_100_adds_and_backward() -> Job:
    a, b, g = tensor(64, 64).requires_grad_(), tensor(64, 64, seed=1), tensor(64, 64)

    def run() -> np.ndarray[Any, Any]:
        x = a
        for _ in range(100):
            x = torch.add(x, b)
        a.grad = None
        x.backward(g)
        assert a.grad is not None
        return a.grad.numpy()

    return Job(run)


@job
def gemm_1024() -> Job:
    a, b = tensor(1024, 1024), tensor(1024, 1024, seed=1)
    return Job(quiet(lambda: a @ b), 2.0 * 1024**3)


def convolution(name: str) -> Callable[[], Job]:
    def make() -> Job:
        c, o, k, s, side = row = CONVOLUTIONS[name]
        x = tensor(1, side, side, c).permute(0, 3, 1, 2)
        w = tensor(o, c, k, k, seed=1, scale=0.1).to(memory_format=torch.channels_last)
        return Job(quiet(lambda: F.conv2d(x, w, stride=s, padding=k // 2)), conv_work(row))

    return make


for _name in CONVOLUTIONS:
    JOBS[f"conv-{_name}"] = convolution(_name)


@job
def softmax_4096x1000() -> Job:
    x = tensor(4096, 1000)
    return Job(quiet(lambda: F.softmax(x, dim=-1)), 8.0 * x.numel(), GBYTES)


@job
def layer_norm_4096x768() -> Job:
    x, w, b = tensor(4096, 768), tensor(768), tensor(768)
    return Job(quiet(lambda: F.layer_norm(x, (768,), w, b)), 8.0 * x.numel(), GBYTES)


@job
def gelu_4096x3072() -> Job:
    x = tensor(4096, 3072)
    return Job(quiet(lambda: F.gelu(x)), 8.0 * x.numel(), GBYTES)


@job
def attention_12x512x64() -> Job:
    q, k, v = (tensor(1, 12, 512, 64, seed=i) for i in range(3))
    return Job(quiet(lambda: F.scaled_dot_product_attention(q, k, v)), 4.0 * 12 * 512 * 512 * 64)


@job
def adamw_10_million() -> Job:
    p = nn.Parameter(tensor(10_000_000))
    optimizer = torch.optim.AdamW([p], lr=1e-3)
    p.grad = tensor(10_000_000, seed=1)
    return Job(lambda: optimizer.step(), 28.0 * p.numel(), GBYTES)


# -- ResNet with torchvision's names, written out since torchvision is not needed for it ---------


class Block(nn.Module):
    def __init__(self, c: int, o: int, stride: int, wide: bool) -> None:
        super().__init__()
        middle = o // 4 if wide else o
        kernels = [(1, 1), (3, stride), (1, 1)] if wide else [(3, stride), (3, 1)]
        sizes = [c, middle, middle, o] if wide else [c, o, o]
        for i, (k, s) in enumerate(kernels, 1):
            conv = nn.Conv2d(sizes[i - 1], sizes[i], k, s, k // 2, bias=False)
            setattr(self, f"conv{i}", conv)
            setattr(self, f"bn{i}", nn.BatchNorm2d(sizes[i]))
        self.count = len(kernels)
        self.downsample = None
        if stride != 1 or c != o:
            self.downsample = nn.Sequential(
                nn.Conv2d(c, o, 1, stride, bias=False), nn.BatchNorm2d(o)
            )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = x
        for i in range(1, self.count + 1):
            y = getattr(self, f"bn{i}")(getattr(self, f"conv{i}")(y))
            if i < self.count:
                y = F.relu(y, inplace=True)
        short = x if self.downsample is None else self.downsample(x)
        return F.relu(y + short, inplace=True)


class ResNet(nn.Module):
    def __init__(self, depths: list[int], wide: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        c = 64
        for i, depth in enumerate(depths, 1):
            o = 64 * 2 ** (i - 1) * (4 if wide else 1)
            blocks = []
            for j in range(depth):
                blocks.append(Block(c, o, 2 if i > 1 and j == 0 else 1, wide))
                c = o
            setattr(self, f"layer{i}", nn.Sequential(*blocks))
        self.fc = nn.Linear(c, 1000)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(x))), 3, 2, 1)
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(x.mean(dim=(2, 3)))


_DEPTHS = {"resnet18": ([2, 2, 2, 2], False), "resnet50": ([3, 4, 6, 3], True)}


def loaded(module: nn.Module) -> nn.Module:
    shapes = {name: tuple(t.shape) for name, t in module.state_dict().items()}
    state = module.state_dict()
    state.update({n: torch.from_numpy(v) for n, v in state_for(shapes).items()})
    module.load_state_dict(state)
    return module


def resnet(name: str, batch: int) -> Callable[[], Job]:
    def make() -> Job:
        module = loaded(ResNet(*_DEPTHS[name])).eval().to(memory_format=torch.channels_last)
        x = tensor(batch, 3, 224, 224).contiguous(memory_format=torch.channels_last)
        work = {"resnet18": 3.63e9, "resnet50": 8.18e9}[name] * batch
        return Job(quiet(lambda: module(x)), work)

    return make


JOBS["resnet50-inference-1"] = resnet("resnet50", 1)
JOBS["resnet50-inference-8"] = resnet("resnet50", 8)
JOBS["resnet18-inference-1"] = resnet("resnet18", 1)


def training(module: Any, optimizer: torch.optim.Optimizer, x: Any, y: Any) -> Any:
    def run() -> np.ndarray[Any, Any]:
        loss = F.cross_entropy(module(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.detach().numpy().copy()

    return run


@job
def resnet18_training_step_16() -> Job:
    module = loaded(ResNet(*_DEPTHS["resnet18"])).train().to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(module.parameters(), lr=1e-4, momentum=0.9)
    x = tensor(16, 3, 224, 224).contiguous(memory_format=torch.channels_last)
    return Job(training(module, optimizer, x, torch.arange(16)), 3 * 3.63e9 * 16)


def mlp() -> nn.Module:
    return loaded(
        nn.Sequential(nn.Linear(4, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 2))
    )


@job
def mlp_training_step_64() -> Job:
    module = mlp()
    optimizer = torch.optim.Adam(module.parameters(), lr=1e-4)
    return Job(training(module, optimizer, tensor(64, 4), torch.arange(64) % 2))


@job
def mlp_forward_1() -> Job:
    module, x = mlp(), tensor(1, 4)
    return Job(quiet(lambda: module(x)))


@job
def start_import() -> Job:
    code = "import torch.nn"
    return Job(lambda: subprocess.run([sys.executable, "-c", code], check=True) and None)


class DoubleConv(nn.Module):
    """Two convolutions with their norms, as in vision/unet.py."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.relu(self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))))


class Up(nn.Module):
    """A coarse map beside a finer one."""

    def __init__(self, coarse: int, fine: int) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(coarse, fine, 1, bias=False)
        self.conv = DoubleConv(2 * fine, fine)

    def forward(self, x: torch.Tensor, finer: torch.Tensor) -> torch.Tensor:
        x = F.interpolate(self.reduce(x), size=finer.shape[2:], mode="bilinear")
        return self.conv(torch.cat([finer, x], 1))


class UNet(nn.Module):
    """The U-Net of vision/unet.py, which no library of PyTorch's has."""

    def __init__(self) -> None:
        super().__init__()
        widths = (32, 64, 128, 256, 512)
        pairs = zip((3, *widths[:-1]), widths, strict=True)
        self.down = nn.ModuleList([DoubleConv(a, b) for a, b in pairs])
        pairs = zip(widths[-2::-1], widths[:0:-1], strict=True)
        self.up = nn.ModuleList([Up(b, a) for a, b in pairs])
        self.head = nn.Conv2d(32, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        seen = []
        for i, block in enumerate(self.down):
            x = block(F.max_pool2d(x, 2, ceil_mode=True) if i else x)
            seen.append(x)
        x = seen.pop()
        for up in self.up:
            x = up(x, seen.pop())
        return self.head(x)


def unet(batch: int) -> Callable[[], Job]:
    def make() -> Job:
        module = loaded(UNet()).eval().to(memory_format=torch.channels_last)
        x = tensor(batch, 3, 256, 256).contiguous(memory_format=torch.channels_last)
        return Job(quiet(lambda: module(x)))

    return make


JOBS |= {f"unet-{batch}": unet(batch) for batch in (1, 8)}


def family(folder: Path, pictures: np.ndarray[Any, Any]) -> Job:
    from families import PICTURES_ONLY, opened

    model = opened(folder).to(memory_format=torch.channels_last)
    function = model.get_image_features if folder.name in PICTURES_ONLY else model
    x = torch.from_numpy(pictures).contiguous(memory_format=torch.channels_last)

    def first() -> torch.Tensor:
        out = function(x)
        if folder.name in PICTURES_ONLY and not isinstance(out, torch.Tensor):
            return out.pooler_output
        return out if isinstance(out, torch.Tensor) else out[0]

    return Job(quiet(first))


JOBS.update(family_jobs(family))


def diffusion(folder: Path, inputs: list[np.ndarray[Any, Any]], fast: bool) -> Job:
    from diffusion import TIMESTEP, opened

    model = opened(folder).to(memory_format=torch.channels_last)
    x, *rest = (torch.from_numpy(values) for values in inputs)
    x = x.contiguous(memory_format=torch.channels_last)
    t = torch.full((len(x),), TIMESTEP)
    return Job(quiet(lambda: model(x, t, *rest).sample))


JOBS.update(diffusion_jobs(diffusion))
JOBS.update(GANS)


def text(folder: Path, how: str, ids: np.ndarray[Any, Any], tokens: int) -> Job:
    from texts import opened

    model, x = opened(folder), torch.from_numpy(ids)
    if how == "read":
        return Job(quiet(lambda: model(x)[0][:, -1]))
    if how == "train":
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5)

        def scores(x: torch.Tensor) -> torch.Tensor:
            return model(x)[0].flatten(0, 1)

        return Job(training(scores, optimizer, x[:, :-1], x[:, 1:].reshape(-1)))

    def write() -> torch.Tensor:
        settings = {"max_new_tokens": tokens, "min_new_tokens": tokens, "do_sample": False}
        return model.generate(x, **settings, pad_token_id=0, eos_token_id=None)[:, len(ids[0]) :]

    return Job(quiet(write))


JOBS.update(text_jobs(text))
