"""TESTPLAN A, row 11 and ERRORS 15: one error for all that does not fit."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

from bestiary.core.errors import WeightsError
from bestiary.core.weights import TensorInfo, compare, require_match
from bestiary.core.weights.matching import group

F4, F2, I8, BF = (np.dtype(t) for t in (np.float32, np.float16, np.int64, ml_dtypes.bfloat16))


def specs(names, shape=(4, 4), dtype=F4):
    return {name: TensorInfo(dtype, shape) for name in names}


def model(layers=12, prefix=""):
    parts = ["attn.c_attn.weight", "attn.c_attn.bias", "mlp.c_fc.weight", "ln_1.weight"]
    names = [f"h.{i}.{part}" for i in range(layers) for part in parts]
    return specs([prefix + name for name in ("wte.weight", *names, "ln_f.weight")])


def error(found, wanted, **names):
    with pytest.raises(WeightsError) as caught:
        require_match(found, wanted, **names)
    message = str(caught.value)
    assert len(message.splitlines()) <= 12
    assert max(map(len, message.splitlines())) <= 160
    return caught.value, message


def test_row_11_all_four_kinds_in_one_error():
    wanted = model()
    found = dict(wanted)
    for i in range(12):
        del found[f"h.{i}.ln_1.weight"]
        found[f"h.{i}.attn.masked_bias"] = TensorInfo(F4, ())
    found["wte.weight"] = TensorInfo(F4, (7, 4))
    found["ln_f.weight"] = TensorInfo(I8, (4, 4))
    caught, message = error(found, wanted, where="model.safetensors", model="GPT2")
    assert message.startswith("model.safetensors do not fit GPT2; nothing was loaded.")
    assert "h.{0-11}.ln_1.weight (12)" in message
    assert "h.{0-11}.attn.masked_bias (12)" in message
    assert "wte.weight: (7, 4), (4, 4)" in message
    assert "ln_f.weight: int64, float32" in message
    assert len(caught.missing) == len(caught.unexpected) == 12
    assert caught.misshapen == {"wte.weight": ((7, 4), (4, 4))}
    assert caught.mistyped == {"ln_f.weight": (I8, F4)}
    assert caught.prefix is None


def test_a_fit_returns_what_will_be_cast():
    found = model()
    wanted = dict(found) | {
        "wte.weight": TensorInfo(F2, (4, 4)),
        "ln_f.weight": TensorInfo(BF, (4, 4)),
    }
    result = require_match(found, wanted)
    assert result.fits
    assert result.cast == ["wte.weight", "ln_f.weight"]
    assert result.total == 50


@pytest.mark.parametrize(
    "got, want, wrong",
    [
        (F4, F2, False),
        (BF, F4, False),
        (np.dtype(ml_dtypes.float8_e5m2), F4, False),
        (np.dtype(np.int8), I8, False),
        (I8, F4, True),
        (F4, I8, True),
        (np.dtype(bool), F4, True),
        (np.dtype(bool), I8, True),
        (np.dtype(np.complex64), F4, True),
    ],
)
def test_row_11_kinds_of_dtype(got, want, wrong):
    result = compare({"a": TensorInfo(got, ())}, {"a": TensorInfo(want, ())})
    assert bool(result.mistyped) == wrong
    assert bool(result.cast) != wrong


def test_arrays_are_specs_too():
    assert compare({"a": np.zeros((2, 3))}, {"a": np.zeros((2, 3))}).fits
    assert not compare({"a": np.zeros((2, 3))}, {"a": np.zeros((3, 2))}).fits


@pytest.mark.parametrize(
    "prefix", ["module.", "model.", "transformer.", "model.encoder.", "a.b.c."]
)
def test_errors_15_a_prefix_of_the_file(prefix):
    caught, message = error(model(prefix=prefix), model())
    assert caught.prefix == prefix
    line = f"weights = {{name.removeprefix({prefix!r}): w for name, w in weights.items()}}"
    assert line in message
    scope = {"weights": model(prefix=prefix)}
    exec(line, scope)
    assert require_match(scope["weights"], model()).fits


@pytest.mark.parametrize("prefix", ["transformer.", "model.encoder."])
def test_errors_15_a_prefix_of_the_model(prefix):
    caught, message = error(model(), model(prefix=prefix))
    assert caught.prefix == prefix
    line = next(text for text in message.splitlines() if "weights = " in text)
    scope = {"weights": model()}
    exec(line.strip(), scope)
    assert require_match(scope["weights"], model(prefix=prefix)).fits


def test_errors_15_a_prefix_with_other_differences_beside_it():
    found = model(prefix="module.") | specs(["module.head.weight", "step"])
    caught, message = error(found, model())
    assert caught.prefix == "module."
    assert "50 names in the file only" in message


def test_errors_15_no_prefix_is_invented():
    caught, message = error(specs(["x.a", "x.b"]), specs(["c", "d"]))
    assert caught.prefix is None
    assert "removeprefix" not in message


def test_errors_15_nearest_names():
    wanted = specs(f"layer.{i}.output.LayerNorm.{p}" for i in range(6) for p in ("weight", "bias"))
    found = specs(f"layer.{i}.output.LayerNorm.{p}" for i in range(6) for p in ("gamma", "beta"))
    _, message = error(found, wanted)
    assert "layer.{0-5}.output.LayerNorm.weight (6)" in message
    assert "LayerNorm.gamma -> " in message or "LayerNorm.beta -> " in message


def test_transposed_shapes_are_noticed():
    wanted = model()
    found = dict(wanted) | {f"h.{i}.mlp.c_fc.weight": TensorInfo(F4, (4, 16)) for i in range(12)}
    wanted = dict(wanted) | {f"h.{i}.mlp.c_fc.weight": TensorInfo(F4, (16, 4)) for i in range(12)}
    _, message = error(found, wanted)
    assert "h.{0-11}.mlp.c_fc.weight (12): (4, 16), (16, 4) transposed?" in message


def test_a_head_of_another_size_offers_num_classes():
    body = model()
    found = body | {"fc.weight": TensorInfo(F4, (1000, 8)), "fc.bias": TensorInfo(F4, (1000,))}
    wanted = body | {"fc.weight": TensorInfo(F4, (20, 8)), "fc.bias": TensorInfo(F4, (20,))}
    _, message = error(found, wanted)
    assert "num_classes=20" in message
    assert "1000 outputs in the file and 20 in the model" in message
    _, message = error(found | {"wte.weight": TensorInfo(F4, (1, 2))}, wanted)
    assert "num_classes" not in message


def test_row_11_thousands_of_differences_fit_the_message():
    wanted = specs(f"block{chr(97 + i % 26)}{i}.weight" for i in range(3000))
    found = specs(f"other{chr(97 + i % 26)}{i}.kernel" for i in range(3000))
    caught, message = error(found, wanted)
    assert len(caught.missing) == len(caught.unexpected) == 3000
    assert "more patterns" in message
    assert "3,000 of 3,000" in message


def test_a_prefix_and_thousands_of_names_fit_the_message():
    wanted = specs(f"block{chr(97 + i % 26)}{i}.weight" for i in range(3000))
    error(specs(f"module.{name}" for name in wanted), wanted)


def test_nothing_in_common_and_nothing_at_all():
    caught, _ = error({}, model())
    assert len(caught.missing) == 50
    caught, _ = error(model(), {})
    assert len(caught.unexpected) == 50
    assert require_match({}, {}).fits


def test_names_are_escaped_in_messages():
    _, message = error(specs(["\x1b[31m", "\n" * 100, "x" * 5000]), specs(["a"]))
    assert "\x1b" not in message


@pytest.mark.parametrize(
    "names, want",
    [
        (["h.0.w", "h.1.w", "h.2.w"], ["h.{0-2}.w (3)"]),
        (["h.0.w", "h.2.w", "h.3.w"], ["h.{0,2-3}.w (3)"]),
        (["h.5.w"], ["h.5.w"]),
        (["a.0.b.1", "a.1.b.1"], ["a.{0-1}.b.1 (2)"]),
        (["0.weight", "2.weight"], ["{0,2}.weight (2)"]),
        (["conv1.w", "conv2.w"], ["conv1.w", "conv2.w"]),
        (["h.0", "h.2", "h.4", "h.6", "h.8"], ["h.{0,2,4,6,...} (5)"]),
        (["a.{}.b", "a.0.b"], ["a.{}.b", "a.0.b"]),
        ([], []),
    ],
)
def test_grouping(names, want):
    assert [str(pattern) for pattern in group(names)] == want
