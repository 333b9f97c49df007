"""What the scripts that make reference files share."""

from __future__ import annotations

import copy
import platform
import re
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import save_file

DATA = Path(__file__).parent / "data"


def randomise(model: torch.nn.Module, seed: int) -> torch.nn.Module:
    """Give every parameter and running statistic a random value, and go to eval mode.

    Weights keep activations of a sensible size. Norms, biases and statistics are drawn as well:
    default ones and zeros would hide parameters that are swapped or missing.
    """
    generator = torch.Generator().manual_seed(seed)

    def draw(tensor: torch.Tensor, low: float, high: float) -> None:
        tensor.copy_(torch.rand(tensor.shape, generator=generator) * (high - low) + low)

    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if not tensor.is_floating_point():
                tensor.fill_(int(torch.randint(1, 1000, (1,), generator=generator)))
            elif name.endswith("running_var"):
                draw(tensor, 0.5, 1.5)
            elif name.endswith("running_mean"):
                draw(tensor, -0.3, 0.3)
            elif tensor.ndim >= 2:
                bound = (3 * 1.5 / tensor[0].numel()) ** 0.5
                draw(tensor, -bound, bound)
            elif name.endswith("weight"):
                draw(tensor, 0.5, 1.5)
            else:
                draw(tensor, -0.3, 0.3)
    return model.eval()


def images(*shape: int, seed: int = 0) -> torch.Tensor:
    """Smooth random pictures, normalised: colour gradients with noise."""
    rng = np.random.default_rng(seed)
    batch, channels, height, width = shape
    y = np.linspace(0, 1, height)[:, None]
    x = np.linspace(0, 1, width)[None]
    waves = rng.uniform(-6, 6, (batch, channels, 3))
    field = np.sin(
        waves[..., 0, None, None] * y + waves[..., 1, None, None] * x + waves[..., 2, None, None]
    )
    return torch.tensor((field + 0.3 * rng.standard_normal(shape)).astype(np.float32))


def metadata(*packages: str, **more: str) -> dict[str, str]:
    """The versions with which a reference was made."""
    names = ("torch", "numpy", *packages)
    return {**{name: version(name) for name in names}, "python": platform.python_version(), **more}


def listing(model: torch.nn.Module) -> dict[str, object]:
    """Names and shapes of all tensors, and the parameter count, in few lines.

    Names that differ only in their last number and have one shape are one line: the name with
    `{}` for the number -> the shape, and the numbers.
    """
    tensors: dict[str, list[object]] = {}
    for name, tensor in model.state_dict().items():
        found = next(reversed(list(re.finditer(r"(?<=\.)\d+(?=\.)", name))), None)
        shape = list(tensor.shape)
        if found is None:
            tensors[name] = [shape]
            continue
        pattern = f"{name[: found.start()]}{{}}{name[found.end() :]}"
        key = f"{pattern} {shape}"
        line = tensors.setdefault(key, [shape, []])
        line[1].append(int(found[0]))
    return {"parameters": sum(p.numel() for p in model.parameters()), "tensors": tensors}


def in_bfloat16(
    model: torch.nn.Module,
    run: Callable[[torch.nn.Module, torch.Tensor], torch.Tensor],
    arrays: dict[str, torch.Tensor],
) -> dict[str, torch.Tensor]:
    """How far the model's own outputs in bfloat16 are from those in float32, at most.

    Args:
        run: gives the output that is stored as `N.output` of a model and `N.pixel_values`.
    """
    half = copy.deepcopy(model).to(torch.bfloat16)
    errors = []
    with torch.no_grad():
        for i in range(9):
            if f"{i}.pixel_values" in arrays:
                output = run(half, arrays[f"{i}.pixel_values"].to(torch.bfloat16)).float()
                errors.append((output - arrays[f"{i}.output"]).abs().max())
    return {"bfloat16.error": torch.stack(errors).max()}


def save(path: Path, arrays: dict[str, object], meta: dict[str, str]) -> None:
    """Write a reference: arrays by name, versions in the file's metadata."""
    path.parent.mkdir(parents=True, exist_ok=True)
    plain = {
        # safetensors writes wrong bytes for arrays in another order
        name: np.array(
            value.detach().numpy() if isinstance(value, torch.Tensor) else value, order="C"
        )
        for name, value in arrays.items()
    }
    save_file(plain, path, metadata=meta)
    print(f"{path.relative_to(DATA)}: {path.stat().st_size} bytes, {len(plain)} arrays")


def training_step(model: torch.nn.Module, pixel_values: torch.Tensor) -> dict[str, torch.Tensor]:
    """Logits and some gradients in training mode, where batch norm uses the batch.

    The loss is the sum of `logits * coefficients` (stored), so that no loss function is tested
    along with the model.
    """
    model.train()
    output = model(pixel_values)
    logits = output.logits if hasattr(output, "logits") else output
    coefficients = torch.linspace(-1, 1, logits.numel()).reshape(logits.shape)
    (logits * coefficients).sum().backward()
    named = list(model.named_parameters())
    chosen = [named[0], named[len(named) // 2], named[-2], named[-1]]
    result = {f"grad.{name}": parameter.grad.clone() for name, parameter in chosen}
    model.zero_grad()
    statistics = {
        f"after.{name}": tensor.clone()
        for name, tensor in list(model.named_buffers())[:3]
        if tensor.is_floating_point()
    }
    model.eval()
    return {"train.logits": logits, "train.coefficients": coefficients, **result, **statistics}
