"""`bestiary train` on small folders: results, settings, resuming bit for bit, bad input."""

import json

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

import bestiary as bt
from bestiary.core.data import read_image
from bestiary.core.errors import (
    ConfigError,
    DataError,
    DtypeError,
    GradError,
    IndexRangeError,
    OutOfMemoryError,
    ShapeError,
)
from bestiary.core.notice import TrainingWarning
from bestiary.generative.training import adversarial, alarms, autoencoding, diffusion, quantizing
from bestiary.generative.training.alarms import (
    CollapseAlarm,
    check_codebook,
    codebook_use,
)
from bestiary.generative.training.grids import grid
from bestiary.generative.training.pictures import Batches, Pictures, read_pictures
from bestiary.generative.training.schedules import rates
from bestiary.hub.commands.train import RECIPES, train_command

SMALL = {
    "ddpm": "--channels 8,8 --layers 1 --timesteps 50 --sample-steps 3 --attention 4",
    "vae": "--width 8 --latent-size 4",
    "realnvp": "--width 4",
}


def pictures(count=24, size=8, channels=1, classes=2, seed=0):
    rng = np.random.default_rng(seed)
    values = rng.integers(0, 256, (count, channels, size, size), dtype=np.uint8)
    labels = np.arange(count) % classes if classes else None
    return Pictures(values, labels, tuple(f"kind {i}" for i in range(classes)), "tests")


@pytest.fixture
def folder(tmp_path):
    """Two classes of six pictures of different sizes, in colour."""
    rng = np.random.default_rng(0)
    for name in ("cats", "dogs"):
        (tmp_path / "data" / name).mkdir(parents=True)
        for i in range(6):
            pixels = rng.integers(0, 256, (10 + i, 12, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "data" / name / f"{i}.png")
    return tmp_path / "data"


def run(*words):
    return CliRunner().invoke(train_command, [str(w) for w in words])


@pytest.mark.filterwarnings("ignore:mode collapse")
@pytest.mark.parametrize("recipe", ["ddpm", "dcgan", "vae", "realnvp", "stylegan"])
def test_a_folder_becomes_a_model(recipe, folder, tmp_path):
    small = SMALL.get(recipe, "--width 8 --latent-size 4").split()
    common = "--size 8 --steps 3 --batch-size 4 --samples 4 --quiet --json".split()
    result = run(recipe, folder, *common, *small, "-o", tmp_path / "out")
    assert result.exit_code == 0, result.output
    said = json.loads(result.stdout)
    assert said["steps"] == 3
    model = bt.load(said["folder"])
    assert model.labels == ["cats", "dogs"]
    made = model(3, label="dogs", seed=1)
    assert [one.size for one in made] == [(8, 8)] * 3 and made[0].mode == "RGB"
    again = model(3, label=["dogs"] * 3, seed=[1, 2, 3], output="array")
    alone = model(1, label="dogs", seed=3, output="array")
    assert again[2:] == pytest.approx(alone, abs=1e-5)
    assert list((tmp_path / "out" / "samples").glob("*.png"))
    log = bt.read_run(tmp_path / "out")
    assert log.status == "finished" and log.about["hyperparameters"]["recipe"] == recipe
    assert any(name.startswith("train/") for name in log.scalars) and log.images["samples"]
    for kind in ("parameters", "gradients"):
        assert any(name.startswith(f"{kind}/") for name in log.histograms), kind
    tree = log.about["structure"]
    if recipe in ("dcgan", "stylegan"):
        assert list(tree["children"]) == ["generator", "critic"]
        assert tree["children"]["critic"]["inputs"].startswith("(4, 3, 8, 8)")
        assert {name.split("/")[1] for name in log.histograms} == {"generator", "critic"}
    else:  # a network with a loss of its own is not called itself, its parts are
        assert "(4, 3, 8, 8)" in json.dumps(tree)
    assert log.about["device"] == "cpu"
    assert recipe == "ddpm" or said["variety"] > 0
    with pytest.raises(DataError, match="dogs"):
        model(1, label="dgos")
    with pytest.raises(DataError, match="0 to 1"):
        model(1, label=2)
    with pytest.raises(ConfigError):
        model(0)


def test_a_folder_becomes_a_codebook(folder, tmp_path):
    words = "--size 8 --steps 5 --batch-size 4 --samples 6 --width 8 --entries 16 --quiet --json"
    result = run("vqvae", folder, *words.split(), "-o", tmp_path / "out")
    assert result.exit_code == 0, result.output
    said = json.loads(result.stdout)
    assert said["steps"] == 5 and 0 < said["codebook used"] <= 1 <= said["perplexity"] <= 16
    model = bt.load(said["folder"])
    assert model.task == "image-autoencoding" and "2 x 2 of 16 codes" in repr(model)
    files = [str(p) for p in sorted((folder / "cats").iterdir())]
    codes = model.encode(files)
    assert codes.shape == (6, 2, 2) and codes.dtype == np.int64 and codes.max() < 16
    assert (model.encode(files[2]) == codes[2:3]).all()
    whole, part = model.decode(codes, output="array"), model.decode(codes[1:2], output="array")
    assert whole[1:2] == pytest.approx(part, abs=1e-5)
    assert model(files[0]).size == (8, 8) and model(files[0]).mode == "RGB"
    assert len(model(files)) == 6
    # The same by hand: what is decoded are the entries that the codes name.
    book = model.module.codebook.entries.numpy()
    assert (
        model.module.codebook.look_up(bt.tensor(codes)).numpy()[0, :, 1, 0] == book[codes[0, 1, 0]]
    ).all()
    # One grid for each pass of three batches, and the last: originals over what is kept of them.
    grids = sorted((tmp_path / "out" / "samples").glob("*.png"))
    assert [one.stem for one in grids] == ["epoch-001", "last"]
    first, last = (read_image(one) for one in grids)
    assert first.size == (3 * 9 - 1, 2 * 9 - 1)
    assert (np.asarray(first)[:8] == np.asarray(last)[:8]).all()
    log = bt.read_run(tmp_path / "out")
    assert log.status == "finished" and log.about["hyperparameters"]["recipe"] == "vqvae"
    assert any("codebook used" in name for name in log.scalars) and len(log.images["samples"]) == 2


def test_a_codebook_draws_by_use_and_refuses_what_is_none(folder, tmp_path):
    settings = quantizing.Settings(width=4, entries=8, steps=2, batch_size=4, samples=4)
    trained = quantizing.Quantizing(pictures(), settings, out=tmp_path, quiet=True)
    model = trained.fit()
    model.module.codebook.uses.array[...] = np.eye(8)[3]
    alone = model.decode(np.full((1, 2, 2), 3), output="array")
    assert (model.sample(2, seed=0, output="array") == alone).all()
    model.module.codebook.uses.array[...] = 1
    pair, second = model.sample(2, seed=4, output="array"), model.sample(seed=5, output="array")
    assert pair[1:] == pytest.approx(second, abs=1e-6) and (pair[0] != pair[1]).any()
    with pytest.raises(ShapeError, match="2, 2"):
        model.decode(np.zeros((1, 3, 3), np.int64))
    with pytest.raises(IndexRangeError, match="there are 8"):
        model.decode(np.full((1, 2, 2), 8))
    with pytest.raises(DtypeError, match="whole numbers"):
        model.decode(np.zeros((1, 2, 2)))
    with pytest.raises(DataError, match="empty"):
        model.encode([])
    with pytest.raises(DataError, match="there is no file"):
        model.encode(folder / "cats" / "none.png")
    with pytest.raises(ConfigError, match="0 pictures"):
        model.sample(0)


def test_quantizing_measures_on_averaged_entries(tmp_path):
    settings = quantizing.Settings(width=4, entries=8, steps=3, batch_size=8, ema=0.5, restart=0.0)
    trained = quantizing.Quantizing(pictures(64), settings, out=tmp_path, quiet=True)
    seen = [trained.module.codebook.entries.numpy().copy()]
    trained.trainer.callbacks = [
        lambda t: seen.append(t.module.codebook.entries.numpy().copy()) and None
    ]
    trained.fit()
    wanted = seen[0].astype(float)
    for step, entries in enumerate(seen[1:], 1):
        wanted += (1 - min(0.5, step / (step + 9))) * (entries - wanted)
    assert trained.module.codebook.entries.numpy() == pytest.approx(wanted, abs=1e-5)
    codes = trained.module.encode(bt.tensor(trained._measured)).numpy()
    assert trained.last["codebook used"] == len(set(codes.ravel().tolist())) / 8


def test_a_run_that_is_given_takes_the_figures(tmp_path):
    settings = adversarial.Settings(width=8, latent_size=4, steps=3, batch_size=8, samples=4)
    with bt.Run(tmp_path / "log", system=False) as log:
        for kind in ("dcgan", "wgan-gp"):
            out = tmp_path / kind
            adversarial.Adversarial(
                pictures(), settings, kind=kind, out=out, quiet=True, run=log
            ).fit()
        assert log.about["status"] == "running"
    found = bt.read_run(tmp_path / "log")
    assert len(found.images["samples"]) == 2
    assert {"train/generator", "evaluation/variety"} <= set(found.scalars)
    assert not list(out.glob("events*"))
    with pytest.raises(ConfigError, match="no run"):
        adversarial.Adversarial(pictures(), settings, out=out, quiet=True, run="log").fit()


def stopped(trainer, at):
    """Make a training break off, as if the machine had gone down."""

    class Down(Exception):
        pass

    batches = trainer.batches
    plain, left = type(batches).__iter__, [at]

    class Breaking(type(batches)):
        def __iter__(self):
            for batch in plain(self):
                if not left[0]:
                    raise Down
                left[0] -= 1
                yield batch

    batches.__class__ = Breaking
    return Down


@pytest.mark.filterwarnings("ignore:mode collapse")
@pytest.mark.parametrize("kind", ["ddpm", "dcgan", "wgan-gp", "vae", "vqvae"])
def test_resuming_is_bit_identical(kind, tmp_path):
    data = pictures()
    common = {"steps": 9, "batch_size": 4, "samples": 4, "save_every": 4}

    def new(out):
        if kind == "ddpm":
            small = {"channels": (8, 8), "layers": 1, "timesteps": 20, "sample_steps": 2}
            settings = diffusion.Settings(**common, **small, warmup=2)
            return diffusion.Diffusion(data, settings, out=out, quiet=True)
        if kind == "vqvae":
            small = {"width": 4, "features": 3, "entries": 8}
            settings = quantizing.Settings(**common, **small, warmup=2)
            return quantizing.Quantizing(data, settings, out=out, quiet=True)
        if kind == "vae":
            settings = autoencoding.Settings(**common, width=4, latent_size=3, warmup=2)
            return autoencoding.Autoencoding(data, settings, kind=kind, out=out, quiet=True)
        settings = adversarial.Settings(**common, width=4, latent_size=3)
        return adversarial.Adversarial(data, settings, kind=kind, out=out, quiet=True)

    whole = new(tmp_path / "a").fit().module
    broken = new(tmp_path / "b")
    down = stopped(getattr(broken, "trainer", broken), 8)
    with pytest.raises(down):
        broken.fit()
    resumed = new(tmp_path / "b").fit(resume="auto").module
    for (name, p), q in zip(whole.named_parameters(), resumed.parameters(), strict=True):
        assert (p.array == q.array).all(), name
    first, second = (
        (tmp_path / run / "model" / "model.safetensors").read_bytes()
        if (tmp_path / run / "model" / "model.safetensors").is_file()
        else next((tmp_path / run / "model").rglob("*.safetensors")).read_bytes()
        for run in "ab"
    )
    assert first == second


def test_diffusion_learns_a_single_picture(tmp_path):
    """All pictures are one: the network can tell the noise, and what it makes is that picture."""
    values = np.broadcast_to((np.arange(8) // 4 * 200 + 20).astype("u1"), (1920, 1, 8, 8)).copy()
    data = Pictures(values, None, (), "one picture")
    settings = diffusion.Settings(
        channels=(16, 16), layers=1, steps=120, batch_size=16, lr=3e-3, warmup=10, timesteps=100,
        sample_steps=10, samples=4, ema=0.9,
    )  # fmt: skip
    trained = diffusion.Diffusion(data, settings, out=tmp_path, quiet=True)
    untrained = trained.loss
    before = diffusion.LossByTimestep(untrained, data)(trained.module)
    made = trained.fit()(4, seed=0, output="array")
    after = diffusion.LossByTimestep(untrained, data)(trained.module)
    assert np.mean(list(after.values())) < 0.2 * np.mean(list(before.values()))
    assert np.abs(made - data.scaled()[:4]).mean() < 0.25


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "sample"])
def test_min_snr_weighs_the_same_error_of_the_clean_sample(kind):
    """Whatever is predicted, the loss is min(SNR, 5) times the error of the clean sample."""
    rng = np.random.default_rng(0)
    signal = rng.uniform(0.01, 0.99, 20)
    clean, noise, guess = rng.standard_normal((3, 20))
    noisy = np.sqrt(signal) * clean + np.sqrt(1 - signal) * noise
    guessed_noise = (noisy - np.sqrt(signal) * guess) / np.sqrt(1 - signal)
    error = {
        "sample": guess - clean,
        "epsilon": guessed_noise - noise,
        "v_prediction": (
            np.sqrt(signal) * (guessed_noise - noise) - np.sqrt(1 - signal) * (guess - clean)
        ),
    }[kind]
    wanted = np.minimum(signal / (1 - signal), 5) * (guess - clean) ** 2
    assert diffusion.weights(kind, signal, 5.0) * error**2 == pytest.approx(wanted)
    assert (diffusion.weights(kind, signal, 0) == 1).all()


def test_loss_is_that_of_the_scheduler():
    """The mixture and the target of the loss are the scheduler's `add_noise` and velocity."""
    data = pictures(4)
    settings = diffusion.Settings(timesteps=30)
    scheduler = diffusion.DDIMScheduler(**settings.noise)
    loss = diffusion.DiffusionLoss(scheduler, no_class=2)
    noise = np.random.default_rng(0).standard_normal((4, 1, 8, 8)).astype("f4")
    times, seen = np.array([0, 7, 15, 29]), {}

    class Network(bt.nn.Module):
        def forward(self, x, t, labels):
            seen.update(x=x, t=t, labels=labels)
            return scheduler.get_velocity(bt.tensor(data.scaled()), bt.tensor(noise), times)

    errors = loss.errors(Network(), data.scaled(), noise, times, data.labels)
    assert errors.numpy() == pytest.approx(np.zeros(4), abs=1e-10)
    mixed = scheduler.add_noise(bt.tensor(data.scaled()), bt.tensor(noise), times)
    assert seen["x"].numpy() == pytest.approx(mixed.numpy(), abs=1e-5)
    assert (seen["t"].numpy() == times).all() and (seen["labels"].numpy() == data.labels).all()


def test_rates_go_up_stay_and_fall():
    rate = rates(100, 10, 0.3)
    assert [rate(0), rate(9), rate(50), rate(69)] == pytest.approx([0.1, 1, 1, 1])
    assert [rate(85), rate(100)] == pytest.approx([0.5, 0])
    assert [rates(200, 10, 0.3)(i) for i in range(70)] == [rate(i) for i in range(70)]


# -- pictures ------------------------------------------------------------------------------------


def test_folders_with_and_without_classes(folder):
    found = read_pictures(folder, 8)
    assert found.shape == (3, 8, 8) and len(found) == 12 and found.classes == ("cats", "dogs")
    assert read_pictures(folder, 8, grey=True).shape == (1, 8, 8)
    assert read_pictures(folder, 8, labels=False).labels is None
    flat = read_pictures(folder / "cats", 8)
    assert len(flat) == 6 and flat.labels is None
    assert (flat.values == found.values[:6]).all()
    with pytest.raises(DataError, match="--size"):
        read_pictures(folder)
    with pytest.raises(ConfigError, match="size=2"):
        read_pictures(folder, 2)


def idx(path, array):
    head = bytes([0, 0, 8, array.ndim]) + b"".join(n.to_bytes(4, "big") for n in array.shape)
    path.write_bytes(head + array.astype("u1").tobytes())


def test_idx_files(tmp_path):
    values = np.random.default_rng(0).integers(0, 256, (5, 8, 8))
    idx(tmp_path / "train-images-idx3-ubyte", values)
    idx(tmp_path / "train-labels-idx1-ubyte", np.array([0, 2, 1, 2, 0]))
    found = read_pictures(tmp_path)
    assert (found.values[:, 0] == values).all() and list(found.labels) == [0, 2, 1, 2, 0]
    assert found.classes == ("0", "1", "2")
    assert read_pictures(tmp_path / "train-images-idx3-ubyte").labels is None
    idx(tmp_path / "train-labels-idx1-ubyte", np.array([0, 1]))
    with pytest.raises(DataError, match="labels for 5"):
        read_pictures(tmp_path)
    idx(tmp_path / "train-images-idx3-ubyte", np.zeros(5))
    with pytest.raises(DataError, match="not pictures"):
        read_pictures(tmp_path)


def test_nothing_to_read(tmp_path):
    with pytest.raises(DataError, match="fashion-mnist"):
        read_pictures(tmp_path / "nowhere")
    with pytest.raises(DataError):
        read_pictures(tmp_path)
    with pytest.raises(DataError, match="less than one batch"):
        Batches(pictures(3), 4)


def test_batches_go_on_where_they_stopped():
    unbroken = Batches(pictures(), 5, flip=True)
    whole = [x.numpy() for _ in range(2) for x, _ in unbroken]
    first = Batches(pictures(), 5, flip=True)
    stream = iter(first)
    seen = [next(stream)[0].numpy() for _ in range(3)]
    second = Batches(pictures(), 5, flip=True)
    second.load_state_dict(first.state_dict())
    seen += [x.numpy() for _ in range(2) for x, _ in second]
    assert len(whole) == len(seen) == 8
    assert all((a == b).all() for a, b in zip(whole, seen, strict=True))


# -- what goes wrong, and what is logged -----------------------------------------------------------


@pytest.mark.parametrize("kind", ["dcgan", "wgan-gp", "sngan", "stylegan"])
@pytest.mark.parametrize("player", ["critic", "generator"])
def test_nan_of_a_player_is_traced(kind, player, tmp_path):
    """The weight that is to blame is broken in the second step, and nothing is updated by it."""
    settings = adversarial.Settings(width=4, latent_size=3, steps=12, batch_size=8, samples=4)
    training = adversarial.Adversarial(pictures(), settings, kind=kind, out=tmp_path, quiet=True)
    turn = training.players.turns[player]
    network = getattr(training.players, player)
    inner, seen = turn._loss, []

    def broken(batch):
        loss = inner(batch)
        seen.append([p.array.copy() for p in network.parameters()])
        return loss if turn.step < 6 else bt.log(loss - loss - 1)

    turn._loss = broken
    with pytest.raises(GradError, match=f"the loss of the {player} became nan at step") as caught:
        training.fit()
    assert caught.value.op == "log"
    assert caught.value.direction == "forward"
    assert "learning rate" in str(caught.value)
    assert len(caught.value.losses) >= 1
    after = [p.array for p in network.parameters()]
    assert all(np.array_equal(a, b) for a, b in zip(seen[-1], after, strict=True))


def test_memory_of_two_players_is_told(tmp_path):
    settings = adversarial.Settings(width=4, latent_size=3, steps=3, batch_size=8, samples=4)
    training = adversarial.Adversarial(pictures(), settings, kind="dcgan", out=tmp_path, quiet=True)
    turn = training.players.turns["generator"]
    inner = turn._loss

    def large(batch):
        if len(batch[0]) == 8:
            raise MemoryError("no room")
        return inner(batch)

    turn._loss = large
    with pytest.raises(OutOfMemoryError) as caught:
        training.fit()
    both = training.players.both
    assert caught.value.parameters == sum(x.nbytes for x in [*both.parameters(), *both.buffers()])
    assert caught.value.gradients == sum(p.nbytes for p in both.parameters())
    assert caught.value.optimizer > 0
    assert caught.value.activations > 0
    assert caught.value.batch_size == 8
    assert "fits: batch_size=" in str(caught.value)
    assert "Trainer" not in str(caught.value)


def test_runs_of_gans_hold_both_networks_with_shapes(tmp_path):
    settings = adversarial.Settings(width=4, latent_size=3, steps=3, batch_size=8, samples=4)
    adversarial.Adversarial(pictures(), settings, kind="dcgan", out=tmp_path, quiet=True).fit()
    run = bt.read_run(tmp_path)
    tree = run.about["structure"]["children"]
    assert set(tree) == {"generator", "critic"}
    assert tree["generator"]["inputs"].startswith("(8, 3)")
    assert tree["critic"]["inputs"].startswith("(8, 1, 8, 8)")
    tags = set(run.histograms)
    assert "gradients/generator/last/weight" in tags
    assert "gradients/critic/score/weight" in tags
    assert "parameters/critic/score/weight" in tags


# -- alarms and grids ----------------------------------------------------------------------------


def test_alarms():
    rng = np.random.default_rng(0)
    alarm = CollapseAlarm(rng.standard_normal((30, 1, 8, 8)))
    assert 0.8 < alarm(rng.standard_normal((30, 1, 8, 8)), 1000) < 1.2
    kinds = rng.standard_normal((3, 1, 8, 8))[np.arange(30) % 3]
    assert alarm(kinds, 10) < 0.01  # so early it says nothing
    with pytest.warns(TrainingWarning, match="mode collapse"):
        alarm(kinds + 0.01 * rng.standard_normal(kinds.shape), 1000)


@pytest.mark.parametrize("kind", ["vae", "ddpm"])
def test_pictures_that_are_all_alike_are_told(kind, tmp_path, monkeypatch):
    monkeypatch.setattr(alarms, "_PATIENCE", 1)
    common = {"steps": 1, "batch_size": 4, "samples": 4}
    if kind == "vae":
        settings = autoencoding.Settings(width=8, latent_size=4, **common)
        job = autoencoding.Autoencoding(pictures(), settings, out=tmp_path, quiet=True)
    else:
        settings = diffusion.Settings(channels=(8,), sample_steps=2, **common)
        job = diffusion.Diffusion(pictures(), settings, out=tmp_path, quiet=True)
    monkeypatch.setattr(job, "samples", lambda module: np.zeros((4, 1, 8, 8), np.float32))
    job.trainer.step = 1
    with pytest.warns(TrainingWarning, match="mode collapse"):
        assert job._evaluate(job.module)["variety"] == 0


def test_codebook_alarm(tmp_path):
    assert codebook_use(np.arange(8), 8) == (1.0, pytest.approx(8))
    assert codebook_use(np.zeros((4, 4), int), 16) == (1 / 16, pytest.approx(1))
    share, perplexity = codebook_use(np.array([0, 0, 0, 1]), 100)
    assert share == 0.5  # four codes can use four entries at most
    assert perplexity == pytest.approx(4 / 27**0.25)
    check_codebook(0.05, 100)  # so early it says nothing
    check_codebook(0.2, 1000)
    with pytest.warns(TrainingWarning, match="codebook collapse at step 1000: only 5.0%"):
        check_codebook(0.05, 1000)


def test_a_codebook_that_diverges_says_so(tmp_path):
    settings = quantizing.Settings(
        width=4, entries=8, steps=50, batch_size=8, lr=1.0, clip=1e9, warmup=0, samples=4
    )
    trained = quantizing.Quantizing(pictures(64), settings, out=tmp_path, quiet=True)
    trained.module.encoder[0].weight.array[...] = np.nan
    with pytest.raises(GradError, match="nan"):
        trained.fit()


def test_grid():
    samples = np.linspace(-1, 1, 5)[:, None, None, None] * np.ones((5, 1, 4, 6))
    picture = np.asarray(grid(samples, 3, zoom=2))
    assert picture.shape == (2 * (4 + 1 + 4), 2 * (6 + 1 + 6 + 1 + 6))
    assert picture[0, 0] == 0 and picture[0, 2 * 14] == 128 and picture[10, 14] == 255
    with pytest.raises(DataError, match="no pictures"):
        grid(np.zeros((0, 1, 4, 4)))


# -- the command ---------------------------------------------------------------------------------


def test_lists():
    assert all(name in run().output for name in RECIPES)
    said = run("ddpm").output
    assert "--min-snr" in said and "5.0" in said


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["ddmp", "x"], "ddpm"),
        (["ddpm", "fashion-mnist", "--epoch", "3"], "--epochs"),
        (["ddpm", "fashion-mnist", "--epochs"], "wants a value"),
        (["ddpm", "fashion-mnist", "--epochs", "many"], "many: a whole number is wanted"),
        (["ddpm", "fashion-mnist", "--channels", "a,b"], "commas"),
        (["ddpm", "fashion-mnist", "--schedule", "square"], "schedule"),
        (["vae", "fashion-mnist", "--lr", "-1"], "lr"),
        (["vqvae", "fashion-mnist", "--entries", "0"], "entries"),
        (["vqvae", "fashion-mnist", "--latent-size", "8"], "no setting --latent-size"),
        (["vqvae", "fashion-mnist", "--size", "30"], "multiple of 4"),
        (["dcgan", "/nowhere", "--epochs", "1"], "neither a folder"),
    ],
)
def test_bad_words(words, said):
    result = run(*words)
    assert result.exit_code != 0
    assert said in result.output + str(result.exception)
