"""The trainer's `precision=`: accuracy, overflow, resume bit for bit, choices and mistakes."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

import bestiary as bt
from bestiary import data, nn, optim
from bestiary.core import notice
from bestiary.core.errors import ConfigError, GradError
from bestiary.core.nn import functional as F
from bestiary.core.training import Trainer, precision

HALVES = ["float16", "bfloat16"]
pytestmark = pytest.mark.filterwarnings("ignore:precision=:UserWarning")


class Net(nn.Module):
    """Convolution, normalisation, dropout, attention: one of each kind that is cast or is not."""

    def __init__(self) -> None:
        self.conv = nn.Conv2d(1, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.last_norm = nn.LayerNorm(8)
        self.drop = nn.Dropout(0.1)
        self.out = nn.Linear(8, 2)

    def forward(self, x: bt.Tensor) -> bt.Tensor:
        x = F.relu(self.norm(self.conv(x)))  # (B, 8, 6, 6)
        tokens = bt.permute_dims(x.reshape(x.shape[0], 8, -1), (0, 2, 1))
        tokens = self.last_norm(tokens + self.attention(tokens, tokens, tokens)[0])
        return self.out(self.drop(tokens.mean(axis=1)))


def pictures(n: int = 96) -> data.ArrayDataset:
    """Horizontal or vertical stripes in noise."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(n, 1, 6, 6)).astype(np.float32), np.arange(n) % 2
    x[y == 0, :, ::2] += 1.5
    x[y == 1, :, :, ::2] += 1.5
    return data.ArrayDataset(x, y)


def loss(module: nn.Module, batch):
    return F.cross_entropy(module(batch[0]), batch[1])


def accuracy(module: nn.Module) -> dict[str, float]:
    x, y = pictures().arrays
    scores = module(bt.Tensor(x))
    assert scores.dtype == bt.float32  # evaluation is in the precision of the parameters
    return {"accuracy": float((scores.numpy().argmax(1) == y).mean())}


def trainer(wanted: str, folder=None, **changes) -> Trainer:
    bt.manual_seed(1)
    net = Net()
    optimizer = optim.AdamW(net.parameters(), lr=0.01)
    settings = {
        "evaluate": accuracy,
        "schedule": optim.CosineAnnealingLR(optimizer, 48),
        "ema": optim.EMA(net, decay=0.8),
        "clip_norm": 1.0,
        "accumulate": 2,
        "folder": folder,
        "log_every": 1,
        "quiet": True,
        "precision": wanted,
        **changes,
    }
    loader = data.DataLoader(pictures(), batch_size=8, shuffle=True, seed=2)
    return Trainer(net, optimizer, loss, loader, **settings)


def test_halves_reach_the_accuracy_of_float32():
    runs = {}
    for wanted in ("float32", *HALVES):
        t = trainer(wanted, epochs=5)
        runs[wanted] = t.fit()
        assert all(p.dtype == bt.float32 for p in t.module.parameters())
        assert t.skipped == 0
    assert runs["float32"].column("accuracy")[-1] > 0.95
    for wanted in HALVES:
        assert runs[wanted].column("accuracy")[-1] > 0.95
        ours, full = (runs[k].column("loss", "steps") for k in (wanted, "float32"))
        assert ours != full  # it was rounded
        np.testing.assert_allclose(ours[:4], full[:4], rtol=0.05)
    assert set(runs["float16"].column("loss_scale", "steps")) == {65536.0}
    assert not runs["bfloat16"].column("loss_scale", "steps")


def everything(t: Trainer) -> dict[str, np.ndarray]:
    found = {f"module/{k}": v.numpy().copy() for k, v in t.module.state_dict().items()}
    found |= {f"ema/{k}": v.numpy().copy() for k, v in t.ema.module.state_dict().items()}
    for i, entry in t.optimizer.state_dict()["state"].items():
        found |= {f"optimizer/{i}/{k}": np.array(v.numpy()) for k, v in entry.items()}
    return found


def test_an_overflow_leaves_everything_as_it_was_and_training_recovers():
    t = trainer("float16", steps=14)
    t.scaler = optim.GradScaler(init_scale=2.0**40)
    seen = []

    def look(trainer: Trainer) -> None:
        rate = trainer.optimizer.param_groups[0]["lr"]
        seen.append((trainer.skipped, trainer.ema.steps, rate, everything(trainer)))

    t.callbacks = [look]
    first = everything(t)
    t.fit()
    skipped = t.skipped
    assert 0 < skipped < 30
    assert t.scaler.get_scale() == 2.0 ** (40 - skipped)
    for at, ema_steps, rate, now in seen[:skipped]:
        assert (at, ema_steps, rate) == (at, 0, 0.01)  # neither average nor schedule moved
        for name, value in first.items():
            if "running" not in name and "tracked" not in name:
                np.testing.assert_array_equal(now[name], value, err_msg=name)
    assert t.step == 14  # steps that were left out count: their batches were used
    t = trainer("float16", epochs=7)
    t.scaler = optim.GradScaler(init_scale=2.0**40)
    assert t.fit().column("accuracy")[-1] > 0.9
    assert t.history.column("grad_norm", "steps")
    assert np.isfinite(t.history.column("grad_norm", "steps")).all()


@pytest.mark.parametrize("wanted", HALVES)
@pytest.mark.parametrize("half", [5, 9])  # within the steps that are left out, and after them
def test_resuming_is_bit_identical(tmp_path, wanted, half):
    def made(folder=None, **changes) -> Trainer:
        t = trainer(wanted, folder, **changes)
        if wanted == "float16":
            t.scaler = optim.GradScaler(init_scale=2.0**28, growth_interval=3)
        return t

    whole = made(steps=2 * half)
    whole.fit()
    assert (whole.skipped > 0) == (wanted == "float16")
    made(tmp_path, steps=half).fit()
    second = trainer(wanted, tmp_path, steps=2 * half)
    second.fit(resume="auto")
    assert second.skipped == whole.skipped
    assert second.scaler.state_dict() == whole.scaler.state_dict()
    assert second.history.steps == whole.history.steps
    expected, found = everything(whole), everything(second)
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)


def test_resuming_with_waiting_gradients():
    """In the middle of an accumulated step they are multiplied by the scale."""
    t = trainer("float16", steps=4)
    batches = list(t.batches)
    t._batch(batches[0])
    state = t.state_dict()
    same = trainer("float16", steps=4)
    same.load_state_dict(state)
    other = trainer("float32", steps=4)
    with pytest.warns(UserWarning, match="precision: float16 then, float32 now"):
        other.load_state_dict(state)
    for t2, factor in ((same, 1), (other, 1 / 65536)):
        for p, q in zip(t2.module.parameters(), t.module.parameters(), strict=True):
            np.testing.assert_array_equal(p.grad.numpy(), q.grad.numpy() * np.float32(factor))


def test_a_checkpoint_from_before_there_was_a_precision():
    state = trainer("float32", steps=4).state_dict()
    del state["scaler"], state["numerics"]["precision"], state["counters"]["skipped"]
    t = trainer("float16", steps=4)
    t.load_state_dict(state)
    assert t.scaler.get_scale() == 65536


def test_a_loss_that_is_not_finite_is_divergence_at_once():
    t = trainer("float16", steps=4)
    t.loss = lambda module, batch: loss(module, batch) * float("inf")
    with pytest.raises(GradError, match=r"(?s)the loss became inf at step 1 .*'bfloat16'"):
        t.fit()


def test_gradients_that_are_never_finite_are_divergence_in_the_end():
    t = trainer("float16", steps=99, accumulate=1, schedule=None, ema=None)

    def broken(module, batch):
        zero = (module(batch[0]) * 0.0).astype(bt.float32)
        return bt.sqrt(zero).sum()

    t.loss = broken
    with np.errstate(all="ignore"), pytest.raises(GradError, match="not finite") as caught:
        t.fit()
    assert caught.value.scale == 2.0**-17
    assert "detect_anomaly" in str(caught.value)
    assert len(str(caught.value).splitlines()) <= 12
    assert t.step == 32  # the 33rd gave up


def test_anomaly_mode_trains_in_float16():
    t = trainer("float16", steps=3, accumulate=1)
    t.scaler = optim.GradScaler(init_scale=2.0**26)
    with bt.detect_anomaly():
        t.fit()
    assert t.skipped


def test_an_autocast_around_a_float32_trainer_is_kept():
    t = trainer("float32", steps=1, accumulate=1)
    seen = []

    def look(module, batch):
        seen.append(module.conv(batch[0]).dtype)
        return loss(module, batch)

    t.loss = look
    with bt.autocast(bt.bfloat16):
        t.fit()
    assert seen == [bt.bfloat16]


# -- choosing ----------------------------------------------------------------------------------


def test_auto_takes_what_the_device_has(monkeypatch):
    assert trainer("auto", steps=1).precision == "float32"
    assert trainer(bt.bfloat16, steps=1).precision == "bfloat16"
    monkeypatch.setattr(precision, "best_precision", lambda device: "float16")
    t = trainer("auto", steps=1)
    assert t.precision == "float16"
    assert t.scaler.enabled
    net = nn.Linear(2, 2).to(bt.float64)  # its parameters leave nothing to gain
    assert precision.chosen_precision("auto", net) == "float32"
    assert precision.chosen_precision("auto", nn.ReLU()) == "float16"


@pytest.mark.parametrize(
    "wrong, fix",
    [
        ("fp16", "precision='float16'"),
        ("bf16-mixed", "precision='bfloat16'"),
        (bt.float64, "precision='auto'"),
        (16, "precision='float16'"),
        ("fast", "precision='auto'"),
        (None, "precision='auto'"),
    ],
)
def test_other_names_are_refused(wrong, fix):
    with pytest.raises(ConfigError) as caught:
        trainer(wrong, steps=1)
    assert fix in str(caught.value)
    assert caught.value.got == wrong


@pytest.mark.parametrize("dtype", [bt.float16, bt.float64])
def test_parameters_of_another_precision_are_refused(dtype):
    net = nn.Linear(2, 2).to(dtype)
    with pytest.raises(ConfigError, match=r"module\.to\(bt\.float32\)") as caught:
        Trainer(net, optim.SGD(net.parameters()), loss, [], epochs=1, precision="bfloat16")
    assert caught.value.name == "weight"
    net.requires_grad_(False)
    net.head = nn.Linear(2, 2)  # frozen parameters may be what they like
    Trainer(net, optim.SGD(net.head.parameters()), loss, [], epochs=1, precision="bfloat16")


def test_the_cpu_says_once_that_it_is_slower():
    notice.forget_warnings()
    with pytest.warns(nn.TrainingWarning, match="precision='auto'"):
        trainer("float16", steps=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        trainer("float16", steps=1)
        trainer("auto", steps=1)
        trainer("float32", steps=1)


@pytest.mark.gpu
@pytest.mark.parametrize("wanted", [*HALVES, "auto"])
def test_training_on_a_gpu(wanted):
    bt.manual_seed(1)
    net = Net().to("cuda")
    optimizer = optim.AdamW(net.parameters(), lr=0.01)
    loader = data.DataLoader(pictures(), batch_size=8, shuffle=True, seed=2, device="cuda")

    def evaluate(module: nn.Module) -> dict[str, float]:
        x, y = pictures().arrays
        scores = module(bt.Tensor(x).to("cuda")).cpu().numpy()
        return {"accuracy": float((scores.argmax(1) == y).mean())}

    t = Trainer(
        net, optimizer, loss, loader, epochs=5, evaluate=evaluate, precision=wanted, quiet=True
    )
    assert t.precision == ("bfloat16" if wanted == "auto" else wanted)
    assert t.fit().column("accuracy")[-1] > 0.95
