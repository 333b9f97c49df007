"""Tables of vectors."""

from __future__ import annotations

from typing import Any, Self

from ..errors import ConfigError, ShapeError
from ..ops.update import assign
from ..tensor import Tensor
from . import functional as F
from . import init
from .module import Module
from .parameter import Parameter


class Embedding(Module):
    """A vector for each of a number of ids.

    Args:
        num_embeddings: how many ids there are.
        embedding_dim: length of the vectors.
        padding_idx: an id whose vector starts at zero and is never trained.

    Shape: ids of any shape, whole numbers, give (*shape, embedding_dim).
    Raises:
        IndexRangeError: an id outside the table.
    """

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        padding_idx: int | None = None,
        *,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        if padding_idx is not None and not -num_embeddings <= padding_idx < num_embeddings:
            raise ConfigError(f"Embedding: padding_idx {padding_idx} is not one of the ids")
        self.num_embeddings = num_embeddings
        self.embedding_dim = embedding_dim
        self.padding_idx = None if padding_idx is None else padding_idx % num_embeddings
        self.weight = init.parameter(num_embeddings, embedding_dim, device=device, dtype=dtype)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw new initial values."""
        init.normal_(self.weight)
        if self.padding_idx is not None and not init.is_empty():
            values = self.weight.array.copy()
            values[self.padding_idx] = 0
            assign(self.weight, Tensor(values))

    @classmethod
    def from_pretrained(
        cls, embeddings: Tensor, freeze: bool = True, padding_idx: int | None = None
    ) -> Self:
        """An embedding of a table that is given, shared and not copied."""
        if embeddings.ndim != 2:
            raise ShapeError(f"a table of vectors has two axes, got shape {embeddings.shape}")
        with init.empty():
            made = cls(embeddings.shape[0], embeddings.shape[1], padding_idx)
        made.weight = Parameter(embeddings, requires_grad=not freeze)
        return made

    def forward(self, input: Tensor) -> Tensor:
        return F.embedding(input, self.weight, self.padding_idx)

    def extra_repr(self) -> str:
        padding = "" if self.padding_idx is None else f", padding_idx={self.padding_idx}"
        return f"{self.num_embeddings}, {self.embedding_dim}{padding}"
