"""Logits as settings change them, equal to transformers' processors; draws and their chances."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import bestiary as bt
from bestiary.core.weights import load_file
from bestiary.text.generate.history import History
from bestiary.text.generate.logits import log_probability, log_softmax, processed
from bestiary.text.generate.sampling import best, distribution, draw, highest, streams
from bestiary.text.generate.settings import Settings

DATA = Path(__file__).parents[2] / "references" / "data" / "generation.safetensors"


@pytest.fixture(scope="module")
def reference():
    return {name: np.array(t) for name, t in load_file(DATA).items()}


def history():
    found = History([3, 9, 4, 9, 4, 7])
    found.append(9)
    found.append(4)
    return found


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("repetition", {"repetition_penalty": 1.5}),
        ("ngram1", {"no_repeat_ngram_size": 1}),
        ("ngram2", {"no_repeat_ngram_size": 2}),
        ("ngram3", {"no_repeat_ngram_size": 3}),
        ("late", {"min_new_tokens": 4, "eos_token_id": (9, 11)}),
        ("suppress", {"suppress_tokens": (5, 8)}),
    ],
)
def test_equal_to_transformers(reference, name, settings):
    logits = reference["logits"]
    before = logits.copy()
    found = processed(logits, history(), Settings(**settings), 50)
    assert not np.array_equal(found, logits) and np.array_equal(logits, before)
    np.testing.assert_allclose(found, reference[name], rtol=1e-6)


def test_at_the_beginning_and_at_the_end(reference):
    logits = reference["logits"]
    start = History([3, 9])
    begin = Settings(begin_suppress_tokens=(5, 8))
    np.testing.assert_array_equal(processed(logits, start, begin, 9), reference["begin"])
    np.testing.assert_array_equal(processed(logits, history(), begin, 9), logits)
    forced = Settings(forced_bos_token_id=7, forced_eos_token_id=8)
    assert best(processed(logits, start, forced, 9)) == 7
    assert best(processed(logits, history(), forced, 9)) == best(logits)
    assert best(processed(logits, history(), forced, 3)) == 8


def test_frequency_and_presence(reference):
    logits = reference["logits"]
    settings = Settings(frequency_penalty=0.5, presence_penalty=0.25)
    past = history()
    past.append(4)
    change = processed(logits, past, settings, 50) - logits
    assert change[4] == pytest.approx(-1.25) and change[9] == pytest.approx(-0.75)
    assert np.count_nonzero(change) == 2  # the prompt's tokens do not count
    for token in range(20, 60):
        past.append(token)
    change = processed(logits, past, settings, 50) - logits
    assert np.count_nonzero(change) == 42 and change[59] == pytest.approx(-0.75)


def test_nothing_to_change_copies_nothing(reference):
    logits = reference["logits"]
    assert processed(logits, history(), Settings(), 50) is logits


def test_a_rule_of_the_model(reference):
    def rule(past, logits):
        logits[: len(past.ids)] = -np.inf

    found = processed(reference["logits"], history(), Settings(), 50, [rule])
    assert np.isneginf(found[:8]).all() and np.isfinite(found[8:]).all()


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("t0.7", {"temperature": 0.7}),
        ("k10", {"top_k": 10}),
        ("p0.8", {"top_p": 0.8}),
        ("p0.999", {"top_p": 0.999}),
        ("m0.05", {"min_p": 0.05}),
        ("t1.5,k40,p0.9,m0.02", {"temperature": 1.5, "top_k": 40, "top_p": 0.9, "min_p": 0.02}),
    ],
)
def test_distribution_equal_to_transformers(reference, name, settings):
    tokens, chances = distribution(reference["logits"], Settings(**settings))
    dense = np.zeros(300)
    dense[tokens] = chances
    expected = reference[f"warped/{name}"]
    assert np.array_equal(dense > 0, expected > 0) and (np.diff(tokens) > 0).all()
    np.testing.assert_allclose(dense, expected, atol=1e-6)


def test_the_largest_without_sorting():
    rng = np.random.default_rng(0)
    for n, k in [(50_257, 50), (50_257, 1), (1000, 999), (1000, 5000), (70, 64), (33_000, 200)]:
        values = rng.normal(size=n).astype(np.float32)
        found = highest(values, k)
        assert sorted(found) == sorted(np.argsort(-values)[:k])
    flat = np.zeros(5000, np.float32)
    flat[7:10] = 1
    assert sorted(highest(flat, 2)) == [7, 8, 9]  # ties come along


def test_top_p_on_a_large_flat_vocabulary():
    logits = np.random.default_rng(1).normal(0, 0.1, 20_000).astype(np.float32)
    tokens, _ = distribution(logits, Settings(top_p=0.5))
    chances = np.sort(np.exp(logits - logits.max(), dtype=np.float64))[::-1]
    chances /= chances.sum()
    assert abs(len(tokens) - (np.searchsorted(chances.cumsum(), 0.5) + 1)) <= 1


def test_draws_follow_the_distribution():
    logits = np.log(np.array([0.5, 0.2, 0.2, 0.1], np.float32))
    uniforms = (np.arange(1000) + 0.5) / 1000
    drawn = [draw(logits, Settings(temperature=1.0), u) for u in uniforms]
    np.testing.assert_allclose(np.bincount(drawn) / 1000, [0.5, 0.2, 0.2, 0.1], atol=0.002)
    assert {draw(logits, Settings(top_k=1), u) for u in uniforms} == {0}
    banned = np.array([-np.inf, 0, -np.inf, 0], np.float32)
    assert {draw(banned, Settings(temperature=9.0), u) for u in (0.0, 0.4, 0.999999)} == {1, 3}


def test_log_probabilities(reference):
    logits = reference["logits"]
    found = log_softmax(logits[None])[0]
    assert np.exp(found).sum() == pytest.approx(1, abs=1e-5)
    assert log_probability(logits, 17) == pytest.approx(float(found[17]), abs=1e-5)


def test_streams_are_each_prompts_own():
    settings = Settings(temperature=1.0, num_return_sequences=2, seed=5)
    alone = [s.random() for s in streams(settings, 1)]
    batch = [s.random() for s in streams(settings, 3)]
    assert batch[4:] == alone == batch[:2] and alone[0] != alone[1]
    several = [s.random() for s in streams(settings.changed({"seed": [4, 5]}), 2)]
    assert several[2:] == alone != several[:2]
    with pytest.raises(bt.errors.ConfigError, match="2 seeds for 3"):
        streams(settings.changed({"seed": [4, 5]}), 3)
    bt.manual_seed(3)
    one = streams(settings.changed({"seed": None}), 1)[0].random()
    bt.manual_seed(3)
    assert one == streams(settings.changed({"seed": None}), 1)[0].random()
