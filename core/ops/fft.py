"""Discrete Fourier transforms: the array API standard's fft extension.

Three primitives (complex to complex, real to half spectrum, and back) carry the gradients; each
is the other's adjoint. `norm` is "backward" (the inverse divides by n), "ortho" (both by its
root) or "forward" (the forward transform divides).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from .. import dtypes
from ..errors import ConfigError, ShapeError
from ..op import op
from ..spelling import spelled
from .axes import one_axis
from .elementwise import conj, real
from .manipulation import roll
from .padding import _pad
from .shape import astype

if TYPE_CHECKING:
    from ..tensor import Tensor

__all__ = [
    "fft",
    "fftfreq",
    "fftn",
    "fftshift",
    "hfft",
    "ifft",
    "ifftn",
    "ifftshift",
    "ihfft",
    "irfft",
    "irfftn",
    "rfft",
    "rfftfreq",
    "rfftn",
]

_ADJOINT = {"backward": "forward", "forward": "backward", "ortho": "ortho"}
Sizes = Sequence[int] | None


@op(name="fft")
def _transform(
    xp: Any, x: Tensor, *, axes: tuple[int, ...], norm: str, inverse: bool = False
) -> Tensor:
    return (xp.fft.ifftn if inverse else xp.fft.fftn)(x, axes=axes, norm=norm)


@_transform.backward
def _(g, axes, norm, inverse):
    return _transform(g, axes=axes, norm=_ADJOINT[norm], inverse=not inverse)


@op(name="rfft", to_float=True)
def _half_spectrum(xp: Any, x: Tensor, *, axis: int, norm: str) -> Tensor:
    return xp.fft.rfft(x, axis=axis, norm=norm)


@_half_spectrum.backward
def _(g, shapes, axis, norm):
    full = _resized(g, axis, shapes[0][axis])
    return real(_transform(full, axes=(axis,), norm=_ADJOINT[norm], inverse=True))


@op(name="irfft")
def _from_half(xp: Any, x: Tensor, *, n: int, axis: int, norm: str) -> Tensor:
    return xp.fft.irfft(x, n=n, axis=axis, norm=norm)


@_from_half.backward
def _(g, shapes, n, axis, norm):
    # Frequencies that stand for their mirror image too count twice.
    spectrum = _half_spectrum(g, axis=axis, norm=_ADJOINT[norm])
    every = (slice(None),) * axis
    middle = spectrum[(*every, slice(1, (n + 1) // 2))]
    widths = [(0, 0)] * len(shapes[0])
    widths[axis] = (1, spectrum.shape[axis] - middle.shape[axis] - 1)
    return spectrum + _pad(middle, widths=tuple(widths), mode="constant")


# -- arguments ---------------------------------------------------------------------------------


def _complex(x: Tensor) -> Tensor:
    if x.dtype.kind == "c":
        return x
    wide = x.dtype == dtypes.float64
    return astype(x, dtype=dtypes.complex128 if wide else dtypes.complex64)


def _place(name: str, x: Tensor, axis: int, norm: str) -> int:
    if norm not in _ADJOINT:
        raise ConfigError(f"{name}: norm is one of {', '.join(_ADJOINT)}; got {norm!r}", got=norm)
    return one_axis(name, axis, x.shape)


def _places(
    name: str, x: Tensor, s: Sizes, axes: Sizes, norm: str
) -> tuple[tuple[int, ...], tuple[int, ...] | None]:
    if axes is None:
        count = x.ndim if s is None else len(s)
        axes = range(x.ndim - count, x.ndim)
    found = tuple(_place(name, x, a, norm) for a in axes)
    if s is not None and len(s) != len(found):
        raise ShapeError(f"{name}: {len(s)} sizes for {len(found)} axes")
    return found, None if s is None else tuple(s)


def _resized(x: Any, axis: int, n: int) -> Any:
    """Cut, or padded with zeros, to n elements along an axis."""
    size = x.shape[axis]
    if n < 1:
        raise ShapeError(f"fft: a transform needs at least one element, got n={n}", got=n)
    if n < size:
        return x[(slice(None),) * axis + (slice(n),)]
    if n == size:
        return x
    widths = tuple((0, n - size) if i == axis else (0, 0) for i in range(x.ndim))
    return _pad(x, widths=widths, mode="constant")


def _many(name: str, x: Tensor, s: Sizes, axes: Sizes, norm: str, inverse: bool) -> Tensor:
    places, sizes = _places(name, x, s, axes, norm)
    x = _complex(x)
    for place, n in zip(places, sizes or (), strict=bool(sizes)):
        x = _resized(x, place, n)
    return _transform(x, axes=places, norm=norm, inverse=inverse) if places else x


# -- public ------------------------------------------------------------------------------------


@spelled
def fft(x: Tensor, /, *, n: int | None = None, axis: int = -1, norm: str = "backward") -> Tensor:
    """The Fourier transform along an axis.

    Args:
        n: cut or pad the axis with zeros to this length first.
    """
    return _many("fft", x, None if n is None else (n,), (axis,), norm, inverse=False)


@spelled
def ifft(x: Tensor, /, *, n: int | None = None, axis: int = -1, norm: str = "backward") -> Tensor:
    """The inverse of `fft`."""
    return _many("ifft", x, None if n is None else (n,), (axis,), norm, inverse=True)


@spelled
def fftn(x: Tensor, /, *, s: Sizes = None, axes: Sizes = None, norm: str = "backward") -> Tensor:
    """The Fourier transform along several axes, all by default.

    Args:
        s: cut or pad each axis with zeros to this length first.
    """
    return _many("fftn", x, s, axes, norm, inverse=False)


@spelled
def ifftn(x: Tensor, /, *, s: Sizes = None, axes: Sizes = None, norm: str = "backward") -> Tensor:
    """The inverse of `fftn`."""
    return _many("ifftn", x, s, axes, norm, inverse=True)


@spelled
def rfft(x: Tensor, /, *, n: int | None = None, axis: int = -1, norm: str = "backward") -> Tensor:
    """The first `n // 2 + 1` frequencies of a real tensor; the others mirror them."""
    return rfftn(x, s=None if n is None else (n,), axes=(axis,), norm=norm)


@spelled
def irfft(x: Tensor, /, *, n: int | None = None, axis: int = -1, norm: str = "backward") -> Tensor:
    """The inverse of `rfft`; n is the length of the result, `2 * (size - 1)` by default."""
    return irfftn(x, s=None if n is None else (n,), axes=(axis,), norm=norm)


@spelled
def rfftn(x: Tensor, /, *, s: Sizes = None, axes: Sizes = None, norm: str = "backward") -> Tensor:
    """`rfft` along the last of several axes, `fft` along the others."""
    if x.dtype.kind == "c":
        raise ConfigError("rfft: takes real tensors; bt.fft.fft takes complex ones")
    places, sizes = _places("rfftn", x, s, axes, norm)
    for place, n in zip(places, sizes or (), strict=bool(sizes)):
        x = _resized(x, place, n)
    out: Tensor = _half_spectrum(x, axis=places[-1], norm=norm)
    return _transform(out, axes=places[:-1], norm=norm) if len(places) > 1 else out


@spelled
def irfftn(x: Tensor, /, *, s: Sizes = None, axes: Sizes = None, norm: str = "backward") -> Tensor:
    """The inverse of `rfftn`."""
    places, sizes = _places("irfftn", x, s, axes, norm)
    last = places[-1]
    n = 2 * (x.shape[last] - 1) if sizes is None else sizes[-1]
    x = _complex(x)
    for place, size in zip(places[:-1], (sizes or ())[:-1], strict=bool(sizes)):
        x = _resized(x, place, size)
    x = _resized(x, last, n // 2 + 1)
    if len(places) > 1:
        x = _transform(x, axes=places[:-1], norm=norm, inverse=True)
    return _from_half(x, n=n, axis=last, norm=norm)


@spelled
def hfft(x: Tensor, /, *, n: int | None = None, axis: int = -1, norm: str = "backward") -> Tensor:
    """The transform of a signal that is its own conjugate mirror, and so has a real spectrum."""
    _place("hfft", x, axis, norm)
    return irfft(conj(x), n=n, axis=axis, norm=_ADJOINT[norm])


@spelled
def ihfft(x: Tensor, /, *, n: int | None = None, axis: int = -1, norm: str = "backward") -> Tensor:
    """The inverse of `hfft`."""
    _place("ihfft", x, axis, norm)
    return conj(rfft(x, n=n, axis=axis, norm=_ADJOINT[norm]))


def fftfreq(n: int, /, *, d: float = 1.0, dtype: Any = None, device: Any = None) -> Tensor:
    """The frequencies of `fft`, in cycles per unit of `d`, the distance of samples."""
    from ..creation import asarray

    half = (n - 1) // 2 + 1
    places = [*range(half), *range(-(n // 2), 0)]
    kind = dtypes.default_float if dtype is None else dtype
    return asarray([i / (n * d) for i in places], dtype=kind, device=device)


def rfftfreq(n: int, /, *, d: float = 1.0, dtype: Any = None, device: Any = None) -> Tensor:
    """The frequencies of `rfft`; see `fftfreq`."""
    from ..creation import asarray

    kind = dtypes.default_float if dtype is None else dtype
    return asarray([i / (n * d) for i in range(n // 2 + 1)], dtype=kind, device=device)


@spelled
def fftshift(x: Tensor, /, *, axes: Any = None) -> Tensor:
    """Frequency 0 moved to the middle."""
    places = tuple(range(x.ndim)) if axes is None else axes
    places = (places,) if isinstance(places, int) else tuple(places)
    return roll(x, tuple(x.shape[a] // 2 for a in places), axis=places) if places else x


@spelled
def ifftshift(x: Tensor, /, *, axes: Any = None) -> Tensor:
    """The inverse of `fftshift`."""
    places = tuple(range(x.ndim)) if axes is None else axes
    places = (places,) if isinstance(places, int) else tuple(places)
    return roll(x, tuple(-(x.shape[a] // 2) for a in places), axis=places) if places else x
