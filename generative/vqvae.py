"""VQ-VAE. van den Oord et al. 2017, "Neural discrete representation learning".

A picture becomes a small map of entries of a codebook. The gradient passes the choice of an entry
as if it were none ("straight through"); the codebook follows the running mean of what was mapped to
each entry, as in the paper's appendix, and entries that nothing is mapped to are moved to features
of the batch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from ..core import nn
from ..core.devices import backend_for
from ..core.errors import DtypeError, IndexRangeError, ShapeError
from ..core.nn import functional as F
from ..core.nn.parameter import Buffer
from ..core.ops.elementwise import square
from ..core.ops.reduction import mean
from ..core.ops.shape import permute_dims, reshape
from ..core.ops.trigonometry import tanh
from ..core.ops.update import assign
from ..core.random import numpy_rng
from ..core.tensor import Tensor
from ..hub.configuration import positive, real
from ..hub.registry import register
from .small import check_pictures


@dataclass(frozen=True)
class Config:
    """Sizes of a VQ-VAE.

    Args:
        size: rows and columns of a picture, a multiple of 4.
        channels: 1 for grey pictures, 3 for RGB.
        width: channels of the maps.
        entries, features: of the codebook.
        commitment: how much features are drawn towards their entries.
        decay: how much of its place an entry keeps in a step.
        restart: uses below which an entry is moved elsewhere; 0 never moves one.
    """

    size: int = 32
    channels: int = 3
    width: int = 64
    entries: int = 256
    features: int = 32
    commitment: float = 0.25
    decay: float = 0.99
    restart: float = 0.1

    def __post_init__(self) -> None:
        names = "size channels width entries features"
        positive("VQ-VAE", **{name: getattr(self, name) for name in names.split()})
        real("VQ-VAE", decay=self.decay)
        real("VQ-VAE", 0.0, 1e6, commitment=self.commitment, restart=self.restart)
        if self.size % 4:
            raise ShapeError(
                f"VQ-VAE: size={self.size} is no multiple of 4", got=self.size, expected=4
            )

    @property
    def side(self) -> int:
        """Rows and columns of the map of codes."""
        return self.size // 4


class Quantized(NamedTuple):
    """What a codebook makes of features.

    Attributes:
        values: of the entries, in the features' place; gradients go to the features.
        codes: which entry each is, (B, H, W).
        commitment: the mean squared distance of the features from their entries.
    """

    values: Tensor
    codes: Tensor
    commitment: Tensor


class Codebook(nn.Module):
    """The entries, and how often each was used.

    Shape:
        (B, features, H, W), kept
    """

    def __init__(self, entries: int, features: int, decay: float, restart: float) -> None:
        values = numpy_rng().standard_normal((entries, features), dtype=np.float32)
        self.entries = Buffer(values)
        # Those that nothing chose yet are moved to features of the first batch.
        self.uses = Buffer(np.full(entries, 0 if restart else 1, np.float32))
        self.sums = Buffer(values.copy())
        self.decay, self.restart = decay, restart

    def forward(self, x: Tensor) -> Quantized:
        count, features, height, width = x.shape
        flat = reshape(permute_dims(x, (0, 2, 3, 1)), (-1, features))
        book = self.entries.array
        points = flat.detach().array
        distances = (book * book).sum(axis=1) - 2 * points @ book.T
        codes = distances.argmin(axis=1)
        if self.training:
            self._follow(points, codes)
        chosen = Tensor(book[codes])
        nearest = permute_dims(reshape(chosen, (count, height, width, features)), (0, 3, 1, 2))
        commitment = mean(square(x - nearest))
        values = x + (nearest - x).detach()
        return Quantized(values, Tensor(codes.reshape(count, height, width)), commitment)

    def _follow(self, points: Any, codes: Any) -> None:
        """Move each entry towards the mean of the features that chose it."""
        xp = backend_for(self.entries.device).xp
        chosen = (codes[:, None] == xp.arange(len(self.entries.array))).astype(points.dtype)
        share = np.float32(1 - self.decay)
        uses = self.uses.array * (1 - share) + chosen.sum(axis=0) * share
        sums = self.sums.array * (1 - share) + (chosen.T @ points) * share
        idle = xp.flatnonzero(uses < self.restart)
        if len(idle) and self.restart:
            uses[idle] = 1
            sums[idle] = points[xp.asarray(numpy_rng().integers(0, len(points), len(idle)))]
        assign(self.uses, Tensor(uses))
        assign(self.sums, Tensor(sums))
        assign(self.entries, Tensor(sums / xp.maximum(uses, 1e-5)[:, None]))

    def look_up(self, codes: Tensor) -> Tensor:
        """The entries of codes. Shape: (B, H, W) -> (B, features, H, W)"""
        values = codes.cpu().numpy()
        entries = len(self.entries.array)
        if values.dtype.kind not in "iu":
            raise DtypeError(f"VQ-VAE: codes are whole numbers, got {values.dtype}.")
        if values.size and not 0 <= int(values.min()) <= int(values.max()) < entries:
            raise IndexRangeError(
                f"VQ-VAE: codes from {values.min()} to {values.max()}; there are {entries}.",
                got=int(values.max()),
                size=entries,
            )
        chosen = self.entries.array[backend_for(self.entries.device).xp.asarray(values)]
        return permute_dims(Tensor(chosen), (0, 3, 1, 2))


class Block(nn.Module):
    """Two convolutions beside a shortcut."""

    def __init__(self, width: int) -> None:
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.conv2(F.relu(self.conv1(F.relu(x))))
        return out


class VQVAE(nn.Module):
    """Encoder to a map of a quarter of the rows, codebook, decoder.

    Shape:
        (B, channels, size, size), kept
    """

    def __init__(self, config: Config) -> None:
        self.config = c = config
        self.encoder = nn.Sequential(
            nn.Conv2d(c.channels, c.width // 2 or 1, 4, 2, 1),
            nn.ReLU(),
            nn.Conv2d(c.width // 2 or 1, c.width, 4, 2, 1),
            Block(c.width),
            Block(c.width),
            nn.Conv2d(c.width, c.features, 1),
        )
        self.codebook = Codebook(c.entries, c.features, c.decay, c.restart)
        self.decoder = nn.Sequential(
            nn.Conv2d(c.features, c.width, 3, padding=1),
            Block(c.width),
            Block(c.width),
            nn.ConvTranspose2d(c.width, c.width // 2 or 1, 4, 2, 1),
            nn.ReLU(),
            nn.ConvTranspose2d(c.width // 2 or 1, c.channels, 4, 2, 1),
        )

    def encode(self, x: Tensor) -> Tensor:
        """Codes of pictures. Shape: (B, channels, size, size) -> (B, size / 4, size / 4)"""
        check_pictures("VQ-VAE", x, self.config.channels, self.config.size)
        found: Quantized = self.codebook(self.encoder(x))
        return found.codes

    def decode(self, codes: Tensor) -> Tensor:
        """Pictures of codes. Shape: (B, size / 4, size / 4) -> (B, channels, size, size)"""
        side = self.config.side
        if codes.ndim != 3 or tuple(codes.shape[1:]) != (side, side):
            raise ShapeError(
                f"VQ-VAE: codes of shape (B, {side}, {side}) are wanted, got {tuple(codes.shape)}.",
                expected=(None, side, side),
                got=tuple(codes.shape),
            )
        return tanh(self.decoder(self.codebook.look_up(codes)))

    def forward(self, x: Tensor) -> Tensor:
        check_pictures("VQ-VAE", x, self.config.channels, self.config.size)
        return tanh(self.decoder(self.codebook(self.encoder(x)).values))

    def loss(self, x: Tensor, labels: Tensor | None = None) -> tuple[Tensor, dict[str, float]]:
        """The squared error of the pixels, and the commitment of features to their entries."""
        check_pictures("VQ-VAE", x, self.config.channels, self.config.size)
        found: Quantized = self.codebook(self.encoder(x))
        error = mean(square(tanh(self.decoder(found.values)) - x))
        used = len(np.unique(found.codes.cpu().numpy())) / self.config.entries
        loss = error + self.config.commitment * found.commitment
        return loss, {"error": float(error.item()), "entries used": used}


@register("vqvae", config=Config, task="image-autoencoding")
def vqvae(config: Config) -> VQVAE:
    """Autoencoder to entries of a codebook."""
    return VQVAE(config)
