"""Layers of few bits, and models whose layers become such layers."""

from __future__ import annotations

import copy

import numpy as np
import pytest

import bestiary as bt
from bestiary import nn
from bestiary.core import native
from bestiary.core.errors import ConfigError, WeightsError
from bestiary.core.nn.quantized import SMALL_TABLE, check_trainable, forms_of

# Errors of products with numbers of the standard normal, in parts of the exact ones' size.
ERRORS = {
    "int8": 0.012,
    "q8_0": 0.008,
    "int4": 0.1,
    "q4_0": 0.12,
    "bfloat16": 0.004,
    "float16": 0.0004,
}


class Tied(nn.Module):
    """A small language model: a table, a layer in a list, a head that is the table."""

    def __init__(self, entries: int = SMALL_TABLE, width: int = 64) -> None:
        self.table = nn.Embedding(entries, width)
        self.places = nn.Embedding(16, width)
        self.layers = [nn.Sequential(nn.Linear(width, 96), nn.GELU(), nn.Linear(96, width))]
        self.norm = nn.LayerNorm(width)
        self.few = nn.Linear(width, 2)
        self.head = nn.Linear(width, entries, bias=False)
        self.head.weight = self.table.weight

    def forward(self, ids: bt.Tensor) -> bt.Tensor:
        x = self.table(ids) + self.places.weight[: ids.shape[-1]]
        for layer in self.layers:
            x = x + layer(x)
        out: bt.Tensor = self.head(self.norm(x))
        return out


@pytest.fixture(params=["native", "plain"])
def kernels(request, monkeypatch):
    if request.param == "plain":
        monkeypatch.setenv("BESTIARY_NATIVE", "0")
    elif not native.available():
        pytest.skip("the extension is not built")


@pytest.mark.parametrize("form", ERRORS)
@pytest.mark.parametrize("rows", [1, 40])
def test_a_layer_is_near_the_one_it_was_made_of(kernels, form, rows) -> None:
    bt.manual_seed(0)
    layer = nn.Linear(200, 150)
    nn.init.normal_(layer.weight)
    made = nn.QuantizedLinear.of(layer, form)
    x = bt.random.normal((rows, 200))
    want = layer(x).detach().numpy()
    error = np.abs(made(x).detach().numpy() - want).std() / want.std()
    assert ERRORS[form] / 20 < error < ERRORS[form]
    exact = x.numpy().astype(np.float64) @ made.numbers().T + layer.bias.detach().numpy()
    np.testing.assert_allclose(made(x).detach().numpy(), exact, atol=1e-4)
    assert made.bias is layer.bias and made.nbytes < layer.weight.nbytes * 0.57


def test_gradients_flow_to_the_input_and_the_bias() -> None:
    bt.manual_seed(0)
    layer = nn.Linear(32, 48)
    made = nn.QuantizedLinear.of(layer, "int8")
    x = bt.random.normal((3, 32)).requires_grad_()
    made(x).sum().backward()
    np.testing.assert_allclose(
        x.grad.numpy(), np.ones((3, 48)) @ made.numbers(), rtol=1e-5, atol=1e-5
    )
    np.testing.assert_allclose(made.bias.grad.numpy(), 3.0)
    assert [name for name, _ in made.named_parameters()] == ["bias"]
    assert list(made.state_dict()) == ["bias", "weight"]


def test_a_model_stays_near_itself_and_what_was_tied_stays_tied(kernels) -> None:
    bt.manual_seed(0)
    model = Tied().eval()
    ids = bt.asarray([[1, 5, SMALL_TABLE - 1]])
    want = model(ids).detach().numpy()
    for form in ("int8", "int4", "bfloat16"):
        made = nn.quantize_(copy.deepcopy(model), form)
        got = made(ids)
        assert not got.requires_grad
        error = np.abs(got.numpy() - want).max() / want.std()
        assert 1e-4 < error < {"int8": 0.1, "int4": 0.6, "bfloat16": 0.05}[form]
        assert made.head.weight is made.table.weight
        wide = {"int8": "int8", "int4": "q4_1", "bfloat16": "bfloat16"}[form]
        table = "int8" if form == "int4" else wide
        assert forms_of(made) == {
            "table": table,
            "layers.0.0": wide,
            "layers.0.2": wide,
            "head": table,
        }
        assert type(made.places) is nn.Embedding and type(made.few) is nn.Linear
        assert not any(p.requires_grad for p in made.parameters())


def test_states_go_back_and_forth() -> None:
    bt.manual_seed(0)
    model = nn.quantize_(Tied().eval(), "int4")
    other = nn.quantize_(Tied().eval(), "int4")
    ids = bt.asarray([[1, 5, 7]])
    state = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    assert state["table.weight"].dtype == np.uint8
    assert not np.array_equal(other(ids).numpy(), model(ids).numpy())
    other.load_state_dict(state)
    np.testing.assert_array_equal(other(ids).numpy(), model(ids).numpy())
    np.testing.assert_array_equal(copy.deepcopy(model)(ids).numpy(), model(ids).numpy())
    with pytest.raises(WeightsError, match=r"table\.weight"):
        Tied().load_state_dict(state)


def test_half_activations_are_followed() -> None:
    model = nn.quantize_(Tied().eval(), "int8")
    ids = bt.asarray([[1, 5, 7]])
    want = model(ids)
    got = model.to(dtype=bt.bfloat16)(ids)
    assert got.dtype == bt.bfloat16 and model.table.weight.dtype == bt.uint8
    error = np.abs(got.astype(bt.float32).numpy() - want.numpy()).max()
    assert error < 0.05 * np.abs(want.numpy()).max()


def test_one_layer_in_two_places_stays_one() -> None:
    layer = nn.Linear(32, 32)
    model = nn.Sequential(layer, nn.ReLU(), layer)
    nn.quantize_(model, "int8")
    assert model[0] is model[2] and isinstance(model[0], nn.QuantizedLinear)


def test_mistakes() -> None:
    with pytest.raises(ConfigError, match=r"'int3' is no format.*\n.*int4, q8_0"):
        nn.quantize_(Tied(), "int3")
    with pytest.raises(ConfigError, match=r"only read.*\n.*int4"):
        nn.quantize_(Tied(), "q6_k")
    with pytest.raises(ConfigError, match=r"nn\.QuantizedLinear\.of"):
        nn.quantize_(nn.Linear(64, 64), "int8")
    with pytest.raises(ConfigError, match="nothing to quantise"):
        nn.quantize_(nn.Sequential(nn.Linear(64, 2)), "int8")
    model = nn.quantize_(Tied(), "int8")
    with pytest.raises(ConfigError, match="4 of its layers are quantised already"):
        nn.quantize_(model, "int4")
    with pytest.raises(ConfigError, match=r"fine-tuning.*int8.*\n.*dtype=.float32"):
        check_trainable(model, "fine-tuning")
    check_trainable(Tied(), "fine-tuning")
    with pytest.raises(ConfigError, match="sizes begin at 1"):
        nn.QuantizedLinear(0, 3)
    assert "form" not in repr(model.layers) and "64, 96, bias=True, int8" in repr(model)


def test_numbers_without_a_scale_are_refused() -> None:
    for value in (np.nan, np.inf, 1e6):
        layer = nn.Linear(32, 32)
        layer.weight.array[3, 4] = value
        with pytest.raises(WeightsError, match=r"row 3 .* q4_1 has no scale"):
            nn.QuantizedLinear.of(layer, "int4")
    assert np.isfinite(nn.QuantizedLinear.of(layer, "int8").numbers()).all()


def test_summaries_count_them() -> None:
    wide, model = Tied(), nn.quantize_(Tied(), "int4")
    ids = bt.asarray([[1, 2]])
    before, after = wide.summary(ids), model.summary(ids)
    assert after.parameters == before.parameters and after.flops == before.flops
    assert after.trainable == 0 and after.buffer_bytes == 0
    assert after.packed_bytes == SMALL_TABLE * (64 + 4) + 96 * 40 + 64 * 60
