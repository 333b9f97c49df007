"""One step of a DCGAN at its paper's size, 64 pictures of 64 x 64: ours, eager and compiled.

The peer's side is gans_torch.py: the same networks, weights, pictures and latents, the same two
updates by Adam. What is compared is both losses of the first step.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from common import DCGAN, Job, numbers, state_for

import bestiary as bt
from bestiary.generative.dcgan import DCGAN as Players
from bestiary.generative.dcgan import Config


def filled(module: bt.nn.Module) -> None:
    state = module.state_dict()
    values = state_for({name: t.shape for name, t in state.items()})
    module.load_state_dict({**state, **{name: bt.Tensor(v) for name, v in values.items()}})


def dcgan(compiled: bool) -> Callable[[], Job]:
    def make() -> Job:
        players = Players(Config(size=64, channels=3, latent_size=100, width=64))
        filled(players.generator)
        filled(players.critic)
        x = bt.Tensor(np.tanh(numbers(DCGAN, 3, 64, 64)))
        z = bt.Tensor(numbers(DCGAN, 100, seed=1))
        players.latents = lambda count: z  # type: ignore[method-assign]
        step: Any = bt.compile(players.play) if compiled else players.play
        return Job(lambda: np.array([loss.item() for loss in step(x)]))

    return make


JOBS = {"dcgan-step-64": dcgan(False), "dcgan-step-64-compiled": dcgan(True)}
