"""Containers of modules. Their children are attributes named as the state dict names them."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Self, overload

from ..errors import ConfigError
from .module import Module


class _Indexed(Module):
    """Children under the names 0, 1, 2, ..."""

    def _items(self) -> list[Module]:
        return [value for value in vars(self).values() if isinstance(value, Module)]

    def _replace(self, modules: Iterable[Module]) -> None:
        for name in [k for k, v in vars(self).items() if isinstance(v, Module)]:
            delattr(self, name)
        for i, module in enumerate(modules):
            setattr(self, str(i), _checked(self, module))

    def __len__(self) -> int:
        return len(self._items())

    def __iter__(self) -> Iterator[Any]:
        return iter(self._items())

    @overload
    def __getitem__(self, index: int) -> Any: ...
    @overload
    def __getitem__(self, index: slice) -> Self: ...
    def __getitem__(self, index: int | slice) -> Any:
        items = self._items()
        if not isinstance(index, slice):
            return items[operator.index(index)]
        part = type(self).__new__(type(self))
        part.training = self.training
        part._replace(items[index])
        return part

    def __setitem__(self, index: int, module: Module) -> None:
        names = [k for k, v in vars(self).items() if isinstance(v, Module)]
        setattr(self, names[operator.index(index)], _checked(self, module))

    def __delitem__(self, index: int | slice) -> None:
        items = self._items()
        del items[index]
        self._replace(items)

    def append(self, module: Module) -> Self:
        """Add a module at the end."""
        setattr(self, str(len(self)), _checked(self, module))
        return self

    def extend(self, modules: Iterable[Module]) -> Self:
        """Add modules at the end."""
        for module in list(modules):
            self.append(module)
        return self

    def insert(self, index: int, module: Module) -> None:
        """Put a module before position `index`."""
        items = self._items()
        items.insert(index, module)
        self._replace(items)


class Sequential(_Indexed):
    """Modules that run one after another; a dict gives them names.

    `Sequential(a, b)`, `Sequential({"conv": a, "act": b})`.
    """

    def __init__(self, *modules: Module | Mapping[str, Module]) -> None:
        if len(modules) == 1 and isinstance(modules[0], Mapping):
            for name, module in modules[0].items():
                setattr(self, _free_name(self, name), _checked(self, module))
        else:
            self._replace(modules)  # type: ignore[arg-type]  # checked one by one

    def forward(self, input: Any) -> Any:
        """Each module on the result of the one before."""
        for module in self.__dict__.values():
            if isinstance(module, Module):
                input = module(input)
        return input


class ModuleList(_Indexed):
    """A list of modules (a plain Python list as an attribute does the same)."""

    def __init__(self, modules: Iterable[Module] = ()) -> None:
        self._replace(modules)

    def __add__(self, other: Iterable[Module]) -> ModuleList:
        return ModuleList([*self, *other])


class ModuleDict(Module):
    """Modules by name (a plain Python dict as an attribute does the same)."""

    def __init__(self, modules: Mapping[str, Module] | None = None) -> None:
        self.update(modules or {})

    def _items(self) -> dict[str, Module]:
        return {k: v for k, v in vars(self).items() if isinstance(v, Module)}

    def __getitem__(self, name: str) -> Any:
        return self._items()[name]

    def __setitem__(self, name: str, module: Module) -> None:
        if name not in self._items():
            _free_name(self, name)
        setattr(self, name, _checked(self, module))

    def __delitem__(self, name: str) -> None:
        del self._items()[name]  # a KeyError for what is no module
        delattr(self, name)

    def __contains__(self, name: object) -> bool:
        return name in self._items()

    def __len__(self) -> int:
        return len(self._items())

    def __iter__(self) -> Iterator[str]:
        return iter(self._items())

    def keys(self) -> Iterable[str]:
        """The names."""
        return self._items().keys()

    def values(self) -> Iterable[Any]:
        """The modules."""
        return self._items().values()

    def items(self) -> Iterable[tuple[str, Any]]:
        """Names and modules."""
        return self._items().items()

    def update(self, modules: Mapping[str, Module]) -> None:
        """Add or replace modules."""
        given: Any = modules
        if not hasattr(given, "items"):
            raise ConfigError(
                f"ModuleDict holds modules by name, got {type(given).__name__}.\n"
                "Without names: nn.ModuleList(modules)",
                got=type(given).__name__,
            )
        for name, module in modules.items():
            self[name] = module

    def pop(self, name: str) -> Any:
        """Take a module out."""
        module = self[name]
        del self[name]
        return module


def _checked(container: Module, module: Any) -> Module:
    if not isinstance(module, Module):
        hint = ""
        if isinstance(module, type):
            hint = f"\nMake one of the class: {module.__name__}(...)"
        elif callable(module):
            hint = "\nFunctions have layers of the same name: nn.ReLU() for F.relu."
        elif isinstance(module, (list, tuple)):
            hint = f"\nUnpack it: {type(container).__name__}(*modules)"
        raise ConfigError(
            f"{type(container).__name__} holds modules, got {type(module).__name__}.{hint}",
            got=type(module).__name__,
        )
    return module


def _free_name(container: Module, name: str) -> str:
    if not name or name[0] == "_" or "." in name or hasattr(type(container), name):
        raise ConfigError(
            f"{name!r} cannot name a module in a {type(container).__name__}: names have no dots, "
            "begin with no underscore, and are no method or attribute of it.",
            name=name,
        )
    return name
