"""Samplers: orders, seeds, epochs, resume."""

from collections import Counter

import numpy as np
import pytest

import bestiary as bt
from bestiary.core.data import (
    BatchSampler,
    DistributedSampler,
    FixedSampler,
    RandomSampler,
    Sampler,
    SequentialSampler,
    WeightedRandomSampler,
)
from bestiary.core.errors import ConfigError

MAKERS = {
    "sequential": lambda: SequentialSampler(20),
    "fixed": lambda: FixedSampler([5, 3, 3, 9]),
    "random": lambda: RandomSampler(20, seed=1),
    "replacement": lambda: RandomSampler(20, seed=1, replacement=True, num_samples=33),
    "longer": lambda: RandomSampler(20, seed=1, num_samples=50),
    "weighted": lambda: WeightedRandomSampler(np.arange(20.0), seed=1),
    "distributed": lambda: DistributedSampler(20, 1, 3, seed=1),
}


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_every_sampler(make):
    sampler = make()
    first, second = list(sampler), list(sampler)
    assert len(first) == len(second) == len(sampler)
    assert all(type(index) is int for index in first)
    again = make()
    assert list(again) == first and list(again) == second
    again.set_epoch(1)
    assert list(again) == second


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
@pytest.mark.parametrize("epoch", [0, 2])
@pytest.mark.parametrize("taken", [0, 1, 3])
def test_resume(make, epoch, taken):
    sampler = make()
    for _ in range(epoch):
        list(sampler)
    iterator = iter(sampler)
    for _ in range(taken):
        next(iterator)
    state = sampler.state_dict()
    rest = list(iterator)
    fresh = make()
    fresh.load_state_dict(state)
    assert fresh.state_dict() == state
    assert list(fresh) == rest
    assert list(fresh) == list(sampler)  # the epoch after


def test_state_after_a_break_and_after_the_end():
    sampler = RandomSampler(5, seed=0)
    for _ in sampler:
        break
    assert sampler.state_dict() == {"seed": 0, "epoch": 0, "position": 1}
    list(sampler)
    assert sampler.state_dict() == {"seed": 0, "epoch": 2, "position": 0}


def test_random_orders():
    sampler = RandomSampler(1000, seed=0)
    epochs = [list(sampler) for _ in range(3)]
    assert all(sorted(order) == list(range(1000)) for order in epochs)
    assert epochs[0] != epochs[1] != epochs[2]
    assert list(RandomSampler(1000, seed=1)) != epochs[0]
    drawn = Counter(RandomSampler(10, seed=0, replacement=True, num_samples=10_000))
    assert min(drawn.values()) > 850 and max(drawn.values()) < 1150
    longer = list(RandomSampler(10, seed=0, num_samples=25))
    assert sorted(longer[:10]) == sorted(longer[10:20]) == list(range(10))
    assert len(list(RandomSampler(10, seed=0, num_samples=4))) == 4
    assert list(RandomSampler(0, seed=0)) == [] == list(RandomSampler(0, replacement=True))
    with pytest.raises(ConfigError):
        RandomSampler(10, num_samples=0)
    with pytest.raises(ConfigError):
        RandomSampler(10, seed=-1)


def test_seed_comes_from_manual_seed():
    orders = []
    for seed in (1, 1, 2):
        bt.manual_seed(seed)
        orders.append(list(RandomSampler(100)))
    assert orders[0] == orders[1] != orders[2]


def test_weights():
    drawn = Counter(WeightedRandomSampler([0, 1, 3], 8000, seed=0))
    assert drawn[0] == 0
    assert drawn[2] / drawn[1] == pytest.approx(3, rel=0.15)
    alone = list(WeightedRandomSampler([1, 0, 5, 2], 3, replacement=False, seed=0))
    assert sorted(alone) == [0, 2, 3]


def test_balanced():
    labels = ["cat"] * 90 + ["dog"] * 10
    drawn = Counter(
        labels[i] for i in WeightedRandomSampler.balanced(labels, num_samples=4000, seed=0)
    )
    assert drawn["dog"] == pytest.approx(2000, rel=0.1)


@pytest.mark.parametrize(
    "weights, options, words",
    [
        ([1, -1], {}, "weight 1 is -1"),
        ([1, float("nan")], {}, "weight 1"),
        ([0, 0], {}, "nothing to draw"),
        ([[1, 2]], {}, r"\(1, 2\)"),
        ([1, 0, 1], {"num_samples": 3, "replacement": False}, "only 2 weights"),
        ([1], {"num_samples": 0}, "at least 1"),
    ],
)
def test_weights_refused(weights, options, words):
    with pytest.raises(ConfigError, match=words):
        WeightedRandomSampler(weights, **options)


@pytest.mark.parametrize("count, world", [(20, 4), (21, 4), (3, 8), (1, 3)])
@pytest.mark.parametrize("shuffle", [True, False])
def test_distributed_shares(count, world, shuffle):
    for epoch in range(2):
        shares = []
        for rank in range(world):
            sampler = DistributedSampler(count, rank, world, shuffle=shuffle)
            sampler.set_epoch(epoch)
            shares.append(list(sampler))
        assert len({len(share) for share in shares}) == 1
        assert {i for share in shares for i in share} == set(range(count))
        dropped = [
            list(DistributedSampler(count, rank, world, shuffle=shuffle, drop_last=True))
            for rank in range(world)
        ]
        assert {len(share) for share in dropped} == {count // world}
        flat = [i for share in dropped for i in share]
        assert len(set(flat)) == len(flat)


def test_distributed_refuses():
    with pytest.raises(ConfigError, match="rank 4 does not exist in a world of 4"):
        DistributedSampler(10, 4, 4)


def test_batches():
    assert list(BatchSampler(range(7), 3)) == [[0, 1, 2], [3, 4, 5], [6]]
    assert list(BatchSampler(range(7), 3, drop_last=True)) == [[0, 1, 2], [3, 4, 5]]
    assert len(BatchSampler(range(7), 3)) == 3
    assert len(BatchSampler(range(7), 3, drop_last=True)) == 2
    for size in (0, -1, 2.5, True, "3"):
        with pytest.raises(ConfigError, match="batch_size"):
            BatchSampler(range(7), size)


def test_batches_resume_between_batches():
    sampler = BatchSampler(RandomSampler(10, seed=4), 3)
    iterator = iter(sampler)
    next(iterator), next(iterator)
    state = sampler.state_dict()
    fresh = BatchSampler(RandomSampler(10, seed=99), 3)
    fresh.load_state_dict(state)
    assert list(fresh) == list(iterator)
    with pytest.raises(ConfigError, match="range cannot be saved"):
        BatchSampler(range(7), 3).state_dict()


def test_a_sampler_of_ones_own():
    class Backwards(Sampler):
        def order(self, epoch):
            return range(self.count - 1, -1, -1)

    assert list(Backwards([7, 8, 9])) == [2, 1, 0]
    with pytest.raises(TypeError, match="define order"):
        list(Sampler(3))
