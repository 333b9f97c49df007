"""What tasks share whose pictures come out of an autoencoder: decoding, previews, saving."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from ...core.errors import ConfigError, DataError, ShapeError
from ...core.graph.compiled import Compiled
from ...core.nn import Module
from ...core.notice import HubWarning, warn_once
from ...core.paths import atomic
from ...core.tensor import Tensor
from ...hub.card import Card
from ...hub.filling import Report
from ...hub.loading import MARKER, Loaded
from ...hub.pipelines import INDEX, SCHEDULER, PartsConfig
from ..pipelines.decoding import TILE, decoded
from ..pipelines.estimates import (
    COMPILED,
    PREPARED,
    Cost,
    available_memory,
    decoder_memory,
    decoder_operations,
    seconds_for,
    weight_bytes,
)
from ..pipelines.metadata import remember
from ..pipelines.previews import LinearPreview, TinyPreview
from ..pipelines.sampling import Callback, SamplingStep, to_pictures
from ..schedulers import SCHEDULERS, SHORT, Scheduler, scheduler_of

if TYPE_CHECKING:
    from PIL.Image import Image

OUTPUTS = ("pictures", "array", "latents")
_EAGER_CALLS = 2  # of one shape, before it pays to compile
_TILED_FROM = 128  # places of latents, in one direction, from which pictures are decoded by tiles


@dataclass(frozen=True)
class LatentStep(SamplingStep):
    """What a callback is told after each step; `sample` and `clean` are latents.

    Attributes:
        step, steps, timestep, sample, clean: see `SamplingStep`.
        preview: latents to pictures, quickly.
    """

    preview: Callable[[Tensor], Tensor] | None = None

    def pictures(self) -> list[Image]:
        """What the network takes the end to be, as small pictures."""
        latents = self.sample if self.clean is None else self.clean
        return to_pictures(latents if self.preview is None else self.preview(latents))


class LatentTask:
    """Networks that make latents, an autoencoder, and a scheduler.

    Attributes:
        module: the networks: `module.unet` or `module.transformer`, `module.vae`, ...
        scheduler: how noise becomes latents; replace it for good, or for a call.
        card: licence, origin.
        report: what loading did with each tensor, and `reports` part by part.
        skipped: parts of the folder that are not used, such as the safety checker.
        slicing: one sample and one condition at a time: the least memory, somewhat slower.
        tiling: decode by tiles of this many places of latents, or True for 64; False never;
            None only pictures so large that it is needed.
        compile: whether networks are compiled once they were called a few times.
    """

    task = ""
    network = "unet"  # of the parts, the one that is called in every step

    def __init__(
        self,
        module: Module,
        *,
        config: PartsConfig,
        card: Card,
        scheduler: Scheduler,
        report: Report | None = None,
        reports: Mapping[str, Report] | None = None,
        skipped: Sequence[str] = (),
        beside: Mapping[str, bytes] | None = None,
    ) -> None:
        self.module, self.config, self.card = module, config, card
        self.scheduler = scheduler
        self.report, self.reports = report or Report(), dict(reports or {})
        self.skipped = tuple(skipped)
        self.slicing = False
        self.tiling: int | bool | None = None
        self.compile = True
        self._beside = dict(beside or {})  # files that are saved as they came
        self._program: Compiled | None = None
        self._called = False  # from then on the network's weights are there in two forms
        self._preview: Callable[[Tensor], Tensor] | None = None

    @classmethod
    def from_loaded(cls, loaded: Loaded) -> Self:
        """The task of a pipeline that `bt.load` has loaded."""
        if loaded.skipped:
            warn_once(
                f"skipped parts {loaded.skipped}",
                f"{loaded.card.name}: {', '.join(loaded.skipped)} not loaded: pictures are made "
                "without, and nobody checks what they show",
                HubWarning,
            )
        return cls(**cls._arguments(loaded))

    @classmethod
    def _arguments(cls, loaded: Loaded) -> dict[str, Any]:
        assert loaded.scheduler is not None
        return {
            "module": loaded.module,
            "config": loaded.config,
            "card": loaded.card,
            "scheduler": scheduler_of(loaded.scheduler),
            "report": loaded.report,
            "reports": {name: part.report for name, part in loaded.parts.items()},
            "skipped": loaded.skipped,
        }

    # -- settings of a call --------------------------------------------------------------------

    @property
    def factor(self) -> int:
        """How many pixels one place of the latents stands for, in each direction."""
        return int(self.module.vae.config.factor)

    def _walked(self, scheduler: str | Scheduler | None) -> Scheduler:
        """A scheduler for one walk: the model's own, or another with its table of noise."""
        if isinstance(scheduler, Scheduler):
            return scheduler
        if scheduler is None:
            return scheduler_of(self.scheduler)
        kind = SCHEDULERS.get(SHORT.get(scheduler, scheduler))
        return scheduler_of(scheduler) if kind is None else kind.from_config(self.scheduler)

    def _size(self, size: Any, default: tuple[int, int]) -> tuple[int, int]:
        """Height and width of the pictures, checked."""
        pair = default if size is None else size
        pair = (pair, pair) if isinstance(pair, int) else tuple(pair)
        if len(pair) != 2 or not all(type(n) is int and 1 <= n <= 65_536 for n in pair):
            raise ConfigError(f"size={size!r} is neither a number nor (height, width)", got=size)
        multiple = self._multiple()
        if pair[0] % multiple or pair[1] % multiple:
            near = tuple(max(round(n / multiple), 1) * multiple for n in pair)
            raise ShapeError(
                f"pictures of {pair[0]} x {pair[1]}: height and width must be multiples of "
                f"{multiple}.\nNearest: {near[0]} x {near[1]}",
                expected=near,
                got=pair,
            )
        return pair

    def _multiple(self) -> int:
        return self.factor

    def _given_latents(self, latents: Any, shape: tuple[int, ...], like: Tensor) -> Tensor | None:
        """What a walk is to begin with, checked."""
        if latents is None:
            return None
        values = latents.numpy() if isinstance(latents, Tensor) else np.asarray(latents)
        if values.shape != shape:
            raise ShapeError(
                f"latents of shape {shape} are wanted, got {values.shape}.",
                expected=shape,
                got=values.shape,
            )
        if not np.isfinite(values).all():
            raise DataError("the latents hold NaN or infinity")
        return Tensor(values.astype(like.dtype)).to(device=like.device)

    # -- networks ------------------------------------------------------------------------------

    def _network(self) -> Any:
        """The network of the steps, compiled once it was called a few times."""
        network = getattr(self.module, self.network)
        self._called = True
        if not self._compiles():
            return network
        if self._program is None or self._program.function is not network:
            self._program = Compiled(network, after=_EAGER_CALLS, quiet=True)
        return self._program

    def _compiles(self) -> bool:
        """Whether to compile the network: not if its copies of the weights fill the memory."""
        if self._program is not None or not self.compile:
            return self.compile
        free = available_memory(self.device)
        needed = (PREPARED + COMPILED) * weight_bytes(getattr(self.module, self.network))
        return free is None or needed < free / 2

    def _tile(self, rows: int, columns: int) -> int | None:
        if self.tiling is None:
            return TILE if max(rows, columns) >= _TILED_FROM else None
        if self.tiling is True:
            return TILE
        return self.tiling or None

    def decode(self, latents: Any) -> Tensor:
        """The pictures of latents that were diffused, from -1 to 1.

        Shape:
            (B, latent_channels, H, W) -> (B, 3, factor H, factor W)
        """
        vae = self.module.vae
        x = latents if isinstance(latents, Tensor) else Tensor(np.asarray(latents, np.float32))
        rows, columns = x.shape[2:]
        return decoded(vae, x.to(device=self.device), tile=self._tile(rows, columns))

    def use_preview(self, tiny: Any) -> Self:
        """Make previews with a small autoencoder: `model.use_preview(bt.load("taesd"))`."""
        module = getattr(tiny, "module", tiny)
        channels = self.module.vae.config.latent_channels
        if getattr(getattr(module, "config", None), "latent_channels", None) != channels:
            raise ConfigError(
                f"previews need an autoencoder of latents with {channels} channels, such as taesd"
            )
        self._preview = TinyPreview(module)
        return self

    def preview(self, latents: Tensor) -> Tensor:
        """What latents will look like, quickly; see `use_preview`."""
        if self._preview is None:
            self._preview = LinearPreview(self.module.vae)
        return self._preview(latents)

    def _told(self, callback: Callback | None) -> Callback | None:
        """A callback that is told of latents with the means to look at them."""
        if callback is None:
            return None
        given = callback

        def tell(step: SamplingStep) -> Any:
            own = {f.name: getattr(step, f.name) for f in dataclasses.fields(SamplingStep)}
            return given(LatentStep(**own, preview=self.preview))

        return tell

    def _output(
        self, latents: Tensor, output: str, settings: Sequence[Mapping[str, Any]]
    ) -> list[Any]:
        """What is asked for, of each picture."""
        if output == "latents":
            return list(np.asarray(latents.cpu().numpy()))
        made = self.decode(latents)
        if output == "array":
            return list(np.asarray(made.cpu().numpy(), np.float32))
        pictures = to_pictures(made)
        return [remember(p, dict(s)) for p, s in zip(pictures, settings, strict=True)]

    def _said(self, scheduler: Scheduler, size: tuple[int, int], **more: Any) -> dict[str, Any]:
        """How a picture is made, for its file."""
        from ... import __version__

        said: dict[str, Any] = {"model": self.card.name, "bestiary": __version__}
        said |= {"scheduler": scheduler.to_config(), "size": list(size)}
        return said | more

    def _cost(self, operations: float, memory: int, pictures: int, rows: int, columns: int) -> Cost:
        """Of walks with these operations, and of decoding what comes of them."""
        vae = self.module.vae
        if not self._called and str(self.device) == "cpu":
            share = PREPARED + (COMPILED if self._compiles() else 0)
            memory += int(share * weight_bytes(getattr(self.module, self.network)))
        if hasattr(vae.config, "block_out_channels"):
            operations += pictures * decoder_operations(vae, rows, columns)
            memory = max(memory, decoder_memory(vae, rows, columns, self._tile(rows, columns)))
        seconds = seconds_for(operations, self.device)
        return Cost(seconds, memory, weight_bytes(self.module), operations)

    # -- the model -----------------------------------------------------------------------------

    @property
    def device(self) -> Any:
        """Where the networks are."""
        return self.module.device

    def to(self, device: Any) -> Self:
        """Move the networks to a device: `model.to("cuda")`."""
        self.module.to(device=device)
        return self

    def save(self, folder: str | Path, *, dtype: Any = None) -> Path:
        """Write a folder that `bt.load(folder)` opens again, and diffusers too.

        Args:
            dtype: of the stored weights, such as "float16"; as they are unless given.
        """
        from ...hub.saving import save_model

        target = Path(folder)
        index: dict[str, Any] = {"_class_name": self.config.pipeline}
        for name, said in self.config.networks.items():
            module = getattr(self.module, name)
            architecture = str(said["architecture"])
            save_model(
                target / name,
                module,
                architecture=architecture,
                config=module.config,
                card=Card(f"{self.card.name}/{name}", architecture, "pipeline-part"),
                dtype=dtype,
            )
            index[name] = _CLASSES.get(architecture, ["diffusers", architecture])
        _write(target / SCHEDULER / "scheduler_config.json", self.scheduler.to_config())
        index[SCHEDULER] = ["diffusers", type(self.scheduler).__name__]
        for path, content in self._beside.items():
            with atomic(target / path) as part:
                part.write_bytes(content)
        index |= self._index()
        with atomic(target / "README.md") as part:
            part.write_text(self.card.markdown(), encoding="utf-8")
        marker = {"card": dataclasses.replace(self.card, task=self.task).to_dict()}
        _write(target / INDEX, {**index, MARKER: marker})
        return target

    def _index(self) -> dict[str, Any]:
        """What else model_index.json says."""
        return {}

    def _repr_html_(self) -> str:
        from ...core.insight.notebook import task_html

        return task_html(self)

    def __repr__(self) -> str:
        parts = ", ".join(self.config.networks)
        return (
            f"{type(self).__name__}({self.card.name!r}, {parts}, "
            f"{type(self.scheduler).__name__}, on {self.device})"
        )


# How the index names the classes of our architectures.
_CLASSES = {
    "autoencoder-kl": ["diffusers", "AutoencoderKL"],
    "autoencoder-tiny": ["diffusers", "AutoencoderTiny"],
    "clip-text": ["transformers", "CLIPTextModel"],
    "dit": ["diffusers", "DiTTransformer2DModel"],
    "unet2d-condition": ["diffusers", "UNet2DConditionModel"],
}


def check_output(output: str) -> None:
    """Raise unless it is one of `OUTPUTS`."""
    if output not in OUTPUTS:
        raise ConfigError(f"output={output!r} is none of {', '.join(OUTPUTS)}", got=output)


def files_beside(folder: Path | None, names: Sequence[str]) -> dict[str, bytes]:
    """The contents of the files in subfolders of a pipeline, to be saved with it."""
    found = {}
    for name in names:
        inside = folder / name if folder is not None else None
        for path in sorted(inside.iterdir()) if inside is not None and inside.is_dir() else ():
            if path.is_file() and not path.name.startswith("."):
                found[f"{name}/{path.name}"] = path.read_bytes()
    return found


def _write(path: Path, value: Mapping[str, Any]) -> None:
    with atomic(path) as part:
        part.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
