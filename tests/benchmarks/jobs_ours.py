"""Our side of the suite."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
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
from gans import JOBS as GANS

import bestiary as bt
from bestiary import nn, optim
from bestiary.core.insight.system import blas, cpu_count, native
from bestiary.core.nn import functional as F
from bestiary.core.ops.elementwise import add

JOBS: dict[str, Callable[[], Job]] = {}


def facts() -> dict[str, Any]:
    return {
        "bestiary": bt.__version__,
        "numpy": np.__version__,
        "blas": blas(),
        "native": native(),
        "cpus": cpu_count(),
        "jobs": list(JOBS),
    }


def job(function: Callable[[], Job]) -> Callable[[], Job]:
    JOBS[function.__name__.replace("_", "-")] = function
    return function


def quiet(function: Callable[[], bt.Tensor]) -> Callable[[], np.ndarray[Any, Any]]:
    def run() -> np.ndarray[Any, Any]:
        with bt.inference_mode():
            return function().numpy()

    return run


# -- overhead ------------------------------------------------------------------------------------


@job
def numpy_add_64() -> Job:
    a, b = numbers(64, 64), numbers(64, 64, seed=1)
    return Job(lambda: np.add(a, b))


@job
def add_64() -> Job:
    a, b = bt.Tensor(numbers(64, 64)), bt.Tensor(numbers(64, 64, seed=1))
    return Job(lambda: add(a, b).array)


@job
def add_64_recorded() -> Job:
    a, b = bt.Tensor(numbers(64, 64)).requires_grad_(), bt.Tensor(numbers(64, 64, seed=1))
    return Job(lambda: add(a, b).array)


@job
def chain_of_100_adds_and_backward() -> Job:
    a, b = bt.Tensor(numbers(64, 64)).requires_grad_(), bt.Tensor(numbers(64, 64, seed=1))
    g = bt.Tensor(numbers(64, 64))

    def run() -> np.ndarray[Any, Any]:
        x = a
        for _ in range(100):
            x = add(x, b)
        a.grad = None
        x.backward(g)
        assert a.grad is not None
        return a.grad.array

    return Job(run)


# -- kernels -------------------------------------------------------------------------------------


@job
def gemm_1024() -> Job:
    a, b = bt.Tensor(numbers(1024, 1024)), bt.Tensor(numbers(1024, 1024, seed=1))
    return Job(quiet(lambda: a @ b), 2.0 * 1024**3)


def convolution(name: str) -> Callable[[], Job]:
    def make() -> Job:
        c, o, k, s, side = row = CONVOLUTIONS[name]
        x = bt.Tensor(numbers(1, side, side, c).transpose(0, 3, 1, 2))
        w = bt.Tensor(numbers(o, c, k, k, seed=1, scale=0.1))
        return Job(quiet(lambda: F.conv2d(x, w, stride=s, padding=k // 2)), conv_work(row))

    return make


for _name in CONVOLUTIONS:
    JOBS[f"conv-{_name}"] = convolution(_name)


@job
def softmax_4096x1000() -> Job:
    x = bt.Tensor(numbers(4096, 1000))
    return Job(quiet(lambda: F.softmax(x, axis=-1)), 2.0 * x.nbytes, GBYTES)


@job
def layer_norm_4096x768() -> Job:
    x, w, b = bt.Tensor(numbers(4096, 768)), bt.Tensor(numbers(768)), bt.Tensor(numbers(768))
    return Job(quiet(lambda: F.layer_norm(x, (768,), w, b)), 2.0 * x.nbytes, GBYTES)


@job
def gelu_4096x3072() -> Job:
    x = bt.Tensor(numbers(4096, 3072))
    return Job(quiet(lambda: F.gelu(x)), 2.0 * x.nbytes, GBYTES)


@job
def attention_12x512x64() -> Job:
    q, k, v = (bt.Tensor(numbers(1, 12, 512, 64, seed=i)) for i in range(3))
    return Job(quiet(lambda: F.scaled_dot_product_attention(q, k, v)), 4.0 * 12 * 512 * 512 * 64)


@job
def adamw_10_million() -> Job:
    p = nn.Parameter(numbers(10_000_000))
    optimizer = optim.AdamW([p], lr=1e-3)
    p.grad = bt.Tensor(numbers(10_000_000, seed=1))
    return Job(lambda: optimizer.step(), 7.0 * p.nbytes, GBYTES)


# -- models --------------------------------------------------------------------------------------


def loaded(module: nn.Module) -> nn.Module:
    shapes = {name: t.shape for name, t in module.state_dict().items()}
    state = module.state_dict()
    state.update({n: bt.Tensor(v) for n, v in state_for(shapes).items()})
    module.load_state_dict(state)
    return module


def resnet(name: str, batch: int) -> Callable[[], Job]:
    def make() -> Job:
        module = loaded(bt.load(name, weights=False).module).eval()
        x = bt.Tensor(numbers(batch, 3, 224, 224))
        work = {"resnet18": 3.63e9, "resnet50": 8.18e9}[name] * batch
        fast = bt.compile(module)  # as a model of bt.load does it by itself
        return Job(quiet(lambda: fast(x)), work)

    return make


JOBS["resnet50-inference-1"] = resnet("resnet50", 1)
JOBS["resnet50-inference-8"] = resnet("resnet50", 8)
JOBS["resnet18-inference-1"] = resnet("resnet18", 1)


def training(module: nn.Module, optimizer: optim.Optimizer, x: bt.Tensor, y: bt.Tensor) -> Any:
    """A step, compiled, and its loss."""

    def step(x: bt.Tensor, y: bt.Tensor) -> bt.Tensor:
        loss = F.cross_entropy(module(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    fast = bt.compile(step)
    return lambda: fast(x, y).detach().numpy().copy()


@job
def resnet18_training_step_16() -> Job:
    module = loaded(bt.load("resnet18", weights=False).module).train()
    optimizer = optim.SGD(module.parameters(), lr=1e-4, momentum=0.9)
    x, y = bt.Tensor(numbers(16, 3, 224, 224)), bt.Tensor(np.arange(16))
    return Job(training(module, optimizer, x, y), 3 * 3.63e9 * 16)


@job
def mlp_training_step_64() -> Job:
    module = loaded(
        nn.Sequential(nn.Linear(4, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 2))
    )
    optimizer = optim.Adam(module.parameters(), lr=1e-4)
    x, y = bt.Tensor(numbers(64, 4)), bt.Tensor(np.arange(64) % 2)
    return Job(training(module, optimizer, x, y))


@job
def mlp_forward_1() -> Job:
    module = loaded(
        nn.Sequential(nn.Linear(4, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 2))
    )
    x = bt.Tensor(numbers(1, 4))
    return Job(quiet(lambda: module(x)))


def unet(batch: int) -> Callable[[], Job]:
    def make() -> Job:
        module = loaded(bt.load("unet", weights=False).module).eval()
        fast, x = bt.compile(module), bt.Tensor(numbers(batch, 3, 256, 256))
        return Job(quiet(lambda: fast(x)))

    return make


JOBS |= {f"unet-{batch}": unet(batch) for batch in (1, 8)}


def family(folder: Path, pictures: np.ndarray[Any, Any]) -> Job:
    from families import PICTURES_ONLY

    module = bt.load(folder).module
    function = bt.compile(module.embed if folder.name in PICTURES_ONLY else module)
    x = bt.Tensor(pictures)

    def first() -> bt.Tensor:
        out = function(x)
        return out if isinstance(out, bt.Tensor) else out[0]

    return Job(quiet(first))


JOBS.update(family_jobs(family))


def diffusion(folder: Path, inputs: list[np.ndarray[Any, Any]], fast: bool) -> Job:
    from diffusion import TIMESTEP

    module = bt.load(folder).module
    step: Any = bt.compile(module) if fast else module
    x, *rest = (bt.Tensor(values) for values in inputs)
    t = bt.Tensor(np.full(len(x), TIMESTEP, np.float32))
    return Job(quiet(lambda: step(x, t, *rest)))


JOBS.update(diffusion_jobs(diffusion))
JOBS.update(GANS)


def text(folder: Path, how: str, ids: np.ndarray[Any, Any], tokens: int) -> Job:
    model = bt.load(folder)
    if how == "read":
        x, last = bt.Tensor(ids), {"last": 1} if hasattr(model.module, "cache") else {}
        # Tasks of encoders run single texts compiled.
        network = bt.compile(model.module) if len(ids) == 1 and not last else model.module

        def read() -> bt.Tensor:
            found = network(x, **last)
            return (found if isinstance(found, bt.Tensor) else found[0])[:, -1]

        return Job(quiet(read))
    if how == "train":
        x, y = bt.Tensor(ids[:, :-1]), bt.Tensor(ids[:, 1:].reshape(-1))
        optimizer = optim.AdamW(model.module.parameters(), lr=1e-5)

        def step() -> np.ndarray[Any, Any]:
            scores = model.module(x)
            loss = F.cross_entropy(bt.reshape(scores, (-1, scores.shape[-1])), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            return loss.detach().numpy().copy()

        return Job(step)

    def write() -> np.ndarray[Any, Any]:
        with bt.inference_mode():
            cache = model.module.cache(len(ids), ids.shape[1] + tokens)
            scores = model.module(bt.Tensor(ids), cache=cache, last=1)
            found = []
            for _ in range(tokens):
                found.append(scores.array[:, -1].argmax(axis=-1)[:, None])
                scores = model.module(bt.Tensor(found[-1]), cache=cache, last=1)
        return np.concatenate(found, axis=1)

    return Job(write)


JOBS.update(text_jobs(text))


# -- starting ------------------------------------------------------------------------------------


def started(code: str) -> Callable[[], None]:
    def run() -> None:
        subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)

    return run


@job
def start_import() -> Job:
    return Job(started("import bestiary.core.nn"))


@job
def start_first_label() -> Job:
    from bestiary.vision.samples import FOLDER

    picture = FOLDER / "cat.jpg"
    return Job(started(f"import bestiary as bt; bt.load('efficientnet-lite0')({str(picture)!r})"))


@job
def open_500_mb() -> Job:
    from bestiary.core.weights import SafetensorsFile, save_file

    folder = tempfile.mkdtemp()
    path = Path(folder) / "large.safetensors"
    save_file({f"w{i}": np.zeros((1000, 12_500), np.float32) for i in range(10)}, path)
    return Job(lambda: SafetensorsFile(path, mapped=True)["w9"].shape)
