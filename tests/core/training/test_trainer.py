"""The training loop: what it does, resumes bit for bit, and says when it goes wrong."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import numpy as np
import pytest

import bestiary as bt
from bestiary import data, nn, optim
from bestiary.core.errors import ConfigError, GradError, WeightsError
from bestiary.core.nn import functional as F
from bestiary.core.training import Trainer


class Net(nn.Module):
    def __init__(self) -> None:
        self.first = nn.Linear(6, 16)
        self.norm = nn.BatchNorm1d(16)
        self.drop = nn.Dropout(0.2)
        self.last = nn.Linear(16, 3)

    def forward(self, x: bt.Tensor) -> bt.Tensor:
        return self.last(self.drop(F.relu(self.norm(self.first(x)))))


class Noisy(data.Dataset):
    """Samples with random augmentation, which a resumed run must repeat."""

    def __init__(self, n: int = 70) -> None:
        rng = np.random.default_rng(0)
        self.x = rng.normal(size=(n, 6)).astype(np.float32)
        self.y = (self.x[:, 0] > 0).astype(np.int64) + (self.x[:, 1] > 1)

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, i: int):
        noise = data.sample_rng().normal(size=6).astype(np.float32)
        return self.x[i] + 0.1 * noise, self.y[i]


def loss(module: nn.Module, batch):
    return F.cross_entropy(module(batch[0]), batch[1])


def trainer(folder=None, **changes) -> Trainer:
    bt.manual_seed(5)
    net = Net()
    optimizer = optim.AdamW(net.parameters(), lr=0.02)
    dataset = Noisy()

    def evaluate(module: nn.Module) -> dict[str, float]:
        scores = module(bt.Tensor(dataset.x)).numpy()
        return {"accuracy": float((scores.argmax(1) == dataset.y).mean())}

    settings = {
        "evaluate": evaluate,
        "schedule": optim.CosineAnnealingLR(optimizer, 40),
        "ema": optim.EMA(net, decay=0.9),
        "clip_norm": 1.0,
        "accumulate": 2,
        "folder": folder,
        "log_every": 1,
        "quiet": True,
        **changes,
    }
    loader = data.DataLoader(dataset, batch_size=8, shuffle=True, seed=3)
    return Trainer(net, optimizer, loss, loader, **settings)


def tensors(t: Trainer) -> dict[str, np.ndarray]:
    found = {f"module/{k}": v.numpy().copy() for k, v in t.module.state_dict().items()}
    found |= {f"ema/{k}": v.numpy().copy() for k, v in t.ema.module.state_dict().items()}
    for i, entry in t.optimizer.state_dict()["state"].items():
        found |= {f"optimizer/{i}/{k}": np.array(v.numpy()) for k, v in entry.items()}
    return found


def test_it_learns():
    t = trainer(epochs=12, schedule=None)
    t.optimizer.param_groups[0]["lr"] = 0.05
    history = t.fit()
    assert history.column("accuracy")[-1] > 0.8
    assert history.column("loss", "steps")[0] > history.column("loss", "steps")[-1]
    assert t.epoch == 12 and t.step == 12 * math.ceil(9 / 2)


@pytest.mark.parametrize("half", [7, 10])  # in mid-epoch, and at the end of one
def test_2n_steps_equal_n_and_n_more(tmp_path, half):  # TESTPLAN 44
    whole = trainer(steps=2 * half)
    whole.fit()
    first = trainer(tmp_path, steps=half)
    first.fit()
    second = trainer(tmp_path, steps=2 * half)
    bt.manual_seed(99)  # whatever the process did before
    second.fit(resume="auto")
    assert second.step == whole.step == 2 * half
    expected, found = tensors(whole), tensors(second)
    assert expected.keys() == found.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)
    assert second.history.steps == whole.history.steps
    assert second.history.epochs == whole.history.epochs


def test_resume_auto_passes_over_a_damaged_checkpoint(tmp_path):  # TESTPLAN 46
    t = trainer(tmp_path, epochs=2, keep=3)
    t.fit()
    steps = t.store.steps()
    path = t.store.path(steps[-1]) / "tensors.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    again = trainer(tmp_path, epochs=2, keep=3)
    with pytest.warns(UserWarning, match="passed over"):
        again.fit(resume="auto")
    assert again.epoch == 2


def test_resume_from_a_given_checkpoint(tmp_path):
    t = trainer(tmp_path, epochs=3, keep=5)
    t.fit()
    first = t.store.path(t.store.steps()[0])
    again = trainer(None, epochs=1)
    again.fit(resume=first)
    assert again.epoch == 1 and again.step == t.store.steps()[0]
    with pytest.raises(ConfigError, match="no checkpoint folder"):
        trainer(None, epochs=1).fit(resume=tmp_path / "nothing")
    with pytest.raises(ConfigError, match="needs folder"):
        trainer(None, epochs=1).fit(resume="auto")


def test_a_checkpoint_of_another_model_is_refused(tmp_path):
    trainer(tmp_path, epochs=1).fit()
    other = trainer(tmp_path, epochs=2)
    other.module.last = nn.Linear(16, 4)
    with pytest.raises(WeightsError):
        other.fit(resume="auto")


def test_other_numerics_are_announced(tmp_path, monkeypatch):
    trainer(tmp_path, epochs=1).fit()
    monkeypatch.setattr("bestiary.core.training.numerics.cpu_count", lambda: 999)
    with pytest.warns(UserWarning, match="cpus: .* then, 999 now"):
        trainer(tmp_path, epochs=2).fit(resume="auto")


def test_accumulated_batches_equal_one_large_batch():
    def run(size: int, accumulate: int) -> np.ndarray:
        bt.manual_seed(0)
        net = nn.Linear(6, 3)
        x, y = Noisy(64).x, Noisy(64).y
        loader = data.DataLoader(data.ArrayDataset(x, y), batch_size=size)
        optimizer = optim.SGD(net.parameters(), lr=0.1)
        Trainer(net, optimizer, loss, loader, epochs=2, accumulate=accumulate, quiet=True).fit()
        return net.weight.detach().numpy()

    np.testing.assert_allclose(run(8, 4), run(32, 1), rtol=1e-5, atol=1e-6)


def test_early_stopping_and_the_best_checkpoint(tmp_path):
    scores = iter([0.1, 0.5, 0.4, 0.3, 0.9])
    t = trainer(
        tmp_path,
        epochs=5,
        evaluate=lambda module: {"accuracy": next(scores)},
        monitor="accuracy",
        patience=2,
        keep=1,
    )
    history = t.fit()
    assert len(history.epochs) == 4 and t.best == 0.5
    best = t.store.marked("best")
    assert best == history.epochs[1]["step"]
    assert t.store.load(best).step == best  # not rotated away


def test_a_callback_stops_it():
    t = trainer(epochs=50, callbacks=[lambda trainer: trainer.step >= 3])
    t.fit()
    assert t.step == 3


def test_a_loss_that_is_nan_names_step_and_rate():  # ERRORS 22
    t = trainer(epochs=1)
    broken = iter([False, False, True])

    def loss_that_breaks(module, batch):
        value = loss(module, batch)
        return value * float("nan") if next(broken) else value

    t.loss = loss_that_breaks
    with pytest.raises(GradError) as caught:
        t.fit()
    assert caught.value.lr == pytest.approx(0.02, rel=0.1)
    for part in ("became nan", "clip_norm", "detect_anomaly"):
        assert part in str(caught.value)


def test_evaluation_is_in_eval_mode_on_the_averaged_weights():
    seen = []
    t = trainer(epochs=1)
    t.evaluate = lambda module: seen.append((module is t.ema.module, module.training)) or {}
    t.fit()
    assert seen == [(True, False)]


def test_progress_is_shown(capsys):
    trainer(epochs=2, quiet=False).fit()
    err = capsys.readouterr().err
    assert "epoch 1/2: loss" in err and "samples/s" in err and "data wait" in err


def test_long_epochs_say_how_far_they_are(monkeypatch, capsys):
    hours = itertools.count(0, 3600)  # each look at the clock is an hour later
    monkeypatch.setattr("bestiary.core.insight.progress.time.monotonic", lambda: next(hours))
    trainer(epochs=1, quiet=False).fit()
    lines = capsys.readouterr().err.splitlines()
    assert lines[1].startswith("epoch 1/1: 2 of 9 batches (22%), ")
    assert len(lines) == 10  # one for each batch, and one for the epoch
    assert lines[9].startswith("epoch 1/1: loss ")


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"epochs": 1, "steps": 1},
        {"epochs": 0},
        {"epochs": 1, "mode": "best"},
        {"epochs": 1, "monitor": "accuracy", "evaluate": None},
        {"epochs": 1, "accumulate": 0},
    ],
)
def test_senseless_settings(settings):
    with pytest.raises(ConfigError):
        trainer(**settings)


def test_figures_go_to_a_run(tmp_path: Path) -> None:
    bt.manual_seed(0)
    module = bt.nn.Linear(3, 2)
    x = bt.random.normal((40, 3))
    batches = [(x[i : i + 8], x[i : i + 8, :2]) for i in range(0, 40, 8)]
    with bt.Run(tmp_path / "run", {"lr": 0.1}, module=module) as run:
        Trainer(
            module,
            bt.optim.SGD(module.parameters(), lr=0.1),
            lambda m, batch: ((m(batch[0]) - batch[1]) ** 2).mean(),
            batches,
            epochs=3,
            evaluate=lambda m: {"error": 0.5},
            run=run,
            log_every=1,
            quiet=True,
        ).fit()
    log = bt.read_run(tmp_path / "run")
    assert log.scalars["train/loss"].steps.tolist() == list(range(1, 16))
    assert log.scalars["train/loss"].last < log.scalars["train/loss"].values[0]
    assert log.scalars["evaluation/error"].steps.tolist() == [5, 10, 15]
    kinds, names = ("parameters", "gradients"), ("weight", "bias")
    assert set(log.histograms) == {f"{kind}/{name}" for kind in kinds for name in names}
