"""Pictures made larger: the task of ESRGAN."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np

from ...core.data.images import from_array, read_image
from ...core.errors import ConfigError
from ...core.nn import Module
from ...core.state import inference_mode
from ...core.tensor import Tensor
from ...hub.card import Card
from ...hub.filling import Report
from ...hub.loading import Loaded
from ..esrgan import tiled
from ..pipelines.sampling import check_finite
from ..upscalers import network_of

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

        Args:
            path: a torch checkpoint, safetensors, or the .param file of an ncnn model.

        Raises:
            WeightsError: it is neither an RRDBNet nor an SRVGGNetCompact.
        """
        file = Path(path)
        architecture, module, config = network_of(file)
        name = name or file.stem
        card = Card(name=name, architecture=architecture, task=cls.task, source=str(file))
        return cls(module, config=config, card=card, architecture=architecture)

    def __call__(self, picture: Any, *, tile: int = TILE, overlap: int = OVERLAP) -> Any:
        """A picture, or each of a list, made larger.

        Args:
            picture: a file, a Pillow picture or an array (H, W, 3); cameras' turns are applied.
            tile: rows and columns of what is worked on at once; more take more memory.
            overlap: pixels that a tile sees beyond what is kept of it. Less than the network sees
                may show at the seams.

        Raises:
            ConfigError: a tile or overlap that makes no sense.
            DataError, ShapeError: it is no picture.
        """
        for key, value, least in (("tile", tile, 8), ("overlap", overlap, 0)):
            if type(value) is not int or not least <= value <= 65_536:
                raise ConfigError(f"{key}={value!r}: a whole number from {least}", got=value)
        if isinstance(picture, Sequence) and not isinstance(picture, (str, bytes)):
            return [self(one, tile=tile, overlap=overlap) for one in picture]
        pixels = np.asarray(read_image(picture), np.float32).transpose(2, 0, 1)[None] / np.float32(
            255
        )
        x = Tensor(np.ascontiguousarray(pixels)).to(self.device)
        with inference_mode():
            made = tiled(self.module, x, self.scale, tile, overlap, self.config.fold)
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
