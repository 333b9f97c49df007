"""The shipped models of Fashion-MNIST: they load, repeat themselves, make what they are told."""

import numpy as np
import pytest

import bestiary as bt
from bestiary.core.errors import DataError
from bestiary.generative.measures import classifier_features, features_of, frechet_distance

NAMES = ("vae-fashion", "dcgan-fashion", "ddpm-fashion")


@pytest.mark.parametrize("name", NAMES)
def test_pictures_of_a_seed(name):
    model = bt.load(name)
    assert model.card.license == "Apache-2.0" and "fashion.py" in (model.card.note or "")
    pictures = model(2, seed=3)
    assert [(p.size, p.mode) for p in pictures] == [((28, 28), "L")] * 2
    alone = model(1, seed=4)[0]
    assert np.abs(np.asarray(alone).astype(int) - np.asarray(pictures[1])).max() <= 1
    assert np.asarray(alone).std() > 20
    with pytest.raises(DataError):
        model(1, label="snaeker")


def test_sneakers_are_taken_for_sneakers():
    classifier = bt.load("resnet-fashion")
    for name in ("dcgan-fashion", "ddpm-fashion"):
        found = [classifier(p)[0]["label"] for p in bt.load(name)(8, label="sneaker", seed=0)]
        assert found.count("Sneaker") >= 6, (name, found)


def test_the_gan_is_nearer_to_real_pictures_than_noise():
    features = classifier_features(bt.load("resnet-fashion"))
    made = bt.load("dcgan-fashion")(80, seed=0, output="array")
    blurred = bt.load("vae-fashion")(80, seed=0, output="array")
    # The GAN's pictures of other seeds stand for real ones, which are not shipped.
    other = features_of(features, bt.load("dcgan-fashion")(80, seed=1000, output="array"))
    noise = np.random.default_rng(0).uniform(-1, 1, made.shape).astype("f4")
    near, far, farthest = (
        frechet_distance(other, features_of(features, x)) for x in (made, blurred, noise)
    )
    assert near < far < farthest


def test_parameters_are_those_of_the_registry():
    from bestiary.hub.registry import find

    for name in (*NAMES, "resnet-fashion"):
        _, entry = find(name)
        counted = sum(p.size for p in bt.load(name).module.parameters())
        assert counted == entry.parameters, name
