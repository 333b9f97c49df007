"""The networks of gans.py in PyTorch, and their step."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from common import DCGAN, Job, numbers, state_for
from torch import nn

_WIDTHS = (512, 256, 128, 64)


class Generator(nn.Module):
    """Latents of 100 numbers to pictures of 64 x 64."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.ConvTranspose2d(100, 1024, 4, bias=False)
        self.first_norm = nn.BatchNorm2d(1024)
        pairs = list(zip((1024, *_WIDTHS[:-1]), _WIDTHS, strict=True))
        self.convs = nn.ModuleList(nn.ConvTranspose2d(a, b, 4, 2, 1, bias=False) for a, b in pairs)
        self.norms = nn.ModuleList(nn.BatchNorm2d(b) for _, b in pairs)
        self.last = nn.Conv2d(64, 3, 3, padding=1)

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.first_norm(self.first(z[:, :, None, None])))
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = F.relu(norm(conv(x)))
        return torch.tanh(self.last(x))


class Critic(nn.Module):
    """Pictures of 64 x 64 to a score."""

    def __init__(self) -> None:
        super().__init__()
        widths = _WIDTHS[::-1]
        pairs = list(zip((3, *widths[:-1]), widths, strict=True))
        self.convs = nn.ModuleList(
            nn.Conv2d(a, b, 4, 2, 1, bias=i == 0) for i, (a, b) in enumerate(pairs)
        )
        self.norms = nn.ModuleList(
            nn.BatchNorm2d(b) if i else nn.Identity() for i, (_, b) in enumerate(pairs)
        )
        self.score = nn.Linear(512 * 16, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = F.leaky_relu(norm(conv(x)), 0.2)
        return self.score(x.flatten(1))[:, 0]


def made(module: nn.Module) -> tuple[nn.Module, torch.optim.Optimizer]:
    values = state_for({name: tuple(t.shape) for name, t in module.state_dict().items()})
    module.load_state_dict({n: torch.from_numpy(v) for n, v in values.items()}, strict=False)
    module.to(memory_format=torch.channels_last)
    return module, torch.optim.Adam(module.parameters(), lr=2e-4, betas=(0.5, 0.999))


def dcgan() -> Job:
    generator, generator_optimizer = made(Generator())
    critic, critic_optimizer = made(Critic())
    x = torch.from_numpy(np.tanh(numbers(DCGAN, 3, 64, 64)))
    x = x.contiguous(memory_format=torch.channels_last)
    z = torch.from_numpy(numbers(DCGAN, 100, seed=1))

    def run() -> np.ndarray:
        with torch.no_grad():
            fake = generator(z)
        lost = F.softplus(-critic(x)).mean() + F.softplus(critic(fake)).mean()
        lost.backward()
        critic_optimizer.step()
        critic_optimizer.zero_grad()
        loss = F.softplus(-critic(generator(z))).mean()
        loss.backward()
        generator_optimizer.step()
        generator_optimizer.zero_grad()
        critic_optimizer.zero_grad()
        return np.array([lost.item(), loss.item()])

    return Job(run)


JOBS = {"dcgan-step-64": dcgan, "dcgan-step-64-compiled": dcgan}
