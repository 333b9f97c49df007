"""A device that behaves like CuPy where it differs from NumPy, for machines without a GPU.

Its arrays refuse to become NumPy arrays, NumPy's functions refuse them, and its namespace holds
only the functions and parameters that CuPy 14 has (cupy_names.json). So a stray `np.` call, an
implicit copy to the CPU or a function that CuPy lacks fails in the tests of the CPU.
"""

from __future__ import annotations

import json
import operator
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import ml_dtypes
import numpy as np

from bestiary.core.devices import Backend, Device, register_backend, unregister_backend

NAMES = json.loads((Path(__file__).parent / "cupy_names.json").read_text())
DEVICE = Device("fake")
_BFLOAT16 = np.dtype(ml_dtypes.bfloat16)


class FakeArray:
    """An array that only the fake namespace can touch."""

    __slots__ = ("_a",)
    __hash__ = None  # type: ignore[assignment]
    __array_ufunc__ = None

    def __init__(self, array: Any) -> None:
        self._a = np.asarray(array)

    def __array__(self, *_: Any, **__: Any) -> Any:
        raise TypeError("Implicit conversion to a NumPy array is not allowed. Use `.get()`.")

    def __array_function__(self, function: Any, *_: Any) -> Any:
        raise TypeError(f"numpy.{function.__name__} was called with an array of the device")

    @property
    def device(self) -> Any:
        return _FakeDevice(0)

    def get(self) -> Any:
        return self._a.copy()

    def item(self) -> Any:
        return self._a.item()

    def tolist(self) -> Any:
        return self._a.tolist()

    def __getattr__(self, name: str) -> Any:
        if name not in NAMES["ndarray"]:
            raise AttributeError(f"cupy.ndarray has no attribute {name!r}")
        value = getattr(self._a, name)
        if callable(value):
            return lambda *args, **kwargs: _wrapped(value(*_bare(args), **_bare(kwargs)))
        return _wrapped(value) if isinstance(value, (np.ndarray, np.generic)) else value

    def __getitem__(self, index: Any) -> Any:
        return _wrapped(self._a[_bare(index)])

    def __setitem__(self, index: Any, value: Any) -> None:
        self._a[_bare(index)] = _bare(value)

    def __len__(self) -> int:
        return len(self._a)

    def __iter__(self) -> Iterator[FakeArray]:
        return (FakeArray(x) for x in self._a)

    def __bool__(self) -> bool:
        return bool(self._a)

    def __int__(self) -> int:
        return int(self._a)

    def __float__(self) -> float:
        return float(self._a)

    def __index__(self) -> int:
        return operator.index(self._a.item())

    def __repr__(self) -> str:
        return f"Fake{self._a!r}"


def _install_operators() -> None:
    names = {
        "add": "add",
        "sub": "subtract",
        "mul": "multiply",
        "truediv": "divide",
        "floordiv": "floor_divide",
        "mod": "remainder",
        "pow": "power",
        "matmul": "matmul",
        "and": "bitwise_and",
        "or": "bitwise_or",
        "xor": "bitwise_xor",
        "lshift": "left_shift",
        "rshift": "right_shift",
        "lt": "less",
        "le": "less_equal",
        "gt": "greater",
        "ge": "greater_equal",
        "eq": "equal",
        "ne": "not_equal",
    }

    def plain(name: str) -> Any:
        return lambda self, other: getattr(XP, name)(self, other)

    def reflected(name: str) -> Any:
        return lambda self, other: getattr(XP, name)(other, self)

    def in_place(name: str) -> Any:
        return lambda self, other: getattr(XP, name)(self, other, out=self)

    for short, name in names.items():
        setattr(FakeArray, f"__{short}__", plain(name))
        if short not in ("lt", "le", "gt", "ge", "eq", "ne"):
            setattr(FakeArray, f"__r{short}__", reflected(name))
            setattr(FakeArray, f"__i{short}__", in_place(name))
    for short, name in {"neg": "negative", "pos": "positive", "abs": "absolute"}.items():
        setattr(FakeArray, f"__{short}__", lambda self, name=name: getattr(XP, name)(self))
    FakeArray.__invert__ = lambda self: XP.invert(self)  # type: ignore[attr-defined]


def _bare(value: Any, function: str = "an array of the device") -> Any:
    """Without wrappers; NumPy arrays are refused, as CuPy refuses them."""
    if isinstance(value, FakeArray):
        return value._a
    if isinstance(value, np.ndarray):
        raise TypeError(f"Unsupported type <class 'numpy.ndarray'> in {function}")
    if isinstance(value, (tuple, list)):
        return type(value)([_bare(v, function) for v in value])
    if isinstance(value, dict):
        return {k: _bare(v, function) for k, v in value.items()}
    return value


def _wrapped(value: Any) -> Any:
    if isinstance(value, (np.ndarray, np.generic)):
        return FakeArray(value)
    if isinstance(value, (tuple, list)) and any(
        isinstance(v, (np.ndarray, np.generic)) for v in value
    ):
        return tuple(_wrapped(v) for v in value)
    return value


class _Function:
    """A function of CuPy: its parameters are checked, NumPy does the work."""

    def __init__(self, name: str, function: Any, parameters: list[str] | None) -> None:
        self.__name__ = name
        self.function = function
        self.parameters = parameters

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self.parameters is not None:
            open_ended = any(p.startswith("**") for p in self.parameters)
            unknown = set(kwargs) - set(self.parameters)
            if unknown and not open_ended:
                raise TypeError(f"cupy.{self.__name__} has no parameter {sorted(unknown)}")
            if not any(p.startswith("*") for p in self.parameters):
                assert len(args) <= len(self.parameters), (
                    f"cupy.{self.__name__}: too many arguments"
                )
        if self.__name__ in ("asarray", "array", "ascontiguousarray"):
            first = args[0]._a if isinstance(args[0], FakeArray) else args[0]
            return FakeArray(self.function(first, *args[1:], **kwargs))
        name = f"cupy.{self.__name__}"
        return _wrapped(self.function(*_bare(args, name), **_bare(kwargs, name)))


class _UFunc:
    """A ufunc of CuPy: only dtypes that it has a loop for, directly or by safe casts."""

    _KNOWN = frozenset(("out", "dtype", "casting"))

    def __init__(self, name: str) -> None:
        self.__name__ = name
        self.function = getattr(np, name)
        self.loops = [loop.split("->")[0] for loop in NAMES["ufuncs"][name]]

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        unknown = set(kwargs) - self._KNOWN
        if unknown:
            raise TypeError(f"cupy.{self.__name__} has no parameter {sorted(unknown)}")
        bare = _bare(args, f"cupy.{self.__name__}")
        arrays = [a for a in bare if isinstance(a, (np.ndarray, np.generic))]
        self._check_loop([a.dtype for a in arrays])
        result = self.function(*bare, **_bare(kwargs))
        if self.__name__ == "matmul" and {a.dtype for a in arrays} == {_BFLOAT16}:
            if result.ndim > 2:
                raise TypeError("cupy.matmul: stacks of matrices cannot be bfloat16")
            result = result.astype(_BFLOAT16)  # NumPy gives float32
        out = kwargs.get("out")
        return out if isinstance(out, FakeArray) else _wrapped(result)

    def _check_loop(self, dtypes: list[Any]) -> None:
        if self.__name__ == "matmul" or any(d.kind == "V" for d in dtypes):
            return
        for loop in self.loops:
            if "E" not in loop and all(
                np.can_cast(d, np.dtype(c), "safe") for d, c in zip(dtypes, loop, strict=False)
            ):
                return
        raise TypeError(f"cupy.{self.__name__} has no loop for {[str(d) for d in dtypes]}")

    def __getattr__(self, name: str) -> Any:
        if name not in NAMES["ufunc_methods"]:
            raise AttributeError(f"a ufunc of CuPy has no method {name!r}")
        method = getattr(self.function, name)
        return lambda *args, **kwargs: _wrapped(method(*_bare(args), **_bare(kwargs)))


class _FakeDevice:
    def __init__(self, index: int = 0) -> None:
        self.id = index

    def __enter__(self) -> _FakeDevice:
        return self

    def __exit__(self, *_: Any) -> None:
        pass


class _Cuda:
    Device = _FakeDevice

    class runtime:
        @staticmethod
        def getDeviceCount() -> int:
            return 1


class _Namespace:
    """The part of a namespace that is in the listing."""

    def __init__(self, section: str, module: Any) -> None:
        self._section = section
        self._module = module

    def __getattr__(self, name: str) -> Any:
        listing = NAMES[self._section]
        if self._section == "functions":
            if name in NAMES["ufuncs"]:
                return _UFunc(name)
            if name in NAMES["scalars"] or name in ("pi", "inf", "nan", "newaxis", "e"):
                return getattr(np, name)
            if name in ("linalg", "fft"):
                return _Namespace(name, getattr(np, name))
            if name == "lib":
                return SimpleNamespace(
                    stride_tricks=_Namespace("stride_tricks", np.lib.stride_tricks)
                )
            if name == "cuda":
                return _Cuda
            if name == "ndarray":
                return FakeArray
        if name not in listing:
            raise AttributeError(f"CuPy {NAMES['version']} has no {name!r}")
        return _Function(name, getattr(self._module, name), listing[name])


XP: Any = _Namespace("functions", np)
_install_operators()


@contextmanager
def fake_device() -> Iterator[Device]:
    """Serve `DEVICE` with fake arrays inside."""
    register_backend(Backend("fake", XP, FakeArray))
    try:
        yield DEVICE
    finally:
        unregister_backend("fake")
