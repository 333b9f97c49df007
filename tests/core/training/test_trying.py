"""Learning rate range test, learning one batch by heart: what they say; all is put back."""

from __future__ import annotations

import numpy as np
import pytest

import bestiary as bt
from bestiary import data, nn, optim
from bestiary.core import random
from bestiary.core.errors import ConfigError, GradError
from bestiary.core.nn import functional as F
from bestiary.core.training import Trainer

RNG = np.random.default_rng(0)
X = RNG.normal(size=(256, 20)).astype(np.float32)
Y = (X[:, :5].sum(1) > 0).astype(np.int64)


def network(p: float = 0.1) -> nn.Module:
    return nn.Sequential(
        nn.Linear(20, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Dropout(p), nn.Linear(64, 2)
    )


def loss(module, batch):
    return F.cross_entropy(module(batch[0]), batch[1])


def trainer(net=None, lr: float = 1e-2, function=loss, **settings) -> Trainer:
    bt.manual_seed(0)
    net = net or network()
    adam = optim.AdamW(net.parameters(), lr=lr)
    loader = data.DataLoader(data.ArrayDataset(X, Y), batch_size=32, shuffle=True, seed=1)
    return Trainer(net, adam, function, loader, **{"epochs": 3, "quiet": True} | settings)


def state(t: Trainer) -> dict[str, object]:
    found = {f"module/{k}": v.numpy().copy() for k, v in t.module.state_dict().items()}
    saved = t.optimizer.state_dict()
    for i, entry in saved["state"].items():
        found |= {f"optimizer/{i}/{k}": np.array(v.numpy()) for k, v in entry.items()}
    found["groups"] = [dict(g) for g in saved["param_groups"]]
    random.default_generator("cpu")
    drawn = random.get_state()
    found["random"] = (drawn["generators"], drawn["numpy"])
    found["loader"] = t.batches.state_dict()
    found["modes"] = [m.training for m in t.module.modules()]
    found["counters"] = (t.step, t.epoch, len(t.history.steps))
    return found


def same(a: dict[str, object], b: dict[str, object]) -> None:
    assert a.keys() == b.keys()
    for name, value in a.items():
        if isinstance(value, np.ndarray):
            np.testing.assert_array_equal(b[name], value, err_msg=name)
        else:
            assert b[name] == value, name


@pytest.mark.parametrize("began", [0, 5])  # with and without a state of the optimizer
@pytest.mark.parametrize("precision", ["float32", "float16"])
@pytest.mark.parametrize("what", [bt.lr_find, bt.overfit_one_batch])
@pytest.mark.filterwarnings("ignore:precision=:UserWarning")
def test_everything_is_put_back_bit_for_bit(began, precision, what):
    t = trainer(precision=precision, accumulate=2, clip_norm=1.0)
    if began:
        t.max_steps, t.epochs = began, None
        t.fit()
    t.module.eval()
    before = state(t)
    what(t, steps=12)
    same(before, state(t))
    t.max_steps, t.epochs = began + 6, None
    t.fit()
    plain = trainer(precision=precision, accumulate=2, clip_norm=1.0)
    plain.max_steps, plain.epochs = began or began + 6, None
    plain.fit()
    if began:
        plain.module.eval()
        plain.max_steps = began + 6
        plain.fit()
    same(state(plain), state(t))


def test_gradients_and_other_rates_are_put_back():
    t = trainer()
    t.optimizer.add_param_group({"params": [bt.zeros(3).requires_grad_()], "lr": 1e-5})
    loss(t.module, (bt.Tensor(X[:8]), bt.Tensor(Y[:8]))).backward()
    grads = [p.grad.numpy().copy() for p in t.module.parameters()]
    bt.lr_find(t, steps=12)
    assert [g["lr"] for g in t.optimizer.param_groups] == [1e-2, 1e-5]
    for p, g in zip(t.module.parameters(), grads, strict=True):
        np.testing.assert_array_equal(p.grad.numpy(), g)


def test_the_suggested_rate_learns_faster_than_much_smaller_and_larger_ones():
    found = bt.lr_find(trainer(), steps=80)
    assert 1e-3 < found.suggestion < 0.3
    assert found.diverged is None or found.diverged > found.suggestion
    assert len(found.rates) == len(found.losses) == len(found.smoothed)
    np.testing.assert_allclose(np.diff(np.log(found.rates)), np.log(1e8) / 79)

    def final(lr: float) -> float:
        t = trainer(network(0.0), lr=lr, epochs=1)
        t.fit()
        return float(loss(t.module.eval(), (bt.Tensor(X), bt.Tensor(Y))).item())

    best = final(found.suggestion)
    assert best < final(found.suggestion / 300) and best < final(found.suggestion * 300)


def test_groups_keep_the_proportion_of_their_rates():
    t = trainer()
    seen = []
    net = t.module
    t.optimizer = optim.SGD(
        [{"params": net[0].parameters(), "lr": 0.01}, {"params": net[4].parameters(), "lr": 0.1}],
        lr=1.0,
    )
    t.loss = lambda m, b: seen.append([g["lr"] for g in t.optimizer.param_groups]) or loss(m, b)
    found = bt.lr_find(t, steps=12, high=0.1)
    np.testing.assert_allclose([row[1] for row in seen], found.rates)
    np.testing.assert_allclose([row[0] for row in seen], np.array(found.rates) / 10)


def test_it_stops_where_the_loss_diverges():
    t = trainer(nn.Linear(20, 1), function=lambda m, b: (m(b[0]) ** 2).mean())
    t.optimizer = optim.SGD(t.module.parameters(), lr=0.1)
    found = bt.lr_find(t, steps=60, high=1e6)
    assert found.diverged is not None and found.diverged < 1e6 and len(found.rates) < 60
    assert "diverged at" in str(found)
    assert all(np.isfinite(p.numpy()).all() for p in t.module.state_dict().values())


def test_a_loss_that_never_falls_gives_no_suggestion():
    t = trainer(function=lambda m, b: loss(m, b) * 0 + 1)
    found = bt.lr_find(t, steps=20)
    assert found.suggestion is None and "never fell" in str(found)


def test_a_loss_that_is_nan_at_once_is_traced():
    t = trainer(function=lambda m, b: bt.log(m(b[0]).sum() * 0 - 1))
    before = state(t)
    with pytest.raises(GradError) as caught:
        bt.lr_find(t)
    assert caught.value.op == "log" and caught.value.direction == "forward"
    same(before, state(t))


def test_the_pictures_and_tables():
    found = bt.lr_find(trainer(), steps=30)
    picture = found.plot()
    assert picture.size == (720, 420) and found._repr_png_().startswith(b"\x89PNG")
    ink = np.asarray(picture)
    # The mark is a vertical line in ink, longer than any letter.
    assert ((ink == (34, 34, 34)).all(axis=-1)).sum(axis=0).max() > 250
    assert "<table" in found._repr_html_()
    learned = bt.overfit_one_batch(trainer(), steps=5)
    assert learned.plot().size == (720, 420) and "<table" in learned._repr_html_()


@pytest.mark.parametrize(
    "settings", [{"low": 0}, {"low": 1, "high": 1e-3}, {"steps": 3}, {"stop_at": 1}]
)
def test_settings_of_the_range_test_that_make_no_sense(settings):
    with pytest.raises(ConfigError, match="lr_find"):
        bt.lr_find(trainer(), **settings)


@pytest.mark.parametrize("settings", [{"steps": 0}, {"ratio": 0}, {"ratio": 1.5}])
def test_settings_of_one_batch_that_make_no_sense(settings):
    with pytest.raises(ConfigError, match="overfit_one_batch"):
        bt.overfit_one_batch(trainer(), **settings)


@pytest.mark.parametrize("what", [bt.lr_find, bt.overfit_one_batch])
def test_what_they_do_not_take(what):
    with pytest.raises(ConfigError, match="takes a trainer, got Sequential"):
        what(network())
    t = trainer()
    t.batches = iter([(X, Y)])
    with pytest.raises(ConfigError, match="used up"):
        what(t)
    t.batches = []
    with pytest.raises(ConfigError, match="empty"):
        what(t)


def test_a_sound_model_fits_one_batch():
    t = trainer(network(0.0))
    found = bt.overfit_one_batch(t)
    assert found.fitted and found.losses[-1] <= found.target < found.losses[0]
    assert "fits one batch" in str(found) and len(found.losses) < 200


def test_weights_are_kept_where_that_is_wanted():
    t = trainer(network(0.0))
    batch = bt.Tensor(X[:32]), bt.Tensor(Y[:32])
    found = bt.overfit_one_batch(t, batch=batch, keep=True)
    assert float(loss(t.module, batch).item()) < 0.3 * found.losses[0]
    assert t.optimizer.param_groups[0]["lr"] == 1e-2 and t.optimizer.state


@pytest.mark.parametrize(
    "settings, reason",
    [
        ({"lr": 0.0}, "no parameter changed: learning rate 0"),
        ({"lr": 1e-6}, "hardly changes: a learning rate above 1e-06"),
        ({"lr": 1e-6}, "dropout keeps it from learning by heart: 3"),
    ],
)
def test_the_reasons_why_it_does_not_fit(settings, reason):
    found = bt.overfit_one_batch(trainer(**settings), steps=20)
    assert not found.fitted and reason in str(found)


def test_a_frozen_layer_and_parameters_that_were_left_out_are_told():
    t = trainer()
    t.module[0].requires_grad_(False)
    t.optimizer = optim.SGD([t.module[4].weight], lr=1e-6)
    text = str(bt.overfit_one_batch(t, steps=3))
    assert "3 parameters are not in the optimizer: 1.weight" in text
    assert "2 parameters are frozen" in text


def test_dead_layers_are_told():
    net = network(0.0)
    net[1].bias.array[...] = -100.0  # no unit of ReLU is ever active
    net[1].weight.array[...] = 0.0
    text = str(bt.overfit_one_batch(trainer(net, lr=1e-5), steps=5))
    assert "gradients of 2 layers, dead: 0, 1" in text
