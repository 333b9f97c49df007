"""Decoding over a network whose logits are known."""

from __future__ import annotations

import numpy as np
import pytest

import bestiary as bt
from bestiary.text.generate.loop import begin, decode
from bestiary.text.generate.settings import Settings
from bestiary.text.generate.speculative import speculate
from bestiary.text.generate.stopping import Text

PROMPTS = [[3, 5], [7], [1, 2, 9, 4]]


def run(step, prompts, room=12, **given):
    more = {k: given.pop(k) for k in ("stream", "guide", "details", "rules") if k in given}
    settings = Settings().changed(given)
    return decode(step, prompts, settings, rooms=[room] * len(prompts), **more)


def by_hand(table, prompt, n):
    row = [0, *prompt] if len(prompt) == 1 else list(prompt)
    for _ in range(n):
        row.append(int(table[row[-2], row[-1]].argmax()))
    return row[-n:]


def test_greedy(known):
    step = known()
    answers = run(step, PROMPTS)
    assert [a.ids for a in answers] == [by_hand(step.table, p, 12) for p in PROMPTS]
    assert {a.finish for a in answers} == {"length"} and step.calls == 11  # none for the last token


def test_each_ends_by_itself_and_the_rest_go_on(known):
    step = known()
    whole = [by_hand(step.table, p, 12) for p in PROMPTS]
    end = whole[1][2]
    answers = run(step, PROMPTS, eos_token_id=end)
    for answer, ids in zip(answers, whole, strict=True):
        stop = ids.index(end) + 1 if end in ids else 12
        assert answer.ids == ids[:stop]
        assert answer.finish == ("end" if end in ids else "length")
    assert len({len(a.ids) for a in answers}) > 1


def test_min_new_tokens_puts_the_end_off(known):
    step = known()
    end = by_hand(step.table, PROMPTS[0], 3)[1]
    assert len(run(step, PROMPTS[:1], eos_token_id=end)[0].ids) == 2
    assert len(run(step, PROMPTS[:1], eos_token_id=end, min_new_tokens=6)[0].ids) > 6


def test_rooms_differ(known):
    step = known()
    answers = decode(step, PROMPTS, Settings(), rooms=[2, 5, 3])
    assert [len(a.ids) for a in answers] == [2, 5, 3]


def test_the_same_draws_alone_and_in_a_batch(known):
    step = known()
    together = run(step, PROMPTS, temperature=1.0, seed=4)
    for prompt, answer in zip(PROMPTS, together, strict=True):
        assert run(step, [prompt], temperature=1.0, seed=4)[0].ids == answer.ids
    assert run(step, PROMPTS, temperature=1.0, seed=5)[0].ids != together[0].ids
    several = run(step, PROMPTS, temperature=1.0, seed=4, num_return_sequences=3)
    assert [a.ids for a in several[::3]] == [a.ids for a in together]
    assert several[0].ids != several[1].ids


def test_log_probabilities_are_the_networks_own(known):
    step = known()
    (answer,) = run(step, PROMPTS[:1], temperature=0.5, seed=1, details=True)
    row = list(PROMPTS[0])
    for token, found in zip(answer.ids, answer.logprobs, strict=True):
        logits = step.table[row[-2], row[-1]].astype(np.float64)
        assert found == pytest.approx(logits[token] - np.log(np.exp(logits).sum()), abs=1e-4)
        row.append(token)


def test_not_finite_logits(known):
    step = known()
    step.table[:] = np.nan
    with pytest.raises(bt.errors.DataError, match="not finite"):
        run(step, PROMPTS)


# -- stop strings ------------------------------------------------------------------------------


def test_stop_strings_over_several_tokens(known, letters):
    step = known(6)
    tokenizer = letters(["ab", "c", "bc", "d", "e"])
    (free,) = run(step, [[1]], stream=tokenizer.stream, room=30)
    text = tokenizer.decode(free.ids)
    assert free.text == text and free.finish == "length"
    stop = text[7:11]
    (cut,) = run(step, [[1]], stream=tokenizer.stream, room=30, stop=["zzz", stop])
    assert cut.text == text[: text.index(stop)] and cut.finish == "stop"
    assert len(cut.ids) < len(free.ids)


def pieces(words, stop):
    class Characters:
        def push(self, token):
            return words[token]

        def finish(self):
            return ""

    text = Text(Characters(), stop)
    found = []
    for i in range(len(words)):
        found.append(text.push(i))
        if text.stopped:
            break
    return [*found, text.finish()], text


def test_text_that_may_become_a_stop_string_is_held_back():
    found, text = pieces(["one ", "<", "|e", "x", "<|", "end", "|> more"], ["<|end|>"])
    assert found == ["one ", "", "", "<|ex", "", "", "", ""] and text.stopped
    assert text.text == "one <|ex"
    found, text = pieces(["a", "<|", "en"], ["<|end|>"])
    assert "".join(found) == text.text == "a<|en" and found[-1] == "<|en" and not text.stopped


def test_the_first_stop_string_counts():
    _, text = pieces(["xaab", "b"], ["bb", "ab"])
    assert text.text == "xa" and text.stopped
    _, text = pieces(["aa", "ab"], ["aab"])  # "aaab": the overlap moves on
    assert text.text == "a" and text.stopped


# -- speculation -------------------------------------------------------------------------------


def both(step, draft, prompt, room, **given):
    settings = Settings().changed(given)
    (answer,) = begin([prompt], settings, [room])
    for _ in speculate(step, draft, answer):
        pass
    return answer


@pytest.mark.parametrize("noise", [0.0, 0.5, 100.0])
def test_speculation_changes_no_greedy_text(known, noise):
    step, draft = known(), known()
    draft.table = step.table + noise * known(seed=1).table
    plain = run(step, [PROMPTS[2]], room=40)[0].ids
    step.calls = 0
    assert both(step, draft, PROMPTS[2], 40).ids == plain
    assert step.calls <= (9 if noise == 0 else 39)
    end = plain[20]
    cut = both(step, draft, PROMPTS[2], 40, eos_token_id=end)
    assert cut.finish == "end" and cut.ids == plain[: plain.index(end) + 1]
    penalised = run(step, [PROMPTS[2]], room=40, repetition_penalty=3.0)[0].ids
    assert both(step, draft, PROMPTS[2], 40, repetition_penalty=3.0).ids == penalised != plain


def test_speculation_draws_from_the_networks_distribution(known):
    step, draft = known(5, scale=1.0), known(5, seed=1, scale=1.0)
    counts = np.zeros((5, 5))
    for seed in range(3000):
        ids = both(step, draft, [1, 2], 3, temperature=0.8, top_k=4, seed=seed).ids
        counts[ids[1], ids[2]] += 1
    from bestiary.text.generate.sampling import distribution

    settings = Settings(temperature=0.8, top_k=4)

    def chances(a, b):
        dense = np.zeros(5)
        tokens, found = distribution(step.table[a, b], settings)
        dense[tokens] = found
        return dense

    expected = np.zeros((5, 5))
    for first, p in enumerate(chances(1, 2)):
        for second, q in enumerate(chances(2, first)):
            expected[second] += p * q * chances(first, second)
    assert abs(counts / 3000 - expected).sum() < 0.12  # 25 cells; 0.06 is usual
    assert abs(counts / 3000 - 1 / 25).sum() > 0.3


def test_a_draft_of_another_vocabulary(known):
    with pytest.raises(bt.errors.ConfigError, match="vocabulary of 6 tokens"):
        both(known(), known(6), [1, 2], 5)


# -- beams -------------------------------------------------------------------------------------


def test_beams_find_what_greedy_misses(known):
    step = known(8, seed=2, scale=1.0)

    def total(prompt, ids):
        row, found = list(prompt), 0.0
        for token in ids:
            logits = step.table[row[-2], row[-1]].astype(np.float64)
            found += logits[token] - np.log(np.exp(logits).sum())
            row.append(token)
        return found

    greedy = run(step, [[1, 2]], room=3)[0].ids
    answers = run(step, [[1, 2]], room=3, num_beams=64, num_return_sequences=5, details=True)
    every = {
        (a, b, c): total([1, 2], (a, b, c)) for a in range(8) for b in range(8) for c in range(8)
    }
    order = sorted(every, key=every.__getitem__, reverse=True)
    assert [tuple(a.ids) for a in answers] == order[:5] and tuple(greedy) in every
    assert answers[0].score == pytest.approx(every[order[0]] / 3, abs=1e-5)
    assert sum(answers[0].logprobs) == pytest.approx(every[order[0]], abs=1e-4)


def test_beams_with_a_stop_string(known, letters):
    step = known(6)
    tokenizer = letters(["ab", "c", "bc", "d", "e"])
    plain = run(step, [[1]], stream=tokenizer.stream, room=12, num_beams=3)[0]
    stop = plain.text[5:8]
    found = run(
        step, [[1]], stream=tokenizer.stream, room=12, num_beams=3, stop=stop, early_stopping=True,
        num_return_sequences=3,
    )  # fmt: skip
    assert all(stop not in answer.text for answer in found)
    assert "stop" in {answer.finish for answer in found}
