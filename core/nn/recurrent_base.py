"""What recurrent layers share: parameters, first states, and which steps a sequence has."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..creation import asarray, zeros
from ..devices import move
from ..dtypes import bool_
from ..errors import ConfigError, ShapeError
from ..ops.shape import concat, permute_dims, stack
from ..state import state
from ..tensor import Tensor
from . import functional as F
from . import init
from .dropout import note_unrecorded
from .module import Module
from .parameter import Parameter


class Recurrent(Module):
    """What RNN, LSTM and GRU share.

    `gates` is how many rows of weights each feature has, `proj_size` the features of a state that
    is projected, or 0. A subclass that has more arguments sets them before it calls `__init__`.
    """

    gates = 1
    proj_size = 0

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        *,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        if not 0 <= dropout <= 1:
            raise ConfigError(f"{type(self).__name__}: dropout lies between 0 and 1, got {dropout}")
        self.input_size, self.hidden_size = input_size, hidden_size
        self.num_layers = num_layers
        self.bias = bias
        self.batch_first = batch_first
        self.dropout = dropout
        self.bidirectional = bidirectional
        self._directions = 2 if bidirectional else 1
        self._out = self.proj_size or hidden_size
        rows = self.gates * hidden_size
        for layer in range(num_layers):
            width = input_size if layer == 0 else self._out * self._directions
            for direction in range(self._directions):
                shapes: dict[str, tuple[int, ...]] = {
                    "weight_ih": (rows, width),
                    "weight_hh": (rows, self._out),
                }
                if bias:
                    shapes |= {"bias_ih": (rows,), "bias_hh": (rows,)}
                if self.proj_size:
                    shapes["weight_hr"] = (self.proj_size, hidden_size)
                for name, shape in shapes.items():
                    made = init.parameter(*shape, device=device, dtype=dtype)
                    setattr(self, _name(name, layer, direction), made)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw new initial values."""
        bound = 1 / math.sqrt(self.hidden_size)
        for parameter in self.parameters():
            init.uniform_(parameter, -bound, bound)

    def _scan(
        self, x: Tensor, first: tuple[Tensor, ...], own: dict[str, Any], mask: Any, reverse: bool
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """One direction of one layer: all outputs, and all values of each kind of state."""
        raise TypeError(f"{type(self).__name__} defines no scan")

    def _own(self, layer: int, direction: int) -> dict[str, Parameter | None]:
        """The weights and biases of one direction of one layer."""
        names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh", "weight_hr")
        return {name: vars(self).get(_name(name, layer, direction)) for name in names}

    def _run(
        self,
        input: Tensor,
        first: tuple[Tensor | None, ...],
        lengths: Any,
        mask: Any,
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """All layers over all steps: outputs of the last one, last states of each."""
        single = input.ndim == 2
        if input.ndim not in (2, 3) or input.shape[-1] != self.input_size:
            layout = "(B, T, D)" if self.batch_first else "(T, B, D)"
            raise ShapeError(
                f"{type(self).__name__} takes {layout} or (T, D) with D = {self.input_size}, "
                f"got shape {tuple(input.shape)}.",
                expected=self.input_size,
                got=tuple(input.shape),
            )
        if single:
            input = input.reshape(input.shape[0], 1, input.shape[1])
        elif self.batch_first:
            input = permute_dims(input, (1, 0, 2))
        steps, batch, _ = input.shape
        if steps == 0:
            raise ShapeError(
                f"{type(self).__name__}: the sequences have no steps, so there is no last state.",
                got=tuple(input.shape),
            )
        valid = _valid(type(self).__name__, lengths, mask, steps, batch, input)
        starts = self._starts(first, batch, single, input)
        x = input
        last: list[list[Tensor]] = [[] for _ in starts]
        for layer in range(self.num_layers):
            outputs = []
            for direction in range(self._directions):
                place = layer * self._directions + direction
                begin = tuple(start[place] for start in starts)
                own = self._own(layer, direction)
                out, states = self._scan(x, begin, own, valid, direction == 1)
                outputs.append(out)
                for kept, values in zip(last, states, strict=True):
                    kept.append(values[0 if direction == 1 else steps - 1])
            x = outputs[0] if len(outputs) == 1 else concat(outputs, axis=-1)
            if valid is not None:
                x = x * valid.reshape(steps, batch, 1).astype(x.dtype)
            if self.dropout and self.training and layer + 1 < self.num_layers:
                if not state.grad_enabled:
                    note_unrecorded(type(self).__name__)
                x = F.dropout(x, self.dropout, True)
        ends = tuple(stack(kept) for kept in last)
        if single:
            x = x.reshape(steps, x.shape[2])
            return x, tuple(end.reshape(end.shape[0], end.shape[2]) for end in ends)
        return permute_dims(x, (1, 0, 2)) if self.batch_first else x, ends

    def _starts(
        self, first: tuple[Tensor | None, ...], batch: int, single: bool, like: Tensor
    ) -> tuple[Tensor, ...]:
        """First states (layers x directions, B, H): those given, checked, or zeros."""
        starts = []
        count = self.num_layers * self._directions
        for i, given in enumerate(first):
            shape = (count, batch, self._out if i == 0 else self.hidden_size)
            if given is None:
                starts.append(zeros(shape, dtype=like.dtype, device=like.device))
                continue
            wanted = (shape[0], shape[2]) if single else shape
            if given.shape != wanted:
                raise ShapeError(
                    f"{type(self).__name__}: the first state is (layers x directions, batch, "
                    f"features) = {wanted}, got {tuple(given.shape)}.",
                    expected=wanted,
                    got=tuple(given.shape),
                )
            starts.append(given.reshape(shape))
        return tuple(starts)

    def extra_repr(self) -> str:
        parts = [f"{self.input_size}, {self.hidden_size}"]
        for name, default in (
            ("num_layers", 1),
            ("bias", True),
            ("batch_first", False),
            ("dropout", 0.0),
            ("bidirectional", False),
            ("proj_size", 0),
        ):
            if getattr(self, name) != default:
                parts.append(f"{name}={getattr(self, name)}")
        return ", ".join(parts)


def _name(name: str, layer: int, direction: int) -> str:
    return f"{name}_l{layer}{'_reverse' if direction else ''}"


def _valid(
    name: str, lengths: Any, mask: Any, steps: int, batch: int, like: Tensor
) -> Tensor | None:
    """Which steps exist, (T, B), from lengths (B,) or a mask (B, T)."""
    if lengths is not None and mask is not None:
        raise ConfigError(f"{name}: give lengths or mask, not both")
    if mask is not None:
        mask = asarray(mask)
        if mask.shape != (batch, steps) or mask.dtype != bool_:
            raise ShapeError(
                f"{name}: mask is boolean and (batch, steps) = {(batch, steps)}, True where a "
                f"step exists; got {mask.dtype} {tuple(mask.shape)}.",
                expected=(batch, steps),
                got=tuple(mask.shape),
            )
        return permute_dims(mask, (1, 0))
    if lengths is None:
        return None
    numbers = np.asarray(lengths.cpu().array if isinstance(lengths, Tensor) else lengths)
    if numbers.shape != (batch,) or numbers.min() < 1 or numbers.max() > steps:
        raise ShapeError(
            f"{name}: lengths are {batch} numbers from 1 to {steps}, got {numbers.tolist()}.",
            expected=(batch,),
            got=tuple(numbers.shape),
        )
    valid = np.arange(steps)[:, None] < numbers
    return Tensor(move(valid, like.device))


def sum_of(first: Tensor | None, second: Tensor | None) -> Tensor | None:
    return None if first is None or second is None else first + second


def checked_nonlinearity(name: str) -> str:
    if name not in ("tanh", "relu"):
        raise ConfigError(f"nonlinearity is 'tanh' or 'relu', got {name!r}", got=name)
    return name
