"""What timm publishes: its config.json, and its table of results.

Layouts called "timm" name tensors as timm 1.0.31 does, and read the `architecture` and `model_args`
that its `save_for_hf` writes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..core.errors import ConfigError
from ..hub.configuration import TIMM_COMMON, expect, refuse_unknown
from ..hub.registry import Entry, Hub, Metric
from .transforms import edge_of

TF_EPS = 1e-3  # of batch norm in TensorFlow's networks; torch's own is 1e-5
RESULTS = (
    "https://github.com/huggingface/pytorch-image-models/blob/"
    "aa4b5850c1543fa488abf260f18390eda46cf85d/results/results-imagenet.csv"
)


def arguments(
    published: Mapping[str, Any], what: str, *known: str
) -> tuple[Mapping[str, Any], dict[str, Any]]:
    """The `model_args`, of which only those named are allowed; `in_channels` and `num_classes`.

    Raises:
        ConfigError: there are others, or keys beside them that nobody reads.
    """
    args = published.get("model_args") or {}
    if not isinstance(args, Mapping):
        raise ConfigError(f"{what}: model_args={args!r} is no table", got=args)
    refuse_unknown(published, TIMM_COMMON, what)
    refuse_unknown(args, {"in_chans", "num_classes", "global_pool", *known}, f"{what} (model_args)")
    expect({**args, **published}, what, global_pool=("avg",))
    first = (published.get("pretrained_cfg") or {}).get("input_size") or (3,)
    ends = {
        "in_channels": args.get("in_chans", first[0]),
        "num_classes": published.get("num_classes", args.get("num_classes", 1000)),
    }
    return args, ends


# Arguments that timm's builders of mobile networks take, and ours.
_MOBILE = {
    "bn_eps": "eps",
    "channel_multiplier": "width",
    "depth_multiplier": "depth",
    "drop_path_rate": "drop_path",
    "drop_rate": "dropout",
}


def mobile_arguments(
    published: Mapping[str, Any], what: str, sizes: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """The arguments of a `MobileConfig`: a size by name, with changes to it.

    Weights that came from TensorFlow have names with `tf_` before them.
    """
    args, ends = arguments(published, what, *_MOBILE, "pad_type")
    expect(args, what, pad_type=("", "same"))
    name = str(published["architecture"])
    values: dict[str, Any] = dict(sizes[name.removeprefix("tf_")])
    if name.startswith("tf_"):
        values |= {"same_padding": True, "eps": TF_EPS}
    for key, own in _MOBILE.items():
        if key in args:
            values[own] = tuple(args[key]) if isinstance(args[key], list) else args[key]
    if "pad_type" in args:
        values["same_padding"] = args["pad_type"] == "same"
    return {**values, **ends}


def entry(
    architecture: str,
    tag: str,
    parameters: int,
    top1: float,
    *,
    config: Mapping[str, Any],
    paper: str,
    name: str | None = None,
    size: int = 224,
    crop: float = 0.875,
    resample: str = "bicubic",
    half: bool = False,
    license: str = "Apache-2.0",
    commercial: bool = True,
    aliases: tuple[str, ...] = (),
    note: str | None = None,
) -> Entry:
    """An entry for weights that timm has on the hub.

    Args:
        tag: of the weights: timm/ARCHITECTURE.TAG.
        name: where it is not the architecture's.
        parameters: counted.
        top1: at `size` pixels, from `RESULTS`.
        size, crop, resample: from timm's default configuration of these weights.
        half: whether pixels are scaled to -1 ... 1, not by the mean and deviation of ImageNet.
    """
    preprocess: dict[str, Any] = {
        "size": (size, size),
        "resize": edge_of(size, crop),
        "resample": resample,
    }
    if half:
        preprocess |= {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}
    return Entry(
        name=(name or architecture).replace("_", "-"),
        aliases=(f"{architecture}.{tag}", *aliases),
        sources=(Hub(f"timm/{architecture}.{tag}"),),
        config=config,
        layout="timm",
        license=license,
        commercial=commercial,
        parameters=parameters,
        metric=Metric("% top-1", top1, "ImageNet-1k validation", size, RESULTS),
        preprocess=preprocess,
        labels="imagenet-1k",
        paper=paper,
        note=note,
    )
