"""Resume in mid-epoch: the same remaining batches (TESTPLAN 44)."""

import json

import numpy as np
import pytest

import bestiary as bt
from bestiary.core.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    DistributedSampler,
    IterableDataset,
    MapDataset,
    RandomSampler,
    WeightedRandomSampler,
    sample_rng,
)
from bestiary.core.errors import ConfigError, DataError


class Noisy(Dataset):
    def __init__(self, count=23):
        self.count = count

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        return index + sample_rng().random() / 2


class Stream(IterableDataset):
    """Counts how much is read of it."""

    def __init__(self, count=23):
        self.count, self.read = count, 0

    def __iter__(self):
        for number in range(self.count):
            self.read += 1
            yield number + sample_rng().random() / 2


class StatefulStream(Stream):
    """Knows where it stands."""

    def __init__(self, count=23):
        super().__init__(count)
        self.place = 0

    def __iter__(self):
        while self.place < self.count:
            self.place += 1
            self.read += 1
            yield self.place + sample_rng().random() / 2
        self.place = 0

    def state_dict(self):
        return {"place": self.place}

    def load_state_dict(self, state):
        self.place = state["place"]


def noise(x):
    return x + 100 * sample_rng().random()


LOADERS = {
    "in order": lambda w: DataLoader(Noisy(), 4, seed=1, workers=w),
    "shuffled": lambda w: DataLoader(Noisy(), 4, shuffle=True, seed=1, workers=w),
    "drop last": lambda w: DataLoader(Noisy(), 4, shuffle=True, seed=1, drop_last=True, workers=w),
    "single": lambda w: DataLoader(Noisy(), None, shuffle=True, seed=1, workers=w),
    "weighted": lambda w: DataLoader(
        Noisy(), 4, sampler=WeightedRandomSampler(range(23), seed=2), seed=1, workers=w
    ),
    "distributed": lambda w: DataLoader(
        Noisy(), 4, sampler=DistributedSampler(23, 1, 2), seed=1, workers=w
    ),
    "batch sampler": lambda w: DataLoader(
        Noisy(), batch_sampler=BatchSampler(RandomSampler(23, seed=2), 5), seed=1, workers=w
    ),
    "stream": lambda w: DataLoader(MapDataset(Stream(), noise), 4, seed=1, workers=w),
    "stateful stream": lambda w: DataLoader(StatefulStream(), 4, seed=1, workers=w),
}


def values(batches):
    return [batch.tolist() if isinstance(batch, bt.Tensor) else batch for batch in batches]


@pytest.mark.parametrize("make", LOADERS.values(), ids=LOADERS)
@pytest.mark.parametrize("epoch, taken", [(0, 0), (0, 1), (1, 3), (2, 0)])
@pytest.mark.parametrize("before, after", [(0, 0), (2, 0), (0, 2), (3, 1)])
def test_the_same_remaining_batches(make, epoch, taken, before, after):
    loader = make(before)
    for _ in range(epoch):
        list(loader)
    iterator = iter(loader)
    for _ in range(taken):
        next(iterator)
    state = json.loads(json.dumps(loader.state_dict()))
    rest = values(iterator)
    following = values(loader)

    fresh = make(after)
    fresh.load_state_dict(state)
    assert fresh.epoch == epoch
    assert fresh.state_dict() == state
    assert values(fresh) == rest
    assert values(fresh) == following


def test_resumed_twice():
    whole = values(LOADERS["shuffled"](0))
    first = LOADERS["shuffled"](2)
    iterator = iter(first)
    found = values(next(iterator) for _ in range(2))
    second = LOADERS["shuffled"](0)
    second.load_state_dict(first.state_dict())
    iterator.close()
    iterator = iter(second)
    found += values(next(iterator) for _ in range(2))
    third = LOADERS["shuffled"](1)
    third.load_state_dict(second.state_dict())
    assert found + values(third) == whole


def test_state_counts_what_the_loop_was_given():
    loader = DataLoader(Noisy(40), 4, workers=3, prefetch=4)
    for number, _ in enumerate(loader):
        state = loader.state_dict()
        assert state["batches"] == number + 1 and state["samples"] == 4 * (number + 1)
        if number == 4:
            break
    assert loader.state_dict()["batches"] == 5  # a break is where one stands
    iter(loader)
    assert loader.state_dict()["epoch"] == 1


def test_the_end_of_an_epoch():
    loader = DataLoader(Noisy(8), 4, seed=0)
    iterator = iter(loader)
    next(iterator), next(iterator)
    state = loader.state_dict()
    assert (state["epoch"], state["batches"]) == (0, 2)
    fresh = DataLoader(Noisy(8), 4, seed=0)
    fresh.load_state_dict(state)
    assert list(fresh) == []  # nothing remains of it
    following = values(fresh)
    assert list(iterator) == []
    assert loader.state_dict()["epoch"] == 1 and loader.state_dict()["batches"] == 0
    assert values(loader) == following


def test_the_drawn_seed_is_kept():
    bt.manual_seed(1)
    loader = DataLoader(Noisy(), 4, shuffle=True)
    state = loader.state_dict()  # before the first epoch
    bt.manual_seed(99)
    fresh = DataLoader(Noisy(), 4, shuffle=True)
    fresh.load_state_dict(state)
    assert values(fresh) == values(loader)
    fresh = DataLoader(Noisy(), 4, shuffle=True)
    fresh.load_state_dict(loader.state_dict())  # between epochs
    assert values(fresh) == values(loader)


def test_set_epoch_goes_back():
    loader = LOADERS["shuffled"](0)
    epochs = [values(loader) for _ in range(3)]
    loader.set_epoch(1)
    assert values(loader) == epochs[1]
    state = loader.state_dict()
    loader.load_state_dict(state)
    assert values(loader) == epochs[2]


def test_a_stateful_stream_is_not_read_again():
    loader = LOADERS["stateful stream"](2)
    iterator = iter(loader)
    next(iterator), next(iterator)
    state = loader.state_dict()
    iterator.close()
    assert state["stream"] == {"place": 8}
    source = StatefulStream()
    fresh = DataLoader(source, 4, seed=1)
    fresh.load_state_dict(state)
    assert fresh.state_dict()["stream"] == {"place": 8}
    list(fresh)
    assert source.read == 15


def test_what_cannot_be_resumed():
    loader = DataLoader(Noisy(), 4, seed=0)
    next(iter(loader))
    state = loader.state_dict()
    with pytest.raises(ConfigError, match="the data set was 23 and is 24") as caught:
        DataLoader(Noisy(24), 4).load_state_dict(state)
    assert "set_epoch(1)" in str(caught.value)
    with pytest.raises(ConfigError, match="the batch size was 4 and is 5"):
        DataLoader(Noisy(), 5).load_state_dict(state)
    with pytest.raises(ConfigError, match="not the state"):
        DataLoader(Noisy(), 4).load_state_dict({"epoch": 1})
    # Between epochs another size is no matter.
    between = DataLoader(Noisy(), 4, shuffle=True, seed=0).state_dict()
    other = DataLoader(Noisy(24), 5, shuffle=True)
    other.load_state_dict(between)
    assert len(list(other)) == 5


def test_a_sampler_without_a_state():
    class Plain:
        def __iter__(self):
            return iter([2, 0, 1])

        def __len__(self):
            return 3

    loader = DataLoader(Noisy(), 1, sampler=Plain(), seed=0)
    assert loader.state_dict()["batches"] == 0  # between epochs there is nothing to know
    assert [int(b.item()) for b in loader] == [2, 0, 1]
    for _ in loader:
        with pytest.raises(ConfigError, match=r"Plain cannot be saved.*\n.*bt\.data\.Sampler"):
            loader.state_dict()


def test_a_stream_that_became_shorter():
    loader = DataLoader(Stream(23), 4, seed=0)
    iterator = iter(loader)
    for _ in range(4):
        next(iterator)
    state = loader.state_dict()
    fresh = DataLoader(Stream(10), 4, seed=0)
    fresh.load_state_dict(state)
    with pytest.raises(DataError, match="only 10"):
        list(fresh)


def test_states_of_samplers_and_numpy_lengths_are_json():
    loader = DataLoader(Noisy(), 4, sampler=np.array([1, 2, 3]), seed=0)
    next(iter(loader))
    assert json.loads(json.dumps(loader.state_dict())) == loader.state_dict()
