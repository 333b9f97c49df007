"""Continued texts of tiny models equal transformers'; the task, its arguments and bad input."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import bestiary as bt
from bestiary.text.generate.loop import decode
from bestiary.text.generate.settings import Settings
from bestiary.text.generate.steps import CausalStep
from bestiary.text.tasks.generator import TextGenerator

DATA = Path(__file__).parents[1] / "references" / "data"
FAMILIES = ["gpt2", "llama"]
SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 12},
        "size": {"type": "integer"},
        "tags": {"type": "array", "items": {"enum": ["big", "small"]}, "maxItems": 2},
    },
    "required": ["name", "size", "tags"],
}

ConfigError, DataError = bt.errors.ConfigError, bt.errors.DataError
ShapeError = bt.errors.ShapeError


@pytest.fixture(scope="module")
def models():
    return {name: bt.load(DATA / f"generation-{name}") for name in FAMILIES}


@pytest.fixture(scope="module")
def references():
    return {
        name: json.loads((DATA / f"generation-{name}" / "reference.json").read_text())
        for name in FAMILIES
    }


@pytest.fixture
def gpt2(models):
    return models["gpt2"]


@pytest.fixture
def llama(models):
    return models["llama"]


def run(model, prompts, given):
    settings = Settings(**{k: v for k, v in given.items() if v is not None})
    room = settings.max_new_tokens
    step = CausalStep(model.module, room)
    return decode(step, prompts, settings, rooms=[room] * len(prompts))


# -- equal to transformers ---------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_greedy_text_of_50_tokens(models, references, family):
    model, reference = models[family], references[family]
    for key, cases in reference["greedy"].items():
        for prompt, case in zip(reference["prompts"], cases, strict=True):
            assert run(model, [prompt], case["settings"])[0].ids == case["ids"][0], key


@pytest.mark.parametrize("family", FAMILIES)
def test_prompts_of_different_lengths_together(models, references, family):
    model, reference = models[family], references[family]
    answers = run(model, reference["prompts"], reference["batch"]["settings"])
    assert [answer.ids for answer in answers] == reference["batch"]["ids"]


@pytest.mark.parametrize("family", FAMILIES)
def test_beams_and_their_scores(models, references, family):
    model, reference = models[family], references[family]
    for key, cases in reference["beams"].items():
        found = []
        for prompt, case in zip(reference["prompts"], cases, strict=True):
            answers = run(model, [prompt], case["settings"])
            found += [answer.ids for answer in answers]
            assert found[-len(answers) :] == case["ids"], key
            scores = [answer.score for answer in answers]
            np.testing.assert_allclose(scores, case["scores"], rtol=1e-4, err_msg=key)
        together = run(model, reference["prompts"], cases[0]["settings"])
        assert [answer.ids for answer in together] == found, key


# -- the task ----------------------------------------------------------------------------------


def test_a_prompt_gives_a_text_and_a_list_gives_a_list(gpt2):
    assert isinstance(gpt2, TextGenerator) and gpt2.settings.eos_token_id == (0,)
    one = gpt2("One", max_new_tokens=9)
    several = gpt2(["One", "a longer prompt, two", "One"], max_new_tokens=9, batch_size=2)
    assert several[0] == several[2] == one and several[1] != one and isinstance(one, str)
    assert gpt2([], max_new_tokens=9) == []


def test_details(gpt2):
    found = gpt2.generate("One", max_new_tokens=9, details=True, eos_token_id=None)
    assert found.finish == "length" and len(found.ids) == len(found.logprobs) == 9
    assert found.text == gpt2.tokenizer.decode(found.ids) and found.prompt == "One"
    assert json.loads(json.dumps(found.to_dict()))["score"] is None
    ids = gpt2.tokenizer.encode("One") + found.ids
    score = gpt2.score("One" + found.text)
    if score.ids == ids:
        np.testing.assert_allclose(score.logprobs[-9:], found.logprobs, atol=1e-4)
    beams = gpt2.generate("One", max_new_tokens=5, num_beams=3, details=True)
    assert beams.score == pytest.approx(sum(beams.logprobs) / len(beams.ids), abs=1e-4)


def test_defaults_come_from_generation_config(llama):
    assert llama.settings.temperature == 0.6 and llama.settings.eos_token_id == (0, 2)
    assert llama.settings.sampling and llama.settings.pad_token_id == 3
    greedy = llama("One", max_new_tokens=9, temperature=0)
    assert greedy == llama("One", max_new_tokens=9, do_sample=False)
    bt.manual_seed(1)
    first = [llama("One", max_new_tokens=9) for _ in range(3)]
    bt.manual_seed(1)
    assert first == [llama("One", max_new_tokens=9) for _ in range(3)] and len(set(first)) > 1


def test_seeds_repeat_whatever_the_batch(llama):
    prompts = ["One", "and a longer one", "three"]
    together = llama(prompts, max_new_tokens=9, seed=7)
    assert together == [llama(prompt, max_new_tokens=9, seed=7) for prompt in prompts]
    assert together == llama(prompts, max_new_tokens=9, seed=7, batch_size=1)
    assert llama(prompts, max_new_tokens=9, seed=[1, 2, 3]) == [
        llama(prompt, max_new_tokens=9, seed=seed)
        for prompt, seed in zip(prompts, [1, 2, 3], strict=True)
    ]
    several = llama("One", max_new_tokens=9, seed=7, num_return_sequences=3)
    assert several[0] == together[0] and len(set(several)) == 3


def test_streaming_gives_the_same_text(llama):
    for seed in range(3):
        whole = llama("One", max_new_tokens=20, seed=seed, temperature=1.0)
        pieces = list(llama.stream("One", max_new_tokens=20, seed=seed, temperature=1.0))
        assert "".join(pieces) == whole and len(pieces) > 3
    stop = whole[4:6]
    cut = llama("One", max_new_tokens=20, seed=2, temperature=1.0, stop=stop)
    assert cut == whole[: whole.index(stop)]
    pieces = llama.stream("One", max_new_tokens=20, seed=2, temperature=1.0, stop=[stop])
    assert "".join(pieces) == cut


def test_choices(llama):
    choices = ["yes", "no", "perhaps not"]
    found = {llama("Is it so?", choices=choices, seed=s, temperature=3.0) for s in range(25)}
    assert found == set(choices)
    assert llama(["a", "b"], choices=["x"]) == ["x", "x"]
    assert "".join(llama.stream("Is it?", choices=choices, seed=1)) in choices
    details = llama.generate("a", choices=["only"], details=True)
    assert details.text == "only" and details.finish == "complete"


@pytest.mark.parametrize("room", [60, 85])
def test_json_of_a_schema(models, room):
    for model in models.values():
        for seed in range(4):
            text = model("Tell me:", schema=SCHEMA, seed=seed, max_new_tokens=room, temperature=2.0)
            found = json.loads(text)
            assert list(found) == ["name", "size", "tags"] and type(found["size"]) is int
            assert len(found["name"]) <= 12 and set(found["tags"]) <= {"big", "small"}
        pieces = model.stream("Tell me:", schema=SCHEMA, max_new_tokens=room)
        assert json.loads("".join(pieces))["tags"] is not None


def test_a_draft_changes_nothing(gpt2):
    with pytest.raises(ConfigError, match="no text generator"):
        gpt2("One", draft="gpt2", max_new_tokens=4)
    other = bt.load(DATA / "generation-gpt2")
    noisy = other.module.transformer.h[1].mlp.c_proj.weight
    noisy.array[...] += np.random.default_rng(0).normal(0, 0.2, noisy.shape).astype(np.float32)
    plain = gpt2("One two", max_new_tokens=40)
    for draft in (gpt2, other):
        assert gpt2("One two", max_new_tokens=40, draft=draft) == plain
        assert "".join(gpt2.stream("One two", max_new_tokens=40, draft=draft)) == plain
    assert gpt2(["One two", "x"], max_new_tokens=40, draft=other)[0] == plain


def test_scores(gpt2):
    text = "The quick brown fox. " * 3
    score = gpt2.score(text)
    ids = gpt2.tokenizer.encode(text)
    logits = gpt2.module(bt.tensor([ids])).detach().numpy()[0].astype(np.float64)
    logs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    expected = [logs[i, ids[i + 1]] for i in range(len(ids) - 1)]
    np.testing.assert_allclose(score.logprobs, expected, atol=1e-4)
    assert score.total == pytest.approx(sum(expected), abs=1e-3)
    assert score.perplexity == pytest.approx(np.exp(-np.mean(expected)), rel=1e-4)
    assert [s.total for s in gpt2.score([text, text])] == [score.total] * 2


def test_long_texts_are_scored_in_blocks(llama, monkeypatch):
    from bestiary.text.tasks import generator

    whole = llama.score("one two three four five six seven eight nine ten")
    monkeypatch.setattr(generator, "_BLOCK", 5)
    again = llama.score("one two three four five six seven eight nine ten")
    np.testing.assert_allclose(again.logprobs, whole.logprobs, atol=1e-5)


# -- conversations -----------------------------------------------------------------------------


def test_chat(llama):
    said = [{"role": "user", "content": "Hello"}]
    assert llama.prompt(said) == "<|start|>user\nHello<|end|>\n<|start|>assistant\n"
    answer = llama.chat(said, max_new_tokens=9, seed=1)
    assert answer == llama.chat("Hello", max_new_tokens=9, seed=1)
    assert "".join(llama.chat(said, max_new_tokens=9, seed=1, stream=True)) == answer
    found = llama.chat(said, max_new_tokens=9, seed=1, details=True)
    assert found.text == answer and found.prompt.startswith("<|start|>user")
    assert llama.chat("Is it?", choices=["yes", "no"]) in ("yes", "no")


class Counting:
    """A module that notes how many tokens it reads at a time."""

    def __init__(self, module):
        self.module, self.read = module, []

    def __getattr__(self, name):
        return getattr(self.module, name)

    def __call__(self, ids, **given):
        self.read.append(ids.shape[1])
        return self.module(ids, **given)


def test_a_conversation_is_read_once(llama, monkeypatch):
    counting = Counting(llama.module)
    monkeypatch.setattr(llama, "module", counting)
    memory, talk, known = llama.memory(), [], 0
    given = {"max_new_tokens": 9, "temperature": 0, "eos_token_id": None}
    for turn, text in enumerate(["Hello", "One two", "Three " * 20, "Four"]):
        talk.append({"role": "user", "content": text})
        plain = llama.generate(llama.prompt(talk), details=True, **given)
        counting.read.clear()
        if turn == 1:
            answer = "".join(llama.chat(talk, memory=memory, stream=True, **given))
        else:
            found = llama.chat(talk, memory=memory, details=True, **given)
            np.testing.assert_allclose(found.logprobs, plain.logprobs, atol=1e-4)
            answer = found.text
        assert answer == plain.text
        row = llama.tokenizer.encode(llama.prompt(talk), special=False)
        new = counting.read[0]
        assert memory.ids[: len(row)] == row and len(memory.ids) == len(row) + 8
        assert new == len(row) - known
        talk.append({"role": "assistant", "content": answer})
        after = llama.tokenizer.encode(llama.prompt(talk), special=False)
        known = next(
            (i for i, (a, b) in enumerate(zip(memory.ids, after, strict=False)) if a != b),
            len(memory.ids),
        )
        assert known >= len(row)
    other = llama.chat("Quite another thing", memory=memory, **given)  # shares only the beginning
    assert other == llama.chat("Quite another thing", **given)
    assert llama.chat("Hello", memory=memory, **given) == llama.chat("Hello", **given)
    assert memory.nbytes > 0
    memory.forget()
    assert memory.nbytes == 0 and memory.ids == []


def test_an_answer_that_is_stopped_leaves_a_memory_that_can_be_used(llama):
    memory, given = llama.memory(), {"max_new_tokens": 9, "temperature": 0, "eos_token_id": None}
    pieces = llama.chat("Hello", memory=memory, stream=True, **given)
    next(pieces)
    pieces.close()
    assert llama.chat("Hello", memory=memory, **given) == llama.chat("Hello", **given)
    beams = {**given, "num_beams": 2}
    assert llama.chat("Hello", memory=memory, **beams) == llama.chat("Hello", **beams)


def test_a_memory_of_another_model(llama, gpt2):
    memory = llama.memory()
    llama.chat("Hello", memory=memory, max_new_tokens=2)
    step = CausalStep(gpt2.module, 5, memory=memory)
    with pytest.raises(ConfigError, match="another model"):
        step.start([[1, 2]])
    with pytest.raises(ConfigError, match=r"model\.memory\(\)"):
        llama.chat("Hello", memory={})


def test_a_base_model_asked_to_chat(gpt2):
    """ERRORS 33: it has no chat template, and a model for conversations is named."""
    with pytest.raises(ConfigError) as caught:
        gpt2.chat([{"role": "user", "content": "Hello"}])
    said = str(caught.value)
    assert "no chat template" in said and "generation-gpt2" in said and "base model" in said
    assert 'bt.load("' in said and len(said.splitlines()) <= 12
    name = said.split('bt.load("')[1].split('"')[0]
    assert "instruct" in name and name in bt.list_models()


def test_the_instruct_sibling_of_a_family_comes_first():
    from bestiary.text.tasks.siblings import instruct_siblings

    found = instruct_siblings("SmolLM2_135M", "llama")
    assert found[0] == "smollm2-135m-instruct"


@pytest.mark.parametrize("messages", [[], [{}], [{"role": 3}], ["hello"], 5 * [None]])
def test_messages_that_are_none(llama, messages):
    with pytest.raises(DataError, match="message"):
        llama.chat(messages)


# -- bad input ---------------------------------------------------------------------------------


def test_a_prompt_beyond_the_context(gpt2):
    """ERRORS 26: how long it is, how long it may be, what to do; never an index."""
    text = "word " * 200
    n = len(gpt2.tokenizer.encode(text))
    for call in (gpt2, gpt2.stream, gpt2.score):
        with pytest.raises(ShapeError) as caught:
            call(text)
        said = str(caught.value)
        assert f"{n} > 96" in said and "Truncate" in said and "chunks" in said
        assert caught.value.expected == 96 and caught.value.got == n


def test_more_tokens_than_fit(gpt2):
    n = len(gpt2.tokenizer.encode("One"))
    with pytest.raises(ConfigError, match=f"max_new_tokens={96 - n} or less"):
        gpt2("One", max_new_tokens=96)
    whole = gpt2.generate("One", details=True, eos_token_id=None)
    assert len(whole.ids) == 96 - n  # by default as many as fit
    assert len(gpt2.generate("One", details=True, max_length=n + 3).ids) == 3
    long = "a b c d e f g h i j k l m n o p q r s t u v w x y z"
    both = gpt2.generate(["One", long], details=True, eos_token_id=None)
    assert both[0].ids == whole.ids  # though padded together they would not fit
    assert len(both[1].ids) == 96 - len(gpt2.tokenizer.encode(long))


def test_an_empty_prompt_begins_a_text(gpt2):
    assert gpt2("", max_new_tokens=5) == gpt2("<|endoftext|>", max_new_tokens=5)
    assert gpt2.settings.pad_token_id is None  # and is not needed
    assert len(gpt2(["", "two words"], max_new_tokens=5)) == 2


@pytest.mark.parametrize("prompts", [3, [3], ["a", None], b"bytes"])
def test_prompts_that_are_no_texts(gpt2, prompts):
    with pytest.raises((DataError, TypeError)):
        gpt2(prompts, max_new_tokens=3)
    with pytest.raises(DataError, match="one prompt"):
        gpt2.stream(["a"], max_new_tokens=3)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"temperature": -1}, "temperature=-1"),
        ({"top_p": 0}, "top_p=0"),
        ({"temprature": 1}, "temperature"),
        ({"choices": ["a"], "schema": SCHEMA}, "one of them"),
        ({"num_beams": 2, "num_return_sequences": 3, "top_k": 4}, "more than num_beams=2"),
        ({"choices": "yes"}, "list of answers"),
        ({"schema": {"type": "object"}}, "properties"),
        ({"schema": SCHEMA, "max_new_tokens": 5}, "room for 5"),
        ({"eos_token_id": 290}, "vocabulary of 290"),
        ({"suppress_tokens": [400]}, "vocabulary of 290"),
        ({"batch_size": 0}, "batch_size"),
        ({"seed": [1, 2], "temperature": 1.0}, "2 seeds for 1"),
    ],
)
def test_settings_that_make_no_sense(gpt2, given, said):
    with pytest.raises(ConfigError, match=said):
        gpt2("One", **{"max_new_tokens": 9, **given})


@pytest.mark.parametrize("given", [{"num_beams": 2}, {"num_return_sequences": 2}])
def test_what_cannot_be_streamed(llama, given):
    with pytest.raises(ConfigError, match="token by token"):
        llama.stream("One", **given)


def test_a_folder_without_a_tokenizer(tmp_path):
    for name in ("config.json", "model.safetensors", "generation_config.json"):
        shutil.copy(DATA / "generation-gpt2" / name, tmp_path)
    model = bt.load(tmp_path)
    with pytest.raises(bt.errors.BestiaryError, match=r"tokenizer\.json"):
        model("One")


def test_saved_and_loaded(llama, tmp_path):
    folder = llama.save(tmp_path / "saved")
    again = bt.load(folder)
    assert again.settings == llama.settings
    assert again("One", seed=3, max_new_tokens=9) == llama("One", seed=3, max_new_tokens=9)
    assert again.chat("One", seed=3, max_new_tokens=9)


def test_special_tokens_that_only_tokenizer_json_names_are_no_text(llama):
    numbers = [llama.tokenizer.number(t) for t in ("<|start|>", "E", "<|end|>", "<|pad|>")]
    assert llama.tokenizer.decode(numbers) == "E"
