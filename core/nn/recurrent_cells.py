"""Single steps of recurrent networks: RNNCell, LSTMCell, GRUCell."""

from __future__ import annotations

import math
from typing import Any

from ..creation import zeros
from ..ops.recurrent import gru_scan, lstm_scan, rnn_scan
from ..tensor import Tensor
from . import functional as F
from . import init
from .module import Module
from .recurrent_base import checked_nonlinearity, sum_of


class _Cell(Module):
    """One step of a recurrent layer. Shape: input (B, D) or (D,), states (B, H) or (H,)."""

    gates = 1

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        *,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        self.input_size, self.hidden_size = input_size, hidden_size
        rows = self.gates * hidden_size
        place: dict[str, Any] = {"device": device, "dtype": dtype}
        self.weight_ih = init.parameter(rows, input_size, **place)
        self.weight_hh = init.parameter(rows, hidden_size, **place)
        self.bias_ih = init.parameter(rows, **place) if bias else None
        self.bias_hh = init.parameter(rows, **place) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw new initial values."""
        bound = 1 / math.sqrt(self.hidden_size)
        for parameter in self.parameters():
            init.uniform_(parameter, -bound, bound)

    def _start(self, given: Tensor | None, like: Tensor) -> Tensor:
        shape = (math.prod(like.shape[:-1]), self.hidden_size)
        if given is None:
            return zeros(shape, dtype=like.dtype, device=like.device)
        return given.reshape(shape)

    def _gates(self, input: Tensor, bias: Tensor | None) -> Tensor:
        rows = F.linear(input, self.weight_ih, bias)
        return rows.reshape(1, -1, rows.shape[-1])

    def extra_repr(self) -> str:
        return f"{self.input_size}, {self.hidden_size}, bias={self.bias_ih is not None}"


class RNNCell(_Cell):
    """One step of an RNN."""

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        nonlinearity: str = "tanh",
        *,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        self.nonlinearity = checked_nonlinearity(nonlinearity)
        super().__init__(input_size, hidden_size, bias, device=device, dtype=dtype)

    def forward(self, input: Tensor, hx: Tensor | None = None) -> Tensor:
        """The next state."""
        states = rnn_scan(
            self._gates(input, sum_of(self.bias_ih, self.bias_hh)),
            self._start(hx, input),
            self.weight_hh,
            None,
            reverse=False,
            rectified=self.nonlinearity == "relu",
        )
        return states.reshape(*input.shape[:-1], self.hidden_size)


class LSTMCell(_Cell):
    """One step of an LSTM."""

    gates = 4

    def forward(
        self, input: Tensor, hx: tuple[Tensor, Tensor] | None = None
    ) -> tuple[Tensor, Tensor]:
        """The next state and cell."""
        h, c = (None, None) if hx is None else hx
        states, cells, _ = lstm_scan(
            self._gates(input, sum_of(self.bias_ih, self.bias_hh)),
            self._start(h, input),
            self._start(c, input),
            self.weight_hh,
            None,
            None,
            reverse=False,
        )
        shape = (*input.shape[:-1], self.hidden_size)
        return states.reshape(shape), cells.reshape(shape)


class GRUCell(_Cell):
    """One step of a GRU."""

    gates = 3

    def forward(self, input: Tensor, hx: Tensor | None = None) -> Tensor:
        """The next state."""
        states, _ = gru_scan(
            self._gates(input, self.bias_ih),
            self._start(hx, input),
            self.weight_hh,
            self.bias_hh,
            None,
            reverse=False,
        )
        return states.reshape(*input.shape[:-1], self.hidden_size)
