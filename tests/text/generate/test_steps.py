"""The two kinds of networks behind one interface: what they are asked, and what comes back."""

from __future__ import annotations

import numpy as np
import pytest

import bestiary as bt
from bestiary.core.tensor import Tensor
from bestiary.text.generate.loop import decode
from bestiary.text.generate.settings import Settings
from bestiary.text.generate.steps import CausalStep, Seq2SeqStep


class Cache:
    def __init__(self, batch, capacity):
        self.batch, self.capacity, self.length = batch, capacity, 0
        self.rows = np.arange(batch)

    def select(self, rows):
        self.rows = self.rows[rows]

    def keep(self, length):
        self.length = length


class Network:
    """The next token is the last one plus a number that the encoder's states (or 1) tell."""

    device = "cpu"

    def __init__(self):
        self.masks = []

    def cache(self, batch, capacity):
        return Cache(batch, capacity)

    def _next(self, ids, by, cache, last):
        cache.length += ids.shape[1]
        assert cache.length <= cache.capacity and len(ids) == len(cache.rows)
        logits = np.eye(50, dtype=np.float32)[(ids + by) % 50]
        return Tensor(logits if last is None else logits[:, -last:])

    def __call__(self, input_ids, attention_mask=None, cache=None, last=None):
        self.masks.append(None if attention_mask is None else attention_mask.array.copy())
        return self._next(input_ids.array, 1, cache, last)

    def decode(self, ids, states, encoder_attention_mask=None, cache=None, last=None):
        assert (encoder_attention_mask.array[:, 0] == states.array[:, 0]).all()
        return self._next(ids.array, states.array[:, :1], cache, last)


def test_prompts_are_padded_on_the_left():
    network = Network()
    answers = decode(CausalStep(network, 3), [[5, 6, 7], [9]], Settings(), rooms=[3, 2])
    assert [a.ids for a in answers] == [[8, 9, 10], [10, 11]]
    assert network.masks[0].tolist() == [[True] * 3, [False, False, True]]
    assert network.masks[1].shape == (2, 4) and network.masks[2].shape == (1, 5)
    decode(CausalStep(network, 3), [[5, 6], [9, 9]], Settings(), rooms=[3, 2])
    assert network.masks[-1] is None  # nothing is padding: no mask


def test_a_decoder_keeps_the_states_of_its_rows():
    network = Network()
    states = np.array([[1], [2], [3]])

    def step():
        return Seq2SeqStep(network, Tensor(states), states, 9)

    answers = decode(step(), [[0]] * 3, Settings(), rooms=[2, 6, 2])
    assert [a.ids for a in answers] == [[1, 2], [2, 4, 6, 8, 10, 12], [3, 6]]
    beams = Settings(num_beams=2, num_return_sequences=2)
    found = decode(step(), [[0]] * 3, beams, rooms=[4] * 3)
    assert [a.ids for a in found[::2]] == [[1, 2, 3, 4], [2, 4, 6, 8], [3, 6, 9, 12]]
    several = Settings(temperature=0.01, num_return_sequences=2, seed=1)
    found = decode(step(), [[0]] * 3, several, rooms=[2] * 3)
    assert [a.ids for a in found] == [[1, 2], [1, 2], [2, 4], [2, 4], [3, 6], [3, 6]]


def test_a_decoder_wants_beginnings_of_one_length():
    step = Seq2SeqStep(Network(), Tensor(np.ones((2, 1))), np.ones((2, 1)), 3)
    with pytest.raises(bt.errors.ShapeError, match="2 beginnings"):
        step.start([[0], [0, 1]])
    with pytest.raises(bt.errors.ShapeError, match="2 beginnings"):
        step.start([[0]])
