"""Recurrent layers over sequences: RNN, LSTM, GRU."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..errors import ConfigError
from ..ops.recurrent import gru_scan, lstm_scan, rnn_scan
from ..tensor import Tensor
from . import functional as F
from .recurrent_base import Recurrent, checked_nonlinearity, sum_of


class RNN(Recurrent):
    """A simple recurrent network: `h = tanh(x @ W_ih.T + b_ih + h @ W_hh.T + b_hh)`.

    Args:
        input_size: features of the input.
        hidden_size: features of the state.
        num_layers: layers on top of each other.
        nonlinearity: "tanh" or "relu".
        bias: whether there are biases.
        batch_first: tensors are (B, T, D), not (T, B, D).
        dropout: probability between layers, in training.
        bidirectional: also run from the end, with weights of its own.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        nonlinearity: str = "tanh",
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        *,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        self.nonlinearity = checked_nonlinearity(nonlinearity)
        super().__init__(
            input_size,
            hidden_size,
            num_layers,
            bias,
            batch_first,
            dropout,
            bidirectional,
            device=device,
            dtype=dtype,
        )

    def _scan(
        self, x: Tensor, first: tuple[Tensor, ...], own: dict[str, Any], mask: Any, reverse: bool
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        gates = F.linear(x, own["weight_ih"], sum_of(own["bias_ih"], own["bias_hh"]))
        rectified = self.nonlinearity == "relu"
        states = rnn_scan(
            gates, first[0], own["weight_hh"], mask, reverse=reverse, rectified=rectified
        )
        return states, (states,)

    def forward(
        self,
        input: Tensor,
        hx: Tensor | None = None,
        *,
        lengths: Sequence[int] | Tensor | None = None,
        mask: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Run over sequences.

        Args:
            input: (T, B, D), or (B, T, D) with `batch_first`, or (T, D).
            hx: first states (layers x directions, B, H); zeros by default.
            lengths: how many steps each sequence has: outputs after them are zero, and last
                states are those at the end of each, as with torch's packed sequences.
            mask: the same as (B, T), True where a step exists.

        Returns:
            Outputs (T, B, directions x H) of the last layer, and the last state of each layer.
        """
        out, (last,) = self._run(input, (hx,), lengths, mask)
        return out, last


class LSTM(Recurrent):
    """Long short-term memory.

    Args:
        input_size: features of the input.
        hidden_size: features of the cell.
        num_layers: layers on top of each other.
        bias: whether there are biases.
        batch_first: tensors are (B, T, D), not (T, B, D).
        dropout: probability between layers, in training.
        bidirectional: also run from the end, with weights of its own.
        proj_size: project states to so many features.

    Source: Hochreiter and Schmidhuber 1997; Sak et al. 2014 for the projection.
    """

    gates = 4

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        *,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        if not 0 <= proj_size < hidden_size:
            raise ConfigError(f"{type(self).__name__}: proj_size is below hidden_size")
        self.proj_size = proj_size
        super().__init__(
            input_size,
            hidden_size,
            num_layers,
            bias,
            batch_first,
            dropout,
            bidirectional,
            device=device,
            dtype=dtype,
        )

    def _scan(
        self, x: Tensor, first: tuple[Tensor, ...], own: dict[str, Any], mask: Any, reverse: bool
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        gates = F.linear(x, own["weight_ih"], sum_of(own["bias_ih"], own["bias_hh"]))
        states, cells, _ = lstm_scan(
            gates, *first, own["weight_hh"], own["weight_hr"], mask, reverse=reverse
        )
        return states, (states, cells)

    def forward(
        self,
        input: Tensor,
        hx: tuple[Tensor, Tensor] | None = None,
        *,
        lengths: Sequence[int] | Tensor | None = None,
        mask: Tensor | None = None,
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Run over sequences.

        Args:
            input: (T, B, D), or (B, T, D) with `batch_first`, or (T, D).
            hx: first states and cells (layers x directions, B, H); zeros by default.
            lengths: how many steps each sequence has: outputs after them are zero, and last
                states are those at the end of each, as with torch's packed sequences.
            mask: the same as (B, T), True where a step exists.

        Returns:
            Outputs (T, B, directions x H) of the last layer; last states and cells of each layer.
        """
        out, (last, cell) = self._run(input, (None, None) if hx is None else hx, lengths, mask)
        return out, (last, cell)


class GRU(Recurrent):
    """Gated recurrent unit.

    Args:
        input_size: features of the input.
        hidden_size: features of the state.
        num_layers: layers on top of each other.
        bias: whether there are biases.
        batch_first: tensors are (B, T, D), not (T, B, D).
        dropout: probability between layers, in training.
        bidirectional: also run from the end, with weights of its own.

    Source: Cho et al. 2014, "Learning phrase representations using RNN encoder-decoder".
    """

    gates = 3

    def _scan(
        self, x: Tensor, first: tuple[Tensor, ...], own: dict[str, Any], mask: Any, reverse: bool
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        gates = F.linear(x, own["weight_ih"], own["bias_ih"])
        states, _ = gru_scan(
            gates, first[0], own["weight_hh"], own["bias_hh"], mask, reverse=reverse
        )
        return states, (states,)

    def forward(
        self,
        input: Tensor,
        hx: Tensor | None = None,
        *,
        lengths: Sequence[int] | Tensor | None = None,
        mask: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Run over sequences; arguments and results as for `RNN`."""
        out, (last,) = self._run(input, (hx,), lengths, mask)
        return out, last
