"""Parameter groups and buckets: how an optimizer keeps its numbers and its memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, MutableMapping, Sequence
from typing import Any

import numpy as np

from ..devices import Device, backend_for, device_of
from ..dtypes import DType, widened
from ..nn.module import rebind
from ..tensor import Tensor

# Elements. Smaller parameters share one flat buffer, so that one call updates them all; for
# larger ones a call of their own costs nothing, and moving them would.
SHARED_BELOW = 1 << 17


class ParamGroup(MutableMapping[str, Any]):
    """Parameters that are trained alike, and their settings, by name: `group["lr"] = 1e-4`.

    Numeric settings are kept twice: as Python numbers, and in a small vector on each device,
    which the update operations read. So a recorded training step follows a schedule.
    """

    def __init__(
        self, params: list[Tensor], settings: dict[str, Any], numeric: dict[str, int]
    ) -> None:
        self.params = params
        self.buckets: list[Bucket] = []
        # Frozen parameters get memory when they first have a gradient.
        self.dormant: list[Tensor] = []
        self._values: dict[str, Any] = {"params": params}
        self._places: dict[str, slice] = {}
        end = 0
        for name, width in numeric.items():
            self._places[name] = slice(end, end + width)
            end += width
        self._vector = np.zeros(end)
        self._on_device: dict[Device, Tensor] = {}
        for name, value in settings.items():
            self[name] = value

    def scalars(self, device: Device) -> Tensor:
        """The numeric settings as one vector, in the order in which they were declared."""
        found = self._on_device.get(device)
        if found is None:
            found = Tensor(backend_for(device).xp.asarray(self._vector.copy()))
            self._on_device[device] = found
        return found

    def __getitem__(self, name: str) -> Any:
        return self._values[name]

    def __setitem__(self, name: str, value: Any) -> None:
        place = self._places.get(name)
        if place is not None:
            single = place.stop - place.start == 1
            value = float(value) if single else tuple(float(v) for v in value)
            self._vector[place] = value
            for vector in self._on_device.values():
                vector.array[place] = backend_for(device_of(vector.array)).xp.asarray(value)
        self._values[name] = value

    def __delitem__(self, name: str) -> None:
        del self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        settings = ", ".join(f"{k}={v}" for k, v in self.items() if k != "params")
        return f"ParamGroup({len(self.params)} parameters, {settings})"


class Bucket:
    """Parameters that one call updates: they, and what the optimizer keeps, lie in flat buffers.

    Attributes:
        params: the parameters; their arrays are views of `flat`.
        flat: their values, one after another.
        step: how often they were updated.
        state: what the optimizer keeps for them, by name, laid out as `flat` is.
        initial: the values at which that started.
    """

    def __init__(self, params: list[Tensor], flat: Tensor, step: Tensor) -> None:
        self.params = params
        self.flat = flat
        self.step = step
        self.state: dict[str, Tensor] = {}
        self.initial: dict[str, float] = {}
        self.device = device_of(flat.array)
        self.seats = [(p, p.array) for p in params]

    @classmethod
    def gather(cls, params: list[Tensor]) -> Bucket:
        """Move parameters of one dtype and device into one buffer; a single one stays."""
        first = params[0].array
        xp = backend_for(device_of(first)).xp
        if len(params) == 1:
            if not _usable(first):
                rebind(params[0], xp.array(first, order="C"))
            flat = Tensor(params[0].array.reshape(-1))
            flat._cell = params[0]._cell
        else:
            flat = Tensor(xp.concatenate([p.array.reshape(-1) for p in params]))
            start = 0
            for p in params:
                part = flat.array[start : start + p.size]
                start += p.size
                rebind(p, part.reshape(p.shape), flat._cell)
        return cls(params, flat, Tensor(xp.zeros((), np.int64)))

    def add_state(self, name: str, value: float = 0.0) -> None:
        """Keep one more number for every number of the parameters; halves are kept in float32."""
        if name not in self.state:
            array = self.flat.array
            xp = backend_for(self.device).xp
            self.initial[name] = value
            self.state[name] = Tensor(xp.full(array.size, value, widened(array.dtype)))

    def runs(self, marks: Sequence[Any]) -> list[Bucket]:
        """Buckets of neighbours with equal marks, over the same memory, which nobody moves."""
        parts: list[Bucket] = []
        first = start = 0
        stop = 0
        for i, p in enumerate(self.params):
            stop += p.size
            if i + 1 == len(self.params) or marks[i + 1] != marks[i]:
                parts.append(self._part(slice(first, i + 1), slice(start, stop)))
                first, start = i + 1, stop
        return parts

    def _part(self, which: slice, where: slice) -> Bucket:
        step = Tensor(self.step.array.copy())
        part = Bucket(self.params[which], _view(self.flat, where), step)
        part.initial = self.initial
        for name, tensor in self.state.items():
            # State that is not laid out like the parameters belongs to a bucket of one.
            part.state[name] = _view(tensor, where)
        return part

    def of(self, wanted: Tensor) -> dict[str, Tensor]:
        """The state of one parameter, in its shape, sharing memory."""
        start = 0
        for p in self.params:
            if p is wanted:
                break
            start += p.size
        found = {}
        for name, tensor in self.state.items():
            if len(self.params) == 1 and tensor.size != wanted.size:
                found[name] = tensor
            else:
                found[name] = Tensor(
                    tensor.array.reshape(-1)[start : start + wanted.size].reshape(wanted.shape)
                )
        return found


def _view(tensor: Tensor, where: slice) -> Tensor:
    view = Tensor(tensor.array[where])
    view._cell = tensor._cell
    return view


def _usable(array: Any) -> bool:
    flags = array.flags
    if isinstance(array, np.ndarray):
        return bool(flags.c_contiguous and flags.writeable and flags.aligned)
    return bool(flags.c_contiguous)


def buckets_of(params: Iterable[Tensor], share: bool) -> list[Bucket]:
    """Arrange parameters in buckets: small ones of one dtype and device together."""
    together: dict[tuple[DType, Device], list[Tensor]] = {}
    alone: list[list[Tensor]] = []
    for p in params:
        if share and p.size < SHARED_BELOW:
            together.setdefault((p.dtype, p.device), []).append(p)
        else:
            alone.append([p])
    return [Bucket.gather(each) for each in [*together.values(), *alone]]
