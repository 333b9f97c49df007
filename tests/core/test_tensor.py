"""The tensor: creation, promotion, conversion, display, and the errors people meet first."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

import bestiary as bt
from bestiary.core import dtypes
from bestiary.core.errors import DeviceError, DtypeError, GradError, IndexRangeError, ShapeError
from bestiary.core.ops.elementwise import add, divide, multiply, where
from bestiary.core.spelling import NAMESPACE_SPELLINGS, TORCH_SPELLINGS

# -- creation -------------------------------------------------------------------------------------


def test_python_numbers_take_the_defaults():
    assert bt.tensor([1.0, 2.0]).dtype == bt.float32
    assert bt.tensor([1, 2]).dtype == bt.int64
    assert bt.tensor([True]).dtype == bt.bool
    assert bt.tensor(1j).dtype == bt.complex64


def test_arrays_keep_their_dtype_and_share_memory():
    array = np.zeros(3)
    x = bt.asarray(array)
    assert x.dtype == bt.float64
    array[0] = 5.0
    assert x[0].item() == 5.0
    assert bt.tensor(array).array is not array
    assert bt.asarray(x) is x


def test_nested_tensors_become_one():
    x = bt.tensor([1.0, 2.0])
    assert bt.tensor([x, x]).shape == (2, 2)


def test_bad_data_is_refused():
    with pytest.raises(DtypeError, match="no numbers"):
        bt.tensor("text")
    with pytest.raises(DtypeError, match="unequal"):
        bt.tensor([[1.0], [1.0, 2.0]])
    with pytest.raises(TypeError, match=r"bt\.tensor"):
        bt.Tensor([1.0])


def test_array_is_never_a_numpy_scalar():
    x = bt.tensor([1.0, 2.0])
    for result in (x.sum(), x[0], x.mean() * 2, x.max(), x @ x):
        assert type(result.array) is np.ndarray and result.shape == ()


# -- promotion ----------------------------------------------------------------------------------

FLOATS = ["float16", "bfloat16", "float32", "float64"]
INTS = ["int8", "int16", "int32", "int64", "uint8", "uint16", "uint32"]


@pytest.mark.parametrize("name", [*FLOATS, *INTS])
def test_python_and_numpy_scalars_are_weak(name):
    x = bt.ones((2,), dtype=name)
    kept = x.dtype
    assert (x + 1).dtype == kept
    assert (1 + x).dtype == kept
    assert (x + np.int64(1)).dtype == kept
    lifted = kept if name in FLOATS else bt.float32
    for scalar in (1.5, np.float64(1.5), np.float32(1.5)):
        assert (x + scalar).dtype == lifted
        assert (scalar * x).dtype == lifted


@pytest.mark.parametrize("integer", INTS)
@pytest.mark.parametrize("floating", FLOATS)
def test_float64_never_appears_by_accident(integer, floating):
    i, f = bt.ones((2,), dtype=integer), bt.ones((2,), dtype=floating)
    assert (i + f).dtype == f.dtype
    assert (i / i).dtype == bt.float32
    assert i.mean().dtype == bt.float32


def test_promotion_within_a_kind_is_the_standard_s():
    assert dtypes.promote(dtypes.int8, dtypes.uint8) == dtypes.int16
    assert dtypes.promote(dtypes.float16, dtypes.bfloat16) == dtypes.float32
    assert dtypes.promote(dtypes.float64, dtypes.complex64) == dtypes.complex128
    with pytest.raises(DtypeError, match="no common integer"):
        bt.ones((1,), dtype="uint64") + bt.ones((1,), dtype="int64")


def test_a_scalar_too_large_for_the_dtype_is_an_error():
    with pytest.raises(OverflowError):
        bt.ones((1,), dtype="uint8") + 300


def test_where_of_two_numbers():
    mask = bt.tensor([True, False])
    assert where(mask, 1.0, 0.0).dtype == bt.float32
    assert where(mask, 1, 0).dtype == bt.int64


def test_numpy_operands_on_both_sides():
    x, array = bt.tensor([1.0, 2.0]), np.array([3.0, 4.0], np.float32)
    for result in (x + array, array + x, array - x, array @ x):
        assert isinstance(result, bt.Tensor)
    assert (array - x).tolist() == [2.0, 2.0]


def test_primitives_on_arrays_return_arrays():
    assert type(add(np.ones(2, np.float32), 1.0)) is np.ndarray


# -- conversion: ERRORS 13 -------------------------------------------------------------------------


def test_numpy_of_a_tensor_with_a_gradient_says_what_to_write():
    x = bt.tensor([1.0], requires_grad=True)
    for convert in (x.numpy, lambda: np.asarray(x), lambda: np.from_dlpack(x)):
        with pytest.raises(GradError, match=r"detach\(\)"):
            convert()
    assert np.asarray(x.detach()).tolist() == [1.0]
    assert np.from_dlpack(bt.tensor([2.0])).tolist() == [2.0]


def test_item_and_truth_of_many_values():
    x = bt.tensor([1.0, 2.0])
    with pytest.raises(ShapeError, match=r"\(2,\)"):
        x.item()
    with pytest.raises(ValueError, match="any"):
        bool(x)
    assert float(x[1]) == 2.0 and int(x[0]) == 1 and bool(x[0])
    assert [1, 2, 3][bt.tensor(1)] == 2


def test_copies():
    x = bt.tensor([1.0, 2.0], requires_grad=True)
    for twin in (copy.deepcopy(x), pickle.loads(pickle.dumps(x))):
        assert twin.requires_grad and twin.is_leaf and twin.array is not x.array
    with pytest.raises(GradError, match="detach"):
        copy.deepcopy(x * 2)
    (x.clone() * 2).sum().backward()
    assert x.grad.tolist() == [2.0, 2.0]


def test_equality_is_elementwise_and_the_hash_is_identity():
    x = bt.tensor([1.0, 2.0])
    assert (x == x).tolist() == [True, True]
    assert len({x, x, bt.tensor([1.0, 2.0])}) == 2
    assert (x == None).__class__ is bool  # noqa: E711  (falls back to identity)


# -- display --------------------------------------------------------------------------------------


def test_repr_shows_the_facts():
    x = bt.tensor([[1.0, 2.0]], requires_grad=True)
    for part in ("[[1., 2.]]", "shape=(1, 2)", "float32", "'cpu'", "requires_grad=True"):
        assert part in repr(x)
    assert "made_by=multiply" in repr(x * 2)
    assert "bfloat16" in repr(bt.ones((2,), dtype=bt.bfloat16))
    (x * 2).sum().backward()
    assert "grad=<1x2>" in repr(x)
    assert len(repr(bt.zeros((1000, 1000)))) < 1000


# -- spelling: ERRORS 38 --------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["view", "permute", "unsqueeze", "cat", "long", "masked_fill"])
def test_torch_methods_are_answered_with_ours(name):
    with pytest.raises(AttributeError) as caught:
        getattr(bt.tensor([1.0]), name)
    assert TORCH_SPELLINGS[name] in str(caught.value)


def test_torch_functions_are_answered_with_ours():
    with pytest.raises(AttributeError, match=r"bt\.concat"):
        _ = bt.cat
    with pytest.raises(AttributeError, match="has no attribute 'nonsense'"):
        _ = bt.nonsense


def test_no_spelling_is_offered_for_what_exists():
    x = bt.tensor([1.0])
    assert not [name for name in TORCH_SPELLINGS if name in dir(type(x))]
    assert NAMESPACE_SPELLINGS["cat"].startswith("bt.concat")


# -- shapes, devices, indexing: ERRORS 2, 34 ------------------------------------------------


def test_unfitting_shapes_are_shown():
    with pytest.raises(ShapeError) as caught:
        add(bt.ones((2, 3)), bt.ones((2, 4)))
    assert "(2, >3<)" in str(caught.value) and "(2, >4<)" in str(caught.value)
    with pytest.raises(ShapeError, match=r">3<.*\n.*>4<") as caught:
        bt.ones((2, 3)) @ bt.ones((4, 3))
    assert "x2.mT" in str(caught.value)
    assert (caught.value.expected, caught.value.got) == (3, 4)
    with pytest.raises(ShapeError, match="6 values"):
        bt.ones((2, 3)).reshape(4, -1)


def test_index_errors_are_ours():
    x = bt.zeros((2, 3))
    with pytest.raises(IndexRangeError, match=r"\(2, 3\)"):
        x[5]
    with pytest.raises(DtypeError, match="integer or boolean"):
        x[bt.tensor([0.0])]


@pytest.mark.parametrize("name", ["tpu", "cuda:x", 3.5])
def test_unknown_devices(name):
    with pytest.raises(DeviceError, match="Devices are"):
        bt.zeros((1,), device=name)


def test_a_gpu_that_cannot_be_used_is_explained():  # ERRORS 32
    if bt.cuda_is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(DeviceError) as caught:
        bt.zeros((1,), device="cuda")
    assert "pip install" in str(caught.value) or "driver" in str(caught.value)
    assert "device='cpu'" in str(caught.value)


def test_unknown_dtypes_are_refused():
    with pytest.raises(DtypeError, match="There are: bool"):
        bt.zeros((1,), dtype="float12")
    with pytest.raises(DtypeError):
        bt.zeros((1,), dtype=np.dtype("U3"))


def test_operands_that_are_no_tensors():
    with pytest.raises(DtypeError, match="expected a tensor"):
        multiply(bt.ones((1,)), "text")
    with pytest.raises(TypeError):
        bt.ones((1,)) + "text"
    assert divide(bt.ones((1,)), np.float64(2)).dtype == bt.float32


# -- indexing --------------------------------------------------------------------------------------

INDICES = [
    0,
    -1,
    slice(1, None),
    (slice(None), 1),
    (None, 0, Ellipsis),
    (Ellipsis, slice(None, None, -1)),
    ([0, 2],),
    (np.array([2, 0]), np.array([1, 1])),
    (slice(None), [1, 0, 1]),
    np.array([True, False, True]),
    (np.array([[0], [1]]), [1, 2], slice(0, 2)),
]


@pytest.mark.parametrize("index", INDICES, ids=str)
def test_reading_and_writing_equal_numpy_s_and_their_gradients_are_exact(index):
    array = np.arange(36, dtype=np.float64).reshape(3, 4, 3)
    x = bt.tensor(array, requires_grad=True)
    np.testing.assert_array_equal(x[index].detach().numpy(), array[index])
    weights = np.random.default_rng(0).normal(size=array[index].shape)
    (x[index] * bt.tensor(weights)).sum().backward()
    expected = np.zeros_like(array)
    np.add.at(expected, index, weights)
    np.testing.assert_allclose(x.grad.numpy(), expected)
    y = x * 1.0
    y[index] = -1.0
    copied = array.copy()
    copied[index] = -1.0
    np.testing.assert_array_equal(y.detach().numpy(), copied)


def test_a_tensor_index_is_taken_as_one():
    x = bt.tensor([[1.0, 2.0], [3.0, 4.0]])
    rows = bt.tensor([1, 0])
    assert x[rows].tolist() == [[3.0, 4.0], [1.0, 2.0]]
    assert x[x > 2].tolist() == [3.0, 4.0]
