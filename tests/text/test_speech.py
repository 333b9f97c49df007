"""Speech: transcripts equal to transformers', times, languages, long recordings, bad input."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bestiary as bt
from bestiary.core.errors import ConfigError, DataError, HubError
from bestiary.core.weights import load_file
from bestiary.text.generate.history import History
from bestiary.text.transcription import LANGUAGES, Prompt, TimestampRule, pieces

pytest.importorskip("tokenizers")
FOLDER = Path(__file__).parents[1] / "references" / "data" / "whisper-transformers"
ZERO = 70  # the token of time 0


@pytest.fixture(scope="module")
def stored() -> dict[str, np.ndarray]:
    return load_file(FOLDER / "reference.safetensors")


@pytest.fixture(scope="module")
def sounds(stored: dict[str, np.ndarray]) -> list[np.ndarray]:
    return [stored[f"sound.{i}"] for i in range(3)]


@pytest.fixture(scope="module")
def long(sounds: list[np.ndarray]) -> np.ndarray:
    one, two, three = sounds
    return np.concatenate([two, one[::-1], three, two])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: Any) -> Path:
    """The tiny model with a tokenizer of words; times are no tokens of it, as in old files."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    target = tmp_path_factory.mktemp("whisper") / "model"
    shutil.copytree(FOLDER, target)
    special = ["endoftext", "startoftranscript", "en", "de", "fr", "translate", "transcribe"]
    special += ["startoflm", "nospeech", "notimestamps"]
    words = {f"w{i}": i for i in range(60)} | {
        f"<|{name}|>": 60 + i for i, name in enumerate(special)
    }
    made = Tokenizer(models.WordLevel(words, unk_token="w0"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.add_special_tokens([f"<|{name}|>" for name in special])
    made.save(str(target / "tokenizer.json"))
    (target / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<|endoftext|>"}))
    return target


@pytest.fixture(scope="module")
def model(folder: Path) -> Any:
    return bt.load(folder)


def ids_of(found: Any) -> list[list[int]]:
    return [[i for one in transcript.segments for i in one.ids] for transcript in found]


def answers(rows: np.ndarray, prompt: int) -> list[list[int]]:
    """What the reference answered, without prompt and padding."""
    return [list(np.trim_zeros(np.where(row == 60, 0, row)[prompt:], "b")) for row in rows]


def test_texts_equal_transformers(model: Any, sounds: Any, stored: dict[str, np.ndarray]) -> None:
    how = {"rate": 16_000, "language": "german", "task": "translate", "max_new_tokens": 50}
    found = model.transcribe(sounds, **how)
    assert ids_of(found) == answers(stored["greedy"], 4)
    assert [one.language for one in found] == ["de"] * 3
    assert model(sounds, **how) == [one.text for one in found]
    assert model(sounds[1], **how) == found[1].text
    assert model(sounds, batch_size=2, **how) == [one.text for one in found]


def test_beams_equal_transformers(model: Any, sounds: Any, stored: dict[str, np.ndarray]) -> None:
    how = {"rate": 16_000, "language": "fr", "num_beams": 3, "max_new_tokens": 9}
    assert ids_of(model.transcribe(sounds, **how)) == answers(stored["beams"], 4)


def test_times_equal_transformers(model: Any, sounds: Any, stored: dict[str, np.ndarray]) -> None:
    rule = TimestampRule(ZERO, 60, 20)
    from bestiary.text.generate.loop import decode
    from bestiary.text.generate.steps import Seq2SeqStep

    with bt.inference_mode():
        states = model.module.encode(bt.asarray(stored["features"]))
    settings = model.settings.changed({"max_new_tokens": 50})
    step = Seq2SeqStep(model.module, states, None, 50)
    prompt = model.prompt.tokens(62, None, True)
    assert prompt == [61, 62, 66]
    found = decode(step, [prompt] * 3, settings, rooms=[50] * 3, rules=[rule])
    assert [answer.ids for answer in found] == stored["timed"][:, 3:].tolist()


def test_long_recordings_equal_transformers(
    model: Any, long: np.ndarray, stored: dict[str, np.ndarray]
) -> None:
    found = model.transcribe(long, rate=16_000, language="en", task="transcribe")
    times = np.array([[one.start, one.end] for one in found.segments])
    assert len(times) == len(stored["long.times"]) == 9
    assert np.abs(times - stored["long.times"]).max() < 1e-6
    assert [len(one.ids) for one in found.segments] == stored["long.counts"].tolist()
    assert ids_of([found])[0] == stored["long.ids"].tolist()
    assert found.seconds == pytest.approx(2.8) and "<|" not in found.text
    several = model.transcribe([long, long[:20_000]], rate=16_000, language="en")
    assert several[0] == found and several[1].seconds == 1.25


def test_languages_are_found_out(model: Any, sounds: Any, stored: dict[str, np.ndarray]) -> None:
    codes = {62: "en", 63: "de", 64: "fr"}
    want = [codes[token] for token in stored["language"].tolist()]
    found = model.transcribe(sounds, rate=16_000, max_new_tokens=3)
    assert [one.language for one in found] == want == ["fr", "de", "fr"]
    given = model.transcribe(sounds[1], rate=16_000, language="de", max_new_tokens=3)
    assert given.text == found[1].text


def test_files_rates_and_channels(model: Any, sounds: Any, tmp_path: Path) -> None:
    import wave

    path = tmp_path / "speech.wav"
    with wave.open(str(path), "wb") as file:
        file.setnchannels(2)
        file.setsampwidth(2)
        file.setframerate(16_000)
        file.writeframes(np.repeat(sounds[1], 2).astype("<i2").tobytes())
    how = {"language": "en", "max_new_tokens": 12}
    want = model(sounds[1], rate=16_000, **how)
    assert model(path, **how) == model(str(path), **how) == want
    assert model(path.read_bytes(), **how) == want
    assert model([path, path.read_bytes()], **how) == [want, want]
    assert model((sounds[1] / 32_768).tolist(), rate=16_000, **how) == want
    other = model(sounds[1], rate=44_100, language="en", max_new_tokens=12, details=True)
    assert other.seconds == pytest.approx(16_000 / 44_100, abs=1e-4)


def test_times_of_a_short_recording(model: Any, sounds: Any) -> None:
    found = model(sounds[0], rate=16_000, language="en", timestamps=True)
    assert found.segments and found.to_dict()["segments"][0]["ids"][0] >= ZERO
    assert all(one.start <= one.end for one in found.segments)
    assert found.text == " ".join(one.text for one in found.segments if one.text)


def test_draws_repeat(model: Any, sounds: Any) -> None:
    how = {"rate": 16_000, "language": "en", "temperature": 2.0, "seed": 5, "max_new_tokens": 20}
    assert model(sounds, **how) == model(sounds, **how)
    assert model(sounds, **how) != model(sounds, **{**how, "seed": 6})


def test_saved_and_loaded_again(model: Any, sounds: Any, tmp_path: Path) -> None:
    again = bt.load(model.save(tmp_path / "saved"))
    assert again.features == model.features and again.prompt == model.prompt
    assert again.settings == model.settings
    how = {"rate": 16_000, "timestamps": True}
    assert again(sounds[0], **how) == model(sounds[0], **how)


def test_prompts() -> None:
    prompt = Prompt(61, {"en": 62}, {"translate": 65, "transcribe": 66}, 69)
    assert prompt.zero == ZERO and prompt.language("English") == prompt.language("en") == 62
    assert prompt.tokens(62, None, False) == [61, 62, 66, 69]
    assert prompt.tokens(62, "translate", True) == [61, 62, 65]
    alone = Prompt(61, {}, {}, 69)
    assert alone.tokens(None, None, False) == [61, 69]
    with pytest.raises(ConfigError, match="English alone"):
        alone.language("de")
    with pytest.raises(ConfigError, match="translates nothing"):
        alone.task("translate")
    with pytest.raises(ConfigError, match="can give none"):
        Prompt(61, {}, {}).tokens(None, None, True)
    assert len(LANGUAGES) == 100 and LANGUAGES["welsh"] == "cy"


def test_what_old_files_say(model: Any) -> None:
    said = {"forced_decoder_ids": [[1, None], [2, 65], [3, 69]], "task_to_id": {"translate": 65}}
    found = Prompt.read(said, model.config, model.tokenizer)
    assert found.default == "translate" and found.no_timestamps == 69
    assert found.languages == {"en": 62, "de": 63, "fr": 64}
    assert Prompt.read({"is_multilingual": False}, model.config, model.tokenizer).languages == {}
    with pytest.raises(ConfigError, match="no token"):
        Prompt.read({"lang_to_id": {"<|en|>": 500}}, model.config, None)
    with pytest.raises(ConfigError, match="no table"):
        Prompt.read({"lang_to_id": [3]}, model.config, None)


def test_rule_of_times() -> None:
    def allowed(new: list[int]) -> set[int]:
        history = History([61])
        for token in new:
            history.append(token)
        logits = np.zeros(80, np.float32)
        logits[1] = 50  # more probable than all times together
        TimestampRule(ZERO, 60, 3)(history, logits)
        return set(np.flatnonzero(np.isfinite(logits)).tolist())

    assert allowed([]) == {70, 71, 72, 73}
    assert allowed([70]) == set(range(69))
    assert allowed([70, 1]) == set(range(69)) | set(range(71, 80))
    assert allowed([70, 1, 75]) == set(range(75, 80))  # more probable together than each word
    assert allowed([70, 1, 75, 75]) == set(range(69))


def test_pieces() -> None:
    first, second = [70, 1, 2, 80], [80, 3, 90]
    found, covered = pieces([*first, *second], ZERO, 100)
    assert [(p.start, p.end, p.ids) for p in found] == [(0, 10, first), (10, 20, second)]
    assert covered == 100
    found, covered = pieces([*first, 80, 3], ZERO, 100)
    assert [(p.start, p.end) for p in found] == [(0, 10)] and covered == 20
    assert pieces([70, 1, 2], ZERO, 100) == ([(0, 50, [70, 1, 2])], 100)
    assert pieces([70, 1, 85], ZERO, 100)[0][0].end == 15
    assert pieces([], ZERO, 40) == ([(0, 20, [])], 40)


def test_mistakes(model: Any, sounds: Any, tmp_path: Path) -> None:
    (tmp_path / "text.wav").write_text("hello")
    with pytest.raises(DataError, match="no WAV file"):
        model(tmp_path / "text.wav")
    with pytest.raises(DataError, match="rate=16000"):
        model(sounds[0])
    with pytest.raises(DataError, match="rate=3"):
        model(sounds[0], rate=3)
    with pytest.raises(DataError, match="empty"):
        model(sounds[0][:0], rate=16_000)
    with pytest.raises(DataError, match="empty"):
        model([])
    with pytest.raises(ConfigError, match="language='xx'"):
        model(sounds[0], rate=16_000, language="xx")
    with pytest.raises(ConfigError, match="task='sing'"):
        model(sounds[0], rate=16_000, task="sing")
    with pytest.raises(ConfigError, match="batch_size"):
        model(sounds[0], rate=16_000, batch_size=0)
    with pytest.raises(ConfigError, match="stop"):
        model(sounds[0], rate=16_000, stop="w3")
    with pytest.raises(ConfigError, match="max_new_tokens"):
        model(sounds[0], rate=16_000, language="en", max_new_tokens=58)
    with pytest.raises(ConfigError, match="token 500"):
        model(sounds[0], rate=16_000, suppress_tokens=[500])
    with pytest.raises(HubError, match=r"tokenizer\.json"):
        bt.load(FOLDER)(sounds[0], rate=16_000)
