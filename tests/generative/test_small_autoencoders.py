"""VAE, VQ-VAE and RealNVP: what their losses are made of, and that they are what they claim."""

import math

import numpy as np
import pytest

import bestiary as bt
from bestiary.core.errors import BestiaryError, ConfigError, ShapeError
from bestiary.generative import realnvp, vae, vqvae


def stripes(count=16, size=8, seed=0):
    """Rows of black and white, shifted: something that can be learnt."""
    rng = np.random.default_rng(seed)
    shifts = rng.integers(0, 4, count)
    rows = (np.arange(size)[None] + shifts[:, None]) // 2 % 2 * 1.6 - 0.8
    return bt.tensor(np.broadcast_to(rows[:, None, :, None], (count, 1, size, size)).astype("f4"))


def falls(module, loss, steps=60, lr=3e-3):
    optimizer = bt.optim.Adam(module.parameters(), lr=lr)
    found = []
    for _ in range(steps):
        value = loss()
        value.backward()
        optimizer.step()
        optimizer.zero_grad()
        found.append(value.item())
    return found


# -- VAE -------------------------------------------------------------------------------------------


def small_vae(**changes):
    bt.manual_seed(0)
    sizes = {"size": 8, "channels": 1, "latent_size": 4, "width": 8}
    return vae.VAE(vae.Config(**(sizes | changes)))


def test_vae_loss_by_hand():
    model, x = small_vae(), stripes()
    noise = bt.tensor(np.random.default_rng(0).standard_normal((16, 4)).astype("f4"))
    with bt.no_grad():
        model.log_sigma.array[...] = -0.5
        means, logs = (t.detach().numpy().astype(float) for t in model.encode(x))
        latents = bt.tensor((means + np.exp(logs / 2) * noise.detach().numpy()).astype("f4"))
        made = model.decode(latents).detach().numpy().astype(float)
        loss = model.loss(x, noise=noise)[0].item()
    sigma = math.exp(-0.5)
    density = -0.5 * ((x.detach().numpy() - made) / sigma) ** 2 - math.log(
        sigma * math.sqrt(2 * math.pi)
    )
    divergence = 0.5 * (means**2 + np.exp(logs) - 1 - logs).sum(axis=1)
    bound = density.sum(axis=(1, 2, 3)) - divergence
    assert loss == pytest.approx(-bound.mean() / 64, rel=1e-4)


@pytest.mark.parametrize("classes", [0, 3])
def test_vae_learns_and_every_parameter_with_it(classes):
    model, x = small_vae(num_classes=classes), stripes()
    labels = bt.tensor(np.arange(16) % 3) if classes else None
    model.loss(x, labels)[0].backward()
    for name, p in model.named_parameters():
        assert p.grad is not None and np.abs(p.grad.detach().numpy()).max() > 0, name
    found = falls(model, lambda: model.loss(x, labels)[0], 80)
    assert np.mean(found[-5:]) < found[0] - 0.4
    made = model(bt.zeros((16, 4)), labels)
    assert made.shape == (16, 1, 8, 8) and np.abs(made.detach().numpy()).max() <= 1


def test_vae_bad_input():
    model = small_vae()
    with pytest.raises(ShapeError, match="pictures"):
        model.encode(bt.zeros((2, 3, 8, 8)))
    with pytest.raises(ShapeError, match="latents"):
        model.decode(bt.zeros((2, 5)))
    with pytest.raises(ConfigError, match="labels"):
        model.decode(bt.zeros((2, 4)), bt.tensor(np.zeros(2, np.int64)))


# -- VQ-VAE ----------------------------------------------------------------------------------------


def small_vqvae(**changes):
    bt.manual_seed(0)
    sizes = {"size": 8, "channels": 1, "width": 8, "entries": 16, "features": 4}
    return vqvae.VQVAE(vqvae.Config(**(sizes | changes)))


def test_codebook_takes_the_nearest_entry():
    book = small_vqvae().codebook.eval()
    x = bt.tensor(np.random.default_rng(1).standard_normal((2, 4, 3, 5)).astype("f4"))
    found = book(x)
    points = x.detach().numpy().transpose(0, 2, 3, 1)
    distances = ((points[..., None, :] - book.entries.detach().numpy()) ** 2).sum(axis=-1)
    assert (found.codes.detach().numpy() == distances.argmin(axis=-1)).all()
    assert found.values.detach().numpy() == pytest.approx(
        book.look_up(found.codes).detach().numpy(), abs=1e-6
    )
    assert found.commitment.item() == pytest.approx(distances.min(axis=-1).mean() / 4, rel=1e-4)


def test_gradients_pass_the_codebook_unchanged():
    book = small_vqvae().codebook.eval()
    x = bt.tensor(
        np.random.default_rng(1).standard_normal((1, 4, 2, 2)).astype("f4"), requires_grad=True
    )
    weight = np.arange(16, dtype="f4").reshape(1, 4, 2, 2)
    bt.sum(book(x).values * bt.tensor(weight)).backward()
    assert x.grad.detach().numpy() == pytest.approx(weight)


def test_entries_move_to_the_mean_of_what_they_stand_for():
    book = vqvae.Codebook(2, 2, decay=0.0, restart=0.0)
    book.entries.array[...] = [[1, 0], [-1, 0]]
    points = np.array([[2, 1], [4, -1], [-3, 0], [-5, 2]], "f4")
    book.train()(bt.tensor(points.T.reshape(1, 2, 2, 2).copy()))
    assert book.entries.detach().numpy() == pytest.approx(np.array([[3, 0], [-4, 1]]), abs=1e-4)


def test_idle_entries_are_moved_to_features():
    book = vqvae.Codebook(3, 2, decay=0.0, restart=0.5)
    book.entries.array[...] = [[1, 0], [50, 50], [60, 60]]
    book.train()(bt.tensor(np.full((1, 2, 2, 2), 2, "f4")))
    assert book.entries.detach().numpy() == pytest.approx(np.full((3, 2), 2.0))


def test_vqvae_learns():
    model, x = small_vqvae(), stripes(8)
    found = falls(model.train(), lambda: model.loss(x)[0], 80)
    assert found[-1] < 0.3 * found[0]
    model.eval()
    codes = model.encode(x)
    assert codes.shape == (8, 2, 2) and codes.detach().numpy().max() < 16
    assert model.decode(codes).detach().numpy() == pytest.approx(
        model(x).detach().numpy(), abs=1e-5
    )


def test_vqvae_bad_input():
    model = small_vqvae()
    with pytest.raises(ShapeError):
        vqvae.Config(size=30)
    with pytest.raises(ConfigError):
        vqvae.Config(decay=1.5)
    with pytest.raises(ShapeError, match="pictures"):
        model(bt.zeros((1, 1, 12, 12)))
    with pytest.raises(BestiaryError, match="16"):
        model.decode(bt.tensor(np.full((1, 2, 2), 16)))


# -- RealNVP ---------------------------------------------------------------------------------------


def small_flow(random=True, **changes):
    bt.manual_seed(0)
    flow = realnvp.RealNVP(realnvp.Config(**({"size": 8, "channels": 1, "width": 6} | changes)))
    if random:  # it begins as the identity, which would hide every mistake
        rng = np.random.default_rng(3)
        for name, p in flow.named_parameters():
            if ".last." in name:
                p.array[...] = 0.2 * rng.standard_normal(p.shape)
    return flow


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("classes", [0, 2])
def test_flow_is_invertible(channels, classes):
    flow = small_flow(channels=channels, num_classes=classes)
    rng = np.random.default_rng(0)
    x = bt.tensor(rng.standard_normal((2, channels, 8, 8)).astype("f4"))
    labels = bt.tensor(np.array([0, 1])) if classes else None
    with bt.no_grad():
        latents, determinant = flow.to_latents(x, labels)
        assert np.abs(latents.detach().numpy() - x.detach().numpy().reshape(2, -1)).max() > 0.1
        assert flow.to_logits(latents, labels).detach().numpy() == pytest.approx(
            x.detach().numpy(), abs=1e-4
        )
    assert determinant.shape == (2,) and np.abs(determinant.detach().numpy()).min() > 1e-3


def test_log_determinant_is_that_of_the_jacobian():
    flow = small_flow().to(dtype="float64")
    x = bt.tensor(np.random.default_rng(0).standard_normal((1, 1, 8, 8)), requires_grad=True)
    latents, determinant = flow.to_latents(x)
    rows = []
    for i in range(64):
        (row,) = bt.grad(latents[0, i], [x], retain_graph=True)
        rows.append(row.detach().numpy().reshape(-1))
    sign, wanted = np.linalg.slogdet(np.stack(rows))
    assert abs(sign) == 1
    assert determinant.item() == pytest.approx(wanted, abs=1e-9)


def test_density_of_levels_sums_to_one():
    """With couplings that do nothing each pixel is a density of its own: its integral is 1."""
    flow = small_flow(random=False)
    levels = np.arange(256)
    totals = np.zeros(256)
    for noise in (0.1, 0.3, 0.5, 0.7, 0.9):
        x = np.zeros((256, 1, 8, 8), "f4")
        x[:, 0, 0, 0] = levels / 127.5 - 1
        given = np.full(x.shape, 0.5, "f4")
        given[:, 0, 0, 0] = noise
        with bt.no_grad():
            found = (
                flow.log_likelihood(bt.tensor(x), noise=bt.tensor(given))
                .detach()
                .numpy()
                .astype(float)
            )
            rest = np.full((1, 1, 8, 8), 0, "f4")
            all_of_them = flow.log_likelihood(
                bt.tensor(rest), noise=bt.tensor(np.full(rest.shape, 0.5, "f4"))
            ).item()
        totals += np.exp(found - all_of_them * 63 / 64) / 5
    # The margin that keeps logits finite cuts the tails of the normal distribution off.
    tail = math.erf(math.log(0.95 / 0.05) / math.sqrt(2))
    assert totals.sum() == pytest.approx(tail, abs=1e-3)


def test_flow_learns():
    flow, x = small_flow(random=False), stripes(16)
    found = falls(flow, lambda: flow.loss(x)[0], 40)
    assert found[-1] < found[0] - 0.5
    for name, p in flow.named_parameters():
        assert p.grad is None, name  # falls() clears them; and:
    flow.loss(x)[0].backward()
    for name, p in flow.named_parameters():
        assert p.grad is not None and np.abs(p.grad.detach().numpy()).max() > 0, name


def test_flow_makes_pictures_and_checks_input():
    flow = small_flow()
    latents = bt.tensor(np.random.default_rng(0).standard_normal((2, 64)).astype("f4"))
    assert flow(latents).shape == (2, 1, 8, 8)
    with pytest.raises(ShapeError, match="latents"):
        flow(bt.zeros((2, 63)))
    with pytest.raises(ShapeError, match="pictures"):
        flow.log_likelihood(bt.zeros((2, 1, 8, 4)))
    with pytest.raises(ConfigError):
        realnvp.Config(couplings=0)
