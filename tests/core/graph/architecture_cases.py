"""A small network of every registered architecture and agent, and inputs for it.

Networks come from the folders of references, or from a configuration here; inputs are drawn by
seed. `test_architectures.py` compares each with itself, compiled.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import bestiary as bt
from bestiary.hub.loading import load
from bestiary.hub.registry import architecture_by_name
from bestiary.rl.agents import algorithm
from bestiary.rl.recurrent_ppo import Sequences

DATA = Path(__file__).parents[2] / "references" / "data"


class Subject(NamedTuple):
    """A module or function to compile, and its arguments by seed."""

    function: Callable[..., Any]
    inputs: Callable[[int], tuple[Any, ...]]


def numbers(seed: int, *shape: int) -> bt.Tensor:
    return bt.tensor(np.random.default_rng(seed).standard_normal(shape).astype(np.float32))


def ids(seed: int, *shape: int, most: int = 30) -> bt.Tensor:
    return bt.tensor(np.random.default_rng(seed).integers(3, most, shape))


def shaken(module: Any) -> Any:
    """With other parameters than those that begin as zeros or ones, which hide mistakes."""
    rng = np.random.default_rng(7)
    for parameter in module.parameters():
        parameter.array[...] += (0.05 * rng.standard_normal(parameter.shape)).astype(np.float32)
    return module.eval()


# -- where the networks come from ------------------------------------------------------------------

#: Folders of references, in which a published configuration and often weights are.
FOLDERS = {
    "albert": "albert-transformers-mask",
    "autoencoder-kl": "stable-diffusion-tiny/vae",
    "autoencoder-tiny": "autoencoder-tiny",
    "bert": "bert-transformers-mask",
    "clip": "clip-transformers",
    "clip-text": "clip-text-projection",
    "convnext": "convnext-timm",
    "deberta-v2": "deberta-v2-transformers-mask",
    "deeplab-mobilenet-v2": "deeplab-transformers",
    "depth-anything": "depth-anything-transformers",
    "detr": "detr-timm",
    "dinov2": "dinov2-timm",
    "distilbert": "distilbert-transformers-mask",
    "dit": "dit-tiny/transformer",
    "efficientnet": "efficientnet-timm",
    "faster-rcnn": "faster-rcnn-torchvision",
    "faster-rcnn-mobilenet": "faster-rcnn-mobilenet-torchvision",
    "gemma3": "gemma3-transformers",
    "gpt2": "gpt2-transformers",
    "llama": "llama-transformers",
    "mask-rcnn": "mask-rcnn-torchvision",
    "mobilenet-v2": "mobilenet-v2-timm",
    "mobilenet-v3": "mobilenet-v3-timm-small",
    "modernbert": "modernbert-transformers-mask",
    "mpnet": "mpnet-transformers-mask",
    "resnet": "resnet-timm-basic",
    "retinanet": "retinanet-torchvision",
    "roberta": "roberta-transformers-mask",
    "rtdetr": "rtdetr-basic",
    "sam": "sam-transformers",
    "segformer": "segformer-transformers",
    "swin": "swin-timm",
    "t5": "t5-transformers",
    "unet2d": "unet2d-cifar",
    "unet2d-condition": "stable-diffusion-tiny/unet",
    "vit": "vit-timm",
    "whisper": "whisper-transformers",
    "yolos": "yolos-transformers",
}
_PLAYERS = {"size": 16, "channels": 3, "latent_size": 6, "width": 8}
#: Configurations of architectures that have none.
CONFIGS: dict[str, dict[str, Any]] = {
    "cifar-resnet": {"stem": 4, "widths": (6, 8), "residual": (1, 2)},
    "dcgan": _PLAYERS,
    "efficientnet-lite": {"width_coefficient": 0.1, "depth_coefficient": 0.3},
    "fcos": {
        "depths": (1, 1, 1),
        "hidden_sizes": (6, 8, 12),
        "embedding_size": 6,
        "levels": 2,
        "width": 8,
    },
    "realnvp": {**_PLAYERS, "latent_size": 768},
    "rrdbnet": {"num_feat": 8, "num_block": 2, "num_grow_ch": 4},
    "sngan": _PLAYERS,
    "squeezenet": {"stem_size": 12, "squeeze_sizes": (2, 3, 4, 5, 6, 7, 8)},
    "srvgg-compact": {"num_feat": 8, "num_conv": 3},
    "stylegan": _PLAYERS,
    "unet": {"widths": (6, 8, 10)},
    "vae": _PLAYERS,
    "vgg": {"depths": (1, 2), "hidden_sizes": (6, 8), "classifier_size": 12},
    "vqvae": {"size": 16, "width": 8, "entries": 12, "features": 6},
    "wgan-gp": _PLAYERS,
}


def network(name: str) -> Any:
    """The small network of an architecture."""
    if name in FOLDERS:
        folder = DATA / FOLDERS[name]
        stored = (folder / "model.safetensors").is_file()
        stored = stored or (folder / "diffusion_pytorch_model.safetensors").is_file()
        module = load(folder, weights=stored).module
        return module.eval() if stored else shaken(module)
    architecture = architecture_by_name(name)
    assert architecture is not None
    bt.manual_seed(3)
    return shaken(architecture.build(architecture.config(**CONFIGS[name])))


# -- and how they are called -----------------------------------------------------------------------


def pictures(module: Any, seed: int) -> tuple[Any, ...]:
    config = module.config
    size = getattr(config, "image_size", None) or getattr(config, "input_size", None) or (48, 56)
    height, width = (size, size) if isinstance(size, int) else size
    return (numbers(seed, 2, getattr(config, "in_channels", 3), height, width),)


def text(module: Any, seed: int) -> tuple[Any, ...]:
    return (ids(seed, 2, 7),)


def latents(module: Any, seed: int) -> tuple[Any, ...]:
    return (numbers(seed, 2, module.config.latent_size),)


def denoised(module: Any, seed: int) -> tuple[Any, ...]:
    config = module.config
    side = config.sample_size if isinstance(config.sample_size, int) else config.sample_size[0]
    return numbers(seed, 2, config.in_channels, side, side), bt.tensor([3 + seed, 700])


def small_pictures(module: Any, seed: int) -> tuple[Any, ...]:
    return (numbers(seed, 2, 3, 16, 16),)


#: Architectures whose inputs are others than those of their kind.
INPUTS: dict[str, Callable[[Any, int], tuple[Any, ...]]] = {
    "autoencoder-kl": small_pictures,
    "autoencoder-tiny": small_pictures,
    "clip": lambda module, seed: (
        ids(seed, 2, 7),
        numbers(seed, 2, 3, *module.config.image_size),
    ),
    "dit": lambda module, seed: (*denoised(module, seed), ids(seed, 2)),
    "sam": lambda module, seed: (
        *pictures(module, seed),
        bt.tensor(np.random.default_rng(seed).uniform(0, 30, (2, 1, 2, 2)).astype(np.float32)),
        bt.tensor(np.ones((2, 1, 2), np.int64)),
    ),
    "t5": lambda module, seed: (ids(seed, 2, 7), None, ids(seed + 1, 2, 5)),
    "unet2d": denoised,
    "unet2d-condition": lambda module, seed: (
        *denoised(module, seed),
        numbers(seed, 2, 5, module.config.cross_attention_dim),
    ),
    "vqvae": small_pictures,
    "rrdbnet": small_pictures,
    "srvgg-compact": small_pictures,
    "whisper": lambda module, seed: (numbers(seed, 2, 20, 100), ids(seed, 2, 5)),
}
OF_PACKAGE = {"vision": pictures, "text": text, "generative": latents}


def subject(name: str) -> Subject:
    """What is compiled of an architecture."""
    module = network(name)
    architecture = architecture_by_name(name)
    assert architecture is not None
    inputs = INPUTS.get(name) or OF_PACKAGE[architecture.build.__module__.split(".")[1]]
    function = module.generator if hasattr(module, "generator") else module
    return Subject(function, lambda seed: inputs(module, seed))


# -- agents ----------------------------------------------------------------------------------------

#: An environment that each algorithm is for; the others take CartPole.
ENVIRONMENTS = {"AlphaZero": "connect-four", **dict.fromkeys(("DDPG", "SAC", "TD3"), "pendulum")}


def networks_of(algorithm_name: str) -> dict[str, Any]:
    """The networks of a new agent; not numbers that are learnt beside them."""
    bt.manual_seed(0)
    agent = algorithm(algorithm_name)(ENVIRONMENTS.get(algorithm_name, "cartpole"))
    found = {}
    for name, module in agent.modules().items():
        parts = module if isinstance(module, bt.nn.ModuleList) else [module]
        for place, part in enumerate(parts):
            if hasattr(type(part), "forward") and not name.startswith("target"):
                found[f"{name}.{place}"] = part.eval()
    return found


def observations(algorithm_name: str, module: Any, seed: int) -> tuple[Any, ...]:
    """What such a network is asked."""
    if algorithm_name == "DecisionTransformer":
        steps = bt.tensor(np.arange(5)[None].repeat(2, 0))
        mask = bt.tensor(np.tri(15, dtype=bool)[None, None])
        actions = numbers(seed, 2, 5, module.of_action.weight.shape[1])
        return numbers(seed, 2, 5, 1), numbers(seed, 2, 5, 4), actions, steps, mask
    if algorithm_name == "RecurrentPPO":
        rng, size = np.random.default_rng(seed), module.lstm.weight_hh.shape[1]
        memory = (np.zeros((3, size), np.float32), np.zeros((3, size), np.float32))
        features = rng.standard_normal((4, 3, 4)).astype(np.float32)
        return (Sequences(features, np.ones((4, 3), bool), memory),)
    if algorithm_name == "AlphaZero":
        return (numbers(seed, 3, 2, 6, 7),)
    first = next(p for _, p in module.named_parameters() if p.ndim == 2)
    return (numbers(seed, 3, first.shape[1]),)
