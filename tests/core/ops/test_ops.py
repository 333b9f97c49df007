"""Every operation of the table, in every way that an operation can go wrong. See rows.py."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_device import fake_device
from rows import NOT_PROMISED, Array, Row, Sample, all_rows

import bestiary as bt
from bestiary.core import dtypes
from bestiary.core.devices import backend_for
from bestiary.core.op import REGISTRY, Op
from bestiary.core.state import observing
from bestiary.testing import assert_close, gradcheck

ROWS = all_rows()
DIFFERENTIABLE = [row for row in ROWS if row.order]
HALVES = ("float16", "bfloat16")


def by_row(rows: Sequence[Row]) -> Any:
    return pytest.mark.parametrize("row", rows, ids=[row.id for row in rows])


# -- calling -----------------------------------------------------------------------------------


def convert(value: Any, dtype: Any) -> Any:
    """An operand in a dtype: only floating arrays change."""
    if isinstance(value, (list, tuple)):
        return type(value)(convert(v, dtype) for v in value)
    if isinstance(value, np.ndarray) and value.dtype.kind in "fc":
        if value.dtype.kind == "c" and np.dtype(dtype).kind != "c":
            dtype = np.complex128 if dtype == np.float64 else np.complex64
        return value.astype(dtype)
    return value


def arrays_of(sample: Sample, dtype: Any = np.float64) -> list[Any]:
    return [convert(x, dtypes.as_dtype(dtype)) for x in sample.operands]


def on(device: Any, value: Any, grad: bool = False) -> Any:
    if isinstance(value, (list, tuple)):
        return type(value)(on(device, v, grad) for v in value)
    if not isinstance(value, np.ndarray):
        return value
    tensor = bt.Tensor(value) if device is None else bt.Tensor(value).to(device)
    return tensor.requires_grad_() if grad and tensor.dtype in dtypes.INEXACT else tensor


def outputs(result: Any) -> list[bt.Tensor]:
    results = list(result) if isinstance(result, (tuple, list)) else [result]
    return [r for r in results if r is not None]


def flat(values: Any) -> Iterator[Any]:
    for value in values:
        if isinstance(value, (list, tuple)):
            yield from flat(value)
        else:
            yield value


def call(row: Row, arrays: Sequence[Any], constants: dict[str, Any], device: Any = None) -> Any:
    return outputs(row.function(*on(device, list(arrays)), **constants))


def numpy(x: bt.Tensor) -> Array:
    array: Array = x.detach().cpu().numpy()
    return array


def forward_backward(
    row: Row,
    arrays: Sequence[Any],
    constants: dict[str, Any],
    device: Any = None,
    create_graph: bool = False,
) -> tuple[list[bt.Tensor], list[Any]]:
    """Outputs, and gradients of all floating operands for fixed weights."""
    operands = [on(device, a, grad=i not in row.fixed) for i, a in enumerate(arrays)]
    outs = outputs(row.function(*operands, **constants))
    leaves = [x for x in flat(operands) if isinstance(x, bt.Tensor) and x.requires_grad]
    roots = [y for y in outs if y.requires_grad]
    if not roots or not leaves:
        return outs, []
    found = bt.grad(
        roots,
        leaves,
        [bt.Tensor(weights(y)).to(y.device) for y in roots],
        create_graph=create_graph,
        allow_unused=True,
    )
    return outs, list(found)


def weights(y: bt.Tensor) -> Array:
    """Weights of an output, in its memory order."""
    array: Array = np.empty_like(numpy(y))
    array[...] = np.cos(np.arange(y.size, dtype=np.float64)).reshape(y.shape) + 0.3
    return array


def samples_of(row: Row) -> list[Sample]:
    return list(row.make())


# -- values ------------------------------------------------------------------------------------


@by_row([row for row in ROWS if row.reference is not None])
def test_forward(row: Row) -> None:
    for sample in samples_of(row):
        for dtype in ("float64", "float32"):
            if dtype not in row.dtypes:
                continue
            arrays = arrays_of(sample, dtype)
            outs = call(row, arrays, sample.constants)
            assert row.reference is not None
            exact = [convert(a, np.float64) for a in arrays]
            expected = row.reference(*exact, **sample.constants)
            expected = list(expected) if isinstance(expected, (tuple, list)) else [expected]
            rtol = row.rtol if dtype == "float64" else max(row.rtol, 1e-4)
            assert len(outs) == len(expected)
            for out, e in zip(outs, expected, strict=True):
                assert type(out.array) is np.ndarray
                assert_close(
                    out,
                    np.asarray(e),
                    rtol=rtol,
                    atol=rtol * 0.1,
                    check_dtype=False,
                    label=f"{row.id} {[np.shape(a) for a in flat(arrays)]} {dtype}",
                )


@by_row(ROWS)
def test_dtypes(row: Row) -> None:
    """Results keep the dtype of floats; halves are computed in float32 and rounded once."""
    for sample in samples_of(row)[:4]:
        plain = call(row, arrays_of(sample, row.dtypes[-1]), sample.constants)
        if not any(
            isinstance(x, np.ndarray) and x.dtype.kind == "f" for x in flat(sample.operands)
        ):
            continue
        for name in row.dtypes:
            dtype = dtypes.as_dtype(name)
            arrays = arrays_of(sample, dtype)
            outs = call(row, arrays, sample.constants)
            for out, p in zip(outs, plain, strict=True):
                if p.dtype == dtypes.as_dtype(row.dtypes[-1]):
                    assert out.dtype == dtype, f"{row.id}: {name} became {out.dtype}"
                elif p.dtype.kind != "c":
                    assert out.dtype == p.dtype
            if name not in HALVES or row.half_ulp is None:
                continue
            wide = call(row, [convert(a, np.float32) for a in arrays], sample.constants)
            for out, w in zip(outs, wide, strict=True):
                if out.dtype == dtype:
                    distance = ulps(numpy(out), numpy(w).astype(dtype))
                    assert distance <= row.half_ulp, f"{row.id} {name}: off by {distance} ulp"


def ulps(a: Array, b: Array) -> int:
    """The largest distance of two half arrays, counted in representable numbers."""
    if a.size == 0:
        return 0

    def ranks(x: Array) -> Array:
        bits = x.view(np.int16).astype(np.int64)
        return np.where(bits < 0, -(bits & 0x7FFF), bits)

    both_nan = np.isnan(a.astype(np.float32)) & np.isnan(b.astype(np.float32))
    return int(np.where(both_nan, 0, np.abs(ranks(a) - ranks(b))).max())


# -- gradients ---------------------------------------------------------------------------------


@by_row(DIFFERENTIABLE)
def test_gradients(row: Row) -> None:
    for sample in samples_of(row):
        kinds = [np.float64, np.complex128] if row.complex else [np.float64]
        for kind in kinds:
            arrays = arrays_of(sample)
            if kind is np.complex128:
                arrays = [with_imaginary(a) for a in arrays]
            places = [
                i
                for i, a in enumerate(arrays)
                if isinstance(a, np.ndarray) and a.dtype.kind in "fc"
            ]
            listed = [i for i, a in enumerate(arrays) if isinstance(a, (list, tuple))]
            if not places and not any(
                isinstance(a, np.ndarray) for i in listed for a in flat(arrays[i])
            ):
                continue
            check(row, arrays, sample.constants)


def with_imaginary(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return type(value)(with_imaginary(v) for v in value)
    if isinstance(value, np.ndarray) and value.dtype.kind == "f":
        return value + 0.7j * np.roll(value.reshape(-1), 1).reshape(value.shape)
    return value


def check(row: Row, arrays: Sequence[Any], constants: dict[str, Any]) -> None:
    """gradcheck, with lists of tensors spread out as inputs of their own."""

    def function(*inputs: Any) -> Any:
        rest = iter(inputs)
        return outputs(row.function(*rebuilt(arrays, rest), **constants))

    given = [on(None, a, grad=i not in row.fixed) for i, a in enumerate(arrays)]
    gradcheck(function, list(flat(given)), order=row.order, elements=12)


def rebuilt(pattern: Any, values: Iterator[Any]) -> list[Any]:
    return [rebuilt(p, values) if isinstance(p, (list, tuple)) else next(values) for p in pattern]


@by_row(DIFFERENTIABLE)
def test_rule_on_arrays_and_tensors(row: Row) -> None:
    """The backward pass runs rules on bare arrays; a tracer or `create_graph`, on tensors."""

    def watch(op: Any, operands: Any, constants: Any, run: Callable[[], Any]) -> Any:
        return run()

    for sample in samples_of(row):
        arrays = arrays_of(sample)
        before = [a.copy() for a in flat(arrays) if isinstance(a, np.ndarray)]
        _, bare = forward_backward(row, arrays, sample.constants)
        after = [a for a in flat(arrays) if isinstance(a, np.ndarray)]
        for a, b in zip(after, before, strict=True):
            np.testing.assert_array_equal(a, b, err_msg=f"{row.id} changed its operand")
        with observing(watch):
            _, traced = forward_backward(row, arrays, sample.constants)
        for a, b in zip(bare, traced, strict=True):
            assert (a is None) == (b is None)
            if a is not None:
                assert type(a.array) is np.ndarray
                assert_close(a, b, rtol=1e-10, atol=1e-12, label=row.id)


@by_row(DIFFERENTIABLE)
def test_gradient_of_each_operand_alone(row: Row) -> None:
    """What is not wanted is not computed, and the rest stays the same."""
    for sample in samples_of(row)[-2:]:
        arrays = arrays_of(sample)
        leaves = [on(None, a, grad=i not in row.fixed) for i, a in enumerate(arrays)]
        if sum(isinstance(x, bt.Tensor) and x.requires_grad for x in flat(leaves)) < 2:
            continue
        _, together = forward_backward(row, arrays, sample.constants)
        spread = list(flat(leaves))
        position = -1
        for i, x in enumerate(spread):
            if not isinstance(x, bt.Tensor) or not x.requires_grad:
                continue
            position += 1
            alone = [
                v if j == i or not isinstance(v, bt.Tensor) else v.detach()
                for j, v in enumerate(spread)
            ]
            rest = iter(alone)
            outs = outputs(row.function(*rebuilt(arrays, rest), **sample.constants))
            roots = [y for y in outs if y.requires_grad]
            if not roots:
                continue
            g = bt.grad(roots, x, [bt.Tensor(weights(y)) for y in roots], allow_unused=True)
            expected = together[position]
            assert (g is None) == (expected is None), row.id
            if g is not None:
                assert_close(g, expected, rtol=1e-10, atol=1e-12, label=f"{row.id} operand {i}")


@by_row([row for row in DIFFERENTIABLE if set(row.dtypes) & set(HALVES)])
def test_half_gradients(row: Row) -> None:
    """Gradients of halves are carried in float32 and have the operand's dtype."""
    for sample in samples_of(row)[:3]:
        for name in set(row.dtypes) & set(HALVES):
            arrays = arrays_of(sample, name)
            _, halves = forward_backward(row, arrays, sample.constants)
            wide = [convert(a, np.float32) for a in arrays]
            _, full = forward_backward(row, wide, sample.constants)
            for h, f in zip(halves, full, strict=True):
                if h is None or f is None:
                    assert h is f
                    continue
                assert h.dtype == dtypes.as_dtype(name)
                scale = float(np.abs(numpy(f)).max(initial=1e-3))
                tolerance = 0.08 if name == "bfloat16" else 0.01
                assert_close(
                    h, f, rtol=tolerance, atol=tolerance * scale, check_dtype=False, label=row.id
                )


@by_row([row for row in ROWS if isinstance(row.function, Op) and not row.function.differentiable])
def test_without_gradient_nothing_is_recorded(row: Row) -> None:
    for sample in samples_of(row)[:2]:
        operands = on(None, arrays_of(sample), grad=True)
        for out in outputs(row.function(*operands, **sample.constants)):
            assert not out.requires_grad


# -- memory layouts ----------------------------------------------------------------------------


def reversed_memory(x: Array) -> Array:
    """The same values with negative strides."""
    index = (slice(None, None, -1),) * x.ndim
    return x[index].copy()[index] if x.ndim else x


def fortran(x: Array) -> Array:
    return x.copy(order="F")


def spaced(x: Array) -> Array:
    """The same values, every second element of memory."""
    if not x.ndim:
        return x
    wide = np.repeat(x, 2, axis=-1)
    return wide[..., ::2]


def reformed(value: Any, form: Callable[[Array], Array]) -> Any:
    if isinstance(value, (list, tuple)):
        return type(value)(reformed(v, form) for v in value)
    return form(value) if isinstance(value, np.ndarray) else value


@pytest.mark.parametrize("form", [reversed_memory, fortran, spaced])
@by_row(ROWS)
def test_memory_layouts(row: Row, form: Callable[[Array], Array]) -> None:
    for sample in samples_of(row):
        arrays = arrays_of(sample)
        formed = [reformed(a, form) for a in arrays]
        expected, grads = forward_backward(row, arrays, sample.constants)
        outs, found = forward_backward(row, formed, sample.constants)
        for out, e in zip(outs, expected, strict=True):
            assert_close(out, e, rtol=1e-9, atol=1e-10, label=row.id)
        for a, b in zip(found, grads, strict=True):
            if a is not None:
                assert_close(a, b, rtol=1e-9, atol=1e-10, label=f"gradient of {row.id}")


def channels_last(x: Array) -> Array:
    return np.moveaxis(np.ascontiguousarray(np.moveaxis(x, 1, -1)), -1, 1)


def is_channels_last(x: Array) -> bool:
    steps = np.moveaxis(x, 1, -1).strides if x.ndim == 4 else ()
    return list(steps) == sorted(steps, reverse=True)


@by_row([row for row in ROWS if row.keeps_layout])
def test_channels_last_stays(row: Row) -> None:
    for sample in samples_of(row):
        arrays = arrays_of(sample, "float32")
        if not any(isinstance(a, np.ndarray) and a.ndim == 4 for a in flat(arrays)):
            continue
        formed = [reformed(a, lambda x: channels_last(x) if x.ndim == 4 else x) for a in arrays]
        outs, grads = forward_backward(row, formed, sample.constants)
        assert all(is_channels_last(out.array) for out in outs), f"{row.id}: values"
        assert all(g is None or is_channels_last(g.array) for g in grads), f"{row.id}: gradients"


@by_row([row for row in ROWS if row.view])
def test_views_share_memory(row: Row) -> None:
    for sample in samples_of(row):
        operands = on(None, arrays_of(sample))
        for out in outputs(row.function(*operands, **sample.constants)):
            if out.size:
                assert np.may_share_memory(out.array, operands[0].array), row.id


# -- devices -----------------------------------------------------------------------------------


@contextmanager
def accelerator(name: str) -> Iterator[Any]:
    if name == "fake":
        with fake_device() as device:
            yield device
    else:
        yield bt.core.devices.as_device(name)


DEVICES = ["fake", pytest.param("cuda", marks=pytest.mark.gpu)]


@pytest.mark.parametrize("device_name", DEVICES)
@by_row([row for row in ROWS if row.fake])
def test_other_devices(row: Row, device_name: str) -> None:
    """Results and gradients equal the CPU's; see fake_device.py for what "fake" catches."""
    with accelerator(device_name) as device:
        array_type = backend_for(device).array_type
        for sample in samples_of(row)[:6]:
            arrays = arrays_of(sample, "float32")
            expected, grads = forward_backward(row, arrays, sample.constants)
            outs, found = forward_backward(row, arrays, sample.constants, device)
            for out, e in zip(outs, expected, strict=True):
                assert type(out.array) is array_type
                assert_close(out, e, rtol=1e-4, atol=1e-5, label=row.id)
            for a, b in zip(found, grads, strict=True):
                assert (a is None) == (b is None)
                if a is not None:
                    assert type(a.array) is array_type
                    assert_close(a, b, rtol=1e-3, atol=1e-4, label=f"gradient of {row.id}")
            if row.order == 2:
                forward_backward(row, arrays, sample.constants, device, create_graph=True)


# -- kernels -----------------------------------------------------------------------------------


def calls_of(row: Row, sample: Sample, dtype: str) -> list[tuple[Op[..., Any], Any, Any]]:
    """Every primitive that a row runs, forward and backward, with its arrays."""
    calls = []

    def watch(op: Any, operands: Any, constants: Any, run: Callable[[], Any]) -> Any:
        bare = [x.array.copy() if isinstance(x, bt.Tensor) else x for x in operands]
        calls.append((op, bare, dict(constants)))
        return run()

    with observing(watch):
        forward_backward(row, arrays_of(sample, dtype), sample.constants)
    return calls


WITH_KERNELS = [
    row for row in ROWS if any(REGISTRY[n].kernels.get("cpu") for n in row.covered if n in REGISTRY)
]


@by_row([row for row in ROWS if row.large or row in WITH_KERNELS])
def test_kernels_equal_the_generic_body(row: Row) -> None:
    for sample in (*row.make(), *row.make(large=True)):
        for op, operands, constants in calls_of(row, sample, "float32"):
            kernel = op.kernels.get("cpu")
            if kernel is None or op.writes:
                continue
            result = kernel(*copied(operands), **constants)
            if result is NotImplemented:
                continue
            expected = op.body(np, *copied(operands), **constants)
            several = isinstance(expected, tuple)
            for a, b in zip(
                result if several else (result,), expected if several else (expected,), strict=True
            ):
                if b is not None:
                    assert_close(a, b, rtol=1e-4, atol=1e-4, label=f"kernel of {op.name}")


def copied(operands: Sequence[Any]) -> list[Any]:
    return [x.copy() if isinstance(x, np.ndarray) else x for x in operands]


@by_row([row for row in ROWS if row.large and row.reference is not None])
def test_large_samples(row: Row) -> None:
    """At the sizes of fast paths, float32 agrees with the reference in float64."""
    for sample in row.make(large=True):
        arrays = arrays_of(sample, "float32")
        assert row.reference is not None
        expected = row.reference(*[convert(a, np.float64) for a in arrays], **sample.constants)
        expected = list(expected) if isinstance(expected, (tuple, list)) else [expected]
        for out, e in zip(call(row, arrays, sample.constants), expected, strict=True):
            scale = float(np.abs(np.asarray(e)).max(initial=1))
            assert_close(out, np.asarray(e), rtol=1e-5, atol=2e-6 * scale, check_dtype=False)


# -- mistakes, and the table itself -------------------------------------------------------------


@by_row([row for row in ROWS if row.errors])
def test_errors(row: Row) -> None:
    for mistake, kind, pattern in row.errors:
        with pytest.raises(kind, match=pattern):
            mistake()


def several(row: Row) -> Sample | None:
    """A sample with two tensors or more."""
    for sample in row.make():
        if sum(isinstance(a, np.ndarray) for a in flat(sample.operands)) > 1:
            return sample
    return None


# These take several tensors and bring no two of them together.
APART = ("broadcast_arrays", "meshgrid")


@by_row([row for row in ROWS if row.fake and several(row) and row.id not in APART])
def test_tensors_on_two_devices_are_refused(row: Row) -> None:
    sample = several(row)
    assert sample is not None
    with fake_device() as device:
        moved = iter([device, *[None] * 99])
        operands = rebuilt(
            sample.operands,
            (on(next(moved), a) if isinstance(a, np.ndarray) else a for a in flat(sample.operands)),
        )
        with pytest.raises(bt.errors.DeviceError, match="different devices") as caught:
            row.function(*operands, **sample.constants)
        assert "fake" in str(caught.value)
        assert "cpu" in str(caught.value)


PAIRED = [
    row
    for row in ROWS
    if isinstance(row.function, Op) and row.function.promote is True and several(row)
]


@by_row(PAIRED)
def test_operands_that_do_not_fit_are_refused(row: Row) -> None:
    sample = several(row)
    assert sample is not None
    kinds = [bt.asarray(a).dtype for a in sample.operands]
    wrong = [bt.zeros((2 + i,), dtype=d) for i, d in enumerate(kinds)]
    with pytest.raises(bt.errors.ShapeError, match=row.id):
        row.function(*wrong, **sample.constants)
    with pytest.raises(bt.errors.DtypeError, match="no common integer dtype"):
        row.function(bt.ones(2, dtype=bt.uint64), bt.ones(2, dtype=bt.int64))
    with pytest.raises(bt.errors.DtypeError, match="str"):
        row.function(bt.ones(2), "two")


class Refusing(np.ndarray):  # type: ignore[type-arg]
    """A half array whose arithmetic raises."""

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> Any:
        if not any(isinstance(x, np.ndarray) and x.dtype in dtypes.HALVES for x in inputs):
            plain = [x.view(np.ndarray) if isinstance(x, Refusing) else x for x in inputs]
            return getattr(ufunc, method)(*plain, **kwargs)
        raise AssertionError(f"NumPy's {ufunc.__name__} ran on halves")

    def __array_function__(self, function: Any, types: Any, args: Any, kwargs: Any) -> Any:
        if function.__name__ in _MOVING.split():
            return super().__array_function__(function, types, args, kwargs)
        raise AssertionError(f"NumPy's {function.__name__} ran on halves")


# Functions that move values about and compute nothing.
_MOVING = (
    "reshape transpose broadcast_to concatenate stack flip roll tril triu diagonal take pad copy "
    "zeros_like empty_like moveaxis swapaxes repeat tile real imag where expand_dims "
    "put_along_axis take_along_axis may_share_memory astype copyto squeeze "
    "ascontiguousarray delete full_like"
)


@by_row([row for row in ROWS if set(row.dtypes) & set(HALVES)])
def test_half_arithmetic_of_numpy_never_runs(row: Row, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sum of 4,096 bfloat16 ones is 256 in NumPy: bodies see halves only to move them."""
    run_on = Op._run_on

    def guarded(self: Any, backend: Any, arrays: Any, constants: Any) -> Any:
        if self.name == "nextafter":  # steps through the bits of the dtype itself
            return run_on(self, backend, arrays, constants)
        guarded_arrays = [
            a.view(Refusing) if isinstance(a, np.ndarray) and a.dtype in dtypes.HALVES else a
            for a in arrays
        ]
        result = run_on(self, backend, guarded_arrays, constants)
        several = isinstance(result, tuple)
        plain = tuple(
            r.view(np.ndarray) if isinstance(r, Refusing) else r
            for r in (result if several else (result,))
        )
        return plain if several else plain[0]

    monkeypatch.setattr(Op, "_run_on", guarded)
    for sample in samples_of(row)[:3]:
        forward_backward(row, arrays_of(sample, "bfloat16"), sample.constants)


# Ops that write, draw or keep state: the tests of what they belong to, which need more than rows.
ELSEWHERE = {
    "bestiary.core.autocast": "test_autocast.py",
    "bestiary.core.random": "test_random.py",
    "bestiary.core.optim": "optim",
    "bestiary.core.nn.parametrize": "nn/test_parametrize.py",
    "bestiary.core.nn.norm": "nn/test_layers.py",
    "bestiary.text.cache": "../text/test_decoders.py",
}


def test_every_op_has_a_row() -> None:
    for module in pkgutil.walk_packages(bt.core.__path__, "bestiary.core."):
        if not module.name.endswith(("__main__", "._native")):  # programs, and the extension
            importlib.import_module(module.name)
    covered = set().union(*(row.covered for row in ROWS))
    missing = sorted(
        f"{op.__module__}: {name}"
        for name, op in REGISTRY.items()
        if op.__module__.startswith("bestiary.")
        and name not in covered
        and not op.__module__.startswith(tuple(ELSEWHERE))
    )
    assert not missing, f"ops without a row in tests/core/ops/rows_*.py: {missing}"
    assert all((Path(__file__).parents[1] / place).exists() for place in ELSEWHERE.values())


def test_rows_cover_ops_that_exist() -> None:
    unknown = sorted(n for row in ROWS for n in row.covers if n not in REGISTRY)
    assert not unknown, f"rows name ops that are not in the registry: {unknown}"


def test_second_order_is_promised_or_listed() -> None:
    first_only = {row.id for row in ROWS if row.order == 1}
    assert first_only == set(NOT_PROMISED), "rows.NOT_PROMISED and rows with order=1 differ"
