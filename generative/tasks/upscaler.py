"""Pictures made larger: the task of ESRGAN."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np

from ...core.data.images import from_array, read_image
from ...core.errors import ConfigError, WeightsError
from ...core.nn import Module
from ...core.state import inference_mode
from ...core.tensor import Tensor
from ...core.weights import load
from ...hub.card import Card
from ...hub.filling import Report
from ...hub.loading import Loaded
from ..esrgan import Config, RRDBNet, tiled
from ..pipelines.sampling import check_finite

TILE, OVERLAP = 192, 16  # pixels of the small picture


class Upscaler:
    """Makes pictures larger: `model("photo.png")` is a Pillow picture.

    Attributes:
        module: the network.
        scale: how many rows and columns each pixel becomes.
        card: licence, origin, results.
        report: what loading did with each tensor.
    """

    task = "image-upscaling"

    def __init__(
        self,
        module: Module,
        *,
        config: Any,
        card: Card,
        report: Report | None = None,
        architecture: str = "rrdbnet",
    ) -> None:
        self.module, self.config, self.card = module, config, card
        self.report = report or Report()
        self.architecture = architecture
        self.compile = False
        self.scale = int(config.scale)

    @classmethod
    def from_loaded(cls, loaded: Loaded) -> Self:
        """The task of what `bt.load` has loaded."""
        return cls(
            loaded.module,
            config=loaded.config,
            card=loaded.card,
            report=loaded.report,
            architecture=loaded.architecture.name,
        )

    @classmethod
    def from_checkpoint(cls, path: str | Path, *, name: str | None = None) -> Self:
        """The network of a Real-ESRGAN checkpoint: its sizes are read off the weights.

        Raises:
            WeightsError: it is no RRDBNet.
        """
        file = Path(path)
        tensors = {key: np.asarray(value) for key, value in load(file).items()}
        first = [key for key in tensors if key.endswith("conv_first.weight")]
        # Files hold the averaged network, the last one, or both.
        chosen = next((k for k in first if "ema" in k), first[0] if first else None)
        if chosen is None:
            raise WeightsError(f"{file} holds no RRDBNet: there is no conv_first.weight in it.")
        prefix = chosen.removesuffix("conv_first.weight")
        state = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
        config = _sizes(state, file)
        module = RRDBNet(config)
        module.load_state_dict({k: Tensor(v.astype(np.float32)) for k, v in state.items()})
        module.eval()
        card = Card(name=name or file.stem, architecture="rrdbnet", task=cls.task, source=str(file))
        return cls(module, config=config, card=card)

    def __call__(self, picture: Any, *, tile: int = TILE, overlap: int = OVERLAP) -> Any:
        """A picture, or each of a list, made larger.

        Args:
            picture: a file, a Pillow picture or an array (H, W, 3).
            tile: rows and columns of what is worked on at once; more take more memory.
            overlap: pixels that a tile sees beyond what is kept of it. Less than the network sees
                may show at the seams.

        Raises:
            ConfigError: a tile or overlap that makes no sense.
            DataError: a file that is no picture.
        """
        for key, value, least in (("tile", tile, 8), ("overlap", overlap, 0)):
            if type(value) is not int or not least <= value <= 65_536:
                raise ConfigError(f"{key}={value!r}: a whole number from {least}", got=value)
        if isinstance(picture, Sequence) and not isinstance(picture, (str, bytes)):
            return [self(one, tile=tile, overlap=overlap) for one in picture]
        image = read_image(picture) if isinstance(picture, (str, Path)) else picture
        image = (from_array(image) if isinstance(image, np.ndarray) else image).convert("RGB")
        pixels = np.asarray(image, np.float32).transpose(2, 0, 1)[None] / np.float32(255)
        x = Tensor(np.ascontiguousarray(pixels)).to(self.device)
        with inference_mode():
            made = tiled(self.module, x, self.scale, tile, overlap, 4 // self.scale)
        check_finite(made)
        values = np.clip(made.cpu().numpy()[0].transpose(1, 2, 0), 0, 1)
        return from_array(np.round(values * 255).astype(np.uint8))

    def _repr_html_(self) -> str:
        from ...core.insight.notebook import task_html

        return task_html(self)

    @property
    def device(self) -> Any:
        """Where the network is."""
        return self.module.device

    def to(self, device: Any) -> Self:
        """Move the network to a device: `model.to("cuda")`."""
        self.module.to(device=device)
        return self

    def save(self, folder: str | Path, *, dtype: Any = None) -> Path:
        """Write a folder that `bt.load(folder)` opens again."""
        from ...hub.saving import save_model

        return save_model(
            folder,
            self.module,
            architecture=self.architecture,
            config=self.config,
            card=self.card,
            dtype=dtype,
        )

    def __repr__(self) -> str:
        return f"Upscaler({self.card.name!r}, {self.scale} times, on {self.device})"


def _sizes(state: dict[str, Any], file: Path) -> Config:
    """The sizes of the network that these weights belong to."""
    blocks = {key.split(".")[1] for key in state if key.startswith("body.")}
    growth, last = state.get("body.0.rdb1.conv1.weight"), state.get("conv_last.weight")
    first = state["conv_first.weight"]
    if growth is None or last is None or first.ndim != 4:
        raise WeightsError(f"{file} holds no RRDBNet: body or conv_last is missing.")
    outputs = last.shape[0]
    scale = {outputs: 4, 4 * outputs: 2, 16 * outputs: 1}.get(first.shape[1])
    if scale is None:
        raise WeightsError(
            f"{file}: {first.shape[1]} channels go into the network and {outputs} come out of it, "
            "which no scale explains.",
            got=first.shape[1],
        )
    return Config(
        num_in_ch=outputs,
        num_out_ch=outputs,
        scale=scale,
        num_feat=first.shape[0],
        num_block=len(blocks),
        num_grow_ch=growth.shape[0],
    )
