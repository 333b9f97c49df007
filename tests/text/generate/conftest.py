"""A network whose logits are known: they depend on the last two tokens and nothing else."""

from __future__ import annotations

import numpy as np
import pytest


class Known:
    """A `Step` over a table; `seen` counts the tokens that were read."""

    def __init__(self, vocabulary=40, seed=0, scale=2.0):
        rng = np.random.default_rng(seed)
        self.table = rng.normal(0, scale, (vocabulary, vocabulary, vocabulary)).astype(np.float32)
        self.rows = []
        self.padding = []
        self.calls = 0

    def logits(self, row):
        return self.table[row[-2] if len(row) > 1 else 0, row[-1]]

    def start(self, rows):
        longest = max(map(len, rows))
        self.padding = [longest - len(row) for row in rows]
        self.rows = [list(row) for row in rows]
        return np.stack([self.logits(row) for row in self.rows])

    def __call__(self, tokens):
        self.calls += 1
        assert tokens.shape[0] == len(self.rows)
        found = []
        for row, more in zip(self.rows, tokens.tolist(), strict=True):
            after = []
            for token in more:
                row.append(token)
                after.append(self.logits(row))
            found.append(after)
        return np.array(found)

    def select(self, rows):
        self.rows = [list(self.rows[i]) for i in rows]
        self.padding = [self.padding[i] for i in rows]

    def keep(self, length):
        self.rows = [row[: length - pad] for row, pad in zip(self.rows, self.padding, strict=True)]


class Letters:
    """A tokenizer of characters and a few words; token 0 ends a text."""

    def __init__(self, words=()):
        self.words = ["", *words]

    @property
    def size(self):
        return len(self.words)

    def token(self, i):
        return self.words[i]

    def decode(self, ids):
        return "".join(self.words[i] for i in ids)

    def stream(self):
        return _Stream(self)


class _Stream:
    def __init__(self, tokenizer):
        self.tokenizer = tokenizer

    def push(self, token):
        return self.tokenizer.words[token]

    def finish(self):
        return ""


@pytest.fixture
def known():
    return Known


@pytest.fixture
def letters():
    return Letters
