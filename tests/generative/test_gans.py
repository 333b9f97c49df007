"""Generators and their critics: shapes, gradients, the penalty's second order, bad input."""

import numpy as np
import pytest

import bestiary as bt
from bestiary.core.errors import BestiaryError, ConfigError, DataError, ShapeError
from bestiary.generative import dcgan, sngan, stylegan, wgan_gp
from bestiary.generative.small import frozen, halvings

KINDS = {
    "dcgan": (dcgan.Config, dcgan.DCGAN),
    "wgan-gp": (wgan_gp.Config, wgan_gp.WGANGP),
    "sngan": (sngan.Config, sngan.SNGAN),
    "stylegan": (stylegan.Config, stylegan.StyleGAN),
}
SIZES = {"size": 16, "channels": 3, "latent_size": 6, "width": 8}


def made(kind, **changes):
    config, players = KINDS[kind]
    bt.manual_seed(0)
    return players(config(**(SIZES | changes)))


def pictures(count=4, channels=3, size=16, seed=0):
    values = np.random.default_rng(seed).uniform(-1, 1, (count, channels, size, size))
    return bt.tensor(values.astype(np.float32))


@pytest.mark.parametrize("classes", [0, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_every_parameter_of_both_players_learns(kind, classes):
    gan = made(kind, num_classes=classes)
    labels = bt.tensor(np.array([0, 1, 2, 1])) if classes else None
    before = {
        name: p.detach().numpy().copy()
        for part in ("generator", "critic")
        for name, p in ((f"{part}.{n}", p) for n, p in getattr(gan, part).named_parameters())
    }
    seen = []
    for step in range(gan.chosen.critic_steps + 1):
        seen.append(gan.update(pictures(seed=step), labels))
    assert all(np.isfinite(v) for row in seen for v in row.values())
    assert sum("generator" in row for row in seen) == (2 if gan.chosen.critic_steps == 1 else 1)
    for part in ("generator", "critic"):
        for name, p in getattr(gan, part).named_parameters():
            if name == "score.bias" and kind in ("wgan-gp", "sngan"):
                continue  # cancels out: only differences of scores count
            assert (p.detach().numpy() != before[f"{part}.{name}"]).any(), (
                f"{part}.{name} stays as it was"
            )


def test_the_generators_turn_computes_nothing_for_the_critic():
    gan = made("dcgan")
    with bt.profile() as seen:
        gan.update(pictures())
    convolutions = len(gan.critic.convs)
    found = sum(call.name == "conv2d_weight_grad" for call in seen.ops)
    assert found == 2 * convolutions + len(gan.generator.convs) + 2
    assert all(p.requires_grad and p.grad is None for p in gan.critic.parameters())
    with frozen(gan.critic):
        assert not any(p.requires_grad for p in gan.critic.parameters())
    assert all(p.requires_grad for p in gan.critic.parameters())


@pytest.mark.parametrize("size", [16, 28, 48])
@pytest.mark.parametrize("kind", KINDS)
def test_shapes(kind, size):
    gan = made(kind, size=size, channels=1)
    with bt.no_grad():
        x = gan.generator(gan.latents(2))
        assert x.shape == (2, 1, size, size)
        assert gan.critic(x).shape == (2,)


@pytest.mark.parametrize("kind", KINDS)
def test_labels_change_the_picture_and_the_score(kind):
    gan = made(kind, num_classes=3)
    gan.generator.eval()
    z = bt.tensor(np.ones((1, 6), np.float32))
    one, two = (gan.generator(z, bt.tensor(np.array([c]))).detach().numpy() for c in (0, 1))
    assert np.abs(one - two).max() > 1e-6
    x = pictures(1)
    first, second = (gan.critic(x, bt.tensor(np.array([c]))).item() for c in (0, 1))
    assert first != second


def test_losses_by_hand():
    gan = made("dcgan")
    real, fake = pictures(seed=1), pictures(seed=2)
    gan.critic.eval()
    r, f = (
        gan.critic(real).detach().numpy().astype(float),
        gan.critic(fake).detach().numpy().astype(float),
    )

    def sigmoid(x):
        return 1 / (1 + np.exp(-x))

    wanted = -np.log(sigmoid(r)).mean() - np.log(1 - sigmoid(f)).mean()
    assert gan.critic_loss(real, fake, None).item() == pytest.approx(wanted, rel=1e-5)
    assert gan.generator_loss(fake, None).item() == pytest.approx(-np.log(sigmoid(f)).mean(), 1e-5)

    hinge = made("sngan")
    hinge.critic.eval()
    r, f = (hinge.critic(x).detach().numpy() for x in (real, fake))
    wanted = np.maximum(1 - r, 0).mean() + np.maximum(1 + f, 0).mean()
    assert hinge.critic_loss(real, fake, None).item() == pytest.approx(wanted, rel=1e-5)


def test_penalty_of_a_linear_critic_by_hand():
    # The slope of w.x is w everywhere, so the penalty is (|w| - 1)^2 and its gradient is known.
    w = bt.tensor(np.array([3.0, 4.0]), requires_grad=True)
    real, fake = bt.tensor(np.ones((5, 2))), bt.tensor(np.zeros((5, 2)))
    penalty = wgan_gp.gradient_penalty(
        lambda x: bt.sum(x * w, axis=1), real, fake, shares=bt.tensor(np.linspace(0, 1, 5))
    )
    assert penalty.item() == pytest.approx(16.0)
    penalty.backward()
    assert w.grad.detach().numpy() == pytest.approx(2 * (5 - 1) * np.array([3, 4]) / 5)


@pytest.mark.parametrize("which", ["penalty", "r1"])
def test_second_order_against_finite_differences(which):
    kind = "wgan-gp" if which == "penalty" else "stylegan"
    critic = made(kind, size=8, channels=1, width=3).critic.to(dtype="float64")
    real, fake = (
        bt.tensor(np.random.default_rng(i).uniform(-1, 1, (2, 1, 8, 8))) for i in range(2)
    )
    shares = bt.tensor(np.array([0.3, 0.8]))

    def value():
        if which == "penalty":
            return wgan_gp.gradient_penalty(critic, real, fake, shares=shares)
        return stylegan.slope_at(critic, real)

    value().backward()
    rng, checked = np.random.default_rng(5), 0
    for name, p in critic.named_parameters():
        if p.grad is None:  # a bias behind which nothing bends
            continue
        place = tuple(rng.integers(0, n) for n in p.shape)
        old, step = float(p.detach().numpy()[place]), 1e-6
        around = []
        for sign in (1, -1):
            p.array[place] = old + sign * step
            around.append(value().item())
        p.array[place] = old
        numeric = (around[0] - around[1]) / (2 * step)
        assert p.grad.detach().numpy()[place] == pytest.approx(numeric, rel=2e-4, abs=1e-6), name
        checked += 1
    assert checked >= 8


def test_spectral_norms_are_one():
    gan = made("sngan")
    for _ in range(30):
        gan.critic(pictures())
    weight = gan.critic.blocks[0].conv1.weight.detach().numpy()
    assert np.linalg.svd(weight.reshape(len(weight), -1))[1][0] == pytest.approx(1, abs=2e-2)


def test_demodulation_keeps_the_variance():
    bt.manual_seed(0)
    conv = stylegan.StyledConv(16, 16, 4)
    rng = np.random.default_rng(0)
    x = bt.tensor(rng.standard_normal((8, 16, 12, 12)).astype(np.float32))
    style = bt.tensor(5 * rng.standard_normal((8, 4)).astype(np.float32))
    inside = conv(x, style).detach().numpy()[:, :, 1:-1, 1:-1]
    assert inside.std(axis=(2, 3)).mean() == pytest.approx(1, abs=0.1)
    # and is what scaling each picture's own weights gives
    scales = conv.to_style(style)[0].detach().numpy()
    weight = conv.weight.detach().numpy() * conv.scale * scales[None, :, None, None]
    weight /= np.sqrt((weight**2).sum(axis=(1, 2, 3), keepdims=True) + 1e-8)
    own = bt.nn.functional.conv2d(x[:1], bt.tensor(weight), padding=1).detach().numpy()
    assert own == pytest.approx(conv(x, style).detach().numpy()[:1], abs=1e-4)


def test_a_toy_is_learnt():
    """Pictures that are all alike: after some steps what is made is near them."""
    gan = made("dcgan", size=8, channels=1, width=8)
    target = np.broadcast_to(
        np.float32(0.8) * np.sign(np.arange(8) - 3.5).astype("f4"), (8, 1, 8, 8)
    )
    real = bt.tensor(np.ascontiguousarray(target))

    def distance():
        gan.generator.eval()
        with bt.no_grad():
            return float(
                np.square(gan.generator(gan.latents(16)).detach().numpy() - target[:1]).mean()
            )

    before = distance()
    gan.generator.train()
    for _ in range(150):
        gan.update(real)
    assert distance() < 0.3 * before


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({"size": 34}, ConfigError),
        ({"size": 7}, ConfigError),
        ({"latent_size": 0}, ConfigError),
        ({"width": -1}, ConfigError),
        ({"channels": 1.5}, ConfigError),
        ({"num_classes": -2}, ConfigError),
    ],
)
def test_bad_sizes(changes, kind):
    with pytest.raises(kind):
        dcgan.Config(**(SIZES | changes))


@pytest.mark.parametrize("kind", KINDS)
def test_bad_input(kind):
    gan = made(kind, num_classes=3)
    labels = bt.tensor(np.array([0, 1, 2, 0]))
    with pytest.raises(ShapeError, match="latents"):
        gan.generator(bt.zeros((4, 5)), labels)
    with pytest.raises(ConfigError, match="labels"):
        gan.generator(bt.zeros((4, 6)))
    with pytest.raises(BestiaryError, match="3"):
        gan.generator(bt.zeros((4, 6)), bt.tensor(np.array([0, 1, 2, 3])))
    with pytest.raises(ShapeError, match="pictures"):
        gan.critic(pictures(size=8), labels)
    with pytest.raises(DataError, match="NaN"):
        gan.update(pictures() * float("nan"), labels)
    with pytest.raises(ConfigError, match="num_classes=0"):
        made(kind).update(pictures(), labels)


def test_halvings():
    assert [halvings("x", n) for n in (8, 16, 28, 32, 48, 64, 96)] == [
        (4, 1), (4, 2), (7, 2), (4, 3), (6, 3), (4, 4), (6, 4),
    ]  # fmt: skip
