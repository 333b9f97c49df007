"""Settings: what makes no sense, what contradicts, defaults of a model, how much fits."""

from __future__ import annotations

import json

import pytest

import bestiary as bt
from bestiary.text.generate.settings import DEFAULT_NEW_TOKENS, Settings, published_settings

ConfigError = bt.errors.ConfigError


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("temperature", -0.1),
        ("temperature", float("nan")),
        ("temperature", "hot"),
        ("top_p", 0),
        ("top_p", 1.1),
        ("top_k", -1),
        ("top_k", 1.5),
        ("min_p", 1.5),
        ("repetition_penalty", 0),
        ("max_new_tokens", 0),
        ("max_new_tokens", True),
        ("num_beams", 0),
        ("no_repeat_ngram_size", -1),
        ("early_stopping", "always"),
        ("stop", ""),
        ("stop", ["a", ""]),
        ("seed", -1),
        ("eos_token_id", -3),
        ("do_sample", "yes"),
        ("length_penalty", None),
    ],
)
def test_a_value_that_makes_no_sense_is_named(name, value):
    with pytest.raises(ConfigError, match=name):
        Settings().changed({name: value})


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"num_return_sequences": 2}, "all the same"),
        ({"num_beams": 2, "num_return_sequences": 3}, "more than num_beams=2"),
        ({"do_sample": True, "temperature": 0}, "takes the best"),
        ({"max_new_tokens": 3, "min_new_tokens": 4}, "min_new_tokens=4"),
    ],
)
def test_contradictions(given, said):
    with pytest.raises(ConfigError, match=said):
        Settings().changed(given)


def test_unknown_settings_are_answered_with_the_nearest():
    with pytest.raises(ConfigError, match="Did you mean 'temperature'"):
        Settings().changed({"temprature": 1})
    with pytest.raises(ConfigError, match="Did you mean 'max_new_tokens'"):
        Settings().changed({"max_tokens": 1})


def test_when_tokens_are_drawn():
    assert not Settings().sampling
    assert not Settings(temperature=0).sampling
    assert Settings(temperature=0.5).sampling and Settings(top_k=5).sampling
    assert Settings(do_sample=True).sampling and not Settings(do_sample=False, top_p=0.5).sampling


def test_what_is_given_wins_over_a_default_that_it_contradicts():
    draws = Settings(do_sample=True, temperature=0.6, top_p=0.9)
    assert draws.sampling and not draws.changed({"temperature": 0}).sampling
    assert draws.changed({"num_beams": 2}).num_beams == 2
    assert draws.changed({"top_k": 5}).temperature == 0.6
    beams = Settings(num_beams=4)
    assert beams.changed({"temperature": 1.0}).num_beams == 1
    both = beams.changed({"num_beams": 2, "top_k": 3})
    assert both.num_beams == 2 and both.sampling
    both = draws.changed({"num_beams": 2, "do_sample": True})
    assert both.sampling and both.temperature == 0.6
    assert not draws.changed({"num_beams": 2}).sampling


def test_defaults_of_a_model(tmp_path):
    assert published_settings(None, {}) == Settings()
    (tmp_path / "generation_config.json").write_text(
        json.dumps(
            {
                "do_sample": True,
                "temperature": 0.6,
                "eos_token_id": [1, 2],
                "pad_token_id": 3,
                "transformers_version": "5",
                "max_length": 20,
            }
        )
    )
    found = published_settings(tmp_path, {"temperature": 3})
    assert found.temperature == 0.6 and found.eos_token_id == (1, 2) and found.max_length is None
    (tmp_path / "generation_config.json").write_text('{"temperature": 0.6, "num_beams": 4}')
    found = published_settings(tmp_path, {})
    assert found.temperature is None and found.num_beams == 4 and not found.sampling
    (tmp_path / "generation_config.json").write_text('{"do_sample": true, "num_beams": 4}')
    found = published_settings(tmp_path, {})
    assert found.num_beams == 4 and found.sampling
    (tmp_path / "generation_config.json").write_text("[")
    with pytest.raises(ConfigError, match="no JSON"):
        published_settings(tmp_path, {})


def test_room():
    assert Settings().room(10, None) == DEFAULT_NEW_TOKENS
    assert Settings().room(10, 64) == 54
    assert Settings(max_length=30).room(10, 64) == 20
    assert Settings(max_new_tokens=54).room(10, 64) == 54
    with pytest.raises(ConfigError, match=r"65 > 64.*\n.*max_new_tokens=54") as caught:
        Settings(max_new_tokens=55).room(10, 64)
    assert caught.value.context == 64
    with pytest.raises(ConfigError, match="counts the prompt"):
        Settings(max_length=10).room(10, 64)
