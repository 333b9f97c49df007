"""Parameters that are computed from others: weight norm, spectral norm, and your own.

As in torch.nn.utils.parametrizations, a parametrized `weight` is stored as
`parametrizations.weight.original` (or `original0`, `original1`, ...) and computed at each use.
State-dict keys:

* weight norm: `parametrizations.weight.original0` (the norms g) and `.original1` (directions v),
* spectral norm: `parametrizations.weight.original`, `.0._u` and `.0._v`.

`load_state_dict` also reads torch's older names: `weight_g` and `weight_v`, and `weight_orig`,
`weight_u` and `weight_v`.
"""

from __future__ import annotations

from typing import Any, cast

import numpy as np

from ..errors import ConfigError, ShapeError
from ..op import op
from ..ops.elementwise import sqrt
from ..ops.shape import permute_dims
from ..state import no_grad
from ..tensor import Tensor
from . import init
from .container import ModuleDict
from .conv import _ConvTranspose
from .module import Module
from .parameter import Buffer, Parameter


class Parametrization(Module):
    """Base of parametrizations: `forward` computes the parameter from the originals."""

    def right_inverse(self, value: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Originals from which `forward` computes this value."""
        return value

    def old_names(self, name: str) -> dict[str, str]:
        """Names of older files for the parameter `name`, and what they are called now."""
        return {}


class ParametrizationList(Module):
    """The originals of one parameter and the functions that compute it, one after another."""

    def __init__(self, value: Tensor, first: Module) -> None:
        with no_grad():
            originals = _inverse(first, value)
        if isinstance(originals, tuple):
            for i, original in enumerate(originals):
                setattr(self, f"original{i}", Parameter(original))
        else:
            self.original = Parameter(originals)
        setattr(self, "0", first)

    def _functions(self) -> list[Module]:
        return [value for value in vars(self).values() if isinstance(value, Module)]

    def append(self, function: Module) -> None:
        """Apply one more function after the others."""
        setattr(self, str(len(self._functions())), function)

    def assign(self, value: Tensor) -> None:
        """Set the originals so that the functions give this value."""
        with no_grad():
            found: Any = value
            for function in reversed(self._functions()):
                found = _inverse(function, found)
        each = found if isinstance(found, tuple) else (found,)
        originals = [v for v in vars(self).values() if isinstance(v, Parameter)]
        for original, values in zip(originals, each, strict=True):
            init._fill(original, values.array)

    def forward(self) -> Any:
        originals = [v for v in vars(self).values() if isinstance(v, Parameter)]
        first, *rest = self._functions()
        value = first(*originals)
        for function in rest:
            value = function(value)
        return value


def _inverse(function: Module, value: Tensor) -> Any:
    inverse = getattr(function, "right_inverse", None)
    return value.detach().clone() if inverse is None else inverse(value.detach())


# -- replacing an attribute by a computed one --------------------------------------------------


class _Parametrized:
    """Mixed into the class of a module of which a parameter is computed."""

    _parametrized_from: type[Module]

    def _old_state_names(self) -> dict[str, str]:
        module = cast(Any, self)
        found: dict[str, str] = {}
        for name, functions in module.parametrizations.items():
            for function in functions._functions():
                if isinstance(function, Parametrization):
                    found |= function.old_names(name)
        return found

    def __reduce_ex__(self, protocol: Any) -> Any:
        # The class is made at run time: pickle could not find it.
        names = tuple(vars(self)["parametrizations"])
        return _restored, (self._parametrized_from, names, vars(self))


def _restored(base: type[Module], names: tuple[str, ...], values: dict[str, Any]) -> Module:
    module = base.__new__(base)
    module.__dict__.update(values)
    module.__class__ = _class_of(base, names)
    return module


_classes: dict[tuple[type[Module], tuple[str, ...]], type[Module]] = {}


def _class_of(base: type[Module], names: tuple[str, ...]) -> type[Module]:
    found = _classes.get((base, names))
    if found is None:
        body: dict[str, Any] = {name: _computed(name) for name in names}
        body["_parametrized_from"] = base
        body["__module__"] = base.__module__
        found = type(f"Parametrized{base.__name__}", (_Parametrized, base), body)
        _classes[(base, names)] = found
    return found


def _computed(name: str) -> property:
    def read(module: Any) -> Any:
        return module.parametrizations[name]()

    def write(module: Any, value: Tensor) -> None:
        module.parametrizations[name].assign(value)

    return property(read, write)


def is_parametrized(module: Module, name: str | None = None) -> bool:
    """Whether a parameter of the module (or this one) is computed."""
    if not isinstance(module, _Parametrized):
        return False
    return name is None or name in cast(Any, module).parametrizations


def register_parametrization(module: Module, name: str, parametrization: Module) -> Module:
    """Let `module.name` be computed by `parametrization` from a trained original.

    The original is what its `right_inverse`, if it has one, makes of the present value.
    """
    if is_parametrized(module, name):
        cast(Any, module).parametrizations[name].append(parametrization)
        return module
    value = vars(module).get(name)
    if not isinstance(value, Parameter):
        raise ConfigError(
            f"{type(module).__name__} has no parameter {name!r} of its own to parametrize.",
            name=name,
        )
    functions = ParametrizationList(value, parametrization)
    del module.__dict__[name]
    if isinstance(module, _Parametrized):
        base = module._parametrized_from
    else:
        base = type(module)
        module.__dict__["parametrizations"] = ModuleDict()
    parametrizations = cast(Any, module).parametrizations
    parametrizations[name] = functions
    module.__class__ = _class_of(base, tuple(parametrizations))
    return module


def remove_parametrizations(
    module: Module, name: str = "weight", leave_parametrized: bool = True
) -> Module:
    """Make `module.name` a plain parameter again, of its computed value or of its original."""
    if not is_parametrized(module, name):
        raise ConfigError(f"{name!r} of {type(module).__name__} is not parametrized.", name=name)
    parametrizations = cast(Any, module).parametrizations
    functions = parametrizations[name]
    if leave_parametrized:
        with no_grad():
            value = functions()
    else:
        value = vars(functions).get("original")
        if value is None:
            raise ConfigError(f"{name!r} has several originals: leave_parametrized=True")
    base = cast(Any, module)._parametrized_from
    del parametrizations[name]
    module.__class__ = _class_of(base, tuple(parametrizations)) if len(parametrizations) else base
    if not len(parametrizations):
        del module.__dict__["parametrizations"]
    setattr(module, name, Parameter(value.array))
    return module


# -- weight norm -------------------------------------------------------------------------------


class WeightNorm(Parametrization):
    """`v * g / |v|`, with a norm for each position of `axis` (None: one for all)."""

    def __init__(self, axis: int | None = 0) -> None:
        self.axis = axis

    def _norm(self, v: Tensor) -> Tensor:
        axis = None if self.axis is None else self.axis % v.ndim
        others = tuple(i for i in range(v.ndim) if i != axis)
        return sqrt((v * v).sum(axis=others, keepdims=axis is not None))

    def forward(self, g: Tensor, v: Tensor) -> Tensor:
        return v * (g / self._norm(v))

    def right_inverse(self, value: Tensor) -> tuple[Tensor, ...]:
        return self._norm(value), value.clone()

    def old_names(self, name: str) -> dict[str, str]:
        start = f"parametrizations.{name}.original"
        return {f"{name}_g": f"{start}0", f"{name}_v": f"{start}1"}


def weight_norm(module: Module, name: str = "weight", axis: int | None = 0) -> Module:
    """Train the norm and the direction of a weight apart; returns the module.

    Source: Salimans and Kingma 2016, "Weight normalization".
    """
    return register_parametrization(module, name, WeightNorm(axis))


# -- spectral norm -----------------------------------------------------------------------------


@op(raw=True, writes=("u", "v"), differentiable=False, outputs=2)
def power_iteration(
    xp: Any, u: Tensor, v: Tensor, matrix: Tensor, *, iterations: int, eps: float
) -> tuple[Tensor, Tensor]:
    """Move u and v towards the first singular vectors of a matrix; returns copies of them.

    Copies, because a graph keeps them while the next call moves the originals.
    """
    wide = np.float64 if matrix.dtype == np.float64 else np.float32
    m: Any = matrix.astype(wide)
    left: Any = u.astype(wide)
    right: Any = v.astype(wide)
    for _ in range(iterations):
        left = m @ right
        left /= xp.maximum(xp.sqrt(left @ left), eps)
        right = m.T @ left
        right /= xp.maximum(xp.sqrt(right @ right), eps)
    u[...] = left
    v[...] = right
    return u.copy(), v.copy()


class SpectralNorm(Parametrization):
    """The weight divided by its largest singular value, which is followed by power iteration."""

    _state_names = ("_u", "_v")

    def __init__(
        self, weight: Tensor, n_power_iterations: int = 1, axis: int = 0, eps: float = 1e-12
    ) -> None:
        if n_power_iterations < 1:
            raise ConfigError("SpectralNorm: n_power_iterations is 1 or more")
        if weight.ndim < 2:
            raise ShapeError(
                f"SpectralNorm takes a weight of two axes or more, got shape {weight.shape}",
                got=weight.shape,
            )
        self.n_power_iterations = n_power_iterations
        self.axis = axis % weight.ndim
        self.eps = eps
        matrix = self._matrix(weight.detach())
        rows, columns = matrix.shape
        place: dict[str, Any] = {"device": weight.device, "dtype": weight.dtype}
        self._u = Buffer(init.normal_(init.parameter(rows, **place)))
        self._v = Buffer(init.normal_(init.parameter(columns, **place)))
        if not init.is_empty():
            power_iteration(self._u, self._v, matrix, iterations=15, eps=eps)

    def _matrix(self, weight: Tensor) -> Tensor:
        if self.axis:
            order = (self.axis, *(i for i in range(weight.ndim) if i != self.axis))
            weight = permute_dims(weight, order)
        return weight.reshape(weight.shape[0], -1)

    def forward(self, weight: Tensor) -> Tensor:
        matrix = self._matrix(weight)
        if self.training:
            u, v = power_iteration(
                self._u, self._v, matrix.detach(), iterations=self.n_power_iterations, eps=self.eps
            )
        else:
            u, v = self._u.detach(), self._v.detach()
        return weight / (u @ (matrix @ v))

    def right_inverse(self, value: Tensor) -> Tensor:
        return value.clone()

    def old_names(self, name: str) -> dict[str, str]:
        start = f"parametrizations.{name}."
        return {
            f"{name}_orig": f"{start}original",
            f"{name}_u": f"{start}0._u",
            f"{name}_v": f"{start}0._v",
        }


def spectral_norm(
    module: Module,
    name: str = "weight",
    n_power_iterations: int = 1,
    eps: float = 1e-12,
    axis: int | None = None,
) -> Module:
    """Divide a weight by its largest singular value; returns the module.

    Args:
        axis: the axis of the outputs; 0, but 1 for transposed convolutions.

    Source: Miyato et al. 2018, "Spectral normalization for generative adversarial networks".
    """
    weight = getattr(module, name, None)
    if not isinstance(weight, Tensor):
        raise ConfigError(f"{type(module).__name__} has no parameter {name!r}.", name=name)
    if axis is None:
        axis = 1 if isinstance(module, _ConvTranspose) else 0
    return register_parametrization(
        module, name, SpectralNorm(weight, n_power_iterations, axis, eps)
    )
