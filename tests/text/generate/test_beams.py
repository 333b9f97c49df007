"""Beams that draw, and beams that keep to a form."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest

from bestiary.text.generate.guide import Guide
from bestiary.text.generate.loop import decode
from bestiary.text.generate.sampling import warped
from bestiary.text.generate.schema import of_choices, of_schema
from bestiary.text.generate.settings import Settings
from bestiary.text.generate.vocabulary import Vocabulary


def run(step, prompts, room=12, guide=None, **given):
    settings = Settings().changed(given)
    return decode(step, prompts, settings, rooms=[room] * len(prompts), guide=guide)


def total(step, prompt, ids):
    row, found = list(prompt), 0.0
    for token in ids:
        logits = step.table[row[-2], row[-1]].astype(np.float64)
        found += logits[token] - np.log(np.exp(logits).sum())
        row.append(token)
    return found


# -- drawn -------------------------------------------------------------------------------------


def test_drawn_beams_at_a_low_temperature_are_the_searched_ones(known):
    step = known(12, seed=1)
    more = {"num_beams": 3, "num_return_sequences": 3, "eos_token_id": 4}
    searched = run(step, [[1, 2], [7, 3]], **more)
    drawn = run(step, [[1, 2], [7, 3]], temperature=1e-4, seed=0, **more)
    assert [a.ids for a in drawn] == [a.ids for a in searched]
    np.testing.assert_allclose(
        [a.score * 1e-4 for a in drawn], [a.score for a in searched], rtol=1e-4
    )


def test_candidates_are_drawn_without_replacement(known):
    step = known(5, scale=1.0)
    counts = dict.fromkeys(itertools.combinations(range(5), 2), 0)
    draws = 3000
    for seed in range(draws):
        answers = run(
            step, [[1, 2]], room=1, num_beams=2, num_return_sequences=2, temperature=0.8, seed=seed
        )
        first, second = answers
        assert first.score >= second.score and len(first.ids) == 1
        counts[tuple(sorted((first.ids[0], second.ids[0])))] += 1
    weights = np.exp(step.table[1, 2].astype(np.float64) / 0.8)
    p = weights / weights.sum()
    gap = 0.0
    for (a, b), count in counts.items():
        gap += abs(count / draws - p[a] * p[b] * (1 / (1 - p[a]) + 1 / (1 - p[b])))
    assert gap < 0.08  # ten cells; 0.04 is usual
    assert abs(np.array(list(counts.values())) / draws - 0.1).sum() > 0.3


def test_drawn_beams_repeat_themselves_alone_and_in_a_batch(known):
    step = known(30)
    more = {"num_beams": 3, "num_return_sequences": 2, "top_k": 9, "temperature": 1.5, "seed": 4}
    together = run(step, [[1, 2], [7, 3]], **more)
    assert [a.ids for a in run(step, [[7, 3]], **more)] == [a.ids for a in together[2:]]
    assert [a.ids for a in run(step, [[1, 2]], **{**more, "seed": 5})] != [
        a.ids for a in together[:2]
    ]


def test_top_k_bounds_what_beams_draw(known):
    step = known(20)
    for seed in range(20):
        more = {"num_beams": 3, "num_return_sequences": 3, "top_k": 1, "seed": seed}
        for answer in run(step, [[1, 2]], room=4, **more):
            row = [1, 2]
            for token in answer.ids:  # two of them, so that not all candidates can end
                assert token in np.argsort(step.table[row[-2], row[-1]])[-2:]
                row.append(token)


def test_warped_scores():
    scores = np.log(np.array([0.5, 0.3, 0.15, 0.05], np.float32))
    found = warped(scores, Settings(temperature=2.0, top_k=3), least=2)
    np.testing.assert_allclose(found[:3], scores[:3] / 2, rtol=1e-6)
    assert found[3] == -np.inf
    found = warped(scores, Settings(top_p=0.1), least=2)
    assert np.isfinite(found).tolist() == [True, True, False, False]
    nothing = np.full(4, -np.inf, np.float32)
    assert (warped(nothing, Settings(top_k=2), least=2) == -np.inf).all()


# -- of a form ---------------------------------------------------------------------------------


class Words:
    """Tokens that are letters, and a few longer ones; token 0 ends a text."""

    words = ("", *"abcdn{}[]:,0123456789", '"', "ab", "nn", '{"', '":', "bc")
    size = len(words)

    def token(self, i):
        return self.words[i]

    def decode(self, ids):
        return "".join(self.words[i] for i in ids)


@pytest.fixture
def vocabulary():
    return Vocabulary.of(Words())


def test_beams_find_the_most_probable_choice(known, vocabulary):
    step = known(Words.size, seed=3)
    options = ["abc", "cab", "bcd", "dn"]
    guide = Guide(of_choices(options), vocabulary)
    best = run(step, [[1, 2]], guide=guide, num_beams=40, length_penalty=0.0)[0]

    def spelled(text, ids=()):
        if not text:
            yield ids
        for i, word in enumerate(Words.words):
            if word and text.startswith(word):
                yield from spelled(text[len(word) :], (*ids, i))

    every = {ids: total(step, [1, 2], ids) for text in options for ids in spelled(text)}
    assert tuple(best.ids) == max(every, key=every.__getitem__)
    assert best.score == pytest.approx(max(every.values()), abs=1e-4)
    assert best.finish == "complete"


@pytest.mark.parametrize("given", [{}, {"temperature": 1.0, "seed": 3}])
@pytest.mark.parametrize("room", [14, 40])
def test_beams_keep_to_a_schema(known, vocabulary, given, room):
    schema = {
        "type": "object",
        "properties": {"a": {"type": "integer"}, "bc": {"type": "array", "items": {"const": 7}}},
        "required": ["a", "bc"],
    }
    guide = Guide(of_schema(schema), vocabulary, ends=[0])
    for seed in range(6):
        answers = run(
            known(Words.size, seed=seed), [[1, 2], [5]], room=room, guide=guide, num_beams=3,
            num_return_sequences=3, eos_token_id=0, **given,
        )  # fmt: skip
        for answer in answers:
            value = json.loads(Words().decode(answer.ids))
            assert isinstance(value["a"], int) and set(value["bc"]) <= {7}
            assert len(answer.ids) <= room
