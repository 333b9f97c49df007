"""Training a VQ-VAE on pictures: the recipe `vqvae`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from ...core.insight.runs.writer import Run
from ...core.state import inference_mode
from ...core.tensor import Tensor
from ...hub.configuration import positive, real
from ..tasks.codebook import CodebookAutoencoder
from ..vqvae import VQVAE, Config
from .alarms import check_codebook, codebook_use
from .own_loss import Array, CommonSettings, OwnLoss
from .pictures import Pictures

_COLUMNS = 10
_MEASURED = 256  # pictures


@dataclass(frozen=True)
class Settings(CommonSettings):
    """Every setting of the recipe: those of `CommonSettings`, and the network's.

    Args:
        width: channels of the maps.
        entries, features: of the codebook.
        commitment: how much features are drawn towards their entries.
        decay: how much of its place an entry keeps in a step.
        restart: uses in a batch below which an entry is moved elsewhere; 0 never moves one.
    """

    width: int = 64
    entries: int = 256
    features: int = 32
    commitment: float = 0.25
    decay: float = 0.99
    restart: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        what = "the recipe"
        positive(what, width=self.width, entries=self.entries, features=self.features)
        real(what, decay=self.decay)
        real(what, 0.0, 1e6, commitment=self.commitment, restart=self.restart)


class Quantizing(OwnLoss):
    """A VQ-VAE in training: `Quantizing(pictures, out=folder).fit()`.

    Its grids show rows of pictures, the same every time, each above the row of what the codes keep
    of them. After each epoch it says the error of some pictures and how much of the codebook they
    use, and warns if that is little. Classes are not used. See `OwnLoss` for the rest.
    """

    buffers: ClassVar[str] = "average"  # entries move with the weights around them

    def __init__(
        self,
        pictures: Pictures,
        settings: Settings | None = None,
        *,
        kind: str = "vqvae",
        out: str | Path,
        device: str = "cpu",
        quiet: bool = False,
        run: Run | None = None,
    ) -> None:
        super().__init__(
            pictures,
            settings or Settings(),
            kind=kind,
            out=out,
            device=device,
            quiet=quiet,
            run=run,
        )

    def network(self, channels: int, size: int) -> VQVAE:
        """The VQ-VAE."""
        s = self.settings
        config = Config(
            size=size,
            channels=channels,
            width=s.width,
            entries=s.entries,
            features=s.features,
            commitment=s.commitment,
            decay=s.decay,
            restart=s.restart,
        )
        return VQVAE(config)

    def prepare(self, rng: np.random.Generator) -> None:
        """Choose the pictures of the grids, and those that are measured."""
        count = len(self.pictures)
        chosen = rng.permutation(count)[: max(self.settings.samples, _MEASURED)]
        clean = self.pictures.scaled(chosen)
        self._shown = clean[: max(self.settings.samples // 2, 1)]
        self._measured = clean[:_MEASURED]

    def columns(self) -> int | None:
        """As many as `samples` puts into a row."""
        return min(_COLUMNS, len(self._shown))

    def samples(self, module: Any) -> Array:
        """The grid: a row of pictures above the row of what is kept of them, and so on."""
        with inference_mode():
            made = module(Tensor(self._shown).to(module.device)).cpu().numpy()
        columns = min(_COLUMNS, len(made))
        rows = []
        for first in range(0, len(made), columns):
            pair = (self._shown[first : first + columns], made[first : first + columns])
            empty = np.full((columns - len(pair[0]), *made.shape[1:]), -1, np.float32)
            rows += [part for row in pair for part in (row, empty)]
        return np.concatenate(rows)

    def figures(self, module: Any) -> dict[str, float]:
        """The error of pictures, the share of the codebook that they use, and its perplexity."""
        codes, error = [], 0.0
        with inference_mode():
            for first in range(0, len(self._measured), self.settings.batch_size):
                x = self._measured[first : first + self.settings.batch_size]
                found = module.encode(Tensor(x).to(module.device))
                error += float(((module.decode(found).cpu().numpy() - x) ** 2).sum())
                codes.append(found.cpu().numpy())
        share, perplexity = codebook_use(np.concatenate(codes), self.config.entries)
        check_codebook(share, self.trainer.step)
        return {
            "measured error": error / self._measured.size,
            "codebook used": share,
            "perplexity": perplexity,
        }

    def generator(self) -> CodebookAutoencoder:
        """The network as the task that encodes and decodes."""
        return CodebookAutoencoder(
            self.module,
            architecture=self.kind,
            config=self.config,
            card=self.card(CodebookAutoencoder.task),
        )
