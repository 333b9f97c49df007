"""Whisper against transformers: spectrograms, states, scores with and without a cache."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bestiary as bt
from bestiary.core.errors import ConfigError, DataError, IndexRangeError, ShapeError
from bestiary.core.weights import load_file
from bestiary.hub.filling import Options
from bestiary.hub.loading import from_folder
from bestiary.hub.sources import Request
from bestiary.text import whisper
from bestiary.text.log_mel import LogMel, mel_filters

FOLDER = Path(__file__).parents[1] / "references" / "data" / "whisper-transformers"


@pytest.fixture(scope="module")
def stored() -> dict[str, np.ndarray]:
    return load_file(FOLDER / "reference.safetensors")


@pytest.fixture(scope="module")
def module() -> Any:
    options = Options(True, bt.float32, None, None, None, None, Request())
    return from_folder(FOLDER, options).module.eval()


def tokens(array: Any) -> bt.Tensor:
    return bt.asarray(np.asarray(array))


def sounds(stored: dict[str, np.ndarray]) -> list[np.ndarray]:
    return [stored[f"sound.{i}"] / np.float32(32_768) for i in range(3)]


# -- spectrograms ----------------------------------------------------------------------------------


def test_spectrograms_equal_transformers(stored: dict[str, np.ndarray]) -> None:
    small = LogMel(bins=20, seconds=1)
    found = np.stack([small(sound) for sound in sounds(stored)])
    assert found.shape == (3, 20, 100) and found.dtype == np.float32
    assert np.abs(found - stored["features"]).max() < 1e-4
    full = LogMel()(sounds(stored)[0])
    assert full.shape == (80, 3000)
    assert np.abs(full[:, :60] - stored["full"]).max() < 1e-4
    one, two, three = sounds(stored)
    long = small.whole(np.concatenate([two, one[::-1], three, two]))
    assert long.shape == stored["whole"].shape
    assert np.abs(long - stored["whole"]).max() < 1e-4


def test_silence_and_cuts() -> None:
    log_mel = LogMel(bins=20, seconds=1)
    quiet = log_mel(np.zeros(500, np.float32))
    assert np.allclose(quiet, (-10 + 4) / 4)
    tone = np.sin(np.arange(40_000) * 0.3).astype(np.float32)
    assert np.array_equal(log_mel(tone), log_mel(tone[:16_000]))
    assert log_mel.whole(tone[:7]).shape == (20, 1)


def test_filters_have_their_area() -> None:
    filters = mel_filters(80, 16_000, 400)
    assert filters.shape == (201, 80) and (filters >= 0).all() and filters.any(axis=0).all()
    assert abs(filters[:, -1].sum() * 40 - 1) < 0.05  # hertz from one frequency to the next


@pytest.mark.parametrize(
    ("given", "word"),
    [
        ({"bins": 0}, "bins"),
        ({"rate": 16_000.0}, "rate"),
        ({"hop": -3}, "hop"),
        ({"seconds": 0}, "seconds"),
        ({"window": 10**9}, "window"),
    ],
)
def test_spectrograms_that_make_no_sense(given: dict[str, Any], word: str) -> None:
    with pytest.raises(ConfigError, match=word):
        LogMel(**given)


def test_spectrograms_of_another_model() -> None:
    with pytest.raises(ConfigError, match="different models"):
        LogMel.from_config({"feature_size": 128}, 80, 3000)
    assert LogMel.from_config(None, 20, 100).seconds == 1
    made = LogMel.from_config(LogMel().to_config(), 80, 3000)
    assert made == LogMel()
    with pytest.raises(DataError, match="finite"):
        LogMel()(np.full(100, np.nan, np.float32))
    with pytest.raises(DataError, match="shape"):
        LogMel().whole(np.zeros((2, 3), np.float32))


# -- the network -----------------------------------------------------------------------------------


def test_equals_transformers(module: Any, stored: dict[str, np.ndarray]) -> None:
    features = bt.asarray(stored["features"])
    with bt.inference_mode():
        states = module.encode(features)
        assert np.abs(states.numpy() - stored["states"]).max() < 1e-4
        ids = tokens(stored["decoder_input_ids"])
        found = module(features, decoder_input_ids=ids).numpy()
        want = stored["output"]
        assert np.abs(found - want).max() < 1e-4 * max(1.0, np.abs(want).max())
        last = module.decode(ids, states, last=2).numpy()
        assert np.abs(last - want[:, -2:]).max() < 1e-4 * np.abs(want).max()
        assert module(features).shape == (3, 1, 121)


def test_a_cache_changes_nothing(module: Any, stored: dict[str, np.ndarray]) -> None:
    ids, want = stored["decoder_input_ids"], stored["output"]
    with bt.inference_mode():
        states = module.encode(bt.asarray(stored["features"]))
        cache = module.cache(3, 24)
        for start, stop in ((0, 4), (4, 5), (5, 20), (20, 24)):
            found = module.decode(tokens(ids[:, start:stop]), states, cache=cache).numpy()
            assert np.abs(found - want[:, start:stop]).max() < 1e-3
        cache.select([2, 0])
        cache.keep(23)
        found = module.decode(tokens(ids[[2, 0], 23:]), states, cache=cache).numpy()
        assert np.abs(found[:, 0] - want[[2, 0], -1]).max() < 1e-3


def test_padding_of_the_decoder(module: Any, stored: dict[str, np.ndarray]) -> None:
    ids = stored["decoder_input_ids"][:1, :6]
    padded = np.concatenate([ids, np.full((1, 3), 60)], axis=1)
    mask = np.array([[1] * 6 + [0] * 3])
    with bt.inference_mode():
        states = module.encode(bt.asarray(stored["features"][:1]))
        plain = module.decode(tokens(ids), states).numpy()
        found = module.decode(tokens(padded), states, decoder_attention_mask=tokens(mask)).numpy()
    assert np.abs(found[:, :6] - plain).max() < 1e-5


def test_training_lowers_the_loss(stored: dict[str, np.ndarray]) -> None:
    options = Options(True, bt.float32, None, None, None, None, Request())
    network = from_folder(FOLDER, options).module.train()
    features, ids = bt.asarray(stored["features"]), tokens(stored["decoder_input_ids"])
    optimizer = bt.optim.AdamW(network.parameters(), lr=3e-3)
    losses = []
    for _ in range(6):
        scores = network(features, decoder_input_ids=ids[:, :-1])
        flat = scores.reshape((-1, 121))
        loss = bt.nn.functional.cross_entropy(flat, ids[:, 1:].reshape((-1,)))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.3
    assert all(p.grad is not None for p in network.parameters())
    assert "model.encoder.embed_positions.weight" not in dict(network.named_parameters())


def test_places_are_sines_and_cosines() -> None:
    table = whisper.sinusoids(1500, 384)
    assert table.shape == (1500, 384) and table.dtype == np.float32
    assert np.allclose(table[7, [0, 192]], [np.sin(7), np.cos(7)])
    assert np.allclose(table[7, 191], np.sin(7e-4), atol=1e-7)


def test_mistakes(module: Any, stored: dict[str, np.ndarray]) -> None:
    with pytest.raises(ShapeError, match=r"\(B, 20, 100\)"):
        module.encode(bt.ones((1, 20, 90)))
    with pytest.raises(TypeError, match="floating"):
        module.encode(bt.ones((1, 20, 100), dtype=bt.int64))
    states = module.encode(bt.asarray(stored["features"][:1]))
    with pytest.raises(IndexRangeError, match="token id 121"):
        module.decode(tokens([[121]]), states)
    with pytest.raises(ShapeError, match="61 > 60"):
        module.decode(bt.ones((1, 61), dtype=bt.int64), states)
    cache = module.cache(1, 80)
    module.decode(bt.ones((1, 60), dtype=bt.int64), states, cache=cache)
    with pytest.raises(ShapeError, match="61 > 60"):
        module.decode(tokens([[1]]), states, cache=cache)


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"encoder_layers": 0}, "encoder_layers"),
        ({"vocab_size": 10**12}, "vocab_size"),
        ({"decoder_attention_heads": 7}, "cannot share"),
        ({"d_model": 3, "encoder_attention_heads": 1, "decoder_attention_heads": 1}, "even"),
        ({"activation_function": "sine"}, "sine"),
        ({"task": "fill-mask"}, "fill-mask"),
        ({"eos_token_id": 60_000}, "no token"),
        ({"dropout": -1.0}, "dropout"),
    ],
)
def test_configurations_that_make_no_sense(changes: dict[str, Any], word: str) -> None:
    with pytest.raises(ConfigError, match=word):
        whisper.Config(**changes)


def test_published_configurations() -> None:
    with pytest.raises(ConfigError, match="secret_sauce=3"):
        whisper.from_transformers({"model_type": "whisper", "secret_sauce": 3})
    wrote = {"architectures": ["WhisperForAudioClassification"]}
    with pytest.raises(ConfigError, match="WhisperForAudioClassification"):
        whisper.from_transformers(wrote)
    with pytest.raises(ConfigError, match="scale_embedding"):
        whisper.from_transformers({"scale_embedding": True})
