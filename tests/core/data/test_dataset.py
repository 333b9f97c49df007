"""Data sets and how they are cut, joined and transformed."""

import numpy as np
import pytest

import bestiary as bt
from bestiary.core.data import (
    ArrayDataset,
    ConcatDataset,
    Dataset,
    IterableDataset,
    MapDataset,
    Subset,
    TensorDataset,
    random_split,
    sample_rng,
)
from bestiary.core.data.dataset import file_of, is_stream
from bestiary.core.errors import ConfigError, DataError, IndexRangeError, ShapeError


class Numbers(Dataset):
    def __init__(self, count, offset=0):
        self.count, self.offset = count, offset

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        if not -self.count <= index < self.count:
            raise IndexError(index)
        return self.offset + index % self.count

    def file_of(self, index):
        return f"{self.offset + index}.txt"


class Stream(IterableDataset):
    def __iter__(self):
        return iter(range(4))


def test_array_dataset():
    data = ArrayDataset(np.arange(12).reshape(4, 3), bt.tensor([1, 2, 3, 4]))
    assert len(data) == 4
    rows, label = data[-1]
    assert rows.tolist() == [9, 10, 11] and label == 4
    assert [label for _, label in data] == [1, 2, 3, 4]
    batch = data.gather([2, 0, 2])
    assert batch[0].shape == (3, 3) and batch[1].tolist() == [3, 1, 3]
    assert data.gather([])[0].shape == (0, 3)
    assert TensorDataset is ArrayDataset
    assert ArrayDataset([1, 2, 3])[1] == (2,)


def test_array_dataset_refuses():
    with pytest.raises(ShapeError, match=r"\[4, 3\]") as caught:
        ArrayDataset(np.zeros((4, 2)), np.zeros(3))
    assert caught.value.got == (4, 3)
    with pytest.raises(ConfigError, match="at least one"):
        ArrayDataset()
    with pytest.raises(ShapeError, match="axis"):
        ArrayDataset(np.float32(1))
    with pytest.raises((DataError, ValueError)):
        ArrayDataset([[1, 2], [3]])
    with pytest.raises(IndexRangeError, match=r"sample 4 .* 4 samples \(0 to 3\)") as caught:
        ArrayDataset(np.zeros(4))[4]
    assert caught.value.index == 4 and caught.value.length == 4
    with pytest.raises(IndexRangeError):
        ArrayDataset(np.zeros(4)).gather([0, -5])
    with pytest.raises(TypeError, match="whole numbers"):
        ArrayDataset(np.zeros(4))["a"]


def test_a_base_class_says_what_is_missing():
    with pytest.raises(TypeError, match="__getitem__"):
        Dataset()[0]
    with pytest.raises(TypeError, match="__len__"):
        len(Dataset())
    with pytest.raises(TypeError, match="__iter__"):
        iter(IterableDataset())


def test_subset():
    part = Subset(Numbers(10), [5, -1, 5])
    assert list(part) == [5, 9, 5]
    assert part.file_of(1) == "9.txt"
    assert part.gather is None
    with pytest.raises(IndexRangeError):
        part[3]
    with pytest.raises(IndexRangeError, match="sample 10"):
        Subset(Numbers(10), [10])
    arrays = Subset(ArrayDataset(np.arange(10) * 10), [7, 8])
    assert arrays.gather([1, 0])[0].tolist() == [80, 70]


def test_concat():
    both = ConcatDataset([Numbers(3), Numbers(0), Numbers(2, offset=100)])
    assert list(both) == [0, 1, 2, 100, 101]
    assert both[-1] == 101
    assert both.file_of(3) == "100.txt"
    with pytest.raises(IndexRangeError):
        both[5]
    with pytest.raises(ConfigError, match="at least one"):
        ConcatDataset([])
    for stream in (Stream(), MapDataset(Stream(), abs)):
        with pytest.raises(ConfigError, match="no length"):
            ConcatDataset([Numbers(3), stream])


def test_map():
    squares = MapDataset(Numbers(4), lambda x: x * x)
    assert list(squares) == [0, 1, 4, 9] and len(squares) == 4
    assert squares.file_of(2) == "2.txt"
    twice = MapDataset(MapDataset(Stream(), lambda x: x + 1), lambda x: 10 * x)
    assert list(twice) == list(twice) == [10, 20, 30, 40]
    with pytest.raises(ConfigError, match="function"):
        MapDataset(Numbers(4), 3)


def test_what_a_stream_is():
    assert is_stream(Stream()) and is_stream(MapDataset(Stream(), abs)) and is_stream(iter([1]))
    assert not is_stream(Numbers(3)) and not is_stream([1, 2]) and not is_stream(np.zeros(3))


def test_file_of_never_raises():
    class Odd(Numbers):
        def file_of(self, index):
            raise KeyError(index)

    assert file_of(Odd(3), 0) is None
    assert file_of([1, 2], 0) is None
    assert file_of(Numbers(3), 1) == "1.txt"


@pytest.mark.parametrize(
    "lengths, expected",
    [
        ([7, 3], [7, 3]),
        ([10, 0], [10, 0]),
        ([0.8, 0.2], [8, 2]),
        ([0.5, 0.25, 0.25], [5, 3, 2]),
        ([1.0], [10]),
        ([0.05, 0.95], [1, 9]),
    ],
)
def test_random_split(lengths, expected):
    parts = random_split(Numbers(10), lengths, seed=3)
    assert [len(part) for part in parts] == expected
    assert sorted(x for part in parts for x in part) == list(range(10))
    again = random_split(Numbers(10), lengths, seed=3)
    assert [p.indices for p in parts] == [p.indices for p in again]


def test_random_split_depends_on_the_seed_alone():
    first = random_split(Numbers(100), [50, 50])
    np.random.default_rng(9)
    bt.manual_seed(7)
    assert first[0].indices == random_split(Numbers(100), [50, 50])[0].indices
    assert first[0].indices != random_split(Numbers(100), [50, 50], seed=1)[0].indices
    assert first[0].indices != list(range(50))


def test_fractions_are_exact():
    assert [len(p) for p in random_split(Numbers(100), [0.29, 0.71])] == [29, 71]
    assert [len(p) for p in random_split(Numbers(3), [1 / 3, 1 / 3, 1 / 3])] == [1, 1, 1]
    assert sum(len(p) for p in random_split(Numbers(1001), [0.1] * 10)) == 1001


@pytest.mark.parametrize("lengths", [[5, 4], [0.5, 0.6], [-1, 11], [], [float("nan"), 1]])
def test_random_split_refuses(lengths):
    with pytest.raises(ConfigError):
        random_split(Numbers(10), lengths)


def test_split_by_label():
    labels = [0] * 60 + [1] * 30 + [2] * 10
    parts = random_split(Numbers(100), [0.8, 0.1, 0.1], labels=labels)
    counts = [np.bincount([labels[i] for i in part], minlength=3).tolist() for part in parts]
    assert counts == [[48, 24, 8], [6, 3, 1], [6, 3, 1]]
    assert sorted(i for part in parts for i in part.indices) == list(range(100))
    # Labels that do not divide: nothing lost, sizes right to one sample or so.
    rng = np.random.default_rng(0)
    odd = rng.integers(0, 37, 500)
    parts = random_split(Numbers(500), [0.7, 0.3], labels=odd)
    assert abs(len(parts[0]) - 350) <= 1
    assert sorted(i for part in parts for i in part.indices) == list(range(500))
    assert [len(p) for p in random_split(Numbers(10), [5, 5], labels=["a", "b"] * 5)] == [5, 5]
    with pytest.raises(ConfigError, match="10 samples and 3 labels"):
        random_split(Numbers(10), [0.5, 0.5], labels=[1, 2, 3])


def test_sample_rng_outside_a_loader_is_the_global_one():
    bt.manual_seed(3)
    first = sample_rng().random()
    bt.manual_seed(3)
    assert sample_rng().random() == first
    assert sample_rng().random() != first
