"""The array API standard's names: creation, dtypes, inquiry."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import bestiary as bt
from bestiary.errors import ConfigError, DtypeError


def test_every_name_of_the_standard_is_there() -> None:
    standard = """
        __array_namespace_info__ abs acos acosh add all any arange argmax argmin argsort asarray
        asin asinh astype atan atan2 atanh bitwise_and bitwise_invert bitwise_left_shift bitwise_or
        bitwise_right_shift bitwise_xor bool broadcast_arrays broadcast_to can_cast ceil clip
        complex128 complex64 concat conj copysign cos cosh count_nonzero cumulative_prod
        cumulative_sum diff divide e empty empty_like equal exp expand_dims expm1 eye finfo flip
        float32 float64 floor floor_divide from_dlpack full full_like greater greater_equal hypot
        iinfo imag inf int16 int32 int64 int8 isdtype isfinite isinf isnan less less_equal linspace
        log log10 log1p log2 logaddexp logical_and logical_not logical_or logical_xor matmul
        matrix_transpose max maximum mean meshgrid min minimum moveaxis multiply nan negative
        newaxis nextafter nonzero not_equal ones ones_like permute_dims pi positive pow prod real
        reciprocal remainder repeat reshape result_type roll round searchsorted sign signbit sin
        sinh sort sqrt square squeeze stack std subtract sum take take_along_axis tan tanh tensordot
        tile tril triu trunc uint16 uint32 uint64 uint8 unique_all unique_counts unique_inverse
        unique_values unstack var vecdot where zeros zeros_like
    """.split()
    assert not [name for name in standard if not hasattr(bt, name)]
    assert bt.ones(1).__array_namespace__() is bt
    for name in (
        "cholesky cross det diagonal eigh eigvalsh inv matmul matrix_norm matrix_power "
        "matrix_rank matrix_transpose outer pinv qr slogdet solve svd svdvals tensordot trace "
        "vecdot vector_norm".split()
    ):
        assert name in bt.linalg.__all__
        assert callable(getattr(bt.linalg, name))
    for name in bt.fft.__all__:
        assert callable(getattr(bt.fft, name))


def test_arange() -> None:
    assert bt.arange(4).tolist() == [0, 1, 2, 3]
    assert bt.arange(4).dtype == bt.int64
    assert bt.arange(1, 4, 2).tolist() == [1, 3]
    assert bt.arange(1.5).dtype == bt.float32
    assert bt.arange(3, dtype=bt.bfloat16).dtype == bt.bfloat16
    assert bt.arange(0, 1, 0.25).tolist() == [0, 0.25, 0.5, 0.75]
    assert bt.arange(3, 0, -1).tolist() == [3, 2, 1]


def test_linspace_and_eye() -> None:
    assert bt.linspace(0, 1, 3).tolist() == [0, 0.5, 1]
    assert bt.linspace(0, 1, 4, endpoint=False).tolist() == [0, 0.25, 0.5, 0.75]
    assert bt.linspace(0, 1, 3).dtype == bt.float32
    assert bt.linspace(0, 1j, 3).dtype == bt.complex64
    assert bt.linspace(0, 1, 3, dtype=bt.float16).dtype == bt.float16
    assert bt.eye(2, 3, k=1).tolist() == [[0, 1, 0], [0, 0, 1]]
    assert bt.eye(2, dtype=bt.int32).dtype == bt.int32


def test_from_dlpack() -> None:
    array = np.arange(3.0)
    x = bt.from_dlpack(array)
    array[0] = 7
    assert x.tolist() == [7, 1, 2]  # shared
    assert bt.from_dlpack(array, copy=True).array is not array

    class Foreign:
        def __dlpack__(self, **options: Any) -> Any:
            return array.__dlpack__(**options)

        def __dlpack_device__(self) -> Any:
            return array.__dlpack_device__()

    assert bt.from_dlpack(Foreign()).tolist() == [7, 1, 2]
    assert bt.from_dlpack(x).tolist() == [7, 1, 2]
    np.testing.assert_array_equal(np.from_dlpack(x), array)


@pytest.mark.parametrize("name", ["float16", "bfloat16", "float32", "float64"])
def test_finfo(name: str) -> None:
    info = bt.finfo(getattr(bt, name))
    assert info == bt.finfo(bt.ones(1, dtype=getattr(bt, name)))
    assert info.bits == info.dtype.itemsize * 8
    assert 1 + info.eps > 1
    assert info.min == -info.max
    assert all(type(v) is float for v in (info.eps, info.max, info.smallest_normal))


def test_limits() -> None:
    assert bt.finfo(bt.complex64).bits == 32
    assert bt.finfo(bt.bfloat16).eps == 2**-7
    assert (bt.iinfo(bt.int8).min, bt.iinfo(bt.int8).max, bt.iinfo(bt.int8).bits) == (-128, 127, 8)
    with pytest.raises(DtypeError, match="iinfo"):
        bt.finfo(bt.int32)
    with pytest.raises(DtypeError, match="finfo"):
        bt.iinfo(bt.float32)


def test_isdtype() -> None:
    assert bt.isdtype(bt.bfloat16, "real floating")
    assert bt.isdtype(bt.int8, ("bool", "signed integer"))
    assert bt.isdtype(bt.complex64, "numeric")
    assert not bt.isdtype(bt.bool, "numeric")
    assert bt.isdtype(bt.bool, "bool")
    assert bt.isdtype(bt.float32, bt.float32)
    assert not bt.isdtype(bt.uint8, "signed integer")
    with pytest.raises(ConfigError, match="real floating"):
        bt.isdtype(bt.float32, "floating")


def test_result_type() -> None:
    assert bt.result_type(bt.int8, bt.uint8) == bt.int16
    assert bt.result_type(bt.int64, bt.float32) == bt.float32
    assert bt.result_type(bt.ones(1), 1.5, bt.float64) == bt.float64
    assert bt.result_type(bt.int32, 1.5) == bt.float32
    assert bt.result_type(bt.float16, bt.bfloat16) == bt.float32
    assert bt.result_type(bt.float32, 1j) == bt.complex64
    assert bt.result_type(1, 2.0) == bt.float32
    with pytest.raises(ConfigError):
        bt.result_type()


def test_can_cast() -> None:
    assert bt.can_cast(bt.int8, bt.int16)
    assert not bt.can_cast(bt.int16, bt.int8)
    assert not bt.can_cast(bt.uint64, bt.int64)
    assert bt.can_cast(bt.float32, bt.complex64)
    assert not bt.can_cast(bt.ones(1), bt.float16)


def test_astype() -> None:
    x = bt.ones(2)
    assert bt.astype(x, bt.float64).dtype == bt.float64
    assert bt.astype(x, bt.float32, copy=False) is x
    assert bt.astype(x, bt.float32).array is not x.array
    with pytest.raises(DtypeError, match=r"bt\.real"):
        bt.astype(bt.ones(2, dtype=bt.complex64), bt.float32)


def test_info() -> None:
    info = bt.__array_namespace_info__()
    assert info.capabilities()["boolean indexing"]
    assert info.default_device() == "cpu"
    assert info.devices()[0] == "cpu"
    assert info.default_dtypes()["real floating"] == bt.float32
    assert set(info.dtypes(kind="complex floating")) == {"complex64", "complex128"}
    assert "bfloat16" not in info.dtypes()
    assert bt.__array_api_version__ == "2024.12"
    with bt.device("cpu"):
        assert info.default_device() == "cpu"
