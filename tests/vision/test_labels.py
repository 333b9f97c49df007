"""Label lists."""

from __future__ import annotations

import pytest

from bestiary.core.errors import ConfigError
from bestiary.vision.labels import imagenet_synsets, label_names


def test_imagenet() -> None:
    labels, synsets = label_names("imagenet-1k"), imagenet_synsets()
    assert len(labels) == len(synsets) == len(set(synsets)) == 1000
    assert synsets == sorted(synsets)
    assert (labels[0], synsets[0]) == ("tench, Tinca tinca", "n01440764")
    assert labels[281] == "tabby, tabby cat"
    assert labels[999].startswith("toilet tissue")


def test_imagenet_as_tensorflow_counts() -> None:
    labels = label_names("imagenet-1k-background")
    assert labels == ["background", *label_names("imagenet-1k")]


def test_cifar() -> None:
    labels = label_names("cifar-10")
    assert len(labels) == 10
    assert (labels[0], labels[9]) == ("airplane", "truck")


def test_fashion() -> None:
    import bestiary as bt

    labels = label_names("fashion-mnist")
    assert len(labels) == 10 and (labels[0], labels[9]) == ("T-shirt/top", "Ankle boot")
    assert bt.load("resnet-fashion").labels == labels


def test_the_list_cannot_be_spoilt_by_its_user() -> None:
    label_names("cifar-10").clear()
    assert len(label_names("cifar-10")) == 10


def test_unknown_list() -> None:
    with pytest.raises(ConfigError, match="imagenet-1k, cifar-10"):
        label_names("imagenet")


def test_coco() -> None:
    labels = label_names("coco-91")
    assert len(labels) == 91
    assert sum(label != "N/A" for label in labels) == 80
    assert (labels[1], labels[17], labels[90]) == ("person", "cat", "toothbrush")
    used = label_names("coco-80")
    assert (len(used), used[0], used[15], used[79]) == (80, "person", "cat", "toothbrush")
