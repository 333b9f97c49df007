"""What layers do beside torch's numbers: initial values, modes, mistakes, reprs."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest

import bestiary as bt
from bestiary.core import notice
from bestiary.core.errors import ConfigError, ShapeError

nn = bt.nn


def data(*shape: int, seed: int = 0, grad: bool = False) -> bt.Tensor:
    values = np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
    return bt.tensor(values, requires_grad=grad)


@pytest.fixture(autouse=True)
def _seeded():
    bt.manual_seed(0)


# -- initial values ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "layer, fan",
    [
        (lambda: nn.Linear(100, 300), 100),
        (lambda: nn.Conv2d(32, 64, 3, groups=2), 16 * 9),
        (lambda: nn.Conv1d(32, 64, 5), 32 * 5),
        (lambda: nn.ConvTranspose2d(64, 32, 3), 32 * 9),
        (lambda: nn.LSTM(20, 100), 100),
        (lambda: nn.GRUCell(20, 100), 100),
    ],
)
def test_weights_start_uniform_as_in_torch(layer, fan):
    bound = fan**-0.5
    for name, p in layer().named_parameters():
        assert np.abs(p.array).max() <= bound, name
        if p.size > 500:
            assert np.abs(p.array).max() > 0.95 * bound
            assert abs(p.array.std() * np.sqrt(3) / bound - 1) < 0.1, name


def test_other_initial_values():
    for layer in (
        nn.BatchNorm2d(3),
        nn.LayerNorm(3),
        nn.GroupNorm(1, 3),
        nn.InstanceNorm1d(3, affine=True),
    ):
        assert (layer.weight.array == 1).all()
        assert (layer.bias.array == 0).all()
    assert (nn.RMSNorm(3).weight.array == 1).all()
    assert (nn.PReLU(4, init=0.1).weight.array == np.float32(0.1)).all()
    table = nn.Embedding(200, 50, padding_idx=-1)
    assert abs(table.weight.array.std() - 1) < 0.02
    assert (table.weight.array[199] == 0).all()
    attention = nn.MultiheadAttention(64, 4, add_bias_kv=True)
    assert np.abs(attention.in_proj_weight.array).max() <= np.sqrt(6 / (64 * 4))
    assert (attention.in_proj_bias.array == 0).all()
    assert (attention.out_proj.bias.array == 0).all()


def test_seeds_repeat_and_reset_draws_again():
    bt.manual_seed(3)
    first = nn.Linear(4, 5)
    bt.manual_seed(3)
    second = nn.Linear(4, 5)
    np.testing.assert_array_equal(first.weight.array, second.weight.array)
    second.reset_parameters()
    assert not np.array_equal(first.weight.array, second.weight.array)


def test_dtype_is_taken():
    for layer in (
        nn.Linear(3, 4, dtype=bt.float64),
        nn.Conv2d(3, 4, 3, dtype=bt.float64),
        nn.BatchNorm2d(3, dtype=bt.float64),
        nn.LSTM(3, 4, dtype=bt.float64),
        nn.MultiheadAttention(4, 2, dtype=bt.float64),
        nn.Embedding(3, 4, dtype=bt.float64),
    ):
        floats = [t for t in layer.state_dict().values() if t.dtype.kind == "f"]
        assert {t.dtype for t in floats} == {np.dtype(np.float64)}


def test_empty_models_take_weights_without_a_copy():
    with nn.init.empty():
        model = nn.Sequential(nn.Linear(3, 4), nn.LSTM(4, 5), nn.Embedding(4, 2, padding_idx=0))
        nn.spectral_norm(nn.Linear(3, 4))
    state = {k: np.ones(v.shape, v.dtype) for k, v in model.state_dict().items()}
    model.load_state_dict(state, assign=True)
    for name, p in model.named_parameters():
        assert p.array is state[name]


# -- modes -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "layer, share",
    [
        (nn.Dropout(0.3), (1, 1, 1)),
        (nn.Dropout1d(0.3), (1, 1, 50)),
        (nn.DropPath(0.3), (1, 40, 50)),
    ],
)
def test_dropping(layer, share):
    x = bt.asarray(np.ones((60, 40, 50), np.float32))
    out = layer(x).array
    assert set(np.unique(out)) <= {0.0, np.float32(1 / 0.7)}
    assert abs((out == 0).mean() - 0.3) < 0.15
    blocks = out.reshape(60, -1, 50) if share[1] == 1 else out.reshape(60, 1, -1)
    if share != (1, 1, 1):
        assert (blocks == blocks[..., :1]).all()
    layer.eval()
    assert layer(x) is x
    layer.train()


def test_dropping_whole_maps_and_unscaled_paths():
    x = bt.asarray(np.ones((30, 20, 4, 5), np.float32))
    out = nn.Dropout2d(0.5)(x).array
    assert ((out == 0).all((2, 3)) | (out == 2).all((2, 3))).all()
    out = nn.DropPath(0.5, scale_by_keep=False)(x).array
    assert set(np.unique(out)) == {0.0, 1.0}
    assert nn.DropPath(0.0)(x) is x
    assert not nn.Dropout(1.0)(x).array.any()


LAYERS = [lambda: nn.Dropout(), lambda: nn.BatchNorm1d(4), lambda: nn.DropPath(0.5)]


@pytest.mark.parametrize("layer", LAYERS)
def test_prediction_in_train_mode_is_noticed_once(layer):
    notice.forget_warnings()
    model = nn.Sequential(layer())
    x = data(8, 4)
    model(x)  # training: nothing to say
    with bt.no_grad():
        out = model(x)
    with pytest.warns(
        nn.TrainingWarning, match=r"(?s)test_layers\.py:\d+ .*model\.eval\(\)"
    ) as seen:
        out.numpy()
    assert seen[0].filename == __file__
    with bt.no_grad():
        model(x).numpy()
    notice.forget_warnings()
    with bt.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("error")
        model(x)
        model.eval()(x).numpy()


@pytest.mark.parametrize(
    "read",
    [
        lambda x: x.mean().item(),
        lambda x: x.tolist(),
        lambda x: np.asarray(x),
        lambda x: float(x.sum()),
        lambda x: bt.argmax(x, axis=1).numpy(),
    ],
)
def test_every_way_of_reading_a_prediction(read):
    notice.forget_warnings()
    with bt.no_grad():
        out = nn.Dropout()(data(8, 4))
    with pytest.warns(nn.TrainingWarning):
        read(out)


def test_layers_that_run_without_gradients_on_purpose_are_left_alone():
    notice.forget_warnings()
    generator = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout())
    teacher = nn.Sequential(nn.Linear(4, 1), nn.Dropout())
    critic = nn.Linear(4, 1)
    optimizer = bt.optim.SGD(critic.parameters(), lr=0.1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for step in range(3):
            with bt.no_grad():
                fake, wanted = generator(data(8, 4, seed=step)), teacher(data(8, 4))
            labels = nn.functional.one_hot(bt.tensor([0, 1, 2, 3] * 2), 4)  # reads ids itself
            loss = nn.functional.mse_loss(critic(fake * labels), wanted)
            loss.item()
            optimizer.zero_grad()
            loss.backward()
            loss.item()
            fake.numpy()
            optimizer.step()
        with bt.no_grad():  # statistics of batch norm are taken anew
            generator(data(8, 4))
        generator.eval()
        fake.numpy()
    notice.forget_warnings()


def test_batch_norm_counts_and_averages():
    layer = nn.BatchNorm1d(2, momentum=None)
    batches = [data(5, 2, seed=i) for i in range(3)]
    for x in batches:
        layer(x)
    assert layer.num_batches_tracked.array == 3
    means = np.mean([x.array.mean(0) for x in batches], axis=0)
    np.testing.assert_allclose(layer.running_mean.array, means, rtol=1e-5)
    layer.reset_running_stats()
    assert layer.num_batches_tracked.array == 0
    assert (layer.running_var.array == 1).all()


# -- mistakes ----------------------------------------------------------------------------------


def test_wrong_width_after_flatten_names_everything():
    class Net(nn.Module):
        def __init__(self) -> None:
            self.conv = nn.Conv2d(3, 64, 3)
            self.flatten = nn.Flatten()
            self.fc1 = nn.Linear(256, 10)

        def forward(self, x: Any) -> Any:
            return self.fc1(self.flatten(self.conv(x)))

    with pytest.raises(ShapeError) as caught:
        Net()(data(2, 3, 8, 8))
    text = str(caught.value)
    for fact in ("'fc1'", "256", "2304", "64x6x6", "Linear(2304, 10)"):
        assert fact in text
    assert caught.value.module_path == "fc1"
    assert (caught.value.expected, caught.value.got) == (256, 2304)


def test_missing_batch_axis():
    with pytest.raises(ShapeError, match=r"x\[None\]"):
        nn.BatchNorm2d(3)(data(3, 4, 4))
    with pytest.raises(ShapeError, match=r"takes \(B, C\) or \(B, C, L\), got shape \(3, 4, 4, 2"):
        nn.BatchNorm1d(3)(data(3, 4, 4, 2))


def test_one_sample_in_batch_norm():
    model = nn.Sequential({"norm": nn.BatchNorm1d(3)})
    with pytest.raises(ShapeError, match="drop_last=True") as caught:
        model(data(1, 3))
    assert caught.value.module_path == "norm"


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: nn.Conv2d(3, 4, 3, groups=2), "groups=2 must divide"),
        (lambda: nn.Conv2d(3, 4, (3, 3, 3)), "kernel_size takes a number or 2"),
        (lambda: nn.Conv2d(3, 4, 3, padding="full"), "'same' or 'valid'"),
        (lambda: nn.Conv2d(3, 4, 3, stride=2, padding="same"), "needs a stride of 1"),
        (lambda: nn.Conv2d(3, 4, 3, padding_mode="mirror"), "padding_mode is one of"),
        (lambda: nn.ConvTranspose2d(3, 4, 3, padding_mode="reflect"), "'zeros'"),
        (lambda: nn.GroupNorm(4, 6), r"GroupNorm\(2, 6\)"),
        (lambda: nn.Dropout(1.5), "between 0 and 1"),
        (lambda: nn.DropPath(-0.1), "between 0 and 1"),
        (lambda: nn.Embedding(3, 4, padding_idx=3), "padding_idx 3"),
        (lambda: nn.MultiheadAttention(10, 3), "3 heads cannot share 10"),
        (lambda: nn.TransformerEncoderLayer(4, 2, activation="swish"), "one of relu, gelu"),
        (lambda: nn.RNN(3, 4, nonlinearity="gelu"), "'tanh' or 'relu'"),
        (lambda: nn.LSTM(3, 4, proj_size=4), "proj_size is below"),
        (lambda: nn.LSTM(3, 4, dropout=2), "between 0 and 1"),
        (lambda: nn.ZeroPad2d((1, 2)), "a number or 4 numbers"),
    ],
)
def test_wrong_settings(make, message):
    with pytest.raises(ConfigError, match=message):
        make()


@pytest.mark.parametrize(
    "make, ours",
    [
        (lambda: nn.Softmax(dim=1), "axis="),
        (lambda: nn.GLU(dim=1), "axis="),
        (lambda: nn.Flatten(start_dim=1), "start_axis="),
        (lambda: nn.CosineSimilarity(dim=1), "axis="),
        (lambda: nn.PairwiseDistance(keepdim=True), "keepdims="),
    ],
)
def test_names_of_torch_arguments(make, ours):
    with pytest.raises(TypeError, match=f"Here it is written: {ours}"):
        make()


def test_a_module_of_ones_own_may_have_a_dim():
    class Block(nn.Module):
        def __init__(self, dim: int) -> None:
            self.fc = nn.Linear(dim, dim)

    assert Block(dim=3).fc.in_features == 3


def test_transposed_convolution_of_an_impossible_size():
    layer = nn.ConvTranspose2d(2, 2, 3, stride=2)
    assert layer(data(1, 2, 4, 4), output_size=(9, 10)).shape == (1, 2, 9, 10)
    with pytest.raises(ShapeError, match="between 9 and 10"):
        layer(data(1, 2, 4, 4), output_size=(9, 11))


def test_recurrent_mistakes():
    layer = nn.GRU(3, 4, batch_first=True)
    x = data(2, 5, 3)
    with pytest.raises(ShapeError, match=r"\(B, T, D\) or \(T, D\) with D = 3"):
        layer(data(2, 5, 4))
    with pytest.raises(ShapeError, match=r"\(1, 2, 4\), got \(2, 4\)"):
        layer(x, data(2, 4))
    with pytest.raises(ShapeError, match="no steps"):
        layer(data(2, 0, 3))
    with pytest.raises(ShapeError, match="2 numbers from 1 to 5"):
        layer(x, lengths=[5, 6])
    with pytest.raises(ShapeError, match="mask is boolean"):
        layer(x, mask=bt.asarray(np.ones((2, 5))))
    with pytest.raises(ConfigError, match="not both"):
        layer(x, lengths=[5, 4], mask=bt.asarray(np.ones((2, 5), bool)))


def test_attention_mistakes():
    layer = nn.MultiheadAttention(4, 2, batch_first=True)
    with pytest.raises(ShapeError, match=r"\(T, B, E\)"):
        layer(data(4), data(4), data(4))
    x = data(2, 3, 4)
    with pytest.raises(ShapeError, match=r"\(2, 3\), got \(3, 2\)"):
        layer(x, x, x, key_padding_mask=bt.asarray(np.zeros((3, 2), bool)))


# -- more than torch ---------------------------------------------------------------------------


def test_a_mask_is_the_same_as_lengths():
    layer = nn.LSTM(3, 4, bidirectional=True, batch_first=True)
    x = data(2, 5, 3)
    mask = bt.asarray(np.arange(5)[None] < np.array([[3], [5]]))
    for got, want in zip(
        (layer(x, mask=mask)[0], *layer(x, mask=mask)[1]),
        (layer(x, lengths=bt.asarray(np.array([3, 5])))[0], *layer(x, lengths=[3, 5])[1]),
        strict=True,
    ):
        np.testing.assert_array_equal(got.array, want.array)


def test_causal_attention_needs_no_mask():
    layer = nn.MultiheadAttention(6, 2, batch_first=True)
    x = data(2, 4, 6)
    mask = bt.asarray(np.triu(np.ones((4, 4), bool), 1))
    padding = bt.asarray(np.arange(4)[None] >= np.array([[4], [3]]))
    for keywords in ({}, {"key_padding_mask": padding}):
        for weights in (True, False):
            got, w = layer(x, x, x, is_causal=True, need_weights=weights, **keywords)
            want, _ = layer(x, x, x, attn_mask=mask, need_weights=True, **keywords)
            np.testing.assert_allclose(got.array, want.array, atol=1e-5)
            assert (w is not None) == weights


def test_dropout_in_attention_and_between_recurrent_layers():
    attention = nn.MultiheadAttention(6, 2, dropout=0.5, batch_first=True)
    x = data(2, 4, 6)
    for weights in (True, False):
        first, second = (attention(x, x, x, need_weights=weights)[0].array for _ in range(2))
        assert not np.array_equal(first, second)
    attention.eval()
    first, second = (attention(x, x, x)[0].array for _ in range(2))
    np.testing.assert_array_equal(first, second)
    deep = nn.LSTM(6, 3, num_layers=2, dropout=0.5, batch_first=True)
    assert not np.array_equal(deep(x)[0].array, deep(x)[0].array)
    deep.eval()
    np.testing.assert_array_equal(deep(x)[0].array, deep(x)[0].array)


def test_transformer_encoder_stacks_copies():
    layer = nn.TransformerEncoderLayer(6, 2, 8, batch_first=True)
    encoder = nn.TransformerEncoder(layer, 3, nn.LayerNorm(6)).eval()
    assert "layers.2.self_attn.in_proj_weight" in encoder.state_dict()
    assert encoder.layers[0] is not encoder.layers[1]
    x = data(2, 4, 6)
    y = x
    for each in encoder.layers:
        y = each(y)
    np.testing.assert_allclose(encoder(x).array, encoder.norm(y).array, rtol=1e-6)


def test_embedding_from_a_table():
    table = data(5, 3)
    frozen = nn.Embedding.from_pretrained(table)
    assert frozen.weight.array is table.array
    assert not frozen.weight.requires_grad
    trained = nn.Embedding.from_pretrained(table, freeze=False, padding_idx=1)
    trained(bt.asarray(np.array([1, 2]))).sum().backward()
    assert not trained.weight.grad.array[1].any()
    assert (trained.weight.grad.array[2] == 1).all()


def test_ctc_and_contrastive_losses_pass_their_settings():
    logs = nn.functional.log_softmax(data(6, 2, 4), -1)
    targets = bt.asarray(np.array([[1, 2], [3, 3]]))
    lengths = bt.asarray(np.array([6, 5])), bt.asarray(np.array([2, 2]))
    got = nn.CTCLoss(reduction="sum", zero_infinity=True)(logs, targets, *lengths)
    want = nn.functional.ctc_loss(logs, targets, *lengths, reduction="sum", zero_infinity=True)
    assert got.item() == want.item()
    x, y = data(4, 3), data(4, 3, seed=1)
    got = nn.InfoNCELoss(0.5, symmetric=True)(x, y)
    assert got.item() == nn.functional.info_nce(x, y, temperature=0.5, symmetric=True).item()
    target = bt.asarray((data(4, 3, seed=2).array > 0).astype(np.float32))
    got = nn.FocalLoss(0.3, 1.5, "sum")(x, target)
    want = nn.functional.sigmoid_focal_loss(x, target, alpha=0.3, gamma=1.5, reduction="sum")
    assert got.item() == want.item()


def test_class_weights_follow_the_module_and_are_not_saved():
    loss = nn.CrossEntropyLoss(weight=bt.asarray(np.array([1.0, 2.0, 3.0], np.float32)))
    assert loss.state_dict() == {}
    assert [n for n, _ in loss.named_buffers()] == ["weight"]
    loss.to(bt.float64)
    assert loss.weight.dtype == np.float64


def test_reprs_read_like_the_call():
    expected = {
        nn.Linear(3, 4, bias=False): "Linear(3, 4, bias=False)",
        nn.Conv2d(3, 4, 3, padding=1): (
            "Conv2d(3, 4, kernel_size=(3, 3), stride=(1, 1), padding=(1, 1))"
        ),
        nn.LSTM(3, 4, num_layers=2, batch_first=True): (
            "LSTM(3, 4, num_layers=2, batch_first=True)"
        ),
        nn.ReLU(): "ReLU()",
        nn.Softmax(1): "Softmax(axis=1)",
        nn.GELU("tanh"): "GELU(approximate='tanh')",
        nn.Dropout(0.1): "Dropout(p=0.1)",
        nn.Embedding(5, 3): "Embedding(5, 3)",
        nn.MSELoss(): "MSELoss(reduction='mean')",
        nn.Upsample(scale_factor=2): "Upsample(scale_factor=2, mode='nearest')",
    }
    for layer, text in expected.items():
        assert repr(layer) == text


def test_every_public_layer_has_a_repr_and_a_docstring():
    for name in nn.__all__:
        item = getattr(nn, name)
        if isinstance(item, type) and issubclass(item, nn.Module):
            assert item.__doc__, name
            assert item.__doc__ != nn.Module.__doc__ or item is nn.Module, name
