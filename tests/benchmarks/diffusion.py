"""Networks of diffusion at their published size with random weights, saved by diffusers.

    ../peer/bin/python tests/benchmarks/diffusion.py MODELS       # in the peer's environment, once
    python tests/benchmarks/run.py --peer ../peer/bin/python --models MODELS --only diffusion

Both sides of run.py then load the same folders, ours by their path alone, and are compared before
they are timed: one step, that is one evaluation of the network.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

# Name: its class in diffusers, settings, the shape of samples, and that of contexts if it has any.
NETWORKS: dict[str, Any] = {
    "ddpm-cifar10-32": (
        "UNet2DModel",
        {
            "sample_size": 32,
            "block_out_channels": (128, 256, 256, 256),
            "down_block_types": ("DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D"),
            "up_block_types": ("UpBlock2D", "UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
            "attention_head_dim": None,
            "downsample_padding": 0,
            "flip_sin_to_cos": False,
            "freq_shift": 1,
            "norm_eps": 1e-6,
        },
        (8, 3, 32, 32),
    ),
    "stable-diffusion-1.5-unet": (
        "UNet2DConditionModel",
        {"sample_size": 64, "cross_attention_dim": 768, "attention_head_dim": 8},
        (1, 4, 64, 64),
        (1, 77, 768),
    ),
}
TIMESTEP = 500


def opened(folder: Path) -> Any:
    """The network in a folder, built by the library that saved it."""
    import diffusers

    return getattr(diffusers, NETWORKS[folder.name][0]).from_pretrained(folder).eval()


def make(folder: Path) -> None:
    """Save every network with random weights."""
    import diffusers

    sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "references"))
    import common

    for name, (kind, settings, *_) in NETWORKS.items():
        model = common.randomise(getattr(diffusers, kind)(**settings), seed=1)
        model.save_pretrained(folder / name)
        print(name, flush=True)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    make(Path(sys.argv[1]))
